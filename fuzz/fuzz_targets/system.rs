//! Ports 92h, B2h, B3h and 80h of either chipset: registers in any order, at any time.

#![no_main]

use libfuzzer_sys::fuzz_target;
use qtrace::machine::builtin::devices::system::{AcpiCommands, System, SystemWires};
use qtrace::machine::builtin::walk::{ByteSteps, walk};

fuzz_target!(|data: &[u8]| {
    for commands in [AcpiCommands::PIIX4, AcpiCommands::ICH9] {
        let mut device = System::new(SystemWires::open(), commands);
        walk(&mut device, &[1, 2, 1], &mut ByteSteps(data));
    }
});
