//! Randomness: the only host call that proxy-wasm's SDK does not have.
//!
//! A module for `wasm32-unknown-unknown` has no source of randomness. Envoy gives every module `random_get` of WASI
//! preview 1, whatever else it imports.

/// The import, in a module of its own: nothing else of ours needs `unsafe`.
#[allow(unsafe_code, reason = "an import can only be declared and called as unsafe")]
mod import {
    #[link(wasm_import_module = "wasi_snapshot_preview1")]
    unsafe extern "C" {
        /// Fills a buffer with random bytes; 0 for success. (WASI preview 1, `random_get`)
        fn random_get(buffer: *mut u8, length: usize) -> u16;
    }

    /// Fills `bytes`, and tells whether the host did so.
    pub fn fill(bytes: &mut [u8]) -> bool {
        // SAFETY: the host writes as many bytes as it is told, to a buffer that is ours alone and has as many.
        let error = unsafe { random_get(bytes.as_mut_ptr(), bytes.len()) };
        error == 0
    }
}

/// 32 random bytes; `None` where the host gives none.
pub fn random() -> Option<[u8; 32]> {
    let mut bytes = [0; 32];
    import::fill(&mut bytes).then_some(bytes)
}
