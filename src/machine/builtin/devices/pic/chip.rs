//! One 8259A.

use super::bits::*;

/// What the next write to A0 = 1 is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Expects {
    Ocw1,
    Icw2,
    Icw3,
    Icw4,
}

/// The registers and inputs of one chip.
///
/// An edge-triggered request stays latched when its input falls before the acknowledge. The data
/// sheet gives the default level 7 there, for a race that a machine whose acknowledge takes no
/// time does not have; and an edge as wide as no time (`Wire::pulse`) must count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pic {
    master: bool,
    elcr_writable: u8,
    pins: u8,
    /// Edges since the last acknowledge.
    edges: u8,
    elcr: u8,
    imr: u8,
    isr: u8,
    /// The level with the lowest priority.
    lowest: u8,
    expects: Expects,
    icw1: u8,
    icw2: u8,
    icw3: u8,
    icw4: u8,
    read_isr: bool,
    poll: bool,
    special_mask: bool,
    rotate_in_aeoi: bool,
}

impl Pic {
    /// A chip after power-on. Nothing is defined there before the first ICW1: it is set as if
    /// initialized with base 0, and connected as on a PC.
    pub fn new(master: bool) -> Self {
        Self {
            master,
            elcr_writable: if master { ELCR1_WRITABLE } else { ELCR2_WRITABLE },
            pins: 0,
            edges: 0,
            elcr: 0,
            imr: 0,
            isr: 0,
            lowest: INPUTS - 1,
            expects: Expects::Ocw1,
            icw1: 0,
            icw2: 0,
            icw3: if master { 1 << CASCADE } else { CASCADE },
            icw4: 0,
            read_isr: false,
            poll: false,
            special_mask: false,
            rotate_in_aeoi: false,
        }
    }

    /// The board's reset: everything but the levels at the inputs.
    pub fn reset(&mut self) {
        *self = Self { pins: self.pins, ..Self::new(self.master) };
    }

    /// The level at input `ir`.
    pub fn set_pin(&mut self, ir: u8, high: bool) {
        let bit = bit(ir);
        if high && self.pins & bit == 0 {
            self.edges |= bit;
        }
        self.pins = if high { self.pins | bit } else { self.pins & !bit };
    }

    /// The interrupt request register.
    pub fn irr(&self) -> u8 {
        self.edges & !self.elcr | self.pins & self.elcr
    }

    /// The in-service register.
    pub fn isr(&self) -> u8 {
        self.isr
    }

    /// The edge/level control register.
    pub fn elcr(&self) -> u8 {
        self.elcr
    }

    /// Writes the edge/level control register.
    pub fn set_elcr(&mut self, value: u8) {
        self.elcr = value & self.elcr_writable;
    }

    /// Whether input `ir` is a slave's output (ICW3 of a master).
    pub fn has_slave(&self, ir: u8) -> bool {
        self.master && self.icw1 & ICW1_SNGL == 0 && self.icw3 & bit(ir) != 0
    }

    /// Whether this slave answers to `id` on the cascade lines.
    pub fn answers_to(&self, id: u8) -> bool {
        self.icw3 & ICW3_ID == id
    }

    /// The vector of level `ir`.
    pub fn vector(&self, ir: u8) -> u8 {
        self.icw2 & ICW2_VECTOR | ir & OCW2_LEVEL
    }

    /// The level that the INT output asks for; `None` when it is low.
    pub fn request(&self) -> Option<u8> {
        if self.expects != Expects::Ocw1 {
            return None;
        }
        let wanted = self.highest(self.irr() & !self.imr)?;
        match self.highest(self.in_the_way()) {
            None => Some(wanted),
            Some(serving) if self.rank(wanted) < self.rank(serving) => Some(wanted),
            // Special fully nested mode: a slave in service is not locked out.
            Some(serving) => {
                (wanted == serving && self.icw4 & ICW4_SFNM != 0 && self.has_slave(wanted))
                    .then_some(wanted)
            }
        }
    }

