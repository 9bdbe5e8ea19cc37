//! Two chips, the slave's INT output on the master's input 2.

use super::bits::{CASCADE, DEFAULT_LEVEL, INPUTS};
use super::chip::Pic;

/// The pair.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pair {
    /// Ports 20h and 21h, inputs 0 to 7.
    pub master: Pic,
    /// Ports a0h and a1h, inputs 8 to 15.
    pub slave: Pic,
}

impl Default for Pair {
    fn default() -> Self {
        Self { master: Pic::new(true), slave: Pic::new(false) }
    }
}

impl Pair {
    /// The level at interrupt input `irq`; 2 is the slave's and cannot be driven.
    pub fn set_pin(&mut self, irq: u8, high: bool) {
        match irq {
            CASCADE => {}
            0..INPUTS => self.master.set_pin(irq, high),
            _ => self.slave.set_pin(irq & (INPUTS - 1), high),
        }
        self.settle();
    }

    /// The INTR output.
    pub fn output(&self) -> bool {
        self.master.request().is_some()
    }

    /// The acknowledge sequence of both INTA cycles: the vector on the data bus.
    pub fn acknowledge(&mut self) -> u8 {
        let vector = match self.master.acknowledge() {
            None => self.master.vector(DEFAULT_LEVEL),
            Some(ir) if !self.master.has_slave(ir) => self.master.vector(ir),
            Some(ir) if ir == CASCADE && self.slave.answers_to(ir) => self.slave_vector(),
            // No chip answers to this id: the bus floats.
            Some(_) => 0xff,
        };
        self.settle();
        vector
    }

    fn slave_vector(&mut self) -> u8 {
        let ir = self.slave.acknowledge();
        // INT falls in the acknowledge sequence; a further request makes a new edge.
        self.master.set_pin(CASCADE, false);
        self.slave.vector(ir.unwrap_or(DEFAULT_LEVEL))
    }

    /// A read of chip `slave` with address line A0.
    pub fn read(&mut self, slave: bool, a0: bool) -> u8 {
        let value = self.chip(slave).read(a0);
        self.settle();
        value
    }

    /// A write to chip `slave` with address line A0.
    pub fn write(&mut self, slave: bool, a0: bool, value: u8) {
        self.chip(slave).write(a0, value);
        self.settle();
    }

    /// The edge/level register of chip `slave`.
    pub fn elcr(&self, slave: bool) -> u8 {
        if slave { self.slave.elcr() } else { self.master.elcr() }
    }

    /// Writes the edge/level register of chip `slave`.
    pub fn set_elcr(&mut self, slave: bool, value: u8) {
        self.chip(slave).set_elcr(value);
        self.settle();
    }

    /// The board's reset.
    pub fn reset(&mut self) {
        self.master.reset();
        self.slave.reset();
        self.settle();
    }

    fn chip(&mut self, slave: bool) -> &mut Pic {
        if slave { &mut self.slave } else { &mut self.master }
    }

    /// The slave's INT output reaches the master.
    fn settle(&mut self) {
        let high = self.slave.request().is_some();
        self.master.set_pin(CASCADE, high);
    }
}
