use crate::base::{BlockOp, OpFlags};
use crate::import::testing::{Memory, import_with, losses};
use crate::import::{ImportOptions, ImportReport};
use crate::trace::NotRecorded;

fn options() -> ImportOptions {
    ImportOptions { from: Some("qemu-log-block".into()), ..ImportOptions::default() }
}

/// Imports events, one a line, a microsecond after another.
fn events(lines: &[&str]) -> (ImportReport, Memory) {
    let line = |(n, text): (usize, &&str)| format!("7@5.{n:06}:{text}\n");
    let text: String = lines.iter().enumerate().map(line).collect();
    import_with(text.as_bytes(), &options()).unwrap()
}

fn devices(out: &Memory) -> Vec<&str> {
    out.streams.iter().map(|stream| stream.device.as_str()).collect()
}

#[test]
fn virtio_requests_are_joined_by_address() {
    let (report, out) = events(&[
        "virtio_blk_handle_read vdev 0x1 req 0xa sector 8 nsectors 2",
        "virtio_blk_handle_write vdev 0x1 req 0xb sector 0 nsectors 1",
        "virtio_blk_rw_complete vdev 0x1 req 0xb ret -28",
        "virtio_blk_req_complete vdev 0x1 req 0xb status 1",
        "virtio_blk_rw_complete vdev 0x1 req 0xa ret 0",
        "virtio_blk_req_complete vdev 0x1 req 0xa status 0",
        // The address is used again.
        "virtio_blk_handle_write vdev 0x2 req 0xa sector 16 nsectors 1",
        "virtio_blk_req_complete vdev 0x2 req 0xa status 2",
        "virtio_blk_req_complete vdev 0x2 req 0xc status 0",
        "virtio_blk_handle_zone_append vdev 0x2 req 0xd sector 0x10",
        "virtio_blk_handle_read vdev 0x2 req 0xe sector 16",
        "virtio_blk_handle_read vdev 0x2 req 0xf sector 16 nsectors 0",
        "virtio_blk_req_complete vdev 0x2 req 0xf status 1",
    ]);
    assert_eq!(
        out.issues_brief(),
        [
            (0, BlockOp::Read, 4096, 1024),
            (1000, BlockOp::Write, 0, 512),
            (6000, BlockOp::Write, 8192, 512),
        ]
    );
    assert_eq!(out.completes(), [(1, 3000, 28), (0, 5000, 0), (2, 7000, 95)]);
    assert_eq!(devices(&out), ["virtio-blk@0x1", "virtio-blk@0x2"]);
    let reasons: Vec<_> = losses(&report).into_iter().map(|loss| (loss.1, loss.2)).collect();
    assert_eq!(reasons, [(1, "line 9"), (1, "line 10"), (1, "line 11"), (1, "line 12")]);
    let lacks = report.summary.not_recorded;
    assert!(lacks.contains(NotRecorded::FLUSHES | NotRecorded::DISCARDS | NotRecorded::CPUS));
    assert!(!lacks.intersects(NotRecorded::STATUS | NotRecorded::COMPLETIONS));
}

#[test]
fn the_block_layers_end_counts_where_no_answer_is_traced() {
    let (report, out) = events(&[
        "virtio_blk_handle_read req 0xa sector 8 nsectors 1",
        "virtio_blk_rw_complete req 0xa ret 0",
        "virtio_blk_handle_read req 0xa sector 16 nsectors 1",
        "virtio_blk_rw_complete req 0xa ret -5",
    ]);
    assert_eq!(devices(&out), ["virtio-blk"]);
    assert_eq!(out.completes(), [(0, 1000, 0), (1, 3000, 5)]);
    assert!(report.summary.losses.is_empty());
}

#[test]
fn a_request_tried_again_after_an_error_stands_once() {
    let (report, out) = events(&[
        "virtio_blk_handle_write vdev 0x1 req 0xa sector 8 nsectors 1",
        "virtio_blk_rw_complete vdev 0x1 req 0xa ret -28",
        "virtio_blk_handle_write vdev 0x1 req 0xa sector 8 nsectors 1",
        "virtio_blk_rw_complete vdev 0x1 req 0xa ret 0",
        "virtio_blk_req_complete vdev 0x1 req 0xa status 0",
    ]);
    assert_eq!(out.issues_brief().len(), 1);
    assert_eq!(out.completes(), [(0, 4000, 0)]);
    assert_eq!(report.summary.notes, ["1 request was tried again after an error: kept once"]);
}

