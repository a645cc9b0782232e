//! `sip::fuzz::stream` under libFuzzer.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| sipring::sip::fuzz::stream(bytes));
