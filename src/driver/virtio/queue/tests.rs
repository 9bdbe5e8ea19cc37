use super::*;

const BASE: GuestAddr = GuestAddr(1 << 20);

/// A queue and the device's hands on it.
struct Bench {
    ram: Arc<GuestRam>,
    queue: SplitQueue,
    used_idx: u16,
}

impl Bench {
    fn new(size: u16, event_idx: bool) -> Self {
        let ram = Arc::new(GuestRam::new(4 << 20).unwrap());
        let queue = SplitQueue::new(&ram, QueueLayout::new(BASE, size), event_idx).unwrap();
        Self { ram, queue, used_idx: 0 }
    }

    fn avail(&self, word: u64) -> u16 {
        self.ram.load_u16(self.queue.layout.avail + 2 * word)
    }

    fn used(&self, offset: u64) -> GuestAddr {
        self.queue.layout.used + offset
    }

    fn complete(&mut self, id: u32, len: u32) {
        let size = self.queue.size();
        let at = self.used(4 + 8 * u64::from(self.used_idx % size));
        self.ram.write(at, &id.to_le_bytes());
        self.ram.write(at + 4, &len.to_le_bytes());
        self.used_idx = self.used_idx.wrapping_add(1);
        self.ram.store_u16(self.used(2), self.used_idx);
    }

    fn descriptor(&self, index: u16) -> (u64, u32, u16, u16) {
        let mut raw = [0; 16];
        assert!(self.ram.read(self.queue.layout.desc + 16 * u64::from(index), &mut raw));
        let half = |at: usize| u16::from_le_bytes([raw[at], raw[at + 1]]);
        let addr = u64::from_le_bytes(raw[..8].try_into().unwrap());
        (addr, u32::from(half(8)) | u32::from(half(10)) << 16, half(12), half(14))
    }
}

fn chain(count: usize) -> Vec<Descriptor> {
    (0..count as u64).map(|i| Descriptor { addr: 0x1000 * (i + 1), len: 512, flags: 0 }).collect()
}

#[test]
fn the_layout_is_the_legacy_one() {
    // §2.7.2's formula for 256 entries: 4096 + 518, rounded up, then 6 + 2048.
    let layout = QueueLayout::new(GuestAddr(0x10_0000), 256);
    assert_eq!(layout.avail, GuestAddr(0x10_1000));
    assert_eq!(layout.used, GuestAddr(0x10_2000));
    assert_eq!(QueueLayout::bytes(256), 8192 + 6 + 2048);
}

#[test]
fn a_chain_is_linked_and_published_once_a_batch() {
    let mut bench = Bench::new(8, false);
    let mut parts = chain(3);
    parts[2].flags = 2;
    let head = bench.queue.add(&parts).unwrap();
    let second = bench.queue.add(&chain(1)).unwrap();
    assert_eq!(bench.avail(1), 0, "nothing is shown before publish");
    assert!(bench.queue.publish());
    assert_eq!((bench.avail(1), bench.avail(2), bench.avail(3)), (2, head, second));
    let (addr, len, flags, next) = bench.descriptor(head);
    assert_eq!((addr, len, flags), (0x1000, 512, VIRTQ_DESC_F_NEXT));
    let (_, _, flags, last) = bench.descriptor(next);
    assert_eq!(flags, VIRTQ_DESC_F_NEXT);
    assert_eq!((bench.descriptor(last).0, bench.descriptor(last).2), (0x3000, 2));
    assert!(!bench.queue.publish(), "nothing new, nothing to notify");
}

#[test]
fn a_full_ring_is_said_and_room_comes_back() {
    let mut bench = Bench::new(8, false);
    let first = bench.queue.add(&chain(3)).unwrap();
    bench.queue.add(&chain(3)).unwrap();
    assert_eq!(bench.queue.add(&chain(3)), None);
    assert_eq!(bench.queue.add(&[]), None);
    assert_eq!(bench.queue.add(&chain(9)), None);
    bench.queue.publish();
    bench.complete(u32::from(first), 7);
    assert_eq!(bench.queue.pop().unwrap(), Some(Used { head: first, len: 7 }));
    assert_eq!(bench.queue.pop().unwrap(), None);
    assert_eq!((bench.queue.free_descriptors(), bench.queue.in_flight()), (5, 1));
    assert!(bench.queue.add(&chain(5)).is_some());
}

