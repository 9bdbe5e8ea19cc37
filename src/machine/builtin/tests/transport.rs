//! The function on the bus: configuration space, BARs, negotiation, the legacy interface.

use super::rig::*;
use super::rings::capability;
use virtio_bindings::virtio_blk::*;
use virtio_bindings::virtio_config::*;

use crate::base::GuestAddr;
use crate::machine::builtin::devices::virtio_pci::bits::*;
use crate::machine::builtin::*;

#[test]
fn enumeration_finds_the_bridge_the_disks_and_nothing_else() {
    for (board, bridge, line) in [(Board::Pc, 0x1237_8086, INTX), (Board::Q35, 0x29c0_8086, 10)] {
        let image = TestImage::new(8, false);
        let mut rig = Rig::build(image, board, |_| {});
        let found: Vec<(u32, u32)> = (0..32)
            .map(|slot| (slot, rig.config_read(slot, 0, 4)))
            .filter(|(_, id)| *id != u32::MAX)
            .collect();
        assert_eq!(found, [(0, bridge), (4, 0x1001_1af4)]);
        assert_eq!(rig.config_read(4, 0x2c, 4), 0x0002_1af4, "subsystem");
        assert_eq!(rig.config_read(4, 0x08, 4), 0x0100_0000, "class and revision");
        assert_eq!(rig.config_read(4, 0x3c, 2), 0x0100 | line, "pin A");
        // Function 1 and bus 1 are empty.
        rig.bus().pio_write(0xcf8, 4, 0x8000_2100);
        assert_eq!(rig.bus().pio_read(0xcfc, 4), u32::MAX);
        rig.bus().pio_write(0xcf8, 4, 0x8001_2000);
        assert_eq!(rig.bus().pio_read(0xcfc, 4), u32::MAX);
        // Without the enable bit the data port reaches nothing.
        rig.bus().pio_write(0xcf8, 4, 0x2000);
        assert_eq!(rig.bus().pio_read(0xcfc, 4), u32::MAX);
        // Only a 32-bit access reaches the address port.
        rig.bus().pio_write(0xcf8, 1, 0);
        assert_eq!(rig.bus().pio_read(0xcf8, 4), 0x2000);
    }
}

#[test]
fn ecam_is_the_same_configuration_space() {
    let mut rig = Rig::build(TestImage::new(8, false), Board::Q35, |_| {});
    let at = |reg: u64| GuestAddr(0xb000_0000 + (4 << 15) + reg);
    assert_eq!(rig.bus().mmio_read(at(0), 4), 0x1001_1af4);
    assert_eq!(rig.bus().mmio_read(at(2), 2), 0x1001);
    assert_eq!(rig.bus().mmio_read(at(0), 8) >> 32, u64::from(rig.config_read(4, 4, 4)));
    assert_eq!(rig.bus().mmio_read(at(0x100), 4), 0, "no extended capabilities");
    assert_eq!(rig.bus().mmio_read(GuestAddr(0xb000_0000 + (5 << 15)), 4), 0xffff_ffff);
    rig.bus().mmio_write(at(0x3c), 1, 5);
    assert_eq!(rig.config_read(4, 0x3c, 1), 5);
    rig.bus().mmio_write(at(4), 2, 0);
    assert_eq!(rig.read(VIRTIO_PCI_COMMON_NUMQ, 2), 0xffff, "memory decode went off");
    let mut pc = Rig::new();
    assert_eq!(pc.bus().mmio_read(at(0), 4), 0xffff_ffff);
}

#[test]
fn bars_move_and_overlap_in_a_fixed_order() {
    let mut rig = Rig::new();
    assert_eq!(rig.read(VIRTIO_PCI_COMMON_NUMQ, 2), 1);
    rig.config_write(4, 0x20, 4, 0x4000_0000);
    rig.config_write(4, 0x24, 4, 0);
    assert_eq!(rig.read(VIRTIO_PCI_COMMON_NUMQ, 2), 0xffff);
    assert_eq!(rig.bus().mmio_read(GuestAddr(0x4000_0012), 2), 1);
    // BAR 1 over BAR 4: the lower BAR answers, also right after the other was used.
    rig.config_write(4, 0x14, 4, 0x4000_0000);
    assert_eq!(rig.bus().mmio_read(GuestAddr(0x4000_1000), 1), 0, "ISR, uncovered");
    assert_eq!(rig.bus().mmio_read(GuestAddr(0x4000_000c), 4), 1, "vector 0 is masked");
    // Over RAM: RAM answers.
    rig.config_write(4, 0x14, 4, 0x1000);
    rig.bus().mmio_write(GuestAddr(0x1004), 8, 0x1122_3344_5566_7788);
    assert_eq!(rig.bytes(0x1004, 2), [0x88, 0x77]);
    assert_eq!(rig.bus().mmio_read(GuestAddr(0x1006), 4), 0x3344_5566);
}

