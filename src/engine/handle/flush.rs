//! What is logged and not on disk yet, before the server ends.

use std::sync::Arc;

use futures_util::stream::{self, StreamExt as _};
use tokio::sync::oneshot;

use super::banks::blocking;
use super::{BankHandle, Engine};
use crate::engine::EngineError;

/// Banks that are synced at the same time: a disk that hangs holds up its own bank.
const AT_ONCE: usize = 16;
/// Banks that are named in an error at most.
const MOST_NAMED: usize = 5;

/// Banks whose logs could not be synced.
#[derive(Debug, thiserror::Error)]
#[error("{}", listed(.0))]
pub struct Unsynced(
    /// Why, bank by bank.
    pub Vec<EngineError>,
);

impl Engine {
    /// Syncs what the banks have logged, whatever their policies: all that can be, whatever becomes of the others.
    ///
    /// # Errors
    /// [`Unsynced`], with an [`EngineError::LogFailed`] or [`EngineError::WritesEnded`] for each bank of which that failed.
    pub async fn flush(&self) -> Result<(), Unsynced> {
        let synced = stream::iter(self.banks()).map(sync).buffer_unordered(AT_ONCE);
        let failed: Vec<EngineError> = synced.filter_map(async |synced| synced.err()).collect().await;
        if failed.is_empty() { Ok(()) } else { Err(Unsynced(failed)) }
    }
}

async fn sync(bank: Arc<BankHandle>) -> Result<(), EngineError> {
    let (flushed, heard) = oneshot::channel();
    let committer = bank.committer.clone();
    blocking(move || {
        committer.flush(Box::new(move |done| drop(flushed.send(done))));
        Ok(())
    })
    .await?;
    heard.await.unwrap_or(Err(EngineError::Internal("a bank's committer has ended")))
}

fn listed(failed: &[EngineError]) -> String {
    let told: Vec<String> = failed.iter().take(MOST_NAMED).map(ToString::to_string).collect();
    let more = failed.len() - told.len();
    let more = if more > 0 { format!("; and {more} banks more") } else { String::new() };
    format!("{}{more}", told.join("; "))
}
