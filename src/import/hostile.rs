//! Every importer against input that was damaged on purpose: no panic, no hang, no event that the
//! container would refuse.

use std::io::Write;
use std::time::{Duration, Instant};

use super::testing::{Memory, import_with, plain_sample};
use super::{ImportOptions, registry};
use crate::base::limits::DISK_BYTES_MAX;
use crate::base::{BlockOp, ErrorKind, Prng};
use crate::trace::Event;
use crate::trace::format::{Record, RecordBounds};

/// Far more than any of these inputs takes, far less than a hang.
const TIME_MAX: Duration = Duration::from_secs(60);

fn blktrace(version: u32) -> Vec<u8> {
    use super::blktrace::record::{Order, Record, Version};
    let version = if version == 7 { Version::V7 } else { Version::V8 };
    let acts = [(1, 0x12u64), (7, 0x42), (1, 0x1016), (6, 0x22), (8, 0x82), (2, 0x400), (8, 0x86)];
    let mut out = Vec::new();
    for n in 0..40u32 {
        let (act, cats) = acts[n as usize % acts.len()];
        let record = Record {
            sequence: n,
            time: u64::from(n) * 1000,
            sector: u64::from(n / 4) * 8,
            bytes: if n % 5 == 0 { 0 } else { 4096 },
            action: cats << 16 | act,
            device: 254 << 20,
            cpu: n % 2,
            error: 0,
            pdu_len: 0,
        };
        out.extend(record.encode(
            version,
            Order::Little,
            if n % 6 == 5 { b"message" } else { b"" },
        ));
    }
    out
}

fn log_writes() -> Vec<u8> {
    let mut log = Vec::new();
    let mut sector = |words: &[u64]| {
        let mut bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        bytes.resize(512, 0);
        log.extend(bytes);
    };
    sector(&[0x006a_7366_7773_6872, 1, 5, 512]);
    sector(&[8, 1, 0, 0]);
    sector(&[0x1111; 64]);
    sector(&[0, 0, 1, 0]);
    sector(&[16, 1, 3, 0]);
    sector(&[0x2222; 64]);
    sector(&[0, 100, 4, 0]);
    sector(&[0, 0, 8, 3, 0x61_6261]);
    log
}

