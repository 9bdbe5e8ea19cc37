//! 82093AA data sheet §3.2.4, and what local APICs make of its messages.

use super::super::sources::Source::{Keyboard, Serial, Timer};
use super::super::sources::{Cpu, SOURCES, bus};
use super::super::{Outcome, TestThread};
use super::{LOGICAL_ID, PIC_BASE, end, redirect, redirection};
use crate::base::Nanos;
use crate::driver::apic::local::register;
use crate::driver::apic::{DeliveryMode, Destination, IoApic, LocalApic, Redirection};
use crate::driver::pic;
use crate::machine::IrqSource;

const VECTOR: u8 = 0x51;

pub fn inputs(t: &mut TestThread<'_>) -> Outcome {
    let cpu = Cpu::watch(t, 0)?;
    for source in SOURCES {
        redirect(t, source, Redirection::edge(0x40 + source.input()))?;
    }
    for source in SOURCES {
        source.raise(t)?;
        let what = format!("{source:?} at input {}", source.input());
        cpu.expect(t, &what, 0x40 + source.input())?;
        end(t)?;
        cpu.expect_none(t, "one interrupt")?;
        source.lower(t)?;
    }
    Ok(())
}

pub fn edge(t: &mut TestThread<'_>) -> Outcome {
    let cpu = Cpu::watch(t, 0)?;
    redirect(t, Timer, Redirection::edge(VECTOR))?;
    for _ in 0..3 {
        Timer.raise(t)?;
        cpu.expect(t, "an edge", VECTOR)?;
        let entry = redirection(t, Timer)?;
        t.check(!entry.remote_irr, "an edge has no remote IRR")?;
        end(t)?;
        cpu.expect_none(t, "an edge is one interrupt, high as the line may be")?;
        Timer.lower(t)?;
        cpu.expect_none(t, "the end of a pulse is none")?;
    }
    Ok(())
}

pub fn masked_edge(t: &mut TestThread<'_>) -> Outcome {
    let cpu = Cpu::watch(t, 0)?;
    redirect(t, Serial, Redirection { masked: true, ..Redirection::edge(VECTOR) })?;
    Serial.raise(t)?;
    cpu.expect_none(t, "the input is masked")?;
    IoApic::default().set_masked(bus(t)?, Serial.input(), false);
    cpu.expect_none(t, "the edge was ignored, not held")?;
    Serial.raise(t)?;
    cpu.expect(t, "the next edge", VECTOR)?;
    end(t)
}

pub fn level(t: &mut TestThread<'_>) -> Outcome {
    let (cpu, lapic) = (Cpu::watch(t, 0)?, LocalApic::default());
    redirect(t, Serial, Redirection::level(VECTOR))?;
    let entry = redirection(t, Serial)?;
    t.check(!entry.remote_irr, "remote IRR of an idle input is 0")?;
    Serial.raise(t)?;
    for what in ["a level", "the level is still there after the EOI"] {
        cpu.expect(t, what, VECTOR)?;
        let entry = redirection(t, Serial)?;
        t.check(entry.remote_irr, "remote IRR is 1 until the EOI")?;
        let level = lapic.has(bus(t)?, register::TMR, VECTOR);
        t.check(level, "the local APIC's TMR says level")?;
        cpu.expect_none(t, "it is in service")?;
        end(t)?;
    }
    cpu.expect(t, "and again", VECTOR)?;
    Serial.lower(t)?;
    let entry = redirection(t, Serial)?;
    t.check(entry.remote_irr, "remote IRR stays when the level falls")?;
    end(t)?;
    let entry = redirection(t, Serial)?;
    t.check(!entry.remote_irr, "the EOI clears remote IRR")?;
    cpu.expect_none(t, "the level fell")
}

pub fn masked_level(t: &mut TestThread<'_>) -> Outcome {
    let cpu = Cpu::watch(t, 0)?;
    redirect(t, Serial, Redirection { masked: true, ..Redirection::level(VECTOR) })?;
    Serial.raise(t)?;
    cpu.expect_none(t, "the input is masked")?;
    IoApic::default().set_masked(bus(t)?, Serial.input(), false);
    cpu.expect(t, "the level is still there", VECTOR)?;
    IoApic::default().set_masked(bus(t)?, Serial.input(), true);
    end(t)?;
    cpu.expect_none(t, "masked again")?;
    IoApic::default().set_masked(bus(t)?, Serial.input(), false);
    cpu.expect(t, "and unmasked", VECTOR)?;
    Serial.lower(t)?;
    end(t)?;
    cpu.expect_none(t, "the level fell")
}

