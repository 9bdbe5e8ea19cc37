use super::*;
use crate::base::ErrorKind;
use crate::import::testing::{import_bytes, losses, plain_sample};

const HEAD: &str = "VERSION 20070824\nPCIDEV 0040 1b360010 a febf0004 0 0 0 0 0 0 4000 0 0 0 0 0 0 \
                    nvme\n";

#[test]
fn accesses_belong_to_the_bar_that_they_are_in() {
    let text = format!(
        "{HEAD}MAP 69.5 1 0xfebf0000 0xff0 0x2000 0x0 0\nMAP 69.6 2 0xfed00000 0xff0 0x400 0x0 0\n\
         R 4 70.000001 1 0xfebf001c 0x9 0x0 0\nMARK 70.000002 probe begins\n\
         W 8 70.000003 2 0xfed000f0 0x1122334455667788 0x0 0\nUNMAP 71.0 2 0x0 0\n"
    );
    let (report, out) = import_bytes(text.as_bytes()).unwrap();
    assert_eq!(report.format, "mmiotrace");
    let access =
        |write, addr, size, value| BusAccess { space: BusSpace::Mmio, write, addr, size, value };
    assert_eq!(
        out.accesses(),
        [
            ("00:08.0/bar0", 0, access(false, 0xfebf_001c, 4, 9)),
            ("map2@0xfed00000", 2000, access(true, 0xfed0_00f0, 8, 0x1122_3344_5566_7788)),
        ]
    );
    assert_eq!(out.marks(), [(1000, "probe begins".to_owned())]);
    assert_eq!(out.stream_name(&out.events[1]), "mark");
    assert!(report.interpretation.contains(&"pci 00:08.0: 1b36:0010 nvme".to_owned()));
    assert!(report.summary.losses.is_empty() && report.summary.notes.is_empty());
}

#[test]
fn what_the_kernel_lost_or_could_not_read_is_counted() {
    let text = format!(
        "{HEAD}LSPCI 00:00.0 Host bridge\nR 4 70.1 1 0xfebf001c 0x9 0x0 0\n\
         UNKNOWN 70.2 1 0xfebf001c 0f,01,ff 0x0 0\nMARK 0.000000 Lost 1234 events.\n\
         R 3 70.3 1 0xfebf001c 0x9 0x0 0\nW 4 70.0 1 0xfebf001c 0x9 0x0 0\nrw what?\n"
    );
    let (report, out) = import_bytes(text.as_bytes()).unwrap();
    assert_eq!(out.accesses().len(), 2);
    assert_eq!(
        losses(&report),
        [
            ("access that the kernel could not decode (UNKNOWN)", 1, "line 5"),
            ("event lost by the kernel's buffer", 1234, "line 6"),
            ("malformed line", 1, "line 7"),
            ("unknown keyword", 1, "line 9"),
        ]
    );
    assert_eq!(
        report.summary.notes,
        [
            "the kernel's buffer overran: accesses are missing before these lines",
            "1 line of lspci left out",
            "1 time goes back and took that of the event before",
        ]
    );
}

#[test]
fn without_an_access_there_is_nothing() {
    let error = import_bytes(HEAD.as_bytes()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Nothing);
    assert!(error.to_string().ends_with("this mmiotrace trace holds no bus access"), "{error}");
}

#[test]
fn the_real_trace() {
    let Some(data) = plain_sample("traces/mmiotrace/mmiotrace-nvme-virtio.txt") else { return };
    let text = String::from_utf8(data.clone()).unwrap();
    let lines =
        |keyword: &str| text.lines().filter(|line| line.starts_with(keyword)).count() as u64;
    let (report, out) = import_bytes(&data).unwrap();
    let bus = &report.ops.bus;
    assert_eq!((bus.mmio, bus.ports), ([lines("R "), lines("W ")], [0, 0]));
    assert_eq!((bus.mmio, report.ops.marks), ([76, 372], 2));
    assert!(report.summary.losses.is_empty());
    let accesses = out.accesses();
    let of = |name: &str| accesses.iter().filter(|access| access.0 == name).count();
    // The nvme function, and the virtio-blk that was bound anew: its structures and its MSI-X table.
    assert_eq!((of("00:08.0/bar1"), of("00:08.0/bar4"), of("00:09.0/bar0")), (36, 103, 309));
    assert_eq!(accesses.len(), 448);
    assert_eq!(out.marks()[1].1, "qtrace: rebind virtio 0000:00:08.0");
}