/// A small input of each format.
fn seeds() -> Vec<(&'static str, Vec<u8>)> {
    let iolog2 = "fio version 2 iolog\n/d add\n/d open\n/d read 0 512\n/d wait 5 0\n\
                  /d write 4096 4096\n/d sync 0 0\n/d trim 0 512\n/d close\n";
    let iolog3 = "fio version 3 iolog\n1 /d add\n2 /d open\n5 /d read 0 512\n7 /d sync 9 0\n\
                  fio version 3 iolog\n1 /d write 0 512\n9 /d trim 0 512\n";
    let msr = "128166372003061629,hm,1,Read,383496192,32768,413\n\
               128166372016382155,hm,1,Write,310382592,20480,1248\n";
    let qemu_log = "1@5.000001:blk_co_preadv blk 0x1 bs 0x2 offset 0 bytes 512 flags 0x0\n\
        1@5.000002:memory_region_ops_write cpu 0 mr 0x1 addr 0x70 value 0x8f size 1 name 'rtc-index'\n\
        2@5.000009:memory_region_ops_read cpu 1 mr 0x2 addr 0xfee00020 value 0xff00 size 4 name 'apic-msi'\n\
        1970-01-01T00:00:06.5Z memory_region_ops_write cpu -1 addr 0xfee00000 value 0x0 size 4\n\
        cpu_out addr 0xcf8(l) value 2147483648\ncpu_in addr 0x60(b) value 250\n";
    let qemu_backend = "1@5.000001:blk_co_preadv blk 0x1 bs 0x2 offset 0 bytes 512 flags 0x0\n\
        1@5.000002:blk_co_pwritev blk 0x1 bs 0x2 offset 4096 bytes 512 flags 0x16\n";
    let mmiotrace = "VERSION 20070824\n\
        PCIDEV 0040 1b360010 a febf0004 0 0 0 0 0 0 4000 0 0 0 0 0 0 nvme\n\
        MAP 69.953234 1 0xfebf0000 0xff8648d50043e000 0x2000 0x0 0\n\
        R 4 70.073551 1 0xfebf001c 0x9 0x0 0\nMARK 70.1 hello\n\
        W 8 70.2 1 0xfebf0020 0x123456789a 0x0 0\nUNMAP 72.2 -1 0x0 0\n\
        MARK 0.000000 Lost 7 events.\n";
    let script = "# args: -M q35\ncat << EOF | qemu-system-i386 \\\n-qtest stdio\n\
        outl 0xcf8 0x80001010\nwrite 0x1000 0x4 0x0102\\\n03\nmemset 0x2000 0x100 0xff\n\
        b64write 0x0 3 AQID\nreadq 0xfed00000\nread 0x1000 4\nclock_step 1000\nEOF\n";
    let qtest_log = "[I 0.000000] OPENED\n[R +0.001] irq_intercept_in ioapic\n[S +0.001] OK\n\
        [R +0.002] outb 0x70 0x8f\n[S +0.002] OK\n[R +0.003] inb 0x71\n\
        [S +0.003] IRQ raise 8\n[S +0.003] OK 0x0026\n[R +0.004] clock_step\n\
        [S +0.004] OK 1000000\n[R +0.005] read 0x0 2\n[S +0.005] OK 0x0102\n";
    let nbdkit = "2026-11-22 08:15:12.458801 Ready thread_model=3\n\
        2026-11-22 08:15:12.472190 connection=1 Connect export=\"a\" tls=0 size=0x1000000 fua=2\n\
        2026-11-22 08:15:12.472597 connection=1 Write id=1 offset=0x0 count=0x1000 fua=0 ...\n\
        2026-11-22 08:15:12.472600 connection=1 Zero id=2 offset=0x100000 count=0x10000 trim=1 fua=0 fast=0 ...\n\
        2026-11-22 08:15:12.472639 connection=1 ...Write id=1 return=-1 error=EIO\n\
        2026-11-22 08:15:12.472640 connection=1 ...Zero id=2 return=0 (Success)\n\
        2026-11-22 08:15:12.473144 connection=1 Flush id=3 ...\n\
        2026-11-22 08:15:12.473146 connection=1 ...Flush id=3 return=0\n\
        2026-11-22 08:15:12.473150 connection=1 Extents id=4 offset=0x0 count=0x10 req_one=1 ...\n\
        2026-11-22 08:15:12.474752 connection=1 Disconnect transactions=3\n";
    vec![
        ("nbdkit-log", nbdkit.into()),
        ("qemu-log", qemu_log.into()),
        ("qemu-log", qemu_block().into()),
        ("qemu-log-bus", qemu_log.into()),
        ("qemu-log-block", qemu_block().into()),
        ("qemu-log-backend", qemu_backend.into()),
        ("qemu-simple", qemu_simple()),
        ("mmiotrace", mmiotrace.into()),
        ("qtest", script.into()),
        ("qtest", qtest_log.into()),
        ("fio-iolog", iolog2.into()),
        ("fio-iolog", iolog3.into()),
        ("msr-csv", msr.into()),
        ("dm-log-writes", log_writes()),
        ("blktrace", blktrace(7)),
        ("blktrace", blktrace(8)),
    ]
    .into_iter()
    .chain(kernel_texts())
    .chain(data_sets())
    .collect()
}

