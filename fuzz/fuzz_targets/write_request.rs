#![no_main]

libfuzzer_sys::fuzz_target!(
    init: negbank::fuzzing::write_seeds("write_request"),
    |bytes: &[u8]| negbank::fuzzing::run("write_request", bytes)
);
