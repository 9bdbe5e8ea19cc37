//! The formats: what an importer is, the table of all of them, and how one is chosen.

use super::job::Job;
use super::source::Source;
use super::{
    ImportOptions, alibaba, biosnoop, blkparse, blkreplay, blktrace, btrecord, disksim_validate,
    dm_log_writes, fio_iolog, fiu, hfplayer, io_tracer, kernel_text, kvm_bus, mmiotrace, msr_csv,
    nbdkit_log, oracle_general, qemu_log, qtest, simulator, spc, systor17, tencent, vscsi,
};
use crate::base::{Error, Result};

/// The moment that becomes the issue: for [`Importer::options`].
pub const STAGE: &str = "--stage";
/// What each access is.
pub const OP: &str = "--op";
/// What an address counts.
pub const UNIT: &str = "--unit";
/// What times count.
pub const TIME_UNIT: &str = "--time-unit";

/// What a probe may look at.
#[derive(Clone, Copy, Debug)]
pub struct Probe<'a> {
    /// The first bytes, decompressed.
    pub head: &'a [u8],
    /// The file's name, a weak hint: it never decides alone.
    pub name: &'a str,
}

/// How sure a probe is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Confidence {
    /// The shape fits; others may fit too.
    Possible,
    /// The shape fits and little else has it.
    Likely,
    /// A magic number.
    Certain,
}

/// Reads one foreign format.
pub trait Importer: Sync {
    /// The name for `--from` and in reports.
    fn name(&self) -> &'static str;

    /// One line for people.
    fn description(&self) -> &'static str;

    /// What its traces are made of, in the singular, for messages.
    fn yields(&self) -> &'static str {
        "block request"
    }

    /// Whether several inputs make one trace (files per CPU).
    fn takes_several(&self) -> bool {
        false
    }

    /// The options of `qtrace import` that say how this format is read: with another format
    /// they are an error.
    fn options(&self) -> &'static [&'static str] {
        &[]
    }

    /// Whether the content looks like this format.
    fn probe(&self, probe: &Probe<'_>) -> Option<Confidence>;

    /// Reads `sources` (at least one) into `job`.
    ///
    /// # Errors
    /// Input errors that nothing can be saved from; those of the job's sink.
    fn import(
        &self,
        sources: Vec<Source>,
        options: &ImportOptions,
        job: &mut Job<'_>,
    ) -> Result<()>;
}

/// Every format, in the order in which help lists them. A further one is a file of this module
/// and a line here.
pub const IMPORTERS: &[&dyn Importer] = &[
    &dm_log_writes::DmLogWrites,
    &blktrace::Blktrace,
    &blkparse::Blkparse,
    &kernel_text::FTRACE,
    &kernel_text::PERF_SCRIPT,
    &kernel_text::TRACE_CMD,
    &kernel_text::NVME_EVENTS,
    &biosnoop::Biosnoop,
    &fio_iolog::FioIolog,
    &nbdkit_log::NbdkitLog,
    &msr_csv::MsrCsv,
    &spc::Spc,
    &systor17::Systor17,
    &alibaba::Alibaba,
    &tencent::Tencent,
    &vscsi::Vscsi,
    &vscsi::VscsiCsv,
    &oracle_general::OracleGeneral,
    &fiu::Fiu,
    &blkreplay::Blkreplay,
    &btrecord::Btrecord,
    &hfplayer::Hfplayer,
    &io_tracer::IoTracer,
    &simulator::DISKSIM,
    &disksim_validate::DisksimValidate,
    &simulator::MQSIM,
    &simulator::HUAICHENG,
    &simulator::SMREPLAY,
    &qemu_log::LOG,
    &qemu_log::LOG_BUS,
    &qemu_log::LOG_BLOCK,
    &qemu_log::LOG_BACKEND,
    &qemu_log::QemuSimple,
    &mmiotrace::Mmiotrace,
    &kvm_bus::KvmBus,
    &qtest::Qtest,
];

/// The importer named `name`.
///
/// # Errors
/// Usage: there is none of that name.
pub fn by_name(name: &str) -> Result<&'static dyn Importer> {
    IMPORTERS.iter().find(|importer| importer.name() == name).copied().ok_or_else(|| {
        let nearest = IMPORTERS
            .iter()
            .map(|importer| (strsim::jaro_winkler(name, importer.name()), importer.name()))
            .filter(|(likeness, _)| *likeness > 0.8)
            .max_by(|a, b| a.0.total_cmp(&b.0));
        let hint = match nearest {
            Some((_, nearest)) => format!("did you mean {nearest}? formats: {}", names()),
            None => format!("formats: {}", names()),
        };
        Error::usage(format!("no import format '{name}'")).hint(hint)
    })
}

