use super::super::message::{Destination, Message, logical_match};
use super::*;
use crate::base::Prng;
use crate::machine::builtin::devices::ioapic::IoApicDevice;
use crate::machine::builtin::devices::pic::PicDevice;
use crate::machine::builtin::walk::{SeededSteps, walk};

/// Fixed interrupt to the CPUs of a command; those that got it.
fn command(rig: &Rig, cpus: u8, low: u32, dest: u32) -> Vec<u8> {
    rig.write(APIC_ICR_HIGH, dest << 24);
    rig.write(APIC_ICR_LOW, low | 0x50);
    let got = (0..cpus).filter(|cpu| rig.apics.acknowledge(*cpu) == Some(0x50)).collect();
    (0..cpus).for_each(|cpu| rig.write_of(cpu, APIC_EOI, 0));
    got
}

#[test]
fn commands_reach_whom_they_name() {
    let rig = Rig::new(4);
    assert_eq!(command(&rig, 4, 0, 2), [2]);
    assert_eq!(command(&rig, 4, 0, 9), [0u8; 0]);
    assert_eq!(command(&rig, 4, 0, 0xff), [0, 1, 2, 3]);
    assert_eq!(command(&rig, 4, 1 << 18, 3), [0]);
    assert_eq!(command(&rig, 4, 2 << 18, 3), [0, 1, 2, 3]);
    assert_eq!(command(&rig, 4, 3 << 18, 3), [1, 2, 3]);
    assert_eq!(rig.read(APIC_ICR_LOW), 3 << 18 | 0x50, "idle, and as written");
    rig.write_of(3, APIC_ID, 0x0900_0000);
    assert_eq!(command(&rig, 4, 0, 9), [3]);
}

#[test]
fn logical_destinations_are_flat_or_in_clusters() {
    let rig = Rig::new(3);
    (0..3).for_each(|cpu| rig.write_of(cpu, APIC_LDR, 0x100_0000 << cpu));
    assert_eq!(command(&rig, 3, ICR_LOGICAL, 0b110), [1, 2]);
    assert_eq!(command(&rig, 3, ICR_LOGICAL, 0xff), [0, 1, 2]);
    for (cpu, id) in [(0, 0x11), (1, 0x12), (2, 0x21)] {
        rig.write_of(cpu, APIC_DFR, 0);
        rig.write_of(cpu, APIC_LDR, id << 24);
    }
    assert_eq!(command(&rig, 3, ICR_LOGICAL, 0x13), [0, 1]);
    assert_eq!(command(&rig, 3, ICR_LOGICAL, 0x21), [2]);
    assert_eq!(command(&rig, 3, ICR_LOGICAL, 0x31), [0u8; 0]);
    assert!(!logical_match(1, 1 << 24, 0x5fff_ffff), "no such model");
}

#[test]
fn lowest_priority_chooses_the_idlest() {
    let rig = Rig::new(3);
    for (cpu, task) in [(0, 0x30), (1, 0x10), (2, 0)] {
        rig.write_of(cpu, APIC_TPR, task);
    }
    rig.write_of(2, APIC_SVR, 0xff);
    rig.apics.message(0xfeef_f000, 0x150);
    assert_eq!(rig.apics.acknowledge(1), Some(0x50), "CPU 2 is software disabled");
    rig.apics.message(0xfeef_f008, 0x51);
    assert_eq!(rig.apics.acknowledge(0), Some(0x51), "CPU 1 is serving; a redirection hint");
    assert_eq!(rig.apics.acknowledge(1), None);
}

