//! A real guest under the taps: what it did is replayed onto fresh images, which end as its own did.

mod common;

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Stdio};

use common::guest::{DISK_BYTES, GuestKit, assert_done, guest_kit, run_within};
use common::inputs::boot_disk;
use common::{QTRACE, expect, have, qtest_qemu};
use serde_json::Value;

/// Seconds that a guest may take: it is emulated, and the machine may be busy.
const PATIENCE: u32 = 300;

/// A folder with an empty disk, `d.raw`.
fn folder() -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a folder");
    let image = std::fs::File::create(dir.path().join("d.raw")).expect("created");
    image.set_len(DISK_BYTES).expect("sized");
    dir
}

/// `qtrace record WORDS -- GUEST DISK`, in `dir`; the trace is `t.qtrace`.
fn record(dir: &Path, words: &str, guest: &[String], disk: &str) {
    let mut line = vec![QTRACE.to_owned(), "record".to_owned()];
    line.extend(words.split(' ').map(str::to_owned));
    line.extend(["-o", "t.qtrace", "--"].map(str::to_owned));
    line.extend(guest.iter().cloned());
    line.extend(disk.split(' ').map(str::to_owned));
    let out = run_within(dir, PATIENCE, &line);
    assert_done(&out);
    let info = info(dir);
    assert_eq!(info["complete"], true, "{info}");
}

fn info(dir: &Path) -> Value {
    let text = expect(dir, 0, ["info", "t.qtrace", "--format", "json"]);
    serde_json::from_str(&text).expect("JSON")
}

/// Replays the requests on every machine that is here; each disk ends as the guest's did, and every
/// read returns what the guest got.
fn replays_to_the_guests_disk(dir: &Path) {
    let mut machines = vec!["builtin"];
    if qtest_qemu() {
        machines.push("qemu");
    }
    if have("qemu-storage-daemon") {
        machines.push("vhost-user,server=qemu-storage-daemon");
    }
    let want = std::fs::read(dir.join("d.raw")).expect("the guest's disk");
    for (n, machine) in machines.into_iter().enumerate() {
        let target = format!("r{n}.raw");
        let options = format!("tracefile=t.qtrace,target_img={target},target_fmt=raw");
        let words = ["replay", "--machine", machine, "--test", "block-trace-virtio"];
        let words = words.into_iter().chain(["--format", "json", &options]);
        let report: Value = serde_json::from_str(&expect(dir, 0, words)).expect("a report");
        let verdict = &report["verdict"];
        assert_eq!(verdict["findings_total"], 0, "{machine}: {verdict}");
        let reads = report["ops"].as_array().expect("operations");
        let reads = reads.iter().find(|op| op["op"] == "read").expect("reads")["count"].as_u64();
        assert!(reads > Some(50), "{machine}: {reads:?}");
        assert_eq!(verdict["reads_checked"].as_u64(), reads, "{machine}: {verdict}");
        // What was discarded has no content that a read could be held to.
        let unverifiable = verdict["unverifiable_read_bytes"].as_object().expect("reasons");
        assert!(unverifiable.keys().all(|why| why == "discarded"), "{machine}: {verdict}");
        let got = std::fs::read(dir.join(&target)).expect("the replay's disk");
        let differs = want.iter().zip(&got).position(|(want, got)| want != got);
        assert_eq!((got.len(), differs), (want.len(), None), "{machine}: the disks differ");
    }
}

fn ext4(kit: &GuestKit) -> Vec<String> {
    kit.command_line("ext4")
}

#[test]
fn a_guest_on_the_nbd_tap() {
    let Some(kit) = guest_kit() else { return };
    let dir = folder();
    let disk = "-drive file={uri},format=raw,if=virtio,discard=unmap";
    record(dir.path(), "nbd --image d.raw --format raw", &ext4(&kit), disk);
    replays_to_the_guests_disk(dir.path());
}

#[test]
fn a_guest_on_the_vhost_user_tap() {
    let Some(kit) = guest_kit() else { return };
    let dir = folder();
    let mut guest = ext4(&kit);
    let memory =
        "-object memory-backend-memfd,id=m,size=256M,share=on -machine pc,memory-backend=m";
    guest.extend(memory.split(' ').map(str::to_owned));
    let disk = "-chardev socket,id=d,path={socket} -device vhost-user-blk-pci,chardev=d";
    record(dir.path(), "vhost-user-blk --image d.raw --format raw --socket s", &guest, disk);
    replays_to_the_guests_disk(dir.path());
}

