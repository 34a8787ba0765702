//! Mutations that are logged together.

use std::collections::VecDeque;
use std::sync::Arc;

use super::acknowledge::Acknowledge;
use super::committer::Account;
use crate::model::{Mutation, Origin};

/// Mutations that nothing can refuse any more, in the order in which they will be applied.
#[derive(Default)]
pub(super) struct Group {
    members: Vec<(Arc<Mutation>, Acknowledge)>,
    accounts: Vec<Account>,
    rows: usize,
    floats: usize,
    /// New entries that they could add to each shard.
    arrivals: Vec<usize>,
}

/// How a bank's groups are logged.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pace {
    /// Floats of a group after which no other joins.
    pub(super) floats: usize,
    /// Groups that are logged ahead of the one that is applied, at most.
    pub(super) ahead: usize,
}

impl Group {
    /// Mutations at most.
    const MOST: usize = 64;
    /// Rows after which no other joins, and none is logged ahead: more would make the first wait without making the disk faster.
    const ROWS: usize = 16_384;
    /// Numbers of one writer in a group lie within half of what a bank remembers, so that none makes it forget another.
    const SPAN: u64 = 512;

    pub(super) fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    pub(super) fn has_room(&self, pace: Pace) -> bool {
        self.members.len() < Self::MOST && self.rows < Self::ROWS && self.floats < pace.floats
    }

    pub(super) fn len(&self) -> usize {
        self.members.len()
    }

    /// New entries that the members and a newcomer could add to each shard.
    pub(super) fn arrivals_with(&self, more: &[usize]) -> Vec<usize> {
        more.iter().enumerate().map(|(shard, more)| more + self.arrivals.get(shard).copied().unwrap_or(0)).collect()
    }

    /// False if what is known of an origin may be another once the members are applied.
    pub(super) fn leaves_known(&self, origin: &Origin) -> bool {
        let batches = self.members.iter().flat_map(|(member, _)| member.batches());
        let mut of_writer = batches.filter_map(|batch| batch.origin()).filter(|member| member.writer == origin.writer);
        of_writer.all(|member| member.number != origin.number && member.number.abs_diff(origin.number) < Self::SPAN)
    }

    /// Adds a member; `arrivals` are those of all members now.
    pub(super) fn push(&mut self, (mutation, acknowledge): (Mutation, Acknowledge), account: Account, arrivals: Vec<usize>) {
        for batch in mutation.batches() {
            self.rows += batch.rows();
            self.floats += batch.embeddings().values().len();
        }
        self.arrivals = arrivals;
        self.accounts.push(account);
        self.members.push((Arc::new(mutation), acknowledge));
    }

    /// The members, for another thread to see too.
    pub(super) fn mutations(&self) -> Vec<Arc<Mutation>> {
        self.members.iter().map(|(mutation, _)| Arc::clone(mutation)).collect()
    }

    /// On whose accounts the members go.
    pub(super) fn accounts(&self) -> Vec<Account> {
        self.accounts.clone()
    }

    pub(super) fn into_members(self) -> impl Iterator<Item = (Arc<Mutation>, Acknowledge)> {
        self.members.into_iter()
    }
}

/// Groups that are being logged or were, and are not applied yet, in their order.
#[derive(Default)]
pub(super) struct Flying {
    groups: VecDeque<Group>,
    /// Of them, the first so many were logged.
    landed: usize,
}

impl Flying {
    pub(super) fn is_empty(&self) -> bool {
        self.groups.is_empty()
    }

    /// Mutations in them.
    pub(super) fn mutations(&self) -> usize {
        self.groups.iter().map(Group::len).sum()
    }

    /// Whether another may be logged beside them.
    pub(super) fn has_room(&self, pace: Pace) -> bool {
        let aloft = self.groups.range(self.landed..);
        aloft.len() < pace.ahead && aloft.map(|group| group.rows).sum::<usize>() < Group::ROWS
    }

    /// New entries that they and a newcomer could add to each shard.
    pub(super) fn arrivals_with(&self, more: &[usize]) -> Vec<usize> {
        self.groups.iter().fold(more.to_vec(), |more, group| group.arrivals_with(&more))
    }

    /// As [`Group::leaves_known`], of all of them.
    pub(super) fn leaves_known(&self, origin: &Origin) -> bool {
        self.groups.iter().all(|group| group.leaves_known(origin))
    }

    /// One more is being logged.
    pub(super) fn push(&mut self, group: Group) {
        self.groups.push_back(group);
    }

    /// The first that was not yet is logged.
    pub(super) fn land(&mut self) {
        self.landed += 1;
    }

    /// The first, to be applied; it must have landed.
    pub(super) fn pop(&mut self) -> Option<Group> {
        self.landed = self.landed.saturating_sub(1);
        self.groups.pop_front()
    }
}

#[cfg(test)]
mod tests {
    use super::{Flying, Group, Pace};

    const PACE: Pace = Pace { floats: 1_000, ahead: 2 };

    fn group(rows: usize) -> Group {
        Group { rows, arrivals: vec![1, 2], ..Group::default() }
    }

    #[test]
    fn as_many_fly_as_the_pace_allows_beside_those_that_have_landed() {
        let mut flying = Flying::default();
        for _ in 0..2 {
            assert!(flying.has_room(PACE));
            flying.push(group(1));
        }
        assert!(!flying.has_room(PACE));
        flying.land();
        assert!(flying.has_room(PACE), "one is to be applied, one is logged");
        flying.push(group(1));
        assert!(!flying.has_room(PACE));
        assert_eq!(flying.arrivals_with(&[10, 0]), [13, 6], "those that have landed are not applied yet");
        assert_eq!(flying.pop().map(|group| group.rows), Some(1));
        assert!(!flying.has_room(PACE), "it had landed");
        assert_eq!(flying.arrivals_with(&[10, 0]), [12, 4]);
        flying.land();
        flying.pop();
        assert!(flying.has_room(PACE) && !flying.is_empty());
    }

    #[test]
    fn much_in_few_groups_has_no_company() {
        let mut flying = Flying::default();
        flying.push(group(Group::ROWS));
        assert!(!flying.has_room(PACE));
        assert!(group(Group::ROWS - 1).has_room(PACE) && !group(Group::ROWS).has_room(PACE));
        assert!(!Group { floats: 1_000, ..Group::default() }.has_room(PACE));
    }
}
