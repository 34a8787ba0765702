//! `negbank config`

use std::error::Error;
use std::io::Write as _;

use super::settings::Flags;
use crate::config::Settings;

/// Arguments of `config`: `serve`'s own.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    flags: Flags,
}

pub(super) fn run(args: &Args) -> Result<(), Box<dyn Error>> {
    let (_, effective) = Settings::explain(&args.flags.sources())?;
    let mut out = std::io::stdout().lock();
    for setting in effective {
        writeln!(out, "# {}\n{} = {}  # {}", setting.meaning, setting.key, setting.value, setting.origin)?;
    }
    Ok(())
}
