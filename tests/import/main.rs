//! `qtrace import` as a user meets it: exit codes, output, what it leaves behind.

#[path = "../common/mod.rs"]
mod common;

mod inputs;
mod logs;
mod outputs;
mod samples;

use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};

const IOLOG: &str = "fio version 3 iolog\n1 /d add\n5 /d read 0 512\n9 /d write 512 4096\n";

fn qtrace(dir: &Path, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_qtrace"));
    command.current_dir(dir).arg("import").args(args).stdin(Stdio::null());
    command.output().expect("the program starts")
}

fn folder(files: &[(&str, &[u8])]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a temporary folder");
    for (name, content) in files {
        std::fs::write(dir.path().join(name), content).expect("a file");
    }
    dir
}

/// Everything in `dir`, sorted: an import must leave its output there and nothing else.
fn names(dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir).expect("a folder");
    let name = |entry: std::io::Result<std::fs::DirEntry>| entry.map(|entry| entry.file_name());
    let mut names: Vec<_> = entries
        .map(|entry| name(entry).expect("an entry").to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn json(output: &Output) -> serde_json::Value {
    serde_json::from_slice(&output.stdout).expect("one JSON document on stdout")
}

fn gzip(data: &[u8]) -> Vec<u8> {
    let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gz.write_all(data).expect("gzip");
    gz.finish().expect("gzip")
}

const MSR: &str = "128166372003061629,hm,1,Read,383496192,32768,413\n\
                   128166372016382155,hm,2,Write,310382592,20480,1248\n";