/// Small texts of the kernel's block layer.
fn kernel_texts() -> Vec<(&'static str, Vec<u8>)> {
    let blkparse = "  8,0    0        1     0.000000000   143  Q FWFSM 2048 + 8 [jbd2/sda-8]\n\
        254,32   1        1     0.000001000   143  D   R 8 + 8 (    1000) [x]\n\
        \x20 8,0    0        2     0.000002000     0  C FWFSM 2048 + 8 [65531]\n\
        \x20 8,0    0        0     0.000002500     0  m   N cfq17S / alloced\n\
        \x20 8,0    0        3     0.000003000     7  Q  WS [sync]\nCPU0 (sda):\n Reads Queued: 1\n";
    let ftrace = "# tracer: nop\n# entries-in-buffer/entries-written: 9/12   #P:2\n\
        a-1 [000] d..1. 1.000001: block_bio_queue: 8,0 WS 8 + 8 [a]\n\
        a-1 [000] ..... 1.000002: block_rq_issue: 8,0 NS 4096 () 8 + 8 be,0,4 [a]\n\
        <idle>-0 [001] d.h1. 1.000003: block_rq_complete: 8,0 WS () 8 + 8 be,0,4 [-5]\n\
        CPU:1 [LOST 7 EVENTS]\na-1 0d.h1 17us+: block_bio_queue: 8,0 FWS 0 + 0 [a]\n";
    let nvme = "a-1 [000] ..... 1.000001: nvme_setup_cmd: nvme0: disk=nvme0n1, qid=2, cmdid=7, nsid=1, \
        flags=0x0, meta=0x0, cmd=(nvme_cmd_write slba=524160, len=7, ctrl=0x4000, dsmgmt=7, reftag=0)\n\
        a-1 [000] ..... 1.000002: nvme_setup_cmd: [FAILED TO PARSE] disk=nvme0n1 ctrl_id=0 qid=2 \
        opcode=2 cid=8 cdw10=ARRAY[80, ff, 07, 00, 00, 00, 00, 00, 07, 00, 00, 80]\n\
        a-1 [000] ..... 1.000003: nvme_complete_rq: nvme0: disk=nvme0n1, qid=2, cmdid=7, res=0x0, \
        retries=0, flags=0x0, status=0x4281\n";
    let perf = " fio   249/250 [001]    29.010841:    1 block:block_rq_issue: 8,0 RA 4096 () 8 + 8 [fio]\n\
        \tffffffff814d2a41 blk_mq_start_request ([kernel.kallsyms])\n\
        swapper 0 [001] 29.010849: block:block_rq_complete: 8,0 RA () 8 + 8 [0]\n";
    let trace_cmd = "cpus=2\n   fio-259   [000]    34.055346: block_rq_issue:       8,0 R 4096 () 8 + 8 [f]\n\
        CPU:7 [EVENTS DROPPED]\n fio-259 [000] 34.055349: block_rq_complete: 8,0 R () 8 + 8 [0]\n";
    let biosnoop = "TIME(s)     COMM           PID    DISK    T SECTOR     BYTES  QUE(ms) LAT(ms)\n\
        0.000004    a b            1950   xvda1   W 13092560   4096      0.01    0.74\n\
        Lost 7 events\n0.1 a 1 sda FF -1 0 -1.000 0.1\n0.2 a 1 sda R 8 512 0.5 0.1\n";
    let kvm = "q-1 [000] ..... 1.000001: kvm_pio: pio_write at 0x70 size 1 count 1 val 0x8f \n\
        q-1 [000] ..... 1.000002: kvm_pio: pio_read at 0x511 size 1 count 4 val 0x3 (...)\n\
        q-2 [001] ..... 1.000003: kvm_mmio: mmio unsatisfied-read len 4 gpa 0xfebf0000 val 0x0\n\
        q-2 [001] ..... 1.000004: kvm_mmio: mmio read len 4 gpa 0xfebf0000 val 0x11\n\
        CPU 1/KVM 2/3 [001] 1.000005: kvm:kvm_mmio: mmio write len 8 gpa 0xfee000f0 val 0x1ff\n\
        q-2 [001] ..... 1.000006: kvm_fast_mmio: fast mmio at gpa 0xfe003000\n";
    vec![
        ("kvm-bus", kvm.into()),
        ("biosnoop", biosnoop.into()),
        ("blkparse", blkparse.into()),
        ("ftrace", ftrace.into()),
        ("nvme-events", nvme.into()),
        ("perf-script", perf.into()),
        ("trace-cmd", trace_cmd.into()),
    ]
}

