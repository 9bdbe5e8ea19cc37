//! Small foreign traces, built here byte by byte from the formats' published layouts.

use std::io::Write;
use std::path::Path;

/// Bytes of the disk that the traces below write to.
pub const DISK_BYTES: u64 = 1 << 20;

/// One entry of a dm-log-writes log.
pub struct Entry {
    /// First sector.
    pub sector: u64,
    /// Sectors.
    pub sectors: u64,
    /// 1 flush, 2 FUA, 4 discard, 8 mark.
    pub flags: u64,
    /// The byte its data is filled with.
    pub fill: u8,
}

/// A write of `sectors` sectors full of `fill`.
pub fn write(sector: u64, sectors: u64, fill: u8) -> Entry {
    Entry { sector, sectors, flags: 0, fill }
}

/// A dm-log-writes log with 512-byte sectors.
pub fn log_writes(entries: &[Entry]) -> Vec<u8> {
    let mut log = Vec::new();
    let mut super_block = [0u8; 512];
    super_block[..8].copy_from_slice(&0x006a_7366_7773_6872_u64.to_le_bytes());
    super_block[8..16].copy_from_slice(&1u64.to_le_bytes());
    super_block[16..24].copy_from_slice(&(entries.len() as u64).to_le_bytes());
    super_block[24..28].copy_from_slice(&512u32.to_le_bytes());
    log.extend_from_slice(&super_block);
    for entry in entries {
        let mut head = [0u8; 512];
        head[..8].copy_from_slice(&entry.sector.to_le_bytes());
        head[8..16].copy_from_slice(&entry.sectors.to_le_bytes());
        head[16..24].copy_from_slice(&entry.flags.to_le_bytes());
        log.extend_from_slice(&head);
        if entry.flags & 4 == 0 {
            log.resize(log.len() + (entry.sectors * 512) as usize, entry.fill);
        }
    }
    log
}

/// The log that the README's recipes replay: overlapping writes up to the end of a 1 MiB disk.
pub fn recipe_entries() -> Vec<Entry> {
    let mut entries: Vec<Entry> = (0..20).map(|n| write(n * 37, 40, n as u8 + 1)).collect();
    entries.push(Entry { sector: 0, sectors: 0, flags: 1, fill: 0 });
    entries.push(write(DISK_BYTES / 512 - 8, 8, 0x77));
    entries
}

/// The disk that a log leaves, from zeros (discards excepted).
pub fn disk_after(entries: &[Entry]) -> Vec<u8> {
    let mut disk = vec![0u8; DISK_BYTES as usize];
    for entry in entries.iter().filter(|entry| entry.flags & 12 == 0) {
        let start = (entry.sector * 512) as usize;
        disk[start..start + (entry.sectors * 512) as usize].fill(entry.fill);
    }
    disk
}

/// One version 7 blktrace record of 48 bytes.
pub fn blktrace(seq: u32, time: u64, sector: u64, bytes: u32, action: u32, cpu: u32) -> Vec<u8> {
    let mut record = Vec::with_capacity(48);
    record.extend_from_slice(&0x6561_7407u32.to_le_bytes());
    record.extend_from_slice(&seq.to_le_bytes());
    record.extend_from_slice(&time.to_le_bytes());
    record.extend_from_slice(&sector.to_le_bytes());
    for word in [bytes, action, 4321, 8 << 20, cpu] {
        record.extend_from_slice(&word.to_le_bytes());
    }
    record.extend_from_slice(&[0; 4]);
    record
}

/// A disk of 1 MiB with a boot sector that copies 4 KiB of it and powers off:
/// `tests/guest/bootsector.S`, assembled.
pub fn boot_disk() -> Vec<u8> {
    const CODE: [u8; 0x4c] = [
        0x31, 0xc0, 0x8e, 0xd8, 0x8e, 0xd0, 0xbc, 0x00, 0x7c, 0xbe, 0x3c, 0x7c, 0xb4, 0x42, 0xcd,
        0x13, 0x72, 0x1e, 0xf7, 0x16, 0x10, 0x80, 0x66, 0xc7, 0x06, 0x44, 0x7c, 0x10, 0x00, 0x00,
        0x00, 0xbe, 0x3c, 0x7c, 0xb8, 0x00, 0x43, 0xcd, 0x13, 0x72, 0x07, 0xbe, 0x3c, 0x7c, 0xb4,
        0x42, 0xcd, 0x13, 0xba, 0x04, 0x06, 0xb8, 0x00, 0x20, 0xef, 0xf4, 0xeb, 0xfd, 0x66, 0x90,
        0x10, 0x00, 0x08, 0x00, 0x00, 0x80, 0x00, 0x00, 0, 0, 0, 0, 0, 0, 0, 0,
    ];
    let mut disk = vec![0; DISK_BYTES as usize];
    disk[..CODE.len()].copy_from_slice(&CODE);
    disk[510..512].copy_from_slice(&[0x55, 0xaa]);
    disk
}

