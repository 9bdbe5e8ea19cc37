use std::sync::Arc;

use super::bits::*;
use super::pair::Pair;
use super::{PicDevice, PicPair};
use crate::base::{Nanos, Prng};
use crate::machine::builtin::device::{Device, LineProbe, LineSink, Wire};
use crate::machine::builtin::devices::recorded;
use crate::machine::builtin::walk::{SeededSteps, walk};

/// A pair as firmware sets it up: vectors 20h and 28h, nothing masked.
fn pair(icw4: u8) -> Pair {
    let mut pair = Pair::default();
    for (slave, base, icw3) in [(false, 0x20, 4), (true, 0x28, 2)] {
        pair.write(slave, false, 0x11);
        for value in [base, icw3, icw4] {
            pair.write(slave, true, value);
        }
    }
    pair
}

fn edge(pair: &mut Pair, irq: u8) {
    pair.set_pin(irq, false);
    pair.set_pin(irq, true);
}

fn isr(pair: &Pair) -> (u8, u8) {
    (pair.master.isr(), pair.slave.isr())
}

#[test]
fn the_highest_request_goes_first_and_holds_back_those_below() {
    let mut pair = pair(1);
    for irq in [5, 1, 3] {
        edge(&mut pair, irq);
    }
    assert_eq!(pair.acknowledge(), 0x21);
    assert!(!pair.output(), "3 and 5 are below 1");
    edge(&mut pair, 0);
    assert_eq!(pair.acknowledge(), 0x20);
    assert_eq!(isr(&pair), (0b11, 0));
    // Each non-specific EOI ends the highest.
    pair.write(false, false, 0x20);
    assert_eq!(isr(&pair), (0b10, 0));
    pair.write(false, false, 0x20);
    assert_eq!(pair.acknowledge(), 0x23);
    pair.write(false, false, 0x63);
    assert_eq!(pair.acknowledge(), 0x25);
}

#[test]
fn a_slave_interrupt_is_in_service_in_both_and_ends_in_both() {
    let mut pair = pair(1);
    edge(&mut pair, 8);
    edge(&mut pair, 9);
    edge(&mut pair, 3);
    assert_eq!(pair.acknowledge(), 0x28);
    assert_eq!(isr(&pair), (1 << 2, 1));
    pair.write(true, false, 0x20);
    assert!(!pair.output(), "the master still serves its slave");
    pair.write(false, false, 0x20);
    assert_eq!(pair.acknowledge(), 0x29, "the slave is above input 3");
    edge(&mut pair, 8);
    assert!(!pair.output(), "fully nested: the slave is locked out while in service");
}

#[test]
fn special_fully_nested_mode_lets_the_slave_interrupt_itself() {
    let mut pair = pair(1 | ICW4_SFNM);
    edge(&mut pair, 9);
    assert_eq!(pair.acknowledge(), 0x29);
    edge(&mut pair, 3);
    assert!(!pair.output(), "3 is below the slave");
    edge(&mut pair, 8);
    assert_eq!(pair.acknowledge(), 0x28);
    assert_eq!(isr(&pair), (1 << 2, 0b11));
}

#[test]
fn automatic_eoi_leaves_nothing_in_service_and_may_rotate() {
    let mut pair = pair(1 | ICW4_AEOI);
    edge(&mut pair, 4);
    assert_eq!(pair.acknowledge(), 0x24);
    assert_eq!(isr(&pair), (0, 0));
    pair.write(false, false, OCW2_R);
    edge(&mut pair, 4);
    assert_eq!(pair.acknowledge(), 0x24);
    edge(&mut pair, 4);
    edge(&mut pair, 6);
    assert_eq!(pair.acknowledge(), 0x26, "4 is the lowest now");
    pair.write(false, false, 0);
    edge(&mut pair, 1);
    assert_eq!(pair.acknowledge(), 0x21);
    edge(&mut pair, 1);
    assert_eq!(pair.acknowledge(), 0x21, "rotation is off, 6 stays the lowest");
    assert_eq!(pair.acknowledge(), 0x24);
}

#[test]
fn a_slave_with_automatic_eoi_asks_again_for_what_is_left() {
    let mut pair = pair(1 | ICW4_AEOI);
    edge(&mut pair, 8);
    edge(&mut pair, 9);
    assert_eq!((pair.acknowledge(), pair.acknowledge()), (0x28, 0x29));
    assert!(!pair.output());
}

