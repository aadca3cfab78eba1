//! What tells a request from every other.
//!
//! A wasm module has no source of randomness. Envoy gives every request an id, which is random unless
//! a client chose it; the time, and a number that counts up, make it new in either case.

use std::cell::Cell;
use std::time::SystemTime;

use http::HeaderName;
use proxy_wasm::hostcalls;
use sha2::{Digest as _, Sha256};

use crate::registry::{Request, Stamp};

/// Envoy's id of a request.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

thread_local! {
    /// How many stamps this worker has given.
    static GIVEN: Cell<u64> = const { Cell::new(0) };
}

/// The stamp of a request.
pub fn stamp(request: &Request) -> Stamp {
    let time = hostcalls::get_current_time().unwrap_or(SystemTime::UNIX_EPOCH);
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let number = GIVEN.replace(GIVEN.get().wrapping_add(1));
    let mut hasher = Sha256::new();
    for value in request.headers.get_all(REQUEST_ID) {
        hasher.update(value);
    }
    hasher.update(since.as_nanos().to_be_bytes());
    hasher.update(number.to_be_bytes());
    Stamp { time, random: hasher.finalize().into() }
}
