//! Bus traces on a real QEMU, which needs one with the qtest accelerator.

mod common;

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use common::{QTRACE, expect, qtest_qemu, qtrace, repo, shared};
use qtrace::base::{BusAccess, BusSpace, Nanos};
use qtrace::machine::obituary::End;
use qtrace::machine::qemu::{QemuConfig, QemuMachine, Time};
use qtrace::replay::bus::options::{Config, PORT_TEST};
use qtrace::replay::bus::session;
use qtrace::replay::bus::tally::Has;
use qtrace::trace::{
    BusEvent, Event, StreamId, StreamInfo, Trace, TraceHeader, TraceSummary, TraceWriter,
};
use serde_json::Value;

/// The machine of the bundled SeaBIOS capture, in the words of both kinds of machine.
const SEABIOS: &str = "ram=64M,disks=16M,disk_slot=2,chips=full-serial";
/// What its QEMU had besides: an IDE CD drive and a parallel port, and no graphics.
const SEABIOS_QEMU: &str = "qemu,accel=qtest,defaults=on,args=-vga none -nic none";

/// The machine of the Linux boot.
const LINUX: &str = "ram=256M,disks=16M,disk_slot=3,chips=full-debugcon";
const LINUX_QEMU: &str = "qemu,accel=qtest,defaults=on,args=-nic none";

fn replay(dir: &Path, code: i32, machine: &str, options: &str) -> Value {
    let args = ["--test", "mmio-trace", "--format", "json", "--machine", machine, options];
    let text = expect(dir, code, ["replay"].into_iter().chain(args));
    serde_json::from_str(&text).expect("a JSON report")
}

fn number(report: &Value, path: &str) -> u64 {
    report.pointer(path).and_then(Value::as_u64).unwrap_or_else(|| panic!("no {path}"))
}

/// Names of regions with reads that were not as recorded, ignored or not.
fn differing(report: &Value) -> Vec<&str> {
    let regions = report["regions"].as_array().expect("regions");
    let differs = |region: &&Value| number(region, "/reads") != number(region, "/equal");
    regions.iter().filter(differs).filter_map(|region| region["name"].as_str()).collect()
}

fn seabios() -> String {
    format!("tracefile={},{SEABIOS}", repo().join("traces/seabios-pc.qtrace").display())
}

#[test]
fn seabios_reads_on_qemu_what_it_read() {
    if !qtest_qemu() {
        return;
    }
    let dir = tempfile::tempdir().expect("a folder");
    let report = replay(dir.path(), 0, SEABIOS_QEMU, &seabios());
    let machine = report["machine"].as_str().expect("a machine");
    assert!(machine.starts_with("qemu ") && machine.ends_with(" pc (qtest)"), "{machine}");
    assert_eq!(report["time_grade"], "clock-stepped");
    assert_eq!(number(&report, "/done/reads"), 891);
    assert_eq!(report["mismatches"].as_array().map(Vec::len), Some(0), "{}", report["mismatches"]);
    // A counter, and registers that answer their own CPU only.
    assert_eq!(differing(&report), ["acpi-tmr", "apic-msi"]);
    let notes = report["notes"].to_string();
    assert!(notes.contains("apic-msi: a local APIC answers its own CPU only"), "{notes}");
    // The clock went as far as the recording's, to the nanosecond: from the phase of its second.
    let stepped = number(&report, "/duration_ns");
    let still = replay(dir.path(), 0, SEABIOS_QEMU, &format!("{},time=0", seabios()));
    let phase = number(&still, "/duration_ns");
    assert!(phase < 1_000_000_000 && stepped > phase, "{phase} {stepped}");
    let trace = Trace::open(&repo().join("traces/seabios-pc.qtrace")).expect("the trace");
    let mut last = Nanos(0);
    let mut cursor = trace.cursor(0);
    while let Some((_, event)) = cursor.next().expect("an event") {
        last = event.time();
    }
    assert_eq!(stepped - phase, last.0);
}

#[test]
fn a_qemu_without_the_recorded_devices_says_so() {
    if !qtest_qemu() {
        return;
    }
    let dir = tempfile::tempdir().expect("a folder");
    let report = replay(dir.path(), 1, "qemu,accel=qtest", &seabios());
    let notes = report["notes"].to_string();
    assert!(notes.contains("ide") && notes.contains("defaults=on"), "{notes}");
    let fails = |code: i32, machine: &str, options: &str, words: &[&str]| {
        let options = format!("{},{options}", seabios());
        let args = ["replay", "--test", "mmio-trace", "--machine", machine, &options];
        let out = qtrace(dir.path(), args);
        let stderr = String::from_utf8_lossy(&out.stderr);
        assert_eq!(out.status.code(), Some(code), "{machine} {options}: {stderr}");
        assert!(words.iter().all(|word| stderr.contains(word)), "{machine} {options}: {stderr}");
    };
    fails(2, "qemu,ram=64M", "", &["ram=64M", "leave one of them out"]);
    fails(2, "qemu,type=q35", "board=pc", &["board=pc", "type="]);
    fails(5, "qemu,binary=/nonexistent", "", &["/nonexistent"]);
    fails(5, "qemu,args=-device no-such-thing", "", &["no-such-thing"]);
}

