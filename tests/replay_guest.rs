//! The main job on real input: what a Linux guest did to its disk, replayed onto ours.
//!
//! Such a log does not record the disk's size, and the guest left the end of its 16 MiB unwritten.

use std::path::{Path, PathBuf};
use std::process::Command;

/// SHA-256 of each guest's final disk, as the data's own documentation has it.
const GUESTS: [(&str, &str); 3] = [
    ("virtio-raw", "9863e5884a2c41a87cc420d5bdde6ee17e7eb6ca830070a9cf33e4c5059efc03"),
    ("virtio-qcow2", "12104d81d36e83ccd49de75ec879e99a9676dd54eaca8cdfdc8520c2a8a12037"),
    ("ide-raw", "a4dcd83944a434f920fcccee63f06dcb570b05c9513ac8e06d44c8a620adb199"),
];

fn guest_data() -> Option<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = root.ancestors().skip(1).take(3).map(|up| up.join("shared/data/guest"));
    found.find(|path| path.is_dir())
}

fn qtrace(folder: &Path, args: &[&str]) -> Vec<u8> {
    let output = Command::new(assert_cmd::cargo::cargo_bin!("qtrace"))
        .current_dir(folder)
        .args(args)
        .output()
        .unwrap();
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

#[test]
fn every_guests_disk_is_reproduced_at_any_depth() {
    let Some(data) = guest_data() else {
        eprintln!("skipped: no shared/data/guest folder beside this repository");
        return;
    };
    for (name, sha256) in GUESTS {
        let folder = tempfile::tempdir().unwrap();
        let log = data.join(format!("{name}.blklogwrites.gz"));
        qtrace(folder.path(), &["import", log.to_str().unwrap(), "-o", "t.qtrace"]);
        for format in ["raw", "qcow2"] {
            for depth in [1, 8, 64] {
                let options = format!(
                    "tracefile=t.qtrace,target_img={depth}.{format},target_fmt={format},\
                     iodepth={depth},target_size=16M"
                );
                let args = ["replay", "--test", "block-trace-virtio", &options, "--format", "json"];
                let stdout = qtrace(folder.path(), &args);
                let report: serde_json::Value = serde_json::from_slice(&stdout).unwrap();
                assert_eq!(report["image_sha256"], sha256, "{name} {options}");
                assert_eq!(report["verdict"]["pass"], true, "{name} {options}");
            }
        }
    }
}
