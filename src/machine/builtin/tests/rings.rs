//! Ring mechanics: suppression in both directions, wrap-around, indirect tables, several queues,
//! and the interrupts that come of it.

use super::rig::*;
use virtio_bindings::virtio_blk::*;
use virtio_bindings::virtio_config::*;
use virtio_bindings::virtio_ring::*;

use crate::base::GuestAddr;
use crate::machine::IrqSource;
use crate::machine::builtin::devices::virtio_pci::bits::*;
use crate::machine::builtin::*;

const EVENT_IDX: u64 = USUAL | 1 << VIRTIO_RING_F_EVENT_IDX;

/// Puts one read on the ring and rings.
fn one_read(rig: &mut Rig, ring: &mut Ring) {
    ring.offer(&[0]);
    rig.kick(ring);
    assert_eq!(ring.take(), Some((0, 513)));
}

fn line(rig: &mut Rig) -> bool {
    rig.machine.interrupts().unwrap().intx_level(INTX)
}

#[test]
fn intx_is_level_and_reading_isr_lowers_it() {
    let mut rig = Rig::new();
    let mut ring = rig.start_one(USUAL);
    let event = rig.machine.interrupts().unwrap().watch(IrqSource::Intx(INTX)).unwrap();
    ring.prepare_read(0, 0);
    one_read(&mut rig, &mut ring);
    one_read(&mut rig, &mut ring);
    assert_eq!((event.take(), line(&mut rig)), (1, true), "one edge while the level stays");
    assert_ne!(rig.config_read(4, 6, 2) & 8, 0, "interrupt status");
    assert_eq!(rig.read(MODERN_ISR, 1), 1);
    assert_eq!((rig.read(MODERN_ISR, 1), line(&mut rig)), (0, false));
    assert_eq!(rig.config_read(4, 6, 2) & 8, 0);
    one_read(&mut rig, &mut ring);
    assert_eq!(event.take(), 1);
    // The command register holds the pin down, not the status.
    rig.config_write(4, 4, 2, 0x407);
    assert!(!line(&mut rig));
    assert_ne!(rig.config_read(4, 6, 2) & 8, 0);
    rig.config_write(4, 4, 2, 7);
    assert!(line(&mut rig));
    rig.set_status(0);
    assert!(!line(&mut rig), "reset");
}

#[test]
fn no_interrupt_flag_is_honoured() {
    let mut rig = Rig::new();
    let mut ring = rig.start_one(USUAL);
    ring.prepare_read(0, 0);
    rig.ram.store_u16(GuestAddr(ring.avail), VRING_AVAIL_F_NO_INTERRUPT as u16);
    one_read(&mut rig, &mut ring);
    assert!(!line(&mut rig));
    rig.ram.store_u16(GuestAddr(ring.avail), 0);
    one_read(&mut rig, &mut ring);
    assert!(line(&mut rig));
}

#[test]
fn event_idx_interrupts_exactly_when_the_index_passes_the_event() {
    let mut rig = Rig::new();
    let mut ring = rig.start_one(EVENT_IDX);
    ring.prepare_read(0, 0);
    // With EVENT_IDX the flag says nothing (virtio 1.2 §2.7.7.1).
    rig.ram.store_u16(GuestAddr(ring.avail), VRING_AVAIL_F_NO_INTERRUPT as u16);
    let mut fired = 0u32;
    // Around the 16-bit wrap twice: every index, a batch of 1 to 5, an event at a known distance.
    let mut step = 0u16;
    while fired < 3 * 65536 / 4 {
        let batch = 1 + step % 5;
        let ahead = step % 7;
        let used = ring.used_index();
        ring.set_used_event(used.wrapping_add(ahead));
        ring.offer(&[0u16; 5][..usize::from(batch)]);
        rig.kick(&ring);
        assert_eq!(ring.used_index(), used.wrapping_add(batch));
        ring.taken = ring.used_index();
        // Passing means: the entry at the event's index was among those published.
        assert_eq!(rig.read(MODERN_ISR, 1) == 1, ahead < batch, "at {used}: {batch} {ahead}");
        assert_eq!(ring.avail_event(), ring.offered, "asks to be rung for the very next chain");
        fired += u32::from(batch);
        step = step.wrapping_add(1);
    }
}

#[test]
fn indirect_tables_work_behind_direct_descriptors_too() {
    let mut rig = Rig::new();
    let mut ring = rig.start_one(USUAL);
    rig.ram.write(GuestAddr(HEADER), &header_bytes(VIRTIO_BLK_T_IN, 9));
    // The table stands at an odd address and its order is not that of its entries.
    let table = TABLE + 1;
    describe(&rig.ram, table, HEADER, 16, NEXT, 2);
    describe(&rig.ram, table + 32, DATA, 1024, NEXT | WRITE, 1);
    describe(&rig.ram, table + 16, STATUS, 1, WRITE, 0);
    ring.describe(3, table, 48, INDIRECT | WRITE, 0);
    ring.offer(&[3]);
    rig.kick(&ring);
    assert_eq!(ring.take(), Some((3, 1025)), "WRITE on the table's descriptor is ignored");
    assert_eq!(rig.bytes(DATA, 1024), rig.image.bytes(9 * 512, 1024));

    describe(&rig.ram, TABLE, DATA, 512, NEXT | WRITE, 1);
    describe(&rig.ram, TABLE + 16, STATUS, 1, WRITE, 0);
    ring.describe(0, HEADER, 16, NEXT, 1);
    ring.describe(1, TABLE, 32, INDIRECT, 0);
    ring.offer(&[0]);
    rig.kick(&ring);
    assert_eq!(ring.take(), Some((0, 513)));
}