#[test]
fn accesses_are_split_where_no_range_holds_them_whole() {
    let mut rig = Rig::new();
    // The last two bytes of the I/O BAR and the two behind it, which nobody answers.
    let end = IO_BASE + LEGACY_BAR_SIZE as u16;
    assert_eq!(rig.bus().pio_read(end - 2, 4), 0xffff_0000);
    assert_eq!(rig.bus().pio_read(end, 1), 0xff);
    assert_eq!(rig.bus().pio_read(0xffff, 2), 0xffff);
    assert_eq!(rig.bus().mmio_read(GuestAddr(RAM_BYTES - 4), 8), 0xffff_ffff_0000_0000);
    rig.bus().mmio_write(GuestAddr(RAM_BYTES - 1), 4, 0x55);
    assert_eq!(rig.byte(RAM_BYTES - 1), 0x55);
    assert_eq!(rig.bus().mmio_read(GuestAddr(u64::MAX), 8) & 0xff, 0xff);
    // Sizes that no CPU makes.
    assert_eq!(rig.bus().mmio_read(GuestAddr(0), 3), u64::MAX);
    assert_eq!(rig.bus().pio_read(0, 8), u32::MAX);
}

#[test]
fn bars_answer_only_when_their_space_is_enabled() {
    let mut rig = Rig::new();
    rig.config_write(4, 4, 2, 6);
    assert_eq!(rig.bus().pio_read(IO_BASE, 4), u32::MAX);
    assert_eq!(rig.read(VIRTIO_PCI_COMMON_NUMQ, 2), 1);
    rig.config_write(4, 4, 2, 5);
    assert_ne!(rig.bus().pio_read(IO_BASE, 4), u32::MAX);
    assert_eq!(rig.read(VIRTIO_PCI_COMMON_NUMQ, 2), 0xffff);
}

#[test]
fn without_bus_mastering_nothing_is_touched_and_with_it_nothing_is_lost() {
    let mut rig = Rig::new();
    let mut ring = rig.start_one(USUAL);
    rig.config_write(4, 4, 2, 3);
    ring.prepare_read(0, 0);
    ring.offer(&[0]);
    rig.kick(&ring);
    assert_eq!(ring.take(), None);
    rig.config_write(4, 4, 2, 7);
    assert_eq!(ring.take(), Some((0, 513)));
}

#[test]
fn features_are_a_subset_and_stand_after_features_ok() {
    let mut rig = Rig::new();
    let offered = rig.features();
    assert_ne!(offered & 1 << VIRTIO_F_VERSION_1, 0);
    assert_eq!(offered & 1 << VIRTIO_F_ANY_LAYOUT, 0, "legacy only");
    let refused = [0, offered & !(1 << VIRTIO_F_VERSION_1), offered | 1 << VIRTIO_F_RING_PACKED];
    for features in refused {
        rig.set_status(0);
        rig.set_status(3);
        rig.set_features(features);
        rig.set_status(11);
        assert_eq!(rig.status(), 3, "{features:#x}");
        rig.set_status(7);
        assert_eq!(rig.status(), 3, "DRIVER_OK needs FEATURES_OK");
    }
    rig.set_features(offered);
    rig.set_status(11);
    assert_eq!(rig.status(), 11);
    rig.set_features(0);
    rig.write(VIRTIO_PCI_COMMON_GFSELECT, 4, 0);
    assert_eq!(rig.read(VIRTIO_PCI_COMMON_GF, 4), offered & 0xffff_ffff);
    rig.write(VIRTIO_PCI_COMMON_GFSELECT, 4, 2);
    rig.write(VIRTIO_PCI_COMMON_GF, 4, 1);
    assert_eq!(rig.read(VIRTIO_PCI_COMMON_GF, 4), 0);
    rig.set_status(0);
    assert_eq!(rig.status(), 0);
    rig.write(VIRTIO_PCI_COMMON_GFSELECT, 4, 0);
    assert_eq!(rig.read(VIRTIO_PCI_COMMON_GF, 4), 0, "reset forgets them");
}

