//! Mutations that are logged together.

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
    /// New entries that they could add to each shard.
    arrivals: Vec<usize>,
}

impl Group {
    /// Mutations at most.
    const MOST: usize = 64;
    /// Rows after which no other joins: more would make the first wait without making the disk faster.
    const ROWS: usize = 16_384;
    /// Numbers of one writer in a group lie within half of what a bank remembers, so that none makes it forget another.
    const SPAN: u64 = 512;

    pub(super) fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    pub(super) fn has_room(&self) -> bool {
        self.members.len() < Self::MOST && self.rows < Self::ROWS
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
        self.rows += mutation.batches().iter().map(|batch| batch.rows()).sum::<usize>();
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
