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
//!         | [A-B/N]               every Nth of these
//!         | [BB:DD.F]             of a PCI function; [BB:DD.F+A] one register, [*+A] of any
//! WHAT    = exact | ignore | mask=HEX | near=N | poll | poll=TIME
//! ```
//!
//! `rtc[0-9]:poll=1s,,hpet+f0:ignore,,pci-conf-data[00:02.0]:ignore,,serial+5:mask=1`

use super::regions::Register;
use crate::base::options::OptionSpec;
use crate::base::units::parse_nanos;
use crate::base::{BusAccess, Error, Nanos, Result};

/// How long `poll` repeats a read, in the machine's time, unless told.
const POLL_DEFAULT: Nanos = Nanos(1_000_000_000);

/// What a recorded read asks of the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// The recorded value.
    Exact,
    /// The recorded value in these bits.
    Mask(u64),
    /// The recorded value or one of so many on either side of it, as counters go round.
    Near(u64),
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
            Some(("near", most)) => most.parse().ok().map(Self::Near),
            Some(("poll", time)) => parse_nanos(time, 1).map(|time| Self::Poll(Nanos(time))),
            Some(_) => None,
        }
    }
}

impl Policy {
    /// Whether a read of `size` bytes that is not `wanted` may be `got`, without another read.
    pub fn allows(self, wanted: u64, got: u64, size: u8) -> bool {
        match self {
            Self::Ignore => true,
            Self::Mask(mask) => (wanted ^ got) & mask == 0,
            Self::Near(most) => {
                let apart = |a: u64, b: u64| a.wrapping_sub(b) & BusAccess::ones(size);
                apart(wanted, got) <= most || apart(got, wanted) <= most
            }
            Self::Exact | Self::Poll(_) => wanted == got,
        }
    }
}

/// Which registers of a region a rule is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Which {
    All,
    Offsets(u64, u64),
    /// First, last, and from one to the next.
    Indexes(u64, u64, u64),
    /// A PCI function, or any; one of its registers, or all.
    Function(Option<u16>, Option<u64>),
}

impl Which {
    /// An access of `size` bytes touches the register.
    fn holds(self, register: Register, size: u8) -> bool {
        match (self, register) {
            (Self::All, _) => true,
            (Self::Offsets(first, last), Register::Offset(at)) => {
                at <= last && at.saturating_add(u64::from(size).max(1) - 1) >= first
            }
            (Self::Indexes(first, last, every), Register::Index(at)) => {
                let at = u64::from(at);
                (first..=last).contains(&at) && (at - first) % every == 0
            }
            (Self::Function(function, register), Register::Pci(bdf, at)) => {
                function.is_none_or(|function| function == bdf)
                    && register.is_none_or(|register| register == u64::from(at))
            }
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
    /// Its number among all, in the order of their texts.
    number: usize,
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
                    Some(which) => which,
                    None => {
                        let (inside, every) = inside.split_once('/').unwrap_or((inside, "1"));
                        let (first, last) = range(inside)?;
                        Which::Indexes(first, last, hex(every).filter(|every| *every > 0)?)
                    }
                }
            }
        };
        (!region.is_empty()).then(|| Self { region: region.to_owned(), which, policy, number: 0 })
    }

    /// What it asks.
    pub fn policy(&self) -> Policy {
        self.policy
    }

    /// Its number among all rules in force, those that a table has before the user's.
    pub fn number(&self) -> usize {
        self.number
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

/// `BB:DD.F`, `BB:DD.F+A`, `*+A`.
fn function(text: &str) -> Option<Which> {
    let Some((function, register)) = text.split_once('+') else {
        return Some(Which::Function(Some(address(text)?), None));
    };
    let function = if function == "*" { None } else { Some(address(function)?) };
    Some(Which::Function(function, Some(hex(register)?)))
}

/// `BB:DD.F`.
fn address(text: &str) -> Option<u16> {
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
    /// How many of them, at the front, no user named.
    table: usize,
}

impl Rules {
    /// The rules of a `policy=` option, after the defaults where they are wanted.
    ///
    /// # Errors
    /// A usage error that quotes the rule.
    pub fn parse(text: &str, with_defaults: bool) -> Result<Self> {
        let defaults = FREE_RUNNING.iter().filter(|_| with_defaults).map(|default| default.rule);
        Self::behind(defaults, text)
    }

    /// The rules of a table, and behind them those of a `policy=` option.
    ///
    /// # Errors
    /// A usage error that quotes the rule.
    pub fn behind<'t>(table: impl Iterator<Item = &'t str>, text: &'t str) -> Result<Self> {
        let mut rules = Vec::new();
        let mut add = |item: &str| -> Result<()> {
            let rule = Rule::parse(item).ok_or_else(|| bad_rule(item))?;
            rules.push(Rule { number: rules.len(), ..rule });
            Ok(())
        };
        let mut in_table = 0;
        for item in table {
            add(item)?;
            in_table += 1;
        }
        text.split(',').map(str::trim).filter(|item| !item.is_empty()).try_for_each(add)?;
        Ok(Self { rules, table: in_table })
    }

    /// The regions of the user's rules that are none of `names`: each of them does nothing.
    pub fn idle(&self, names: &[&str]) -> Vec<&str> {
        let users = self.rules.iter().filter(|rule| rule.number >= self.table);
        let idle = users.filter(|rule| !names.iter().any(|name| rule.is_for(name)));
        idle.map(|rule| rule.region.as_str()).collect()
    }

    /// Those that may concern a region that has these names and device: looked up once for each.
    pub fn for_region(&self, names: &[&str], device: &str) -> Vec<Rule> {
        let is_for = |rule: &&Rule| names.iter().chain([&device]).any(|name| rule.is_for(name));
        self.rules.iter().filter(is_for).rev().cloned().collect()
    }
}

