//! [`margay_bgp_fuzz::discovery`] for libFuzzer.

#![no_main]

libfuzzer_sys::fuzz_target!(|octets: &[u8]| margay_bgp_fuzz::discovery(octets));
