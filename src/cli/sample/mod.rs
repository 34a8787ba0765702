//! `negbank sample`: one request, answered for people.

mod json;
mod shown;

use std::error::Error;
use std::io::Write as _;

use shown::{Anchor, Shown};

use super::bench::draw::DrawArg;
use super::connection::Connection;
use crate::client::{Client, ClientError, Options, messages as v1, rows};

/// Arguments of `sample`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The bank.
    #[arg(value_name = "BANK")]
    bank: String,
    /// host:port, https://host:port or unix:/path of the server.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:7700")]
    address: String,
    #[command(flatten)]
    connection: Connection,
    /// An anchor that is an entry of the bank, which lends it embedding, label and group; may be repeated.
    #[arg(long = "id", value_name = "ID")]
    ids: Vec<u64>,
    /// An anchor's embedding, as in 0.6,-0.8.
    #[arg(long, value_name = "FLOATS", value_delimiter = ',', allow_hyphen_values = true, conflicts_with = "ids")]
    vector: Vec<f32>,
    /// Label of the --vector, for --exclude-same-label.
    #[arg(long, value_name = "LABEL", allow_negative_numbers = true, requires = "vector")]
    label: Option<i64>,
    /// A draw, STRATEGY[:OPTION,...], as in `negbank bench --help`; repeated, the request is a mixture.
    #[arg(long = "draw", value_name = "DRAW", default_value = "nearest")]
    draws: Vec<DrawArg>,
    /// Negatives for each anchor from each draw that gives no k of its own.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..))]
    k: u32,
    /// Excludes the entries of the anchor's label.
    #[arg(long)]
    exclude_same_label: bool,
    /// Draws only from entries of this label; may be repeated.
    #[arg(long = "only-label", value_name = "LABEL", allow_negative_numbers = true)]
    only_labels: Vec<i64>,
    /// Excludes the entries of this label; may be repeated.
    #[arg(long = "exclude-label", value_name = "LABEL", allow_negative_numbers = true)]
    exclude_labels: Vec<i64>,
    /// Draws only from entries written at this training step or later.
    #[arg(long, value_name = "STEP")]
    min_step: Option<u64>,
    /// Draws what this seed draws; default: the server takes one and tells it.
    #[arg(long)]
    seed: Option<u64>,
    /// Prints it as JSON.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &Args) -> Result<(), Box<dyn Error>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let shown = runtime.block_on(probe(args))?;
    let mut out = std::io::stdout().lock();
    if args.json {
        writeln!(out, "{:#}", shown.json())?;
    } else {
        write!(out, "{shown}")?;
    }
    Ok(())
}

async fn probe(args: &Args) -> Result<Shown, Box<dyn Error>> {
    let options = Options { security: args.connection.security()?, ..Options::default() };
    let client = Client::connect(&args.address, options).await?;
    let bank = client.get_bank(v1::GetBankRequest { name: args.bank.clone() }).await?;
    let anchors = anchors(args, &client).await?;
    let draws: Vec<v1::Draw> = args.draws.iter().map(|draw| draw.of(args.k)).collect();
    if draws.iter().any(|draw| draw.scope() == v1::Scope::Shared) {
        return Err("a probe shows what each anchor gets; leave `shared` out".into());
    }
    let request = v1::SampleRequest {
        bank: args.bank.clone(),
        anchors: Some(of_request(&anchors, args)),
        draws,
        filters: Some(v1::Filters {
            exclude_same_label: args.exclude_same_label,
            only_labels: args.only_labels.clone(),
            exclude_labels: args.exclude_labels.clone(),
            min_step: args.min_step,
            ..v1::Filters::default()
        }),
        columns: [
            v1::Column::Ids,
            v1::Column::Labels,
            v1::Column::Groups,
            v1::Column::Steps,
            v1::Column::Scores,
            v1::Column::LogQ,
        ]
        .map(i32::from)
        .into(),
        seed: args.seed,
        ..v1::SampleRequest::default()
    };
    let answer = client.sample(request).await?;
    let draws = args.draws.iter().map(|draw| draw.text.clone()).collect();
    Ok(Shown { bank, anchors, draws, answer })
}

/// The anchors that were named, or an entry of the bank at random.
async fn anchors(args: &Args, client: &Client) -> Result<Vec<Anchor>, Box<dyn Error>> {
    if !args.vector.is_empty() {
        return Ok(vec![Anchor::Vector { label: args.label }]);
    }
    let ids = if args.ids.is_empty() { vec![at_random(args, client).await?] } else { args.ids.clone() };
    let request = v1::FetchRequest { bank: args.bank.clone(), ids: ids.clone(), ..v1::FetchRequest::default() };
    let answer = client.fetch(request).await?;
    if let Some((missing, _)) = ids.iter().zip(&answer.found).find(|(_, found)| **found == 0) {
        return Err(format!("bank {:?} has no entry {missing}", args.bank).into());
    }
    let rows = answer.rows.unwrap_or_default();
    Ok((0..ids.len()).map(|row| Anchor::entry(&rows, row)).collect())
}

async fn at_random(args: &Args, client: &Client) -> Result<u64, Box<dyn Error>> {
    let request = v1::SampleRequest {
        bank: args.bank.clone(),
        anchors: Some(v1::Anchors { rows: 1, ..v1::Anchors::default() }),
        draws: vec![v1::Draw {
            k: 1,
            strategy: Some(v1::draw::Strategy::Uniform(v1::Uniform::default())),
            ..v1::Draw::default()
        }],
        columns: vec![v1::Column::Ids.into()],
        seed: args.seed,
        ..v1::SampleRequest::default()
    };
    let drawn: Result<v1::SampleResponse, ClientError> = client.sample(request).await;
    let rows = drawn?.rows.unwrap_or_default();
    rows.ids.first().copied().ok_or_else(|| format!("bank {:?} is empty: there is nothing to draw", args.bank).into())
}

fn of_request(anchors: &[Anchor], args: &Args) -> v1::Anchors {
    if args.vector.is_empty() {
        let ids = anchors.iter().filter_map(Anchor::id).collect();
        return v1::Anchors { ids, ..v1::Anchors::default() };
    }
    v1::Anchors { embeddings: Some(rows(&args.vector)), labels: args.label.into_iter().collect(), ..v1::Anchors::default() }
}
