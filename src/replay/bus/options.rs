//! What `--test port-trace` and `--test mmio-trace` understand.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::policy::{self, FREE_RUNNING, FreeRunning, Rules};
use crate::base::options::{OptionSpec, Options};
use crate::base::units::parse_nanos;
use crate::base::{Error, Nanos, Result};
use crate::machine::builtin::Reference;
use crate::replay::bus::against::accepted;
use crate::suite::machines::MachineChoice;
use crate::suite::spec::{MACHINE_OPTIONS, MachineSpec};
use crate::trace::{NotRecorded, Trace, TraceHeader};

/// The test that replays ports only.
pub const PORT_TEST: &str = "port-trace";

/// The test that replays every access.
pub const MMIO_TEST: &str = "mmio-trace";

/// What the header of a machine tap's recording calls its source.
pub const TAP_FORMAT: &str = "machine-tap";

/// The line of such a header that says which machine it was.
pub const TAP_MACHINE: &str = "replay options: ";

/// The line of such a header that says which case it was.
pub const TAP_CASE: &str = "recorded: ";

/// The case that a tap recorded.
pub fn tapped(header: &TraceHeader) -> Option<&str> {
    let taps = header.source_format == TAP_FORMAT;
    header.interpretation.iter().filter(|_| taps).find_map(|line| line.strip_prefix(TAP_CASE))
}

/// Formats of recordings that QEMU's devices made.
const FROM_QEMU: &[&str] = &["qemu", "qtest"];

/// Time between events of a recording that has none: what an access to a port takes.
const STEP_DEFAULT: Nanos = Nanos(1_000);

/// Deadlines of devices in a whole replay: half a minute of work, and 18 hours of a kilohertz. A
/// time in a damaged trace may be centuries away.
const WAITS_MAX: u64 = 1 << 26;

/// Where the time between events comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// The recording.
    Recorded,
    /// So much for each event.
    Fixed(Nanos),
}

/// Everything a replay is told, before the trace was looked at.
#[derive(Clone, Debug)]
pub struct Config {
    /// The test: [`PORT_TEST`], [`MMIO_TEST`].
    pub test: &'static str,
    /// The kind of machine to replay on, with its own options.
    pub machine: MachineChoice,
    /// The trace.
    pub trace: PathBuf,
    /// Where the JSON report goes.
    pub report: Option<PathBuf>,
    options: Options,
}

/// The same, with what the trace says of itself.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The machine to build.
    pub machine: MachineSpec,
    /// The trace is a tap's: every region of it was there, chip or no chip.
    pub tap: bool,
    /// What reads are asked for.
    pub rules: Rules,
    /// Time between events.
    pub pace: Pace,
    /// The machine's time when the recording's began.
    pub phase: Nanos,
    /// Ports only.
    pub ports_only: bool,
    /// The least share of checks that must be right, in parts per million.
    pub fail_below_ppm: u32,
    /// Deadlines of devices after which the replay gives up.
    pub waits_max: u64,
    /// Every option with the value in force.
    pub settings: BTreeMap<String, String>,
}

const SPECS: &[OptionSpec] = &[
    OptionSpec {
        name: "tracefile",
        value: "FILE",
        default: "",
        help: "the trace to replay (required)",
    },
    policy::SPEC,
    OptionSpec {
        name: "defaults",
        value: "on|off",
        default: "on",
        help: "the policies below for free-running counters; off for the recording of a tap",
    },
    OptionSpec {
        name: "time",
        value: "recorded|TIME",
        default: "recorded",
        help: "time between events: the recording's, or so much each (1us where it has none); 0: none",
    },
    OptionSpec {
        name: "fail_below",
        value: "PERCENT",
        default: "100",
        help: "pass when so much of the checks of modelled devices is right",
    },
    OptionSpec {
        name: "report",
        value: "FILE",
        default: "",
        help: "write the JSON report there too",
    },
];

fn specs() -> Vec<OptionSpec> {
    SPECS.iter().chain(MACHINE_OPTIONS).copied().collect()
}

impl Config {
    /// Parses the options of one or more `key=value,…` texts, for a replay on the builtin machine.
    ///
    /// # Errors
    /// Usage errors, naming the option and what it takes.
    pub fn parse(test: &'static str, texts: &[String]) -> Result<Self> {
        Self::parse_for(test, MachineChoice::parse("builtin")?, texts)
    }

