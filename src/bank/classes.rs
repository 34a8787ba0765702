//! The labels that entries have.

use rustc_hash::FxHashMap;

/// How many entries each label has, and the labels in an order that can be indexed: a function of the writes, as the roster's.
#[derive(Debug, Default)]
pub struct Classes {
    classes: FxHashMap<i64, Class>,
    labels: Vec<i64>,
    entries: usize,
}

#[derive(Debug, Clone, Copy)]
struct Class {
    /// Where the label lies in the list.
    at: u32,
    entries: u32,
}

impl Classes {
    /// Labels in this order; `of_entries` are those of all entries that have one.
    pub(super) fn restore(labels: Vec<i64>, of_entries: impl Iterator<Item = i64>) -> Option<Self> {
        let classes = (0u32..).zip(&labels).map(|(at, &label)| (label, Class { at, entries: 0 })).collect();
        let mut restored = Self { classes, labels, entries: 0 };
        for label in of_entries {
            restored.classes.get_mut(&label)?.entries += 1;
            restored.entries += 1;
        }
        let whole = restored.classes.len() == restored.labels.len() && restored.classes.values().all(|class| class.entries > 0);
        whole.then_some(restored)
    }

    /// Every label that an entry has.
    pub fn labels(&self) -> &[i64] {
        &self.labels
    }

    /// Entries of a label.
    pub fn entries_of(&self, label: i64) -> usize {
        self.classes.get(&label).map_or(0, |class| class.entries as usize)
    }

    /// Entries that have a label.
    pub fn entries(&self) -> usize {
        self.entries
    }

    /// Notes that an entry came (it had no label before), left (it has none now), or changed its label.
    pub(super) fn change(&mut self, before: Option<i64>, now: Option<i64>) {
        if before == now {
            return;
        }
        if let Some(label) = before {
            self.remove(label);
        }
        if let Some(label) = now {
            self.add(label);
        }
    }

    fn add(&mut self, label: i64) {
        self.entries += 1;
        let at = self.labels.len() as u32;
        let class = self.classes.entry(label).or_insert(Class { at, entries: 0 });
        class.entries += 1;
        if class.entries == 1 {
            self.labels.push(label);
        }
    }

    fn remove(&mut self, label: i64) {
        let Some(class) = self.classes.get_mut(&label) else { return };
        self.entries -= 1;
        class.entries -= 1;
        if class.entries > 0 {
            return;
        }
        let at = class.at as usize;
        self.classes.remove(&label);
        self.labels.swap_remove(at);
        if let Some(class) = self.labels.get(at).and_then(|moved| self.classes.get_mut(moved)) {
            class.at = at as u32;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Classes;

    #[test]
    fn labels_come_and_go_with_their_entries() {
        let mut classes = Classes::default();
        for label in [5, 7, 5, -1] {
            classes.change(None, Some(label));
        }
        classes.change(Some(5), Some(7));
        assert_eq!((classes.labels(), classes.entries()), (&[5, 7, -1][..], 4));
        classes.change(Some(5), None);
        assert_eq!((classes.labels(), classes.entries_of(5), classes.entries_of(7)), (&[-1, 7][..], 0, 2));
        classes.change(Some(-1), Some(3));
        assert_eq!((classes.labels(), classes.entries()), (&[7, 3][..], 3));
    }
}
