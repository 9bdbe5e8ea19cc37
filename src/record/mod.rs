//! Recorders: whatever passes through them becomes a trace.
//!
//! - [`machine`]: a tap between a test thread and its machine; [`memory`]: what of guest RAM
//!   changed meanwhile; [`tap_dir`]: a recording of every case of a test run; [`tap_file`]: of one;
//! - [`recording`]: what the taps on real systems write through, live;
//!   [`command`]: the program that uses such a tap, run and ended with it;
//! - [`blk`]: a block device of the host, by the kernel's tracer;
//! - [`nbd`]: an NBD server in front of an image; [`vhost_user_blk`]: a disk for VMMs that attach
//!   one by vhost-user; [`qemu`]: taps in a QEMU that the user starts.

pub mod blk;
pub mod command;
pub mod machine;
pub mod memory;
pub mod nbd;
pub mod qemu;
pub mod recording;
pub mod tap_dir;
pub mod tap_file;
pub mod vhost_user_blk;

#[cfg(test)]
mod tests;
