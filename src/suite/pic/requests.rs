//! Registers, initialization, and what becomes of a request (8259A data sheet, "Interrupt
//! Sequence", "Initialization Command Words", "Level Triggered Mode"; PIIX4 §4.2.4).

use super::super::sources::Source::{Clock, Keyboard, Serial};
use super::super::sources::{Cpu, SOURCES, bus};
use super::super::{Outcome, TestThread};
use super::{BASE, SLAVE_BASE, end, expect_in_service, raise, start, unmask};
use crate::driver::apic::local::register;
use crate::driver::apic::{DeliveryMode, IoApic, LocalApic, Redirection};
use crate::driver::pic::{self, Chip, Setup};

pub fn registers(t: &mut TestThread<'_>) -> Outcome {
    for value in 0..=0xff {
        for (chip, fixed) in [(Chip::Master, 0xf8), (Chip::Slave, 0xde)] {
            t.outb(chip.data(), value)?;
            let got = t.inb(chip.data())?;
            t.expect(&format!("IMR of the {chip:?}"), got, value)?;
            t.outb(chip.elcr(), value)?;
            let got = t.inb(chip.elcr())?;
            t.expect(&format!("ELCR of the {chip:?} written with {value:#x}"), got, value & fixed)?;
        }
    }
    pic::set_level_triggered(bus(t)?, 0);
    expect_in_service(t, "nothing was acknowledged", &[])
}

pub fn initialize(t: &mut TestThread<'_>) -> Outcome {
    // As far from the state after ICW1 as it goes: priorities set, special mask, ISR selected.
    for ocw in [0xc3, 0x6b] {
        t.outb(Chip::Master.command(), ocw)?;
    }
    raise(t, &[Keyboard, Serial])?;
    // ICW1 without ICW4, single.
    t.outb(Chip::Master.command(), 0x12)?;
    t.outb(Chip::Master.data(), BASE)?;
    let imr = t.inb(Chip::Master.data())?;
    t.expect("IMR after ICW1", imr, 0)?;
    let irr = t.inb(Chip::Master.command())?;
    t.expect("IRR, selected by ICW1: inputs must rise again", irr & 0x12, 0)?;
    raise(t, &[Keyboard, Serial])?;
    let got = pic::poll(bus(t)?, Chip::Master);
    t.expect("ICW1 gives input 7 the lowest priority", got, Some(1))?;
    let got = pic::poll(bus(t)?, Chip::Master);
    t.expect("ICW1 ends special mask mode", got, None)
}

pub fn irr(t: &mut TestThread<'_>) -> Outcome {
    for source in SOURCES {
        let bit = 1u16 << source.irq();
        source.raise(t)?;
        let got = pic::requests(bus(t)?) & bit;
        t.expect(&format!("IRR of masked interrupt {}", source.irq()), got, bit)?;
        let chip = Chip::of(source.irq());
        pic::enable(bus(t)?, source.irq());
        let got = pic::requests(bus(t)?) & bit;
        t.expect(&format!("IRR of unmasked interrupt {}", source.irq()), got, bit)?;
        let got = pic::poll(bus(t)?, chip);
        t.expect("polled", got, Some(source.irq()))?;
        let got = pic::requests(bus(t)?) & bit;
        t.expect(&format!("IRR of interrupt {} in service", source.irq()), got, 0)?;
        end(t, source)?;
        source.lower(t)?;
    }
    Ok(())
}

pub fn vectors(t: &mut TestThread<'_>) -> Outcome {
    // Firmware's, Linux's, and the ends of the range; low bits are the level's.
    for (base, slave_base) in [(0x08, 0x70), (0x30, 0x38), (0xf8, 0x00), (0x27, 0x4d)] {
        start(t, Setup::new(base, slave_base))?;
        let cpu = Cpu::watch(t, 0)?;
        unmask(t, &SOURCES)?;
        for source in SOURCES {
            let base = if source.irq() < 8 { base } else { slave_base };
            source.raise(t)?;
            let vector = base & 0xf8 | source.irq() & 7;
            cpu.expect(t, &format!("vector of interrupt {}", source.irq()), vector)?;
            end(t, source)?;
            source.lower(t)?;
        }
    }
    Ok(())
}

