//! `negbank export`: a bank's entries as a file.

use std::collections::BTreeMap;
use std::error::Error;
use std::io::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args as ClapArgs;

use super::choices::Floats;
use super::connection::Connection;
use super::files::{Dtype, Format, Output};
use super::rows_bar::rows_bar;
use crate::app::StopSignals;
use crate::client::{Client, Options, messages as v1};

/// Arguments of `export`.
#[derive(Debug, ClapArgs)]
pub(super) struct Args {
    /// The bank.
    bank: String,
    /// x.safetensors, which gets every column; or x.npy, which gets the embeddings, with x.ids.npy, x.labels.npy and so on beside it.
    file: PathBuf,
    /// How embeddings are written; default: as the bank keeps them (in .npy, which has no bf16, as f32 then).
    #[arg(long, value_enum)]
    encoding: Option<Floats>,
    /// Fail if the bank is written while it is read; else that is only told.
    #[arg(long)]
    consistent: bool,
    /// Take the place of files that are there, once the new ones are whole.
    ///
    /// Those of an .npy export change together: x.npy goes first and comes last. If the machine stops in between there is no x.npy, and all
    /// its rows lie beside it: the old files as x.npy.N.old and so on, the new ones as x.npy.N.partial or under their names.
    #[arg(long)]
    replace: bool,
    /// The server: host:port, https://host:port, or unix:/path.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:7700")]
    address: String,
    /// Seconds that it may take.
    #[arg(long, value_name = "SECONDS", default_value_t = 3_600, value_parser = clap::value_parser!(u64).range(1..))]
    timeout: u64,
    #[command(flatten)]
    connection: Connection,
}

pub(super) fn run(args: &Args) -> Result<(), Box<dyn Error>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut signals = StopSignals::listen()?;
        // What is dropped here takes its files away; files that are taking their names are not disturbed.
        tokio::select! {
            exported = export(args) => exported,
            () = signals.next() => Err("interrupted: nothing was kept".into()),
        }
    })
}

async fn export(args: &Args) -> Result<(), Box<dyn Error>> {
    let format = Format::of(&args.file)?;
    Output::to_replace(&args.file, args.replace)?;
    let (timeout, security) = (Duration::from_secs(args.timeout), args.connection.security()?);
    let client = Client::connect(&args.address, Options { timeout, security, ..Options::default() }).await?;
    let bank = client.get_bank(v1::GetBankRequest { name: args.bank.clone() }).await?;
    let kept = match bank.dtype() {
        v1::Dtype::Bf16 if format == Format::Npy => Floats::F32,
        v1::Dtype::Bf16 => Floats::Bf16,
        v1::Dtype::F16 => Floats::F16,
        v1::Dtype::F32 | v1::Dtype::Unspecified => Floats::F32,
    };
    let floats = args.encoding.unwrap_or(kept);
    let dtype = match floats {
        Floats::F32 => Dtype::F32,
        Floats::F16 => Dtype::F16,
        Floats::Bf16 if format == Format::Npy => {
            return Err("numpy has no bf16: --encoding f32 or f16, or a .safetensors file".into());
        }
        Floats::Bf16 => Dtype::Bf16,
    };
    let mut output = Output::create(&args.file, args.replace, dtype, bank.dim as usize)?;
    let request = v1::ScanRequest {
        bank: args.bank.clone(),
        encoding: v1::EmbeddingEncoding::from(floats).into(),
        ..v1::ScanRequest::default()
    };
    let mut scan = client.scan(request).await?;
    let bar = rows_bar(bank.entries);
    let (mut consistent, mut sequence) = (false, bank.sequence);
    while let Some(chunk) = scan.next().await? {
        output.put(&chunk)?;
        bar.set_length(chunk.entries);
        bar.set_position(output.rows() as u64);
        (consistent, sequence) = (chunk.last && chunk.consistent, chunk.sequence);
    }
    let seconds = bar.elapsed().as_secs_f64();
    bar.finish_and_clear();
    let written = "the bank was written while it was read, so that its rows are of several moments";
    if !consistent {
        if args.consistent {
            return Err(format!("{written}: nothing was kept. A checkpoint is of one moment whatever is written").into());
        }
        writeln!(std::io::stderr(), "negbank: {written}; --consistent refuses that, and a checkpoint is of one moment")?;
    }
    let rows = output.rows();
    let about =
        [("bank", bank.name.clone()), ("metric", bank.metric().as_str_name().to_owned()), ("sequence", sequence.to_string())];
    let paths = output.finish(&BTreeMap::from(about))?;
    let names: Vec<String> = paths.iter().map(|path| path.display().to_string()).collect();
    writeln!(std::io::stdout(), "{rows} rows of bank {} in {seconds:.1} s: {}", bank.name, names.join(", "))?;
    Ok(())
}
