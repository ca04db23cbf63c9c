//! [`margay_bgp_fuzz::bfd`] for libFuzzer.

#![no_main]

libfuzzer_sys::fuzz_target!(|octets: &[u8]| margay_bgp_fuzz::bfd(octets));
