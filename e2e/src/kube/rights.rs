//! Which rights somebody has, which of them they used, and what they were refused: by the API
//! server's roles and its audit log. Pure.

use std::collections::BTreeSet;
use std::fmt;

use k8s_openapi::api::rbac::v1::PolicyRule;
use serde::Deserialize;

/// One verb on one kind of objects, such as `patch nodes/status`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Right {
    /// The API group, empty for the core's.
    pub group: String,
    /// The resource, with its subresource.
    pub resource: String,
    /// What is done with it.
    pub verb: String,
}

impl fmt::Display for Right {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let dot = if self.group.is_empty() { "" } else { "." };
        write!(f, "{} {}{dot}{}", self.verb, self.resource, self.group)
    }
}

/// What rules grant, one by one.
pub fn granted<'a>(rules: impl IntoIterator<Item = &'a PolicyRule>) -> BTreeSet<Right> {
    let mut rights = BTreeSet::new();
    for rule in rules {
        for group in rule.api_groups.iter().flatten() {
            for resource in rule.resources.iter().flatten() {
                for verb in &rule.verbs {
                    rights.insert(Right {
                        group: group.clone(),
                        resource: resource.clone(),
                        verb: verb.clone(),
                    });
                }
            }
        }
    }
    rights
}

/// What one user did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Usage {
    /// What was done and not refused.
    pub used: BTreeSet<Right>,
    /// What was refused for want of a right, with the object.
    pub refused: BTreeSet<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Event {
    user: User,
    verb: String,
    #[serde(default)]
    object_ref: Option<ObjectRef>,
    #[serde(default)]
    response_status: Option<Status>,
}

#[derive(Debug, Deserialize)]
struct User {
    username: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ObjectRef {
    #[serde(default)]
    api_group: String,
    #[serde(default)]
    resource: String,
    #[serde(default)]
    subresource: String,
    #[serde(default)]
    namespace: String,
    #[serde(default)]
    name: String,
}

#[derive(Debug, Deserialize)]
struct Status {
    #[serde(default)]
    code: u16,
}

/// What a user did by an audit log. Lines that are none are passed over: the last may be half.
pub fn usage(log: &str, user: &str) -> Usage {
    let mut usage = Usage::default();
    let events = log
        .lines()
        .filter_map(|line| serde_json::from_str::<Event>(line).ok());
    for event in events.filter(|event| event.user.username == user) {
        let Some(object) = event.object_ref else {
            continue;
        };
        let slash = if object.subresource.is_empty() {
            ""
        } else {
            "/"
        };
        let right = Right {
            group: object.api_group,
            resource: format!("{}{slash}{}", object.resource, object.subresource),
            verb: event.verb,
        };
        if event
            .response_status
            .is_some_and(|status| status.code == 403)
        {
            let place = format!("{}/{}", object.namespace, object.name);
            usage.refused.insert(format!("{right} {place}"));
        } else {
            usage.used.insert(right);
        }
    }
    usage
}

/// What is wrong with a user's rights, in words: refusals, and what is granted without having been
/// used. `excused` are rights that a run cannot bring about, each with the reason.
pub fn complaints(
    granted: &BTreeSet<Right>,
    usage: &Usage,
    excused: &[(&str, &str)],
) -> Vec<String> {
    let refused = usage
        .refused
        .iter()
        .map(|one| format!("was refused: {one}"));
    let unused = granted.difference(&usage.used).filter(|right| {
        let words = right.to_string();
        !excused.iter().any(|(excuse, _)| *excuse == words)
    });
    let unused = unused.map(|one| format!("has a right that it did not use: {one}"));
    let unknown = excused
        .iter()
        .filter(|(excuse, _)| !granted.iter().any(|right| right.to_string() == *excuse));
    let unknown = unknown.map(|(one, _)| format!("is excused for a right that it has not: {one}"));
    refused.chain(unused).chain(unknown).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn rules() -> Vec<PolicyRule> {
        let rules = json!([
            {"apiGroups": [""], "resources": ["pods"], "verbs": ["list", "watch"]},
            {"apiGroups": ["margay.dev"], "resources": ["ippools/status"], "verbs": ["patch"]},
        ]);
        serde_json::from_value(rules).unwrap()
    }

    fn line(user: &str, verb: &str, object: serde_json::Value, code: u16) -> String {
        json!({"user": {"username": user}, "verb": verb, "objectRef": object,
            "responseStatus": {"code": code}})
        .to_string()
    }

    #[test]
    fn what_was_used_refused_and_never_asked_for_is_told_apart() {
        let log = [
            line("a", "list", json!({"resource": "pods"}), 200),
            line("b", "watch", json!({"resource": "pods"}), 200),
            line(
                "a",
                "get",
                json!({"resource": "secrets", "namespace": "n", "name": "s"}),
                403,
            ),
            line(
                "a",
                "patch",
                json!({"apiGroup": "margay.dev", "resource": "ippools", "subresource": "status"}),
                409,
            ),
            "{\"half".to_owned(),
        ];
        let usage = usage(&log.join("\n"), "a");
        let granted = granted(&rules());
        let complaints = |excused: &[(&str, &str)]| complaints(&granted, &usage, excused);
        assert_eq!(
            complaints(&[]),
            [
                "was refused: get secrets n/s",
                "has a right that it did not use: watch pods",
            ]
        );
        assert_eq!(complaints(&[("watch pods", "because")]).len(), 1);
        assert!(complaints(&[("watch nodes", "?")])[2].contains("has not"));
        assert!(
            granted
                .iter()
                .any(|right| right.to_string() == "patch ippools/status.margay.dev")
        );
    }
}
