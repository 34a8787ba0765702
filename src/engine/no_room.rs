//! Why there is no memory for a request.

use super::EngineError;
use super::ledger::{ROOM, SETTING};
use crate::gather::GatherError;
use crate::model::Excess;

/// Whether to come again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum NoRoom {
    /// What takes it will end.
    Now {
        /// Bytes that may be taken.
        limit: usize,
    },
    /// Nothing that ends makes as much room.
    Ever(Excess),
}

impl NoRoom {
    /// Of a request that needs `needed` bytes at once while banks have `lasting`, if that is more than there are.
    pub(super) fn ever((needed, lasting): (usize, usize), limit: usize) -> Option<Excess> {
        if needed.saturating_add(lasting) <= limit {
            return None;
        }
        let (beside, instead) = match lasting {
            0 => (String::new(), "send or ask for less at a time"),
            _ => (format!(" beside the {lasting} of banks"), "send or ask for less at a time, delete entries or banks"),
        };
        let what = format!("the request needs {needed} bytes of memory at once{beside}");
        Some(Excess { what, limit, setting: SETTING, instead })
    }
}

impl From<NoRoom> for EngineError {
    fn from(refused: NoRoom) -> Self {
        match refused {
            NoRoom::Now { limit } => Self::full(ROOM, limit, SETTING),
            NoRoom::Ever(excess) => Self::NeverFits(excess),
        }
    }
}

impl From<NoRoom> for GatherError {
    fn from(refused: NoRoom) -> Self {
        match refused {
            NoRoom::Now { limit } => Self::Full { room: ROOM, limit, setting: SETTING },
            NoRoom::Ever(excess) => Self::NeverFits(excess),
        }
    }
}
