//! The configuration file: a mistake is an error with a text, and what is accepted can be put in force.

use std::time::Instant;

use margay_bgp::router::Router;
use margay_bgp::speaker::daemon::File;
use margay_bgp_sys::measure;

/// The longest file tried.
const LONGEST: usize = 16 * 1024;
/// What reading may hold for each octet of the file.
const OCTETS_EACH: usize = 4096;
/// And beyond that, whatever the length: the parser's own buffers.
const OCTETS_BASE: usize = 4 * 1024 * 1024;

/// Reads a configuration file, and starts a router with what it asks for.
pub fn config(octets: &[u8]) {
    let Ok(text) = std::str::from_utf8(&octets[..octets.len().min(LONGEST)]) else {
        return;
    };
    let ((), allocated) = measure(|| read(text));
    let allowed = OCTETS_BASE + OCTETS_EACH * text.len();
    assert!(
        allocated.peak <= allowed,
        "{} octets cost {allocated:?}, {allowed} are allowed",
        text.len()
    );
}

fn read(text: &str) {
    let file: File = match serde_saphyr::from_str(text) {
        Ok(file) => file,
        Err(error) => return assert!(!error.to_string().is_empty()),
    };
    // Files beside the file are none of this target's business.
    if file
        .neighbors
        .iter()
        .any(|entry| entry.password_file.is_some())
    {
        return;
    }
    let config = match file.speaker_config() {
        Ok(config) => config,
        Err(error) => return assert!(!error.to_string().is_empty()),
    };
    let mut router = Router::new(Instant::now(), config.clone(), 1)
        .expect("what passed the checks of the file passes those of the router");
    while router.poll_output().is_some() {}
    router
        .configure(Instant::now(), config)
        .expect("and does so twice");
    assert_eq!(router.poll_output(), None, "nothing changed");
}
