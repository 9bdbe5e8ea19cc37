//! The events of the bus: `memory_region_ops_read` and `_write`, `cpu_in` and `cpu_out`.
//!
//! ```text
//! memory_region_ops_write cpu 0 mr 0x55… addr 0x70 value 0x8f size 1 name 'rtc-index'
//! cpu_out addr 0x70(b) value 143
//! ```
//!
//! Versions differ in the fields (no `name` before 7.0, no `mr` in later ones): they are found by
//! their keys. A read's `value` is what the device's function returned, of any width; the access
//! takes the low `size` bytes of it.

use super::fields::Fields;
use crate::base::{BusAccess, BusSpace};
use crate::import::lines::{c_number, number, word};

/// An access as the log has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Access<'l> {
    /// A store or `out`.
    pub write: bool,
    /// Absolute address or port.
    pub addr: u64,
    /// Bytes: 1, 2, 4 or 8.
    pub size: u8,
    /// As logged, perhaps wider than `size`.
    pub value: u64,
    /// Who made it.
    pub by: By,
    /// The memory region's name, where the version logs it.
    pub region: Option<&'l [u8]>,
    /// Which of the two kinds of event it is.
    pub kind: Kind,
}

/// Who made an access.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// A vCPU.
    Cpu(u16),
    /// A vCPU; the event does not say which.
    SomeCpu,
    /// No vCPU (`cpu -1`): a device (an MSI it sends), or QEMU itself.
    Device,
}

/// Where QEMU logs an access.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// At the device's region.
    Region,
    /// Where a port access enters (Xen, HVF, qtest): most are logged at their region too.
    Port,
}

impl Access<'_> {
    /// The access on the bus: ports or memory decided, the value cut to its size.
    pub fn on_bus(&self) -> BusAccess {
        let Self { write, addr, size, value, .. } = *self;
        BusAccess { space: self.space(), write, addr, size, value: value & BusAccess::ones(size) }
    }

    /// Whether the value is wider than the access.
    pub fn is_wide(&self) -> bool {
        self.value & !BusAccess::ones(self.size) != 0
    }

    /// The log gives no address space. Ports end at 0xffff and take no 8 bytes; memory below that
    /// is RAM on every machine with ports. But a region of a BAR that is not mapped, reached
    /// through VIRTIO_PCI_CAP_PCI_CFG, is logged with its offset: known by name.
    fn space(&self) -> BusSpace {
        let memory = self.kind == Kind::Region && self.region.is_some_and(is_memory);
        if memory || !BusSpace::Pio.holds(self.addr, self.size) {
            BusSpace::Mmio
        } else {
            BusSpace::Pio
        }
    }
}

/// Beginnings of the names of regions that never are ports.
const MEMORY_REGIONS: &[&[u8]] = &[
    b"virtio-pci-common",
    b"virtio-pci-isr",
    b"virtio-pci-device",
    b"msix-table",
    b"msix-pba",
    b"apic-msi",
    b"ioapic",
    b"hpet",
];

fn is_memory(region: &[u8]) -> bool {
    MEMORY_REGIONS.iter().any(|name| region.starts_with(name))
        || (region.starts_with(b"virtio-pci-notify")
            && !region.starts_with(b"virtio-pci-notify-pio"))
}

/// The access that `event` with `args` is; `None` when it is another event.
pub fn parse<'l>(event: &[u8], args: &'l [u8]) -> Option<Result<Access<'l>, &'static str>> {
    let access = match event {
        b"memory_region_ops_read" => region_access(false, args),
        b"memory_region_ops_write" => region_access(true, args),
        b"cpu_in" => port_access(false, args),
        b"cpu_out" => port_access(true, args),
        _ => return None,
    };
    Some(access)
}

/// The access that a binary record of `event` is; `None` when it is another event.
pub fn of_record<'l>(
    event: &[u8],
    fields: &Fields<'l>,
) -> Option<Result<Access<'l>, &'static str>> {
    let access = match event {
        b"memory_region_ops_read" => region_record(false, fields),
        b"memory_region_ops_write" => region_record(true, fields),
        b"cpu_in" => port_record(false, fields),
        b"cpu_out" => port_record(true, fields),
        _ => return None,
    };
    Some(access.ok_or(MALFORMED))
}

const MALFORMED: &str = "bus event that cannot be read";

fn region_record<'l>(write: bool, fields: &Fields<'l>) -> Option<Access<'l>> {
    let by = match fields.signed("cpu")? {
        -1 => By::Device,
        cpu => By::Cpu(cpu.try_into().ok().filter(|cpu| *cpu != u16::MAX)?),
    };
    let size = access_size(fields.get("size")?)?;
    let (addr, value) = (fields.get("addr")?, fields.get("value")?);
    Some(Access { write, addr, size, value, by, region: fields.string(), kind: Kind::Region })
}

