//! Who hears what came of a mutation.

use std::time::Instant;

use super::EngineError;
use crate::model::{Applied, clock};
use crate::telemetry::{Piece, Work};

/// Tells the caller what came of a mutation, and notes how long that took.
pub(super) struct Acknowledge {
    tell: Box<dyn FnOnce(Result<Applied, EngineError>) + Send>,
    work: Work,
    came: Instant,
    began: Instant,
}

impl Acknowledge {
    /// `tell` hears when every later read sees the mutation, or that it was refused. Its wait begins now.
    pub(super) fn new(tell: impl FnOnce(Result<Applied, EngineError>) + Send + 'static) -> Self {
        let now = clock::now();
        Self { tell: Box::new(tell), work: Work::current(), came: now, began: now }
    }

    /// Its wait has ended.
    pub(super) fn begin(&mut self) {
        self.began = clock::now();
    }

    /// Says it.
    pub(super) fn tell(self, result: Result<Applied, EngineError>) {
        self.work.committed(Piece { came: self.came, began: self.began, ended: clock::now() });
        (self.tell)(result);
    }
}
