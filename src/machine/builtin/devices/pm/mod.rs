//! ACPI power management: the fixed registers of PIIX4 (Intel 82371AB, §7.2) and ICH9, as ACPI 2.0
//! §4.7 defines them, with the 24-bit timer and one general-purpose event block.

pub mod bits;
pub mod chip;
mod glue;

pub use glue::Pm;

#[cfg(test)]
mod tests;
