//! `cargo bench --bench import`: how fast data sets come in.
//!
//! Rows as the public sets have them are written to a file, which is then read by a bare loop of
//! the csv crate (`read_byte_record` into one record, nothing done with it) and imported, in turn
//! and in one run. An import parses, sorts, makes completions and writes the trace, its sync
//! included; of the same run is what writing alone takes: the events of the trace, read back from
//! its pages in memory and written again. Time is that of a clock on the wall; beside it stands
//! the processors' time of the whole process, the kernel's share included, since an import has
//! more than one thread and the bare loop has not.

mod common;

use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::Path;
use std::process::Command;

use common::{QTRACE, bench_dir, median, peak_memory, seconds};
use nix::sys::resource::{UsageWho, getrusage};
use qtrace::base::Prng;
use qtrace::import::{ImportOptions, import};
use qtrace::trace::{Trace, TraceWriter};

/// Bytes of each file: `QTRACE_BENCH_MIB`, else this many MiB.
const FILE_MIB: u64 = 128;
const RUNS: usize = 5;

/// A format's rows.
struct Format {
    name: &'static str,
    /// The format's name, where it is not this one's.
    from: &'static str,
    /// What stands before them.
    header: &'static str,
    delimiter: u8,
    /// Number, random source, a request each.
    row: fn(u64, &mut Prng) -> String,
}

const FORMATS: [Format; 9] = [
    Format { row: msr, ..csv("msr-csv") },
    Format { name: "msr-deep", row: msr_deep, ..csv("msr-csv") },
    Format { header: SYSTOR, row: systor, ..csv("systor17") },
    Format { name: "systor-deep", header: SYSTOR, row: systor_deep, ..csv("systor17") },
    Format { row: alibaba, ..csv("alibaba") },
    Format { row: tencent, ..csv("tencent") },
    Format { row: spc, ..csv("spc") },
    Format { header: VSCSI, row: vscsi, ..csv("vscsi-csv") },
    Format { delimiter: b' ', row: fiu, ..csv("fiu") },
];

const fn csv(name: &'static str) -> Format {
    Format { name, from: name, header: "", delimiter: b',', row: msr }
}

const SYSTOR: &str = "Timestamp,Response,IOType,LUN,Offset,Size\n";
const VSCSI: &str = "version,time,op,size,lbn\n";

fn main() {
    let dir = bench_dir();
    let mib = std::env::var("QTRACE_BENCH_MIB").ok().and_then(|text| text.parse().ok());
    let bytes = mib.unwrap_or(FILE_MIB) << 20;
    println!("{} MiB of rows a format, median of {RUNS} runs each, in turn\n", bytes >> 20);
    let only = std::env::args().skip(1).find(|arg| !arg.starts_with('-'));
    let wanted = || FORMATS.iter().filter(|f| only.as_ref().is_none_or(|only| only == f.name));
    let (input, output) = (dir.path().join("rows.csv"), dir.path().join("t.qtrace"));
    // First of all: a child's peak counts from that of this process, which grows below.
    for format in wanted() {
        write_rows(&input, bytes, format);
        let mut command = Command::new(QTRACE);
        command.args(["import", "--force", "--from", format.from, "-o"]).arg(&output).arg(&input);
        println!("{:<11} peak memory {} MiB", format.name, peak_memory(&mut command) >> 20);
    }
    println!();
    for format in wanted() {
        let rows = write_rows(&input, bytes, format);
        compare(format, &input, &output, rows);
    }
}

/// What a run took, in seconds: on the wall, and of all processors.
#[derive(Clone, Copy)]
struct Took {
    wall: f64,
    cpu: f64,
}

impl Took {
    fn by(body: impl FnOnce()) -> Self {
        let before = cpu_seconds();
        let wall = seconds(body);
        Self { wall, cpu: (cpu_seconds() - before).max(1e-9) }
    }

    fn median(runs: &[Self]) -> Self {
        let of = |pick: fn(&Self) -> f64| {
            let mut at = runs.iter().map(pick);
            median(runs.len(), || at.next().expect("a figure a run"))
        };
        Self { wall: of(|took| took.wall), cpu: of(|took| took.cpu) }
    }
}

/// Processor time of this process so far, user's and system's.
fn cpu_seconds() -> f64 {
    let usage = getrusage(UsageWho::RUSAGE_SELF).expect("the kernel accounts");
    let seconds =
        |time: nix::sys::time::TimeVal| time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6;
    seconds(usage.user_time()) + seconds(usage.system_time())
}

fn compare(format: &Format, input: &Path, output: &Path, rows: u64) {
    let name = format.name;
    let mib = std::fs::metadata(input).expect("rows").len() as f64 / f64::from(1 << 20);
    let (mut bare, mut ours, mut writing) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..RUNS {
        let lines = rows + u64::from(!format.header.is_empty());
        bare.push(Took::by(|| assert_eq!(bare_loop(input, format.delimiter), lines)));
        // To give an old trace's pages back would count as importing the new one.
        remove(output);
        ours.push(Took::by(|| {
            let options =
                ImportOptions { from: Some(format.from.to_owned()), ..ImportOptions::default() };
            let inputs = [input.to_path_buf()];
            let report = import(&inputs, output, &options, &mut |_| {}).expect("import");
            assert_eq!(report.ops.requests(), rows);
        }));
        let copy = output.with_extension("copy");
        remove(&copy);
        writing.push(rewrite(output, &copy));
    }
    let (bare, ours, writing) = (Took::median(&bare), Took::median(&ours), Took::median(&writing));
    println!(
        "{name:<11} bare csv loop {:>5.0} MiB/s, import {:>5.0} MiB/s: {:.2} of it ({:.2} by \
         processor time); writing alone {:.0} % of the import ({:.1} M rows/s)",
        mib / bare.wall,
        mib / ours.wall,
        bare.wall / ours.wall,
        bare.cpu / ours.cpu,
        writing.wall / ours.wall * 100.0,
        rows as f64 / ours.wall / 1e6
    );
}

