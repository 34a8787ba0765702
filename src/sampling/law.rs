//! Drawing by a probability law again and again, with and without replacement.

use rustc_hash::FxHashSet;

use super::sum_tree::SumTree;
use crate::bank::Place;
use crate::model::Stream;

/// The entries that one anchor can draw, each with its probability.
pub(super) trait Law {
    /// Entries that can be drawn.
    fn support(&self) -> usize;

    /// Draws one; there must be one.
    fn one(&mut self, stream: &mut Stream) -> Place;

    /// Natural log of the probability of an entry that can be drawn.
    fn log_q(&self, place: Place) -> f64;

    /// Every entry that can be drawn, in an order that the writes alone decide.
    fn all(&self) -> Vec<Place>;
}

/// What was drawn without replacement.
#[derive(Debug, Default)]
pub(super) struct Distinct {
    pub(super) places: Vec<Place>,
    /// The perturbed log-probability of the entry that would come next; minus infinity if none is left.
    pub(super) kappa: f64,
}

/// As little of the probability is left when those that are left are listed, rather than drawn until one is new.
const LEAST_LEFT: f64 = 0.25;

/// Less than this and sums lose digits.
const SMALLEST_SUM: f64 = 1e-200;

/// k independent draws; none if nothing can be drawn.
pub(super) fn with_replacement(law: &mut impl Law, k: usize, stream: &mut Stream) -> Vec<Place> {
    if law.support() == 0 { Vec::new() } else { (0..k).map(|_| law.one(stream)).collect() }
}

/// Draws min(k, support) different entries: each time one of those that are left, by their probabilities.
///
/// That is the order of the entries' perturbed log-probabilities log_q + Gumbel noise (Kool, van Hoof and Welling 2019). These are minus the
/// logarithms of arrival times, exponential with rate q each: the next arrival of those that are left comes after an exponential time of
/// their rates' sum, and is one of them by its rate. So no other entry's noise need be known.
pub(super) fn without_replacement(law: &mut impl Law, k: usize, stream: &mut Stream) -> Distinct {
    let support = law.support();
    let wanted = k.min(support);
    let mut taken = FxHashSet::default();
    let (mut places, mut left, mut clock) = (Vec::with_capacity(wanted), 1.0, Clock::default());
    while places.len() < wanted && left >= LEAST_LEFT {
        clock.advance(libm::log(left), stream);
        let place = loop {
            let place = law.one(stream);
            if taken.insert(place) {
                break place;
            }
        };
        left -= libm::exp(law.log_q(place));
        places.push(place);
    }
    if places.len() == support {
        return Distinct { places, kappa: f64::NEG_INFINITY };
    }
    if places.len() == wanted && left >= LEAST_LEFT {
        clock.advance(libm::log(left), stream);
        return Distinct { places, kappa: clock.perturbed() };
    }
    let rest: Vec<(Place, f64)> =
        law.all().into_iter().filter(|place| !taken.contains(place)).map(|place| (place, law.log_q(place))).collect();
    let mut rest = Rest::new(rest);
    while places.len() < wanted {
        clock.advance(rest.log_sum(), stream);
        places.push(rest.take(stream));
    }
    if places.len() == support {
        return Distinct { places, kappa: f64::NEG_INFINITY };
    }
    clock.advance(rest.log_sum(), stream);
    Distinct { places, kappa: clock.perturbed() }
}

/// The time of the last arrival, by its logarithm.
struct Clock {
    log_time: f64,
}

impl Default for Clock {
    fn default() -> Self {
        Self { log_time: f64::NEG_INFINITY }
    }
}

impl Clock {
    /// To the next arrival of those that are left; their rates' sum is given by its logarithm.
    fn advance(&mut self, log_rate: f64, stream: &mut Stream) {
        let log_wait = libm::log(stream.exponential()) - log_rate;
        let (late, early) = (self.log_time.max(log_wait), self.log_time.min(log_wait));
        self.log_time = late + libm::log1p(libm::exp(early - late));
    }

    fn perturbed(&self) -> f64 {
        -self.log_time
    }
}

/// Entries that are left, listed.
struct Rest {
    /// An entry and its log-probability; minus infinity once it is taken.
    entries: Vec<(Place, f64)>,
    /// Probabilities relative to `largest`.
    tree: SumTree,
    largest: f64,
}

impl Rest {
    fn new(entries: Vec<(Place, f64)>) -> Self {
        let largest = entries.iter().map(|(_, log_q)| *log_q).fold(f64::NEG_INFINITY, f64::max);
        let tree = SumTree::new(entries.iter().map(|(_, log_q)| libm::exp(log_q - largest)));
        Self { entries, tree, largest }
    }

