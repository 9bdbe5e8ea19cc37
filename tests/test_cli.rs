//! `qtrace test`, as a user runs it, and its reports on modules whose cases end in every way.

mod common;

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::AtomicBool;

use common::{QTRACE, expect, qtrace};
use qtrace::base::options::OptionSpec;
use qtrace::base::{Error, Result};
use qtrace::cli::test::{Args, Format, render};
use qtrace::machine::Capabilities;
use qtrace::machine::builtin::Chips;
use qtrace::report::suite_text;
use qtrace::suite::machines::MachineChoice;
use qtrace::suite::results::SuiteReport;
use qtrace::suite::runner::{RunOptions, run};
use qtrace::suite::select::plan;
use qtrace::suite::{Case, Module};
use serde_json::Value;

fn here() -> &'static Path {
    Path::new(".")
}

fn json(code: i32, args: &[&str]) -> Value {
    let mut all = vec!["test", "--format", "json"];
    all.extend(args);
    serde_json::from_str(&expect(here(), code, all)).expect("JSON")
}

fn names(list: &Value) -> Vec<&str> {
    let tests = list["tests"].as_array().expect("tests");
    tests.iter().map(|test| test["name"].as_str().expect("a name")).collect()
}

#[test]
fn every_test_is_listed_with_what_a_user_needs() {
    let list = json(0, &["--list"]);
    assert_eq!(list["schema"], "qtrace.tests/1");
    for test in list["tests"].as_array().unwrap() {
        let purpose = test["purpose"].as_str().unwrap();
        assert!(purpose.len() > 8 && !purpose.contains('\n'), "{test}");
        let name =
            format!("{}/{}", test["module"].as_str().unwrap(), test["case"].as_str().unwrap());
        assert_eq!(test["name"], *name);
        for option in test["options"].as_array().unwrap() {
            assert!(!option["help"].as_str().unwrap().is_empty(), "{name}");
        }
    }
    let mut sorted = names(&list);
    sorted.sort_unstable();
    sorted.dedup();
    assert_eq!(sorted.len(), list["tests"].as_array().unwrap().len(), "a name is there twice");
    let text = expect(here(), 0, ["test", "?"]);
    assert_eq!(text, expect(here(), 0, ["test", "--list"]));
    for name in names(&list) {
        assert!(text.contains(name), "{name}");
    }
    assert!(text.contains("clock=virtual|host|scaled"));
}

#[test]
fn lists_can_be_narrowed() {
    let some = json(0, &["--list", "virtio-blk/bad-*"]);
    assert!(names(&some).len() > 10);
    assert!(names(&some).iter().all(|name| name.starts_with("virtio-blk/bad-")));
    let machines = expect(here(), 0, ["test", "--machine", "?"]);
    assert!(machines.contains("builtin") && machines.contains("type=pc|q35"));
}

#[test]
fn wrong_names_options_and_machines_are_refused_with_a_hint() {
    let long = "500000h";
    for (code, args, hint) in [
        (2, &["virtio-blck"][..], "did you mean 'virtio-blk'?"),
        (2, &["virtio-blk/confg"], "did you mean 'virtio-blk/config'?"),
        (2, &["no-such/*"], "--list"),
        (2, &["virtio-blk/config", "clok=host"], "did you mean 'clock'?"),
        (2, &["virtio-blk/config", "clock=hots"], "did you mean clock=host?"),
        (2, &["--machine", "builtin,type=isapc"], "one of pc, q35"),
        (5, &["--machine", "quemu"], "did you mean 'qemu'?"),
        (5, &["--machine", "hypervisor"], "available: builtin"),
        (2, &["--deadline", "soon"], "a time such as"),
        (2, &["--deadline", long], "a time such as"),
    ] {
        let mut all = vec!["test"];
        all.extend(args);
        let out = qtrace(here(), &all);
        let err = String::from_utf8_lossy(&out.stderr).into_owned();
        assert_eq!(out.status.code(), Some(code), "{args:?}: {err}");
        assert!(err.contains(hint), "{args:?}: {err}");
        assert!(out.stdout.is_empty());
    }
}

