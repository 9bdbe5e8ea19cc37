//! What `--test block-trace-virtio` understands.

use std::collections::BTreeMap;
use std::path::PathBuf;

pub use super::option_specs::{SPECS, help};
use super::policy::{
    AioChoice, ClockKind, OffsetPolicy, OnLag, OverlapPolicy, Pacing, UnalignedPolicy, Window,
};
use crate::base::limits::{DISK_BYTES_MAX, IODEPTH_MAX};
use crate::base::options::{OptionSpec, Options};
use crate::base::units::{parse_nanos, parse_size};
use crate::base::{Error, Nanos, Result};
use crate::driver::virtio::{CompletionMode, Transport};
use crate::image::CacheMode;
use crate::image::fault::FaultSpec;
use crate::oracle::Verify;
use crate::suite::machines::MachineChoice;
use crate::suite::one_disk::ImageHolder;

/// Everything a replay is told.
#[derive(Clone, Debug)]
pub struct Config {
    /// The machine that has the device, `board=` and `ram=` among its options.
    pub machine: MachineChoice,
    /// The trace.
    pub trace: PathBuf,
    /// The target image; `None` for `null` and `mem`.
    pub target: Option<PathBuf>,
    /// The target's format; `None` probes an existing one.
    pub target_format: Option<String>,
    /// The image that the target must equal in the end.
    pub comparison: Option<PathBuf>,
    /// Its format; `None` probes.
    pub comparison_format: Option<String>,
    /// Size of a new target.
    pub target_bytes: Option<u64>,
    /// Writes go to a temporary overlay.
    pub snapshot: bool,
    /// How the target's bytes reach the disk.
    pub cache: CacheMode,
    /// How a raw target, or any that QEMU opens, is read and written.
    pub aio: AioChoice,
    /// Backing files outside the target's folder are allowed.
    pub allow_backing: bool,
    /// Device requests in flight at most.
    pub iodepth: usize,
    /// Queues of the device.
    pub queues: u16,
    /// Entries in each of its rings.
    pub queue_size: u16,
    /// The device runs in a thread of its own; `None` is the machine's choice.
    pub iothread: Option<bool>,
    /// When requests are issued.
    pub pacing: Pacing,
    /// Where time comes from.
    pub clock: ClockKind,
    /// Passes over the trace.
    pub loops: u64,
    /// The part that is replayed.
    pub window: Window,
    /// Requests past the end.
    pub offset: OffsetPolicy,
    /// Requests that are not whole blocks.
    pub unaligned: UnalignedPolicy,
    /// Requests that overlap one in flight.
    pub overlap: OverlapPolicy,
    /// What is checked.
    pub verify: Verify,
    /// Nothing is, because the target keeps nothing and nobody asked.
    pub verify_defaulted: bool,
    /// The target's SHA-256 is computed after the run.
    pub image_digest: bool,
    /// Memory of the oracle before it spills.
    pub oracle_bytes: u64,
    /// p99 lateness that a timed run may have.
    pub lag_budget_ns: u64,
    /// What a later one means.
    pub on_lag: OnLag,
    /// Device of the trace, when it holds several; `all` is `Some("all")`.
    pub device: Option<String>,
    /// How completions are noticed.
    pub completion: CompletionMode,
    /// The virtio transport.
    pub transport: Transport,
    /// Indirect descriptors.
    pub indirect: bool,
    /// Event index.
    pub event_idx: bool,
    /// Largest read or write.
    pub transfer_bytes: usize,
    /// Seed of the stamps.
    pub seed: u64,
    /// Where the JSON report goes.
    pub report: Option<PathBuf>,
    /// Where the run log goes.
    pub runlog: Option<PathBuf>,
    /// A fault to inject below the device.
    pub fault: Option<FaultSpec>,
    /// No completion for so long means that the device hangs.
    pub hang_ns: u64,
    /// A trace that is cut short makes the run incomplete.
    pub strict: bool,
    /// The options as they were given.
    pub given: BTreeMap<String, String>,
    /// Every option that has a value, given or not.
    pub settings: BTreeMap<String, String>,
}

