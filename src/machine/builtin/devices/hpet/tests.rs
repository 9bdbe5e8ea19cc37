use std::sync::Arc;

use super::bits::*;
use super::chip::HpetChip;
use super::{Hpet, HpetWires};
use crate::base::{BusAccess, Nanos, Prng};
use crate::machine::builtin::device::{Device, LineProbe, MessageProbe, Wire};
use crate::machine::builtin::devices::recorded::{self, Access};
use crate::machine::builtin::walk::{SeededSteps, walk};

const LEGACY_PROBE: u32 = 31;

fn wired(probe: &Arc<LineProbe>) -> Hpet {
    let lines = (0..24).map(|n| Wire::new(probe.clone(), n, 0)).collect();
    Hpet::new(HpetWires { lines, legacy: Wire::new(probe.clone(), LEGACY_PROBE, 0) })
}

fn open() -> Hpet {
    Hpet::new(HpetWires { lines: Vec::new(), legacy: Wire::open() })
}

fn conf(n: u64) -> u64 {
    TIMER0 + n * TIMER_STRIDE + TN_CONF
}

fn comparator(n: u64) -> u64 {
    TIMER0 + n * TIMER_STRIDE + TN_COMPARATOR
}

/// Runs from deadline to deadline, as a board does.
fn run_until(hpet: &mut Hpet, end: Nanos) {
    while let Some(deadline) = hpet.deadline().filter(|deadline| *deadline <= end) {
        hpet.run(deadline);
    }
    hpet.run(end);
}

/// What QEMU 7.2 on an i440fx board reports, as a guest's boot recorded it.
#[test]
fn a_fresh_block_reads_as_recorded() {
    let mut hpet = open();
    let expected = [
        (0x000, 0x8086_a201),
        (0x004, 0x0098_9680),
        (0x010, 0),
        (0x014, 0),
        (0x020, 0),
        (0x0f0, 0),
        (0x100, 0x30),
        (0x104, 0x4),
        (0x120, 0x30),
        (0x148, 0xffff_ffff),
        (0x14c, 0xffff_ffff),
        (0x160, 0),
    ];
    for (offset, value) in expected {
        assert_eq!(hpet.read(0, offset, 4, Nanos(1_000_000)), value, "{offset:#x}");
    }
    assert_eq!(hpet.read(0, 0x000, 8, Nanos(1_000_000)), 0x0098_9680_8086_a201);
    assert_eq!(hpet.read(0, 0x002, 4, Nanos(1_000_000)), 0x9680_8086);
    assert_eq!(hpet.read(0, 0x007, 2, Nanos(1_000_000)), 0);
    // Linux: periodic through VAL_SET, which serves one write.
    hpet.write(0, 0x100, 4, 0x17c, Nanos(1_000_000));
    hpet.write(0, 0x108, 4, 0x7_586f, Nanos(1_000_000));
    hpet.write(0, 0x108, 4, 0x6_1a80, Nanos(1_000_000));
    assert_eq!(hpet.read(0, 0x100, 4, Nanos(1_000_000)), 0x13c);
    assert_eq!(hpet.read(0, 0x108, 8, Nanos(1_000_000)), 0x7_586f);
}

/// A Linux boot on QEMU 7.2: all but the free-running counter reads as it did.
#[test]
fn a_recorded_boot_reads_the_same() {
    let Some(accesses) = recorded::accesses("guest/virtio-raw-mmio.trace.xz", &["hpet"]) else {
        return;
    };
    const BASE: u64 = 0xfed0_0000;
    let counter = BASE + MAIN_CNT..BASE + MAIN_CNT + 8;
    let compared = accesses.into_iter().filter(|a| a.write || !counter.contains(&a.addr));
    // The log shows 64 bits of the register whatever the size of the read.
    let compared: Vec<Access> =
        compared.map(|a| Access { value: a.value & BusAccess::ones(a.size), ..a }).collect();
    assert!(compared.iter().filter(|a| !a.write).count() >= 30);
    recorded::replay(&mut open(), &[(BASE, 1024)], &compared);
}

#[test]
fn the_counter_is_written_halted_and_counts_in_10_ns() {
    let mut hpet = open();
    hpet.write(0, MAIN_CNT, 8, 0x1_ffff_fffe, Nanos(1234));
    assert_eq!(hpet.read(0, MAIN_CNT, 8, Nanos(99_999)), 0x1_ffff_fffe);
    hpet.write(0, MAIN_CNT + 4, 4, 7, Nanos(99_999));
    hpet.write(0, GEN_CONF, 4, ENABLE_CNF, Nanos(100_000));
    assert_eq!(hpet.read(0, MAIN_CNT, 8, Nanos(100_009)), 0x7_ffff_fffe);
    hpet.write(0, MAIN_CNT, 4, 0, Nanos(100_010));
    assert_eq!(hpet.read(0, MAIN_CNT, 8, Nanos(100_039)), 0x8_0000_0001);
    assert_eq!(hpet.read(0, MAIN_CNT + 4, 4, Nanos(100_039)), 8);
    hpet.write(0, GEN_CONF, 4, 0, Nanos(100_040));
    assert_eq!(hpet.read(0, MAIN_CNT, 8, Nanos(1 << 40)), 0x8_0000_0002);
}

