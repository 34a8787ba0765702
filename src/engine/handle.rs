//! The boundary between async and sync: the engine as its callers see it.

mod background;
mod banks;
mod checkpoints;
mod flush;
mod gather;
mod health;
mod occupancy;
mod recovering;
mod scan;
mod scrape;
mod waits;

use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex};

use dashmap::DashMap;
use tokio::sync::{oneshot, watch};

use background::Background;
pub use checkpoints::{Heard, NewCheckpoint, Restore, Running};
pub use flush::Unsynced;
use gather::Gathers;
pub use health::Health;
use recovering::Recovering;
pub use scan::Scan;
use waits::Stopping;

use super::acknowledge::Acknowledge;
use super::bank_memory::BankMemory;
use super::committer::Committer;
use super::costs::{Costs, Effort, Kind};
use super::job::Job;
use super::ledger::Ledger;
use super::maintenance::{BankIndex, Maintenance};
use super::pool::{Pool, Ticket};
use super::query::{self, Of, Wanted};
use super::reading::{BankInfo, Fetched};
use super::scan::{Cursor, ScanQuery};
use super::served::Served;
use super::snapshots::{Snapshots, Trouble};
use super::stages::Stages;
use super::stalest::Stalest;
use super::{Config, EngineError};
use crate::archive::Archive;
use crate::bank::Bank;
use crate::durability::{Folder, Store};
use crate::model::clock::{self, Deadline};
use crate::model::{
    Applied, BankName, BankSpec, Call, Caller, Durability, Encoding, Lineage, Mutation, Position, SampleAnswer, SampleQuery,
};
use crate::rows::{Recycler, Shared};
use crate::telemetry::Metrics;

/// All banks and the threads that serve them. Cheap to clone; the threads end with the last clone.
#[derive(Debug, Clone)]
pub struct Engine {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    config: Config,
    banks: DashMap<BankName, Arc<BankHandle>>,
    pool: Pool,
    maintenance: Maintenance,
    recycler: Recycler,
    ledger: Ledger,
    metrics: Metrics,
    gathers: Gathers,
    /// Where banks outlive the server.
    store: Option<Store>,
    /// Banks that are there and not served yet.
    recovering: Recovering,
    /// Banks that are there and can't be served.
    refused: DashMap<BankName, banks::Refused>,
    /// Held while a bank is made or deleted.
    catalogue: Mutex<()>,
    health: watch::Sender<Health>,
    /// Whether the server stops, for those who wait for others.
    stopping: watch::Sender<Stopping>,
    /// Takes them, if banks outlive the server.
    snapshots: Option<Snapshots>,
    /// Where checkpoints are kept.
    archive: Option<Archive>,
    background: Background,
}

/// One bank: its name and settings, its state, and the way to its committer. A deleted bank lives on until the requests that
/// hold it have ended.
#[derive(Debug)]
pub struct BankHandle {
    name: BankName,
    spec: BankSpec,
    incarnation: u64,
    lineage: Lineage,
    durability: Durability,
    /// Where it lies on disk.
    folder: Option<Folder>,
    /// What is wrong with its files, if that is why it takes no writes.
    damage: Option<String>,
    state: Arc<Shared<Bank>>,
    memory: Arc<BankMemory>,
    /// What keeps snapshots of it from being taken.
    snapshots: Trouble,
    /// The graph that it may be searched by; keyed banks only.
    index: Option<Arc<BankIndex>>,
    committer: Committer,
    /// Sequence of the last acknowledged mutation, for those who wait for one.
    acknowledged: watch::Sender<u64>,
    stages: Stages,
    served: Arc<Served>,
    /// What its work takes.
    costs: Arc<Costs>,
    /// True once the bank is deleted, for those who wait for something of it.
    deleted: watch::Sender<bool>,
    /// Where it is said that it takes no more writes.
    health: watch::Sender<Health>,
}

