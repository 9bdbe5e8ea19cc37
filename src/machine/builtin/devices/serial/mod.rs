//! A PC's serial port: a 16550A on an infinitely fast line.

pub mod bits;
pub mod chip;
mod glue;
mod line;
#[cfg(test)]
mod tests;

pub use glue::Serial;
pub use line::{INPUT_BYTES_MAX, SerialLine};
