//! Docker schema 1: the manifests of clients from before 2017.
//!
//! Such a manifest describes an image by itself, has its signatures in the same JSON object, and was
//! replaced by schema 2 in 2016. What is here makes one of a schema 2 image and its configuration
//! ([`Image::convert`]), signs it ([`sign`]), and reads one that is pushed ([`Pushed::parse`]). Reading
//! and writing what the store has is the handlers' affair.
//!
//! Formats and derivations are those of `distribution` 2.8 and its library `libtrust`, to the byte, so
//! that a client sees the same image behind either registry. Where `distribution` would make a manifest
//! of an image whose history does not name all its layers, and so leave layers out, this module refuses.
//!
//! Source: "Image Manifest Version 2, Schema 1" of the Docker registry's documentation, and JSON Web
//! Signature (RFC 7515) in the flattened form of `libtrust`.

mod created;
mod empty_layer;
mod image;
mod json;
mod jws;
mod key;
mod libtrust;
mod pushed;

pub use empty_layer::{EMPTY_LAYER, empty_layer_digest};
pub use image::Image;
pub use jws::sign;
pub use key::SigningKey;
#[cfg(test)]
pub use key::tests::key;
pub use pushed::{Pushed, PushedError};
