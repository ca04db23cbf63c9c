//! What a URL path is about. Pure.

/// An object or a collection of objects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Address {
    pub(super) group: String,
    pub(super) version: String,
    pub(super) plural: String,
    /// `None`: cluster-scoped, or all namespaces.
    pub(super) namespace: Option<String>,
    /// Empty for collections.
    pub(super) name: String,
    /// Empty for the object itself.
    pub(super) subresource: String,
}

/// What a request is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Target {
    Health,
    Version,
    Paths,
    CoreVersions,
    Groups,
    Group(String),
    Resources { group: String, version: String },
    OpenApiV2,
    OpenApiV3Index,
    OpenApiV3 { group: String, version: String },
    Collection(Address),
    Object(Address),
}

impl Target {
    /// Reads a path; `None` when nothing is served there.
    pub(super) fn parse(path: &str) -> Option<Self> {
        let segments: Vec<String> = path
            .split('/')
            .filter(|part| !part.is_empty())
            .map(decode)
            .collect::<Option<_>>()?;
        let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
        Some(match segments.as_slice() {
            [] => Self::Paths,
            ["healthz" | "livez" | "readyz", ..] => Self::Health,
            ["version"] => Self::Version,
            ["openapi", "v2"] => Self::OpenApiV2,
            ["openapi", "v3"] => Self::OpenApiV3Index,
            ["openapi", "v3", "api", version] => Self::OpenApiV3 {
                group: String::new(),
                version: (*version).into(),
            },
            ["openapi", "v3", "apis", group, version] => Self::OpenApiV3 {
                group: (*group).into(),
                version: (*version).into(),
            },
            ["api"] => Self::CoreVersions,
            ["apis"] => Self::Groups,
            ["apis", group] => Self::Group((*group).into()),
            ["api", version, rest @ ..] => resource("", version, rest)?,
            ["apis", group, version, rest @ ..] => resource(group, version, rest)?,
            _ => return None,
        })
    }
}

fn resource(group: &str, version: &str, rest: &[&str]) -> Option<Target> {
    let address = |namespace: Option<&str>, plural: &str, name: &str, subresource: &str| Address {
        group: group.into(),
        version: version.into(),
        plural: plural.into(),
        namespace: namespace.map(Into::into),
        name: name.into(),
        subresource: subresource.into(),
    };
    Some(match rest {
        [] => Target::Resources {
            group: group.into(),
            version: version.into(),
        },
        // Namespaces are both a resource and a prefix.
        ["namespaces", name, sub @ ("status" | "finalize")] => {
            Target::Object(address(None, "namespaces", name, sub))
        }
        ["namespaces", namespace, plural] => {
            Target::Collection(address(Some(namespace), plural, "", ""))
        }
        ["namespaces", namespace, plural, name] => {
            Target::Object(address(Some(namespace), plural, name, ""))
        }
        ["namespaces", namespace, plural, name, sub] => {
            Target::Object(address(Some(namespace), plural, name, sub))
        }
        [plural] => Target::Collection(address(None, plural, "", "")),
        [plural, name] => Target::Object(address(None, plural, name, "")),
        [plural, name, sub] => Target::Object(address(None, plural, name, sub)),
        _ => return None,
    })
}

/// Decodes `%xx`; `None` when that leaves no text, or a separator within a segment.
fn decode(segment: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(segment.len());
    let mut rest = segment.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let digit = |byte: Option<u8>| char::from(byte?).to_digit(16);
        let (high, low) = (digit(rest.next())?, digit(rest.next())?);
        bytes.push(u8::try_from(high * 16 + low).ok()?);
    }
    String::from_utf8(bytes)
        .ok()
        .filter(|text| !text.contains(['/', '\0']))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table() {
        let show = |path: &str| match Target::parse(path) {
            Some(Target::Collection(a)) => format!(
                "list {}/{} {:?} {}",
                a.group, a.version, a.namespace, a.plural
            ),
            Some(Target::Object(a)) => {
                format!(
                    "object {}/{} {:?} {} {} {}",
                    a.group, a.version, a.namespace, a.plural, a.name, a.subresource
                )
            }
            other => format!("{other:?}"),
        };
        for (path, expected) in [
            ("/api/v1/pods", "list /v1 None pods"),
            ("/api/v1/namespaces", "list /v1 None namespaces"),
            ("/api/v1/namespaces/a", "object /v1 None namespaces a "),
            (
                "/api/v1/namespaces/a/status",
                "object /v1 None namespaces a status",
            ),
            ("/api/v1/namespaces/a/pods", "list /v1 Some(\"a\") pods"),
            (
                "/api/v1/namespaces/a/pods/p",
                "object /v1 Some(\"a\") pods p ",
            ),
            (
                "/api/v1/namespaces/a/pods/p/status",
                "object /v1 Some(\"a\") pods p status",
            ),
            (
                "/apis/margay.dev/v1/ippools/x%2Ey",
                "object margay.dev/v1 None ippools x.y ",
            ),
            (
                "/apis/margay.dev/v1",
                "Some(Resources { group: \"margay.dev\", version: \"v1\" })",
            ),
            ("/readyz/etcd", "Some(Health)"),
            ("/api/v1/pods/a%2Fb", "None"),
            ("/api/v1/pods/%zz", "None"),
            ("/nowhere", "None"),
        ] {
            assert_eq!(show(path), expected, "{path}");
        }
    }
}
