//! A dynamic module for Envoy that hashes the bodies of uploads, for Moorage's filter behind it.
//!
//! The filter is WebAssembly, where SHA-256 has none of the processor's instructions for it. This does the same
//! in native code, on the bytes where Envoy has them. It decides nothing: it hashes the body of a request if
//! the filter asks for that, from its first byte on, and leaves the hash's state for the filter when the
//! body is whole. It reads nothing else of a client's, but the length that the request announces.
//!
//! What runs here has Envoy's rights and no sandbox, so there is as little of it as can be. The only code of the
//! workspace with `unsafe` is in `abi.rs` and `hooks.rs`; what is worth a test is in `body_hash.rs`, which has none.

#[cfg(not(test))]
mod abi;
mod body_hash;
// Nobody but Envoy has the functions that these call.
#[cfg(not(test))]
mod hooks;
