//! The MC146818 and its CMOS RAM: registers in any order, at any time.

#![no_main]

use libfuzzer_sys::fuzz_target;
use qtrace::machine::builtin::device::Wire;
use qtrace::machine::builtin::devices::rtc::{Rtc, RtcConfig};
use qtrace::machine::builtin::walk::{ByteSteps, walk};

fuzz_target!(|data: &[u8]| {
    let mut device = Rtc::new(RtcConfig::default(), Wire::open());
    walk(&mut device, &[2], &mut ByteSteps(data));
});
