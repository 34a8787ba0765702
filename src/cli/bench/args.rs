//! Arguments of `negbank bench`.

use std::time::Duration;

use clap::{Args as ClapArgs, ValueEnum};

use super::super::choices::{Floats, Metric};
use super::super::connection::Connection;
use super::draw::DrawArg;

/// Arguments of `bench`.
#[derive(Debug, ClapArgs)]
pub(in crate::cli) struct Args {
    #[command(flatten)]
    pub(super) server: ServerArgs,
    #[command(flatten)]
    pub(super) bank: BankArgs,
    #[command(flatten)]
    pub(super) request: RequestArgs,
    #[command(flatten)]
    pub(super) load: LoadArgs,
    /// Prints one JSON object on standard output instead of the table, and nothing else there.
    #[arg(long)]
    pub(super) json: bool,
}

/// Where the server is.
#[derive(Debug, ClapArgs)]
#[command(next_help_heading = "Server")]
pub(super) struct ServerArgs {
    /// host:port, https://host:port or unix:/path of a running server; without it one is started in this process, on a free port
    /// and with its own defaults.
    #[arg(long, value_name = "ADDRESS")]
    pub(super) address: Option<String>,
    #[command(flatten)]
    pub(super) connection: Connection,
    /// A setting of the server in this process, such as --set compute.threads=1; may be repeated.
    #[arg(long = "set", value_name = "KEY=VALUE", conflicts_with = "address")]
    pub(super) settings: Vec<String>,
}

/// What is drawn from.
#[derive(Debug, ClapArgs)]
#[command(next_help_heading = "Bank")]
pub(super) struct BankArgs {
    /// An existing bank, which is only read; without it a bank is created, filled with clustered unit vectors whose labels are
    /// their clusters, and removed at the end.
    #[arg(long, value_name = "NAME", requires = "address")]
    pub(super) bank: Option<String>,
    /// Lets --writers write to the existing bank. They send entries again as they were at the start, at the bank's step: in a keyed
    /// bank these move towards what they were, into a queue they come as new ones and its oldest leave.
    #[arg(long, requires = "bank")]
    pub(super) write: bool,
    /// Entries of the bank that is created.
    #[arg(long, default_value_t = 65_536, value_parser = clap::value_parser!(u64).range(1..=100_000_000), conflicts_with = "bank")]
    pub(super) entries: u64,
    /// Floats in an embedding.
    #[arg(long, default_value_t = 128, value_parser = clap::value_parser!(u32).range(1..=65_536), conflicts_with = "bank")]
    pub(super) dim: u32,
    /// How closeness is scored.
    #[arg(long, value_enum, default_value_t = Metric::Cosine, conflicts_with = "bank")]
    pub(super) metric: Metric,
    /// How embeddings are stored.
    #[arg(long, value_enum, default_value_t = Floats::F32, conflicts_with = "bank")]
    pub(super) dtype: Floats,
}

/// What each call asks for.
#[derive(Debug, ClapArgs)]
#[command(next_help_heading = "Request")]
pub(super) struct RequestArgs {
    /// Anchors of a call: new vectors of the bank's clusters, or entries of the existing bank.
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..=1_048_576))]
    pub(super) anchors: u32,
    /// Negatives for each anchor from each draw that gives no k of its own.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..))]
    pub(super) k: u32,
    /// A draw, STRATEGY[:OPTION,...]; repeated, the call is a mixture. Each takes k=N; uniform shared, with_replacement; weighted
    /// shared, alpha=X, without_replacement; balanced shared, without_replacement; nearest skip=N, window=N, candidates=N,
    /// choose=top|uniform|softmax, beta=X, min_score=X, max_score=X, without_replacement, count_exact; softmax beta=X, min_score=X,
    /// max_score=X, without_replacement; band lo=X, hi=X, with_replacement.
    #[arg(long = "draw", value_name = "DRAW", default_value = "uniform")]
    pub(super) draws: Vec<DrawArg>,
    /// Excludes the entries of each anchor's own label.
    #[arg(long)]
    pub(super) exclude_same_label: bool,
    /// Draws only from entries of this label; may be repeated.
    #[arg(long = "only-label", value_name = "LABEL", allow_negative_numbers = true)]
    pub(super) only_labels: Vec<i64>,
    /// Excludes the entries of this label; may be repeated.
    #[arg(long = "exclude-label", value_name = "LABEL", allow_negative_numbers = true)]
    pub(super) exclude_labels: Vec<i64>,
    /// Excludes entries without a label.
    #[arg(long)]
    pub(super) exclude_unlabelled: bool,
    /// Draws only from entries written at this training step or later.
    #[arg(long, value_name = "STEP")]
    pub(super) min_step: Option<u64>,
    /// How rows come back: each once, a row a pick, or ids without embeddings.
    #[arg(long, value_enum, default_value_t = Form::Pooled)]
    pub(super) form: Form,
    /// How embeddings are sent back.
    #[arg(long, value_enum, default_value_t = Floats::F32)]
    pub(super) encoding: Floats,
}

/// How hard the server is pressed.
#[derive(Debug, ClapArgs)]
#[command(next_help_heading = "Load")]
pub(super) struct LoadArgs {
    /// Calls in flight at once.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=65_536))]
    pub(super) concurrency: u32,
    /// Connections that the calls share.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=4_096))]
    pub(super) connections: u32,
    /// Seconds to measure.
    #[arg(long, value_name = "SECONDS", default_value = "10", value_parser = seconds)]
    pub(super) duration: Duration,
    /// Seconds of calls before that are not counted.
    #[arg(long, value_name = "SECONDS", default_value = "1", value_parser = seconds)]
    pub(super) warm_up: Duration,
    /// Seconds that a call may take; none is tried again.
    #[arg(long, value_name = "SECONDS", default_value = "30", value_parser = seconds)]
    pub(super) timeout: Duration,
    /// Writers beside the calls, each on a connection of its own, that send one batch after the other.
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u32).range(..=4_096))]
    pub(super) writers: u32,
    /// Rows of a written batch.
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..=1_048_576))]
    pub(super) write_rows: u32,
    /// Seeds the data and the draws.
    #[arg(long, default_value_t = 1)]
    pub(super) seed: u64,
}

/// `--form`
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Form {
    Pooled,
    PerAnchor,
    Ids,
}

const LONGEST: f64 = 86_400.0;

fn seconds(text: &str) -> Result<Duration, String> {
    let wanted = || format!("seconds are wanted, 0 to {LONGEST}, as in 10 or 0.5");
    let seconds: f64 = text.parse().map_err(|_| wanted())?;
    if (0.0..=LONGEST).contains(&seconds) { Ok(Duration::from_secs_f64(seconds)) } else { Err(wanted()) }
}
