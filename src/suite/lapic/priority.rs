//! SDM §11.8 and §11.9.

use super::super::sources::Cpu;
use super::super::sources::bus;
use super::super::{Outcome, TestThread};
use super::{end, read, self_ipi, write};
use crate::driver::apic::LocalApic;
use crate::driver::apic::local::register;

fn expect_state(t: &mut TestThread<'_>, vector: u8, irr: bool, isr: bool) -> Outcome {
    let lapic = LocalApic::default();
    let got = (
        lapic.has(bus(t)?, register::IRR, vector),
        lapic.has(bus(t)?, register::ISR, vector),
        lapic.has(bus(t)?, register::TMR, vector),
    );
    t.expect(&format!("vector {vector:#x} in IRR, ISR, TMR"), got, (irr, isr, false))
}

pub fn life(t: &mut TestThread<'_>) -> Outcome {
    let cpu = Cpu::watch(t, 0)?;
    // The lowest and the highest legal vector, and the ends of words between.
    for vector in [0x10, 0x1f, 0x20, 0x7f, 0x80, 0xfe] {
        self_ipi(t, vector)?;
        expect_state(t, vector, true, false)?;
        cpu.expect(t, "INTR", vector)?;
        expect_state(t, vector, false, true)?;
        let priority = read(t, register::PPR)?;
        t.expect("PPR in service", priority, u32::from(vector) & 0xf0)?;
        end(t)?;
        expect_state(t, vector, false, false)?;
        cpu.expect_none(t, "one command, one interrupt")?;
    }
    Ok(())
}

pub fn nesting(t: &mut TestThread<'_>) -> Outcome {
    let cpu = Cpu::watch(t, 0)?;
    for vector in [0x41, 0x83, 0x62] {
        self_ipi(t, vector)?;
    }
    cpu.expect(t, "the highest vector", 0x83)?;
    cpu.expect_none(t, "the others are below its class")?;
    self_ipi(t, 0x8f)?;
    cpu.expect_none(t, "the same class does not interrupt")?;
    self_ipi(t, 0x90)?;
    cpu.expect(t, "a higher class does", 0x90)?;
    end(t)?;
    cpu.expect_none(t, "the class of 83h is still in service")?;
    for vector in [0x8f, 0x62, 0x41] {
        end(t)?;
        cpu.expect(t, "the next lower", vector)?;
    }
    end(t)?;
    let priority = read(t, register::PPR)?;
    t.expect("PPR with nothing in service", priority, 0)
}

fn self_ipi_twice(t: &mut TestThread<'_>, vector: u8) -> Outcome {
    self_ipi(t, vector)?;
    self_ipi(t, vector)
}

pub fn tpr(t: &mut TestThread<'_>) -> Outcome {
    let cpu = Cpu::watch(t, 0)?;
    write(t, register::TPR, 0x50)?;
    self_ipi_twice(t, 0x5f)?;
    cpu.expect_none(t, "the task priority's own class is held back")?;
    let priority = read(t, register::PPR)?;
    t.expect("PPR is the task priority", priority, 0x50)?;
    self_ipi(t, 0x60)?;
    cpu.expect(t, "the class above is not", 0x60)?;
    end(t)?;
    write(t, register::TPR, 0x4f)?;
    cpu.expect(t, "the task priority went down", 0x5f)?;
    write(t, register::TPR, 0x53)?;
    let priority = read(t, register::PPR)?;
    t.expect("PPR where both classes are equal", priority, 0x53)?;
    end(t)?;
    write(t, register::TPR, 0)?;
    cpu.expect_none(t, "two commands for one vector in IRR are one interrupt")
}

/// SDM §11.9: the task priority rises between INTR and its acknowledge.
pub fn spurious(t: &mut TestThread<'_>) -> Outcome {
    let cpu = Cpu::watch(t, 0)?;
    LocalApic::default().enable(bus(t)?, 0xef);
    self_ipi(t, 0x40)?;
    cpu.expect_request(t, "INTR")?;
    write(t, register::TPR, 0xf0)?;
    let got = cpu.acknowledge(t)?;
    t.expect("the spurious vector", got, Some(0xef))?;
    expect_state(t, 0xef, false, false)?;
    expect_state(t, 0x40, true, false)?;
    cpu.expect_none(t, "it comes once")?;
    write(t, register::TPR, 0)?;
    cpu.expect(t, "the request was not lost", 0x40)?;
    end(t)
}
