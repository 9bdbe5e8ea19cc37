//! The pair of 8259A interrupt controllers of a PC, with the edge/level registers that the PIIX
//! added (Intel 8259A data sheet, order number 231468; 82371AB (PIIX4) data sheet §4.2.4).

pub mod bits;
pub mod chip;
pub mod glue;
pub mod pair;
#[cfg(test)]
mod tests;

pub use glue::{PicDevice, PicPair};
