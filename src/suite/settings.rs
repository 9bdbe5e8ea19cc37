//! The options that every case has.

use crate::base::Result;
use crate::base::options::{OptionSpec, Options};

/// Which time a machine has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ClockChoice {
    /// The test moves it; nothing is waited for.
    #[default]
    Virtual,
    /// The host's.
    Host,
}

impl ClockChoice {
    /// The word of `clock=`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Virtual => "virtual",
            Self::Host => "host",
        }
    }
}

/// The common options, for help and checking.
pub const COMMON: &[OptionSpec] = &[
    spec("clock", "virtual|host", "virtual", "the machine's time; cases that measure: host"),
    spec(
        "minimal",
        "on|off",
        "off",
        "a machine with the module's chips only, instead of a full one",
    ),
    spec("fresh", "on|off", "on", "a machine for this case alone, instead of the one before"),
];

const fn spec(
    name: &'static str,
    value: &'static str,
    default: &'static str,
    help: &'static str,
) -> OptionSpec {
    OptionSpec { name, value, default, help }
}

/// The common options of one case.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Settings {
    /// `clock=`.
    pub clock: ClockChoice,
    /// `minimal=`.
    pub minimal: bool,
    /// `fresh=`.
    pub fresh: bool,
}

impl Settings {
    /// Takes the settings out of a case's options. `real_time`: the host's clock is the default.
    ///
    /// # Errors
    /// A usage error for a value that is none of the choices.
    pub fn of(options: &Options, real_time: bool) -> Result<Self> {
        let default = if real_time { ClockChoice::Host } else { ClockChoice::Virtual };
        let choices = [("virtual", ClockChoice::Virtual), ("host", ClockChoice::Host)];
        Ok(Self {
            clock: options.choice("clock", &choices, default)?,
            minimal: options.switch("minimal", false)?,
            fresh: options.switch("fresh", true)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_case_that_measures_has_the_hosts_clock_unless_told() {
        let of = |text, real_time| Settings::of(&Options::parse(text, COMMON).unwrap(), real_time);
        assert_eq!(of("", false).unwrap().clock, ClockChoice::Virtual);
        assert_eq!(of("", true).unwrap().clock, ClockChoice::Host);
        assert_eq!(of("clock=virtual", true).unwrap().clock, ClockChoice::Virtual);
        let settings = of("minimal,fresh=off,clock=host", false).unwrap();
        assert_eq!(settings, Settings { clock: ClockChoice::Host, minimal: true, fresh: false });
        assert_eq!(of("clock=vrtual", false).unwrap_err().kind().exit_code(), 2);
    }
}
