//! Interval timer: Intel 8254 (order number 231164) at ports 40h to 43h, and the system control
//! port 61h that gates its counter 2 (Intel 82371AB PIIX4, §4.1.4, NMISC).

pub mod bits;
pub mod chip;
pub mod counter;
mod glue;

pub use glue::Pit;

#[cfg(test)]
mod tests;
