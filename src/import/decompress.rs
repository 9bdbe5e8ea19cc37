//! gzip, bzip2, xz and Zstandard input, found by magic and read as a stream.
//!
//! Several members or frames one after the other are one input, as the tools have it. A stream
//! that ends early is *cut*: what stands before the cut is given out and [`Condition`] says so.
//! A stream whose checks fail is an error: nothing of it can be trusted.

use std::io::{self, BufRead, BufReader, Read};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bzip2::bufread::BzDecoder;
use flate2::bufread::GzDecoder;
use liblzma::bufread::XzDecoder;
use liblzma::stream::Stream;
use zstd::stream::read::Decoder as ZstdDecoder;

const GZIP_MAGIC: &[u8] = &[0x1f, 0x8b]; // RFC 1952 §2.3.1
const BZIP2_MAGIC: &[u8] = b"BZh"; // then the block size, '1' to '9'
const XZ_MAGIC: &[u8] = &[0xfd, b'7', b'z', b'X', b'Z', 0]; // .xz format 1.1 §2.1.1.1
const ZSTD_MAGIC: &[u8] = &[0x28, 0xb5, 0x2f, 0xfd]; // RFC 8878 §3.1.1
/// The first byte of a skippable frame (RFC 8878 §3.1.2): magic 0x184D2A50 to 0x184D2A5F.
const ZSTD_SKIPPABLE_FIRST: std::ops::RangeInclusive<u8> = 0x50..=0x5f;
const MAGIC_BYTES_MAX: usize = 6;

/// Memory one xz stream may ask for: `xz -9` needs 65 MiB; a header may claim 4 GiB.
const XZ_MEMORY_BYTES_MAX: u64 = 256 << 20;

/// Raw bytes read at a time.
const RAW_BUFFER_BYTES: usize = 64 << 10;

/// What the end of a compressed input was like.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Condition {
    /// The compression, when there is one: `gzip`, `bzip2`, `xz`, `zstd`.
    pub compression: Option<&'static str>,
    /// The compressed stream ends before its own end.
    pub cut: bool,
    /// Something that is no compressed data follows the last member; it was not read.
    pub trailing: bool,
}

/// The condition that a reader finds out and its owner asks for.
#[derive(Clone, Debug, Default)]
pub struct SharedCondition(Arc<Mutex<Condition>>);

impl SharedCondition {
    /// What is known by now.
    pub fn get(&self) -> MutexGuard<'_, Condition> {
        // Each change is whole: a panic between two leaves nothing half done.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A compression that is looked through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Compression {
    Gzip,
    Bzip2,
    Xz,
    Zstd,
}

impl Compression {
    const ALL: [Self; 4] = [Self::Gzip, Self::Bzip2, Self::Xz, Self::Zstd];

    fn name(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Bzip2 => "bzip2",
            Self::Xz => "xz",
            Self::Zstd => "zstd",
        }
    }

    fn magic(self) -> &'static [u8] {
        match self {
            Self::Gzip => GZIP_MAGIC,
            Self::Bzip2 => BZIP2_MAGIC,
            Self::Xz => XZ_MAGIC,
            Self::Zstd => ZSTD_MAGIC,
        }
    }

    /// Whether a further member may begin with this byte.
    fn may_begin(self, first: u8) -> bool {
        self.magic().first() == Some(&first)
            || (self == Self::Zstd && ZSTD_SKIPPABLE_FIRST.contains(&first))
    }
}

/// Looks at the first bytes of `raw` and returns its plain content.
///
/// # Errors
/// Those of reading the first bytes or of setting up a decoder.
pub fn plain(
    mut raw: Box<dyn Read + Send>,
    condition: SharedCondition,
) -> io::Result<Box<dyn Read + Send>> {
    let mut head = Vec::with_capacity(MAGIC_BYTES_MAX);
    raw.by_ref().take(MAGIC_BYTES_MAX as u64).read_to_end(&mut head)?;
    let mut all = Compression::ALL.into_iter();
    let Some(kind) = all.find(|kind| head.starts_with(kind.magic())) else {
        let cut_in = |kind: &Compression| !head.is_empty() && kind.magic().starts_with(&head);
        if let Some(kind) = Compression::ALL.into_iter().find(cut_in) {
            *condition.get() =
                Condition { compression: Some(kind.name()), cut: true, trailing: false };
            return Ok(Box::new(io::empty()));
        }
        return Ok(Box::new(io::Cursor::new(head).chain(raw)));
    };
    let whole = io::Cursor::new(head).chain(raw);
    let input = BufReader::with_capacity(RAW_BUFFER_BYTES, whole);
    let inner = Members { kind, member: Some(Member::open(kind, input)?), trailing: false };
    condition.get().compression = Some(kind.name());
    Ok(Box::new(Cuttable { inner: Box::new(inner), condition }))
}

