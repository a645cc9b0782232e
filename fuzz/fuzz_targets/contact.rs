//! `registrar::fuzz::contact` under libFuzzer.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| sipring::registrar::fuzz::contact(bytes));
