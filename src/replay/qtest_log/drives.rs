//! Drives of a report's machine: null-co, or an image in the report's own folder.
//!
//! An image is judged by us first (its headers, and the files that it names), and QEMU gets a
//! temporary overlay over it, so that the file stays as it is whatever the reproducer writes.

use std::path::{Component, Path, PathBuf};

use super::harmless::{self, Refusal};
use super::opts::Settings;
use crate::image::OpenOptions;
use crate::image::given::{GivenAio, Handover};

/// Block drivers that reach nothing by themselves.
const DRIVERS: &[&str] = &["null-co", "null-aio", "raw", "qcow2", "throttle", "copy-on-read"];

/// Files that are none.
const NULL_FILES: &[&str] = &["null-co://", "null-aio://"];

/// Names of settings of a drive or block node that are passed on, in whole…
const NAMES: &[&str] = &[
    "",
    "addr",
    "aio",
    "auto-read-only",
    "bus",
    "cache",
    "cache-size",
    "copy-on-read",
    "cyls",
    "detect-zeroes",
    "discard",
    "driver",
    "force-share",
    "format",
    "group",
    "heads",
    "id",
    "if",
    "index",
    "latency-ns",
    "l2-cache-size",
    "lazy-refcounts",
    "locking",
    "media",
    "node-name",
    "offset",
    "overlap-check",
    "pass-discard-other",
    "pass-discard-request",
    "pass-discard-snapshot",
    "read-only",
    "read-zeroes",
    "readonly",
    "refcount-cache-size",
    "rerror",
    "secs",
    "serial",
    "size",
    "snapshot",
    "throttle-group",
    "trans",
    "unit",
    "werror",
    "x-check-cache-dropped",
];

/// …and by their beginning.
const FAMILIES: &[&str] = &["cache.", "bps", "iops", "throttling.", "stats-"];

/// Drives, with the folder that images may come from.
#[derive(Debug)]
pub struct Drives {
    /// The report's folder; `None` when the report came through a pipe.
    folder: Option<PathBuf>,
    /// Images handed over; QEMU inherits their descriptors.
    pub images: Vec<Handover>,
    /// What each is.
    pub names: Vec<String>,
}

impl Drives {
    /// For a report in `folder`.
    pub fn new(folder: Option<PathBuf>) -> Self {
        Self { folder, images: Vec::new(), names: Vec::new() }
    }

    /// The value of a `-drive`.
    ///
    /// # Errors
    /// Why it is refused.
    pub fn drive(&mut self, text: &str) -> Result<String, Refusal> {
        let mut settings = Settings::parse(text)?;
        if settings.is_json() {
            return Err("a drive in JSON is not looked into".to_owned());
        }
        // `file=x`, or the file as a node of its own: `file.driver=file,file.filename=x`.
        let node = settings.get("file.filename").or(settings.get("filename")).map(str::to_owned);
        let named = settings.get("file").map(str::to_owned);
        let Some(file) = named.or(node).filter(|file| !NULL_FILES.contains(&file.as_str())) else {
            check(&settings)?;
            return Ok(settings.text());
        };
        let format = settings.get("format").or(settings.get("driver")).map(str::to_owned);
        if format.as_deref().is_some_and(|format| !is_format(format)) {
            return Err(format!("format '{}' is not looked into", format.unwrap_or_default()));
        }
        if let Some(driver) = settings.get("file.driver").filter(|driver| *driver != "file") {
            return Err(format!("driver '{driver}' for a file is not looked into"));
        }
        let handed = ["file", "filename", "format", "driver", "snapshot"];
        settings.retain(|key| !handed.contains(&key) && !key.starts_with("file."));
        check(&settings)?;
        let node = self.image(&file, format)?;
        settings.push("file", &format!("json:{node}"));
        Ok(settings.text())
    }

