//! Joining the parts of an answer.

use std::collections::BTreeMap;

use bytes::Bytes;
use rustc_hash::FxHashMap;

use super::SampleError;
use super::gathered::Gathered;
use super::observed::Seen;
use super::part::{Part, PartRows, Pool};
use crate::model::{DrawAnswer, SampleAnswer, Seed, ServedRows};

/// An answer that grows by its parts. They may come in any order and are joined in theirs, so that the answer doesn't depend on
/// which thread was faster; a row that is pooled already is dropped as soon as its part's turn comes.
#[derive(Debug)]
pub struct Merge {
    next: usize,
    waiting: BTreeMap<usize, Part>,
    /// One set of rows (pooled) or one per draw.
    rows: Vec<ServedRows>,
    known: FxHashMap<(u64, u64), u32>,
    draws: Vec<Option<DrawAnswer>>,
    seen: Option<Seen>,
    /// Bytes of embeddings that there may be.
    most_bytes: usize,
}

impl Merge {
    /// Nothing yet, of a request with that many draws whose answer may have that many bytes of embeddings.
    pub fn new(draws: usize, most_bytes: usize) -> Self {
        Self {
            next: 0,
            waiting: BTreeMap::new(),
            rows: vec![ServedRows::default(); draws],
            known: FxHashMap::default(),
            draws: vec![None; draws],
            seen: None,
            most_bytes,
        }
    }

    /// Adds part number `number`; each number comes once.
    ///
    /// # Errors
    /// [`SampleError::TooLarge`]
    pub fn add(&mut self, number: usize, part: Part) -> Result<(), SampleError> {
        self.waiting.insert(number, part);
        while let Some(part) = self.waiting.remove(&self.next) {
            self.next += 1;
            self.join(part);
            let bytes: usize = self.rows.iter().flat_map(|rows| &rows.embeddings).map(Bytes::len).sum();
            if bytes > self.most_bytes {
                self.rows.clear();
                self.waiting.clear();
                return Err(SampleError::TooLarge(self.most_bytes));
            }
        }
        Ok(())
    }

    /// The whole answer; `None` if a part, or the answer of a draw, is missing.
    pub fn finish(self, seed: Seed) -> Option<SampleAnswer> {
        let seen = self.seen.filter(|_| self.waiting.is_empty())?;
        let mut rows = ServedRows::default();
        self.rows.into_iter().for_each(|of_draw| append(&mut rows, of_draw));
        let draws: Vec<DrawAnswer> = self.draws.into_iter().collect::<Option<_>>()?;
        Some(SampleAnswer {
            reproducible: seen.is_one_state() && draws.iter().all(|draw| draw.graph.is_none()),
            rows,
            draws,
            seed,
            sequence_first: seen.sequence_first,
            sequence_last: seen.sequence_last,
            step: seen.step,
        })
    }

    fn join(&mut self, part: Part) {
        let moved = match part.rows {
            PartRows::Pooled(pool) => self.pool(pool),
            PartRows::PerDraw(draws) => {
                self.rows.iter_mut().zip(draws).for_each(|(rows, more)| append(rows, served(more)));
                Vec::new()
            }
        };
        for (whole, more) in self.draws.iter_mut().zip(part.draws) {
            let Some(more) = more else { continue };
            let at = |row: u32| moved.get(row as usize).copied().unwrap_or(row);
            match whole {
                Some(whole) => whole.append(more, at),
                None => {
                    let mut first = more;
                    first.indices.iter_mut().for_each(|row| *row = at(*row));
                    *whole = Some(first);
                }
            }
        }
        self.seen = Some(self.seen.map_or(part.seen, |seen| seen.and(part.seen)));
    }

    /// Takes the rows that are not pooled yet, and returns where each row of the part lies now.
    fn pool(&mut self, pool: Pool) -> Vec<u32> {
        let Some(rows) = self.rows.first_mut() else { return Vec::new() };
        let mut next = rows.len as u32;
        self.known.reserve(pool.identities.len());
        let mut fresh = Vec::with_capacity(pool.identities.len());
        let place = |identity: &(u64, u64)| {
            let at = *self.known.entry(*identity).or_insert(next);
            fresh.push(at == next);
            next += u32::from(at == next);
            at
        };
        let moved = pool.identities.iter().map(place).collect();
        let mut gathered = pool.gathered;
        gathered.retain(&fresh);
        append(rows, served(gathered));
        moved
    }
}

fn served(gathered: Gathered) -> ServedRows {
    let Gathered { len, ids, mut embeddings, labels, groups, steps, weights, .. } = gathered;
    // What was expected may be much more than what came, and this lies until it is sent.
    embeddings.compact();
    let embeddings = if embeddings.as_ref().is_empty() { Vec::new() } else { vec![Bytes::from_owner(embeddings)] };
    ServedRows { len, ids, embeddings, labels, groups, steps, weights }
}

fn append(rows: &mut ServedRows, more: ServedRows) {
    rows.len += more.len;
    rows.ids.extend(more.ids);
    rows.embeddings.extend(more.embeddings);
    rows.labels.extend(more.labels);
    rows.groups.extend(more.groups);
    rows.steps.extend(more.steps);
    rows.weights.extend(more.weights);
}
