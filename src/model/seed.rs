//! Randomness: the one door to entropy, and the generator behind every draw.

use std::sync::OnceLock;

/// Seed of a request's draws.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seed(pub u64);

impl Seed {
    /// A seed from the operating system's entropy.
    ///
    /// # Errors
    /// If the system gives none.
    pub fn from_entropy() -> Result<Self, getrandom::Error> {
        let mut bytes = [0; 8];
        getrandom::fill(&mut bytes)?;
        Ok(Self(u64::from_le_bytes(bytes)))
    }

    /// One that this process drew when it was first asked for: of hashes, whose order nobody sees.
    pub fn of_this_process() -> Self {
        static DRAWN: OnceLock<Seed> = OnceLock::new();
        // Where there is no entropy, hashes can be foreseen.
        *DRAWN.get_or_init(|| Self::from_entropy().unwrap_or(Self(0x51C7_3E0B_9D24_F6A8)))
    }

    /// The stream of one anchor's draw. Streams of different (draw, anchor) are independent, so the anchors of a request may
    /// be answered in any order and on any number of threads.
    pub fn stream(self, draw: usize, anchor: usize) -> Stream {
        let mut key = self.key(draw, anchor);
        Stream { state: std::array::from_fn(|_| split_mix(&mut key)) }
    }

    /// Noise of each entry for one anchor's draw.
    pub fn noise(self, draw: usize, anchor: usize) -> Noise {
        let mut key = self.key(draw, anchor);
        // Another key than the stream's.
        Noise { key: split_mix(&mut key) ^ 0x5851_F42D_4C95_7F2D }
    }

    fn key(self, draw: usize, anchor: usize) -> u64 {
        let mut state = self.0;
        let mut key = split_mix(&mut state);
        for word in [draw as u64, anchor as u64] {
            let mut mixed = key ^ word.wrapping_mul(0xD1B5_4A32_D192_ED03);
            key = split_mix(&mut mixed);
        }
        key
    }
}

/// Noise that each entry has by its stamp, in whatever order entries are met.
#[derive(Debug, Clone, Copy)]
pub struct Noise {
    key: u64,
}

/// A standard exponential variate that is known by its bits.
#[derive(Debug, Clone, Copy)]
pub struct Exponential(u64);

impl Noise {
    /// The variate of an entry.
    pub fn of(self, stamp: u64) -> Exponential {
        let mut state = self.key.wrapping_add(stamp.wrapping_mul(0xD1B5_4A32_D192_ED03));
        Exponential(split_mix(&mut state))
    }
}

impl Exponential {
    /// A number in (0, 1) that it is above, and near where it is small: 1 - u for the -ln u that it is.
    pub fn floor(self) -> f64 {
        1.0 - self.uniform()
    }

    /// The variate, above 0; the same bits on every machine.
    pub fn value(self) -> f64 {
        -libm::log(self.uniform())
    }

    /// Half a step of 2^-52 off both ends, so that the logarithm is neither infinite nor zero.
    fn uniform(self) -> f64 {
        ((self.0 >> 12) as f64 + 0.5) / (1u64 << 52) as f64
    }
}

/// xoshiro256++ 1.0 (Blackman and Vigna 2021), seeded by SplitMix64 as its authors recommend.
#[derive(Debug, Clone)]
pub struct Stream {
    state: [u64; 4],
}

impl Stream {
    /// The next 64 random bits.
    pub fn next_u64(&mut self) -> u64 {
        let [a, b, c, d] = &mut self.state;
        let result = a.wrapping_add(*d).rotate_left(23).wrapping_add(*a);
        let shifted = *b << 17;
        *c ^= *a;
        *d ^= *b;
        *b ^= *c;
        *a ^= *d;
        *c ^= shifted;
        *d = d.rotate_left(45);
        result
    }

    /// A number uniform in [0, 1), a multiple of 2^-53.
    pub fn unit(&mut self) -> f64 {
        (self.next_u64() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Standard Gumbel noise, the same bits on every machine.
    pub fn gumbel(&mut self) -> f64 {
        -libm::log(self.exponential())
    }

    /// A standard exponential variate, above 0; the same bits on every machine.
    pub fn exponential(&mut self) -> f64 {
        Exponential(self.next_u64()).value()
    }

    /// A number uniform in `0..bound` without bias (Lemire 2019, multiply and reject). 0 for a bound of 0 or 1.
    pub fn below(&mut self, bound: u64) -> u64 {
        if bound <= 1 {
            return 0;
        }
        let reject_under = bound.wrapping_neg() % bound;
        loop {
            let product = u128::from(self.next_u64()) * u128::from(bound);
            if product as u64 >= reject_under {
                return (product >> 64) as u64;
            }
        }
    }
}

/// SplitMix64 (Steele, Lea and Flood 2014): advances `state` and returns 64 mixed bits.
pub fn split_mix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let mut mixed = *state;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests {
    use super::{Seed, split_mix};

    #[test]
    fn split_mix_matches_its_published_vector() {
        let mut state = 1_234_567;
        let first: Vec<u64> = (0..3).map(|_| split_mix(&mut state)).collect();
        assert_eq!(first, [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423]);
    }

    #[test]
    fn below_is_uniform_over_a_bound_that_does_not_divide_the_range() {
        let mut stream = Seed(7).stream(0, 0);
        let (cells, draws) = (13u64, 130_000);
        let mut seen = [0u32; 13];
        for _ in 0..draws {
            seen[stream.below(cells) as usize] += 1;
        }
        let expected = f64::from(draws) / cells as f64;
        let chi2: f64 = seen.iter().map(|&count| (f64::from(count) - expected).powi(2) / expected).sum();
        assert!(chi2 < 32.9, "chi-square {chi2} over 12 degrees of freedom is past the 99.9 % point");
    }

    #[test]
    fn noise_is_an_entrys_own_and_exponential() {
        let noise = Seed(3).noise(1, 2);
        assert_eq!(noise.of(9).value().to_bits(), Seed(3).noise(1, 2).of(9).value().to_bits());
        assert_ne!(noise.of(9).value().to_bits(), Seed(3).noise(2, 1).of(9).value().to_bits());
        let mut seen = [0u32; 10];
        for stamp in 0..100_000 {
            let variate = noise.of(stamp);
            assert!(0.0 < variate.floor() && variate.floor() < variate.value());
            // Ten cells of equal probability.
            seen[((1.0 - (-variate.value()).exp()) * 10.0) as usize] += 1;
        }
        let chi2: f64 = seen.iter().map(|&count| (f64::from(count) - 1e4).powi(2) / 1e4).sum();
        assert!(chi2 < 27.9, "chi-square {chi2} over 9 degrees of freedom is past the 99.9 % point");
    }

    #[test]
    fn streams_of_different_draws_and_anchors_differ() {
        let firsts: std::collections::BTreeSet<u64> =
            (0..50).flat_map(|draw| (0..50).map(move |anchor| Seed(1).stream(draw, anchor).next_u64())).collect();
        assert_eq!(firsts.len(), 2_500);
    }
}
