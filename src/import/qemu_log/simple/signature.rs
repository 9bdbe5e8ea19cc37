//! The arguments of the events that are imported, by name, for records that hold values alone.
//!
//! A record says how long it is, and a version's arguments are told from another's by that. The
//! names are those that the `log` backend prints (see `fields`); [`TEXT`] is a string, and a number
//! without a name the port of an AHCI controller. Source: QEMU's `trace-events`.

use crate::import::qemu_log::fields::Fields;

/// Stands for a string.
const TEXT: &str = "$";

/// Arguments in the order of the record.
type Signature = &'static [&'static str];

const REGION: &[Signature] = &[
    &["cpu", "mr", "addr", "value", "size", TEXT],
    &["cpu", "mr", "addr", "value", "size"],
    &["cpu", "addr", "value", "size", TEXT],
    &["cpu", "addr", "value", "size"],
];
const PORT: &[Signature] = &[&["addr", "size", "value"]];
const VIRTIO: &[Signature] =
    &[&["vdev", "req", "sector", "nsectors"], &["req", "sector", "nsectors"]];
const NVME_RW: &[Signature] = &[
    &["cid", TEXT, "nsid", "nlb", "count", "lba"],
    &["cid", TEXT, "nlb", "count", "lba"],
    &[TEXT, "nlb", "count", "lba"],
];

/// The signatures of `event`, the likeliest first; empty for one that is not imported.
pub fn of(event: &[u8]) -> &'static [Signature] {
    match event {
        b"memory_region_ops_read" | b"memory_region_ops_write" => REGION,
        b"cpu_in" | b"cpu_out" => PORT,
        b"virtio_blk_handle_read" | b"virtio_blk_handle_write" => VIRTIO,
        b"virtio_blk_rw_complete" => &[&["vdev", "req", "ret"], &["req", "ret"]],
        b"virtio_blk_req_complete" => &[&["vdev", "req", "status"], &["req", "status"]],
        b"virtio_blk_handle_zone_append" => &[&["vdev", "req", "sector"]],
        b"ide_exec_cmd" | b"ide_bus_exec_cmd" => &[&["bus", "state", "cmd"]],
        b"ide_sector_read" | b"ide_sector_write" => &[&["sector", "nsectors"]],
        b"ide_dma_cb" => &[&["IDEState", "sector_num", "n", TEXT]],
        b"ide_atapi_cmd_read" => &[&["IDEState", TEXT, "LBA", "nb_sectors"]],
        b"dma_blk_io" => &[&["dbs", "bs", "offset", "to_dev"]],
        b"dma_complete" => &[&["dbs", "ret", "cb"]],
        b"ahci_port_write" => &[&["ahci", "", TEXT, "offset", "val"]],
        b"ahci_populate_sglist" | b"ahci_start_dma" | b"ahci_cmd_done" => &[&["ahci", ""]],
        b"process_ncq_command_fua" | b"ncq_finish" => &[&["ahci", "", "tag"]],
        b"execute_ncq_command_read" => &[&["ahci", "", "tag", "reading", "LBA"]],
        b"execute_ncq_command_write" => &[&["ahci", "", "tag", "writing", "LBA"]],
        b"pci_nvme_io_cmd" => {
            &[&["cid", "nsid", "sqid", "opc", TEXT], &["cid", "nsid", "sqid", "opc"]]
        }
        b"pci_nvme_read" => &[&["cid", "nsid", "nlb", "count", "lba"]],
        b"pci_nvme_write" | b"pci_nvme_rw" | b"nvme_rw" => NVME_RW,
        b"pci_nvme_write_zeroes" => &[&["cid", "nsid", "slba", "nlb"], &["cid", "slba", "nlb"]],
        b"pci_nvme_flush_ns" => &[&["nsid"]],
        b"pci_nvme_flush" => &[&["cid", "nsid"]],
        b"pci_nvme_dsm_deallocate" => &[&["slba", "nlb"], &["cid", "nsid", "slba", "nlb"]],
        b"pci_nvme_rw_cb"
        | b"pci_nvme_rw_complete_cb"
        | b"pci_nvme_misc_cb"
        | b"pci_nvme_aio_flush_cb" => &[&["cid", TEXT], &["cid", "nsid"], &["cid"]],
        b"pci_nvme_create_sq" => &[&["addr", "sqid", "cqid", "qsize", "qflags"]],
        b"pci_nvme_enqueue_req_completion" => {
            &[&["cid", "cqid", "dw0", "dw1", "status"], &["cid", "cqid", "status"]]
        }
        b"scsi_req_parsed" => &[&["target", "lun", "tag", "command", "dir", "length"]],
        b"scsi_req_parsed_lba" => &[&["target", "lun", "tag", "command", "lba"]],
        b"scsi_req_alloc" | b"scsi_req_dequeue" | b"scsi_req_cancel" => {
            &[&["target", "lun", "tag"]]
        }
        b"blk_co_preadv" | b"blk_co_pwritev" => &[&["blk", "bs", "offset", "bytes", "flags"]],
        _ => &[],
    }
}