#[test]
fn a_guest_with_taps_in_its_drives_and_its_bus() {
    let Some(kit) = guest_kit() else { return };
    let dir = folder();
    // Of the version that replays it, and with the devices that its boards have by themselves.
    let mut guest = ext4(&kit);
    guest.retain(|word| word != "-nodefaults");
    guest.extend("-nic none -machine pc-i440fx-7.2".split(' ').map(str::to_owned));
    let disk = "-drive file=d.raw,format=raw,if=virtio,discard=unmap,id=sys";
    record(dir.path(), "qemu --block --bus", &guest, disk);
    let info = info(dir.path());
    let lacks = info["not_recorded"].to_string();
    for lack in ["memory", "irqs", "doorbells", "queues"] {
        assert!(lacks.contains(lack), "{lacks}");
    }
    let lines = info["interpretation"].to_string();
    assert!(lines.contains("disk: sys = d.raw (raw)") && lines.contains("bus: the log of QEMU"));
    replays_to_the_guests_disk(dir.path());
    replays_on_the_bus(dir.path());
}

/// The bus on a QEMU without a guest: every read that is no counter's is as the guest's.
fn replays_on_the_bus(dir: &Path) {
    if !qtest_qemu() {
        return;
    }
    let machine = "qemu,accel=qtest,defaults=on,args=-nic none -rtc base=2024-01-01";
    let exact =
        "tracefile=t.qtrace,ram=256M,disks=24M,disk_slot=3,chips=full-debugcon,defaults=off";
    // A kernel under tcg waits for counters in loops: how many reads are theirs is the host's speed.
    let report = replay_bus(dir, machine, &format!("{exact},fail_below=50"));
    let (reads, equal, differ) = shares(&report);
    println!("{equal} of {reads} reads are equal; {differ:?} have others");
    assert!(reads > 20_000, "{reads}");
    // Besides counters, and registers that answer their own CPU only, a moment may show: a request or an
    // interrupt that was under way.
    let counters = ["acpi-tmr", "apic-msi", "hpet", "pcspk", "pit", "rtc"];
    let others: u64 = differ
        .iter()
        .filter(|(name, _)| !counters.contains(&name.as_str()))
        .map(|(_, count)| count)
        .sum();
    assert!(others <= 8, "{differ:?}");
    // The default policies know the counters.
    replay_bus(dir, machine, &exact.replace(",defaults=off", ",fail_below=99.9"));
}

fn replay_bus(dir: &Path, machine: &str, options: &str) -> Value {
    let words =
        ["replay", "--machine", machine, "--test", "mmio-trace", "--format", "json", options];
    serde_json::from_str(&expect(dir, 0, words)).expect("a report")
}

/// Reads, equal ones, and how many of which regions were not.
fn shares(report: &Value) -> (u64, u64, BTreeMap<String, u64>) {
    let (mut reads, mut equal, mut differ) = (0, 0, BTreeMap::new());
    for region in report["regions"].as_array().expect("regions") {
        let number = |key: &str| region[key].as_u64().expect("a number");
        reads += number("reads");
        equal += number("equal");
        if number("reads") != number("equal") {
            let name = region["name"].as_str().expect("a name");
            differ.insert(name.to_owned(), number("reads") - number("equal"));
        }
    }
    (reads, equal, differ)
}

/// Firmware and a boot sector: the bus replays in full on both machines, and the drive too.
#[test]
fn a_boot_sector_with_both_taps() {
    let Some(kit) = guest_kit() else { return };
    let dir = tempfile::tempdir().expect("a folder");
    std::fs::write(dir.path().join("d.raw"), boot_disk()).expect("written");
    let args = "-accel tcg -m 64 -nodefaults -display none";
    let drive = "-drive file=d.raw,format=raw,if=virtio,id=sys";
    let mut line: Vec<String> = vec![QTRACE.into()];
    line.extend("record qemu -o t.qtrace --block --bus --".split(' ').map(str::to_owned));
    line.push(kit.qemu());
    line.extend(args.split(' ').chain(drive.split(' ')).map(str::to_owned));
    let out = run_within(dir.path(), PATIENCE, &line);
    let stderr = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success(), "{stderr}");
    assert!(stderr.contains("tap: sys = d.raw (raw)"), "{stderr}");
    let mut want = boot_disk();
    // Its own first sectors, with the word that it turned over.
    want.copy_within(..4096, 8192);
    want[8192 + 0x10] = !want[0x10];
    want[8192 + 0x11] = !want[0x11];
    assert!(std::fs::read(dir.path().join("d.raw")).expect("read") == want, "the guest's disk");
    let options = "tracefile=t.qtrace,target_img=r.raw,target_fmt=raw";
    let report = common::replay(dir.path(), 0, options);
    assert_eq!(report["verdict"]["reads_checked"], 4);
    let again = std::fs::read(dir.path().join("r.raw")).expect("read");
    assert!(again[8192..][..4096] == want[8192..][..4096], "the replay's disk");
    let machine = "tracefile=t.qtrace,ram=64M,disks=1M,disk_slot=2,chips=full-serial-debugcon,policy=rtc[10]:ignore";
    replay_bus(dir.path(), "builtin", machine);
    if qtest_qemu() {
        replay_bus(dir.path(), "qemu,accel=qtest", machine);
    }
}

