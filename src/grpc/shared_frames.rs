//! Answers that many ranks ask for at once.

use std::collections::VecDeque;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use prost::Message as _;
use tokio::sync::OnceCell;
use tonic::Status;

use super::frame::Frame;
use super::status;
use crate::engine::{Ledger, MemoryPart, MemoryReserve, MemoryShare};
use crate::model::Position;
use crate::proto::v1;

/// Finished answers of seeded requests all of whose draws are SHARED. The ranks of a step send the same request: the first
/// computes and encodes, the others wait for it and send the same memory. The ledger has an answer for as long as anybody has it, and
/// has those given up that nobody is being sent before it refuses anybody.
#[derive(Debug, Clone)]
pub(super) struct SharedFrames {
    kept: Arc<Shelf>,
    /// Bytes of finished answers kept at most.
    limit: usize,
    ledger: Ledger,
}

#[derive(Debug, Default)]
struct Shelf(Mutex<VecDeque<Kept>>);

#[derive(Debug)]
struct Kept {
    key: Key,
    frame: Arc<OnceCell<Frame>>,
    /// The key's memory; the frame brings its own.
    _memory: MemoryShare,
}

/// Somebody who waits for an answer, or computes it. Whoever leaves last without one leaves no place for it.
struct Waiting<'a> {
    shelf: &'a Shelf,
    frame: Arc<OnceCell<Frame>>,
}

/// The same request to the same state of the same bank.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Key {
    position: Position,
    request: Vec<u8>,
}

/// Requests remembered at most.
const MOST: usize = 64;

/// A longer request (many anchors with columns of their own) is hardly another rank's too.
const LONGEST_REQUEST: usize = 1 << 20;

impl SharedFrames {
    /// Keeps answers of `limit` bytes altogether, while the ledger has room.
    pub(super) fn new(limit: usize, ledger: &Ledger) -> Self {
        let kept = Arc::new(Shelf::default());
        let reserve: Weak<Shelf> = Arc::downgrade(&kept);
        ledger.has_reserve(reserve);
        Self { kept, limit, ledger: ledger.clone() }
    }

    /// True if another rank may send the same request.
    pub(super) fn takes(request: &v1::SampleRequest) -> bool {
        request.seed.is_some()
            && !request.draws.is_empty()
            && request.draws.iter().all(|draw| draw.scope() == v1::Scope::Shared)
            && request.encoded_len() <= LONGEST_REQUEST
    }

    /// The answer to `request`, encoded, of a bank whose history has come to `position`: by `compute`, unless it is known or under way.
    ///
    /// If whoever computes leaves, the next one who waits computes.
    pub(super) async fn get<F>(
        &self,
        position: Position,
        request: Vec<u8>,
        compute: impl FnOnce() -> F,
    ) -> Result<Frame, Status>
    where
        F: Future<Output = Result<Frame, Status>>,
    {
        let waiting = self.wait(Key { position, request })?;
        let frame = waiting.frame.get_or_try_init(compute).await.cloned();
        drop(waiting);
        self.trim();
        frame
    }

    fn wait(&self, key: Key) -> Result<Waiting<'_>, Status> {
        let frame = match self.kept.find(&key) {
            Some(there) => there,
            None => {
                // Before the lock is taken: where memory is short, what is kept here is looked through.
                let memory = self.ledger.take(MemoryPart::Answers, key.request.len());
                self.kept.put(key, memory.map_err(|full| status::engine(&full))?)
            }
        };
        Ok(Waiting { shelf: &self.kept, frame })
    }

    /// Forgets the oldest answers beyond the limit.
    fn trim(&self) {
        let mut bytes = 0usize;
        self.kept.retain(|there| {
            bytes += there.frame.get().map_or(0, Frame::bytes);
            bytes <= self.limit
        });
    }
}

impl Shelf {
    fn find(&self, key: &Key) -> Option<Arc<OnceCell<Frame>>> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.iter().find(|there| there.key == *key).map(|there| Arc::clone(&there.frame))
    }

    /// Keeps a place for an answer, unless somebody else just has.
    fn put(&self, key: Key, memory: MemoryShare) -> Arc<OnceCell<Frame>> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(there) = kept.iter().find(|there| there.key == key) {
            return Arc::clone(&there.frame);
        }
        // A bank that has moved on will not be asked for its past again.
        kept.retain(|there| !there.key.position.is_before(key.position));
        kept.truncate(MOST - 1);
        let frame = Arc::new(OnceCell::new());
        kept.push_front(Kept { key, frame: Arc::clone(&frame), _memory: memory });
        frame
    }

    fn retain(&self, keep: impl FnMut(&Kept) -> bool) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).retain(keep);
    }
}

impl Kept {
    /// True if there is no answer, and nobody waits for one.
    fn is_void(&self) -> bool {
        self.frame.get().is_none() && Arc::strong_count(&self.frame) == 1
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let mut kept = self.shelf.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Under the lock, or each of two who leave at once would take the other for one who waits.
        drop(std::mem::take(&mut self.frame));
        kept.retain(|there| !there.is_void());
    }
}

impl MemoryReserve for Shelf {
    fn free(&self) {
        self.retain(|there| !there.is_void() && !there.frame.get().is_some_and(Frame::is_idle));
    }
}

#[cfg(test)]
mod tests {
    use std::pin::Pin;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::{Context, Waker};

    use tonic::{Code, Status};

    use super::{Frame, SharedFrames};
    use crate::engine::{Config, Engine, Ledger, MemoryConfig, MemoryPart};
    use crate::grpc::wire::Fields;
    use crate::model::Position;

