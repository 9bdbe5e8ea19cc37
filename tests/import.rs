//! `qtrace import` as a user meets it: exit codes, output, what it leaves behind.

mod common;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

const IOLOG: &str = "fio version 3 iolog\n1 /d add\n5 /d read 0 512\n9 /d write 512 4096\n";

fn qtrace(dir: &Path, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_qtrace"));
    command.current_dir(dir).arg("import").args(args).stdin(Stdio::null());
    command.output().expect("the program starts")
}

fn folder(files: &[(&str, &[u8])]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a temporary folder");
    for (name, content) in files {
        std::fs::write(dir.path().join(name), content).expect("a file");
    }
    dir
}

/// Everything in `dir`, sorted: an import must leave its output there and nothing else.
fn names(dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir).expect("a folder");
    let name = |entry: std::io::Result<std::fs::DirEntry>| entry.map(|entry| entry.file_name());
    let mut names: Vec<_> = entries
        .map(|entry| name(entry).expect("an entry").to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn json(output: &Output) -> serde_json::Value {
    serde_json::from_slice(&output.stdout).expect("one JSON document on stdout")
}

fn gzip(data: &[u8]) -> Vec<u8> {
    let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gz.write_all(data).expect("gzip");
    gz.finish().expect("gzip")
}

#[test]
fn a_summary_says_what_was_read_and_what_it_lacks() {
    let dir = folder(&[("a.iolog", IOLOG.as_bytes())]);
    let output = qtrace(dir.path(), &["a.iolog", "-o", "t.qtrace"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    for wanted in
        ["format     fio-iolog", "2 requests", "lacks      write-data", "lost       nothing"]
    {
        assert!(text.contains(wanted), "{wanted} in {text}");
    }
    let output = qtrace(dir.path(), &["a.iolog", "-o", "u.qtrace", "--format", "json"]);
    let document = json(&output);
    assert_eq!(document["events"], 2);
    assert_eq!(document["ops"], serde_json::json!({"read": 1, "write": 1}));
    assert_eq!(document["bytes"]["write"], 4096);
    assert_eq!(names(dir.path()), ["a.iolog", "t.qtrace", "u.qtrace"]);
}

#[test]
fn the_written_trace_holds_what_the_summary_says() {
    let dir = folder(&[("a.iolog", IOLOG.as_bytes())]);
    assert!(qtrace(dir.path(), &["a.iolog", "-o", "t.qtrace"]).status.success());
    let trace = qtrace::trace::Trace::open(&dir.path().join("t.qtrace")).expect("a trace");
    assert_eq!(trace.events(), 2);
    assert_eq!(trace.header().source_format, "fio-iolog");
    assert_eq!(trace.streams()[0].device, "/d");
    assert!(trace.truncation().is_none());
}

#[test]
fn an_existing_output_is_kept_unless_forced() {
    let dir = folder(&[("a.iolog", IOLOG.as_bytes()), ("t.qtrace", b"precious")]);
    let output = qtrace(dir.path(), &["a.iolog", "-o", "t.qtrace"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("--force"), "{}", stderr(&output));
    assert_eq!(std::fs::read(dir.path().join("t.qtrace")).expect("kept"), b"precious");
    let output = qtrace(dir.path(), &["a.iolog", "-o", "t.qtrace", "--force"]);
    assert_eq!(output.status.code(), Some(0));
    // Neither the input itself nor what is no file is ever replaced.
    let output = qtrace(dir.path(), &["a.iolog", "-o", "./a.iolog", "--force"]);
    assert_eq!(output.status.code(), Some(2));
    let output = qtrace(dir.path(), &["a.iolog", "-o", "/dev/null", "--force"]);
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(std::fs::read(dir.path().join("a.iolog")).expect("kept"), IOLOG.as_bytes());
}

#[test]
fn exit_codes_of_bad_input() {
    let empty = "fio version 3 iolog\n1 /d add\n";
    let garbage = "fio version 3 iolog\nwhat\nis\nthis\n";
    let dir = folder(&[
        ("noise", b"\x00\x01\x02 nothing anybody knows"),
        ("empty", b""),
        ("no-requests", empty.as_bytes()),
        ("garbage", garbage.as_bytes()),
        ("own.qtrace", b"QTRACE\r\n and so on"),
    ]);
    let before = names(dir.path());
    for (args, code, says) in [
        (&["noise"][..], 3, "--from"),
        (&["empty"], 3, "empty"),
        (&["missing"], 3, "no such file"),
        (&["no-requests"], 4, "no block request"),
        (&["garbage"], 3, "malformed line at line 2"),
        (&["own.qtrace"], 3, "already"),
        (&["noise", "--from", "blktrace"], 3, "wrong magic"),
        (&["noise", "--from", "fio-iolg"], 2, "did you mean fio-iolog?"),
        (&["garbage", "no-requests"], 2, "takes one input"),
        (&["."], 2, "is a folder"),
    ] {
        let mut args = args.to_vec();
        args.extend(["-o", "t.qtrace"]);
        let output = qtrace(dir.path(), &args);
        assert_eq!(output.status.code(), Some(code), "{args:?}: {}", stderr(&output));
        assert!(stderr(&output).contains(says), "{args:?}: {}", stderr(&output));
        assert_eq!(names(dir.path()), before, "{args:?} leaves nothing");
    }
}

#[test]
fn a_cut_input_is_imported_to_the_cut_and_exits_7() {
    let gz = gzip(IOLOG.as_bytes());
    let dir = folder(&[("a.gz", &gz[..gz.len() - 4])]);
    let output = qtrace(dir.path(), &["a.gz", "-o", "t.qtrace", "--format", "json"]);
    assert_eq!(output.status.code(), Some(7));
    assert!(stderr(&output).contains("gzip input ends before its own end"), "{}", stderr(&output));
    assert_eq!(json(&output)["events"], 2);
    assert_eq!(names(dir.path()), ["a.gz", "t.qtrace"]);
}

#[test]
fn standard_input_is_an_input() {
    let dir = folder(&[]);
    let mut child = Command::new(env!("CARGO_BIN_EXE_qtrace"))
        .current_dir(dir.path())
        .args(["import", "-", "-o", "t.qtrace"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .expect("the program starts");
    let mut stdin = child.stdin.take().expect("a pipe");
    stdin.write_all(&gzip(IOLOG.as_bytes())).expect("written");
    drop(stdin);
    assert!(child.wait().expect("it ends").success());
    assert_eq!(names(dir.path()), ["t.qtrace"]);
}

#[test]
fn a_stop_leaves_nothing_behind() {
    let dir = folder(&[]);
    let mut child = Command::new(env!("CARGO_BIN_EXE_qtrace"))
        .current_dir(dir.path())
        .args(["import", "-", "-o", "t.qtrace", "--from", "fio-iolog"])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts");
    let mut stdin = child.stdin.take().expect("a pipe");
    // More than the sorter holds, so that the temporary output exists when the stop comes.
    stdin.write_all(b"fio version 3 iolog\n").expect("written");
    let line = b"5 /d write 0 512\n".repeat(1000);
    for _ in 0..300 {
        stdin.write_all(&line).expect("written");
    }
    let pid = nix::unistd::Pid::from_raw(i32::try_from(child.id()).expect("a pid"));
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT).expect("sent");
    // The pipe stays open: the program must notice while it has nothing to read.
    let status = child.wait().expect("it ends");
    drop(stdin);
    assert_eq!(status.code(), Some(130));
    assert_eq!(names(dir.path()), [""; 0]);
}

#[test]
fn a_full_disk_is_an_error_and_leaves_nothing() {
    // Its own mount namespace: nothing stays mounted, whatever happens.
    let mut iolog = String::from("fio version 3 iolog\n");
    for n in 0..20_000u32 {
        iolog.push_str(&format!("{n} /d write {} 512\n", u64::from(n.wrapping_mul(40_503)) * 512));
    }
    let dir = folder(&[("a.iolog", iolog.as_bytes())]);
    std::fs::create_dir(dir.path().join("small")).expect("a folder");
    let script = "mount -t tmpfs -o size=64k none small || exit 99
        \"$0\" import a.iolog -o small/t.qtrace
        code=$?
        ls -A small
        exit $code";
    let output = Command::new("unshare")
        .args(["-rm", "sh", "-c", script, env!("CARGO_BIN_EXE_qtrace")])
        .current_dir(dir.path())
        .output();
    let output = match output {
        Ok(output) if !matches!(output.status.code(), Some(1 | 99)) => output,
        _ => return eprintln!("skipped: cannot mount a small tmpfs here"),
    };
    assert_eq!(output.status.code(), Some(7), "{}", stderr(&output));
    assert!(stderr(&output).contains("free space"), "{}", stderr(&output));
    assert_eq!(String::from_utf8_lossy(&output.stdout), "", "nothing is left there");
}

/// The folder of real samples, when this machine has it.
fn samples() -> Option<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let found = root.ancestors().skip(1).take(3).map(|up| up.join("shared/data"));
    let found = found.into_iter().find(|path| path.is_dir());
    if found.is_none() {
        eprintln!("skipped: no real samples beside this checkout");
    }
    found
}

/// Every public sample of a data set, found by content: format, requests, reads, completions.
#[test]
fn samples_of_data_sets_come_in_whole() {
    let Some(samples) = samples() else { return };
    let dir = folder(&[]);
    for (input, format, requests, reads, completions) in [
        ("msr-cambridge/msr-cambridge1-sample.csv", "msr-csv", 1000, None, 1000),
        ("spc-umass-documented/spec-example.spc", "spc", 8, Some(2), 0),
        ("systor17/systor17-additional-sample.csv.gz", "systor17", 999, Some(700), 999),
        ("systor17/systor17-traces-sample.csv.gz", "systor17", 999, Some(826), 999),
        ("alibaba-block-documented/rows.csv", "alibaba", 7, Some(2), 0),
        ("tencent-cbs/cloud_storage-sample.bz2", "tencent", 50_000, None, 0),
        ("cloudphysics-vscsi/cloudPhysicsIO.head10000.vscsi1", "vscsi", 10_000, Some(1424), 0),
        ("fiu-documented/rows.txt", "fiu", 1, Some(1), 0),
        ("blkreplay-load/windows-shared-server.load.gz", "blkreplay", 1371, None, 0),
        ("hfplayer-netapp/sampleTrace.csv", "hfplayer", 19, Some(19), 19),
        ("hfplayer-netapp/sample_raw.head.trace", "hfplayer", 299, Some(167), 0),
        ("disksim/ascii.head2000.trace", "disksim", 2000, Some(1615), 0),
        ("disksim/cheetah9LP.validate.head500.trace", "disksim-validate", 500, Some(317), 500),
        ("mqsim/wsrch-small.head.trace", "mqsim", 2000, None, 0),
    ] {
        let path = samples.join("traces").join(input).display().to_string();
        let args = [&path, "-o", "t.qtrace", "--force", "--format", "json"];
        let output = qtrace(dir.path(), &args);
        assert_eq!(output.status.code(), Some(0), "{input}: {}", stderr(&output));
        let document = json(&output);
        assert_eq!(document["format"], format, "{input}");
        let count = |op: &str| document["ops"][op].as_u64().unwrap_or(0);
        assert_eq!(count("read") + count("write"), requests, "{input}");
        assert!(reads.is_none_or(|reads| count("read") == reads), "{input}: {document}");
        assert_eq!(document["completions"], completions, "{input}");
        assert_eq!(document["losses"], serde_json::json!([]), "{input}");
        let lacks = document["not_recorded"].to_string().contains("completions");
        assert_eq!(lacks, completions == 0, "{input}");
    }
    // btrecord's packets without bytes are flushes or other commands: it does not say.
    for (input, packets, empty) in [("vdc.replay.0", 457, 9), ("vdc.replay.1", 548, 5)] {
        let path = samples.join("traces/btrecord").join(input).display().to_string();
        let args = [&path, "-o", "t.qtrace", "--force", "--format", "json"];
        let document = json(&qtrace(dir.path(), &args));
        assert_eq!(document["format"], "btrecord");
        assert_eq!(document["events"], packets - empty);
        assert_eq!(document["losses"][0]["count"], empty);
    }
    // The one format that says neither what is read and written nor what an address counts.
    let name = "traces/oraclegeneral/cloudPhysicsIO.head10000.oracleGeneral.bin";
    let path = samples.join(name).display().to_string();
    let output = qtrace(dir.path(), &[&path, "-o", "t.qtrace", "--force"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("--op read --unit sector"), "{}", stderr(&output));
    let args = [&path, "-o", "t.qtrace", "--force", "--op", "write", "--unit", "sector"];
    assert_eq!(qtrace(dir.path(), &args).status.code(), Some(0));
    let trace = qtrace::trace::Trace::open(&dir.path().join("t.qtrace")).expect("a trace");
    assert_eq!(trace.events(), 10_000);
}

#[test]
fn data_sets_are_merged_picked_from_and_told_units() {
    let a = "1577808000000001,x\n7,R,0,512,1577808000000009\n7,R,512,512,1577808000000003\n";
    let b = "9,W,0,512,1577808000000005\n";
    let dir = folder(&[("a.csv", a.as_bytes()), ("b.csv", b.as_bytes())]);
    let from = ["--from", "alibaba", "-o", "t.qtrace", "--force", "--format", "json"];
    let import = |args: &[&str]| qtrace(dir.path(), &[args, &from].concat());
    let output = import(&["a.csv", "b.csv"]);
    let document = json(&output);
    assert_eq!(document["ops"], serde_json::json!({"read": 2, "write": 1}));
    assert_eq!(document["losses"][0]["first"], "line 1");
    let trace = qtrace::trace::Trace::open(&dir.path().join("t.qtrace")).expect("a trace");
    let mut cursor = trace.cursor(0);
    let next = || cursor.next().expect("events").map(|(_, event)| event.time().0);
    let times: Vec<_> = std::iter::from_fn(next).collect();
    assert_eq!(times, [0, 2000, 6000]);
    let output = import(&["a.csv", "b.csv", "--device", "9"]);
    assert_eq!(json(&output)["ops"], serde_json::json!({"write": 1}));
    let output = import(&["a.csv", "--time-unit", "us"]);
    assert!(json(&output)["interpretation"].to_string().contains("as told"));
    for (args, says) in [
        (&["a.csv", "--unit", "byte"][..], "spc, tencent"),
        (&["a.csv", "--op", "read"], "it is for oracle-general"),
        (&["a.csv", "--op", "flush"], "read or write"),
        (&["a.csv", "--unit", "0"], "sector, byte, or a size"),
    ] {
        let output = import(args);
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        assert!(stderr(&output).contains(says), "{args:?}: {}", stderr(&output));
    }
}

#[test]
fn per_cpu_files_and_their_merge_give_the_same_bytes() {
    let Some(samples) = samples() else { return };
    let real = samples.join("traces/blktrace-binary-percpu-virtio");
    let dir = folder(&[]);
    for stage in ["Q", "D"] {
        let mut traces = Vec::new();
        for (n, names) in
            [&["vdc"][..], &["vdc.blktrace.1", "vdc.blktrace.0"], &["vdc.bin"]].iter().enumerate()
        {
            let out = format!("{stage}{n}.qtrace");
            let inputs: Vec<_> =
                names.iter().map(|name| real.join(name).display().to_string()).collect();
            let mut args: Vec<_> = inputs.iter().map(String::as_str).collect();
            args.extend(["-o", &out, "--stage", stage]);
            let output = qtrace(dir.path(), &args);
            assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
            traces.push(std::fs::read(dir.path().join(out)).expect("a trace"));
        }
        assert!(traces.windows(2).all(|pair| pair[0] == pair[1]), "stage {stage}");
    }
    // One file of two is imported, and the other is spoken of.
    let one = real.join("vdc.blktrace.0").display().to_string();
    let output = qtrace(dir.path(), &[&one, "-o", "one.qtrace"]);
    assert!(String::from_utf8_lossy(&output.stdout).contains("1 file of another CPU"));
}

#[test]
fn a_device_size_that_is_told_is_kept_and_used() {
    let dir = tempfile::tempdir().expect("a folder");
    let log = common::inputs::log_writes(&[common::inputs::write(0, 8, 1)]);
    std::fs::write(dir.path().join("t.log"), log).expect("log");
    let import = ["import", "t.log", "-o", "t.qtrace", "--force", "--device-size"];
    common::expect(dir.path(), 0, import.iter().chain(&["16M"]));
    let info = common::expect(dir.path(), 0, ["info", "t.qtrace", "--format", "json"]);
    let info: serde_json::Value = serde_json::from_str(&info).expect("JSON");
    assert!(!info["not_recorded"].to_string().contains("device-size"), "{info:#}");
    let report = common::replay(dir.path(), 0, "tracefile=t.qtrace,target_fmt=mem");
    assert_eq!(report["target"]["size"], 16 << 20);
    for wrong in ["16q", "0", "1000"] {
        common::expect(dir.path(), 2, import.iter().chain(&[wrong]));
    }
}

const MSR: &str = "128166372003061629,hm,1,Read,383496192,32768,413\n\
                   128166372016382155,hm,2,Write,310382592,20480,1248\n";

#[test]
fn options_that_cannot_be_meant_are_refused_and_nothing_is_written() {
    let mut log = common::inputs::log_writes(&[common::inputs::write(0, 8, 1)]);
    // The entry's number of sectors: more than 256 GiB.
    log[512 + 8..512 + 16].copy_from_slice(&(1u64 << 40).to_le_bytes());
    let dir =
        folder(&[("m.csv", MSR.as_bytes()), ("a.iolog", IOLOG.as_bytes()), ("bad.log", &log)]);
    let before = names(dir.path());
    for (args, code, says) in [
        (&["m.csv", "--stage", "D"][..], 2, "it is for blktrace"),
        (&["m.csv", "--iolog-wait", "ms"], 2, "it is for fio-iolog"),
        (&["a.iolog", "--uncounted"], 2, "it is for dm-log-writes"),
        (
            &["m.csv", "--device", "zzz"],
            4,
            "no request of a device 'zzz' in it; devices: hm_1, hm_2",
        ),
        (&["a.iolog", "--device-size", "4096"], 2, "--device-size 4608 or more"),
        (&["bad.log"], 3, "impossible length at bad.log offset 512"),
    ] {
        let mut args = args.to_vec();
        args.extend(["-o", "t.qtrace"]);
        let output = qtrace(dir.path(), &args);
        assert_eq!(output.status.code(), Some(code), "{args:?}: {}", stderr(&output));
        assert!(stderr(&output).contains(says), "{args:?}: {}", stderr(&output));
        assert_eq!(names(dir.path()), before, "{args:?} leaves nothing");
    }
    let fits = ["a.iolog", "-o", "t.qtrace", "--device-size", "4608"];
    assert_eq!(qtrace(dir.path(), &fits).status.code(), Some(0));
}

#[test]
fn an_input_cut_in_its_first_bytes_is_not_called_empty() {
    let gz = gzip(IOLOG.as_bytes());
    let zst = zstd::encode_all(IOLOG.as_bytes(), 1).expect("zstd");
    let dir = folder(&[("1", &gz[..1]), ("12", &gz[..12]), ("zst", &zst[..6])]);
    for (input, says) in [("1", "this gzip input is cut"), ("12", "gzip"), ("zst", "this zstd")] {
        let output = qtrace(dir.path(), &[input, "-o", "t.qtrace"]);
        assert_eq!(output.status.code(), Some(3), "{}", stderr(&output));
        let stderr = stderr(&output);
        assert!(stderr.contains(says) && stderr.contains("is cut before"), "{stderr}");
    }
}

#[test]
fn a_link_to_nothing_yet_is_followed() {
    let dir = folder(&[("a.iolog", IOLOG.as_bytes())]);
    std::fs::create_dir(dir.path().join("far")).expect("a folder");
    let link = dir.path().join("t.qtrace");
    std::os::unix::fs::symlink("far/real.qtrace", &link).expect("a link");
    let output = qtrace(dir.path(), &["a.iolog", "-o", "t.qtrace"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert!(link.is_symlink(), "the link is kept");
    assert_eq!(names(&dir.path().join("far")), ["real.qtrace"]);
    std::os::unix::fs::symlink("loop", dir.path().join("loop")).expect("a link");
    let output = qtrace(dir.path(), &["a.iolog", "-o", "loop"]);
    assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
}

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

/// Far more disorder than any window holds: the whole is sorted on disk, and its time counts from
/// the earliest event, which comes last.
#[test]
fn what_no_window_can_mend_is_sorted_on_disk() {
    let rows = 400_000u64;
    let mut text = String::new();
    for n in (0..rows).rev() {
        let us = 1_577_808_000_000_000 + n / 2;
        text.push_str(&format!("{},W,{},4096,{us}\n", n % 3, n * 4096));
    }
    let dir = folder(&[("reversed.csv", text.as_bytes())]);
    let args = ["reversed.csv", "-o", "t.qtrace", "--format", "json"];
    let output = qtrace(dir.path(), &args);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert!(json(&output)["notes"].to_string().contains("sorted on disk"));
    let trace = qtrace::trace::Trace::open(&dir.path().join("t.qtrace")).expect("a trace");
    assert_eq!(trace.events(), rows);
    assert_eq!(trace.header().origin_unix_ns, Some(1_577_808_000_000_000_000));
    let mut last = 0;
    let mut cursor = trace.cursor(0);
    while let Some((n, event)) = cursor.next().expect("an event") {
        let time = event.time().0;
        assert_eq!(time, n / 2 * 1000);
        assert!(time >= last);
        last = time;
    }
    assert_eq!(names(dir.path()), ["reversed.csv", "t.qtrace"]);
}

/// `Reads Queued: 134, 1337KiB` of the totals that blkparse prints: requests and KiB, by title.
fn blkparse_totals(text: &str) -> std::collections::BTreeMap<String, (u64, u64)> {
    // With files of several CPUs there is a block for all of them; with one there is one block.
    let from = text.find("\nTotal (").unwrap_or_else(|| text.rfind("\nCPU").unwrap_or(0));
    let mut totals = std::collections::BTreeMap::new();
    for part in text[from..].split(['\n', '\t']) {
        let Some((title, rest)) = part.split_once(':') else { continue };
        let mut numbers = rest.split(',').map(|n| n.trim().trim_end_matches("KiB").parse::<u64>());
        if let (Some(Ok(count)), Some(Ok(kib))) = (numbers.next(), numbers.next()) {
            totals.insert(title.trim().to_owned(), (count, kib));
        }
    }
    totals
}

#[test]
fn counts_agree_with_blkparses_own_summary() {
    if !common::have("blkparse") {
        return;
    }
    let Some(sample) = common::shared("traces/blktrace-binary-percpu-virtio") else { return };
    let out = Command::new("blkparse")
        .args(["-i", "vdc"])
        .arg("-D")
        .arg(&sample)
        .output()
        .expect("blkparse runs");
    let totals = blkparse_totals(&String::from_utf8_lossy(&out.stdout));
    let dir = folder(&[]);
    let base = sample.join("vdc");
    let base = base.to_str().expect("UTF-8");
    for (stage, reads, writes) in
        [("Q", "Reads Queued", "Writes Queued"), ("D", "Read Dispatches", "Write Dispatches")]
    {
        let out = format!("{stage}.qtrace");
        let args = [base, "-o", &out, "--stage", stage, "--format", "json"];
        let output = qtrace(dir.path(), &args);
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        let document = json(&output);
        let sum = |member: &str, ops: &[&str]| -> u64 {
            ops.iter().filter_map(|op| document[member][*op].as_u64()).sum()
        };
        // What blkparse calls a write is everything that is no read; a dispatched flush is a read
        // of nothing to it.
        let others: &[&str] = &["write", "discard", "write-zeroes"];
        let flushes = document["ops"]["flush"].as_u64().unwrap_or(0);
        let (read_flushes, write_flushes) = if stage == "Q" { (0, flushes) } else { (flushes, 0) };
        let read = (sum("ops", &["read"]) + read_flushes, sum("bytes", &["read"]) / 1024);
        let written = (sum("ops", others) + write_flushes, sum("bytes", others) / 1024);
        assert_eq!(totals.get(reads), Some(&read), "{stage}: {totals:?}");
        assert_eq!(totals.get(writes), Some(&written), "{stage}: {totals:?}");
    }
}

/// Sends Ctrl-C to an import that waits for input, and gives its exit code; `None` if it waits on.
fn interrupted(dir: &Path, input: &Path) -> Option<i32> {
    let mut child = Command::new(env!("CARGO_BIN_EXE_qtrace"))
        .current_dir(dir)
        .args(["import", "-o", "t.qtrace", "--from", "ftrace"])
        .arg(input)
        .stderr(Stdio::null())
        .spawn()
        .expect("the program starts");
    let pid = nix::unistd::Pid::from_raw(child.id().cast_signed());
    // Time enough to begin to watch for it: before that a signal ends the program at once.
    std::thread::sleep(std::time::Duration::from_secs(1));
    for _ in 0..100 {
        std::thread::sleep(std::time::Duration::from_millis(100));
        if let Some(status) = child.try_wait().expect("the child") {
            return status.code();
        }
        let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT);
    }
    child.kill().expect("killed");
    child.wait().expect("the child");
    None
}

/// It is a regular file by its looks, and a read of it waits for events.
#[test]
fn an_import_of_a_silent_trace_pipe_can_be_stopped() {
    let name = format!("/sys/kernel/tracing/instances/qtrace-test-{}", std::process::id());
    let instance = Path::new(&name);
    if let Err(error) = std::fs::create_dir(instance) {
        eprintln!("skipped: no instance of the kernel's tracer: {error}");
        return;
    }
    let dir = folder(&[]);
    let code = interrupted(dir.path(), &instance.join("trace_pipe"));
    std::fs::remove_dir(instance).expect("the instance goes again");
    assert_eq!(code, Some(130));
    assert_eq!(names(dir.path()), [""; 0]);
}

#[test]
fn an_input_given_twice_is_refused() {
    let dir = folder(&[("a.csv", b"128166372003061629,h,0,Read,0,512,1\n")]);
    for inputs in [["a.csv", "./a.csv"], ["-", "-"]] {
        let output = qtrace(dir.path(), &[&inputs[..], &["-o", "t.qtrace"]].concat());
        assert_eq!(output.status.code(), Some(2));
        assert!(stderr(&output).contains("given twice"), "{}", stderr(&output));
    }
    assert_eq!(names(dir.path()), ["a.csv"]);
}

/// One line of garbage costs one record, and not the trace.
#[test]
fn a_line_that_is_too_long_is_one_lost_record() {
    let row = |n: u32| format!("1281663720030616{n:02},h,0,Read,{},512,1\n", n * 512);
    let long = format!("{}\n", "a".repeat(300_000));
    let text = [row(10), long, row(11)].concat();
    let dir = folder(&[("a.csv", text.as_bytes())]);
    let output = qtrace(dir.path(), &["a.csv", "-o", "t.qtrace", "--format", "json"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let summary = json(&output);
    assert_eq!(summary["ops"]["read"], 2);
    assert_eq!(summary["losses"][0]["count"], 1);
    assert_eq!(summary["losses"][0]["first"], "line 2");
}

#[test]
fn an_input_of_another_format_is_not_lost_among_others() {
    let msr = b"128166372003061629,h,0,Read,0,512,1\n";
    let spc = b"0,20941264,8192,W,0.551706\n0,20939840,8192,W,0.554041\n";
    let dir = folder(&[("a.csv", msr), ("b.spc", spc)]);
    let output = qtrace(dir.path(), &["a.csv", "b.spc", "-o", "t.qtrace"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("b.spc: this is spc"), "{}", stderr(&output));
    // Forced to one, what is none of it is said to be something else.
    let output = qtrace(dir.path(), &["b.spc", "-o", "t.qtrace", "--from", "msr-csv"]);
    assert_eq!(output.status.code(), Some(3));
    assert!(stderr(&output).contains("it is spc: leave --from out"), "{}", stderr(&output));
    assert_eq!(names(dir.path()), ["a.csv", "b.spc"]);
}

#[test]
fn two_compressions_and_a_damaged_one_are_told_with_what_helps() {
    let twice = gzip(&gzip(IOLOG.as_bytes()));
    let mut damaged = gzip(IOLOG.repeat(100).as_bytes());
    let end = damaged.len();
    damaged[end - 6] ^= 1;
    let dir = folder(&[("twice.gz", &twice), ("bad.gz", &damaged)]);
    for (input, what, hint) in [
        ("twice.gz", "gzip in another", "take the outer"),
        ("bad.gz", "bytes into what gzip", "own tool"),
    ] {
        let output = qtrace(dir.path(), &[input, "-o", "t.qtrace"]);
        assert_eq!(output.status.code(), Some(3));
        let stderr = stderr(&output);
        assert!(stderr.contains(what) && stderr.contains(hint), "{stderr}");
    }
    assert_eq!(names(dir.path()), ["bad.gz", "twice.gz"]);
}
