//! KVM's events that say something of the bus: as the kernel prints them, or by their fields.

use crate::base::{BusAccess, BusSpace};
use crate::import::kernel_text::fields::{are_fields, number_or_zero};
use crate::import::kernel_text::prefix::Event;
use crate::import::lines::{c_number, word};

pub(super) const MALFORMED: &str = "event of KVM that cannot be read";

/// An event of KVM's that says something of the bus.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Said {
    /// An access, which stands for `count` to ports.
    Access { access: BusAccess, count: u64 },
    /// A read that the guest's machine is asked for.
    Asked { addr: u64, size: u64 },
    /// An access whose value is not there.
    NoValue(&'static str),
    /// An access that no trace can hold.
    Odd(&'static str),
}

/// What an event says of the bus; `None` for another event.
pub(super) fn kvm(event: &Event<'_>) -> Option<std::result::Result<Said, &'static str>> {
    let by_name = are_fields(event.args);
    let said = match event.name {
        b"kvm_pio" if by_name => pio_by_name(event.args),
        b"kvm_mmio" if by_name => mmio_by_name(event.args),
        b"kvm_pio" => pio(event.args),
        b"kvm_mmio" => mmio(event.args),
        b"kvm_fast_mmio" => {
            Some(Said::NoValue("doorbell taken by KVM (kvm_fast_mmio): no size and no value"))
        }
        _ => return None,
    };
    Some(said.ok_or(MALFORMED))
}

/// The number behind `key`, which must come next.
fn keyed(rest: &mut &[u8], key: &[u8]) -> Option<u64> {
    let (found, after) = word(rest);
    let (value, after) = word(after);
    *rest = after;
    if found == key { c_number(value) } else { None }
}

/// `pio_write at 0x70 size 1 count 1 val 0x8f (...)`.
fn pio(args: &[u8]) -> Option<Said> {
    let (direction, mut rest) = word(args);
    let write = match direction {
        b"pio_write" => true,
        b"pio_read" => false,
        _ => return None,
    };
    let addr = keyed(&mut rest, b"at")?;
    let size = keyed(&mut rest, b"size")?;
    let count = keyed(&mut rest, b"count").filter(|count| *count > 0)?;
    if rest.is_empty() {
        return Some(Said::NoValue("port access without its value (Linux before 3.15)"));
    }
    let value = keyed(&mut rest, b"val")?;
    port_access(write, addr, size, count, value)
}

/// `rw=1 port=112 size=1 count=1 val=143`.
fn pio_by_name(args: &[u8]) -> Option<Said> {
    let get = |name: &[u8]| number_or_zero(args, name);
    let (addr, size, count) = (get(b"port")?, get(b"size")?, get(b"count")?);
    port_access(get(b"rw")? != 0, addr, size, count.max(1), get(b"val")?)
}

fn port_access(write: bool, addr: u64, size: u64, count: u64, value: u64) -> Option<Said> {
    let size = u8::try_from(size).ok().filter(|size| matches!(size, 1 | 2 | 4))?;
    let space = BusSpace::Pio;
    let value = value & BusAccess::ones(size);
    space
        .holds(addr, size)
        .then_some(Said::Access { access: BusAccess { space, write, addr, size, value }, count })
}

/// `mmio write len 4 gpa 0xfee000f0 val 0x1ff`.
fn mmio(args: &[u8]) -> Option<Said> {
    let (mmio, rest) = word(args);
    let (direction, mut rest) = word(rest);
    let size = keyed(&mut rest, b"len")?;
    let addr = keyed(&mut rest, b"gpa")?;
    let value = keyed(&mut rest, b"val")?;
    let kind = match (mmio, direction) {
        (b"mmio", b"unsatisfied-read") => ASKED,
        (b"mmio", b"write") => WRITE,
        (b"mmio", b"read") => READ,
        _ => return None,
    };
    memory_access(kind, addr, size, value)
}

/// `type=2 len=4 gpa=0xfee000f0 val=511`.
fn mmio_by_name(args: &[u8]) -> Option<Said> {
    let get = |name: &[u8]| number_or_zero(args, name);
    memory_access(get(b"type")?, get(b"gpa")?, get(b"len")?, get(b"val")?)
}

/// `KVM_TRACE_MMIO_*` of Linux `include/trace/events/kvm.h`.
const ASKED: u64 = 0;
const READ: u64 = 1;
const WRITE: u64 = 2;

fn memory_access(kind: u64, addr: u64, size: u64, value: u64) -> Option<Said> {
    let write = match kind {
        ASKED => return Some(Said::Asked { addr, size }),
        READ => false,
        WRITE => true,
        _ => return None,
    };
    let whole = u8::try_from(size).ok().filter(|size| matches!(size, 1 | 2 | 4 | 8));
    let Some(size) = whole else {
        return Some(Said::Odd("access that is not of 1, 2, 4 or 8 bytes"));
    };
    let space = BusSpace::Mmio;
    let value = value & BusAccess::ones(size);
    Some(Said::Access { access: BusAccess { space, write, addr, size, value }, count: 1 })
}
