//! A request for negatives, split into blocks for the pool and joined again.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::EngineError;
use super::costs::{Costs, Effort};
use super::job::{Job, Run};
use super::maintenance::BankIndex;
use super::served::Served;
use super::small::{Efforts, Small};
use crate::bank::Bank;
use crate::model::clock::{self, Deadline};
use crate::model::{BankKind, BankSpec, Draw, Filters, SampleAnswer, SampleQuery, Scope, Strategy};
use crate::rows::{Recycler, Shared};
use crate::sampling::{BLOCK, Block, Merge, Part, Pass, SampleError, Source, answer_block, answer_shared};

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

    /// How much longer somebody waits, at most.
    pub(super) fn left(&self, now: Instant) -> Duration {
        let gone = self.abandoned.load(Ordering::Relaxed);
        if gone { Duration::ZERO } else { self.deadline.instant().saturating_duration_since(now) }
    }
}

/// Picks and bytes of embeddings up to which a request is slight.
const SLIGHT_PICKS: usize = 256;
const SLIGHT_BYTES: usize = 64 << 10;

/// True if a request is certain to take a few microseconds: few uniform draws, no filter whose entries would be counted or
/// walked. Waking a compute thread, and then its caller, would take longer than the work.
pub(super) fn is_slight(query: &SampleQuery, spec: &BankSpec) -> bool {
    let anchors = query.anchors();
    let grouped = anchors.groups.is_some() || anchors.ids.is_some();
    let plain = |draw: &Draw| {
        let Filters { exclude_same_group, exclude_same_label, exclude_ids, only_labels, .. } = &draw.filters;
        let Filters { exclude_labels, exclude_unlabelled, min_step, max_age, .. } = &draw.filters;
        matches!(draw.strategy, Strategy::Uniform { .. })
            && draw.scope == Scope::PerAnchor
            && !(grouped && *exclude_same_group != Some(false))
            && !(*exclude_same_label || *exclude_unlabelled || draw.filters.only_same_label || draw.filters.only_same_group)
            && (exclude_ids.is_empty() && only_labels.is_empty() && exclude_labels.is_empty())
            && (min_step.is_none() && max_age.is_none())
    };
    let k = query.draws().iter().fold(0usize, |sum, draw| sum.saturating_add(draw.k));
    let picks = k.saturating_mul(anchors.count);
    let named = anchors.positive_ids.values().len() + anchors.denied_ids.values().len();
    // In a queue one id may be any number of entries.
    let few_named = match spec.kind() {
        BankKind::Keyed { .. } => named <= SLIGHT_PICKS,
        BankKind::Queue { .. } => named == 0 && anchors.ids.is_none(),
    };
    picks <= SLIGHT_PICKS
        && few_named
        && picks * spec.dim() * query.form().encoding.bytes() <= SLIGHT_BYTES
        && query.draws().iter().all(plain)
}

/// What a request is answered from and counted in.
#[derive(Clone, Copy)]
pub(super) struct Of<'a> {
    pub(super) bank: &'a Arc<Shared<Bank>>,
    pub(super) index: Option<&'a Arc<BankIndex>>,
    pub(super) served: &'a Arc<Served>,
    pub(super) costs: &'a Arc<Costs>,
}

/// The jobs that answer `query`: one a block of anchors, and one for the draws that all anchors share. The last one to end calls
/// `answer`.
pub(super) fn jobs(
    of: Of<'_>,
    query: SampleQuery,
    recycler: &Recycler,
    wanted: &Wanted,
    answer: Answer,
) -> Result<Vec<Job>, EngineError> {
    let query = if of.served.is_on() { query } else { query.uncounted() };
    let (standing, spec, shared) = {
        let bank = of.bank.read()?;
        let walks = of.index.is_some_and(|index| index.indexed.standing().is_some());
        ((bank.entries(), walks), *bank.spec(), Pass::shared(&bank, walks, &query))
    };
    let of_scope = |scope| query.draws().iter().any(|draw| draw.scope == scope);
    let blocks = if of_scope(Scope::PerAnchor) { query.anchors().count.div_ceil(BLOCK) } else { 0 };
    let parts = blocks + usize::from(of_scope(Scope::Shared));
    let effort_of = |part: usize| match query.anchors().count {
        count if part == blocks => Effort::of_draws(&query, Scope::Shared, count, &spec, standing),
        count => Effort::of_draws(&query, Scope::PerAnchor, BLOCK.min(count - part * BLOCK), &spec, standing),
    };
    let efforts: Vec<Effort> = (0..parts).map(effort_of).collect();
    let request = Arc::new(Request {
        bank: Arc::clone(of.bank),
        index: of.index.cloned(),
        served: Arc::clone(of.served),
        costs: Arc::clone(of.costs),
        recycler: recycler.clone(),
        wanted: wanted.clone(),
        blocks,
        parts: Mutex::new(Parts {
            merge: Merge::new(query.draws().len(), query.form().most_bytes),
            refused: None,
            running: parts,
            answer: Some(answer),
        }),
        query,
    });
    let estimate = |effort: &Effort| request.costs.estimate(effort);
    if let (Some(shared), [alone]) = (shared, efforts.as_slice()) {
        let searches = request.query.draws().iter().filter(|draw| draw.strategy.is_scored()).count();
        let reading = Effort::of_reading(standing.0, spec.dim());
        let efforts = Efforts { alone: *alone, beside: alone.without(&reading, searches), reading };
        let (estimate, small) = (estimate(alone), Small::new(&request, shared, efforts));
        return Ok(vec![Job { estimate, run: Run::Small(Box::new(small)) }]);
    }
    let job_of = |(part, effort): (usize, Effort)| {
        let (estimate, request) = (estimate(&effort), Arc::clone(&request));
        Job::new(estimate, move || request.run(part, &effort))
    };
    Ok(efforts.into_iter().enumerate().map(job_of).collect())
}

