//! Reading a whole bank, or what changed in it, chunk by chunk.

use std::num::NonZeroU64;
use std::ops::RangeInclusive;

use rustc_hash::FxHashSet;

use super::EngineError;
use super::query::Wanted;
use crate::bank::{Bank, Entry, Place};
use crate::model::{Encoding, Position};
use crate::rows::Shared;

/// What a scan is to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ScanQuery {
    /// How embeddings are wanted; `None`: left out.
    pub encoding: Option<Encoding>,
    /// Rows of a chunk at most; at least 1.
    pub rows: usize,
    /// Only what changed since; the history must have come so far.
    pub since: Option<Position>,
}

impl ScanQuery {
    /// Memory that a scan of a bank of `entries` rows of `dim` floats takes, about: a chunk that is read, the one before as it is
    /// converted and encoded, the end of another that is sent, and the lists of those to come.
    pub fn memory(&self, dim: usize, entries: usize) -> usize {
        let row = size_of::<Entry>() + size_of::<u64>() + self.encoding.map_or(0, |encoding| dim * encoding.bytes());
        let listed = 2 * entries.min(LISTED) + self.since.map_or(0, |_| 2 * CHANGED);
        4 * self.rows.min(entries) * row + listed * size_of::<(u64, Place)>()
    }
}

/// A part of a scan.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ScanPart {
    /// Entries in the order in which they came.
    pub entries: Vec<Entry>,
    /// Their stamps.
    pub stamps: Vec<u64>,
    /// Their embeddings, row-major, encoded as asked for.
    pub embeddings: Vec<u8>,
    /// Stamps of entries that left.
    pub gone: Vec<u64>,
    /// The first part of a scan of all entries.
    pub whole: bool,
    /// The last part: how the scan ended.
    pub closing: Option<Closing>,
    /// Entries of the bank when this part was read.
    pub held: usize,
    /// Bank's sequence then.
    pub sequence: u64,
    /// Bank's step then.
    pub step: Option<u64>,
}

/// How a scan ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Closing {
    /// Sequence of the last mutation that was applied when the scan began.
    pub began: u64,
    /// The bank stood still from the first read to the last.
    pub consistent: bool,
}

/// A scan under way. Its holds of the bank's lock are short; what is written between them is the next scan's.
#[derive(Debug)]
pub(super) struct Cursor {
    query: ScanQuery,
    /// Entries listed at a time.
    listed: usize,
    progress: Option<Progress>,
}

#[derive(Debug)]
struct Progress {
    began: Began,
    whole: bool,
    first: bool,
    gone: std::vec::IntoIter<u64>,
    listed: std::vec::IntoIter<(u64, Place)>,
    /// Entries of later stamps, up to the scan's beginning, are not listed yet.
    unlisted_after: Option<u64>,
}

/// The bank when the scan began.
#[derive(Debug, Clone, Copy)]
struct Began {
    sequence: u64,
    revision: u64,
    applying: bool,
}

/// Slots or changes looked at in one hold.
const LISTED_PER_HOLD: usize = 8_192;

/// Rows read in one hold, and bytes of them.
const ROWS_PER_HOLD: usize = 256;
const BYTES_PER_HOLD: usize = 256 << 10;

/// Entries listed at a time: 32 MiB at most, however large the bank is.
const LISTED: usize = 1 << 20;

/// Changes that a bank remembers.
const CHANGED: usize = 65_536;

/// Stamps of a part that tells which entries left.
const GONE_PER_PART: usize = 4_096;

impl Cursor {
    pub(super) fn new(query: ScanQuery) -> Self {
        Self { query, listed: LISTED, progress: None }
    }

    /// Rows of a part at most.
    pub(super) fn rows(&self) -> usize {
        self.query.rows
    }

    /// The next part of the same bank, until one has a closing.
    pub(super) fn next(&mut self, bank: &Shared<Bank>, wanted: &Wanted) -> Result<ScanPart, EngineError> {
        let Self { query, listed, progress } = self;
        let progress = match progress {
            Some(progress) => progress,
            None => progress.insert(Progress::begin(bank, query, wanted)?),
        };
        let mut part = ScanPart { whole: progress.whole && progress.first, ..ScanPart::default() };
        progress.first = false;
        part.gone = progress.gone.by_ref().take(GONE_PER_PART).collect();
        while part.gone.is_empty() && part.entries.len() < query.rows && progress.goes_on(bank, *listed, wanted)? {
            progress.read(&*bank.read()?, query, &mut part);
        }
        let ended = progress.gone.len() == 0 && !progress.goes_on(bank, *listed, wanted)?;
        progress.close(&*bank.read()?, ended, &mut part);
        Ok(part)
    }
}

