//! Draining a node: the two annotations on its Node object that ask for it, and the words in
//! which the NodeStatus answers.
//!
//! Not here: what the agent does then. Nor is a cordon a drain: pods stay on a cordoned node.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use crate::field::FieldError;

/// The annotation on a Node that drains it for as long as it stands there. Its value is what the
/// node's BGP peers are told at the end (RFC 9003, at most 255 octets); empty says which node it is.
pub const DRAIN_ANNOTATION: &str = "margay.dev/drain";
/// The annotation beside it: how many seconds peers get to find other ways, 0 to 3600.
pub const DRAIN_WAIT_ANNOTATION: &str = "margay.dev/drain-wait";
/// The wait where none is written.
pub const DEFAULT_DRAIN_WAIT: Duration = Duration::from_secs(30);
/// The longest wait that may be written.
pub const LONGEST_DRAIN_WAIT: Duration = Duration::from_secs(3600);

/// What peers are told at most (RFC 9003 section 2).
const LONGEST_MESSAGE: usize = 255;

/// A drain that is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DrainRequest {
    /// What peers are told at the end; at most 255 octets.
    pub message: String,
    /// How long they get to find other ways.
    pub wait: Duration,
}

impl DrainRequest {
    /// Reads the annotations of the Node `name`; without [`DRAIN_ANNOTATION`] there is no drain. A
    /// wait that makes no sense is told, and the drain goes on with [`DEFAULT_DRAIN_WAIT`].
    pub fn read(
        name: &str,
        annotations: &BTreeMap<String, String>,
    ) -> (Option<Self>, Option<FieldError>) {
        let Some(message) = annotations.get(DRAIN_ANNOTATION) else {
            return (None, None);
        };
        let message = match message.trim() {
            "" => format!("node {name} is drained"),
            message => message.to_owned(),
        };
        let wait = annotations.get(DRAIN_WAIT_ANNOTATION);
        let (wait, error) = match wait.map(|text| check_drain_wait(text)) {
            None => (DEFAULT_DRAIN_WAIT, None),
            Some(Ok(wait)) => (wait, None),
            Some(Err(error)) => (DEFAULT_DRAIN_WAIT, Some(error)),
        };
        let request = Self {
            message: shortened(message),
            wait,
        };
        (Some(request), error)
    }
}

/// Reads a wait in whole seconds.
///
/// # Errors
/// No number, or more than [`LONGEST_DRAIN_WAIT`].
pub fn check_drain_wait(text: &str) -> Result<Duration, FieldError> {
    let seconds = text.trim().parse().ok().map(Duration::from_secs);
    let seconds = seconds.filter(|wait| *wait <= LONGEST_DRAIN_WAIT);
    seconds.ok_or_else(|| {
        FieldError::invalid(
            "metadata.annotations[margay.dev/drain-wait]",
            text,
            "must be whole seconds, 0 to 3600",
        )
    })
}

/// Cut at a character, so that what is left is UTF-8.
fn shortened(mut message: String) -> String {
    let end = (0..=LONGEST_MESSAGE)
        .rev()
        .find(|end| message.is_char_boundary(*end));
    if message.len() > LONGEST_MESSAGE {
        message.truncate(end.unwrap_or(0));
    }
    message
}

/// How far a drain has come.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum DrainStage {
    /// There is none.
    #[default]
    No,
    /// Everything announced carries GRACEFUL_SHUTDOWN (RFC 8326), and peers find other ways.
    Leaving,
    /// Nothing is announced any more; what is still under way arrives.
    Withdrawn,
    /// Every session has been ended with the message.
    Drained,
}

impl fmt::Display for DrainStage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            DrainStage::No => "",
            DrainStage::Leaving => "Leaving",
            DrainStage::Withdrawn => "Withdrawn",
            DrainStage::Drained => "Drained",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pairs: &[(&str, &str)]) -> (Option<DrainRequest>, Option<FieldError>) {
        let pairs = pairs
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
        DrainRequest::read("n1", &pairs.collect())
    }

    #[test]
    fn annotations_ask_for_a_drain() {
        assert_eq!(read(&[(DRAIN_WAIT_ANNOTATION, "5")]), (None, None));
        let (request, error) = read(&[(DRAIN_ANNOTATION, "")]);
        assert_eq!(request.unwrap().message, "node n1 is drained");
        assert!(error.is_none());
        let asked = [
            (DRAIN_ANNOTATION, "new disks"),
            (DRAIN_WAIT_ANNOTATION, "5"),
        ];
        let request = read(&asked).0.unwrap();
        assert_eq!(request.message, "new disks");
        assert_eq!(request.wait, Duration::from_secs(5));
    }

    #[test]
    fn a_wrong_wait_is_named_and_the_drain_goes_on() {
        for wait in ["soon", "-1", "3601", "1e3"] {
            let (request, error) = read(&[(DRAIN_ANNOTATION, "x"), (DRAIN_WAIT_ANNOTATION, wait)]);
            assert_eq!(request.unwrap().wait, DEFAULT_DRAIN_WAIT);
            let error = error.unwrap().to_string();
            assert!(
                error.contains("drain-wait") && error.contains("0 to 3600"),
                "{error}"
            );
        }
    }

    #[test]
    fn a_long_message_is_cut_between_characters() {
        let (request, _) = read(&[(DRAIN_ANNOTATION, &"ä".repeat(300))]);
        assert_eq!(request.unwrap().message, "ä".repeat(127));
    }
}
