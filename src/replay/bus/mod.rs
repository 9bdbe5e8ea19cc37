//! Replay of bus traces: what a vCPU did to ports, registers, guest memory and the clock, done
//! again on a machine, and every recorded read compared.
//!
//! - [`options`]: what `--test port-trace` and `--test mmio-trace` understand; [`session`]: a whole run,
//!   on a machine that [`MachineSpec`](crate::suite::spec::MachineSpec) describes;
//! - [`policy`]: what a recorded read asks of the machine, and the table of free-running counters
//!   with the reason of each;
//! - [`regions`]: which device and register an access belongs to, and which devices are modelled;
//! - [`walk`]: the test thread's loop; [`engine`]: one machine held to the recording, [`against`]:
//!   two held to each other; [`access`], [`memory`], [`interrupts`]: what is done at an event;
//!   [`command`]: what was done to a machine from outside; [`tally`]: what differed.
//!
//! A mismatch in a port changes nothing in what is replayed after it: a recording has no branches.

pub mod access;
pub mod against;
pub mod command;
pub mod engine;
pub mod functions;
pub mod interrupts;
pub mod memory;
pub mod options;
pub mod policy;
pub mod regions;
pub mod session;
pub mod tally;
pub mod walk;

#[cfg(test)]
mod death_tests;
#[cfg(test)]
mod tests;
