use super::*;
use crate::base::{BlockOp, BusAccess, BusSpace, ErrorKind, OpFlags};
use crate::import::ImportReport;
use crate::import::testing::{Memory, import_bytes, import_with, losses, plain_sample, sample};
use crate::trace::Event;

fn access(space: BusSpace, write: bool, addr: u64, size: u8, value: u64) -> BusAccess {
    BusAccess { space, write, addr, size, value }
}

const RTC: &str =
    "memory_region_ops_write cpu 0 mr 0x1 addr 0x70 value 0x8f size 1 name 'rtc-index'";
const MSI: &str = "memory_region_ops_write cpu -1 mr 0x1 addr 0xfee00000 value 0x0 size 4 name \
                   'apic-msi'";

#[test]
fn regions_are_streams_and_times_begin_at_the_first_access() {
    let text = format!(
        "7@5.000000:blk_co_preadv blk 0x1\n7@5.000100:{RTC}\n8@5.000300:memory_region_ops_read \
         cpu 1 mr 0x2 addr 0xfed000f0 value 0x1122334455 size 4 name 'hpet'\n"
    );
    let (report, out) = import_bytes(text.as_bytes()).unwrap();
    assert_eq!(report.format, "qemu-log");
    assert_eq!(
        out.accesses(),
        [
            ("rtc-index", 0, access(BusSpace::Pio, true, 0x70, 1, 0x8f)),
            ("hpet", 200_000, access(BusSpace::Mmio, false, 0xfed0_00f0, 4, 0x2233_4455)),
        ]
    );
    let cpus = out.events.iter().map(|event| match event {
        Event::Bus(bus) => bus.cpu,
        other => panic!("{other:?}"),
    });
    assert_eq!(cpus.collect::<Vec<_>>(), [Some(0), Some(1)]);
    assert_eq!(out.header.unwrap().origin_unix_ns, Some(5_000_100_000));
    assert_eq!(losses(&report), [("other event: blk_co_preadv", 1, "line 1")]);
    assert_eq!(report.summary.notes, ["1 value was wider than the access and cut"]);
    assert_eq!(report.summary.not_recorded, NotRecorded::MEMORY | NotRecorded::IRQS);
}

#[test]
fn what_a_probe_says() {
    let probe = |importer: &QemuLog, text: &str| {
        importer.probe(&Probe { head: text.as_bytes(), name: "x" })
    };
    let block = "blk_co_preadv blk 0x1 bs 0x2 offset 0 bytes 512 flags 0x0\n";
    let virtio = "virtio_blk_handle_read vdev 0x1 req 0x2 sector 0 nsectors 1\n";
    let (possible, certain) = (Some(Confidence::Possible), Some(Confidence::Certain));
    for (text, whole, backend) in [
        (block.to_owned(), possible, certain),
        (format!("1@2.000003:{block}"), Some(Confidence::Likely), certain),
        (format!("{block}{RTC}\n"), certain, None),
        (format!("{block}{virtio}"), certain, None),
        (format!("{block}1@2.000003:virtqueue_pop vq 0x1\n"), Some(Confidence::Likely), None),
        ("fio version 3 iolog\nsome_thing 1 2\n".to_owned(), None, None),
    ] {
        assert_eq!(probe(&LOG, &text), whole, "{text}");
        assert_eq!(probe(&LOG_BACKEND, &text), backend, "{text}");
        // A part of a log is never what content is found to be.
        assert_eq!(probe(&LOG_BUS, &text), None);
        assert_eq!(probe(&LOG_BLOCK, &text), None);
    }
}

fn from(name: &str) -> ImportOptions {
    ImportOptions { from: Some(name.into()), ..ImportOptions::default() }
}

#[test]
fn a_log_of_both_kinds_is_imported_whole_or_in_parts() {
    let text = format!(
        "1@5.000001:{RTC}\n1@5.000002:virtio_blk_handle_read vdev 0x1 req 0x2 sector 8 nsectors 1\n\
         1@5.000003:{RTC}\n1@5.000004:virtio_blk_req_complete vdev 0x1 req 0x2 status 0\n\
         1@5.000005:blk_co_pwritev blk 0x3 bs 0x4 offset 512 bytes 512 flags 0x16\n"
    );
    let counts = |name: &str| {
        let (report, out) = import_with(text.as_bytes(), &from(name)).unwrap();
        let ops = report.ops;
        (ops.bus.events(), ops.requests(), ops.completes, out.header.unwrap().origin_unix_ns)
    };
    assert_eq!(counts("qemu-log"), (2, 1, 1, Some(5_000_001_000)));
    assert_eq!(counts("qemu-log-bus"), (2, 0, 0, Some(5_000_001_000)));
    assert_eq!(counts("qemu-log-block"), (0, 1, 1, Some(5_000_002_000)));
    assert_eq!(counts("qemu-log-backend"), (0, 1, 0, Some(5_000_005_000)));
    let lacks =
        |name: &str| import_with(text.as_bytes(), &from(name)).unwrap().0.summary.not_recorded;
    use NotRecorded as N;
    assert!(lacks("qemu-log").contains(N::IRQS | N::WRITE_DATA | N::FLUSHES));
    assert!(!lacks("qemu-log").intersects(N::CPUS | N::COMPLETIONS));
    assert!(lacks("qemu-log-block").contains(N::CPUS));
    assert!(!lacks("qemu-log-block").contains(N::IRQS));
    assert_eq!(lacks("qemu-log-bus"), N::MEMORY | N::IRQS);
    assert!(lacks("qemu-log-backend").contains(N::COMPLETIONS | N::STATUS));
    assert!(!lacks("qemu-log-backend").intersects(N::FUA | N::UNMAP | N::WRITE_ZEROES));
}