#[test]
fn a_linux_boot_reads_on_qemu_what_it_read_but_for_counters() {
    if !qtest_qemu() {
        return;
    }
    let dir = tempfile::tempdir().expect("a folder");
    let Some(capture) = shared("guest/virtio-raw-mmio.trace.xz") else { return };
    expect(dir.path(), 0, ["import", capture.to_str().expect("UTF-8"), "-o", "t.qtrace"]);
    // Every read counts, counters too.
    let exact = format!("tracefile=t.qtrace,{LINUX},defaults=off,fail_below=98.9");
    let report = replay(dir.path(), 0, LINUX_QEMU, &exact);
    let equal =
        |report: &Value| number(report, "/modelled/equal") + number(report, "/foreign/equal");
    let (reads, stepped) = (number(&report, "/done/reads"), equal(&report));
    println!("{stepped} of {reads} reads are equal");
    assert_eq!(reads, 71_605);
    assert!(stepped * 1000 >= reads * 989, "{stepped} of {reads}");
    for name in differing(&report) {
        assert!(
            ["acpi-tmr", "apic-msi", "hpet", "pcspk", "pit"].contains(&name),
            "{name}: {}",
            report["mismatches"]
        );
    }
    let seconds = number(&report, "/wall/elapsed_ns") / 1_000_000_000;
    assert!(seconds < 60, "{}", report["wall"]);
    let still = replay(dir.path(), 0, LINUX_QEMU, &format!("{exact},time=0"));
    println!("{} with a clock that stands still", equal(&still));
    assert!(equal(&still) < stepped);
    // What differs are the counters, and the default policy knows them.
    replay(dir.path(), 0, LINUX_QEMU, &format!("tracefile=t.qtrace,{LINUX}"));
}

#[test]
fn a_qemu_that_is_killed_in_the_middle_is_a_finding() {
    if !qtest_qemu() {
        return;
    }
    const EVENTS: u64 = 20_000;
    const KILLED_AT: u64 = 8_192;
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("t.qtrace");
    let mut writer = TraceWriter::create(&path, TraceHeader::default()).expect("a trace");
    let port = StreamInfo { device: "port".into(), ..StreamInfo::default() };
    writer.stream(port).expect("a stream");
    for number in 0..EVENTS {
        // The index of the RTC's RAM, and what it holds.
        let write = number.is_multiple_of(2);
        let (addr, value) = if write { (0x70, 0x40) } else { (0x71, 0) };
        let access = BusAccess { space: BusSpace::Pio, write, addr, size: 1, value };
        let bus = BusEvent { time: Nanos(number), stream: StreamId(0), access, cpu: None };
        writer.event(&Event::Bus(bus)).expect("an event");
    }
    writer.finish(TraceSummary::default()).expect("the end");
    let trace = Trace::open(&path).expect("the trace");
    let config = Config::parse(PORT_TEST, &[format!("tracefile={}", path.display())]);
    let plan = config.and_then(|config| config.plan(&trace)).expect("a plan");
    let config = QemuConfig { time: Time::Stepped, ..QemuConfig::default() };
    let mut machine = QemuMachine::new(config).expect("a QEMU");
    let process = nix::unistd::Pid::from_raw(machine.process_id() as i32);
    let reached = AtomicU64::new(0);
    let report = session::replay(
        &trace,
        &plan,
        Has::ALL,
        &mut machine,
        &AtomicBool::new(false),
        &mut |event, _| {
            reached.store(event, Ordering::Relaxed);
            if event == KILLED_AT {
                nix::sys::signal::kill(process, nix::sys::signal::SIGKILL).expect("killed");
            }
        },
    )
    .expect("a report");
    let death = report.died.as_ref().expect("a finding");
    assert_eq!(death.obituary.what, End::Signal { number: 9, name: "SIGKILL".into() });
    assert!((KILLED_AT..EVENTS).contains(&death.event), "{}", death.event);
    assert!(reached.into_inner() < EVENTS);
    let commands = &death.obituary.last_commands;
    assert!(commands.iter().any(|(text, _)| text.starts_with("inb 0x71")), "{commands:?}");
    assert!(death.obituary.command.contains("-machine pc"), "{}", death.obituary.command);
    assert_eq!(report.mismatches, []);
    assert_eq!(session::exit_code(&report), 1);
}

/// What a debugger's look at a port leaves: no vCPU makes it, and it is lost; the summary says so.
#[test]
fn a_qemu_with_no_accelerator_but_qtest_is_recorded_and_losses_are_told() {
    use std::io::Write;
    use std::process::{Command, Stdio};

    use qtrace::machine::qemu::{Mode, probe};
    if !qtest_qemu() {
        return;
    }
    let qemu = probe::choose(None, Some(Mode::Qtest)).expect("it was found").0;
    let dir = tempfile::tempdir().expect("a folder");
    let mut recorder = Command::new(QTRACE)
        .args(["record", "qemu", "--bus", "-o", "t.qtrace", "--"])
        .arg(qemu)
        .args("-machine pc,accel=qtest -nodefaults -display none -monitor stdio".split(' '))
        .current_dir(dir.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("qtrace runs");
    let mut monitor = recorder.stdin.take().expect("a pipe");
    monitor.write_all(b"i /b 0x71\nquit\n").expect("written");
    let out = recorder.wait_with_output().expect("its end");
    let stderr = String::from_utf8_lossy(&out.stderr);
    assert_eq!(out.status.code(), Some(0), "{stderr}");
    assert!(stderr.contains("lost       "), "{stderr}");
}