impl Config {
    /// Parses the options of one or more `key=value,...` texts, for a replay on the builtin
    /// machine.
    ///
    /// # Errors
    /// Usage errors, naming the option and what it takes.
    pub fn parse(texts: &[String]) -> Result<Self> {
        Self::parse_for(MachineChoice::parse("builtin")?, texts)
    }

    /// As [`Config::parse`], for a replay on `machine`.
    ///
    /// # Errors
    /// As [`Config::parse`]; also for what `machine` cannot do.
    pub fn parse_for(machine: MachineChoice, texts: &[String]) -> Result<Self> {
        let options = Options::parse(&texts.join(","), SPECS)?;
        let config = Self::read(machine, &options)?;
        config.check(&options)?;
        Ok(config)
    }

    fn read(machine: MachineChoice, options: &Options) -> Result<Self> {
        for key in ["target_img", "comparison_img", "report", "runlog"] {
            options.parse_with(key, "the name of a file", |v| (!v.is_empty()).then_some(()))?;
        }
        let volatile = options.get("target_fmt") == Some("null");
        let verify_default = if volatile { Verify::None } else { Verify::Full };
        let verify = options.choice("verify", VERIFIES, verify_default)?;
        let path = |key: &str| options.get(key).map(PathBuf::from);
        let text = |key: &str| options.get(key).map(str::to_owned);
        let trace = path("tracefile").filter(|p| !p.as_os_str().is_empty()).ok_or_else(|| {
            Error::usage("option tracefile= is missing")
                .hint("tracefile=T.qtrace,target_img=D.qcow2,target_fmt=qcow2")
        })?;
        let machine = with_machine_options(machine, options)?;
        Ok(Self {
            trace,
            target: path("target_img"),
            target_format: text("target_fmt"),
            comparison: path("comparison_img"),
            comparison_format: text("comparison_fmt"),
            target_bytes: target_bytes(options)?,
            snapshot: options.switch("snapshot", false)?,
            cache: options.choice("cache", CACHES, CacheMode::Writeback)?,
            aio: options.choice("aio", AIOS, AioChoice::Auto)?,
            allow_backing: options.switch("allow_backing", false)?,
            iodepth: between(options, "iodepth", 1, IODEPTH_MAX as u64, 32)? as usize,
            queues: between(options, "num_queues", 1, 256, 1)? as u16,
            queue_size: queue_size(options)?,
            iothread: match options.get("iothread") {
                None | Some("auto") => None,
                Some(_) => Some(options.switch("iothread", false)?),
            },
            pacing: pacing(options)?,
            clock: options.choice("clock", CLOCKS, ClockKind::Host)?,
            loops: between(options, "loops", 1, u64::MAX, 1)?,
            window: window(options)?,
            offset: options.choice("offset", OFFSETS, OffsetPolicy::Error)?,
            unaligned: options.choice("unaligned", UNALIGNED, UnalignedPolicy::Round)?,
            overlap: options.choice("overlap", OVERLAPS, OverlapPolicy::Hold)?,
            verify,
            verify_defaulted: volatile && options.get("verify").is_none(),
            image_digest: options
                .choice("image_sha256", DIGESTS, None)?
                .unwrap_or(verify == Verify::Full),
            oracle_bytes: size(options, "oracle_memory", 1 << 20, 1 << 50, 1 << 30)?,
            lag_budget_ns: time(options, "lag_budget", MILLISECOND_NS, MILLISECOND_NS)?,
            on_lag: options.choice("on_lag", ON_LAGS, OnLag::Warn)?,
            device: text("device"),
            completion: options.choice("completion", COMPLETIONS, CompletionMode::Poll)?,
            transport: options.choice("transport", TRANSPORTS, Transport::Auto)?,
            indirect: options.switch("indirect", true)?,
            event_idx: options.switch("event_idx", true)?,
            transfer_bytes: size(options, "transfer_max", 4096, 64 << 20, 1 << 20)? as usize,
            seed: options.number("seed", 1)?,
            report: path("report"),
            runlog: path("runlog"),
            fault: options.get("fault").map(str::parse).transpose()?,
            hang_ns: time(options, "deadline", SECOND_NS, 30 * SECOND_NS)?.max(1),
            strict: options.switch("strict", false)?,
            given: values(options, false),
            settings: settings(options, &machine),
            machine,
        })
    }

