//! Inputs that are odd: silent, given twice, of two formats, damaged.

use super::*;
use crate::common::process;
use nix::sys::signal::Signal;

/// Sends Ctrl-C to an import that waits for input, and gives its exit code.
fn interrupted(dir: &Path, input: &Path) -> Option<i32> {
    let child = Command::new(env!("CARGO_BIN_EXE_qtrace"))
        .current_dir(dir)
        .args(["import", "-o", "t.qtrace", "--from", "ftrace"])
        .arg(input)
        .stderr(Stdio::null())
        .spawn()
        .expect("the program starts");
    let pid = nix::unistd::Pid::from_raw(child.id().cast_signed());
    process::catches(pid, Signal::SIGINT);
    nix::sys::signal::kill(pid, Signal::SIGINT).expect("sent");
    process::finish(child).status.code()
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