impl Progress {
    fn begin(bank: &Shared<Bank>, query: &ScanQuery, wanted: &Wanted) -> Result<Self, EngineError> {
        let (began, after) = {
            let bank = bank.read()?;
            let began = Began { sequence: bank.sequence(), revision: bank.revision(), applying: bank.is_applying() };
            (began, query.since.and_then(|since| bank.revision_after(since.sequence)))
        };
        let changed = match after {
            Some(after) => changed(bank, after, began.revision, wanted)?,
            None => None,
        };
        let whole = changed.is_none();
        let (gone, listed) = changed.unwrap_or_default();
        let unlisted_after = whole.then_some(0);
        let (gone, listed) = (gone.into_iter(), listed.into_iter());
        Ok(Self { began, whole, first: true, gone, listed, unlisted_after })
    }

    /// True if there are listed entries to read; lists further ones where none are left.
    fn goes_on(&mut self, bank: &Shared<Bank>, at_a_time: usize, wanted: &Wanted) -> Result<bool, EngineError> {
        unless_unwanted(wanted)?;
        if self.listed.len() == 0
            && let Some(after) = self.unlisted_after.take()
        {
            let (listed, more) = earliest(bank, after..=self.began.revision, at_a_time, wanted)?;
            self.unlisted_after = listed.last().map(|&(stamp, _)| stamp).filter(|_| more);
            self.listed = listed.into_iter();
        }
        Ok(self.listed.len() > 0)
    }

    /// Reads listed entries, in one hold; those that have left are the next scan's to tell of.
    fn read(&mut self, bank: &Bank, query: &ScanQuery, part: &mut ScanPart) {
        let bytes = query.encoding.map_or(0, |encoding| bank.spec().dim() * encoding.bytes());
        let few = (BYTES_PER_HOLD / bytes.max(1)).clamp(1, ROWS_PER_HOLD);
        for (stamp, place) in self.listed.by_ref().take(few.min(query.rows - part.entries.len())) {
            let columns = bank.columns(place);
            if columns.occupied_at(place.slot) != stamp {
                continue;
            }
            part.entries.push(columns.entry(place.slot));
            part.stamps.push(stamp);
            if let Some(encoding) = query.encoding {
                bank.row(place).encode(encoding, &mut part.embeddings);
            }
        }
    }

    fn close(&self, bank: &Bank, ended: bool, part: &mut ScanPart) {
        (part.held, part.sequence, part.step) = (bank.entries(), bank.sequence(), bank.step());
        if ended {
            let consistent = !self.began.applying && !bank.is_applying() && bank.revision() == self.began.revision;
            part.closing = Some(Closing { began: self.began.sequence, consistent });
        }
    }
}

/// Stamps of the entries that left, and the entries that came or moved, between two readings of the change counter, by stamp; `None` if
/// the bank remembers some of the changes no more.
type Changed = Option<(Vec<u64>, Vec<(u64, Place)>)>;

fn changed(bank: &Shared<Bank>, after: u64, until: u64, wanted: &Wanted) -> Result<Changed, EngineError> {
    let (mut gone, mut places) = (Vec::new(), FxHashSet::default());
    let mut from = after;
    while from < until {
        unless_unwanted(wanted)?;
        let to = until.min(from + LISTED_PER_HOLD as u64);
        let Some(part) = bank.read()?.changes(from, to).map(Iterator::collect::<Vec<_>>) else { return Ok(None) };
        gone.extend(part.iter().filter_map(|change| change.left).map(NonZeroU64::get));
        places.extend(part.iter().map(|change| change.place));
        from = to;
    }
    let places: Vec<Place> = places.into_iter().collect();
    let mut listed = Vec::with_capacity(places.len());
    for part in places.chunks(LISTED_PER_HOLD) {
        unless_unwanted(wanted)?;
        let bank = bank.read()?;
        listed.extend(part.iter().filter_map(|&place| arrived(&bank, place, until)));
    }
    listed.sort_unstable();
    Ok(Some((gone, listed)))
}

/// The first `most` entries whose stamps lie in `span`, less its start, by stamp; true if there are more.
fn earliest(
    bank: &Shared<Bank>,
    span: RangeInclusive<u64>,
    most: usize,
    wanted: &Wanted,
) -> Result<(Vec<(u64, Place)>, bool), EngineError> {
    let (after, until) = span.into_inner();
    let shards = bank.read()?.shards().len() as u32;
    let (mut listed, mut more) = (Vec::new(), false);
    for shard in 0..shards {
        let mut next = 0;
        loop {
            unless_unwanted(wanted)?;
            let bank = bank.read()?;
            let slots = bank.shards()[shard as usize].columns().len() as u32;
            let end = slots.min(next + LISTED_PER_HOLD as u32);
            let places = (next..end).map(|slot| Place { shard, slot });
            listed.extend(places.filter_map(|place| arrived(&bank, place, until)).filter(|&(stamp, _)| stamp > after));
            drop(bank);
            if listed.len() >= 2 * most {
                listed.select_nth_unstable(most);
                listed.truncate(most);
                more = true;
            }
            next = end;
            if next == slots {
                break;
            }
        }
    }
    more |= listed.len() > most;
    listed.sort_unstable();
    listed.truncate(most);
    Ok((listed, more))
}

