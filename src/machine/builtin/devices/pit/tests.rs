use std::sync::Arc;

use super::bits::*;
use super::chip::{PitChip, Refresh};
use super::counter::Counter;
use super::glue::Pit;
use crate::base::{Nanos, Prng};
use crate::machine::builtin::device::{Device, LineProbe, Wire};
use crate::machine::builtin::walk::{SeededSteps, walk};

/// Control word of a counter by itself: both bytes, `mode`.
fn both(mode: u8) -> u8 {
    RW_BOTH << RW_SHIFT | mode << M_SHIFT
}

/// A counter programmed with `mode` and `count`.
fn counter(mode: u8, count: u16, gate: bool) -> Counter {
    let mut counter = Counter::new(gate);
    counter.program(both(mode));
    count.to_le_bytes().iter().for_each(|byte| counter.write(*byte));
    counter
}

/// OUT after each of the next `n` clocks, as the data sheet draws it.
fn wave(counter: &mut Counter, n: usize) -> String {
    let mut level = |_| {
        counter.advance(1);
        if counter.out() { '-' } else { '_' }
    };
    (0..n).map(&mut level).collect()
}

fn count(counter: &mut Counter) -> u16 {
    counter.latch_count();
    u16::from_le_bytes([counter.read(), counter.read()])
}

#[test]
fn mode_0_rises_n_plus_1_clocks_after_the_count() {
    let mut c = counter(0, 4, true);
    assert!(!c.out());
    assert_eq!(wave(&mut c, 8), "____----");
    // It counts on below zero.
    assert_eq!(count(&mut c), 0xfffd);
    // A new count is loaded by the next clock; OUT falls at once.
    c.write(2);
    assert!(!c.out());
    // The first byte stops counting.
    c.advance(5);
    assert_eq!(count(&mut c), 0xfffd);
    c.write(0);
    assert_eq!(wave(&mut c, 4), "__--");
}

#[test]
fn mode_0_counts_while_the_gate_is_high() {
    let mut c = counter(0, 3, false);
    c.advance(10);
    assert_eq!(count(&mut c), 3, "loaded, not counted");
    c.set_gate(true);
    c.advance(1);
    c.set_gate(false);
    c.advance(7);
    c.set_gate(true);
    assert_eq!(wave(&mut c, 3), "_--");
}

#[test]
fn mode_1_pulses_low_for_n_clocks_after_a_trigger() {
    let mut c = counter(1, 3, false);
    assert_eq!(wave(&mut c, 5), "-----");
    c.set_gate(true);
    assert!(c.out(), "OUT falls with the next clock");
    assert_eq!(wave(&mut c, 5), "___--");
    c.set_gate(false);
    c.set_gate(true);
    assert_eq!(wave(&mut c, 2), "__");
    // Retriggered: the pulse begins again.
    c.set_gate(false);
    c.set_gate(true);
    assert_eq!(wave(&mut c, 5), "___--");
    // A new count waits for a trigger.
    c.write(1);
    c.write(0);
    assert_eq!(wave(&mut c, 3), "---");
    c.set_gate(false);
    c.set_gate(true);
    assert_eq!(wave(&mut c, 3), "_--");
}

#[test]
fn mode_2_is_low_for_one_clock_in_n() {
    for alias in [2, 6] {
        let mut c = counter(alias, 3, true);
        assert!(c.out());
        assert_eq!(wave(&mut c, 9), "--_--_--_");
        // A new count becomes the next period.
        c.write(4);
        c.write(0);
        assert_eq!(wave(&mut c, 8), "---_---_");
        // GATE low ends the pulse, and stops; GATE high begins anew.
        c.set_gate(false);
        assert!(c.out());
        assert_eq!(wave(&mut c, 6), "------");
        c.set_gate(true);
        assert_eq!(wave(&mut c, 5), "---_-");
    }
}

#[test]
fn mode_3_is_a_square_wave_one_clock_longer_high_when_odd() {
    for alias in [3, 7] {
        let mut c = counter(alias, 4, true);
        assert_eq!(wave(&mut c, 9), "--__--__-");
        let mut c = counter(alias, 5, true);
        assert_eq!(wave(&mut c, 11), "---__---__-");
        // It counts by two, and a new count is loaded at the half.
        let mut c = counter(alias, 10, true);
        c.advance(2);
        assert_eq!(count(&mut c), 8);
        c.write(4);
        c.write(0);
        assert_eq!(wave(&mut c, 9), "---__--__");
        c.set_gate(false);
        assert!(c.out());
        c.set_gate(true);
        assert_eq!(wave(&mut c, 5), "--__-");
    }
}

