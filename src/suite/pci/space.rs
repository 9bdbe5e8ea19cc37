//! What the cases share: the functions of the machine, and access to their registers.

use crate::driver::pci::scan::scan;
use crate::driver::pci::{ConfigAccess, Function};
use crate::suite::{Outcome, TestThread};

/// Vendor id of virtio functions.
const VIRTIO: u16 = 0x1af4;
/// Base class of mass storage.
const CLASS_STORAGE: u16 = 0x01;

/// Every function, found by ports.
pub fn functions(t: &mut TestThread<'_>) -> Outcome<Vec<Function>> {
    Ok(scan(t.machine().bus()?, ConfigAccess::Ports)?)
}

/// The first virtio disk; the case is skipped where there is none.
pub fn disk(t: &mut TestThread<'_>) -> Outcome<Function> {
    let disk = |f: &Function| f.vendor == VIRTIO && f.class >> 8 == CLASS_STORAGE;
    match functions(t)?.into_iter().find(disk) {
        Some(function) => Ok(function),
        None => t.skip("the machine has no virtio disk"),
    }
}

/// Reads a register of 1, 2 or 4 bytes.
pub fn read(t: &mut TestThread<'_>, f: &Function, register: u16, size: u8) -> Outcome<u32> {
    Ok(f.read(t.machine().bus()?, register, size))
}

/// Writes a register of 1, 2 or 4 bytes.
pub fn write(t: &mut TestThread<'_>, f: &Function, register: u16, size: u8, value: u32) -> Outcome {
    f.write(t.machine().bus()?, register, size, value);
    Ok(())
}
