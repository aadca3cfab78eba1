//! The endpoints of the API, one file or folder each: a handler takes the request and the store, and says what is
//! answered.

pub mod base;
pub mod blobs;
pub mod catalog;
#[cfg(test)]
mod collections;
pub mod health;
pub mod manifests;
#[cfg(test)]
mod outage;
pub mod referrers;
pub mod tags;
pub mod token;
pub mod uploads;
