//! All gathers: which wait for ranks, which have come to an answer, and what their callers are told.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;
use std::time::Instant;

use super::cost::check_size;
use super::finished::Finished;
use super::open::Open;
use super::{Config, Contribution, GatherError, GatherId, GatherInfo, Gathered, Memory};

/// Gathers by name. Whoever contributes, or tells the time, is told what to pass on.
///
/// `W` stands for a caller who waits.
#[derive(Debug)]
pub struct Gathering<W> {
    config: Config,
    memory: Box<dyn Memory>,
    open: BTreeMap<GatherId, Open<W>>,
    finished: Finished,
    tickets: u64,
    stopped: bool,
}

/// A caller's number, by which it can leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ticket(u64);

/// What a caller is told.
pub type Answer<W> = (W, Result<Arc<Gathered>, GatherError>);

impl<W> Gathering<W> {
    /// No gathers; `memory` has the account of what they will take.
    pub fn new(config: Config, memory: Box<dyn Memory>) -> Self {
        Self { config, memory, open: BTreeMap::new(), finished: Finished::default(), tickets: 0, stopped: false }
    }

    /// Takes a rank's rows in, for which `caller` waits until `until`, and says who is told what: the caller at once where its rows
    /// are refused or there is an answer, all callers where these rows were the last.
    pub fn contribute(&mut self, from: Contribution, until: Instant, now: Instant, caller: W) -> (Ticket, Vec<Answer<W>>) {
        self.tickets += 1;
        let ticket = Ticket(self.tickets);
        let id = from.id.clone();
        let answers = match self.admit(from, until) {
            Ok(Some(gathered)) => vec![(caller, Ok(gathered))],
            Err(error) => vec![(caller, Err(error))],
            Ok(None) => {
                let open = self.open.get_mut(&id);
                let complete = open.is_some_and(|open| {
                    open.wait(ticket, caller, until);
                    open.is_complete()
                });
                if complete { self.finish(&id, now) } else { Vec::new() }
            }
        };
        (ticket, answers)
    }

    /// Forgets a caller who has hung up; its rows stay.
    pub fn leave(&mut self, id: &GatherId, ticket: Ticket) {
        if let Some(open) = self.open.get_mut(id) {
            open.leave(ticket);
        }
    }

    /// Freezes the gathers whose time is up, says who is told, and forgets the answers that were kept long enough.
    pub fn expire(&mut self, now: Instant) -> Vec<Answer<W>> {
        self.finished.forget(now);
        let due: Vec<GatherId> = self.open.iter().filter(|(_, open)| open.until() <= now).map(|(id, _)| id.clone()).collect();
        due.iter().flat_map(|id| self.finish(id, now)).collect()
    }

    /// When there is something to expire next.
    pub fn next_due(&self) -> Option<Instant> {
        self.open.values().map(Open::until).chain(self.finished.next_due()).min()
    }

    /// Ends every wait, and refuses whoever comes later.
    pub fn stop(&mut self) -> Vec<Answer<W>> {
        self.stopped = true;
        self.finished = Finished::default();
        let open = std::mem::take(&mut self.open).into_values();
        open.flat_map(|open| open.freeze().1).map(|caller| (caller, Err(GatherError::Stopping))).collect()
    }

    /// All gathers, by name.
    pub fn describe(&self) -> Vec<GatherInfo> {
        let of_open = |(id, open): (&GatherId, &Open<W>)| GatherInfo {
            id: id.clone(),
            world_size: open.world_size(),
            missing: open.missing().take(GatherInfo::MOST_NAMED).collect(),
            finished: false,
            bytes: open.bytes(),
        };
        let mut all: Vec<GatherInfo> = self.open.iter().map(of_open).chain(self.finished.describe()).collect();
        all.sort_by(|a, b| a.id.cmp(&b.id));
        all
    }

