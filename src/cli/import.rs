//! `negbank import`: a file's rows as a bank's entries.

use std::error::Error;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::Args as ClapArgs;
use indicatif::ProgressBar;
use tokio::sync::mpsc;

use super::choices::Metric;
use super::connection::Connection;
use super::files::{Input, Name};
use super::rows_bar::rows_bar;
use crate::app::StopSignals;
use crate::client::{Client, Code, Options, messages as v1};

/// Arguments of `import`.
#[derive(Debug, ClapArgs)]
pub(super) struct Args {
    /// The bank.
    bank: String,
    /// x.safetensors with a tensor "embeddings" and, as far as they are there, "ids", "labels", "groups", "weights" and "steps" (as
    /// `negbank export` writes them); or x.npy with the embeddings, and x.ids.npy, x.labels.npy and so on beside it.
    file: PathBuf,
    /// Ids, from an .npy file. Without ids the rows of a keyed bank are numbered from 0, and a queue numbers them itself.
    #[arg(long, value_name = "FILE")]
    ids: Option<PathBuf>,
    /// Labels, from an .npy file.
    #[arg(long, value_name = "FILE")]
    labels: Option<PathBuf>,
    /// Groups, from an .npy file.
    #[arg(long, value_name = "FILE")]
    groups: Option<PathBuf>,
    /// Weights, from an .npy file.
    #[arg(long, value_name = "FILE")]
    weights: Option<PathBuf>,
    /// Training step of all rows, whatever steps the file has.
    #[arg(long)]
    step: Option<u64>,
    /// How far entries that are there stay what they are, 0 to below 1; 0 replaces them. Keyed banks only.
    #[arg(long, default_value_t = 0.0)]
    momentum: f32,
    /// Create the bank if there is none, of the file's dimension: keyed, or a queue with --queue.
    #[arg(long)]
    create: bool,
    /// Capacity of the queue bank that --create makes.
    #[arg(long, value_name = "CAPACITY", requires = "create", value_parser = clap::value_parser!(u64).range(1..))]
    queue: Option<u64>,
    /// How the bank that --create makes scores.
    #[arg(long, value_enum, default_value_t = Metric::Cosine, requires = "create")]
    metric: Metric,
    /// The server: host:port, https://host:port, or unix:/path.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:7700")]
    address: String,
    /// Seconds that each batch may take, tries included.
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..))]
    timeout: u64,
    #[command(flatten)]
    connection: Connection,
}

/// Bytes of a batch, about, and its rows at most.
const BATCH_BYTES: usize = 4 << 20;
const BATCH_ROWS: usize = 16_384;
/// Batches that were read and are not sent yet.
const READ_AHEAD: usize = 2;

pub(super) fn run(args: &Args) -> Result<(), Box<dyn Error>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(import(args))
}

async fn import(args: &Args) -> Result<(), Box<dyn Error>> {
    let given =
        [(Name::Ids, &args.ids), (Name::Labels, &args.labels), (Name::Groups, &args.groups), (Name::Weights, &args.weights)];
    let given: Vec<(Name, &Path)> =
        given.into_iter().filter_map(|(name, path)| path.as_deref().map(|path| (name, path))).collect();
    let input = Input::open(&args.file, &given)?;
    for (name, path) in input.sources() {
        writeln!(std::io::stderr(), "{name}: {}", path.display())?;
    }
    let (timeout, security) = (Duration::from_secs(args.timeout), args.connection.security()?);
    let client = Client::connect(&args.address, Options { timeout, security, ..Options::default() }).await?;
    let bank = open(args, &client, &input).await?;
    if bank.dim as usize != input.dim() {
        return Err(
            format!("bank {} is of dimension {}, and the file's rows are of {}", bank.name, bank.dim, input.dim()).into()
        );
    }
    let total = input.rows();
    let queue = bank.kind() == v1::BankKind::Queue;
    if queue && args.momentum != 0.0 {
        return Err("--momentum: the entries of a queue never move".into());
    }
    let mut signals = StopSignals::listen()?;
    let batches = read(Arc::new(input), args, queue);
    let bar = rows_bar(total as u64);
    let sent = tokio::select! {
        sent = send(&client, &bank.name, batches, &bar) => sent,
        () = signals.next() => Err("stopped".to_owned()),
    };
    let (done, seconds) = (bar.position(), bar.elapsed().as_secs_f64());
    bar.finish_and_clear();
    sent.map_err(|why| format!("after {done} of {total} rows, which are in the bank: {why}"))?;
    let now = client.get_bank(v1::GetBankRequest { name: bank.name }).await?;
    writeln!(std::io::stdout(), "{done} rows into bank {} in {seconds:.1} s; it holds {} entries", now.name, now.entries)?;
    Ok(())
}

/// Writes the batches; the bar tells how many rows are in the bank.
async fn send(
    client: &Client,
    bank: &str,
    mut batches: mpsc::Receiver<Result<(usize, v1::WriteRequest), String>>,
    bar: &ProgressBar,
) -> Result<(), String> {
    while let Some(batch) = batches.recv().await {
        let (rows, mut request) = batch?;
        bank.clone_into(&mut request.bank);
        client.write(request).await.map_err(|fault| fault.to_string())?;
        bar.inc(rows as u64);
    }
    Ok(())
}

/// The bank, made if it is not there and that was asked for.
async fn open(args: &Args, client: &Client, input: &Input) -> Result<v1::Bank, Box<dyn Error>> {
    match client.get_bank(v1::GetBankRequest { name: args.bank.clone() }).await {
        Ok(bank) => Ok(bank),
        Err(fault) if fault.code() == Code::NotFound && args.create => {
            let kind = if args.queue.is_some() { v1::BankKind::Queue } else { v1::BankKind::Keyed };
            let (name, dim) = (args.bank.clone(), u32::try_from(input.dim())?);
            let capacity = args.queue.unwrap_or_default();
            let request = v1::CreateBankRequest {
                name,
                dim,
                capacity,
                kind: kind.into(),
                metric: v1::Metric::from(args.metric).into(),
                ..v1::CreateBankRequest::default()
            };
            Ok(client.create_bank(request).await?)
        }
        Err(fault) if fault.code() == Code::NotFound => Err(format!("{fault}; --create makes it").into()),
        Err(fault) => Err(fault.into()),
    }
}

/// Batches and their rows, read on a thread of its own a little ahead of what is sent.
fn read(input: Arc<Input>, args: &Args, queue: bool) -> mpsc::Receiver<Result<(usize, v1::WriteRequest), String>> {
    let (sender, batches) = mpsc::channel(READ_AHEAD);
    let (of_all, momentum) = (args.step, (!queue).then_some(args.momentum));
    std::thread::spawn(move || {
        let most = (BATCH_BYTES / input.row_bytes().max(1)).clamp(1, BATCH_ROWS);
        let order = match input.order(queue) {
            Ok(order) => order,
            Err(fault) => return drop(sender.blocking_send(Err(fault))),
        };
        let alike = |(_, a): &(u32, Option<u64>), (_, b): &(u32, Option<u64>)| of_all.is_some() || a == b;
        for part in order.chunk_by(alike).flat_map(|of_step| of_step.chunks(most)) {
            let rows: Vec<u32> = part.iter().map(|&(row, _)| row).collect();
            let step = of_all.or(part.first().and_then(|&(_, step)| step));
            let batch = input.batch(&rows, queue).map(|batch| (rows.len(), v1::WriteRequest { step, momentum, ..batch }));
            // Whoever sent has given up.
            if sender.blocking_send(batch).is_err() {
                return;
            }
        }
    });
    batches
}