#[test]
fn queue_registers_are_validated_and_stand_while_enabled() {
    let mut rig = Rig::new();
    rig.set_status(3);
    rig.set_features(USUAL);
    rig.set_status(11);
    assert_eq!(rig.read(VIRTIO_PCI_COMMON_Q_SIZE, 2), 256);
    for size in [0, 3, 512, 0xffff] {
        rig.write(VIRTIO_PCI_COMMON_Q_SIZE, 2, size);
        assert_eq!(rig.read(VIRTIO_PCI_COMMON_Q_SIZE, 2), 256, "{size}");
    }
    rig.write(VIRTIO_PCI_COMMON_Q_SIZE, 4, 128);
    assert_eq!(rig.read(VIRTIO_PCI_COMMON_Q_SIZE, 2), 256, "not the field's width");
    let ring = rig.ring(0, 128);
    rig.set_up_queue(&ring);
    rig.write(VIRTIO_PCI_COMMON_Q_SIZE, 2, 64);
    rig.write(VIRTIO_PCI_COMMON_Q_DESCLO, 4, 0);
    rig.write(VIRTIO_PCI_COMMON_Q_ENABLE, 2, 0);
    assert_eq!(rig.read(VIRTIO_PCI_COMMON_Q_SIZE, 2), 128);
    assert_eq!(rig.read(VIRTIO_PCI_COMMON_Q_DESCLO, 8), ring.desc);
    assert_eq!(rig.read(VIRTIO_PCI_COMMON_Q_ENABLE, 2), 1);
    // A read of two fields at once is both of them.
    assert_eq!(rig.read(VIRTIO_PCI_COMMON_Q_SELECT, 4), 128 << 16);
    // A queue that is not there.
    rig.write(VIRTIO_PCI_COMMON_Q_SELECT, 2, 1);
    assert_eq!(rig.read(VIRTIO_PCI_COMMON_Q_SIZE, 2), 0);
    rig.write(VIRTIO_PCI_COMMON_Q_ENABLE, 2, 1);
    assert_eq!(rig.read(VIRTIO_PCI_COMMON_Q_ENABLE, 2), 0);
}

#[test]
fn no_buffer_is_taken_before_driver_ok() {
    let mut rig = Rig::new();
    rig.set_status(3);
    rig.set_features(USUAL);
    rig.set_status(11);
    let mut ring = rig.ring(0, 64);
    rig.set_up_queue(&ring);
    ring.prepare_read(0, 0);
    ring.offer(&[0]);
    rig.kick(&ring);
    assert_eq!(ring.take(), None);
    rig.set_status(15);
    assert_eq!(ring.take(), Some((0, 513)), "what was offered early is taken at the start");
}

#[test]
fn the_configuration_access_capability_reaches_the_bars() {
    let mut rig = Rig::new();
    let mut at = capability(&mut rig, 9);
    while rig.config_read(4, at + 3, 1) != 5 {
        at = rig.config_read(4, at + 1, 1);
    }
    // Even with memory decoding off: that is what it is for.
    rig.config_write(4, 4, 2, 4);
    let mut window = |bar: u32, offset: u32, len: u32, write: Option<u32>| {
        rig.config_write(4, at + 4, 1, bar);
        rig.config_write(4, at + 8, 4, offset);
        rig.config_write(4, at + 12, 4, len);
        if let Some(value) = write {
            rig.config_write(4, at + 16, 4, value);
        }
        rig.config_read(4, at + 16, 4)
    };
    assert_eq!(window(4, 0x12, 2, None), 1, "num_queues");
    assert_eq!(window(4, 0x14, 1, Some(1)), 1, "status ACKNOWLEDGE");
    assert_eq!(window(0, 0x12, 1, None), 1, "the same through the legacy BAR");
    let kept = window(4, 0x12, 2, None);
    for (bar, offset, len) in [(3, 0, 4), (4, 0x4000, 4), (4, 1, 2), (4, 0, 8), (9, 0, 4)] {
        assert_eq!(window(bar, offset, len, None), kept, "invalid: nothing happens");
    }
}

#[test]
fn a_modern_function_has_no_legacy_interface() {
    let mut rig = Rig::with(|disk| disk.personality = Personality::Modern);
    assert_eq!(rig.config_read(4, 0, 4), 0x1042_1af4);
    assert_eq!(rig.config_read(4, 8, 1), 1);
    assert_eq!(rig.config_read(4, 0x10, 4), 0);
    assert_eq!(rig.bus().pio_read(IO_BASE, 4), u32::MAX);
    let mut ring = rig.start_one(USUAL);
    assert_eq!(rig.request(&mut ring, VIRTIO_BLK_T_IN, 0, &[], 512).0, 0);
}

