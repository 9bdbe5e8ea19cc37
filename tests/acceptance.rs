//! What the real captures must give, checked with QEMU's own tools where they are installed.

mod common;

use std::process::Command;

use common::{expect, have, replay, repo, shared};

/// fio loses the journal commits of this capture, btreplay writes its discards as garbage.
#[test]
fn every_flush_fua_and_discard_of_a_blktrace_capture_reaches_the_image() {
    let Some(data) = shared("traces/blktrace-binary-percpu-virtio") else { return };
    let dir = tempfile::tempdir().expect("a folder");
    let path = |name: &str| data.join(name).display().to_string();
    let per_cpu = [path("vdc.blktrace.0"), path("vdc.blktrace.1")];
    expect(dir.path(), 0, ["import", &per_cpu[0], &per_cpu[1], "-o", "cpus.qtrace"]);
    expect(dir.path(), 0, ["import", &path("vdc.bin"), "-o", "merged.qtrace"]);
    expect(dir.path(), 0, ["diff", "cpus.qtrace", "merged.qtrace"]);

    let info = expect(dir.path(), 0, ["info", "cpus.qtrace", "--format", "json"]);
    let info: serde_json::Value = serde_json::from_str(&info).expect("JSON");
    for (op, count) in [("read", 134), ("write", 826), ("flush", 14), ("discard", 31)] {
        assert_eq!(info["ops"][op], count, "{op}");
    }
    for depth in [1, 16] {
        let options = format!("tracefile=cpus.qtrace,target_fmt=mem,iodepth={depth}");
        let report = replay(dir.path(), 0, &options);
        assert_eq!(report["verdict"]["pass"], true);
        // Each of the 51 PREFLUSH+FUA writes becomes flush, write, flush; each of the 6 FUA ones
        // write, flush: virtio-blk has no such bits.
        assert_eq!(report["expansions"], 51 * 2 + 6);
        assert_eq!(report["skipped"].as_array().map(Vec::len), Some(0));
        let ops = report["ops"].as_array().expect("ops");
        let discards = ops.iter().find(|row| row["op"] == "discard").expect("discards");
        assert_eq!((&discards["count"], &discards["bytes"]), (&31.into(), &227_428_352.into()));
        // All 826 writes stand in the image with their stamps: the model covers what was not
        // discarded again, and agrees.
        assert!(report["verdict"]["image_bytes_checked"].as_u64() > Some(0));
    }
}

#[test]
fn qemu_img_finds_the_images_clean_and_equal() {
    if !have("qemu-img") {
        return;
    }
    let dir = tempfile::tempdir().expect("a folder");
    let trace = repo().join("traces/linux-ext4-virtio.qtrace");
    for format in ["raw", "qcow2", "vmdk"] {
        let options =
            format!("tracefile={},target_img=d.{format},target_fmt={format}", trace.display());
        replay(dir.path(), 0, &options);
    }
    let qemu_img = |args: &[&str]| {
        let out = Command::new("qemu-img").args(args).current_dir(dir.path()).output();
        let out = out.expect("qemu-img runs");
        assert!(out.status.success(), "{args:?}: {}", String::from_utf8_lossy(&out.stderr));
        String::from_utf8_lossy(&out.stdout).into_owned()
    };
    assert!(qemu_img(&["check", "d.qcow2"]).contains("No errors"));
    for other in ["d.qcow2", "d.vmdk"] {
        assert!(qemu_img(&["compare", "d.raw", other]).contains("identical"), "{other}");
        expect(dir.path(), 0, ["diff", "d.raw", other]);
    }
}