    /// The acknowledge sequence: the level that is now in service, or `None` when none was
    /// requested (the chip then gives the default level's vector).
    pub fn acknowledge(&mut self) -> Option<u8> {
        let ir = self.request()?;
        self.edges &= !bit(ir);
        if self.icw4 & ICW4_AEOI == 0 {
            self.isr |= bit(ir);
        } else if self.rotate_in_aeoi {
            self.lowest = ir;
        }
        Some(ir)
    }

    /// A read with address line A0 as given.
    pub fn read(&mut self, a0: bool) -> u8 {
        if std::mem::take(&mut self.poll) {
            return self.acknowledge().map_or(0, |ir| POLL_I | ir);
        }
        match (a0, self.read_isr) {
            (true, _) => self.imr,
            (false, true) => self.isr,
            (false, false) => self.irr(),
        }
    }

    /// A write with address line A0 as given.
    pub fn write(&mut self, a0: bool, value: u8) {
        if a0 {
            self.write_data(value);
        } else if value & ICW1 != 0 {
            self.initialize(value);
        } else if value & OCW3 != 0 {
            self.ocw3(value);
        } else {
            self.ocw2(value);
        }
    }

    /// ICW1: "Initialization Command Words 1 and 2", points a to f.
    fn initialize(&mut self, icw1: u8) {
        let Self { master, pins, elcr, icw2, icw3, .. } = *self;
        *self = Self { pins, elcr, icw1, icw2, icw3, ..Self::new(master) };
        self.expects = Expects::Icw2;
    }

    fn write_data(&mut self, value: u8) {
        let single = self.icw1 & ICW1_SNGL != 0;
        let last = if self.icw1 & ICW1_IC4 != 0 { Expects::Icw4 } else { Expects::Ocw1 };
        match self.expects {
            Expects::Ocw1 => self.imr = value,
            Expects::Icw2 => {
                self.icw2 = value;
                self.expects = if single { last } else { Expects::Icw3 };
            }
            Expects::Icw3 => {
                self.icw3 = value;
                self.expects = last;
            }
            Expects::Icw4 => {
                self.icw4 = value;
                self.expects = Expects::Ocw1;
            }
        }
    }

    fn ocw2(&mut self, value: u8) {
        let level = value & OCW2_LEVEL;
        let rotate = value & OCW2_R != 0;
        match (value & OCW2_EOI != 0, value & OCW2_SL != 0) {
            (true, false) => {
                // A level whose IMR bit is set is not found in special mask mode.
                if let Some(ended) = self.highest(self.in_the_way()) {
                    self.end(ended, rotate);
                }
            }
            (true, true) => self.end(level, rotate),
            (false, false) => self.rotate_in_aeoi = rotate,
            (false, true) if rotate => self.lowest = level,
            (false, true) => {}
        }
    }

    fn end(&mut self, ir: u8, rotate: bool) {
        self.isr &= !bit(ir);
        if rotate {
            self.lowest = ir;
        }
    }

    fn ocw3(&mut self, value: u8) {
        if value & OCW3_ESMM != 0 {
            self.special_mask = value & OCW3_SMM != 0;
        }
        if value & OCW3_RR != 0 {
            self.read_isr = value & OCW3_RIS != 0;
        }
        if value & OCW3_P != 0 {
            self.poll = true;
        }
    }

    /// The levels in service that hold others back: in special mask mode not the masked ones.
    fn in_the_way(&self) -> u8 {
        if self.special_mask { self.isr & !self.imr } else { self.isr }
    }

    /// 0 for the highest priority, 7 for the lowest.
    fn rank(&self, ir: u8) -> u8 {
        ir.wrapping_sub(self.lowest).wrapping_sub(1) & (INPUTS - 1)
    }

    /// The level of `set` with the highest priority.
    fn highest(&self, set: u8) -> Option<u8> {
        (0..INPUTS).filter(|ir| set & bit(*ir) != 0).min_by_key(|ir| self.rank(*ir))
    }
}

fn bit(ir: u8) -> u8 {
    1 << (ir & (INPUTS - 1))
}
