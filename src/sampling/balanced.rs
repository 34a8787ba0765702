//! Draws of a label first, then of one of its entries.

use std::sync::Arc;

use rustc_hash::FxHashMap;

use super::anchors::Anchor;
use super::eligibility::{Eligibility, SharedFilters};
use super::law::Law;
use super::universe::Universe;
use crate::bank::{Bank, Place};
use crate::model::{ReasonCounts, Stream};

/// What the anchors of a balanced draw share, as of one state of the bank.
#[derive(Debug, Default)]
pub(super) struct Classes {
    table: Option<(u64, Arc<Table>)>,
}

/// Labels of which entries pass the filters that don't depend on the anchor, and how many.
#[derive(Debug, Default)]
struct Table {
    /// `None`: every label that the bank holds.
    labels: Option<Vec<i64>>,
    /// How many of each pass, where the entries were looked at.
    counted: Option<FxHashMap<i64, usize>>,
    /// Entries of each that are excluded by their id.
    excluded: FxHashMap<i64, usize>,
}

/// The labels of one anchor's eligible set.
#[derive(Debug, Clone)]
pub(super) struct OwnClasses {
    table: Arc<Table>,
    /// The anchor's own label, if its entries are excluded and would be drawn.
    barred: Option<i64>,
    /// Entries of each label that are kept from this anchor alone.
    excluded: FxHashMap<i64, usize>,
    /// How many of each label are eligible, where only entries of its label or group are.
    counted: Option<FxHashMap<i64, usize>>,
    /// Labels that have an eligible entry.
    pub(super) labels: usize,
}

/// A label uniformly among those of the anchor's eligible set, then one of its eligible entries uniformly.
pub(super) struct Balanced<'a> {
    bank: &'a Bank,
    eligibility: &'a Eligibility,
    anchor: &'a Anchor,
    rejections: &'a mut ReasonCounts,
    pub(super) own: OwnClasses,
    support: usize,
    /// Labels that are drawn from: where few of the shared ones are eligible, those that are.
    listed: Option<Vec<i64>>,
    /// Of the labels that were drawn.
    pools: FxHashMap<i64, Pool<'a>>,
}

/// What is drawn from once a label is.
enum Pool<'a> {
    /// All its entries, until an eligible one is met.
    All(Universe<'a>),
    /// Its eligible entries.
    Few(Vec<Place>),
}

/// Where less than one in so many of what is drawn from is eligible, what is eligible is listed.
const FEW: usize = 4;

impl Classes {
    /// The labels of one anchor's eligible set.
    pub(super) fn own(&mut self, bank: &Bank, eligibility: &Eligibility, anchor: &Anchor) -> OwnClasses {
        let table = self.table(bank, eligibility.shared());
        if eligibility.is_narrow(anchor) {
            let mut counted: FxHashMap<i64, usize> = FxHashMap::default();
            for place in Universe::new(bank, eligibility, anchor).iter() {
                let columns = bank.columns(place);
                let label = columns.label(place.slot).filter(|_| eligibility.rejects(anchor, columns, place.slot).is_none());
                label.into_iter().for_each(|label| *counted.entry(label).or_default() += 1);
            }
            let (labels, excluded) = (counted.len(), FxHashMap::default());
            return OwnClasses { table, barred: None, excluded, counted: Some(counted), labels };
        }
        let mut excluded: FxHashMap<i64, usize> = FxHashMap::default();
        eligibility.for_each_barred(anchor, bank, |place| {
            if let Some(label) = bank.columns(place).label(place.slot) {
                *excluded.entry(label).or_default() += 1;
            }
        });
        let passes = |label: &i64| eligibility.shared().takes_label(Some(*label)) && table.entries_of(bank, *label) > 0;
        let barred = eligibility.barred_label(anchor).filter(passes);
        let emptied = excluded.iter().filter(|&(&label, &excluded)| table.entries_of(bank, label) == excluded).count();
        let labels = table.labels(bank).len() - usize::from(barred.is_some()) - emptied;
        OwnClasses { table, barred, excluded, counted: None, labels }
    }

