//! The debug console: registers in any order, at any time.

#![no_main]

use libfuzzer_sys::fuzz_target;
use qtrace::machine::builtin::devices::debugcon::DebugCon;
use qtrace::machine::builtin::walk::{ByteSteps, walk};

fuzz_target!(|data: &[u8]| {
    let mut device = DebugCon::new();
    walk(&mut device, &[1], &mut ByteSteps(data));
});
