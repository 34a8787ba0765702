//! Work that waits, a line for each caller, served so that all get the same time.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use rustc_hash::FxHashMap;

use super::lately::{Lately, OF_LATE, Recent};
use crate::model::Caller;

/// Start-time fair queueing (Goyal, Vin and Cheng 1996): next is the caller that has had the least time since it began to wait, however
/// many jobs the others have waiting. Whoever works says what was estimated and what it took.
#[derive(Debug)]
pub(super) struct FairQueue<J> {
    lines: FxHashMap<Caller, Line<J>>,
    /// Callers whose jobs wait, by what they have had and by when they came.
    turns: BTreeMap<(Duration, u64), Caller>,
    /// What the callers that are served now have had: a newcomer starts there, and has saved up nothing.
    level: Duration,
    /// The most that any caller has had.
    most: Duration,
    arrivals: u64,
    bound: usize,
    threads: f64,
    lately: Lately,
    len: usize,
    running: usize,
    /// So many callers are remembered before those without work are looked for, and for so long.
    room: usize,
    swept: Instant,
}

#[derive(Debug)]
struct Line<J> {
    had: Duration,
    number: u64,
    jobs: VecDeque<(Duration, J)>,
    /// What its waiting jobs are estimated to take.
    backlog: Duration,
    running: usize,
    /// What it had of late.
    lately: Recent,
}

/// There is no room for so many jobs.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Full;

/// Callers that are remembered without looking for some to forget.
const REMEMBERED: usize = 64;
/// The share of one thread that a caller has to have had of late in order to be remembered for it.
const SLIGHT: f64 = 1e-3;

impl<J> FairQueue<J> {
    /// Room for `bound` waiting jobs, which `threads` threads do; times are counted from `now`.
    pub(super) fn new(bound: usize, threads: usize, now: Instant) -> Self {
        let (lines, turns, level) = (FxHashMap::default(), BTreeMap::new(), Duration::ZERO);
        let (threads, lately) = (threads.max(1) as f64, Lately::from(now));
        Self {
            lines,
            turns,
            level,
            most: level,
            arrivals: 0,
            bound,
            threads,
            lately,
            len: 0,
            running: 0,
            room: REMEMBERED,
            swept: now,
        }
    }

    /// Jobs that wait.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Callers whose jobs wait.
    pub(super) fn callers(&self) -> usize {
        self.turns.len()
    }

    /// What all waiting jobs are estimated to take.
    pub(super) fn backlog(&self) -> Duration {
        self.lines.values().map(|line| line.backlog).sum()
    }

    /// Whether so many more jobs of a caller have room. One who has some waiting may have no more than there is room left, so that
    /// no caller by itself leaves none for another.
    pub(super) fn has_room(&self, caller: &Caller, jobs: usize) -> Result<(), Full> {
        let left = self.bound.saturating_sub(self.len);
        let waiting = self.lines.get(caller).map_or(0, |line| line.jobs.len());
        let most = if waiting == 0 { left } else { left.saturating_sub(waiting) };
        if jobs <= most { Ok(()) } else { Err(Full) }
    }

    /// What will be done, on all threads together, before `own` more work of a caller begins: its own that waits; and of each other's, what
    /// waits and what will come if it goes on to ask for as much as it had of late, but no more than the caller gets itself.
    pub(super) fn ahead_of(&self, caller: &Caller, own: Duration, now: Instant) -> Duration {
        let mine = self.lines.get(caller).map_or(Duration::ZERO, |line| line.backlog);
        let most = (mine + own).as_secs_f64();
        let share = self.lately.share(now);
        // A long job counts when it ends, as if it had been done just then: nobody has more than all threads.
        let of = |line: &Line<J>| (line.backlog.as_secs_f64(), (share(line.lately) / self.threads).min(1.0));
        let others: Vec<(f64, f64)> =
            self.lines.iter().filter(|(other, _)| *other != caller).map(|(_, line)| of(line)).collect();
        // Work `w` with w = most + sum of min(backlog + share w, most), by Newton's method from above: the right side is concave.
        let mut work = most * (1.0 + others.len() as f64);
        for _ in 0..8 {
            let (mut known, mut grows) = (most, 0.0);
            for (backlog, share) in &others {
                if backlog + share * work < most {
                    (known, grows) = (known + backlog, grows + share);
                } else {
                    known += most;
                }
            }
            let next = known / (1.0 - grows);
            if grows >= 1.0 || next >= work * 0.999 {
                break;
            }
            work = next;
        }
        Duration::from_secs_f64(work.min(1e6)).saturating_sub(own).max(mine)
    }

