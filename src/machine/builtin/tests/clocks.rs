//! Time: deadlines at their exact moments, under each clock.

use super::board::full;
use crate::base::{Clock, Frequency, HostClock, Nanos, ScaledClock, VirtualClock};
use crate::machine::IrqSource;
use crate::machine::builtin::*;

const PIT: Frequency = Frequency::new(1_193_182);
const HOUR: u64 = 3_600_000_000_000;

/// Channel 0 as a rate generator.
fn start_pit(machine: &mut dyn Machine, count: u16) {
    let [low, high] = count.to_le_bytes();
    for (port, value) in [(0x43, 0x34), (0x40, low), (0x40, high)] {
        machine.bus().unwrap().pio_write(port, 1, value.into());
    }
}

#[test]
fn an_hour_passes_in_exact_steps() {
    let mut rig = full(Board::Pc);
    start_pit(&mut rig.machine, 0);
    let event = rig.machine.interrupts().unwrap().watch(IrqSource::Intx(0)).unwrap();
    let clock = rig.machine.clock();
    let start = PIT.ticks(clock.now());
    let mut edges = Vec::new();
    while clock.now() < Nanos(HOUR) {
        rig.machine.wait(&[], Some(Nanos(HOUR))).unwrap();
        if event.take() > 0 {
            edges.push(clock.now());
        }
    }
    assert_eq!(clock.now(), Nanos(HOUR));
    // A period is 65536 pulses; every edge lies on the nanosecond of its pulse.
    assert_eq!(edges.len() as u64, (PIT.ticks(Nanos(HOUR)) - start) / 65536);
    let pulses: Vec<u64> = edges.iter().map(|edge| PIT.ticks(*edge)).collect();
    assert!(pulses.windows(2).all(|pair| pair[1] - pair[0] == 65536));
    assert!(edges.iter().zip(&pulses).all(|(edge, pulse)| PIT.time_of(*pulse) == *edge));
}

#[test]
fn a_clock_that_jumps_loses_no_edge() {
    let count = |jump: bool| {
        let mut rig = full(Board::Q35);
        start_pit(&mut rig.machine, 1000);
        let event = rig.machine.interrupts().unwrap().watch(IrqSource::Intx(0)).unwrap();
        let (clock, end) = (rig.machine.clock(), Nanos(1_000_000_000));
        if jump {
            clock.advance_to(end);
            // The next access finds everything done.
            rig.bus().pio_read(0x40, 1);
        }
        while clock.now() < end {
            rig.machine.wait(&[], Some(end)).unwrap();
        }
        event.take()
    };
    assert_eq!(count(false), PIT.ticks(Nanos(1_000_000_000)) / 1000);
    assert_eq!(count(true), count(false));
}

#[test]
fn an_idle_board_has_few_deadlines() {
    let mut rig = full(Board::Pc);
    let mut waits = 0;
    while rig.machine.clock().now() < Nanos(HOUR) {
        rig.machine.wait(&[], Some(Nanos(HOUR))).unwrap();
        waits += 1;
    }
    assert!(waits < 10, "{waits}");
}

/// A machine whose RTC interrupts 1024 times a second.
fn ticking(clock: Arc<dyn Clock>) -> BuiltinMachine {
    let config = BuiltinConfig { chips: Chips::RTC, clock, ..BuiltinConfig::default() };
    let mut machine = BuiltinMachine::new(config).unwrap();
    for (register, value) in [(0x0a, 0x26), (0x0b, 0x42)] {
        machine.bus().unwrap().pio_write(0x70, 1, register);
        machine.bus().unwrap().pio_write(0x71, 1, value);
    }
    machine
}

fn clear(machine: &mut BuiltinMachine) {
    machine.bus().unwrap().pio_write(0x70, 1, 0x0c);
    machine.bus().unwrap().pio_read(0x71, 1);
}

#[test]
fn a_host_clock_sleeps_to_the_devices_deadline() {
    let mut machine = ticking(Arc::new(HostClock::new()));
    let event = machine.interrupts().unwrap().watch(IrqSource::Intx(8)).unwrap();
    let clock = machine.clock();
    let interrupt = |machine: &mut BuiltinMachine| {
        // A wait may end early, and a busy host makes it late; neither loses nor adds an edge, for
        // the line stays up until it is cleared.
        let mut edges = event.take();
        while edges == 0 {
            machine.wait(&[event.fd()], Some(clock.now() + 10_000_000_000)).unwrap();
            edges = event.take();
        }
        assert_eq!(edges, 1);
        clear(machine);
    };
    // The first may have been there for long.
    interrupt(&mut machine);
    let start = clock.now();
    (0..8).for_each(|_| interrupt(&mut machine));
    // Eight ends of periods of 976,562.5 ns lie behind the start, seven whole periods.
    let passed = clock.now() - start;
    assert!(passed >= 7 * 976_562, "{passed} ns");
}

#[test]
fn a_scaled_clock_passes_as_much_time_in_less() {
    let mut machine = ticking(Arc::new(ScaledClock::new(1000.0).unwrap()));
    let (host, clock) = (HostClock::new(), machine.clock());
    let end = clock.now() + 20_000_000_000;
    while clock.now() < end {
        machine.wait(&[], Some(end)).unwrap();
        clear(&mut machine);
    }
    // Twenty seconds of machine time; how busy the host is only makes them longer.
    assert!(host.now() >= Nanos(20_000_000), "{:?}", host.now());
}

#[test]
fn two_machines_given_the_same_are_the_same() {
    let run = || {
        let clock = Arc::new(VirtualClock::new());
        let mut machine = ticking(clock);
        let event = machine.interrupts().unwrap().watch(IrqSource::Intx(8)).unwrap();
        let mut moments = Vec::new();
        for _ in 0..50 {
            machine.wait(&[event.fd()], Some(Nanos(HOUR))).unwrap();
            moments.push((machine.clock().now(), event.take()));
            clear(&mut machine);
        }
        moments
    };
    assert_eq!(run(), run());
}