fn qemu_block() -> &'static str {
    "7@5.000001:virtio_blk_handle_read vdev 0x1 req 0xa sector 8 nsectors 2\n\
     7@5.000002:virtio_blk_handle_write vdev 0x1 req 0xb sector 0 nsectors 1\n\
     7@5.000003:virtio_blk_rw_complete vdev 0x1 req 0xb ret -28\n\
     7@5.000004:virtio_blk_req_complete vdev 0x1 req 0xb status 1\n\
     7@5.000005:ahci_port_write ahci(0x8)[1]: port write [reg:PxCI] @ 0x38: 0x00000001\n\
     7@5.000006:ide_exec_cmd IDE exec cmd: bus 0x1; state 0x2; cmd 0xe7\n\
     7@5.000007:ide_dma_cb IDEState 0x2; sector_num=8 n=2 cmd=DMA READ\n\
     7@5.000008:dma_blk_io dbs=0x9 bs=0x5 offset=4096 to_dev=0\n\
     7@5.000009:dma_complete dbs=0x9 ret=0 cb=0x7\n\
     7@5.000010:execute_ncq_command_write ahci(0x8)[1][tag:4]: NCQ writing 8 sectors to LBA 2048\n\
     7@5.000011:ncq_finish ahci(0x8)[1][tag:4]: NCQ transfer finished\n\
     7@5.000012:pci_nvme_io_cmd cid 7 nsid 0x1 sqid 1 opc 0x2 opname 'NVME_NVM_CMD_READ'\n\
     7@5.000013:pci_nvme_read cid 7 nsid 1 nlb 2 count 8192 lba 0x10\n\
     7@5.000014:pci_nvme_enqueue_req_completion cid 7 cqid 1 dw0 0x0 dw1 0x0 status 0x0\n\
     7@5.000015:pci_nvme_io_cmd cid 9 nsid 0x1 sqid 1 opc 0x9 opname 'NVME_NVM_CMD_DSM'\n\
     7@5.000016:pci_nvme_dsm_deallocate slba 16 nlb 2\n"
}

/// A file of QEMU's simple backend.
fn qemu_simple() -> Vec<u8> {
    let text = |text: &str| [&(text.len() as u32).to_le_bytes()[..], text.as_bytes()].concat();
    let words = |words: &[u64]| words.iter().flat_map(|w| w.to_le_bytes()).collect::<Vec<u8>>();
    let name = |id, name: &str| [words(&[0, id]), text(name)].concat();
    let event = |id, time, numbers: &[u64], tail: &[u8]| {
        let len = 24 + numbers.len() * 8 + tail.len();
        let sizes = [(len as u32).to_le_bytes(), 7u32.to_le_bytes()].concat();
        [&words(&[1, id, time])[..], &sizes, &words(numbers), tail].concat()
    };
    [
        words(&[u64::MAX, 0xf2b1_77cb_0aa4_29b4, 4]),
        name(1, "virtio_blk_handle_write"),
        name(2, "virtio_blk_req_complete"),
        name(3, "memory_region_ops_read"),
        name(4, "ide_dma_cb"),
        event(1, 1000, &[1, 2, 8, 1], b""),
        event(3, 1001, &[0, 5, 0x71, 9, 1], &text("rtc")),
        event(4, 1002, &[9, 16, 1], &text("DMA READ")),
        event(2, 1003, &[1, 2, 0], b""),
        event(u64::MAX - 1, 1004, &[3], b""),
    ]
    .concat()
}