impl Engine {
    /// Starts the compute threads, takes the data folder, and begins to recover the banks that are in it: their names are taken when this
    /// returns, and each is served as soon as it is there ([`Engine::recovered`] waits for all). A bank that can't be read is refused by name.
    ///
    /// # Errors
    /// If the system starts no more threads, or the data folder can't be had.
    pub fn start(config: Config) -> std::io::Result<Self> {
        let store = banks::store(&config.durability).map_err(std::io::Error::other)?;
        let archive = Archive::open(&config.checkpoints).map_err(std::io::Error::other)?;
        let cores = || std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
        let threads = if config.threads == 0 { cores() } else { config.threads };
        let metrics = if config.measured { Metrics::default() } else { Metrics::off() };
        let pool = Pool::start(threads, config.queue)?;
        let recycler = Recycler::default();
        let ledger = Ledger::new(config.memory, recycler.clone());
        let maintenance = Maintenance::start(config.index, &ledger)?;
        let snapshots = store.as_ref().map(|_| Snapshots::start(config.max_banks)).transpose()?;
        let (banks, gathers) = (DashMap::new(), Gathers::new(config.gather, &ledger));
        let (recovering, refused, catalogue) = (Recovering::default(), DashMap::new(), Mutex::new(()));
        let inner = Inner {
            config,
            banks,
            pool,
            maintenance,
            recycler,
            ledger,
            metrics,
            gathers,
            store,
            recovering,
            refused,
            catalogue,
            health: watch::Sender::default(),
            stopping: watch::Sender::default(),
            snapshots,
            archive,
            background: Background::start()?,
        };
        inner.find_banks().map_err(std::io::Error::other)?;
        let this = Self { inner: Arc::new(inner) };
        this.inner.begin_to_recover()?;
        this.inner.metrics.register(this.scraper());
        Ok(this)
    }

    /// Describes a bank.
    ///
    /// # Errors
    /// [`EngineError`]
    pub async fn describe(&self, bank: &Arc<BankHandle>, call: &Call) -> Result<BankInfo, EngineError> {
        let bank = Arc::clone(bank);
        let graphs = self.inner.config.index;
        let effort = (Arc::clone(&bank.costs), Effort::of(Kind::Describe, bank.now()?.0));
        self.compute(call, effort, move |_| {
            let info = BankInfo::of(&bank.name, (&bank.state, bank.index.as_deref()), bank.stages.describe())?;
            let graph = info.index.as_ref().map_or(0, |_| graphs.peak_bytes_per_entry(bank.spec.dim()));
            let peak_bytes_per_entry = info.peak_bytes_per_entry + graph;
            let lost_after = bank.folder.as_ref().and_then(Folder::lost_after);
            let (durability, damage) = (bank.durability, bank.damage.clone());
            Ok(BankInfo { durability, damage, lost_after, peak_bytes_per_entry, ..info })
        })
        .await
    }

    /// The account of what lies in memory.
    pub fn ledger(&self) -> &Ledger {
        &self.inner.ledger
    }

    /// Reads entries by id.
    ///
    /// # Errors
    /// [`EngineError`]
    pub async fn fetch(
        &self,
        bank: &Arc<BankHandle>,
        ids: Vec<u64>,
        encoding: Encoding,
        call: &Call,
    ) -> Result<Fetched, EngineError> {
        let bank = Arc::clone(bank);
        let effort = (Arc::clone(&bank.costs), Effort::of(Kind::Read, ids.len() * (bank.spec.dim() + 32)));
        self.compute(call, effort, move |wanted| Fetched::of(&bank.state, &ids, encoding, wanted)).await
    }

    /// Lists the entries of a keyed bank that most need a refresh, `k` at most.
    ///
    /// # Errors
    /// [`EngineError::NotKeyed`] for a queue; [`EngineError`]
    pub async fn stalest(&self, bank: &Arc<BankHandle>, k: usize, call: &Call) -> Result<Stalest, EngineError> {
        let bank = Arc::clone(bank);
        let effort = (Arc::clone(&bank.costs), Effort::of(Kind::Stalest, k.min(bank.now()?.0)));
        self.compute(call, effort, move |wanted| Stalest::of(&bank.state, k, wanted)).await
    }

    /// Applies a mutation; when this returns, every later read sees it. If the caller leaves before, it may still be applied.
    ///
    /// # Errors
    /// [`EngineError`]
    pub async fn mutate(&self, bank: &BankHandle, mutation: Mutation, call: &Call) -> Result<Applied, EngineError> {
        if call.deadline.has_passed() {
            return Err(EngineError::DeadlineExceeded);
        }
        let (reply, answer) = oneshot::channel();
        let acknowledge = Acknowledge::new(move |result| drop(reply.send(result)));
        bank.committer.submit(&call.caller, mutation, Some(call.deadline), acknowledge)?;
        wait(answer, call.deadline).await
    }

