//! What one thread answers of a request.

use rustc_hash::{FxBuildHasher, FxHashMap};

use super::SampleError;
use super::gathered::Gathered;
use super::observed::Seen;
use crate::bank::{Bank, Place};
use crate::model::{BankSpec, DrawAnswer, Form, Layout};
use crate::rows::Recycler;

/// A part of an answer: some draws for some consecutive anchors.
#[derive(Debug)]
pub struct Part {
    /// Served entries.
    pub rows: PartRows,
    /// An answer per draw of the request; `None` for a draw that another part answers.
    pub draws: Vec<Option<DrawAnswer>>,
    /// Which states of the bank it was read from.
    pub seen: Seen,
}

/// The rows of a part, by the layout asked for.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "there is one a block of anchors: a box would save nothing")]
pub enum PartRows {
    /// Each served entry once.
    Pooled(Pool),
    /// A row a pick: one set of rows per draw of the request.
    PerDraw(Vec<Gathered>),
}

/// Entries gathered once, however many anchors they were served to. An entry that a write moved between two holds is two rows:
/// each pick keeps the one it was scored with.
#[derive(Debug)]
pub struct Pool {
    /// The rows.
    pub gathered: Gathered,
    /// Identity of each row: where it lies and which write made it. Equal identities are equal rows.
    pub identities: Vec<(u64, u64)>,
    known: FxHashMap<(u64, u64), u32>,
}

/// Rows that room is made for beforehand at most.
const MOST_EXPECTED: usize = 1 << 16;

/// Rows asked of memory before they are copied.
const ROWS_AHEAD: usize = 4;

impl PartRows {
    /// No rows yet; of each draw about `expected` rows.
    pub(super) fn new(form: &Form, expected: &[usize], held: usize, spec: &BankSpec, recycler: &Recycler) -> Self {
        match form.layout {
            Layout::Pooled => {
                let rows = expected.iter().fold(0usize, |sum, rows| sum.saturating_add(*rows)).min(held);
                let room = rows.min(MOST_EXPECTED);
                Self::Pooled(Pool {
                    gathered: Gathered::new(form, rows, spec, recycler),
                    identities: Vec::with_capacity(room),
                    known: FxHashMap::with_capacity_and_hasher(room, FxBuildHasher),
                })
            }
            Layout::PerAnchor => {
                Self::PerDraw(expected.iter().map(|&rows| Gathered::new(form, rows, spec, recycler)).collect())
            }
        }
    }

    /// Refuses what has grown past what the form allows.
    pub(super) fn check_size(&self, form: &Form) -> Result<(), SampleError> {
        let bytes = |gathered: &Gathered| gathered.embeddings.as_ref().len();
        let held: usize = match self {
            Self::Pooled(pool) => bytes(&pool.gathered),
            Self::PerDraw(draws) => draws.iter().map(bytes).sum(),
        };
        if held > form.most_bytes { Err(SampleError::TooLarge(form.most_bytes)) } else { Ok(()) }
    }

    /// Copies the picks of a draw for one anchor, and notes in `answer` which rows they are.
    pub(super) fn serve(&mut self, bank: &Bank, draw: usize, places: &[Place], answer: &mut DrawAnswer) {
        match self {
            Self::Pooled(pool) => answer.indices.extend(near(bank, places).map(|place| pool.add(bank, place))),
            Self::PerDraw(draws) => {
                let Some(rows) = draws.get_mut(draw) else { return };
                near(bank, places).for_each(|place| rows.push(bank, place));
            }
        }
    }
}

/// `places` in their order, the rows of the next few being on their way from memory.
fn near<'a>(bank: &'a Bank, places: &'a [Place]) -> impl Iterator<Item = Place> + 'a {
    let ahead = |at: usize| {
        if let Some(&place) = places.get(at) {
            bank.row(place).prefetch();
            bank.columns(place).prefetch_id(place.slot);
        }
    };
    (0..ROWS_AHEAD).for_each(ahead);
    places.iter().enumerate().map(move |(at, &place)| {
        ahead(at + ROWS_AHEAD);
        place
    })
}

impl Pool {
    /// The row of the entry at `place`; copies it if it is new.
    fn add(&mut self, bank: &Bank, place: Place) -> u32 {
        let identity = (place.packed(), bank.columns(place).revision(place.slot));
        let next = self.identities.len() as u32;
        let row = *self.known.entry(identity).or_insert(next);
        if row == next {
            self.identities.push(identity);
            self.gathered.push(bank, place);
        }
        row
    }
}
