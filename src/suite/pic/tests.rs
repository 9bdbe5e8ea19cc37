//! The cases on a right board, and on wrong ones.

use super::Pic;
use crate::base::BusAccess;
use crate::suite::irq_board::{Fault, all_found, all_pass};

/// A byte written to `port` as `from` arrives as `to`.
fn wrote(access: BusAccess, port: u64, from: u64, to: u64) -> Option<u64> {
    let meant = access.write && access.addr == port && access.value == from;
    Some(if meant { to } else { access.value })
}

/// Bits of what is read from `port` are wrong.
fn read(access: BusAccess, port: u64, flipped: u64) -> Option<u64> {
    let meant = !access.write && access.addr == port;
    Some(if meant { access.value ^ flipped } else { access.value })
}

/// Cases of which only a local APIC, or an I/O APIC like QEMU's, makes something.
const NEED_LAPIC: &[&str] = &["spurious-7"];

const FAULTS: &[(&str, Fault)] = &[
    ("registers", |a| read(a, 0xa1, 1 << 3)),
    // ELCR's fixed bits can be set.
    ("registers", |a| Some(if !a.write && a.addr == 0x4d0 { a.value | 1 } else { a.value })),
    // ICW1 leaves the mask.
    ("initialize", |a| Some(if !a.write && a.addr == 0x21 { a.value | 2 } else { a.value })),
    // ICW1 is lost.
    (
        "initialize",
        |a| if a.write && a.addr == 0x20 && a.value == 0x12 { None } else { Some(a.value) },
    ),
    ("requests", |a| read(a, 0xa0, 1 << 4)),
    // OCW3 selects the ISR for the IRR.
    ("requests", |a| wrote(a, 0x20, 0x0a, 0x0b)),
    // The slave does not poll.
    ("poll", |a| wrote(a, 0xa0, 0x0c, 0x08)),
    // A poll with no request says there is one.
    ("poll", |a| Some(if !a.write && a.addr == 0x20 && a.value == 0 { 0x80 } else { a.value })),
    // The slave's vectors are the master's.
    ("vectors", |a| wrote(a, 0xa1, 0x38, 0x30)),
    ("vectors", |a| wrote(a, 0x21, 0xf8, 0x78)),
    // Every interrupt ends at its acknowledge: nothing holds others back.
    ("priority", |a| wrote(a, 0x21, 0x01, 0x03)),
    // The mask covers input 0 as well.
    ("priority", |a| wrote(a, 0x21, 0xe8, 0xe9)),
    // The slave sits on input 7.
    ("cascade", |a| wrote(a, 0x21, 0x04, 0x80)),
    // Special fully nested when it should not be.
    ("cascade", |a| wrote(a, 0x21, 0x01, 0x11)),
    // Non-specific EOIs are lost.
    ("eoi", |a| wrote(a, 0x20, 0x20, 0x40)),
    // Specific EOIs are not.
    ("eoi", |a| wrote(a, 0x20, 0x64, 0x20)),
    // No rotation.
    ("rotate", |a| wrote(a, 0x20, 0xa0, 0x20)),
    ("rotate", |a| wrote(a, 0x20, 0xc1, 0x40)),
    ("rotate", |a| wrote(a, 0x20, 0xe0, 0x60)),
    ("rotate", |a| wrote(a, 0xa0, 0xc3, 0x40)),
    ("aeoi", |a| wrote(a, 0x21, 0x03, 0x01)),
    ("rotate-aeoi", |a| wrote(a, 0x20, 0x80, 0x40)),
    ("rotate-aeoi", |a| wrote(a, 0x20, 0x00, 0x40)),
    ("special-mask", |a| wrote(a, 0x20, 0x68, 0x08)),
    ("special-mask", |a| wrote(a, 0x20, 0x48, 0x08)),
    ("special-mask-pending", |a| wrote(a, 0x20, 0x68, 0x08)),
    ("special-nested", |a| wrote(a, 0x21, 0x11, 0x01)),
    // Levels are edges, and edges levels.
    ("level", |a| wrote(a, 0x4d0, 0x10, 0x00)),
    ("level", |a| wrote(a, 0x4d0, 0x00, 0x10)),
    ("withdrawn", |a| wrote(a, 0x4d0, 0x10, 0x00)),
    // The master has a request of its own.
    ("spurious-7", |a| wrote(a, 0x21, 0xff, 0xef)),
    // The slave's mask comes too late.
    ("spurious-15", |a| wrote(a, 0xa1, 0xff, 0xfe)),
];

#[test]
fn every_case_passes_on_a_right_board() {
    all_pass(&Pic, NEED_LAPIC);
}

#[test]
fn every_case_finds_a_wrong_chip() {
    all_found(&Pic, NEED_LAPIC, FAULTS);
}
