//! `ws::fuzz::upgrade` under libFuzzer.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| sipring::ws::fuzz::upgrade(bytes));
