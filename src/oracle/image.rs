//! The target after the run: against the model, and against another image.

use std::collections::{HashMap, HashSet};

use super::classify::{Case, Diagnosis, Difference, diagnose};
use super::data::{SectorBytes, is_zero};
use super::extents::Piece;
use super::finding::{ByteRange, Fault, Finding, FindingKind, Hex};
use super::ranges::{self, Range};
use super::read::{data_finding, event_ref, known};
use super::verdict::{Unverifiable, Verify};
use super::version::Version;
use super::{Known, Oracle};
use crate::base::limits::FINDINGS_MAX;
use crate::base::{Error, Result, SECTOR_SIZE};
use crate::image::compare::{CompareOptions, DiffExtent, compare};
use crate::image::{self, ExtentKind, Image};

/// Bytes compared at once.
const WINDOW_BYTES: u64 = 1 << 20;

/// A gap of this many unwritten sectors ends a window: asking for a hole is cheaper than reading it.
const GAP_SECTORS: u64 = 128;

/// Wrong ranges kept apart for one write; what follows is only counted.
const RANGES_PER_WRITE_MAX: usize = 4096;

/// Wrong sectors with one last writer.
#[derive(Debug)]
struct Group {
    version: Option<Version>,
    wrong: Vec<Range>,
    visible: Vec<Range>,
    /// Ranges were left out of `wrong`.
    cut: bool,
}

/// What is wrong with the target, by last writer.
#[derive(Default)]
struct Groups {
    /// In the order of their first wrong sector.
    list: Vec<Group>,
    index: HashMap<Known, usize>,
    /// Groups past [`FINDINGS_MAX`].
    uncounted: HashMap<Known, ()>,
}

impl Groups {
    fn add(&mut self, version: Option<Version>, range: Range) {
        let key = known(version, &[range]);
        if let Some(group) = self.index.get(&key).and_then(|&at| self.list.get_mut(at)) {
            group.cut |= group.wrong.len() >= RANGES_PER_WRITE_MAX;
            if !group.cut {
                ranges::push(&mut group.wrong, range);
            }
        } else if self.list.len() < FINDINGS_MAX {
            self.index.insert(key, self.list.len());
            let (wrong, visible) = (vec![range], Vec::new());
            self.list.push(Group { version, wrong, visible, cut: false });
        } else if self.uncounted.len() < FINDINGS_MAX * FINDINGS_MAX {
            self.uncounted.insert(key, ());
        }
    }
}

fn read_target(image: &dyn Image, buf: &mut [u8], offset: u64) -> Result<()> {
    image::read_exact(image, buf, offset).map_err(|e| {
        Error::incomplete("cannot read the image back")
            .path(&image.info().path)
            .at(crate::base::error::Place::Offset(offset))
            .source(e)
    })
}

/// A sector of an image; zeros where it is shorter.
fn first_sector(image: &dyn Image, sector: u64) -> Result<SectorBytes> {
    let mut bytes: SectorBytes = [0; SECTOR_SIZE as usize];
    let offset = sector.saturating_mul(SECTOR_SIZE);
    let len = usize::try_from(image.size().saturating_sub(offset)).unwrap_or(usize::MAX);
    let len = len.min(bytes.len());
    if let Some(part) = bytes.get_mut(..len).filter(|part| !part.is_empty()) {
        read_target(image, part, offset)?;
    }
    Ok(bytes)
}

