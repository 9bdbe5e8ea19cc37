//! What a recorded read asks of the machine: to be equal, to be equal in part, soon, or not at all.
//!
//! Rules are tried from the last to the first, the user's before the defaults:
//!
//! ```text
//! policy=RULE,,RULE…              (,, is one comma: options are separated by single ones)
//! RULE    = REGION[REGISTER]:WHAT
//! REGION  = a region's or device's name: rtc, hpet, virtio-*, *; interrupts and memory too
//! REGISTER= +A or +A-B            bytes from the region's start (hexadecimal)
//!         | [A] or [A-B]          behind an index register: CMOS, fw_cfg key, IOAPIC
//!         | [BB:DD.F]             of a PCI function
//! WHAT    = exact | ignore | mask=HEX | poll | poll=TIME
//! ```
//!
//! `rtc[0-9]:poll=1s,,hpet+f0:ignore,,pci-conf-data[00:02.0]:ignore,,serial+5:mask=1`

use super::regions::Register;
use crate::base::options::OptionSpec;
use crate::base::units::parse_nanos;
use crate::base::{Error, Nanos, Result};

/// How long `poll` repeats a read, in the machine's time, unless told.
const POLL_DEFAULT: Nanos = Nanos(1_000_000_000);

/// What a recorded read asks of the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// The recorded value.
    Exact,
    /// The recorded value in these bits.
    Mask(u64),
    /// Nothing: the read is made, and its value is not looked at.
    Ignore,
    /// The recorded value within so long, the read being repeated.
    Poll(Nanos),
}

impl Policy {
    fn parse(text: &str) -> Option<Self> {
        match text.split_once('=') {
            None => match text {
                "exact" => Some(Self::Exact),
                "ignore" => Some(Self::Ignore),
                "poll" => Some(Self::Poll(POLL_DEFAULT)),
                _ => None,
            },
            Some(("mask", mask)) => hex(mask).map(Self::Mask),
            Some(("poll", time)) => parse_nanos(time, 1).map(|time| Self::Poll(Nanos(time))),
            Some(_) => None,
        }
    }
}

/// Which registers of a region a rule is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Which {
    All,
    Offsets(u64, u64),
    Indexes(u64, u64),
    Function(u16),
}

impl Which {
    /// An access of `size` bytes touches the register.
    fn holds(self, register: Register, size: u8) -> bool {
        match (self, register) {
            (Self::All, _) => true,
            (Self::Offsets(first, last), Register::Offset(at)) => {
                at <= last && at.saturating_add(u64::from(size).max(1) - 1) >= first
            }
            (Self::Indexes(first, last), Register::Index(at)) => {
                (first..=last).contains(&u64::from(at))
            }
            (Self::Function(function), Register::Pci(bdf, _)) => function == bdf,
            _ => false,
        }
    }
}

/// A policy for some registers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    region: String,
    which: Which,
    policy: Policy,
}

impl Rule {
    fn parse(text: &str) -> Option<Self> {
        let (what, policy) = text.rsplit_once(':')?;
        let policy = Policy::parse(policy.trim())?;
        let what = what.trim();
        let split = what.find(['+', '[']).unwrap_or(what.len());
        let (region, register) = what.split_at_checked(split)?;
        let which = match register.as_bytes() {
            [] => Which::All,
            [b'+', ..] => {
                let (first, last) = range(register.get(1..)?)?;
                Which::Offsets(first, last)
            }
            _ => {
                let inside = register.strip_prefix('[')?.strip_suffix(']')?;
                match function(inside) {
                    Some(bdf) => Which::Function(bdf),
                    None => {
                        let (first, last) = range(inside)?;
                        Which::Indexes(first, last)
                    }
                }
            }
        };
        (!region.is_empty()).then(|| Self { region: region.to_owned(), which, policy })
    }

    /// Whether the rule is for what is called `name`.
    fn is_for(&self, name: &str) -> bool {
        match self.region.strip_suffix('*') {
            Some(start) => name.starts_with(start),
            None => self.region == name,
        }
    }
}