#[test]
fn modes_4_and_5_strobe_once() {
    let mut c = counter(4, 3, true);
    assert_eq!(wave(&mut c, 7), "---_---");
    c.advance(0x1_0000 - 3);
    assert!(c.out(), "the count passes zero again without a strobe");
    c.write(2);
    assert_eq!(wave(&mut c, 3), "---", "the first byte changes nothing");
    c.write(0);
    assert_eq!(wave(&mut c, 5), "--_--");

    let mut c = counter(5, 3, false);
    assert_eq!(wave(&mut c, 6), "------");
    c.set_gate(true);
    c.set_gate(false);
    assert_eq!(wave(&mut c, 7), "---_---");
}

#[test]
fn a_count_of_zero_is_the_largest() {
    let mut c = counter(0, 0, true);
    assert_eq!(c.until_edge(), Some(0x1_0001));
    let mut bcd = Counter::new(true);
    bcd.program(both(0) | BCD);
    bcd.write(0);
    bcd.write(0);
    assert_eq!(bcd.until_edge(), Some(10_001));
    c.advance(2);
    assert_eq!(count(&mut c), 0xffff);
    bcd.advance(2);
    assert_eq!(count(&mut bcd), 0x9999);
    bcd.advance(9_999 + 1);
    assert_eq!(count(&mut bcd), 0x9999, "four decades wrap at zero");
}

#[test]
fn one_byte_counts_clear_the_other_byte() {
    for (access, byte, clocks) in [(RW_LSB, 0x10, 0x11), (RW_MSB, 0x10, 0x1001)] {
        let mut c = Counter::new(true);
        c.program(access << RW_SHIFT);
        c.write(byte);
        assert_eq!(c.until_edge(), Some(clocks));
        c.advance(1);
        assert_eq!((c.read(), c.read()), (byte, byte), "each read is the one byte");
    }
}

#[test]
fn latches_hold_until_read_and_status_comes_first() {
    let mut pit = PitChip::new(Refresh::Cycles);
    let at = |clk| CLK.time_of(clk);
    for (port, byte) in [(3, 0x34), (0, 0x00), (0, 0x10)] {
        pit.write(port, byte, at(0));
    }
    // Status: OUT, null count, both bytes, mode 2.
    pit.write(3, 0xe2, at(0));
    assert_eq!(pit.read(0, at(0)), STATUS_OUTPUT | STATUS_NULL_COUNT | 0x34);
    pit.write(3, 0xc2, at(1));
    pit.write(3, 0x00, at(50));
    pit.write(3, 0xc2, at(60));
    assert_eq!(pit.read(0, at(70)), STATUS_OUTPUT | 0x34);
    assert_eq!([pit.read(0, at(70)), pit.read(0, at(80))], [0x00, 0x10]);
    // 0x1000 - 99, live.
    assert_eq!([pit.read(0, at(100)), pit.read(0, at(100))], [0x9d, 0x0f]);
    // A control word drops what is latched.
    pit.write(3, 0xc2, at(101));
    pit.write(3, 0x16, at(101));
    assert_eq!(pit.read(0, at(101)), 0x9c);
}

#[test]
fn port_61_gates_counter_2_and_shows_out_and_refresh() {
    let mut pit = PitChip::new(Refresh::Cycles);
    let at = |clk| CLK.time_of(clk);
    pit.write_nmisc(0xff, at(0));
    assert_eq!(pit.read_nmisc(at(0)), 0x0f);
    pit.write_nmisc(NMISC_SPEAKER, at(0));
    [(3, 0xb0), (2, 5), (2, 0)].iter().for_each(|(port, byte)| pit.write(*port, *byte, at(0)));
    assert_eq!(pit.read_nmisc(at(100)) & NMISC_OUT2, 0);
    pit.write_nmisc(NMISC_SPEAKER | NMISC_GATE2, at(100));
    assert_eq!(pit.read_nmisc(at(104)) & NMISC_OUT2, 0);
    assert!(!pit.speaker());
    assert_eq!(pit.read_nmisc(at(105)) & NMISC_OUT2, NMISC_OUT2);
    assert!(pit.speaker());
    let refresh = |pit: &mut PitChip, clk| pit.read_nmisc(at(clk)) & NMISC_REFRESH;
    let bits: Vec<u8> = [126, 143, 144, 161, 162].map(|clk| refresh(&mut pit, clk)).to_vec();
    assert_eq!(bits, [16, 16, 0, 0, 16]);
    let mut pit = PitChip::new(Refresh::Reads);
    assert_eq!([0; 3].map(|clk| refresh(&mut pit, clk)), [16, 0, 16]);
}

