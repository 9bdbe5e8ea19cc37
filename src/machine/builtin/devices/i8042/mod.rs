//! The PS/2 controller (Intel 8042) with its keyboard and mouse, the A20 gate and the CPU's reset.

pub mod bits;
pub mod chip;
mod glue;
pub mod keyboard;
pub mod mouse;
#[cfg(test)]
mod tests;

pub use glue::I8042;
