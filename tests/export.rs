//! `qtrace export`, as a user runs it: what goes out and comes back in, and what a peer reads.

mod common;

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use common::{QTRACE, expect, have, inputs, qtrace, repo, shared};
use serde_json::Value;

fn export(dir: &Path, args: &[&str]) -> Value {
    let all = ["export", "--format", "json"].iter().chain(args);
    serde_json::from_str(&expect(dir, 0, all)).expect("a JSON summary")
}

/// Samples that are tried where they are: names of our own, files or folders, options of the import.
const SAMPLES: [(&str, &str, &[&str]); 20] = [
    ("vdc", "traces/blktrace-binary-percpu-virtio/vdc.bin", &[]),
    ("vdc-issued", "traces/blktrace-binary-percpu-virtio/vdc.bin", &["--stage", "D"]),
    ("fio3", "traces/fio-iolog/fio333-v3-psync.iolog", &[]),
    ("fio2", "traces/fio-iolog/handwritten-v2.iolog", &[]),
    ("cambridge", "traces/msr-cambridge", &[]),
    // Rows without an answer, out of order.
    ("systor", "traces/systor17", &[]),
    ("netapp", "traces/hfplayer-netapp/sampleTrace.csv", &[]),
    ("validate", "traces/disksim/cheetah9LP.validate.head500.trace", &[]),
    // Thousands of devices.
    ("tencent", "traces/tencent-cbs", &[]),
    ("logwrites", "traces/dm-log-writes", &[]),
    ("blklogwrites", "traces/qemu-blklogwrites", &[]),
    ("guest-ide", "guest/ide-raw.blklogwrites.gz", &[]),
    ("guest-virtio", "guest/virtio-qcow2.blklogwrites.gz", &[]),
    ("seabios", "seabios/boot-tcg-ts.log.xz", &[]),
    // Write-zeroes, which most formats do not have.
    ("nvme", "traces/ftrace-events-text/block+nvme.txt.gz", &[]),
    ("nbdkit", "traces/nbdkit-log", &[]),
    ("mmiotrace", "traces/mmiotrace", &[]),
    ("guest-mmio", "guest/virtio-raw-mmio.trace.xz", &[]),
    ("reproducer", "reproducers/1878034.qtest", &[]),
    ("reproducer-dma", "reproducers/1914638.qtest", &[]),
];

/// The formats that come back: endings of names.
const COME_BACK: [&str; 5] = ["iolog", "csv", "blklogwrites", "qtest", "blkparse"];

/// Traces of each kind: from the recipes' inputs, those bundled, and the samples where they are.
fn traces(dir: &Path) -> Vec<PathBuf> {
    inputs::write_all(dir);
    let mut traces = Vec::new();
    let mut import = |name: &str, args: &[&Path]| {
        let out = dir.join(format!("{name}.qtrace"));
        let words = [Path::new("import"), Path::new("-o"), &out];
        expect(
            dir,
            0,
            words.iter().map(|word| word.as_os_str()).chain(args.iter().map(|p| p.as_os_str())),
        );
        traces.push(out);
    };
    import("vda", &[Path::new("vda.blklogwrites.gz")]);
    import("sda", &[Path::new("sda.blktrace.0"), Path::new("sda.blktrace.1")]);
    import("job", &[Path::new("job.iolog")]);
    import("msr", &[Path::new("msr.csv")]);
    import("boot", &[Path::new("boot.log")]);
    for (name, folder, options) in SAMPLES {
        let Some(path) = shared(folder) else { continue };
        let mut args = if path.is_dir() { files_in(&path) } else { vec![path] };
        args.extend(options.iter().map(PathBuf::from));
        import(name, &args.iter().map(PathBuf::as_path).collect::<Vec<_>>());
    }
    traces.push(repo().join("traces/linux-ext4-virtio.qtrace"));
    traces.push(repo().join("traces/seabios-pc.qtrace"));
    traces
}

/// The files of a folder of samples that are no description.
fn files_in(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).expect("a folder");
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
    paths.retain(|path| !path.to_string_lossy().ends_with(".md"));
    paths.sort();
    paths
}

/// The words of a command that a summary prints.
fn words(command: &str) -> Vec<&str> {
    command.split_whitespace().skip(1).collect()
}

