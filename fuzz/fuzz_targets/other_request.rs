#![no_main]

libfuzzer_sys::fuzz_target!(
    init: negbank::fuzzing::write_seeds("other_request"),
    |bytes: &[u8]| negbank::fuzzing::run("other_request", bytes)
);