#[test]
fn selection_takes_names_prefixes_and_globs_in_the_order_given() {
    let report = json(0, &["virtio-blk/flush", "virtio-blk/get*", "virtio-blk/flush"]);
    let cases = report["cases"].as_array().unwrap();
    let names: Vec<&str> = cases.iter().map(|case| case["case"].as_str().unwrap()).collect();
    assert_eq!(names, ["flush", "get-id", "flush"]);
    assert_eq!(report["summary"]["passed"], 3);
    assert_eq!(report["schema"], "qtrace.test/1");
}

#[test]
fn virtio_blk_passes_fresh_chained_minimal_and_on_q35() {
    let all = |args: &[&str]| {
        let report = json(0, args);
        assert_eq!(report["summary"]["failed"], 0);
        report["summary"]["passed"].as_u64().unwrap()
    };
    let fresh = all(&["virtio-blk"]);
    assert!(fresh > 40);
    assert_eq!(all(&["fresh=off", "virtio-blk"]), fresh);
    assert_eq!(all(&["minimal=on", "virtio-blk", "--machine", "builtin,type=q35"]), fresh);
}

/// Without what differs from run to run.
fn timeless(mut report: Value) -> Value {
    report.as_object_mut().unwrap().remove("wall");
    for case in report["cases"].as_array_mut().unwrap() {
        case.as_object_mut().unwrap().remove("wall");
    }
    report
}

#[test]
fn one_seed_gives_one_report() {
    let run = |seed| timeless(json(0, &["virtio-blk", "--seed", seed]));
    let first = run("7");
    assert_eq!(first, run("7"));
    assert_ne!(first, run("8"), "the seed is in it");
}

#[test]
fn a_report_that_nobody_reads_is_no_failure() {
    let mut child = Command::new(QTRACE)
        .args(["test", "virtio-blk/config"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let out = child.wait_with_output().unwrap();
    assert_eq!(out.status.code(), Some(0), "{}", String::from_utf8_lossy(&out.stderr));
}

/// Cases that end in every way.
struct Every;

const NOTE: &[OptionSpec] =
    &[OptionSpec { name: "note", value: "TEXT", default: "", help: "said" }];

impl Module for Every {
    fn name(&self) -> &'static str {
        "every"
    }

    fn purpose(&self) -> &'static str {
        "cases that end in every way"
    }

    fn cases(&self) -> &'static [Case] {
        const CASES: &[Case] = &[
            Case::new("pass", "passes", |thread| {
                let note = thread.options().get("note").unwrap_or_default().to_owned();
                thread.say(note);
                Ok(())
            })
            .options(NOTE),
            Case::new("fail", "fails", |thread| thread.expect("a <register> & more", 2, 1)),
            Case::new("panic", "panics", |_| panic!("]]> \u{1b}[2J # panic")),
            Case::new("hang", "hangs", |_| {
                loop {
                    std::thread::park();
                }
            }),
            Case::new("skip", "skips", |thread| thread.skip("# not \\ today")),
            Case::new("error", "errs", |_| Err(Error::usage("option x=y: expected z").into())),
            Case::new("needs", "needs", |_| Ok(())).needs(Capabilities::VRINGS),
        ];
        CASES
    }

    fn chips(&self) -> Chips {
        Chips::MINIMAL
    }
}

fn every(words: &[&str]) -> Result<SuiteReport> {
    let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
    let options = RunOptions {
        deadline: std::time::Duration::from_millis(300),
        ..RunOptions::new(MachineChoice::parse("builtin")?)
    };
    run(&plan(&[&Every], &words)?, &options, &AtomicBool::new(false), &mut |_| {})
}