#[test]
fn what_goes_out_comes_back_but_for_what_the_format_lacks() {
    let dir = tempfile::tempdir().expect("a folder");
    let dir = dir.path();
    let mut came_back = [0; COME_BACK.len()];
    for trace in traces(dir) {
        for (ending, came_back) in COME_BACK.iter().zip(&mut came_back) {
            let (trace, out) = (trace.to_str().expect("UTF-8"), format!("out.{ending}"));
            let done = qtrace(dir, ["export", trace, "-o", &out, "--format", "json", "--force"]);
            if !done.status.success() {
                // A format that cannot hold such a trace says so, and writes nothing.
                let stderr = String::from_utf8_lossy(&done.stderr).into_owned();
                assert!(matches!(done.status.code(), Some(2 | 4)), "{trace} as {ending}: {stderr}");
                assert!(stderr.contains("hint:"), "{stderr}");
                continue;
            }
            let summary: Value = serde_json::from_slice(&done.stdout).expect("JSON");
            let compare = summary["compare"].as_str().expect("an importer");
            let (import, diff) = compare.split_once("; ").expect("two commands");
            expect(dir, 0, words(import).into_iter().chain(["--force"]));
            let out = qtrace(dir, words(diff));
            let text = String::from_utf8_lossy(&out.stdout);
            assert_eq!(out.status.code(), Some(0), "{trace} as {ending}: {compare}\n{text}");
            assert!(text.contains("the traces are identical (not compared: "), "{text}");
            *came_back += 1;
        }
    }
    // Of those that are made here and bundled, and with the samples.
    let least = if shared("traces").is_some() { [17, 7, 6, 7, 17] } else { [5, 2, 2, 2, 5] };
    assert!(came_back.iter().zip(least).all(|(n, least)| *n >= least), "{came_back:?}");
}

/// An iolog of many requests on a small disk: reads, writes and syncs.
fn long_iolog(requests: u64) -> String {
    let mut iolog = String::from("fio version 3 iolog\n0 /d add\n0 /d open\n");
    for n in 0..requests {
        let offset = n * 7 % 256 * 4096;
        iolog += &match n % 10 {
            0..6 => format!("{n} /d read {offset} 4096\n"),
            6..9 => format!("{n} /d write {offset} 4096\n"),
            _ => format!("{n} /d sync 0 0\n"),
        };
    }
    iolog
}

/// Requests of each kind that an export of a trace has, and fio makes of it.
#[derive(Debug, PartialEq, Eq)]
struct Requests {
    read: u64,
    write: u64,
    trim: u64,
    sync: u64,
}

/// What fio does with the job that goes out with `trace`, on a disk of so many bytes.
fn replayed_by_fio(dir: &Path, trace: &str, disk_bytes: u64) -> Requests {
    let disk = dir.join("disk.raw");
    std::fs::File::create(&disk).and_then(|file| file.set_len(disk_bytes)).expect("a disk");
    let name = disk.to_str().expect("UTF-8");
    export(dir, &[trace, "-o", "t.iolog", "--job", "t.fio", "--file-name", name, "--force"]);
    let out = Command::new("fio")
        .args(["--output-format=json", "--replay_no_stall=1", "t.fio"])
        .current_dir(dir)
        .output()
        .expect("fio runs");
    let stderr = String::from_utf8_lossy(&out.stderr);
    let text = String::from_utf8_lossy(&out.stdout);
    assert!(out.status.success(), "{text}{stderr}");
    assert!(!stderr.contains("bad iolog"), "{stderr}");
    let json: Value = serde_json::from_str(&text[text.find('{').expect("JSON")..]).expect("JSON");
    let job = &json["jobs"][0];
    assert_eq!(job["error"], 0);
    let total = |kind: &str| job[kind]["total_ios"].as_u64().expect("a count");
    // Until version 3.34 fio passes over a trim, and says so.
    let passed_over = stderr.matches("bad ddir: 2").count() as u64;
    let trim = total("trim") + passed_over;
    Requests { read: total("read"), write: total("write"), trim, sync: total("sync") }
}

