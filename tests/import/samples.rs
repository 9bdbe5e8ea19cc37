//! Real samples, where this machine has them.

use std::path::PathBuf;

use super::*;

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
    assert_eq!(document["losses"][0]["first"], "a.csv line 1");
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