    /// Combinations that make no sense together.
    fn check(&self, options: &Options) -> Result<()> {
        let refuse = |what: &str, hint: &str| Err(Error::usage(what).hint(hint));
        if options.get("time_scale").is_some()
            && options.get("pacing").is_some_and(|p| p != "recorded")
        {
            return refuse(
                "time_scale= needs pacing=recorded",
                "leave pacing= out, or set it to recorded",
            );
        }
        let held = self.machine.image_holder() == ImageHolder::Qtrace;
        if self.iothread == Some(true) && self.clock == ClockKind::Virtual && held {
            return refuse(
                "iothread=on cannot run under clock=virtual: a second thread is not deterministic",
                "use clock=host, or leave iothread= out",
            );
        }
        if self.machine.image_holder() == ImageHolder::Server {
            self.check_served(options)?;
        } else if self.is_volatile() {
            if self.target.is_some() {
                return refuse(
                    "target_fmt=null and mem take no target_img",
                    "leave target_img= out",
                );
            }
            if self.snapshot {
                return refuse(
                    "snapshot=on has nothing to leave untouched here",
                    "leave snapshot= out",
                );
            }
        } else if self.target.is_none() {
            return refuse(
                "option target_img= is missing",
                "name the image, or measure without one: target_fmt=null, target_fmt=mem",
            );
        }
        if self.target_format.as_deref() == Some("null")
            && (self.verify != Verify::None || self.comparison.is_some())
        {
            return refuse(
                "target_fmt=null keeps nothing, so nothing can be checked",
                "use target_fmt=mem, or verify=none without comparison_img=",
            );
        }
        self.check_holder()?;
        if self.comparison_format.is_some() && self.comparison.is_none() {
            return refuse("comparison_fmt= without comparison_img=", "name the image");
        }
        Ok(())
    }

    /// A server that runs already holds the disk: nothing can be said of its image.
    fn check_served(&self, options: &Options) -> Result<()> {
        const OF_IMAGES: [&str; 8] = [
            "target_img",
            "target_fmt",
            "target_size",
            "snapshot",
            "cache",
            "aio",
            "allow_backing",
            "iothread",
        ];
        match OF_IMAGES.iter().find(|key| options.get(key).is_some()) {
            Some(key) => Err(Error::usage(format!(
                "{key}=: the server at {} has the disk, and opened it as it was told to",
                self.machine.setting("socket").unwrap_or_default()
            ))
            .hint(
                "leave it out: the disk is read back through its device, also for \
                 comparison_img=; server=qemu-storage-daemon serves an image of yours",
            )),
            None => Ok(()),
        }
    }

    /// What needs the image in this program's hands, or in the machine's.
    fn check_holder(&self) -> Result<()> {
        let refuse = |what: String, hint: &str| Err(Error::usage(what).hint(hint));
        let (machine, aio) = (self.machine.kind().name(), self.setting("aio"));
        let holder = self.machine.image_holder();
        if self.aio.holder().is_some_and(|wanted| wanted != holder) {
            return match holder {
                ImageHolder::Qtrace => refuse(
                    format!("aio={aio} is QEMU's; machine '{machine}' has no such way"),
                    "use aio=auto, or --machine qemu",
                ),
                ImageHolder::Machine | ImageHolder::Server => refuse(
                    format!(
                        "aio={aio} is of the builtin machine; '{machine}' opens the image itself"
                    ),
                    "use aio=auto, or --machine builtin",
                ),
            };
        }
        if self.aio == AioChoice::Native && (self.cache != CacheMode::None || self.is_volatile()) {
            return refuse(
                "aio=native needs an image that is opened with cache=none".into(),
                "add cache=none, or use aio=threads",
            );
        }
        if self.fault.is_some() && holder != ImageHolder::Qtrace {
            return refuse(
                format!(
                    "fault= makes this program's image lie, and machine '{machine}' opens the \
                     image itself"
                ),
                "use --machine builtin, or leave fault= out",
            );
        }
        Ok(())
    }

    /// The value in force of the option `name`; empty when it has none.
    pub fn setting(&self, name: &str) -> &str {
        self.settings.get(name).map_or("", String::as_str)
    }