/// Small inputs of the data sets' formats.
fn data_sets() -> Vec<(&'static str, Vec<u8>)> {
    let spc = "0,20941264,8192,W,0.551706,Alpha\n1,3436288,15872,r,1.250720\n0,9,512,W,1.3e0\n";
    let systor = "Timestamp,Response,IOType,LUN,Offset,Size\n\
        1455591804.310701000,0.006475000,R,0,203468398592,32768\n\
        1455591804.309701000,,W,1,4096,512\n1455591804.4,,,0,0,4096\n";
    let alibaba = "0,R,126703661056,4096,1577808000000046\n\"1\",W,4096,77824,1577808000000026\n";
    let tencent = "1538323200,4247200,128,1,1058\n1538323199,13896880,128,0,1063\n";
    let vscsi_csv = "version,time,op,size,lbn\n1,5633898,2a,512,42932745\n1,5633899,28,512,8\n";
    let fiu = "89968195792462 20782 gzip 283193184 8 R 6 0 56f11b711d91a065a2b6458eca924523\n\
        89968195792562 1 a b 8 16 W 6 0\n";
    let load = "words\nstart ; sector; length ; op ;  replay_delay=0 ; replay_duration=0\n\
        0.000000000 ; 6293576 ; 8 ; W ; 0.0 ; 0.0\n 2.110378217 ; 6064504 ; 8 ; R ; 0.5 ; 0.1\n";
    let hfplayer = "#ELAPSED_USECS.D,CMD.S,SEQID.I,LUN_SSID.I,LBA.I,NBLKS.I,LATENCY_USECS.D\n\
        50,RD,1,6,2,2,200\n60,RD_IN,2,6,2,2,0\n70,RD_OUT,2,6,2,2,0\n80,WR,3,6,4,2,0\n";
    let io_tracer = "2024-01-15 10:30:45.123456,1,p,2048000,write|sync,8192,1.234,1235,16,0,1\n\
        2024-01-15 10:30:45.345678,1,p,0,flush,0,2.345,1235,0,2,1\n";
    let disksim = "13.191135\t30\t0\t5\t1\n12.829285\t20\t576560\t6\t0\n";
    let validate = "R Hit 1975456 4 15362.0 56074.0\nW Miss 8 12 3024.0 27896.0\nR Hit 1 1 1 1\n";
    let mqsim = "11413000 0 657728 16 1\n11565000 1 31244784 64 0\n";
    let bytes = |n: u64| format!("{n}.5 0 {} 4096 {}\n", n * 8192, n % 2);
    let huaicheng: String = (0..20).map(bytes).collect();
    vec![
        ("spc", spc.into()),
        ("systor17", systor.into()),
        ("alibaba", alibaba.into()),
        ("tencent", tencent.into()),
        ("vscsi", vscsi(1)),
        ("vscsi", vscsi(2)),
        ("vscsi-csv", vscsi_csv.into()),
        ("oracle-general", oracle_general()),
        ("fiu", fiu.into()),
        ("blkreplay", load.into()),
        ("btrecord", btrecord()),
        ("hfplayer", hfplayer.into()),
        ("io-tracer", io_tracer.into()),
        ("disksim", disksim.into()),
        ("disksim-validate", validate.into()),
        ("mqsim", mqsim.into()),
        ("huaicheng", huaicheng.into()),
        ("smreplay", "1 8 16 1\n2.5 0 8 0\n".into()),
    ]
}

fn vscsi(version: u8) -> Vec<u8> {
    let record = |n: u8| {
        let kind = [0x28 + 2 * (n % 2), 0, 0, version];
        let numbers = [[n, 0, 0, 0x80], [0, 16, 0, 0], [1, 0, 0, 0]].concat();
        let place = [u64::from(n) * 8, 1 << 40 | u64::from(n % 5)].map(u64::to_le_bytes).concat();
        match version {
            1 => [&numbers[..], &kind, &place].concat(),
            _ => [&kind[..], &numbers, &place, &700u64.to_le_bytes()].concat(),
        }
    };
    (0..12).flat_map(record).collect()
}

fn oracle_general() -> Vec<u8> {
    let record = |n: u32| {
        let next = if n.is_multiple_of(3) { -1 } else { i64::from(n) + 2 };
        let (time, size) = ((n / 4).to_le_bytes(), 4096u32.to_le_bytes());
        [&time[..], &u64::from(n * 8).to_le_bytes(), &size, &next.to_le_bytes()].concat()
    };
    (0..12).flat_map(record).collect()
}

fn btrecord() -> Vec<u8> {
    let packets: [[u64; 3]; 3] = [[8, 4096, 1], [16, 512, 0], [0, 512, 1]];
    let bunch = |time: u64| [&[3, time][..], &packets.concat()].concat();
    let words = [vec![0x01_0000, 5, 2, 6], bunch(5), bunch(9)].concat();
    words.into_iter().flat_map(u64::to_le_bytes).collect()
}

/// Importers that take a part of QEMU's log.
const PARTS: [&str; 2] = ["qemu-log-bus", "qemu-log-block"];

