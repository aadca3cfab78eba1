//! What is done to a registry's bucket from outside, beside any number of proxies that serve and write it: garbage
//! collection, retention of tags, checks, and what takes how much space.
//!
//! It stands on the same code as the filter: [`moorage::store`] knows which object holds what and how a store is asked
//! for it. Nothing here prints or reads a command line; that is the program `moorage`'s.

pub mod check;
pub mod gc;
pub mod listing;
pub mod manifests;
pub mod mark;
pub mod references;
pub mod retain;
pub mod s3_inventory;
#[cfg(test)]
mod simulation;
pub mod snapshot;
pub mod time;
pub mod usage;
