//! 82093AA data sheet §3.2.

use super::super::sources::bus;
use super::super::{Outcome, TestThread};
use crate::driver::apic::IoApic;
use crate::driver::apic::ioapic::{DEFAULT_BASE, IOAPICARB, IOAPICID, IOAPICVER};

const ID_BITS: u32 = 0x0f00_0000;

/// Versions of a PC's: the 82093AA's own, and those with an EOI register.
const VERSIONS: [u8; 2] = [0x11, 0x20];

/// Entries: what is defined in each half. The bits above 16 of the lower one are reserved.
const LOW_DEFINED: u32 = 0x1_ffff;
const LOW_READ_ONLY: u32 = 0x5000;
const HIGH_DEFINED: u32 = 0xff00_0000;
const MASKED: u32 = 1 << 16;

pub fn registers(t: &mut TestThread<'_>) -> Outcome {
    let ioapic = IoApic::default();
    let version = ioapic.version(bus(t)?);
    t.check(VERSIONS.contains(&version), format!("version {version:#x} is 11h or 20h"))?;
    let inputs = ioapic.inputs(bus(t)?);
    t.expect("entries", inputs, 24)?;
    let before = ioapic.read(bus(t)?, IOAPICVER);
    ioapic.write(bus(t)?, IOAPICVER, !before);
    let after = ioapic.read(bus(t)?, IOAPICVER);
    t.expect("the version is read only", after, before)?;
    for id in [u32::MAX, 0x0500_0000, 0] {
        ioapic.write(bus(t)?, IOAPICID, id);
        let got = ioapic.read(bus(t)?, IOAPICID);
        t.expect("identification", got, id & ID_BITS)?;
        ioapic.write(bus(t)?, IOAPICARB, !id);
        let got = ioapic.read(bus(t)?, IOAPICARB);
        t.expect("arbitration follows the identification", got & ID_BITS, id & ID_BITS)?;
    }
    for selector in [0x00, 0x10, 0x3f] {
        t.writel(DEFAULT_BASE.0, selector)?;
        let got = t.readl(DEFAULT_BASE.0)?;
        t.expect("the selector", got, selector)?;
    }
    Ok(())
}

pub fn entries(t: &mut TestThread<'_>) -> Outcome {
    let ioapic = IoApic::default();
    for input in 0..24 {
        let low = 0x10 + 2 * input;
        for pattern in [u32::MAX, 0x5555_5555 | MASKED, 0xaaaa_aaaa | MASKED, MASKED] {
            ioapic.write(bus(t)?, low, pattern);
            ioapic.write(bus(t)?, low + 1, pattern);
            let got = ioapic.read(bus(t)?, low) & LOW_DEFINED;
            let expected = pattern & LOW_DEFINED & !LOW_READ_ONLY;
            t.expect(&format!("entry {input} bits 16:0"), got, expected)?;
            let got = ioapic.read(bus(t)?, low + 1) & HIGH_DEFINED;
            t.expect(&format!("entry {input} bits 63:56"), got, pattern & HIGH_DEFINED)?;
        }
        ioapic.write(bus(t)?, low + 1, 0);
    }
    Ok(())
}