#[test]
fn logs_without_completions_say_so() {
    let lines = ["virtio_blk_handle_read vdev 0x1 req 0xa sector 8 nsectors 1"; 3];
    let (report, out) = events(&lines);
    assert_eq!(out.events.len(), 3);
    assert!(report.summary.not_recorded.contains(NotRecorded::COMPLETIONS | NotRecorded::STATUS));
}

#[test]
fn ide_by_dma_pio_and_flush() {
    let (report, out) = events(&[
        "ide_exec_cmd IDE exec cmd: bus 0x1; state 0x2; cmd 0xec",
        "ide_exec_cmd IDE exec cmd: bus 0x1; state 0x2; cmd 0xc8",
        "ide_dma_cb IDEState 0x2; sector_num=8 n=2 cmd=DMA READ",
        "dma_blk_io dbs=0x9 bs=0x5 offset=4096 to_dev=0",
        "dma_complete dbs=0x9 ret=0 cb=0x7",
        "ide_dma_cb IDEState 0x2; sector_num=0 n=1 cmd=DMA WRITE",
        "dma_blk_io dbs=0x9 bs=0x5 offset=0 to_dev=1",
        "dma_complete dbs=0x9 ret=-5 cb=0x7",
        "ide_bus_exec_cmd IDE exec cmd: bus 0x1; state 0x2; cmd 0xea",
        "ide_exec_cmd IDE exec cmd: bus 0x1; state 0x3; cmd 0x20",
        "ide_sector_read sector=63 nsectors=1",
        "ide_exec_cmd IDE exec cmd: bus 0x1; state 0x2; cmd 0xc5",
        "ide_sector_write sector=64 nsectors=16",
        "ide_dma_cb IDEState 0x2; sector_num=0 n=1 cmd=DMA TRIM",
        "dma_blk_io dbs=0x9 bs=0x5 offset=0 to_dev=1",
        "dma_complete dbs=0x9 ret=0 cb=0x7",
        "ide_atapi_cmd_read IDEState: 0x4; read dma: LBA=16 nb_sectors=2",
        "ide_dma_cb IDEState 0x2; sector_num=0 n=1 cmd=?",
    ]);
    assert_eq!(
        out.issues_brief(),
        [
            (0, BlockOp::Read, 4096, 1024),
            (3000, BlockOp::Write, 0, 512),
            (6000, BlockOp::Flush, 0, 0),
            (8000, BlockOp::Read, 63 * 512, 512),
            (10_000, BlockOp::Write, 64 * 512, 16 * 512),
            (14_000, BlockOp::Read, 16 * 2048, 4096),
        ]
    );
    assert_eq!(out.completes(), [(0, 2000, 0), (1, 5000, 5)]);
    assert_eq!(devices(&out), ["ide@0x2", "ide@0x3", "ide@0x4"]);
    assert_eq!(
        losses(&report),
        [
            ("IDE command that is no request for the disk's data", 1, "line 1"),
            ("DMA TRIM: the log does not say which ranges", 1, "line 14"),
            ("other event: dma_blk_io", 1, "line 15"),
            ("other event: dma_complete", 1, "line 16"),
            ("block event that cannot be read", 1, "line 18"),
        ]
    );
    assert!(report.summary.not_recorded.contains(NotRecorded::FUA | NotRecorded::DISCARDS));
    assert!(!report.summary.not_recorded.contains(NotRecorded::FLUSHES));
}

