//! Configuration mechanism #1 (PCI 3.0 §3.2.2.3.2) and the enhanced one (PCI Express 3.0 §7.2.2).

use super::space::{functions, read, write};
use crate::base::BusAccess;
use crate::driver::pci::{ConfigAccess, PciAddress, ecam as mapped};
use crate::suite::{Outcome, TestThread};

const CONFIG_ADDRESS: u16 = 0xcf8;
const CONFIG_DATA: u16 = 0xcfc;
/// `CONFIG_ADDRESS` bits that are defined: enable, bus, device, function, register.
const DEFINED: u32 = 0x80ff_fffc;
const ENABLE: u32 = 1 << 31;
/// Interrupt line: storage for software in every function with a pin, and without effect.
const INTERRUPT_LINE: u16 = 0x3c;

/// "The address register is 32 bits, and only a full double word access reaches it." The byte at CF9
/// is left alone: chipsets have their reset control there.
pub fn config_address(t: &mut TestThread<'_>) -> Outcome {
    for address in [ENABLE, 0, 0x8000_0804, 0x00ff_fffc, 0x80aa_5554, ENABLE] {
        t.outl(CONFIG_ADDRESS, address)?;
        let got = t.inl(CONFIG_ADDRESS)? & DEFINED;
        t.expect("CF8 holds the defined bits", got, address)?;
    }
    t.outb(CONFIG_ADDRESS, 0x3c)?;
    t.outb(CONFIG_ADDRESS + 2, 0xff)?;
    t.outb(CONFIG_ADDRESS + 3, 0x00)?;
    t.outw(CONFIG_ADDRESS + 2, 0x0001)?;
    let got = t.inl(CONFIG_ADDRESS)? & DEFINED;
    t.expect("CF8 after byte and word writes", got, ENABLE)?;
    let host = t.inl(CONFIG_DATA)?;
    t.check(host != u32::MAX && host != 0, "the host bridge answers at CFC")?;
    t.outl(CONFIG_ADDRESS, 0)?;
    for (size, name) in [(1, "byte"), (2, "word"), (4, "double word")] {
        let got = u64::from(t.port_in(CONFIG_DATA, size)?);
        t.expect(&format!("a {name} of CFC with the enable bit off"), got, BusAccess::ones(size))?;
    }
    Ok(())
}

/// Bytes and words of `CONFIG_DATA` reach bytes and words of the register.
pub fn config_data(t: &mut TestThread<'_>) -> Outcome {
    for f in functions(t)? {
        for register in (0..0x40).step_by(4) {
            let whole = read(t, &f, register, 4)?;
            for (size, lane) in [(1, 0), (1, 1), (1, 2), (1, 3), (2, 0), (2, 2)] {
                let got = read(t, &f, register + lane, size)?;
                let expected = whole >> (8 * lane) & BusAccess::ones(size) as u32;
                let what = format!("{size} bytes at {:#04x} of {}", register + lane, f.name());
                t.expect(&what, got, expected)?;
            }
        }
        if f.pin == 0 {
            continue;
        }
        let before = read(t, &f, INTERRUPT_LINE, 4)?;
        for line in [0x00, 0x5a, 0x0b] {
            write(t, &f, INTERRUPT_LINE, 1, line)?;
            let got = read(t, &f, INTERRUPT_LINE, 4)?;
            let what = format!("3Ch of {} after a byte was written", f.name());
            t.expect(&what, got, before & !0xff | line)?;
        }
        write(t, &f, INTERRUPT_LINE, 1, before & 0xff)?;
    }
    Ok(())
}

/// Both mechanisms reach the same registers.
pub fn ecam(t: &mut TestThread<'_>) -> Outcome {
    let Some(window) = mapped::open(t.machine().bus()?) else {
        return t.skip("the board maps no configuration space into memory");
    };
    for f in functions(t)? {
        for size in [1, 2, 4] {
            for register in (0..0x100).step_by(usize::from(size)) {
                let bus = t.machine().bus()?;
                let by_ports = f.read(bus, register, size);
                let by_memory = window.read(bus, f.address, register, size);
                let what = format!("{size} bytes at {register:#04x} of {}, by memory", f.name());
                t.expect(&what, by_memory, by_ports)?;
            }
        }
        let bus = t.machine().bus()?;
        let before = f.read(bus, INTERRUPT_LINE, 1);
        window.write(bus, f.address, INTERRUPT_LINE, 1, !before & 0xff);
        let line = (f.read(bus, INTERRUPT_LINE, 1), window.read(bus, f.address, INTERRUPT_LINE, 1));
        window.write(bus, f.address, INTERRUPT_LINE, 1, before);
        t.expect(&format!("3Ch of {} by ports and by memory", f.name()), line.0, line.1)?;
        t.check(f.pin == 0 || line.0 != before, format!("3Ch of {} took the write", f.name()))?;
    }
    let nowhere = PciAddress { bus: 0, device: 30, function: 0 };
    let far = PciAddress { bus: 0xfe, device: 0, function: 0 };
    for at in [nowhere, far] {
        let got = window.read(t.machine().bus()?, at, 0, 4);
        t.expect(&format!("{at}, where nothing is, by memory"), got, u32::MAX)?;
    }
    let same = scan_is_same(t, window)?;
    t.check(same, "a scan by memory finds what one by ports finds")
}

fn scan_is_same(t: &mut TestThread<'_>, window: ConfigAccess) -> Outcome<bool> {
    let by_ports = functions(t)?;
    let by_memory = crate::driver::pci::scan::scan(t.machine().bus()?, window)?;
    let places = |list: &[crate::driver::pci::Function]| -> Vec<_> {
        list.iter().map(|f| (f.address, f.vendor, f.device, f.bars)).collect()
    };
    Ok(places(&by_ports) == places(&by_memory))
}
