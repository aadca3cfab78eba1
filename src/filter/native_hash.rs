//! The hasher in native code that may stand before this filter (`crates/native-hash`): asking it for the hash of a
//! body, and taking what it leaves.
//!
//! All of it is in Envoy's filter state, which clients can't write to. Without that hasher there is nothing under its
//! key, and the module hashes itself.

use std::cell::Cell;

use super::host::Host;
use crate::oci::Hasher;

/// Under this key the hasher says for every request with a body that it is there, and in which form it leaves a hash.
const PRESENT: &str = "moorage.native_hash";

/// The form that is understood here: the one of `crates/native-hash/src/body_hash.rs`.
const VERSION: &[u8] = b"sha256/1";

/// What this module sets to have the body hashed. Envoy puts `wasm.` before it.
const WANTED: &str = "moorage_native_hash";

/// Under this key the hash is, when the body is whole.
const RESULT: &str = "moorage.native_hash.result";

/// The hasher, as a worker knows it.
#[derive(Debug, Default)]
pub struct NativeHash {
    /// Whether it has failed to hash a body that it was asked for.
    has_failed: Cell<bool>,
}

impl NativeHash {
    /// Asks for the SHA-256 of the body of the current request, of which nothing has come yet; `false` where there is no
    /// hasher, or one that has failed.
    pub fn ask(&self, host: &impl Host) -> bool {
        if self.has_failed.get() || state(host, PRESENT).as_deref() != Some(VERSION) {
            return false;
        }
        host.set_filter_state(WANTED, b"1");
        true
    }

    /// The hash of the current request's body, which is whole and has `length` bytes. `None` if it is not what was asked for:
    /// then no hasher is asked again.
    pub fn take(&self, host: &impl Host, length: u64) -> Option<Hasher> {
        let hasher = state(host, RESULT).and_then(|result| read(&result, length));
        if hasher.is_none() && !self.has_failed.replace(true) {
            log::error!(
                "the native hasher left no hash of a body of {length} bytes: from here on this worker hashes itself. \
                 Is there a filter between the native hasher and Moorage?"
            );
        }
        hasher
    }
}

fn state(host: &impl Host, key: &str) -> Option<Vec<u8>> {
    host.property(vec!["filter_state", key])
}

/// Reads a result: the number of bytes that were hashed, as eight bytes with the lowest first, and the hash's state.
fn read(result: &[u8], length: u64) -> Option<Hasher> {
    let (hashed, state) = result.split_first_chunk()?;
    if u64::from_le_bytes(*hashed) != length {
        return None;
    }
    Hasher::from_sha256_state(state)
}
