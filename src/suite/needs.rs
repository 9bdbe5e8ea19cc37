//! What cases need and machines lack, in words.

use crate::machine::Capabilities;
use crate::machine::builtin::Chips;

const WORDS: &[(Capabilities, &str)] = &[
    (Capabilities::PIO, "port I/O"),
    (Capabilities::MMIO, "memory-mapped I/O"),
    (Capabilities::MEMORY, "shared guest RAM"),
    (Capabilities::INTX, "interrupt lines"),
    (Capabilities::MSIX, "MSI messages"),
    (Capabilities::VIRTUAL_CLOCK, "a virtual clock"),
    (Capabilities::TIMERS, "timers that run"),
    (Capabilities::CPU_IRQ, "a CPU's interrupt pins"),
    (Capabilities::VRINGS, "a vhost-user ring interface"),
    (Capabilities::THREADS, "several test threads"),
    (Capabilities::RESIZE, "disks that can be resized"),
    (Capabilities::VIRTIO, "virtio devices"),
    (Capabilities::QUEUE_EVENTS, "an event for each virtio queue"),
    (Capabilities::DISK_IDS, "disks with identifiers of one's own"),
    (Capabilities::APIC_MESSAGES, "a bus that shows interrupt messages"),
];

/// A list of facets for people.
pub fn words(capabilities: Capabilities) -> Vec<&'static str> {
    WORDS.iter().filter(|(bit, _)| capabilities.contains(*bit)).map(|(_, word)| *word).collect()
}

/// What machines of a kind lack, and why.
#[derive(Clone, Copy, Debug)]
pub struct Lack {
    /// Chips that none of them has.
    pub chips: Chips,
    /// Facets that not all of them have.
    pub facets: Capabilities,
    /// None of them has those facets, whatever its options.
    pub never: bool,
    /// A sentence without its full stop.
    pub why: &'static str,
}

/// What the best machine of a kind has.
pub fn best(lacks: &[Lack]) -> (Capabilities, Chips) {
    let chips = lacks.iter().fold(Chips::all(), |chips, lack| chips - lack.chips);
    let never = lacks.iter().filter(|lack| lack.never).map(|lack| lack.facets);
    (never.fold(Capabilities::all(), |facets, lack| facets - lack), chips)
}

/// Why a machine cannot run a case, if it cannot: `qemu lacks a virtual clock`, or in the words of
/// its kind `qemu: no CPU runs`.
pub fn missing(
    (machine, why): (&str, &[Lack]),
    (has, chips): (Capabilities, Chips),
    (needs, needs_chips): (Capabilities, Chips),
) -> Option<String> {
    let (mut facets, mut chips) = (needs - has, needs_chips - chips);
    let mut reasons = Vec::new();
    for lack in why {
        if facets.intersects(lack.facets) || chips.intersects(lack.chips) {
            facets -= lack.facets;
            chips -= lack.chips;
            reasons.push(lack.why.to_owned());
        }
    }
    let mut lacks: Vec<String> = words(facets).into_iter().map(str::to_owned).collect();
    lacks.extend(chips.iter_names().map(|(name, _)| name.to_lowercase().replace('_', "-")));
    match (lacks.is_empty(), reasons.is_empty()) {
        (true, true) => None,
        (true, false) => Some(format!("{machine}: {}", reasons.join("; "))),
        (false, _) => {
            reasons.insert(0, format!("{machine} lacks {}", lacks.join(", ")));
            Some(reasons.join("; "))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_facet_has_a_word() {
        for (name, bit) in Capabilities::all().iter_names() {
            assert_eq!(words(bit).len(), 1, "{name}");
        }
    }

    #[test]
    fn what_is_missing_is_said() {
        let has = (Capabilities::PIO, Chips::RTC);
        assert_eq!(missing(("m", &[]), has, has), None);
        let needs = (Capabilities::PIO | Capabilities::VIRTUAL_CLOCK, Chips::FW_CFG);
        let text = missing(("m", &[]), has, needs).unwrap();
        assert_eq!(text, "m lacks a virtual clock, fw-cfg");
    }

    #[test]
    fn a_kind_has_its_own_words() {
        let why = |chips, facets, why| Lack { chips, facets, never: false, why };
        let lacks = [
            why(Chips::LAPIC, Capabilities::CPU_IRQ, "no CPU runs"),
            why(Chips::HPET, Capabilities::empty(), "time stands still"),
        ];
        let text = |facets, chips| {
            let nothing = (Capabilities::empty(), Chips::empty());
            missing(("m", &lacks), nothing, (facets, chips)).unwrap()
        };
        assert_eq!(text(Capabilities::CPU_IRQ, Chips::LAPIC), "m: no CPU runs");
        let (facets, chips) = best(&lacks);
        assert_eq!(facets, Capabilities::all(), "a facet may be a matter of options");
        assert!(!chips.intersects(Chips::LAPIC | Chips::HPET) && chips.contains(Chips::RTC));
        assert_eq!(text(Capabilities::CPU_IRQ, Chips::HPET), "m: no CPU runs; time stands still");
        let never = Lack { never: true, ..lacks[0] };
        assert_eq!(best(&[never]).0, Capabilities::all() - Capabilities::CPU_IRQ);
        assert_eq!(text(Capabilities::CPU_IRQ, Chips::FW_CFG), "m lacks fw-cfg; no CPU runs");
    }
}