    /// The same for a replay on `machine`.
    ///
    /// # Errors
    /// As [`Config::parse`].
    pub fn parse_for(test: &'static str, machine: MachineChoice, texts: &[String]) -> Result<Self> {
        let options = Options::parse(&texts.join(","), &specs())?;
        let path = |key: &str| options.get(key).map(PathBuf::from);
        let trace = path("tracefile").filter(|p| !p.as_os_str().is_empty()).ok_or_else(|| {
            Error::usage("option tracefile= is missing").hint("tracefile=T.qtrace,board=pc")
        })?;
        options.parse_with("report", "the name of a file", |v| (!v.is_empty()).then_some(()))?;
        machine.check_against(&options)?;
        let config = Self { test, machine, trace, report: path("report"), options };
        // Wrong values are found before a trace is opened.
        config.resolve(MachineSpec::default(), Pace::Recorded, true)?;
        Ok(config)
    }

    /// What to do with `trace`.
    ///
    /// # Errors
    /// Usage errors for options that the trace does not allow.
    pub fn plan(&self, trace: &Trace) -> Result<Plan> {
        let header = trace.header();
        let taps = header.source_format == TAP_FORMAT;
        let mut machine = MachineSpec::default();
        if FROM_QEMU.iter().any(|format| header.source_format.starts_with(format)) {
            machine.reference = Reference::Qemu;
        }
        let mut phase = Nanos(0);
        if let Some(origin) = header.origin_unix_ns {
            machine.rtc_base_unix_s = (origin / 1_000_000_000) as i64;
            phase = Nanos(origin % 1_000_000_000);
        }
        for line in &header.interpretation {
            if let Some(text) = line.strip_prefix(TAP_MACHINE) {
                let options = Options::parse(text, MACHINE_OPTIONS);
                let read = options.and_then(|options| machine.clone().with(&options));
                machine = read.map_err(|error| {
                    Error::input("the header describes no machine").path(&self.trace).source(error)
                })?;
            }
        }
        let times = !trace.summary().not_recorded.contains(NotRecorded::TIMES);
        let steps = trace.totals().iter().any(|totals| totals.bus.steps > 0);
        let recorded = self.options.get("time").is_none_or(|time| time == "recorded");
        if self.options.get("time") == Some("recorded") && !times && !steps {
            return Err(Error::usage("time=recorded: the trace has no times")
                .path(&self.trace)
                .hint("leave time= out, or say how long an event takes: time=1us"));
        }
        let pace =
            if times || steps || !recorded { Pace::Recorded } else { Pace::Fixed(STEP_DEFAULT) };
        let mut plan = self.resolve(machine, pace, !taps)?;
        plan.tap = taps;
        if self.options.get("rtc_base").is_none() {
            plan.phase = phase;
        }
        Ok(plan)
    }

    /// Whether the tables of what is excused are in force.
    pub fn accepts(&self) -> bool {
        self.options.switch("defaults", true).unwrap_or(true)
    }

    /// Rules for comparing machines: those of a table, and the user's.
    ///
    /// # Errors
    /// A usage error that quotes a rule.
    pub fn rules_against<'a>(&'a self, table: impl Iterator<Item = &'a str>) -> Result<Rules> {
        Rules::behind(table, self.options.get("policy").unwrap_or_default())
    }

    fn resolve(&self, machine: MachineSpec, pace: Pace, defaults: bool) -> Result<Plan> {
        let options = &self.options;
        let defaults = options.switch("defaults", defaults)?;
        let policy = options.get("policy").unwrap_or_default();
        let form = "recorded, or a time such as 500ns or 1us";
        let time = |text: &str| match text {
            "recorded" => Some(pace),
            time => parse_nanos(time, 1).map(|time| Pace::Fixed(Nanos(time))),
        };
        let machine = self.machine.refine(machine)?.with(options)?;
        let pace = options.parse_with("time", form, time)?.unwrap_or(pace);
        let form = "a percentage from 0 to 100, such as 97 or 99.5";
        let fail_below_ppm =
            options.parse_with("fail_below", form, parse_percent)?.unwrap_or(1_000_000);
        let mut settings: BTreeMap<String, String> = BTreeMap::new();
        for (key, value) in machine.text().split(',').filter_map(|pair| pair.split_once('=')) {
            settings.insert(key.to_owned(), value.to_owned());
        }
        for (key, value) in [
            ("machine", self.machine.text().to_owned()),
            ("tracefile", self.trace.display().to_string()),
            ("policy", policy.to_owned()),
            ("defaults", if defaults { "on" } else { "off" }.to_owned()),
            (
                "time",
                match pace {
                    Pace::Recorded => "recorded".to_owned(),
                    Pace::Fixed(time) => format!("{}ns", time.0),
                },
            ),
            ("fail_below", crate::report::bus::percent(fail_below_ppm)),
        ] {
            settings.insert(key.to_owned(), value);
        }
        Ok(Plan {
            tap: false,
            machine,
            rules: Rules::parse(policy, defaults)?,
            pace,
            phase: Nanos(0),
            ports_only: self.test == PORT_TEST,
            fail_below_ppm,
            waits_max: WAITS_MAX,
            settings,
        })
    }
}

