//! 82093AA data sheet §3.2.4, and what becomes of its messages.

use super::super::sources::Source::{Keyboard, Serial, Timer};
use super::super::sources::{Cpu, SOURCES, bus};
use super::super::{Outcome, TestThread};
use super::receiver::{ASSERT, Receiver, entry_of, messages};
use super::{LOGICAL_ID, PIC_BASE, redirect, redirection};
use crate::base::Nanos;
use crate::driver::apic::local::register;
use crate::driver::apic::{DeliveryMode, Destination, IoApic, LocalApic, Redirection};
use crate::driver::pic;
use crate::machine::IrqSource;

const VECTOR: u8 = 0x51;

pub fn inputs(t: &mut TestThread<'_>) -> Outcome {
    let to = Receiver::watch(t)?;
    for source in SOURCES {
        redirect(t, source, Redirection::edge(0x40 + source.input()))?;
    }
    for source in SOURCES {
        let entry = Redirection::edge(0x40 + source.input());
        source.raise(t)?;
        to.expect(t, &format!("{source:?} at input {}", source.input()), entry)?;
        to.end(t, entry)?;
        to.expect_none(t, "one interrupt")?;
        source.lower(t)?;
    }
    Ok(())
}

pub fn edge(t: &mut TestThread<'_>) -> Outcome {
    let (to, entry) = (Receiver::watch(t)?, Redirection::edge(VECTOR));
    redirect(t, Timer, entry)?;
    for _ in 0..3 {
        Timer.raise(t)?;
        to.expect(t, "an edge", entry)?;
        let now = redirection(t, Timer)?;
        t.check(!now.remote_irr, "an edge has no remote IRR")?;
        to.end(t, entry)?;
        to.expect_none(t, "an edge is one interrupt, high as the line may be")?;
        Timer.lower(t)?;
        to.expect_none(t, "the end of a pulse is none")?;
    }
    Ok(())
}

pub fn masked_edge(t: &mut TestThread<'_>) -> Outcome {
    let (to, entry) = (Receiver::watch(t)?, Redirection::edge(VECTOR));
    redirect(t, Serial, Redirection { masked: true, ..entry })?;
    Serial.raise(t)?;
    to.expect_none(t, "the input is masked")?;
    IoApic::default().set_masked(bus(t)?, Serial.input(), false);
    to.expect_none(t, "the edge was ignored, not held")?;
    Serial.raise(t)?;
    to.expect(t, "the next edge", entry)?;
    to.end(t, entry)
}

pub fn level(t: &mut TestThread<'_>) -> Outcome {
    let (to, entry) = (Receiver::watch(t)?, Redirection::level(VECTOR));
    redirect(t, Serial, entry)?;
    let now = redirection(t, Serial)?;
    t.check(!now.remote_irr, "remote IRR of an idle input is 0")?;
    Serial.raise(t)?;
    for what in ["a level", "the level is still there after the EOI"] {
        to.expect(t, what, entry)?;
        let now = redirection(t, Serial)?;
        t.check(now.remote_irr, "remote IRR is 1 until the EOI")?;
        to.expect_none(t, "it is in service")?;
        to.end(t, entry)?;
    }
    to.expect(t, "and again", entry)?;
    Serial.lower(t)?;
    let now = redirection(t, Serial)?;
    t.check(now.remote_irr, "remote IRR stays when the level falls")?;
    to.end(t, entry)?;
    let now = redirection(t, Serial)?;
    t.check(!now.remote_irr, "the EOI clears remote IRR")?;
    to.expect_none(t, "the level fell")
}

