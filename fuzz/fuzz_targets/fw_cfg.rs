//! fw_cfg with its DMA, in any order; what it finds in RAM comes from the input too.

#![no_main]

use std::sync::Arc;

use libfuzzer_sys::fuzz_target;
use qtrace::base::GuestAddr;
use qtrace::machine::GuestRam;
use qtrace::machine::builtin::devices::fw_cfg::{FwCfg, FwCfgConfig};
use qtrace::machine::builtin::walk::{ByteSteps, walk};

const RAM_BYTES: u64 = 64 << 10;

fuzz_target!(|data: &[u8]| {
    let Ok(ram) = GuestRam::new(RAM_BYTES).map(Arc::new) else { return };
    let (low, steps) = data.split_at(data.len().min(64));
    ram.write(GuestAddr(0), low);
    let mut device = FwCfg::new(FwCfgConfig::pc(RAM_BYTES, 2), ram);
    walk(&mut device, &[2, 8], &mut ByteSteps(steps));
});
