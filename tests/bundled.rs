//! The traces in traces/ replay to the result that their README promises.

mod common;

use std::path::Path;

use common::{expect, replay, repo};

/// A trace of a bus replays with these options, and every read is as the policies ask.
fn bus(path: &Path, options: &str) {
    let options = format!("tracefile={},{options}", path.display());
    let dir = tempfile::tempdir().expect("a folder");
    expect(dir.path(), 0, ["replay", "--test", "mmio-trace", options.as_str()]);
}

#[test]
fn every_bundled_trace_gives_its_result() {
    let readme = std::fs::read_to_string(repo().join("traces/README.md")).expect("README");
    // Those of compat/ are for the reader: tests of the container open each.
    let rows: Vec<&str> = readme
        .lines()
        .filter(|line| line.starts_with("| `") && !line.starts_with("| `compat/"))
        .collect();
    let mut files: Vec<String> = std::fs::read_dir(repo().join("traces"))
        .expect("listed")
        .map(|entry| entry.expect("entry").file_name().to_string_lossy().into_owned())
        .filter(|name| name.ends_with(".qtrace"))
        .collect();
    files.sort();
    let mut named: Vec<&str> =
        rows.iter().map(|row| row.split('`').nth(1).expect("name")).collect();
    named.sort_unstable();
    assert_eq!(files, named, "traces/README.md and the folder disagree");
    for row in rows {
        let quoted: Vec<&str> = row.split('`').skip(1).step_by(2).collect();
        let name = quoted.first().expect("a name");
        let path = repo().join("traces").join(name);
        assert!(path.metadata().expect("there").len() <= 2 << 20, "{name} is too large");
        let options = quoted.iter().find(|word| word.contains("ram="));
        options.iter().for_each(|options| bus(&path, options));
        let is_hash =
            |word: &&&str| word.len() == 64 && word.bytes().all(|b| b.is_ascii_hexdigit());
        let hash = quoted.iter().find(is_hash);
        assert!(options.is_some() || hash.is_some(), "traces/README.md promises nothing of {name}");
        let Some(hash) = hash else { continue };
        for (format, depth) in [("raw", 1), ("qcow2", 64)] {
            let dir = tempfile::tempdir().expect("a folder");
            let options = format!(
                "tracefile={},target_img=d,target_fmt={format},iodepth={depth}",
                path.display()
            );
            assert_eq!(replay(dir.path(), 0, &options)["image_sha256"], *hash, "{name} {format}");
        }
    }
}
