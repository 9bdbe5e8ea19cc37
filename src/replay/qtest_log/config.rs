//! What `--test qtest-log` understands.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use crate::base::options::{OptionSpec, Options};
use crate::base::units::parse_nanos;
use crate::base::{Error, Result};
use crate::suite::machines::MachineChoice;

/// The name of the test.
pub const QTEST_LOG_TEST: &str = "qtest-log";

/// A device that does so much between two commands does not exist; a hang of seconds is one.
const DEADLINE_DEFAULT: Duration = Duration::from_secs(10);

/// Commands that may be under way: QEMU's answers must fit its socket's buffer.
const WINDOW_MAX: u64 = 256;

const SPECS: &[OptionSpec] = &[
    OptionSpec::new("tracefile", "FILE", "", "the report, log or reproducer; - is standard input"),
    OptionSpec::new("pick", "N", "1", "which of several reproducers of the report"),
    OptionSpec::new("args", "TEXT", "", "the machine's arguments, instead of the report's"),
    OptionSpec::new("trust_args", "on|off", "off", "pass arguments on that reach the host"),
    OptionSpec::new(
        "deadline",
        "TIME",
        "10s",
        "a command without an answer for so long: QEMU hangs",
    ),
    OptionSpec::new("window", "N", "1", "commands sent ahead of their answers, at most 256"),
    OptionSpec::new("report", "FILE", "", "write the JSON report there too"),
];

/// Everything a replay is told.
#[derive(Clone, Debug)]
pub struct Config {
    /// The report.
    pub tracefile: PathBuf,
    /// Which reproducer, from 1.
    pub pick: u64,
    /// The machine's arguments, where the user says them.
    pub args: Option<String>,
    /// Arguments are passed on as they are.
    pub trust_args: bool,
    /// The longest that an answer may take.
    pub deadline: Duration,
    /// Commands that may be under way.
    pub window: u64,
    /// Where the JSON report goes.
    pub report: Option<PathBuf>,
    /// The QEMU to run.
    pub binary: Option<PathBuf>,
}

impl Config {
    /// Parses the options of one or more `key=value,…` texts.
    ///
    /// # Errors
    /// Usage errors, naming the option and what it takes.
    pub fn parse(machine: &MachineChoice, texts: &[String]) -> Result<Self> {
        let binary = binary(machine)?;
        let options = Options::parse(&texts.join(","), SPECS)?;
        let path = |key: &str| options.get(key).map(PathBuf::from);
        let tracefile =
            path("tracefile").filter(|p| !p.as_os_str().is_empty()).ok_or_else(|| {
                Error::usage("option tracefile= is missing").hint("tracefile=report.txt")
            })?;
        options.parse_with("report", "the name of a file", |v| (!v.is_empty()).then_some(()))?;
        let deadline = |text: &str| {
            parse_nanos(text, 1_000_000_000).filter(|ns| *ns > 0).map(Duration::from_nanos)
        };
        let whole = |most: u64| {
            move |text: &str| text.parse().ok().filter(|n: &u64| (1..=most).contains(n))
        };
        Ok(Self {
            tracefile,
            pick: options.parse_with("pick", "a number from 1", whole(u64::MAX))?.unwrap_or(1),
            args: options.get("args").map(str::to_owned),
            trust_args: options.switch("trust_args", false)?,
            deadline: options
                .parse_with("deadline", "a time such as 10s or 500ms", deadline)?
                .unwrap_or(DEADLINE_DEFAULT),
            window: options.parse_with("window", "1 to 256", whole(WINDOW_MAX))?.unwrap_or(1),
            report: path("report"),
            binary,
        })
    }

    /// Every option with the value in force.
    pub fn settings(&self) -> BTreeMap<String, String> {
        let on = if self.trust_args { "on" } else { "off" };
        let mut settings: BTreeMap<String, String> = [
            ("tracefile", self.tracefile.display().to_string()),
            ("pick", self.pick.to_string()),
            ("trust_args", on.to_owned()),
            ("deadline", format!("{}ms", self.deadline.as_millis())),
            ("window", self.window.to_string()),
        ]
        .map(|(key, value)| (key.to_owned(), value))
        .into();
        if let Some(args) = &self.args {
            settings.insert("args".to_owned(), args.clone());
        }
        settings
    }
}