    /// Whether the target is `null` or `mem`, which no file holds.
    pub fn is_volatile(&self) -> bool {
        matches!(self.target_format.as_deref(), Some("null" | "mem"))
    }
}

const MILLISECOND_NS: u64 = 1_000_000;
const SECOND_NS: u64 = 1_000_000_000;
const CACHES: &[(&str, CacheMode)] = &[
    ("none", CacheMode::None),
    ("writeback", CacheMode::Writeback),
    ("unsafe", CacheMode::Unsafe),
];
const AIOS: &[(&str, AioChoice)] = &[
    ("auto", AioChoice::Auto),
    ("sync", AioChoice::Sync),
    ("threads", AioChoice::Threads),
    ("native", AioChoice::Native),
    ("io_uring", AioChoice::IoUring),
];
const CLOCKS: &[(&str, ClockKind)] = &[("host", ClockKind::Host), ("virtual", ClockKind::Virtual)];
const OFFSETS: &[(&str, OffsetPolicy)] =
    &[("error", OffsetPolicy::Error), ("wrap", OffsetPolicy::Wrap), ("clip", OffsetPolicy::Clip)];
const UNALIGNED: &[(&str, UnalignedPolicy)] =
    &[("round", UnalignedPolicy::Round), ("error", UnalignedPolicy::Error)];
const OVERLAPS: &[(&str, OverlapPolicy)] =
    &[("hold", OverlapPolicy::Hold), ("allow", OverlapPolicy::Allow)];
const VERIFIES: &[(&str, Verify)] =
    &[("full", Verify::Full), ("reads", Verify::Reads), ("none", Verify::None)];
const DIGESTS: &[(&str, Option<bool>)] =
    &[("auto", None), ("on", Some(true)), ("off", Some(false))];
const ON_LAGS: &[(&str, OnLag)] = &[("warn", OnLag::Warn), ("fail", OnLag::Fail)];
const COMPLETIONS: &[(&str, CompletionMode)] =
    &[("poll", CompletionMode::Poll), ("irq", CompletionMode::Interrupt)];
const TRANSPORTS: &[(&str, Transport)] =
    &[("auto", Transport::Auto), ("modern", Transport::Modern), ("legacy", Transport::Legacy)];
const BOARDS: &[(&str, &str)] = &[("pc", "pc"), ("q35", "q35")];

/// Options that are the machine's: their names here and there.
const MACHINE_OPTIONS: &[(&str, &str)] = &[("board", "type"), ("ram", "ram")];

/// `machine` with what `options` say of it.
fn with_machine_options(mut machine: MachineChoice, options: &Options) -> Result<MachineChoice> {
    options.choice("board", BOARDS, "pc")?;
    size(options, "ram", 8 << 20, 0xb000_0000, 128 << 20)?;
    for (here, there) in MACHINE_OPTIONS {
        let Some(value) = options.get(here) else { continue };
        if machine.setting(there).is_none() {
            let what = format!("{here}=: machine '{}' has no such option", machine.kind().name());
            return Err(Error::usage(what).hint(format!("leave {here}= out")));
        }
        if machine.has(there) {
            let what = format!("{here}= and the {there}= of --machine {}", machine.text());
            return Err(Error::usage(format!("{what} say the same thing twice"))
                .hint(format!("leave {here}= out")));
        }
        machine = machine.with(there, value)?;
    }
    Ok(machine)
}

/// Options by name: those given, and with `defaults` also those that have a default.
fn values(options: &Options, defaults: bool) -> BTreeMap<String, String> {
    let value = |spec: &OptionSpec| {
        let default = (defaults && !spec.default.is_empty()).then_some(spec.default);
        Some((spec.name.to_owned(), options.get(spec.name).or(default)?.to_owned()))
    };
    SPECS.iter().filter_map(value).collect()
}

/// Every value in force, with what one option implies for another.
fn settings(options: &Options, machine: &MachineChoice) -> BTreeMap<String, String> {
    let mut settings = values(options, true);
    for (here, there) in MACHINE_OPTIONS {
        match machine.setting(there) {
            Some(value) => settings.insert((*here).to_owned(), value.to_owned()),
            None => settings.remove(*here),
        };
    }
    if options.get("time_scale").is_some() {
        settings.insert("pacing".to_owned(), "recorded".to_owned());
    }
    settings
}