#[test]
fn ahci_by_ncq_and_its_ports_other_commands() {
    let (report, out) = events(&[
        "ahci_port_write ahci(0x8)[1]: port write [reg:PxCI] @ 0x38: 0x00000001",
        "ahci_check_irq ahci(0x8): check irq 0x00000000 --> 0x00000002",
        "ide_exec_cmd IDE exec cmd: bus 0x1; state 0x2; cmd 0xe7",
        "process_ncq_command_fua ahci(0x8)[1][tag:4]: Warn: Unsupported attempt to use Force Unit Access",
        "execute_ncq_command_write ahci(0x8)[1][tag:4]: NCQ writing 8 sectors to LBA 2048",
        "dma_blk_io dbs=0x9 bs=0x5 offset=1048576 to_dev=1",
        "execute_ncq_command_read ahci(0x8)[1][tag:5]: NCQ reading 1 sectors from LBA 0",
        "ncq_finish ahci(0x8)[1][tag:5]: NCQ transfer finished",
        "dma_complete dbs=0x9 ret=-28 cb=0x7",
        "ncq_finish ahci(0x8)[1][tag:4]: NCQ transfer finished",
        "ncq_finish ahci(0x8)[1][tag:4]: NCQ transfer finished",
        "ide_exec_cmd IDE exec cmd: bus 0x1; state 0x2; cmd 0x25",
        "ide_dma_cb IDEState 0x2; sector_num=8 n=2 cmd=DMA READ",
    ]);
    let issues: Vec<_> = out.issues().iter().map(|i| (i.op, i.flags, i.offset, i.len)).collect();
    let none = OpFlags::empty();
    assert_eq!(
        issues,
        [
            (BlockOp::Flush, none, 0, 0),
            (BlockOp::Write, OpFlags::FUA, 1 << 20, 4096),
            (BlockOp::Read, none, 0, 512),
            (BlockOp::Read, none, 4096, 1024),
        ]
    );
    assert_eq!(out.completes(), [(2, 5000, 0), (1, 7000, 28)]);
    // One disk: by the port's event the state is known to be that port's.
    assert_eq!(devices(&out), ["ahci@0x8:1"]);
    let named: Vec<_> = losses(&report).iter().map(|loss| (loss.0, loss.1)).collect();
    assert_eq!(
        named,
        [
            ("other event: ahci_port_write", 1),
            ("other event: ahci_check_irq", 1),
            ("completion of an NCQ request that the log does not name", 1)
        ]
    );
    assert!(!report.summary.not_recorded.contains(NotRecorded::FUA));
}

