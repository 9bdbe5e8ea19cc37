//! The header's registers (PCI 3.0 §6.2) and the capability list (§6.7).

use super::space::{functions, read, write};
use crate::driver::pci::caps;
use crate::driver::pci::function::STATUS_CAPABILITIES;
use crate::suite::{Outcome, TestThread};

const COMMAND: u16 = 0x04;
const STATUS: u16 = 0x06;
/// Command bits 15:11 are reserved (§6.2.2).
const COMMAND_RESERVED: u32 = 0xf800;
/// I/O, memory and INTx disable: what a function with BARs and a pin must take.
const IO: u32 = 1 << 0;
const MEMORY: u32 = 1 << 1;

/// Vendor, device, revision, class, header type; of ordinary functions the subsystem too.
pub fn read_only(t: &mut TestThread<'_>) -> Outcome {
    for f in functions(t)? {
        let mut registers = vec![(0x00, 4), (0x00, 2), (0x03, 1), (0x08, 4), (0x0a, 2), (0x0e, 1)];
        if f.bar_registers() == 6 {
            registers.extend([(0x2c, 4), (0x2e, 2), (0x2d, 1)]);
        }
        if f.header & 0x7f <= 1 {
            registers.push((0x3d, 1));
        }
        for (register, size) in registers {
            let before = read(t, &f, register, size)?;
            for value in [!before, 0, u32::MAX] {
                write(t, &f, register, size, value)?;
                let after = read(t, &f, register, size)?;
                let what = format!("{size} bytes at {register:#04x} of {} after a write", f.name());
                t.expect(&what, after, before)?;
            }
        }
    }
    Ok(())
}

/// Reserved bits are 0, enables of spaces that the function has hold, status is not storage.
pub fn command(t: &mut TestThread<'_>) -> Outcome {
    for f in functions(t)? {
        let before = read(t, &f, COMMAND, 2)?;
        let status = read(t, &f, STATUS, 2)?;
        // All but master enable: nothing may begin to write to memory.
        write(t, &f, COMMAND, 2, 0xfffb)?;
        let ones = read(t, &f, COMMAND, 2)?;
        write(t, &f, COMMAND, 2, 0)?;
        let zeros = read(t, &f, COMMAND, 2)?;
        write(t, &f, COMMAND, 2, before)?;
        let name = f.name();
        t.expect(&format!("reserved command bits of {name}"), ones & COMMAND_RESERVED, 0)?;
        for bar in f.bars.iter().flatten() {
            let enable = if bar.kind == crate::driver::pci::BarKind::Io { IO } else { MEMORY };
            t.expect(
                &format!("the enable bit of {:?} in {name}", bar.kind),
                ones & enable,
                enable,
            )?;
            t.expect(&format!("the cleared enable bit of {name}"), zeros & enable, 0)?;
        }
        write(t, &f, STATUS, 2, 0)?;
        let after = read(t, &f, STATUS, 2)?;
        t.expect(&format!("status of {name} after zeros were written"), after, status)?;
    }
    Ok(())
}

/// Pointers are aligned, behind the header, and lead to an end; what they lead to has an id.
pub fn capabilities(t: &mut TestThread<'_>) -> Outcome {
    let mut total = 0;
    for f in functions(t)? {
        let name = f.name();
        if read(t, &f, STATUS, 2)? & u32::from(STATUS_CAPABILITIES) == 0 {
            continue;
        }
        let list = match caps::list(t.machine().bus()?, &f) {
            Ok(list) => list,
            Err(error) => {
                return t.failed(format!("capabilities of {name}"), "", error.to_string());
            }
        };
        t.check(!list.is_empty(), format!("{name} says it has capabilities"))?;
        for capability in &list {
            let at = capability.offset;
            t.check(!matches!(capability.id, 0 | 0xff), format!("{name} has an id at {at:#04x}"))?;
            let next = read(t, &f, at + 1, 1)?;
            t.expect(&format!("bits 1:0 of the pointer at {at:#04x} of {name}"), next & 3, 0)?;
            let before = read(t, &f, at, 2)?;
            write(t, &f, at, 2, !before)?;
            let after = read(t, &f, at, 2)?;
            t.expect(&format!("id and pointer at {at:#04x} of {name}"), after, before)?;
        }
        total += list.len();
    }
    t.say(format!("{total} capabilities"));
    Ok(())
}
