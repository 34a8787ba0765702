//! The command line, a subcommand a file.

mod bank;
mod bench;
mod checkpoint;
mod choices;
mod config;
mod connection;
mod doctor;
mod export;
mod figures;
mod files;
mod import;
mod remote;
mod rows_bar;
mod sample;
mod serve;
mod settings;
mod table;
mod token;
mod top;

use std::error::Error;
use std::io::{self, Write as _};
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Serves negative samples to contrastive-learning trainers over gRPC.
#[derive(Debug, Parser)]
#[command(name = "negbank", version, propagate_version = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs a server until SIGTERM or SIGINT.
    ///
    /// Without any argument it listens on 127.0.0.1:7700 and keeps its banks in memory. After the signal, calls in flight may
    /// end within server.drain_seconds; a second signal ends them at once. `negbank config` lists all settings.
    Serve(serve::Args),
    /// Puts load on a server and tells what it served, how fast.
    ///
    /// Without any argument it starts a server in this process, fills a bank, and draws uniform negatives for ten seconds. Ctrl-C
    /// ends it early; the summary is printed all the same. It fails if every request did.
    Bench(Box<bench::Args>),
    /// Draws from a bank and prints what was served, and why.
    ///
    /// Without an anchor it takes an entry of the bank at random and shows the entries that are nearest to it.
    Sample(sample::Args),
    /// Shows the banks of a running server, live: what is written, drawn and missing, and how the indexes stand.
    ///
    /// Keys: q ends it, o orders by name or by what is served, arrows scroll. `--once` prints one table.
    Top(top::Args),
    /// Checks a deployment from outside: ports, readiness, access, clock, limits, load, recall, ranks that are waited for.
    ///
    /// Fails if something is broken, with --strict also if something asks for attention. It changes nothing.
    Doctor(doctor::Args),
    /// Makes, lists, shows and deletes banks.
    Bank(bank::Args),
    /// Makes, lists, restores and deletes checkpoints of a server's banks.
    ///
    /// The server keeps them where its setting checkpoints.location says.
    Checkpoint(checkpoint::Args),
    /// Writes the rows of a .safetensors or .npy file to a bank.
    ///
    /// They are read in pieces while they are sent, so that a file may be larger than the memory. Rows of several training steps are
    /// written step by step. If it breaks off, what was written stays: run it again.
    Import(import::Args),
    /// Reads a bank into a .safetensors or .npy file.
    ///
    /// Rows come as the bank holds them now. To bring back a bank as it was, to the bit, make a checkpoint instead.
    Export(export::Args),
    /// Prints every setting in force, as a TOML file, with what it means and where it comes from.
    Config(config::Args),
    /// Makes a token for a caller, of 256 random bits, and its entry for the server, which keeps only what the token hashes to.
    Token(token::Args),
}

/// Runs the command that the process's arguments name.
pub fn run() -> ExitCode {
    let ended = match Cli::parse().command {
        Command::Serve(args) => serve::run(&args),
        Command::Bench(args) => bench::run(&args),
        Command::Sample(args) => sample::run(&args),
        Command::Top(args) => top::run(&args),
        Command::Doctor(args) => doctor::run(&args),
        Command::Bank(args) => bank::run(args),
        Command::Checkpoint(args) => checkpoint::run(args),
        Command::Import(args) => import::run(&args),
        Command::Export(args) => export::run(&args),
        Command::Config(args) => config::run(&args),
        Command::Token(args) => token::run(&args),
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        // Whoever read has seen enough, as `head` has.
        Err(problem) if broke_the_pipe(problem.as_ref()) => ExitCode::SUCCESS,
        Err(problem) => {
            // Nothing can be done if even standard error is closed.
            let _closed = writeln!(std::io::stderr(), "negbank: {}", connection::told(problem.as_ref()));
            ExitCode::FAILURE
        }
    }
}

fn broke_the_pipe(problem: &(dyn Error + 'static)) -> bool {
    problem.downcast_ref::<io::Error>().is_some_and(|fault| fault.kind() == io::ErrorKind::BrokenPipe)
}
