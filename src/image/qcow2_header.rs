//! The header of a qcow2 image, read and judged before anything else touches the file.
//!
//! Layout: QEMU `docs/interop/qcow2.rst`; all numbers are big endian. Nothing is allocated by a
//! number that has not been compared with its limit, and nothing the header names is opened here.

use super::host::HostFile;
use super::probe::read_head;
use crate::base::limits::DISK_BYTES_MAX;
use crate::base::{Error, Result};

const QCOW2_MAGIC: u32 = 0x5146_49fb;
/// Length of a version 2 header, and where version 3 goes on.
const V2_HEADER_BYTES: u64 = 72;
/// Least length of a version 3 header.
const V3_HEADER_BYTES: u64 = 104;

const MIN_CLUSTER_BITS: u32 = 9;
const MAX_CLUSTER_BITS: u32 = 21;
/// QEMU's own limits on the two tables that are held in memory.
const L1_BYTES_MAX: u64 = 32 << 20;
const REFTABLE_BYTES_MAX: u64 = 8 << 20;
const REFCOUNT_ORDER_MAX: u32 = 6;
/// Longest backing file name (qcow2.rst: "must not be longer than 1023 bytes").
const BACKING_NAME_BYTES_MAX: u32 = 1023;

/// Incompatible feature bits.
const QCOW2_INCOMPAT_DIRTY: u64 = 1 << 0;
const QCOW2_INCOMPAT_CORRUPT: u64 = 1 << 1;
const QCOW2_INCOMPAT_DATA_FILE: u64 = 1 << 2;
const QCOW2_INCOMPAT_COMPRESSION: u64 = 1 << 3;
const QCOW2_INCOMPAT_EXTL2: u64 = 1 << 4;
const QCOW2_INCOMPAT_KNOWN: u64 = (1 << 5) - 1;

/// Header extension types.
const QCOW2_EXT_MAGIC_END: u32 = 0;
const QCOW2_EXT_MAGIC_BACKING_FORMAT: u32 = 0xe279_2aca;
const QCOW2_EXT_MAGIC_CRYPTO_HEADER: u32 = 0x0537_be77;
const QCOW2_EXT_MAGIC_DATA_FILE: u32 = 0x4441_5441;

/// What a header says, once it has passed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Qcow2Header {
    /// 2 or 3.
    pub version: u32,
    /// Guest-visible bytes.
    pub size: u64,
    /// The file that holds what this image does not.
    pub backing: Option<String>,
    /// That file's format, where the image says it.
    pub backing_format: Option<String>,
    /// Guest data is in another file: its name, where the image says it.
    pub data_file: Option<Option<String>>,
    /// Something that only QEMU reads.
    pub needs_qemu: Option<&'static str>,
}

/// The header's bytes with checked access.
struct Bytes<'a>(&'a [u8]);

impl Bytes<'_> {
    fn slice(&self, at: u64, len: u64) -> Option<&[u8]> {
        let from = usize::try_from(at).ok()?;
        let to = usize::try_from(at.checked_add(len)?).ok()?;
        self.0.get(from..to)
    }

    fn u32(&self, at: u64) -> Option<u32> {
        Some(u32::from_be_bytes(self.slice(at, 4)?.try_into().ok()?))
    }

    fn u64(&self, at: u64) -> Option<u64> {
        Some(u64::from_be_bytes(self.slice(at, 8)?.try_into().ok()?))
    }

    fn text(&self, at: u64, len: u64) -> Option<String> {
        String::from_utf8(self.slice(at, len)?.to_vec()).ok()
    }
}

/// Reads and judges the header of `host`.
pub fn read(host: &HostFile) -> Result<Qcow2Header> {
    let mut head = vec![0; V3_HEADER_BYTES as usize];
    let got = read_head(host, &mut head, 0)?;
    head.truncate(got);
    // Names and extensions stay within the first cluster.
    let cluster_bits = Bytes(&head).u32(20).unwrap_or(0);
    if (MIN_CLUSTER_BITS..=MAX_CLUSTER_BITS).contains(&cluster_bits) {
        head.resize(1 << cluster_bits, 0);
        let got = read_head(host, &mut head, 0)?;
        head.truncate(got);
    }
    parse(&head, host.len).map_err(|e| e.path(&host.path))
}

