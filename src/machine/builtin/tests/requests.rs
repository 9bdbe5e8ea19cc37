//! Every request type, and every answer to a request that is well-formed but wrong.

use super::rig::*;
use virtio_bindings::virtio_blk::*;
use virtio_bindings::virtio_config::*;

use crate::base::GuestAddr;
use crate::machine::builtin::devices::virtio_blk::bits::*;
use crate::machine::builtin::devices::virtio_pci::bits::MODERN_DEVICE;

const OK: u8 = VIRTIO_BLK_S_OK as u8;
const IOERR: u8 = VIRTIO_BLK_S_IOERR as u8;
const UNSUPP: u8 = VIRTIO_BLK_S_UNSUPP as u8;

#[test]
fn reads_and_writes_reach_the_image() {
    let mut rig = Rig::new();
    let mut ring = rig.start_one(USUAL);
    let (status, len, data) = rig.request(&mut ring, VIRTIO_BLK_T_IN, 7, &[], 1024);
    assert_eq!((status, len), (OK, 1025));
    assert_eq!(data, rig.image.bytes(7 * 512, 1024));
    let new: Vec<u8> = (0..1536).map(|i| (i % 251) as u8).collect();
    let (status, len, _) = rig.request(&mut ring, VIRTIO_BLK_T_OUT, 1021, &new, 0);
    assert_eq!((status, len), (OK, 1));
    assert_eq!(rig.image.bytes(1021 * 512, 1536), new);
    assert_eq!(rig.image.flushes(), 0, "writeback was negotiated with FLUSH");
    assert_eq!(rig.request(&mut ring, VIRTIO_BLK_T_FLUSH, 0, &[], 0).0, OK);
    assert_eq!(rig.image.flushes(), 1);
}

/// What it is; type, sector, data out, bytes in; the status it gets.
type Case<'a> = (&'a str, u32, u64, &'a [u8], u32, u8);

#[test]
fn wrong_requests_get_their_status_and_change_nothing() {
    let mut rig = Rig::new();
    let mut ring = rig.start_one(USUAL);
    let before = rig.image.bytes(0, 1024 * 512);
    let long = range_bytes(0, RANGE_SECTORS_MAX + 1, 0);
    let good_then_bad = [range_bytes(0, 8, 0), range_bytes(1020, 5, 0)].concat();
    let many = range_bytes(0, 1, 0).repeat(RANGES_MAX + 1);
    let cases: &[Case<'_>] = &[
        ("read past the end", VIRTIO_BLK_T_IN, 1023, &[], 1024, IOERR),
        ("read at an overflowing sector", VIRTIO_BLK_T_IN, u64::MAX, &[], 512, IOERR),
        ("read at an overflowing byte", VIRTIO_BLK_T_IN, 1 << 55, &[], 512, IOERR),
        ("read of half a sector", VIRTIO_BLK_T_IN, 0, &[], 256, IOERR),
        ("write past the end", VIRTIO_BLK_T_OUT, 1024, &[1; 512], 0, IOERR),
        ("write of 513 bytes", VIRTIO_BLK_T_OUT, 0, &[1; 513], 0, IOERR),
        ("unknown type", 77, 0, &[1; 512], 0, UNSUPP),
        ("scsi command", VIRTIO_BLK_T_SCSI_CMD, 0, &[1; 512], 0, UNSUPP),
        ("secure erase", VIRTIO_BLK_T_SECURE_ERASE, 0, &[0; 16], 0, UNSUPP),
        ("discard with unmap", VIRTIO_BLK_T_DISCARD, 0, &range_bytes(0, 1, 1), 0, UNSUPP),
        ("discard, reserved flag", VIRTIO_BLK_T_DISCARD, 0, &range_bytes(0, 1, 2), 0, UNSUPP),
        ("zeroes, reserved flag", VIRTIO_BLK_T_WRITE_ZEROES, 0, &range_bytes(0, 1, 3), 0, UNSUPP),
        ("discard of no range", VIRTIO_BLK_T_DISCARD, 0, &[], 0, IOERR),
        ("discard of half a range", VIRTIO_BLK_T_DISCARD, 0, &[0; 24], 0, IOERR),
        ("discard too long", VIRTIO_BLK_T_DISCARD, 0, &long, 0, IOERR),
        ("too many ranges", VIRTIO_BLK_T_DISCARD, 0, &many, 0, IOERR),
        ("zeroes: one bad range", VIRTIO_BLK_T_WRITE_ZEROES, 0, &good_then_bad, 0, IOERR),
    ];
    for (what, kind, sector, out, into, want) in cases {
        let (status, len, _) = rig.request(&mut ring, *kind, *sector, out, *into);
        assert_eq!((status, len), (*want, 1), "{what}");
    }
    assert_eq!(rig.image.bytes(0, 1024 * 512), before);
    assert_eq!(rig.image.log(), [""; 0]);
    assert_eq!(rig.status(), 15, "none of this needs a reset");
}

