//! `io::config_file::fuzz::config` under libFuzzer.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| sipring::io::config_file::fuzz::config(bytes));