/// Judges the first cluster of a file of `file_len` bytes.
pub fn parse(head: &[u8], file_len: u64) -> Result<Qcow2Header> {
    let bytes = Bytes(head);
    let short = || damaged("the file ends within the header");
    if bytes.u32(0) != Some(QCOW2_MAGIC) {
        return Err(damaged("it does not begin as a qcow2 image"));
    }
    let version = bytes.u32(4).ok_or_else(short)?;
    if !(2..=3).contains(&version) {
        return Err(damaged(&format!("version {version} is not 2 or 3")));
    }
    let cluster_bits = bytes.u32(20).ok_or_else(short)?;
    if !(MIN_CLUSTER_BITS..=MAX_CLUSTER_BITS).contains(&cluster_bits) {
        return Err(damaged(&format!("2^{cluster_bits} is no size of a cluster")));
    }
    let size = bytes.u64(24).ok_or_else(short)?;
    check_encryption(bytes.u32(32).ok_or_else(short)?)?;
    check_tables(&bytes, cluster_bits, size, file_len).ok_or_else(short)??;
    let (incompatible, header_len) = if version == 2 {
        (0, V2_HEADER_BYTES)
    } else {
        version_3(&bytes, cluster_bits).ok_or_else(short)??
    };
    check_features(incompatible)?;
    let extensions = extensions(&bytes, header_len)?;
    let has_data_file = incompatible & QCOW2_INCOMPAT_DATA_FILE != 0;
    Ok(Qcow2Header {
        version,
        size,
        backing: backing_name(&bytes, cluster_bits).ok_or_else(short)??,
        backing_format: extensions.backing_format,
        data_file: has_data_file.then_some(extensions.data_file),
        needs_qemu: needs_qemu(&bytes, incompatible),
    })
}

fn damaged(what: &str) -> Error {
    Error::input(format!("not a usable qcow2 image: {what}"))
}

fn check_encryption(method: u32) -> Result<()> {
    let name = match method {
        0 => return Ok(()),
        1 => "AES",
        2 => "LUKS",
        n => return Err(damaged(&format!("encryption method {n} does not exist"))),
    };
    Err(Error::input(format!("the image is encrypted ({name}): it cannot be read without its key"))
        .hint("decrypt a copy: qemu-img convert --object secret,id=k,file=KEY --image-opts driver=qcow2,encrypt.key-secret=k,file.filename=IMAGE -O qcow2 COPY"))
}

/// The L1 and refcount tables: where they are and how large. `None` when the header is too short.
fn check_tables(bytes: &Bytes, cluster_bits: u32, size: u64, file_len: u64) -> Option<Result<()>> {
    let (l1_entries, l1_at) = (u64::from(bytes.u32(36)?), bytes.u64(40)?);
    let (reftable_at, reftable_clusters) = (bytes.u64(48)?, u64::from(bytes.u32(56)?));
    let cluster = 1u64 << cluster_bits;
    // One L1 entry covers a cluster of 8-byte L2 entries (two words each with extended L2).
    let covered = cluster * (cluster / 8);
    let judge = || {
        if size > DISK_BYTES_MAX {
            return Err(damaged(&format!("a disk of {size} bytes is beyond any limit")));
        }
        if l1_entries < size.div_ceil(covered) {
            return Err(damaged("the L1 table is too small for the disk"));
        }
        check_table("L1", l1_at, l1_entries * 8, L1_BYTES_MAX, cluster, file_len)?;
        let bytes = reftable_clusters << cluster_bits;
        check_table("refcount", reftable_at, bytes, REFTABLE_BYTES_MAX, cluster, file_len)
    };
    Some(judge())
}