    /// The values of the `-blockdev`s that stand for one: its file may become one of its own.
    ///
    /// # Errors
    /// Why it is refused.
    pub fn blockdev(&mut self, text: &str) -> Result<Vec<String>, Refusal> {
        let mut settings = Settings::parse(text)?;
        if settings.first("driver") == Some("file") {
            let name = settings.get("node-name").ok_or("a block node without a name")?.to_owned();
            let file = settings.get("filename").ok_or("a file without a name")?.to_owned();
            return Ok(vec![self.file_node(&file, &name)?]);
        }
        let mut out = Vec::new();
        if settings.get("file.driver") == Some("file") {
            let file = settings.get("file.filename").ok_or("a file without a name")?.to_owned();
            let inner = settings.get("file.node-name").map(str::to_owned);
            let name = inner.unwrap_or_else(|| format!("report-file{}", self.images.len()));
            out.push(self.file_node(&file, &name)?);
            settings.retain(|key| !key.starts_with("file."));
            settings.push("file", &name);
        }
        let mut rest = settings.clone();
        // Its file is the name of another node.
        if let Some(file) = rest.get("file").map(str::to_owned) {
            harmless::value(&file)?;
            if file.contains(':') {
                return Err(format!("file={file} is no name of a node"));
            }
            rest.retain(|key| key != "file");
        }
        if rest.first("driver").is_none() {
            return Err("a block node without a driver".to_owned());
        }
        check(&rest)?;
        out.push(settings.text());
        Ok(out)
    }

    /// The bytes of a file, whatever format they are in, as a node.
    fn file_node(&mut self, file: &str, name: &str) -> Result<String, Refusal> {
        harmless::value(name)?;
        // What it announces is judged too: another node may read it as that.
        self.image(file, None)?;
        let node = self.image(file, Some("raw".to_owned()))?;
        let mut node: serde_json::Value = serde_json::from_str(&node).map_err(|e| e.to_string())?;
        if let Some(object) = node.as_object_mut() {
            object.insert("node-name".to_owned(), name.into());
        }
        Ok(node.to_string())
    }

    /// An image of the report's folder as QEMU is to open it: a description in JSON.
    fn image(&mut self, file: &str, format: Option<String>) -> Result<String, Refusal> {
        let path = self.find(file)?;
        let options = OpenOptions { format, ..OpenOptions::default() };
        let handover = Handover::snapshot(&path, &options, GivenAio::Threads)
            .map_err(|error| error.to_string())?;
        let node = handover.image().node.to_string();
        let name = path.display().to_string();
        if !self.names.contains(&name) {
            self.names.push(name);
        }
        self.images.push(handover);
        Ok(node)
    }

    /// A file in the report's folder, by a name that leads nowhere else.
    fn find(&self, file: &str) -> Result<PathBuf, Refusal> {
        let Some(folder) = &self.folder else {
            return Err(format!("'{file}': the report came through a pipe, and has no folder"));
        };
        let path = Path::new(file);
        let protocol = file.split('/').next().is_some_and(|first| first.contains(':'));
        let plain = path.components().all(|part| matches!(part, Component::Normal(_)));
        if file.is_empty() || protocol || !plain || file.chars().any(char::is_control) {
            return Err(format!("'{file}' is no file of the report's own folder"));
        }
        let real =
            |path: &Path| path.canonicalize().map_err(|e| format!("{}: {e}", path.display()));
        let (home, path) = (real(folder)?, real(&folder.join(path))?);
        if !path.starts_with(&home) {
            return Err(format!("'{file}' leads out of the report's folder"));
        }
        // A device's node reaches the host's disks from any folder.
        if !path.metadata().is_ok_and(|meta| meta.is_file()) {
            return Err(format!("'{file}' is no regular file"));
        }
        Ok(path)
    }
}

/// Formats that an image may be said to have; the image's header is judged all the same.
fn is_format(name: &str) -> bool {
    matches!(name, "raw" | "qcow2" | "vmdk" | "vhdx" | "vdi" | "vpc" | "qed" | "parallels" | "qcow")
}

