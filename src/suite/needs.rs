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
    (Capabilities::CPU_IRQ, "a CPU's interrupt pins"),
    (Capabilities::VRINGS, "a vhost-user ring interface"),
    (Capabilities::THREADS, "several test threads"),
    (Capabilities::RESIZE, "disks that can be resized"),
];

/// A list of facets for people.
pub fn words(capabilities: Capabilities) -> Vec<&'static str> {
    WORDS.iter().filter(|(bit, _)| capabilities.contains(*bit)).map(|(_, word)| *word).collect()
}

/// Why a machine cannot run a case, if it cannot.
pub(super) fn missing(
    machine: &str,
    (has, chips): (Capabilities, Chips),
    (needs, needs_chips): (Capabilities, Chips),
) -> Option<String> {
    let mut lacks: Vec<String> = words(needs - has).into_iter().map(str::to_owned).collect();
    let chips = needs_chips - chips;
    lacks.extend(chips.iter_names().map(|(name, _)| name.to_lowercase().replace('_', "-")));
    if lacks.is_empty() { None } else { Some(format!("{machine} lacks {}", lacks.join(", "))) }
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
        assert_eq!(missing("m", has, has), None);
        let needs = (Capabilities::PIO | Capabilities::VIRTUAL_CLOCK, Chips::FW_CFG);
        let text = missing("m", has, needs).unwrap();
        assert_eq!(text, "m lacks a virtual clock, fw-cfg");
    }
}
