//! `negbank bank`: makes, lists, shows and deletes banks.

mod json;

use std::error::Error;
use std::io::Write as _;
use std::time::Duration;

use clap::{Args as ClapArgs, Subcommand};
use indicatif::HumanBytes;
use serde_json::Value;

use super::choices::{Durability, Floats, Metric, dtype, durability, kind, metric};
use super::connection::Connection;
use super::table::Table;
use crate::client::{Client, Options, messages as v1};

/// Arguments of `bank`.
#[derive(Debug, ClapArgs)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
    /// The server: host:port, https://host:port, or unix:/path.
    #[arg(long, global = true, value_name = "ADDRESS", default_value = "127.0.0.1:7700")]
    address: String,
    /// Seconds that the call may take.
    #[arg(long, global = true, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..))]
    timeout: u64,
    #[command(flatten)]
    connection: Connection,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Makes a bank: keyed, or with --queue a queue. If it is there and of the same kind, nothing is done.
    Create(Create),
    /// Lists the banks.
    List {
        /// Prints them as JSON.
        #[arg(long)]
        json: bool,
    },
    /// Shows all that a bank tells of itself.
    Show {
        /// The bank.
        name: String,
        /// Prints it as JSON.
        #[arg(long)]
        json: bool,
    },
    /// Deletes a bank with its entries; its checkpoints stay.
    Delete {
        /// The bank.
        name: String,
    },
}

#[derive(Debug, ClapArgs)]
struct Create {
    /// The bank.
    name: String,
    /// Floats in an embedding.
    #[arg(long)]
    dim: u32,
    /// Makes a queue of this capacity, in which the oldest entry makes way for the newest.
    #[arg(long, value_name = "CAPACITY", conflicts_with_all = ["momentum", "capacity"], value_parser = clap::value_parser!(u64).range(1..))]
    queue: Option<u64>,
    /// Most entries of a keyed bank; default: as many as fit.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    capacity: Option<u64>,
    /// How entries are scored.
    #[arg(long, value_enum, default_value_t = Metric::Cosine)]
    metric: Metric,
    /// How far entries that are written again stay what they are, 0 to below 1; default: 0.5. Keyed banks only.
    #[arg(long)]
    momentum: Option<f32>,
    /// How embeddings are stored.
    #[arg(long, value_enum, default_value_t = Floats::F32)]
    dtype: Floats,
    /// Parts of the bank that are worked on at once, 1 to 64; default: 8.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    shards: Option<u32>,
    /// When writes reach the disk; default: the server's durability.policy.
    #[arg(long, value_enum)]
    durability: Option<Durability>,
}

impl From<Create> for v1::CreateBankRequest {
    fn from(asked: Create) -> Self {
        let kind = if asked.queue.is_some() { v1::BankKind::Queue } else { v1::BankKind::Keyed };
        let durability = asked.durability.map_or(v1::Durability::Unspecified, v1::Durability::from);
        Self {
            name: asked.name,
            dim: asked.dim,
            kind: kind.into(),
            metric: v1::Metric::from(asked.metric).into(),
            momentum: asked.momentum,
            capacity: asked.queue.or(asked.capacity).unwrap_or_default(),
            shards: asked.shards.unwrap_or_default(),
            dtype: v1::Dtype::from(asked.dtype).into(),
            durability: durability.into(),
        }
    }
}

pub(super) fn run(args: Args) -> Result<(), Box<dyn Error>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let said = runtime.block_on(async move {
        let (timeout, security) = (Duration::from_secs(args.timeout), args.connection.security()?);
        let client = Client::connect(&args.address, Options { timeout, security, ..Options::default() }).await?;
        Ok::<_, Box<dyn Error>>(match args.command {
            Command::Create(asked) => described(&client.create_bank(asked.into()).await?),
            Command::List { json } => {
                let banks = client.list_banks().await?.banks;
                if json { format!("{:#}\n", banks.iter().map(json::bank).collect::<Value>()) } else { listed(&banks) }
            }
            Command::Show { name, json } => {
                let bank = client.get_bank(v1::GetBankRequest { name }).await?;
                if json { format!("{:#}\n", json::bank(&bank)) } else { described(&bank) }
            }
            Command::Delete { name } => {
                let held = client.delete_bank(v1::DeleteBankRequest { name: name.clone() }).await?.entries;
                format!("bank {name} is deleted, which held {held} entries\n")
            }
        })
    })?;
    write!(std::io::stdout().lock(), "{said}")?;
    Ok(())
}

fn listed(banks: &[v1::Bank]) -> String {
    let mut table = Table::new(&["BANK", "KIND", "DIM", "METRIC", "DTYPE", "DURABILITY", "ENTRIES", "SEQUENCE", "STEP"]);
    for bank in banks {
        let mut row = vec![bank.name.clone(), kind(bank.kind()).to_owned(), bank.dim.to_string()];
        row.extend([metric(bank.metric()), dtype(bank.dtype()), durability(bank.durability())]);
        row.extend(match bank.recovering {
            Some(share) => ["recovering".to_owned(), format!("{:.0} %", share * 100.0), "-".to_owned()],
            None => [bank.entries.to_string(), bank.sequence.to_string(), step(bank)],
        });
        table.push(row);
    }
    table.to_string()
}

/// A line for each thing that there is to tell.
fn described(bank: &v1::Bank) -> String {
    let (metric, dtype) = (metric(bank.metric()), dtype(bank.dtype()));
    let bounded = |amount: u64, text: String| if amount == 0 { "unbounded".to_owned() } else { text };
    let mut lines = vec![
        ("bank", bank.name.clone()),
        ("kind", kind(bank.kind()).to_owned()),
        ("dim", format!("{} of {dtype}, {metric}", bank.dim)),
        ("durability", durability(bank.durability())),
        ("momentum", bank.momentum.to_string()),
        ("capacity", bounded(bank.capacity, bank.capacity.to_string())),
        ("shards", bank.shards.to_string()),
        ("entries", bank.entries.to_string()),
        ("labels", bank.labels.to_string()),
        ("groups", bank.groups.to_string()),
        ("sequence", bank.sequence.to_string()),
        ("step", step(bank)),
        ("bytes per entry", format!("{}, at most {} while a graph is built", bank.bytes_per_entry, bank.peak_bytes_per_entry)),
        ("bytes at capacity", bounded(bank.peak_bytes, HumanBytes(bank.peak_bytes).to_string())),
    ];
    if let Some(index) = &bank.index {
        lines.push(("index", index.reason.clone()));
        lines.extend(index.recall.map(|recall| ("recall", format!("{recall:.3} over {} checks", index.recall_samples))));
    }
    lines.extend(bank.recovering.map(|share| ("recovering", format!("{:.0} % read", share * 100.0))));
    lines.extend(bank.damage.clone().map(|damage| ("DAMAGED", damage)));
    lines.extend(
        bank.lost_after.map(|last| ("lost", format!("in a power cut, maybe: acknowledged writes after sequence {last}"))),
    );
    for stage in &bank.stages {
        let missing: Vec<String> = stage.missing_ranks.iter().map(ToString::to_string).collect();
        lines.push(("staged write", format!("step {} waits for ranks {}", stage.step, missing.join(", "))));
    }
    let width = lines.iter().map(|(what, _)| what.len()).max().unwrap_or(0);
    lines.into_iter().map(|(what, said)| format!("{what:<width$}  {said}\n")).collect()
}

fn step(bank: &v1::Bank) -> String {
    bank.step.map_or_else(|| "-".to_owned(), |step| step.to_string())
}
