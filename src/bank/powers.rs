//! Powers of the entries' sampling weights, and sums of them.

use std::ops::{AddAssign, SubAssign};

use super::shard::Shard;
use super::state::Place;

/// A sum of powers w^alpha of weights: by the binary exponent e of w, the sum of (w / 2^e)^alpha in fixed point. So it is exact: the
/// same whatever came and went in which order, and what is taken away leaves no rounding behind.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Mass {
    /// By rising exponent; none of no entries.
    terms: Vec<Term>,
}

/// The entries of one exponent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Term {
    exponent: i16,
    entries: u64,
    sum: u128,
}

/// Binary digits after the point of a ratio (w / 2^e)^alpha. It lies between 2^-4 and 2^4, so it fits 64 bits, and a sum of 2^60 of them
/// fits 128.
const DIGITS: i32 = 48;

/// w^alpha of each entry for one alpha of at most `Strategy::LARGEST_ALPHA` in magnitude, kept in step with the writes. Powers of any weight, and their
/// sums, then fit an f64.
#[derive(Debug, Clone)]
pub struct Powers {
    alpha: f32,
    /// One over the largest ratio that there is.
    per_ratio: f64,
    /// By shard and slot; 0 where there is no entry or its weight is 0.
    ratios: Vec<Vec<u64>>,
    total: Mass,
}

/// The binary exponent of a weight, which lies between 2^e and 2^(e + 1); `None` for weight 0.
pub fn exponent(weight: f32) -> Option<i16> {
    // As f64 every f32 above 0 is a normal number.
    let bits = f64::from(weight).to_bits();
    (weight > 0.0).then(|| ((bits >> 52) as i16 & 0x7FF) - 1_023)
}

fn fixed(ratio: f64) -> u64 {
    (ratio * libm::exp2(f64::from(DIGITS))) as u64
}

fn ratio(weight: f32, alpha: f32) -> u64 {
    let Some(exponent) = exponent(weight) else { return 0 };
    let mantissa = f64::from(weight) * libm::exp2(f64::from(-exponent));
    fixed(libm::pow(mantissa, f64::from(alpha))).max(1)
}

impl Mass {
    /// Entries that were summed: those of weight 0 have none.
    pub fn entries(&self) -> usize {
        self.terms.iter().map(|term| term.entries as usize).sum()
    }

    /// The sum, for the alpha that the powers are of.
    pub fn value(&self, alpha: f32) -> f64 {
        self.by_exponent(alpha).map(|(_, value)| value).sum()
    }

    /// The sum of the entries of each exponent.
    pub fn by_exponent(&self, alpha: f32) -> impl Iterator<Item = (i16, f64)> + '_ {
        self.terms.iter().map(move |term| (term.exponent, value(term.exponent, term.sum, alpha)))
    }

    fn add_one(&mut self, weight: f32, ratio: u64) {
        if let Some(exponent) = exponent(weight) {
            self.put(Term { exponent, entries: 1, sum: ratio.into() });
        }
    }

    fn take_one(&mut self, weight: f32, ratio: u64) {
        if let Some(exponent) = exponent(weight) {
            self.take(Term { exponent, entries: 1, sum: ratio.into() });
        }
    }

    fn put(&mut self, Term { exponent, entries, sum }: Term) {
        match self.terms.binary_search_by_key(&exponent, |term| term.exponent) {
            Ok(at) => {
                self.terms[at].entries += entries;
                self.terms[at].sum += sum;
            }
            Err(at) => self.terms.insert(at, Term { exponent, entries, sum }),
        }
    }

    fn take(&mut self, Term { exponent, entries, sum }: Term) {
        if let Ok(at) = self.terms.binary_search_by_key(&exponent, |term| term.exponent) {
            self.terms[at].entries -= entries;
            self.terms[at].sum -= sum;
            if self.terms[at].entries == 0 {
                self.terms.remove(at);
            }
        }
    }
}

fn value(exponent: i16, sum: u128, alpha: f32) -> f64 {
    sum as f64 * libm::exp2(f64::from(exponent) * f64::from(alpha) - f64::from(DIGITS))
}

impl AddAssign for Mass {
    fn add_assign(&mut self, more: Self) {
        more.terms.into_iter().for_each(|term| self.put(term));
    }
}

impl SubAssign for Mass {
    /// Takes away a part.
    fn sub_assign(&mut self, part: Self) {
        part.terms.into_iter().for_each(|term| self.take(term));
    }
}