#[test]
fn discard_and_write_zeroes_take_several_ranges() {
    let mut rig = Rig::new();
    let mut ring = rig.start_one(USUAL);
    let ranges = [range_bytes(8, 8, 0), range_bytes(0, 0, 0), range_bytes(1023, 1, 0)].concat();
    assert_eq!(rig.request(&mut ring, VIRTIO_BLK_T_DISCARD, 0, &ranges, 0).0, OK);
    let ranges = [range_bytes(16, 1, 1), range_bytes(17, 2, 0)].concat();
    assert_eq!(rig.request(&mut ring, VIRTIO_BLK_T_WRITE_ZEROES, 0, &ranges, 0).0, OK);
    let want = ["discard 4096+4096", "discard 523776+512", "unmap 8192+512", "zero 8704+1024"];
    assert_eq!(rig.image.log(), want);
}

#[test]
fn requests_not_negotiated_are_unsupported() {
    let mut rig = Rig::new();
    let mut ring = rig.start_one(1 << VIRTIO_F_VERSION_1);
    let range = range_bytes(0, 1, 0);
    for kind in [VIRTIO_BLK_T_DISCARD, VIRTIO_BLK_T_WRITE_ZEROES] {
        assert_eq!(rig.request(&mut ring, kind, 0, &range, 0).0, UNSUPP);
    }
}

#[test]
fn get_id_fills_what_fits() {
    let mut rig = Rig::new();
    let mut ring = rig.start_one(USUAL);
    let want = b"serial-0123456789-an";
    for (into, filled) in [(20, 20), (5, 5), (64, 20)] {
        rig.ram.write(GuestAddr(DATA), &[0xee; 64]);
        let (status, len, data) = rig.request(&mut ring, VIRTIO_BLK_T_GET_ID, 0, &[], into);
        assert_eq!((status, len), (OK, filled as u32 + 1));
        assert_eq!(&data[..filled], &want[..filled]);
        assert!(data[filled..].iter().all(|b| *b == 0xee));
    }
}

#[test]
fn image_errors_are_ioerr() {
    let mut rig = Rig::new();
    let mut ring = rig.start_one(USUAL);
    rig.image.0.fail.store(true, std::sync::atomic::Ordering::SeqCst);
    assert_eq!(rig.request(&mut ring, VIRTIO_BLK_T_IN, 0, &[], 512).0, IOERR);
    assert_eq!(rig.request(&mut ring, VIRTIO_BLK_T_OUT, 0, &[1; 512], 0).0, IOERR);
    assert_eq!(rig.request(&mut ring, VIRTIO_BLK_T_FLUSH, 0, &[], 0).0, IOERR);
    let range = range_bytes(0, 1, 0);
    assert_eq!(rig.request(&mut ring, VIRTIO_BLK_T_DISCARD, 0, &range, 0).0, IOERR);
}

#[test]
fn a_read_only_disk_refuses_every_change() {
    let mut rig = Rig::with(|disk| disk.read_only = true);
    assert_ne!(rig.features() & 1 << VIRTIO_BLK_F_RO, 0);
    let mut ring = rig.start_one(1 << VIRTIO_F_VERSION_1 | 1 << VIRTIO_BLK_F_RO);
    let range = range_bytes(0, 1, 0);
    assert_eq!(rig.request(&mut ring, VIRTIO_BLK_T_OUT, 0, &[1; 512], 0).0, IOERR);
    assert_eq!(rig.request(&mut ring, VIRTIO_BLK_T_DISCARD, 0, &range, 0).0, IOERR);
    assert_eq!(rig.request(&mut ring, VIRTIO_BLK_T_WRITE_ZEROES, 0, &range, 0).0, IOERR);
    assert_eq!(rig.request(&mut ring, VIRTIO_BLK_T_IN, 0, &[], 512).0, OK);
}

#[test]
fn a_logical_block_is_the_least_unit() {
    let mut rig = Rig::with(|disk| disk.block_bytes = 4096);
    let mut ring = rig.start_one(USUAL);
    assert_eq!(rig.read(MODERN_DEVICE + CONFIG_BLK_SIZE as u64, 4), 4096);
    assert_eq!(rig.request(&mut ring, VIRTIO_BLK_T_IN, 8, &[], 4096).0, OK);
    assert_eq!(rig.request(&mut ring, VIRTIO_BLK_T_IN, 8, &[], 512).0, IOERR);
    assert_eq!(rig.request(&mut ring, VIRTIO_BLK_T_IN, 1, &[], 4096).0, IOERR);
}

