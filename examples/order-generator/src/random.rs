//! A small seeded source of chance (SplitMix64). It is our own so that the same seed gives the same bytes for ever,
//! whatever a library's next release does.

/// SplitMix64: one word of state, passes the usual statistical batteries, needs about a nanosecond a number.
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// A generator that always gives the same numbers for the same seed.
    pub fn new(seed: u64) -> Self {
        Random(seed)
    }

    /// The next 64 random bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number in `0..bound`; 0 when `bound` is 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.bits()) * u128::from(bound)) >> 64) as u64
    }

    /// A number in `low..=high`, every one as likely as the other.
    pub fn between(&mut self, low: i64, high: i64) -> i64 {
        low + self.below(high.abs_diff(low) + 1) as i64
    }

    /// A number in `low..=high`, small ones far more often: the product of two uniform draws.
    pub fn skewed(&mut self, low: i64, high: i64) -> i64 {
        let product = (u128::from(self.bits()) * u128::from(self.bits())) >> 64;
        low + ((product * u128::from(high.abs_diff(low) + 1)) >> 64) as i64
    }

    /// An index into `weights`, as often as its weight says.
    pub fn weighted(&mut self, weights: impl Iterator<Item = u32> + Clone) -> usize {
        let total: u64 = weights.clone().map(u64::from).sum();
        let mut left = self.below(total);
        for (index, weight) in weights.enumerate() {
            if left < u64::from(weight) {
                return index;
            }
            left -= u64::from(weight);
        }
        0
    }
}

/// A share of all events in parts per million, read from decimal text such as `0.001`, so that chance needs no floating
/// point either.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Fraction {
    parts_per_million: u32,
}

impl Fraction {
    /// Never.
    pub const NONE: Fraction = Fraction { parts_per_million: 0 };

    /// `parts` of a million; more than a million counts as all.
    pub const fn per_million(parts: u32) -> Self {
        Fraction { parts_per_million: if parts > 1_000_000 { 1_000_000 } else { parts } }
    }

    /// How many of a million.
    pub const fn parts_per_million(self) -> u32 {
        self.parts_per_million
    }

    /// Whether it happens this time.
    pub fn happens(self, random: &mut Random) -> bool {
        self.parts_per_million > 0 && random.below(1_000_000) < u64::from(self.parts_per_million)
    }
}

impl std::str::FromStr for Fraction {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let refused = || format!("`{text}` is no fraction from 0 to 1 with at most six digits after the point");
        let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
        if fraction.is_empty() || fraction.len() > 6 || !fraction.bytes().all(|b| b.is_ascii_digit()) {
            return Err(refused());
        }
        let parts: u32 = format!("{fraction:0<6}").parse().map_err(|_| refused())?;
        match whole {
            "0" => Ok(Fraction::per_million(parts)),
            "1" if parts == 0 => Ok(Fraction::per_million(1_000_000)),
            _ => Err(refused()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_known_first_numbers_of_seed_zero() {
        let mut random = Random::new(0);
        assert_eq!(random.bits(), 0xe220_a839_7b1d_cdaf);
        assert_eq!(random.bits(), 0x6e78_9e6a_a1b9_65f4);
    }

    #[test]
    fn draws_stay_in_their_range() {
        let mut random = Random::new(7);
        for _ in 0..10_000 {
            assert!(random.below(3) < 3);
            assert!((-5..=5).contains(&random.between(-5, 5)));
            assert!((10..=20).contains(&random.skewed(10, 20)));
            assert!(random.weighted([0, 3, 0, 1].into_iter()) % 2 == 1);
        }
        assert_eq!(random.below(0), 0);
    }

    #[test]
    fn fractions_are_read_exactly() {
        assert_eq!("0.001".parse(), Ok(Fraction::per_million(1000)));
        assert_eq!("0".parse(), Ok(Fraction::NONE));
        assert_eq!("1.0".parse(), Ok(Fraction::per_million(1_000_000)));
        for text in ["1.1", "-0.1", "0.", ".5", "2", "1e-3", "0.0000001", ""] {
            assert!(text.parse::<Fraction>().is_err(), "{text}");
        }
    }
}