/// Jumps and single clocks lead to the same state, whatever was programmed.
#[test]
fn a_jump_equals_its_clocks() {
    let mut prng = Prng::new(8254);
    let mut jumping = Counter::new(true);
    for _ in 0..4000 {
        let choice = prng.next_u64();
        let byte = (choice >> 8) as u8;
        match choice & 7 {
            0 => jumping.program(byte & 0x3f | 0x10),
            1 => jumping.set_gate(byte & 1 != 0),
            2 => jumping.write(byte & 3),
            _ => jumping.write(byte & byte >> 4),
        }
        let clks = prng.below(700);
        let mut stepping = jumping.clone();
        let edge = stepping.until_edge();
        for clk in 1..=clks {
            let before = stepping.out();
            stepping.advance(1);
            let first_change = edge == Some(clk);
            if edge.is_none_or(|edge| clk <= edge) {
                assert_eq!(stepping.out() != before, first_change, "{clk} {edge:?} {jumping:?}");
            }
        }
        jumping.advance(clks);
        assert_eq!(jumping, stepping);
    }
}

#[test]
fn irq0_edges_come_at_their_exact_nanosecond() {
    let probe = Arc::new(LineProbe::default());
    let mut pit = Pit::new(Wire::new(probe.clone(), 0, 0));
    assert_eq!(pit.deadline(), None);
    for (port, byte) in [(3, 0x34), (0, 0xa9), (0, 0x04)] {
        pit.write(0, port, 1, byte, Nanos(0));
    }
    let base = probe.line(0).1;
    for period in 1..=1000u64 {
        let fall = pit.deadline().unwrap();
        assert_eq!(fall, CLK.time_of(period * 1193));
        pit.run(fall);
        assert!(!probe.line(0).0);
        let rise = pit.deadline().unwrap();
        assert_eq!(rise, CLK.time_of(period * 1193 + 1));
        pit.run(rise);
        assert_eq!(probe.line(0), (true, base + period));
    }
    // Under the HPET's legacy replacement the line is not ours.
    pit.set_irq0_enabled(false);
    assert_eq!((pit.deadline(), probe.line(0).0), (None, false));
    pit.run(Nanos(3_600_000_000_000));
    assert_eq!(probe.line(0).1, base + 1000);
}

#[test]
fn a_late_call_makes_up_for_a_bounded_number_of_edges() {
    let probe = Arc::new(LineProbe::default());
    let mut pit = Pit::new(Wire::new(probe.clone(), 0, 0));
    pit.write(0, 3, 1, 0x14, Nanos(0));
    pit.write(0, 0, 1, 2, Nanos(0));
    pit.run(Nanos(1 << 62));
    let edges = probe.line(0).1;
    assert!((LATE_EDGES_MAX as u64 / 2..=LATE_EDGES_MAX as u64).contains(&edges), "{edges}");
    assert!(pit.deadline().is_some_and(|deadline| deadline > Nanos(1 << 62)));
}

#[test]
fn wide_accesses_are_one_of_each_port() {
    let mut pit = Pit::new(Wire::open());
    pit.write(0, 0, 4, 0x3000_0000, Nanos(0));
    pit.write(0, 0, 1, 7, Nanos(0));
    pit.write(0, 0, 1, 0, Nanos(0));
    assert_eq!(pit.read(0, 0, 2, CLK.time_of(1)), 0x0007);
    assert_eq!(pit.read(1, 0, 1, Nanos(0)), 0);
}

#[test]
fn a_random_walk_ends_where_it_ended_before() {
    let run = || {
        let mut steps = SeededSteps(Prng::new(40), 1_000_000);
        walk(&mut Pit::new(Wire::open()), &[4, 1], &mut steps)
    };
    assert_eq!(run(), run());
}