fn check_table(
    name: &str,
    at: u64,
    bytes: u64,
    max: u64,
    cluster: u64,
    file_len: u64,
) -> Result<()> {
    if bytes > max {
        return Err(damaged(&format!("the {name} table has {bytes} bytes (at most {max})")));
    }
    if !at.is_multiple_of(cluster) {
        return Err(damaged(&format!("the {name} table at {at:#x} is not on a cluster")));
    }
    if bytes > 0 && at.checked_add(bytes).is_none_or(|end| end > file_len.next_multiple_of(cluster))
    {
        return Err(damaged(&format!("the {name} table at {at:#x} is past the end of the file")));
    }
    Ok(())
}

/// The feature bits and the header's length of version 3. `None` when the header is too short.
fn version_3(bytes: &Bytes, cluster_bits: u32) -> Option<Result<(u64, u64)>> {
    let (incompatible, order) = (bytes.u64(72)?, bytes.u32(96)?);
    let len = u64::from(bytes.u32(100)?);
    if order > REFCOUNT_ORDER_MAX {
        return Some(Err(damaged(&format!("refcounts of 2^{order} bits do not exist"))));
    }
    if len < V3_HEADER_BYTES || len > 1 << cluster_bits || !len.is_multiple_of(8) {
        return Some(Err(damaged(&format!("its header cannot have {len} bytes"))));
    }
    Some(Ok((incompatible, len)))
}

fn check_features(incompatible: u64) -> Result<()> {
    if incompatible & QCOW2_INCOMPAT_CORRUPT != 0 {
        return Err(Error::input("the image is marked corrupt")
            .hint("repair a copy of it: qemu-img check -r all IMAGE"));
    }
    if incompatible & QCOW2_INCOMPAT_DIRTY != 0 {
        return Err(Error::input("the image is marked dirty: it was not closed properly")
            .hint("repair it: qemu-img check -r all IMAGE"));
    }
    let unknown = incompatible & !QCOW2_INCOMPAT_KNOWN;
    if unknown != 0 {
        return Err(Error::input(format!(
            "the image needs features nobody here knows (incompatible bits {unknown:#x})"
        )));
    }
    Ok(())
}

fn needs_qemu(bytes: &Bytes, incompatible: u64) -> Option<&'static str> {
    // The byte behind the fixed header says which; 0 is zlib, which the bit should not accompany.
    let compression = bytes.slice(V3_HEADER_BYTES, 1).and_then(|b| b.first());
    if incompatible & QCOW2_INCOMPAT_EXTL2 != 0 {
        Some("extended L2 entries")
    } else if incompatible & QCOW2_INCOMPAT_COMPRESSION != 0 && compression != Some(&0) {
        Some("zstd compression")
    } else {
        None
    }
}

/// `None` when the header is too short.
fn backing_name(bytes: &Bytes, cluster_bits: u32) -> Option<Result<Option<String>>> {
    let (at, len) = (bytes.u64(8)?, bytes.u32(16)?);
    if at == 0 || len == 0 {
        return Some(Ok(None));
    }
    let fits = at.checked_add(len.into()).is_some_and(|end| end <= 1 << cluster_bits);
    if len > BACKING_NAME_BYTES_MAX || !fits {
        return Some(Err(damaged("its backing file's name is longer than its place")));
    }
    let name = bytes.text(at, len.into()).filter(|name| !name.contains('\0'));
    Some(name.map(Some).ok_or_else(|| damaged("its backing file's name is not text")))
}

#[derive(Default)]
struct Extensions {
    backing_format: Option<String>,
    data_file: Option<String>,
}