fn between(options: &Options, key: &str, min: u64, max: u64, default: u64) -> Result<u64> {
    let form = match max {
        u64::MAX => format!("a whole number from {min}"),
        _ => format!("a whole number from {min} to {max}"),
    };
    let parse = |v: &str| v.parse().ok().filter(|n| (min..=max).contains(n));
    Ok(options.parse_with(key, &form, parse)?.unwrap_or(default))
}

fn size(options: &Options, key: &str, min: u64, max: u64, default: u64) -> Result<u64> {
    let form = format!("a size from {min} to {max} bytes, such as 64k, 16M or 1G");
    let parse = |v: &str| parse_size(v).filter(|n| (min..=max).contains(n));
    Ok(options.parse_with(key, &form, parse)?.unwrap_or(default))
}

fn time(options: &Options, key: &str, unit_ns: u64, default: u64) -> Result<u64> {
    let parse = |v: &str| parse_nanos(v, unit_ns);
    Ok(options.parse_with(key, "a time such as 500us, 1ms or 2s", parse)?.unwrap_or(default))
}

fn target_bytes(options: &Options) -> Result<Option<u64>> {
    let form = "a size in whole 512-byte sectors, such as 16M or 4G";
    options.parse_with("target_size", form, |v| {
        parse_size(v).filter(|n| *n > 0 && *n <= DISK_BYTES_MAX && n.is_multiple_of(512))
    })
}

fn queue_size(options: &Options) -> Result<u16> {
    // Virtio 1.2 §2.7: a power of two, 32768 at most; a request takes three descriptors.
    let form = "a power of two from 4 to 32768";
    let parse =
        |v: &str| v.parse().ok().filter(|n: &u16| n.is_power_of_two() && (4..=32768).contains(n));
    Ok(options.parse_with("queue_size", form, parse)?.unwrap_or(256))
}

fn pacing(options: &Options) -> Result<Pacing> {
    let percent = between(options, "time_scale", 1, 1_000_000, 100)?;
    let recorded = Pacing::Recorded { percent };
    let choices =
        [("no_stall", Pacing::NoStall), ("recorded", recorded), ("closed", Pacing::Closed)];
    let default = if options.get("time_scale").is_some() { recorded } else { Pacing::NoStall };
    options.choice("pacing", &choices, default)
}

/// `A-B`, either end of which may be left out.
fn span(text: &str, parse: impl Fn(&str) -> Option<u64>) -> Option<(u64, u64)> {
    let (first, end) = text.split_once('-')?;
    let first = if first.is_empty() { 0 } else { parse(first)? };
    let end = if end.is_empty() { u64::MAX } else { parse(end)? };
    (first < end).then_some((first, end))
}

fn window(options: &Options) -> Result<Window> {
    let events =
        options.parse_with("events", "A-B with A below B, such as 100-200, 100- or -200", |v| {
            span(v, |n| n.parse().ok())
        })?;
    let times = options.parse_with(
        "time",
        "A-B with A before B, such as 1s-2.5s, 250ms- or -10s",
        |v| span(v, |n| parse_nanos(n, SECOND_NS)),
    )?;
    let (event_first, event_end) = events.unwrap_or((0, u64::MAX));
    let (time_first, time_end) = times.unwrap_or((0, u64::MAX));
    Ok(Window { event_first, event_end, time_first: Nanos(time_first), time_end: Nanos(time_end) })
}

#[cfg(test)]
mod tests {
    use std::cmp::Ordering;

    use super::*;

    fn parse(text: &str) -> Result<Config> {
        Config::parse(&[text.to_owned()])
    }

    fn error(text: &str) -> String {
        let error = parse(text).unwrap_err();
        assert_eq!(error.kind().exit_code(), 2);
        format!("{error}; {}", error.hint_text().unwrap_or_default())
    }

