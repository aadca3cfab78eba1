//! The commands, a file each.

pub mod purge_uploads;
