//! The registers as the CPU accesses them.

use super::super::bits::*;
use super::super::message::{Message, Signal};
use super::{Effect, Lapic};
use crate::base::Nanos;

impl Lapic {
    /// Reads a register: 32 bits at a multiple of 16.
    pub fn read(&mut self, offset: u64, now: Nanos) -> u32 {
        self.advance(now);
        let word = |first: u64| (offset - first) as usize / 16;
        match offset {
            APIC_ID => u32::from(self.id) << 24,
            APIC_VERSION => VERSION,
            APIC_TPR => self.tpr.into(),
            APIC_APR => self.arbitration_priority().into(),
            APIC_PPR => self.priority().into(),
            APIC_EOI | APIC_RRD => 0,
            APIC_LDR => self.ldr,
            APIC_DFR => self.dfr,
            APIC_SVR => self.svr,
            APIC_ISR..APIC_TMR => self.isr.word(word(APIC_ISR)),
            APIC_TMR..APIC_IRR => self.tmr.word(word(APIC_TMR)),
            APIC_IRR..APIC_IRR_END => self.irr.word(word(APIC_IRR)),
            APIC_ESR => self.esr,
            APIC_ICR_LOW => self.icr_low,
            APIC_ICR_HIGH => self.icr_high,
            APIC_LVT_TIMER..=APIC_LVT_ERROR => self.lvt.read(word(APIC_LVT_TIMER)),
            APIC_TMICT => self.timer.initial(),
            APIC_TMCCT => self.timer.current(now),
            APIC_TDCR => self.timer.configuration(),
            _ => {
                self.error(ESR_ILLEGAL_REGISTER);
                0
            }
        }
    }

    /// Writes a register: 32 bits at a multiple of 16.
    pub fn write(&mut self, offset: u64, value: u32, now: Nanos) -> Option<Effect> {
        self.advance(now);
        match offset {
            APIC_ID => self.id = (value >> 24) as u8,
            APIC_TPR => self.tpr = value as u8,
            APIC_EOI => return self.end_of_interrupt(),
            APIC_LDR => self.ldr = value & ICR_HIGH_WRITABLE,
            APIC_DFR => self.dfr = value | DFR_ONES,
            APIC_SVR => self.write_svr(value),
            APIC_ESR => self.esr = std::mem::take(&mut self.errors),
            APIC_ICR_LOW => return self.command(value),
            APIC_ICR_HIGH => self.icr_high = value & ICR_HIGH_WRITABLE,
            APIC_LVT_TIMER..=APIC_LVT_ERROR => self.write_lvt(offset, value),
            APIC_TMICT => self.timer.load(value, now),
            APIC_TDCR => self.timer.configure(value & TDCR_WRITABLE, now),
            // Read only.
            APIC_VERSION | APIC_APR | APIC_PPR | APIC_RRD | APIC_TMCCT => {}
            APIC_ISR..APIC_IRR_END => {}
            _ => self.error(ESR_ILLEGAL_REGISTER),
        }
        self.settle();
        None
    }

    fn write_svr(&mut self, value: u32) {
        self.svr = value & SVR_WRITABLE;
        if !self.is_software_enabled() {
            self.lvt.mask_all();
        }
    }

    fn write_lvt(&mut self, offset: u64, value: u32) {
        let index = (offset - APIC_LVT_TIMER) as usize / 16;
        self.lvt.write(index, value, self.is_software_enabled());
        self.timer.set_periodic(self.lvt.read(LVT_TIMER) & LVT_PERIODIC != 0);
        self.serve_levels();
    }

    fn command(&mut self, low: u32) -> Option<Effect> {
        self.icr_low = low & ICR_LOW_WRITABLE;
        let message = Message::of_command(self.icr_low, self.icr_high)?;
        let Signal { mode, vector, .. } = message.signal;
        if matches!(mode, MODE_FIXED | MODE_LOWEST) && vector < VECTOR_MIN {
            self.error(ESR_SEND_ILLEGAL_VECTOR);
            self.settle();
            return None;
        }
        Some(Effect::Send(message))
    }
}
