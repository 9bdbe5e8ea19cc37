//! Logs of machines and of virtual disks.

use super::*;

const QEMU_LOG: &str = "\
    7@5.000001:memory_region_ops_write cpu 0 mr 0x1 addr 0x70 value 0x8f size 1 name 'rtc-index'\n\
    7@5.000009:memory_region_ops_read cpu 0 mr 0x2 addr 0x71 value 0x126 size 1 name 'rtc'\n\
    7@5.000010:memory_region_ops_write cpu -1 mr 0x3 addr 0xfee00000 value 0x0 size 4 name 'apic-msi'\n";
const MMIOTRACE: &str = "\
    VERSION 20070824\nPCIDEV 0040 1b360010 a febf0004 0 0 0 0 0 0 4000 0 0 0 0 0 0 nvme\n\
    R 4 70.073551 1 0xfebf001c 0x9 0x0 0\nMARK 70.2 reset\n";
const KVM: &str = "\
    CPU 0/KVM  7/8 [001] 1.000001: kvm:kvm_pio: pio_write at 0x70 size 1 count 1 val 0x8f\n\
    CPU 0/KVM  7/8 [001] 1.000002: kvm:kvm_mmio: mmio unsatisfied-read len 4 gpa 0xfebf0000 val 0x0\n\
    CPU 0/KVM  7/8 [001] 1.000009: kvm:kvm_mmio: mmio read len 4 gpa 0xfebf0000 val 0x11\n";
const QTEST: &str = "# args: -M q35 -nodefaults\n\
    outl 0xcf8 0x80001010\ninl 0xcfc\nwrite 0x1000 0x4 0x0102\nclock_step 500\n";

#[test]
fn accesses_of_a_bus_are_imported_and_counted_by_kind() {
    let dir = folder(&[
        ("qemu.log", QEMU_LOG.as_bytes()),
        ("mmio.txt", MMIOTRACE.as_bytes()),
        ("kvm.txt", KVM.as_bytes()),
        ("a.qtest", QTEST.as_bytes()),
        ("qemu.log.gz", &gzip(QEMU_LOG.as_bytes())),
    ]);
    for (input, format, bus) in [
        ("qemu.log", "qemu-log", serde_json::json!({"port_reads": 1, "port_writes": 1})),
        ("qemu.log.gz", "qemu-log", serde_json::json!({"port_reads": 1, "port_writes": 1})),
        ("mmio.txt", "mmiotrace", serde_json::json!({"mmio_reads": 1})),
        ("kvm.txt", "kvm-bus", serde_json::json!({"port_writes": 1, "mmio_reads": 1})),
        (
            "a.qtest",
            "qtest",
            serde_json::json!({
                "port_reads": 1, "port_writes": 1, "memory_writes": 1, "memory_fills": 1,
                "clock_steps": 1
            }),
        ),
    ] {
        let output = qtrace(dir.path(), &[input, "-o", "t.qtrace", "--force", "--format", "json"]);
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        let document = json(&output);
        assert_eq!(document["format"], format, "{input}");
        assert_eq!(document["bus"], bus, "{input}");
        assert_eq!(document["ops"], serde_json::json!({}), "{input}");
        let trace = qtrace::trace::Trace::open(&dir.path().join("t.qtrace")).expect("a trace");
        assert_eq!(trace.events(), document["events"].as_u64().expect("a count"), "{input}");
    }
    let output = qtrace(dir.path(), &["qemu.log", "-o", "t.qtrace", "--force"]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    for wanted in
        ["2 bus accesses", "port writes", "1 x access made by a device", "1 value was wider"]
    {
        assert!(text.contains(wanted), "{wanted} in {text}");
    }
}

const QEMU_BLOCK: &str = "\
    7@5.000002:virtio_blk_handle_write vdev 0x1 req 0xa sector 8 nsectors 2\n\
    7@5.000003:blk_co_pwritev blk 0x3 bs 0x4 offset 4096 bytes 1024 flags 0x10\n\
    7@5.000004:virtio_blk_req_complete vdev 0x1 req 0xa status 0\n";
const NBDKIT: &str = "\
    2026-11-22 08:15:12.472190 connection=1 Connect export=\"a\" tls=0 size=0x1000000 fua=2\n\
    2026-11-22 08:15:12.472597 connection=1 Write id=1 offset=0x0 count=0x1000 fua=1 ...\n\
    2026-11-22 08:15:12.472639 connection=1 ...Write id=1 return=0\n";

/// A log of QEMU's whole, or one kind of what it holds; and one of nbdkit's compressed.
#[test]
fn logs_of_virtual_disks() {
    let both = format!("{QEMU_LOG}{QEMU_BLOCK}");
    let dir = folder(&[("both.log", both.as_bytes()), ("n.log.gz", &gzip(NBDKIT.as_bytes()))]);
    for (args, format, accesses, writes, completions) in [
        (&["both.log"][..], "qemu-log", 2, 1, 1),
        (&["both.log", "--from", "qemu-log-bus"], "qemu-log-bus", 2, 0, 0),
        (&["both.log", "--from", "qemu-log-block"], "qemu-log-block", 0, 1, 1),
        (&["both.log", "--from", "qemu-log-backend"], "qemu-log-backend", 0, 1, 0),
        (&["n.log.gz"], "nbdkit-log", 0, 1, 1),
    ] {
        let end = ["-o", "t.qtrace", "--force", "--format", "json"];
        let args: Vec<&str> = args.iter().chain(&end).copied().collect();
        let output = qtrace(dir.path(), &args);
        assert_eq!(output.status.code(), Some(0), "{args:?}: {}", stderr(&output));
        let document = json(&output);
        assert_eq!(document["format"], format, "{args:?}");
        assert_eq!(document["ops"]["write"].as_u64().unwrap_or(0), writes, "{args:?}");
        assert_eq!(document["completions"], completions, "{args:?}");
        let events = document["events"].as_u64().expect("a count");
        assert_eq!(events, accesses + writes + completions, "{args:?}");
    }
}

#[test]
fn exit_codes_of_bus_traces() {
    let msi = QEMU_LOG.lines().last().expect("a line").to_owned() + "\n";
    let long = format!("outb 0x80 1\nwrite 0x0 0x1 0x{}\n", "5a".repeat(9 << 20));
    let dir = folder(&[
        ("msi.log", msi.as_bytes()),
        ("qtest", b"outb 0x70 1\n"),
        ("long", long.as_bytes()),
        ("bad", b"outb 0x10000 1\nmemset 0x0 0xffffffffffffffff 0\n"),
    ]);
    let before = names(dir.path());
    for (args, code, says) in [
        (&["msi.log"][..], 4, "holds no bus access or block request"),
        (&["qtest", "--from", "mmiotrace"], 3, "not one bus access could be read as mmiotrace"),
        (&["qtest", "--device", "hpet"], 4, "no access of a device 'hpet' in it; devices: port"),
        (&["long"], 3, "line 2: line longer than"),
        (&["bad", "--from", "qtest"], 3, "port beyond 0xffff (QEMU aborts) at line 1"),
        (&["qtest", "msi.log"], 2, "takes one input"),
    ] {
        let mut args = args.to_vec();
        args.extend(["-o", "t.qtrace"]);
        let output = qtrace(dir.path(), &args);
        assert_eq!(output.status.code(), Some(code), "{args:?}: {}", stderr(&output));
        assert!(stderr(&output).contains(says), "{args:?}: {}", stderr(&output));
        assert_eq!(names(dir.path()), before, "{args:?} leaves nothing");
    }
}
