#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| negbank::fuzzing::run("sample_request", bytes));
