//! A call that takes a while, as its caller sees it.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;

use crate::engine::EngineError;
use crate::engine::handle::{Leave, wait};
use crate::engine::meter::{Meter, Stand};
use crate::engine::query::Wanted;
use crate::model::clock::Deadline;

/// A call that takes a while. Dropped, it is given up.
#[derive(Debug)]
pub struct Running<T> {
    meter: Arc<Meter>,
    result: Option<oneshot::Receiver<Result<T, EngineError>>>,
    deadline: Deadline,
    told: Option<Stand>,
    _leave: Leave<'static>,
}

/// What is heard of a call.
#[derive(Debug)]
pub enum Heard<T> {
    /// How far it has come.
    Stand(Stand),
    /// It is done.
    Done(T),
}

/// Between two readings.
const READ_EVERY: Duration = Duration::from_millis(100);

impl<T> Running<T> {
    /// What is new; `None` after the end.
    ///
    /// # Errors
    /// [`EngineError`]; then it has ended.
    pub async fn next(&mut self) -> Option<Result<Heard<T>, EngineError>> {
        loop {
            let result = self.result.as_mut()?;
            if let Ok(ended) = tokio::time::timeout(READ_EVERY, wait(result, self.deadline)).await {
                self.result = None;
                return Some(ended.map(Heard::Done));
            }
            let stand = self.meter.read();
            if self.told != Some(stand) {
                self.told = Some(stand);
                return Some(Ok(Heard::Stand(stand)));
            }
        }
    }
}

/// A call, and the work that it is, to be spawned.
pub(super) fn running<T: Send + 'static, F: Future<Output = Result<T, EngineError>> + Send + 'static>(
    deadline: Deadline,
    work: impl FnOnce(Wanted, Arc<Meter>) -> F,
) -> (Running<T>, impl Future<Output = ()> + Send + 'static) {
    let (wanted, meter) = (Wanted::until(deadline), Arc::new(Meter::default()));
    let (reply, result) = oneshot::channel();
    let work = work(wanted.clone(), Arc::clone(&meter));
    // It notices by itself that nobody waits any more, and clears up behind itself.
    let work = async move { drop(reply.send(work.await)) };
    (Running { meter, result: Some(result), deadline, told: None, _leave: Leave { wanted, queued: None } }, work)
}
