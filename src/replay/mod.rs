//! Replay: from a trace to requests on a device, at the right moment and in the right order.
//!
//! - [`options`], [`policy`]: what `--test block-trace-virtio` understands; [`session`]: a whole
//!   run of it, and `on_machine` the part of it that needs the machine;
//! - [`target`]: the disk it writes; [`streams`]: the part of the trace that belongs there;
//! - [`source`], [`trace_source`]: where events come from; [`plan`], [`placement`]: what each
//!   becomes on this device;
//! - [`pacing`]: when it is issued; [`inflight`]: what is under way, and what must wait for it;
//! - [`engine`]: the test thread's loop; [`run_log`]: what it saw, byte for byte; [`output`]: the files it leaves;
//!   [`books`]: who is told of it; [`summary`]: what the report says;
//! - [`mod@bus`]: the replay of what a vCPU did to ports, registers and memory.
//! - [`qtest_log`]: the replay of qtest commands on a real QEMU.

pub mod books;
pub mod bus;
pub mod engine;
pub mod inflight;
mod on_machine;
mod option_specs;
pub mod options;
pub mod output;
pub mod pacing;
pub mod placement;
pub mod plan;
pub mod policy;
pub mod qtest_log;
pub mod run_log;
pub mod session;
pub mod source;
pub mod stoppable;
pub mod streams;
pub mod summary;
pub mod target;
pub mod trace_source;

#[cfg(test)]
mod engine_tests;
#[cfg(test)]
mod given_tests;
#[cfg(test)]
pub(crate) mod testing;