#[test]
fn back_ends_say_fua_zeroes_and_unmap() {
    let text = "blk_co_preadv blk 0x1 bs 0x2 offset 0 bytes 512 flags 0x10\n\
                blk_co_pwritev blk 0x1 bs 0x2 offset 4096 bytes 1024 flags 0x10\n\
                blk_co_pwritev blk 0x1 bs 0x2 offset 8192 bytes 65536 flags 0x6\n\
                blk_co_pwritev blk 0x3 bs 0x2 offset 0 bytes 512 flags 0x2\n\
                blk_co_pwritev blk 0x3 bs 0x2 offset 0\n";
    let (report, out) = import_bytes(text.as_bytes()).unwrap();
    assert_eq!(report.format, "qemu-log-backend");
    let issues: Vec<_> = out.issues().iter().map(|i| (i.op, i.flags, i.offset, i.len)).collect();
    let (none, zeroes) = (OpFlags::empty(), BlockOp::WriteZeroes);
    assert_eq!(
        issues,
        [
            (BlockOp::Read, none, 0, 512),
            (BlockOp::Write, OpFlags::FUA, 4096, 1024),
            (zeroes, OpFlags::UNMAP, 8192, 65536),
            (zeroes, none, 0, 512),
        ]
    );
    let names: Vec<_> = out.streams.iter().map(|stream| stream.device.as_str()).collect();
    assert_eq!(names, ["blk@0x1", "blk@0x3"]);
    assert_eq!(losses(&report), [("block event that cannot be read", 1, "line 5")]);
    // Where the head does not tell, the error does.
    let error = import_with(text.as_bytes(), &from("qemu-log")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Nothing);
    assert!(error.hint_text().unwrap().contains("qemu-log-backend"));
}

#[test]
fn a_log_without_times_says_so() {
    let (report, out) = import_bytes(format!("{RTC}\n{RTC}\n").as_bytes()).unwrap();
    assert!(report.summary.not_recorded.contains(NotRecorded::TIMES));
    assert!(out.accesses().iter().all(|access| access.1 == 0));
    assert_eq!(out.header.unwrap().origin_unix_ns, None);
}

#[test]
fn a_clock_that_goes_back_keeps_the_order_of_the_lines() {
    let text =
        format!("1@5.000100:{RTC}\n2@5.000300:{RTC}\n1@5.000200:{RTC}\n2@4.9:{RTC}\n{RTC}\n");
    let (report, out) = import_bytes(text.as_bytes()).unwrap();
    let times: Vec<_> = out.accesses().iter().map(|access| access.1).collect();
    assert_eq!(times, [0, 200_000, 200_000, 200_000, 200_000]);
    assert_eq!(
        report.summary.notes,
        [
            "1 access has no time and takes that of the one before",
            "2 times go back and took that of the access before"
        ]
    );
}

#[test]
fn what_devices_do_is_left_out_and_counted() {
    let (report, out) = import_bytes(format!("{MSI}\n{RTC}\n{MSI}\n").as_bytes()).unwrap();
    assert_eq!(out.accesses().len(), 1);
    let reason = "access made by a device, not by a vCPU (cpu -1)";
    assert_eq!(losses(&report), [(reason, 2, "line 1")]);
    let error = import_bytes(format!("{MSI}\n").as_bytes()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Nothing);
    assert!(error.to_string().ends_with("holds no bus access or block request"), "{error}");
}