/// Whether settings that name no file may be passed on.
fn check(settings: &Settings) -> Result<(), Refusal> {
    for item in &settings.items {
        let (key, value) = (item.key.as_str(), item.value());
        if key == "file" && NULL_FILES.contains(&value) {
            continue;
        }
        let part = key.strip_prefix("file.").unwrap_or(key);
        let known = NAMES.contains(&part) || FAMILIES.iter().any(|begin| part.starts_with(begin));
        if !known {
            return Err(format!("{key}= is not known to be harmless"));
        }
        // A first value without a name is a node's driver.
        let driver = matches!(part, "driver" | "format") || key.is_empty();
        if driver && !DRIVERS.contains(&value) {
            return Err(format!("driver '{value}' is none of {}", DRIVERS.join(", ")));
        }
        harmless::value(value)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("home")).unwrap();
        std::fs::create_dir(folder.path().join("home/sub")).unwrap();
        for file in ["secret.img", "home/disk.img", "home/sub/disk.img"] {
            std::fs::write(folder.path().join(file), vec![1; 4096]).unwrap();
        }
        std::os::unix::fs::symlink("../secret.img", folder.path().join("home/link.img")).unwrap();
        std::os::unix::fs::symlink("disk.img", folder.path().join("home/near.img")).unwrap();
        folder
    }

    fn drives(folder: &tempfile::TempDir) -> Drives {
        Drives::new(Some(folder.path().join("home")))
    }

    #[test]
    fn null_drives_are_passed_on() {
        for text in [
            "id=disk0,if=none,file=null-co://,format=raw",
            "file=null-co://,size=2M,read-zeroes=on,if=none,id=d,cache=none,werror=stop",
            "if=none,id=d,driver=null-co,read-zeroes=on,throttling.bps-total=100",
            "if=none,id=drive0,file=null-co://,file.read-zeroes=on,format=raw",
            "id=d,if=none,file.driver=null-co,file.size=1M,driver=raw",
            "if=floppy,index=0,readonly",
        ] {
            assert_eq!(Drives::new(None).drive(text).as_deref(), Ok(text));
        }
        for text in [
            "driver=null-co,read-zeroes=on,node-name=null0",
            "null-co,node-name=n",
            "driver=raw,file=null0,node-name=r",
            "raw,node-name=r,file.driver=null-co,file.size=1024",
            r#"{"driver":"raw","file":{"driver":"null-co","size":4096},"node-name":"x"}"#,
        ] {
            let got = Drives::new(None).blockdev(text).expect(text);
            assert_eq!(got, [text], "{text}");
        }
    }

    #[test]
    fn whatever_else_is_named_is_refused() {
        let folder = folder();
        for text in [
            "file=/etc/passwd,format=raw",
            "file=../secret.img,format=raw",
            "file=sub/../../secret.img",
            "file=link.img,format=raw",
            "file=missing.img",
            "file=sub",
            "file=./disk.img",
            "file=nbd://localhost/x",
            "file=fat:rw:sub",
            "file=json:{\"driver\":\"file\"}",
            "file=blkdebug::null-co://",
            "file=null-co://x",
            "file=",
            "file=disk.img,backing=x",
            "file=disk.img,file.driver=host_device",
            "filename=/etc/passwd",
            "driver=file,filename=/etc/passwd",
            "driver=nbd,host=localhost",
            "driver=host_device,filename=/dev/sda",
            "driver=vvfat,dir=/etc",
            "file.driver=nbd,file.path=/x",
            "file=null-co://,backing.driver=file",
            "file=null-co://,format=blkdebug",
            "file=null-co://,id=/x",
            "{\"driver\":\"null-co\"}",
        ] {
            assert!(drives(&folder).drive(text).is_err(), "{text}");
        }
        let fifo = folder.path().join("home/fifo.img");
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
        for text in ["file=fifo.img,format=raw", "file=sub,format=raw"] {
            let error = drives(&folder).drive(text).unwrap_err();
            assert!(error.contains("is no regular file"), "{error}");
        }
        for text in [
            "node-name=x",
            "driver=file,filename=/etc/passwd,node-name=f",
            "driver=file,filename=link.img,node-name=f",
            "driver=file,node-name=f",
            "file,filename=/etc/passwd,node-name=f",
            "driver=raw,file.driver=file,file.filename=/etc/passwd,node-name=r",
            "driver=raw,file.driver=host_device,file.filename=/dev/sda,node-name=r",
            "driver=raw,file.driver=raw,file.file.driver=file,file.file.filename=x,node-name=r",
            "driver=raw,file=nbd:localhost:1,node-name=r",
            "driver=nbd,server.type=unix,server.path=/x,node-name=n",
            "driver=null-co,driver=nbd,node-name=n",
            "null-co,driver=file,filename=x,node-name=n",
            r#"{"driver":"raw","file":{"driver":"file","filename":"/etc/passwd"},"node-name":"x"}"#,
            r#"{"driver":"raw","file":{"driver":"nbd"},"node-name":"x"}"#,
            r#"["driver"]"#,
        ] {
            assert!(drives(&folder).blockdev(text).is_err(), "{text}");
        }
        let error = Drives::new(None).drive("file=disk.img").unwrap_err();
        assert!(error.contains("through a pipe"), "{error}");
    }

    #[test]
    fn an_image_of_the_folder_is_given_as_an_overlay() {
        let folder = folder();
        for file in ["disk.img", "sub/disk.img", "near.img"] {
            let mut drives = drives(&folder);
            let text = drives.drive(&format!("file={file},format=raw,if=none,id=d")).unwrap();
            assert!(text.starts_with("if=none,id=d,file=json:{"), "{text}");
            assert!(text.contains("/proc/self/fd/") && !text.contains(file), "{text}");
            assert_eq!((drives.images.len(), drives.names.len()), (1, 1));
        }
        let mut drives = drives(&folder);
        let nodes =
            drives.blockdev("driver=raw,node-name=r,file.driver=file,file.filename=disk.img");
        let nodes = nodes.unwrap();
        assert_eq!(nodes[1], "driver=raw,node-name=r,file=report-file0");
        assert!(nodes[0].contains("\"node-name\":\"report-file0\""), "{}", nodes[0]);
        let json =
            r#"{"driver":"qcow2","node-name":"q","file":{"driver":"file","filename":"disk.img"}}"#;
        let nodes = drives.blockdev(json).unwrap();
        assert!(nodes[1].contains("\"file\":\"report-file"), "{nodes:?}");
    }

    #[test]
    fn an_image_that_names_another_file_is_refused() {
        let folder = folder();
        let path = folder.path().join("home/over.qcow2");
        let mut head = vec![0u8; 65536 * 4];
        // qcow2 version 2: backing file name at 0x100, 64 KiB clusters, one entry in its tables.
        head[..8].copy_from_slice(b"QFI\xfb\0\0\0\x02");
        head[8..16].copy_from_slice(&0x100u64.to_be_bytes());
        head[16..20].copy_from_slice(&11u32.to_be_bytes());
        head[20..24].copy_from_slice(&16u32.to_be_bytes());
        head[24..32].copy_from_slice(&65536u64.to_be_bytes());
        head[36..40].copy_from_slice(&1u32.to_be_bytes());
        head[40..48].copy_from_slice(&65536u64.to_be_bytes());
        head[48..56].copy_from_slice(&(65536u64 * 2).to_be_bytes());
        head[56..60].copy_from_slice(&1u32.to_be_bytes());
        head[0x100..0x10b].copy_from_slice(b"/etc/passwd");
        std::fs::write(&path, head).unwrap();
        for text in ["file=over.qcow2,format=qcow2", "file=over.qcow2"] {
            let error = drives(&folder).drive(text).unwrap_err();
            assert!(error.contains("passwd") || error.contains("backing"), "{error}");
        }
        assert!(drives(&folder).blockdev("driver=file,filename=over.qcow2,node-name=f").is_err());
    }
}
