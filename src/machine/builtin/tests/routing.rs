//! Interrupts from a device's pin, through the chipset, to a vector in a CPU.

use super::board::full;
use super::rig::*;
use crate::base::{GuestAddr, Nanos};
use crate::driver::apic::{IoApic, LocalApic, Redirection};
use crate::driver::chipset::Chipset;
use crate::driver::pic;
use crate::machine::builtin::devices::virtio_pci::bits::MODERN_ISR;
use crate::machine::builtin::*;
use crate::machine::{IrqEvent, IrqSource};

const IOAPIC: IoApic = IoApic(GuestAddr(0xfec0_0000));
const LAPIC: LocalApic = LocalApic(GuestAddr(0xfee0_0000));

fn intr(rig: &mut Rig) -> Arc<IrqEvent> {
    rig.machine.interrupts().unwrap().watch(IrqSource::Intr { cpu: 0 }).unwrap()
}

fn acknowledge(rig: &mut Rig) -> Option<u8> {
    rig.machine.interrupts().unwrap().acknowledge(0)
}

fn level(rig: &mut Rig, line: u32) -> bool {
    rig.machine.interrupts().unwrap().intx_level(line)
}

/// The PIC with vectors from 20h, everything masked, on the way that firmware leaves open.
fn start_pic(rig: &mut Rig) {
    pic::initialize(rig.bus(), pic::Setup::new(0x20, 0x28));
    pic::set_mask(rig.bus(), 0xffff);
    LAPIC.enable(rig.bus(), 0xff);
    LAPIC.virtual_wire(rig.bus());
}

/// A disk that pulls its pin.
fn pull(rig: &mut Rig) -> Ring {
    let mut ring = rig.start_one(USUAL);
    rig.request(&mut ring, 0, 1, &[], 512);
    ring
}

#[test]
fn a_disks_pin_reaches_the_pic_by_its_pirq() {
    for (board, route) in [(Board::Pc, (1, 0x63)), (Board::Q35, (31, 0x68))] {
        let mut rig = full(board);
        Chipset::set_up(rig.bus()).unwrap();
        let line = rig.config_read(4, 0x3c, 1);
        start_pic(&mut rig);
        pic::enable(rig.bus(), line as u8);
        let event = intr(&mut rig);
        assert_eq!(acknowledge(&mut rig), None);
        pull(&mut rig);
        assert_eq!(event.take(), 1);
        assert_eq!(acknowledge(&mut rig), Some(0x20 + line as u8));
        // The level still stands: after the EOI it asks again, until the ISR is read.
        pic::end_of_interrupt(rig.bus(), line as u8);
        assert_eq!(acknowledge(&mut rig), Some(0x20 + line as u8));
        rig.read(MODERN_ISR, 1);
        pic::end_of_interrupt(rig.bus(), line as u8);
        assert_eq!(acknowledge(&mut rig), None, "{}", board.name());
        // Routed elsewhere, and to nowhere.
        pull(&mut rig);
        rig.config_write(route.0, route.1, 1, 5);
        assert!(level(&mut rig, 5) && !level(&mut rig, line));
        rig.config_write(route.0, route.1, 1, 0x85);
        assert!(!level(&mut rig, 5));
        rig.config_write(route.0, route.1, 1, 8);
        assert!(!level(&mut rig, 8), "a reserved interrupt");
    }
}

#[test]
fn a_disks_pin_reaches_the_io_apic() {
    // The PIIX drives the input of the interrupt that PIRQD is routed to, the ICH always input 20.
    for (board, input) in [(Board::Pc, 11), (Board::Q35, 20)] {
        let mut rig = full(board);
        Chipset::set_up(rig.bus()).unwrap();
        LAPIC.enable(rig.bus(), 0xff);
        IOAPIC.redirect(rig.bus(), input, Redirection::level(0x51));
        let event = intr(&mut rig);
        pull(&mut rig);
        assert_eq!(event.take(), 1, "{}", board.name());
        assert_eq!(acknowledge(&mut rig), Some(0x51));
        rig.read(MODERN_ISR, 1);
        LAPIC.end_of_interrupt(rig.bus());
        assert_eq!(acknowledge(&mut rig), None);
    }
}

/// The RTC's periodic interrupt at 1024 Hz.
fn start_rtc(rig: &mut Rig) {
    for (register, value) in [(0x0a, 0x26), (0x0b, 0x42)] {
        rig.bus().pio_write(0x70, 1, register);
        rig.bus().pio_write(0x71, 1, value);
    }
}

fn read_register_c(rig: &mut Rig) -> u32 {
    rig.bus().pio_write(0x70, 1, 0x0c);
    rig.bus().pio_read(0x71, 1)
}

fn wait_for(rig: &mut Rig, event: &IrqEvent) {
    let end = rig.machine.clock().now() + 10_000_000;
    while event.take() == 0 {
        assert!(rig.machine.clock().now() < end, "no interrupt");
        rig.machine.wait(&[event.fd()], Some(end)).unwrap();
    }
}

