//! What can go wrong in the engine, by what the caller should do.

use std::time::Duration;

use super::retry;
use super::staging::OpenStage;
use crate::archive::ArchiveError;
use crate::bank::Overrun;
use crate::gather::GatherError;
use crate::model::{BankName, Excess, Invalid, StageAt, Tag};
use crate::rows::Poisoned;
use crate::sampling::SampleError;

/// Why the engine refused or failed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum EngineError {
    /// Mend the request.
    #[error("{0}")]
    Invalid(#[from] Invalid),
    /// Use another name, or create the bank.
    #[error("there is no bank {name:?}{}", known_banks(known, *total))]
    NotFound {
        /// The name asked for.
        name: String,
        /// Names that exist, the first few.
        known: Vec<BankName>,
        /// How many exist.
        total: usize,
    },
    /// Use another name, or the settings that are there.
    #[error("bank {name} exists with other settings: {differing}; use it as it is, delete it first, or choose another name")]
    AlreadyExists {
        /// The bank.
        name: BankName,
        /// Which settings differ, and how.
        differing: String,
    },
    /// Write more, or wait.
    #[error("bank {name} holds {entries} entries, and min_entries asks for {wanted}")]
    TooFewEntries {
        /// The bank.
        name: BankName,
        /// Entries held.
        entries: usize,
        /// Entries asked for.
        wanted: u64,
    },
    /// Create it, if it is still wanted.
    #[error("bank {0} was deleted while the request waited for it")]
    Deleted(BankName),
    /// The position is of a bank that is gone.
    #[error("the position is not of this bank {0}: the bank was deleted and created anew since")]
    OtherHistory(BankName),
    /// The position is of writes that are gone.
    #[error(
        "the position is of a write that bank {name} does not have any more: it went on from write {kept} of that history, when it was \
         restored from a checkpoint, or after the system ended with writes that were not synced (setting durability.policy)"
    )]
    LeftHistory {
        /// The bank.
        name: BankName,
        /// The last write of that history that the bank has.
        kept: u64,
    },
    /// Nobody can tell whether this write was applied.
    #[error(
        "number {number} of writer {writer:?} is too old to tell whether it was applied: the last 1,024 up to {highest} are \
         remembered; read the bank, and write under a new number what is missing"
    )]
    Forgotten {
        /// The writer's name.
        writer: String,
        /// The number sent.
        number: u64,
        /// Its highest number that was applied.
        highest: u64,
    },
    /// Ranks were missing when the time was up.
    #[error("the staged write of {at} failed and nothing was applied: {}", why_expired(*at, *world_size, missing, *expected))]
    StageExpired {
        /// Which stage.
        at: StageAt,
        /// Ranks that had to write.
        world_size: usize,
        /// Ranks that did not.
        missing: Vec<u32>,
        /// The micro-batch that comes next in this step.
        expected: u32,
    },
    /// The rank sent something else before.
    #[error("rank {rank} has written another batch to the staged write of {at}: a rank writes once to each")]
    StageTaken {
        /// Which stage.
        at: StageAt,
        /// The rank.
        rank: u32,
    },
    /// Ask a keyed bank.
    #[error("the bank is a queue: its oldest entries leave by themselves; only keyed banks are refreshed")]
    NotKeyed,
    /// Delete something, or raise the limit.
    #[error("{what} is at its limit of {limit} (setting {setting})")]
    LimitReached {
        /// What there is too much of.
        what: &'static str,
        /// The limit.
        limit: usize,
        /// The setting that changes it.
        setting: &'static str,
    },
    /// Ask for less at a time, or raise the limit: nothing that ends makes room for it.
    #[error("{0}")]
    NeverFits(#[from] Excess),
    /// Try again soon.
    #[error("{queue} is full: its limit is {limit} (setting {setting}); try again")]
    Busy {
        /// The queue.
        queue: &'static str,
        /// Its bound.
        limit: usize,
        /// The setting that changes it.
        setting: &'static str,
        /// When there will be room.
        retry_after: Duration,
    },
    /// Try again when less waits, or give it more time.
    #[error(
        "the server is overloaded: this would be done {} ms from now at the earliest, and its deadline is in {} ms; try again, or give \
         it more time (setting compute.threads)",
        done.as_millis(),
        left.as_millis()
    )]
    Overloaded {
        /// When it would be done.
        done: Duration,
        /// Until its deadline.
        left: Duration,
        /// When it could be done in such a time.
        retry_after: Duration,
    },
    /// Give it more time, or ask for less.
    #[error(
        "nothing was begun: it takes about {} ms on this server though nothing else waits, and its deadline is in {} ms: give it more time, \
         or ask for less at once",
        takes.as_millis(),
        left.as_millis()
    )]
    Hopeless {
        /// What its work takes.
        takes: Duration,
        /// Until its deadline.
        left: Duration,
    },
    /// Give it more time, or ask for less.
    #[error("the deadline passed before the answer was ready")]
    DeadlineExceeded,
    /// Delete something, or give the server more memory.
    #[error(
        "there is no memory for {bytes} bytes more of entries: {used} bytes are in use, and banks grow up to {most}, {percent} % (setting \
         memory.write_percent) of the limit of {limit} (setting memory.max_bytes); entries that are there can be rewritten"
    )]
    MemoryFull {
        /// Bytes asked for.
        bytes: usize,
        /// Bytes in use.
        used: usize,
        /// Bytes up to which banks grow.
        most: usize,
        /// Which are so many percent
        percent: usize,
        /// of the limit.
        limit: usize,
    },
    /// The system has no memory to give.
    #[error("{0}")]
    OutOfMemory(String),
    /// Delete something, or let the server have more.
    #[error("the system starts no more threads: let the server have more, or delete banks that nobody needs")]
    NoThreads,
    /// Do what the message says.
    #[error("bank {name} takes no writes: {what}")]
    ReadOnly {
        /// The bank.
        name: BankName,
        /// What is wrong, with the file, and what to do.
        what: String,
    },
    /// Restore one, or delete the bank.
    #[error(
        "bank {name} is not kept: its files are damaged, and it is what it was before the damage ({what}); \
         a checkpoint of it could take the place of a whole one"
    )]
    NotKept {
        /// The bank.
        name: BankName,
        /// What is wrong, with the file.
        what: String,
    },
    /// Restart the server; what is wrong with the disk is in the message and in the logs.
    #[error(
        "bank {name} takes no more writes until the server is restarted, since its log has failed: {why}. It is still read. Whether \
         the write during which that happened was kept is known only then"
    )]
    LogFailed {
        /// The bank.
        name: BankName,
        /// What failed.
        why: String,
    },
    /// Restart the server, and tell us.
    #[error(
        "bank {name} takes no more writes until the server is restarted: {why}, which is a defect of negbank; the server's own log says \
         more. Whether the write during which that happened was kept is known only then"
    )]
    WritesEnded {
        /// The bank.
        name: BankName,
        /// What happened.
        why: &'static str,
    },
    /// Come again: it is being read from disk.
    #[error("bank {name} is being recovered: {percent} % read; it is served when that is done")]
    Recovering {
        /// The bank.
        name: BankName,
        /// How much of its files was read.
        percent: u8,
        /// When it may be there.
        retry_after: Duration,
    },
    /// Mend the file, or delete the bank.
    #[error(
        "bank {name} can't be served: {why}. Nothing on disk was changed; bring the file back as it was, or delete the bank"
    )]
    Refused {
        /// The bank.
        name: BankName,
        /// What is wrong, with file and offset.
        why: String,
    },
    /// Restart the server once the system is well.
    #[error(
        "bank {name} can't be served: {why}. No damage was found: restart the server once the system is well, or delete the bank"
    )]
    NotServed {
        /// The bank.
        name: BankName,
        /// What failed, with the file if it was one.
        why: String,
    },
    /// Mend the file.
    #[error("{0}")]
    Damaged(String),
    /// Look after the disk.
    #[error("{0}")]
    Storage(String),
    /// Use another tag, or replace it.
    #[error("bank {bank} has a checkpoint {tag} already: use another tag, replace it, or delete it first")]
    CheckpointExists {
        /// The bank.
        bank: BankName,
        /// The tag.
        tag: Tag,
    },
    /// Come again when the other call is done.
    #[error(
        "another call made, restored or deleted checkpoint {tag} of bank {bank}, and was not done before this one's deadline; nothing was changed"
    )]
    CheckpointBusy {
        /// The bank.
        bank: BankName,
        /// The tag.
        tag: Tag,
    },
    /// Use a tag that is there.
    #[error("{0}")]
    NoCheckpoint(String),
    /// Use another checkpoint.
    #[error("checkpoint {tag} of bank {bank} is damaged: {what}")]
    CheckpointDamaged {
        /// The bank.
        bank: BankName,
        /// The tag.
        tag: Tag,
        /// What is wrong with it.
        what: String,
    },
    /// Write less while it is being taken, or give it more memory.
    #[error("{0}; the writes were not held up")]
    Overrun(#[from] Overrun),
    /// The bank can't be trusted.
    #[error(transparent)]
    Poisoned(#[from] Poisoned),
    /// The rank brought other rows before.
    #[error("{0}")]
    GatherTaken(GatherError),
    /// Come again when a server is back.
    #[error("the server is stopping: {0}; send it again once a server is back")]
    Stopping(&'static str),
    /// A defect of ours.
    #[error("internal error: {0}")]
    Internal(&'static str),
}

impl EngineError {
    /// A queue of which nobody knows when it will have room.
    pub fn full(queue: &'static str, limit: usize, setting: &'static str) -> Self {
        Self::Busy { queue, limit, setting, retry_after: retry::after(retry::SOONEST) }
    }
}

impl From<GatherError> for EngineError {
    fn from(error: GatherError) -> Self {
        match error {
            GatherError::Invalid(invalid) => Self::Invalid(invalid),
            GatherError::Taken { .. } => Self::GatherTaken(error),
            GatherError::Full { room, limit, setting } => Self::full(room, limit, setting),
            GatherError::NeverFits(excess) => Self::NeverFits(excess),
            GatherError::Stopping => Self::Stopping("what waited for other ranks is gone"),
        }
    }
}

impl From<SampleError> for EngineError {
    fn from(error: SampleError) -> Self {
        match error {
            SampleError::Invalid(invalid) => Self::Invalid(invalid),
            SampleError::Poisoned(poisoned) => Self::Poisoned(poisoned),
            SampleError::TooLarge(_) => Self::Invalid(Invalid::one("draws", error.to_string())),
            SampleError::Unwanted => Self::DeadlineExceeded,
        }
    }
}

impl From<ArchiveError> for EngineError {
    fn from(error: ArchiveError) -> Self {
        match error {
            ArchiveError::Exists { bank, tag } => Self::CheckpointExists { bank, tag },
            ArchiveError::Damaged { bank, tag, what } => Self::CheckpointDamaged { bank, tag, what },
            ArchiveError::Unknown { .. } => Self::NoCheckpoint(error.to_string()),
            ArchiveError::GivenUp => Self::DeadlineExceeded,
            ArchiveError::Location { .. } | ArchiveError::Newer { .. } | ArchiveError::Io { .. } => {
                Self::Storage(error.to_string())
            }
        }
    }
}

fn why_expired(at: StageAt, world_size: usize, missing: &[u32], expected: u32) -> String {
    if missing.is_empty() && at.micro_batch > expected {
        return format!("its ranks were all there, but micro-batch {expected} of the step comes first and was not applied");
    }
    if missing.is_empty() {
        return "its ranks were all there, but an earlier stage was still waiting for its own".to_owned();
    }
    let named: Vec<String> = missing.iter().take(OpenStage::MOST_NAMED).map(u32::to_string).collect();
    let more = missing.len() - named.len();
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    format!("ranks {}{more} of {world_size} had not written when the earliest caller's time was up", named.join(", "))
}

fn known_banks(known: &[BankName], total: usize) -> String {
    if total == 0 {
        return "; there is none at all: create it (without durability.dir, banks end with the server)".to_owned();
    }
    let names: Vec<&str> = known.iter().map(BankName::as_str).collect();
    let more = if total > names.len() { format!(" and {} more", total - names.len()) } else { String::new() };
    format!("; there are {}{more}", names.join(", "))
}
