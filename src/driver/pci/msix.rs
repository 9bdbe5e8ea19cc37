//! MSI-X (PCI 3.0 §6.8.2): the table, the messages, the masks.

use super::caps::{CAP_ID_MSIX, Capability};
use super::function::Function;
use super::window::Window;
use crate::base::Result;
use crate::machine::{Bus, Interrupts, IrqSource};

/// Message control: the function's mask.
const CONTROL_FUNCTION_MASK: u16 = 1 << 14;
/// Message control: MSI-X in use, INTx off.
const CONTROL_ENABLE: u16 = 1 << 15;
/// Bytes of a table entry.
const ENTRY_BYTES: u64 = 16;
/// Message data, within an entry.
const ENTRY_DATA: u64 = 8;
/// Vector control, within an entry.
const ENTRY_CONTROL: u64 = 12;
/// Vector control: masked.
const VECTOR_MASKED: u32 = 1;

/// Local APIC message address (Intel SDM vol. 3 §11.11.1).
const MESSAGE_ADDRESS: u64 = 0xfee0_0000;
/// Shift of the destination id in the message address.
const DESTINATION_SHIFT: u32 = 12;
/// Shift of the seven further bits of the destination that virtual machines have.
const EXTENDED_DESTINATION_SHIFT: u32 = 5;
/// First interrupt vector given to a device; lower ones are exceptions and INTx.
const FIRST_VECTOR: u32 = 0x30;

/// A function's MSI-X table.
#[derive(Clone, Debug)]
pub struct Msix {
    function: Function,
    control: u16,
    table: Window,
    pending: Window,
    vectors: u16,
    /// Messages that the machine chose, by vector.
    given: Vec<(u64, u32)>,
}

/// An entry of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MsixEntry {
    /// Message address.
    pub addr: u64,
    /// Message data.
    pub data: u32,
    /// Whether messages wait instead of being sent.
    pub masked: bool,
}

impl Msix {
    /// The function's MSI-X capability, or `None` when it has none.
    ///
    /// # Errors
    /// A machine error when the table or the pending bits lie outside their BAR.
    pub fn find(
        bus: &mut dyn Bus,
        function: &Function,
        capabilities: &[Capability],
    ) -> Result<Option<Self>> {
        let Some(cap) = capabilities.iter().find(|cap| cap.id == CAP_ID_MSIX) else {
            return Ok(None);
        };
        let control = cap.offset + 2;
        let vectors = (function.read16(bus, control) & 0x7ff) + 1;
        let table = function.read(bus, cap.offset + 4, 4);
        let pending = function.read(bus, cap.offset + 8, 4);
        let describe = |e| function.error("its MSI-X capability is wrong").source(e);
        let bytes = u64::from(vectors) * ENTRY_BYTES;
        let window =
            function.window((table & 7) as u8, u64::from(table & !7), bytes).map_err(describe)?;
        let bytes = u64::from(vectors).div_ceil(64) * 8;
        let pending = function
            .window((pending & 7) as u8, u64::from(pending & !7), bytes)
            .map_err(describe)?;
        let (function, given) = (function.clone(), Vec::new());
        Ok(Some(Self { function, control, table: window, pending, vectors, given }))
    }

    /// Lets the machine choose the messages of the first `count` vectors, where it wants to.
    ///
    /// # Errors
    /// The machine has no place for so many.
    pub fn place(&mut self, interrupts: &mut dyn Interrupts, count: u16) -> Result<()> {
        self.given.clear();
        for vector in 0..count.min(self.vectors) {
            match interrupts.message(self.function.address.routing_id(), vector)? {
                Some(message) => self.given.push(message),
                None => break,
            }
        }
        Ok(())
    }

    /// Entries of the table.
    pub fn vectors(&self) -> u16 {
        self.vectors
    }

