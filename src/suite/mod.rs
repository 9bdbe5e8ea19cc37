//! The test framework: modules of cases that drive a device as a guest would.
//!
//! A [`Module`] says which machine its cases need, and has init, run and cleanup; a [`Case`] is a
//! function that a [`TestThread`] runs and that ends in an [`Outcome`]. One file per device holds
//! its module; [`registry`] lists them all. Bugs of machines that are not ours stand in [`known`];
//! what a kind of machine lacks, and why, in its [`needs::Lack`]s; `tests/golden/qemu-skips.md` has both for
//! QEMU, as a test of ours finds them.

mod access_log;
pub mod acpi_pm;
pub mod around;
pub mod artifacts;
mod bench;
pub mod bus_machine;
mod bus_qemu;
pub mod fw_cfg;
pub mod hpet;
pub mod i8042;
pub mod ioapic;
pub mod known;
mod known_qemu;
pub mod lapic;
mod machine_qemu;
mod machine_vhost_user;
pub mod machines;
pub mod module;
pub mod needs;
pub mod one_disk;
pub mod outcome;
mod panics;
pub mod pci;
pub mod pic;
pub mod pit;
pub mod registry;
pub mod results;
pub mod rtc;
pub mod runner;
pub mod select;
pub mod serial;
mod served_disk;
pub mod settings;
pub mod setup;
pub mod sources;
pub mod spec;
pub mod thread;
pub mod threads;
pub mod virtio_blk;

#[cfg(test)]
mod irq_board;
#[cfg(test)]
mod testbed;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod wrong_chip;

pub use module::{Case, Module};
pub use outcome::{Finding, Outcome, Stop};
pub use results::{CaseResult, Status, SuiteReport};
pub use setup::TestDisk;
pub use thread::TestThread;
