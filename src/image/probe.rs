//! Which format an image has, by its first bytes and never by its name.

use std::io::IoSliceMut;
use std::path::Path;

use super::host::HostFile;
use super::iov::{Direction, raw_mut, transfer};
use crate::base::Result;
use crate::base::error::IoContext;

/// Bytes that [`format_of`] wants; VDI's signature is the one furthest in.
pub const PROBE_BYTES: usize = 512;

/// Where VDI's signature stands, behind a free text.
const VDI_SIGNATURE_OFFSET: usize = 0x40;

/// Signatures at the start of a file, and the format's name as qemu-img spells it.
const MAGICS: &[(&[u8], &str)] = &[
    (b"QFI\xfb", "qcow2"),
    (b"QED\0", "qed"),
    (b"KDMV", "vmdk"),
    (b"COWD", "vmdk"),
    (b"vhdxfile", "vhdx"),
    (b"conectix", "vpc"),
    (b"LUKS\xba\xbe", "luks"),
    (b"WithoutFreeSpace", "parallels"),
    (b"WithouFreSpacExt", "parallels"),
    (b"#!/bin/sh\n#V2.0 Format\n", "cloop"),
];

/// The format that `head`, the first bytes of a file, announces; `raw` when none does.
pub fn format_of(head: &[u8]) -> &'static str {
    for (magic, name) in MAGICS {
        if head.starts_with(magic) {
            // qcow version 1 shares the magic of qcow2 and nothing else.
            let qcow1 = *name == "qcow2" && head.get(4..8) == Some(&[0, 0, 0, 1][..]);
            return if qcow1 { "qcow" } else { name };
        }
    }
    if head.get(VDI_SIGNATURE_OFFSET..VDI_SIGNATURE_OFFSET + 4) == Some(&[0x7f, 0x10, 0xda, 0xbe]) {
        return "vdi";
    }
    if is_vmdk_descriptor(head) {
        return "vmdk";
    }
    "raw"
}

/// A VMDK may be a text of `key=value` lines that begins with this comment.
fn is_vmdk_descriptor(head: &[u8]) -> bool {
    const FIRST_LINE: &[u8] = b"# Disk DescriptorFile";
    head.get(..FIRST_LINE.len()).is_some_and(|h| h.eq_ignore_ascii_case(FIRST_LINE))
        || is_text_that_qemu_calls_vmdk(head)
}

/// Other comments do for QEMU, and lines of blanks, where `version=1` to 3 follows (`vmdk_probe` in
/// block/vmdk.c).
fn is_text_that_qemu_calls_vmdk(head: &[u8]) -> bool {
    for line in head.split_inclusive(|byte| *byte == b'\n') {
        let Some(line) = line.strip_suffix(b"\n") else { return false };
        let text = line.strip_suffix(b"\r").unwrap_or(line);
        match text {
            [b'#', ..] => {}
            [b' ', blanks @ ..] if blanks.iter().all(|byte| *byte == b' ') => {}
            _ => return matches!(text, b"version=1" | b"version=2" | b"version=3"),
        }
    }
    false
}

/// The format that the end of a file's name claims, where it claims one with a header.
pub fn format_of_suffix(suffix: &str) -> Option<&'static str> {
    const SUFFIXES: [(&str, &str); 6] = [
        ("qcow2", "qcow2"),
        ("vmdk", "vmdk"),
        ("vhdx", "vhdx"),
        ("vdi", "vdi"),
        ("qed", "qed"),
        ("qcow", "qcow"),
    ];
    SUFFIXES.iter().find(|(s, _)| s.eq_ignore_ascii_case(suffix)).map(|(_, format)| *format)
}

/// The format of the file at `path`.
pub fn format(path: &Path) -> Result<&'static str> {
    format_of_file(&HostFile::open(path, false)?)
}

/// The format of an open file.
pub fn format_of_file(file: &HostFile) -> Result<&'static str> {
    let mut head = [0; PROBE_BYTES];
    let got = read_head(file, &mut head, 0)?;
    Ok(format_of(head.get(..got).unwrap_or(&head)))
}

/// Reads up to `buf.len()` bytes at `offset`; fewer only at the end of the file.
pub fn read_head(file: &HostFile, buf: &mut [u8], offset: u64) -> Result<usize> {
    let mut bufs = [IoSliceMut::new(buf)];
    // SAFETY: the buffer is borrowed mutably for the length of the call.
    let got = unsafe { transfer(file.fd(), Direction::Read, raw_mut(&mut bufs), offset) };
    Ok(got.reading(&file.path, "cannot read the image")? as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signatures_decide() {
        assert_eq!(format_of(b"QFI\xfb\0\0\0\x03"), "qcow2");
        assert_eq!(format_of(b"QFI\xfb\0\0\0\x01"), "qcow");
        assert_eq!(format_of(b"vhdxfile"), "vhdx");
        assert_eq!(format_of(b"# Disk DescriptorFile\nversion=1\n"), "vmdk");
        let mut vdi = [0; 0x48];
        vdi[0x40..0x44].copy_from_slice(&[0x7f, 0x10, 0xda, 0xbe]);
        assert_eq!(format_of(&vdi), "vdi");
        for text in ["version=1\n", "#\r\n  \r\n# x\nversion=3\r\nRW 1 FLAT \"/etc/passwd\" 0\n"] {
            assert_eq!(format_of(text.as_bytes()), "vmdk", "{text}");
        }
        for text in ["#!/bin/sh\nversion=4\n", "\nversion=1\n", "# version=1\n", "version=1"] {
            assert_eq!(format_of(text.as_bytes()), "raw", "{text}");
        }
        assert_eq!(format_of(b""), "raw");
        assert_eq!(format_of(b"QF"), "raw");
        assert_eq!(format_of(&[0; 512]), "raw");
    }
}
