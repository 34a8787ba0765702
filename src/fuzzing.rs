//! What fuzzers call: a function for each kind of outside input, which fails if a promise about it is broken. Built for tests, and with
//! the feature `fuzzing`; no part of the library's interface.

use crate::{archive, config, engine, grpc};

/// One kind of input.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// Its name.
    pub name: &'static str,
    /// Takes an input; a panic is a finding.
    pub run: fn(&[u8]),
    /// Inputs to begin with, most of which are good ones.
    pub seeds: fn() -> Vec<Vec<u8>>,
}

/// All of them.
pub const TARGETS: [Target; 10] = [
    Target { name: "sample_request", run: grpc::fuzzing::sample_request, seeds: grpc::fuzzing::sample_requests },
    Target { name: "write_request", run: grpc::fuzzing::write_request, seeds: grpc::fuzzing::write_requests },
    Target { name: "bank_request", run: grpc::fuzzing::bank_request, seeds: grpc::fuzzing::bank_requests },
    Target { name: "other_request", run: grpc::fuzzing::other_request, seeds: grpc::fuzzing::other_requests },
    Target { name: "token_file", run: grpc::fuzzing::token_file, seeds: grpc::fuzzing::token_files },
    Target { name: "settings", run: config::fuzzing::settings, seeds: config::fuzzing::files },
    Target { name: "manifest", run: archive::fuzzing::manifest, seeds: archive::fuzzing::manifests },
    Target { name: "log_file", run: engine::fuzzing::log_file, seeds: engine::fuzzing::log_files },
    Target { name: "log_record", run: engine::fuzzing::log_record, seeds: engine::fuzzing::log_records },
    Target { name: "bank_image", run: engine::fuzzing::bank_image, seeds: engine::fuzzing::bank_images },
];

/// Writes the target's inputs to begin with into the folder that the environment's `NEGBANK_FUZZ_SEEDS` names, if it does.
pub fn write_seeds(name: &str) {
    let Some(folder) = std::env::var_os("NEGBANK_FUZZ_SEEDS").map(std::path::PathBuf::from) else { return };
    let target = TARGETS.iter().filter(|target| target.name == name);
    for (seed, number) in target.flat_map(|target| (target.seeds)()).zip(0..) {
        engine::fuzzing::must(std::fs::write(folder.join(format!("seed-{number}")), seed));
    }
}

/// Runs the target of that name, if there is one.
pub fn run(name: &str, input: &[u8]) {
    TARGETS.iter().filter(|target| target.name == name).for_each(|target| (target.run)(input));
}

#[cfg(test)]
mod tests;