    fn frame(bytes: usize) -> Frame {
        let mut fields = Fields::message(8);
        fields.bytes(1, &vec![0; bytes]);
        Frame::new(fields, Vec::new())
    }

    fn ledger(max_bytes: usize) -> Ledger {
        let memory = MemoryConfig { max_bytes, ..MemoryConfig::default() };
        Engine::start(Config { threads: 1, memory, ..Config::default() }).unwrap().ledger().clone()
    }

    const AT: Position = Position { incarnation: 1, sequence: 1 };

    #[tokio::test]
    async fn ranks_that_ask_the_same_at_once_are_answered_by_one_computation() {
        let frames = SharedFrames::new(1 << 20, &ledger(0));
        let request = vec![1; 10];
        let at = |sequence| Position { incarnation: 9, sequence };
        let computed = AtomicUsize::new(0);
        let compute = || async {
            computed.fetch_add(1, Ordering::Relaxed);
            tokio::task::yield_now().await;
            Ok(frame(10))
        };
        let asked = || frames.get(at(3), request.clone(), compute);
        let (a, b) = tokio::join!(asked(), asked());
        assert_eq!((a.unwrap().bytes(), computed.load(Ordering::Relaxed)), (b.unwrap().bytes(), 1));
        frames.get(at(4), request.clone(), compute).await.unwrap();
        assert_eq!(computed.load(Ordering::Relaxed), 2, "the bank has moved on");
        assert_eq!(frames.kept.0.lock().unwrap().len(), 1, "and its past is forgotten");
        let refused = frames.get(at(5), request.clone(), || async { Err(Status::unavailable("")) }).await;
        assert!(refused.is_err());
        frames.get(at(5), request, compute).await.unwrap();
        assert_eq!(computed.load(Ordering::Relaxed), 3, "a refusal is not kept");
    }

    #[tokio::test]
    async fn memory_is_bounded() {
        let frames = SharedFrames::new(100, &ledger(0));
        for seed in 0..50 {
            frames.get(AT, vec![seed], || async { Ok(frame(20)) }).await.unwrap();
        }
        let kept = frames.kept.0.lock().unwrap();
        assert!(kept.iter().map(|there| there.frame.get().unwrap().bytes()).sum::<usize>() <= 100 && !kept.is_empty());
    }

    #[tokio::test]
    async fn the_ledger_has_an_answer_while_anybody_has_it_and_gives_up_those_that_are_only_kept() {
        let ledger = ledger(100_000);
        let frames = SharedFrames::new(1 << 20, &ledger);
        let asked = async |request: u8| {
            let held = || ledger.take(MemoryPart::Answers, 50_000).map_err(|full| Status::unavailable(full.to_string()));
            frames.get(AT, vec![request; 100], || async { Ok(frame(30_000).held_by(held()?)) }).await
        };
        let taken = || ledger.taken(MemoryPart::Answers);
        let sent = asked(1).await.unwrap();
        let bytes = sent.bytes() + 100;
        assert_eq!(taken(), bytes, "as much as it came to, and the request");
        drop(asked(2).await.unwrap());
        assert_eq!(taken(), 2 * bytes);
        drop(asked(2).await.unwrap());
        assert_eq!((taken(), frames.kept.0.lock().unwrap().len()), (2 * bytes, 2), "it is kept once");

        drop(asked(3).await.unwrap());
        let kept = || frames.kept.0.lock().unwrap().iter().map(|there| there.key.request[0]).collect::<Vec<u8>>();
        assert_eq!(kept(), [3, 1], "what is being sent would give no memory back");
        let others = ledger.take(MemoryPart::Requests, 100_000 - bytes).unwrap();
        assert_eq!(kept(), [1]);
        let refused = asked(4).await.unwrap_err();
        assert_eq!(refused.code(), Code::ResourceExhausted, "a key has no room: {refused:?}");
        assert_eq!(kept(), [1]);
        drop(asked(1).await.expect("what is there takes nothing more"));
        drop(others);
        drop(sent);
        assert_eq!(taken(), bytes, "it is kept again");
        drop(ledger.take(MemoryPart::Gathers, 100_000).unwrap());
        assert_eq!((taken(), kept()), (0, Vec::new()));
        drop(asked(5).await.unwrap());
        drop(frames);
        assert_eq!(taken(), 0);
    }

    fn waits(asked: &mut Pin<Box<impl Future>>) -> bool {
        asked.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending()
    }

    #[tokio::test]
    async fn a_request_without_an_answer_leaves_nothing() {
        let ledger = ledger(10_000);
        let frames = SharedFrames::new(1 << 20, &ledger);
        let left = || (ledger.taken(MemoryPart::Answers), frames.kept.0.lock().unwrap().len());
        for seed in 0..20 {
            let refused = frames.get(AT, vec![seed; 1_000], || async { Err(Status::unavailable("")) }).await;
            assert_eq!((refused.unwrap_err().code(), left()), (Code::Unavailable, (0, 0)));
        }
        let never = async |seed: u8| frames.get(AT, vec![seed; 1_000], std::future::pending).await;
        for seed in 0..20 {
            let mut given_up = Box::pin(never(seed));
            assert!(waits(&mut given_up));
            assert_eq!(left(), (1_000, 1), "it is under way");
            drop(given_up);
            assert_eq!(left(), (0, 0));
        }
        let (mut first, mut second) =
            (Box::pin(never(1)), Box::pin(frames.get(AT, vec![1; 1_000], || async { Ok(frame(10)) })));
        assert!(waits(&mut first) && waits(&mut second));
        drop(first);
        assert_eq!(left(), (1_000, 1), "another waits");
        second.await.unwrap();
        assert_eq!(left().1, 1, "what the other computed is kept");
    }
}
