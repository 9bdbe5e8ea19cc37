//! Processes that a test starts, and those that they start.

use std::process::{Child, Output};
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// How long anything may take that comes by itself.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// The children of all threads of a process.
fn children(pid: u32) -> Vec<i32> {
    let Ok(tasks) = std::fs::read_dir(format!("/proc/{pid}/task")) else { return Vec::new() };
    let lists = tasks.flatten().map(|task| std::fs::read_to_string(task.path().join("children")));
    let text: String = lists.map(|list| list.unwrap_or_default() + " ").collect();
    text.split_whitespace().filter_map(|pid| pid.parse().ok()).collect()
}

/// Waits for a child of `parent` whose command line holds `word`.
pub fn child_with(parent: &mut Child, word: &str) -> i32 {
    let end = Instant::now() + PATIENCE;
    while Instant::now() < end {
        for pid in children(parent.id()) {
            let args = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            if String::from_utf8_lossy(&args).contains(word) {
                return pid;
            }
        }
        if parent.try_wait().unwrap().is_some() {
            let mut said = String::new();
            use std::io::Read;
            let _ = parent.stderr.take().map(|mut e| e.read_to_string(&mut said));
            panic!("it ended without a child with {word}: {said}");
        }
        std::thread::yield_now();
    }
    panic!("no child with {word} within {PATIENCE:?}");
}

/// Waits until a process catches a signal, which would end it before.
pub fn catches(pid: Pid, signal: Signal) {
    let end = Instant::now() + PATIENCE;
    while Instant::now() < end {
        // proc(5): a mask in hexadecimal digits, of which signal 1 is the lowest bit.
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let mask = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).unwrap();
        if u64::from_str_radix(mask.trim(), 16).unwrap() >> (signal as i32 - 1) & 1 == 1 {
            return;
        }
        std::thread::yield_now();
    }
    panic!("{pid} does not catch {signal} within {PATIENCE:?}");
}

/// Its output; it must end by itself.
pub fn finish(child: Child) -> Output {
    let pid = Pid::from_raw(child.id() as i32);
    let (tell, ended) = channel();
    let reader = std::thread::spawn(move || tell.send(child.wait_with_output().unwrap()));
    let Ok(out) = ended.recv_timeout(PATIENCE) else {
        kill(pid, Signal::SIGKILL).unwrap();
        panic!("it hangs: {:?}", ended.recv());
    };
    reader.join().unwrap().unwrap();
    out
}

/// Whether a process runs.
pub fn is_alive(pid: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat.rsplit(") ").next().and_then(|rest| rest.chars().next());
    state.is_some_and(|state| !matches!(state, 'Z' | 'X'))
}

/// Waits until a process, which may be an orphan, is gone.
pub fn gone(pid: i32, why: &str) {
    let end = Instant::now() + PATIENCE;
    while is_alive(pid) {
        assert!(Instant::now() < end, "{pid} outlived {why}");
        std::thread::yield_now();
    }
}
