//! The negbank binary.

use std::process::ExitCode;

/// Gives what an answer needed back to the system about a second after its end (decision 0016; settings in .cargo/config.toml).
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    negbank::cli::run()
}
