//! Two images, byte for byte: every differing extent, whatever formats they have.
//!
//! The range is cut into slices that threads take in turn. What both images call zero is not read;
//! what both have stored in a file is compared where it lies in the page cache; the rest is read in
//! pieces that stay in a core's cache between reading and comparing. Results are put together in
//! the order of the slices, so they do not depend on the threads.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc;

use super::mapped::{self, MAPPED_BYTES_MAX, MAPPED_BYTES_MIN, Mapper, Stored};
use super::{ExtentKind, Image, read_exact};
use crate::base::error::{IoContext, Place};
use crate::base::{Error, Result, SECTOR_SIZE};

/// Bytes a thread takes at a time: long enough to cost nothing, short enough for progress.
const SLICE: u64 = 32 << 20;

/// Bytes of each image read before they are compared: two of them stay in a core's own cache
/// (64 KiB and 256 KiB took the same processor time, 1 MiB 1.2 times as much).
const PIECE: usize = 256 << 10;

/// How to compare.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CompareOptions {
    /// Threads that read; 0 for as many as the machine runs at once.
    pub threads: usize,
    /// Differing extents that are listed; all are counted.
    pub max_extents: usize,
}

impl Default for CompareOptions {
    fn default() -> Self {
        Self { threads: 0, max_extents: 1000 }
    }
}

/// A run of differing sectors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DiffExtent {
    /// First byte.
    pub offset: u64,
    /// Bytes.
    pub len: u64,
}

/// What [`compare`] found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ImageDiff {
    /// Guest-visible bytes of the first image.
    pub size_a: u64,
    /// Guest-visible bytes of the second image.
    pub size_b: u64,
    /// Bytes in differing 512-byte granules. What only the longer image has counts as different
    /// where it is not zero.
    pub bytes_different: u64,
    /// Differing extents in order, merged, as many as were asked for.
    pub extents: Vec<DiffExtent>,
    /// All differing extents.
    pub extents_total: u64,
}

impl ImageDiff {
    /// No byte differs. The sizes may: see [`ImageDiff::same_size`].
    pub fn same_content(&self) -> bool {
        self.extents_total == 0
    }

    /// Both have the same number of bytes.
    pub fn same_size(&self) -> bool {
        self.size_a == self.size_b
    }
}

/// Differing extents, in order: a bounded list of them, and exact totals.
#[derive(Debug, Default)]
struct Findings {
    list: Vec<DiffExtent>,
    max: usize,
    first: Option<DiffExtent>,
    last: Option<DiffExtent>,
    total: u64,
    bytes: u64,
}

impl Findings {
    fn new(max: usize) -> Self {
        Self { max, ..Self::default() }
    }

    /// Adds an extent that lies behind all others.
    fn push(&mut self, extent: DiffExtent) {
        self.bytes += extent.len;
        let listed_all = self.list.len() as u64 == self.total;
        if let Some(last) = &mut self.last
            && last.offset + last.len == extent.offset
        {
            last.len += extent.len;
            if self.total == 1 {
                self.first = self.last;
            }
            if listed_all && let Some(listed) = self.list.last_mut() {
                listed.len += extent.len;
            }
            return;
        }
        self.total += 1;
        self.first.get_or_insert(extent);
        self.last = Some(extent);
        if listed_all && self.list.len() < self.max {
            self.list.push(extent);
        }
    }

    /// Adds everything of `other`, which lies behind.
    fn append(&mut self, other: Self) {
        let (Some(first), Some(last)) = (other.first, other.last) else { return };
        self.push(first);
        if other.total == 1 {
            return;
        }
        for extent in other.list.iter().skip(1) {
            self.push(*extent);
        }
        // What `other` counted and did not list.
        let listed: u64 = other.list.iter().map(|e| e.len).sum();
        let listed_count = other.list.len() as u64;
        if listed_count == 0 {
            self.total += other.total - 1;
            self.bytes += other.bytes - first.len;
        } else {
            self.total += other.total - listed_count;
            self.bytes += other.bytes - listed;
        }
        self.last = Some(last);
    }
}

