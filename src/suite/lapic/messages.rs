//! SDM §11.6, §11.11, and the MultiProcessor Specification's virtual wire mode.

use super::super::sources::Source::{Keyboard, Serial};
use super::super::sources::{Cpu, bus};
use super::super::{Outcome, TestThread};
use super::{LOGICAL_ID, PIC_BASE, end, self_ipi, write};
use crate::base::Nanos;
use crate::driver::apic::local::register;
use crate::driver::apic::{DeliveryMode, Destination, Ipi, LocalApic};
use crate::driver::pic;
use crate::machine::IrqSource;

const VECTOR: u8 = 0x71;

/// Message addresses: to a logical destination.
const MESSAGE: u64 = 0xfee0_0000;
const MESSAGE_LOGICAL: u64 = 1 << 2;

fn send(t: &mut TestThread<'_>, to: Ipi, mode: DeliveryMode) -> Outcome {
    LocalApic::default().send(bus(t)?, to, mode, VECTOR);
    Ok(())
}

pub fn shorthands(t: &mut TestThread<'_>) -> Outcome {
    let cpu = Cpu::watch(t, 0)?;
    for to in [Ipi::Own, Ipi::All] {
        send(t, to, DeliveryMode::Fixed)?;
        cpu.expect(t, &format!("{to:?}"), VECTOR)?;
        end(t)?;
    }
    send(t, Ipi::Others, DeliveryMode::Fixed)?;
    cpu.expect_none(t, "all but the sender")
}

pub fn logical(t: &mut TestThread<'_>) -> Outcome {
    let cpu = Cpu::watch(t, 0)?;
    let flat = [(LOGICAL_ID, true), (LOGICAL_ID | 0x82, true), (0x82, false), (0xff, true)];
    for (mda, meant) in flat {
        try_logical(t, &cpu, mda, meant)?;
    }
    // Cluster 3, members 1 and 2.
    write(t, register::DFR, 0x0fff_ffff)?;
    write(t, register::LDR, 0x3300_0000)?;
    for (mda, meant) in [(0x31, true), (0x3e, true), (0x3c, false), (0x23, false), (0xff, true)] {
        try_logical(t, &cpu, mda, meant)?;
    }
    Ok(())
}

fn try_logical(t: &mut TestThread<'_>, cpu: &Cpu, mda: u8, meant: bool) -> Outcome {
    send(t, Ipi::To(Destination::Logical(mda)), DeliveryMode::Fixed)?;
    let what = format!("logical destination {mda:#x}");
    if meant {
        cpu.expect(t, &what, VECTOR)?;
        end(t)
    } else {
        cpu.expect_none(t, &what)
    }
}

/// Its APIC is as a reset leaves it, software disabled: it takes NMIs and no vectors.
pub fn other_cpu(t: &mut TestThread<'_>) -> Outcome {
    let Ok(other) = t.watch(IrqSource::Nmi { cpu: 1 }) else {
        return t.skip("the machine has one CPU");
    };
    let own = t.watch(IrqSource::Nmi { cpu: 0 })?;
    let (first, second) = (Cpu::watch(t, 0)?, Cpu::watch(t, 1)?);
    for to in [Ipi::To(Destination::Physical(1)), Ipi::Others] {
        send(t, to, DeliveryMode::Nmi)?;
        let edges = t.expect_irq(&format!("NMI, {to:?}"), &other, Nanos(0))?;
        t.expect("edges of NMI", edges, 1)?;
        t.expect("edges of the sender's NMI", own.take(), 0)?;
        send(t, to, DeliveryMode::Fixed)?;
        second.expect_none(t, "a software disabled APIC takes no vector")?;
    }
    send(t, Ipi::To(Destination::Physical(0)), DeliveryMode::Nmi)?;
    t.expect_irq("NMI, to oneself by ID", &own, Nanos(0))?;
    t.expect("edges of the other's NMI", other.take(), 0)?;
    first.expect_none(t, "an NMI has no vector")
}

pub fn msi(t: &mut TestThread<'_>) -> Outcome {
    let cpu = Cpu::watch(t, 0)?;
    // Not in the page of the registers, which a CPU's own accesses never leave.
    let addr = MESSAGE | u64::from(LOGICAL_ID) << 12 | MESSAGE_LOGICAL;
    t.writel(addr, VECTOR.into())?;
    cpu.expect(t, "a message", VECTOR)?;
    let level = LocalApic::default().has(bus(t)?, register::TMR, VECTOR);
    t.check(!level, "an edge, in the TMR")?;
    end(t)?;
    t.writel(MESSAGE | 2 << 12 | MESSAGE_LOGICAL, VECTOR.into())?;
    cpu.expect_none(t, "a message to somebody else")?;
    t.writel(addr, 0x4100 | u32::from(VECTOR))?;
    cpu.expect(t, "lowest priority, among one", VECTOR)?;
    end(t)?;
    cpu.expect_none(t, "all are served")
}

pub fn virtual_wire(t: &mut TestThread<'_>) -> Outcome {
    let (cpu, lapic) = (Cpu::watch(t, 0)?, LocalApic::default());
    pic::enable(bus(t)?, Keyboard.irq());
    pic::enable(bus(t)?, Serial.irq());
    Keyboard.raise(t)?;
    cpu.expect_none(t, "LINT0 is masked")?;
    lapic.virtual_wire(bus(t)?);
    cpu.expect_request(t, "LINT0 passes INTR")?;
    self_ipi(t, 0xf0)?;
    let got = cpu.acknowledge(t)?;
    t.expect("the 8259A's goes before any vector", got, Some(PIC_BASE + 1))?;
    cpu.expect(t, "then the vector", 0xf0)?;
    end(t)?;
    Serial.raise(t)?;
    cpu.expect_none(t, "the 8259A's own priorities hold")?;
    pic::end_of_interrupt(bus(t)?, Keyboard.irq());
    write(t, register::TPR, 0xf0)?;
    cpu.expect(t, "the task priority does not", PIC_BASE + 4)?;
    pic::end_of_interrupt(bus(t)?, Serial.irq());
    cpu.expect_none(t, "all are served")
}