/// The byte order of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// x86, ARM.
    Little,
    /// s390x.
    Big,
}

impl Order {
    /// The number at the beginning of `bytes`, and the rest.
    pub fn u64(self, bytes: &[u8]) -> Option<(u64, &[u8])> {
        let (head, rest) = bytes.split_first_chunk()?;
        let value = match self {
            Self::Little => u64::from_le_bytes(*head),
            Self::Big => u64::from_be_bytes(*head),
        };
        Some((value, rest))
    }

    /// The same of 32 bits.
    pub fn u32(self, bytes: &[u8]) -> Option<(u32, &[u8])> {
        let (head, rest) = bytes.split_first_chunk()?;
        let value = match self {
            Self::Little => u32::from_le_bytes(*head),
            Self::Big => u32::from_be_bytes(*head),
        };
        Some((value, rest))
    }
}

/// The arguments of a record of `event`; none where no signature fits them exactly.
pub fn arguments<'l>(event: &[u8], bytes: &'l [u8], order: Order) -> Option<Fields<'l>> {
    of(event).iter().find_map(|signature| fitting(signature, bytes, order))
}

fn fitting<'l>(signature: Signature, bytes: &'l [u8], order: Order) -> Option<Fields<'l>> {
    let mut fields = Fields::default();
    let mut rest = bytes;
    for name in signature {
        if *name == TEXT {
            let (len, after) = order.u32(rest)?;
            let (text, after) = after.split_at_checked(usize::try_from(len).ok()?)?;
            fields.push_text(text);
            rest = after;
        } else {
            let (value, after) = order.u64(rest)?;
            fields.push(name.as_bytes(), value);
            rest = after;
        }
    }
    rest.is_empty().then_some(fields)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(words: &[u64]) -> Vec<u8> {
        words.iter().flat_map(|word| word.to_le_bytes()).collect()
    }

    #[test]
    fn versions_are_told_apart_by_length() {
        let with = words(&[1, 2, 8, 3]);
        let fields = arguments(b"virtio_blk_handle_read", &with, Order::Little).unwrap();
        assert_eq!((fields.get("vdev"), fields.get("sector")), (Some(1), Some(8)));
        let without = words(&[2, 8, 3]);
        let fields = arguments(b"virtio_blk_handle_read", &without, Order::Little).unwrap();
        assert_eq!((fields.get("vdev"), fields.get("sector")), (None, Some(8)));
        for bad in [&words(&[2, 8])[..], &with[1..], &words(&[1; 5])] {
            assert!(arguments(b"virtio_blk_handle_read", bad, Order::Little).is_none());
        }
        assert!(arguments(b"virtqueue_pop", &with, Order::Little).is_none());
    }

    #[test]
    fn strings_have_their_length_before_them() {
        let name = [&words(&[0, 1, 0x70, 7, 1])[..], &3u32.to_le_bytes(), b"rtc"].concat();
        let event = b"memory_region_ops_write";
        let fields = arguments(event, &name, Order::Little).unwrap();
        assert_eq!((fields.get("addr"), fields.string()), (Some(0x70), Some(&b"rtc"[..])));
        let plain = words(&[0, 1, 0x70, 7, 4]);
        let fields = arguments(event, &plain, Order::Little).unwrap();
        assert_eq!((fields.get("size"), fields.string()), (Some(4), None));
        let long = [&words(&[0, 1, 0x70, 7, 1])[..], &u32::MAX.to_le_bytes(), b"rtc"].concat();
        assert!(arguments(event, &long, Order::Little).is_none());
        let big: Vec<u8> = [0u64, 1, 0x70, 7, 4].iter().flat_map(|w| w.to_be_bytes()).collect();
        assert_eq!(arguments(event, &big, Order::Big).unwrap().get("addr"), Some(0x70));
    }
}
