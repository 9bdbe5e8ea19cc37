//! Tests of the whole machine, by hand-made rings and register accesses: no driver of ours in
//! between that could share a mistake.

mod bench;
mod board;
mod clocks;
mod fuzz;
mod malformed;
mod requests;
mod rig;
mod rings;
mod routing;
mod shared;
mod threads;
mod transport;
mod walk;
