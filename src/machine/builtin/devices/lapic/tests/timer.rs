use super::super::timer::Timer;
use super::*;
use crate::base::Prng;

const DIVIDERS: [(u32, u64); 8] =
    [(0, 2), (1, 4), (2, 8), (3, 16), (8, 32), (9, 64), (10, 128), (11, 1)];

#[test]
fn the_clock_is_divided_as_configured() {
    for (configuration, divisor) in DIVIDERS {
        let rig = Rig::new(1);
        rig.write(APIC_TDCR, configuration);
        rig.write(APIC_TMICT, 1000);
        rig.clock.advance_to(Nanos(10 * divisor - 1));
        assert_eq!(rig.read(APIC_TMCCT), 991, "divided by {divisor}");
        rig.clock.advance_to(Nanos(10 * divisor));
        assert_eq!(rig.read(APIC_TMCCT), 990, "divided by {divisor}");
    }
}

#[test]
fn one_shot_interrupts_at_zero_and_stays_there() {
    let rig = Rig::new(1);
    let mut device = rig.device();
    rig.clock.advance_to(Nanos(5));
    rig.write(APIC_TDCR, 11);
    rig.write(APIC_TMICT, 100);
    assert_eq!(device.deadline(), None, "masked: nobody could tell");
    rig.write(APIC_LVT_TIMER, 0xec);
    assert_eq!(device.deadline(), Some(Nanos(105)));
    device.run(Nanos(104));
    assert!(!rig.intr(0));
    rig.clock.advance_to(Nanos(105));
    device.run(Nanos(105));
    assert_eq!((rig.ack(), rig.read(APIC_TMCCT), device.deadline()), (Some(0xec), 0, None));
    rig.clock.advance_to(Nanos(1 << 50));
    assert_eq!((rig.read(APIC_TMCCT), rig.ack()), (0, None));
}

#[test]
fn periodic_interrupts_come_without_drift_and_coalesce() {
    let rig = Rig::new(1);
    let mut device = rig.device();
    rig.write(APIC_TDCR, 0);
    rig.write(APIC_LVT_TIMER, LVT_PERIODIC | 0x40);
    rig.write(APIC_TMICT, 50);
    for n in 1..=1000 {
        let deadline = device.deadline();
        assert_eq!(deadline, Some(Nanos(100 * n)));
        rig.clock.advance_to(Nanos(100 * n));
        device.run(rig.now());
        assert_eq!(device.deadline(), None, "one is waiting: another changes nothing");
        assert_eq!(rig.ack(), Some(0x40));
        rig.write(APIC_EOI, 0);
    }
    // An hour passes in one step.
    rig.clock.advance_to(Nanos(3_600_000_000_033));
    assert_eq!(rig.read(APIC_TMCCT), 50 - 33 / 2);
    assert_eq!((rig.ack(), rig.ack()), (Some(0x40), None));
    assert_eq!(device.deadline(), Some(Nanos(3_600_000_000_100)));
    rig.write(APIC_TMICT, 0);
    assert_eq!((device.deadline(), rig.read(APIC_TMCCT)), (None, 0));
}

#[test]
fn an_illegal_timer_vector_is_one_error() {
    let rig = Rig::new(1);
    let mut device = rig.device();
    rig.write(APIC_LVT_TIMER, LVT_PERIODIC | 3);
    rig.write(APIC_TMICT, 1);
    device.run(Nanos(1000));
    assert_eq!(device.deadline(), None, "it is logged already");
    rig.clock.advance_to(Nanos(1000));
    assert_eq!(rig.errors(), ESR_RECEIVE_ILLEGAL_VECTOR);
    assert!(device.deadline().is_some());
}

#[test]
fn a_changed_rate_goes_on_from_the_count() {
    let mut timer = Timer::default();
    timer.configure(11, Nanos(0));
    timer.load(100, Nanos(0));
    timer.advance(Nanos(40));
    timer.configure(0, Nanos(40));
    assert_eq!((timer.current(Nanos(40)), timer.expiry()), (60, Some(Nanos(160))));
    timer.set_periodic(true);
    assert!(timer.advance(Nanos(165)));
    assert_eq!(timer.current(Nanos(165)), 98);
    timer.set_periodic(false);
    assert_eq!(timer.expiry(), Some(Nanos(360)), "the cycle under way is the last");
    assert!(timer.advance(Nanos(360)));
    assert_eq!(timer.expiry(), None);
}

/// Advancing in any steps gives the counts of advancing in one.
#[test]
fn the_count_does_not_depend_on_when_it_is_looked_at() {
    let mut prng = Prng::new(7);
    for _ in 0..200 {
        let (configuration, _) = DIVIDERS[prng.below(8) as usize];
        let mut timer = Timer::default();
        timer.set_periodic(prng.below(2) == 0);
        timer.configure(configuration, Nanos(0));
        timer.load(1 + prng.below(500) as u32, Nanos(0));
        let mut stepped = timer.clone();
        let mut now = Nanos(0);
        for _ in 0..50 {
            now += prng.below(5_000);
            stepped.advance(now);
        }
        timer.advance(now);
        assert_eq!(stepped, timer);
    }
}

#[test]
fn the_end_of_time_has_no_deadline() {
    let mut timer = Timer::default();
    timer.load(u32::MAX, Nanos(u64::MAX - 5));
    assert_eq!((timer.expiry(), timer.advance(Nanos(u64::MAX))), (None, false));
}
