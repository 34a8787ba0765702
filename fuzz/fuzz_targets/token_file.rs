#![no_main]

libfuzzer_sys::fuzz_target!(
    init: negbank::fuzzing::write_seeds("token_file"),
    |bytes: &[u8]| negbank::fuzzing::run("token_file", bytes)
);
