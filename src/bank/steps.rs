//! How many entries were last written at which training step.

use std::collections::BTreeMap;

/// Entries by the step of their last write. Rows that are written together have one step, and so mostly had those before them: a run of equal
/// steps is counted when it ends, and costs one look-up.
#[derive(Debug, Default)]
pub(super) struct Steps {
    counts: BTreeMap<u64, usize>,
    came: Run,
    left: Run,
}

/// Entries of one step that are not in the counts yet.
#[derive(Debug, Default)]
struct Run {
    step: u64,
    entries: usize,
}

impl Steps {
    /// Those of entries of these steps.
    pub(super) fn of(steps: impl Iterator<Item = u64>) -> Self {
        let mut counted = Self::default();
        steps.for_each(|step| counted.change(None, Some(step)));
        counted.settle();
        counted
    }

    /// Notes that an entry came (it had no step before), left (it has none now), or was written again. It counts once this is settled.
    pub(super) fn change(&mut self, before: Option<u64>, now: Option<u64>) {
        if before == now {
            return;
        }
        if let Some(step) = before
            && !self.left.takes(step)
        {
            self.settle_left();
            self.left = Run { step, entries: 1 };
        }
        if let Some(step) = now
            && !self.came.takes(step)
        {
            self.settle_came();
            self.came = Run { step, entries: 1 };
        }
    }

    /// Counts what was noted.
    pub(super) fn settle(&mut self) {
        self.settle_left();
        self.settle_came();
    }

    fn settle_left(&mut self) {
        // Who leaves may have come a moment ago.
        if self.left.step == self.came.step {
            self.settle_came();
        }
        let Run { step, entries } = std::mem::take(&mut self.left);
        if let Some(counted) = self.counts.get_mut(&step) {
            *counted = counted.saturating_sub(entries);
            if *counted == 0 {
                self.counts.remove(&step);
            }
        }
    }

    fn settle_came(&mut self) {
        let Run { step, entries } = std::mem::take(&mut self.came);
        if entries > 0 {
            *self.counts.entry(step).or_default() += entries;
        }
    }

    /// The step of the entry that has `older` entries before it, from the oldest step on. Looks at each distinct step up to that.
    pub(super) fn after(&self, older: usize) -> Option<u64> {
        debug_assert!(self.came.entries == 0 && self.left.entries == 0, "what was noted is not counted");
        let mut until = 0;
        self.counts.iter().find_map(|(&step, &entries)| {
            until += entries;
            (until > older).then_some(step)
        })
    }
}

impl Run {
    /// Adds an entry of that step; false if this run is of another.
    fn takes(&mut self, step: u64) -> bool {
        let takes = self.entries > 0 && self.step == step;
        self.entries += usize::from(takes);
        takes
    }
}

#[cfg(test)]
mod tests {
    use super::Steps;

    #[test]
    fn entries_come_from_the_oldest_step_on() {
        let mut steps = Steps::of([7, 3, 7, 3, 9].into_iter());
        let order = |steps: &Steps| (0..6).map_while(|older| steps.after(older)).collect::<Vec<u64>>();
        assert_eq!(order(&steps), [3, 3, 7, 7, 9]);
        steps.change(Some(3), Some(9));
        steps.change(Some(3), None);
        steps.change(Some(7), Some(7));
        steps.settle();
        assert_eq!(order(&steps), [7, 7, 9, 9]);
        // An entry that came and left before either was counted.
        steps.change(None, Some(11));
        steps.change(Some(11), None);
        steps.change(Some(9), Some(12));
        steps.settle();
        assert_eq!(order(&steps), [7, 7, 9, 12]);
        assert_eq!(Steps::default().after(0), None);
    }
}
