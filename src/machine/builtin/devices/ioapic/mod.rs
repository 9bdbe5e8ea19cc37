//! The I/O APIC of a PC (Intel 82093AA data sheet, order number 290566), with the EOI register of
//! its successors (ICH9 data sheet §13.5.5).

pub mod bits;
pub mod chip;
pub mod glue;
#[cfg(test)]
mod tests;

pub use glue::{IoApic, IoApicDevice};