/// What a format needs to be told.
fn told(format: &str, data: &[u8]) -> ImportOptions {
    let silent = format == "oracle-general";
    ImportOptions {
        // An option that means nothing to a format is an error of usage.
        uncounted: format == "dm-log-writes" && data.len().is_multiple_of(2),
        op: silent.then_some(BlockOp::Read),
        unit_bytes: silent.then_some(512),
        ..ImportOptions::default()
    }
}

/// Imports damaged input; whatever comes out must be such that the container takes it.
fn survive(format: &str, data: &[u8]) -> bool {
    let options = ImportOptions { from: Some(format.to_owned()), ..told(format, data) };
    match import_with(data, &options) {
        Ok((_, out)) => {
            check(&out);
            true
        }
        Err(error) => {
            let kind = error.kind();
            assert!(matches!(kind, ErrorKind::Input | ErrorKind::Nothing), "{error}");
            false
        }
    }
}

fn check(out: &Memory) {
    let streams = out.streams.len() as u32;
    for event in &out.events {
        if let Event::Issue(issue) = event {
            let end = issue.offset.checked_add(issue.len);
            assert!(end.is_some_and(|end| end <= DISK_BYTES_MAX));
            assert!(!issue.op.has_range() || issue.len > 0);
        }
        assert!(event.stream().0 < streams);
        let bounds = RecordBounds { streams, next_payload: out.payloads.len() as u64 + 1 };
        assert!(Record::encode(event, bounds).is_ok(), "{event:?}");
    }
}

#[test]
fn the_seeds_are_good_and_every_importer_has_one() {
    let seeds = seeds();
    for importer in registry::IMPORTERS {
        assert!(seeds.iter().any(|(format, _)| *format == importer.name()));
    }
    for (format, data) in seeds {
        let (report, _) = import_with(&data, &told(format, &[0])).unwrap();
        // A part of a format is never what its content is found to be.
        let probed = if PARTS.contains(&format) { "qemu-log" } else { format };
        assert_eq!(report.format, probed, "probed");
        let from = Some(format.to_owned());
        let (_, out) = import_with(&data, &ImportOptions { from, ..told(format, &[0]) }).unwrap();
        assert!(out.events.len() >= 2);
        check(&out);
    }
}

#[test]
fn cut_at_every_byte() {
    let start = Instant::now();
    for (format, data) in seeds() {
        for len in 0..data.len() {
            survive(format, &data[..len]);
        }
    }
    assert!(start.elapsed() < TIME_MAX);
}

#[test]
fn every_byte_flipped_in_turn() {
    let start = Instant::now();
    for (format, data) in seeds() {
        for at in 0..data.len() {
            for mask in [0x01, 0x80, 0xff] {
                let mut bad = data.clone();
                bad[at] ^= mask;
                survive(format, &bad);
            }
        }
    }
    assert!(start.elapsed() < TIME_MAX);
}

#[test]
fn random_damage() {
    mutate(2_000);
}

/// `cargo test --release --lib import::hostile -- --ignored`: takes minutes.
#[test]
#[ignore = "a soak: 100,000 mutations of each seed and of each real sample"]
fn random_damage_soak() {
    mutate(100_000);
    damage_samples(100_000);
}

fn mutate(mutations: u32) {
    let mut prng = Prng::new(0x7174_7261_6365);
    for (format, data) in seeds() {
        let start = Instant::now();
        let mut readable = 0;
        for _ in 0..mutations {
            let mut bad = data.clone();
            for _ in 0..=prng.below(4) {
                damage(&mut bad, &mut prng);
            }
            readable += u32::from(survive(format, &bad));
        }
        // Damage that leaves nothing to read would test nothing past the first bytes.
        assert!(readable > mutations / 8, "{format}: {readable} of {mutations} readable");
        assert!(start.elapsed() < TIME_MAX * (1 + mutations / 2_000), "{format}");
    }
}

