//! The queue by which a plugin has Envoy call it back: what wakes one stream may happen while another is called.

use super::host::{Host, SharedDataError};

/// How often a number is tried that other workers raise at the same time.
const ATTEMPTS: usize = 1000;

/// The queue of one plugin in one worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct WakeQueue(u32);

impl WakeQueue {
    /// A queue for the plugin that is being called. Queues of the same name would be shared with other
    /// workers and plugins, so each has a number of its own.
    pub fn register(host: &impl Host) -> Option<Self> {
        let name = format!("moorage/queue/{}", next_number(host, "moorage/queues"));
        let queue = host.register_queue(&name).map(Self);
        if queue.is_none() {
            log::error!(
                "Envoy gives no shared queue, and without one requests that wait for the same read would hang; \
                 the plugin does not start"
            );
        }
        queue
    }

    /// Has Envoy call the plugin back.
    pub fn ask_for_callback(self, host: &impl Host) {
        host.enqueue(self.0);
    }
}

/// Raises a number that all workers share, and gives what it is then.
fn next_number(host: &impl Host, key: &str) -> u64 {
    for _ in 0..ATTEMPTS {
        let (value, seen) = host.shared_data(key);
        let before = value.and_then(|bytes| bytes.try_into().ok()).map_or(0, u64::from_le_bytes);
        let number = before.wrapping_add(1);
        match host.set_shared_data(key, Some(&number.to_le_bytes()), seen) {
            Ok(()) => return number,
            Err(SharedDataError::Changed) => {}
            Err(SharedDataError::Refused) => {
                log::error!(
                    "Envoy does not share the number of queues between its workers: two of them may use \
                     the same queue, and then requests can hang"
                );
                return number;
            }
        }
    }
    log::error!(
        "no number for the plugin's queue in {ATTEMPTS} attempts, because other workers took one at the same \
         time: two of them may use the same queue, and then requests can hang; restart Envoy"
    );
    0
}

#[cfg(test)]
mod tests {
    #[cfg(target_family = "wasm")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;
    use crate::filter::scripted_host::ScriptedHost;

    const KEY: &str = "number";

    #[test]
    fn a_number_is_given_once_even_if_others_raise_it_at_the_same_time() {
        let host = ScriptedHost::default();
        assert_eq!(next_number(&host, KEY), 1);
        host.state().faster_workers = 3;
        assert_eq!(next_number(&host, KEY), 5, "2, 3 and 4 are other workers'");
        host.state().faster_workers = ATTEMPTS - 1;
        assert_eq!(next_number(&host, KEY), 5 + ATTEMPTS as u64);
    }

    #[test]
    fn where_no_number_can_be_had_the_plugin_goes_on_without() {
        let host = ScriptedHost::default();
        assert_eq!(next_number(&host, KEY), 1);
        host.state().faster_workers = ATTEMPTS;
        assert_eq!(next_number(&host, KEY), 0);
        assert_eq!(host.state().faster_workers, 0, "it was tried {ATTEMPTS} times");
        host.state().refuses_shared_data = true;
        assert_eq!(next_number(&host, KEY), 2 + ATTEMPTS as u64, "what it would be");
    }

    #[test]
    fn a_shared_value_that_is_no_number_counts_as_none() {
        let host = ScriptedHost::default();
        for value in [None, Some(&b"1234567"[..]), Some(b"123456789")] {
            host.set_shared_data(KEY, value, None).expect("it is shared");
            assert_eq!(next_number(&host, KEY), 1);
        }
    }
}
