//! The real-time clock of a PC: Motorola MC146818 with 114 bytes of CMOS RAM.
//!
//! `chip` is the register file and its flags, over three parts without registers of their own:
//! `divider` (when an update or a periodic edge comes), `calendar` (what an update does to the
//! time bytes) and `alarm`. `cmos` is what a PC's maker stores in the RAM. Nothing counts: the
//! state of a moment follows from the machine's time when somebody looks.

mod alarm;
pub mod bits;
mod calendar;
pub mod chip;
pub mod cmos;
mod divider;
pub mod glue;
#[cfg(test)]
mod tests;

pub use chip::{Mc146818, RtcModel};
pub use cmos::{BootDevice, CmosConfig, FloppyDrive};
pub use glue::{Rtc, RtcConfig};