fn extensions(bytes: &Bytes, mut at: u64) -> Result<Extensions> {
    let mut found = Extensions::default();
    // A version 2 header may end the cluster without the end marker.
    while let (Some(kind), Some(len)) = (bytes.u32(at), bytes.u32(at + 4)) {
        let len = u64::from(len);
        let text =
            || bytes.text(at + 8, len).ok_or_else(|| damaged("a name in its header is not text"));
        match kind {
            QCOW2_EXT_MAGIC_END => break,
            QCOW2_EXT_MAGIC_BACKING_FORMAT => found.backing_format = Some(text()?),
            QCOW2_EXT_MAGIC_DATA_FILE => found.data_file = Some(text()?),
            QCOW2_EXT_MAGIC_CRYPTO_HEADER => check_encryption(2)?,
            _ if bytes.slice(at + 8, len).is_none() => {
                return Err(damaged("a header extension is longer than its cluster"));
            }
            _ => {}
        }
        at += 8 + len.next_multiple_of(8);
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A version 3 header of an empty 1 MiB disk.
    fn header() -> Vec<u8> {
        let mut bytes = vec![0; 65536];
        let mut put = |at: usize, value: &[u8]| bytes[at..at + value.len()].copy_from_slice(value);
        put(0, &QCOW2_MAGIC.to_be_bytes());
        put(4, &3u32.to_be_bytes());
        put(20, &16u32.to_be_bytes());
        put(24, &(1u64 << 20).to_be_bytes());
        put(36, &1u32.to_be_bytes());
        put(40, &0x30000u64.to_be_bytes());
        put(48, &0x10000u64.to_be_bytes());
        put(56, &1u32.to_be_bytes());
        put(96, &4u32.to_be_bytes());
        put(100, &112u32.to_be_bytes());
        bytes
    }

    const LEN: u64 = 0x40000;

    fn with(at: usize, value: &[u8]) -> Result<Qcow2Header> {
        let mut bytes = header();
        bytes[at..at + value.len()].copy_from_slice(value);
        parse(&bytes, LEN)
    }

    #[test]
    fn a_plain_header_passes() {
        let header = parse(&header(), LEN).unwrap();
        assert_eq!((header.version, header.size, header.backing), (3, 1 << 20, None));
    }

    #[test]
    fn hostile_numbers_are_named() {
        let cases: [(usize, &[u8], &str); 12] = [
            (4, &9u32.to_be_bytes(), "version 9"),
            (20, &60u32.to_be_bytes(), "2^60"),
            (20, &8u32.to_be_bytes(), "2^8"),
            (24, &u64::MAX.to_be_bytes(), "beyond any limit"),
            (32, &2u32.to_be_bytes(), "LUKS"),
            (32, &1u32.to_be_bytes(), "AES"),
            (36, &0u32.to_be_bytes(), "too small"),
            (36, &u32::MAX.to_be_bytes(), "L1 table has"),
            (40, &0x30001u64.to_be_bytes(), "not on a cluster"),
            (40, &0x7fff_ffff_ffff_0000u64.to_be_bytes(), "past the end"),
            (56, &u32::MAX.to_be_bytes(), "refcount table has"),
            (96, &7u32.to_be_bytes(), "2^7"),
        ];
        for (at, value, want) in cases {
            let error = with(at, value).unwrap_err();
            assert_eq!(error.kind().exit_code(), 3);
            assert!(error.to_string().contains(want), "{error} lacks {want}");
        }
    }

    #[test]
    fn feature_bits_are_judged() {
        assert!(with(79, &[1]).unwrap_err().hint_text().unwrap().contains("check -r all"));
        assert!(with(79, &[2]).unwrap_err().to_string().contains("corrupt"));
        assert_eq!(with(79, &[4]).unwrap().data_file, Some(None));
        assert_eq!(with(79, &[16]).unwrap().needs_qemu, Some("extended L2 entries"));
        assert!(with(79, &[32]).unwrap_err().to_string().contains("0x20"));
    }

    #[test]
    fn every_truncation_is_an_answer() {
        let bytes = header();
        for len in 0..200 {
            let _ = parse(&bytes[..len], LEN);
        }
        assert!(parse(&bytes[..100], LEN).is_err());
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(changes in prop::collection::vec((0usize..160, any::<u8>()), 1..8)) {
            let mut bytes = header();
            for (at, value) in changes {
                bytes[at] = value;
            }
            let _ = parse(&bytes, LEN);
        }
    }
}
