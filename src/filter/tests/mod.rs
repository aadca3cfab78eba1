//! The filter as a whole, against a scripted host.

mod access;
mod bodies;
mod downloads;
mod driver;
mod events;
mod limits;
mod native_hash;
mod plugin;
mod record;
mod requests;
mod store;
mod telemetry;
mod trailers;
mod uploads;
mod wake_ups;
