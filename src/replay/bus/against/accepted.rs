//! Where machines may differ.
//!
//! Everything that is accepted stands in one table, each entry with the section of the
//! specification that leaves it open, or with the bug that it comes of: bugs that cases look at
//! are named by their case, and described where cases find them. What is not in the table and
//! differs is a divergence.

use crate::suite::known::{BUGS, KnownBug};

/// A difference that is no divergence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Accepted {
    /// Cases whose recordings it is for, joined by spaces, each with a `*` at its end for anything;
    /// empty for every trace.
    pub cases: &'static str,
    /// Where, in the words of `policy=`, joined by commas: `REGION[REGISTER]:ignore`, `mask=` with
    /// the bits that must be equal, or `near=`. Levels of interrupt lines are the region
    /// `intx-level`, their edges `intx`.
    pub rules: &'static str,
    /// What differs.
    pub what: &'static str,
    /// Why that is accepted.
    pub why: Why,
}

/// Why a difference is accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// This section leaves it open.
    Open(&'static str),
    /// A kind of machine does not follow this section, and no case looks at it.
    Bug(&'static str, &'static str),
    /// The bugs that this case shows.
    Known(&'static str),
}

/// What is accepted in one trace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// As [`Accepted::rules`].
    pub rules: &'static str,
    /// What differs.
    pub what: &'static str,
    /// The section that allows it, or the bug.
    pub why: String,
}

impl Accepted {
    fn is_for(&self, case: Option<&str>) -> bool {
        let fits = |pattern: &str, case: &str| match pattern.strip_suffix('*') {
            Some(start) => case.starts_with(start),
            None => case == pattern,
        };
        let mut patterns = self.cases.split_whitespace();
        self.cases.is_empty() || case.is_some_and(|case| patterns.any(|p| fits(p, case)))
    }

    /// The reason, between machines of these kinds; `None` where the bug is neither's.
    fn reason(&self, kinds: [&str; 2]) -> Option<String> {
        match self.why {
            Why::Open(section) => Some(section.to_owned()),
            Why::Bug(machine, section) => kinds.contains(&machine).then(|| bug(machine, section)),
            Why::Known(case) => {
                let shown = |bug: &&KnownBug| bug.case == case && kinds.contains(&bug.machine);
                BUGS.iter().find(shown).map(KnownBug::reason)
            }
        }
    }
}

/// What is accepted in the recording of `case`, or in any other trace, between machines of two
/// kinds.
pub fn entries(case: Option<&str>, kinds: [&str; 2]) -> Vec<Entry> {
    let table = ACCEPTED.iter().filter(|accepted| accepted.is_for(case));
    let entry = |accepted: &Accepted| {
        let why = accepted.reason(kinds)?;
        Some(Entry { rules: accepted.rules, what: accepted.what, why })
    };
    table.filter_map(entry).collect()
}

fn bug(machine: &str, section: &str) -> String {
    let name = if machine == "qemu" { "QEMU" } else { machine };
    format!("{name} bug ({section})")
}

/// The table for people.
pub fn help() -> String {
    let mut out = String::new();
    for accepted in ACCEPTED {
        let cases = if accepted.cases.is_empty() { "every trace" } else { accepted.cases };
        let why = match accepted.why {
            Why::Open(section) => section.to_owned(),
            Why::Bug(machine, section) => bug(machine, section),
            Why::Known(case) => format!("the bug that {case} shows"),
        };
        out.push_str(&format!("  {cases}: {}\n    {}: {why}\n", accepted.rules, accepted.what));
    }
    out
}

const fn open(
    cases: &'static str,
    rules: &'static str,
    what: &'static str,
    section: &'static str,
) -> Accepted {
    Accepted { cases, rules, what, why: Why::Open(section) }
}

const fn qemu(
    cases: &'static str,
    rules: &'static str,
    what: &'static str,
    section: &'static str,
) -> Accepted {
    Accepted { cases, rules, what, why: Why::Bug("qemu", section) }
}

const fn known(
    cases: &'static str,
    rules: &'static str,
    what: &'static str,
    case: &'static str,
) -> Accepted {
    Accepted { cases, rules, what, why: Why::Known(case) }
}

/// Cases in which everything that a counter of the 8254 shows follows from the bugs of its modes.
const PIT: &str = "pit:ignore,pcspk:mask=cf,intx[0]:ignore,intx-level[0]:ignore";

