//! One comparator. Its time is the main counter's value.

use super::bits::*;

/// A comparator with its configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Timer {
    /// What was written of the configuration.
    conf: u64,
    /// What the configuration reads beside that.
    caps: u64,
    comparator: u64,
    /// What a periodic timer adds to its comparator: the last value written there.
    period: u64,
    fsb_route: u64,
}

/// Where a timer's interrupt goes (§2.3.8): a message, the legacy line, or the chosen input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// A global interrupt line; `None` when the chosen input is not one of the timer's.
    Line(Option<u32>),
    /// A message of `data` to `addr`.
    Message {
        /// Address, bits 63:32 of the FSB route.
        addr: u64,
        /// Data, bits 31:0.
        data: u32,
    },
}

impl Timer {
    /// A timer after reset: comparator all ones, so that nothing matches. `routes` are the I/O APIC
    /// inputs it may choose; `fsb` says whether it can send messages.
    pub fn new(routes: u32, fsb: bool) -> Self {
        let routes = u64::from(routes) << TN_INT_ROUTE_CAP_SHIFT;
        let fsb = if fsb { TN_FSB_INT_DEL_CAP } else { 0 };
        let caps = TN_PER_INT_CAP | TN_SIZE_CAP | routes | fsb;
        Self { conf: 0, caps, comparator: u64::MAX, period: 0, fsb_route: 0 }
    }

    /// The timer after a reset.
    pub fn after_reset(&self) -> Self {
        let routes = (self.caps >> TN_INT_ROUTE_CAP_SHIFT) as u32;
        Self::new(routes, self.caps & TN_FSB_INT_DEL_CAP != 0)
    }

    /// Reads the register at `offset` of the timer's.
    pub fn read(&self, offset: u64) -> u64 {
        match offset {
            TN_CONF => self.conf | self.caps,
            TN_COMPARATOR => self.comparator,
            TN_FSB_ROUTE if self.caps & TN_FSB_INT_DEL_CAP != 0 => self.fsb_route,
            _ => 0,
        }
    }

    /// Writes the bits of `mask` to the register at `offset`.
    pub fn write(&mut self, offset: u64, value: u64, mask: u64) {
        match offset {
            TN_CONF => self.write_conf(value, mask),
            TN_COMPARATOR => self.write_comparator(value, mask),
            TN_FSB_ROUTE if self.caps & TN_FSB_INT_DEL_CAP != 0 => {
                self.fsb_route = merge(self.fsb_route, value, mask);
            }
            _ => {}
        }
    }

    fn write_conf(&mut self, value: u64, mask: u64) {
        let fsb = if self.caps & TN_FSB_INT_DEL_CAP != 0 { 0 } else { TN_FSB_EN_CNF };
        let mut mask = mask & (TN_WRITABLE | TN_INT_ROUTE_CNF) & !fsb;
        // §2.3.8: a route that is not offered does not read back. 0 is "none" until one is chosen.
        let route = (value & TN_INT_ROUTE_CNF) >> TN_INT_ROUTE_SHIFT;
        if route != 0 && self.caps >> TN_INT_ROUTE_CAP_SHIFT >> route & 1 == 0 {
            mask &= !TN_INT_ROUTE_CNF;
        }
        self.conf = merge(self.conf, value, mask);
        self.comparator &= self.width();
        self.period &= self.width();
    }

    /// §2.3.9: one-shot, the comparator; periodic, the period, and the accumulator as well when
    /// VAL_SET asks for it. VAL_SET serves one write: 32-bit software sets it before each half.
    fn write_comparator(&mut self, value: u64, mask: u64) {
        let mask = mask & self.width();
        if !self.is_periodic() || self.conf & TN_VAL_SET_CNF != 0 {
            self.comparator = merge(self.comparator, value, mask);
        }
        if self.is_periodic() {
            self.period = merge(self.period, value, mask);
        }
        self.conf &= !TN_VAL_SET_CNF;
    }

    /// Whether a match makes an interrupt.
    pub fn is_enabled(&self) -> bool {
        self.conf & TN_INT_ENB_CNF != 0
    }

    /// Whether the interrupt is a level, with a status bit. A message has none.
    pub fn is_level(&self) -> bool {
        self.conf & (TN_INT_TYPE_CNF | TN_FSB_EN_CNF) == TN_INT_TYPE_CNF
    }

    fn is_periodic(&self) -> bool {
        self.conf & TN_TYPE_CNF != 0
    }

    /// The bits that are compared.
    fn width(&self) -> u64 {
        if self.conf & TN_32MODE_CNF != 0 { u64::from(u32::MAX) } else { u64::MAX }
    }

    /// The timer's interrupt: `legacy` is the line of the legacy replacement route while that is on.
    pub fn route(&self, legacy: Option<u32>) -> Route {
        if self.conf & TN_FSB_EN_CNF != 0 {
            let (addr, data) = (self.fsb_route >> 32, self.fsb_route as u32);
            return Route::Message { addr, data };
        }
        let input = ((self.conf & TN_INT_ROUTE_CNF) >> TN_INT_ROUTE_SHIFT) as u32;
        let offered = self.caps >> TN_INT_ROUTE_CAP_SHIFT >> input & 1 != 0;
        Route::Line(legacy.or(Some(input).filter(|_| offered)))
    }

    /// Counts from `counter` until the counter next arrives at the comparator, 1 or more.
    pub fn until_match(&self, counter: u64) -> u64 {
        let distance = self.comparator.wrapping_sub(counter) & self.width();
        match (distance, self.width()) {
            (0, u64::MAX) => u64::MAX,
            (0, width) => width + 1,
            (distance, _) => distance,
        }
    }

    /// Lets the main counter go from `counter` on by `counts`: whether it arrived at the comparator.
    /// A periodic timer is then set to its next arrival.
    pub fn advance(&mut self, counter: u64, counts: u64) -> bool {
        let first = self.until_match(counter);
        if counts < first {
            return false;
        }
        if self.is_periodic() && self.period != 0 {
            let periods = (counts - first) / self.period + 1;
            self.comparator =
                self.comparator.wrapping_add(self.period.wrapping_mul(periods)) & self.width();
        }
        true
    }
}

/// `value` in the bits of `mask`, `old` in the others.
pub fn merge(old: u64, value: u64, mask: u64) -> u64 {
    old & !mask | value & mask
}