#[test]
fn priorities_rotate_by_command() {
    let mut pair = pair(1);
    pair.write(false, false, OCW2_R | OCW2_SL | 2); // set priority: 3 is the highest
    edge(&mut pair, 0);
    edge(&mut pair, 3);
    assert_eq!(pair.acknowledge(), 0x23);
    pair.write(false, false, OCW2_R | OCW2_EOI); // 3 is the lowest
    edge(&mut pair, 3);
    assert_eq!(pair.acknowledge(), 0x20);
    pair.write(false, false, OCW2_R | OCW2_SL | OCW2_EOI); // so is 0, of its own
    edge(&mut pair, 0);
    edge(&mut pair, 1);
    assert_eq!(pair.acknowledge(), 0x21);
    pair.write(false, false, OCW2_SL | 5);
    assert_eq!(isr(&pair).0, 0b10, "no operation");
}

#[test]
fn special_mask_mode_lets_lower_levels_in_and_hides_masked_ones_from_eoi() {
    let mut pair = pair(1);
    edge(&mut pair, 1);
    assert_eq!(pair.acknowledge(), 0x21);
    pair.write(false, true, 0b10);
    edge(&mut pair, 6);
    assert!(!pair.output(), "masking alone does not help");
    pair.write(false, false, OCW3 | OCW3_ESMM | OCW3_SMM);
    assert_eq!(pair.acknowledge(), 0x26);
    pair.write(false, false, 0x20);
    assert_eq!(isr(&pair).0, 0b10, "the masked one stays");
    pair.write(false, false, OCW3 | OCW3_SMM);
    edge(&mut pair, 6);
    assert!(pair.output(), "SMM counts only with ESMM");
    pair.write(false, false, OCW3 | OCW3_ESMM);
    assert!(!pair.output());
    pair.write(false, false, 0x20);
    assert_eq!(isr(&pair).0, 0);
}

#[test]
fn poll_takes_an_interrupt_without_the_cpu() {
    let mut pair = pair(1);
    pair.write(false, false, OCW3 | OCW3_P);
    assert_eq!(pair.read(false, false) & POLL_I, 0);
    edge(&mut pair, 6);
    pair.write(false, false, OCW3 | OCW3_P);
    assert_eq!(pair.read(false, true), POLL_I | 6);
    assert_eq!(isr(&pair).0, 1 << 6);
    assert_eq!(pair.read(false, true), 0, "only one read polls; this is the IMR");
    edge(&mut pair, 12);
    pair.write(true, false, OCW3 | OCW3_P);
    assert_eq!(pair.read(true, false), POLL_I | 4);
}

#[test]
fn reads_show_what_ocw3_selects() {
    let mut pair = pair(1);
    edge(&mut pair, 5);
    edge(&mut pair, 7);
    assert_eq!(pair.read(false, false), 0xa0, "IRR after initialization");
    assert_eq!(pair.acknowledge(), 0x25);
    pair.write(false, false, OCW3 | OCW3_RR | OCW3_RIS);
    assert_eq!(pair.read(false, false), 0x20);
    pair.write(false, false, OCW3);
    assert_eq!(pair.read(false, false), 0x20, "the selection stays");
    pair.write(false, false, OCW3 | OCW3_RR);
    assert_eq!(pair.read(false, false), 0x80);
}

#[test]
fn a_level_that_went_away_is_a_default_interrupt() {
    let mut pair = pair(1);
    pair.set_elcr(false, 1 << 5);
    pair.set_elcr(true, 1 << 3);
    pair.set_pin(5, true);
    pair.set_pin(5, false);
    assert!(!pair.output());
    assert_eq!(pair.acknowledge(), 0x27, "spurious 7");
    assert_eq!(isr(&pair), (0, 0));
    pair.set_pin(11, true);
    pair.set_pin(11, false);
    assert_eq!(pair.acknowledge(), 0x2f, "spurious 15: the master latched its slave");
    assert_eq!(isr(&pair), (1 << 2, 0), "the master needs its EOI");
}

#[test]
fn a_level_asks_again_until_it_falls() {
    let mut pair = pair(1);
    pair.set_elcr(true, 0xff);
    assert_eq!((pair.elcr(true), pair.elcr(false)), (0xde, 0));
    pair.set_elcr(false, 0xff);
    assert_eq!(pair.elcr(false), 0xf8);
    pair.set_pin(10, true);
    assert_eq!(pair.acknowledge(), 0x2a);
    pair.write(true, false, 0x20);
    pair.write(false, false, 0x20);
    assert_eq!(pair.acknowledge(), 0x2a);
    pair.set_pin(10, false);
    pair.write(true, false, 0x20);
    pair.write(false, false, 0x20);
    assert!(!pair.output());
}

