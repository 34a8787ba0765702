//! Choosing k of a window of ranked entries.

use super::permutation::Permutation;
use crate::index::Ranked;
use crate::model::{Choose, Stream};

/// What was chosen of a window.
#[derive(Debug, Default)]
pub(super) struct Chosen {
    /// Positions in the window, in the order drawn.
    pub(super) picks: Vec<usize>,
    /// log_q of each pick; empty for the top, which is deterministic.
    pub(super) log_q: Vec<f32>,
    /// ln sum exp(beta * s) over the window; softmax only.
    pub(super) log_partition: Option<f32>,
    /// (k+1)th perturbed log-probability; softmax without replacement only.
    pub(super) kappa: Option<f32>,
}

/// Chooses k of `window`, fewer if it holds fewer and none may be picked twice.
pub(super) fn choose(window: &[Ranked], k: usize, how: Choose, stream: &mut Stream) -> Chosen {
    match how {
        Choose::Top => Chosen { picks: (0..window.len().min(k)).collect(), ..Chosen::default() },
        Choose::Uniform => {
            let picks: Vec<usize> = Permutation::new(window.len(), stream).take(k).collect();
            let log_q = vec![-libm::log(window.len() as f64) as f32; picks.len()];
            Chosen { picks, log_q, ..Chosen::default() }
        }
        Choose::Softmax { beta, replace } => Softmax::new(window, beta).choose(k, replace, stream),
    }
}

/// Natural log of the probability with which one draw picks each entry of a window; empty for the top, which is deterministic.
pub(super) fn log_q_of(window: &[Ranked], how: Choose) -> Vec<f64> {
    match how {
        Choose::Top => Vec::new(),
        Choose::Uniform => vec![-libm::log(window.len() as f64); window.len()],
        Choose::Softmax { beta, .. } => Softmax::new(window, beta).log_q,
    }
}

/// q proportional to exp(beta * s) over a window, in f64. `libm` gives the same bits on every machine, the system's need not.
struct Softmax {
    /// Natural log of each entry's probability.
    log_q: Vec<f64>,
    log_partition: f64,
}

impl Softmax {
    fn new(window: &[Ranked], beta: f32) -> Self {
        let logits: Vec<f64> = window.iter().map(|ranked| f64::from(beta) * f64::from(ranked.score)).collect();
        let largest = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let sum: f64 = logits.iter().map(|logit| libm::exp(logit - largest)).sum();
        let log_partition = largest + libm::log(sum);
        Self { log_q: logits.into_iter().map(|logit| logit - log_partition).collect(), log_partition }
    }

    fn choose(&self, k: usize, replace: bool, stream: &mut Stream) -> Chosen {
        if self.log_q.is_empty() {
            let (nothing, kappa) = (Some(f32::NEG_INFINITY), (!replace).then_some(f32::NEG_INFINITY));
            return Chosen { log_partition: nothing, kappa, ..Chosen::default() };
        }
        let (picks, kappa) = if replace { (self.with_replacement(k, stream), None) } else { self.without(k, stream) };
        let log_q = picks.iter().map(|&at| self.log_q[at] as f32).collect();
        Chosen { picks, log_q, log_partition: Some(self.log_partition as f32), kappa }
    }

    /// Inverse CDF, k times.
    fn with_replacement(&self, k: usize, stream: &mut Stream) -> Vec<usize> {
        let mut sum = 0.0;
        let sums: Vec<f64> = self
            .log_q
            .iter()
            .map(|&log_q| {
                sum += libm::exp(log_q);
                sum
            })
            .collect();
        let last = sums.len() - 1;
        (0..k).map(|_| stream.unit() * sum).map(|point| sums.partition_point(|&sum| sum <= point).min(last)).collect()
    }

    /// Gumbel top-k (Kool, van Hoof and Welling 2019): the k largest of log_q plus Gumbel noise are k draws without replacement.
    fn without(&self, k: usize, stream: &mut Stream) -> (Vec<usize>, Option<f32>) {
        let mut perturbed: Vec<(f64, usize)> =
            self.log_q.iter().enumerate().map(|(at, log_q)| (log_q + stream.gumbel(), at)).collect();
        perturbed.sort_unstable_by(|(a, at), (b, bt)| b.total_cmp(a).then(at.cmp(bt)));
        let kappa = perturbed.get(k).map_or(f64::NEG_INFINITY, |(value, _)| *value);
        (perturbed.into_iter().take(k).map(|(_, at)| at).collect(), Some(kappa as f32))
    }
}

#[cfg(test)]
mod tests {
    use super::{Choose, choose};
    use crate::index::{Identity, Ranked};
    use crate::model::Seed;

    fn window(scores: &[f32]) -> Vec<Ranked> {
        let identity = Identity { id: 0, occupied_at: 1, revision: 1 };
        (0u32..).zip(scores).map(|(slot, &score)| Ranked { score, shard: 0, slot, identity }).collect()
    }

    #[test]
    fn extreme_betas_neither_overflow_nor_lose_the_top() {
        let window = window(&[1.0, 0.5, -1.0]);
        for beta in [1e30, -1e30] {
            let chosen = choose(&window, 5, Choose::Softmax { beta, replace: true }, &mut Seed(1).stream(0, 0));
            assert_eq!(chosen.picks, [if beta > 0.0 { 0 } else { 2 }; 5]);
            assert!(chosen.log_q.iter().all(|&log_q| log_q == 0.0));
        }
    }

    /// sum over drawn of f / (1 - exp(-exp(log_q - kappa))) estimates the sum of f over the window without bias (Duffield,
    /// Lund and Thorup 2007, priority sampling).
    #[test]
    fn kappa_makes_the_weighted_estimator_unbiased() {
        let scores: Vec<f32> = (0..12).map(|at| (at as f32 * 0.37).sin()).collect();
        let window = window(&scores);
        let truth: f64 = scores.iter().map(|&score| f64::from(score).exp()).sum();
        let runs = 20_000;
        let estimates: Vec<f64> = (0..runs)
            .map(|seed| {
                let how = Choose::Softmax { beta: 2.5, replace: false };
                let chosen = choose(&window, 4, how, &mut Seed(seed).stream(0, 0));
                let kappa = f64::from(chosen.kappa.unwrap());
                let inclusion = |log_q: f32| -(-(f64::from(log_q) - kappa).exp()).exp_m1();
                let terms = chosen.picks.iter().zip(&chosen.log_q);
                terms.map(|(&at, &log_q)| f64::from(scores[at]).exp() / inclusion(log_q)).sum()
            })
            .collect();
        let mean = estimates.iter().sum::<f64>() / runs as f64;
        let variance = estimates.iter().map(|estimate| (estimate - mean).powi(2)).sum::<f64>() / (runs - 1) as f64;
        let error = (variance / runs as f64).sqrt();
        assert!((mean - truth).abs() < 4.0 * error, "estimate {mean} +- {error}, truth {truth}");
    }
}