#[test]
fn one_shot_periodic_and_legacy_edges_are_exact() {
    let probe = Arc::new(LineProbe::default());
    let mut hpet = wired(&probe);
    let route = 2 << TN_INT_ROUTE_SHIFT;
    hpet.write(0, conf(2), 8, TN_INT_ENB_CNF | route, Nanos(0));
    hpet.write(0, comparator(2), 8, 500, Nanos(0));
    let periodic = TN_INT_ENB_CNF | TN_TYPE_CNF | TN_VAL_SET_CNF;
    hpet.write(0, conf(0), 8, periodic, Nanos(0));
    hpet.write(0, comparator(0), 8, 1000, Nanos(0));
    hpet.write(0, comparator(0), 8, 300, Nanos(0));
    assert_eq!(hpet.deadline(), None);
    hpet.write(0, GEN_CONF, 8, ENABLE_CNF | LEG_RT_CNF, Nanos(0));
    assert!(probe.line(LEGACY_PROBE).0);
    assert_eq!(hpet.deadline(), Some(Nanos(5_000)));
    run_until(&mut hpet, Nanos(4_999));
    assert_eq!(probe.line(2).1, 0);
    run_until(&mut hpet, Nanos(9_999));
    assert_eq!((probe.line(2).1, probe.line(0).1), (1, 0));
    assert_eq!(hpet.deadline(), Some(Nanos(10_000)));
    run_until(&mut hpet, Nanos(10_000 + 3_000 * 100_000));
    assert_eq!((probe.line(2), probe.line(0)), ((false, 1), (false, 100_001)));
    assert_eq!(hpet.read(0, comparator(0), 8, Nanos(300_010_000)), 1000 + 300 * 100_001);
    // Without the legacy route timer 0 has none that it may use.
    hpet.write(0, GEN_CONF, 8, ENABLE_CNF, Nanos(300_010_000));
    run_until(&mut hpet, Nanos(310_000_000));
    assert_eq!((probe.line(0).1, probe.line(LEGACY_PROBE).0), (100_001, false));
}

#[test]
fn a_level_lasts_until_its_status_is_cleared() {
    let probe = Arc::new(LineProbe::default());
    let mut hpet = wired(&probe);
    let level = TN_INT_TYPE_CNF | TN_INT_ENB_CNF | 2 << TN_INT_ROUTE_SHIFT;
    hpet.write(0, conf(1), 8, level | TN_TYPE_CNF | TN_VAL_SET_CNF, Nanos(0));
    hpet.write(0, comparator(1), 8, 100, Nanos(0));
    hpet.write(0, GEN_CONF, 8, ENABLE_CNF, Nanos(0));
    run_until(&mut hpet, Nanos(1_000));
    assert_eq!((probe.line(2), hpet.deadline()), ((true, 1), None), "held: nothing to wait for");
    assert_eq!(hpet.read(0, GINTR_STA, 8, Nanos(5_500)), 1 << 1);
    hpet.write(0, GINTR_STA, 4, 1 << 0, Nanos(5_500));
    assert!(probe.line(2).0, "another timer's bit");
    hpet.write(0, GINTR_STA, 4, 1 << 1, Nanos(5_500));
    assert_eq!((probe.line(2).0, hpet.deadline()), (false, Some(Nanos(6_000))));
    run_until(&mut hpet, Nanos(6_000));
    assert_eq!(probe.line(2), (true, 2));
    // Disabled: the line falls, the status stays.
    hpet.write(0, conf(1), 4, TN_INT_TYPE_CNF | 2 << TN_INT_ROUTE_SHIFT, Nanos(6_001));
    assert_eq!((probe.line(2).0, hpet.read(0, GINTR_STA, 8, Nanos(6_001))), (false, 2));
    hpet.reset(Nanos(7_000));
    assert_eq!(hpet.read(0, GINTR_STA, 8, Nanos(7_000)), 0);
}

