//! Firmware configuration: named and numbered items that a virtual machine offers its firmware, by
//! port and by DMA.

pub mod bits;
pub mod chip;
mod glue;
pub mod items;
#[cfg(test)]
mod tests;

pub use glue::FwCfg;
pub use items::{FwCfgConfig, FwCfgFile};
