//! Guards for the formats that qemu-nbd opens for us: which of them name other files.
//!
//! qemu-nbd follows whatever an image names, so an image that names anything is refused unless the
//! user trusts it (`allow_backing=on`). Judged from the headers, before QEMU sees the file.

use super::OpenOptions;
use super::host::HostFile;
use super::probe::{format_of, read_head};
use crate::base::{Error, Result};

/// What may be opened this way, as qemu-img spells it. VHDX, VDI, VPC and Parallels images name no
/// other file that QEMU would follow: it refuses their differencing kinds.
pub const FORMATS: &[&str] = &["vmdk", "vhdx", "vdi", "vpc", "parallels", "qed", "qcow"];

/// Bytes of a VMDK descriptor that QEMU searches for a parent's name.
const VMDK_DESCRIPTOR_BYTES: usize = 64 << 10;
const VMDK_SECTOR: u64 = 512;
/// Offset of the capacity in the header of a hosted sparse extent ("KDMV").
const VMDK_CAPACITY_AT: usize = 12;
/// Offset of the descriptor's place in that header.
const VMDK_DESCRIPTOR_AT: usize = 28;
const VMDK_PARENT: &[u8] = b"parentFileNameHint";

/// Feature bit of QED: a backing file is named.
const QED_F_BACKING_FILE: u64 = 1 << 0;

/// Refuses an image that cannot be opened at all, or that names other files without leave;
/// whether it names others.
pub fn guard(host: &HostFile, format: &str, options: &OpenOptions) -> Result<bool> {
    if format == "luks" {
        return Err(Error::input(
            "the image is encrypted (LUKS): it cannot be read without its key",
        )
        .path(&host.path)
        .hint("decrypt a copy with qemu-img convert, or open it as raw to replay ciphertext"));
    }
    if !FORMATS.contains(&format) {
        return Err(Error::input(format!("images of format {format} cannot be opened"))
            .path(&host.path)
            .hint(format!("formats: raw, qcow2, {}", FORMATS.join(", "))));
    }
    let mut head = vec![0; VMDK_DESCRIPTOR_BYTES];
    let got = read_head(host, &mut head, 0)?;
    head.truncate(got);
    let is = format_of(&head);
    if is != "raw" && is != format {
        return Err(Error::input(format!("the image is {is}, and not {format}"))
            .path(&host.path)
            .hint("leave the format out, or name the right one"));
    }
    if format == "qcow" && be32(&head, 36) != Some(0) {
        return Err(Error::input("the image is encrypted, or cut short").path(&host.path));
    }
    let names_others = match format {
        "vmdk" => vmdk_names_others(host, &head)?,
        // Little endian.
        "qed" => le64(&head, 16).is_none_or(|features| features & QED_F_BACKING_FILE != 0),
        "qcow" => be32(&head, 8) != Some(0) || be32(&head, 12) != Some(0),
        _ => false,
    };
    if names_others && !options.allow_backing {
        return Err(Error::input(format!(
            "the {format} image names other files, which QEMU would open wherever they are"
        ))
        .path(&host.path)
        .hint("if you trust the image, allow it: allow_backing=on"));
    }
    Ok(names_others)
}

/// Anything but one self-contained sparse extent names its extents or its parent.
fn vmdk_names_others(host: &HostFile, head: &[u8]) -> Result<bool> {
    let self_contained =
        head.starts_with(b"KDMV") && le64(head, VMDK_CAPACITY_AT).is_some_and(|n| n != 0);
    if !self_contained || contains(head, VMDK_PARENT) {
        return Ok(true);
    }
    let at = le64(head, VMDK_DESCRIPTOR_AT).and_then(|sector| sector.checked_mul(VMDK_SECTOR));
    let Some(at) = at.filter(|at| *at < host.len) else { return Ok(true) };
    let mut descriptor = vec![0; VMDK_DESCRIPTOR_BYTES];
    let got = read_head(host, &mut descriptor, at)?;
    descriptor.truncate(got);
    Ok(contains(&descriptor, VMDK_PARENT))
}

fn contains(bytes: &[u8], wanted: &[u8]) -> bool {
    bytes.windows(wanted.len()).any(|window| window.eq_ignore_ascii_case(wanted))
}

fn le64(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}

