//! The replay of a qtest log or reproducer on a real QEMU: what a fuzzer's report says, done.
//!
//! - [`mod@report`], [`rejected`]: what a pasted report holds, and which of its lines are sent;
//! - [`args`], [`options`], [`opts`], [`harmless`], [`drives`]: which of its machine's arguments
//!   reach QEMU, and how;
//! - [`config`]: what the test understands; [`session`]: a whole run of it;
//! - [`engine`]: the commands, the barriers and QEMU's end; [`reproduce`]: a line of shell that
//!   does the same.
//!
//! # What is trusted
//! Nothing of the report. Lines are sent when they are commands of the protocol that QEMU can bear,
//! and no others; arguments are passed on when they are known to stay within QEMU's process, and
//! refused by name otherwise, unless the user says `trust_args=on`.
//!
//! # What it means
//! *Survived*: every command was answered, and the barriers after the last. *Died*: a signal or an
//! exit that nobody asked for. *Hung*: no answer within `deadline=`. *Powered off*: QEMU ended with
//! status 0 and its monitor had said that the guest wanted that (`SHUTDOWN`); no fault of QEMU's,
//! though commands may be left. A refusal (`FAIL`) of a command is counted and goes on. What QEMU
//! does when it is told to quit in the end is a note and no part of the outcome.

pub mod args;
pub mod config;
pub mod drives;
pub mod engine;
pub mod harmless;
pub mod options;
pub mod opts;
pub mod rejected;
pub mod report;
pub mod reproduce;
pub mod session;
