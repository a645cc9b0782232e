//! `engine::fuzz::operations` under libFuzzer.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| sipring::engine::fuzz::operations(bytes));