#[test]
fn indices_wrap_past_65536_in_any_order_of_completion() {
    let mut bench = Bench::new(4, true);
    for round in 0..70_000u32 {
        let heads = [bench.queue.add(&chain(2)).unwrap(), bench.queue.add(&chain(1)).unwrap()];
        bench.queue.publish();
        let order = if round % 3 == 0 { [1, 0] } else { [0, 1] };
        for which in order {
            bench.complete(u32::from(heads[which]), round);
        }
        for which in order {
            let used = bench.queue.pop().unwrap().unwrap();
            assert_eq!(used, Used { head: heads[which], len: round });
        }
        assert_eq!(bench.queue.free_descriptors(), 4);
    }
}

#[test]
fn what_is_not_in_flight_is_an_error() {
    for id in [77, 8, 7, u32::MAX, 0x1_0000] {
        let mut bench = Bench::new(8, false);
        let head = bench.queue.add(&chain(2)).unwrap();
        assert_eq!(head, 0);
        bench.queue.publish();
        bench.complete(id, 0);
        let text = bench.queue.pop().unwrap_err().to_string();
        assert_eq!(text, format!("device returned descriptor id {id} which is not in flight"));
    }
}

#[test]
fn neither_a_link_of_a_chain_nor_a_head_twice_is_believed() {
    let mut bench = Bench::new(8, false);
    bench.queue.add(&chain(2)).unwrap();
    bench.queue.add(&chain(2)).unwrap();
    bench.queue.publish();
    bench.complete(1, 0);
    assert!(bench.queue.pop().is_err(), "1 is the second descriptor of the first chain");

    let mut bench = Bench::new(8, false);
    let head = bench.queue.add(&chain(2)).unwrap();
    bench.queue.add(&chain(2)).unwrap();
    bench.queue.publish();
    bench.complete(u32::from(head), 0);
    bench.complete(u32::from(head), 0);
    assert!(bench.queue.pop().unwrap().is_some());
    assert!(bench.queue.pop().is_err());
}

#[test]
fn a_chain_not_yet_published_cannot_come_back() {
    let mut bench = Bench::new(8, false);
    bench.queue.add(&chain(1)).unwrap();
    bench.queue.publish();
    let second = bench.queue.add(&chain(1)).unwrap();
    bench.complete(u32::from(second), 0);
    assert!(bench.queue.pop().is_err());
}

#[test]
fn a_used_index_that_jumps_is_an_error() {
    for idx in [2u16, 9, 0x8000, 0xffff] {
        let mut bench = Bench::new(8, false);
        bench.queue.add(&chain(1)).unwrap();
        bench.queue.publish();
        bench.ram.store_u16(bench.used(2), idx);
        let text = bench.queue.pop().unwrap_err().to_string();
        assert!(text.contains(&format!("from 0 to {idx}")), "{text}");
    }
}

#[test]
fn the_device_cannot_corrupt_our_bookkeeping_through_the_table() {
    let mut bench = Bench::new(8, false);
    let head = bench.queue.add(&chain(4)).unwrap();
    bench.queue.publish();
    bench.ram.write(bench.queue.layout.desc, &[0xff; 128]);
    bench.complete(u32::from(head), 0);
    assert!(bench.queue.pop().unwrap().is_some());
    let head = bench.queue.add(&chain(8)).unwrap();
    let mut at = head;
    for _ in 0..7 {
        at = bench.descriptor(at).3;
        assert!(at < 8);
    }
    assert_eq!(bench.queue.free_descriptors(), 0);
}

