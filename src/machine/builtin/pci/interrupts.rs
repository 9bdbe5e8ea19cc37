//! The interrupt side of a PCI function: its INTx pin and its MSI-X table.
//!
//! Behind one lock, because an iothread fires vectors while the test thread masks them.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::bits::*;
use crate::machine::builtin::device::{MessageSink, Wire};

/// A table entry after reset is masked (PCI 3.0 §6.8.2.9).
#[derive(Clone, Copy)]
struct Entry {
    address: u64,
    data: u32,
    control: u32,
}

struct State {
    msix_enabled: bool,
    function_masked: bool,
    intx_disabled: bool,
    /// What the device drives; the pin follows unless MSI-X or the command register forbids it.
    wanted: bool,
    table: Vec<Entry>,
    pending: Vec<bool>,
}

impl State {
    fn new(vectors: usize) -> Self {
        let entry = Entry { address: 0, data: 0, control: PCI_MSIX_ENTRY_CTRL_MASKBIT };
        Self {
            msix_enabled: false,
            function_masked: false,
            intx_disabled: false,
            wanted: false,
            table: vec![entry; vectors],
            pending: vec![false; vectors],
        }
    }
}

/// The interrupts of one function.
pub struct PciInterrupts {
    messages: Arc<dyn MessageSink>,
    pin: Wire,
    state: Mutex<State>,
}

