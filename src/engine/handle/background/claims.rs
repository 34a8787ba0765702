//! Which checkpoints calls are at, by bank and tag: who makes or deletes one is alone with it.

use std::sync::Arc;

use dashmap::DashMap;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::engine::EngineError;
use crate::model::clock::Deadline;
use crate::model::{BankName, Tag};

type Name = (BankName, Tag);

/// Calls that may read one at the same time.
const READERS: u32 = 1 << 16;

/// All claims of this server. Other servers at the location are kept apart by the location only.
#[derive(Debug, Clone, Default)]
pub(in crate::engine::handle) struct Claims(Arc<DashMap<Name, Arc<Semaphore>>>);

/// One, until it is dropped.
#[derive(Debug)]
pub(in crate::engine::handle) struct Claim {
    of: Claims,
    name: Name,
    /// `None`: it is still waited for.
    held: Option<OwnedSemaphorePermit>,
}

impl Claims {
    /// Waits until no other call is at the checkpoint.
    ///
    /// # Errors
    /// [`EngineError::CheckpointBusy`] shortly before the deadline
    pub(in crate::engine::handle) async fn alone(
        &self,
        bank: &BankName,
        tag: &Tag,
        deadline: Deadline,
    ) -> Result<Claim, EngineError> {
        self.wait(bank, tag, READERS, deadline).await
    }

    /// Waits until no other call makes or deletes the checkpoint.
    ///
    /// # Errors
    /// [`EngineError::CheckpointBusy`] shortly before the deadline
    pub(in crate::engine::handle) async fn beside_readers(
        &self,
        bank: &BankName,
        tag: &Tag,
        deadline: Deadline,
    ) -> Result<Claim, EngineError> {
        self.wait(bank, tag, 1, deadline).await
    }

    /// Claims the checkpoint alone, if no call is at it.
    pub(in crate::engine::handle) fn if_free(&self, bank: &BankName, tag: &Tag) -> Option<Claim> {
        let (mut claim, turns) = self.claim(bank, tag);
        claim.held = turns.try_acquire_many_owned(READERS).ok();
        claim.held.is_some().then_some(claim)
    }

    async fn wait(&self, bank: &BankName, tag: &Tag, turns: u32, deadline: Deadline) -> Result<Claim, EngineError> {
        let (mut claim, all) = self.claim(bank, tag);
        let last_word = deadline.a_little_before().instant().into();
        match tokio::time::timeout_at(last_word, all.acquire_many_owned(turns)).await {
            Ok(held) => claim.held = Some(held.map_err(|_| EngineError::Internal("the turns are over"))?),
            Err(_) => return Err(EngineError::CheckpointBusy { bank: bank.clone(), tag: tag.clone() }),
        }
        Ok(claim)
    }

    fn claim(&self, bank: &BankName, tag: &Tag) -> (Claim, Arc<Semaphore>) {
        let name = (bank.clone(), tag.clone());
        let turns = Arc::clone(&self.0.entry(name.clone()).or_insert_with(|| Arc::new(Semaphore::new(READERS as usize))));
        (Claim { of: self.clone(), name, held: None }, turns)
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        drop(self.held.take());
        // Whoever waits for it has it too.
        self.of.0.remove_if(&self.name, |_, turns| Arc::strong_count(turns) == 1);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::Claims;
    use crate::engine::EngineError;
    use crate::model::clock::Deadline;
    use crate::model::{BankName, Tag};

    fn within(millis: u64) -> Deadline {
        Deadline::after(Duration::from_millis(millis))
    }

    #[tokio::test]
    async fn who_writes_is_alone_and_who_waits_in_vain_hears_for_what() {
        let (claims, bank) = (Claims::default(), BankName::parse("bank", "b").unwrap());
        let [one, other] = ["1", "2"].map(|tag| Tag::parse("tag", tag).unwrap());
        let held = claims.alone(&bank, &one, within(60_000)).await.unwrap();
        for refused in [
            claims.alone(&bank, &one, within(30)).await.unwrap_err(),
            claims.beside_readers(&bank, &one, within(30)).await.unwrap_err(),
        ] {
            assert!(matches!(&refused, EngineError::CheckpointBusy { tag, .. } if *tag == one), "{refused}");
            assert!(refused.to_string().contains("checkpoint 1 of bank b"), "{refused}");
        }
        assert!(claims.if_free(&bank, &one).is_none());
        drop(claims.if_free(&bank, &other).unwrap());
        let waiting = tokio::spawn({
            let (claims, bank, one) = (claims.clone(), bank.clone(), one.clone());
            async move { claims.alone(&bank, &one, within(60_000)).await.map(drop) }
        });
        tokio::task::yield_now().await;
        drop(held);
        waiting.await.unwrap().unwrap();
        let readers = [
            claims.beside_readers(&bank, &one, within(60_000)).await.unwrap(),
            claims.beside_readers(&bank, &one, within(60_000)).await.unwrap(),
        ];
        claims.alone(&bank, &one, within(30)).await.unwrap_err();
        drop(readers);
        drop(claims.alone(&bank, &one, within(60_000)).await.unwrap());
        assert!(claims.0.is_empty(), "what nobody claims takes no room");
    }
}
