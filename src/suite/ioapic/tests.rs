//! The cases on a right board, and on wrong ones.

use super::IoApicTests;
use crate::base::BusAccess;
use crate::suite::irq_board::{Fault, all_found, all_pass};

const IOWIN: u64 = 0xfec0_0010;
/// Of a local APIC, and of an I/O APIC of version 20h.
const EOIS: [u64; 2] = [0xfee0_00b0, 0xfec0_0040];

/// What is written to the window loses and gains bits.
fn wrote(access: BusAccess, lost: u64, gained: u64) -> Option<u64> {
    let meant = access.write && access.addr == IOWIN;
    Some(if meant { access.value & !lost | gained } else { access.value })
}

/// So does what is read from it.
fn read(access: BusAccess, lost: u64, gained: u64) -> Option<u64> {
    let meant = !access.write && access.addr == IOWIN;
    Some(if meant { access.value & !lost | gained } else { access.value })
}

fn lost(access: BusAccess, addr: u64) -> Option<u64> {
    (!access.write || access.addr != addr).then_some(access.value)
}

/// The low half of an unmasked entry.
fn is_entry(access: BusAccess) -> bool {
    access.write && access.addr == IOWIN && access.value & 0x1_00ff > 0x20
}

const FAULTS: &[(&str, Fault)] = &[
    ("registers", |a| read(a, 0xff, 0x12)),
    ("registers", |a| read(a, 0x0800_0000, 0)),
    ("entries", |a| wrote(a, 1 << 13, 0)),
    ("entries", |a| read(a, 0, 1 << 14)),
    // Vectors are odd.
    ("inputs", |a| wrote(a, 0, 1)),
    // The timer is at input 0.
    ("inputs", |a| {
        let selector = a.write && a.addr == 0xfec0_0000 && a.value & !1 == 0x14;
        Some(if selector { a.value - 4 } else { a.value })
    }),
    ("edge", |a| wrote(a, 0, 1 << 15)),
    // The mask does not mask.
    ("masked-edge", |a| wrote(a, 1 << 16, 0)),
    ("masked-level", |a| wrote(a, 1 << 16, 0)),
    // Levels are edges.
    ("level", |a| wrote(a, 1 << 15, 0)),
    ("level", |a| read(a, 1 << 14, 0)),
    // No EOI reaches anybody.
    ("level", |a| EOIS.into_iter().try_fold(a.value, |_, eoi| lost(a, eoi))),
    ("eoi-register", |a| lost(a, 0xfec0_0040)),
    ("eoi-register", |a| Some(if a.addr == 0xfec0_0040 { 0x51 } else { a.value })),
    ("polarity", |a| wrote(a, 1 << 13, 0)),
    // Logical destinations are physical.
    ("destinations", |a| wrote(a, 1 << 11, 0)),
    // Every destination is everybody.
    ("destinations", |a| if a.value >> 24 != 0 { wrote(a, 0, 0xff00_0000) } else { Some(a.value) }),
    // The mode is NMI.
    ("lowest-priority", |a| if is_entry(a) { wrote(a, 0x700, 0x400) } else { Some(a.value) }),
    ("nmi", |a| wrote(a, 0x700, 0)),
    ("extint", |a| wrote(a, 0x700, 0)),
    // Levels are edges, whose messages say nothing.
    ("assert", |a| wrote(a, 1 << 15, 0)),
];

#[test]
fn every_case_passes_on_a_right_board() {
    all_pass(&IoApicTests, &[]);
}

#[test]
fn every_case_finds_a_wrong_chip() {
    all_found(&IoApicTests, &[], FAULTS);
}
