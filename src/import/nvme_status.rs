//! What an NVMe status is to Linux.

/// Status code and its type; above them stand more, do-not-retry and the like.
const STATUS_CODE: u64 = 0x7ff;

/// The errno that the block layer makes of the status field of a completion (NVM Express Base 2.0,
/// figure 97; Linux `nvme_error_status`, `blk_status_to_errno`).
pub(super) fn errno(status: u64) -> u16 {
    match status & STATUS_CODE {
        0 => 0,
        // Capacity exceeded: ENOSPC.
        0x081 => 28,
        // LBA out of range, namespace not ready: EREMOTEIO.
        0x080 | 0x082 => 121,
        // Invalid opcode, field or namespace, conflicting attributes: EOPNOTSUPP.
        0x001 | 0x002 | 0x00b | 0x180 => 95,
        // Write fault, unrecovered read, compare failure, access denied, unwritten block, write to a
        // range that is read only: ENODATA.
        0x280 | 0x281 | 0x285..=0x287 | 0x182 => 61,
        // Guard, application tag, reference tag, invalid protection information: EILSEQ.
        0x282..=0x284 | 0x181 => 84,
        // Reservation conflict: EBADE.
        0x083 => 52,
        // Host path error: ENOLINK.
        0x370 => 67,
        _ => 5,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bits_above_the_code_do_not_count() {
        assert_eq!([0, 0x4281, 0x6, 0x2083, 0x80].map(errno), [0, 61, 5, 52, 121]);
    }
}
