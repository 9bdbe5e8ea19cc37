//! The tables of a qcow2 image, judged before anything is written to it.
//!
//! imago believes what the tables say. In a damaged image a guest's write could then land in a
//! table and destroy what could still be repaired, which QEMU prevents by its overlap checks. So
//! one pass over the metadata (never the data) comes first, as `qemu-img check` makes it: nothing
//! outside the file, nothing on top of a table, nothing in use that the refcounts call free.
//! Layout: QEMU `docs/interop/qcow2.rst`. What only snapshots refer to is not followed.

use super::host::HostFile;
use super::probe::read_head;
use super::qcow2_refcounts::{Count, Refcounts};
use crate::base::{Error, Result};

/// The bits of a table entry that are an offset ("bit 9 - 55").
const OFFSET_MASK: u64 = 0x00ff_ffff_ffff_fe00;
const QCOW_OFLAG_COPIED: u64 = 1 << 63;
const QCOW_OFLAG_COMPRESSED: u64 = 1 << 62;
/// All zeros, in an L2 entry of version 3.
const QCOW_OFLAG_ZERO: u64 = 1 << 0;

/// QEMU's own limits.
const SNAPSHOTS_MAX: u32 = 65_536;
const SNAPSHOT_EXTRA_MAX: u32 = 1024;
const L1_BYTES_MAX: u64 = 32 << 20;

/// Fixed part of an entry of the snapshot table.
const SNAPSHOT_HEADER_BYTES: usize = 40;
/// Unit of a compressed cluster's length.
const COMPRESSED_SECTOR: u64 = 512;

/// What a run of clusters holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Header,
    L1,
    L2,
    RefcountTable,
    RefcountBlock,
    SnapshotTable,
    SnapshotL1,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Header => "the header",
            Self::L1 => "the L1 table",
            Self::L2 => "an L2 table",
            Self::RefcountTable => "the refcount table",
            Self::RefcountBlock => "a refcount block",
            Self::SnapshotTable => "the snapshot table",
            Self::SnapshotL1 => "a snapshot's L1 table",
        }
    }
}

/// Clusters of metadata: first, number, kind.
type Region = (u64, u32, Kind);

/// The fields of the header that place the tables. `qcow2_header` has judged them.
struct Tables {
    l1_at: u64,
    l1_bytes: u64,
    refcounts_at: u64,
    refcounts_bytes: u64,
    refcount_order: u32,
    snapshots_at: u64,
    snapshots: u32,
}

struct Check<'a> {
    host: &'a HostFile,
    cluster_bits: u32,
    /// A cluster may begin at the end of the file, not behind: the last one need not be written.
    clusters: u64,
    regions: Vec<Region>,
    refcounts: Refcounts,
}

/// Refuses an image whose tables would lead a write to where it destroys something.
/// With `external_data`, guest data is in another file and has no refcounts.
pub fn check(host: &HostFile, version: u32, external_data: bool) -> Result<()> {
    let mut head = [0; 104];
    read_head(host, &mut head, 0)?;
    let cluster_bits = be32(&head, 20).clamp(9, 21);
    let clusters = (host.len >> cluster_bits) + 1;
    let tables = Tables {
        l1_at: be64(&head, 40),
        l1_bytes: u64::from(be32(&head, 36)) * 8,
        refcounts_at: be64(&head, 48),
        refcounts_bytes: u64::from(be32(&head, 56)) << cluster_bits,
        // Version 2 has 16 bits, and data of its own behind its shorter header.
        refcount_order: if version == 2 { 4 } else { be32(&head, 96).min(6) },
        snapshots_at: be64(&head, 64),
        snapshots: be32(&head, 60),
    };
    let refcounts = Refcounts::new(clusters, tables.refcount_order);
    let mut check = Check { host, cluster_bits, clusters, regions: Vec::new(), refcounts };
    let l1 = check.find_metadata(&tables)?;
    check.judge_metadata()?;
    check.judge_mappings(&l1, external_data)
}

