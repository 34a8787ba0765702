//! `negbank bench`: a load generator. Each caller waits for an answer before it asks again, so a slow server is asked less often.

mod anchors;
mod args;
mod batches;
mod clusters;
pub(super) mod draw;
mod entries;
mod load;
mod progress;
pub(super) mod stopwatch;
mod summary;
mod tally;
mod target;

use std::error::Error;
use std::io::Write as _;
use std::sync::Arc;

pub(super) use args::Args;
use args::{Form, RequestArgs};
use load::{Outcome, Work};
use progress::Progress;
use summary::Summary;
use target::Target;

use crate::app::{Embedded, StopSignals};
use crate::client::{Client, ClientError, Options, messages as v1};
use crate::config::{Settings, Sources};

pub(super) fn run(args: &Args) -> Result<(), Box<dyn Error>> {
    if let Some(name) = &args.bank.bank
        && args.load.writers > 0
        && !args.bank.write
    {
        return Err(format!("--writers would change bank {name:?}; add --write if that is meant").into());
    }
    let embedded = args.server.address.is_none().then(|| embedded(&args.server.settings)).transpose()?;
    let address = embedded.as_ref().map(|server| &server.address).or(args.server.address.as_ref()).cloned().unwrap_or_default();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(bench(args, &address))
}

/// Neither a file nor the environment of the machine's own server is meant for this one.
fn embedded(settings: &[String]) -> Result<Embedded, Box<dyn Error>> {
    let mut flags = vec!["server.listen=127.0.0.1:0".to_owned()];
    flags.extend_from_slice(settings);
    Ok(Embedded::start(Settings::load(&Sources { flags, ..Sources::default() })?)?)
}

async fn bench(args: &Args, address: &str) -> Result<(), Box<dyn Error>> {
    let mut signals = StopSignals::listen()?;
    let security = args.server.connection.security()?;
    let options = Options { timeout: args.load.timeout, security, ..Options::default() };
    let client = Client::connect(address, options.clone()).await?;
    let mut target = Target::open(args, client).await?;
    let measured = measure(args, address, options, &mut target, &mut signals).await;
    tokio::select! {
        () = target.remove() => {}
        () = signals.next() => writeln!(std::io::stderr(), "negbank: bank {:?} may be left behind", target.bank.name)?,
    }
    let outcome = measured?;
    let summary = Summary { args, address, bank: &target.bank, created: target.created, outcome: &outcome };
    let mut out = std::io::stdout().lock();
    if args.json {
        writeln!(out, "{:#}", summary.json())?;
    } else {
        write!(out, "{summary}")?;
    }
    verdict(&outcome)
}

async fn measure(
    args: &Args,
    address: &str,
    options: Options,
    target: &mut Target,
    signals: &mut StopSignals,
) -> Result<Outcome, Box<dyn Error>> {
    let progress = Progress;
    let (anchors, batches) = tokio::select! {
        ready = target.prepare(args, &progress) => ready?,
        () = signals.next() => return Err("interrupted before anything was measured".into()),
    };
    let options = Options { retries: 0, ..options };
    let work = Work {
        callers: connect(address, &options, args.load.connections).await?,
        writers: connect(address, &options, args.load.writers).await?,
        request: request(&args.request, &target.bank.name),
        anchors,
        batches,
        seed: args.load.seed,
    };
    // What is wrong with the request is wrong with all of them: told at once, not after the run.
    if let Some(client) = work.callers.first() {
        client.sample_columns(work.request(0)).await?;
    }
    Ok(load::run(Arc::new(work), &args.load, &progress, signals).await)
}

async fn connect(address: &str, options: &Options, count: u32) -> Result<Vec<Client>, ClientError> {
    let mut connections = Vec::new();
    for _ in 0..count {
        connections.push(Client::connect(address, options.clone()).await?);
    }
    Ok(connections)
}

fn request(args: &RequestArgs, bank: &str) -> v1::SampleRequest {
    let mut columns = vec![v1::Column::Ids.into()];
    if args.form != Form::Ids {
        columns.push(v1::Column::Embeddings.into());
    }
    let layout = if args.form == Form::PerAnchor { v1::Layout::PerAnchor } else { v1::Layout::Pooled };
    v1::SampleRequest {
        bank: bank.to_owned(),
        draws: args.draws.iter().map(|draw| draw.of(args.k)).collect(),
        filters: Some(v1::Filters {
            exclude_same_label: args.exclude_same_label,
            only_labels: args.only_labels.clone(),
            exclude_labels: args.exclude_labels.clone(),
            exclude_unlabelled: args.exclude_unlabelled,
            min_step: args.min_step,
            ..v1::Filters::default()
        }),
        columns,
        encoding: v1::EmbeddingEncoding::from(args.encoding).into(),
        layout: layout.into(),
        ..v1::SampleRequest::default()
    }
}

/// A run of which nothing came is a failure, whatever was printed.
fn verdict(outcome: &Outcome) -> Result<(), Box<dyn Error>> {
    let calls = &outcome.calls;
    match calls.errors.values().next() {
        Some(failure) if calls.answered == 0 => {
            Err(format!("all {} requests failed, the first: {}", calls.failures(), failure.first).into())
        }
        None if calls.answered == 0 => Err("no request was answered while it was measured; give it a longer --duration".into()),
        _ => Ok(()),
    }
}