pub fn masked_level(t: &mut TestThread<'_>) -> Outcome {
    let (to, entry) = (Receiver::watch(t)?, Redirection::level(VECTOR));
    redirect(t, Serial, Redirection { masked: true, ..entry })?;
    Serial.raise(t)?;
    to.expect_none(t, "the input is masked")?;
    IoApic::default().set_masked(bus(t)?, Serial.input(), false);
    to.expect(t, "the level is still there", entry)?;
    IoApic::default().set_masked(bus(t)?, Serial.input(), true);
    to.end(t, entry)?;
    to.expect_none(t, "masked again")?;
    IoApic::default().set_masked(bus(t)?, Serial.input(), false);
    to.expect(t, "and unmasked", entry)?;
    Serial.lower(t)?;
    to.end(t, entry)?;
    to.expect_none(t, "the level fell")
}

pub fn directed(t: &mut TestThread<'_>) -> Outcome {
    let ioapic = IoApic::default();
    if ioapic.version(bus(t)?) < 0x20 {
        return t.skip("the I/O APIC is older than version 20h");
    }
    let (to, entry) = (Receiver::watch(t)?, Redirection::level(VECTOR));
    redirect(t, Serial, entry)?;
    Serial.raise(t)?;
    to.expect(t, "a level", entry)?;
    Serial.lower(t)?;
    ioapic.end_of_interrupt(bus(t)?, VECTOR + 1);
    let now = redirection(t, Serial)?;
    t.check(now.remote_irr, "the EOI of another vector ends nothing")?;
    ioapic.end_of_interrupt(bus(t)?, VECTOR);
    let now = redirection(t, Serial)?;
    t.check(!now.remote_irr, "the EOI register clears remote IRR")?;
    to.end(t, entry)
}

pub fn polarity(t: &mut TestThread<'_>) -> Outcome {
    let to = Receiver::watch(t)?;
    let entry = Redirection { active_low: true, ..Redirection::level(VECTOR) };
    Serial.raise(t)?;
    redirect(t, Serial, entry)?;
    to.expect_none(t, "a low-active input at high is idle")?;
    Serial.lower(t)?;
    to.expect(t, "a low-active input at low asserts", entry)?;
    Serial.raise(t)?;
    to.end(t, entry)?;
    to.expect_none(t, "high again")?;
    let entry = Redirection { level: false, ..entry };
    redirect(t, Serial, entry)?;
    to.expect_none(t, "at high")?;
    Serial.lower(t)?;
    to.expect(t, "a falling edge", entry)?;
    to.end(t, entry)
}

pub fn destinations(t: &mut TestThread<'_>) -> Outcome {
    let (to, lapic) = (Receiver::watch(t)?, LocalApic::default());
    // Without a local APIC each message is seen, and says whom it is for.
    let everybody = matches!(to, Receiver::Bus);
    let id = if everybody { 0 } else { lapic.id(bus(t)?) };
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
        try_destination(t, &to, destination, meant || everybody)?;
    }
    if !everybody {
        // Cluster 2, member 4 of the cluster model.
        lapic.write(bus(t)?, register::DFR, 0x0fff_ffff);
        lapic.write(bus(t)?, register::LDR, 0x2400_0000);
    }
    for (mda, meant) in [(0x24, true), (0x2f, true), (0x28, false), (0x14, false)] {
        try_destination(t, &to, logical(mda), meant || everybody)?;
    }
    Ok(())
}

fn try_destination(
    t: &mut TestThread<'_>,
    to: &Receiver,
    destination: Destination,
    meant: bool,
) -> Outcome {
    let entry = Redirection { destination, ..Redirection::edge(VECTOR) };
    redirect(t, Serial, entry)?;
    Serial.raise(t)?;
    let what = format!("{destination:x?}");
    if meant {
        to.expect(t, &what, entry)?;
        to.end(t, entry)
    } else {
        to.expect_none(t, &what)
    }
}

