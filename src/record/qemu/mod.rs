//! A recording of a QEMU that the user starts: its command line, with taps put into it.
//!
//! - [`command_line`]: which drives get a tap, and the command line that has them; [`drive`],
//!   [`blockdev`]: what the two kinds of options say; [`disk`]: what they have in common; `node`:
//!   their settings;
//! - [`taps`]: the servers that the drives become clients of;
//! - [`bus`]: accesses from QEMU's trace log; [`probe`]: whether a QEMU has one.
//!
//! A command line that is not understood is refused: a drive without its tap would be a recording
//! that lacks something and does not say so.

pub mod blockdev;
pub mod bus;
pub mod command_line;
pub mod disk;
pub mod drive;
mod node;
pub mod probe;
pub mod taps;