/// The importer whose probe is surest.
///
/// # Errors
/// Input: none fits, or several fit equally well.
pub fn by_content(probe: &Probe<'_>) -> Result<&'static dyn Importer> {
    if probe.head.is_empty() {
        return Err(Error::input("the input is empty"));
    }
    if probe.head.starts_with(QTRACE_MAGIC) {
        return Err(Error::input("this is a .qtrace already").hint("see it with qtrace info"));
    }
    choose(probe, IMPORTERS)
}

/// The first bytes of our own container: what needs no import is told so.
const QTRACE_MAGIC: &[u8] = b"QTRACE";

fn choose<'i>(probe: &Probe<'_>, importers: &[&'i dyn Importer]) -> Result<&'i dyn Importer> {
    let mut found: Vec<(Confidence, &dyn Importer)> =
        importers.iter().filter_map(|importer| Some((importer.probe(probe)?, *importer))).collect();
    found.sort_by_key(|(confidence, _)| std::cmp::Reverse(*confidence));
    // Files in an archive stand there as they are, and would be read with what is between them.
    if probe.head.get(257..).is_some_and(|rest| rest.starts_with(b"ustar")) {
        found.clear();
    }
    match found.as_slice() {
        [] => Err(unknown(probe.head)),
        [(first, _), (second, _), ..] if first == second => {
            let all: Vec<_> = found
                .iter()
                .filter(|(confidence, _)| confidence == first)
                .map(|(_, importer)| importer.name())
                .collect();
            let forced = all.iter().map(|name| format!("--from {name}")).collect::<Vec<_>>();
            let hint = format!("{} forces one", forced.join(" or "));
            Err(Error::input(format!("could be any of {}", all.join(", "))).hint(hint))
        }
        [(_, importer), ..] => Ok(*importer),
    }
}

/// What helps where only the inner of two compressions is left.
const UNPACK_ONCE: &str = "take the outer one off and pipe it in: zcat FILE | qtrace import - ...";

/// What a trace may be wrapped in that is not looked through: where it is told by which bytes, what
/// it is, and what takes it out.
const WRAPPINGS: &[(usize, &[u8], &str, &str)] = &[
    (257, b"ustar", "a tar archive", "import the files in it: tar -xf"),
    (0, b"PK\x03\x04", "a zip archive", "import the files in it: unzip"),
    (0, b"7z\xbc\xaf\x27\x1c", "a 7z archive", "import the files in it: 7z x"),
    (0, b"Rar!\x1a\x07", "a rar archive", "import the files in it: unrar x"),
    (0, b"\x04\x22\x4d\x18", "lz4", "pipe it in: lz4 -dc FILE | qtrace import - ..."),
    (0, b"\x1f\x9d", "compress (.Z)", "pipe it in: zcat FILE | qtrace import - ..."),
    (0, b"\xff\xfe", "UTF-16 text", "convert it: iconv -f UTF-16 -t UTF-8"),
    (0, b"\xfe\xff", "UTF-16 text", "convert it: iconv -f UTF-16 -t UTF-8"),
    (0, b"SQLite format 3\0", "an SQLite database", "export its rows in a format that is imported"),
    (0, b"\x1f\x8b\x08", "gzip in another compression", UNPACK_ONCE),
    (0, b"BZh", "bzip2 in another compression", UNPACK_ONCE),
    (0, b"\xfd7zXZ\0", "xz in another compression", UNPACK_ONCE),
    (0, b"\x28\xb5\x2f\xfd", "zstd in another compression", UNPACK_ONCE),
    (0, b"PAR1", "a Parquet file", "convert it to a format that is imported"),
    (0, b"\x17\x08Dtracing", "trace-cmd's binary file", "print it: trace-cmd report -i FILE"),
    (0, b"PERFILE2", "perf's binary file", "print it: perf script -i FILE"),
    (0, b"2ELIFREP", "perf's binary file", "print it: perf script -i FILE"),
];

/// The error for what no importer knows.
fn unknown(head: &[u8]) -> Error {
    let is = |at: usize, magic: &[u8]| head.get(at..).is_some_and(|rest| rest.starts_with(magic));
    match WRAPPINGS.iter().find(|(at, magic, ..)| is(*at, magic)) {
        Some((_, _, what, remedy)) => {
            Error::input(format!("this is {what}, which is not read as it is")).hint(*remedy)
        }
        None => Error::input("no format that qtrace imports looks like this").hint(hint()),
    }
}

fn hint() -> String {
    format!("supported: {} (--from forces one)", names())
}

/// Refuses an option that `importer` has no use for.
///
/// # Errors
/// Usage, with the formats that the option is for.
pub fn check_option(importer: &dyn Importer, option: &str) -> Result<()> {
    if importer.options().contains(&option) {
        return Ok(());
    }
    let users = IMPORTERS.iter().filter(|other| other.options().contains(&option));
    let users = users.map(|other| other.name()).collect::<Vec<_>>().join(", ");
    Err(Error::usage(format!("{option} means nothing for {}", importer.name()))
        .hint(format!("it is for {users}; leave it out")))
}

/// The names of all formats, comma-separated.
pub fn names() -> String {
    IMPORTERS.iter().map(|importer| importer.name()).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::ErrorKind;

    struct Fake(&'static str, Confidence);

    impl Importer for Fake {
        fn name(&self) -> &'static str {
            self.0
        }
        fn description(&self) -> &'static str {
            "fake"
        }
        fn probe(&self, _: &Probe<'_>) -> Option<Confidence> {
            Some(self.1)
        }
        fn import(&self, _: Vec<Source>, _: &ImportOptions, _: &mut Job<'_>) -> Result<()> {
            Ok(())
        }
    }

    #[test]
    fn the_surest_wins_and_equals_are_an_error() {
        let probe = Probe { head: b"x", name: "x" };
        let (a, b) = (Fake("a", Confidence::Likely), Fake("b", Confidence::Certain));
        assert_eq!(choose(&probe, &[&a, &b]).ok().unwrap().name(), "b");
        let c = Fake("c", Confidence::Certain);
        let error = choose(&probe, &[&a, &b, &c]).err().unwrap();
        assert_eq!(error.kind(), ErrorKind::Input);
        assert_eq!(error.to_string(), "could be any of b, c");
        assert!(error.hint_text().unwrap().contains("--from"));
    }

    #[test]
    fn what_fits_nothing_lists_the_formats() {
        let error = by_content(&Probe { head: b"hello world\n", name: "x" }).err().unwrap();
        assert_eq!(error.kind(), ErrorKind::Input);
        let hint = error.hint_text().unwrap();
        assert!(IMPORTERS.iter().all(|importer| hint.contains(importer.name())));
    }

    #[test]
    fn wrappings_are_named_with_what_takes_a_trace_out() {
        let mut tar = vec![0; 512];
        tar[257..262].copy_from_slice(b"ustar");
        // What is in it looks like a format.
        let rows = b"128166372003061629,h,0,Read,0,512,1\n".repeat(10);
        let full = [&tar[..], &rows].concat();
        for (head, what) in [
            (&tar[..], "a tar archive"),
            (&full, "a tar archive"),
            (b"PK\x03\x04\x14\0", "a zip archive"),
            (b"\xff\xfe1\0,\0", "UTF-16 text"),
        ] {
            let error = by_content(&Probe { head, name: "x" }).err().unwrap();
            assert_eq!(error.kind(), ErrorKind::Input);
            assert_eq!(error.to_string(), format!("this is {what}, which is not read as it is"));
            assert!(error.hint_text().is_some());
        }
    }

    #[test]
    fn a_mistyped_name_suggests_the_nearest() {
        let error = by_name("blktrce").err().unwrap();
        assert_eq!(error.kind(), ErrorKind::Usage);
        assert!(error.hint_text().unwrap().starts_with("did you mean blktrace?"));
    }

    #[test]
    fn an_option_of_another_format_is_refused() {
        for (option, users) in [(STAGE, 6), ("--iolog-wait", 1), ("--uncounted", 1)] {
            let takes = |importer: &&&dyn Importer| check_option(**importer, option).is_ok();
            assert_eq!(IMPORTERS.iter().filter(takes).count(), users, "{option}");
            let error = check_option(&msr_csv::MsrCsv, option).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Usage);
        }
    }

    #[test]
    fn names_are_distinct() {
        let mut names: Vec<_> = IMPORTERS.iter().map(|importer| importer.name()).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), IMPORTERS.len());
    }
}