fn be32(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    use crate::image::testkit::{self, SIZE, arg, qemu_ok};
    use crate::image::{Image, OpenOptions, create, open, read_exact, write_all};

    fn writable() -> OpenOptions {
        OpenOptions { writable: true, ..Default::default() }
    }

    fn image_by_qemu(format: &str, args: &[&str]) -> Option<(tempfile::TempDir, PathBuf)> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("disk");
        let size = SIZE.to_string();
        let mut all = vec!["create", "-q", "-f", format];
        all.extend(args);
        all.push(arg(&path));
        all.push(&size);
        qemu_ok("qemu-img", &all)?;
        Some((dir, path))
    }

    fn opens_via_qemu(path: &Path, format: &str) -> std::sync::Arc<dyn Image> {
        let image = open(path, &writable()).unwrap();
        assert_eq!((image.info().format.as_str(), image.info().via.as_str()), (format, "qemu-nbd"));
        image
    }

    #[test]
    fn what_imago_lacks_is_served_by_qemu_nbd() {
        let cases: [(&str, &[&str]); 6] = [
            ("qcow2", &["-o", "compression_type=zstd"]),
            ("qcow2", &["-o", "extended_l2=on,cluster_size=128k"]),
            ("vmdk", &[]),
            ("vhdx", &[]),
            ("vdi", &[]),
            ("qed", &[]),
        ];
        for (format, args) in cases {
            let Some((_dir, path)) = image_by_qemu(format, args) else { return };
            // VHDX and VDI round the size; the body wants it exact.
            if qemu_ok("qemu-img", &["info", arg(&path)]).unwrap().contains(&format!("({SIZE} ")) {
                testkit::exercise(&*opens_via_qemu(&path, format));
            }
            let image = opens_via_qemu(&path, format);
            write_all(&*image, &[9; 4096], 8192).unwrap();
            image.flush().unwrap();
            drop(image);
            let options = OpenOptions::default();
            let (image, mut buf) = (open(&path, &options).unwrap(), [0; 4096]);
            read_exact(&*image, &mut buf, 8192).unwrap();
            assert_eq!(buf, [9; 4096], "{format} {args:?}");
            assert!(write_all(&*image, &buf, 0).is_err());
        }
    }

    #[test]
    fn compressed_clusters_are_read_either_way() {
        for kind in ["zlib", "zstd"] {
            let dir = tempfile::tempdir().unwrap();
            let (flat, path) = (dir.path().join("flat"), dir.path().join("disk.qcow2"));
            let mut content = vec![0; SIZE as usize];
            crate::base::Prng::new(2).fill(&mut content[100_000..200_000]);
            content[1_000_000..2_000_000].fill(3);
            std::fs::write(&flat, &content).unwrap();
            let option = format!("compression_type={kind}");
            let command = ["convert", "-c", "-O", "qcow2", "-o", &option, arg(&flat), arg(&path)];
            if qemu_ok("qemu-img", &command).is_none() {
                return;
            }
            testkit::check_against(&*open(&path, &OpenOptions::default()).unwrap(), &content);
        }
    }

    #[test]
    fn an_image_in_use_is_refused_here_too() {
        let Some((_dir, path)) = image_by_qemu("vmdk", &[]) else { return };
        let _first = open(&path, &writable()).unwrap();
        let error = open(&path, &writable()).map(|i| i.size()).unwrap_err();
        assert_eq!(error.kind().exit_code(), 3);
        assert!(error.hint_text().unwrap().contains("stop the VM"), "{error}");
    }

    #[test]
    fn images_that_name_other_files_need_leave() {
        let Some((dir, path)) = image_by_qemu("vmdk", &["-o", "subformat=monolithicFlat"]) else {
            return;
        };
        let refused = |path: &Path| {
            let error = open(path, &OpenOptions::default()).map(|i| i.size()).unwrap_err();
            assert!(error.to_string().contains("names other files"), "{error}");
        };
        refused(&path);
        let allowed = OpenOptions { allow_backing: true, ..Default::default() };
        open(&path, &allowed).unwrap();
        for format in ["vmdk", "qed", "qcow"] {
            let Some((_base_dir, base)) = image_by_qemu(format, &[]) else { return };
            let child = dir.path().join(format!("child.{format}"));
            let command =
                ["create", "-q", "-f", format, "-F", format, "-b", arg(&base), arg(&child)];
            qemu_ok("qemu-img", &command);
            refused(&child);
        }
    }

    #[test]
    fn they_can_be_created() {
        for format in ["vmdk", "vdi", "vhdx"] {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("disk");
            let pending = match create(&path, format, 8 << 20, &OpenOptions::default()) {
                Ok(pending) => pending,
                Err(e) if e.kind().exit_code() == 5 => return eprintln!("skipped: {e}"),
                Err(e) => panic!("{e}"),
            };
            write_all(&*pending.image(), &[4; 512], 1 << 20).unwrap();
            pending.commit().unwrap();
            let mut buf = [0; 512];
            read_exact(&*open(&path, &OpenOptions::default()).unwrap(), &mut buf, 1 << 20).unwrap();
            assert_eq!(buf, [4; 512]);
            assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
        }
    }

    #[test]
    fn luks_and_the_unknown_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("disk");
        std::fs::write(&path, b"LUKS\xba\xbe\0\x01").unwrap();
        let error = open(&path, &OpenOptions::default()).map(|i| i.size()).unwrap_err();
        assert!(error.to_string().contains("key"), "{error}");
        std::fs::write(&path, b"QFI\xfb\0\0\0\x03").unwrap();
        let other = OpenOptions { format: Some("vmdk".into()), ..Default::default() };
        let error = open(&path, &other).map(|i| i.size()).unwrap_err();
        assert!(error.to_string().contains("is qcow2, and not vmdk"), "{error}");
        let odd = OpenOptions { format: Some("floppy".into()), ..Default::default() };
        let error = open(&path, &odd).map(|i| i.size()).unwrap_err();
        assert!(error.hint_text().unwrap().contains("vhdx"));
    }
}