#[test]
fn fio_replays_the_iolog() {
    if !have("fio") {
        return;
    }
    let dir = tempfile::tempdir().expect("a folder");
    let dir = dir.path();
    inputs::write_all(dir);
    std::fs::write(dir.join("long.iolog"), long_iolog(100_000)).expect("written");
    for (from, to) in [("vda.blklogwrites.gz", "vda"), ("job.iolog", "job"), ("long.iolog", "long")]
    {
        expect(dir, 0, ["import", from, "-o", &format!("{to}.qtrace")]);
    }
    for (trace, read, write, sync) in
        [("vda", 0, 21, 1), ("job", 17, 33, 0), ("long", 60_000, 30_000, 10_000)]
    {
        let found = replayed_by_fio(dir, &format!("{trace}.qtrace"), 1 << 20);
        assert_eq!(found, Requests { read, write, trim: 0, sync }, "{trace}");
    }
    let Some(sample) = shared("traces/blktrace-binary-percpu-virtio/vdc.bin") else { return };
    expect(dir, 0, ["import", sample.to_str().expect("UTF-8"), "-o", "vdc.qtrace"]);
    let found = replayed_by_fio(dir, "vdc.qtrace", 256 << 20);
    // The sample's description: 769 writes, 6 with FUA and 51 that flush first; 14 flushes alone.
    assert_eq!(found, Requests { read: 134, write: 769 + 6 + 51, trim: 31, sync: 14 });
}

#[test]
fn the_log_of_writes_is_the_log_that_was_imported() {
    let dir = tempfile::tempdir().expect("a folder");
    let dir = dir.path();
    let entries = inputs::recipe_entries();
    std::fs::write(dir.join("in.log"), inputs::log_writes(&entries)).expect("written");
    expect(dir, 0, ["import", "in.log", "-o", "t.qtrace"]);
    let summary = export(dir, &["t.qtrace", "-o", "out.blklogwrites"]);
    assert_eq!(summary["losses"], serde_json::json!([]));
    let (before, after) = (dir.join("in.log"), dir.join("out.blklogwrites"));
    let read = |path: &Path| std::fs::read(path).expect("a file");
    assert!(read(&before) == read(&after), "the logs differ");
}

#[test]
fn json_lines_have_every_event_and_a_head() {
    let dir = tempfile::tempdir().expect("a folder");
    let dir = dir.path();
    inputs::write_all(dir);
    expect(dir, 0, ["import", "vda.blklogwrites.gz", "-o", "t.qtrace"]);
    let text = expect(dir, 0, ["export", "t.qtrace", "-o", "-", "--to", "json-lines", "--data"]);
    let lines: Vec<Value> =
        text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(lines.len(), 23);
    assert_eq!(lines[0]["schema"], "qtrace.events/1");
    assert_eq!(lines[1]["data"].as_str().map(str::len), Some(40 * 512 * 2));
    assert_eq!(lines[21]["op"], "flush");
}

#[test]
fn blkparse_text_counts_what_the_trace_counts() {
    let Some(sample) = shared("traces/blktrace-binary-percpu-virtio/vdc.bin") else { return };
    let dir = tempfile::tempdir().expect("a folder");
    let dir = dir.path();
    let sample = sample.to_str().expect("UTF-8");
    expect(dir, 0, ["import", sample, "-o", "t.qtrace"]);
    let text = expect(dir, 0, ["export", "t.qtrace", "-o", "-", "--to", "blkparse"]);
    let queued = |letters: &str| {
        let is = |line: &&str| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            fields.get(5) == Some(&"Q") && fields.get(6).is_some_and(|rwbs| rwbs.contains(letters))
        };
        text.lines().filter(is).count()
    };
    // The counts of the sample's description: the flags and all that writes.
    assert_eq!((queued("R"), queued("W"), queued("D")), (134, 769 + 6 + 51 + 14, 31));
    assert_eq!((queued("FWF"), queued("FW"), queued("WF")), (51, 51 + 14, 51 + 6));
}

/// Requests and KiB that `blkparse` sums up of a capture, as `Reads Queued:  134,  1337KiB`.
fn summed_up(text: &str, what: &str) -> (u64, u64) {
    let total = &text[text.find("Total (").expect("a total")..];
    let rest = &total[total.find(what).unwrap_or_else(|| panic!("{what}: {total}")) + what.len()..];
    let mut numbers = rest.split(|c: char| !c.is_ascii_digit()).filter(|n| !n.is_empty());
    let mut number = || numbers.next().and_then(|n| n.parse().ok()).expect("a number");
    (number(), number())
}