#[test]
fn other_cpus_get_nmi_init_and_start_up() {
    let rig = Rig::new(2);
    rig.write(APIC_ICR_HIGH, 1 << 24);
    rig.write(APIC_ICR_LOW, 0x4400);
    assert_eq!((rig.nmis(0), rig.nmis(1)), (0, 1));
    rig.write_of(1, APIC_TPR, 0x70);
    rig.write_of(1, APIC_ID, 0x100_0000);
    rig.write(APIC_ICR_LOW, 0xc500);
    rig.write(APIC_ICR_LOW, 0x8500);
    rig.write(APIC_ICR_LOW, 0x4608);
    let signals = rig.apics.signals(1);
    assert_eq!((signals.inits, signals.startups, signals.startup_vector), (1, 1, Some(8)));
    assert_eq!((rig.read_of(1, APIC_TPR), rig.read_of(1, APIC_SVR)), (0, 0xff));
    rig.write(APIC_ICR_LOW, 0x200);
    assert_eq!((rig.apics.signals(1).smis, rig.apics.signals(0).smis), (1, 0));
    assert_eq!(rig.apics.signals(9), Default::default());
}

#[test]
fn commands_that_cannot_be_sent_are_not() {
    for low in [0x4_0400, 0x8_0400, 0x4_0600, 0x0300, 0x0700, 0x8500] {
        assert_eq!(Message::of_command(low, 0), None, "{low:#x}");
    }
    let all_but = Message::of_command(0xc_0430, 0).map(|message| message.to);
    assert_eq!(all_but, Some(Destination::Others));
}

#[test]
fn messages_are_writes_to_their_range() {
    assert_eq!(Message::of_write(0xfed0_0000, 0x30), None);
    assert_eq!(Message::of_write(0x1_fee0_0000, 0x30), None);
    assert_eq!(Message::of_write(0xfee0_0000, 0x8030), None, "a level that ends");
    let rig = Rig::new(1);
    let mut device = rig.device();
    device.write(1, 0, 4, 0x30, Nanos(0));
    device.write(1, 4, 2, 0x31, Nanos(0));
    assert_eq!(rig.ack(), None, "to APIC ID 1; and too narrow");
    rig.write(APIC_LDR, 1 << 24);
    device.write(1, 4, 4, 0x32, Nanos(0));
    assert_eq!(rig.ack(), Some(0x32), "logical");
    assert_eq!(device.read(1, 0, 4, Nanos(0)), 0xffff_ffff);
}

#[test]
fn virtual_wire_mode_takes_the_vector_from_the_8259a() {
    let rig = Rig::new(1);
    rig.write(0x350, 0x700);
    rig.pic.set_line(4, 0, true);
    rig.fixed(0xf0);
    assert_eq!(rig.ack(), Some(4), "before any vector, whatever its priority");
    assert_eq!(rig.probe.line(0), (true, 2), "a new edge for the vector that is left");
    assert_eq!(rig.ack(), Some(0xf0));
    rig.pic.set_line(1, 0, true);
    rig.write(0x350, LVT_MASK | 0x700);
    assert!(!rig.intr(0));
}

#[test]
fn an_external_message_without_a_request_is_the_pics_spurious_vector() {
    let rig = Rig::new(1);
    rig.apics.message(0xfee0_0000, 0x700);
    assert_eq!((rig.ack(), rig.ack()), (Some(7), None));
    let alone = LocalApics::new(LapicConfig {
        cpus: 1,
        clock: Arc::new(VirtualClock::new()),
        intr: vec![],
        nmi: vec![],
    });
    alone.message(0xfee0_0000, 0x700);
    assert_eq!(alone.acknowledge(0), Some(0xff), "nobody drives the bus");
}

#[test]
fn the_eoi_of_a_level_reaches_the_ioapic() {
    let rig = Rig::new(1);
    let mut ioapic = IoApicDevice(rig.ioapic.clone());
    ioapic.write(0, 0, 4, 0x10 + 2 * 9, Nanos(0));
    ioapic.write(0, 0x10, 4, 0x8029, Nanos(0));
    rig.ioapic.set_line(9, 0, true);
    for _ in 0..3 {
        assert_eq!(rig.ack(), Some(0x29));
        assert_eq!(rig.ack(), None);
        rig.write(APIC_EOI, 0);
    }
    rig.ioapic.set_line(9, 0, false);
    assert_eq!(rig.ack(), Some(0x29));
    rig.write(APIC_EOI, 0);
    assert_eq!(rig.ack(), None);
}

