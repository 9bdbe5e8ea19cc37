//! The chip and its glue, against the data sheet.

use std::sync::Arc;

use super::bits::*;
use super::*;
use crate::base::{Nanos, Prng};
use crate::machine::builtin::device::{Device, LineProbe, Wire};
use crate::machine::builtin::walk::{SeededSteps, walk};

const SECOND: u64 = 1_000_000_000;
/// 2026-11-22 12:34:56 UTC, a Sunday.
const BASE: i64 = 1_795_350_896;

fn chip(model: RtcModel) -> Mc146818 {
    Mc146818::new(model, BASE, CmosConfig::default().bytes())
}

fn get(chip: &mut Mc146818, index: u8, now: u64) -> u8 {
    chip.select(index);
    chip.read(Nanos(now))
}

fn put(chip: &mut Mc146818, index: u8, value: u8, now: u64) {
    chip.select(index);
    chip.write(value, Nanos(now));
}

#[test]
fn time_is_that_of_the_machine() {
    let mut chip = chip(RtcModel::Mc146818);
    let mut time = |now| {
        [CENTURY, YEAR, MONTH, DATE_OF_THE_MONTH, HOURS, MINUTES, SECONDS, DAY_OF_THE_WEEK]
            .map(|index| get(&mut chip, index, now))
    };
    assert_eq!(time(0), [0x20, 0x26, 0x11, 0x22, 0x12, 0x34, 0x56, 1]);
    assert_eq!(time(SECOND - 1), [0x20, 0x26, 0x11, 0x22, 0x12, 0x34, 0x56, 1]);
    assert_eq!(time(SECOND), [0x20, 0x26, 0x11, 0x22, 0x12, 0x34, 0x57, 1]);
    assert_eq!(time(86_400 * SECOND), [0x20, 0x26, 0x11, 0x23, 0x12, 0x34, 0x56, 2]);
}

#[test]
fn nothing_enabled_means_no_deadline_for_ever() {
    for model in [RtcModel::Mc146818, RtcModel::QemuPc] {
        let mut chip = chip(model);
        assert_eq!(chip.deadline(), None);
        chip.run(Nanos(u64::MAX));
        assert_eq!(chip.deadline(), None);
        chip.run(Nanos(0));
    }
}

#[test]
fn a_deadline_is_the_moment_at_which_irq_rises() {
    let enables = [RegisterB::PIE, RegisterB::AIE, RegisterB::UIE];
    for model in [RtcModel::Mc146818, RtcModel::QemuPc] {
        for (mask, enable) in (0..8).flat_map(|mask| enables.map(|enable| (mask, enable))) {
            let mut chip = chip(model);
            put(&mut chip, SECONDS_ALARM, 0x5a - mask, 77);
            put(&mut chip, MINUTES_ALARM, 0xff, 77);
            put(&mut chip, HOURS_ALARM, 0xff, 77);
            put(&mut chip, REGISTER_A, 0x21 + mask, 77);
            get(&mut chip, REGISTER_C, 77);
            put(&mut chip, REGISTER_B, (RegisterB::HOURS_24 | enable).bits(), 77);
            for _ in 0..10 {
                let Some(at) = chip.deadline() else {
                    assert_eq!((mask, enable), (0, RegisterB::AIE), "BCD 5a is no second");
                    break;
                };
                chip.run(Nanos(at.0 - 1));
                assert!(!chip.irq());
                assert_eq!(chip.deadline(), Some(at));
                chip.run(at);
                assert!(chip.irq());
                assert_eq!(chip.deadline(), None);
                let flags = RegisterC::from_bits_retain(get(&mut chip, REGISTER_C, at.0));
                assert!(flags.bits() & enable.bits() != 0 && flags.contains(RegisterC::IRQF));
                assert!(!chip.irq());
            }
        }
    }
}

