//! Which staged writes were applied.

use std::collections::VecDeque;

use crate::model::StageAt;

/// The steps that committed a stage last, and the micro-batch that comes next in each. A part of the bank's state: the same writes leave
/// the same list.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Staged {
    /// The last one at the back.
    next: VecDeque<(u64, u32)>,
}

impl Staged {
    /// Steps that are remembered.
    pub const REMEMBERED: usize = 1_024;

    /// The micro-batch that comes next in a step.
    pub fn expected(&self, step: u64) -> u32 {
        self.next.iter().rev().find(|(of, _)| *of == step).map_or(0, |&(_, next)| next)
    }

    pub(super) fn image(&self) -> Vec<(u64, u32)> {
        self.next.iter().copied().collect()
    }

    pub(super) fn restore(next: Vec<(u64, u32)>) -> Self {
        Self { next: next.into() }
    }

    /// Notes that a stage was applied.
    pub fn note(&mut self, at: StageAt) {
        self.next.retain(|(step, _)| *step != at.step);
        self.next.push_back((at.step, at.micro_batch.saturating_add(1)));
        if self.next.len() > Self::REMEMBERED {
            self.next.pop_front();
        }
    }
}