/// Compares the guest-visible bytes of `a` and `b`. `progress` is given the bytes that are done.
pub fn compare(
    a: &dyn Image,
    b: &dyn Image,
    options: &CompareOptions,
    progress: &mut dyn FnMut(u64),
) -> Result<ImageDiff> {
    let size = a.size().max(b.size());
    let threads = match options.threads {
        0 => std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
        n => n,
    };
    let job = Job {
        a,
        b,
        size,
        max: options.max_extents,
        next: AtomicU64::new(0),
        stop: AtomicBool::new(false),
    };
    let mut all = Findings::new(options.max_extents);
    let mut failure: Option<(u64, Error)> = None;
    std::thread::scope(|scope| {
        let (sender, results) = mpsc::channel();
        for _ in 0..threads.min(size.div_ceil(SLICE) as usize) {
            let (sender, job) = (sender.clone(), &job);
            scope.spawn(move || job.work(&sender));
        }
        drop(sender);
        let (mut waiting, mut wanted) = (BTreeMap::new(), 0);
        for (slice, result) in results {
            match result {
                Ok(findings) => {
                    waiting.insert(slice, findings);
                }
                // The first in the image's order, whichever thread met its own first.
                Err(e) if failure.as_ref().is_none_or(|(at, _)| slice < *at) => {
                    failure = Some((slice, e));
                }
                Err(_) => {}
            }
            while let Some(findings) = waiting.remove(&wanted) {
                all.append(findings);
                wanted += 1;
                progress((wanted * SLICE).min(size));
            }
        }
    });
    if let Some((_, error)) = failure {
        return Err(error);
    }
    Ok(ImageDiff {
        size_a: a.size(),
        size_b: b.size(),
        bytes_different: all.bytes,
        extents: all.list,
        extents_total: all.total,
    })
}

struct Job<'a> {
    a: &'a dyn Image,
    b: &'a dyn Image,
    size: u64,
    max: usize,
    next: AtomicU64,
    stop: AtomicBool,
}

/// What an image holds from some offset on, remembered so that it is asked once per extent.
struct Cursor<'a> {
    image: &'a dyn Image,
    kind: ExtentKind,
    end: u64,
    buf: Vec<u8>,
    mapper: Mapper,
}

impl<'a> Cursor<'a> {
    fn new(image: &'a dyn Image) -> Self {
        Self {
            image,
            kind: ExtentKind::Zero,
            end: 0,
            buf: vec![0; PIECE],
            mapper: Mapper::default(),
        }
    }

    /// Learns what is at `at`, looking no further than `until`.
    fn look(&mut self, at: u64, until: u64) -> Result<()> {
        if at < self.end {
            return Ok(());
        }
        let size = self.image.size();
        if at >= size {
            (self.kind, self.end) = (ExtentKind::Zero, u64::MAX);
            return Ok(());
        }
        let len = until.min(size) - at;
        let extent = self
            .image
            .extent(at, len)
            .reading(&self.image.info().path, "cannot map the image")
            .map_err(|e| e.at(Place::Offset(at)))?;
        (self.kind, self.end) = (extent.kind, at + extent.len.clamp(1, len));
        Ok(())
    }

    /// The bytes at `at`; `None` for zeros.
    fn bytes(&mut self, at: u64, len: usize) -> Result<Option<&[u8]>> {
        if self.kind == ExtentKind::Zero {
            return Ok(None);
        }
        let buf = &mut self.buf[..len];
        read_exact(self.image, buf, at)
            .reading(&self.image.info().path, "cannot read the image")
            .map_err(|e| e.at(Place::Offset(at)))?;
        Ok(Some(buf))
    }
}

