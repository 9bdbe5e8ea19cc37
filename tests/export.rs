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
    for (name, sample) in [
        ("vdc", "traces/blktrace-binary-percpu-virtio/vdc.bin"),
        ("logwrites", "traces/dm-log-writes"),
        ("cambridge", "traces/msr-cambridge"),
        ("guest", "guest/ide-raw.blklogwrites.gz"),
        ("reproducer", "reproducers/1878034.qtest"),
    ] {
        let Some(path) = shared(sample) else { continue };
        let path = if path.is_dir() { only_trace_in(&path) } else { path };
        import(name, &[&path]);
    }
    traces.push(repo().join("traces/linux-ext4-virtio.qtrace"));
    traces.push(repo().join("traces/seabios-pc.qtrace"));
    traces
}

/// The first file of a folder of samples that is no description.
fn only_trace_in(folder: &Path) -> PathBuf {
    let entries = std::fs::read_dir(folder).expect("a folder");
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
    paths.retain(|path| !path.to_string_lossy().ends_with(".md"));
    paths.sort();
    paths.swap_remove(0)
}

/// The words of a command that a summary prints.
fn words(command: &str) -> Vec<&str> {
    command.split_whitespace().skip(1).collect()
}

#[test]
fn what_goes_out_comes_back_but_for_what_the_format_lacks() {
    let dir = tempfile::tempdir().expect("a folder");
    let dir = dir.path();
    let mut came_back = 0;
    for trace in traces(dir) {
        for ending in ["iolog", "csv", "blklogwrites", "qtest", "blkparse"] {
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
            came_back += 1;
        }
    }
    // Requests of five sources as iolog and as blkparse's text, and what else each can be.
    assert!(came_back >= 18, "{came_back}");
}

#[test]
fn fio_replays_the_iolog() {
    if !have("fio") {
        return;
    }
    let dir = tempfile::tempdir().expect("a folder");
    let dir = dir.path();
    inputs::write_all(dir);
    expect(dir, 0, ["import", "vda.blklogwrites.gz", "-o", "vda.qtrace"]);
    expect(dir, 0, ["import", "job.iolog", "-o", "job.qtrace"]);
    for (trace, reads, writes) in [("vda.qtrace", 0, 21), ("job.qtrace", 17, 33)] {
        let disk = dir.join("disk.raw");
        std::fs::File::create(&disk).and_then(|file| file.set_len(1 << 20)).expect("a disk");
        let name = disk.to_str().expect("UTF-8");
        let args = [trace, "-o", "t.iolog", "--job", "t.fio", "--file-name", name, "--force"];
        export(dir, &args);
        let out = Command::new("fio")
            .args(["--output-format=json", "--replay_no_stall=1", "t.fio"])
            .current_dir(dir)
            .output()
            .expect("fio runs");
        let stderr = String::from_utf8_lossy(&out.stderr);
        let text = String::from_utf8_lossy(&out.stdout);
        assert!(out.status.success(), "{text}{stderr}");
        let json: Value =
            serde_json::from_str(&text[text.find('{').expect("JSON")..]).expect("JSON");
        let job = &json["jobs"][0];
        assert_eq!(job["read"]["total_ios"], reads, "{trace}: {stderr}");
        assert_eq!(job["write"]["total_ios"], writes, "{trace}: {stderr}");
        assert_eq!(job["error"], 0);
        assert!(!stderr.contains("bad iolog"), "{stderr}");
    }
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
    let before = std::fs::read(dir.join("t.qtrace")).expect("a trace");
    for (args, code, says) in [
        (&["-o", "out"][..], 2, "say it with --to"),
        (&["-o", "out", "--to", "vhs"], 2, "formats: fio-iolog"),
        (&["-o", "job.iolog"], 2, "--force"),
        (&["-o", "link.csv", "--force"], 2, "is the input"),
        (&["-o", "hard.iolog", "--force"], 2, "is the input"),
        (&["-o", "new.iolog", "--job", "t.qtrace", "--force"], 2, "is the input"),
        (&["-o", "new.iolog", "--job", "./new.iolog"], 2, "name one file"),
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
