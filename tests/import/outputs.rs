//! What an import says and leaves behind.

use super::*;

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
        ("kvm", b"q-1 [000] ..... 1.000001: kvm_pio: pio_write at 0x70 size 1 count 1 val 0x8f \n"),
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
        (&["kvm", "--from", "ftrace"], 4, "by its content it is kvm-bus"),
        (&["kvm", "--from", "perf-script"], 4, "by its content it is kvm-bus"),
        (&["."], 3, "is a folder"),
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
