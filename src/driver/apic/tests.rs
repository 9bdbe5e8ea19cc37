use super::local::register;
use super::*;
use crate::base::GuestAddr;
use crate::machine::Bus;

/// Keeps the writes, and reads back what the last write of a register left.
#[derive(Default)]
struct Registers {
    selected: u8,
    table: std::collections::HashMap<u64, u32>,
    writes: Vec<(u64, u32)>,
}

impl Bus for Registers {
    fn pio_read(&mut self, _port: u16, _size: u8) -> u32 {
        panic!("APICs have no ports");
    }

    fn pio_write(&mut self, _port: u16, _size: u8, _value: u32) {
        panic!("APICs have no ports");
    }

    fn mmio_read(&mut self, addr: GuestAddr, size: u8) -> u64 {
        assert_eq!(size, 4);
        let key = if addr.0 == 0xfec0_0010 { self.selected.into() } else { addr.0 };
        self.table.get(&key).copied().unwrap_or(0).into()
    }

    fn mmio_write(&mut self, addr: GuestAddr, size: u8, value: u64) {
        assert_eq!(size, 4);
        let key = match addr.0 {
            0xfec0_0000 => return self.selected = value as u8,
            0xfec0_0010 => self.selected.into(),
            other => other,
        };
        self.writes.push((key, value as u32));
        self.table.insert(key, value as u32);
    }
}

#[test]
fn an_entry_is_its_bits() {
    // As Linux programs the timer's, and ACPI's.
    let timer = Redirection { destination: Destination::Logical(1), ..Redirection::edge(0x30) };
    assert_eq!(timer.bits(), 0x0100_0000_0000_0830);
    let acpi = Redirection { destination: Destination::Logical(1), ..Redirection::level(0x21) };
    assert_eq!(acpi.bits(), 0x0100_0000_0000_8821);
    for bits in [0, 0xff00_0000_0001_ffff, 0x5500_0000_0000_a2aa, 0x1_4700] {
        let entry = Redirection::of_bits(bits);
        assert_eq!(Redirection::of_bits(entry.bits()), entry, "{bits:#x}");
    }
    assert_eq!(Redirection::of_bits(0x1_f500).bits(), 0x1_f500);
}

#[test]
fn an_entry_is_masked_while_it_is_written() {
    let mut bus = Registers::default();
    let (ioapic, entry) = (IoApic::default(), Redirection::level(0x51));
    ioapic.redirect(&mut bus, 4, entry);
    assert_eq!(bus.writes, [(0x18, 1 << 16), (0x19, 0), (0x18, 0x8051)]);
    ioapic.set_masked(&mut bus, 4, true);
    assert_eq!(ioapic.redirection(&mut bus, 4), Redirection { masked: true, ..entry });
    ioapic.set_masked(&mut bus, 4, false);
    assert_eq!(ioapic.redirection(&mut bus, 4), entry);
    bus.table.insert(1, 0x0017_0020);
    assert_eq!((ioapic.version(&mut bus), ioapic.inputs(&mut bus)), (0x20, 24));
    bus.writes.clear();
    ioapic.mask_all(&mut bus);
    assert_eq!(bus.writes.len(), 24);
    assert_eq!(bus.writes.last(), Some(&(0x10 + 46, 1 << 16)));
    // A version that cannot be is no reason to write elsewhere.
    bus.table.insert(1, u32::MAX);
    ioapic.mask_all(&mut bus);
    assert!(bus.writes.iter().all(|(register, _)| *register >= 0x10));
    ioapic.end_of_interrupt(&mut bus, 0x51);
    assert_eq!(bus.writes.last(), Some(&(0xfec0_0040, 0x51)));
}

#[test]
fn a_command_is_sent_by_its_low_half() {
    let (mut bus, lapic) = (Registers::default(), LocalApic::default());
    let at = |register: u64| 0xfee0_0000 + register;
    lapic.send(&mut bus, Ipi::To(Destination::Logical(3)), DeliveryMode::Nmi, 0);
    lapic.send(&mut bus, Ipi::Others, DeliveryMode::StartUp, 8);
    let (high, low) = (at(register::ICR_HIGH), at(register::ICR_LOW));
    assert_eq!(bus.writes, [(high, 3 << 24), (low, 0x4c00), (high, 0), (low, 0xc_4608)]);
}

#[test]
fn the_timer_starts_with_its_count() {
    let (mut bus, lapic) = (Registers::default(), LocalApic::default());
    lapic.start_timer(&mut bus, TimerMode::Periodic, 0xec, 16, 1000);
    let written: Vec<u32> = bus.writes.iter().map(|(_, value)| *value).collect();
    assert_eq!(written, [0x2_00ec, 3, 1000]);
    assert_eq!(bus.writes.last(), Some(&(0xfee0_0000 + register::TMICT, 1000)));
    let codes = [1, 2, 4, 8, 16, 32, 64, 128].map(|divisor| {
        lapic.start_timer(&mut bus, TimerMode::OneShot, 0x40, divisor, 1);
        lapic.read(&mut bus, register::TDCR)
    });
    assert_eq!(codes, [11, 0, 1, 2, 3, 8, 9, 10]);
    lapic.stop_timer(&mut bus);
    assert_eq!(lapic.read(&mut bus, register::LVT_TIMER), local::LVT_MASKED);
}

#[test]
fn a_vector_is_a_bit_of_eight_words() {
    let (mut bus, lapic) = (Registers::default(), LocalApic::default());
    bus.table.insert(0xfee0_0000 + register::IRR + 0x70, 1 << 12);
    assert!(lapic.has(&mut bus, register::IRR, 0xec));
    assert!(!lapic.has(&mut bus, register::IRR, 0xed) && !lapic.has(&mut bus, register::ISR, 0xec));
}
