//! Moorage in a real Envoy, before real stores and with real clients.
//!
//! `./build.sh test` installs what these tests need and tells them where it is. Plain `cargo test` leaves them out:
//! each has an `#[ignore]` that says what it needs.

#![cfg(not(target_family = "wasm"))]

mod access;
mod access_clients;
mod attacks;
mod broken_uploads;
mod cache;
mod clients;
mod collection;
mod configuration;
mod conformance;
mod discovery;
mod drain;
mod edge;
mod events;
mod faults;
mod guards;
mod health;
mod held_memory;
mod legacy;
mod markers;
mod moves;
mod native_hash;
mod nodes;
mod outage;
mod peer;
mod peer_collection;
mod policy;
mod protocol;
mod pull;
mod push;
mod ranges;
mod reload;
mod round_trips;
mod settings;
mod slow_clients;
mod spool;
mod streaming;
mod tag_deletions;
mod telemetry;
mod uploads;
