#![no_main]

libfuzzer_sys::fuzz_target!(
    init: negbank::fuzzing::write_seeds("manifest"),
    |bytes: &[u8]| negbank::fuzzing::run("manifest", bytes)
);
