//! The HPET, with messages: registers in any order, at any time.

#![no_main]

use libfuzzer_sys::fuzz_target;
use qtrace::machine::builtin::device::{MessageProbe, Wire};
use qtrace::machine::builtin::devices::hpet::{Hpet, HpetWires};
use qtrace::machine::builtin::walk::{ByteSteps, walk};

fuzz_target!(|data: &[u8]| {
    let mut device = Hpet::new(HpetWires { lines: vec![Wire::open(); 24], legacy: Wire::open() })
        .with_messages(std::sync::Arc::new(MessageProbe::default()));
    walk(&mut device, &[1024], &mut ByteSteps(data));
});
