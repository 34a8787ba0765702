//! The negbank binary.

use std::process::ExitCode;

fn main() -> ExitCode {
    negbank::cli::run()
}
