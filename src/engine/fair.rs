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
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::{FairQueue, Full};
    use crate::model::{Caller, clock};

    fn caller(number: usize) -> Caller {
        Caller::Subject(number.to_string().into())
    }

    const MS: Duration = Duration::from_millis(1);

    fn queue<J>(bound: usize) -> FairQueue<J> {
        FairQueue::new(bound, 1, clock::now())
    }

    /// Serves for `time`, and says what each caller had.
    fn serve(queue: &mut FairQueue<usize>, time: Duration, refill: impl Fn(&mut FairQueue<usize>, usize)) -> Vec<Duration> {
        let (mut had, mut now) = (vec![Duration::ZERO; 10], Duration::ZERO);
        while now < time {
            let Some((of, estimate, number)) = queue.pop() else { break };
            (had[number], now) = (had[number] + estimate, now + estimate);
            queue.ended(&of, estimate, estimate, clock::now());
            refill(queue, number);
        }
        had
    }

    #[test]
    fn a_greedy_caller_gets_no_more_than_nine_polite_ones_each() {
        let mut queue = queue(100_000);
        (0..50_000).for_each(|_| queue.push(&caller(0), 5 * MS, 0));
        // One short job at a time, the next when it is done.
        (1..10).for_each(|polite| queue.push(&caller(polite), MS, polite));
        let again = |queue: &mut FairQueue<usize>, number| {
            if number > 0 {
                queue.push(&caller(number), MS, number);
            }
        };
        let had = serve(&mut queue, 10_000 * MS, again);
        let (most, least) = (had.iter().max().unwrap(), had.iter().min().unwrap());
        assert!(*most - *least <= 6 * MS, "{had:?}");
    }

    #[test]
    fn long_jobs_taken_one_at_a_time_buy_nothing() {
        let mut queue = queue(100);
        let size = |number| if number == 0 { 100 * MS } else { MS };
        (0..2).for_each(|number| queue.push(&caller(number), size(number), number));
        let had = serve(&mut queue, 10_000 * MS, |queue, number| queue.push(&caller(number), size(number), number));
        assert!(had[0].abs_diff(had[1]) <= 100 * MS, "{had:?}");
    }

    #[test]
    fn what_was_estimated_wrongly_is_charged_as_it_was() {
        let mut queue = queue(1_000);
        let (mut liar, mut honest, now) = (Duration::ZERO, Duration::ZERO, clock::now());
        (0..2).for_each(|number| queue.push(&caller(number), MS, number));
        while liar + honest < 2_000 * MS {
            let (of, estimate, number) = queue.pop().unwrap();
            let took = if number == 0 { 10 * MS } else { MS };
            queue.ended(&of, estimate, took, now);
            *(if number == 0 { &mut liar } else { &mut honest }) += took;
            queue.push(&of, MS, number);
        }
        assert!(liar.abs_diff(honest) <= 20 * MS, "{liar:?} {honest:?}");
    }

    #[test]
    fn one_caller_leaves_room_for_others() {
        let mut queue = queue(10);
        let fill = |queue: &mut FairQueue<()>, of: usize| {
            (0..20).filter(|_| queue.has_room(&caller(of), 1).map(|()| queue.push(&caller(of), MS, ())).is_ok()).count()
        };
        assert_eq!((fill(&mut queue, 0), fill(&mut queue, 1)), (5, 3));
        assert_eq!(queue.has_room(&caller(0), 1), Err(Full));
        assert_eq!((queue.has_room(&caller(2), 2), queue.has_room(&caller(2), 3)), (Ok(()), Err(Full)));
        let ahead_of = |of: usize, own| queue.ahead_of(&caller(of), own, clock::now());
        assert_eq!(ahead_of(2, 2 * MS), 4 * MS, "of each no more than it gets itself");
        assert_eq!(ahead_of(1, 9 * MS), 8 * MS);
    }

    #[test]
    fn what_was_had_before_a_pause_is_forgotten() {
        let mut queue = queue(100_000);
        (0..2_000).for_each(|_| queue.push(&caller(0), 5 * MS, 0));
        let alone = serve(&mut queue, 20_000 * MS, |_, _| ());
        assert_eq!((alone[0], queue.len()), (10_000 * MS, 0));
        (0..2).for_each(|number| (0..100).for_each(|_| queue.push(&caller(number), 5 * MS, number)));
        let had = serve(&mut queue, 500 * MS, |_, _| ());
        assert!(had[0].abs_diff(had[1]) <= 5 * MS, "{had:?}");
    }

    #[test]
    fn callers_go_on_as_they_did_of_late() {
        let (began, mut queue) = (clock::now(), queue(1_000));
        let at = |millis: u32| began + MS * millis;
        // A sixth and a quarter of the time are two callers', for long enough.
        for millis in (0..30_000).step_by(6) {
            for (number, took) in [(1, MS), (2, 3 * MS / 2)] {
                queue.push(&caller(number), took, ());
                let (of, estimate, ()) = queue.pop().unwrap();
                queue.ended(&of, estimate, took, at(millis));
            }
        }
        (0..100).for_each(|_| queue.push(&caller(0), MS, ()));
        let ahead = queue.ahead_of(&caller(0), MS, at(30_000)).as_secs_f64();
        assert!((ahead - (0.101 / (1.0 - 5.0 / 12.0) - 0.001)).abs() < 0.002, "{ahead}");
        // Who asks for most gets as much as it, and the other a sixth of it all.
        (0..200).for_each(|_| queue.push(&caller(2), MS, ()));
        let ahead = queue.ahead_of(&caller(0), MS, at(30_000)).as_secs_f64();
        assert!((ahead - (0.202 * 1.2 - 0.001)).abs() < 0.002, "{ahead}");
        let ahead = queue.ahead_of(&caller(0), MS, at(90_000));
        assert!(ahead.as_millis() <= 202, "a minute later only what waits: {ahead:?}");
    }

    #[test]
    fn what_is_withdrawn_leaves_its_callers_other_jobs_in_their_order() {
        let mut queue = queue(10);
        (0..6).for_each(|job| queue.push(&caller(0), MS, job));
        queue.push(&caller(1), MS, 6);
        assert_eq!(queue.withdraw(&caller(0), |job| job % 2 == 0), [0, 2, 4]);
        assert_eq!((queue.len(), queue.callers(), queue.backlog()), (4, 2, 4 * MS));
        assert_eq!(queue.withdraw(&caller(1), |_| true), [6]);
        assert_eq!((queue.len(), queue.callers(), queue.withdraw(&caller(2), |_| true).len()), (3, 1, 0));
        let left: Vec<i32> = std::iter::from_fn(|| queue.pop()).map(|(_, _, job)| job).collect();
        assert_eq!((left, queue.len(), queue.callers(), queue.backlog()), (vec![1, 3, 5], 0, 0, Duration::ZERO));
        assert_eq!(queue.has_room(&caller(1), 10), Ok(()));
    }

    proptest! {
        #[test]
        fn nothing_is_lost_and_nothing_is_remembered(jobs in prop::collection::vec((0usize..200, 1u32..50, 0u32..50), 1..400)) {
            let mut queue = queue(usize::MAX);
            let (mut running, now) = (Vec::new(), clock::now());
            let mut done = 0;
            for (at, (of, estimate, took)) in jobs.iter().enumerate() {
                queue.push(&caller(*of), MS * *estimate, MS * *took);
                if at % 3 == 0 {
                    running.extend(queue.pop());
                }
                if at % 5 == 0 && let Some((of, estimate, took)) = running.pop() {
                    queue.ended(&of, estimate, took, now);
                    done += 1;
                }
            }
            while let Some((of, estimate, took)) = running.pop().or_else(|| queue.pop()) {
                queue.ended(&of, estimate, took, now);
                done += 1;
            }
            prop_assert_eq!((done, queue.len(), queue.callers(), queue.backlog()), (jobs.len(), 0, 0, Duration::ZERO));
            // Who comes long after is all that is remembered.
            let later = now + Duration::from_secs(3_600);
            queue.push(&caller(1_000), MS, MS);
            let (of, estimate, took) = queue.pop().unwrap();
            queue.ended(&of, estimate, took, later);
            prop_assert!(queue.lines.len() <= 1, "{} lines", queue.lines.len());
        }
    }
}
