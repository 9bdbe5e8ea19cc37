//! Runs past the memory budget: an unlinked temporary file each, gone with the process.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::runs::{BLOCK_ENTRIES, ENTRY_BYTES};
use crate::base::error::IoContext;
use crate::base::{Error, Result};

/// Where a block lies in its file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockRef {
    /// First sector of the block.
    pub first: u64,
    /// Byte offset in the file.
    offset: u64,
    /// Bytes.
    len: u32,
}

/// A run's blocks in a file.
#[derive(Debug)]
pub struct SpillFile {
    file: File,
    folder: PathBuf,
    len: u64,
    blocks: Vec<BlockRef>,
}

fn hint(error: Error) -> Error {
    error.hint("set TMPDIR to a folder with more space, or raise oracle_memory=")
}

impl SpillFile {
    /// An empty one in `folder`, without a name there.
    pub fn create(folder: &Path) -> Result<Self> {
        let file = tempfile::tempfile_in(folder)
            .writing(folder, "cannot create the oracle's temporary file")
            .map_err(hint)?;
        Ok(Self::over(file, folder))
    }

    fn over(file: File, folder: &Path) -> Self {
        Self { file, folder: folder.to_path_buf(), len: 0, blocks: Vec::new() }
    }

    /// Adds a block.
    pub fn append(&mut self, first: u64, entries: &[u8]) -> Result<()> {
        self.file
            .write_all_at(entries, self.len)
            .writing(&self.folder, "cannot write the oracle's temporary file")
            .map_err(hint)?;
        self.blocks.push(BlockRef { first, offset: self.len, len: entries.len() as u32 });
        self.len += entries.len() as u64;
        Ok(())
    }

    /// Its blocks in sector order.
    pub fn blocks(&self) -> &[BlockRef] {
        &self.blocks
    }

    /// Bytes of memory that its index takes.
    pub fn index_bytes(&self) -> u64 {
        (self.blocks.len() * size_of::<BlockRef>()) as u64
    }

    /// Reads a block into `buf`, which is resized to it.
    pub fn read_block(&self, place: BlockRef, buf: &mut Vec<u8>) -> Result<()> {
        buf.resize(place.len as usize, 0);
        self.file.read_exact_at(buf, place.offset).map_err(|e| {
            Error::incomplete("cannot read the oracle's temporary file back")
                .path(&self.folder)
                .source(e)
        })
    }

    /// First sector and entries of block `number` of run `run`, through the cache.
    pub fn block<'a>(
        &'a self,
        run: u64,
        number: usize,
        cache: &'a mut BlockCache,
    ) -> Result<(u64, &'a [u8])> {
        let Some(&place) = self.blocks.get(number) else { return Ok((0, &[])) };
        let slot = cache.slot(run, number);
        if slot.key != (run, number) {
            slot.key = BlockCache::NOTHING;
            self.read_block(place, &mut slot.bytes)?;
            slot.key = (run, number);
        }
        Ok((place.first, &slot.bytes))
    }
}

#[derive(Debug)]
struct Slot {
    key: (u64, usize),
    bytes: Vec<u8>,
}

/// Blocks of spilled runs read lately: direct-mapped, 1.5 MiB at most.
#[derive(Debug)]
pub struct BlockCache {
    slots: Vec<Slot>,
}

impl BlockCache {
    const SLOTS: usize = 128;
    const NOTHING: (u64, usize) = (u64::MAX, usize::MAX);
    /// The most that the cache takes.
    pub const BYTES_MAX: usize = Self::SLOTS * BLOCK_ENTRIES * ENTRY_BYTES;

    fn slot(&mut self, run: u64, number: usize) -> &mut Slot {
        let index = crate::base::prng::mix(run ^ (number as u64) << 20) as usize % Self::SLOTS;
        &mut self.slots[index]
    }
}

impl Default for BlockCache {
    fn default() -> Self {
        let slot = || Slot { key: Self::NOTHING, bytes: Vec::new() };
        Self { slots: std::iter::repeat_with(slot).take(Self::SLOTS).collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_an_incomplete_run_that_says_what_helps() {
        let full = File::options().write(true).open("/dev/full").unwrap();
        let mut spill = SpillFile::over(full, Path::new("/some/folder"));
        let error = spill.append(0, &[0; ENTRY_BYTES]).unwrap_err();
        assert_eq!(error.kind().exit_code(), 7);
        assert!(error.to_string().starts_with("/some/folder: cannot write"), "{error}");
        assert!(error.hint_text().unwrap().contains("TMPDIR"));
        assert!(spill.blocks().is_empty());
    }

    #[test]
    fn nothing_is_left_in_the_folder() {
        let folder = tempfile::tempdir().unwrap();
        let mut spill = SpillFile::create(folder.path()).unwrap();
        spill.append(0, &[0; ENTRY_BYTES]).unwrap();
        assert_eq!(folder.path().read_dir().unwrap().count(), 0);
    }
}
