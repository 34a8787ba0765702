//! How many entries were last written at which training step.

use std::collections::BTreeMap;

/// Entries by the step of their last write. There are few distinct steps at a time, so a write costs a look-up or two among those.
#[derive(Debug, Default)]
pub(super) struct Steps(BTreeMap<u64, usize>);

impl Steps {
    /// Those of entries of these steps.
    pub(super) fn of(steps: impl Iterator<Item = u64>) -> Self {
        let mut counted = Self::default();
        steps.for_each(|step| counted.change(None, Some(step)));
        counted
    }

    /// Notes that an entry came (it had no step before), left (it has none now), or was written again.
    pub(super) fn change(&mut self, before: Option<u64>, now: Option<u64>) {
        if before == now {
            return;
        }
        if let Some(step) = before {
            self.remove(step);
        }
        if let Some(step) = now {
            *self.0.entry(step).or_default() += 1;
        }
    }

    /// The step of the entry that has `older` entries before it, from the oldest step on. Looks at each distinct step up to that.
    pub(super) fn after(&self, older: usize) -> Option<u64> {
        let mut until = 0;
        self.0.iter().find_map(|(&step, &entries)| {
            until += entries;
            (until > older).then_some(step)
        })
    }

    fn remove(&mut self, step: u64) {
        let Some(entries) = self.0.get_mut(&step) else { return };
        *entries -= 1;
        if *entries == 0 {
            self.0.remove(&step);
        }
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
        assert_eq!(order(&steps), [7, 7, 9, 9]);
        assert_eq!(Steps::default().after(0), None);
    }
}
