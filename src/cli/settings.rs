//! Where `negbank serve` and `negbank config` take their settings from.

use std::ffi::OsString;
use std::path::PathBuf;

use crate::config::Sources;

/// Flags of every command that takes settings.
#[derive(Debug, clap::Args)]
pub(super) struct Flags {
    /// TOML file of settings; the environment (NEGBANK__SERVER__LISTEN) overrides it, and flags override both.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Address and port to listen on; the same as --set server.listen=ADDRESS.
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<String>,
    /// Any setting, such as --set limits.max_k=1024; may be repeated. `negbank config` lists them.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    settings: Vec<String>,
}

impl Flags {
    /// The flags with the process's environment.
    pub(super) fn sources(&self) -> Sources {
        let mut flags = self.settings.clone();
        flags.extend(self.listen.iter().map(|address| format!("server.listen={address}")));
        // Other variables are nobody's business here, and need not even be text.
        let text = |(key, value): (OsString, OsString)| Some((key.into_string().ok()?, value.to_string_lossy().into_owned()));
        let environment = std::env::vars_os().filter_map(text).filter(|(key, _)| key.starts_with("NEGBANK__")).collect();
        Sources { file: self.config.clone(), environment, flags }
    }
}
