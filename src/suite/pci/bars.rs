//! Base address registers (PCI 3.0 §6.2.5) and MSI-X (§6.8.2).

use super::space::{disk, functions, read, write};
use crate::driver::pci::function::{COMMAND_IO, COMMAND_MEMORY, reg};
use crate::driver::pci::msix::{Msix, MsixEntry};
use crate::driver::pci::{Bar, BarKind, Function, caps};
use crate::suite::{Outcome, TestThread};

const BAR0: u16 = 0x10;
/// Message control: the function's mask, MSI-X enable, table size minus one.
const FUNCTION_MASK: u16 = 1 << 14;
const ENABLE: u16 = 1 << 15;
const TABLE_SIZE: u16 = 0x7ff;

/// Every BAR of every function, with decoding off; BARs that are not there read 0.
pub fn sizing(t: &mut TestThread<'_>) -> Outcome {
    for f in functions(t)? {
        if let Some(fault) = &f.fault {
            return t.failed(format!("BARs of {}", f.name()), "", fault.clone());
        }
        // Registers of bridges are their own; the chipset's are looked at by `enumerate`.
        if f.class >> 8 == 0x06 {
            continue;
        }
        let command = read(t, &f, reg::COMMAND, 2)?;
        write(t, &f, reg::COMMAND, 2, command & !u32::from(COMMAND_IO | COMMAND_MEMORY))?;
        let mut halves = 0;
        for (index, bar) in f.bars.iter().enumerate().take(f.bar_registers()) {
            match bar {
                Some(bar) => {
                    size_one(t, &f, index as u16, bar)?;
                    halves = u8::from(bar.kind == BarKind::Memory64);
                }
                None if halves > 0 => halves = 0,
                None => absent(t, &f, index as u16)?,
            }
        }
        write(t, &f, reg::COMMAND, 2, command)?;
    }
    Ok(())
}

fn absent(t: &mut TestThread<'_>, f: &Function, index: u16) -> Outcome {
    write(t, f, BAR0 + 4 * index, 4, u32::MAX)?;
    let got = read(t, f, BAR0 + 4 * index, 4)?;
    t.expect(&format!("BAR {index} of {}, which it has not", f.name()), got, 0)
}

/// Low bits: type and prefetchable, read-only. Above: the address, from the size on.
fn size_one(t: &mut TestThread<'_>, f: &Function, index: u16, bar: &Bar) -> Outcome {
    let register = BAR0 + 4 * index;
    let what = |part: &str| format!("BAR {index} of {}: {part}", f.name());
    let (flag_bits, least) = if bar.kind == BarKind::Io { (0x3, 4) } else { (0xf, 16) };
    t.check(bar.size.is_power_of_two() && bar.size >= least, what("its size is a power of two"))?;
    let before = read(t, f, register, 4)?;
    let flags = before & flag_bits;
    write(t, f, register, 4, 0)?;
    let zeros = read(t, f, register, 4)?;
    t.expect(&what("after zeros"), zeros, flags)?;
    let mask = !(bar.size - 1) as u32;
    // x86 has 16 address bits of I/O space: a function need not have more.
    let (mask, seen) = match bar.kind {
        BarKind::Io => (mask & 0xffff & !3, 0xffff),
        _ => (mask, u32::MAX),
    };
    for value in [u32::MAX, 0xaaaa_aaaa, 0x5555_5555] {
        write(t, f, register, 4, value)?;
        let got = read(t, f, register, 4)? & seen;
        t.expect(&what(&format!("after {value:#x}")), got, value & mask & seen | flags)?;
    }
    write(t, f, register, 4, 0)?;
    for (lane, byte) in (0..4).zip([0x11, 0xe2, 0xd3, 0xc4]) {
        write(t, f, register + lane, 1, byte)?;
    }
    let got = read(t, f, register, 4)? & seen;
    t.expect(&what("written by bytes"), got, 0xc4d3_e211 & mask & seen | flags)?;
    if bar.kind == BarKind::Memory64 {
        let high = read(t, f, register + 4, 4)?;
        write(t, f, register + 4, 4, u32::MAX)?;
        let got = read(t, f, register + 4, 4)?;
        t.expect(&what("its upper half"), got, (!(bar.size - 1) >> 32) as u32)?;
        write(t, f, register + 4, 4, high)?;
    }
    write(t, f, register, 4, before)
}

