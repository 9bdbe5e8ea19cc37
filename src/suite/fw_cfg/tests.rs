use std::sync::Arc;

use super::{FwCfg, access};
use crate::base::Nanos;
use crate::machine::GuestRam;
use crate::machine::builtin::device::Device;
use crate::machine::builtin::devices::fw_cfg::{self, FwCfgConfig, FwCfgFile};
use crate::suite::testbed::{Deaf, Lie, Testbed, all_pass, caught};

fn right() -> Testbed {
    Testbed::new(&[(0x510, 2), (0x514, 8)], |_, ram| {
        let mut config = FwCfgConfig::pc(ram.size(), 2);
        config
            .files
            .push(FwCfgFile::new("etc/long", (0..5000).map(|i| i as u8).collect::<Vec<_>>()));
        Box::new(fw_cfg::FwCfg::new(config, ram))
    })
}

#[test]
fn every_case_passes_on_fw_cfg() {
    all_pass(&FwCfg, right);
}

#[test]
fn each_fault_is_caught_by_its_case() {
    let faults: [(&str, Lie, &str); 6] = [
        ("signature", |_, _, v| if v == 0x45 { 0x46 } else { v }, "the signature"),
        ("id", |_, _, v| if v == 3 { 2 } else { v }, "traditional"),
        // The size of RAM, one too high in its third byte.
        ("ram-size", |_, _, v| if v == 0x10 { 0x20 } else { v }, "bytes of RAM"),
        ("cpus", |_, _, _| 0, "a CPU"),
        ("directory", |_, _, v| if v == 0x21 { 0x20 } else { v }, "the selector of"),
        ("dma-signature", |w, _, v| if w == 1 { 0 } else { v }, "by bytes"),
    ];
    for (case, lie, what) in faults {
        let found = caught(&FwCfg, case, right().lying(lie));
        assert!(found.contains(what), "{case}: {found}");
    }
}

#[test]
fn a_chip_that_misses_writes_is_caught() {
    let faults: [(&str, Deaf, &str); 3] = [
        // It selects signatures only; it knows no DMA, whatever it says.
        ("selector", |w, _, v| w == 0 && v != 0, "does not exist"),
        ("dma-read", |w, _, _| w == 1, "a DMA transfer"),
        ("dma-skip", |w, at, _| w == 1 && at == 4, "a DMA transfer"),
    ];
    for (case, deaf, what) in faults {
        let found = caught(&FwCfg, case, right().deaf(deaf));
        assert!(found.contains(what), "{case}: {found}");
    }
}

/// A device whose transfers all say what they should not.
struct Says {
    inner: fw_cfg::FwCfg,
    ram: Arc<GuestRam>,
    control: u32,
}

impl Device for Says {
    fn name(&self) -> &'static str {
        "fw_cfg that lies"
    }

    fn read(&mut self, window: usize, offset: u64, size: u8, now: Nanos) -> u64 {
        self.inner.read(window, offset, size, now)
    }

    fn write(&mut self, window: usize, offset: u64, size: u8, value: u64, now: Nanos) {
        self.inner.write(window, offset, size, value, now);
        if window == 1 && offset == 4 {
            self.ram.write(access::DESCRIPTION, &self.control.to_be_bytes());
        }
    }

    fn reset(&mut self, now: Nanos) {
        self.inner.reset(now);
    }
}

#[test]
fn a_wrong_result_of_a_transfer_is_caught() {
    let build = |control| {
        Testbed::new(&[(0x510, 2), (0x514, 8)], |_, ram| {
            let inner = fw_cfg::FwCfg::new(FwCfgConfig::pc(ram.size(), 1), Arc::clone(&ram));
            Box::new(Says { inner, ram, control })
        })
    };
    assert_eq!(caught(&FwCfg, "dma-error", build(0)), "writing the signature");
    for case in ["dma-files", "dma-read", "dma-skip", "dma-select"] {
        caught(&FwCfg, case, build(access::ERROR));
    }
    // A transfer that never ends is a finding too.
    assert_eq!(caught(&FwCfg, "dma-read", build(access::READ)), "a DMA transfer");
}