fn port_record<'l>(write: bool, fields: &Fields<'l>) -> Option<Access<'l>> {
    let size = port_size(u8::try_from(fields.get("size")?).ok()?)?;
    let addr = fields.get("addr").filter(|addr| BusSpace::Pio.holds(*addr, size))?;
    let value = fields.get("value")?;
    Some(Access { write, addr, size, value, by: By::SomeCpu, region: None, kind: Kind::Port })
}

fn access_size(size: u64) -> Option<u8> {
    matches!(size, 1 | 2 | 4 | 8).then_some(size as u8)
}

/// `b`, `w` or `l`.
fn port_size(letter: u8) -> Option<u8> {
    match letter {
        b'b' => Some(1),
        b'w' => Some(2),
        b'l' => Some(4),
        _ => None,
    }
}

fn region_access(write: bool, args: &[u8]) -> Result<Access<'_>, &'static str> {
    let (mut cpu, mut addr, mut value, mut size, mut region) = (None, None, None, None, None);
    let mut rest = args;
    while !rest.is_empty() {
        let (key, after_key) = word(rest);
        if key == b"name" {
            region = Some(quoted(after_key).ok_or(MALFORMED)?);
            break;
        }
        let (text, after) = word(after_key);
        match key {
            b"cpu" => cpu = Some(cpu_of(text).ok_or(MALFORMED)?),
            b"addr" => addr = c_number(text),
            b"value" => value = c_number(text),
            b"size" => size = c_number(text),
            _ => {}
        }
        rest = after;
    }
    let by = cpu.ok_or("bus event without a CPU (QEMU before 2.6): its address is unknown")?;
    let size = size.and_then(access_size).ok_or(MALFORMED)?;
    let (addr, value) = (addr.ok_or(MALFORMED)?, value.ok_or(MALFORMED)?);
    Ok(Access { write, addr, size, value, by, region, kind: Kind::Region })
}

fn cpu_of(text: &[u8]) -> Option<By> {
    if text == b"-1" {
        return Some(By::Device);
    }
    number(text)?.try_into().ok().filter(|cpu| *cpu != u16::MAX).map(By::Cpu)
}

/// What stands between the first and the last quote: names are printed as they are.
fn quoted(text: &[u8]) -> Option<&[u8]> {
    text.strip_prefix(b"'")?.trim_ascii_end().strip_suffix(b"'")
}

