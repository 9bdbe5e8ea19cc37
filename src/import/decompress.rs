//! gzip, xz and Zstandard input, found by magic and read as a stream.
//!
//! Several members or frames one after the other are one input, as the tools have it. A stream
//! that ends early is *cut*: what stands before the cut is given out and [`Condition`] says so.
//! A stream whose checks fail is an error: nothing of it can be trusted.

use std::cell::RefCell;
use std::io::{self, BufRead, BufReader, Read};
use std::rc::Rc;

use flate2::bufread::GzDecoder;
use liblzma::stream::{CONCATENATED, Stream};

const GZIP_MAGIC: &[u8] = &[0x1f, 0x8b]; // RFC 1952 §2.3.1
const XZ_MAGIC: &[u8] = &[0xfd, b'7', b'z', b'X', b'Z', 0]; // .xz format 1.1 §2.1.1.1
const ZSTD_MAGIC: &[u8] = &[0x28, 0xb5, 0x2f, 0xfd]; // RFC 8878 §3.1.1
const MAGIC_BYTES_MAX: usize = 6;

/// Memory one xz stream may ask for: `xz -9` needs 65 MiB; a header may claim 4 GiB.
const XZ_MEMORY_BYTES_MAX: u64 = 256 << 20;

/// Raw bytes read at a time.
const RAW_BUFFER_BYTES: usize = 64 << 10;

/// What the end of a compressed input was like.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Condition {
    /// The compression, when there is one: `gzip`, `xz`, `zstd`.
    pub compression: Option<&'static str>,
    /// The compressed stream ends before its own end.
    pub cut: bool,
    /// Something that is no compressed data follows the last member; it was not read.
    pub trailing: bool,
}

/// Looks at the first bytes of `raw` and returns its plain content.
///
/// # Errors
/// Those of reading the first bytes or of setting up a decoder.
pub fn plain(
    mut raw: Box<dyn Read>,
    condition: Rc<RefCell<Condition>>,
) -> io::Result<Box<dyn Read>> {
    let mut magic = Vec::with_capacity(MAGIC_BYTES_MAX);
    raw.by_ref().take(MAGIC_BYTES_MAX as u64).read_to_end(&mut magic)?;
    let is = |wanted: &[u8]| magic.starts_with(wanted);
    let (gzip, xz, zstd) = (is(GZIP_MAGIC), is(XZ_MAGIC), is(ZSTD_MAGIC));
    let whole = io::Cursor::new(magic).chain(raw);
    if !(gzip || xz || zstd) {
        return Ok(Box::new(whole));
    }
    let input = BufReader::with_capacity(RAW_BUFFER_BYTES, whole);
    let (name, inner): (_, Box<dyn Read>) = if gzip {
        ("gzip", Box::new(Gzip { decoder: Some(GzDecoder::new(input)), trailing: false }))
    } else if xz {
        let stream = Stream::new_auto_decoder(XZ_MEMORY_BYTES_MAX, CONCATENATED)?;
        ("xz", Box::new(liblzma::bufread::XzDecoder::new_stream(input, stream)))
    } else {
        ("zstd", Box::new(zstd::stream::read::Decoder::with_buffer(input)?))
    };
    condition.borrow_mut().compression = Some(name);
    Ok(Box::new(Cuttable { inner, condition }))
}

/// Turns an early end into an ordinary one and remembers it.
struct Cuttable {
    inner: Box<dyn Read>,
    condition: Rc<RefCell<Condition>>,
}

impl Read for Cuttable {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if self.condition.borrow().cut {
            return Ok(0);
        }
        match self.inner.read(buf) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                self.condition.borrow_mut().cut = true;
                Ok(0)
            }
            Err(error) if error.kind() == io::ErrorKind::Other && is_trailing(&error) => {
                self.condition.borrow_mut().trailing = true;
                Ok(0)
            }
            other => other,
        }
    }
}

/// Marks the error by which [`Gzip`] says that no member follows but other bytes do.
#[derive(Debug, thiserror::Error)]
#[error("bytes after the compressed data")]
struct Trailing;

fn is_trailing(error: &io::Error) -> bool {
    error.get_ref().is_some_and(|inner| inner.is::<Trailing>())
}

/// Members of a gzip file one after the other (RFC 1952 §2.2). Bytes after the last member that
/// start no further one (tapes pad with zeros) end the data, as gzip itself has it.
struct Gzip<R: BufRead> {
    decoder: Option<GzDecoder<R>>,
    trailing: bool,
}

impl<R: BufRead> Read for Gzip<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        while let Some(decoder) = &mut self.decoder {
            let n = decoder.read(buf)?;
            if n > 0 || buf.is_empty() {
                return Ok(n);
            }
            let Some(mut input) = self.decoder.take().map(GzDecoder::into_inner) else { break };
            match input.fill_buf()? {
                [] => break,
                [first, ..] if *first == GZIP_MAGIC[0] => {
                    self.decoder = Some(GzDecoder::new(input));
                }
                _ => self.trailing = true,
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
        let condition = Rc::new(RefCell::new(Condition::default()));
        let mut out = Vec::new();
        let result = plain(Box::new(io::Cursor::new(input)), Rc::clone(&condition))
            .and_then(|mut reader| reader.read_to_end(&mut out));
        let condition = condition.borrow().clone();
        (result.map(|_| out), condition)
    }

    fn sample() -> Vec<u8> {
        let mut data = vec![0; 3000];
        crate::base::Prng::new(3).fill(&mut data[..1000]);
        data
    }

    #[test]
    fn members_one_after_the_other_are_one_input() {
        for pack in [gz, xz, zst] {
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
        for pack in [gz, xz, zst] {
            let whole = pack(&data);
            for len in MAGIC_BYTES_MAX..whole.len() {
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
        for pack in [gz, xz, zst] {
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
    fn padding_after_gzip_ends_the_data() {
        let (out, condition) = read([gz(b"data"), vec![0; 700]].concat());
        assert_eq!(out.unwrap(), b"data");
        assert!(condition.trailing && !condition.cut);
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