/// The QEMU that the machine's options name. What it is made of stands in the report.
fn binary(machine: &MachineChoice) -> Result<Option<PathBuf>> {
    let name = machine.kind().name();
    if name != "qemu" {
        let what = format!("{QTEST_LOG_TEST} replays on a real QEMU, not on --machine {name}");
        return Err(Error::usage(what).hint("--machine qemu"));
    }
    let mut binary = None;
    for (key, value) in machine.options().iter() {
        match (key, value) {
            ("binary", path) => binary = Some(PathBuf::from(path)),
            ("accel", "qtest" | "auto") => {}
            _ => {
                let what = format!("{QTEST_LOG_TEST}: {key}={value} of the machine does not apply");
                let hint = "the report says what the machine is made of; args= says it instead";
                return Err(Error::usage(what).hint(hint));
            }
        }
    }
    Ok(binary)
}

/// The options as help prints them.
pub fn help() -> String {
    let width = SPECS.iter().map(|s| s.name.len() + s.value.len() + 1).max().unwrap_or(0);
    let mut text = format!(
        "{QTEST_LOG_TEST}: give a real QEMU the commands of a qtest log, script or bug report\n\n\
         Options (key=value,key=value; write ,, for a comma inside a value):\n"
    );
    for spec in SPECS {
        let form = format!("{}={}", spec.name, spec.value);
        let default = match spec.default {
            "" => String::new(),
            default => format!(" [{default}]"),
        };
        text.push_str(&format!("  {form:width$}  {}{default}\n", spec.help));
    }
    text.push_str(
        "\nExit codes: 0, QEMU survived; 1, it died or hung; 4, no command in the report;\n\
         5, QEMU does not start with those arguments, or one of them is refused.\n\
         \nThe machine's arguments are those of the report. Accelerator, display, qtest, monitor\n\
         and what is behind serial ports are replaced; images must lie in the report's folder,\n\
         and QEMU gets a temporary overlay of each. What names another file of the host, a\n\
         socket, a network or a command is refused, unless trust_args=on.\n",
    );
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(machine: &str, text: &str) -> Result<Config> {
        Config::parse(&MachineChoice::parse(machine)?, &[text.to_owned()])
    }

    #[test]
    fn wrong_values_say_what_is_right() {
        for (machine, text, want) in [
            ("qemu", "pick=1", "tracefile= is missing"),
            ("qemu", "tracefile=t,pick=0", "pick=0"),
            ("qemu", "tracefile=t,window=257", "window=257"),
            ("qemu", "tracefile=t,deadline=0s", "deadline=0s"),
            ("qemu", "tracefile=t,trust_args=maybe", "trust_args=maybe"),
            ("qemu", "tracefile=t,report=", "name of a file"),
            ("qemu", "tracefile=t,target_img=d", "unknown option"),
            ("qemu,type=q35", "tracefile=t", "type=q35"),
            ("qemu,accel=tcg-halted", "tracefile=t", "accel=tcg-halted"),
            ("builtin", "tracefile=t", "--machine builtin"),
        ] {
            let error = parse(machine, text).unwrap_err();
            assert_eq!(error.kind().exit_code(), 2, "{text}");
            assert!(error.to_string().contains(want), "{text}: {error}");
        }
    }

    #[test]
    fn what_is_said_is_taken() {
        let config =
            parse("qemu,binary=/x,accel=qtest", "tracefile=t,args=-M pc,,smm=off,deadline=500ms");
        let config = config.unwrap();
        assert_eq!(config.args.as_deref(), Some("-M pc,smm=off"));
        assert_eq!((config.deadline, config.window), (Duration::from_millis(500), 1));
        assert_eq!(config.binary, Some(PathBuf::from("/x")));
        assert!(SPECS.iter().all(|spec| help().contains(&format!("  {}=", spec.name))));
    }
}