/// The container has rules of its own: whatever an importer makes of damaged input must fit them,
/// and what was refused must leave no file.
#[test]
fn the_container_takes_what_comes_out() {
    let dir = tempfile::tempdir().unwrap();
    let (input, output) = (dir.path().join("in"), dir.path().join("out.qtrace"));
    let mut prng = Prng::new(11);
    let mut written = 0;
    for (format, data) in seeds() {
        for _ in 0..40 {
            let mut bad = data.clone();
            damage(&mut bad, &mut prng);
            std::fs::write(&input, &bad).unwrap();
            let options = ImportOptions { from: Some(format.to_owned()), ..told(format, &[0]) };
            let result =
                super::import(std::slice::from_ref(&input), &output, &options, &mut |_| {});
            match result {
                Ok(report) => {
                    let trace = crate::trace::Trace::open(&output).unwrap();
                    assert_eq!(trace.events(), report.events);
                    assert!(trace.truncation().is_none());
                    assert_eq!(trace.summary().losses, report.summary.losses);
                    std::fs::remove_file(&output).unwrap();
                    written += 1;
                }
                Err(error) => {
                    assert!(matches!(error.kind(), ErrorKind::Input | ErrorKind::Nothing));
                }
            }
            assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "only the input is left");
        }
    }
    let tried = seeds().len() * 40;
    assert!(written > tried / 2, "{written} of {tried} written");
}

fn damage(data: &mut Vec<u8>, prng: &mut Prng) {
    if data.is_empty() {
        return;
    }
    let at = prng.below(data.len() as u64) as usize;
    match prng.below(6) {
        0 => data[at] = prng.next_u64() as u8,
        1 => data.truncate(at),
        2 => {
            let piece = data[at..data.len().min(at + 100)].to_vec();
            let to = prng.below(data.len() as u64) as usize;
            data.splice(to..to, piece);
        }
        3 => drop(data.drain(at..(at + 1 + prng.below(60) as usize).min(data.len()))),
        4 => {
            // The numbers that break arithmetic.
            let words = [0, 1, u64::MAX, 1 << 63, u64::MAX - 511, 1 << 32];
            let word = words[prng.below(words.len() as u64) as usize].to_le_bytes();
            let end = (at + 8).min(data.len());
            data[at..end].copy_from_slice(&word[..end - at]);
        }
        _ => {
            let digits: &[&[u8]] = &[b"18446744073709551615", b"-1", b"99999999999999999999", b""];
            let digits = digits[prng.below(digits.len() as u64) as usize];
            data.splice(at..at, digits.iter().copied());
        }
    }
}

#[test]
fn noise_is_no_format() {
    let mut prng = Prng::new(99);
    for _ in 0..200 {
        let mut noise = vec![0; 4096];
        prng.fill(&mut noise);
        for importer in registry::IMPORTERS {
            // Any bytes at all are records of libCacheSim's: only its probe can doubt them.
            assert!(!survive(importer.name(), &noise) || importer.name() == "oracle-general");
        }
        let error = import_with(&noise, &ImportOptions::default()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Input);
    }
    assert_eq!(import_with(b"", &ImportOptions::default()).unwrap_err().kind(), ErrorKind::Input);
}

#[test]
fn compressed_input_is_read_and_its_cut_is_said() {
    for (format, data) in seeds() {
        let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gz.write_all(&data).unwrap();
        let gz = gz.finish().unwrap();
        let options = told(format, &[0]);
        let (plain, packed) =
            (import_with(&data, &options).unwrap().1, import_with(&gz, &options).unwrap().1);
        assert_eq!(plain.events, packed.events, "{format}");
        // The checksum alone is missing: all is imported, and the cut is said.
        let (report, out) = import_with(&gz[..gz.len() - 1], &options).unwrap();
        assert_eq!(out.events, plain.events);
        assert!(report.cut.unwrap().starts_with("gzip input ends before its own end"));
        // A wrong checksum: nothing is.
        let mut bad = gz.clone();
        let at = bad.len() - 6;
        bad[at] ^= 1;
        let error = import_with(&bad, &options).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Input);
    }
}