/// Turns an early end into an ordinary one and remembers it.
struct Cuttable {
    inner: Box<dyn Read + Send>,
    condition: SharedCondition,
}

impl Read for Cuttable {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if self.condition.get().cut {
            return Ok(0);
        }
        match self.inner.read(buf) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                self.condition.get().cut = true;
                Ok(0)
            }
            Err(error) if error.kind() == io::ErrorKind::Other && is_trailing(&error) => {
                self.condition.get().trailing = true;
                Ok(0)
            }
            other => other,
        }
    }
}

/// Marks the error by which [`Members`] says that no member follows but other bytes do.
#[derive(Debug, thiserror::Error)]
#[error("bytes after the compressed data")]
struct Trailing;

fn is_trailing(error: &io::Error) -> bool {
    error.get_ref().is_some_and(|inner| inner.is::<Trailing>())
}

/// The decoder of one member, stream or frame.
enum Member<R: BufRead> {
    Gzip(GzDecoder<R>),
    Bzip2(BzDecoder<R>),
    Xz(XzDecoder<R>),
    Zstd(ZstdDecoder<'static, R>),
}

impl<R: BufRead> Member<R> {
    fn open(kind: Compression, input: R) -> io::Result<Self> {
        Ok(match kind {
            Compression::Gzip => Self::Gzip(GzDecoder::new(input)),
            Compression::Bzip2 => Self::Bzip2(BzDecoder::new(input)),
            Compression::Xz => {
                let stream = Stream::new_stream_decoder(XZ_MEMORY_BYTES_MAX, 0)?;
                Self::Xz(XzDecoder::new_stream(input, stream))
            }
            Compression::Zstd => Self::Zstd(ZstdDecoder::with_buffer(input)?.single_frame()),
        })
    }

    fn into_inner(self) -> R {
        match self {
            Self::Gzip(decoder) => decoder.into_inner(),
            Self::Bzip2(decoder) => decoder.into_inner(),
            Self::Xz(decoder) => decoder.into_inner(),
            Self::Zstd(decoder) => decoder.finish(),
        }
    }
}

impl<R: BufRead> Read for Member<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Gzip(decoder) => decoder.read(buf),
            Self::Bzip2(decoder) => decoder.read(buf),
            Self::Xz(decoder) => decoder.read(buf),
            Self::Zstd(decoder) => decoder.read(buf),
        }
    }
}

/// Members one after the other (RFC 1952 §2.2, .xz format §2, RFC 8878 §3.1). Bytes after the
/// last one that start no further one (tapes pad with zeros) end the data, as gzip has it.
struct Members<R: BufRead> {
    kind: Compression,
    member: Option<Member<R>>,
    trailing: bool,
}

impl<R: BufRead> Members<R> {
    /// Goes on to the next member, if one follows.
    fn advance(&mut self, mut input: R) -> io::Result<()> {
        if self.kind == Compression::Xz {
            skip_zeros(&mut input)?;
        }
        match input.fill_buf()?.first() {
            None => {}
            Some(first) if self.kind.may_begin(*first) => {
                self.member = Some(Member::open(self.kind, input)?);
            }
            Some(_) => self.trailing = true,
        }
        Ok(())
    }
}

/// Stream padding is part of the .xz format (§2.2).
fn skip_zeros(input: &mut impl BufRead) -> io::Result<()> {
    loop {
        let buffered = input.fill_buf()?;
        let zeros = buffered.iter().take_while(|byte| **byte == 0).count();
        if zeros == 0 {
            return Ok(());
        }
        input.consume(zeros);
    }
}

