//! The bank that is drawn from: one that is there, or one made for the run.

use std::error::Error;
use std::io::Write as _;
use std::time::Duration;

use super::anchors::{Anchors, RING, little_endian};
use super::args::Args;
use super::batches::Batches;
use super::clusters::Clusters;
use super::entries::Entries;
use super::progress::Progress;
use crate::client::{Client, messages as v1, random};

/// Bytes of a batch that fills the bank, about.
const BATCH_BYTES: usize = 4 << 20;

const REMOVED_WITHIN: Duration = Duration::from_secs(10);

/// A bank that can be drawn from.
#[derive(Debug)]
pub(super) struct Target {
    /// As it stood before the load.
    pub(super) bank: v1::Bank,
    pub(super) created: bool,
    client: Client,
}

impl Target {
    /// Finds the bank that was named, or creates an empty one.
    pub(super) async fn open(args: &Args, client: Client) -> Result<Self, Box<dyn Error>> {
        if let Some(name) = args.bank.bank.clone() {
            let bank = client.get_bank(v1::GetBankRequest { name }).await?;
            if bank.entries == 0 {
                return Err(format!("bank {:?} is empty: there is nothing to draw", bank.name).into());
            }
            return Ok(Self { bank, created: false, client });
        }
        let number = random().ok_or("the system gives no random number, so that the bank can have no name of its own")?;
        let request = v1::CreateBankRequest {
            name: format!("negbank-bench-{number:016x}"),
            dim: args.bank.dim,
            metric: v1::Metric::from(args.bank.metric).into(),
            dtype: v1::Dtype::from(args.bank.dtype).into(),
            ..v1::CreateBankRequest::default()
        };
        Ok(Self { bank: client.create_bank(request).await?, created: true, client })
    }

    /// Fills a created bank, and gathers what the calls and the writers need.
    pub(super) async fn prepare(&mut self, args: &Args, progress: &Progress) -> Result<(Anchors, Batches), Box<dyn Error>> {
        let each = args.request.anchors as usize;
        let scored = args.request.draws.iter().any(super::draw::DrawArg::is_scored);
        let rows = args.load.write_rows as usize;
        let name = self.bank.name.clone();
        if self.created {
            let clusters = Clusters::new(args.bank.dim as usize, args.bank.entries, args.load.seed);
            self.fill(&clusters, args.bank.entries, progress).await?;
            self.bank = self.client.get_bank(v1::GetBankRequest { name }).await?;
            let batches = Batches::create(&self.bank, &clusters, rows);
            return Ok((Anchors::create(&clusters, args.bank.dim as usize, each, scored), batches));
        }
        let entries = Entries::read(&self.client, &name, RING.max(each)).await?;
        if entries.len() == 0 {
            return Err(format!("bank {name:?} was emptied while it was read: there is nothing to draw").into());
        }
        Ok((Anchors::of(&entries, each, scored), Batches::of(&self.bank, &entries, rows)))
    }

    async fn fill(&self, clusters: &Clusters, entries: u64, progress: &Progress) -> Result<(), Box<dyn Error>> {
        let bar = progress.filling(entries);
        let batch = (BATCH_BYTES / (self.bank.dim as usize * 4)).clamp(1, 8_192) as u64;
        for start in (0..entries).step_by(batch as usize) {
            let ids: Vec<u64> = (start..entries.min(start + batch)).collect();
            let mut floats = Vec::with_capacity(ids.len() * self.bank.dim as usize);
            let labels = ids.iter().map(|id| clusters.append(*id, &mut floats)).collect();
            let embeddings = Some(v1::Matrix { data: little_endian(&floats), dim: self.bank.dim, ..v1::Matrix::default() });
            let bank = self.bank.name.clone();
            bar.inc(ids.len() as u64);
            self.client.write(v1::WriteRequest { bank, ids, labels, embeddings, ..v1::WriteRequest::default() }).await?;
        }
        bar.finish_and_clear();
        Ok(())
    }

    /// Removes a created bank. What goes wrong is told and is no failure of the run.
    pub(super) async fn remove(&self) {
        if !self.created {
            return;
        }
        let name = self.bank.name.clone();
        let client = self.client.with_timeout(REMOVED_WITHIN).with_retries(0);
        if let Err(fault) = client.delete_bank(v1::DeleteBankRequest { name }).await {
            let _closed = writeln!(std::io::stderr(), "negbank: bank {:?} could not be removed: {fault}", self.bank.name);
        }
    }
}
