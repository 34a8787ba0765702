#![no_main]

libfuzzer_sys::fuzz_target!(
    init: negbank::fuzzing::write_seeds("sample_request"),
    |bytes: &[u8]| negbank::fuzzing::run("sample_request", bytes)
);
