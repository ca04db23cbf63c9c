//! What an OPEN that was refused was refused for, in words for people. What the wire carries of it says less.

use super::PeerFsm;
use crate::wire::Notification;

impl PeerFsm {
    /// Why the peer ended it, as far as that has to do with our OPEN.
    pub(super) fn why_refused_by_peer(&self, received: &Notification) -> Option<String> {
        let settings = &self.settings;
        Some(match (received.code, received.subcode) {
            (2, 2) => format!("the peer expects another AS than {}", settings.local_asn),
            (2, 3) => format!(
                "the peer does not take router id {}, which may be its own",
                settings.router_id
            ),
            (2, 5) => {
                "the peer asks for authentication in the OPEN, which no RFC has any more".to_owned()
            }
            (2, 6) => format!(
                "the peer does not take a hold time of {} s",
                settings.hold_time
            ),
            (2, 11) => match settings.role {
                Some(role) => format!("role {role:?} does not fit the role that the peer has"),
                None => "the peer insists on a role (RFC 9234), and none is configured".to_owned(),
            },
            (6, 3) => {
                "the peer does not have this speaker in its configuration any more".to_owned()
            }
            (6, 5) => "the peer does not want connections from this speaker".to_owned(),
            _ => return None,
        })
    }
}

/// Why we refused an OPEN that could not even be read.
pub(super) fn why_unreadable(sent: &Notification) -> Option<&'static str> {
    Some(match (sent.code, sent.subcode) {
        (2, 0) => "the peer's OPEN cannot be read",
        (2, 1) => "the peer speaks another version of BGP than 4",
        (2, 2) => "peer announced AS 0, which is nobody's",
        (2, 3) => "peer announced router id 0.0.0.0, which nobody may have",
        (2, 4) => "the peer's OPEN has a parameter that is not capabilities",
        (2, 6) => "peer announced a hold time of 1 or 2 s, 3 s is the least",
        _ => return None,
    })
}
