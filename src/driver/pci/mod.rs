//! PCI as firmware and an operating system do it: configuration access by ports and by memory,
//! enumeration through bridges, BAR sizing and assignment, capabilities, MSI-X.
//!
//! Nothing a device says is believed beyond its bounds: a lying function gives an error that
//! names it (`00:04.0 1af4:1001`), never a hang.

pub mod assign;
pub mod caps;
pub mod config;
pub mod ecam;
pub mod function;
pub mod msix;
pub mod scan;
pub mod window;

pub use assign::enumerate;
pub use config::{ConfigAccess, PciAddress};
pub use function::{Bar, BarKind, Function};
pub use window::Window;

#[cfg(test)]
mod tests;