#[test]
fn every_end_is_counted_and_decides_the_exit_code() {
    let report = every(&["every"]).unwrap();
    let counts = report.summary;
    let all = [counts.passed, counts.failed, counts.errors, counts.skipped, counts.not_run];
    assert_eq!(all, [1, 3, 1, 2, 0]);
    assert_eq!(report.exit_code(), 1);
    for (words, code) in [
        (&["every/pass", "every/skip"][..], 0),
        (&["every/skip", "every/needs"], 4),
        (&["every/pass", "every/error"], 2),
        (&["every/hang", "every/error"], 1),
        (&["every/panic"], 1),
    ] {
        assert_eq!(every(words).unwrap().exit_code(), code, "{words:?}");
    }
}

#[test]
fn text_has_a_line_for_each_case_and_no_control_characters() {
    let report = every(&["every", "note=two\nlines\u{7}"]).unwrap();
    let text = suite_text::render(&report);
    assert!(!text.chars().any(|c| c.is_control() && c != '\n'), "{text:?}");
    for part in [
        "passed   every/pass note=two\\nlines\\u{7}",
        "FAILED   every/hang",
        "a <register> & more: expected 0x1, got 0x2",
        "its thread was abandoned",
        "skipped  every/needs",
        "builtin lacks a vhost-user ring interface",
        "1 passed, 3 failed, 1 could not be run, 2 skipped in ",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
}

#[test]
fn tap_is_what_its_readers_take() {
    let report = every(&["every", "note=a\nnot ok 9"]).unwrap();
    let text = render(&report, Format::Tap).unwrap();
    let mut lines = text.lines();
    assert_eq!(lines.next(), Some("TAP version 14"));
    assert_eq!(lines.next(), Some("1..7"));
    let points: Vec<&str> =
        lines.filter(|line| line.starts_with("ok ") || line.starts_with("not ok ")).collect();
    let starts = [
        "ok 1 - every/pass",
        "not ok 2 - every/fail",
        "not ok 3 - every/panic",
        "not ok 4 - every/hang",
        "ok 5 - every/skip # SKIP \\# not \\\\ today",
        "not ok 6 - every/error",
        "ok 7 - every/needs # SKIP builtin lacks",
    ];
    assert_eq!(points.len(), starts.len(), "{text}");
    for (point, start) in points.iter().zip(starts) {
        assert!(point.starts_with(start), "{point}");
    }
    // Every block of a failure is closed and its values are JSON strings, which YAML takes.
    assert_eq!(text.matches("\n  ---\n").count(), 4);
    assert_eq!(text.matches("\n  ...\n").count(), 4);
    for line in text.lines().filter_map(|line| line.strip_prefix("  message: ")) {
        serde_json::from_str::<String>(line).unwrap();
    }
}

/// The elements of an XML text without comments or CDATA, each with its attributes unescaped:
/// enough of a parser to be sure that it is well-formed.
fn elements(xml: &str) -> Vec<(String, Vec<(String, String)>)> {
    let unescape = |text: &str| {
        assert!(!text.contains(['<', '>']), "{text}");
        let mut parts = text.split('&');
        let mut out = parts.next().unwrap_or_default().to_owned();
        for part in parts {
            let (name, rest) = part.split_once(';').expect("a reference ends");
            out.push(match name {
                "amp" => '&',
                "lt" => '<',
                "gt" => '>',
                "quot" => '"',
                "apos" => '\'',
                number => {
                    let code = number.strip_prefix('#').expect("a reference").parse().unwrap();
                    assert!(matches!(code, 9 | 10 | 13), "{code}");
                    char::from_u32(code).unwrap()
                }
            });
            out.push_str(rest);
        }
        out
    };
    let (mut found, mut open) = (Vec::new(), Vec::new());
    let mut rest = xml.strip_prefix("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n").expect("XML");
    assert!(!rest.chars().any(|c| c.is_control() && c != '\n'));
    while let Some((text, tag_on)) = rest.split_once('<') {
        unescape(text);
        let (tag, after) = tag_on.split_once('>').expect("a tag ends");
        rest = after;
        if let Some(name) = tag.strip_prefix('/') {
            assert_eq!(open.pop().as_deref(), Some(name));
            continue;
        }
        let (tag, empty) = tag.strip_suffix('/').map_or((tag, false), |tag| (tag, true));
        let (name, mut fields) = tag.split_once(' ').unwrap_or((tag, ""));
        let mut attributes = Vec::new();
        while let Some((key, value)) = fields.trim_start().split_once("=\"") {
            let (value, after) = value.split_once('"').expect("a value ends");
            attributes.push((key.to_owned(), unescape(value)));
            fields = after;
        }
        assert!(fields.trim().is_empty(), "{tag}");
        found.push((name.to_owned(), attributes));
        if !empty {
            open.push(name.to_owned());
        }
    }
    assert!(open.is_empty() && rest.trim().is_empty());
    found
}

#[test]
fn junit_is_well_formed_and_complete() {
    let report = every(&["every", "note=<b>&\"\u{1}"]).unwrap();
    let xml = render(&report, Format::Junit).unwrap();
    let all = elements(&xml);
    let count = |name| all.iter().filter(|(element, _)| element == name).count();
    assert_eq!((count("testsuites"), count("testsuite"), count("testcase")), (1, 1, 7));
    assert_eq!((count("failure"), count("error"), count("skipped")), (3, 1, 2));
    let attribute = |element: &str, key: &str| {
        let (_, attributes) = all.iter().find(|(name, _)| name == element).unwrap();
        attributes.iter().find(|(k, _)| k == key).unwrap().1.clone()
    };
    assert_eq!(attribute("testsuites", "tests"), "7");
    assert_eq!(attribute("testsuite", "failures"), "3");
    assert_eq!(attribute("testcase", "classname"), "every");
    assert_eq!(attribute("failure", "message"), "a <register> & more: expected 0x1, got 0x2");
    assert!(attribute("testcase", "time").parse::<f64>().is_ok());
    assert!(xml.contains("<system-out>&lt;b&gt;&amp;&quot;\u{fffd}</system-out>"));
}

#[test]
fn json_keeps_what_differs_under_wall() {
    let report = every(&["every/pass", "every/fail", "every/skip"]).unwrap();
    let value: Value = serde_json::from_str(&render(&report, Format::Json).unwrap()).unwrap();
    assert_eq!(value["cases"][0]["status"], "passed");
    assert_eq!(value["cases"][1]["finding"]["got"], "0x2");
    assert_eq!(value["cases"][2]["reason"], "# not \\ today");
    assert!(
        value["wall"]["elapsed_ns"].is_u64() && value["cases"][0]["wall"]["elapsed_ns"].is_u64()
    );
    let again = every(&["every/pass", "every/fail", "every/skip"]).unwrap();
    let again: Value = serde_json::from_str(&render(&again, Format::Json).unwrap()).unwrap();
    assert_eq!(timeless(value), timeless(again));
}

#[test]
fn the_commands_own_function_prints_and_returns_the_code() {
    use clap::Parser;
    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }
    let line = Line::parse_from(["test", "every/skip", "--format", "tap"]);
    let code = qtrace::cli::test::run_modules(&[&Every], &line.args, &AtomicBool::new(false));
    assert_eq!(code.unwrap(), 4);
}
#[test]
fn an_interrupt_ends_the_run_with_a_whole_report() {
    // A machine whose clock is the host's, and a case that runs as long as it is let.
    let list = json(0, &["--list", "virtio-blk/scale"]);
    assert_eq!(names(&list), ["virtio-blk/scale"]);
    let child = Command::new(QTRACE)
        .args(["test", "--format", "json", "virtio-blk/scale", "requests=100000000"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let pid = nix::unistd::Pid::from_raw(child.id() as i32);
    // The case is on its way when its thread is there.
    let tasks = format!("/proc/{}/task", child.id());
    while std::fs::read_dir(&tasks).unwrap().count() < 4 {
        std::thread::yield_now();
    }
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT).unwrap();
    let out = child.wait_with_output().unwrap();
    assert_eq!(out.status.code(), Some(130));
    let report: Value = serde_json::from_slice(&out.stdout).unwrap();
    assert_eq!(report["interrupted"], true);
    assert_eq!(report["summary"]["not_run"], 1);
    assert!(String::from_utf8_lossy(&out.stderr).contains("partial"));
}