    /// Adds a job that is estimated to take `estimate`, room or not.
    pub(super) fn push(&mut self, caller: &Caller, estimate: Duration, job: J) {
        let line = self.lines.entry(caller.clone()).or_insert_with(|| Line {
            had: Duration::ZERO,
            number: 0,
            jobs: VecDeque::new(),
            backlog: Duration::ZERO,
            running: 0,
            lately: Recent::default(),
        });
        if line.jobs.is_empty() {
            self.arrivals += 1;
            (line.had, line.number) = (line.had.max(self.level), self.arrivals);
            self.turns.insert((line.had, line.number), caller.clone());
        }
        line.jobs.push_back((estimate, job));
        line.backlog += estimate;
        self.len += 1;
    }

    /// Takes the next job, with its caller and its estimate, which [`Self::ended`] must hear again.
    pub(super) fn pop(&mut self) -> Option<(Caller, Duration, J)> {
        let (_, caller) = self.turns.pop_first()?;
        let line = self.lines.get_mut(&caller)?;
        let (estimate, job) = line.jobs.pop_front()?;
        self.level = self.level.max(line.had);
        line.had += estimate;
        line.backlog = line.backlog.saturating_sub(estimate);
        line.running += 1;
        (self.len, self.running) = (self.len - 1, self.running + 1);
        if !line.jobs.is_empty() {
            self.turns.insert((line.had, line.number), caller.clone());
        }
        Some((caller, estimate, job))
    }

    /// Takes jobs that `fits` says can be done with the one that was taken last, though it is not their callers' turn; each is its own
    /// caller's, as if it had been taken alone. Looks at `most` of those that wait at most, in the order of the callers' turns.
    pub(super) fn join(&mut self, most: usize, mut fits: impl FnMut(&J) -> bool) -> Vec<(Caller, Duration, J)> {
        let (mut places, mut looked) = (Vec::new(), 0);
        for (turn, caller) in &self.turns {
            let Some(line) = self.lines.get(caller) else { continue };
            let jobs = line.jobs.iter().take(most - looked);
            looked += jobs.len();
            let fitting: Vec<usize> = jobs.enumerate().filter(|(_, (_, job))| fits(job)).map(|(at, _)| at).collect();
            if !fitting.is_empty() {
                places.push((*turn, fitting));
            }
            if looked == most {
                break;
            }
        }
        let mut joined = Vec::new();
        for (turn, fitting) in places {
            let Some(caller) = self.turns.remove(&turn) else { continue };
            let Some(line) = self.lines.get_mut(&caller) else { continue };
            // Those behind move up.
            for (before, at) in fitting.into_iter().enumerate() {
                let Some((estimate, job)) = line.jobs.remove(at - before) else { continue };
                line.had += estimate;
                line.backlog = line.backlog.saturating_sub(estimate);
                line.running += 1;
                (self.len, self.running) = (self.len - 1, self.running + 1);
                joined.push((caller.clone(), estimate, job));
            }
            if !line.jobs.is_empty() {
                self.turns.insert((line.had, line.number), caller);
            }
        }
        joined
    }

    /// Takes those of a caller's waiting jobs that nobody wants any more.
    pub(super) fn withdraw(&mut self, caller: &Caller, is_void: impl Fn(&J) -> bool) -> Vec<J> {
        let Some(line) = self.lines.get_mut(caller) else { return Vec::new() };
        let had_some = !line.jobs.is_empty();
        let mut void = Vec::new();
        for (estimate, job) in std::mem::take(&mut line.jobs) {
            if is_void(&job) {
                line.backlog = line.backlog.saturating_sub(estimate);
                void.push(job);
            } else {
                line.jobs.push_back((estimate, job));
            }
        }
        self.len -= void.len();
        if had_some && line.jobs.is_empty() {
            self.turns.remove(&(line.had, line.number));
        }
        void
    }

    /// Hears what a job took that ended `now`: that is what its caller has had, not the estimate.
    pub(super) fn ended(&mut self, caller: &Caller, estimate: Duration, took: Duration, now: Instant) {
        self.running = self.running.saturating_sub(1);
        if self.lately.is_far(now) {
            self.lines.values_mut().for_each(|line| self.lately.moved(&mut line.lately, now));
            self.lately = Lately::from(now);
        }
        if let Some(line) = self.lines.get_mut(caller) {
            line.running = line.running.saturating_sub(1);
            let waiting = self.turns.remove(&(line.had, line.number)).is_some();
            line.had = (line.had + took).saturating_sub(estimate);
            self.most = self.most.max(line.had);
            self.lately.add(&mut line.lately, took, now);
            if waiting {
                self.turns.insert((line.had, line.number), caller.clone());
            }
        }
        if self.len == 0 && self.running == 0 {
            self.level = self.most;
        }
        if self.lines.len() > self.room || now.saturating_duration_since(self.swept) > 8 * OF_LATE {
            let (level, share) = (self.level, self.lately.share(now));
            let is_known = |line: &Line<J>| line.had > level || share(line.lately) > SLIGHT;
            self.lines.retain(|_, line| !line.jobs.is_empty() || line.running > 0 || is_known(line));
            (self.room, self.swept) = ((2 * self.lines.len()).max(REMEMBERED), now);
        }
    }
}

#[cfg(test)]
mod tests;
