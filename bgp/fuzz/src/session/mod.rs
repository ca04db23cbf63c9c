//! Whole sessions: a router, two peers and a range that the script speaks for, and a good peer that must never notice.
//!
//! The script decides what the bad peers send and when they connect, read and go, how time passes and how the configuration
//! changes. The good peer is a router of its own. Whatever happens:
//!
//! - nothing panics, no timer stands still, nothing is asked for without end, and memory stays within bounds;
//! - the good peer never finds anything wrong with what it is sent;
//! - afterwards its session is up, routes pass both ways, and of the bad peers' routes nothing is left.
//!
//! | file | what |
//! |---|---|
//! | `lab` | the routers, their connections, virtual time |
//! | `script` | octets to steps |
//! | `speech` | what bad peers say when they say something sensible |
//! | `settings` | configurations, and how they change |

mod lab;
mod script;
mod settings;
mod speech;

use margay_bgp_sys::measure;

use crate::input::Input;
use lab::Lab;

/// The longest script, in octets.
const LONGEST: usize = 4096;
/// Steps of a script at most.
const STEPS: usize = 400;
/// What a script may hold for each of its octets: a step of three octets can announce 64 routes, which both routers hold.
const OCTETS_EACH: usize = 24 * 1024;
/// And beyond that, whatever the length.
const OCTETS_BASE: usize = 2 * 1024 * 1024;

/// Plays a script, and sees whether all is well afterwards.
pub fn session(octets: &[u8]) {
    let octets = &octets[..octets.len().min(LONGEST)];
    let ((), allocated) = measure(|| play(octets));
    let allowed = OCTETS_BASE + OCTETS_EACH * octets.len();
    assert!(
        allocated.peak <= allowed,
        "a script of {} octets costs {allocated:?}, {allowed} are allowed",
        octets.len()
    );
}

fn play(octets: &[u8]) {
    let mut input = Input::new(octets);
    let mut lab = Lab::new(input.octet());
    for _ in 0..STEPS {
        if input.is_empty() {
            break;
        }
        script::step(&mut lab, &mut input);
        lab.settle();
        lab.check();
    }
    lab.finish();
}