#[test]
fn an_edge_does_not_end_another_timers_level() {
    let probe = Arc::new(LineProbe::default());
    let mut hpet = wired(&probe);
    let enabled = TN_INT_ENB_CNF | 2 << TN_INT_ROUTE_SHIFT;
    for (n, mode, at) in [(0, TN_INT_TYPE_CNF, 100), (1, 0, 200), (2, 0, 300)] {
        hpet.write(0, conf(n), 8, enabled | mode, Nanos(0));
        hpet.write(0, comparator(n), 8, at, Nanos(0));
    }
    hpet.write(0, GEN_CONF, 8, ENABLE_CNF, Nanos(0));
    run_until(&mut hpet, Nanos(2_500));
    assert_eq!(probe.line(2), (true, 1));
    hpet.write(0, GINTR_STA, 8, 1, Nanos(2_500));
    run_until(&mut hpet, Nanos(3_500));
    assert_eq!(probe.line(2), (false, 2));
}

#[test]
fn a_32_bit_timer_compares_the_low_half() {
    let probe = Arc::new(LineProbe::default());
    let mut hpet = wired(&probe);
    let mode = TN_INT_ENB_CNF | TN_32MODE_CNF | 2 << TN_INT_ROUTE_SHIFT;
    hpet.write(0, conf(0), 8, mode, Nanos(0));
    assert_eq!(hpet.read(0, comparator(0), 8, Nanos(0)), 0xffff_ffff);
    hpet.write(0, comparator(0), 8, 0x5_0000_0010, Nanos(0));
    assert_eq!(hpet.read(0, comparator(0), 8, Nanos(0)), 0x10);
    hpet.write(0, MAIN_CNT, 8, 0xffff_fff0, Nanos(0));
    hpet.write(0, GEN_CONF, 8, ENABLE_CNF, Nanos(0));
    assert_eq!(hpet.deadline(), Some(Nanos(0x20 * 10)));
    run_until(&mut hpet, Nanos(0x20 * 10));
    // Around once more.
    assert_eq!(hpet.deadline(), Some(Nanos(0x20 * 10 + (10 << 32))));
    assert_eq!(probe.line(2).1, 1);
}

#[test]
fn routes_and_messages_are_taken_where_offered() {
    let messages = Arc::new(MessageProbe::default());
    let mut plain = open();
    let fsb = TN_FSB_EN_CNF | TN_INT_ENB_CNF | 3 << TN_INT_ROUTE_SHIFT;
    plain.write(0, conf(0), 8, fsb, Nanos(0));
    assert_eq!(plain.read(0, conf(0), 8, Nanos(0)), 0x4_0000_0034);
    plain.write(0, TIMER0 + TN_FSB_ROUTE, 8, 5, Nanos(0));
    assert_eq!(plain.read(0, TIMER0 + TN_FSB_ROUTE, 8, Nanos(0)), 0);

    let mut hpet = open().with_messages(messages.clone()).with_routes(ROUTES_Q35);
    hpet.write(0, conf(0), 8, TN_FSB_EN_CNF | TN_INT_ENB_CNF | 20 << TN_INT_ROUTE_SHIFT, Nanos(0));
    assert_eq!(hpet.read(0, conf(0), 8, Nanos(0)), 0x00ff_0104_0000_e834);
    hpet.write(0, TIMER0 + TN_FSB_ROUTE, 4, 0x4041, Nanos(0));
    hpet.write(0, TIMER0 + TN_FSB_ROUTE + 4, 4, 0xfee0_1000, Nanos(0));
    hpet.write(0, comparator(0), 8, 10, Nanos(0));
    hpet.write(0, GEN_CONF, 8, ENABLE_CNF, Nanos(0));
    run_until(&mut hpet, Nanos(100));
    assert_eq!(messages.take(), [(0xfee0_1000, 0x4041)]);
}

/// A jump ends in the state that its parts end in, for timers that nobody waits for.
#[test]
fn a_jump_equals_its_parts() {
    let mut prng = Prng::new(1);
    let mut jumping = HpetChip::new(ROUTES_PC, false);
    let mut now = Nanos(0);
    for _ in 0..2000 {
        let choice = prng.next_u64();
        let register = match choice & 3 {
            0 => GEN_CONF,
            1 => conf(choice >> 2 & 3),
            2 => comparator(choice >> 2 & 3),
            _ => MAIN_CNT,
        };
        jumping.write(register, choice >> 32 & 0xfff, u64::MAX);
        let mut stepping = jumping.clone();
        let end = Nanos(now.0 + prng.below(40_000));
        (now.0 / 10..=end.0 / 10).for_each(|tick| stepping.run(Nanos(tick * 10), |_| {}));
        now = end;
        jumping.run(now, |_| {});
        assert_eq!(jumping, stepping);
    }
}

#[test]
fn a_random_walk_ends_where_it_ended_before() {
    let run = || {
        let messages = Arc::new(MessageProbe::default());
        let mut hpet = wired(&Arc::default()).with_messages(messages);
        walk(&mut hpet, &[1024], &mut SeededSteps(Prng::new(41), 1_000_000))
    };
    assert_eq!(run(), run());
}