    /// Logarithm of the sum of the probabilities; there must be an entry left.
    fn log_sum(&mut self) -> f64 {
        if self.tree.total() < SMALLEST_SUM {
            let left: Vec<_> = self.entries.drain(..).filter(|(_, log_q)| *log_q > f64::NEG_INFINITY).collect();
            *self = Self::new(left);
        }
        self.largest + libm::log(self.tree.total())
    }

    fn take(&mut self, stream: &mut Stream) -> Place {
        let at = self.tree.at(stream.unit());
        self.tree.clear(at);
        let (place, log_q) = &mut self.entries[at];
        *log_q = f64::NEG_INFINITY;
        *place
    }
}

#[cfg(test)]
mod tests {
    use super::{Law, without_replacement};
    use crate::bank::Place;
    use crate::model::{Seed, Stream};

    struct Given(Vec<f64>);

    impl Law for Given {
        fn support(&self) -> usize {
            self.0.len()
        }

        fn one(&mut self, stream: &mut Stream) -> Place {
            let mut point = stream.unit();
            let passed = self.0.iter().take_while(|log_q| {
                point -= log_q.exp();
                point >= 0.0
            });
            place(passed.count().min(self.0.len() - 1))
        }

        fn log_q(&self, place: Place) -> f64 {
            self.0[place.slot as usize]
        }

        fn all(&self) -> Vec<Place> {
            (0..self.0.len()).map(place).collect()
        }
    }

    fn place(slot: usize) -> Place {
        Place { shard: 0, slot: slot as u32 }
    }

    fn law(weights: &[f64]) -> Given {
        let sum: f64 = weights.iter().sum();
        Given(weights.iter().map(|weight| (weight / sum).ln()).collect())
    }

    /// Orders and kappas are those of Gumbel noise on each entry.
    #[test]
    fn arrivals_are_perturbed_log_probabilities() {
        let (weights, k, runs) = ([5.0, 1.0, 0.5, 0.3, 0.2, 3.0], 3, 40_000u32);
        let (mut first, mut last, mut kappas) = ([0u32; 6], [0u32; 6], (0.0, 0.0));
        let (mut first_of_noise, mut last_of_noise, mut kappas_of_noise) = ([0u32; 6], [0u32; 6], (0.0, 0.0));
        let square = |(sum, squares): &mut (f64, f64), x: f64| {
            *sum += x;
            *squares += x * x;
        };
        for run in 0..runs {
            let mut stream = Seed(run.into()).stream(0, 0);
            let drawn = without_replacement(&mut law(&weights), k, &mut stream);
            first[drawn.places[0].slot as usize] += 1;
            last[drawn.places[2].slot as usize] += 1;
            square(&mut kappas, drawn.kappa);
            let noisy = law(&weights);
            let mut perturbed: Vec<(f64, usize)> =
                noisy.0.iter().enumerate().map(|(at, log_q)| (log_q + stream.gumbel(), at)).collect();
            perturbed.sort_by(|a, b| b.0.total_cmp(&a.0));
            first_of_noise[perturbed[0].1] += 1;
            last_of_noise[perturbed[2].1] += 1;
            square(&mut kappas_of_noise, perturbed[3].0);
        }
        for (got, expected) in [(first, first_of_noise), (last, last_of_noise)] {
            let chi2: f64 =
                got.iter().zip(expected).map(|(&a, b)| (f64::from(a) - f64::from(b)).powi(2) / f64::from(a + b)).sum();
            assert!(
                chi2 < 20.5,
                "chi-square {chi2} of 5 degrees of freedom is past the 99.9 % point: {got:?} and {expected:?}"
            );
        }
        let n = f64::from(runs);
        let deviation = (kappas.1 / n - (kappas.0 / n).powi(2)).sqrt();
        let apart = (kappas.0 - kappas_of_noise.0) / n / (deviation * (2.0 / n).sqrt());
        assert!(apart.abs() < 4.0, "means of kappa lie {apart} standard errors apart");
        let spread = kappas.1 / n - (kappas.0 / n).powi(2) - (kappas_of_noise.1 / n - (kappas_of_noise.0 / n).powi(2));
        assert!(spread.abs() < 0.05, "the variance of kappa is off by {spread}");
    }

    #[test]
    fn all_are_drawn_in_the_end_however_far_apart_their_probabilities_lie() {
        let mut steep = Given((0..40).map(|at| -300.0 * f64::from(at)).collect());
        let drawn = without_replacement(&mut steep, 40, &mut Seed(1).stream(0, 0));
        assert_eq!(drawn.places, (0..40).map(place).collect::<Vec<_>>());
        assert_eq!(drawn.kappa, f64::NEG_INFINITY);
        let some = without_replacement(&mut steep, 20, &mut Seed(1).stream(0, 0));
        // The next one's probability is exp(-6000).
        assert!((some.kappa + 6_000.0).abs() < 40.0, "{}", some.kappa);
        assert_eq!(without_replacement(&mut Given(Vec::new()), 3, &mut Seed(1).stream(0, 0)).places, []);
    }
}