/// QEMU takes the command line that a drive becomes, whichever way it was written, and has our server
/// below it.
#[test]
fn qemu_takes_every_kind_of_tapped_drive() {
    let Some(kit) = guest_kit() else { return };
    if !have("qemu-img") {
        return;
    }
    let dir = folder();
    for (format, name) in [("qcow2", "d.qcow2"), ("vmdk", "d.vmdk")] {
        let args = ["create", "-q", "-f", format, name, "24M"];
        let made = Command::new("qemu-img").args(args).current_dir(dir.path()).status();
        assert!(made.expect("qemu-img runs").success());
    }
    std::fs::write(dir.path().join("c,d.raw"), vec![0; 1 << 20]).expect("written");
    let file = r#"{"driver":"file","filename":"d.qcow2","aio":"native","node-name":"s","auto-read-only":true,"discard":"unmap","cache":{"direct":true,"no-flush":false}}"#;
    let format = r#"{"node-name":"f","read-only":false,"discard":"unmap","driver":"qcow2","file":"s","backing":null}"#;
    let libvirt = format!("-blockdev {file} -blockdev {format} -device virtio-blk-pci,drive=f");
    let lines = [
        "-drive file=d.raw,format=raw,if=virtio,cache=none,aio=native,discard=unmap",
        "-drive file=d.qcow2,if=none,id=d,cache=directsync,l2-cache-size=1M -device nvme,serial=1,drive=d",
        "-drive file=c,,d.raw,format=raw,if=ide,media=cdrom",
        "-drive driver=qcow2,file.driver=file,file.filename=d.qcow2,file.locking=off,file.node-name=n,if=virtio,detect-zeroes=unmap",
        "-hda d.vmdk",
        "d.raw",
        libvirt.as_str(),
        "-object throttle-group,id=g -blockdev throttle,node-name=t,throttle-group=g,file.driver=qcow2,file.file.driver=file,file.file.filename=d.qcow2 -device virtio-blk-pci,drive=t",
        "-blockdev file,node-name=f,filename=d.raw,aio=native,cache.direct=on -device virtio-blk-pci,drive=f",
    ];
    for line in lines {
        let mut qtrace = Command::new("timeout");
        qtrace
            .args(["120", QTRACE, "record", "qemu", "-o", "t.qtrace", "--force", "--block", "--"]);
        qtrace.arg(kit.qemu()).args("-S -display none -nodefaults -monitor stdio".split(' '));
        qtrace.args(line.split(' ')).current_dir(dir.path());
        let piped = qtrace.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = piped.spawn().expect("qtrace runs");
        let mut monitor = child.stdin.take().expect("a pipe");
        std::io::Write::write_all(&mut monitor, b"info block\nquit\n").expect("written");
        let out = child.wait_with_output().expect("its end");
        let (stdout, stderr) =
            (String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
        assert!(out.status.success(), "{line}: {stdout}\n{stderr}");
        assert!(stdout.contains("disk.sock"), "{line}: {stdout}");
        assert_eq!(info(dir.path())["complete"], true, "{line}");
    }
    // Nothing is recorded, and nothing is there, when the command line is refused.
    std::fs::remove_file(dir.path().join("t.qtrace")).expect("removed");
    for (code, words) in [
        (2, "--block -- qemu-system-x86_64 -drive file=d.raw,snapshot=on"),
        (2, "--block=x -- qemu-system-x86_64 -drive file=d.raw,id=d"),
        (2, "-- qemu-system-x86_64 -hda d.raw"),
        (2, "--bus -- qemu-system-x86_64 -daemonize"),
        (3, "--block -- qemu-system-x86_64 -drive file=missing.raw,format=raw"),
        (5, "--bus -- /bin/false"),
    ] {
        expect(dir.path(), code, "record qemu -o t.qtrace".split(' ').chain(words.split(' ')));
        assert!(!dir.path().join("t.qtrace").exists(), "{words}");
    }
}
