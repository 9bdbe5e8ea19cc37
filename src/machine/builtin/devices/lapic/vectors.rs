//! A set of interrupt vectors, as ISR, TMR and IRR are (SDM §11.8.4).

/// 256 bits.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Vectors([u32; 8]);

impl Vectors {
    /// Bits 32·`index` and up, as the register of that index reads.
    pub fn word(&self, index: usize) -> u32 {
        self.0.get(index).copied().unwrap_or(0)
    }

    /// Whether `vector` is in the set.
    pub fn contains(&self, vector: u8) -> bool {
        self.word(usize::from(vector / 32)) >> (vector % 32) & 1 != 0
    }

    /// Puts `vector` in, or takes it out.
    pub fn set(&mut self, vector: u8, member: bool) {
        if let Some(word) = self.0.get_mut(usize::from(vector / 32)) {
            let bit = 1 << (vector % 32);
            *word = if member { *word | bit } else { *word & !bit };
        }
    }

    /// The vector with the highest priority.
    pub fn highest(&self) -> Option<u8> {
        let (index, word) = (0u8..).zip(self.0).filter(|(_, word)| *word != 0).last()?;
        Some(index * 32 + (31 - word.leading_zeros() as u8))
    }
}
