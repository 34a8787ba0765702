//! What became of a load: printed, kept in a file, and held against what is promised.

use std::process::ExitCode;
use std::time::Duration;

use crate::DEADLINE;
use crate::load::{Ended, Load, Outcome};
use crate::server::Allowed;
use crate::shape::Shape;

/// All that was measured.
pub(crate) struct Run {
    pub(crate) shape: Shape,
    /// Of each round's load.
    pub(crate) seconds: f64,
    pub(crate) rounds: Vec<Round>,
    pub(crate) allowed: Allowed,
    /// The most memory that the server held, in MiB.
    pub(crate) peak: f64,
    pub(crate) slowest_scrape: Duration,
    /// The share of the CPUs' time that was stolen meanwhile, where the system tells it.
    pub(crate) stolen: Option<f64>,
}

/// A load, and what the server could do around it.
pub(crate) struct Round {
    pub(crate) capacity: Capacity,
    pub(crate) load: Load,
}

/// Requests a second that the server can do, measured before the load and after it: a machine that is shared may be a slower one by then.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Capacity {
    pub(crate) before: f64,
    pub(crate) after: f64,
}

impl Capacity {
    fn mean(self) -> f64 {
        (self.before + self.after) / 2.0
    }
}

impl Round {
    fn answered_in_window(&self) -> usize {
        self.load.ended.iter().filter(|ended| ended.outcome == Outcome::Answered && ended.in_window).count()
    }

    fn goodput(&self, seconds: f64) -> f64 {
        self.answered_in_window() as f64 / seconds / self.capacity.mean()
    }

    pub(crate) fn line(&self, seconds: f64) -> String {
        let Capacity { before, after } = self.capacity;
        let (offered, goodput) = (self.load.ended.len() as f64 / seconds, self.goodput(seconds));
        format!("{offered:.0} requests/s offered, capacity {before:.0} before and {after:.0} after, goodput {goodput:.2}")
    }
}

/// The value below which that share lies, in milliseconds.
fn percentile(of: &[Ended], share: f64) -> f64 {
    let mut took: Vec<f64> = of.iter().map(|ended| ended.took.as_secs_f64() * 1e3).collect();
    took.sort_by(f64::total_cmp);
    let at = ((took.len() as f64 * share) as usize).min(took.len().saturating_sub(1));
    took.get(at).copied().unwrap_or(0.0)
}

/// The middle one; of two the mean.
fn median(mut of: Vec<f64>) -> f64 {
    of.sort_by(f64::total_cmp);
    (of[(of.len() - 1) / 2] + of[of.len() / 2]) / 2.0
}

impl Run {
    fn all(&self) -> impl Iterator<Item = Ended> {
        self.rounds.iter().flat_map(|round| &round.load.ended).copied()
    }

    fn of(&self, wanted: &[Outcome]) -> Vec<Ended> {
        self.all().filter(|ended| wanted.contains(&ended.outcome)).collect()
    }