/// Register C with the interrupts that it tells of.
const RTC_FLAGS: &str = "rtc[c]:ignore,intx[8]:ignore,intx-level[8]:ignore";

/// All of them. Of several rules for a register the last one counts.
#[rustfmt::skip]
pub const ACCEPTED: &[Accepted] = &[
    // 8254
    open("", "pit+0-2:near=2,intx[0]:near=1",
        "a count is up to one CLK further, which is 2 in mode 3; an edge comes that much later",
        "8254 data sheet, Mode Definitions: a count is loaded at the CLK after its write; where \
         the edges of CLK are between two writes is the board's"),
    open("", "pcspk:mask=cf",
        "port 61h: OUT of counter 2 (bit 5) one CLK earlier, and the refresh toggle (bit 4)",
        "8254 data sheet, Mode Definitions, as above; IBM PC/AT technical reference, port 61h: \
         bit 4 follows refresh requests, whose phase nobody promises"),
    known("pit/initial-output", PIT, "counters and their outputs", "pit/initial-output"),
    known("pit/one-shot", PIT, "counters and their outputs", "pit/one-shot"),
    known("pit/rate-generator pit/rate", PIT, "counters and their outputs", "pit/rate-generator"),
    known("pit/mode-bits", PIT, "counters and their outputs", "pit/mode-bits"),
    known("pit/strobe", PIT, "counters and their outputs", "pit/strobe"),
    known("pit/triggered-strobe", PIT, "counters and their outputs", "pit/triggered-strobe"),
    known("pit/half-count pit/latch pit/fuzz", PIT, "counters and their outputs", "pit/half-count"),
    known("pit/new-count pit/irq0-rate", PIT, "counters and their outputs", "pit/new-count"),
    known("pit/null-count pit/read-back", PIT, "counters and their outputs", "pit/null-count"),
    known("pit/bcd", PIT, "counters and their outputs", "pit/bcd"),
    known("pit/gate-stops pit/gate pit/control-word", PIT, "counters and their outputs",
        "pit/gate-stops"),
    qemu("pit/fuzz pit/port-61", "pcspk:mask=c3",
        "port 61h: bits 2 and 3, which enable parity and channel checks, read as zeros",
        "IBM PC/AT technical reference, port 61h: they read as they were written"),
    open("", "intx-level[0]:ignore",
        "the level of IRQ 0 between its edges, and before counter 0 is programmed",
        "8254 data sheet, Programming the 8254: before its first control word a counter's output \
         is undefined"),
    // MC146818A
    known("", "rtc[c]:mask=bf", "PF, bit 6 of register C", "rtc/periodic-flag-without-enable"),
    open("", "rtc[a]:mask=7f,intx[8]:near=1",
        "UIP while an update is under way, and an update\'s or an alarm\'s interrupt up to 2 ms earlier",
        "MC146818A data sheet, table 6: an update cycle takes 1984 us; a minimum is given for the \
         time before it only, and QEMU\'s takes no time"),
    open("rtc/drift rtc/periodic rtc/periodic-change rtc/set",
        "rtc[c]:mask=2f,intx[8]:ignore,intx-level[8]:ignore",
        "when the periodic interrupt comes within its period, and UF within the update cycle",
        "MC146818A data sheet, tables 5 and 6: the period of a rate is given, and not when the \
         first one ends after it is chosen"),
    qemu("", "intx-level[1]:ignore", "IRQ 1 while the keyboard is disabled (command ADh)",
        "IBM PS/2 technical reference, keyboard and auxiliary device controller: bit 0 of the \
         command byte alone decides"),
    known("rtc/alarm-12h-midnight", RTC_FLAGS, "when the alarm comes", "rtc/alarm-12h-midnight"),
    known("rtc/alarm-invalid", RTC_FLAGS, "when the alarm comes", "rtc/alarm-invalid"),
    known("rtc/divider-reset-periodic", RTC_FLAGS, "periodic interrupts",
        "rtc/divider-reset-periodic"),
    known("rtc/before-1970", "rtc[0-9]:ignore,rtc[32]:ignore,rtc[c]:mask=8f", "the time", "rtc/before-1970"),
    known("rtc/after-2262", "rtc[0-9]:ignore,rtc[32]:ignore,rtc[c]:mask=8f", "the time", "rtc/after-2262"),
    open("rtc/fuzz rtc/registers rtc/invalid-time",
        "rtc[0-9]:ignore,rtc[32]:ignore,rtc[37]:ignore,rtc[c]:ignore,intx[8]:ignore,intx-level[8]:ignore",
        "what becomes of a time that is none",
        "MC146818A data sheet, time, calendar, and alarm locations, table 3: bytes outside their \
         range mean nothing"),
    open("", "rtc[10]:ignore,rtc[14]:mask=fe",
        "floppy drives, in bytes 10h and 14h of CMOS RAM",
        "MC146818A data sheet, RAM: it holds what whoever assembled the machine wrote there; \
         QEMU has a drive only with defaults=on"),
    // HPET
    known("hpet/capabilities hpet/fuzz hpet/routes", "hpet:ignore,intx:ignore,intx-level:ignore",
        "routes that are not offered, and lines that follow from them", "hpet/routes"),
    known("hpet/periodic hpet/periodic-change hpet/periodic-count", "hpet:ignore,intx:ignore", "periodic interrupts",
        "hpet/periodic-count"),
    known("hpet/periodic-whole", "hpet:ignore,intx:ignore", "a periodic timer's accumulator",
        "hpet/periodic-whole"),
    known("hpet/32-bit-again hpet/32-bit", "hpet:ignore,intx:ignore", "a 32-bit timer",
        "hpet/32-bit-again"),
    known("hpet/status-without-enable", "hpet:ignore,intx:ignore,intx-level:ignore", "the status",
        "hpet/status-without-enable"),
    open("hpet/legacy", "intx[0]:near=2",
        "an edge of IRQ 0 when it is taken from the 8254 or given back",
        "IA-PC HPET 1.0a §2.3.5: LEG_RT says whose the line is, and not what becomes of its level"),
    // Interrupt controllers
    known("pic/special-mask-pending", "acknowledge:ignore,intr:ignore", "what waits",
        "pic/special-mask-pending"),
    known("ioapic/polarity", "ioapic:ignore", "a low-active input", "ioapic/polarity"),
    known("ioapic/assert", "ioapic:ignore", "a message of a level", "ioapic/assert"),
    open("", "ioapic[10-3e/2]:mask=1ffff,ioapic[11-3f/2]:mask=ff000000",
        "bits 17 to 55 of a redirection entry, written as ones",
        "82093AA data sheet §3.2.4: reserved; nobody may write anything else than 0 there"),
    // Others
    qemu("", "i8042-cmd:mask=fb", "the system flag, bit 2 of the status",
        "IBM PS/2 technical reference, keyboard and auxiliary device controller: the status shows \
         bit 2 of the command byte, whoever wrote that"),
    open("fw_cfg/directory fw_cfg/dma-files", "fw_cfg:ignore,memory:ignore",
        "which files there are, and what is in them",
        "QEMU's fw_cfg specification, file directory: files are the board's"),
    open("serial/*", "serial+0:ignore", "the receiver buffer with nothing in it",
        "PC16550D data sheet, §8.4.1, line status register: without DR there is no character"),
    known("serial/*", "serial+6:mask=f0", "the delta bits of MSR", "serial/modem-delta"),
    known("serial/modem-delta", "serial+2:ignore,intx[4]:ignore,intx-level[4]:ignore",
        "the interrupt of the delta bits", "serial/modem-delta"),
    known("acpi-pm/sci-enable", "acpi-pm:ignore,intx[9]:ignore,intx-level[9]:ignore", "SCI",
        "acpi-pm/sci-enable"),
    // PCI
    known("pci/bar-decode pci/unassigned-memory", "mmio:ignore", "memory that no device decodes", "pci/unassigned-memory"),
    open("pci/command", "pci-conf-data[*+4]:mask=ffbf",
        "whether the parity error response, bit 6 of the command register, is held",
        "PCI 3.0 §6.2.2: a function that checks no parity need not have it"),
    open("pci/ecam", "mmio+b00200a0-b00200a3:ignore",
        "where the pending bits of MSI-X are in their BAR, read through memory",
        "PCI 3.0 §6.8.2: the function says so in its capability"),
    open("pci/msix pci/ecam virtio-blk/*",
        "pci-conf-data[*+a0]:ignore,pci-conf-data[*+a1]:ignore,msix-pba:ignore",
        "where the pending bits of MSI-X are in their BAR",
        "PCI 3.0 §6.8.2: the function says so in its capability; what is read where the other \
         machine has them is something else"),
    // virtio
    known("virtio-blk/indirect-behind", "virtio-*:ignore,memory:ignore", "what was broken",
        "virtio-blk/indirect-behind"),
    open("virtio-blk/bad-*", "virtio-*:ignore,memory:ignore,interrupts:ignore,msi*:ignore",
        "what becomes of a driver that breaks the protocol",
        "virtio 1.2 §2.1.2: a device that needs a reset should say so, and what else it does is \
         its own"),
    qemu("virtio-blk/bounds virtio-blk/block-size virtio-blk/resize", "memory+7fdf000-7fdffff:ignore",
        "the length in the used ring of a read that failed: with the data that was not written",
        "virtio 1.2 §2.7.8.2: no more than was written"),
    qemu("virtio-blk/resize*", "virtio-pci-isr*:mask=fe",
        "the queue\'s bit of the ISR status is set when the configuration changes",
        "virtio 1.2 §4.1.4.5: bit 0 is for queues"),
    open("virtio-blk/resize", "memory+7ff0000:ignore",
        "sectors of a disk that shrank and grew again",
        "virtio 1.2 §5.2: what is in sectors that come is the disk\'s"),
    open("virtio-blk/get-id", "memory+7ff0000:ignore",
        "bytes behind the identifier\'s end",
        "virtio 1.2 §5.2.6: an identifier shorter than 20 bytes ends with a zero"),
    open("virtio-blk/discard virtio-blk/write-zeroes", "memory:ignore,virtio-*:ignore",
        "what follows a request with half a segment, after which QEMU wants a reset",
        "virtio 1.2 §5.2.6.1: a driver sends whole segments; §2.1.2: a device may need a reset \
         after one that does not"),
    open("", "virtio-pci-common*+1e-1f:ignore", "queue_notify_off",
        "virtio 1.2 §4.1.4.4: where a queue\'s doorbell is, the device says"),
    open("", "virtio-pci-device*+1a-1b:ignore",
        "min_io_size: 1 block; QEMU says 0, unknown",
        "virtio 1.2 §5.2.4: a hint of the device's"),
    open("", "virtio-pci-device*+24-33:ignore",
        "limits of discards and of zeroes",
        "virtio 1.2 §5.2.4: max_discard_sectors, max_discard_seg, max_write_zeroes_sectors and \
         the like are the device's own"),
    open("", "virtio-pci-common*+4-7:mask=ffff9fff,virtio-pci+0-3:mask=beffffff",
        "features: DISCARD and WRITE_ZEROES of a read-only disk; NOTIFY_ON_EMPTY and bit 30",
        "virtio 1.2 §2.2: which features a device offers is its own"),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replay::bus::policy::Rules;
    use crate::suite::registry::MODULES;
    use crate::suite::select::full_name;

    #[test]
    fn every_entry_is_rules_with_a_reason_for_cases_that_there_are() {
        let cases: Vec<String> =
            MODULES.iter().flat_map(|m| m.cases().iter().map(|c| full_name(*m, c))).collect();
        for entry in ACCEPTED {
            let Accepted { rules, what, .. } = entry;
            assert!(Rules::behind(rules.split(','), "").is_ok(), "{rules}");
            assert!(!what.is_empty() && !what.ends_with('.'), "{rules}");
            let why = entry.reason(["builtin", "qemu"]).unwrap_or_default();
            assert!(!why.is_empty() && !why.ends_with('.'), "{rules}: no reason");
            for pattern in entry.cases.split_whitespace() {
                let alone = Accepted { cases: pattern, ..*entry };
                assert!(cases.iter().any(|case| alone.is_for(Some(case))), "{pattern}");
            }
        }
    }

    #[test]
    fn a_bug_is_accepted_where_a_machine_of_its_kind_is_compared() {
        let of = |case, kinds| entries(case, kinds).len();
        let both = ["builtin", "qemu"];
        assert!(of(Some("rtc/alarm-invalid"), both) > of(None, both));
        assert!(of(None, both) > of(None, ["builtin", "builtin"]));
        let reasons = entries(Some("rtc/alarm-invalid"), both);
        let bug = BUGS.iter().find(|bug| bug.case == "rtc/alarm-invalid").unwrap();
        assert!(reasons.iter().any(|entry| entry.why == bug.reason()), "{reasons:?}");
    }
}