#[test]
fn nvme_commands_of_several_queues() {
    let (report, out) = events(&[
        "pci_nvme_create_sq create submission queue, addr=0x1000, sqid=1, cqid=1, qsize=8, qflags=1",
        "pci_nvme_create_sq create submission queue, addr=0x2000, sqid=2, cqid=3, qsize=8, qflags=1",
        "pci_nvme_io_cmd cid 7 nsid 0x1 sqid 1 opc 0x2 opname 'NVME_NVM_CMD_READ'",
        "pci_nvme_read cid 7 nsid 1 nlb 2 count 8192 lba 0x10",
        "pci_nvme_io_cmd cid 7 nsid 0x1 sqid 2 opc 0x1 opname 'NVME_NVM_CMD_WRITE'",
        "pci_nvme_write cid 7 opname 'NVME_NVM_CMD_WRITE' nsid 1 nlb 1 count 4160 lba 0x1",
        "pci_nvme_enqueue_req_completion cid 7 cqid 1 dw0 0x0 dw1 0x0 status 0x0",
        "pci_nvme_enqueue_req_completion cid 7 cqid 3 dw0 0x0 dw1 0x0 status 0x4081",
        "pci_nvme_io_cmd cid 8 nsid 0x1 sqid 2 opc 0x0 opname 'NVME_NVM_CMD_FLUSH'",
        "pci_nvme_flush_ns nsid 0x1",
        "pci_nvme_enqueue_req_completion cid 8 cqid 3 dw0 0x0 dw1 0x0 status 0x0",
        "pci_nvme_io_cmd cid 9 nsid 0x1 sqid 1 opc 0x9 opname 'NVME_NVM_CMD_DSM'",
        "pci_nvme_dsm nr 2 attr 0x4",
        "pci_nvme_dsm_deallocate slba 16 nlb 2",
        "pci_nvme_dsm_deallocate slba 32 nlb 1",
        "pci_nvme_enqueue_req_completion cid 9 cqid 1 status 0x0",
        "pci_nvme_write cid 3 opname 'NVME_NVM_CMD_WRITE_ZEROES' nsid 1 nlb 4 count 16384 lba 0x0",
        "pci_nvme_enqueue_req_completion cid 0 cqid 0 dw0 0x0 dw1 0x0 status 0x0",
        "pci_nvme_enqueue_req_completion cid 77 cqid 1 dw0 0x0 dw1 0x0 status 0x0",
        "pci_nvme_io_cmd cid 4 nsid 0xffffffff sqid 1 opc 0x0 opname 'NVME_NVM_CMD_FLUSH'",
        "pci_nvme_flush_ns nsid 0x1",
        "pci_nvme_flush_ns nsid 0x2",
        "pci_nvme_enqueue_req_completion cid 4 cqid 1 status 0x0",
        "pci_nvme_compare cid 3 nsid 1 slba 0x10 nlb 2",
        "pci_nvme_read cid 7 nsid 1 nlb 0 count 8192 lba 0x10",
    ]);
    let issues: Vec<_> = out.issues_brief().into_iter().map(|i| (i.1, i.2, i.3)).collect();
    assert_eq!(
        issues,
        [
            (BlockOp::Read, 16 * 4096, 8192),
            (BlockOp::Write, 4096, 4096),
            (BlockOp::Flush, 0, 0),
            (BlockOp::Discard, 16 * 4096, 8192),
            (BlockOp::Discard, 32 * 4096, 4096),
            (BlockOp::WriteZeroes, 0, 16384),
            (BlockOp::Flush, 0, 0),
            (BlockOp::Flush, 0, 0),
        ]
    );
    let done: Vec<_> = out.completes().into_iter().map(|c| (c.0, c.2)).collect();
    assert_eq!(done, [(0, 0), (1, 28), (2, 0), (3, 0), (4, 0), (6, 0), (7, 0)]);
    assert_eq!(devices(&out), ["nvme-ns1", "nvme-ns2"]);
    let named: Vec<_> = losses(&report).iter().map(|loss| (loss.0, loss.1)).collect();
    assert_eq!(
        named,
        [
            ("other event: pci_nvme_dsm", 1),
            ("completion of an nvme admin command", 1),
            ("completion of an nvme command that the log does not name", 1),
            ("nvme compare, verify or copy: no operation of a trace", 1),
            ("block event that cannot be read", 1),
        ]
    );
    let lacks = report.summary.not_recorded;
    assert!(lacks.contains(NotRecorded::FUA | NotRecorded::UNMAP));
    assert!(!lacks.intersects(NotRecorded::DISCARDS | NotRecorded::FLUSHES));
}

#[test]
fn nvme_of_older_versions() {
    let (report, out) = events(&[
        "nvme_rw write 8 blocks (4096 bytes) from LBA 16",
        "pci_nvme_rw read 1 blocks (512 bytes) from LBA 4",
        "pci_nvme_rw cid 5 write nsid 3 nlb 1 count 4096 lba 0x2",
        "pci_nvme_rw_cb cid 5 nsid 3",
        "pci_nvme_rw cid 6 opname 'NVME_NVM_CMD_READ' nsid 3 nlb 1 count 4096 lba 0x3",
        "pci_nvme_rw_cb cid 6 blk 'd0'",
        "pci_nvme_write_zeroes cid 5 nsid 3 slba 2 nlb 2",
        "pci_nvme_write_zeroes cid 9 nsid 4 slba 2 nlb 2",
        "pci_nvme_flush cid 10 nsid 4",
        "pci_nvme_enqueue_req_completion cid 10 cqid 1 status 0x2",
    ]);
    let issues: Vec<_> = out.issues_brief().into_iter().map(|i| (i.1, i.2, i.3)).collect();
    assert_eq!(
        issues,
        [
            (BlockOp::Write, 8192, 4096),
            (BlockOp::Read, 2048, 512),
            (BlockOp::Write, 8192, 4096),
            (BlockOp::Read, 12288, 4096),
            (BlockOp::WriteZeroes, 8192, 8192),
            (BlockOp::WriteZeroes, 1024, 1024),
            (BlockOp::Flush, 0, 0),
        ]
    );
    // What the block layer was done with becomes known as done when the identifier comes again, or
    // at the end.
    assert_eq!(out.completes(), [(2, 3000, 0), (6, 9000, 95), (3, 5000, 0)]);
    assert!(report.summary.losses.is_empty());
    assert!(report.summary.notes[0].contains("namespace 4"), "{:?}", report.summary.notes);
    let told = ImportOptions { unit_bytes: Some(4096), ..options() };
    let text = "1@2.5:pci_nvme_write_zeroes cid 9 nsid 4 slba 2 nlb 2\n";
    let (report, out) = import_with(text.as_bytes(), &told).unwrap();
    assert_eq!(out.issues_brief(), [(0, BlockOp::WriteZeroes, 8192, 8192)]);
    assert!(report.summary.notes.is_empty());
}

