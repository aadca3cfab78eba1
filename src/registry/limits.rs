//! How much one request may ask for.
//!
//! What is not set here is fixed where it is held to: it follows from the API or the store.

/// The limits that can be set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// The most descriptors of a manifest that is put; 10,000 unless set. Each is looked up, by two calls
    /// to the store or more.
    pub manifest_descriptors: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { manifest_descriptors: 10_000 }
    }
}