#[test]
fn a_write_through_cache_flushes_every_change() {
    let wce = 1 << VIRTIO_BLK_F_CONFIG_WCE;
    // Without FLUSH there is no way to ask, so nothing may stay in a cache.
    let mut rig = Rig::new();
    let mut ring = rig.start_one(USUAL & !(1 << VIRTIO_BLK_F_FLUSH));
    rig.request(&mut ring, VIRTIO_BLK_T_OUT, 0, &[1; 512], 0);
    assert_eq!(rig.image.flushes(), 1);
    // With CONFIG_WCE the register decides; turning the cache off flushes it.
    let mut ring = rig.start_one(USUAL | wce);
    rig.request(&mut ring, VIRTIO_BLK_T_OUT, 0, &[2; 512], 0);
    assert_eq!(rig.image.flushes(), 1);
    rig.write(MODERN_DEVICE + CONFIG_WRITEBACK as u64, 1, 0);
    assert_eq!(rig.image.flushes(), 2);
    rig.request(&mut ring, VIRTIO_BLK_T_OUT, 0, &[3; 512], 0);
    rig.request(&mut ring, VIRTIO_BLK_T_WRITE_ZEROES, 0, &range_bytes(0, 1, 0), 0);
    assert_eq!(rig.image.flushes(), 4);
    // Reset puts writeback back.
    rig.set_status(0);
    assert_eq!(rig.read(MODERN_DEVICE + CONFIG_WRITEBACK as u64, 1), 1);
}

#[test]
fn any_layout_of_header_data_and_status_works() {
    let mut rig = Rig::new();
    let mut ring = rig.start_one(USUAL);
    let data: Vec<u8> = (0..512).map(|i| (i * 7) as u8).collect();
    // Header in three pieces, the last of which also begins the data; an empty descriptor.
    let out = [header_bytes(VIRTIO_BLK_T_OUT, 3), data.clone()].concat();
    rig.ram.write(GuestAddr(DATA), &out);
    ring.describe(5, DATA, 3, NEXT, 9);
    ring.describe(9, DATA + 3, 12, NEXT, 1);
    ring.describe(1, DATA, 0, NEXT, 2);
    ring.describe(2, DATA + 15, 300, NEXT, 3);
    ring.describe(3, DATA + 315, 213, NEXT, 4);
    ring.describe(4, STATUS, 1, WRITE, 0);
    ring.offer(&[5]);
    rig.kick(&ring);
    assert_eq!(ring.take(), Some((5, 1)));
    assert_eq!(rig.image.bytes(3 * 512, 512), data);
    // Read: data split oddly, the status the last byte of a data buffer.
    rig.ram.write(GuestAddr(HEADER), &header_bytes(VIRTIO_BLK_T_IN, 3));
    rig.ram.write(GuestAddr(DATA), &[0; 1024]);
    ring.describe(0, HEADER, 16, NEXT, 1);
    ring.describe(1, DATA + 100, 100, NEXT | WRITE, 2);
    ring.describe(2, DATA + 200, 413, WRITE, 0);
    ring.offer(&[0]);
    rig.kick(&ring);
    assert_eq!(ring.take(), Some((0, 513)));
    assert_eq!(rig.bytes(DATA + 100, 512), data);
    assert_eq!(rig.byte(DATA + 612), OK);
    assert_eq!(rig.byte(DATA + 613), 0);
}

#[test]
fn config_space_tells_the_shape() {
    let mut rig = Rig::with(|disk| (disk.queues, disk.queue_size) = (3, 128));
    let field = |rig: &mut Rig, at: usize, size| rig.read(MODERN_DEVICE + at as u64, size);
    assert_eq!(field(&mut rig, CONFIG_CAPACITY, 8), 1024);
    assert_eq!(field(&mut rig, CONFIG_SEG_MAX, 4), 126);
    assert_eq!(field(&mut rig, CONFIG_NUM_QUEUES, 2), 3);
    assert_eq!(field(&mut rig, CONFIG_MAX_DISCARD_SEG, 4), 256);
    assert_eq!(field(&mut rig, CONFIG_WRITE_ZEROES_MAY_UNMAP, 1), 1);
    rig.write(MODERN_DEVICE, 8, 0);
    assert_eq!(field(&mut rig, CONFIG_CAPACITY, 8), 1024, "read only");
    assert_eq!(field(&mut rig, 0xffc, 4), 0);
}