impl Job<'_> {
    fn work(&self, results: &mpsc::Sender<(u64, Result<Findings>)>) {
        let (mut a, mut b) = (Cursor::new(self.a), Cursor::new(self.b));
        while !self.stop.load(Ordering::Relaxed) {
            let slice = self.next.fetch_add(1, Ordering::Relaxed);
            let Some(from) = slice.checked_mul(SLICE).filter(|from| *from < self.size) else {
                return;
            };
            let result = self.slice(&mut a, &mut b, from, (from + SLICE).min(self.size));
            if result.is_err() {
                self.stop.store(true, Ordering::Relaxed);
            }
            if results.send((slice, result)).is_err() {
                return;
            }
        }
    }

    fn slice(&self, a: &mut Cursor, b: &mut Cursor, from: u64, to: u64) -> Result<Findings> {
        let mut found = Findings::new(self.max);
        (a.end, b.end) = (0, 0);
        let (mut at, mut read_until) = (from, 0);
        while at < to {
            a.look(at, to)?;
            b.look(at, to)?;
            let run_end = a.end.min(b.end).min(to);
            if a.kind == ExtentKind::Zero && b.kind == ExtentKind::Zero {
                at = run_end;
                continue;
            }
            if a.kind == b.kind && at >= read_until {
                if let Some(len) = equal_in_place(a, b, at, run_end - at) {
                    at += len;
                    continue;
                }
                // Not in this way, here: looked at once per window, not once per piece.
                read_until = at + MAPPED_BYTES_MAX;
            }
            let len = (run_end - at).min(PIECE as u64) as usize;
            match (a.bytes(at, len)?, b.bytes(at, len)?) {
                (Some(x), Some(y)) if x != y => add_differences(&mut found, at, x, y),
                (Some(x), None) | (None, Some(x)) if !is_zero(x) => {
                    add_non_zero(&mut found, at, x);
                }
                _ => {}
            }
            at += len as u64;
        }
        Ok(found)
    }
}

/// The bytes from `at`, of at most `len`, that are stored and found equal without reading.
fn equal_in_place(a: &mut Cursor, b: &mut Cursor, at: u64, len: u64) -> Option<u64> {
    let len = len.min(MAPPED_BYTES_MAX);
    if len < MAPPED_BYTES_MIN {
        return None;
    }
    // What is wrong with an image, reading it will tell.
    let (x, y) = (a.image.located(at, len).ok()??, b.image.located(at, len).ok()??);
    let len = len.min(x.len).min(y.len);
    if len < MAPPED_BYTES_MIN {
        return None;
    }
    let x = Stored { file: x.file, offset: x.offset, mapper: &mut a.mapper };
    let y = Stored { file: y.file, offset: y.offset, mapper: &mut b.mapper };
    (mapped::equal(x, y, len) == Some(true)).then_some(len)
}

/// Whether all bytes are zero; a shape the compiler turns into vector code.
fn is_zero(bytes: &[u8]) -> bool {
    bytes.chunks(4096).all(|chunk| chunk.iter().fold(0, |acc, byte| acc | byte) == 0)
}

fn add_differences(found: &mut Findings, at: u64, a: &[u8], b: &[u8]) {
    let granules = a.chunks(SECTOR_SIZE as usize).zip(b.chunks(SECTOR_SIZE as usize));
    for ((x, y), n) in granules.zip(0u64..) {
        if x != y {
            found.push(DiffExtent { offset: at + n * SECTOR_SIZE, len: x.len() as u64 });
        }
    }
}

