//! [`margay_bgp_fuzz::session`] for libFuzzer.

#![no_main]

libfuzzer_sys::fuzz_target!(|octets: &[u8]| margay_bgp_fuzz::session(octets));
