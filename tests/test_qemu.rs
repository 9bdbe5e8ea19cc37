//! Every test module on a real QEMU, as its users run them: none fails, and what is skipped is what
//! the documentation says, with its reason.

mod common;

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use common::{qtrace, repo};
use qtrace::machine::builtin::Chips;
use qtrace::machine::qemu::{Mode, probe};
use qtrace::suite::machines::MachineChoice;
use qtrace::suite::registry::MODULES;
use qtrace::suite::runner::{RunOptions, run};
use qtrace::suite::select::plan;
use qtrace::suite::{Case, Module, Outcome, Status, TestThread, known};
use serde_json::Value;

const TYPES: [&str; 2] = ["pc", "q35"];

/// The list of skips, which this test checks and, where this variable is set, writes.
const LIST: &str = "tests/golden/qemu-skips.md";
const WRITE: &str = "QTRACE_WRITE_LISTS";

/// The QEMU whose bugs are listed. A newer one may have lost some of them.
const LISTED: &str = "7.2.";

/// The version of the QEMU that is used; `None` after saying why none is.
fn version() -> Option<String> {
    let found = probe::choose(None, Some(Mode::Qtest));
    match found.map(|(binary, mode)| probe::probe(&binary, mode)) {
        Ok(Ok(version)) => Some(version),
        Ok(Err(why)) => skipped(&why),
        Err(error) => skipped(&error.to_string()),
    }
}

fn skipped(why: &str) -> Option<String> {
    println!("skipped: {why}");
    None
}

/// All modules on one type; the cases of the report.
fn report(board: &str) -> Vec<Value> {
    let dir = tempfile::tempdir().expect("a folder");
    let machine = format!("qemu,accel=qtest,type={board}");
    let all = MODULES.iter().map(|module| module.name());
    let words = ["test", "--machine", &machine, "--format", "json"].into_iter().chain(all);
    let out = qtrace(dir.path(), words);
    let stderr = String::from_utf8_lossy(&out.stderr);
    let mut report: Value = serde_json::from_slice(&out.stdout).expect("a report");
    let Value::Array(cases) = report["cases"].take() else { panic!("no cases: {stderr}") };
    let wrong = |case: &&Value| !matches!(case["status"].as_str(), Some("passed" | "skipped"));
    let what = |case: &Value| format!("{} {} {}", name(case), case["reason"], case["finding"]);
    let wrong: Vec<String> = cases.iter().filter(wrong).map(what).collect();
    assert!(wrong.is_empty(), "{board}: {wrong:#?}");
    assert_eq!(out.status.code(), Some(0), "{board}: {stderr}");
    assert!(std::fs::read_dir(dir.path()).expect("the folder").next().is_none(), "files are left");
    cases
}

fn name(case: &Value) -> String {
    let text = |key: &str| case[key].as_str().unwrap_or_default().to_owned();
    format!("{}/{}", text("module"), text("case"))
}

