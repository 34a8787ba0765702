//! What gathers take of the ledger.

use super::ledger::{Ledger, Part, ROOM, SETTING, Share};
use crate::gather::{GatherError, Memory, Room};

impl Memory for Ledger {
    fn room(&self) -> Box<dyn Room> {
        Box::new(self.share(Part::Gathers))
    }

    fn missing(&self, bytes: usize) -> usize {
        Ledger::missing(self, bytes)
    }
}

impl Room for Share {
    fn bytes(&self) -> usize {
        Share::bytes(self)
    }

    fn grow(&self, more: usize) -> Result<(), GatherError> {
        self.try_grow(more).map_err(|limit| GatherError::Full { room: ROOM, limit, setting: SETTING })
    }

    fn shrink(&self, to: usize) {
        self.set(to);
    }
}