impl Oracle {
    /// Compares the whole target with the model: every sector that the trace defined, and, on a
    /// target made for this run, zeros everywhere else. One finding for each write that is wrong.
    /// `progress` gets the byte offset reached. See [`Oracle::stop_when`].
    ///
    /// # Errors
    /// The target, the trace or the temporary file cannot be read.
    pub fn check_image(&mut self, image: &dyn Image, progress: &mut dyn FnMut(u64)) -> Result<()> {
        self.settle_unanswered()?;
        self.verdict.image_bytes_checked.get_or_insert(0);
        let mut groups = Groups::default();
        let size = image.size() / SECTOR_SIZE * SECTOR_SIZE;
        let mut buf = vec![0; usize::try_from(WINDOW_BYTES.min(size)).unwrap_or(0)];
        let mut at = 0;
        while at < size && !self.is_stopped() {
            let len = self.unwritten_ahead(image, at, size)?;
            if len > 0 {
                at += len;
            } else {
                let len = self.window_bytes(at, size)?;
                let window = buf.get_mut(..usize::try_from(len).unwrap_or(0)).unwrap_or_default();
                read_target(image, window, at)?;
                self.check_window(at / SECTOR_SIZE, window, &mut groups)?;
                at += len;
            }
            progress(at);
        }
        self.report_groups(image, groups)
    }

    /// Compares the target with the image it should be equal to. One finding for each differing
    /// extent, with the write that defined it last. `progress` gets the bytes done.
    ///
    /// # Errors
    /// One of the images, the trace or the temporary file cannot be read.
    pub fn check_comparison(
        &mut self,
        target: &dyn Image,
        want: &dyn Image,
        progress: &mut dyn FnMut(u64),
    ) -> Result<()> {
        self.settle_unanswered()?;
        let (size, want_size) = (target.size(), want.size());
        if size != want_size {
            let mut finding = Finding::new(
                FindingKind::SizeMismatch,
                format!("the target has {size} bytes, the comparison image {want_size}"),
            );
            finding.offset = Some(size.min(want_size));
            self.verdict.add(finding);
        }
        let options = CompareOptions { max_extents: FINDINGS_MAX, ..CompareOptions::default() };
        let diff = compare(target, want, &options, progress)?;
        self.verdict.comparison_bytes_checked = Some(size.min(want_size));
        for extent in &diff.extents {
            let finding = self.comparison_finding(target, want, extent)?;
            self.verdict.add(finding);
        }
        let counted = diff.extents_total.saturating_sub(diff.extents.len() as u64);
        self.verdict.findings_total += counted;
        Ok(())
    }

    fn comparison_finding(
        &mut self,
        target: &dyn Image,
        want: &dyn Image,
        extent: &DiffExtent,
    ) -> Result<Finding> {
        let sector = extent.offset / SECTOR_SIZE;
        let (expected, got) = (first_sector(want, sector)?, first_sector(target, sector)?);
        let first = Difference::of(sector, &expected, &got);
        let mut finding = Finding::new(FindingKind::ComparisonMismatch, String::new());
        (finding.offset, finding.sector) = (Some(first.offset), Some(first.offset / SECTOR_SIZE));
        finding.bytes = extent.len;
        finding.ranges = vec![ByteRange { offset: extent.offset, len: extent.len }];
        finding.shown_from = first.shown_from;
        (finding.expected, finding.got) = (Hex(first.expected), Hex(first.got));
        let end = extent.offset.saturating_add(extent.len).div_ceil(SECTOR_SIZE);
        let writers = self.last_writers(sector, end)?;
        let who = match writers.first() {
            None if self.verdict.verify == Verify::None => {
                "(verify=none keeps no model)".to_owned()
            }
            None => "never written by this trace".to_owned(),
            Some(&write) => {
                finding.last_writer = event_ref(&mut self.contents, write)?;
                (finding.event, finding.pass) = match &finding.last_writer {
                    Some(writer) => (Some(writer.event), writer.pass),
                    None => (None, 0),
                };
                let writer = finding.last_writer.as_ref().map_or(String::new(), |w| w.to_string());
                match writers.len() - 1 {
                    0 => format!("last written by {writer}"),
                    n => format!("last written by {writer} and {n} others"),
                }
            }
        };
        finding.message = format!(
            "the target is not the comparison image: {} bytes differ at offset {}, {who}",
            extent.len, extent.offset
        );
        Ok(finding)
    }

