//! The full boards: their PCI functions, what moves when those are programmed, and reset.

use super::rig::*;
use crate::base::{GuestAddr, VirtualClock};
use crate::driver::chipset::{Chipset, Model};
use crate::driver::pci::ConfigAccess;
use crate::machine::builtin::*;

/// A full board with a disk in slot 4 and virtual time.
pub fn full(board: Board) -> Rig {
    let image = TestImage::new(64, false);
    let config = BuiltinConfig {
        ram_bytes: 256 << 20,
        board,
        chips: Chips::FULL,
        clock: Arc::new(VirtualClock::new()),
        cpus: 2,
        disks: vec![DiskConfig::new(Arc::new(image.clone()))],
        ..BuiltinConfig::default()
    };
    Rig::of(BuiltinMachine::new(config).unwrap(), image)
}

/// Registers of a function that are not zero after a reset: (slot, function, [(register, value)]).
type Golden<'a> = (u32, u32, &'a [(u32, u32)]);

const PC: &[Golden<'_>] = &[
    (0, 0, &[(0, 0x1237_8086), (8, 0x0600_0002), (0x54, 0x2000_0000), (0x70, 0x0002_0000)]),
    (
        1,
        0,
        &[
            (0, 0x7000_8086),
            (4, 0x0200_0000),
            (8, 0x0601_0000),
            (0xc, 0x0080_0000),
            (0x4c, 0x0003_004d),
            (0x60, 0x8080_8080),
            (0x68, 0x0000_0200),
            (0x70, 0x0000_0080),
            (0x74, 0x0c0c_0000),
            (0x78, 0x0000_0002),
            (0xa0, 0x0000_0008),
            (0xa8, 0x0000_000f),
        ],
    ),
    (1, 1, &[(0, 0x7010_8086), (4, 0x0280_0000), (8, 0x0101_8000), (0x20, 1)]),
    (
        1,
        3,
        &[
            (0, 0x7113_8086),
            (4, 0x0280_0000),
            (8, 0x0680_0003),
            (0x3c, 0x0000_0100),
            (0x40, 1),
            (0x5c, 0x1000_0000),
            (0x60, 0x6000_0000),
            (0x64, 0x0800_0000),
            (0x90, 0x0000_b101),
            (0xd0, 0x0009_0000),
        ],
    ),
];

const Q35: &[Golden<'_>] = &[
    (
        0,
        0,
        &[
            (0, 0x29c0_8086),
            (8, 0x0600_0000),
            (0x50, 0x10),
            (0x60, 0xb000_0000),
            (0x9c, 0x0038_0200),
        ],
    ),
    (
        31,
        0,
        &[
            (0, 0x2918_8086),
            (8, 0x0601_0002),
            (0xc, 0x0080_0000),
            (0x40, 1),
            (0x60, 0x8080_8080),
            (0x68, 0x8080_8080),
            (0x80, 0x0001_0000),
        ],
    ),
    (
        31,
        2,
        &[
            (0, 0x2922_8086),
            (4, 0x0010_0000),
            (8, 0x0106_0102),
            (0xc, 0x0080_0000),
            (0x20, 1),
            (0x34, 0x80),
            (0x3c, 0x0000_0100),
            (0x80, 0x0080_a805),
            (0x90, 0x40),
            (0xa8, 0x0010_0012),
            (0xac, 0x48),
        ],
    ),
    (
        31,
        3,
        &[(0, 0x2930_8086), (8, 0x0c05_0002), (0xc, 0x0080_0000), (0x20, 1), (0x3c, 0x0000_0100)],
    ),
];

const SUBSYSTEM: (u32, u32) = (0x2c, 0x1100_1af4);

