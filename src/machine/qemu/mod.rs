//! A real QEMU as the machine: its device models and its block layer, and no guest.
//!
//! - `probe`: which QEMUs are here, and in which [`Mode`] each can stand without a guest.
//! - `config`: what a machine is made of, as arguments; `start`: the child and its connections;
//!   `rom`: what its CPU does where it must have one.
//! - `command`, `reply`, `client`, `lines`: the qtest protocol.
//! - `controllers`: what interrupt controllers do, on a machine that shows that instead of lines.
//! - `messages`: MSI-X as words of guest RAM; `clock`: virtual time by steps.
//! - `launch`: all of it put together; `machine`: as a [`Machine`](super::Machine); `prepare`: what comes before its first
//!   use; `waiting`: how it waits.
//!
//! Guest RAM is a memory file that both processes map, so that rings and data are written in place
//! and only register accesses cross the socket.

pub mod client;
pub mod command;
pub mod config;
pub mod probe;
pub mod reply;
pub mod start;

mod clock;
mod controllers;
mod launch;
mod lines;
mod machine;
mod messages;
mod prepare;
mod rom;
mod waiting;

#[cfg(test)]
mod tests;

pub use config::{Defaults, QemuConfig, QemuDisk, Time, View};
pub use machine::QemuMachine;
pub use probe::Mode;
pub use rom::memory_file;