/// A percentage with at most four decimals, in parts per million.
fn parse_percent(text: &str) -> Option<u32> {
    let text = text.strip_suffix('%').unwrap_or(text);
    let (whole, part) = text.split_once('.').unwrap_or((text, ""));
    let digits = |text: &str| text.chars().all(|c| c.is_ascii_digit());
    if whole.is_empty() || part.len() > 4 || !digits(whole) || !digits(part) {
        return None;
    }
    let ppm = whole.parse::<u32>().ok()?.checked_mul(10_000)?;
    let ppm = ppm.checked_add(format!("{part:0<4}").parse().ok()?)?;
    (ppm <= 1_000_000).then_some(ppm)
}

/// The options and policies as help prints them.
pub fn help(test: &str) -> String {
    let what = match test {
        PORT_TEST => "replay the port accesses of a trace and check every recorded read",
        _ => "replay every access of a trace, to ports and memory, and check every recorded read",
    };
    let specs = specs();
    let width = specs.iter().map(|s| s.name.len() + s.value.len() + 1).max().unwrap_or(0);
    let mut text = format!(
        "{test}: {what}\n\n\
         Options (key=value,key=value; write ,, for a comma inside a value):\n"
    );
    for spec in &specs {
        let form = format!("{}={}", spec.name, spec.value);
        let default = match spec.default {
            "" => String::new(),
            default => format!(" [{default}]"),
        };
        text.push_str(&format!("  {form:width$}  {}{default}\n", spec.help));
    }
    text.push_str(
        "\nPolicies: exact; mask=HEX, those bits; near=N, at most N apart; ignore;\n\
         poll=TIME, read again until equal, so long at most. Regions as the trace names them, or\n\
         devices; * at the end stands for anything. Of several rules the last that fits counts:\n  \
         policy=rtc[0-9]:poll=1s,,hpet+f0:ignore,,pci-conf-data[00:02.0]:ignore,,intx[8]:ignore\n\
         \nOf free-running counters, unless defaults=off; everything else is exact:\n",
    );
    let width = FREE_RUNNING.iter().map(|rule| rule.rule.len()).max().unwrap_or(0);
    for FreeRunning { rule, why } in FREE_RUNNING {
        text.push_str(&format!("  {rule:width$}  {why}\n"));
    }
    text.push_str(
        "\nWith --against these count instead, unless defaults=off, each for the recordings of some\n\
         cases or for every trace:\n",
    );
    text.push_str(&accepted::help());
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Config> {
        Config::parse(MMIO_TEST, &[text.to_owned()])
    }

    #[test]
    fn percentages_have_four_decimals() {
        assert_eq!(parse_percent("97"), Some(970_000));
        assert_eq!(parse_percent("99.5%"), Some(995_000));
        assert_eq!(parse_percent("0.0001"), Some(1));
        assert_eq!(parse_percent("100"), Some(1_000_000));
        for bad in ["", "100.1", "101", "-1", "1.00001", ".5", "5e1", "99999999999"] {
            assert_eq!(parse_percent(bad), None, "{bad}");
        }
    }

    #[test]
    fn wrong_values_say_what_is_right() {
        for (text, want) in [
            ("board=pc", "tracefile= is missing"),
            ("tracefile=t,board=isa", "board=isa"),
            ("tracefile=t,policy=rtc", "policy=rtc"),
            ("tracefile=t,time=never", "time=never"),
            ("tracefile=t,fail_below=200", "fail_below=200"),
            ("tracefile=t,report=", "name of a file"),
            ("tracefile=t,target_img=d", "unknown option"),
        ] {
            let error = parse(text).unwrap_err();
            assert_eq!(error.kind().exit_code(), 2, "{text}");
            assert!(error.to_string().contains(want), "{text}: {error}");
        }
    }

    #[test]
    fn help_lists_every_option_and_every_default_policy() {
        for test in [PORT_TEST, MMIO_TEST] {
            let help = help(test);
            assert!(specs().iter().all(|spec| help.contains(&format!("  {}=", spec.name))));
            assert!(FREE_RUNNING.iter().all(|rule| help.contains(rule.why)));
        }
    }
}
