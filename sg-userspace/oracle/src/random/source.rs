//! Where choices come from.

/// Choices of a seed, without end, or those that bytes spell out, as a fuzzer gives them.
#[derive(Clone, Debug)]
pub enum Source<'a> {
    /// SplitMix64 (Steele, Lea, Flood 2014) from this state on.
    Seed(u64),
    /// What is left of the bytes; after them every choice is the first one.
    Bytes(&'a [u8]),
}

impl Source<'_> {
    /// Whether nothing is left to choose by.
    pub fn is_empty(&self) -> bool {
        matches!(self, Source::Bytes([]))
    }

    /// Any number of `bytes` bytes, at most eight.
    fn number(&mut self, bytes: usize) -> u64 {
        match self {
            Source::Seed(state) => {
                *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
                let mut mixed = *state;
                mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
                mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
                mixed ^ (mixed >> 31)
            }
            Source::Bytes(left) => {
                let (taken, rest) = left.split_at(bytes.min(left.len()));
                *left = rest;
                let join = |number: u64, byte: &u8| number << 8 | u64::from(*byte);
                taken.iter().fold(0, join)
            }
        }
    }

    /// Any byte.
    pub fn byte(&mut self) -> u8 {
        self.number(1) as u8
    }

    /// Any 32 bits.
    pub fn word(&mut self) -> u32 {
        self.number(4) as u32
    }

    /// A number below `end`, which is not 0.
    pub fn below(&mut self, end: usize) -> usize {
        let bytes = match end {
            ..=0x100 => 1,
            0x101..=0x1_0000 => 2,
            _ => 8,
        };
        (self.number(bytes) % end as u64) as usize
    }

    /// True once in so many times; bytes that are used up say no.
    pub fn one_in(&mut self, times: usize) -> bool {
        self.below(times) == times - 1
    }

    /// One of several.
    pub fn of<T: Copy>(&mut self, choice: &[T]) -> T {
        choice[self.below(choice.len())]
    }

    /// One of several that are too big to copy; `None` of none.
    pub fn among<'c, T>(&mut self, choice: &'c [T]) -> Option<&'c T> {
        if choice.is_empty() {
            return None;
        }
        choice.get(self.below(choice.len()))
    }
}
