//! Two local APICs: their registers, and messages from anybody, in any order, at any time.

#![no_main]

use std::sync::Arc;

use libfuzzer_sys::fuzz_target;
use qtrace::base::VirtualClock;
use qtrace::machine::builtin::device::Wire;
use qtrace::machine::builtin::devices::lapic::{LapicConfig, LapicDevice, LocalApics};
use qtrace::machine::builtin::walk::{ByteSteps, walk};

fuzz_target!(|data: &[u8]| {
    let pins = || vec![Wire::open(); 2];
    let clock = Arc::new(VirtualClock::new());
    let apics = LocalApics::new(LapicConfig { cpus: 2, clock, intr: pins(), nmi: pins() });
    walk(&mut LapicDevice::new(apics, 0), &[0x1000, 0xf_f000], &mut ByteSteps(data));
});