/// Every register of the chipset against what QEMU 7.2 shows.
fn assert_golden(rig: &mut Rig, golden: &[Golden<'_>], when: &str) {
    for (slot, function, registers) in golden {
        for register in (0..256).step_by(4) {
            let known = registers.iter().chain([&SUBSYSTEM]).find(|(r, _)| *r == register);
            // The function number sits below the slot.
            let got = rig.config_read(*slot, function << 8 | register, 4);
            let want = known.map_or(0, |(_, value)| *value);
            assert_eq!(got, want, "{when}: {slot:02x}.{function} register {register:#x}");
        }
    }
}

#[test]
fn the_chipsets_functions_and_reset_values_are_those_of_qemu() {
    for (board, golden) in [(Board::Pc, PC), (Board::Q35, Q35)] {
        let mut rig = full(board);
        let found: Vec<(u32, u32)> = (0..256)
            .filter(|devfn| rig.config_read(devfn >> 3, (devfn & 7) << 8, 4) != u32::MAX)
            .map(|devfn| (devfn >> 3, devfn & 7))
            .collect();
        let mut want: Vec<(u32, u32)> = golden.iter().map(|(s, f, _)| (*s, *f)).collect();
        want.push((4, 0));
        want.sort_unstable();
        assert_eq!(found, want);
        assert_golden(&mut rig, golden, "power-on");
        // Everything that can be written is, and a reset takes it back.
        for (slot, function, _) in golden {
            for register in (0..256).step_by(4) {
                rig.config_write(*slot, function << 8 | register, 4, u32::MAX);
            }
        }
        rig.bus().pio_write(0xcf9, 1, 0x06);
        assert_golden(&mut rig, golden, "after a reset");
    }
}

#[test]
fn read_only_registers_of_a_function_keep_their_value() {
    let mut rig = full(Board::Pc);
    rig.config_write(1, 0x104, 4, u32::MAX);
    assert_eq!(rig.config_read(1, 0x104, 4), 0x0280_0507, "command and status");
    rig.config_write(1, 0x120, 4, u32::MAX);
    assert_eq!(rig.config_read(1, 0x120, 4), 0xffff_fff1, "16 ports");
    rig.config_write(1, 0x10c, 4, u32::MAX);
    assert_eq!(rig.config_read(1, 0x10c, 4), 0xff, "only the cache line size");
    let mut q35 = full(Board::Q35);
    q35.config_write(31, 0x40, 4, u32::MAX);
    assert_eq!(q35.config_read(31, 0x40, 4), 0xff81, "PMBASE");
    q35.config_write(31, 0x224, 4, u32::MAX);
    assert_eq!(q35.config_read(31, 0x224, 4), 0xffff_f000, "ABAR");
}

#[test]
fn firmwares_work_opens_what_it_should() {
    for (board, model) in [(Board::Pc, Model::I440fx), (Board::Q35, Model::Q35)] {
        let mut rig = full(board);
        assert_eq!(rig.bus().pio_read(0x608, 4), u32::MAX, "no PM timer yet");
        let chipset = Chipset::set_up(rig.bus()).unwrap();
        assert_eq!((chipset.model, chipset.pm_base), (model, Some(0x600)));
        assert_eq!(rig.bus().pio_read(0x608, 4), 0, "PM timer at time 0");
        let (gpe0, _) = chipset.gpe0.unwrap();
        assert_eq!(rig.bus().pio_read(gpe0, 2), 0);
        rig.bus().pio_write(0xb2, 1, if board == Board::Pc { 0xf1 } else { 0x02 });
        assert_eq!(rig.bus().pio_read(0x604, 2), 1, "SCI_EN by the APM port");
        let line = if board == Board::Pc { 11 } else { 10 };
        assert_eq!(rig.config_read(4, 0x3c, 1), line);
        // What is set up stays, for firmware may have done it otherwise.
        let (slot, pirq) = if board == Board::Pc { (1, 0x63) } else { (31, 0x68) };
        rig.config_write(slot, pirq, 1, 5);
        assert_eq!(Chipset::set_up(rig.bus()).unwrap(), chipset);
        assert_eq!(rig.config_read(slot, pirq, 1), 5);
        assert_eq!(rig.config_read(4, 0x3c, 1), line);
    }
}

#[test]
fn the_pm_block_moves_with_its_base() {
    let mut rig = full(Board::Pc);
    rig.config_write(1, 0x340, 4, 0x0000_b001);
    assert_eq!(rig.bus().pio_read(0xb008, 4), u32::MAX, "not enabled");
    rig.config_write(1, 0x380, 1, 1);
    assert_eq!(rig.bus().pio_read(0xb008, 4), 0);
    assert_eq!(rig.bus().pio_read(0xb03e, 4) >> 16, 0xffff, "the block ends at b03f");
    rig.config_write(1, 0x340, 4, 0x0000_1000);
    assert_eq!((rig.bus().pio_read(0xb008, 4), rig.bus().pio_read(0x1008, 4)), (u32::MAX, 0));
}

#[test]
fn the_ecam_moves_and_has_three_lengths() {
    let mut rig = full(Board::Q35);
    let id = |rig: &mut Rig, base: u64, slot: u64| {
        rig.bus().mmio_read(GuestAddr(base + (slot << 15)), 4)
    };
    assert_eq!(id(&mut rig, 0xb000_0000, 0), u64::from(u32::MAX), "closed after a reset");
    let chipset = Chipset::set_up(rig.bus()).unwrap();
    assert_eq!(chipset.access, ConfigAccess::Ecam(GuestAddr(0xb000_0000)));
    assert_eq!(id(&mut rig, 0xb000_0000, 31), 0x2918_8086);
    rig.config_write(0, 0x60, 4, 0xc000_0005);
    assert_eq!(id(&mut rig, 0xb000_0000, 31), u64::from(u32::MAX));
    assert_eq!(id(&mut rig, 0xc000_0000, 31), 0x2918_8086);
    rig.config_write(0, 0x64, 4, 1);
    assert_eq!(id(&mut rig, 0x1_c000_0000, 0), 0x29c0_8086, "above 4 GiB");
    rig.config_write(0, 0x60, 4, 0xc000_0007);
    assert_eq!(id(&mut rig, 0x1_c000_0000, 0), u64::from(u32::MAX), "a reserved length");
}

#[test]
fn the_root_complex_registers_appear_where_rcba_says() {
    let mut rig = full(Board::Q35);
    let dir = |rig: &mut Rig, base: u64| rig.bus().mmio_read(GuestAddr(base + 0x3140), 4);
    assert_eq!(dir(&mut rig, 0xfed1_c000), u64::from(u32::MAX));
    rig.config_write(31, 0xf0, 4, 0xfed1_c001);
    assert_eq!(dir(&mut rig, 0xfed1_c000), 0x3210);
    assert_eq!(rig.bus().mmio_read(GuestAddr(0xfed1_c000 + 0x3410), 4), 0x20);
    rig.config_write(31, 0xf0, 4, 0xfed2_0001);
    assert_eq!((dir(&mut rig, 0xfed1_c000), dir(&mut rig, 0xfed2_0000)), (0xffff_ffff, 0x3210));
}

/// Ports and values that reset a board.
const RESETS: [(u16, &[u8]); 3] = [(0xcf9, &[0x02, 0x06]), (0x92, &[0x01]), (0x64, &[0xfe])];

#[test]
fn each_reset_makes_the_board_anew_and_keeps_its_ram() {
    for board in [Board::Pc, Board::Q35] {
        for (port, values) in RESETS {
            let mut rig = full(board);
            Chipset::set_up(rig.bus()).unwrap();
            rig.ram.write(GuestAddr(0x5000), b"kept");
            rig.bus().pio_write(0x21, 1, 0x5a);
            rig.bus().pio_write(0x3fb, 1, 0x03);
            rig.start_one(USUAL);
            assert_eq!(rig.status(), 15);
            for value in values {
                assert_eq!(rig.bus().pio_read(0x608, 4) & 0xff00_0000, 0, "not yet");
                rig.bus().pio_write(port, 1, (*value).into());
            }
            let what = format!("{} by port {port:#x}", board.name());
            assert_eq!(rig.bus().pio_read(0x608, 4), u32::MAX, "{what}: PM block");
            assert_eq!(rig.bus().pio_read(0x3fb, 1), 0, "{what}: LCR");
            assert_eq!(rig.bus().pio_read(0xcf9, 1), 0, "{what}: RST_CNT");
            assert_eq!(rig.config_read(4, 0x20, 4), 0xc, "{what}: BAR 4");
            assert_eq!(rig.bytes(0x5000, 4), b"kept", "{what}");
            rig.assign();
            assert_eq!(rig.status(), 0, "{what}: the disk");
            // It works as after power-on.
            let mut ring = rig.start_one(USUAL);
            assert_eq!(rig.request(&mut ring, 0, 1, &[], 512).0, 0, "{what}");
        }
    }
}

#[test]
fn rst_cnt_is_there_with_the_south_bridge_only() {
    let mut minimal = Rig::new();
    assert_eq!(minimal.bus().pio_read(0xcf9, 1), 0xff);
    let mut pc = full(Board::Pc);
    pc.bus().pio_write(0xcf9, 1, 0xfb);
    assert_eq!(pc.bus().pio_read(0xcf9, 1), 0x02);
    // A 32-bit access at CF8h is the configuration address, whatever its second byte.
    pc.bus().pio_write(0xcf8, 4, 0x8000_0600);
    assert_eq!(pc.bus().pio_read(0xcf9, 1), 0x02);
}

#[test]
fn disks_go_to_the_slot_that_is_asked_for() {
    let disk = || DiskConfig::new(Arc::new(TestImage::new(8, false)));
    let config = |slot, board| BuiltinConfig {
        first_disk_slot: slot,
        board,
        chips: Chips::FULL,
        disks: vec![disk(), disk()],
        ..BuiltinConfig::default()
    };
    let mut machine = BuiltinMachine::new(config(2, Board::Pc)).unwrap();
    for slot in [2u32, 3] {
        let bus = machine.bus().unwrap();
        bus.pio_write(0xcf8, 4, 0x8000_0000 | slot << 11);
        assert_eq!(bus.pio_read(0xcfc, 4), 0x1001_1af4);
    }
    for (slot, board) in [(0, Board::Pc), (1, Board::Pc), (31, Board::Pc), (30, Board::Q35)] {
        assert!(BuiltinMachine::new(config(slot, board)).is_err(), "slot {slot}");
    }
}