/// `addr 0x70(b) value 143`.
fn port_access(write: bool, args: &[u8]) -> Result<Access<'_>, &'static str> {
    let fields = || {
        let (key, rest) = word(args);
        let (place, rest) = word(rest);
        let (value_key, rest) = word(rest);
        let (value, _) = word(rest);
        if (key, value_key) != (b"addr", b"value") {
            return None;
        }
        let [addr @ .., b'(', size, b')'] = place else { return None };
        let size = port_size(*size)?;
        let addr = c_number(addr).filter(|addr| BusSpace::Pio.holds(*addr, size))?;
        Some((addr, size, number(value)?))
    };
    let (addr, size, value) = fields().ok_or(MALFORMED)?;
    Ok(Access { write, addr, size, value, by: By::SomeCpu, region: None, kind: Kind::Port })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn read(args: &str) -> Result<Access<'_>, &'static str> {
        parse(b"memory_region_ops_read", args.as_bytes()).expect("an access")
    }

    #[test]
    fn fields_of_every_version() {
        let want = Access {
            write: false,
            addr: 0x71,
            size: 1,
            value: 0x26,
            by: By::Cpu(1),
            region: Some(b"rtc"),
            kind: Kind::Region,
        };
        let with_name = "cpu 1 mr 0x558012a1df20 addr 0x71 value 0x26 size 1 name 'rtc'";
        assert_eq!(read(with_name), Ok(want));
        assert_eq!(read("cpu 1 addr 0x71 value 0x26 size 1 name 'rtc'"), Ok(want));
        assert_eq!(
            read("cpu 1 mr 0x558012a1df20 addr 0x71 value 0x26 size 1"),
            Ok(Access { region: None, ..want })
        );
        let named = |args| read(args).unwrap().region.unwrap();
        assert_eq!(named("cpu 0 addr 0x0 value 0x0 size 1 name 'it's (a) b'"), b"it's (a) b");
        assert_eq!(named("cpu 0 addr 0x0 value 0x0 size 1 name ''"), b"");
        assert_eq!(read("cpu -1 addr 0x71 value 0x1 size 4").unwrap().by, By::Device);
    }

    #[test]
    fn values_are_cut_to_their_size() {
        let wide = read("cpu 0 addr 0x71 value 0xffffffffffffff26 size 1").unwrap();
        assert!(wide.is_wide());
        assert_eq!(wide.on_bus().value, 0x26);
        let whole = read("cpu 0 addr 0xf0000 value 0xffffffffffffff26 size 8").unwrap();
        assert!(!whole.is_wide());
        assert_eq!(whole.on_bus().value, 0xffff_ffff_ffff_ff26);
    }

    #[test]
    fn ports_and_memory_are_told_apart() {
        for (args, space) in [
            ("cpu 0 addr 0xffff value 0x0 size 4 name 'io'", BusSpace::Pio),
            ("cpu 0 addr 0x10000 value 0x0 size 1 name 'vga'", BusSpace::Mmio),
            (
                "cpu 0 addr 0x14 value 0x0 size 1 name 'virtio-pci-common-virtio-blk'",
                BusSpace::Mmio,
            ),
            ("cpu 0 addr 0x0 value 0x0 size 2 name 'virtio-pci-notify-virtio-blk'", BusSpace::Mmio),
            ("cpu 0 addr 0xc000 value 0x0 size 2 name 'virtio-pci-notify-pio-x'", BusSpace::Pio),
            ("cpu 0 addr 0xc000 value 0x0 size 4 name 'virtio-pci'", BusSpace::Pio),
            ("cpu 0 addr 0x70 value 0x0 size 8", BusSpace::Mmio),
        ] {
            assert_eq!(read(args).unwrap().on_bus().space, space, "{args}");
        }
    }

    #[test]
    fn port_events() {
        let out = parse(b"cpu_out", b"addr 0xcf8(l) value 2147485706").unwrap().unwrap();
        assert_eq!(
            out.on_bus(),
            BusAccess {
                space: BusSpace::Pio,
                write: true,
                addr: 0xcf8,
                size: 4,
                value: 0x8000_080a
            }
        );
        assert_eq!((out.by, out.kind), (By::SomeCpu, Kind::Port));
        assert_eq!(parse(b"cpu_in", b"addr 0x60(b) value 250").unwrap().unwrap().value, 250);
        for bad in ["addr 0x60(x) value 1", "addr 0x10000(b) value 1", "addr 0x60 value 1", "x"] {
            assert_eq!(parse(b"cpu_in", bad.as_bytes()), Some(Err(MALFORMED)), "{bad}");
        }
    }

    #[test]
    fn binary_records_are_the_same_accesses() {
        let mut fields = Fields::default();
        let cpu = u64::MAX;
        for (name, value) in [("cpu", 2), ("mr", 9), ("addr", 0x71), ("value", 0x126), ("size", 1)]
        {
            fields.push(name.as_bytes(), value);
        }
        fields.push_text(b"rtc");
        let text = b"cpu 2 mr 0x9 addr 0x71 value 0x126 size 1 name 'rtc'";
        let event = b"memory_region_ops_write";
        assert_eq!(of_record(event, &fields), parse(event, text));
        let device = Fields::of_text(b"cpu -1 mr 0x9 addr 0x71 value 0x126 size 1");
        assert_eq!(
            (device.get("cpu"), of_record(event, &device).unwrap().unwrap().by),
            (Some(cpu), By::Device)
        );
        let mut port = Fields::default();
        [("addr", 0xcf8), ("size", u64::from(b'l')), ("value", 7)]
            .into_iter()
            .for_each(|(name, value)| port.push(name.as_bytes(), value));
        assert_eq!(of_record(b"cpu_in", &port), parse(b"cpu_in", b"addr 0xcf8(l) value 7"));
        for bad in ["cpu 0 addr 0x70 value 0x8f size 3", "cpu 70000 addr 0 value 0 size 1", "cpu 0"]
        {
            assert_eq!(of_record(event, &Fields::of_text(bad.as_bytes())), Some(Err(MALFORMED)));
        }
        assert_eq!(of_record(b"blk_co_preadv", &fields), None);
    }

    #[test]
    fn what_cannot_be_read_says_so() {
        for bad in [
            "cpu 0 mr 0x55",
            "cpu 0 addr 0x70 value 0x8f size 3",
            "cpu 0 addr 0x70 value 0x8f size",
            "cpu 0 addr 0x1ffffffffffffffff value 0x8f size 1",
            "cpu x addr 0x70 value 0x8f size 1",
            "cpu 65535 addr 0x70 value 0x8f size 1",
            "cpu 0 addr 0x70 value 0x8f size 1 name 'rtc-in",
        ] {
            assert_eq!(read(bad), Err(MALFORMED), "{bad}");
        }
        let old = "mr 0x55 addr 0x0 value 0x8f size 1";
        assert!(read(old).unwrap_err().contains("QEMU before"));
        assert_eq!(parse(b"blk_co_preadv", b"x"), None);
    }
}
