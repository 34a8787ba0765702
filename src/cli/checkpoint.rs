//! `negbank checkpoint`: keeps banks and brings them back.

use std::error::Error;
use std::io::Write as _;
use std::time::Duration;

use clap::{Args as ClapArgs, Subcommand};
use indicatif::{ProgressBar, ProgressStyle};

use super::choices::Durability;
use super::connection::Connection;
use super::table::Table;
use crate::client::{Checkpointing, Client, Options, messages as v1};

/// Arguments of `checkpoint`.
#[derive(Debug, ClapArgs)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
    /// The server: host:port, https://host:port, or unix:/path.
    #[arg(long, global = true, value_name = "ADDRESS", default_value = "127.0.0.1:7700")]
    address: String,
    /// Seconds that the call may take.
    #[arg(long, global = true, value_name = "SECONDS", default_value_t = 3_600, value_parser = clap::value_parser!(u64).range(1..))]
    timeout: u64,
    #[command(flatten)]
    connection: Connection,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Keeps a bank as it is now, while it is read and written.
    Create {
        /// The bank.
        bank: String,
        /// Its name among the bank's checkpoints, such as the training step.
        tag: String,
        /// Take the place of a checkpoint of this tag.
        #[arg(long)]
        replace: bool,
        /// Checkpoints of this bank that are kept, the oldest being deleted; default: the server's checkpoints.keep.
        #[arg(long, value_name = "N", default_value_t = 0)]
        keep: u32,
    },
    /// Lists checkpoints, oldest first.
    List {
        /// Only this bank's.
        bank: Option<String>,
    },
    /// Brings a bank back as it was; one that has the name is replaced.
    Restore {
        /// The bank that the checkpoint was made of.
        bank: String,
        /// Its tag; default: the newest.
        tag: Option<String>,
        /// The bank that it becomes; default: the same.
        #[arg(long, value_name = "BANK")]
        into: Option<String>,
        /// When its writes reach the disk from then on; default: as those of the bank that it replaces, else the server's durability.policy.
        #[arg(long, value_enum)]
        durability: Option<Durability>,
    },
    /// Deletes a checkpoint.
    Delete {
        /// The bank.
        bank: String,
        /// The tag.
        tag: String,
    },
}

pub(super) fn run(args: Args) -> Result<(), Box<dyn Error>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async move {
        let (timeout, security) = (Duration::from_secs(args.timeout), args.connection.security()?);
        let options = Options { timeout, security, ..Options::default() };
        let client = Client::connect(&args.address, options).await?;
        match args.command {
            Command::Create { bank, tag, replace, keep } => {
                let request = v1::CreateCheckpointRequest { bank, tag, replace, keep };
                let done = watched(client.create_checkpoint(request).await?).await?;
                print_all(done.checkpoint.as_slice())
            }
            Command::List { bank } => {
                let request = v1::ListCheckpointsRequest { bank: bank.unwrap_or_default() };
                print_all(&client.list_checkpoints(request).await?.checkpoints)
            }
            Command::Restore { bank, tag, into, durability } => {
                let (tag, into) = (tag.unwrap_or_default(), into.unwrap_or_default());
                let durability = durability.map_or(v1::Durability::Unspecified, v1::Durability::from).into();
                let request = v1::RestoreCheckpointRequest { bank, tag, into, durability };
                let done = watched(client.restore_checkpoint(request).await?).await?;
                let (checkpoint, restored) = (done.checkpoint.unwrap_or_default(), done.restored.unwrap_or_default());
                let mut out = std::io::stdout().lock();
                let (name, tag) = (restored.name, checkpoint.tag);
                writeln!(out, "bank {name}: {} entries at sequence {}, from {tag}", restored.entries, restored.sequence)?;
                Ok(())
            }
            Command::Delete { bank, tag } => {
                client.delete_checkpoint(v1::DeleteCheckpointRequest { bank: bank.clone(), tag: tag.clone() }).await?;
                writeln!(std::io::stdout().lock(), "checkpoint {tag} of bank {bank} is deleted")?;
                Ok(())
            }
        }
    })
}

/// Shows how far a call has come until it is done.
async fn watched(mut call: Checkpointing) -> Result<v1::CheckpointProgress, Box<dyn Error>> {
    let style = "{msg:9} {wide_bar} {bytes} of {total_bytes}, {bytes_per_sec}";
    let style = ProgressStyle::with_template(style).unwrap_or_else(|_| ProgressStyle::default_bar());
    let bar = ProgressBar::new(0).with_style(style);
    while let Some(reading) = call.next().await? {
        if reading.checkpoint.is_some() {
            bar.finish_and_clear();
            return Ok(reading);
        }
        let doing = match reading.phase() {
            v1::CheckpointPhase::Unspecified | v1::CheckpointPhase::Waiting => "waiting",
            v1::CheckpointPhase::Copying => "copying",
            v1::CheckpointPhase::Uploading => "uploading",
            v1::CheckpointPhase::Reading => "reading",
        };
        bar.set_message(doing);
        bar.set_length(reading.total_bytes);
        bar.set_position(reading.done_bytes);
    }
    Err("the server ended before it was done".into())
}

fn print_all(checkpoints: &[v1::Checkpoint]) -> Result<(), Box<dyn Error>> {
    let mut table = Table::new(&["BANK", "TAG", "SEQUENCE", "STEP", "ENTRIES", "BYTES", "STATE HASH"]);
    for v1::Checkpoint { bank, tag, sequence, step, entries, bytes, state_hash, .. } in checkpoints {
        let step = step.map_or_else(|| "-".to_owned(), |step| step.to_string());
        let numbers = [sequence, entries, bytes].map(ToString::to_string);
        let [sequence, entries, bytes] = numbers;
        table.push(vec![bank.clone(), tag.clone(), sequence, step, entries, bytes, state_hash.clone()]);
    }
    write!(std::io::stdout().lock(), "{table}")?;
    Ok(())
}
