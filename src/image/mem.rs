//! An image in memory: sparse chunks, safe to use from several threads.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::io::{self, IoSlice, IoSliceMut};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use super::iov::{check_range, total, total_mut};
use super::{Extent, ExtentKind, Image, ImageInfo};

/// Bytes allocated at a time: qcow2's usual cluster, so sparseness is comparable.
const CHUNK: u64 = 64 << 10;

/// Independent locks, so that threads working on different places rarely meet.
const SHARDS: usize = 64;

/// Chunks looked at for one answer about data.
const RUN_CHUNKS_MAX: u64 = 4096;

/// Ordered, so that the next chunk after a hole is found without a look at each place in it.
type Shard = BTreeMap<u64, Box<[u8]>>;

struct MemImage {
    size: u64,
    info: ImageInfo,
    shards: Vec<RwLock<Shard>>,
}

/// A disk of `size` bytes held in memory; only chunks that were written take any.
pub fn mem(size: u64) -> Arc<dyn Image> {
    let info = ImageInfo {
        path: Default::default(),
        format: "mem".into(),
        via: String::new(),
        read_only: false,
        discard_zeroes: true,
    };
    Arc::new(MemImage { size, info, shards: (0..SHARDS).map(|_| RwLock::default()).collect() })
}

/// Where memory ends, the write fails as on a full disk; it does not take the process with it.
fn zeroed_chunk() -> io::Result<Box<[u8]>> {
    let mut bytes = Vec::new();
    bytes.try_reserve_exact(CHUNK as usize).map_err(|_| io::ErrorKind::OutOfMemory)?;
    bytes.resize(CHUNK as usize, 0);
    Ok(bytes.into_boxed_slice())
}

impl MemImage {
    // A panic of another thread cannot leave a chunk half-valid: bytes are bytes.
    fn shard(&self, chunk: u64) -> RwLockReadGuard<'_, Shard> {
        let at = (chunk % SHARDS as u64) as usize;
        self.shards[at].read().unwrap_or_else(PoisonError::into_inner)
    }

    fn shard_mut(&self, chunk: u64) -> RwLockWriteGuard<'_, Shard> {
        let at = (chunk % SHARDS as u64) as usize;
        self.shards[at].write().unwrap_or_else(PoisonError::into_inner)
    }

    fn read_one(&self, mut buf: &mut [u8], mut offset: u64) {
        while !buf.is_empty() {
            let (chunk, at) = (offset / CHUNK, (offset % CHUNK) as usize);
            let n = buf.len().min(CHUNK as usize - at);
            let (head, tail) = buf.split_at_mut(n);
            match self.shard(chunk).get(&chunk) {
                Some(bytes) => head.copy_from_slice(&bytes[at..at + n]),
                None => head.fill(0),
            }
            buf = tail;
            offset += n as u64;
        }
    }

    fn write_one(&self, mut buf: &[u8], mut offset: u64) -> io::Result<()> {
        while !buf.is_empty() {
            let (chunk, at) = (offset / CHUNK, (offset % CHUNK) as usize);
            let (head, tail) = buf.split_at(buf.len().min(CHUNK as usize - at));
            let mut shard = self.shard_mut(chunk);
            let bytes = match shard.entry(chunk) {
                Entry::Occupied(chunk) => chunk.into_mut(),
                Entry::Vacant(place) => place.insert(zeroed_chunk()?),
            };
            bytes[at..at + head.len()].copy_from_slice(head);
            buf = tail;
            offset += head.len() as u64;
        }
        Ok(())
    }

    /// The first chunk that has memory, at or after `chunk`.
    fn next_data(&self, chunk: u64) -> Option<u64> {
        let first = |shard: &RwLock<Shard>| {
            let shard = shard.read().unwrap_or_else(PoisonError::into_inner);
            shard.range(chunk..).next().map(|(chunk, _)| *chunk)
        };
        self.shards.iter().filter_map(first).min()
    }

    fn zero(&self, mut offset: u64, mut len: u64) {
        if len / CHUNK > (SHARDS * 1024) as u64 {
            return self.zero_many(offset, len);
        }
        while len > 0 {
            let (chunk, at) = (offset / CHUNK, offset % CHUNK);
            let n = len.min(CHUNK - at);
            let mut shard = self.shard_mut(chunk);
            if n == CHUNK {
                shard.remove(&chunk);
            } else if let Some(bytes) = shard.get_mut(&chunk) {
                bytes[at as usize..(at + n) as usize].fill(0);
            }
            offset += n;
            len -= n;
        }
    }

    /// Zeroes a range far larger than what can be allocated, by what is allocated.
    fn zero_many(&self, offset: u64, len: u64) {
        let (first, last) = (offset.div_ceil(CHUNK), (offset + len) / CHUNK);
        for shard in &self.shards {
            let mut shard = shard.write().unwrap_or_else(PoisonError::into_inner);
            shard.retain(|chunk, _| !(first..last).contains(chunk));
        }
        self.zero(offset, first * CHUNK - offset);
        self.zero(last * CHUNK, offset + len - last * CHUNK);
    }
}

