#![no_main]

libfuzzer_sys::fuzz_target!(
    init: negbank::fuzzing::write_seeds("settings"),
    |bytes: &[u8]| negbank::fuzzing::run("settings", bytes)
);
