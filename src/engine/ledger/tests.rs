use std::sync::{Arc, Mutex, Weak};

use super::{Ledger, MemoryConfig, Part, Reserve, Share};
use crate::engine::EngineError;
use crate::rows::{Buffer, Recycler};

#[test]
fn what_is_taken_is_given_back_and_never_passes_the_limit() {
    let recycler = Recycler::default();
    let ledger = Ledger::new(MemoryConfig { max_bytes: 100_000, write_percent: 80 }, recycler.clone());
    let rows = ledger.share(Part::Rows);
    ledger.may_grow(80_000, 0).unwrap();
    rows.set(70_000);
    let refused = ledger.may_grow(10_001, 0).unwrap_err();
    assert!(matches!(refused, EngineError::MemoryFull { used: 70_000, most: 80_000, .. }), "{refused}");
    assert!(refused.to_string().contains("(setting memory.max_bytes)"), "{refused}");
    let request = ledger.take(Part::Requests, 2_000).unwrap();
    assert!(matches!(ledger.may_grow(9_000, 1_000), Err(EngineError::Busy { .. })), "another request ends");
    assert!(
        matches!(ledger.may_grow(9_000, 2_000), Err(EngineError::MemoryFull { .. })),
        "one's own does not end before it is done"
    );
    drop(request);
    let answer = ledger.take(Part::Answers, 20_000).unwrap();
    assert!(matches!(ledger.take(Part::Answers, 10_001), Err(EngineError::Busy { limit: 100_000, .. })));
    answer.set(5_000);
    assert_eq!((ledger.taken(Part::Answers), ledger.total()), (5_000, 75_000));
    drop(answer);
    drop(recycler.buffer(20_000));
    assert_eq!((ledger.taken(Part::Buffers), ledger.total()), (20_000, 90_000));
    ledger.take(Part::Answers, 20_000).expect("buffers that are only kept make room");
    drop(rows);
    assert_eq!(ledger.total(), 0);
    let unbounded = Ledger::new(MemoryConfig::default(), Recycler::default());
    unbounded.may_grow(usize::MAX, usize::MAX).unwrap();
}

/// An answer that was sent and may be asked for again, in memory that can be recycled.
#[derive(Debug, Default)]
struct Kept(Mutex<Option<(Buffer, Share)>>);

impl Reserve for Kept {
    fn free(&self) {
        drop(self.0.lock().unwrap().take());
    }
}

#[test]
fn what_is_kept_for_others_is_given_up_before_anybody_is_refused() {
    let recycler = Recycler::default();
    let ledger = Ledger::new(MemoryConfig { max_bytes: 100_000, write_percent: 80 }, recycler.clone());
    let keep = || {
        let kept = Arc::new(Kept::default());
        *kept.0.lock().unwrap() = Some((recycler.buffer(40_000), ledger.take(Part::Answers, 40_000).unwrap()));
        let reserve: Weak<Kept> = Arc::downgrade(&kept);
        ledger.has_reserve(reserve);
        kept
    };
    let kept = keep();
    let others = ledger.take(Part::Answers, 60_000).unwrap();
    assert!(kept.0.lock().unwrap().is_some(), "while there is room, it is kept");
    let more = ledger.take(Part::Answers, 40_000).unwrap();
    assert!(kept.0.lock().unwrap().is_none());
    assert_eq!((ledger.taken(Part::Buffers), ledger.total()), (0, 100_000), "its buffer was no use in another place");
    drop(more);
    let kept = keep();
    assert_eq!(ledger.missing(50_000), 10_000);
    assert!(kept.0.lock().unwrap().is_none(), "it was given up all the same");
    drop(keep());
    assert_eq!(ledger.missing(40_000), 0);
    drop(others);
    assert_eq!(ledger.total(), 0);
}

#[test]
fn callers_that_take_at_once_never_pass_the_limit_together() {
    let ledger = Ledger::new(MemoryConfig { max_bytes: 1_000, write_percent: 80 }, Recycler::default());
    let took = || {
        let mut most = 0;
        for round in 0..2_000 {
            let part = if round % 2 == 0 { Part::Requests } else { Part::Answers };
            let share = ledger.take(part, 300);
            most = most.max(ledger.total());
            drop(share);
        }
        most
    };
    let most = std::thread::scope(|scope| {
        let callers: Vec<_> = (0..8).map(|_| scope.spawn(took)).collect();
        callers.into_iter().map(|caller| caller.join().unwrap()).max()
    });
    assert!(most.is_some_and(|most| (300..=1_000).contains(&most)), "{most:?}");
    assert_eq!((ledger.total(), ledger.taken(Part::Requests), ledger.taken(Part::Answers)), (0, 0, 0));
}

#[test]
fn a_share_that_many_set_at_once_never_has_the_account_below_nothing() {
    let ledger = Ledger::new(MemoryConfig { max_bytes: 1 << 20, write_percent: 80 }, Recycler::default());
    let share = ledger.share(Part::Rows);
    let set = |first: usize| (0..20_000).for_each(|round| share.set(1_000 * ((round + first) % 2)));
    let most = std::thread::scope(|scope| {
        let setters: Vec<_> = (0..4).map(|first| scope.spawn(move || set(first))).collect();
        let mut most = 0;
        while !setters.iter().all(std::thread::ScopedJoinHandle::is_finished) {
            most = most.max(ledger.total()).max(ledger.taken(Part::Rows));
        }
        most
    });
    assert!(most <= 1_000, "{most}");
    share.set(7);
    assert_eq!((ledger.total(), ledger.taken(Part::Rows), share.bytes()), (7, 7, 7));
}

#[test]
fn what_no_room_can_ever_be_made_for_is_told_from_what_has_none_now() {
    let ledger = Ledger::new(MemoryConfig { max_bytes: 100_000, write_percent: 80 }, Recycler::default());
    let refusal = |bytes: usize, held: usize| match ledger.take_beside(Part::Answers, bytes, held).unwrap_err() {
        EngineError::NeverFits(excess) => Some((excess.limit, excess.setting, excess.what)),
        EngineError::Busy { limit: 100_000, .. } => None,
        other => panic!("{other}"),
    };
    let never = |what: &str| Some((100_000, "memory.max_bytes", format!("the request needs {what}")));
    assert_eq!(refusal(100_001, 0), never("100001 bytes of memory at once"));
    // Requests end; what is held beside an answer does not before it.
    let others = ledger.take(Part::Requests, 60_000).unwrap();
    assert_eq!((refusal(100_000, 0), refusal(50_000, 50_000)), (None, None));
    assert_eq!(refusal(50_000, 50_001), never("100001 bytes of memory at once"));
    let rows = ledger.share(Part::Rows);
    rows.set(30_000);
    assert_eq!(refusal(70_000, 0), None);
    assert_eq!(refusal(60_000, 10_001), never("70001 bytes of memory at once beside the 30000 of banks"));
    drop(others);
    ledger.take_beside(Part::Answers, 70_000, 0).expect("it had none only then");
    // However much is free now, a request says at first how large it will be.
    let request = ledger.share(Part::Requests);
    assert!(request.may_ever_be(70_000).is_ok());
    assert!(matches!(request.may_ever_be(70_001), Err(EngineError::NeverFits(_))));
    request.grow_for(40_000, 70_000).unwrap();
    assert!(matches!(request.grow_for(30_001, 70_001), Err(EngineError::NeverFits(_))));
    assert_eq!(request.bytes(), 40_000, "nothing more is taken");
    let unbounded = Ledger::new(MemoryConfig::default(), Recycler::default());
    assert!(unbounded.share(Part::Requests).may_ever_be(usize::MAX).is_ok());
}
