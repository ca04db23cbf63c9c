//! [`margay_bgp_fuzz::config`] for libFuzzer.

#![no_main]

libfuzzer_sys::fuzz_target!(|octets: &[u8]| margay_bgp_fuzz::config(octets));