fn add_non_zero(found: &mut Findings, at: u64, bytes: &[u8]) {
    for (x, n) in bytes.chunks(SECTOR_SIZE as usize).zip(0u64..) {
        if !is_zero(x) {
            found.push(DiffExtent { offset: at + n * SECTOR_SIZE, len: x.len() as u64 });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Prng;
    use crate::image::{mem, null, write_all};

    fn run(a: &dyn Image, b: &dyn Image, threads: usize, max_extents: usize) -> ImageDiff {
        compare(a, b, &CompareOptions { threads, max_extents }, &mut |_| {}).unwrap()
    }

    #[test]
    fn zero_equals_hole() {
        let image = mem(100 << 20);
        write_all(&*image, &[0; 70_000], 5 << 20).unwrap();
        let diff = run(&*image, &*null(100 << 20), 2, 10);
        assert!(diff.same_content() && diff.same_size());
        assert_eq!(diff.bytes_different, 0);
    }

    #[test]
    fn extents_are_merged_across_pieces_and_slices() {
        let (a, b) = (mem(100 << 20), mem(100 << 20));
        write_all(&*a, &vec![1; 1 << 20], SLICE - (512 << 10)).unwrap();
        write_all(&*b, &[5], 90 << 20).unwrap();
        let diff = run(&*a, &*b, 3, 10);
        let want = [
            DiffExtent { offset: SLICE - (512 << 10), len: 1 << 20 },
            DiffExtent { offset: 90 << 20, len: 512 },
        ];
        assert_eq!(diff.extents, want);
        assert_eq!((diff.extents_total, diff.bytes_different), (2, (1 << 20) + 512));
    }

    #[test]
    fn a_longer_image_differs_where_it_is_not_zero() {
        let (a, b) = (mem(1 << 20), mem(70 << 20));
        assert!(run(&*a, &*b, 2, 10).same_content());
        assert!(!run(&*a, &*b, 2, 10).same_size());
        write_all(&*b, &[1; 600], 40 << 20).unwrap();
        let diff = run(&*a, &*b, 2, 10);
        assert_eq!(diff.extents, [DiffExtent { offset: 40 << 20, len: 1024 }]);
    }

    #[test]
    fn totals_are_exact_where_the_list_is_not_and_threads_do_not_matter() {
        let (a, b) = (mem(100 << 20), mem(100 << 20));
        let mut prng = Prng::new(5);
        let mut sectors = std::collections::BTreeSet::new();
        for _ in 0..3000 {
            let sector = prng.below((100 << 20) / 512);
            write_all(&*a, &[1; 512], sector * 512).unwrap();
            sectors.insert(sector);
        }
        let runs = sectors.iter().filter(|s| **s == 0 || !sectors.contains(&(**s - 1))).count();
        let full = run(&*a, &*b, 1, usize::MAX);
        assert_eq!(full.extents.len(), runs);
        for max in [0, 1, 7, 1500, runs] {
            for threads in [1, 4] {
                let diff = run(&*a, &*b, threads, max);
                assert_eq!(diff.extents, full.extents[..max]);
                assert_eq!(diff.extents_total, runs as u64);
                assert_eq!(diff.bytes_different, sectors.len() as u64 * 512);
            }
        }
    }

    #[test]
    fn stored_bytes_are_compared_in_place_and_differences_in_them_found() {
        let dir = tempfile::tempdir().unwrap();
        let options = Default::default();
        let size = 40 << 20;
        let mut bytes = vec![0; 6 << 20];
        Prng::new(4).fill(&mut bytes);
        let images: Vec<_> = ["raw", "qcow2"]
            .iter()
            .map(|format| {
                let path = dir.path().join(format);
                let pending = crate::image::create(&path, format, size, &options).unwrap();
                write_all(&*pending.image(), &bytes, 29 << 20).unwrap();
                pending
            })
            .collect();
        let (a, b) = (images[0].image(), images[1].image());
        assert!(b.located(29 << 20, 1 << 20).unwrap().unwrap().len >= 65536);
        assert!(run(&*a, &*b, 2, 10).same_content());
        write_all(&*b, &[bytes[5 << 20] ^ 1], 34 << 20).unwrap();
        let diff = run(&*a, &*b, 2, 10);
        assert_eq!(diff.extents, [DiffExtent { offset: 34 << 20, len: 512 }]);
    }

    #[test]
    fn empty_images_are_equal() {
        assert!(run(&*null(0), &*null(0), 0, 1).same_content());
    }
}
