use super::*;
use crate::base::ErrorKind;
use crate::import::testing::{Memory, import_bytes, losses, plain_sample, sample};
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
    assert_eq!(report.format, "qemu-log-bus");
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
    let probe = |text: &str| QemuLogBus.probe(&Probe { head: text.as_bytes(), name: "x" });
    let block = "blk_co_preadv blk 0x1 bs 0x2 offset 0 bytes 512 flags 0x0\n";
    assert_eq!(probe(block), Some(Confidence::Possible));
    assert_eq!(probe(&format!("1@2.000003:{block}")), Some(Confidence::Likely));
    assert_eq!(probe(&format!("{block}{RTC}\n")), Some(Confidence::Certain));
    assert_eq!(probe("fio version 3 iolog\nsome_thing 1 2\n"), None);
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
    assert!(error.to_string().ends_with("holds no bus access"), "{error}");
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
    assert!(error.to_string().contains("not one bus access could be read"), "{error}");
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
fn check_sample(name: &str) -> Option<(super::super::ImportReport, Memory)> {
    let text = String::from_utf8(plain_sample(name)?).unwrap();
    let (report, out) = import_bytes(&sample(name)?).unwrap();
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
    for name in ["virtio-raw", "virtio-qcow2", "ide-raw"] {
        let Some(data) = sample(&format!("guest/{name}.trace.gz")) else { continue };
        // Logs of block events alone: found to be QEMU's, and to hold nothing of the bus.
        let error = import_bytes(&data).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Nothing, "{error}");
    }
}