#[test]
fn queues_are_independent_and_have_their_vectors() {
    let mut rig = Rig::with(|disk| disk.queues = 3);
    let features = USUAL | 1 << VIRTIO_BLK_F_MQ;
    let mut rings = rig.start(features, 3, 16);
    let events: Vec<_> = (0..4u32)
        .map(|v| {
            for (word, value) in [(0, 0xfee0_0000), (4, 0), (8, 0x40 + v), (12, 0)] {
                let at = MSIX_BASE + 16 * u64::from(v) + word;
                rig.bus().mmio_write(GuestAddr(at), 4, value.into());
            }
            let source = IrqSource::Msi { addr: 0xfee0_0000, data: 0x40 + v };
            rig.machine.interrupts().unwrap().watch(source).unwrap()
        })
        .collect();
    let taken = |want: [u64; 4]| {
        let got: Vec<u64> = events.iter().map(|event| event.take()).collect();
        assert_eq!(got, want);
    };
    let msix = capability(&mut rig, 0x11);
    rig.config_write(4, msix + 2, 2, 0x8000);
    for (queue, vector) in [(0, 1), (1, 2), (2, 2)] {
        rig.write(VIRTIO_PCI_COMMON_Q_SELECT, 2, queue);
        rig.write(VIRTIO_PCI_COMMON_Q_MSIX, 2, vector);
        assert_eq!(rig.read(VIRTIO_PCI_COMMON_Q_MSIX, 2), vector);
    }
    rig.write(VIRTIO_PCI_COMMON_MSIX, 2, 3);
    for ring in &mut rings {
        ring.prepare_read(0, 0);
        one_read(&mut rig, ring);
    }
    taken([0, 1, 2, 0]);
    assert_eq!(rings[0].used_index(), 1);
    // Masked: pending, and delivered at unmask. The pin stays out of it.
    rig.bus().mmio_write(GuestAddr(MSIX_BASE + 16 + 12), 4, 1);
    one_read(&mut rig, &mut rings[0]);
    taken([0; 4]);
    assert_eq!(rig.bus().mmio_read(GuestAddr(MSIX_BASE + 64), 8), 2, "pending bit of vector 1");
    rig.bus().mmio_write(GuestAddr(MSIX_BASE + 16 + 12), 4, 0);
    taken([0, 1, 0, 0]);
    assert!(!line(&mut rig));
    // A vector that does not exist is none.
    rig.write(VIRTIO_PCI_COMMON_Q_SELECT, 2, 0);
    rig.write(VIRTIO_PCI_COMMON_Q_MSIX, 2, 4);
    assert_eq!(rig.read(VIRTIO_PCI_COMMON_Q_MSIX, 2), 0xffff);
    one_read(&mut rig, &mut rings[0]);
    taken([0; 4]);
    // A broken ring fires the configuration vector and sets its ISR bit.
    rings[1].offer(&[99]);
    rig.kick(&rings[1]);
    taken([0, 0, 0, 1]);
    assert_eq!(rig.read(MODERN_ISR, 1), 2);
    assert_ne!(rig.status() & VIRTIO_CONFIG_S_NEEDS_RESET, 0);
}

/// The offset of the first capability with this ID.
pub fn capability(rig: &mut Rig, id: u32) -> u32 {
    let mut at = rig.config_read(4, 0x34, 1);
    while at != 0 && rig.config_read(4, at, 1) != id {
        at = rig.config_read(4, at + 1, 1);
    }
    assert_ne!(at, 0, "capability {id:#x}");
    at
}

#[test]
fn a_queue_can_be_reset_by_itself() {
    let mut rig = Rig::with(|disk| disk.queues = 2);
    let features = USUAL | 1 << VIRTIO_BLK_F_MQ | 1 << VIRTIO_F_RING_RESET;
    let mut rings = rig.start(features, 2, 16);
    rings[0].prepare_read(0, 0);
    one_read(&mut rig, &mut rings[0]);
    rig.write(VIRTIO_PCI_COMMON_Q_SELECT, 2, 0);
    rig.write(VIRTIO_PCI_COMMON_Q_RESET, 2, 1);
    assert_eq!(rig.read(VIRTIO_PCI_COMMON_Q_RESET, 2), 0);
    assert_eq!(rig.read(VIRTIO_PCI_COMMON_Q_ENABLE, 2), 0);
    rings[0].offer(&[0]);
    rig.kick(&rings[0]);
    assert_eq!(rings[0].take(), None);
    rings[1].prepare_read(0, 0);
    one_read(&mut rig, &mut rings[1]);
    // Enabled again it starts from nothing, with another size.
    let mut again = rig.ring(0, 8);
    rig.set_up_queue(&again);
    again.prepare_read(0, 0);
    one_read(&mut rig, &mut again);
}
