//! A deterministic simulation: a bucket in memory, proxies that serve and write it through the registry's own handlers,
//! clients, and collectors of garbage, in one thread and in virtual time.
//!
//! Every call to the store takes a time that a seed decides, has its effect at some moment of it, and may fail with or
//! without one. So each seed is a schedule, and a schedule that fails can be had again.

pub mod bucket;
pub mod client;
mod listings;
mod oracle;
pub mod proxy;
mod scenario;
mod stories;
mod tests;
pub mod world;
