//! `auth::fuzz::jwt` under libFuzzer.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| sipring::auth::fuzz::jwt(bytes));
