//! Draws by sampling weights.

use std::sync::Arc;

use super::anchors::Anchor;
use super::eligibility::Eligibility;
use super::law::Law;
use super::measured::Measured;
use super::universe::Universe;
use crate::bank::{Bank, Mass, Place, Powers};
use crate::model::{Plan, ReasonCounts, Stream};

/// What the anchors of a weighted draw share, as of one state of the bank.
#[derive(Debug, Default)]
pub(super) struct Weights {
    masses: Measured<Mass>,
    /// What passes the filters that don't depend on the anchor, where that is little of the bank.
    listed: Option<(u64, Arc<Listed>)>,
}

/// Entries, with the sums of their powers up to each.
#[derive(Debug)]
struct Listed {
    places: Vec<Place>,
    sums: Vec<f64>,
}

/// q proportional to w^alpha over one anchor's eligible set. Entries of weight 0 are never drawn.
pub(super) struct Weighted<'a> {
    bank: &'a Bank,
    eligibility: &'a Eligibility,
    anchor: &'a Anchor,
    rejections: &'a mut ReasonCounts,
    powers: Arc<Powers>,
    from: From<'a>,
    support: usize,
    /// Natural log of the sum of the eligible set's powers.
    pub(super) log_total: f64,
    pub(super) plan: Plan,
}

/// Where entries are drawn from before the anchor's filters.
enum From<'a> {
    /// All that the bank holds, by binary exponents of their weights: O(1) a draw.
    Bank(Vec<Bucket<'a>>),
    /// These.
    Listed(Arc<Listed>),
}

/// The entries whose weights have one exponent.
struct Bucket<'a> {
    /// The sum of the powers of this bucket's entries and of those before.
    sum: f64,
    entries: Universe<'a>,
}

/// Where less than this share of what is drawn from is eligible, the eligible entries are listed.
const LEAST_SHARE: f64 = 0.25;

impl Weights {
    /// The law of one anchor.
    pub(super) fn law<'a>(
        &mut self,
        bank: &'a Bank,
        eligibility: &'a Eligibility,
        anchor: &'a Anchor,
        alpha: f32,
        rejections: &'a mut ReasonCounts,
    ) -> Weighted<'a> {
        let powers = bank.powers(alpha);
        let mass = self.masses.of_anchor(&*powers, eligibility, anchor, bank);
        let (support, total) = (mass.entries(), mass.value(alpha));
        let shared = self.masses.of_everybody(&*powers, eligibility.shared(), bank).value(alpha);
        let listed = eligibility.only_labels().is_some() || shared < LEAST_SHARE * powers.total().value(alpha);
        let (from, plan) = match (listed, total < LEAST_SHARE * shared) {
            (_, true) if support > 0 => {
                (From::Listed(Listed::new(bank, eligibility, anchor, &powers).into()), Plan::Enumeration)
            }
            (true, _) => (From::Listed(self.listed(bank, eligibility, &powers)), listed_plan(eligibility)),
            (false, _) => (From::Bank(buckets(bank, &powers)), Plan::Roster),
        };
        Weighted { bank, eligibility, anchor, rejections, powers, from, support, log_total: libm::log(total), plan }
    }

    /// Natural log of the share that the anchor's eligible set has of what passes the filters which don't depend on it.
    pub(super) fn log_share(&mut self, bank: &Bank, eligibility: &Eligibility, anchor: &Anchor, alpha: f32) -> f64 {
        let powers = bank.powers(alpha);
        let own = self.masses.of_anchor(&*powers, eligibility, anchor, bank).value(alpha);
        let all = self.masses.of_everybody(&*powers, eligibility.shared(), bank).value(alpha);
        // Where all have weight 0 nothing can be drawn.
        if own > 0.0 { libm::log(own) - libm::log(all) } else { f64::NEG_INFINITY }
    }

    fn listed(&mut self, bank: &Bank, eligibility: &Eligibility, powers: &Powers) -> Arc<Listed> {
        let revision = bank.revision();
        if let Some((_, listed)) = self.listed.as_ref().filter(|(of, _)| *of == revision) {
            return Arc::clone(listed);
        }
        let listed = Arc::new(Listed::new(bank, eligibility, &Anchor::default(), powers));
        self.listed = Some((revision, Arc::clone(&listed)));
        listed
    }
}

fn listed_plan(eligibility: &Eligibility) -> Plan {
    if eligibility.only_labels().is_some() { Plan::PostingList } else { Plan::Enumeration }
}

impl Listed {
    fn new(bank: &Bank, eligibility: &Eligibility, anchor: &Anchor, powers: &Powers) -> Self {
        let (mut places, mut sums, mut sum) = (Vec::new(), Vec::new(), 0.0);
        for place in Universe::new(bank, eligibility, anchor).iter() {
            let columns = bank.columns(place);
            let weight = columns.weight(place.slot);
            if weight > 0.0 && eligibility.rejects(anchor, columns, place.slot).is_none() {
                sum += powers.of(place, weight);
                places.push(place);
                sums.push(sum);
            }
        }
        Self { places, sums }
    }
}

fn buckets<'a>(bank: &'a Bank, powers: &Powers) -> Vec<Bucket<'a>> {
    let mut sum = 0.0;
    let bucket = |(exponent, mass): (i16, f64)| {
        sum += mass;
        Bucket { sum, entries: Universe::weighing(bank, exponent) }
    };
    powers.total().by_exponent(powers.alpha()).map(bucket).collect()
}

impl Weighted<'_> {
    /// One entry of those that are drawn from, by its power.
    fn candidate(&self, stream: &mut Stream) -> Place {
        match &self.from {
            From::Listed(listed) => {
                let sum = listed.sums.last().copied().unwrap_or_default();
                let point = stream.unit() * sum;
                let at = listed.sums.partition_point(|&sum| sum <= point);
                listed.places[at.min(listed.places.len() - 1)]
            }
            From::Bank(buckets) => {
                let sum = buckets.last().map_or(0.0, |bucket| bucket.sum);
                let point = stream.unit() * sum;
                let at = buckets.partition_point(|bucket| bucket.sum <= point);
                let bucket = &buckets[at.min(buckets.len() - 1)];
                // Powers of one exponent lie within a factor of 2^|alpha|.
                loop {
                    let place = bucket.entries.get(stream.below(bucket.entries.len() as u64) as usize);
                    if stream.unit() < self.powers.share(place) {
                        return place;
                    }
                }
            }
        }
    }
}

impl Law for Weighted<'_> {
    fn support(&self) -> usize {
        self.support
    }

    fn one(&mut self, stream: &mut Stream) -> Place {
        loop {
            let place = self.candidate(stream);
            match self.eligibility.rejects(self.anchor, self.bank.columns(place), place.slot) {
                Some(reason) => self.rejections.add(reason, 1),
                None => return place,
            }
        }
    }

    fn log_q(&self, place: Place) -> f64 {
        let weight = self.bank.columns(place).weight(place.slot);
        f64::from(self.powers.alpha()) * libm::log(f64::from(weight)) - self.log_total
    }

    fn all(&self) -> Vec<Place> {
        Listed::new(self.bank, self.eligibility, self.anchor, &self.powers).places
    }
}