/// Also acknowledges, pulls pins and switches the APIC, by accesses to a window of its own.
struct Walked(Rig, LapicDevice);

impl Device for Walked {
    fn name(&self) -> &'static str {
        "lapic"
    }

    fn read(&mut self, window: usize, offset: u64, size: u8, now: Nanos) -> u64 {
        self.0.clock.advance_to(now);
        match window {
            2 => self.0.apics.acknowledge(offset as u8).map_or(0, u64::from),
            // Mostly whole registers: other accesses do nothing.
            0 if offset & 3 != 0 => self.1.read(0, offset & 0x3f0, 4, now) & (1 << (8 * size - 1)),
            _ => self.1.read(window, offset, size, now),
        }
    }

    fn write(&mut self, window: usize, offset: u64, size: u8, value: u64, now: Nanos) {
        self.0.clock.advance_to(now);
        match (window, offset) {
            (0, _) if offset & 3 != 0 => self.1.write(0, offset & 0x3f0, 4, value, now),
            (2, 0..2) => self.0.apics.set_line(offset as u32, 0, value & 1 != 0),
            (2, 2) => self.0.apics.set_apic_base(0, value << 8),
            _ => self.1.write(window, offset, size, value, now),
        }
    }

    fn deadline(&self) -> Option<Nanos> {
        self.1.deadline()
    }

    fn run(&mut self, now: Nanos) {
        self.1.run(now);
    }

    fn reset(&mut self, now: Nanos) {
        self.1.reset(now);
    }
}

#[test]
fn a_random_walk_ends_the_same_twice() {
    let run = || {
        let rig = Rig::new(2);
        let device = rig.device();
        let steps = &mut SeededSteps(Prng::new(0xa91c), 1_000_000);
        walk(&mut Walked(rig, device), &[0x1000, 0x2000, 8], steps)
    };
    assert_eq!(run(), run());
}

/// Devices, CPUs and the chips between them call each other from several threads; a wrong order
/// of their locks would stop this test, a lost level would leave a request behind.
#[test]
fn threads_of_devices_and_cpus_do_not_wait_for_each_other() {
    let rig = Rig::new(2);
    rig.write(0x350, 0x700);
    let mut ioapic = IoApicDevice(rig.ioapic.clone());
    ioapic.write(0, 0, 4, 0x10 + 2 * 5, Nanos(0));
    ioapic.write(0, 0x10, 4, 0x8051, Nanos(0));
    const TURNS: usize = 5_000;
    std::thread::scope(|scope| {
        for (line, source) in [(3, 0), (3, 1), (5, 0), (5, 1)] {
            let (pic, ioapic) = (&rig.pic, &rig.ioapic);
            scope.spawn(move || {
                for turn in 0..TURNS {
                    pic.set_line(line, source, turn % 2 == 0);
                    ioapic.set_line(line, source, turn % 2 == 0);
                }
            });
        }
        for cpu in 0..2 {
            let rig = &rig;
            scope.spawn(move || {
                for _ in 0..TURNS {
                    if rig.apics.acknowledge(cpu).is_some() {
                        rig.write_of(cpu, APIC_EOI, 0);
                        PicDevice(rig.pic.clone()).write(0, 0, 1, 0x20, Nanos(0));
                    }
                    rig.write_of(cpu, APIC_ICR_LOW, 0xc_0061);
                }
            });
        }
    });
    let taken: Vec<u8> = std::iter::from_fn(|| {
        let vector = rig.ack();
        rig.write(APIC_EOI, 0);
        PicDevice(rig.pic.clone()).write(0, 0, 1, 0x20, Nanos(0));
        vector
    })
    .take(100)
    .collect();
    assert!(taken.len() < 10, "every line is low: {taken:x?}");
    assert_eq!((rig.intr(0), rig.pic.output()), (false, false));
}