impl PciInterrupts {
    /// The pin, and `vectors` MSI-X vectors whose messages go to `messages`.
    pub fn new(messages: Arc<dyn MessageSink>, pin: Wire, vectors: u16) -> Self {
        let vectors = usize::from(vectors.min(PCI_MSIX_VECTORS_MAX));
        let state = State::new(vectors);
        Self { messages, pin, state: Mutex::new(state) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing in here panics while it holds the lock; a poisoned state is still whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn drive(&self, state: &State) {
        let high = state.wanted && !state.msix_enabled && !state.intx_disabled;
        self.pin.set(high);
    }

    /// The board's reset line.
    pub fn reset(&self) {
        let mut state = self.state();
        *state = State::new(state.table.len());
        self.drive(&state);
    }

    /// Whether MSI-X is in use.
    pub fn msix_enabled(&self) -> bool {
        self.state().msix_enabled
    }

    /// Whether the device wants its pin asserted: the interrupt status bit.
    pub fn pin_wanted(&self) -> bool {
        self.state().wanted
    }

    /// The device asserts or releases its pin.
    pub fn set_pin(&self, high: bool) {
        let mut state = self.state();
        state.wanted = high;
        self.drive(&state);
    }

    /// Software changed the command register.
    pub fn set_intx_disabled(&self, disabled: bool) {
        let mut state = self.state();
        state.intx_disabled = disabled;
        self.drive(&state);
    }

    /// Software wrote MSI-X message control.
    pub fn set_message_control(&self, flags: u16) {
        let mut state = self.state();
        state.msix_enabled = flags & PCI_MSIX_FLAGS_ENABLE != 0;
        state.function_masked = flags & PCI_MSIX_FLAGS_MASKALL != 0;
        self.drive(&state);
        for vector in 0..state.table.len() {
            self.deliver_pending(&mut state, vector);
        }
    }

    /// Fires a vector: sent, or left pending while it is masked. Nothing when MSI-X is off.
    pub fn fire(&self, vector: u16) {
        let mut state = self.state();
        let vector = usize::from(vector);
        if !state.msix_enabled {
            return;
        }
        if let Some(pending) = state.pending.get_mut(vector) {
            *pending = true;
            self.deliver_pending(&mut state, vector);
        }
    }

    fn deliver_pending(&self, state: &mut State, vector: usize) {
        let open = state.msix_enabled && !state.function_masked;
        let (Some(entry), Some(pending)) = (state.table.get(vector), state.pending.get_mut(vector))
        else {
            return;
        };
        if open && *pending && entry.control & PCI_MSIX_ENTRY_CTRL_MASKBIT == 0 {
            *pending = false;
            self.messages.message(entry.address, entry.data);
        }
    }

    /// Reads an aligned 32-bit word of the table; 0 past its end.
    pub fn table_read(&self, offset: u64) -> u32 {
        let state = self.state();
        let Some(entry) = entry_index(offset).and_then(|i| state.table.get(i)) else { return 0 };
        match offset % PCI_MSIX_ENTRY_SIZE {
            0 => entry.address as u32,
            4 => (entry.address >> 32) as u32,
            8 => entry.data,
            _ => entry.control,
        }
    }

    /// Writes an aligned 32-bit word of the table. Unmasking sends what was pending.
    pub fn table_write(&self, offset: u64, value: u32) {
        let mut state = self.state();
        let Some(index) = entry_index(offset) else { return };
        let Some(entry) = state.table.get_mut(index) else { return };
        let word = u64::from(value);
        match offset % PCI_MSIX_ENTRY_SIZE {
            // Address bits 1:0 are always 0 (§6.8.2.7).
            0 => entry.address = entry.address & !0xffff_ffff | word & !3,
            4 => entry.address = entry.address & 0xffff_ffff | word << 32,
            8 => entry.data = value,
            _ => entry.control = value & PCI_MSIX_ENTRY_CTRL_MASKBIT,
        }
        self.deliver_pending(&mut state, index);
    }

    /// Reads an aligned 32-bit word of the pending bit array.
    pub fn pending_read(&self, offset: u64) -> u32 {
        let state = self.state();
        let first = usize::try_from(offset).map_or(usize::MAX, |o| o.saturating_mul(8));
        let bits = state.pending.iter().skip(first).take(32).enumerate();
        bits.fold(0, |word, (i, pending)| word | u32::from(*pending) << i)
    }
}

fn entry_index(offset: u64) -> Option<usize> {
    usize::try_from(offset / PCI_MSIX_ENTRY_SIZE).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::builtin::irq::{IrqController, IrqHub};
    use crate::machine::{GuestRam, Interrupts, IrqSource};

    fn function() -> (IrqController, PciInterrupts) {
        let hub = Arc::new(IrqHub::new(Arc::new(GuestRam::new(4096).unwrap())));
        (
            IrqController(Arc::clone(&hub)),
            PciInterrupts::new(hub.clone(), Wire::new(hub, 10, 0), 40),
        )
    }

    fn program(irq: &PciInterrupts, vector: u64, data: u32) {
        for (word, value) in [(0, 0xfee0_1003), (4, 1), (8, data), (12, 0)] {
            irq.table_write(vector * 16 + word, value);
        }
    }

    #[test]
    fn a_masked_vector_is_pending_and_sent_once_at_unmask() {
        let (mut hub, irq) = function();
        let event = hub.watch(IrqSource::Msi { addr: 0x1_fee0_1000, data: 7 }).unwrap();
        program(&irq, 33, 7);
        irq.fire(33);
        assert_eq!((event.take(), irq.pending_read(4)), (0, 0), "MSI-X is off");
        irq.set_message_control(PCI_MSIX_FLAGS_ENABLE | PCI_MSIX_FLAGS_MASKALL);
        irq.fire(33);
        irq.fire(33);
        assert_eq!((event.take(), irq.pending_read(4)), (0, 2));
        irq.table_write(33 * 16 + 12, 1);
        irq.set_message_control(PCI_MSIX_FLAGS_ENABLE);
        assert_eq!((event.take(), irq.pending_read(4)), (0, 2), "still masked by its own bit");
        irq.table_write(33 * 16 + 12, 0);
        assert_eq!((event.take(), irq.pending_read(4)), (1, 0));
        irq.fire(33);
        irq.fire(40);
        assert_eq!(event.take(), 1);
    }

    #[test]
    fn entries_reset_masked_and_read_back_what_is_writable() {
        let (_hub, irq) = function();
        assert_eq!(irq.table_read(12), 1);
        program(&irq, 0, 0x1234_5678);
        let words: Vec<u32> = (0..4).map(|w| irq.table_read(w * 4)).collect();
        assert_eq!(words, [0xfee0_1000, 1, 0x1234_5678, 0]);
        irq.table_write(12, u32::MAX);
        assert_eq!(irq.table_read(12), 1);
        assert_eq!(irq.table_read(40 * 16), 0);
        assert_eq!(irq.pending_read(u64::MAX), 0);
    }

    #[test]
    fn the_pin_follows_the_device_unless_disabled_or_msix() {
        let (hub, irq) = function();
        irq.set_pin(true);
        assert!(hub.intx_level(10));
        irq.set_intx_disabled(true);
        assert!(!hub.intx_level(10) && irq.pin_wanted());
        irq.set_intx_disabled(false);
        assert!(hub.intx_level(10));
        irq.set_message_control(PCI_MSIX_FLAGS_ENABLE);
        assert!(!hub.intx_level(10));
    }
}
