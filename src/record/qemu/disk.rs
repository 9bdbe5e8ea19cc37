//! What a disk on the command line is, and what it becomes when a tap is put under it.
//!
//! The tap opens the image, in its format, and serves the guest's view of it over NBD: QEMU sees
//! a raw disk. Were the tap below QEMU's format layer, a trace would hold that layer's
//! bookkeeping and no guest's requests, and an image that grows could not: NBD exports do not.

use std::path::PathBuf;

use super::node::Node;

/// Whether an image is opened for reading only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Reading and writing.
    ReadWrite,
    /// Reading.
    ReadOnly,
    /// Reading and writing, if its permissions allow that (`auto-read-only=on`).
    Auto,
}

/// A tap to be: an image, and the name by which QEMU's user knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Disk {
    /// The drive's id, the node's name, or else the option (`hda`) or the file.
    pub name: String,
    /// The image.
    pub file: PathBuf,
    /// Its format; `None`: by its content.
    pub format: Option<String>,
    /// How it is opened.
    pub access: Access,
    /// The command line says that it has no backing file (`"backing": null`).
    pub alone: bool,
    /// Past the host's page cache (`cache=none`).
    pub direct: bool,
    /// The guest's disk is a part of the image (`offset=`, `size=`), cut out above the tap.
    pub part: bool,
}

/// Settings of QEMU's raw format that make a part of the file the disk.
const PART: [&str; 2] = ["offset", "size"];

/// Whether `node` shows only a part of its file.
pub fn is_part(node: &Node) -> bool {
    PART.iter().any(|name| node.mentions(name))
}

/// Drivers that stand above others, beside those of formats.
const ABOVE: &[&str] = &[
    "blkdebug",
    "blklogwrites",
    "blkverify",
    "compress",
    "copy-on-read",
    "preallocate",
    "quorum",
    "replication",
    "throttle",
];

/// Why there is no tap in a node of `driver` that is no file: above files that it has itself, it
/// would use images unseen.
pub fn not_a_file(node: &Node, driver: &str) -> Why {
    let above = ABOVE.contains(&driver) || FORMATS.contains(&driver);
    match above && node.mentions("filename") {
        true => Why::Refused(format!("its images stand below '{driver}', where no tap can be put")),
        false => Why::Passed(format!("it is no image file ({driver})")),
    }
}

/// Why there is no tap under a drive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Why {
    /// There is nothing to tap, or nothing that anybody wants: it is passed over unless named.
    Passed(String),
    /// A tap there would change what the guest sees, or not see what the guest does.
    Refused(String),
}

/// Formats whose guest's view qtrace can serve.
const FORMATS: &[&str] = &[
    "raw",
    "qcow2",
    "qcow",
    "qed",
    "vmdk",
    "vhdx",
    "vpc",
    "vdi",
    "parallels",
    "dmg",
    "bochs",
    "cloop",
];

/// Drivers of files of the host.
pub const FILE_DRIVERS: &[&str] = &["file", "host_device"];

/// Settings of format drivers that only say how fast, and mean nothing once the tap does the work.
const TUNING: &[&str] = &[
    "cache-clean-interval",
    "cache-size",
    "discard-no-unref",
    "l2-cache-entry-size",
    "l2-cache-size",
    "lazy-refcounts",
    "overlap-check",
    "pass-discard-other",
    "pass-discard-request",
    "pass-discard-snapshot",
    "refcount-cache-size",
];

/// Settings that name other files, or keys.
const DEEPER: &[&str] = &["backing", "data-file", "encrypt", "key-secret", "password-secret"];

/// Settings that every node understands.
const GENERIC: &[&str] = &[
    "auto-read-only",
    "cache",
    "detect-zeroes",
    "discard",
    "force-share",
    "node-name",
    "read-only",
];

/// The format that a node of `driver` shows.
///
/// # Errors
/// It cannot be tapped.
pub fn format(driver: &str) -> Result<String, Why> {
    if FORMATS.contains(&driver) {
        return Ok(driver.to_owned());
    }
    Err(Why::Refused(format!("a tap cannot open an image of format '{driver}'")))
}

/// Takes from the format node at `prefix` what was its format's, for it becomes raw; what that was
/// and is not said any more. `alone` becomes true for a node without backing file.
///
/// # Errors
/// A setting that a tap cannot stand for.
pub fn make_raw(node: &mut Node, prefix: &str, alone: &mut bool) -> Result<Vec<String>, Why> {
    let mut dropped = Vec::new();
    for name in node.names_below(prefix) {
        let path = format!("{prefix}{name}");
        if name == "backing" && (node.is_null(&path) || node.get(&path).as_deref() == Some("")) {
            *alone = true;
            node.remove(&path);
        } else if DEEPER.contains(&name.as_str()) {
            return Err(Why::Refused(format!(
                "{path} is of the image's format, which the tap opens in QEMU's place and without it"
            )));
        } else if TUNING.contains(&name.as_str()) {
            node.remove(&path);
            dropped.push(path);
        }
    }
    Ok(dropped)
}

/// Makes the file node at `prefix` a client of the NBD server at `socket`.
pub fn make_nbd(node: &mut Node, prefix: &str, socket: &str) {
    for name in node.names_below(prefix) {
        if name != "driver" && !GENERIC.contains(&name.as_str()) {
            node.remove(&format!("{prefix}{name}"));
        }
    }
    for (name, value) in [("driver", "nbd"), ("server.type", "unix"), ("server.path", socket)] {
        node.set(&format!("{prefix}{name}"), value);
    }
}

/// The file that `name` of a `-drive` or shorthand is.
///
/// # Errors
/// It names no plain file.
pub fn plain_file(name: &str) -> Result<PathBuf, Why> {
    let plain = name.strip_prefix("file:").unwrap_or(name);
    if plain.is_empty() {
        return Err(Why::Passed("it has no image".to_owned()));
    }
    if plain.starts_with("json:") {
        return Err(Why::Refused(
            "its file is a description in JSON: write it as a -blockdev".to_owned(),
        ));
    }
    if plain.starts_with("/dev/fdset/") {
        return Err(Why::Refused("its file is a descriptor (-add-fd)".to_owned()));
    }
    // As QEMU decides (path_has_protocol): a colon before the first slash.
    let first = plain.split('/').next().unwrap_or_default();
    if plain.len() == name.len() && first.contains(':') {
        let protocol = first.split(':').next().unwrap_or_default();
        if matches!(protocol, "blkdebug" | "blkverify") {
            return Err(Why::Refused(format!(
                "its image stands below '{protocol}', where no tap can be put"
            )));
        }
        return Err(Why::Passed(format!("it is no image file ({protocol})")));
    }
    Ok(PathBuf::from(plain))
}
