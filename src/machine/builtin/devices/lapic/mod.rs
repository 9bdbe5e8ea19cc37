//! The local APICs of a board's CPUs, in xAPIC mode (Intel 64 and IA-32 Architectures Software
//! Developer's Manual, volume 3, chapter 11; sections are cited as SDM §11.x).

pub mod bank;
pub mod bits;
pub mod chip;
pub mod glue;
mod lvt;
pub mod message;
#[cfg(test)]
mod tests;
pub mod timer;
pub mod vectors;

pub use bits::{LINT0, LINT1};
pub use chip::CpuSignals;
pub use glue::{LapicConfig, LapicDevice, LocalApics};