/// Everything that the README's recipes take as given.
pub fn write_all(dir: &Path) {
    let entries = recipe_entries();
    let file = std::fs::File::create(dir.join("vda.blklogwrites.gz")).expect("created");
    let mut gz = flate2::write::GzEncoder::new(file, flate2::Compression::fast());
    gz.write_all(&log_writes(&entries)).and_then(|()| gz.finish().map(drop)).expect("written");
    std::fs::write(dir.join("want.raw"), disk_after(&entries)).expect("written");
    std::fs::write(dir.join("boot.raw"), boot_disk()).expect("written");

    // A disk that is found and named, with a command line as reports have it.
    let report = "cat << EOF | qemu-system-x86_64 -M q35 -nodefaults -device virtio-blk,drive=d \\\n\
                  -drive file=null-co://,if=none,id=d,format=raw -display none -qtest stdio\n\
                  outl 0xcf8 0x80000800\ninl 0xcfc\nEOF\n";
    std::fs::write(dir.join("report.qtest"), report).expect("written");

    // Queue and complete of a read (CPU 0) and of a write (CPU 1).
    const Q: u32 = 1;
    const C: u32 = 8;
    const READ: u32 = 1 << 16;
    const WRITE: u32 = 2 << 16;
    let cpu0 = [blktrace(1, 1000, 0, 4096, READ | Q, 0), blktrace(2, 9000, 0, 4096, READ | C, 0)];
    let cpu1 = [blktrace(1, 2000, 8, 4096, WRITE | Q, 1), blktrace(2, 7000, 8, 4096, WRITE | C, 1)];
    std::fs::write(dir.join("sda.blktrace.0"), cpu0.concat()).expect("written");
    std::fs::write(dir.join("sda.blktrace.1"), cpu1.concat()).expect("written");

    let mut iolog = String::from("fio version 3 iolog\n0 /dev/sda add\n0 /dev/sda open\n");
    for n in 0..50 {
        let verb = if n % 3 == 0 { "read" } else { "write" };
        iolog += &format!("{} /dev/sda {verb} {} 4096\n", n * 2000, n % 7 * 4096);
    }
    std::fs::write(dir.join("job.iolog"), iolog).expect("written");

    // perf script of a write that the device answers.
    let perf = "fio 249 [001] 29.010841: block:block_rq_issue: 8,0 WS 4096 () 8 + 8 [fio]\n\
                fio 249 [001] 29.013015: block:block_rq_complete: 8,0 WS () 8 + 8 [0]\n";
    std::fs::write(dir.join("perf.txt"), perf).expect("written");

    // QEMU's trace log of a boot that looks at its host bridge.
    let access = |verb: &str, addr: &str, value: &str| {
        format!(
            "memory_region_ops_{verb} cpu 0 mr 0x1 addr {addr} value {value} size 4 name 'pci-conf'\n"
        )
    };
    let boot = access("write", "0xcf8", "0x80000000") + &access("read", "0xcfc", "0x12378086");
    std::fs::write(dir.join("boot.log"), boot).expect("written");

    let csv: String = (0..10)
        .map(|n| {
            format!(
                "{},web,0,Write,{},4096,{}\n",
                128_166_372_000_000_000u64 + n * 10_000,
                n * 4096,
                500
            )
        })
        .collect();
    std::fs::write(dir.join("msr.csv"), csv).expect("written");

    let volumes = "7,R,4096,512,1577808000000046\n9,W,0,4096,1577808000000050\n";
    std::fs::write(dir.join("volumes.csv"), volumes).expect("written");

    // u32 time, u64 object, u32 size, i64 next access.
    let access = |n: u32| {
        let (time, size) = ((n / 4).to_le_bytes(), 4096u32.to_le_bytes());
        [&time[..], &u64::from(n * 8).to_le_bytes(), &size, &(-1i64).to_le_bytes()].concat()
    };
    let accesses: Vec<u8> = (0..8).flat_map(access).collect();
    std::fs::write(dir.join("w01.oracleGeneral.bin"), accesses).expect("written");
}
