//! Every command in the README is run here, in order, as a newcomer would run it.
//!
//! The inputs that the recipes name (`vda.blklogwrites.gz`, `sda.blktrace.0`, …) are made by the
//! test; what the commands make is what the later ones use.

mod common;

use std::path::Path;
use std::process::Command;

use common::{QTRACE, repo};

/// The commands in the README's `sh` blocks.
fn commands() -> Vec<String> {
    let text = std::fs::read_to_string(repo().join("README.md")).expect("README");
    let mut commands = Vec::new();
    let mut inside = false;
    for line in text.lines() {
        match line {
            "```sh" => inside = true,
            "```" => inside = false,
            line if inside && !line.trim().is_empty() => commands.push(line.trim().to_owned()),
            _ => {}
        }
    }
    commands
}

/// What a command may exit with: a comment behind it may say, `if` when it depends on the
/// machine's speed, which no test asserts.
fn expected_codes(command: &str) -> Vec<i32> {
    let Some((_, comment)) = command.split_once("# exits with ") else { return vec![0] };
    let (code, when) = comment.split_once(" if ").map_or((comment, ""), |(c, w)| (c, w));
    let code = code.trim().parse().expect("a code");
    if when.is_empty() { vec![code] } else { vec![0, code] }
}

fn run(command: &str, dir: &Path) {
    let program = command.replace("cargo run --release --", QTRACE);
    let path = format!(
        "{}:{}:{}",
        dir.display(),
        Path::new(QTRACE).parent().expect("a folder").display(),
        std::env::var("PATH").unwrap_or_default()
    );
    let out = Command::new("sh")
        .arg("-c")
        .arg(&program)
        .current_dir(dir)
        .env("PATH", path)
        .output()
        .expect("sh runs");
    assert!(
        out.status.code().is_some_and(|code| expected_codes(command).contains(&code)),
        "README: {command}\nstdout: {}\nstderr: {}",
        String::from_utf8_lossy(&out.stdout),
        String::from_utf8_lossy(&out.stderr)
    );
}

#[test]
fn every_command_works_in_order() {
    let dir = tempfile::tempdir().expect("a folder");
    let dir = dir.path();
    common::inputs::write_all(dir);
    std::os::unix::fs::symlink(repo().join("traces"), dir.join("traces")).expect("linked");
    let commands = commands();
    assert!(commands.len() >= 14, "the README lost its commands: {commands:?}");
    let have_qemu = common::qtest_qemu();
    for command in &commands {
        if command.contains("server=qemu-storage-daemon") && !common::have("qemu-storage-daemon") {
            continue;
        }
        let wants_qemu = ["--machine qemu", "--against qemu", "qtrace doctor"];
        if !have_qemu && wants_qemu.iter().any(|word| command.contains(word)) {
            println!("skipped: README: {command}: no QEMU with the qtest accelerator is here");
            continue;
        }
        // What it makes is replayed by those behind it.
        if command.contains("boot.qtrace") {
            let Some(kit) = common::guest::guest_kit() else { continue };
            let link = dir.join("qemu-system-x86_64");
            if !link.exists() {
                std::os::unix::fs::symlink(kit.qemu(), link).expect("linked");
            }
        }
        if command.contains("qtrace record nbd")
            && !(common::have("qemu-img") && common::have("qemu-io"))
        {
            continue;
        }
        if command == "bash .ci/test" {
            // It is what runs this test; that the gate uses it is checked below.
            continue;
        }
        run(command, dir);
        if command.contains("report=before.json") {
            run(&command.replace("before.json", "after.json"), dir);
        }
    }
}

#[test]
fn the_gate_runs_the_readmes_test_command() {
    let gate = std::fs::read_to_string(repo().join(".ci/run")).expect("the gate");
    assert!(gate.contains("bash .ci/test"));
    assert!(commands().iter().any(|command| command == "bash .ci/test"));
}