fn hex(text: &str) -> Option<u64> {
    let digits = text.strip_prefix("0x").unwrap_or(text);
    digits.chars().all(|c| c.is_ascii_hexdigit()).then_some(())?;
    u64::from_str_radix(digits, 16).ok()
}

fn range(text: &str) -> Option<(u64, u64)> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (hex(first)?, hex(last)?);
    (first <= last).then_some((first, last))
}

/// `BB:DD.F`.
fn function(text: &str) -> Option<u16> {
    let (bus, rest) = text.split_once(':')?;
    let (slot, function) = rest.split_once('.')?;
    let (bus, slot, function) = (hex(bus)?, hex(slot)?, hex(function)?);
    let fits = bus <= 0xff && slot <= 0x1f && function <= 7;
    fits.then_some((bus << 8 | slot << 3 | function) as u16)
}

/// A default rule, and why.
#[derive(Debug)]
pub struct FreeRunning {
    /// In the words of `policy=`.
    pub rule: &'static str,
    /// Why it cannot be equal.
    pub why: &'static str,
}

/// What no replay can make equal: counters that run with time, not with accesses. A recording has
/// microseconds at best, and these count in less. Nothing else is excused.
pub const FREE_RUNNING: &[FreeRunning] = &[
    FreeRunning { rule: "acpi-tmr:ignore", why: "the ACPI timer counts 3.58 MHz" },
    FreeRunning { rule: "hpet+f0-f7:ignore", why: "the HPET's main counter counts 100 MHz" },
    FreeRunning { rule: "pit+0-2:ignore", why: "the PIT's counters count 1.19 MHz" },
    FreeRunning {
        rule: "pcspk:mask=cf",
        why: "port 61h: the refresh toggle (bit 4), and the output of counter 2 (bit 5)",
    },
    FreeRunning { rule: "rtc[0-9]:ignore", why: "time and date: when the recording was made" },
    FreeRunning { rule: "rtc[a]:mask=7f", why: "update in progress: the phase of the second" },
    FreeRunning { rule: "rtc[32]:ignore", why: "the century, as time and date" },
    FreeRunning { rule: "rtc[c]:mask=ef", why: "update ended: the phase of the second" },
    FreeRunning { rule: "apic-msi+390:ignore", why: "the local APIC's current count" },
];

/// The rules in force.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    /// The last one that fits counts.
    rules: Vec<Rule>,
}

impl Rules {
    /// The rules of a `policy=` option, after the defaults where they are wanted.
    ///
    /// # Errors
    /// A usage error that quotes the rule.
    pub fn parse(text: &str, with_defaults: bool) -> Result<Self> {
        let mut rules = Vec::new();
        for default in FREE_RUNNING.iter().filter(|_| with_defaults) {
            rules.extend(Rule::parse(default.rule));
        }
        for item in text.split(',').map(str::trim).filter(|item| !item.is_empty()) {
            let rule = Rule::parse(item).ok_or_else(|| bad_rule(item))?;
            rules.push(rule);
        }
        Ok(Self { rules })
    }

    /// Those that may concern a region that has these names and device: looked up once for each.
    pub fn for_region(&self, names: &[&str], device: &str) -> Vec<Rule> {
        let is_for = |rule: &&Rule| names.iter().chain([&device]).any(|name| rule.is_for(name));
        self.rules.iter().filter(is_for).rev().cloned().collect()
    }
}

/// The policy of `register` among [`Rules::for_region`].
pub fn policy_of(rules: &[Rule], register: Register, size: u8) -> Policy {
    let fitting = rules.iter().find(|rule| rule.which.holds(register, size));
    fitting.map_or(Policy::Exact, |rule| rule.policy)
}

fn bad_rule(item: &str) -> Error {
    Error::usage(format!("policy={item}: expected REGION[+OFFSET or [INDEX]]:POLICY")).hint(
        "policies: exact, ignore, mask=HEX, poll, poll=TIME; as in \
         policy=rtc[0-9]:poll=1s,,hpet+f0:ignore",
    )
}

