//! Bugs of machines that are not ours, which our cases show: a case that one of them fails is
//! skipped, and says so with what it found. What a specification leaves open is no bug, and a case
//! accepts all of it.

use super::outcome::{Finding, HUNG, MACHINE_DIED, MACHINE_HUNG, MACHINE_PANICKED, PANICKED};

/// A bug of a kind of machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KnownBug {
    /// The kind: `qemu`.
    pub machine: &'static str,
    /// The case that shows it: `rtc/drift`.
    pub case: &'static str,
    /// How [`Finding::what`] begins where this bug is what was found: another finding of the same
    /// case is a failure.
    pub finding: &'static str,
    /// What the machine does.
    pub what: &'static str,
    /// What it should follow: `MC146818A data sheet, register C`.
    pub section: &'static str,
}

/// Those that are known, in the order of the cases.
pub const BUGS: &[KnownBug] = super::known_qemu::BUGS;

impl KnownBug {
    /// Why a case is skipped that shows it.
    pub fn reason(&self) -> String {
        let name = match self.machine {
            "qemu" => "QEMU",
            // The only server that is started here.
            "vhost-user" => "qemu-storage-daemon",
            other => other,
        };
        format!("{name} bug: {} ({})", self.what, self.section)
    }
}

/// How a finding begins that no entry covers.
const ENDS: [&str; 5] = [HUNG, PANICKED, MACHINE_DIED, MACHINE_HUNG, MACHINE_PANICKED];

/// The bug of a kind of machine that a finding of a case shows, if it is known. The end of a machine
/// or of a case never is.
pub(super) fn shown<'a>(
    bugs: &'a [KnownBug],
    (machine, case): (&str, &str),
    finding: &Finding,
) -> Option<&'a KnownBug> {
    if ENDS.contains(&finding.what.as_str()) {
        return None;
    }
    of_case(bugs, machine, case).find(|bug| finding.what.starts_with(bug.finding))
}

/// The known bugs that a case looks at.
pub(super) fn of_case<'a>(
    bugs: &'a [KnownBug],
    machine: &str,
    case: &str,
) -> impl Iterator<Item = &'a KnownBug> {
    bugs.iter().filter(move |bug| bug.machine == machine && bug.case == case)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Nanos;
    use crate::suite::machines::KINDS;
    use crate::suite::registry::MODULES;
    use crate::suite::select::full_name;

    const BUG: KnownBug = KnownBug {
        machine: "qemu",
        case: "a/b",
        finding: "register C",
        what: "it is wrong",
        section: "§1",
    };

    fn finding(what: &str) -> Finding {
        let (what, expected, got) = (what.to_owned(), String::new(), String::new());
        Finding { what, expected, got, time_ns: Nanos(0) }
    }

    #[test]
    fn a_bug_is_shown_by_its_finding_only() {
        let shows = |machine, case, what| shown(&[BUG], (machine, case), &finding(what)).is_some();
        assert!(shows("qemu", "a/b", "register C, PF"));
        assert!(!shows("qemu", "a/b", "register B"));
        assert!(!shows("qemu", "a/c", "register C"));
        assert!(!shows("builtin", "a/b", "register C"));
        assert_eq!(BUG.reason(), "QEMU bug: it is wrong (§1)");
    }

    #[test]
    fn no_entry_covers_an_end() {
        for what in ENDS {
            let all = KnownBug { finding: "", ..BUG };
            assert!(shown(&[all], ("qemu", "a/b"), &finding("anything else")).is_some());
            assert!(shown(&[all], ("qemu", "a/b"), &finding(what)).is_none(), "{what}");
        }
    }

    #[test]
    fn every_entry_names_a_machine_a_case_and_a_finding() {
        let cases: Vec<String> =
            MODULES.iter().flat_map(|m| m.cases().iter().map(|c| full_name(*m, c))).collect();
        for bug in BUGS {
            assert!(KINDS.iter().any(|kind| kind.name() == bug.machine), "{bug:?}");
            assert!(cases.iter().any(|case| case == bug.case), "{bug:?}");
            let texts = [bug.finding, bug.what, bug.section];
            assert!(texts.iter().all(|text| !text.trim().is_empty()), "{bug:?}");
            assert!(!bug.what.ends_with('.') && !bug.section.ends_with('.'), "{bug:?}");
        }
    }
}
