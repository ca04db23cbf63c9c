//! A set of small numbers: the offsets of addresses in a block.

/// One bit a number, in words of 64; no larger than its largest number needs.
#[derive(Debug, Clone, Default)]
pub(crate) struct Bits(Vec<u64>);

impl Bits {
    /// The numbers that are not in the set, lowest first, without end.
    pub(crate) fn zeros(&self) -> impl Iterator<Item = u128> {
        let words = self.0.iter().copied().chain(std::iter::repeat(0));
        words.zip(0u128..).flat_map(|(word, index)| {
            let free = (0..64).filter(move |bit| word & (1 << bit) == 0);
            let all_taken = word == u64::MAX;
            let free = free.take(if all_taken { 0 } else { 64 });
            free.map(move |bit| index * 64 + bit)
        })
    }

    fn insert(&mut self, number: u128) {
        let Ok(word) = usize::try_from(number / 64) else {
            return;
        };
        if self.0.len() <= word {
            self.0.resize(word + 1, 0);
        }
        if let Some(word) = self.0.get_mut(word) {
            *word |= 1 << (number % 64);
        }
    }
}

/// Words of nothing at the end do not count.
impl PartialEq for Bits {
    fn eq(&self, other: &Self) -> bool {
        let trimmed = |bits: &'_ Self| {
            bits.0
                .iter()
                .rposition(|word| *word != 0)
                .map_or(0, |at| at + 1)
        };
        let (own, theirs) = (trimmed(self), trimmed(other));
        self.0.get(..own) == other.0.get(..theirs)
    }
}

impl Extend<u128> for Bits {
    fn extend<I: IntoIterator<Item = u128>>(&mut self, numbers: I) {
        for number in numbers {
            self.insert(number);
        }
    }
}

impl FromIterator<u128> for Bits {
    fn from_iter<I: IntoIterator<Item = u128>>(numbers: I) -> Self {
        let mut bits = Self::default();
        bits.extend(numbers);
        bits
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lowest_that_is_missing() {
        let full: Bits = (0..128).collect();
        assert_eq!(full.zeros().next(), Some(128));
        let gaps: Bits = (0..128).filter(|n| *n != 5 && *n != 100).collect();
        assert_eq!(gaps.zeros().take(3).collect::<Vec<_>>(), [5, 100, 128]);
        assert_eq!(Bits::default().zeros().next(), Some(0));
        assert_eq!(Bits(vec![1, 0]), Bits(vec![1]));
        assert_ne!(Bits(vec![1, 2]), Bits(vec![1]));
    }
}