impl<R: BufRead> Read for Members<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        while let Some(member) = &mut self.member {
            let n = member.read(buf)?;
            if n > 0 || buf.is_empty() {
                return Ok(n);
            }
            if let Some(input) = self.member.take().map(Member::into_inner) {
                self.advance(input)?;
            }
        }
        if std::mem::take(&mut self.trailing) {
            return Err(io::Error::other(Trailing));
        }
        Ok(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn gz(data: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(data).unwrap();
        encoder.finish().unwrap()
    }

    fn bz2(data: &[u8]) -> Vec<u8> {
        let mut encoder = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
        encoder.write_all(data).unwrap();
        encoder.finish().unwrap()
    }

    fn xz(data: &[u8]) -> Vec<u8> {
        let mut encoder = liblzma::write::XzEncoder::new(Vec::new(), 1);
        encoder.write_all(data).unwrap();
        encoder.finish().unwrap()
    }

    fn zst(data: &[u8]) -> Vec<u8> {
        let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap();
        encoder.include_checksum(true).unwrap();
        encoder.write_all(data).unwrap();
        encoder.finish().unwrap()
    }

    fn read(input: Vec<u8>) -> (io::Result<Vec<u8>>, Condition) {
        let condition = SharedCondition::default();
        let mut out = Vec::new();
        let result = plain(Box::new(io::Cursor::new(input)), condition.clone())
            .and_then(|mut reader| reader.read_to_end(&mut out));
        let condition = condition.get().clone();
        (result.map(|_| out), condition)
    }

    fn sample() -> Vec<u8> {
        let mut data = vec![0; 3000];
        crate::base::Prng::new(3).fill(&mut data[..1000]);
        data
    }

    #[test]
    fn members_one_after_the_other_are_one_input() {
        for pack in [gz, bz2, xz, zst] {
            let input = [pack(b"one "), pack(b""), pack(b"two")].concat();
            let (out, condition) = read(input);
            assert_eq!(out.unwrap(), b"one two", "{condition:?}");
            assert!(condition.compression.is_some() && !condition.cut);
        }
        let (out, condition) = read(b"plain".to_vec());
        assert_eq!((out.unwrap(), condition), (b"plain".to_vec(), Condition::default()));
    }

    #[test]
    fn a_cut_anywhere_gives_a_true_prefix_and_says_so() {
        let data = sample();
        for pack in [gz, bz2, xz, zst] {
            let whole = pack(&data);
            for len in 1..whole.len() {
                let (out, condition) = read(whole[..len].to_vec());
                let out = out.unwrap_or_else(|e| panic!("{condition:?} cut at {len}: {e}"));
                assert!(data.starts_with(&out));
                assert!(condition.cut, "{condition:?} cut at {len} of {}", whole.len());
            }
        }
    }

    #[test]
    fn a_flipped_byte_is_never_taken_for_data() {
        let data = sample();
        for pack in [gz, bz2, xz, zst] {
            let whole = pack(&data);
            for at in 0..whole.len() {
                let mut bad = whole.clone();
                bad[at] ^= 0x55;
                let (out, condition) = read(bad);
                // Flips in a gzip header's time or system byte change nothing that matters.
                let harmless = out.as_ref().is_ok_and(|out| *out == data);
                let unpacked = condition.compression.is_none();
                assert!(out.is_err() || condition.cut || unpacked || harmless, "byte {at}");
            }
        }
    }

    #[test]
    fn other_bytes_after_the_last_member_end_the_data() {
        for pack in [gz, bz2, xz, zst] {
            for other in [&b"garbage"[..], b"\0\0\0\0garbage"] {
                let (out, condition) = read([&pack(b"data"), other].concat());
                assert_eq!(out.unwrap(), b"data", "{condition:?}");
                assert!(condition.trailing && !condition.cut, "{condition:?}");
            }
        }
        let (out, condition) = read([gz(b"data"), vec![0; 700]].concat());
        assert_eq!(out.unwrap(), b"data");
        assert!(condition.trailing && !condition.cut);
        // In the .xz format zeros are padding, and in zstd a skippable frame holds no data.
        for (input, data) in [
            ([xz(b"one"), vec![0; 8], xz(b"two")].concat(), &b"onetwo"[..]),
            ([zst(b"one"), b"\x51\x2a\x4d\x18\x02\0\0\0xx".to_vec(), zst(b"!")].concat(), b"one!"),
        ] {
            let (out, condition) = read(input);
            assert_eq!(out.unwrap(), data);
            assert!(!condition.trailing && !condition.cut, "{condition:?}");
        }
    }

    #[test]
    fn an_xz_header_that_asks_for_gigabytes_is_refused() {
        // .xz format §3.1: the block header follows the 12-byte stream header; its first byte
        // gives its size in words less one; it ends with a CRC32. Byte 4 of it is the dictionary
        // size of an LZMA2 filter, 40 for 4 GiB (§5.3.1).
        let mut input = xz(&sample());
        assert_eq!(input[12 + 2], 0x21, "LZMA2");
        input[12 + 4] = 40;
        let header = (usize::from(input[12]) + 1) * 4;
        let mut crc = flate2::Crc::new();
        crc.update(&input[12..12 + header - 4]);
        input[12 + header - 4..12 + header].copy_from_slice(&crc.sum().to_le_bytes());
        assert!(read(input).0.is_err());
    }
}
