//! A made-up registry of any size, in the layout of CNCF Distribution, and an S3 store in memory that serves it.
//!
//! For tests and benchmarks of what is done to whole buckets: garbage collection has to be tried on a million objects,
//! which no disk of a test machine writes in good time. What the registry holds follows from a number of objects and a
//! seed alone, and [`census::Census`] says what of it is garbage, so that a collector's findings can be compared with
//! what was planted.
//!
//! It is **not** a store for anything else: what is written stays in memory, there are no signatures, no multipart
//! uploads and no versions. Manifests and image configurations are real and have their real digests. Layers are not:
//! they have sizes and invented digests, and consist of zeros, so that nobody needs the space.
//!
//! | module | what it is for |
//! | --- | --- |
//! | [`registry`] | what the registry consists of, and its objects' keys |
//! | [`plan`] | makes one up |
//! | [`documents`] | the JSON of manifests, configurations and referrers |
//! | [`census`] | what was made, and what of it is garbage |
//! | [`bucket`] | the registry as objects that can be read, listed, written and removed |
//! | [`listing`] | pages of a listing |
//! | [`server`], [`answers`] | the store's HTTP |
//! | [`folder`] | writes it to a disk instead |

pub mod answers;
pub mod bucket;
pub mod census;
pub mod documents;
pub mod folder;
pub mod listing;
pub mod plan;
pub mod registry;
pub mod server;
