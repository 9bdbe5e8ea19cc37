//! What is on the bus, and what is not.

use super::space::{functions, read, write};
use crate::base::BusAccess;
use crate::driver::pci::{Bar, BarKind, ConfigAccess, Function, PciAddress};
use crate::suite::{Outcome, TestThread};

/// Device, function, vendor and device id, class, programming interface, revision, whether the
/// device has more functions, and the BARs.
type Golden = (u8, u8, u32, u16, u8, u8, bool, &'static [(usize, BarKind, u64)]);

/// i440FX and PIIX3, with the PIIX4's power management, as QEMU's `pc` has them.
const PC: &[Golden] = &[
    (0, 0, 0x8086_1237, 0x0600, 0x00, 2, false, &[]),
    (1, 0, 0x8086_7000, 0x0601, 0x00, 0, true, &[]),
    (1, 1, 0x8086_7010, 0x0101, 0x80, 0, false, &[(4, BarKind::Io, 16)]),
    (1, 3, 0x8086_7113, 0x0680, 0x00, 3, false, &[]),
];

/// Q35 and ICH9, as QEMU's `q35` has them.
const Q35: &[Golden] = &[
    (0, 0, 0x8086_29c0, 0x0600, 0x00, 0, false, &[]),
    (31, 0, 0x8086_2918, 0x0601, 0x00, 2, true, &[]),
    (
        31,
        2,
        0x8086_2922,
        0x0106,
        0x01,
        2,
        false,
        &[(4, BarKind::Io, 32), (5, BarKind::Memory32, 4096)],
    ),
    (31, 3, 0x8086_2930, 0x0c05, 0x00, 2, false, &[(4, BarKind::Io, 64)]),
];

const BOARDS: [&[Golden]; 2] = [PC, Q35];

/// A port, and an address, that no board here decodes.
const NO_PORT: u16 = 0x0e60;
const NO_MEMORY: u64 = 0xfe7f_f000;
/// A device number that no board here has a function at.
const NO_DEVICE: PciAddress = PciAddress { bus: 0, device: 30, function: 0 };

fn ids(f: &Function) -> u32 {
    u32::from(f.vendor) << 16 | u32::from(f.device)
}

/// The chipset's functions are all there, as they should be, and no others in their slots. What
/// else is plugged in is listed.
pub fn enumerate(t: &mut TestThread<'_>) -> Outcome {
    let found = functions(t)?;
    let host = found.first().map(ids);
    let golden = BOARDS.iter().find(|golden| golden.first().map(|first| first.2) == host);
    let Some(golden) = golden else {
        return t.skip("the host bridge is neither an i440FX nor a Q35");
    };
    for (device, function, id, class, interface, revision, more, bars) in *golden {
        let at = PciAddress { bus: 0, device: *device, function: *function };
        let Some(f) = found.iter().find(|f| f.address == at) else {
            return t.failed(format!("function {at}"), format!("{id:08x}"), "there is none");
        };
        t.expect(&format!("vendor and device of {at}"), ids(f), *id)?;
        let got = (f.class, f.interface, f.revision);
        t.expect(&format!("class and revision of {at}"), got, (*class, *interface, *revision))?;
        if *function == 0 {
            t.expect(&format!("more functions than {at}"), f.is_multifunction(), *more)?;
        }
        let got: Vec<_> = f.bars.iter().enumerate().filter_map(bar).collect();
        t.expect(&format!("BARs of {at}"), got, bars.to_vec())?;
    }
    for f in &found {
        let slot = golden.iter().any(|known| (0, known.0) == (f.address.bus, f.address.device));
        let known = golden.iter().any(|known| known.1 == f.address.function && known.2 == ids(f));
        t.check(!slot || known, format!("{} belongs to the chipset", f.name()))?;
        t.say(format!(
            "{} class {:04x}.{:02x} rev {:02x}",
            f.name(),
            f.class,
            f.interface,
            f.revision
        ));
    }
    Ok(())
}

fn bar((index, bar): (usize, &Option<Bar>)) -> Option<(usize, BarKind, u64)> {
    bar.map(|bar| (index, bar.kind, bar.size))
}

/// A master abort reads as ones (PCI 3.0 §6.1), of configuration space and of ports.
pub fn unassigned(t: &mut TestThread<'_>) -> Outcome {
    for size in [1, 2, 4] {
        let ones = BusAccess::ones(size);
        t.port_out(NO_PORT, size, 0)?;
        let port = t.port_in(NO_PORT, size)?;
        t.expect(&format!("port {NO_PORT:#x} by {size}"), u64::from(port), ones)?;
        for register in [0x00, 0x04, 0x3c] {
            let bus = t.machine().bus()?;
            ConfigAccess::Ports.write(bus, NO_DEVICE, register, size, 0);
            let value = ConfigAccess::Ports.read(bus, NO_DEVICE, register, size);
            t.expect(&format!("register {register:#x} of {NO_DEVICE}"), u64::from(value), ones)?;
        }
    }
    Ok(())
}

/// The same of memory: "the host bus bridge, in PC compatible systems, must return all 1's"
/// (§3.3.3.1).
pub fn unassigned_memory(t: &mut TestThread<'_>) -> Outcome {
    for size in [1, 2, 4, 8] {
        t.store(NO_MEMORY, size, 0)?;
        let load = t.load(NO_MEMORY, size)?;
        t.expect(&format!("address {NO_MEMORY:#x} by {size}"), load, BusAccess::ones(size))?;
    }
    Ok(())
}

/// Functions 1 to 7 are there only if bit 7 of function 0 says so.
fn lone_function(t: &mut TestThread<'_>, f: &Function) -> Outcome {
    for function in 1..8 {
        let at = PciAddress { function, ..f.address };
        let vendor = ConfigAccess::Ports.read(t.machine().bus()?, at, 0, 2);
        let absent = vendor == 0xffff;
        let what = format!("{at}, though {} is the only function", f.address);
        t.check(absent || f.is_multifunction(), what)?;
    }
    Ok(())
}

/// The header type of every function (§6.2.1).
pub fn headers(t: &mut TestThread<'_>) -> Outcome {
    for f in functions(t)? {
        let layout = f.header & 0x7f;
        t.check(layout <= 2, format!("header layout {layout} of {}", f.name()))?;
        let before = read(t, &f, 0x0e, 1)?;
        write(t, &f, 0x0e, 1, !before & 0xff)?;
        let after = read(t, &f, 0x0e, 1)?;
        t.expect(&format!("header type of {} after a write", f.name()), after, before)?;
        if f.address.function == 0 {
            lone_function(t, &f)?;
        }
    }
    Ok(())
}