/// The entry at a place with its stamp, if it came before the change counter passed `until`.
fn arrived(bank: &Bank, place: Place, until: u64) -> Option<(u64, Place)> {
    let stamp = bank.columns(place).occupied_at(place.slot);
    (stamp != 0 && stamp <= until).then_some((stamp, place))
}

fn unless_unwanted(wanted: &Wanted) -> Result<(), EngineError> {
    if wanted.holds() { Ok(()) } else { Err(EngineError::DeadlineExceeded) }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Cursor, GONE_PER_PART, ScanPart, ScanQuery};
    use crate::bank::Bank;
    use crate::engine::query::Wanted;
    use crate::model::clock::Deadline;
    use crate::model::{Applied, BankKind, BankSpec, Ids, Matrix, Metric, Mutation, Position, WriteBatch};
    use crate::rows::Shared;

    fn wanted() -> Wanted {
        Wanted::until(Deadline::after(Duration::from_secs(60)))
    }

    fn apply(bank: &Shared<Bank>, mutation: &Mutation, most: usize) -> Option<usize> {
        let mut bank = bank.write().unwrap();
        let arrivals = bank.arrivals(mutation);
        bank.reserve(&arrivals).unwrap();
        bank.apply(mutation, 0, most, &mut Applied::default())
    }

    fn bank(ids: &[u64]) -> (Shared<Bank>, Mutation) {
        let spec = BankSpec::new(1, Metric::Dot, BankKind::Keyed { momentum: 0.0, capacity: None }, 4).unwrap();
        let rows = Matrix::new("embeddings", 1, Metric::Dot, ids.iter().map(|&id| id as f32).collect()).unwrap();
        let batch = WriteBatch::new(&spec, Ids::Given(ids.to_vec()), rows, None, None, None, None).unwrap();
        let write = Mutation::Write(batch);
        let bank = Shared::new(Bank::new(spec));
        assert_eq!(apply(&bank, &write, usize::MAX), None);
        (bank, write)
    }

    fn read(bank: &Shared<Bank>, mut cursor: Cursor) -> Vec<ScanPart> {
        let mut parts: Vec<ScanPart> = Vec::new();
        while parts.last().is_none_or(|part| part.closing.is_none()) {
            parts.push(cursor.next(bank, &wanted()).unwrap());
        }
        parts
    }

    fn query(rows: usize, since: Option<u64>) -> ScanQuery {
        ScanQuery { encoding: None, rows, since: since.map(|sequence| Position { incarnation: 0, sequence }) }
    }

    #[test]
    fn entries_are_listed_in_order_however_few_at_a_time() {
        let ids: Vec<u64> = (0..1_000).map(|at| at * 7 % 1_000).collect();
        let (bank, _) = bank(&ids);
        for listed in [1, 2, 3, 250, 499, 500, 501, 999, 1_000, 1_001] {
            let mut cursor = Cursor::new(query(333, None));
            cursor.listed = listed;
            let parts = read(&bank, cursor);
            let read: Vec<u64> = parts.iter().flat_map(|part| part.entries.iter().map(|entry| entry.id)).collect();
            assert_eq!((read, parts.len()), (ids.clone(), 4), "{listed} at a time");
            assert!(parts[3].closing.unwrap().consistent);
        }
    }

    #[test]
    fn what_comes_and_leaves_meanwhile_is_the_next_scans() {
        let ids: Vec<u64> = (0..10_000).collect();
        let (bank, _) = bank(&ids);
        let mut cursor = Cursor::new(query(4_000, None));
        assert_eq!(cursor.next(&bank, &wanted()).unwrap().entries.len(), 4_000);
        apply(&bank, &Mutation::Remove((3_000..9_000).collect()), usize::MAX);
        let parts = read(&bank, cursor);
        assert_eq!(parts.iter().map(|part| part.entries.len()).sum::<usize>(), 1_000);
        let closing = parts.last().unwrap().closing.unwrap();
        assert_eq!((closing.began, closing.consistent), (1, false));
        let parts = read(&bank, Cursor::new(query(10, Some(closing.began))));
        assert!(!parts[0].whole && parts.iter().all(|part| part.gone.len() <= GONE_PER_PART));
        assert_eq!(parts.iter().map(|part| part.gone.len()).sum::<usize>(), 6_000);
    }

    #[test]
    fn a_mutation_applied_in_part_is_no_state() {
        let (bank, write) = bank(&[1, 2, 3]);
        assert_eq!(apply(&bank, &write, 2), Some(2));
        let parts = read(&bank, Cursor::new(query(9, None)));
        assert!(!parts[0].closing.unwrap().consistent, "two of three rows are rewritten");
        bank.write().unwrap().apply(&write, 2, 9, &mut Applied::default());
        let parts = read(&bank, Cursor::new(query(9, Some(1))));
        assert_eq!((parts[0].entries.len(), parts[0].closing.unwrap().consistent), (3, true));
    }

    #[test]
    fn nobody_waits_so_nothing_is_read() {
        let (bank, _) = bank(&[1, 2, 3]);
        let wanted = wanted();
        wanted.abandon();
        assert!(Cursor::new(query(9, None)).next(&bank, &wanted).is_err());
    }
}