impl Check<'_> {
    fn damaged(&self, what: String) -> Error {
        Error::input(format!("the qcow2 image is damaged and is not written to: {what}"))
            .path(&self.host.path)
            .hint(format!(
                "repair it, or better a copy: qemu-img check -r all {}",
                self.host.path.display()
            ))
    }

    /// Fills `buf` from `at`, with zeros past the end; `false` when all of it is a hole, which is
    /// not read: a sparse file could name terabytes of them.
    fn read(&self, buf: &mut [u8], at: u64) -> Result<bool> {
        let end = at.saturating_add(buf.len() as u64);
        // Where holes cannot be told, everything is data.
        if let Ok(next) = self.host.seek(at, libc::SEEK_DATA)
            && next.is_none_or(|next| next >= end)
        {
            return Ok(false);
        }
        buf.fill(0);
        read_head(self.host, buf, at)?;
        Ok(true)
    }

    fn read_table(&self, at: u64, bytes: u64) -> Result<Vec<u64>> {
        let mut table = vec![0; bytes as usize];
        self.read(&mut table, at)?;
        Ok(table.as_chunks().0.iter().map(|entry| u64::from_be_bytes(*entry)).collect())
    }

    /// Takes note of a table of `bytes` bytes at `at`.
    fn add(&mut self, kind: Kind, at: u64, bytes: u64) -> Result<()> {
        let (first, name) = (at >> self.cluster_bits, kind.name());
        let count = bytes.div_ceil(1 << self.cluster_bits);
        if !at.is_multiple_of(1 << self.cluster_bits) {
            return Err(self.damaged(format!("{name} at {at:#x} does not begin on a cluster")));
        }
        let fits = first.checked_add(count).is_some_and(|end| end <= self.clusters);
        match u32::try_from(count) {
            Ok(0) => {}
            Ok(count) if fits => self.regions.push((first, count, kind)),
            _ => return Err(self.damaged(format!("{name} at {at:#x} is past the end of the file"))),
        }
        Ok(())
    }

    /// Collects where all metadata is, and the refcounts; returns the active L1 table.
    fn find_metadata(&mut self, tables: &Tables) -> Result<Vec<u64>> {
        let cluster = 1u64 << self.cluster_bits;
        self.add(Kind::Header, 0, cluster)?;
        self.add(Kind::L1, tables.l1_at, tables.l1_bytes)?;
        self.add(Kind::RefcountTable, tables.refcounts_at, tables.refcounts_bytes)?;
        self.find_snapshots(tables)?;
        let mut block = vec![0; cluster as usize];
        let blocks = self.read_table(tables.refcounts_at, tables.refcounts_bytes)?;
        for (index, at) in blocks.into_iter().enumerate().filter(|(_, at)| *at != 0) {
            self.add(Kind::RefcountBlock, at, cluster)?;
            if self.read(&mut block, at)? {
                self.refcounts.load(index as u64, &block);
            }
        }
        let l1 = self.read_table(tables.l1_at, tables.l1_bytes)?;
        for entry in l1.iter().filter(|entry| **entry != 0) {
            // Reserved bits are left in: they are as wrong as an offset within a cluster.
            let at = entry & !QCOW_OFLAG_COPIED;
            if at != 0 {
                self.add(Kind::L2, at, cluster)?;
            }
        }
        Ok(l1)
    }

    fn find_snapshots(&mut self, tables: &Tables) -> Result<()> {
        if tables.snapshots > SNAPSHOTS_MAX {
            return Err(self.damaged(format!("{} snapshots cannot be", tables.snapshots)));
        }
        let mut at = tables.snapshots_at;
        for _ in 0..tables.snapshots {
            let mut fixed = [0; SNAPSHOT_HEADER_BYTES];
            self.read(&mut fixed, at)?;
            let (l1_bytes, extra) = (u64::from(be32(&fixed, 8)) * 8, be32(&fixed, 36));
            if l1_bytes > L1_BYTES_MAX || extra > SNAPSHOT_EXTRA_MAX {
                return Err(self.damaged(format!("the snapshot at {at:#x} has impossible sizes")));
            }
            self.add(Kind::SnapshotL1, be64(&fixed, 0), l1_bytes)?;
            // The lengths of its ID and of its name.
            let names = u64::from(be32(&fixed, 12) >> 16) + u64::from(be32(&fixed, 12) & 0xffff);
            let len = SNAPSHOT_HEADER_BYTES as u64 + u64::from(extra) + names;
            at = at.saturating_add(len.next_multiple_of(8));
        }
        self.add(Kind::SnapshotTable, tables.snapshots_at, at - tables.snapshots_at)
    }

    /// No metadata overlaps another, and all of it is counted.
    fn judge_metadata(&mut self) -> Result<()> {
        self.regions.sort_unstable();
        for pair in self.regions.windows(2) {
            let [(first, count, kind), (next, _, other)] = *pair else { continue };
            if next < first + u64::from(count) {
                let at = next << self.cluster_bits;
                let (a, b) = (other.name(), kind.name());
                return Err(self.damaged(format!("{a} at {at:#x} overlaps {b}")));
            }
        }
        for &(first, count, kind) in &self.regions {
            for cluster in first..first + u64::from(count) {
                if self.refcounts.get(cluster) == Some(Count::Free) {
                    return Err(self.uncounted(kind.name(), cluster));
                }
            }
        }
        Ok(())
    }

    fn uncounted(&self, name: &str, cluster: u64) -> Error {
        let at = cluster << self.cluster_bits;
        self.damaged(format!("{name} at {at:#x} is in use and its refcount is 0"))
    }

    fn judge_mappings(&mut self, l1: &[u64], external_data: bool) -> Result<()> {
        let mut table = vec![0; 1 << self.cluster_bits];
        for entry in l1 {
            let at = entry & OFFSET_MASK;
            if at == 0 {
                continue;
            }
            self.judge_copied(Kind::L2.name(), *entry, at >> self.cluster_bits)?;
            if external_data || !self.read(&mut table, at)? {
                continue;
            }
            for entry in table.as_chunks().0 {
                self.judge_mapping(u64::from_be_bytes(*entry))?;
            }
        }
        Ok(())
    }

    /// One entry of an L2 table.
    fn judge_mapping(&mut self, entry: u64) -> Result<()> {
        if entry & QCOW_OFLAG_COMPRESSED != 0 {
            return self.judge_compressed(entry);
        }
        let at = entry & !(QCOW_OFLAG_COPIED | QCOW_OFLAG_ZERO);
        if at == 0 {
            return Ok(());
        }
        let name = "a data cluster";
        if at & !OFFSET_MASK != 0 || !at.is_multiple_of(1 << self.cluster_bits) {
            return Err(self.damaged(format!("{name} at {at:#x} does not begin on a cluster")));
        }
        let cluster = at >> self.cluster_bits;
        self.judge_place(name, cluster)?;
        self.judge_copied(name, entry, cluster)?;
        if !self.refcounts.use_once(cluster) {
            return Err(self.damaged(format!("{name} at {at:#x} is used twice and counted once")));
        }
        Ok(())
    }

    /// A compressed cluster lies anywhere, and shares its host clusters with others.
    fn judge_compressed(&self, entry: u64) -> Result<()> {
        let offset_bits = 62 - (self.cluster_bits - 8);
        let at = entry & ((1 << offset_bits) - 1);
        let sectors = ((entry & (QCOW_OFLAG_COMPRESSED - 1)) >> offset_bits) + 1;
        // At most 2^54 and 2^22: the sum cannot overflow.
        let end = at / COMPRESSED_SECTOR * COMPRESSED_SECTOR + sectors * COMPRESSED_SECTOR;
        for cluster in at >> self.cluster_bits..=(end - 1) >> self.cluster_bits {
            self.judge_place("a compressed cluster", cluster)?;
        }
        Ok(())
    }

    /// Data lies within the file, on no table, and is counted.
    fn judge_place(&self, name: &str, cluster: u64) -> Result<()> {
        let at = cluster << self.cluster_bits;
        if cluster >= self.clusters {
            return Err(self.damaged(format!("{name} at {at:#x} is past the end of the file")));
        }
        let before = self.regions.partition_point(|(first, ..)| *first <= cluster);
        if let Some((first, count, kind)) = before.checked_sub(1).and_then(|i| self.regions.get(i))
            && cluster < first + u64::from(*count)
        {
            return Err(self.damaged(format!("{name} at {at:#x} overlaps {}", kind.name())));
        }
        match self.refcounts.get(cluster) {
            Some(Count::Free) => Err(self.uncounted(name, cluster)),
            _ => Ok(()),
        }
    }

    /// "COPIED" promises that nobody else has the cluster: it is written in place.
    fn judge_copied(&self, name: &str, entry: u64, cluster: u64) -> Result<()> {
        if entry & QCOW_OFLAG_COPIED != 0 && self.refcounts.get(cluster) == Some(Count::Shared) {
            let at = cluster << self.cluster_bits;
            return Err(self.damaged(format!("{name} at {at:#x} is shared and says it is not")));
        }
        Ok(())
    }
}

fn be32(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..).and_then(|b| b.first_chunk()).map_or(0, |b| u32::from_be_bytes(*b))
}

fn be64(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..).and_then(|b| b.first_chunk()).map_or(0, |b| u64::from_be_bytes(*b))
}