#[test]
fn one_long_step_is_many_short_ones() {
    let mut prng = Prng::new(3);
    for model in [RtcModel::Mc146818, RtcModel::QemuPc] {
        let mut long = chip(model);
        put(&mut long, SECONDS_ALARM, 0x10, 0);
        let (mut short, mut now) = (long.clone(), 0);
        for _ in 0..2000 {
            now += prng.below(SECOND / 3);
            short.run(Nanos(now));
        }
        long.run(Nanos(now));
        assert_eq!(long, short);
    }
}

#[test]
fn a_model_of_qemu_has_no_update_cycle_and_no_pf_without_pie() {
    let (mut sheet, mut qemu) = (chip(RtcModel::Mc146818), chip(RtcModel::QemuPc));
    let before_cycle = SECOND - UPDATE_CYCLE_SLOW.0 - TIME_BEFORE_UPDATE.0;
    let uip = |chip: &mut Mc146818, now| get(chip, REGISTER_A, now) & UIP != 0;
    assert!(!uip(&mut sheet, before_cycle - 1) && uip(&mut sheet, before_cycle));
    let before = SECOND - TIME_BEFORE_UPDATE.0;
    assert!(!uip(&mut qemu, before - 1) && uip(&mut qemu, before));
    assert!(uip(&mut sheet, SECOND - 1) && uip(&mut qemu, SECOND - 1));
    assert!(!uip(&mut sheet, SECOND) && !uip(&mut qemu, SECOND));
    assert_eq!(get(&mut sheet, REGISTER_C, SECOND), (RegisterC::PF | RegisterC::UF).bits());
    assert_eq!(get(&mut qemu, REGISTER_C, SECOND), RegisterC::UF.bits());
}

#[test]
fn another_time_base_neither_loses_nor_repeats_an_update() {
    let mut chip = chip(RtcModel::Mc146818);
    // In the midst of the slow base's update cycle, after the end of the fast one's.
    put(&mut chip, REGISTER_A, 0x06, SECOND - 500_000);
    assert_eq!(get(&mut chip, SECONDS, SECOND), 0x57);
    put(&mut chip, REGISTER_A, 0x26, 2 * SECOND - 1_000_000);
    assert_eq!(get(&mut chip, SECONDS, 2 * SECOND), 0x58);
    assert_eq!(get(&mut chip, SECONDS, 3 * SECOND), 0x59);
}

#[test]
fn reset_ends_interrupts_and_keeps_time_and_ram() {
    let mut chip = chip(RtcModel::Mc146818);
    put(&mut chip, 0x0f, 0x5a, 0);
    put(&mut chip, REGISTER_B, 0x7b, 0);
    chip.run(Nanos(SECOND));
    assert!(chip.irq());
    chip.reset(Nanos(SECOND));
    assert!(!chip.irq() && chip.deadline().is_none());
    assert_eq!(get(&mut chip, REGISTER_B, SECOND), 0x03);
    assert_eq!(get(&mut chip, REGISTER_C, SECOND), 0);
    assert_eq!((get(&mut chip, 0x0f, SECOND), get(&mut chip, SECONDS, SECOND)), (0x5a, 0x57));
}

#[test]
fn the_pc_century_byte_is_one_byte_at_two_places() {
    let mut chip = chip(RtcModel::Mc146818);
    put(&mut chip, CENTURY_PS2, 0x19, 0);
    assert_eq!((get(&mut chip, CENTURY, 0), get(&mut chip, CENTURY_PS2, 0)), (0x19, 0x19));
}

fn rtc() -> (Rtc, Arc<LineProbe>) {
    let probe = Arc::new(LineProbe::default());
    let wire = Wire::new(Arc::<LineProbe>::clone(&probe), 8, 0);
    (Rtc::new(RtcConfig { base_unix_s: BASE, ..RtcConfig::default() }, wire), probe)
}

#[test]
fn ports_are_bytes_and_the_index_port_cannot_be_read() {
    let (mut rtc, _) = rtc();
    let now = Nanos(0);
    // One write of 16 bits is the index and then the data.
    rtc.write(0, 0, 2, 0x5a8f, now);
    assert!(rtc.nmi_masked());
    assert_eq!(rtc.read(0, 0, 2, now), 0x5aff);
    assert_eq!(rtc.read(0, 0, 1, now), 0xff);
    rtc.write(0, 0, 1, 0x0f, now);
    assert!(!rtc.nmi_masked());
    assert_eq!(rtc.read(0, 1, 1, now), 0x5a);
}