/// A request that is being answered, part by part.
pub(super) struct Request {
    pub(super) bank: Arc<Shared<Bank>>,
    index: Option<Arc<BankIndex>>,
    pub(super) served: Arc<Served>,
    pub(super) costs: Arc<Costs>,
    query: SampleQuery,
    recycler: Recycler,
    pub(super) wanted: Wanted,
    /// Parts that are blocks of anchors; the one after them, if any, is the shared draws.
    blocks: usize,
    parts: Mutex<Parts>,
}

struct Parts {
    merge: Merge,
    /// The refusal of the first part that was refused.
    refused: Option<(usize, SampleError)>,
    running: usize,
    answer: Option<Answer>,
}

impl Request {
    /// Does a part.
    pub(super) fn run(&self, part: usize, effort: &Effort) {
        let began = clock::now();
        let result = self.part(part);
        if result.is_ok() {
            self.costs.learn(effort, clock::now().duration_since(began));
        }
        self.ended(part, result);
    }

    /// Hears what a part came to; the last one makes the answer.
    pub(super) fn ended(&self, part: usize, result: Result<Part, SampleError>) {
        let mut parts = self.parts.lock().unwrap_or_else(PoisonError::into_inner);
        parts.running -= 1;
        match result.and_then(|answer| parts.merge.add(part, answer)) {
            Ok(()) => {}
            Err(refused) if parts.refused.as_ref().is_none_or(|(first, there)| outranks(&refused, part, there, *first)) => {
                parts.refused = Some((part, refused));
            }
            Err(_) => {}
        }
        if parts.running > 0 {
            return;
        }
        let merge = std::mem::replace(&mut parts.merge, Merge::new(0, 0));
        let (refused, answer) = (parts.refused.take(), parts.answer.take());
        drop(parts);
        let whole = match refused {
            Some((_, refused)) => Err(refused.into()),
            None => merge.finish(self.query.seed()).ok_or(EngineError::Internal("a part of an answer is missing")),
        };
        if let Ok(whole) = &whole {
            self.served.count(whole);
            if let Some(index) = &self.index {
                index.indexed.recall().offer(&self.query, whole);
            }
        }
        if let Some(answer) = answer {
            answer(whole);
        }
    }

    /// The only block of a small request, looked up.
    pub(super) fn block(&self) -> Result<Block<'_>, SampleError> {
        if !self.wanted.holds() {
            return Err(SampleError::Unwanted);
        }
        Block::new(self.source(), &self.query, 0..self.query.anchors().count)
    }

    /// What that block comes to.
    pub(super) fn answer(&self, block: Block<'_>) -> Result<Part, SampleError> {
        block.answer(&self.recycler, &|| self.wanted.holds())
    }

    pub(super) fn source(&self) -> Source<'_> {
        Source { bank: &self.bank, indexed: self.index.as_ref().map(|index| &index.indexed) }
    }

    fn part(&self, part: usize) -> Result<Part, SampleError> {
        let refused = || self.parts.lock().unwrap_or_else(PoisonError::into_inner).refused.is_some();
        if !self.wanted.holds() || refused() {
            return Err(SampleError::Unwanted);
        }
        let wanted = || self.wanted.holds();
        if part == self.blocks {
            return answer_shared(&self.bank, &self.query, &self.recycler, &wanted);
        }
        let start = part * BLOCK;
        let anchors = start..self.query.anchors().count.min(start + BLOCK);
        answer_block(self.source(), &self.query, anchors, &self.recycler, &wanted)
    }
}

/// True if a refusal is to be told instead of another: parts stop when one is refused, so that they did says least; else the first
/// part's, so that the same request is refused in the same words.
fn outranks(refused: &SampleError, part: usize, there: &SampleError, first: usize) -> bool {
    let stopped = |refused: &SampleError| matches!(refused, SampleError::Unwanted);
    (stopped(refused), part) < (stopped(there), first)
}
