//! How the callers share what there is.

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

#[test]
fn what_joins_another_is_taken_in_the_order_of_turns_and_each_caller_is_charged_for_its_own() {
    let mut queue = queue(100);
    // Of three callers, one behind the other; odd jobs fit.
    (0..6).for_each(|job| queue.push(&caller(0), MS, job));
    (10..14).for_each(|job| queue.push(&caller(1), 2 * MS, job));
    queue.push(&caller(2), 5 * MS, 21);
    assert_eq!(queue.pop().map(|(_, _, job)| job), Some(0));
    let mut room = 3;
    let joined = queue.join(100, |job| {
        let fits = job % 2 == 1 && room > 0;
        room -= i32::from(fits);
        fits
    });
    let jobs: Vec<(Caller, Duration, i32)> = joined.clone();
    assert_eq!(jobs, [(caller(1), 2 * MS, 11), (caller(1), 2 * MS, 13), (caller(2), 5 * MS, 21)], "they had nothing yet");
    assert_eq!((queue.len(), queue.callers(), queue.backlog()), (7, 2, 9 * MS));
    assert!(queue.join(1, |job| *job == 2).is_empty(), "only another is looked at");
    // Caller 1 has had four, and the first but one; what they took in truth is less.
    assert_eq!(queue.pop().map(|(_, _, job)| job), Some(1));
    queue.ended(&caller(0), MS, MS, clock::now());
    queue.ended(&caller(0), MS, MS, clock::now());
    for (of, estimate, _) in joined {
        queue.ended(&of, estimate, estimate / 10, clock::now());
    }
    let next: Vec<i32> = std::iter::from_fn(|| queue.pop()).map(|(_, _, job)| job).collect();
    assert_eq!(next, [10, 2, 12, 3, 4, 5], "caller 1 has had less than half a millisecond");
    queue.push(&caller(3), MS, 7);
    assert_eq!((queue.join(0, |_| true), queue.len()), (Vec::new(), 1));
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