pub fn directed(t: &mut TestThread<'_>) -> Outcome {
    let ioapic = IoApic::default();
    if ioapic.version(bus(t)?) < 0x20 {
        return t.skip("the I/O APIC is older than version 20h");
    }
    let cpu = Cpu::watch(t, 0)?;
    redirect(t, Serial, Redirection::level(VECTOR))?;
    Serial.raise(t)?;
    cpu.expect(t, "a level", VECTOR)?;
    Serial.lower(t)?;
    ioapic.end_of_interrupt(bus(t)?, VECTOR + 1);
    let entry = redirection(t, Serial)?;
    t.check(entry.remote_irr, "the EOI of another vector ends nothing")?;
    ioapic.end_of_interrupt(bus(t)?, VECTOR);
    let entry = redirection(t, Serial)?;
    t.check(!entry.remote_irr, "the EOI register clears remote IRR")?;
    end(t)
}

pub fn polarity(t: &mut TestThread<'_>) -> Outcome {
    let cpu = Cpu::watch(t, 0)?;
    Serial.raise(t)?;
    redirect(t, Serial, Redirection { active_low: true, ..Redirection::level(VECTOR) })?;
    cpu.expect_none(t, "a low-active input at high is idle")?;
    Serial.lower(t)?;
    cpu.expect(t, "a low-active input at low asserts", VECTOR)?;
    Serial.raise(t)?;
    end(t)?;
    cpu.expect_none(t, "high again")?;
    redirect(t, Serial, Redirection { active_low: true, ..Redirection::edge(VECTOR) })?;
    cpu.expect_none(t, "at high")?;
    Serial.lower(t)?;
    cpu.expect(t, "a falling edge", VECTOR)?;
    end(t)
}

pub fn destinations(t: &mut TestThread<'_>) -> Outcome {
    let (cpu, lapic) = (Cpu::watch(t, 0)?, LocalApic::default());
    let id = lapic.id(bus(t)?);
    let (physical, logical) = (Destination::Physical, Destination::Logical);
    let flat = [
        (physical(id), true),
        (physical(0xff), true),
        (physical(id ^ 0x0e), false),
        (logical(LOGICAL_ID), true),
        (logical(LOGICAL_ID | 0x40), true),
        (logical(LOGICAL_ID << 1), false),
    ];
    for (destination, meant) in flat {
        try_destination(t, &cpu, destination, meant)?;
    }
    // Cluster 2, member 4 of the cluster model.
    lapic.write(bus(t)?, register::DFR, 0x0fff_ffff);
    lapic.write(bus(t)?, register::LDR, 0x2400_0000);
    for (mda, meant) in [(0x24, true), (0x2f, true), (0x28, false), (0x14, false)] {
        try_destination(t, &cpu, logical(mda), meant)?;
    }
    Ok(())
}

fn try_destination(
    t: &mut TestThread<'_>,
    cpu: &Cpu,
    destination: Destination,
    meant: bool,
) -> Outcome {
    redirect(t, Serial, Redirection { destination, ..Redirection::edge(VECTOR) })?;
    Serial.raise(t)?;
    let what = format!("{destination:x?}");
    if meant {
        cpu.expect(t, &what, VECTOR)?;
        end(t)
    } else {
        cpu.expect_none(t, &what)
    }
}

pub fn lowest_priority(t: &mut TestThread<'_>) -> Outcome {
    let cpu = Cpu::watch(t, 0)?;
    let destination = Destination::Logical(LOGICAL_ID);
    let mode = DeliveryMode::LowestPriority;
    redirect(t, Serial, Redirection { mode, destination, ..Redirection::level(VECTOR) })?;
    Serial.raise(t)?;
    cpu.expect(t, "lowest priority", VECTOR)?;
    let entry = redirection(t, Serial)?;
    t.check(entry.remote_irr, "a level of this mode has its remote IRR")?;
    Serial.lower(t)?;
    end(t)?;
    let entry = redirection(t, Serial)?;
    t.check(!entry.remote_irr, "and its EOI")
}

pub fn nmi(t: &mut TestThread<'_>) -> Outcome {
    let cpu = Cpu::watch(t, 0)?;
    let pin = t.watch(IrqSource::Nmi { cpu: 0 })?;
    let mode = DeliveryMode::Nmi;
    redirect(t, Keyboard, Redirection { mode, ..Redirection::edge(VECTOR) })?;
    Keyboard.raise(t)?;
    let edges = t.expect_irq("NMI", &pin, Nanos(0))?;
    t.expect("edges of NMI", edges, 1)?;
    cpu.expect_none(t, "its vector means nothing")
}

pub fn extint(t: &mut TestThread<'_>) -> Outcome {
    let cpu = Cpu::watch(t, 0)?;
    let mode = DeliveryMode::ExtInt;
    redirect(t, Serial, Redirection { mode, ..Redirection::edge(VECTOR) })?;
    pic::enable(bus(t)?, Keyboard.irq());
    Keyboard.raise(t)?;
    cpu.expect_none(t, "LINT0 is masked")?;
    Serial.raise(t)?;
    cpu.expect(t, "the vector of the 8259A", PIC_BASE + Keyboard.irq())?;
    pic::end_of_interrupt(bus(t)?, Keyboard.irq());
    let served = LocalApic::default().has(bus(t)?, register::ISR, PIC_BASE + Keyboard.irq());
    t.check(!served, "an external interrupt is not in the local APIC's ISR")
}
