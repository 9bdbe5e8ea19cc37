//! System control of a PC: port 92h (address line 20, fast reset), the APM ports B2h and B3h through
//! which an operating system asks firmware for ACPI mode, and the POST code port 80h.

pub mod bits;
pub mod chip;
mod glue;

pub use bits::AcpiCommands;
pub use glue::{System, SystemWires};
