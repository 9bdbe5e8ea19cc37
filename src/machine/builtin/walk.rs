//! A random walk over a device's registers: accesses of any size at any offset, time that passes,
//! deadlines that come. Nothing a program can do to a device may make it panic; the tests of every
//! chip and its fuzz target walk.

use super::device::Device;
use crate::base::{BusAccess, GuestAddr, Nanos, Prng};
use crate::machine::Machine;

/// Where the steps of a walk come from.
pub trait Steps {
    /// The next 64 bits of choice; `None` ends the walk.
    fn next(&mut self) -> Option<u64>;
}

/// Steps from a seeded generator: the first field; the second says how many are left.
#[derive(Debug)]
pub struct SeededSteps(pub Prng, pub u64);

impl Steps for SeededSteps {
    fn next(&mut self) -> Option<u64> {
        self.1 = self.1.checked_sub(1)?;
        Some(self.0.next_u64())
    }
}

/// Steps from a fuzzer's bytes, eight at a time.
#[derive(Debug)]
pub struct ByteSteps<'a>(pub &'a [u8]);

impl Steps for ByteSteps<'_> {
    fn next(&mut self) -> Option<u64> {
        let (word, rest) = self.0.split_first_chunk::<8>()?;
        self.0 = rest;
        Some(u64::from_le_bytes(*word))
    }
}

/// Walks over `device`, whose windows have these lengths in bytes, from time `now` on. Returns a
/// hash of every value read, for comparing two walks.
///
/// # Panics
/// When the device breaks a promise of [`Device`]: a deadline in the past after
/// [`Device::run`], or a read wider than its access.
pub fn walk(device: &mut dyn Device, windows: &[u64], steps: &mut dyn Steps) -> u64 {
    let (mut now, mut hash) = (Nanos(0), 0u64);
    while let Some(choice) = steps.next() {
        let window = (choice >> 8) as usize % windows.len().max(1);
        let len = windows.get(window).copied().unwrap_or(1).max(1);
        let size = 1u8 << (choice & 3);
        // Most steps are accesses; the others let time pass, a little or a lot.
        match choice >> 4 & 15 {
            0 => now = Nanos(now.0.saturating_add(choice >> 32)),
            1 => now = device.deadline().filter(|d| d.0 < 1 << 62).unwrap_or(now).max(now),
            2 if choice >> 56 == 0 => device.reset(now),
            _ => {}
        }
        if device.deadline().is_some_and(|deadline| deadline <= now) {
            device.run(now);
            let next = device.deadline();
            assert!(next.is_none_or(|next| next > now), "{}: {next:?} at {now:?}", device.name());
        }
        if u64::from(size) > len {
            continue;
        }
        let offset = (choice >> 16 & 0xffff) % (len - u64::from(size) + 1);
        if choice & 4 != 0 {
            device.write(window, offset, size, (choice >> 32) & BusAccess::ones(size), now);
        } else {
            let value = device.read(window, offset, size, now);
            assert!(value <= BusAccess::ones(size), "{}: {value:#x}", device.name());
            hash = crate::base::prng::mix(hash ^ value);
        }
    }
    hash
}

/// Ports where the devices of a PC are; a walk goes to them as often as anywhere.
const PORTS: [u16; 24] = [
    0x20, 0x40, 0x60, 0x61, 0x64, 0x70, 0x80, 0x92, 0xa0, 0xb2, 0x3f8, 0x402, 0x4d0, 0x510, 0x514,
    0x600, 0x608, 0x620, 0xafe0, 0xc000, 0xcf8, 0xcf9, 0xcfc, 0xcfe,
];

/// Memory where they are, with bytes.
const MEMORY: [(u64, u64); 8] = [
    (0, 1 << 20),
    (0xb000_0000, 1 << 20),
    (0xe000_0000, 1 << 20),
    (0xfec0_0000, 0x100),
    (0xfed0_0000, 0x200),
    (0xfed1_c000, 0x4000),
    (0xfee0_0000, 0x1000),
    (0x80_0000_0000, 1 << 16),
];

/// The longest time that passes at one step of a walk over a machine: a timer may fire every few
/// nanoseconds.
const STEP_NS_MAX: u64 = 0x3fff;

/// Walks over all of a machine with a virtual clock: its ports, its memory, its interrupts and its
/// time. Returns a hash of every value read.
///
/// # Errors
/// A device that died.
///
/// # Panics
/// When a read is wider than its access.
pub fn walk_machine(machine: &mut dyn Machine, steps: &mut dyn Steps) -> crate::base::Result<u64> {
    let mut hash = 0u64;
    while let Some(choice) = steps.next() {
        let (size, value) = (1u8 << (choice & 3), choice >> 32);
        let write = choice & 4 != 0;
        let place = (choice >> 16) as u16;
        let read = match choice >> 4 & 15 {
            0 => {
                let end = machine.clock().now() + (value & STEP_NS_MAX);
                machine.wait(&[], Some(end))?;
                continue;
            }
            1 => u64::from(machine.interrupts()?.acknowledge(place as u8 & 1).unwrap_or(0)),
            2..=5 => at_port(machine, write, place, size, value)?,
            6..=9 => {
                let near = PORTS.get(usize::from(place >> 3) % PORTS.len()).copied();
                at_port(machine, write, near.unwrap_or_default() + (place & 7), size, value)?
            }
            _ => {
                let at = (choice >> 8 & 0xff) as usize % MEMORY.len();
                let (base, len) = MEMORY.get(at).copied().unwrap_or_default();
                // Registers lie at multiples of 4 or 16 as a rule.
                let offset = u64::from(place).wrapping_mul(if place & 1 == 0 { 4 } else { 17 });
                at_memory(machine, write, GuestAddr(base + offset % len), size, value)?
            }
        };
        hash = crate::base::prng::mix(hash ^ read);
    }
    Ok(hash)
}

fn at_port(
    machine: &mut dyn Machine,
    write: bool,
    port: u16,
    size: u8,
    value: u64,
) -> crate::base::Result<u64> {
    let (bus, size) = (machine.bus()?, size.min(4));
    if write {
        bus.pio_write(port, size, (value & BusAccess::ones(size)) as u32);
        return Ok(0);
    }
    let value = u64::from(bus.pio_read(port, size));
    assert!(value <= BusAccess::ones(size), "port {port:#x}: {value:#x}");
    Ok(value)
}

fn at_memory(
    machine: &mut dyn Machine,
    write: bool,
    addr: GuestAddr,
    size: u8,
    value: u64,
) -> crate::base::Result<u64> {
    let bus = machine.bus()?;
    if write {
        bus.mmio_write(addr, size, value & BusAccess::ones(size));
        return Ok(0);
    }
    let value = bus.mmio_read(addr, size);
    assert!(value <= BusAccess::ones(size), "{addr:?}: {value:#x}");
    Ok(value)
}