#[test]
fn irq_8_is_a_level_until_register_c_is_read() {
    let (mut rtc, probe) = rtc();
    let put = |rtc: &mut Rtc, index: u8, value: u8| {
        rtc.write(0, 0, 1, index.into(), Nanos(0));
        rtc.write(0, 1, 1, value.into(), Nanos(0));
    };
    put(&mut rtc, REGISTER_A, 0x2f);
    put(&mut rtc, REGISTER_B, 0x42);
    let first = rtc.deadline().unwrap();
    rtc.run(first);
    assert_eq!(probe.line(8), (true, 1));
    rtc.run(first + SECOND);
    assert_eq!(probe.line(8), (true, 1));
    rtc.write(0, 0, 1, REGISTER_C.into(), first + SECOND);
    assert_eq!(rtc.read(0, 1, 1, first + SECOND), 0xd0);
    assert_eq!(probe.line(8), (false, 1));
    assert_eq!(rtc.deadline(), Some(first + SECOND * 3 / 2));
}

#[test]
fn a_random_walk_is_the_same_twice() {
    let walked = |seed| walk(&mut rtc().0, &[2], &mut SeededSteps(Prng::new(seed), 1_000_000));
    assert_eq!(walked(1), walked(1));
    assert_ne!(walked(1), walked(2));
}

/// What SeaBIOS and then Linux 6.1 did to the RTC of QEMU 7.2's pc, from two recordings joined:
/// microseconds, byte, and what was read or (`true`) written.
const RECORDED: &[(u64, u8, bool, u8)] = &[
    (26, 0x0f, false, 0x00),
    (16_723, 0x0f, true, 0x00),
    (27_571, 0x38, false, 0x30),
    (27_590, 0x3d, false, 0x12),
    (35_250, 0x08, false, 0x11),
    (35_260, 0x5f, false, 0x00),
    (35_541, 0x00, false, 0x21),
    (46_451, 0x0a, true, 0x26),
    (46_458, 0x0b, false, 0x02),
    (46_460, 0x0b, true, 0x02),
    (46_465, 0x0c, false, 0x00),
    (46_468, 0x0d, false, 0x80),
    (46_472, 0x0a, false, 0x26),
    (46_531, 0x00, false, 0x21),
    (46_534, 0x02, false, 0x05),
    (46_537, 0x04, false, 0x08),
    (46_541, 0x32, false, 0x20),
    (53_840, 0x10, false, 0x50),
    (70_086, 0x00, false, 0x21),
    (3_132_451, 0x00, false, 0x24),
    (3_132_459, 0x0a, false, 0x26),
    (4_441_609, 0x0a, true, 0x26),
    (4_441_637, 0x0b, true, 0x02),
    (4_441_712, 0x0c, false, 0x10),
    (4_441_730, 0x0b, false, 0x02),
    (4_442_171, 0x00, false, 0x25),
    (4_442_214, 0x07, false, 0x22),
    (4_442_221, 0x08, false, 0x11),
    (4_442_228, 0x09, false, 0x26),
    (4_442_492, 0x01, false, 0x00),
    (4_442_499, 0x03, false, 0x00),
    (4_442_506, 0x05, false, 0x00),
];

#[test]
fn firmware_and_linux_read_what_they_read_of_qemu() {
    let cmos = CmosConfig { ram_bytes: 128 << 20, ..CmosConfig::default() };
    // 2026-11-22 08:05:21.
    let mut chip = Mc146818::new(RtcModel::QemuPc, 1_795_334_721, cmos.bytes());
    for (micros, index, write, value) in RECORDED {
        let now = micros * 1000;
        if *write {
            put(&mut chip, *index, *value, now);
        } else {
            assert_eq!(get(&mut chip, *index, now), *value, "byte {index:02x}h at {micros} us");
        }
    }
}