    /// The law of one anchor, whose eligible set holds `support` entries.
    pub(super) fn law<'a>(
        &mut self,
        bank: &'a Bank,
        eligibility: &'a Eligibility,
        anchor: &'a Anchor,
        support: usize,
        rejections: &'a mut ReasonCounts,
    ) -> Balanced<'a> {
        let own = self.own(bank, eligibility, anchor);
        let few = own.counted.is_some() || own.labels * FEW < own.table.labels(bank).len();
        let listed = few.then(|| own.labels(bank));
        Balanced { bank, eligibility, anchor, rejections, own, support, listed, pools: FxHashMap::default() }
    }

    /// Natural log of the probability that a draw among what passes the shared filters is one of the anchor's eligible entries.
    pub(super) fn log_share(&mut self, bank: &Bank, eligibility: &Eligibility, anchor: &Anchor) -> f64 {
        let own = self.own(bank, eligibility, anchor);
        let labels = own.table.labels(bank).len() as f64;
        // In the order of the labels, so that the sum is the same for the same state.
        let parts = |entries: &FxHashMap<i64, usize>| {
            let mut entries: Vec<(i64, usize)> = entries.iter().map(|(&label, &entries)| (label, entries)).collect();
            entries.sort_unstable();
            let part = |(label, entries): (i64, usize)| entries as f64 / own.table.entries_of(bank, label) as f64;
            entries.into_iter().map(part).sum::<f64>()
        };
        if own.labels == 0 {
            return f64::NEG_INFINITY;
        }
        if let Some(counted) = &own.counted {
            return libm::log(parts(counted) / labels);
        }
        let gone = parts(&own.excluded);
        libm::log((labels - f64::from(u8::from(own.barred.is_some())) - gone) / labels)
    }

    fn table(&mut self, bank: &Bank, filters: &SharedFilters) -> Arc<Table> {
        let revision = bank.revision();
        if let Some((_, table)) = self.table.as_ref().filter(|(of, _)| *of == revision) {
            return Arc::clone(table);
        }
        let table = Arc::new(Table::new(bank, filters));
        self.table = Some((revision, Arc::clone(&table)));
        table
    }
}

impl Table {
    fn new(bank: &Bank, filters: &SharedFilters) -> Self {
        let mut table = Self::default();
        if filters.min_step() > 0 {
            table.counted = Some(counted(bank, filters));
        } else {
            for place in filters.excluded_ids().flat_map(|id| bank.find_all(id)) {
                if let Some(label) = bank.columns(place).label(place.slot) {
                    *table.excluded.entry(label).or_default() += 1;
                }
            }
        }
        let all = filters.only_labels().unwrap_or(bank.classes().labels());
        let passes = |label: &i64| filters.takes_label(Some(*label)) && table.entries_of(bank, *label) > 0;
        let some_excluded = filters.excluded_labels().next().is_some() || !table.excluded.is_empty();
        if filters.only_labels().is_some() || some_excluded || table.counted.is_some() {
            table.labels = Some(all.iter().copied().filter(passes).collect());
        }
        table
    }

    fn labels<'t>(&'t self, bank: &'t Bank) -> &'t [i64] {
        self.labels.as_deref().unwrap_or(bank.classes().labels())
    }

    /// Entries of a label that passes which pass.
    fn entries_of(&self, bank: &Bank, label: i64) -> usize {
        match &self.counted {
            Some(counted) => counted.get(&label).copied().unwrap_or(0),
            None => bank.classes().entries_of(label) - self.excluded.get(&label).copied().unwrap_or(0),
        }
    }
}