fn remove(path: &Path) {
    if path.exists() {
        std::fs::remove_file(path).expect("removed");
    }
}

fn bare_loop(input: &Path, delimiter: u8) -> u64 {
    let mut builder = csv::ReaderBuilder::new();
    builder.has_headers(false).delimiter(delimiter);
    let mut reader = builder.from_path(input).expect("rows opened");
    let mut record = csv::ByteRecord::new();
    let mut rows = 0;
    while reader.read_byte_record(&mut record).expect("a row") {
        rows += 1;
    }
    rows
}

/// What it takes to write the events of `from` again, sync included.
fn rewrite(from: &Path, to: &Path) -> Took {
    let trace = Trace::open(from).expect("trace");
    let mut cursor = trace.cursor(0);
    let next = || cursor.next().expect("events").map(|(_, event)| event);
    let events: Vec<_> = std::iter::from_fn(next).collect();
    let took = Took::by(|| {
        let mut writer = TraceWriter::create(to, trace.header().clone()).expect("trace");
        for info in trace.streams() {
            writer.stream(info.clone()).expect("stream");
        }
        for event in &events {
            writer.event(event).expect("event");
        }
        writer.finish(trace.summary().clone()).expect("trace");
    });
    std::fs::remove_file(to).expect("removed");
    took
}

fn write_rows(path: &Path, bytes: u64, format: &Format) -> u64 {
    let mut prng = Prng::new(6);
    let mut file = BufWriter::new(File::create(path).expect("rows"));
    file.write_all(format.header.as_bytes()).expect("rows");
    let (mut written, mut rows) = (0, 0);
    while written < bytes {
        let text = (format.row)(rows, &mut prng);
        file.write_all(text.as_bytes()).expect("rows");
        written += text.len() as u64;
        rows += 1;
    }
    file.flush().expect("rows");
    rows
}

fn letter(prng: &mut Prng) -> char {
    if prng.below(3) == 0 { 'W' } else { 'R' }
}

fn offset(prng: &mut Prng) -> u64 {
    prng.below(1 << 24) * 4096
}

/// As in the public sample: eight at a time, and most of them end before the next ones.
fn msr(n: u64, prng: &mut Prng) -> String {
    let ticks = n / 8 * 1_000_000 + n % 8 * 300 + prng.below(300);
    msr_row(ticks, (500 << prng.below(6)) + prng.below(500), prng)
}

/// Fifty are in flight, and end in any order.
fn msr_deep(n: u64, prng: &mut Prng) -> String {
    let ticks = n * 1000 + prng.below(900);
    msr_row(ticks, 100 + prng.below(100_000), prng)
}

fn msr_row(ticks: u64, response: u64, prng: &mut Prng) -> String {
    let ticks = 128_166_372_003_061_629 + ticks;
    let word = if prng.below(3) == 0 { "Write" } else { "Read" };
    format!("{ticks},hm,{},{word},{},{},{response}\n", prng.below(2), offset(prng), 4096)
}

/// As in the public samples: answers, not issues, are in order, and two or three are in flight, so
/// that a quarter of the rows belongs further ahead, by a few rows.
fn systor(n: u64, prng: &mut Prng) -> String {
    let response = (100 << prng.below(8)) + prng.below(100);
    systor_row(20_000 + n * 1_330 + prng.below(1_330) - response, response, prng)
}

/// Sixty are in flight, and rows are out of order by a hundred.
fn systor_deep(n: u64, prng: &mut Prng) -> String {
    let us = n * 40 + prng.below(5_000);
    systor_row(us, 100 + prng.below(5_000), prng)
}

fn systor_row(us: u64, response: u64, prng: &mut Prng) -> String {
    let us = 1_455_591_804_000_000 + us;
    let (s, us) = (us / 1_000_000, us % 1_000_000);
    format!("{s}.{us:06}000,0.{response:06}000,{},0,{},4096\n", letter(prng), offset(prng))
}

fn alibaba(n: u64, prng: &mut Prng) -> String {
    let us = 1_577_808_000_000_000 + n * 7;
    format!("{},{},{},4096,{us}\n", prng.below(1000), letter(prng), offset(prng))
}

fn tencent(n: u64, prng: &mut Prng) -> String {
    let seconds = 1_538_323_200 + n / 50_000 - u64::from(prng.below(300) == 0);
    let (sector, op) = (prng.below(1 << 30), prng.below(2));
    format!("{seconds},{sector},{},{op},{}\n", 1 + prng.below(128), 1000 + prng.below(2000))
}

fn spc(n: u64, prng: &mut Prng) -> String {
    let us = n * 250 + prng.below(250);
    let (s, us) = (us / 1_000_000, us % 1_000_000);
    format!("{},{},8192,{},{s}.{us:06}\n", prng.below(24), prng.below(1 << 25), letter(prng))
}

fn vscsi(n: u64, prng: &mut Prng) -> String {
    let code = if prng.below(3) == 0 { "2a" } else { "28" };
    format!("1,{},{code},{},{}\n", 5_633_898 + n / 500, 512 << prng.below(8), prng.below(1 << 30))
}

fn fiu(n: u64, prng: &mut Prng) -> String {
    let (ns, pid) = (89_968_195_792_462 + n * 20_000, 1000 + prng.below(30_000));
    let (lba, hash) = (prng.below(1 << 29), prng.next_u64());
    format!("{ns} {pid} gzip {lba} 8 {} 6 0 {hash:016x}{hash:016x}\n", letter(prng))
}