    /// The writes that defined a range last, in the order of their first sector.
    fn last_writers(&mut self, start: u64, end: u64) -> Result<Vec<u64>> {
        let mut pieces = Vec::new();
        self.model.lookup(start, end, &mut pieces)?;
        let mut writers: Vec<u64> = Vec::new();
        let mut seen = HashSet::new();
        for write in pieces.iter().filter_map(|p| p.version).map(Version::write) {
            if seen.insert(write) {
                writers.push(write);
            }
        }
        Ok(writers)
    }

    /// Bytes from `at` on that nothing wrote and that need not be read: of an unknown target all
    /// of them, else those that the image's metadata says are zeros.
    fn unwritten_ahead(&mut self, image: &dyn Image, at: u64, size: u64) -> Result<u64> {
        let sector = at / SECTOR_SIZE;
        let next = self.model.next_defined(sector)?.map_or(size, |s| s.saturating_mul(SECTOR_SIZE));
        let unwritten = next.min(size) - at;
        if unwritten == 0 {
            return Ok(0);
        }
        if !self.config.initially_zero {
            self.skip_image(Unverifiable::NotWritten, unwritten);
            return Ok(unwritten);
        }
        let extent = image.extent(at, unwritten).map_err(|e| {
            Error::incomplete("cannot ask the target where it holds data")
                .path(&image.info().path)
                .source(e)
        })?;
        let zero = match extent.kind {
            ExtentKind::Zero => extent.len.min(unwritten) / SECTOR_SIZE * SECTOR_SIZE,
            ExtentKind::Data => 0,
        };
        self.count_image(zero);
        Ok(zero)
    }

    /// Bytes to read from `at` on: up to a gap that may be a hole, or to the largest window.
    fn window_bytes(&mut self, at: u64, size: u64) -> Result<u64> {
        let (first, end) = (at / SECTOR_SIZE, (at + WINDOW_BYTES).min(size) / SECTOR_SIZE);
        let mut pieces = std::mem::take(&mut self.pieces);
        self.model.lookup(first, end, &mut pieces)?;
        let gap = |p: &&Piece| p.version.is_none() && p.sectors() >= GAP_SECTORS;
        let cut = pieces.iter().skip(1).find(gap).map_or(end, |piece| piece.start);
        self.pieces = pieces;
        Ok((cut - first) * SECTOR_SIZE)
    }

    fn count_image(&mut self, bytes: u64) {
        *self.verdict.image_bytes_checked.get_or_insert(0) += bytes;
    }

    fn skip_image(&mut self, reason: Unverifiable, bytes: u64) {
        *self.verdict.unverifiable_image_bytes.entry(reason).or_default() += bytes;
    }

    fn check_window(&mut self, first: u64, data: &[u8], groups: &mut Groups) -> Result<()> {
        let mut pieces = std::mem::take(&mut self.pieces);
        self.model.lookup(first, first + data.len() as u64 / SECTOR_SIZE, &mut pieces)?;
        for piece in &pieces {
            let at = |sector: u64| usize::try_from((sector - first) * SECTOR_SIZE).unwrap_or(0);
            let got = data.get(at(piece.start)..at(piece.end)).unwrap_or_default();
            self.check_piece(piece, got, groups)?;
        }
        self.pieces = pieces;
        Ok(())
    }

    fn check_piece(&mut self, piece: &Piece, got: &[u8], groups: &mut Groups) -> Result<()> {
        let bytes = got.len() as u64;
        let right = match piece.version {
            Some(version) => match self.contents.equals(version, piece.start, got)? {
                Some(right) => right,
                None => {
                    let reason = self.reason(version)?;
                    self.skip_image(reason, bytes);
                    return Ok(());
                }
            },
            None if self.config.initially_zero => is_zero(got),
            None => {
                self.skip_image(Unverifiable::NotWritten, bytes);
                return Ok(());
            }
        };
        self.count_image(bytes);
        if right {
            return Ok(());
        }
        let others: Vec<Piece> = self.contested.within(piece.start, piece.end).collect();
        for (sector, got) in (piece.start..).zip(got.chunks(SECTOR_SIZE as usize)) {
            let right = match piece.version {
                Some(version) => self.contents.equals(version, sector, got)?.unwrap_or(true),
                None => is_zero(got),
            };
            if !right && !self.is_admitted(&others, sector, got)? {
                groups.add(piece.version, (sector, sector + 1));
            }
        }
        Ok(())
    }

