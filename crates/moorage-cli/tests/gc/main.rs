//! `moorage gc`: the real program, on the real blob store, and on one that fails in the middle.

mod bucket;
mod everything;
mod faults;
mod garbage;
mod interruptions;
mod trash;
