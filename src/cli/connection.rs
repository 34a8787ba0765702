//! Flags of every command that calls a server.

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};

use crate::client::{ClientError, Code, Security};

/// Whom to trust, and what to show.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct Connection {
    /// Token that the server knows the caller by.
    #[arg(long, global = true, value_name = "TOKEN", env = "NEGBANK_TOKEN", hide_env_values = true)]
    token: Option<String>,
    /// PEM file of the authorities that the server's certificate may be of, at an https:// address; default: the system's.
    #[arg(long, global = true, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// PEM file of the client's own certificate, for a server that wants one.
    #[arg(long, global = true, value_name = "FILE", requires = "key")]
    certificate: Option<PathBuf>,
    /// PEM file of its key.
    #[arg(long, global = true, value_name = "FILE", requires = "certificate")]
    key: Option<PathBuf>,
    /// Name that the server's certificate must be of; default: the address's host.
    #[arg(long, global = true, value_name = "NAME")]
    server_name: Option<String>,
}

impl Connection {
    /// Whether it shows one of the client's own.
    pub(super) fn has_certificate(&self) -> bool {
        self.certificate.is_some()
    }

    /// The files, read.
    pub(super) fn security(&self) -> Result<Security, Box<dyn Error>> {
        let read = |path: &PathBuf| bytes(path);
        let (certificate, key) = (self.certificate.as_ref().map(read).transpose()?, self.key.as_ref().map(read).transpose()?);
        Ok(Security {
            token: self.token.clone(),
            ca: self.ca.as_ref().map(read).transpose()?,
            identity: certificate.zip(key),
            server_name: self.server_name.clone(),
        })
    }
}

/// A fault as whoever typed the command can mend it.
pub(super) fn told(fault: &(dyn Error + 'static)) -> String {
    match fault.downcast_ref::<ClientError>().map(ClientError::code) {
        Some(Code::Unauthenticated) => format!("{fault}; here --token, or NEGBANK_TOKEN in the environment"),
        _ => fault.to_string(),
    }
}

fn bytes(path: &Path) -> Result<Vec<u8>, String> {
    fs::read(path).map_err(|fault| format!("{}: {fault}", path.display()))
}
