use super::*;
use crate::base::{BlockOp, BusAccess, BusSpace, ErrorKind};
use crate::import::testing::{import_bytes, import_with, losses};
use crate::trace::NotRecorded;

/// A file as QEMU writes it.
struct Writer {
    order: Order,
    bytes: Vec<u8>,
}

impl Writer {
    fn new(order: Order, version: u64) -> Self {
        let mut file = Self { order, bytes: Vec::new() };
        file.words(&[HEADER_ID, HEADER_MAGIC, version]);
        file
    }

    fn words(&mut self, words: &[u64]) -> &mut Self {
        for word in words {
            match self.order {
                Order::Little => self.bytes.extend(word.to_le_bytes()),
                Order::Big => self.bytes.extend(word.to_be_bytes()),
            }
        }
        self
    }

    fn half(&mut self, half: u32) -> &mut Self {
        match self.order {
            Order::Little => self.bytes.extend(half.to_le_bytes()),
            Order::Big => self.bytes.extend(half.to_be_bytes()),
        }
        self
    }

    fn text(&mut self, text: &str) -> &mut Self {
        self.half(text.len() as u32).bytes.extend(text.as_bytes());
        self
    }

    fn name(&mut self, id: u64, name: &str) -> &mut Self {
        self.words(&[MAPPING, id]).text(name)
    }

    /// An event with numbers, and a string behind them where there is one.
    fn event(&mut self, id: u64, time: u64, numbers: &[u64], text: Option<&str>) -> &mut Self {
        let len = EVENT_BYTES + numbers.len() * 8 + text.map_or(0, |text| text.len() + 4);
        self.words(&[EVENT, id, time]).half(len as u32).half(4711).words(numbers);
        if let Some(text) = text {
            self.text(text);
        }
        self
    }
}

const READ: u64 = 10;
const DONE: u64 = 11;
const BUS_WRITE: u64 = 12;
const OTHER: u64 = 13;

fn named(order: Order) -> Writer {
    let mut file = Writer::new(order, VERSION);
    file.name(READ, "virtio_blk_handle_read")
        .name(DONE, "virtio_blk_req_complete")
        .name(BUS_WRITE, "memory_region_ops_write")
        .name(OTHER, "virtqueue_pop");
    file
}

#[test]
fn both_kinds_of_events_in_both_orders() {
    for order in [Order::Little, Order::Big] {
        let mut file = named(order);
        file.event(OTHER, 900, &[1, 2], None)
            .event(READ, 1000, &[1, 0xa, 8, 2], None)
            .event(BUS_WRITE, 1001, &[0, 5, 0x70, 0x18f, 1], Some("rtc-index"))
            .event(BUS_WRITE, 1002, &[u64::MAX, 5, 0xfee0_0000, 0, 4], Some("apic-msi"))
            .event(DONE, 1003, &[1, 0xa, 0], None)
            .event(DROPPED_ID, 1004, &[17], None);
        let (report, out) = import_bytes(&file.bytes).unwrap();
        assert_eq!(report.format, "qemu-simple");
        assert_eq!(out.issues_brief(), [(0, BlockOp::Read, 4096, 1024)]);
        assert_eq!(out.completes(), [(0, 3, 0)]);
        let access =
            BusAccess { space: BusSpace::Pio, write: true, addr: 0x70, size: 1, value: 0x8f };
        assert_eq!(out.accesses(), [("rtc-index", 1, access)]);
        assert_eq!(out.header.unwrap().origin_unix_ns, None);
        let lost: Vec<_> = losses(&report).iter().map(|loss| (loss.0, loss.1)).collect();
        assert_eq!(
            lost,
            [
                ("other event: virtqueue_pop", 1),
                ("access made by a device, not by a vCPU (cpu -1)", 1),
                ("event dropped by QEMU: its trace buffer was full", 17),
            ]
        );
        assert!(report.cut.is_none());
        assert!(!report.summary.not_recorded.contains(NotRecorded::TIMES));
    }
}

#[test]
fn versions_without_names_are_refused_with_the_way_out() {
    for version in [0, 2, 3] {
        let mut file = Writer::new(Order::Little, version);
        file.words(&[0; 64]);
        let error = import_bytes(&file.bytes).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Input);
        assert!(error.to_string().contains(&format!("version {version}")), "{error}");
        assert!(error.hint_text().unwrap().contains("simpletrace.py"));
    }
    let error = import_bytes(&Writer::new(Order::Little, 5).bytes).unwrap_err();
    assert!(error.to_string().contains("version 5 of QEMU's simple trace is not known"));
}

#[test]
fn damaged_files_are_read_to_the_damage() {
    let mut good = named(Order::Little);
    good.event(READ, 1000, &[1, 0xa, 8, 2], None);
    let whole = good.bytes.len();
    let at = |what: &str| format!("{what} (offset {whole} ({whole:#x}))");
    let import = |bytes: &[u8]| import_bytes(bytes).unwrap().0;
    let with = |add: &dyn Fn(&mut Writer)| {
        let mut file = Writer { order: Order::Little, bytes: good.bytes.clone() };
        add(&mut file);
        import(&file.bytes)
    };
    let cut = with(&|file| {
        file.event(READ, 1001, &[1, 0xa, 8, 2], None).bytes.pop();
    });
    assert_eq!(cut.cut, Some(at("input ends inside a record")));
    assert_eq!(cut.ops.requests(), 1);
    let unknown = with(&|file| {
        file.words(&[7, 7, 7]);
    });
    assert_eq!(unknown.cut, Some(at("record of an unknown type: the rest cannot be read")));
    for len in [EVENT_BYTES as u32 - 1, u32::MAX] {
        let long = with(&|file| {
            file.words(&[EVENT, READ, 5]).half(len).half(0);
        });
        assert_eq!(long.cut, Some(at("record of impossible length: the rest cannot be read")));
    }
    let name = with(&|file| {
        file.words(&[MAPPING, 5]).half(1 << 20);
    });
    assert_eq!(name.cut, Some(at("name of impossible length: the rest cannot be read")));
    // What is whole and says nothing is passed over.
    let odd = with(&|file| {
        file.event(99, 1001, &[1], None).event(READ, 1002, &[1, 2], None).event(
            READ,
            1003,
            &[1, 0xb, 0, 1],
            None,
        );
    });
    assert_eq!((odd.ops.requests(), odd.cut.is_none()), (2, true));
    let lost: Vec<_> = losses(&odd).iter().map(|loss| (loss.0, loss.1)).collect();
    assert_eq!(
        lost,
        [
            ("event whose id has no name", 1),
            ("event with other arguments than any known version's", 1)
        ]
    );
    let options = ImportOptions { from: Some("qemu-simple".into()), ..ImportOptions::default() };
    let error = import_with(b"no header at all, but long enough", &options).unwrap_err();
    assert!(error.to_string().contains("no header"), "{error}");
}
