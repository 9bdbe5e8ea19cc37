//! The test framework: modules of cases that drive a device as a guest would.
//!
//! A [`Module`] says which machine its cases need, and has init, run and cleanup; a [`Case`] is a
//! function that a [`TestThread`] runs and that ends in an [`Outcome`]. One file per device holds
//! its module; [`registry`] lists them all.

pub mod module;
pub mod outcome;
pub mod registry;
pub mod thread;

pub use module::{Case, Module};
pub use outcome::{Finding, Outcome, Stop};
pub use thread::TestThread;
