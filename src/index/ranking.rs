//! The best entries found so far.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

use super::scan::Identity;

/// One entry of a ranking.
#[derive(Debug, Clone, Copy)]
pub struct Ranked {
    /// Score against the anchor.
    pub score: f32,
    /// Shard's number.
    pub shard: u32,
    /// Slot in the shard.
    pub slot: u32,
    /// Who lay there when it was scored.
    pub identity: Identity,
}

/// How far down a ranking is complete: an entry that was offered and isn't in it ranks below.
#[derive(Debug, Clone, Copy, Default)]
pub enum Known {
    /// None is missing.
    #[default]
    All,
    /// Down to this entry.
    DownTo(Ranked),
    /// Down to this score.
    AtLeast(f32),
}

impl Known {
    /// True if no entry is missing that ranks above `entry`.
    pub fn reaches(&self, entry: &Ranked) -> bool {
        match self {
            Self::All => true,
            Self::DownTo(last) => entry <= last,
            Self::AtLeast(score) => entry.score >= *score,
        }
    }
}

/// The best `depth` entries offered so far: highest score first, ties by id, then by place.
#[derive(Debug, Clone)]
pub struct Ranking {
    depth: usize,
    /// The worst kept entry on top.
    kept: BinaryHeap<Ranked>,
}

impl Ranking {
    /// Keeps the best `depth`.
    pub fn new(depth: usize) -> Self {
        Self { depth, kept: BinaryHeap::new() }
    }

    /// The score that an entry must reach to have a chance; minus infinity while there is room.
    pub fn bar(&self) -> f32 {
        match self.kept.peek() {
            Some(worst) if self.kept.len() >= self.depth => worst.score,
            _ => f32::NEG_INFINITY,
        }
    }

    /// True if there is no room: entries may have been dropped.
    pub fn is_full(&self) -> bool {
        self.kept.len() >= self.depth
    }

    /// True if `entry` would be kept.
    pub fn takes(&self, entry: &Ranked) -> bool {
        self.kept.len() < self.depth || self.kept.peek().is_some_and(|worst| entry < worst)
    }

    /// Keeps `entry` if it is among the best.
    pub fn offer(&mut self, entry: Ranked) {
        if self.kept.len() < self.depth {
            self.kept.push(entry);
        } else if let Some(mut worst) = self.kept.peek_mut()
            && entry < *worst
        {
            *worst = entry;
        }
    }

    /// The kept entries, best first.
    pub fn into_sorted(self) -> Vec<Ranked> {
        self.kept.into_sorted_vec()
    }
}

impl Ord for Ranked {
    /// Less is better.
    fn cmp(&self, other: &Self) -> Ordering {
        let place = |entry: &Self| (entry.identity.id, entry.shard, entry.slot);
        other.score.total_cmp(&self.score).then_with(|| place(self).cmp(&place(other)))
    }
}

impl PartialOrd for Ranked {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Ranked {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Ranked {}

#[cfg(test)]
mod tests {
    use super::{Identity, Ranked, Ranking};

    #[test]
    fn ties_break_by_id_in_whatever_order_they_come() {
        let entry = |score: f32, id: u64, slot: u32| Ranked {
            score,
            shard: 0,
            slot,
            identity: Identity { id, occupied_at: 1, revision: 1 },
        };
        let entries = [entry(0.5, 9, 0), entry(0.5, 3, 1), entry(0.7, 8, 2), entry(0.5, 5, 3), entry(0.5, 5, 4)];
        for rotation in 0..entries.len() {
            let mut ranking = Ranking::new(3);
            for at in 0..entries.len() {
                ranking.offer(entries[(at + rotation) % entries.len()]);
            }
            assert_eq!(ranking.bar(), 0.5);
            let slots: Vec<u32> = ranking.into_sorted().iter().map(|ranked| ranked.slot).collect();
            assert_eq!(slots, [2, 1, 3]);
        }
    }
}
