//! Answers that many ranks ask for at once.

use std::collections::VecDeque;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};

use prost::Message as _;
use tokio::sync::OnceCell;
use tonic::Status;

use super::frame::Frame;
use crate::model::Position;
use crate::proto::v1;

/// Finished answers of seeded requests all of whose draws are SHARED. The ranks of a step send the same request: the first
/// computes and encodes, the others wait for it and send the same memory.
#[derive(Debug, Clone)]
pub(super) struct SharedFrames {
    kept: Arc<Mutex<VecDeque<Kept>>>,
    /// Bytes of finished answers kept at most.
    limit: usize,
}

#[derive(Debug)]
struct Kept {
    key: Key,
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
    /// Keeps answers of `limit` bytes altogether.
    pub(super) fn new(limit: usize) -> Self {
        Self { kept: Arc::default(), limit }
    }

    /// True if another rank may send the same request.
    pub(super) fn takes(request: &v1::SampleRequest) -> bool {
        request.seed.is_some()
            && !request.draws.is_empty()
            && request.draws.iter().all(|draw| draw.scope() == v1::Scope::Shared)
            && request.encoded_len() <= LONGEST_REQUEST
    }

    /// The answer to `request`, of a bank whose history has come to `position`: by `compute`, unless it is known or under way.
    ///
    /// If whoever computes leaves, the next one who waits computes.
    pub(super) async fn get<F>(
        &self,
        position: Position,
        request: &v1::SampleRequest,
        compute: impl FnOnce() -> F,
    ) -> Result<Frame, Status>
    where
        F: Future<Output = Result<Frame, Status>>,
    {
        let cell = self.cell(Key { position, request: request.encode_to_vec() });
        let frame = cell.get_or_try_init(compute).await.cloned();
        self.trim();
        frame
    }

    fn cell(&self, key: Key) -> Arc<OnceCell<Frame>> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(there) = kept.iter().find(|there| there.key == key) {
            return Arc::clone(&there.frame);
        }
        // A bank that has moved on will not be asked for its past again.
        kept.retain(|there| !there.key.position.is_before(key.position));
        kept.truncate(MOST - 1);
        let frame = Arc::new(OnceCell::new());
        kept.push_front(Kept { key, frame: Arc::clone(&frame) });
        frame
    }

    /// Forgets the oldest answers beyond the limit.
    fn trim(&self) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let mut bytes = 0usize;
        kept.retain(|there| {
            bytes += there.frame.get().map_or(0, Frame::bytes);
            bytes <= self.limit
        });
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tonic::Status;

    use super::{Frame, SharedFrames};
    use crate::grpc::wire::Fields;
    use crate::model::Position;
    use crate::proto::v1;

    fn frame(bytes: usize) -> Frame {
        let mut fields = Fields::message(8);
        fields.bytes(1, &vec![0; bytes]);
        Frame::new(fields, Vec::new())
    }

    #[tokio::test]
    async fn ranks_that_ask_the_same_at_once_are_answered_by_one_computation() {
        let frames = SharedFrames::new(1 << 20);
        let request = v1::SampleRequest { seed: Some(1), ..Default::default() };
        let at = |sequence| Position { incarnation: 9, sequence };
        let computed = AtomicUsize::new(0);
        let compute = || async {
            computed.fetch_add(1, Ordering::Relaxed);
            tokio::task::yield_now().await;
            Ok(frame(10))
        };
        let asked = || frames.get(at(3), &request, compute);
        let (a, b) = tokio::join!(asked(), asked());
        assert_eq!((a.unwrap().bytes(), computed.load(Ordering::Relaxed)), (b.unwrap().bytes(), 1));
        frames.get(at(4), &request, compute).await.unwrap();
        assert_eq!(computed.load(Ordering::Relaxed), 2, "the bank has moved on");
        assert_eq!(frames.kept.lock().unwrap().len(), 1, "and its past is forgotten");
        let refused = frames.get(at(5), &request, || async { Err(Status::unavailable("")) }).await;
        assert!(refused.is_err());
        frames.get(at(5), &request, compute).await.unwrap();
        assert_eq!(computed.load(Ordering::Relaxed), 3, "a refusal is not kept");
    }

    #[tokio::test]
    async fn memory_is_bounded() {
        let frames = SharedFrames::new(100);
        for seed in 0..50 {
            let request = v1::SampleRequest { seed: Some(seed), ..Default::default() };
            let compute = || async { Ok(frame(20)) };
            frames.get(Position { incarnation: 1, sequence: 1 }, &request, compute).await.unwrap();
        }
        let kept = frames.kept.lock().unwrap();
        assert!(kept.iter().map(|there| there.frame.get().unwrap().bytes()).sum::<usize>() <= 100 && !kept.is_empty());
    }
}
