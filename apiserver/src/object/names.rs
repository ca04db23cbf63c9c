//! Which strings may name things: RFC 1123 labels and subdomains, label and annotation keys.
//!
//! Each check answers with what is wrong, or `None`.

/// The rule a resource's `metadata.name` follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NameRule {
    /// RFC 1123 subdomain, at most 253 characters: most kinds.
    Subdomain,
    /// RFC 1123 label, at most 63 characters: namespaces.
    Label,
    /// RFC 1035 label (starts with a letter), at most 63 characters: services.
    Label1035,
}

impl NameRule {
    /// What is wrong with `name`, if anything.
    pub fn check(self, name: &str) -> Option<String> {
        match self {
            Self::Subdomain => subdomain(name),
            Self::Label => label(name),
            Self::Label1035 => label1035(name),
        }
    }
}

fn lower_alnum(c: u8) -> bool {
    c.is_ascii_lowercase() || c.is_ascii_digit()
}

fn is_label(name: &str) -> bool {
    let bytes = name.as_bytes();
    matches!((bytes.first(), bytes.last()), (Some(&a), Some(&z)) if lower_alnum(a) && lower_alnum(z))
        && bytes.iter().all(|&c| lower_alnum(c) || c == b'-')
}

/// RFC 1123 label.
pub fn label(name: &str) -> Option<String> {
    if name.len() > 63 {
        return Some("must be no more than 63 characters".into());
    }
    (!is_label(name)).then(|| {
        "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name')".into()
    })
}

/// RFC 1035 label.
pub fn label1035(name: &str) -> Option<String> {
    if name.len() > 63 {
        return Some("must be no more than 63 characters".into());
    }
    (!is_label(name) || !name.starts_with(|c: char| c.is_ascii_lowercase())).then(|| {
        "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with an alphanumeric character (e.g. 'my-name')".into()
    })
}

/// RFC 1123 subdomain.
pub fn subdomain(name: &str) -> Option<String> {
    if name.len() > 253 {
        return Some("must be no more than 253 characters".into());
    }
    (!name.split('.').all(is_label)).then(|| {
        "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com')".into()
    })
}

/// The part of a label key or value that Kubernetes calls a qualified name.
fn qualified(name: &str) -> bool {
    let bytes = name.as_bytes();
    bytes.len() <= 63
        && matches!((bytes.first(), bytes.last()), (Some(a), Some(z)) if a.is_ascii_alphanumeric() && z.is_ascii_alphanumeric())
        && bytes
            .iter()
            .all(|&c| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'_' | b'.'))
}

/// A label or annotation key: `[prefix/]name`.
pub fn key(key: &str) -> Option<String> {
    let (prefix, name) = match key.split_once('/') {
        Some((prefix, name)) => (Some(prefix), name),
        None => (None, key),
    };
    if let Some(problem) = prefix.and_then(subdomain) {
        return Some(format!("prefix part {problem}"));
    }
    (!qualified(name)).then(|| {
        "name part must consist of at most 63 alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character".into()
    })
}

/// A label value: empty, or a qualified name.
pub fn label_value(value: &str) -> Option<String> {
    (!value.is_empty() && !qualified(value)).then(|| {
        "a valid label must be an empty string or consist of at most 63 alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character".into()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for good in ["a", "a-b", "10-0-0-0-26", "x.y.z", "0"] {
            assert_eq!(subdomain(good), None, "{good}");
        }
        for bad in ["", "-a", "a-", "A", "a..b", "a_b", "é"] {
            assert!(subdomain(bad).is_some(), "{bad}");
        }
        assert!(label("a.b").is_some());
        assert!(label1035("1a").is_some());
        assert!(label(&"a".repeat(64)).is_some());
    }

    #[test]
    fn keys_and_values() {
        for good in ["app", "margay.dev/node", "A_b.c"] {
            assert_eq!(key(good), None, "{good}");
        }
        for bad in ["", "/a", "a/", "a/b/c", "-a"] {
            assert!(key(bad).is_some(), "{bad}");
        }
        assert_eq!(label_value(""), None);
        assert!(label_value("a b").is_some());
    }
}