    fn report_groups(&mut self, image: &dyn Image, mut groups: Groups) -> Result<()> {
        self.find_visible(&mut groups)?;
        for group in &mut groups.list {
            if group.version.is_none() || group.cut {
                group.visible = group.wrong.clone();
            }
            self.report_group(image, group)?;
        }
        self.verdict.findings_total += groups.uncounted.len() as u64;
        Ok(())
    }

    /// One pass over the model: all sectors whose last writer has a group.
    fn find_visible(&mut self, groups: &mut Groups) -> Result<()> {
        if groups.list.is_empty() {
            return Ok(());
        }
        let mut pieces = Vec::new();
        let mut at = 0;
        while let Some(start) = self.model.next_defined(at)? {
            if self.is_stopped() {
                break;
            }
            at = start.saturating_add(WINDOW_BYTES);
            self.model.lookup(start, at, &mut pieces)?;
            for piece in &pieces {
                let Some(version) = piece.version else { continue };
                let key = Known::Write(version.write());
                if let Some(group) = groups.index.get(&key).and_then(|&i| groups.list.get_mut(i))
                    && group.visible.len() < RANGES_PER_WRITE_MAX
                {
                    ranges::push(&mut group.visible, (piece.start, piece.end));
                }
            }
        }
        Ok(())
    }

    /// A write that looks dropped under an earlier one that a read has missed meanwhile: the two
    /// changed places.
    pub(super) fn prefer_swap(&self, diagnosis: &mut Diagnosis) {
        let missed = diagnosis.found.is_some_and(|w| self.known.contains_key(&Known::Write(w)));
        if missed && diagnosis.alternatives.contains(&Fault::SwappedWrites) {
            diagnosis.alternatives = vec![diagnosis.fault];
            diagnosis.fault = Fault::SwappedWrites;
        }
    }

    fn report_group(&mut self, image: &dyn Image, group: &Group) -> Result<()> {
        let mut got = |sector: u64, out: &mut SectorBytes| {
            read_target(image, out, sector.saturating_mul(SECTOR_SIZE))
        };
        let (wrong, visible) = (&group.wrong, &group.visible);
        let mut case =
            Case { version: group.version, recorded: false, wrong, visible, got: &mut got };
        let mut diagnosis = diagnose(&mut self.contents, &mut case)?;
        self.prefer_swap(&mut diagnosis);
        let kind = FindingKind::ImageMismatch;
        let mut finding =
            data_finding(&mut self.contents, kind, "target after the run", &case, diagnosis)?;
        if let Some(writer) = &finding.last_writer {
            (finding.event, finding.pass) = (Some(writer.event), writer.pass);
        }
        let key = known(group.version, wrong);
        if let Some(seen) = self.known.get(&key).and_then(|at| *at) {
            if let Some(first) = self.verdict.findings.get_mut(seen) {
                merge(first, finding);
            }
            return Ok(());
        }
        if !self.known.contains_key(&key) {
            let index = self.verdict.add(finding);
            self.known.insert(key, index);
        }
        Ok(())
    }
}

/// A read saw it first, and the image shows the whole of it: one finding, the read's, with the
/// better view.
fn merge(read: &mut Finding, image: Finding) {
    read.message =
        format!("{}; first seen by the read of event {}", image.message, read.event.unwrap_or(0));
    read.fault = image.fault;
    read.alternatives = image.alternatives;
    (read.bytes, read.ranges, read.flipped) = (image.bytes, image.ranges, image.flipped);
    (read.offset, read.sector, read.shown_from) = (image.offset, image.sector, image.shown_from);
    (read.expected, read.got) = (image.expected, image.got);
    read.found_writer = image.found_writer;
    read.occurrences += 1;
}