    /// The answer, where there is one; else sees to it that the rows are in an open gather.
    fn admit(&mut self, from: Contribution, until: Instant) -> Result<Option<Arc<Gathered>>, GatherError> {
        let Contribution { ref id, seat, part, held, .. } = from;
        if self.stopped {
            return Err(GatherError::Stopping);
        }
        check_size(&part, seat, self.config.max_bytes)?;
        if let Some(gathered) = self.finished.get(id) {
            return gathered.check(id, seat, &part).map(|()| Some(Arc::clone(gathered)));
        }
        let there = match self.open.get(id) {
            Some(open) if open.check(id, seat, &part)? => return Ok(None),
            there => there,
        };
        let ranks = seat.world_size() as usize;
        let after = there.map_or(part.bytes(), |open| open.largest_with(&part)) * ranks;
        self.check_room(after - there.map_or(0, Open::bytes), there.is_none())?;
        let more = part.memory_of_all(ranks).saturating_sub(there.map_or(0, |open| open.room().bytes()));
        self.finished.give_way(self.memory.missing(more));
        match self.open.entry(id.clone()) {
            Entry::Occupied(mut there) => {
                there.get().room().grow(more, held)?;
                there.get_mut().put(seat, part);
            }
            Entry::Vacant(place) => {
                let room = self.memory.room();
                room.grow(more, held)?;
                place.insert(Open::new(seat.world_size(), until, room)).put(seat, part);
            }
        }
        // Answers that are kept give way.
        let Config { max_gathers, max_total_bytes, .. } = self.config;
        self.finished.shrink(max_gathers.saturating_sub(self.open.len()), max_total_bytes.saturating_sub(self.bytes_of_open()));
        Ok(None)
    }

    fn bytes_of_open(&self) -> usize {
        self.open.values().map(Open::bytes).sum()
    }

    /// Refuses what would pass the limits on gathers that wait for ranks: `bytes` more, and one more gather if it is `new`. One alone is
    /// within `max_bytes`, so that there is room for it once others end.
    fn check_room(&self, bytes: usize, new: bool) -> Result<(), GatherError> {
        let Config { max_gathers, max_total_bytes, .. } = self.config;
        if self.bytes_of_open() + bytes > max_total_bytes {
            let (room, setting) = ("the room for gathers that wait for ranks, in bytes,", "gather.max_total_bytes");
            return Err(GatherError::Full { room, limit: max_total_bytes, setting });
        }
        if new && self.open.len() >= max_gathers {
            let (room, setting) = ("the room for gathers that wait for ranks", "gather.max_gathers");
            return Err(GatherError::Full { room, limit: max_gathers, setting });
        }
        Ok(())
    }

    /// Freezes a gather with what has come; its callers are told.
    fn finish(&mut self, id: &GatherId, now: Instant) -> Vec<Answer<W>> {
        let Some(open) = self.open.remove(id) else { return Vec::new() };
        let (gathered, callers) = open.freeze();
        let gathered = Arc::new(gathered);
        self.finished.keep(id.clone(), Arc::clone(&gathered), now + self.config.keep);
        callers.map(|caller| (caller, Ok(Arc::clone(&gathered)))).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use bytes::Bytes;
    use proptest::prelude::*;

    use super::{Answer, Config, Contribution, GatherError, GatherId, Gathering, Ticket};
    use crate::gather::memory::tests::Purse;
    use crate::gather::{Part, Seat};
    use crate::model::Dtype;
    use crate::model::clock::now;

    const SECOND: Duration = Duration::from_secs(1);

    fn id(group: &str, step: u64) -> GatherId {
        GatherId::new(group, step, 0).unwrap()
    }

    /// One row of one float.
    fn part(value: f32) -> Part {
        Part::new((1, Dtype::F32, Bytes::copy_from_slice(&value.to_le_bytes())), vec![value as u64], None, None).unwrap()
    }

    fn from(group: &str, step: u64, rank: u32, value: f32) -> Contribution {
        Contribution { id: id(group, step), seat: Seat::new(rank, 3).unwrap(), part: part(value), held: 0, wait: None }
    }

    fn gathering(max_gathers: usize, max_total_bytes: usize) -> Gathering<&'static str> {
        let config = Config { max_gathers, max_total_bytes, keep: 60 * SECOND, ..Config::default() };
        Gathering::new(config, Box::new(Purse::of(usize::MAX)))
    }

