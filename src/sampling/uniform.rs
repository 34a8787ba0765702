//! Uniform draws.

use super::anchors::Anchor;
use super::eligibility::Eligibility;
use super::permutation::Permutation;
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
    let (eligibility, universe) = (&*eligibility, Universe::new(bank, eligibility, anchor));
    let wanted = if replace && n > 0 { k } else { k.min(n) };
    if eligibility.takes_all(anchor) {
        let places = positions(universe.len(), wanted, replace, stream).map(|at| universe.get(at)).collect();
        return Drawn { places, n, plan: universe.plan };
    }
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
        let places = positions(eligible.len(), wanted, replace, stream).map(|at| eligible[at]).collect();
        return Drawn { places, n, plan: Plan::Enumeration };
    }
    let walk = positions(universe.len(), usize::MAX, replace, stream).map(|at| universe.get(at));
    let places = walk.filter(|&place| !rejects(place)).take(wanted).collect();
    Drawn { places, n, plan: universe.plan }
}

/// At most `most` random positions in `0..len`: a permutation of them, or independent ones without end.
fn positions(len: usize, most: usize, replace: bool, stream: &mut Stream) -> Box<dyn Iterator<Item = usize> + '_> {
    if !replace {
        return Box::new(Permutation::new(len, stream).take(most));
    }
    Box::new(std::iter::repeat_with(move || stream.below(len as u64) as usize).take_while(move |_| len > 0).take(most))
}