#[test]
fn a_log_of_virtio_without_doorbells_says_why() {
    let line = |region: &str| {
        format!("memory_region_ops_write cpu 0 addr 0xfe000000 value 0x0 size 2 name '{region}'\n")
    };
    let common = line("virtio-pci-common-virtio-blk");
    let (report, _) = import_bytes(common.as_bytes()).unwrap();
    assert!(report.summary.not_recorded.contains(NotRecorded::DOORBELLS));
    assert!(report.summary.notes[0].contains("ioeventfd"), "{:?}", report.summary.notes);
    let both = common + &line("virtio-pci-notify-virtio-blk");
    let (report, _) = import_bytes(both.as_bytes()).unwrap();
    assert!(!report.summary.not_recorded.contains(NotRecorded::DOORBELLS));
    assert!(report.summary.notes.is_empty());
    // Of a legacy device's registers the doorbell is one: whether it was taken cannot be known.
    let (report, _) = import_bytes(line("virtio-pci").as_bytes()).unwrap();
    assert!(!report.summary.not_recorded.contains(NotRecorded::DOORBELLS));
    assert_eq!(report.summary.notes, ["virtio doorbells that ioeventfd takes are not in this log"]);
}

#[test]
fn port_events_stand_once() {
    let region = |op, addr, size| {
        format!("memory_region_ops_{op} cpu 0 addr {addr:#x} value 0x1 size {size} name 'x'\n")
    };
    // An outl of a device that takes words, an inl likewise, then ports that no region logs.
    let text = "cpu_out addr 0x1f0(l) value 65537\n".to_owned()
        + &region("write", 0x1f0, 2)
        + &region("write", 0x1f2, 2)
        + &region("read", 0x1f0, 2)
        + &region("read", 0x1f2, 2)
        + "cpu_in addr 0x1f0(l) value 65537\n"
        + "cpu_out addr 0x80(b) value 7\ncpu_in addr 0x1f0(b) value 9\n"
        + "cpu_out addr 0x81(b) value 8\n";
    let (report, out) = import_bytes(text.as_bytes()).unwrap();
    let brief: Vec<_> =
        out.accesses().iter().map(|(name, _, a)| (*name, a.write, a.addr)).collect();
    assert_eq!(
        brief,
        [
            ("x", true, 0x1f0),
            ("x", true, 0x1f2),
            ("x", false, 0x1f0),
            ("x", false, 0x1f2),
            ("port", true, 0x80),
            ("port", false, 0x1f0),
            ("port", true, 0x81),
        ]
    );
    assert_eq!(
        report.summary.notes,
        [
            "3 port accesses name no CPU and no region (cpu_in, cpu_out)",
            "2 cpu_in or cpu_out repeat the region's own event and stand once"
        ]
    );
    assert!(!report.summary.not_recorded.contains(NotRecorded::CPUS));
}

#[test]
fn old_logs_have_no_names_and_damaged_lines_are_counted() {
    let text = "memory_region_ops_write cpu 0 mr 0x1 addr 0x70 value 0x8f size 1\n\
                memory_region_ops_write cpu 0 mr 0x1 addr 0xfee00020 value 0x8f size 4\n\
                memory_region_ops_write cpu 0 mr 0x1 addr 0x70\n\
                qemu-system-x86_64: warning: host doesn't support it\n\n";
    let (report, out) = import_bytes(text.as_bytes()).unwrap();
    let names: Vec<_> = out.accesses().iter().map(|access| access.0).collect();
    assert_eq!(names, ["port", "mmio"]);
    assert!(report.summary.not_recorded.contains(NotRecorded::REGIONS));
    assert_eq!(
        losses(&report),
        [
            ("bus event that cannot be read", 1, "line 3"),
            ("line without a trace event", 1, "line 4")
        ]
    );
    let error = import_bytes(b"1@2.5:memory_region_ops_read cpu 0\n").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Input);
    assert!(error.to_string().contains("not one bus access or block request could"), "{error}");
}

/// Reads and writes of vCPUs, accesses of devices, and other lines, counted by hand.
fn counted_by_hand(text: &str) -> (u64, u64, u64, u64) {
    let mut counts = (0, 0, 0, 0);
    for line in text.lines() {
        let bus = line.contains("memory_region_ops_");
        let count = match (bus, line.contains(" cpu -1 "), line.contains("_ops_write ")) {
            (false, ..) => &mut counts.3,
            (true, true, _) => &mut counts.2,
            (true, false, true) => &mut counts.1,
            (true, false, false) => &mut counts.0,
        };
        *count += 1;
    }
    counts
}

/// Imports a sample and checks it against its text; `None` where there is no sample.
fn check_sample(name: &str) -> Option<(ImportReport, Memory)> {
    let text = String::from_utf8(plain_sample(name)?).unwrap();
    let (report, out) = import_with(&sample(name)?, &from("qemu-log-bus")).unwrap();
    let bus = &report.ops.bus;
    let made_by_devices = report.summary.losses.iter().find(|loss| loss.reason.contains("cpu -1"));
    let others = report.summary.losses.iter().filter(|loss| loss.reason.contains("other event"));
    assert_eq!(
        (
            bus.reads(),
            bus.writes(),
            made_by_devices.map_or(0, |loss| loss.count),
            others.map(|loss| loss.count).sum::<u64>()
        ),
        counted_by_hand(&text),
        "{name}"
    );
    Some((report, out))
}