#[test]
fn blkparse_sums_up_what_we_count() {
    let Some(folder) = shared("traces/blktrace-binary-percpu-virtio") else { return };
    if !have("blkparse") {
        return;
    }
    let dir = tempfile::tempdir().expect("a folder");
    let dir = dir.path();
    let capture = folder.join("vdc");
    let out = Command::new("blkparse").arg("-i").arg(&capture).output().expect("blkparse runs");
    assert!(out.status.success(), "{out:?}");
    let theirs = String::from_utf8_lossy(&out.stdout);
    // To blkparse what has no W among its letters is a read: so are flushes on their own way to the
    // driver (FN), which stood as FW in the queue.
    for (stage, reads, read_ops, writes, write_ops) in [
        ("Q", "Reads Queued:", &["read"][..], "Writes Queued:", &["write", "discard", "flush"][..]),
        ("D", "Read Dispatches:", &["read", "flush"], "Write Dispatches:", &["write", "discard"]),
    ] {
        let files = [folder.join("vdc.blktrace.0"), folder.join("vdc.blktrace.1")];
        let files = files.each_ref().map(|path| path.to_str().expect("UTF-8"));
        let args = ["import", "-o", "t.qtrace", "--force", "--stage", stage];
        expect(dir, 0, args.into_iter().chain(files));
        let info = expect(dir, 0, ["info", "t.qtrace", "--format", "json"]);
        let info: Value = serde_json::from_str(&info).expect("JSON");
        let sum = |what: &str, ops: &[&str]| -> u64 {
            ops.iter().map(|op| info[what][op].as_u64().expect("a count")).sum()
        };
        let ours = |ops: &[&str]| (sum("ops", ops), sum("bytes", ops) / 1024);
        assert_eq!(ours(read_ops), summed_up(&theirs, reads), "{stage}");
        assert_eq!(ours(write_ops), summed_up(&theirs, writes), "{stage}");
    }
}

#[test]
fn a_closed_pipe_ends_it_quietly_and_leaves_nothing() {
    let dir = tempfile::tempdir().expect("a folder");
    let dir = dir.path();
    let lines: String = (0..200_000).map(|n| format!("{n} /d read {} 512\n", n * 512)).collect();
    std::fs::write(dir.join("a.iolog"), format!("fio version 3 iolog\n0 /d add\n{lines}"))
        .expect("written");
    expect(dir, 0, ["import", "a.iolog", "-o", "t.qtrace"]);
    let mut child = Command::new(QTRACE)
        .args(["export", "t.qtrace", "-o", "-", "--to", "json-lines"])
        .current_dir(dir)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("qtrace runs");
    let mut first = String::new();
    BufReader::new(child.stdout.take().expect("piped")).read_line(&mut first).expect("a line");
    let out = child.wait_with_output().expect("it ends");
    assert_eq!(out.status.code(), Some(0), "{}", String::from_utf8_lossy(&out.stderr));
    assert!(out.stderr.is_empty());
}