#[test]
fn scsi_requests_by_target_lun_and_tag() {
    let log = [
        "scsi_req_parsed target 0 lun 1 tag 25 command 40 dir 1 length 4096",
        "scsi_req_parsed_lba target 0 lun 1 tag 25 command 40 lba 8",
        "scsi_req_alloc target 0 lun 1 tag 25",
        "scsi_req_parsed target 0 lun 1 tag 26 command 138 dir 2 length 512",
        "scsi_req_parsed_lba target 0 lun 1 tag 26 command 138 lba 0",
        "scsi_req_dequeue target 0 lun 1 tag 26",
        "scsi_req_dequeue target 0 lun 1 tag 25",
        "scsi_req_parsed target 0 lun 1 tag 25 command 53 dir 0 length 0",
        "scsi_req_parsed_lba target 0 lun 1 tag 25 command 53 lba 0",
        "scsi_req_dequeue target 0 lun 1 tag 25",
        "scsi_req_parsed target 0 lun 1 tag 27 command 18 dir 1 length 36",
        "scsi_req_dequeue target 0 lun 1 tag 27",
        "scsi_req_parsed target 0 lun 1 tag 28 command 66 dir 2 length 24",
        "scsi_req_parsed target 0 lun 1 tag 29 command 40 dir 1 length 512",
        "scsi_req_dequeue target 0 lun 1 tag 29",
        "scsi_req_dequeue target 0 lun 1 tag 30",
        "scsi_req_parsed target 0 lun 1",
        "scsi_disk_dma_command_READ Read (sector 2048, count 8)",
    ];
    let (report, out) = events(&log);
    assert_eq!(
        out.issues_brief(),
        [
            (0, BlockOp::Read, 4096, 4096),
            (3000, BlockOp::Write, 0, 512),
            (6000, BlockOp::Flush, 0, 0),
        ]
    );
    assert_eq!(out.completes(), [(1, 4000, 0), (0, 5000, 0), (2, 8000, 0)]);
    assert_eq!(devices(&out), ["scsi-0:1"]);
    let named: Vec<_> = losses(&report).iter().map(|loss| (loss.0, loss.1)).collect();
    assert_eq!(
        named,
        [
            ("scsi command that is no request for the disk's data", 1),
            ("scsi UNMAP: the log does not say which ranges", 1),
            ("scsi request whose place is not in the log", 1),
            ("completion of a scsi request that the log does not name", 1),
            ("block event that cannot be read", 1),
            ("other event: scsi_disk_dma_command_READ", 1),
        ]
    );
    assert!(report.summary.notes[0].contains("--unit"), "{:?}", report.summary.notes);
    let lacks = report.summary.not_recorded;
    assert!(lacks.contains(NotRecorded::STATUS | NotRecorded::FUA | NotRecorded::DISCARDS));
    assert!(!lacks.intersects(NotRecorded::FLUSHES | NotRecorded::COMPLETIONS));
    let told = ImportOptions { unit_bytes: Some(4096), ..options() };
    let (_, out) =
        import_with(format!("1@2.5:{}\n1@2.5:{}\n", log[0], log[1]).as_bytes(), &told).unwrap();
    assert_eq!(out.issues_brief(), [(0, BlockOp::Read, 8 * 4096, 4096)]);
}

#[test]
fn events_of_nodes_alone_are_told_of() {
    let text = "7@5.1:bdrv_co_preadv bs 0x55d0 offset 0 nbytes 512 flags 0x0\n";
    for from in ["qemu-log", "qemu-log-block", "qemu-log-backend"] {
        let options = ImportOptions { from: Some(from.into()), ..ImportOptions::default() };
        let error = import_with(text.as_bytes(), &options).unwrap_err();
        assert!(error.to_string().contains("events of block nodes"), "{error}");
    }
}
