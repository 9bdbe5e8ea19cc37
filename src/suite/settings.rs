//! The options that every case has.

use crate::base::clock::ScaledClock;
use crate::base::options::{OptionSpec, Options};
use crate::base::{Error, Result};

/// Which time a machine has.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum ClockChoice {
    /// The test moves it; nothing is waited for.
    #[default]
    Virtual,
    /// The host's.
    Host,
    /// The host's, so many times as fast.
    Scaled(f64),
}

impl ClockChoice {
    /// The word of `clock=`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Virtual => "virtual",
            Self::Host => "host",
            Self::Scaled(_) => "scaled",
        }
    }
}

/// `scale=` when it is not given.
const SCALE_DEFAULT: f64 = 10.0;

/// The common options, for help and checking.
pub const COMMON: &[OptionSpec] = &[
    OptionSpec::new(
        "clock",
        "virtual|host|scaled",
        "virtual",
        "the machine's time; cases that measure: host",
    ),
    OptionSpec::new(
        "scale",
        "FACTOR",
        "10",
        "with clock=scaled: how many times as fast as the host's",
    ),
    OptionSpec::new(
        "minimal",
        "on|off",
        "off",
        "a machine with the module's chips only, instead of a full one",
    ),
    OptionSpec::new(
        "fresh",
        "on|off",
        "on",
        "a machine for this case alone, instead of the one before",
    ),
];

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
        let form = "a factor from a millionth to a million";
        let parse = |v: &str| v.parse().ok().filter(|factor| ScaledClock::new(*factor).is_some());
        let scale = options.parse_with("scale", form, parse)?;
        let scaled = ClockChoice::Scaled(scale.unwrap_or(SCALE_DEFAULT));
        let choices =
            [("virtual", ClockChoice::Virtual), ("host", ClockChoice::Host), ("scaled", scaled)];
        let clock = options.choice("clock", &choices, default)?;
        if scale.is_some() && clock != scaled {
            return Err(Error::usage(format!("scale= is of no use with clock={}", clock.name()))
                .hint("say clock=scaled"));
        }
        Ok(Self {
            clock,
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
        let scaled = of("clock=scaled,scale=2.5", false).unwrap();
        assert_eq!(scaled.clock, ClockChoice::Scaled(2.5));
        for bad in ["scale=2", "clock=host,scale=2", "clock=scaled,scale=0", "clock=scaled,scale=x"]
        {
            assert_eq!(of(bad, false).unwrap_err().kind().exit_code(), 2, "{bad}");
        }
        assert_eq!(of("clock=vrtual", false).unwrap_err().kind().exit_code(), 2);
    }
}