#[test]
fn the_firmware_boots_with_and_without_times() {
    for (name, timed) in [("seabios/boot-tcg.log.xz", false), ("seabios/boot-tcg-ts.log.xz", true)]
    {
        let Some((report, out)) = check_sample(name) else { continue };
        let bus = &report.ops.bus;
        // One of the 4,361 writes is a device's.
        assert_eq!((bus.writes(), bus.reads()), (4360, 891), "{name}");
        let lost = losses(&report).iter().map(|loss| loss.1).sum::<u64>();
        assert_eq!(lost, 13, "{name}");
        assert_eq!(report.summary.not_recorded.contains(NotRecorded::TIMES), !timed, "{name}");
        assert!(out.streams.iter().any(|stream| stream.device == "isa-debugcon"));
    }
}

#[test]
fn a_whole_guest_and_the_other_logs() {
    if let Some((report, out)) = check_sample("guest/virtio-raw-mmio.trace.xz") {
        let bus = &report.ops.bus;
        // 190,926 lines of the bus: 410 are devices' MSIs.
        assert_eq!((bus.writes(), bus.reads()), (118_911, 71_605));
        assert_eq!(bus.mmio[0] + bus.mmio[1], 105_471);
        assert!(report.summary.not_recorded.contains(NotRecorded::DOORBELLS));
        assert!(out.events.windows(2).all(|pair| pair[0].time() <= pair[1].time()));
    }
    check_sample("traces/qemu-trace/qemu72-trace-log.head.txt.gz");
    check_sample("traces/qemu-trace/qemu72-virtio-blk-only.txt.gz");
}

/// A sample, whole: reads, writes, flushes, completions, and bus accesses.
fn whole(name: &str) -> Option<([u64; 5], ImportReport)> {
    let (report, _) = import_bytes(&sample(name)?).unwrap();
    assert_eq!(report.format, "qemu-log");
    let ops = &report.ops;
    let of = |op| ops.issues_of(op);
    let counts = [of(BlockOp::Read), of(BlockOp::Write), of(BlockOp::Flush), ops.completes];
    let [reads, writes, flushes, completes] = counts;
    Some(([reads, writes, flushes, completes, ops.bus.events()], report))
}

/// How many lines of a sample hold `word`.
fn lines_with(name: &str, word: &str) -> u64 {
    let text = plain_sample(name).unwrap();
    String::from_utf8(text).unwrap().lines().filter(|line| line.contains(word)).count() as u64
}

#[test]
fn the_requests_of_virtio_disks() {
    for name in [
        "guest/virtio-raw.trace.gz",
        "guest/virtio-qcow2.trace.gz",
        "guest/virtio-raw-mmio.trace.xz",
        "traces/qemu-trace/qemu72-virtio-blk-only.txt.gz",
    ] {
        let Some((counts, report)) = whole(name) else { continue };
        let (reads, writes) = (
            lines_with(name, "virtio_blk_handle_read"),
            lines_with(name, "virtio_blk_handle_write"),
        );
        assert!(reads > 0 && writes > 0);
        assert_eq!(counts[..4], [reads, writes, 0, reads + writes], "{name}");
        // Flushes and identifiers end and do not begin.
        let unnamed = report.summary.losses.iter().find(|loss| loss.reason.contains("not name"));
        let ends = lines_with(name, "virtio_blk_req_complete");
        assert_eq!(unnamed.unwrap().count, ends - reads - writes, "{name}");
        let bus = lines_with(name, "memory_region_ops_") - lines_with(name, " cpu -1 ");
        assert_eq!(counts[4], bus, "{name}");
    }
}

#[test]
fn the_requests_of_ide_disks() {
    let name = "guest/ide-raw.trace.gz";
    let Some((counts, report)) = whole(name) else { return };
    let (reads, writes) = (lines_with(name, "cmd=DMA READ"), lines_with(name, "cmd=DMA WRITE"));
    assert_eq!((reads, writes), (212, 80));
    // One sector was read by PIO, which has no end.
    assert_eq!(counts, [reads + 1, writes, lines_with(name, "cmd 0xe7"), reads + writes, 0]);
    let lost = losses(&report).into_iter().find(|loss| loss.0.contains("TRIM")).unwrap();
    assert_eq!(lost.1, lines_with(name, "cmd=DMA TRIM"));
    assert!(report.summary.not_recorded.contains(NotRecorded::FUA | NotRecorded::DISCARDS));
    assert!(!report.summary.not_recorded.contains(NotRecorded::FLUSHES));
}
