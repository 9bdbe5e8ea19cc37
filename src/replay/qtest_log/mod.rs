//! The replay of a qtest log or reproducer on a real QEMU.
//!
//! - [`mod@report`], [`rejected`]: what a pasted report holds, and which of its lines are sent.

pub mod args;
pub mod drives;
pub mod harmless;
pub mod options;
pub mod opts;
pub mod rejected;
pub mod report;