/// Reasons with the cases and types that they skip, in the order of the cases.
#[derive(Default)]
struct Skips(Vec<(String, Vec<String>, Vec<&'static str>)>);

impl Skips {
    /// The types of each case's skips, which then are grouped by type and reason.
    fn of(reports: &[(&'static str, Vec<Value>)]) -> Self {
        let mut order = Vec::new();
        let mut boards: BTreeMap<(String, String), Vec<&'static str>> = BTreeMap::new();
        for (board, cases) in reports {
            for case in cases.iter().filter(|case| case["status"] == "skipped") {
                let key = (name(case), case["reason"].as_str().unwrap_or_default().to_owned());
                if !boards.contains_key(&key) {
                    order.push(key.clone());
                }
                boards.entry(key).or_default().push(board);
            }
        }
        let mut skips = Self::default();
        for (case, reason) in order {
            let on = boards.remove(&(case.clone(), reason.clone())).unwrap_or_default();
            let same = |(why, _, boards): &&mut (_, _, Vec<_>)| *why == reason && *boards == on;
            match skips.0.iter_mut().find(same) {
                Some((_, cases, _)) => cases.push(case),
                None => skips.0.push((reason, vec![case], on)),
            }
        }
        skips
    }

    /// The page of the documentation.
    fn page(&self) -> String {
        let mut bugs = String::new();
        let mut others = String::new();
        for (reason, cases, on) in &self.0 {
            let on = on.join(", ");
            let bug = known::BUGS.iter().find(|b| b.reason() == *reason);
            let cases = shortened(cases).join(", ");
            let _ = match bug {
                Some(bug) => {
                    writeln!(bugs, "| {cases} | {on} | {} | {} |", bug.what, bug.section)
                }
                None => writeln!(others, "| {cases} | {on} | {reason} |"),
            };
        }
        format!(
            "# What `qtrace test --machine qemu` skips, and why\n\n\
             With QEMU {LISTED}x and no options of a case. `tests/test_qemu.rs` compares this page with\n\
             what is skipped; with `{WRITE}=1` it writes the page. All other cases pass on both\n\
             types.\n\n\
             ## Bugs of QEMU\n\n\
             A case that finds one of these is skipped and says what it found; one that finds anything\n\
             else fails.\n\n\
             | case | type | what QEMU does | what it should follow |\n|---|---|---|---|\n{bugs}\n\
             ## What is not there, or cannot be reached\n\n\
             | cases | type | why |\n|---|---|---|\n{others}"
        )
    }
}

/// A module all of whose cases are there is `module/*`.
fn shortened(cases: &[String]) -> Vec<String> {
    let mut list: Vec<String> = Vec::new();
    for case in cases {
        let module = MODULES.iter().find(|m| case.starts_with(&format!("{}/", m.name())));
        let all = module.is_some_and(|module| {
            let full = |c: &Case| format!("{}/{}", module.name(), c.name);
            module.cases().iter().all(|c| cases.contains(&full(c)))
        });
        let shown = match module.filter(|_| all) {
            Some(module) => format!("`{}/*`", module.name()),
            None => format!("`{case}`"),
        };
        if list.last() != Some(&shown) {
            list.push(shown);
        }
    }
    list
}

#[test]
fn every_module_passes_and_the_skips_are_those_of_the_documentation() {
    let Some(version) = version() else { return };
    let start = Instant::now();
    let reports: Vec<(&str, Vec<Value>)> = std::thread::scope(|scope| {
        let runs = TYPES.map(|board| (board, scope.spawn(move || report(board))));
        runs.into_iter().map(|(board, run)| (board, run.join().expect("no panic"))).collect()
    });
    println!("all modules on {} took {:.1} s", TYPES.join(" and "), start.elapsed().as_secs_f64());
    if !version.starts_with(LISTED) {
        println!("skipped: the list of skips is for QEMU {LISTED}x, and this is {version}");
        return;
    }
    let page = Skips::of(&reports).page();
    for bug in known::BUGS.iter().filter(|bug| bug.machine == "qemu") {
        let shown = page.contains(&format!("| {} | {} |", bug.what, bug.section));
        assert!(shown, "no case shows the bug any more: {bug:?}");
    }
    let path = repo().join(LIST);
    if std::env::var_os(WRITE).is_some() {
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("the folder");
        std::fs::write(&path, &page).expect("the list is written");
    }
    let list = std::fs::read_to_string(&path).unwrap_or_default();
    let news: Vec<&str> = page.lines().filter(|line| !list.lines().any(|l| l == *line)).collect();
    let gone: Vec<&str> = list.lines().filter(|line| !page.lines().any(|l| l == *line)).collect();
    assert_eq!(list, page, "{LIST}: not there: {news:#?}; there and not seen: {gone:#?}");
}

/// Cases that kill the QEMU they run on.
struct Killers;

/// A register of the RTC, whose reading is the last command before the end.
const RTC_INDEX: u16 = 0x70;

fn kill() {
    let tasks = std::fs::read_dir("/proc/self/task").expect("threads");
    let children = tasks
        .flatten()
        .filter_map(|task| std::fs::read_to_string(task.path().join("children")).ok());
    let children: String = children.map(|list| list + " ").collect();
    let is_qemu = |pid: &&str| {
        let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        name.contains("qemu")
    };
    let pids: Vec<&str> = children.split_whitespace().filter(is_qemu).collect();
    let [pid] = pids[..] else { panic!("one QEMU: {pids:?}") };
    let pid = nix::unistd::Pid::from_raw(pid.parse().expect("a number"));
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).expect("it is ours");
}

fn killed_at_work(thread: &mut TestThread<'_>) -> Outcome {
    thread.outb(RTC_INDEX, 0x0d)?;
    kill();
    let value = thread.inb(RTC_INDEX + 1)?;
    thread.expect("register D", value, 0x80)
}

/// All that it looked at was right: who quits the machine finds it dead.
fn killed_behind(thread: &mut TestThread<'_>) -> Outcome {
    thread.outb(RTC_INDEX, 0x0d)?;
    kill();
    Ok(())
}

impl Module for Killers {
    fn name(&self) -> &'static str {
        "killers"
    }

    fn purpose(&self) -> &'static str {
        "cases that kill their machine"
    }

    fn cases(&self) -> &'static [Case] {
        const CASES: &[Case] = &[
            Case::new("at-work", "kills it and goes on", killed_at_work),
            Case::new("behind", "kills it and ends", killed_behind),
            Case::new("pass", "the one after them", |_| Ok(())),
        ];
        CASES
    }

    fn chips(&self) -> Chips {
        Chips::MINIMAL
    }
}

#[test]
fn a_qemu_that_dies_is_the_finding_of_its_case_and_the_next_has_another() {
    if version().is_none() {
        return;
    }
    for fresh in ["fresh=on", "fresh=off"] {
        let folder = tempfile::tempdir().expect("a folder");
        let options = RunOptions {
            artifacts: Some(folder.path().to_path_buf()),
            ..RunOptions::new(MachineChoice::parse("qemu,accel=qtest").expect("a machine"))
        };
        let plan = plan(&[&Killers], &[fresh.to_owned(), "killers".to_owned()]).expect("a plan");
        let report = run(&plan, &options, &AtomicBool::new(false), &mut |_| {}).expect("a report");
        let [at_work, behind, pass] = &report.cases[..] else { panic!("three cases") };
        for case in [at_work, behind] {
            let finding = case.finding.as_ref().unwrap_or_else(|| panic!("{case:?}"));
            assert_eq!((case.status, &*finding.what), (Status::Failed, "the machine died"));
            assert_eq!(finding.got, "QEMU died of signal 9 (SIGKILL)");
            let artifacts = Path::new(case.artifacts.as_ref().expect("artifacts"));
            let told = std::fs::read_to_string(artifacts.join("machine.txt")).expect("its end");
            assert!(told.contains("outb 0x70 0xd\n") && told.contains("command: "), "{told}");
            assert!(
                told.lines().all(|line| case.notes.iter().any(|note| note == line)),
                "{case:?}"
            );
        }
        assert!(at_work.notes[0].starts_with("the case found then: register D"), "{at_work:?}");
        assert_eq!((pass.status, report.exit_code()), (Status::Passed, 1));
    }
}
