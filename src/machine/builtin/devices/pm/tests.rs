use std::sync::Arc;

use super::Pm;
use super::bits::*;
use crate::base::{Nanos, Prng};
use crate::machine::builtin::device::{Device, LineProbe, Wire};
use crate::machine::builtin::devices::recorded;
use crate::machine::builtin::walk::{SeededSteps, walk};

const SCI: u32 = 9;

fn wired(probe: &Arc<LineProbe>) -> Pm {
    Pm::new(Wire::new(probe.clone(), SCI, 0))
}

#[test]
fn the_timer_has_24_bits_of_3_579545_mhz() {
    let mut pm = Pm::new(Wire::open());
    for (tick, value) in [(0, 0), (1, 1), (3_579_545, 3_579_545), (1 << 24, 0), ((5 << 24) + 7, 7)]
    {
        assert_eq!(pm.read(0, PM_TMR, 4, CLK.time_of(tick)), value);
    }
    let now = CLK.time_of((5 << 24) + 0x12_3456);
    let parts = [(2, 2), (0, 1), (1, 2)].map(|(n, size)| pm.read(0, PM_TMR + n, size, now));
    assert_eq!(parts, [0x12, 0x56, 0x1234]);
    pm.write(0, PM_TMR, 4, 99, now);
    assert_eq!(pm.read(0, PM_TMR, 4, now), 0x12_3456);
    pm.reset(now);
    assert_eq!(pm.read(0, PM_TMR, 4, now), 0);
}

#[test]
fn tmr_sts_is_sticky_and_raises_sci_at_the_exact_moment() {
    let probe = Arc::new(LineProbe::default());
    let mut pm = wired(&probe);
    let at = |tick| CLK.time_of(tick);
    pm.write(0, PM1_EN, 2, TMR_STS.into(), Nanos(0));
    assert_eq!(pm.deadline(), None, "an SMI machine: nobody is told");
    pm.set_acpi_enabled(true);
    for change in 1..=5 {
        assert_eq!(pm.deadline(), Some(at(change << 23)));
        assert_eq!(pm.read(0, PM1_STS, 2, Nanos(at(change << 23).0 - 1)), 0);
        pm.run(at(change << 23));
        assert_eq!(probe.line(SCI), (true, change));
        assert_eq!(pm.deadline(), None);
        pm.write(0, PM1_STS, 2, 0xfffe, at((change << 23) + 9));
        assert_eq!(pm.read(0, PM1_STS, 2, at((change << 23) + 9)), u64::from(TMR_STS));
        pm.write(0, PM1_STS, 1, TMR_STS.into(), at((change << 23) + 9));
        assert!(!probe.line(SCI).0);
    }
    // Many changes are one status bit.
    assert_eq!(pm.read(0, PM1_STS, 2, at(100 << 23)), u64::from(TMR_STS));
    pm.write(0, PM1_STS, 2, TMR_STS.into(), at(100 << 23));
    assert_eq!(pm.deadline(), Some(at(101 << 23)));
    // Leaving ACPI mode takes SCI away, not the status.
    pm.run(at(101 << 23));
    assert!(probe.line(SCI).0);
    pm.set_acpi_enabled(false);
    assert!(!probe.line(SCI).0);
    assert_eq!(pm.read(0, PM1_STS, 2, at(101 << 23)), u64::from(TMR_STS));
}

/// A Linux boot and shutdown on QEMU 7.2 reads as it did, the timer aside.
#[test]
fn a_recorded_boot_reads_the_same() {
    const APM_COMMAND: u64 = 0xb2;
    let regions = ["acpi-evt", "acpi-cnt", "acpi-gpe0", "apm-io"];
    let Some(accesses) = recorded::accesses("guest/virtio-raw-mmio.trace.xz", &regions) else {
        return;
    };
    let mut pm = Pm::new(Wire::open());
    for access in &accesses {
        match access.addr {
            APM_COMMAND if access.write => pm.set_acpi_enabled(access.value == 0xf1),
            0xb0..=0xb3 => {}
            _ => recorded::replay(&mut pm, &[(0x600, 64), (0xafe0, 4)], &[*access]),
        }
    }
}

#[test]
fn registers_keep_what_exists() {
    let mut pm = Pm::new(Wire::open());
    let accesses = [
        (0, PM1_EN, 2, 0xffff, 0x4721),
        (0, PM1_EN, 2, 0x0, 0x0),
        (0, PM1_CNT, 2, 0xdfff, 0x1c03),
        (0, PM1_CNT, 2, 0x2001, 0x1),
        (0, PM1_STS, 2, 0xc731, 0x0),
        (0, 0x0c, 4, 0x0, 0xffff_ffff),
        (1, 0, 1, 0xff, 0x0),
        (1, 2, 2, 0x1234, 0x1234),
    ];
    for (window, offset, size, value, reads) in accesses {
        pm.write(window, offset, size, value, Nanos(0));
        assert_eq!(pm.read(window, offset, size, Nanos(0)), reads, "{offset:#x}");
    }
    assert_eq!(pm.sleep_requested(), Some(0));
    assert_eq!(pm.read(0, PM1_STS, 8, Nanos(0)), 0x0001_0000_0000);
}

#[test]
fn buttons_and_general_events_are_sticky_until_cleared() {
    let probe = Arc::new(LineProbe::default());
    let mut pm = wired(&probe).with_gpe_bytes(GPE0_BYTES_ICH9);
    pm.set_acpi_enabled(true);
    pm.raise(PWRBTN_STS | TMR_STS);
    assert_eq!(pm.read(0, PM1_STS, 2, Nanos(0)), u64::from(PWRBTN_STS), "the timer has its own");
    assert!(!probe.line(SCI).0);
    pm.write(0, PM1_EN + 1, 1, 1, Nanos(0));
    assert!(probe.line(SCI).0);
    pm.write(0, PM1_STS + 1, 1, 1, Nanos(0));
    assert!(!probe.line(SCI).0);
    pm.raise_gpe(33);
    pm.raise_gpe(64);
    pm.write(1, 8, 8, 1 << 33, Nanos(0));
    assert_eq!(probe.line(SCI), (true, 2));
    assert_eq!(pm.read(1, 4, 4, Nanos(0)), 1 << 1);
    pm.write(1, 0, 4, 0xffff_ffff, Nanos(0));
    assert!(probe.line(SCI).0, "the upper half was not written");
    pm.write(1, 4, 1, 1 << 1, Nanos(0));
    assert!(!probe.line(SCI).0);
    pm.write(0, PM1_CNT, 2, (5 << SLP_TYP_SHIFT | SLP_EN).into(), Nanos(0));
    assert_eq!(pm.sleep_requested(), Some(5));
    assert_eq!(pm.read(0, PM1_CNT, 2, Nanos(0)), 5 << SLP_TYP_SHIFT);
}

#[test]
fn a_random_walk_ends_where_it_ended_before() {
    let run = || {
        let mut steps = SeededSteps(Prng::new(42), 1_000_000);
        walk(&mut Pm::new(Wire::open()), &[BLOCK_BYTES, 4], &mut steps)
    };
    assert_eq!(run(), run());
}