impl Image for MemImage {
    fn size(&self) -> u64 {
        self.size
    }

    fn info(&self) -> &ImageInfo {
        &self.info
    }

    fn read(&self, bufs: &mut [IoSliceMut<'_>], mut offset: u64) -> io::Result<()> {
        check_range(self.size, offset, total_mut(bufs))?;
        for buf in bufs {
            self.read_one(buf, offset);
            offset += buf.len() as u64;
        }
        Ok(())
    }

    fn write(&self, bufs: &[IoSlice<'_>], mut offset: u64) -> io::Result<()> {
        check_range(self.size, offset, total(bufs))?;
        for buf in bufs {
            self.write_one(buf, offset)?;
            offset += buf.len() as u64;
        }
        Ok(())
    }

    fn flush(&self) -> io::Result<()> {
        Ok(())
    }

    fn discard(&self, offset: u64, len: u64) -> io::Result<()> {
        self.write_zeroes(offset, len, true)
    }

    fn write_zeroes(&self, offset: u64, len: u64, _unmap: bool) -> io::Result<()> {
        check_range(self.size, offset, len)?;
        self.zero(offset, len);
        Ok(())
    }

    fn extent(&self, offset: u64, len: u64) -> io::Result<Extent> {
        check_range(self.size, offset, len)?;
        let (first, end) = (offset / CHUNK, offset + len);
        let (kind, until) = match self.next_data(first) {
            Some(chunk) if chunk == first => {
                // Bounded: a caller that wants more asks again.
                let data = |chunk: &u64| self.shard(*chunk).contains_key(chunk);
                let run = (first..first + RUN_CHUNKS_MAX).take_while(data).count() as u64;
                (ExtentKind::Data, (first + run.max(1)) * CHUNK)
            }
            Some(chunk) => (ExtentKind::Zero, chunk * CHUNK),
            None => (ExtentKind::Zero, end),
        };
        Ok(Extent { kind, len: until.min(end) - offset })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::testkit;

    #[test]
    fn it_behaves_as_a_disk() {
        testkit::exercise(&*mem(testkit::SIZE));
    }

    #[test]
    fn a_huge_range_is_zeroed_by_what_is_there() {
        let image = mem(1 << 50);
        super::super::write_all(&*image, &[9; 4096], (1 << 49) + 512).unwrap();
        image.write_zeroes(1, (1 << 50) - 1, true).unwrap();
        let mut buf = [1; 4096];
        super::super::read_exact(&*image, &mut buf, (1 << 49) + 512).unwrap();
        assert_eq!(buf, [0; 4096]);
    }
    #[test]
    fn a_hole_of_any_size_is_one_extent() {
        let image = mem(1 << 59);
        let at = (1 << 58) + 3 * CHUNK;
        super::super::write_all(&*image, &[9; 512], at + 512).unwrap();
        let hole = image.extent(512, (1 << 59) - 512).unwrap();
        assert_eq!(hole, Extent { kind: ExtentKind::Zero, len: at - 512 });
        let data = image.extent(at, 1 << 57).unwrap();
        assert_eq!(data, Extent { kind: ExtentKind::Data, len: CHUNK });
        let rest = image.extent(at + CHUNK, 1 << 57).unwrap();
        assert_eq!(rest, Extent { kind: ExtentKind::Zero, len: 1 << 57 });
    }
}