/// The policy of `register` among [`Rules::for_region`].
pub fn policy_of(rules: &[Rule], register: Register, size: u8) -> Policy {
    rule_of(rules, register, size).map_or(Policy::Exact, |rule| rule.policy)
}

/// The rule for `register` among [`Rules::for_region`].
pub fn rule_of(rules: &[Rule], register: Register, size: u8) -> Option<&Rule> {
    rules.iter().find(|rule| rule.which.holds(register, size))
}

fn bad_rule(item: &str) -> Error {
    Error::usage(format!("policy={item}: expected REGION[+OFFSET or [INDEX]]:POLICY")).hint(
        "policies: exact, ignore, mask=HEX, near=N, poll, poll=TIME; as in \
         policy=rtc[0-9]:poll=1s,,hpet+f0:ignore",
    )
}

/// The option, for help.
pub const SPEC: OptionSpec = OptionSpec {
    name: "policy",
    value: "RULES",
    default: "",
    help: "REGION[+OFFSET or [INDEX]]:exact|ignore|mask=HEX|near=N|poll[=TIME], joined by ,,",
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
    fn counters_are_near_each_other_as_they_go_round() {
        let allows = |wanted, got, size| Policy::Near(2).allows(wanted, got, size);
        assert!(allows(7, 9, 1) && allows(9, 7, 1) && !allows(7, 10, 1));
        assert!(allows(0xff, 1, 1) && allows(1, 0xff, 1) && !allows(0xff, 1, 2));
        assert!(allows(u64::MAX, 1, 8) && !allows(u64::MAX, 2, 8));
        assert_eq!(Policy::parse("near=2"), Some(Policy::Near(2)));
        assert!(["near", "near=", "near=-1", "near=x"].iter().all(|t| Policy::parse(t).is_none()));
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
    fn rules_of_the_users_that_are_for_no_region_are_told() {
        let rules = Rules::parse("rtc:ignore,hept+f0:ignore,virtio-*:exact", true).unwrap();
        assert_eq!(rules.idle(&["rtc", "virtio-pci-common"]), ["hept"]);
        assert_eq!(rules.idle(&[]), ["rtc", "hept", "virtio-*"], "and none of the table's");
    }

    #[test]
    fn every_nth_of_a_range_is_meant() {
        let ioapic = ("ioapic", "ioapic");
        let policy = |at| policy("ioapic[10-3e/2]:ignore", ioapic, Register::Index(at), 4);
        assert!([0x10, 0x12, 0x3e].iter().all(|at| policy(*at) == Policy::Ignore));
        assert!([0xf, 0x11, 0x3f, 0x40].iter().all(|at| policy(*at) == Policy::Exact));
    }

    #[test]
    fn a_pci_function_is_chosen_by_its_address() {
        let text = "pci-conf-data[00:02.0]:ignore";
        let data = ("pci-conf-data", "pci");
        assert_eq!(policy(text, data, Register::Pci(0x10, 4), 4), Policy::Ignore);
        assert_eq!(policy(text, data, Register::Pci(0x11, 4), 4), Policy::Exact);
        let one = "pci-conf-data[00:02.0+4]:ignore";
        assert_eq!(policy(one, data, Register::Pci(0x10, 4), 4), Policy::Ignore);
        assert_eq!(policy(one, data, Register::Pci(0x10, 8), 4), Policy::Exact);
        let any = "pci-conf-data[*+4]:ignore";
        assert_eq!(policy(any, data, Register::Pci(0x88, 4), 2), Policy::Ignore);
        assert_eq!(policy(any, data, Register::Pci(0x88, 8), 2), Policy::Exact);
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
            "ioapic[10-3e/0]:ignore",
            "ioapic[10-3e/]:ignore",
            "hpet+:ignore",
            "pci[00:20.0]:ignore",
            "pci[00:02.0+]:ignore",
            "pci[+4]:ignore",
            "rtc[é]:ignore",
        ] {
            let error = Rules::parse(bad, false).unwrap_err();
            assert_eq!(error.kind().exit_code(), 2, "{bad}");
            assert!(error.to_string().contains(bad), "{error}");
        }
    }
}
