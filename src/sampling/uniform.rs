//! Uniform draws.

use rustc_hash::FxHashMap;

use super::anchors::Anchor;
use super::eligibility::Eligibility;
use super::universe::Universe;
use crate::bank::{Bank, Place};
use crate::model::{Plan, ReasonCounts, Stream};

/// What one anchor drew.
#[derive(Debug)]
pub(super) struct Drawn {
    pub(super) places: Vec<Place>,
    /// Size of the eligible set.
    pub(super) n: usize,
    pub(super) plan: Plan,
}

/// Draws min(k, n) of the n entries eligible for `anchor`; every set of that size is equally likely, in every order. With
/// `replace`, draws k independently, if n is at least 1.
///
/// Walks a random permutation of the universe and keeps what is eligible: O(k) while a good part of it is. Where less than
/// a quarter is, or where half of it would be walked anyway, the eligible entries are listed first and permuted instead.
/// Which of the two is decided by exact counts, so it is the same for the same state of the bank.
pub(super) fn draw(
    bank: &Bank,
    eligibility: &mut Eligibility,
    anchor: &Anchor,
    (k, replace): (usize, bool),
    stream: &mut Stream,
    rejections: &mut ReasonCounts,
) -> Drawn {
    let n = eligibility.count(anchor, bank);
    let (eligibility, universe) = (&*eligibility, Universe::new(bank, eligibility));
    let wanted = if replace && n > 0 { k } else { k.min(n) };
    let mut rejects = |place: Place| {
        let reason = eligibility.rejects(anchor, bank.columns(place), place.slot);
        if let Some(reason) = reason {
            rejections.add(reason, 1);
        }
        reason.is_some()
    };
    let few_pass = n.saturating_mul(4) < universe.len();
    let most_walked = !replace && wanted.saturating_mul(2) > n;
    if wanted > 0 && n < universe.len() && (few_pass || most_walked) {
        let eligible: Vec<Place> = universe.iter().filter(|&place| !rejects(place)).collect();
        let places = positions(eligible.len(), replace, stream).take(wanted).map(|at| eligible[at]).collect();
        return Drawn { places, n, plan: Plan::Enumeration };
    }
    let walk = positions(universe.len(), replace, stream).map(|at| universe.get(at));
    let places = walk.filter(|&place| !rejects(place)).take(wanted).collect();
    Drawn { places, n, plan: universe.plan }
}

/// Random positions in `0..len`: a permutation of them, or independent ones without end.
fn positions(len: usize, replace: bool, stream: &mut Stream) -> Box<dyn Iterator<Item = usize> + '_> {
    if !replace {
        return Box::new(Permutation::new(len, stream));
    }
    Box::new(std::iter::repeat_with(move || stream.below(len as u64) as usize).take_while(move |_| len > 0))
}

/// `0..len` in random order, one at a time: Fisher and Yates's shuffle that stores only the positions it has moved.
#[derive(Debug)]
pub(super) struct Permutation<'s> {
    len: usize,
    next: usize,
    moved: FxHashMap<usize, usize>,
    stream: &'s mut Stream,
}

impl<'s> Permutation<'s> {
    pub(super) fn new(len: usize, stream: &'s mut Stream) -> Self {
        Self { len, next: 0, moved: FxHashMap::default(), stream }
    }
}

impl Iterator for Permutation<'_> {
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        if self.next >= self.len {
            return None;
        }
        let front = self.moved.remove(&self.next).unwrap_or(self.next);
        let at = self.next + self.stream.below((self.len - self.next) as u64) as usize;
        let picked = if at == self.next { front } else { self.moved.insert(at, front).unwrap_or(at) };
        self.next += 1;
        Some(picked)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::Permutation;
    use crate::model::Seed;

    #[test]
    fn every_permutation_is_equally_likely() {
        let mut seen: HashMap<Vec<usize>, u32> = HashMap::new();
        let runs = 24_000;
        for seed in 0..runs {
            let order: Vec<usize> = Permutation::new(4, &mut Seed(seed).stream(0, 0)).collect();
            *seen.entry(order).or_default() += 1;
        }
        let expected = runs as f64 / 24.0;
        let chi2: f64 = seen.values().map(|&count| (f64::from(count) - expected).powi(2) / expected).sum();
        assert_eq!(seen.len(), 24);
        assert!(chi2 < 49.7, "chi-square {chi2} over 23 degrees of freedom is past the 99.9 % point");
    }
}
