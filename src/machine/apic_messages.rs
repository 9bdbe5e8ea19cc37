//! Interrupt messages as the bus shows them.

use crate::base::{Error, Result};

/// Messages that wait to be taken: more than any case makes, and few enough to hold.
const KEPT_MAX: usize = 1 << 12;

/// A message for local APICs (Intel SDM volume 3, §11.11): a write to memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ApicMessage {
    /// Where: destination, and how it is meant.
    pub addr: u64,
    /// Vector, delivery mode and trigger mode.
    pub data: u32,
}

/// Messages since they were taken last.
#[derive(Debug, Default)]
pub struct ApicMessages {
    wanted: bool,
    list: Vec<ApicMessage>,
    lost: u64,
}

impl ApicMessages {
    /// Whether anybody asked for them.
    pub fn are_wanted(&self) -> bool {
        self.wanted
    }

    /// A message came.
    pub fn push(&mut self, message: ApicMessage) {
        match self.list.len() {
            _ if !self.wanted => {}
            KEPT_MAX => self.lost += 1,
            _ => self.list.push(message),
        }
    }

    /// What came since the last call, oldest first. The first call begins to keep them.
    ///
    /// # Errors
    /// More came than are kept.
    pub fn take(&mut self) -> Result<Vec<ApicMessage>> {
        self.wanted = true;
        match std::mem::take(&mut self.lost) {
            0 => Ok(std::mem::take(&mut self.list)),
            lost => {
                self.list.clear();
                let kept = KEPT_MAX;
                Err(Error::machine(format!(
                    "{lost} interrupt messages beyond the {kept} that are kept"
                )))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_kept_from_the_first_question_on_and_none_is_lost_in_silence() {
        let message = |data| ApicMessage { addr: 0xfee0_0000, data };
        let mut messages = ApicMessages::default();
        messages.push(message(0));
        assert_eq!(messages.take().unwrap(), []);
        messages.push(message(1));
        messages.push(message(2));
        assert_eq!(messages.take().unwrap(), [message(1), message(2)]);
        (0..=KEPT_MAX).for_each(|n| messages.push(message(n as u32)));
        assert!(messages.take().unwrap_err().to_string().starts_with("1 interrupt message"));
        assert_eq!(messages.take().unwrap(), []);
    }
}