#[test]
fn kicks_follow_the_flag_or_the_event_index() {
    let mut bench = Bench::new(8, false);
    bench.ram.store_u16(bench.used(0), VIRTQ_USED_F_NO_NOTIFY);
    bench.queue.add(&chain(1)).unwrap();
    assert!(!bench.queue.publish());
    bench.ram.store_u16(bench.used(0), 0);
    bench.queue.add(&chain(1)).unwrap();
    assert!(bench.queue.publish());

    let mut bench = Bench::new(8, true);
    let avail_event = bench.used(4 + 8 * 8);
    bench.ram.store_u16(bench.used(0), VIRTQ_USED_F_NO_NOTIFY);
    bench.queue.add(&chain(1)).unwrap();
    assert!(bench.queue.publish(), "the flag is ignored with EVENT_IDX");
    bench.ram.store_u16(avail_event, 3);
    for expected in [false, false, true, false] {
        bench.queue.add(&chain(1)).unwrap();
        assert_eq!(bench.queue.publish(), expected);
    }
}

#[test]
fn interrupts_are_asked_for_and_suppressed_as_negotiated() {
    let mut bench = Bench::new(8, false);
    assert_eq!(bench.avail(0), VIRTQ_AVAIL_F_NO_INTERRUPT);
    assert!(bench.queue.request_interrupt());
    assert_eq!(bench.avail(0), 0);
    let head = bench.queue.add(&chain(1)).unwrap();
    bench.queue.publish();
    bench.complete(u32::from(head), 0);
    assert!(!bench.queue.request_interrupt(), "something is there already");

    let mut bench = Bench::new(8, true);
    let used_event = 2 + 8;
    assert_eq!((bench.avail(0), bench.avail(used_event)), (0, EVENT_FAR_AHEAD));
    let head = bench.queue.add(&chain(1)).unwrap();
    bench.queue.publish();
    bench.complete(u32::from(head), 0);
    bench.queue.pop().unwrap();
    assert!(bench.queue.request_interrupt());
    assert_eq!(bench.avail(used_event), 1);
    bench.queue.suppress_interrupts();
    assert_eq!(bench.avail(used_event), 0x8001);
}

#[test]
fn a_silenced_event_index_is_never_passed_by_what_can_be_in_flight() {
    for seen in [0u16, 1, 0x7fff, 0x8000, 0xffff] {
        let event = seen.wrapping_add(EVENT_FAR_AHEAD);
        for step in [1u16, 2, 255, 0x7fff, 0x8000] {
            assert!(!passed(event, seen.wrapping_add(step), seen), "{seen} + {step}");
        }
    }
}

#[test]
fn raw_chains_go_out_as_given_and_come_back_once() {
    let mut bench = Bench::new(8, false);
    let looped = [
        RawDescriptor { addr: 1, len: 2, flags: 0xffff, next: Some(0) },
        RawDescriptor { addr: u64::MAX, len: u32::MAX, flags: 1, next: Some(99) },
    ];
    let head = bench.queue.add_raw(&looped).unwrap();
    assert_eq!(bench.descriptor(head), (1, 2, 0xffff, 0));
    assert_eq!(bench.descriptor(1), (u64::MAX, u32::MAX, 1, 99));
    bench.queue.add_bogus_head(500);
    bench.queue.publish();
    assert_eq!((bench.avail(1), bench.avail(3)), (2, 500));
    bench.complete(u32::from(head), 0);
    assert!(bench.queue.pop().unwrap().is_some());
    assert_eq!(bench.queue.free_descriptors(), 8);
}

#[test]
fn impossible_layouts_are_refused() {
    let ram = Arc::new(GuestRam::new(2 << 20).unwrap());
    for (base, size) in [(BASE, 0), (BASE, 3), (BASE, 0xffff), (GuestAddr(1), 8)] {
        let error = SplitQueue::new(&ram, QueueLayout::new(base, size), false).unwrap_err();
        assert!(error.to_string().contains("laid out"), "{error}");
    }
    let outside = QueueLayout::new(GuestAddr((2 << 20) - 4096), 256);
    assert!(SplitQueue::new(&ram, outside, false).is_err());
}