/// Real samples by format.
const SAMPLES: &[(&str, &str)] = &[
    ("kvm-bus", "kvm-pio-mmio/kvm_pio+kvm_mmio.ftrace.txt.gz"),
    ("nbdkit-log", "nbdkit-log/nbdkit-1.32-log-filter.txt"),
    ("blktrace", "blktrace-binary-percpu-virtio/vdc.bin"),
    ("fio-iolog", "fio-iolog/fio333-v3-psync.iolog"),
    ("msr-csv", "msr-cambridge/msr-cambridge1-sample.csv"),
    ("dm-log-writes", "qemu-blklogwrites/qemu72-blklogwrites.log"),
    ("mmiotrace", "mmiotrace/mmiotrace-nvme-virtio.txt"),
    ("qtest", "../reproducers/1906693.qtest"),
    ("qemu-log-bus", "qemu-trace/qemu72-trace-log.head.txt.gz"),
    ("qemu-log", "qemu-trace/qemu72-virtio-blk-only.txt.gz"),
    ("qemu-log-block", "../guest/ide-raw.trace.gz"),
    ("qemu-log-backend", "../guest/virtio-qcow2.trace.gz"),
    ("spc", "spc-umass-documented/spec-example.spc"),
    ("systor17", "systor17/systor17-additional-sample.csv.gz"),
    ("alibaba", "alibaba-block-documented/rows.csv"),
    ("tencent", "tencent-cbs/cloud_storage-sample.bz2"),
    ("vscsi", "cloudphysics-vscsi/cloudPhysicsIO.head10000.vscsi1"),
    ("vscsi-csv", "cloudphysics-vscsi/cloudPhysicsIO.head.csv"),
    ("oracle-general", "oraclegeneral/cloudPhysicsIO.head10000.oracleGeneral.bin"),
    ("fiu", "fiu-documented/rows.txt"),
    ("blkreplay", "blkreplay-load/windows-shared-server.load.gz"),
    ("btrecord", "btrecord/vdc.replay.0"),
    ("hfplayer", "hfplayer-netapp/sample_raw.head.trace"),
    ("disksim", "disksim/ascii.head2000.trace"),
    ("disksim-validate", "disksim/cheetah9LP.validate.head500.trace"),
    ("mqsim", "mqsim/wsrch-small.head.trace"),
    ("biosnoop", "bpftrace-biosnoop/custom-bio-bt-output.txt"),
    ("blkparse", "blkparse-text/vdc.blkparse.txt.gz"),
    ("ftrace", "ftrace-events-text/block+nvme.txt.gz"),
    ("nvme-events", "ftrace-events-text/block+nvme.txt.gz"),
    ("perf-script", "perf-script/perf-script-block.txt"),
    ("trace-cmd", "trace-cmd/trace-cmd-report.txt"),
];

/// Bytes of a sample that are damaged: a run over a whole large one would show little more.
const SAMPLE_BYTES_MAX: usize = 32 << 10;

#[test]
fn real_samples_damaged() {
    damage_samples(30);
}

fn damage_samples(mutations: u32) {
    let mut prng = Prng::new(5);
    for (format, name) in SAMPLES {
        let Some(mut data) = plain_sample(&format!("traces/{name}")) else { continue };
        data.truncate(SAMPLE_BYTES_MAX);
        let start = Instant::now();
        for _ in 0..mutations {
            let mut bad = data.clone();
            for _ in 0..=prng.below(20) {
                damage(&mut bad, &mut prng);
            }
            survive(format, &bad);
        }
        assert!(start.elapsed() < TIME_MAX * (1 + mutations / 30), "{format}");
    }
}

/// As many requests of one place, in flight at once, as a small file can hold: the search for the
/// one that a completion answers must not look at all of them.
#[test]
fn crowded_requests_do_not_make_it_slow() {
    use super::blktrace::record::{Order, Record, Version};
    let start = Instant::now();
    let mut data = Vec::new();
    for (act, cats, count) in [(1u64, 0x12u64, 60_000u32), (8, 0x82, 60_000)] {
        for n in 0..count {
            let record = Record {
                sequence: n,
                time: u64::from(n) + act * 1_000_000,
                sector: 4096,
                bytes: 4096 - (n % 2) * 512,
                action: cats << 16 | act,
                device: 1,
                cpu: 0,
                error: 0,
                pdu_len: 0,
            };
            data.extend(record.encode(Version::V7, Order::Little, b""));
        }
    }
    let (report, _) = import_with(&data, &ImportOptions::default()).unwrap();
    assert_eq!(report.ops.completes, 60_000);
    assert!(start.elapsed() < TIME_MAX);
}