#[test]
fn initialization_forgets_edges_masks_and_service_but_not_levels_or_elcr() {
    let mut pair = pair(1);
    pair.set_elcr(false, 1 << 4);
    pair.set_pin(4, true);
    edge(&mut pair, 1);
    pair.write(false, true, 0xff);
    pair.write(false, false, ICW1 | ICW1_SNGL);
    assert!(!pair.output(), "not before it is complete");
    pair.write(false, true, 0x40);
    assert_eq!(pair.read(false, true), 0, "IMR");
    assert_eq!(pair.read(false, false), 1 << 4, "input 1 must rise again");
    assert_eq!(pair.acknowledge(), 0x44);
    // Alone, a chip's input 2 is like any other.
    pair.write(false, false, 0x20);
    edge(&mut pair, 8);
    assert_eq!(pair.acknowledge(), 0x42);
}

#[test]
fn a_slave_of_another_id_leaves_the_bus_floating() {
    let mut pair = pair(1);
    pair.write(true, false, 0x11);
    for value in [0x28, 5, 1] {
        pair.write(true, true, value);
    }
    edge(&mut pair, 8);
    assert_eq!(pair.acknowledge(), 0xff);
}

#[test]
fn a_shared_input_is_high_while_any_source_pulls() {
    let probe = Arc::new(LineProbe::default());
    let pic = PicPair::new(Wire::new(probe.clone(), 0, 0));
    let mut device = PicDevice(pic.clone());
    device.write(2, 1, 1, 0xff, Nanos(0));
    pic.set_line(10, 0, true);
    pic.set_line(10, 1, true);
    pic.set_line(10, 0, false);
    assert_eq!(probe.line(0), (true, 1));
    pic.set_line(10, 1, false);
    assert_eq!(probe.line(0), (true, 1), "the master latched its slave");
    assert_eq!(pic.requests(), 1 << 2);
    pic.set_line(2, 0, true);
    pic.set_line(99, 0, true);
    assert_eq!(pic.requests(), 1 << 2, "the cascade and the world beyond cannot be driven");
}

#[test]
fn each_acknowledge_lets_the_output_fall() {
    let probe = Arc::new(LineProbe::default());
    let pic = PicPair::new(Wire::new(probe.clone(), 0, 0));
    let mut device = PicDevice(pic.clone());
    // As 16-bit accesses: ICW1 with ICW2, and ICW4 by itself.
    device.write(0, 0, 2, 0x2013, Nanos(0));
    device.write(0, 1, 1, 0x03, Nanos(0));
    assert_eq!(device.read(0, 0, 2, Nanos(0)), 0);
    pic.set_line(3, 0, true);
    pic.set_line(4, 0, true);
    assert_eq!(device.read(0, 0, 2, Nanos(0)), 0x18);
    assert_eq!((pic.acknowledge(), probe.line(0)), (0x23, (true, 2)));
    assert_eq!((pic.acknowledge(), probe.line(0)), (0x24, (false, 2)));
    device.reset(Nanos(0));
    assert!(!pic.output());
}

/// The pair with a walker that also pulls inputs and acknowledges, by what is written past the
/// end of the registers.
struct Walked(PicDevice);

impl Device for Walked {
    fn name(&self) -> &'static str {
        "pic"
    }

    fn read(&mut self, window: usize, offset: u64, size: u8, now: Nanos) -> u64 {
        if window == 3 {
            return self.0.0.acknowledge().into();
        }
        self.0.read(window, offset, size, now)
    }

    fn write(&mut self, window: usize, offset: u64, size: u8, value: u64, now: Nanos) {
        if window == 3 {
            self.0.0.set_line(value as u32 & 31, value as u32 >> 5, value & 0x1_0000 != 0);
        }
        self.0.write(window, offset, size, value, now);
    }

    fn reset(&mut self, now: Nanos) {
        self.0.reset(now);
    }
}

#[test]
fn a_random_walk_ends_the_same_twice() {
    let run = || {
        let probe = Arc::new(LineProbe::default());
        let mut device = Walked(PicDevice(PicPair::new(Wire::new(probe, 0, 0))));
        walk(&mut device, &[2, 2, 2, 8], &mut SeededSteps(Prng::new(8259), 1_000_000))
    };
    assert_eq!(run(), run());
}

/// Requests, which even ports read, depend on other devices.
#[test]
fn firmware_and_linux_read_what_they_read_on_qemu() {
    for log in
        ["seabios/boot-tcg.log.xz", "seabios/boot-tcg-ts.log.xz", "guest/virtio-raw-mmio.trace.xz"]
    {
        let Some(mut accesses) = recorded::accesses(log, &["pic", "elcr"]) else { return };
        accesses.retain(|access| access.write || access.addr & 1 != 0);
        let mut device = PicDevice(PicPair::new(Wire::open()));
        recorded::replay(&mut device, &[(0x20, 2), (0xa0, 2), (0x4d0, 2)], &accesses);
    }
}
