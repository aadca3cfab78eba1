//! The queue by which a plugin has Envoy call it back: what wakes one exchange may happen while another
//! is called.

use proxy_wasm::hostcalls;
use proxy_wasm::types::Status;

/// How often a number is tried that other workers raise at the same time.
const ATTEMPTS: usize = 1000;

/// The queue of one plugin in one worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Queue(u32);

impl Queue {
    /// A queue for the plugin that is being called. Queues of the same name would be shared with other
    /// workers and plugins, so each has a number of its own.
    pub fn register() -> Option<Self> {
        let name = format!("moorage/queue/{}", count("moorage/queues"));
        match hostcalls::register_shared_queue(&name) {
            Ok(queue) => Some(Self(queue)),
            Err(error) => {
                log::error!("Envoy gives no queue: {error:?}");
                None
            }
        }
    }

    /// Has Envoy call the plugin back.
    pub fn ask_for_a_call(self) {
        if let Err(error) = hostcalls::enqueue_shared_queue(self.0, Some(b"wake")) {
            log::error!("Envoy does not queue: {error:?}");
        }
    }
}

/// Raises a number that all workers share, and gives what it is then.
fn count(key: &str) -> u64 {
    for _ in 0..ATTEMPTS {
        let (value, version) = hostcalls::get_shared_data(key).unwrap_or_default();
        let before = value.and_then(|bytes| bytes.try_into().ok()).map_or(0, u64::from_le_bytes);
        let number = before.wrapping_add(1);
        match hostcalls::set_shared_data(key, Some(&number.to_le_bytes()), version) {
            Ok(()) => return number,
            Err(Status::CasMismatch) => {}
            Err(error) => {
                log::error!("Envoy does not count: {error:?}");
                return number;
            }
        }
    }
    log::error!("nothing could be counted: other workers were faster every time");
    0
}