    #[test]
    fn the_documented_defaults_are_what_leaving_out_gives() {
        let left_out = parse("tracefile=t,target_img=d").unwrap();
        let defaults = SPECS.iter().filter(|s| !s.default.is_empty() && s.name != "time_scale");
        let spelled: String = defaults.map(|s| format!(",{}={}", s.name, s.default)).collect();
        let spelled = parse(&format!("tracefile=t,target_img=d{spelled}")).unwrap();
        assert!(left_out.settings.iter().all(|(name, value)| spelled.setting(name) == value));
        let config = Config {
            given: left_out.given.clone(),
            settings: left_out.settings.clone(),
            ..spelled
        };
        assert_eq!(format!("{left_out:?}"), format!("{config:?}"));
    }

    #[test]
    fn several_texts_are_one_list() {
        let texts = ["tracefile=t".to_owned(), "target_fmt=null,iodepth=8".to_owned()];
        assert_eq!(Config::parse(&texts).unwrap().iodepth, 8);
    }

    #[test]
    fn time_scale_implies_recorded_pacing() {
        let config = parse("tracefile=t,target_fmt=null,time_scale=50").unwrap();
        assert_eq!(config.pacing, Pacing::Recorded { percent: 50 });
        assert_eq!(config.setting("pacing"), "recorded");
        assert!(
            error("tracefile=t,target_fmt=null,time_scale=50,pacing=closed").contains("recorded")
        );
    }

    #[test]
    fn wrong_values_say_what_is_right() {
        for (text, want) in [
            ("target_img=d", "tracefile= is missing"),
            ("tracefile=t", "target_img= is missing"),
            ("tracefile=t,target_img=d,target_fmt=null", "take no target_img"),
            ("tracefile=t,target_img=d,iodepth=0", "from 1 to 4096"),
            ("tracefile=t,target_img=d,queue_size=100", "power of two"),
            ("tracefile=t,target_img=d,events=9-3", "A below B"),
            ("tracefile=t,target_img=d,target_size=1000", "512-byte sectors"),
            ("tracefile=t,target_img=d,iothread=on,clock=virtual", "not deterministic"),
            ("tracefile=t,target_img=d,pacing=no-stall", "pacing=no_stall"),
            ("tracefile=t,target_img=d,comparison_fmt=raw", "comparison_img"),
            ("tracefile=t,target_img=", "name of a file"),
            ("tracefile=t,target_fmt=mem,report=", "name of a file"),
            ("tracefile=t,target_fmt=mem,runlog=", "name of a file"),
            ("tracefile=t,target_fmt=mem,comparison_img=", "name of a file"),
            ("tracefile=t,target_img=d,loop=3", "did you mean 'loops'"),
        ] {
            let got = error(text);
            assert!(got.contains(want), "{text}: {got}");
        }
    }

    #[test]
    fn the_machines_options_are_said_in_either_place_and_once() {
        let on = |machine: &str, text: &str| {
            let machine = MachineChoice::parse(machine).unwrap();
            Config::parse_for(machine, &[format!("tracefile=t,target_fmt=mem{text}")])
        };
        for (machine, text) in [
            ("builtin,type=q35,ram=64M", ""),
            ("builtin,ram=64M", ",board=q35"),
            ("builtin", ",board=q35,ram=64M"),
        ] {
            let config = on(machine, text).unwrap();
            assert_eq!(
                (config.setting("board"), config.setting("ram")),
                ("q35", "64M"),
                "{machine}"
            );
            assert_eq!(config.machine.setting("type"), Some("q35"));
        }
        assert_eq!(on("builtin", "").unwrap().setting("board"), "pc");
        let error = on("builtin,type=pc", ",board=q35").unwrap_err();
        assert!(error.to_string().contains("the same thing twice"), "{error}");
        for bad in [",board=isapc", ",ram=1M", ",ram=9G"] {
            assert_eq!(on("builtin", bad).unwrap_err().kind().exit_code(), 2, "{bad}");
        }
    }

    #[test]
    fn windows_are_half_open() {
        let window = parse("tracefile=t,target_fmt=mem,events=2-4,time=1us-").unwrap().window;
        let at = |event, ns| window.place(event, Nanos(ns));
        assert_eq!(at(1, 5000), Ordering::Less);
        assert_eq!(at(2, 999), Ordering::Less);
        assert_eq!(at(2, 1000), Ordering::Equal);
        assert_eq!(at(3, u64::MAX), Ordering::Equal);
        assert_eq!(at(4, 1000), Ordering::Greater);
    }
}
