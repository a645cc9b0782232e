//! `flow::fuzz::stun` under libFuzzer.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| sipring::flow::fuzz::stun(bytes));
