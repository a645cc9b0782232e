//! `auth::fuzz::jwks` under libFuzzer.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| sipring::auth::fuzz::jwks(bytes));
