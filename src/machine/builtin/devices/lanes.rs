//! Byte-wide registers behind wider accesses: each byte lane is an access of its own, low first, as
//! an 8-bit device on the ISA bus sees them.

/// Reads `size` bytes from `offset` on, a lane at a time.
pub fn read(offset: u64, size: u8, mut lane: impl FnMut(u64) -> u8) -> u64 {
    let lanes = 0..u64::from(size.min(8));
    lanes.fold(0, |value, i| value | u64::from(lane(offset.wrapping_add(i))) << (8 * i))
}

/// Writes `size` bytes from `offset` on, a lane at a time.
pub fn write(offset: u64, size: u8, value: u64, mut lane: impl FnMut(u64, u8)) {
    for (byte, at) in value.to_le_bytes().into_iter().take(size.into()).zip(offset..) {
        lane(at, byte);
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn lanes_go_low_first_both_ways() {
        assert_eq!(super::read(4, 4, |at| at as u8), 0x0706_0504);
        let mut seen = Vec::new();
        super::write(4, 2, 0xffff_1234, |at, byte| seen.push((at, byte)));
        assert_eq!(seen, [(4, 0x34), (5, 0x12)]);
    }
}
