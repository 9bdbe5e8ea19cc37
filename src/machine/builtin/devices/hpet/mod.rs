//! High precision event timers (IA-PC HPET specification 1.0a): one up-counter and three
//! comparators in a block of 1 KiB.

pub mod bits;
pub mod chip;
mod glue;
pub mod timer;

pub use glue::{Hpet, HpetWires};

#[cfg(test)]
mod tests;
