//! What a recording must not destroy, give away, or be turned into.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::common::{expect, have, qtrace};

fn folder() -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a folder");
    std::fs::write(dir.path().join("d.raw"), vec![0; 1 << 20]).expect("an image");
    dir
}

/// `qtrace record nbd --image d.raw WORDS` ends with `code`.
fn record(dir: &Path, code: i32, words: &str) {
    let args = ["record", "nbd", "-q", "--image", "d.raw"];
    expect(dir, code, args.into_iter().chain(words.split(' ')));
}

#[test]
fn force_replaces_traces_only_and_only_for_a_recording() {
    let dir = folder();
    let dir = dir.path();
    std::fs::write(dir.join("other.raw"), [7; 4096]).expect("another image");
    record(dir, 2, "-o other.raw --force -- true");
    assert_eq!(std::fs::read(dir.join("other.raw")).expect("read"), [7; 4096]);
    record(dir, 0, "-o old.qtrace -- true");
    let old = std::fs::read(dir.join("old.qtrace")).expect("read");
    for words in ["-- /no/such/command", "--socket no/s -- true", "--listen no:such:place -- true"]
    {
        record(dir, 2, &format!("-o old.qtrace --force {words}"));
        assert!(std::fs::read(dir.join("old.qtrace")).expect("read") == old, "{words}");
    }
    record(dir, 0, "-o old.qtrace --force -- true");
    assert!(std::fs::read(dir.join("old.qtrace")).expect("read") != old);
    assert_eq!(std::fs::read_dir(dir).expect("read").count(), 3);
}

#[test]
fn a_trace_that_its_command_removes_is_not_reported_as_whole() {
    let dir = folder();
    record(dir.path(), 7, "-o t.qtrace -- rm t.qtrace");
}

#[test]
fn a_trace_is_for_those_who_may_read_the_image() {
    let dir = folder();
    let dir = dir.path();
    let mode = |name: &str| {
        let meta = dir.join(name).metadata().expect("there");
        meta.permissions().mode() & 0o777
    };
    let private = std::fs::Permissions::from_mode(0o600);
    std::fs::set_permissions(dir.join("d.raw"), private).expect("changed");
    record(dir, 0, "-o t.qtrace -- true");
    assert_eq!(mode("t.qtrace"), 0o600);
    let open = std::fs::Permissions::from_mode(0o644);
    std::fs::set_permissions(dir.join("d.raw"), open).expect("changed");
    record(dir, 0, "-o u.qtrace -- true");
    // Less what the umask takes.
    assert_eq!(mode("u.qtrace") & !0o044, 0o600);
}

#[test]
fn a_client_cannot_make_a_raw_image_another_format() {
    if !have("qemu-io") {
        return;
    }
    let dir = folder();
    let dir = dir.path();
    std::fs::write(dir.join("head"), [&b"QFI\xfb\0\0\0\x03"[..], &[0; 504]].concat())
        .expect("made");
    let write = |more: &[&str]| {
        let args = ["record", "nbd", "--image", "d.raw", "-o", "t.qtrace", "--force"];
        let client = ["--", "qemu-io", "-f", "raw", "-c", "write -s head 0 512", "{uri}"];
        qtrace(dir, args.iter().chain(more).chain(&client))
    };
    let image = || std::fs::read(dir.join("d.raw")).expect("read");
    let out = write(&[]);
    let said = String::from_utf8_lossy(&out.stderr);
    assert!(!out.status.success() && said.contains("look like qcow2"), "{said}");
    assert!(image() == vec![0; 1 << 20]);
    assert!(write(&["--format", "raw"]).status.success());
    assert!(image().starts_with(b"QFI\xfb"));
}