pub fn level(t: &mut TestThread<'_>) -> Outcome {
    let cpu = Cpu::watch(t, 0)?;
    pic::set_level_triggered(bus(t)?, 1 << Serial.irq());
    unmask(t, &[Serial])?;
    raise(t, &[Serial])?;
    for what in ["a level", "the level is still there after the EOI"] {
        cpu.expect(t, what, 0x24)?;
        cpu.expect_none(t, "it is in service")?;
        end(t, Serial)?;
    }
    cpu.expect(t, "and again", 0x24)?;
    Serial.lower(t)?;
    end(t, Serial)?;
    cpu.expect_none(t, "the level fell")?;
    pic::set_level_triggered(bus(t)?, 0);
    raise(t, &[Serial])?;
    cpu.expect(t, "an edge", 0x24)?;
    end(t, Serial)?;
    cpu.expect_none(t, "an edge is one interrupt, high as the line may be")
}

pub fn withdrawn(t: &mut TestThread<'_>) -> Outcome {
    let cpu = Cpu::watch(t, 0)?;
    pic::set_level_triggered(bus(t)?, 1 << Serial.irq());
    unmask(t, &[Serial])?;
    raise(t, &[Serial])?;
    cpu.expect_request(t, "a level")?;
    Serial.lower(t)?;
    cpu.expect_none(t, "the level fell before the acknowledge")?;
    let got = pic::requests(bus(t)?) & 1 << Serial.irq();
    t.expect("IRR of a level that fell", got, 0)
}

/// The I/O APIC starts an external interrupt, and the 8259A has none: the data sheet's default
/// interrupt.
pub fn spurious_7(t: &mut TestThread<'_>) -> Outcome {
    let cpu = Cpu::watch(t, 0)?;
    let lapic = LocalApic::default();
    let has_lapic = lapic.is_there(bus(t)?);
    if has_lapic {
        lapic.mask_lvt(bus(t)?, register::LVT_LINT0);
    }
    let entry = Redirection { mode: DeliveryMode::ExtInt, ..Redirection::edge(0) };
    IoApic::default().redirect(bus(t)?, Serial.input(), entry);
    // From now on.
    t.machine().interrupts()?.apic_messages()?;
    raise(t, &[Serial])?;
    if has_lapic {
        cpu.expect(t, "the default interrupt: level 7", BASE + 7)?;
    } else {
        acknowledged_by_ioapic(t)?;
    }
    expect_in_service(t, "the default interrupt is not in service", &[])?;
    cpu.expect_none(t, "it comes once")
}

/// Without a local APIC nobody makes the acknowledge cycle, unless the I/O APIC did and sends the
/// vector along.
fn acknowledged_by_ioapic(t: &mut TestThread<'_>) -> Outcome {
    let messages = t.machine().interrupts()?.apic_messages()?;
    let [message] = *messages else {
        return t.failed("messages of the I/O APIC", "one", format!("{messages:x?}"));
    };
    let extint = u32::from(DeliveryMode::ExtInt.code()) << 8;
    t.expect("delivery mode of the message", message.data & 0x700, extint)?;
    match message.data & 0xff {
        0 => t.skip("nobody makes an acknowledge cycle that INTR does not ask for"),
        vector => t.expect("the default interrupt: level 7", vector, u32::from(BASE) + 7),
    }
}

/// The slave's request is masked between the master's edge and the acknowledge. A master that
/// forgets an edge when its input falls would not ask at all; those of chipsets and emulators
/// keep it.
pub fn spurious_15(t: &mut TestThread<'_>) -> Outcome {
    let cpu = Cpu::watch(t, 0)?;
    unmask(t, &[Clock])?;
    raise(t, &[Clock])?;
    cpu.expect_request(t, "8")?;
    unmask(t, &[])?;
    let got = cpu.acknowledge(t)?;
    t.expect("the slave's default interrupt", got, Some(SLAVE_BASE + 7))?;
    expect_in_service(t, "in the master only", &[pic::CASCADE])?;
    pic::end_highest(bus(t)?, Chip::Master);
    unmask(t, &[Clock])?;
    cpu.expect(t, "8 was not lost", 0x28)?;
    end(t, Clock)
}
