//! `negbank config`: the settings in force, as a TOML file that sets them.

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
        writeln!(out, "# {}\n{} = {}  # {}", setting.meaning, setting.key, toml(&setting.value), setting.origin)?;
    }
    Ok(())
}

/// Numbers and truths as they are, all else as a string, in which TOML has JSON's escapes.
fn toml(value: &str) -> String {
    let number = value.parse::<u64>().is_ok_and(|number| number.to_string() == value);
    if number || value.parse::<bool>().is_ok() { value.to_owned() } else { serde_json::Value::from(value).to_string() }
}
