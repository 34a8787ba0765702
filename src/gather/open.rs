//! A gather that waits for ranks.

use std::time::Instant;

use super::gathered::missing;
use super::{GatherError, GatherId, Gathered, Part, Room, Seat, Ticket};
use crate::model::Invalid;

/// The parts that have come, and who waits for the others. `W` stands for a caller who waits.
#[derive(Debug)]
pub(super) struct Open<W> {
    /// By rank.
    parts: Vec<Option<Part>>,
    /// Parts that have come.
    came: usize,
    waiting: Vec<(Ticket, W)>,
    /// The earliest of its callers'.
    until: Instant,
    /// Bytes of the largest part that came.
    largest: usize,
    room: Box<dyn Room>,
}

impl<W> Open<W> {
    pub(super) fn new(world_size: u32, until: Instant, room: Box<dyn Room>) -> Self {
        Self { parts: (0..world_size).map(|_| None).collect(), came: 0, waiting: Vec::new(), until, largest: 0, room }
    }

    /// Whether the rows of this seat may come in: `Ok(true)` if they are there already.
    pub(super) fn check(&self, id: &GatherId, seat: Seat, part: &Part) -> Result<bool, GatherError> {
        check_world(id, seat, self.parts.len())?;
        match self.parts.get(seat.rank() as usize) {
            Some(Some(there)) if there == part => return Ok(true),
            Some(Some(_)) => return Err(GatherError::Taken { id: id.clone(), rank: seat.rank() }),
            _ => {}
        }
        check_beside(id, part, self.parts.iter().flatten())?;
        Ok(false)
    }

    /// Takes the rows in.
    pub(super) fn put(&mut self, seat: Seat, part: Part) {
        self.largest = self.largest_with(&part);
        if let Some(place) = self.parts.get_mut(seat.rank() as usize) {
            self.came += usize::from(place.is_none());
            *place = Some(part);
        }
    }

    /// Adds a caller, who waits no longer than `until`.
    pub(super) fn wait(&mut self, ticket: Ticket, caller: W, until: Instant) {
        self.until = self.until.min(until);
        self.waiting.push((ticket, caller));
    }

    /// Forgets a caller; its rows stay.
    pub(super) fn leave(&mut self, ticket: Ticket) {
        self.waiting.retain(|(held, _)| *held != ticket);
    }

    /// Room that it needs once as much has come from every rank as from the one that brought most.
    pub(super) fn bytes(&self) -> usize {
        self.largest * self.parts.len()
    }

    /// Bytes of its largest part, once this one is in.
    pub(super) fn largest_with(&self, part: &Part) -> usize {
        self.largest.max(part.bytes())
    }

    /// Memory that it has, for all ranks.
    pub(super) fn room(&self) -> &dyn Room {
        &*self.room
    }

    pub(super) fn until(&self) -> Instant {
        self.until
    }

    pub(super) fn is_complete(&self) -> bool {
        self.came == self.parts.len()
    }

    pub(super) fn world_size(&self) -> u32 {
        self.parts.len() as u32
    }

    pub(super) fn missing(&self) -> impl Iterator<Item = u32> {
        missing(&self.parts)
    }

    /// What has come, and who waits for it.
    pub(super) fn freeze(self) -> (Gathered, impl Iterator<Item = W>) {
        (Gathered::new(self.parts, self.room), self.waiting.into_iter().map(|(_, caller)| caller))
    }
}

/// Refuses a rank of another world.
pub(super) fn check_world(id: &GatherId, seat: Seat, world_size: usize) -> Result<(), Invalid> {
    if seat.world_size() as usize == world_size {
        return Ok(());
    }
    let reason = format!("is {}, and another rank of {id} said {world_size}", seat.world_size());
    Err(Invalid::one("world_size", reason))
}

/// Refuses rows that can't stand beside those of the other ranks.
pub(super) fn check_beside<'a>(id: &GatherId, part: &Part, others: impl Iterator<Item = &'a Part>) -> Result<(), Invalid> {
    // Ranks without rows say nothing of ids.
    let other = others.reduce(|known, other| if known.rows() > 0 { known } else { other });
    other.map_or(Ok(()), |other| part.check_beside(other, id))
}