/// The option, for help.
pub const SPEC: OptionSpec = OptionSpec {
    name: "policy",
    value: "RULES",
    default: "",
    help: "REGION[+OFFSET or [INDEX]]:exact|ignore|mask=HEX|poll[=TIME], joined by ,,",
};

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(text: &str, region: (&str, &str), register: Register, size: u8) -> Policy {
        let rules = Rules::parse(text, true).unwrap();
        policy_of(&rules.for_region(&[region.0], region.1), register, size)
    }

    #[test]
    fn every_default_is_a_rule_and_has_a_reason() {
        assert_eq!(Rules::parse("", true).unwrap().rules.len(), FREE_RUNNING.len());
        assert!(FREE_RUNNING.iter().all(|rule| !rule.why.is_empty()));
        assert_eq!(Rules::parse("", false).unwrap().rules, []);
    }

    #[test]
    fn the_last_rule_that_fits_counts_and_the_users_go_before_the_defaults() {
        let rtc = ("rtc", "rtc");
        assert_eq!(policy("", rtc, Register::Index(4), 1), Policy::Ignore);
        assert_eq!(policy("", rtc, Register::Index(0xb), 1), Policy::Exact);
        assert_eq!(policy("rtc:exact", rtc, Register::Index(4), 1), Policy::Exact);
        let two = "rtc:ignore,rtc[4]:poll=2ms";
        assert_eq!(policy(two, rtc, Register::Index(4), 1), Policy::Poll(Nanos(2_000_000)));
        assert_eq!(policy(two, rtc, Register::Index(5), 1), Policy::Ignore);
    }

    #[test]
    fn regions_are_named_or_globbed_and_devices_too() {
        let common = ("virtio-pci-common-virtio-blk", "virtio-blk");
        let at = Register::Offset(0x18);
        for text in ["virtio-*:mask=0xff", "virtio-blk:mask=ff", "*:mask=FF"] {
            assert_eq!(policy(text, common, at, 2), Policy::Mask(0xff), "{text}");
        }
        assert_eq!(policy("virtio:ignore", common, at, 2), Policy::Exact);
    }

    #[test]
    fn an_access_that_touches_an_offset_is_meant() {
        let hpet = ("hpet", "hpet");
        for (offset, size, want) in [
            (0xf0, 4, Policy::Ignore),
            (0xf4, 4, Policy::Ignore),
            (0xf7, 1, Policy::Ignore),
            (0xec, 8, Policy::Ignore),
            (0xf8, 8, Policy::Exact),
            (0xec, 4, Policy::Exact),
        ] {
            assert_eq!(policy("", hpet, Register::Offset(offset), size), want, "{offset:x}");
        }
    }

    #[test]
    fn a_pci_function_is_chosen_by_its_address() {
        let text = "pci-conf-data[00:02.0]:ignore";
        let data = ("pci-conf-data", "pci");
        assert_eq!(policy(text, data, Register::Pci(0x10, 4), 4), Policy::Ignore);
        assert_eq!(policy(text, data, Register::Pci(0x11, 4), 4), Policy::Exact);
    }

    #[test]
    fn what_is_no_rule_is_quoted() {
        for bad in [
            "rtc",
            "rtc:",
            ":ignore",
            "+f0:ignore",
            "rtc:maybe",
            "rtc:mask=",
            "rtc:mask=xyz",
            "rtc:mask=+1",
            "rtc:poll=soon",
            "rtc[4:ignore",
            "rtc[9-0]:ignore",
            "hpet+:ignore",
            "pci[00:20.0]:ignore",
            "rtc[é]:ignore",
        ] {
            let error = Rules::parse(bad, false).unwrap_err();
            assert_eq!(error.kind().exit_code(), 2, "{bad}");
            assert!(error.to_string().contains(bad), "{error}");
        }
    }
}
