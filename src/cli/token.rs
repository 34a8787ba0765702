//! `negbank token`

use std::error::Error;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::PathBuf;

use crate::client::random;
use crate::config::{Role, TokenEntry, fingerprint};

/// Arguments of `token`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Whom the token stands for, as in logs and in messages to its owner.
    #[arg(long, value_name = "NAME")]
    subject: String,
    /// read: reading and drawing; write: entries and gathers, too; admin: creating, deleting, keeping and
    /// restoring banks, too.
    #[arg(long, value_parser = ["read", "write", "admin"])]
    role: String,
    /// Names of the banks that it is for, in which * stands for any characters; may be repeated.
    #[arg(long = "bank", value_name = "PATTERN", default_value = "*")]
    banks: Vec<String>,
    /// Append the entry to this file of setting auth.tokens, and print nothing but the token.
    #[arg(long, value_name = "FILE")]
    append: Option<PathBuf>,
}

pub(super) fn run(args: &Args) -> Result<(), Box<dyn Error>> {
    let bits: Option<Vec<u64>> = (0..4).map(|_| random()).collect();
    let bits = bits.ok_or("the system gives no entropy")?;
    let token = bits.iter().fold("nb_".to_owned(), |text, part| format!("{text}{part:016x}"));
    let role = match args.role.as_str() {
        "read" => Role::Read,
        "write" => Role::Write,
        _ => Role::Admin,
    };
    let entry = TokenEntry { subject: args.subject.clone(), sha256: fingerprint(&token), role, banks: args.banks.clone() };
    let mut out = std::io::stdout();
    match &args.append {
        Some(file) => {
            let opened = OpenOptions::new().append(true).create(true).open(file);
            let mut opened = opened.map_err(|fault| format!("{}: {fault}", file.display()))?;
            opened.write_all(format!("{}\n", as_toml(&entry)?).as_bytes())?;
            writeln!(out, "{token}")?;
        }
        None => {
            writeln!(out, "The token, which is shown only now:\n\n{token}\n\nIts entry in the file of setting auth.tokens:\n")?;
            writeln!(out, "{}", as_toml(&entry)?)?;
        }
    }
    Ok(())
}

/// JSON's strings and lists are TOML's.
fn as_toml(entry: &TokenEntry) -> Result<String, serde_json::Error> {
    let TokenEntry { subject, sha256, role, banks } = entry;
    let (subject, role, banks) = (serde_json::to_string(subject)?, serde_json::to_string(role)?, serde_json::to_string(banks)?);
    Ok(format!("[[tokens]]\nsubject = {subject}\nsha256 = \"{sha256}\"\nrole = {role}\nbanks = {banks}"))
}