#[test]
fn the_rtcs_interrupt_8_goes_through_both_controllers() {
    let mut rig = full(Board::Pc);
    start_pic(&mut rig);
    pic::enable(rig.bus(), 8);
    let event = intr(&mut rig);
    start_rtc(&mut rig);
    for _ in 0..3 {
        wait_for(&mut rig, &event);
        assert_eq!(acknowledge(&mut rig), Some(0x28));
        assert_eq!(read_register_c(&mut rig) & 0xc0, 0xc0);
        pic::end_of_interrupt(rig.bus(), 8);
    }
    pic::set_mask(rig.bus(), 0xffff);
    LAPIC.enable(rig.bus(), 0xff);
    IOAPIC.redirect(rig.bus(), 8, Redirection::edge(0x38));
    read_register_c(&mut rig);
    wait_for(&mut rig, &event);
    assert_eq!(acknowledge(&mut rig), Some(0x38));
}

#[test]
fn the_timers_interrupt_0_is_input_2_of_the_io_apic() {
    let mut rig = full(Board::Pc);
    LAPIC.enable(rig.bus(), 0xff);
    IOAPIC.redirect(rig.bus(), 0, Redirection::edge(0x60));
    IOAPIC.redirect(rig.bus(), 2, Redirection::edge(0x62));
    let event = intr(&mut rig);
    for (port, value) in [(0x43, 0x34), (0x40, 0xe8), (0x40, 0x03)] {
        rig.bus().pio_write(port, 1, value);
    }
    wait_for(&mut rig, &event);
    assert_eq!(acknowledge(&mut rig), Some(0x62));
    assert_eq!(acknowledge(&mut rig), None);
}

#[test]
fn the_hpet_takes_the_legacy_interrupts_over_and_gives_them_back() {
    let mut rig = full(Board::Pc);
    for (port, value) in [(0x43, 0x34), (0x40, 0xe8), (0x40, 0x03)] {
        rig.bus().pio_write(port, 1, value);
    }
    start_rtc(&mut rig);
    let watch = |rig: &mut Rig, line| {
        rig.machine.interrupts().unwrap().watch(IrqSource::Intx(line)).unwrap()
    };
    let (timer, clock) = (watch(&mut rig, 0), watch(&mut rig, 8));
    let pass = |rig: &mut Rig, ms: u64| {
        let end = rig.machine.clock().now() + ms * 1_000_000;
        while rig.machine.clock().now() < end {
            rig.machine.wait(&[], Some(end)).unwrap();
        }
        read_register_c(rig);
        (timer.take(), clock.take())
    };
    let (ticks, periods) = pass(&mut rig, 10);
    assert!((10..=12).contains(&ticks) && periods == 1, "{ticks}, {periods}");
    let general_configuration = GuestAddr(0xfed0_0010);
    rig.bus().mmio_write(general_configuration, 4, 3);
    assert_eq!(pass(&mut rig, 10), (0, 0));
    rig.bus().mmio_write(general_configuration, 4, 0);
    let (ticks, periods) = pass(&mut rig, 10);
    assert!(ticks >= 10 && periods >= 1, "{ticks}, {periods}");
}

#[test]
fn a_pic_alone_interrupts_the_first_cpu() {
    let config = BuiltinConfig { chips: Chips::PIC | Chips::RTC, ..BuiltinConfig::default() };
    let mut machine = BuiltinMachine::new(config).unwrap();
    assert!(machine.capabilities().contains(crate::machine::Capabilities::CPU_IRQ));
    pic::initialize(machine.bus().unwrap(), pic::Setup::new(0x20, 0x28));
    pic::set_mask(machine.bus().unwrap(), 0xffff);
    pic::enable(machine.bus().unwrap(), 8);
    let event = machine.interrupts().unwrap().watch(IrqSource::Intr { cpu: 0 }).unwrap();
    for (register, value) in [(0x0a, 0x26), (0x0b, 0x42)] {
        machine.bus().unwrap().pio_write(0x70, 1, register);
        machine.bus().unwrap().pio_write(0x71, 1, value);
    }
    // The host's clock: a period is less than a millisecond.
    let patience = machine.clock().now() + 2_000_000_000;
    machine.wait(&[event.fd()], Some(patience)).unwrap();
    assert!(machine.clock().now() < patience);
    assert_eq!(machine.interrupts().unwrap().acknowledge(0), Some(0x28));
    assert_eq!(machine.interrupts().unwrap().acknowledge(1), None);
}

#[test]
fn a_board_without_controllers_has_no_cpu_to_interrupt() {
    let mut machine = BuiltinMachine::new(BuiltinConfig::default()).unwrap();
    assert!(!machine.capabilities().contains(crate::machine::Capabilities::CPU_IRQ));
    let irqs = machine.interrupts().unwrap();
    assert!(irqs.watch(IrqSource::Intr { cpu: 0 }).is_err());
    assert_eq!(irqs.acknowledge(0), None);
    assert!(machine.wait(&[], Some(Nanos(0))).is_ok());
}
