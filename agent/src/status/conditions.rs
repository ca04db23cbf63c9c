//! The `Accepted` condition of an object people write: that it is in use, or what is wrong.

use margay_crds::{Condition, field};

use crate::view::Refusal;

/// The condition's type.
pub const ACCEPTED: &str = "Accepted";

/// The conditions that should stand on an object, or none if those that stand there say it.
///
/// `now` is RFC 3339; it is written only when the status changes from true to false or back.
pub fn accepted(
    standing: &[Condition],
    generation: Option<i64>,
    refusal: Option<&Refusal>,
    now: &str,
) -> Option<Vec<Condition>> {
    let (status, reason, message) = match refusal {
        None => ("True", "Valid", "in use".to_owned()),
        Some(refusal) => ("False", "Invalid", field::join(&refusal.errors)),
    };
    let wanted = Condition {
        type_: ACCEPTED.to_owned(),
        status: status.to_owned(),
        reason: reason.to_owned(),
        message,
        observed_generation: generation,
        last_transition_time: now.to_owned(),
    };
    with(standing, wanted)
}

/// The condition's type that says whether what an object refers to is there.
pub const RESOLVED: &str = "ResolvedRefs";

/// The conditions that should stand on an object that refers to others, or none if those that stand there say it; `missing` is
/// what is not there, the reason and in words.
pub fn resolved(
    standing: &[Condition],
    generation: Option<i64>,
    missing: Option<(&str, &str)>,
    now: &str,
) -> Option<Vec<Condition>> {
    let (status, reason, message) = match missing {
        None => ("True", "Resolved", "all it refers to is there"),
        Some((reason, words)) => ("False", reason, words),
    };
    let wanted = Condition {
        type_: RESOLVED.to_owned(),
        status: status.to_owned(),
        reason: reason.to_owned(),
        message: message.to_owned(),
        observed_generation: generation,
        last_transition_time: now.to_owned(),
    };
    with(standing, wanted)
}

/// `standing` with `wanted` in place of the condition of its type, or none if it says the same.
pub fn with(standing: &[Condition], mut wanted: Condition) -> Option<Vec<Condition>> {
    let at = standing.iter().position(|one| one.type_ == wanted.type_);
    let mut conditions = standing.to_vec();
    match at.and_then(|at| conditions.get_mut(at)) {
        Some(found) if found.says_the_same(&wanted) => return None,
        Some(found) => {
            if found.status == wanted.status {
                wanted
                    .last_transition_time
                    .clone_from(&found.last_transition_time);
            }
            *found = wanted;
        }
        None => conditions.push(wanted),
    }
    Some(conditions)
}

#[cfg(test)]
mod tests {
    use margay_crds::FieldError;

    use super::*;

    #[test]
    fn a_condition_is_written_once_and_keeps_its_time() {
        let first = accepted(&[], Some(1), None, "t1").unwrap();
        assert!(first[0].is_true());
        assert_eq!(accepted(&first, Some(1), None, "t2"), None);

        let again = accepted(&first, Some(2), None, "t2").unwrap();
        assert_eq!(again[0].last_transition_time, "t1");

        let refusal = Refusal {
            generation: Some(3),
            errors: vec![FieldError::invalid("spec.cidr", "x", "must be a CIDR")],
        };
        let refused = accepted(&again, Some(3), Some(&refusal), "t3").unwrap();
        assert_eq!(refused.len(), 1);
        assert_eq!(refused[0].last_transition_time, "t3");
        assert!(
            refused[0].message.contains("spec.cidr"),
            "{}",
            refused[0].message
        );
    }
}