    /// Tells all of it; fails where a promise is broken.
    pub(crate) fn report(&self) -> ExitCode {
        let Self { shape, rounds, peak, slowest_scrape, .. } = self;
        let seconds = self.seconds * rounds.len() as f64;
        let all: Vec<Ended> = self.all().collect();
        let (offered, Allowed { base, bound }) = (all.len(), self.allowed);
        let capacity = rounds.iter().map(|round| round.capacity.mean()).sum::<f64>() / rounds.len() as f64;
        let (answered, refused, late) =
            (self.of(&[Outcome::Answered]), self.of(&[Outcome::Refused]), self.of(&[Outcome::Late]));
        let taken_on = self.of(&[Outcome::Answered, Outcome::Late]);
        let failed = offered - refused.len() - taken_on.len();
        let polite = |of: &[Ended]| of.iter().filter(|ended| ended.caller > 0).count();
        let in_window: usize = rounds.iter().map(Round::answered_in_window).sum();
        let goodputs: Vec<f64> = rounds.iter().map(|round| round.goodput(self.seconds)).collect();
        let goodput = median(goodputs.clone());
        let without_retry_info: usize = rounds.iter().map(|round| round.load.without_retry_info).sum();
        let late_share = late.len() as f64 / taken_on.len().max(1) as f64;
        let polite_share = polite(&answered) as f64 / polite(&all).max(1) as f64;
        let (accepted_p99, refusal_p99) = (percentile(&taken_on, 0.99), percentile(&refused, 0.99));
        let share = |count: usize| format!("{count:>9} {:>6.1} %", count as f64 * 100.0 / offered as f64);
        self.tell_of_the_machine();
        println!("offered:  {offered:>9}, {:.1} times the capacity for {seconds} s", offered as f64 / seconds / capacity);
        println!("answered: {}", share(answered.len()));
        println!("late:     {}   {} of them of polite callers", share(late.len()), polite(&late));
        println!(
            "taken on: {}   p50 {:.1} ms, p99 {accepted_p99:.1} ms of a deadline of {} ms; these are the answered and the late together, \
             which count with the time at which they were given up",
            share(taken_on.len()),
            percentile(&taken_on, 0.5),
            DEADLINE.as_millis()
        );
        println!("refused:  {}   p50 {:.1} ms, p99 {refusal_p99:.1} ms", share(refused.len()), percentile(&refused, 0.5));
        println!("failed:   {}", share(failed));
        println!(
            "goodput {goodput:.2} of the capacity, the median of {goodputs:.2?}, {in_window} answered within the {seconds} s; polite callers: \
             {:.1} % answered; late of what was taken on: {:.2} %",
            polite_share * 100.0,
            late_share * 100.0
        );
        println!(
            "memory:   {base:.1} MiB before, {peak:.1} MiB at most, {bound:.1} MiB allowed; metrics within {slowest_scrape:.0?}"
        );
        self.keep(&serde_json::json!({
            "anchors": shape.anchors, "rows": shape.rows, "answer_bytes": shape.answer_bytes(),
            "seconds": self.seconds, "rounds": rounds.len(), "capacity_rps": capacity,
            "capacity_before_rps": rounds.iter().map(|round| round.capacity.before).collect::<Vec<_>>(),
            "capacity_after_rps": rounds.iter().map(|round| round.capacity.after).collect::<Vec<_>>(),
            "stolen_share": self.stolen, "offered_rps": offered as f64 / seconds,
            "answered_in_window": in_window, "goodput_ratio": goodput, "goodput_ratios": goodputs, "refusal_p99_ms": refusal_p99,
            "accepted_p99_ms": accepted_p99, "deadline_ms": DEADLINE.as_millis() as u64,
            "rss_before_mb": base, "rss_bound_mb": bound, "rss_peak_mb": peak,
            "late_share": late_share, "slowest_scrape_ms": slowest_scrape.as_secs_f64() * 1e3, "polite_share": polite_share,
            "late": late.len(), "polite_late": polite(&late), "failed": failed, "without_retry_info": without_retry_info,
        }));
        held(&[
            (goodput >= 0.8 || !shape.is_promised(), "at least 0.8 of the capacity is done in time"),
            (goodputs.iter().all(|&of| of >= 0.7) || !shape.is_promised(), "and in no round less than 0.7"),
            (refusal_p99 < 50.0, "refusals take less than 50 ms at p99"),
            (without_retry_info == 0, "each says when to come back"),
            (late_share <= 0.01, "of what is taken on, 99 in a hundred are answered in time"),
            (polite_share >= 0.95, "polite callers are served"),
            (failed == 0, "nothing fails"),
            (*peak <= bound, "memory stays within what the settings allow"),
        ])
    }

    fn tell_of_the_machine(&self) {
        match self.stolen {
            Some(share) => println!("stolen:   {:.1} % of the CPUs' time, by others on the host", share * 100.0),
            None => println!("stolen:   not told by this system"),
        }
    }

    fn keep(&self, report: &serde_json::Value) {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("target/reports");
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join(self.shape.report()), format!("{report:#}\n")).unwrap();
    }
}

fn held(promises: &[(bool, &str)]) -> ExitCode {
    let broken: Vec<&str> = promises.iter().filter(|(kept, _)| !kept).map(|(_, promise)| *promise).collect();
    broken.iter().for_each(|promise| println!("*** not so: {promise} ***"));
    if broken.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
