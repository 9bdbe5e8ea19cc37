//! The cases on a right board, and on wrong ones.

use super::Lapic;
use crate::base::BusAccess;
use crate::driver::apic::local::{DEFAULT_BASE, register};
use crate::suite::irq_board::{Fault, all_found, all_pass};

fn is(access: BusAccess, write: bool, at: u64) -> bool {
    access.write == write && access.addr == DEFAULT_BASE.0 + at
}

/// What is written to a register loses and gains bits.
fn wrote(access: BusAccess, at: u64, lost: u64, gained: u64) -> Option<u64> {
    Some(if is(access, true, at) { access.value & !lost | gained } else { access.value })
}

/// So does what is read from it.
fn read(access: BusAccess, at: u64, lost: u64, gained: u64) -> Option<u64> {
    Some(if is(access, false, at) { access.value & !lost | gained } else { access.value })
}

fn lost(access: BusAccess, at: u64) -> Option<u64> {
    (!is(access, true, at)).then_some(access.value)
}

const FAULTS: &[(&str, Fault)] = &[
    ("version", |a| read(a, register::VERSION, 0xff, 0x04)),
    ("version", |a| read(a, register::VERSION, 0xff_0000, 0)),
    ("registers", |a| wrote(a, register::LVT_LINT0, 1 << 13, 0)),
    ("registers", |a| read(a, register::TDCR, 0, 1 << 1)),
    // A read-only register that keeps what is written, as far as the bus can tell.
    ("read-only", |a| {
        static WRITTEN: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
        if is(a, true, register::PPR) {
            WRITTEN.store(a.value, std::sync::atomic::Ordering::SeqCst);
        }
        read(a, register::PPR, 0, WRITTEN.load(std::sync::atomic::Ordering::SeqCst))
    }),
    // The APIC is always enabled.
    ("enable", |a| wrote(a, register::SVR, 0, 1 << 8)),
    ("enable", |a| read(a, register::LVT_ERROR, 1 << 16, 0)),
    ("errors", |a| lost(a, register::ESR)),
    ("errors", |a| wrote(a, register::LVT_ERROR, 0, 1 << 16)),
    ("errors", |a| read(a, register::ESR, 1 << 6, 0)),
    ("illegal-register", |a| read(a, register::ESR, 1 << 7, 0)),
    ("self-ipi", |a| lost(a, register::EOI)),
    ("self-ipi", |a| read(a, register::PPR, 0xf0, 0)),
    ("self-ipi", |a| read(a, register::ISR + 0x30, u64::MAX, 0)),
    // Nothing stays in service: the case must see it by what interrupts what.
    ("priority", |a| {
        let again = is(a, true, register::ICR_LOW) && a.value & 0xff == 0x8f;
        Some(if again { a.value + 0x20 } else { a.value })
    }),
    ("tpr", |a| lost(a, register::TPR)),
    ("tpr", |a| wrote(a, register::TPR, 0xf0, 0)),
    ("spurious", |a| wrote(a, register::SVR, 0, 0x1f)),
    ("spurious", |a| lost(a, register::TPR)),
    // A count too many, and one too few.
    ("timer-one-shot", |a| Some(if is(a, true, register::TMICT) { a.value + 1 } else { a.value })),
    ("timer-one-shot", |a| wrote(a, register::LVT_TIMER, 0, 1 << 17)),
    ("timer-periodic", |a| Some(if is(a, true, register::TMICT) { a.value + 1 } else { a.value })),
    ("timer-periodic", |a| wrote(a, register::LVT_TIMER, 1 << 17, 0)),
    ("timer-divide", |a| wrote(a, register::TDCR, 1 << 3, 0)),
    ("timer-masked", |a| wrote(a, register::LVT_TIMER, 1 << 16, 0)),
    ("timer-masked", |a| read(a, register::TMCCT, u64::MAX, 0)),
    ("timer-stop", |a| Some(if is(a, true, register::TMICT) { a.value.max(1) } else { a.value })),
    ("shorthands", |a| wrote(a, register::ICR_LOW, 3 << 18, 2 << 18)),
    ("shorthands", |a| lost(a, register::ICR_LOW)),
    ("logical", |a| wrote(a, register::DFR, 0, 0xf000_0000)),
    ("logical", |a| wrote(a, register::ICR_LOW, 1 << 11, 0)),
    // Everybody is meant.
    ("other-cpu", |a| wrote(a, register::ICR_HIGH, 0, 0xff00_0000)),
    ("other-cpu", |a| wrote(a, register::ICR_LOW, 0x700, 0)),
    ("msi", |a| Some(if a.write && a.addr == 0xfee0_1004 { a.value + 1 } else { a.value })),
    ("msi", |a| (a.addr != 0xfee0_1004).then_some(a.value)),
    ("virtual-wire", |a| wrote(a, register::LVT_LINT0, 0x700, 0)),
    ("virtual-wire", |a| lost(a, register::LVT_LINT0)),
];

#[test]
fn every_case_passes_on_a_right_board() {
    all_pass(&Lapic, &[]);
}

#[test]
fn every_case_finds_a_wrong_chip() {
    all_found(&Lapic, &[], FAULTS);
}
