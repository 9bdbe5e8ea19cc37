//! Items and the directory, by port.

use super::access::*;
use super::begin;
use crate::suite::{Outcome, TestThread};

/// "Signature".
pub fn signature(t: &mut TestThread<'_>) -> Outcome {
    let bytes = item(t, SIGNATURE, 4)?;
    t.expect("the signature", bytes, b"QEMU".to_vec())
}

/// "Revision / feature bitmap".
pub fn id(t: &mut TestThread<'_>) -> Outcome {
    let id = number(t, ID, 4)?;
    t.expect("the traditional interface's bit", id & 1, 1)?;
    t.expect("bits that are not defined", id & !3, 0)
}

/// RAM below 4 GiB and above it, together.
pub fn ram_size(t: &mut TestThread<'_>) -> Outcome {
    let size = number(t, 0x03, 8)?;
    let ram = t.ram()?.size();
    t.check(size > 0, "RAM has a size")?;
    t.check(size <= ram, format!("{size} bytes of RAM, of which the machine has {ram}"))
}

/// `FW_CFG_NB_CPUS`, `FW_CFG_MAX_CPUS`.
pub fn cpus(t: &mut TestThread<'_>) -> Outcome {
    let (now, most) = (number(t, 0x05, 2)?, number(t, 0x0f, 2)?);
    t.check(now >= 1, "a machine has a CPU")?;
    t.check(now <= most, format!("{now} CPUs at boot, of {most} at most"))
}

/// "Selector Register", "Data Register".
pub fn selector(t: &mut TestThread<'_>) -> Outcome {
    begin(t)?;
    let bytes = take(t, 2)?;
    t.expect("the signature's first half", bytes, b"QE".to_vec())?;
    begin(t)?;
    let bytes = take(t, 6)?;
    t.expect("the signature, selected again, and behind its end", bytes, b"QEMU\0\0".to_vec())?;
    begin(t)?;
    let bytes = item(t, NO_ITEM, 8)?;
    t.expect("an item that does not exist", bytes, vec![0; 8])?;
    begin(t)?;
    // The data register is read-only.
    t.outb(DATA, 0x01)?;
    let bytes = take(t, 4)?;
    t.expect("the signature after a byte was written to it", bytes, b"QEMU".to_vec())
}

/// "File Directory".
pub fn directory(t: &mut TestThread<'_>) -> Outcome {
    let files = files(t)?;
    let mut last: Option<&[u8]> = None;
    for (file, selector) in files.iter().zip(FILE_FIRST..) {
        let len = file.name.iter().position(|byte| *byte == 0);
        let Some(name) = len.and_then(|len| file.name.get(..len)) else {
            return t.failed("a file's name", "at most 55 bytes and a NUL", "no NUL");
        };
        let shown = String::from_utf8_lossy(name);
        t.check(!name.is_empty(), format!("file {selector:#x} has a name"))?;
        t.check(last.is_none_or(|last| last < name), format!("'{shown}' is in order"))?;
        t.expect(&format!("the selector of '{shown}'"), file.selector, selector)?;
        t.expect(&format!("the reserved bytes of '{shown}'"), file.reserved, 0)?;
        last = Some(name);
    }
    t.say(format!("{} files", files.len()));
    Ok(())
}
