#![no_main]

libfuzzer_sys::fuzz_target!(
    init: negbank::fuzzing::write_seeds("bank_image"),
    |bytes: &[u8]| negbank::fuzzing::run("bank_image", bytes)
);
