//! Who is let into the pool, and who is not.

use std::sync::{Arc, mpsc};
use std::time::Duration;

use super::Pool;
use crate::engine::EngineError;
use crate::engine::job::Job;
use crate::model::clock::{self, Deadline};
use crate::model::{Call, Caller};
use crate::telemetry::{Metrics, Piece, Traces, Work};

fn job(millis: u64, run: impl FnOnce() + Send + 'static) -> Job {
    Job::new(Duration::from_millis(millis), run)
}

fn call(caller: &str, millis: u64) -> Call {
    Call { caller: Caller::Subject(caller.into()), deadline: Deadline::after(Duration::from_millis(millis)) }
}

/// A pool of one thread that is at work until the sender is dropped, for a second as it seems.
fn busy(bound: usize) -> (Pool, mpsc::Sender<()>) {
    let pool = Pool::start(1, bound).unwrap();
    let (started, has_started) = mpsc::channel();
    let (release, released) = mpsc::channel::<()>();
    let block = job(1_000, move || {
        started.send(()).unwrap();
        let _dropped = released.recv();
    });
    pool.submit(&call("first", 60_000), vec![block]).unwrap();
    has_started.recv().unwrap();
    (pool, release)
}

#[test]
fn a_full_queue_takes_none_and_a_panic_kills_no_thread() {
    let (pool, release) = busy(2);
    let (done, results) = mpsc::channel();
    let late = done.clone();
    let of = call("a", 60_000);
    let jobs = |count: usize| (0..count).map(|_| job(1, || ())).collect();
    let refused = pool.submit(&of, jobs(3)).unwrap_err();
    assert!(matches!(&refused, EngineError::NeverFits(excess) if excess.limit == 2), "whatever ends: {refused}");
    pool.submit(&of, vec![job(1, || panic!("on purpose")), job(1, move || late.send(7).unwrap())]).unwrap();
    let refused = pool.submit(&call("b", 60_000), jobs(1)).unwrap_err();
    assert!(matches!(refused, EngineError::Busy { limit: 2, .. }), "{refused}");
    drop(release);
    assert_eq!(results.recv().unwrap(), 7);
}

#[test]
fn what_a_caller_left_is_free_at_once_though_the_threads_are_busy() {
    let (pool, release) = busy(4);
    let (of, held) = (call("a", 60_000), Arc::new(()));
    let (done, results) = mpsc::channel();
    let submit = |jobs: u32| {
        let job_of = |number: u32| {
            let (held, done) = (Arc::clone(&held), done.clone());
            job(1, move || {
                drop(held);
                done.send(number).unwrap();
            })
        };
        pool.submit(&of, (0..jobs).map(job_of).collect())
    };
    let first = submit(1).unwrap();
    for _ in 0..100 {
        let left = submit(2).expect("what was left takes no room");
        assert_eq!(Arc::strong_count(&held), 4);
        pool.withdraw(&of.caller, left);
        assert_eq!((Arc::strong_count(&held), pool.load().jobs), (2, 1));
    }
    drop(release);
    assert_eq!(results.recv().unwrap(), 0);
    pool.withdraw(&of.caller, first);
    drop((pool, done));
    assert_eq!(results.try_iter().count(), 0);
}

#[test]
fn a_call_counts_once_however_many_pieces_it_was() {
    let (metrics, now) = (Metrics::default(), clock::now());
    metrics.serve(vec!["negbank.v1.Sampling/Sample".to_owned()]);
    let of = |path: &str| Work::of(path, &http::HeaderMap::new(), now, (&metrics, &Traces::default()));
    let piece = |waited: u64, took: u64| {
        let began = now + Duration::from_secs(waited);
        Piece { came: now, began, ended: began + Duration::from_secs(took) }
    };
    let work = of("/negbank.v1.Sampling/Sample");
    let kept = work.within(|| {
        of("/inner").within(|| ());
        Work::current()
    });
    drop(work);
    kept.computed(piece(3, 1));
    kept.computed(piece(2, 4));
    Work::current().computed(piece(100, 100));
    let text = || metrics.text().unwrap();
    assert!(!text().contains("Sample"), "it is not over");
    drop(kept);
    let text = text();
    for line in [
        "negbank_compute_queue_seconds_sum{method=\"negbank.v1.Sampling/Sample\"} 3.0",
        "negbank_compute_queue_seconds_count{method=\"negbank.v1.Sampling/Sample\"} 1",
        "negbank_compute_seconds_sum{method=\"negbank.v1.Sampling/Sample\"} 5.0",
        "negbank_compute_seconds_count{method=\"negbank.v1.Sampling/Sample\"} 1",
    ] {
        assert!(text.contains(line), "{line} in\n{text}");
    }
    assert!(!text.contains("inner") && !text.contains("commit_seconds_sum"), "what did no work has no series:\n{text}");
    assert!(!Work::of("/a", &http::HeaderMap::new(), now, (&Metrics::off(), &Traces::default())).is_noted());
}

#[test]
fn what_cannot_be_done_in_time_is_refused_with_when_it_could() {
    let (pool, release) = busy(100);
    pool.submit(&call("a", 60_000), vec![job(4_000, || ())]).unwrap();
    let Err(EngineError::Overloaded { done, retry_after, .. }) = pool.submit(&call("a", 2_000), vec![job(100, || ())]) else {
        panic!("five seconds of work wait")
    };
    assert!((4_500..=5_200).contains(&done.as_millis()), "{done:?}");
    // In 0.6 of two seconds, and up to half later.
    let early = done.saturating_sub(Duration::from_millis(1_200));
    assert!(retry_after >= early && retry_after < early.mul_f64(1.6), "{retry_after:?} of {done:?}");
    // The first's second, its own and as much of the other's.
    pool.submit(&call("b", 2_000), vec![job(100, || ())]).expect("others' work does not wait for it all");
    // An estimate of its own can be wrong.
    pool.submit(&call("c", 5_000), vec![job(60_000, || ())]).expect_err("five seconds of others' work come first");
    drop((release, pool));
    let idle = Pool::start(1, 100).unwrap();
    idle.submit(&call("c", 10_000), vec![job(60_000, || ())]).expect("nothing waits");
    // As wrong as that it is not.
    let hopeless = idle.submit(&call("c", 100), vec![job(60_000, || ())]);
    assert!(matches!(hopeless, Err(EngineError::Hopeless { takes, .. }) if takes.as_secs() == 60), "{hopeless:?}");
}
