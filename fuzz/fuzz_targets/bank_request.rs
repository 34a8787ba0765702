#![no_main]

libfuzzer_sys::fuzz_target!(
    init: negbank::fuzzing::write_seeds("bank_request"),
    |bytes: &[u8]| negbank::fuzzing::run("bank_request", bytes)
);
