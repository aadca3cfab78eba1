//! `moorage check` and `moorage usage`: the real program, on the real blob store.

mod check;
mod registry;
mod usage;
