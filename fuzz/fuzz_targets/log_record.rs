#![no_main]

libfuzzer_sys::fuzz_target!(
    init: negbank::fuzzing::write_seeds("log_record"),
    |bytes: &[u8]| negbank::fuzzing::run("log_record", bytes)
);
