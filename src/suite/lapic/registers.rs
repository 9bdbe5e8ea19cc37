//! SDM §11.4, §11.5.1, §11.5.3.

use super::super::sources::{Cpu, SPURIOUS, bus};
use super::super::{Outcome, TestThread};
use super::{end, read, self_ipi, write};
use crate::driver::apic::local::{LVT_MASKED, register};
use crate::driver::apic::{DeliveryMode, LocalApic};

const SEND_ILLEGAL_VECTOR: u32 = 1 << 5;
const RECEIVE_ILLEGAL_VECTOR: u32 = 1 << 6;
const ILLEGAL_REGISTER: u32 = 1 << 7;

/// Offset of a register that no version has.
const RESERVED: u64 = 0x040;

const ERROR_VECTOR: u8 = 0xfe;

pub fn version(t: &mut TestThread<'_>) -> Outcome {
    let version = read(t, register::VERSION)?;
    t.check(version as u8 & 0xf0 == 0x10, format!("version {:#x} is 1xh", version as u8))?;
    let entries = (version >> 16 & 0xff) + 1;
    t.check((6..=7).contains(&entries), format!("{entries} entries in the local vector table"))
}

/// Registers with the bits that are defined and can be written.
const WRITABLE: [(&str, u64, u32); 13] = [
    ("TPR", register::TPR, 0xff),
    ("LDR", register::LDR, 0xff00_0000),
    ("DFR", register::DFR, 0xf000_0000),
    ("SVR", register::SVR, 0xff),
    ("ICR, high", register::ICR_HIGH, 0xff00_0000),
    ("LVT timer", register::LVT_TIMER, 0x300ff),
    ("LVT thermal", register::LVT_THERMAL, 0x107ff),
    ("LVT performance", register::LVT_PERF, 0x107ff),
    ("LVT LINT0", register::LVT_LINT0, 0x1a7ff),
    ("LVT LINT1", register::LVT_LINT1, 0x1a7ff),
    ("LVT error", register::LVT_ERROR, 0x100ff),
    ("initial count", register::TMICT, u32::MAX),
    ("divide configuration", register::TDCR, 0xb),
];

pub fn registers(t: &mut TestThread<'_>) -> Outcome {
    for (name, at, bits) in WRITABLE {
        let before = read(t, at)?;
        // Entries stay masked, the APIC enabled.
        let kept = match at {
            register::SVR => 1 << 8,
            register::LVT_TIMER..=register::LVT_ERROR => LVT_MASKED,
            _ => 0,
        };
        for pattern in [u32::MAX, 0x5555_5555, 0xaaaa_aaaa, 0] {
            write(t, at, pattern & bits | kept)?;
            let got = read(t, at)? & (bits | kept);
            t.expect(name, got, pattern & bits | kept)?;
        }
        write(t, at, before)?;
    }
    Ok(())
}

pub fn read_only(t: &mut TestThread<'_>) -> Outcome {
    for at in [register::VERSION, register::PPR, register::ISR, register::IRR, register::TMCCT] {
        let before = read(t, at)?;
        write(t, at, !before)?;
        let after = read(t, at)?;
        t.expect(&format!("register {at:#x}"), after, before)?;
    }
    Ok(())
}

pub fn enable(t: &mut TestThread<'_>) -> Outcome {
    let (cpu, lapic) = (Cpu::watch(t, 0)?, LocalApic::default());
    lapic.set_lvt(bus(t)?, register::LVT_ERROR, DeliveryMode::Fixed, ERROR_VECTOR);
    lapic.disable(bus(t)?, SPURIOUS);
    let entry = read(t, register::LVT_ERROR)?;
    t.expect("disabling masks the entries", entry, LVT_MASKED | u32::from(ERROR_VECTOR))?;
    write(t, register::LVT_ERROR, ERROR_VECTOR.into())?;
    let entry = read(t, register::LVT_ERROR)? & LVT_MASKED;
    t.expect("disabled, an entry cannot be unmasked", entry, LVT_MASKED)?;
    self_ipi(t, 0x40)?;
    cpu.expect_none(t, "disabled")?;
    lapic.enable(bus(t)?, SPURIOUS);
    self_ipi(t, 0x41)?;
    cpu.expect(t, "enabled", 0x41)?;
    end(t)?;
    cpu.expect_none(t, "what came while it was disabled is lost")
}

pub fn errors(t: &mut TestThread<'_>) -> Outcome {
    let (cpu, lapic) = (Cpu::watch(t, 0)?, LocalApic::default());
    lapic.set_lvt(bus(t)?, register::LVT_ERROR, DeliveryMode::Fixed, ERROR_VECTOR);
    self_ipi(t, 0x0f)?;
    cpu.expect(t, "the error's vector", ERROR_VECTOR)?;
    end(t)?;
    let shown = read(t, register::ESR)?;
    t.expect("ESR shows an error once it was written", shown, 0)?;
    // The timer's vector is illegal for the APIC that receives it.
    write(t, register::LVT_TIMER, 0x0e)?;
    write(t, register::TDCR, 0xb)?;
    write(t, register::TMICT, 1)?;
    t.step(crate::base::Nanos(1_000))?;
    cpu.expect_none(t, "the error's interrupt is armed by a write of ESR")?;
    let errors = lapic.take_errors(bus(t)?);
    t.expect("both errors", errors, SEND_ILLEGAL_VECTOR | RECEIVE_ILLEGAL_VECTOR)?;
    let errors = lapic.take_errors(bus(t)?);
    t.expect("a write of ESR clears it", errors, 0)?;
    self_ipi(t, 0x00)?;
    cpu.expect(t, "the error's vector, armed again", ERROR_VECTOR)?;
    end(t)
}

pub fn illegal_register(t: &mut TestThread<'_>) -> Outcome {
    let lapic = LocalApic::default();
    read(t, RESERVED)?;
    let errors = lapic.take_errors(bus(t)?);
    t.expect("a read", errors, ILLEGAL_REGISTER)?;
    write(t, RESERVED, 0)?;
    let errors = lapic.take_errors(bus(t)?);
    t.expect("a write", errors, ILLEGAL_REGISTER)
}