impl Powers {
    /// The powers of what these shards hold.
    pub(super) fn new(alpha: f32, shards: &[Shard]) -> Self {
        let mut powers = Self::none(alpha, shards.len());
        // Mostly many entries have one weight.
        let mut last = (0.0f32, 0);
        for (number, shard) in shards.iter().enumerate() {
            for slot in 0..shard.columns().len() as u32 {
                let weight = shard.columns().weight(slot);
                if weight.to_bits() != last.0.to_bits() {
                    last = (weight, ratio(weight, alpha));
                }
                powers.ratios[number].push(last.1);
                powers.total.add_one(weight, last.1);
            }
        }
        powers
    }

    fn none(alpha: f32, shards: usize) -> Self {
        let per_ratio = 1.0 / fixed(libm::exp2(f64::from(alpha).max(0.0))) as f64;
        Self { alpha, per_ratio, ratios: vec![Vec::new(); shards], total: Mass::default() }
    }

    /// The alpha.
    pub fn alpha(&self) -> f32 {
        self.alpha
    }

    /// The sum over all entries.
    pub fn total(&self) -> &Mass {
        &self.total
    }

    /// Adds the power of the entry at a place, whose weight is given.
    pub fn add(&self, place: Place, weight: f32, to: &mut Mass) {
        to.add_one(weight, self.ratio(place));
    }

    /// The power of the entry at a place, whose weight is given.
    pub fn of(&self, place: Place, weight: f32) -> f64 {
        exponent(weight).map_or(0.0, |exponent| value(exponent, self.ratio(place).into(), self.alpha))
    }

    /// How large the entry's power is among those of its exponent, in (0, 1].
    pub fn share(&self, place: Place) -> f64 {
        self.ratio(place) as f64 * self.per_ratio
    }

    /// Notes that the weight at a place changed; 0 stands for no entry.
    pub(super) fn change(&mut self, place: Place, before: f32, now: f32) {
        let slots = &mut self.ratios[place.shard as usize];
        let slot = place.slot as usize;
        if slot >= slots.len() {
            slots.resize(slot + 1, 0);
        }
        let gone = std::mem::replace(&mut slots[slot], ratio(now, self.alpha));
        let came = slots[slot];
        self.total.take_one(before, gone);
        self.total.add_one(now, came);
    }

    fn ratio(&self, place: Place) -> u64 {
        self.ratios[place.shard as usize].get(place.slot as usize).copied().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::{Place, Powers, exponent};

    #[test]
    fn an_exponent_is_that_of_the_weight_down_to_the_smallest() {
        let of = |weight: f32| exponent(weight);
        assert_eq!([of(1.0), of(1.99), of(0.5), of(f32::MAX), of(f32::from_bits(1))], [0, 0, -1, 127, -149].map(Some));
        assert_eq!(of(0.0), None);
    }

    #[test]
    fn sums_are_exact_in_any_order_and_what_leaves_leaves_nothing() {
        let weights = [3.0f32, 1e-30, 7.5, 1e30, 0.0, 0.1, 1e-45, 3.4e38];
        let place = |slot: usize| Place { shard: 0, slot: slot as u32 };
        for alpha in [0.75, -1.5, 4.0, -4.0, 0.0, 1.0] {
            let mut powers = Powers::none(alpha, 1);
            let mut back = powers.clone();
            for (slot, &weight) in weights.iter().enumerate() {
                powers.change(place(slot), 0.0, weight);
                back.change(place(weights.len() - 1 - slot), 0.0, weights[weights.len() - 1 - slot]);
            }
            assert_eq!((powers.total(), powers.total().entries()), (back.total(), 7));
            let each = |slot: usize| if weights[slot] > 0.0 { f64::from(weights[slot]).powf(f64::from(alpha)) } else { 0.0 };
            let expected: f64 = (0..weights.len()).map(each).sum();
            let got = powers.total().value(alpha);
            assert!((got / expected - 1.0).abs() < 1e-12, "alpha {alpha}: {got}, not {expected}");
            // The largest goes, and what is left is what it would be without it.
            for slot in [7, 3, 6, 1] {
                assert!((powers.of(place(slot), weights[slot]) / each(slot) - 1.0).abs() < 1e-12);
                assert!(powers.share(place(slot)) > 0.0 && powers.share(place(slot)) <= 1.0);
                powers.change(place(slot), weights[slot], 0.0);
            }
            let expected: f64 = [0, 2, 5].map(each).iter().sum();
            assert!((powers.total().value(alpha) / expected - 1.0).abs() < 1e-12);
        }
    }
}
