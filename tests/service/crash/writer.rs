//! Writers that write until the server is gone, and remember what they don't know.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use negbank::client::{Client, ClientError, Code, rows};
use negbank::model::{Seed, Stream};
use negbank::proto::v1;
use tokio::task::JoinSet;

use super::BankKind;
use crate::live::random_rows;

/// Bytes of embeddings from which on a log is appended to past the page cache.
pub(super) const LARGE: usize = 256 << 10;

/// One writer of one bank: it has up to `in_flight` changes on their way, and sends another when one is acknowledged.
pub(super) struct Writer {
    pub(super) bank: &'static BankKind,
    name: u64,
    number: u64,
    random: Stream,
    in_flight: usize,
    removes: bool,
    /// Sent, and not acknowledged.
    pub(super) pending: Vec<Change>,
}

/// What a writer sends.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Change {
    Write(Box<v1::WriteRequest>),
    /// Nothing in it tells it from another: a bank has one on its way at most.
    Remove(v1::RemoveRequest),
}

/// A change, and the sequence that it got.
pub(super) type Acknowledged = (u64, Change);

impl Writer {
    pub(super) fn new(bank: &'static BankKind, name: u64, in_flight: usize) -> Self {
        let random = Seed(name).stream(9, 9);
        Self { bank, name, number: 0, random, in_flight, removes: false, pending: Vec::new() }
    }

    pub(super) fn that_removes(bank: &'static BankKind, name: u64) -> Self {
        Self { removes: true, ..Self::new(bank, name, 1) }
    }

    fn next(&mut self) -> Change {
        if self.removes {
            let ids = (0..1 + self.random.below(5)).map(|_| self.random.below(self.bank.ids)).collect();
            return Change::Remove(v1::RemoveRequest { bank: self.bank.name.to_owned(), ids });
        }
        Change::Write(Box::new(self.batch()))
    }

    fn batch(&mut self) -> v1::WriteRequest {
        self.number += 1;
        let size = if self.bank.is_large { self.random.below(8) } else { 7 };
        let count = match size {
            // More than a straight write takes: what a kill leaves of it is a part.
            0 => 2_100 + self.random.below(600),
            1..5 => 300 + self.random.below(300),
            _ => 1 + self.random.below(24),
        } as usize;
        let ids: Vec<u64> = (0..count).map(|_| self.random.below(self.bank.ids)).collect();
        v1::WriteRequest {
            bank: self.bank.name.to_owned(),
            embeddings: Some(rows(&random_rows(&mut self.random, count, self.bank.dim))),
            labels: ids.iter().map(|id| (id % 7) as i64).collect(),
            groups: if self.number.is_multiple_of(3) { ids.iter().map(|id| id / 3).collect() } else { Vec::new() },
            weights: if self.number % 5 == 2 { ids.iter().map(|id| (id % 4) as f32 + 0.5).collect() } else { Vec::new() },
            ids: if self.bank.capacity > 0 && self.number.is_multiple_of(2) { Vec::new() } else { ids },
            step: Some(self.number),
            origin: Some(v1::Origin { writer: format!("writer-{}", self.name), incarnation: 1, number: self.number }),
            ..Default::default()
        }
    }

    /// Writes until the server is gone; what was sent and not acknowledged stays pending.
    pub(super) async fn write(mut self, client: Client, kill: Kill) -> (Self, Vec<Acknowledged>) {
        let (mut acknowledged, mut flying, mut is_there) = (Vec::new(), JoinSet::new(), true);
        loop {
            while is_there && self.pending.len() < self.in_flight {
                let change = self.next();
                self.pending.push(change.clone());
                flying.spawn(send(client.clone(), change));
            }
            // Of several on their way some may be acknowledged after the first has failed.
            let Some(sent) = flying.join_next().await else { return (self, acknowledged) };
            match sent.unwrap() {
                Ok((sequence, change)) => {
                    self.pending.retain(|pending| *pending != change);
                    acknowledged.push((sequence, change));
                }
                Err(gone) => {
                    kill.assert_explains(&gone);
                    is_there = false;
                }
            }
        }
    }
}

async fn send(client: Client, change: Change) -> Result<Acknowledged, ClientError> {
    let sequence = match &change {
        Change::Write(request) => {
            let answer = client.write((**request).clone()).await?;
            assert!(!answer.duplicate, "the first copy of a batch was taken for another");
            answer.sequence
        }
        Change::Remove(request) => client.remove(request.clone()).await?.sequence,
    };
    Ok((sequence, change))
}

/// Whether the server's end is under way.
#[derive(Clone, Default)]
pub(super) struct Kill(Arc<AtomicBool>);

impl Kill {
    /// Before the signal is sent.
    pub(super) fn begin(&self) {
        self.0.store(true, Ordering::SeqCst);
    }

    /// Nothing but its end keeps a server from doing what it is asked.
    pub(super) fn assert_explains(&self, refused: &ClientError) {
        let ended = [Code::Unavailable, Code::Unknown, Code::Internal, Code::Cancelled];
        assert!(self.0.load(Ordering::SeqCst), "refused before the kill: {:?}: {refused}", refused.code());
        assert!(ended.contains(&refused.code()), "refused, and not by the kill: {:?}: {refused}", refused.code());
    }
}
