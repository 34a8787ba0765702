//! `negbank serve`

use std::error::Error;

use super::settings::Flags;
use crate::app;
use crate::config::Settings;

/// Arguments of `serve`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    flags: Flags,
}

pub(super) fn run(args: &Args) -> Result<(), Box<dyn Error>> {
    let settings = Settings::load(&args.flags.sources())?;
    Ok(app::run(settings)?)
}
