//! Accesses as the test thread makes them.

use super::regions::may_reset;
use crate::base::{BusAccess, BusSpace, GuestAddr, Result};
use crate::machine::Machine;

/// Makes a read.
///
/// # Errors
/// The machine is gone.
pub fn read(machine: &mut dyn Machine, access: &BusAccess) -> Result<u64> {
    let BusAccess { space, addr, size, .. } = *access;
    let bus = machine.bus()?;
    Ok(match space {
        BusSpace::Pio => u64::from(bus.pio_read(addr as u16, size)),
        BusSpace::Mmio => bus.mmio_read(GuestAddr(addr), size),
    })
}

/// Makes a write, and waits for its effect only where the next access may depend on more than that.
///
/// # Errors
/// The machine is gone.
pub fn write(machine: &mut dyn Machine, access: &BusAccess) -> Result<()> {
    let BusAccess { space, addr, size, value, .. } = *access;
    let bus = machine.bus()?;
    match space {
        BusSpace::Pio if may_reset(access) => bus.pio_write(addr as u16, size, value as u32),
        BusSpace::Pio => bus.pio_post(addr as u16, size, value as u32),
        BusSpace::Mmio => bus.mmio_post(GuestAddr(addr), size, value),
    }
    Ok(())
}

/// Makes a write that begins no I/O, and waits for its effect.
///
/// # Errors
/// The machine is gone.
pub fn write_through(machine: &mut dyn Machine, access: &BusAccess) -> Result<()> {
    let BusAccess { space, addr, size, value, .. } = *access;
    let bus = machine.bus()?;
    match space {
        BusSpace::Pio => bus.pio_write(addr as u16, size, value as u32),
        BusSpace::Mmio => bus.mmio_write(GuestAddr(addr), size, value),
    }
    Ok(())
}

/// A value of an access of `size` bytes, in all its digits.
pub fn shown(value: u64, size: u8) -> String {
    format!("{value:#0width$x}", width = 2 + 2 * usize::from(size))
}