    /// Draws negatives, and makes of the answer what `finish` does, on a compute thread. A request that takes less than the way
    /// there is answered on the caller's.
    ///
    /// # Errors
    /// [`EngineError`]
    pub async fn sample<T: Send + 'static>(
        &self,
        bank: &BankHandle,
        query: SampleQuery,
        call: &Call,
        finish: impl FnOnce(SampleAnswer) -> T + Send + 'static,
    ) -> Result<T, EngineError> {
        let wanted = Wanted::until(call.deadline);
        let mut leave = Leave { wanted: wanted.clone(), queued: None };
        let (reply, answer) = oneshot::channel();
        let slight = query::is_slight(&query, &bank.spec);
        let reply = Box::new(move |result: Result<_, _>| drop(reply.send(result.map(finish))));
        let of = Of { bank: &bank.state, index: bank.index.as_ref(), served: &bank.served, costs: &bank.costs };
        let jobs = query::jobs(of, query, &self.inner.recycler, &wanted, reply)?;
        if slight {
            jobs.into_iter().map(Job::noted).for_each(Job::run);
        } else {
            leave.queued = Some((&self.inner.pool, &call.caller, self.inner.pool.submit(call, jobs)?));
        }
        leave.unless(wait(answer, call.deadline).await)
    }

    /// Begins to read a bank in chunks; the next is read while one is sent, and none beyond it.
    ///
    /// # Errors
    /// [`EngineError::Busy`], [`EngineError::Overloaded`], [`EngineError::Hopeless`]
    pub fn scan(&self, bank: &Arc<BankHandle>, query: ScanQuery, call: &Call) -> Result<Scan, EngineError> {
        // Who read the bank up to a position of an earlier incarnation may have read more, which this one never had.
        let query = ScanQuery { since: query.since.filter(|since| since.incarnation == bank.incarnation), ..query };
        let wanted = Wanted::until(call.deadline);
        let (first, next) = scan::job((Arc::clone(bank), Cursor::new(query)), wanted.clone());
        self.inner.pool.submit(call, vec![first])?;
        Ok(Scan::begin(self.clone(), next, wanted, call.clone()))
    }

    /// Runs one job on the pool.
    async fn compute<T: Send + 'static>(
        &self,
        call: &Call,
        (costs, effort): (Arc<Costs>, Effort),
        job: impl FnOnce(&Wanted) -> Result<T, EngineError> + Send + 'static,
    ) -> Result<T, EngineError> {
        let wanted = Wanted::until(call.deadline);
        let mut leave = Leave { wanted: wanted.clone(), queued: None };
        let (reply, answer) = oneshot::channel();
        let estimate = costs.estimate(&effort);
        let job = Job::new(estimate, move || {
            let began = clock::now();
            let result = if wanted.holds() { job(&wanted) } else { Err(EngineError::DeadlineExceeded) };
            if result.is_ok() {
                costs.learn(&effort, clock::now().duration_since(began));
            }
            // One who has hung up hears nothing.
            let _gone = reply.send(result);
        });
        leave.queued = Some((&self.inner.pool, &call.caller, self.inner.pool.submit(call, vec![job])?));
        leave.unless(wait(answer, call.deadline).await)
    }
}

impl BankHandle {
    /// The bank's name.
    pub fn name(&self) -> &BankName {
        &self.name
    }

    /// The bank's settings.
    pub fn spec(&self) -> &BankSpec {
        &self.spec
    }

    /// When its writes reach the disk.
    pub fn durability(&self) -> Durability {
        self.durability
    }

    /// The position of a mutation of this bank.
    pub fn position(&self, sequence: u64) -> Position {
        Position { incarnation: self.incarnation, sequence }
    }

    /// Entries held now, and how far the history has come.
    ///
    /// # Errors
    /// [`EngineError::Poisoned`]
    pub fn now(&self) -> Result<(usize, Position), EngineError> {
        let bank = self.state.read()?;
        Ok((bank.entries(), self.position(bank.sequence())))
    }
}

/// Tells the compute threads that the caller left, and takes back what waits for them: when the call is dropped half-way, or is over anyway.
#[derive(Debug)]
struct Leave<'a> {
    wanted: Wanted,
    queued: Option<(&'a Pool, &'a Caller, Ticket)>,
}

impl Leave<'_> {
    /// What the call was answered; if that is all of it, nothing of it waits any more.
    fn unless<T>(mut self, answered: Result<T, EngineError>) -> Result<T, EngineError> {
        self.queued = self.queued.filter(|_| answered.is_err());
        answered
    }
}

impl Drop for Leave<'_> {
    fn drop(&mut self) {
        self.wanted.abandon();
        if let Some((pool, caller, ticket)) = self.queued {
            pool.withdraw(caller, ticket);
        }
    }
}

async fn wait<T>(
    answer: impl Future<Output = Result<Result<T, EngineError>, oneshot::error::RecvError>>,
    deadline: Deadline,
) -> Result<T, EngineError> {
    match tokio::time::timeout_at(deadline.instant().into(), answer).await {
        Ok(Ok(result)) => result,
        Ok(Err(_)) => Err(EngineError::Internal("the thread that worked on the request panicked")),
        Err(_) => Err(EngineError::DeadlineExceeded),
    }
}
