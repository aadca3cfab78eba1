//! Moorage in a real Envoy, before real stores and with real clients.
//!
//! `./build.sh test` installs what these tests need and tells them where it is.

#![cfg(not(target_family = "wasm"))]

mod cache;
mod clients;
mod configuration;
mod conformance;
mod discovery;
mod faults;
mod legacy;
mod moves;
mod peer;
mod policy;
mod protocol;
mod pull;
mod push;
mod ranges;
mod round_trips;
mod streaming;
mod support;
mod uploads;
