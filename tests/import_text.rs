//! Texts of the kernel's block layer, as a user imports them: the samples, and what the real
//! blkparse prints under each of its options.

mod common;

use std::path::Path;
use std::process::{Command, Stdio};

use common::{QTRACE, expect, have, qtrace, shared};
use serde_json::Value;

const BINARY: &str = "traces/blktrace-binary-percpu-virtio";

fn import(dir: &Path, args: &[&str]) -> Value {
    let all = ["import", "--format", "json", "--force"].iter().chain(args);
    serde_json::from_str(&expect(dir, 0, all)).expect("a JSON summary")
}

/// Every sample, found by content: format, requests, completions, and what is lost.
#[test]
fn samples_come_in_whole() {
    let dir = tempfile::tempdir().expect("a folder");
    for (input, format, requests, losses) in [
        ("blkparse-text/vdc.blkparse.txt.gz", "blkparse", 1005, 0),
        ("ftrace-events-text/block+nvme.txt.gz", "ftrace", 690, 0),
        ("perf-script/perf-script-block.txt", "perf-script", 266, 0),
        ("trace-cmd/trace-cmd-report.txt", "trace-cmd", 128, 0),
        // The prose around its two tables.
        ("bcc-biosnoop/biosnoop_example.txt", "biosnoop", 21, 1),
    ] {
        let Some(path) = shared(&format!("traces/{input}")) else { return };
        let path = path.to_str().expect("UTF-8");
        let document = import(dir.path(), &[path, "-o", "t.qtrace"]);
        assert_eq!(document["format"], format, "{input}");
        let ops = document["ops"].as_object().expect("counts").values();
        assert_eq!(ops.filter_map(Value::as_u64).sum::<u64>(), requests, "{input}");
        assert_eq!(document["events"], 2 * requests, "{input}: {document}");
        assert_eq!(document["losses"].as_array().map(Vec::len), Some(losses), "{input}");
    }
}

#[test]
fn a_pipe_is_read_like_a_file() {
    let Some(path) = shared("traces/trace-cmd/trace-cmd-report.txt") else { return };
    let dir = tempfile::tempdir().expect("a folder");
    let file = std::fs::File::open(&path).expect("the sample");
    let done = Command::new(QTRACE)
        .args(["import", "-", "-o", "t.qtrace", "--device", "254,32"])
        .current_dir(dir.path())
        .stdin(Stdio::from(file))
        .output()
        .expect("qtrace runs");
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let text = String::from_utf8_lossy(&done.stdout).into_owned();
    assert!(text.contains("128 requests"), "{text}");
    let path = path.to_str().expect("UTF-8");
    let other = qtrace(dir.path(), ["import", path, "-o", "u.qtrace", "--device", "8,0"]);
    assert_eq!(other.status.code(), Some(4));
    assert!(String::from_utf8_lossy(&other.stderr).contains("devices: 254,32"));
}

#[test]
fn what_blkparse_prints_is_the_trace_of_its_input() {
    if !have("blkparse") {
        return;
    }
    let Some(sample) = shared(BINARY) else { return };
    let dir = tempfile::tempdir().expect("a folder");
    let dir = dir.path();
    let base = sample.join("vdc");
    let base = base.to_str().expect("UTF-8");
    for stage in ["Q", "D"] {
        import(dir, &[base, "-o", &format!("{stage}.qtrace"), "--stage", stage]);
    }
    // Elapsed times, statistics of processes, a verbose end; then moments left out.
    let all: [(&[&str], &[&str]); 4] = [
        (&[], &["Q", "D"]),
        (&["-t"], &["Q", "D"]),
        (&["-s", "-v"], &["Q"]),
        (&["-a", "issue", "-a", "complete"], &["D"]),
    ];
    for (options, stages) in all {
        let done = Command::new("blkparse")
            .args(["-i", "vdc", "-D"])
            .arg(&sample)
            .args(options)
            .output()
            .expect("blkparse runs");
        std::fs::write(dir.join("vdc.txt"), done.stdout).expect("written");
        for stage in stages {
            // Without being told, a text of dispatches alone is read at their stage.
            let told = ["vdc.txt", "-o", "t.qtrace", "--stage", stage];
            let untold = &told[..3];
            let args = if stages.len() == 1 { untold } else { &told[..] };
            let document = import(dir, args);
            assert_eq!(document["format"], "blkparse");
            assert_eq!(document["losses"], serde_json::json!([]), "{options:?}");
            let binary = format!("{stage}.qtrace");
            // Times count from the first record that is in the text.
            let ignored = if stages.len() == 1 { "header,origin" } else { "header" };
            let text = expect(dir, 0, ["diff", &binary, "t.qtrace", "--ignore", ignored]);
            assert!(text.contains("the traces are identical"), "{options:?}: {text}");
        }
    }
}
