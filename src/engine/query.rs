//! A request for negatives, split into blocks for the pool and joined again.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::EngineError;
use super::pool::Job;
use crate::bank::Bank;
use crate::model::clock::Deadline;
use crate::model::{BlockAnswer, SampleAnswer, SampleQuery};
use crate::rows::Shared;
use crate::sampling::{BLOCK, SampleError, answer_block, merge};

/// Called with the answer.
pub(super) type Answer = Box<dyn FnOnce(Result<SampleAnswer, EngineError>) + Send>;

/// Whether anybody still waits: shared by the caller, who may leave, and the compute threads, who then stop.
#[derive(Debug, Clone)]
pub(super) struct Wanted {
    abandoned: Arc<AtomicBool>,
    deadline: Deadline,
}

impl Wanted {
    pub(super) fn until(deadline: Deadline) -> Self {
        Self { abandoned: Arc::default(), deadline }
    }

    pub(super) fn abandon(&self) {
        self.abandoned.store(true, Ordering::Relaxed);
    }

    pub(super) fn holds(&self) -> bool {
        !self.abandoned.load(Ordering::Relaxed) && !self.deadline.has_passed()
    }
}

/// The jobs that answer `query`. The last one to end joins their results and calls `answer`.
pub(super) fn jobs(bank: &Arc<Shared<Bank>>, dim: usize, query: SampleQuery, wanted: &Wanted, answer: Answer) -> Vec<Job> {
    let anchors = query.anchors().count;
    let blocks = anchors.div_ceil(BLOCK);
    let joint = Arc::new(Joint {
        bank: Arc::clone(bank),
        dim,
        query,
        wanted: wanted.clone(),
        running: AtomicUsize::new(blocks),
        results: Mutex::new((0..blocks).map(|_| None).collect()),
        answer: Mutex::new(Some(answer)),
    });
    let job_of = |block: usize| {
        let joint = Arc::clone(&joint);
        Box::new(move || joint.run(block)) as Job
    };
    (0..blocks).map(job_of).collect()
}

struct Joint {
    bank: Arc<Shared<Bank>>,
    dim: usize,
    query: SampleQuery,
    wanted: Wanted,
    running: AtomicUsize,
    results: Mutex<Vec<Option<Result<BlockAnswer, SampleError>>>>,
    answer: Mutex<Option<Answer>>,
}

impl Joint {
    fn run(&self, block: usize) {
        let start = block * BLOCK;
        let anchors = start..self.query.anchors().count.min(start + BLOCK);
        let result = if self.wanted.holds() {
            answer_block(&self.bank, &self.query, anchors, &|| self.wanted.holds())
        } else {
            Err(SampleError::Unwanted)
        };
        let mut results = self.results.lock().unwrap_or_else(PoisonError::into_inner);
        results[block] = Some(result);
        if self.running.fetch_sub(1, Ordering::AcqRel) == 1 {
            let all = std::mem::take(&mut *results);
            drop(results);
            let answer = self.answer.lock().unwrap_or_else(PoisonError::into_inner).take();
            if let Some(answer) = answer {
                answer(self.join(all));
            }
        }
    }

    fn join(&self, results: Vec<Option<Result<BlockAnswer, SampleError>>>) -> Result<SampleAnswer, EngineError> {
        let missing = || Err(SampleError::Unwanted);
        let blocks = results.into_iter().map(|result| result.unwrap_or_else(missing)).collect::<Result<Vec<_>, _>>()?;
        merge(blocks, self.dim, self.query.seed()).ok_or(EngineError::Internal("a request without anchors was run"))
    }
}