#[test]
fn legacy_bring_up_by_port_io() {
    let mut rig = Rig::new();
    let io = |field: u64| IO_BASE + field as u16;
    rig.bus().pio_write(io(VIRTIO_PCI_STATUS), 1, 0);
    rig.bus().pio_write(io(VIRTIO_PCI_STATUS), 1, 3);
    let offered = rig.bus().pio_read(io(VIRTIO_PCI_HOST_FEATURES), 4);
    assert_ne!(offered & 1 << VIRTIO_F_ANY_LAYOUT, 0);
    rig.bus().pio_write(io(VIRTIO_PCI_GUEST_FEATURES), 4, u32::MAX);
    assert_eq!(rig.bus().pio_read(io(VIRTIO_PCI_GUEST_FEATURES), 4), offered);
    rig.bus().pio_write(io(VIRTIO_PCI_GUEST_FEATURES), 4, 1 << VIRTIO_BLK_F_FLUSH);
    rig.bus().pio_write(io(VIRTIO_PCI_QUEUE_SEL), 2, 0);
    rig.bus().pio_write(io(VIRTIO_PCI_QUEUE_NUM), 2, 64);
    assert_eq!(rig.bus().pio_read(io(VIRTIO_PCI_QUEUE_NUM), 2), 256, "read only");
    // Size 256: descriptors 4096 bytes, available ring 518, used ring on the next page.
    let mut ring = Ring { desc: 0x5_0000, avail: 0x5_1000, used: 0x5_2000, ..rig.ring(0, 256) };
    rig.ram.write(GuestAddr(0x5_0000), &[0; 0x4000]);
    rig.bus().pio_write(io(VIRTIO_PCI_QUEUE_PFN), 4, 0x50);
    assert_eq!(rig.bus().pio_read(io(VIRTIO_PCI_QUEUE_PFN), 4), 0x50);
    rig.bus().pio_write(io(VIRTIO_PCI_STATUS), 1, 7);
    assert_eq!(rig.bus().pio_read(io(VIRTIO_PCI_STATUS), 1), 7);
    assert_eq!(rig.bus().pio_read(io(0x14), 4), 1024, "capacity behind the header");
    ring.prepare_read(0, 5);
    ring.offer(&[0]);
    rig.bus().pio_write(io(VIRTIO_PCI_QUEUE_NOTIFY), 2, 0);
    assert_eq!(ring.take(), Some((0, 513)));
    assert_eq!(rig.bytes(DATA, 512), rig.image.bytes(5 * 512, 512));
    assert!(rig.machine.interrupts().unwrap().intx_level(INTX));
    // A 32-bit read of the last queue fields takes ISR with it, and clears it.
    assert_eq!(rig.bus().pio_read(io(VIRTIO_PCI_QUEUE_NOTIFY), 4), 0x0107_0000);
    assert!(!rig.machine.interrupts().unwrap().intx_level(INTX));
    // MSI-X puts its vectors in and shifts the configuration by 4.
    let msix = capability(&mut rig, 0x11);
    rig.config_write(4, msix + 2, 2, 0x8000);
    assert_eq!(rig.bus().pio_read(io(0x18), 4), 1024);
    rig.bus().pio_write(io(VIRTIO_MSI_QUEUE_VECTOR), 2, 1);
    assert_eq!(rig.bus().pio_read(io(VIRTIO_MSI_QUEUE_VECTOR), 2), 1);
    rig.bus().pio_write(io(VIRTIO_MSI_CONFIG_VECTOR), 2, 2);
    assert_eq!(rig.bus().pio_read(io(VIRTIO_MSI_CONFIG_VECTOR), 2), 0xffff);
    // Page 0 takes the queue away.
    rig.bus().pio_write(io(VIRTIO_PCI_QUEUE_PFN), 4, 0);
    ring.offer(&[0]);
    rig.bus().pio_write(io(VIRTIO_PCI_QUEUE_NOTIFY), 2, 0);
    assert_eq!(ring.take(), None);
}

#[test]
fn configurations_that_make_no_machine_are_usage_errors() {
    let spoil: [fn(&mut BuiltinConfig); 8] = [
        |c| c.ram_bytes = 0,
        |c| c.ram_bytes = 0xb000_0001,
        |c| c.disks = vec![c.disks[0].clone(); 29],
        |c| c.disks[0].queues = 0,
        |c| c.disks[0].queue_size = 100,
        |c| c.disks[0].block_bytes = 100,
        |c| c.disks[0].aio_depth = 1 << 20,
        |c| {
            c.clock = std::sync::Arc::new(crate::base::VirtualClock::new());
            c.disks[0].iothread = true;
        },
    ];
    for (index, spoil) in spoil.into_iter().enumerate() {
        let image = std::sync::Arc::new(TestImage::new(8, false));
        let mut config =
            BuiltinConfig { disks: vec![DiskConfig::new(image)], ..Default::default() };
        spoil(&mut config);
        let error = BuiltinMachine::new(config).err().expect("an error");
        assert_eq!(error.kind(), crate::base::ErrorKind::Usage, "{index}");
    }
}