#[test]
fn mistakes_change_nothing() {
    let dir = tempfile::tempdir().expect("a folder");
    let dir = dir.path();
    inputs::write_all(dir);
    expect(dir, 0, ["import", "job.iolog", "-o", "t.qtrace"]);
    std::os::unix::fs::symlink("t.qtrace", dir.join("link.csv")).expect("linked");
    std::fs::hard_link(dir.join("t.qtrace"), dir.join("hard.iolog")).expect("linked");
    std::fs::create_dir(dir.join("sub")).expect("a folder");
    let before = std::fs::read(dir.join("t.qtrace")).expect("a trace");
    for (args, code, says) in [
        (&["-o", "out"][..], 2, "say it with --to"),
        (&["-o", "out", "--to", "vhs"], 2, "formats: fio-iolog"),
        (&["-o", "job.iolog"], 2, "--force"),
        (&["-o", "link.csv", "--force"], 2, "is the input"),
        (&["-o", "hard.iolog", "--force"], 2, "is the input"),
        (&["-o", "new.iolog", "--job", "t.qtrace", "--force"], 2, "is the input"),
        (&["-o", "new.iolog", "--job", "./new.iolog"], 2, "name one file"),
        (&["-o", "new.iolog", "--job", "sub/../new.iolog"], 2, "name one file"),
        (&["-o", "new.iolog", "--job", "missing/new.fio"], 7, "make it first"),
        (&["-o", "new;.iolog", "--job", "new.fio"], 2, "cannot hold the path"),
        (&["-o", "new${HOME}.iolog", "--job", "new.fio"], 2, "cannot hold the path"),
        (&["-o", "-", "--to", "fio-iolog", "--job", "x"], 2, "must have a name"),
        (&["-o", "new.csv", "--job", "x"], 2, "it is for fio-iolog"),
        (&["-o", "new.iolog", "--file-name", "a b"], 2, "no blanks"),
        (&["-o", "new.qtest"], 2, "of no bus"),
        (&["-o", "new.blklogwrites"], 2, "does not hold the data"),
        (&["-o", "new.csv"], 4, "--response"),
        (&["-o", "missing/new.iolog"], 7, "temporary"),
    ] {
        let out = qtrace(dir, ["export", "t.qtrace"].iter().chain(args));
        let stderr = String::from_utf8_lossy(&out.stderr);
        assert_eq!(out.status.code(), Some(code), "{args:?}: {stderr}");
        assert!(stderr.contains(says), "{args:?}: {stderr}");
    }
    assert_eq!(std::fs::read(dir.join("t.qtrace")).expect("a trace"), before);
    let entries = std::fs::read_dir(dir).expect("a folder");
    let left = entries.filter(|entry| {
        let name = entry.as_ref().expect("an entry").file_name();
        name.to_string_lossy().contains("new") || name.to_string_lossy().ends_with(".part")
    });
    assert_eq!(left.count(), 0);
}

#[test]
fn a_printed_comparison_can_be_pasted_into_a_shell() {
    let dir = tempfile::tempdir().expect("a folder");
    let dir = dir.path();
    inputs::write_all(dir);
    expect(dir, 0, ["import", "job.iolog", "-o", "a b.qtrace"]);
    let compare = export(dir, &["a b.qtrace", "-o", "it's.iolog"])["compare"].clone();
    let compare = compare.as_str().expect("commands");
    let script = format!("qtrace() {{ '{QTRACE}' \"$@\"; }}; {compare}");
    let done = Command::new("sh").current_dir(dir).args(["-ec", &script]).output().expect("sh");
    assert_eq!(done.status.code(), Some(0), "{script}: {done:?}");
}

/// A boot log's many regions are no disks, and its only disk is the first.
#[test]
fn regions_of_a_bus_get_no_names_of_disks() {
    let Some(log) = shared("seabios/boot-tcg-ts.log.xz") else { return };
    let dir = tempfile::tempdir().expect("a folder");
    let dir = dir.path();
    expect(dir, 0, ["import", log.to_str().expect("UTF-8"), "-o", "t.qtrace"]);
    let summary = export(dir, &["t.qtrace", "-o", "t.blkparse"]);
    let notes = summary["notes"].as_array().expect("notes");
    let called = notes.iter().filter(|note| note.as_str().expect("text").contains("is called"));
    assert_eq!(called.count(), 1, "{notes:?}");
    assert!(std::fs::read_to_string(dir.join("t.blkparse")).expect("text").contains("  0,0  "));
}

#[test]
fn what_no_comparison_can_pass_over_is_counted() {
    let dir = tempfile::tempdir().expect("a folder");
    let dir = dir.path();
    let log = "fio version 3 iolog\n0 d add\n0 d open\n1 d read 0 4294967296\n2 d read 1 1\n";
    std::fs::write(dir.join("t.iolog"), log).expect("a log");
    expect(dir, 0, ["import", "t.iolog", "-o", "t.qtrace"]);
    assert_eq!(export(dir, &["t.qtrace", "-o", "a.iolog"])["misfits"], 1);
    assert_eq!(export(dir, &["t.qtrace", "-o", "a.jsonl"])["misfits"], 0);
    // Nothing of it has a place there.
    expect(dir, 4, ["export", "t.qtrace", "-o", "a.blkparse"]);
}
