//! The layer of whatever changed no file: schema 1 wants a layer for every entry of an image's history.

use crate::oci::{Algorithm, Digest};

/// An empty tar archive (1,024 zeros), compressed by gzip: the very bytes that Docker and
/// `distribution` use, so that clients know the layer by its digest.
pub const EMPTY_LAYER: [u8; 32] = [
    31, 139, 8, 0, 0, 9, 110, 136, 0, 255, 98, 24, 5, 163, 96, 20, 140, 88, 0, 8, 0, 0, 255, 255,
    46, 175, 181, 239, 0, 4, 0, 0,
];

/// The digest of [`EMPTY_LAYER`].
pub fn empty_layer_digest() -> Digest {
    Digest::of(Algorithm::Sha256, &EMPTY_LAYER)
}

#[cfg(test)]
mod tests {
    #[cfg(target_family = "wasm")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;

    #[test]
    fn the_empty_layer_has_the_digest_that_clients_know() {
        let known = "sha256:a3ed95caeb02ffe68cdd9fd84406680ae93d633cb16422d00e8a7c22955b46d4";
        assert_eq!(empty_layer_digest().as_str(), known);
    }
}