    /// Contributes at `at`, to wait for ten seconds.
    fn send(
        gathering: &mut Gathering<&'static str>,
        from: Contribution,
        at: Instant,
        caller: &'static str,
    ) -> Vec<Answer<&'static str>> {
        gathering.contribute(from, at + 10 * SECOND, at, caller).1
    }

    /// The ids of the rows that each caller was answered with.
    fn rows(answers: &[Answer<&'static str>]) -> Vec<(&'static str, Vec<u64>)> {
        let ids = |answer: &Answer<_>| answer.1.as_ref().unwrap().parts().flat_map(|part| part.ids().to_vec()).collect();
        answers.iter().map(|answer| (answer.0, ids(answer))).collect()
    }

    fn refusal(mut answers: Vec<Answer<&'static str>>) -> GatherError {
        assert_eq!(answers.len(), 1);
        answers.remove(0).1.unwrap_err()
    }

    proptest! {
        /// Whatever order the ranks of several steps and groups come in, each gather is answered once, whole, in rank order, and to its
        /// own ranks.
        #[test]
        fn gathers_never_mix(order in Just((0..24u32).collect::<Vec<_>>()).prop_shuffle()) {
            let (mut gathering, start) = (Gathering::new(Config::default(), Box::new(Purse::of(usize::MAX))), now());
            let mut answered = Vec::new();
            for arrival in order {
                let (rank, step, group) = (arrival % 3, u64::from(arrival / 3 % 4), ["a", "b"][arrival as usize / 12]);
                let value = (arrival + 1) as f32;
                let (_, answers) = gathering.contribute(from(group, step, rank, value), start + SECOND, start, arrival);
                for (caller, answer) in answers {
                    let gathered = answer.unwrap();
                    let ids: Vec<u64> = gathered.parts().flat_map(|part| part.ids().to_vec()).collect();
                    let first = u64::from(caller / 3 * 3);
                    prop_assert_eq!(ids, [first + 1, first + 2, first + 3]);
                    prop_assert!(gathered.missing().next().is_none());
                    answered.push(caller);
                }
            }
            answered.sort_unstable();
            prop_assert_eq!(answered, (0..24).collect::<Vec<u32>>());
        }
    }

    #[test]
    fn the_first_expiry_freezes_one_set_for_all_and_latecomers_get_it_too() {
        let (mut gathering, start) = (gathering(9, 1 << 20), now());
        assert!(send(&mut gathering, from("g", 1, 2, 12.0), start, "two").is_empty());
        // Rank 0 comes later and is less patient.
        gathering.contribute(from("g", 1, 0, 10.0), start + 3 * SECOND, start + SECOND, "zero");
        assert_eq!(gathering.next_due(), Some(start + 3 * SECOND));
        assert!(gathering.expire(start + 2 * SECOND).is_empty());
        let frozen = gathering.expire(start + 3 * SECOND);
        assert_eq!(rows(&frozen), [("two", vec![10, 12]), ("zero", vec![10, 12])]);
        let gathered = frozen[0].1.clone().unwrap();
        assert_eq!((gathered.missing().collect::<Vec<_>>(), gathered.counts().collect::<Vec<_>>()), (vec![1], vec![1, 0, 1]));
        let late = send(&mut gathering, from("g", 1, 1, 11.0), start + 4 * SECOND, "one");
        assert_eq!(rows(&late), [("one", vec![10, 12])]);
        assert_eq!(gathering.next_due(), Some(start + 63 * SECOND), "sixty seconds after it was frozen");
        gathering.expire(start + 63 * SECOND);
        assert!(gathering.next_due().is_none() && gathering.describe().is_empty());
    }

    #[test]
    fn what_is_sent_again_gets_the_same_answer_and_other_rows_are_refused() {
        let (mut gathering, start) = (gathering(9, 1 << 20), now());
        send(&mut gathering, from("g", 1, 0, 10.0), start, "a");
        send(&mut gathering, from("g", 1, 0, 10.0), start, "a again");
        let other = refusal(send(&mut gathering, from("g", 1, 0, 99.0), start, "other"));
        assert_eq!(other, GatherError::Taken { id: id("g", 1), rank: 0 });
        send(&mut gathering, from("g", 1, 1, 11.0), start, "b");
        let all = send(&mut gathering, from("g", 1, 2, 12.0), start, "c");
        let whole = vec![10, 11, 12];
        assert_eq!(rows(&all), ["a", "a again", "b", "c"].map(|caller| (caller, whole.clone())));
        assert_eq!(rows(&send(&mut gathering, from("g", 1, 1, 11.0), start, "b again")), [("b again", whole)]);
        assert!(matches!(refusal(send(&mut gathering, from("g", 1, 1, 99.0), start, "")), GatherError::Taken { rank: 1, .. }));
    }

    #[test]
    fn ranks_that_disagree_are_refused() {
        let (mut gathering, start) = (gathering(9, 1 << 20), now());
        send(&mut gathering, from("g", 1, 0, 10.0), start, "");
        let other = |dim, dtype, bytes: usize, ids: &[u64]| Contribution {
            part: Part::new((dim, dtype, vec![0; bytes].into()), ids.to_vec(), None, None).unwrap(),
            ..from("g", 1, 1, 0.0)
        };
        let wrong = [
            (other(2, Dtype::F32, 8, &[1]), "have dimension 2, and another rank of the gather of group \"g\", step 1"),
            (other(1, Dtype::F16, 2, &[1]), "embeddings.dtype: is F16"),
            (other(1, Dtype::F32, 4, &[]), "ids: are missing"),
            (Contribution { seat: Seat::new(1, 4).unwrap(), ..from("g", 1, 1, 0.0) }, "world_size: is 4"),
        ];
        for (wrong, says) in &wrong {
            let refused = refusal(send(&mut gathering, wrong.clone(), start, "")).to_string();
            assert!(refused.contains(says), "{refused}");
        }
        assert!(send(&mut gathering, other(1, Dtype::F32, 0, &[]), start, "none").is_empty(), "a rank may bring no rows");
        let frozen = gathering.expire(start + 10 * SECOND);
        assert_eq!(frozen[0].1.as_ref().unwrap().missing().collect::<Vec<_>>(), [2], "the refused ones changed nothing");
        for (wrong, says) in wrong {
            let wrong = Contribution { seat: Seat::new(2, wrong.seat.world_size()).unwrap(), ..wrong };
            let refused = refusal(send(&mut gathering, wrong, start + 10 * SECOND, "")).to_string();
            assert!(refused.contains(says), "of a frozen one: {refused}");
        }
    }

    #[test]
    fn room_is_kept_for_those_that_wait_and_answers_give_way() {
        let bytes = part(0.0).bytes() * 3;
        let (mut gathering, start) = (gathering(3, 2 * bytes), now());
        for rank in 0..3 {
            send(&mut gathering, from("old", 1, rank, 1.0), start, "");
        }
        assert!(gathering.describe()[0].finished);
        for group in ["a", "b"] {
            assert!(send(&mut gathering, from(group, 1, 0, 1.0), start, "").is_empty());
        }
        assert_eq!(gathering.describe().len(), 2, "the answer has given way");
        let third = refusal(send(&mut gathering, from("c", 1, 0, 1.0), start, ""));
        assert!(matches!(third, GatherError::Full { setting: "gather.max_total_bytes", .. }), "{third}");
        for rank in 1..3 {
            send(&mut gathering, from("a", 1, rank, 1.0), start, "the others of a gather that is there always have room");
        }
        assert!(send(&mut gathering, from("c", 1, 0, 1.0), start, "").is_empty());

        let mut few = self::gathering(1, 1 << 20);
        send(&mut few, from("a", 1, 0, 1.0), start, "");
        let second = refusal(send(&mut few, from("b", 1, 0, 1.0), start, ""));
        assert!(matches!(second, GatherError::Full { setting: "gather.max_gathers", limit: 1, .. }), "{second}");
    }

    #[test]
    fn a_group_keeps_its_last_answers() {
        let (mut gathering, start) = (gathering(100, 1 << 20), now());
        for step in 0..20 {
            (0..3).for_each(|rank| drop(send(&mut gathering, from("g", step, rank, 1.0), start, "")));
        }
        (0..3).for_each(|rank| drop(send(&mut gathering, from("other", 0, rank, 1.0), start, "")));
        let kept: Vec<u64> = gathering.describe().iter().map(|info| info.id.step()).collect();
        assert_eq!(kept, [12, 13, 14, 15, 16, 17, 18, 19, 0]);
    }

    #[test]
    fn a_caller_that_leaves_is_told_nothing_and_its_rows_stay() {
        let (mut gathering, start) = (gathering(9, 1 << 20), now());
        let (ticket, _) = gathering.contribute(from("g", 1, 0, 10.0), start + SECOND, start, "gone");
        gathering.leave(&id("g", 1), ticket);
        send(&mut gathering, from("g", 1, 1, 11.0), start, "b");
        assert_eq!(rows(&send(&mut gathering, from("g", 1, 2, 12.0), start, "c"))[0], ("b", vec![10, 11, 12]));
        gathering.leave(&id("g", 1), Ticket(77));
    }

    #[test]
    fn stopping_ends_every_wait() {
        let (mut gathering, start) = (gathering(9, 1 << 20), now());
        send(&mut gathering, from("g", 1, 0, 10.0), start, "a");
        send(&mut gathering, from("h", 1, 0, 10.0), start, "b");
        let told = gathering.stop();
        assert!(told.iter().map(|(caller, _)| *caller).eq(["a", "b"]));
        assert!(told.into_iter().all(|(_, answer)| matches!(answer, Err(GatherError::Stopping))));
        assert!(matches!(refusal(send(&mut gathering, from("g", 1, 1, 10.0), start, "")), GatherError::Stopping));
        assert!(gathering.next_due().is_none());
    }
}
