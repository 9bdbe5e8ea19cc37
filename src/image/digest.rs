//! SHA-256 of what a guest sees, so that images of any format can be compared by one number.

use sha2::{Digest, Sha256};

use super::{ExtentKind, Image, read_exact};
use crate::base::Result;
use crate::base::error::IoContext;

/// Bytes read and hashed at a time: large enough that a read costs nothing beside the hashing.
const PIECE: usize = 2 << 20;

/// SHA-256 over every guest-visible byte of `image`, whatever is not stored counting as zeros.
/// `progress` is given the bytes done so far, every few megabytes.
pub fn guest_sha256(image: &dyn Image, progress: &mut dyn FnMut(u64)) -> Result<[u8; 32]> {
    let path = &image.info().path;
    let size = image.size();
    let mut hash = Sha256::new();
    let mut data = vec![0; PIECE];
    let zeros = vec![0; PIECE];
    let mut at = 0;
    while at < size {
        let extent = image.extent(at, size - at).reading(path, "cannot map the image")?;
        let end = at + extent.len.clamp(1, size - at);
        while at < end {
            let n = (end - at).min(PIECE as u64) as usize;
            let piece = match extent.kind {
                ExtentKind::Zero => &zeros[..n],
                ExtentKind::Data => {
                    read_exact(image, &mut data[..n], at)
                        .reading(path, "cannot read the image")
                        .map_err(|e| e.at(crate::base::error::Place::Offset(at)))?;
                    &data[..n]
                }
            };
            hash.update(piece);
            at += n as u64;
            progress(at);
        }
    }
    Ok(hash.finalize().into())
}

/// A digest as people write it.
pub fn hex(digest: &[u8; 32]) -> String {
    use std::fmt::Write;
    digest.iter().fold(String::with_capacity(64), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::{mem, null, write_all};

    #[test]
    fn holes_count_as_zeros() {
        let digest = guest_sha256(&*null(5 << 20), &mut |_| {}).unwrap();
        let want: [u8; 32] = Sha256::digest(vec![0; 5 << 20]).into();
        assert_eq!(digest, want);
    }

    #[test]
    fn data_and_holes_are_hashed_in_order() {
        let image = mem(5 << 20);
        write_all(&*image, &[7; 513], (3 << 20) + 5).unwrap();
        let mut flat = vec![0; 5 << 20];
        flat[(3 << 20) + 5..(3 << 20) + 518].fill(7);
        let mut last = 0;
        let digest = guest_sha256(&*image, &mut |at| last = at).unwrap();
        assert_eq!(hex(&digest), hex(&Sha256::digest(&flat).into()));
        assert_eq!(last, 5 << 20);
    }
}