pub fn lowest_priority(t: &mut TestThread<'_>) -> Outcome {
    let to = Receiver::watch(t)?;
    let destination = Destination::Logical(LOGICAL_ID);
    let mode = DeliveryMode::LowestPriority;
    let entry = Redirection { mode, destination, ..Redirection::level(VECTOR) };
    redirect(t, Serial, entry)?;
    Serial.raise(t)?;
    to.expect(t, "lowest priority", entry)?;
    let now = redirection(t, Serial)?;
    t.check(now.remote_irr, "a level of this mode has its remote IRR")?;
    Serial.lower(t)?;
    to.end(t, entry)?;
    let now = redirection(t, Serial)?;
    t.check(!now.remote_irr, "and its EOI")
}

pub fn nmi(t: &mut TestThread<'_>) -> Outcome {
    let to = Receiver::watch(t)?;
    let entry = Redirection { mode: DeliveryMode::Nmi, ..Redirection::edge(VECTOR) };
    let pin = match to {
        Receiver::Cpu(_) => Some(t.watch(IrqSource::Nmi { cpu: 0 })?),
        Receiver::Bus => None,
    };
    redirect(t, Keyboard, entry)?;
    Keyboard.raise(t)?;
    match pin {
        Some(pin) => {
            let edges = t.expect_irq("NMI", &pin, Nanos(0))?;
            t.expect("edges of NMI", edges, 1)?;
        }
        None => to.expect(t, "NMI", entry)?,
    }
    to.expect_none(t, "its vector means nothing")
}

pub fn extint(t: &mut TestThread<'_>) -> Outcome {
    let to = Receiver::watch(t)?;
    let entry = Redirection { mode: DeliveryMode::ExtInt, ..Redirection::edge(VECTOR) };
    redirect(t, Serial, entry)?;
    pic::enable(bus(t)?, Keyboard.irq());
    Keyboard.raise(t)?;
    to.expect_none(t, "the 8259A's request alone goes nowhere")?;
    Serial.raise(t)?;
    match &to {
        Receiver::Cpu(cpu) => extint_at_cpu(t, cpu),
        Receiver::Bus => extint_on_bus(t, entry),
    }
}

fn extint_at_cpu(t: &mut TestThread<'_>, cpu: &Cpu) -> Outcome {
    cpu.expect(t, "the vector of the 8259A", PIC_BASE + Keyboard.irq())?;
    pic::end_of_interrupt(bus(t)?, Keyboard.irq());
    let served = LocalApic::default().has(bus(t)?, register::ISR, PIC_BASE + Keyboard.irq());
    t.check(!served, "an external interrupt is not in the local APIC's ISR")
}

/// The message of an I/O APIC has its entry's vector, which nobody looks at; that of one which
/// makes the acknowledge cycle itself has the 8259A's.
fn extint_on_bus(t: &mut TestThread<'_>, entry: Redirection) -> Outcome {
    let seen: Vec<_> = messages(t)?.into_iter().map(entry_of).collect();
    let [Some(message)] = *seen else {
        return t.failed("messages of an external interrupt", "one", format!("{seen:x?}"));
    };
    let taken = message.vector != entry.vector;
    let vector = if taken { PIC_BASE + Keyboard.irq() } else { entry.vector };
    let expected = Redirection { vector, ..entry };
    t.check(message == expected, "the message of an external interrupt")?;
    let served = pic::in_service(bus(t)?);
    let expected = if taken { 1 << Keyboard.irq() } else { 0 };
    t.expect("in service in the 8259A", served, expected)
}

/// SDM volume 3, §11.11.2: a level is sent when it is asserted, and the message says so.
pub fn assert(t: &mut TestThread<'_>) -> Outcome {
    messages(t)?;
    redirect(t, Serial, Redirection::level(VECTOR))?;
    Serial.raise(t)?;
    let seen = messages(t)?;
    let [message] = *seen else {
        return t.failed("messages of a level", "one", format!("{seen:x?}"));
    };
    t.expect("assert, in the message of a level", message.data & ASSERT, ASSERT)?;
    Serial.lower(t)?;
    let seen = messages(t)?;
    t.expect("messages when a level falls", seen.len(), 0)
}