fn counted(bank: &Bank, filters: &SharedFilters) -> FxHashMap<i64, usize> {
    let mut counted: FxHashMap<i64, usize> = FxHashMap::default();
    for shard in bank.shards() {
        for &slot in shard.roster() {
            if let Some(label) = shard.columns().label(slot)
                && filters.rejects(shard.columns(), slot).is_none()
            {
                *counted.entry(label).or_default() += 1;
            }
        }
    }
    counted
}

impl OwnClasses {
    /// Eligible entries of a label that passes the shared filters.
    pub(super) fn entries_of(&self, bank: &Bank, label: i64) -> usize {
        if let Some(counted) = &self.counted {
            return counted.get(&label).copied().unwrap_or(0);
        }
        if self.barred == Some(label) {
            return 0;
        }
        self.table.entries_of(bank, label) - self.excluded.get(&label).copied().unwrap_or(0)
    }

    /// Labels that have an eligible entry, in an order that the writes alone decide.
    fn labels(&self, bank: &Bank) -> Vec<i64> {
        if let Some(counted) = &self.counted {
            let mut labels: Vec<i64> = counted.keys().copied().collect();
            labels.sort_unstable();
            return labels;
        }
        self.table.labels(bank).iter().copied().filter(|&label| self.entries_of(bank, label) > 0).collect()
    }

    /// Natural log of the probability that an entry of a label would have if it were eligible too; `takes_label` says whether others of it
    /// pass the filters that don't depend on the anchor.
    pub(super) fn log_q_beside(&self, bank: &Bank, label: i64, takes_label: bool) -> f64 {
        let others = if takes_label { self.entries_of(bank, label) } else { 0 };
        let labels = self.labels + usize::from(others == 0);
        -libm::log(labels as f64) - libm::log((others + 1) as f64)
    }

    /// Natural log of the probability of each eligible entry of a label.
    pub(super) fn log_q(&self, bank: &Bank, label: i64) -> f64 {
        -libm::log(self.labels as f64) - libm::log(self.entries_of(bank, label) as f64)
    }
}

impl<'a> Balanced<'a> {
    fn label(&self, stream: &mut Stream) -> i64 {
        let labels = self.listed.as_deref().unwrap_or_else(|| self.own.table.labels(self.bank));
        loop {
            let label = labels[stream.below(labels.len() as u64) as usize];
            if self.own.entries_of(self.bank, label) > 0 {
                return label;
            }
        }
    }

    fn pool(&self, label: i64) -> Pool<'a> {
        let all = Universe::labelled(self.bank, label);
        if self.own.entries_of(self.bank, label) * FEW < all.len() { Pool::Few(self.eligible(label)) } else { Pool::All(all) }
    }

    fn eligible(&self, label: i64) -> Vec<Place> {
        let passes = |place: &Place| self.eligibility.rejects(self.anchor, self.bank.columns(*place), place.slot).is_none();
        Universe::labelled(self.bank, label).iter().filter(passes).collect()
    }
}

impl Law for Balanced<'_> {
    fn support(&self) -> usize {
        self.support
    }

    fn one(&mut self, stream: &mut Stream) -> Place {
        let label = self.label(stream);
        if !self.pools.contains_key(&label) {
            self.pools.insert(label, self.pool(label));
        }
        loop {
            let place = match &self.pools[&label] {
                Pool::All(all) => all.get(stream.below(all.len() as u64) as usize),
                Pool::Few(few) => return few[stream.below(few.len() as u64) as usize],
            };
            match self.eligibility.rejects(self.anchor, self.bank.columns(place), place.slot) {
                Some(reason) => self.rejections.add(reason, 1),
                None => return place,
            }
        }
    }

    fn log_q(&self, place: Place) -> f64 {
        let label = self.bank.columns(place).label(place.slot).unwrap_or_default();
        self.own.log_q(self.bank, label)
    }

    fn all(&self) -> Vec<Place> {
        self.own.labels(self.bank).into_iter().flat_map(|label| self.eligible(label)).collect()
    }
}