/// Registers answer while decoding is on, and nothing does while it is off. They move with the BAR.
pub fn decode(t: &mut TestThread<'_>) -> Outcome {
    let f = disk(t)?;
    for (index, bar) in f.bars.iter().enumerate().filter_map(|(i, bar)| Some((i, (*bar)?))) {
        let enable = if bar.kind == BarKind::Io { COMMAND_IO } else { COMMAND_MEMORY };
        for (on, expected) in [(true, true), (false, false), (true, true)] {
            let (set, clear) = if on { (enable, 0) } else { (0, enable) };
            f.command(t.machine().bus()?, set, clear);
            let got = answers(t, &bar, bar.addr)?;
            let what = format!("whether BAR {index} of {} answers, enabled: {on}", f.name());
            t.expect(&what, got, expected)?;
        }
        moved(t, &f, index as u16, &bar)?;
        f.command(t.machine().bus()?, 0, enable);
    }
    Ok(())
}

/// Whether any of the first registers of a BAR holds something: neither the ones of an empty bus, nor
/// the zeros that some machines have in its place.
fn answers(t: &mut TestThread<'_>, bar: &Bar, base: u64) -> Outcome<bool> {
    for offset in (0..bar.size.min(64)).step_by(4) {
        let value = match bar.kind {
            BarKind::Io => t.inl((base + offset) as u16)?,
            _ => t.readl(base + offset)?,
        };
        if !matches!(value, 0 | u32::MAX) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Ports or memory that the enumeration gives to nobody.
fn moved(t: &mut TestThread<'_>, f: &Function, index: u16, bar: &Bar) -> Outcome {
    let place: u32 = if bar.kind == BarKind::Io { 0xf000 } else { 0xfd00_0000 };
    let register = BAR0 + 4 * index;
    let wide = bar.kind == BarKind::Memory64;
    let set = |t: &mut TestThread<'_>, addr: u64| -> Outcome {
        write(t, f, register, 4, addr as u32)?;
        if wide { write(t, f, register + 4, 4, (addr >> 32) as u32) } else { Ok(()) }
    };
    set(t, place.into())?;
    let (there, here) = (answers(t, bar, place.into())?, answers(t, bar, bar.addr)?);
    set(t, bar.addr)?;
    t.expect(
        &format!("BAR {index} of {} at a new address and the old", f.name()),
        (there, here),
        (true, false),
    )
}

/// MSI-X is off until it is used, and a vector that nobody has programmed is masked (§6.8.2.9);
/// entries and control keep what they should.
pub fn msix(t: &mut TestThread<'_>) -> Outcome {
    let f = disk(t)?;
    let bus = t.machine().bus()?;
    f.command(bus, COMMAND_MEMORY, 0);
    let list = caps::list(bus, &f)?;
    let Some(msix) = Msix::find(bus, &f, &list)? else {
        return t.skip("the disk has no MSI-X");
    };
    let size = msix.vectors() - 1;
    let control = msix.control(bus);
    t.expect("message control before it is used", control & !FUNCTION_MASK, size)?;
    for vector in 0..msix.vectors() {
        let bus = t.machine().bus()?;
        let (entry, pending) = (msix.entry(bus, vector), msix.is_pending(bus, vector));
        let fresh = (entry.addr, entry.data) == (0, 0);
        t.check(entry.masked || !fresh, format!("vector {vector} is masked before it is used"))?;
        t.expect(&format!("vector {vector} is pending before it is used"), pending, false)?;
    }
    for vector in 0..msix.vectors() {
        msix.program(t.machine().bus()?, vector, entry_of(vector));
    }
    for vector in 0..msix.vectors() {
        let entry = msix.entry(t.machine().bus()?, vector);
        t.expect(&format!("vector {vector} as it was programmed"), entry, entry_of(vector))?;
        msix.mask(t.machine().bus()?, vector, true);
        let entry = msix.entry(t.machine().bus()?, vector);
        let masked = MsixEntry { masked: true, ..entry_of(vector) };
        t.expect(&format!("vector {vector}, masked"), entry, masked)?;
        msix.program(t.machine().bus()?, vector, MsixEntry { addr: 0, data: 0, masked: true });
    }
    let bus = t.machine().bus()?;
    let at = list.iter().find(|cap| cap.id == caps::CAP_ID_MSIX).map_or(0, |cap| cap.offset);
    f.write(bus, at + 2, 2, 0xffff);
    let ones = msix.control(bus);
    f.write(bus, at + 2, 2, 0);
    let zeros = msix.control(bus);
    f.command(bus, 0, COMMAND_MEMORY);
    t.expect("message control after ones", ones, ENABLE | FUNCTION_MASK | size)?;
    t.expect("message control after zeros", zeros & (ENABLE | FUNCTION_MASK | TABLE_SIZE), size)
}

fn entry_of(vector: u16) -> MsixEntry {
    let addr = 0x5_fee0_0000 | u64::from(vector) << 12;
    MsixEntry { addr, data: 0x4000_0030 + u32::from(vector), masked: false }
}