    /// The message of `vector`: distinct for every vector of every function on the first 128
    /// buses, so that nobody takes another's interrupt.
    pub fn message(&self, vector: u16) -> (u64, u32) {
        if let Some(message) = self.given.get(usize::from(vector)) {
            return *message;
        }
        let id = u64::from(self.function.address.routing_id());
        let destination =
            (id & 0xff) << DESTINATION_SHIFT | (id >> 8 & 0x7f) << EXTENDED_DESTINATION_SHIFT;
        (MESSAGE_ADDRESS | destination, FIRST_VECTOR + u32::from(vector))
    }

    /// The message of `vector` as a source to watch.
    pub fn source(&self, vector: u16) -> IrqSource {
        let (addr, data) = self.message(vector);
        IrqSource::Msi { addr, data }
    }

    /// Programs and unmasks the first `count` entries and turns MSI-X on. The function is masked
    /// meanwhile, as an entry must not change while it may be used (§6.8.3.1).
    pub fn enable(&self, bus: &mut dyn Bus, count: u16) {
        self.set_control(bus, CONTROL_ENABLE | CONTROL_FUNCTION_MASK, 0);
        for vector in 0..count.min(self.vectors) {
            let (addr, data) = self.message(vector);
            self.program(bus, vector, MsixEntry { addr, data, masked: false });
        }
        self.set_control(bus, 0, CONTROL_FUNCTION_MASK);
    }

    /// Turns MSI-X off.
    pub fn disable(&self, bus: &mut dyn Bus) {
        self.set_control(bus, CONTROL_FUNCTION_MASK, CONTROL_ENABLE);
    }

    /// Writes the entry of `vector`, masked meanwhile; nothing when there is no such vector.
    pub fn program(&self, bus: &mut dyn Bus, vector: u16, entry: MsixEntry) {
        let at = u64::from(vector) * ENTRY_BYTES;
        self.mask(bus, vector, true);
        self.table.write_u64(bus, at, entry.addr);
        self.table.write(bus, at + ENTRY_DATA, 4, entry.data);
        self.mask(bus, vector, entry.masked);
    }

    /// Reads the entry of `vector`.
    pub fn entry(&self, bus: &mut dyn Bus, vector: u16) -> MsixEntry {
        let at = u64::from(vector) * ENTRY_BYTES;
        let low = u64::from(self.table.read(bus, at, 4));
        let high = u64::from(self.table.read(bus, at + 4, 4));
        let data = self.table.read(bus, at + ENTRY_DATA, 4);
        let masked = self.table.read(bus, at + ENTRY_CONTROL, 4) & VECTOR_MASKED != 0;
        MsixEntry { addr: high << 32 | low, data, masked }
    }

    /// Masks or unmasks `vector` (§6.8.2.9). Unmasking sends the message that waited.
    pub fn mask(&self, bus: &mut dyn Bus, vector: u16, masked: bool) {
        let at = u64::from(vector) * ENTRY_BYTES + ENTRY_CONTROL;
        self.table.write(bus, at, 4, if masked { VECTOR_MASKED } else { 0 });
    }

    /// Masks or unmasks all vectors of the function at once.
    pub fn mask_function(&self, bus: &mut dyn Bus, masked: bool) {
        let (set, clear) =
            if masked { (CONTROL_FUNCTION_MASK, 0) } else { (0, CONTROL_FUNCTION_MASK) };
        self.set_control(bus, set, clear);
    }

    /// Whether a message of `vector` waits to be unmasked (§6.8.2.10).
    pub fn is_pending(&self, bus: &mut dyn Bus, vector: u16) -> bool {
        let word = self.pending.read(bus, u64::from(vector / 32) * 4, 4);
        vector < self.vectors && word >> (vector % 32) & 1 != 0
    }

    /// The message control register.
    pub fn control(&self, bus: &mut dyn Bus) -> u16 {
        self.function.read16(bus, self.control)
    }

    fn set_control(&self, bus: &mut dyn Bus, set: u16, clear: u16) {
        let control = self.function.read16(bus, self.control);
        self.function.write(bus, self.control, 2, u32::from((control & !clear) | set));
    }
}
