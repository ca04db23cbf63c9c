//! Reading the protobuf bodies some clients insist on: `kubectl create namespace|configmap|secret|serviceaccount|service` and
//! Helm's release Secrets send nothing else and do not fall back when refused.
//!
//! Table-driven: [`tables`] says which field number is which JSON field. Only kinds with a table are read, and a field number the
//! table does not know refuses the whole body (415) rather than losing what the client said. Answers are always JSON, which
//! these clients accept.

mod tables;

use k8s_openapi::ByteString;
use k8s_openapi::jiff::Timestamp;
use serde_json::{Map, Value, json};

use self::tables::{Field, Shape};
use crate::error::ApiError;
use crate::object::meta::{rfc3339, rfc3339_micro};

/// The media type.
pub(super) const MEDIA: &str = "application/vnd.kubernetes.protobuf";
/// What every body begins with.
const MAGIC: &[u8] = b"k8s\0";
/// Messages nest no deeper than this in any table; a bound for hostile input costs nothing.
const DEEPEST: usize = 16;

/// Why a body cannot be read.
#[derive(Debug, PartialEq, Eq)]
enum Problem {
    /// Not protobuf at all.
    Garbled,
    /// A kind or field without an entry in the tables.
    Unknown(String),
}

/// The object in an enveloped body.
///
/// # Errors
/// 400 for bytes that are no such envelope, 415 for kinds and fields that are not known here.
pub(super) fn object(bytes: &[u8]) -> Result<Value, ApiError> {
    envelope(bytes).map_err(|problem| match problem {
        Problem::Garbled => {
            ApiError::bad_request("the request body is not a protobuf-encoded Kubernetes object")
        }
        Problem::Unknown(what) => ApiError::unsupported_media(
            &format!("{MEDIA} with {what}"),
            "application/json, application/yaml",
        ),
    })
}

fn envelope(bytes: &[u8]) -> Result<Value, Problem> {
    let unknown = message(
        bytes.strip_prefix(MAGIC).ok_or(Problem::Garbled)?,
        tables::UNKNOWN,
        "envelope",
        0,
    )?;
    let text = |path: &str| {
        unknown
            .pointer(path)
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned()
    };
    let (version, kind) = (text("/typeMeta/apiVersion"), text("/typeMeta/kind"));
    let table = tables::kind(&version, &kind)
        .ok_or_else(|| Problem::Unknown(format!("a {kind} ({version}) in it")))?;
    // The raw bytes were kept apart: JSON has no byte strings.
    let raw = raw(bytes.strip_prefix(MAGIC).unwrap_or_default())?;
    let mut object = message(raw, table, &kind, 0)?;
    if let Value::Object(map) = &mut object {
        map.insert("apiVersion".into(), json!(version));
        map.insert("kind".into(), json!(kind));
    }
    Ok(object)
}

/// The bytes of field 2 of the envelope.
fn raw(bytes: &[u8]) -> Result<&[u8], Problem> {
    let mut reader = Reader { bytes };
    let mut found: &[u8] = &[];
    while let Some((number, wire)) = reader.field()? {
        if let (2, Wire::Bytes(bytes)) = (number, wire) {
            found = bytes;
        }
    }
    Ok(found)
}

/// One value on the wire.
#[derive(Debug, Clone, Copy)]
enum Wire<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

struct Reader<'a> {
    bytes: &'a [u8],
}

impl<'a> Reader<'a> {
    fn varint(&mut self) -> Result<u64, Problem> {
        let mut value = 0u64;
        for shift in (0..70).step_by(7) {
            let (&byte, rest) = self.bytes.split_first().ok_or(Problem::Garbled)?;
            self.bytes = rest;
            value |= u64::from(byte & 0x7f).checked_shl(shift).unwrap_or(0);
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(Problem::Garbled)
    }

    /// The next field, or `None` at the end. Fixed-width numbers occur in no table.
    fn field(&mut self) -> Result<Option<(u64, Wire<'a>)>, Problem> {
        if self.bytes.is_empty() {
            return Ok(None);
        }
        let tag = self.varint()?;
        let wire = match tag & 7 {
            0 => Wire::Number(self.varint()?),
            2 => {
                let length = usize::try_from(self.varint()?).map_err(|_| Problem::Garbled)?;
                let (value, rest) = self
                    .bytes
                    .split_at_checked(length)
                    .ok_or(Problem::Garbled)?;
                self.bytes = rest;
                Wire::Bytes(value)
            }
            _ => return Err(Problem::Garbled),
        };
        Ok(Some((tag >> 3, wire)))
    }
}

/// A message as a JSON object; what Go writes for unset fields (empty text, zero, empty messages) is left out.
fn message(
    bytes: &[u8],
    table: &'static [Field],
    what: &str,
    depth: usize,
) -> Result<Value, Problem> {
    if depth > DEEPEST {
        return Err(Problem::Garbled);
    }
    let mut object = Map::new();
    let mut reader = Reader { bytes };
    while let Some((number, wire)) = reader.field()? {
        let field = table.iter().find(|(known, ..)| *known == number);
        let (_, name, shape) =
            field.ok_or_else(|| Problem::Unknown(format!("field {number} of {what}")))?;
        match shape {
            Shape::Many(each) => {
                if let Some(value) = value(wire, each, name, depth)? {
                    let list = object.entry(*name).or_insert_with(|| json!([]));
                    list.as_array_mut().ok_or(Problem::Garbled)?.push(value);
                }
            }
            Shape::Map(each) => {
                let (key, value) = entry(wire, each, name, depth)?;
                let map = object.entry(*name).or_insert_with(|| json!({}));
                map.as_object_mut()
                    .ok_or(Problem::Garbled)?
                    .insert(key, value);
            }
            other => {
                if let Some(value) = value(wire, other, name, depth)? {
                    object.insert((*name).to_owned(), value);
                }
            }
        }
    }
    Ok(Value::Object(object))
}

/// An entry of a map: a message of key (1) and value (2).
fn entry(
    wire: Wire<'_>,
    shape: &Shape,
    name: &str,
    depth: usize,
) -> Result<(String, Value), Problem> {
    let Wire::Bytes(bytes) = wire else {
        return Err(Problem::Garbled);
    };
    let (mut key, mut found) = (String::new(), json!(""));
    let mut reader = Reader { bytes };
    while let Some((number, wire)) = reader.field()? {
        match (number, wire) {
            (1, Wire::Bytes(bytes)) => key = text(bytes)?.to_owned(),
            (2, wire) => found = value(wire, shape, name, depth)?.unwrap_or(found),
            _ => return Err(Problem::Garbled),
        }
    }
    Ok((key, found))
}

fn text(bytes: &[u8]) -> Result<&str, Problem> {
    std::str::from_utf8(bytes).map_err(|_| Problem::Garbled)
}

fn value(
    wire: Wire<'_>,
    shape: &Shape,
    name: &str,
    depth: usize,
) -> Result<Option<Value>, Problem> {
    let nonempty = |value: Value| {
        value
            .as_object()
            .is_none_or(|map| !map.is_empty())
            .then_some(value)
    };
    Ok(match (shape, wire) {
        (Shape::Text, Wire::Bytes(bytes)) => Some(text(bytes)?)
            .filter(|text| !text.is_empty())
            .map(|text| json!(text)),
        // The encoding of a byte string cannot fail.
        (Shape::Bytes, Wire::Bytes(bytes)) => {
            Some(serde_json::to_value(ByteString(bytes.to_vec())).unwrap_or_default())
        }
        (Shape::Skipped, _) => None,
        // Protobuf's int64 is the two's complement of the number.
        (Shape::Number, Wire::Number(number)) => (number != 0).then(|| json!(number.cast_signed())),
        (Shape::Flag, Wire::Number(number)) => Some(json!(number != 0)),
        (Shape::Message(table), Wire::Bytes(bytes)) => {
            nonempty(message(bytes, table, name, depth + 1)?)
        }
        (Shape::Time { micro }, Wire::Bytes(bytes)) => time(bytes, *micro, depth)?,
        (Shape::IntOrString, Wire::Bytes(bytes)) => {
            let parts = message(bytes, tables::INT_OR_STRING, name, depth + 1)?;
            parts.get("text").or_else(|| parts.get("number")).cloned()
        }
        _ => return Err(Problem::Garbled),
    })
}

fn time(bytes: &[u8], micro: bool, depth: usize) -> Result<Option<Value>, Problem> {
    let parts = message(bytes, tables::TIME, "time", depth + 1)?;
    let part = |name: &str| parts.get(name).and_then(Value::as_i64).unwrap_or(0);
    // Go's zero time is long before anything that can happen here.
    if part("seconds") <= 0 {
        return Ok(None);
    }
    let nanos = i32::try_from(part("nanos")).map_err(|_| Problem::Garbled)?;
    let time = Timestamp::new(part("seconds"), nanos).map_err(|_| Problem::Garbled)?;
    Ok(Some(json!(if micro {
        rfc3339_micro(time)
    } else {
        rfc3339(time)
    })))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn field(number: u8, content: &[u8]) -> Vec<u8> {
        let mut bytes = vec![number << 3 | 2, u8::try_from(content.len()).unwrap()];
        bytes.extend_from_slice(content);
        bytes
    }

    fn enveloped(version: &str, kind: &str, raw: &[u8]) -> Vec<u8> {
        let type_meta = [field(1, version.as_bytes()), field(2, kind.as_bytes())].concat();
        [
            MAGIC.to_vec(),
            field(1, &type_meta),
            field(2, raw),
            field(3, b""),
            field(4, b""),
        ]
        .concat()
    }

    #[test]
    fn a_secret_is_read() {
        let labels = [field(1, b"owner"), field(2, b"helm")].concat();
        let metadata = [
            field(1, b"s"),
            field(2, b""),
            field(8, b""),
            field(11, &labels),
        ]
        .concat();
        let data = [field(1, b"k"), field(2, &[0, 255])].concat();
        let secret = [
            field(1, &metadata),
            field(2, &data),
            field(3, b"Opaque"),
            vec![5 << 3, 1],
        ]
        .concat();
        assert_eq!(
            object(&enveloped("v1", "Secret", &secret)).unwrap(),
            json!({
                "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s", "labels": {"owner": "helm"}},
                "data": {"k": "AP8="}, "type": "Opaque", "immutable": true,
            })
        );
    }

    #[test]
    fn a_service_is_read() {
        let port = [
            field(2, b"TCP"),
            vec![3 << 3, 80],
            field(4, &[1 << 3, 0, 2 << 3, 0x90, 0x3f]),
        ]
        .concat();
        let named = [
            field(1, b"web"),
            vec![3 << 3, 81],
            field(4, &[vec![1 << 3, 1], field(3, b"http")].concat()),
        ]
        .concat();
        let service = field(2, &[field(1, &port), field(1, &named)].concat());
        assert_eq!(
            object(&enveloped("v1", "Service", &service)).unwrap()["spec"]["ports"],
            json!([{"protocol": "TCP", "port": 80, "targetPort": 8080}, {"name": "web", "port": 81, "targetPort": "http"}])
        );
    }

    #[test]
    fn what_is_not_known_is_refused_and_named() {
        let error = object(&enveloped("apps/v1", "Deployment", b"")).unwrap_err();
        assert_eq!(error.code, 415);
        assert!(error.message.contains("Deployment"), "{error}");
        let error = object(&enveloped("v1", "Secret", &field(15, b"x"))).unwrap_err();
        assert!(error.message.contains("field 15 of Secret"), "{error}");
        assert_eq!(object(b"{}").unwrap_err().code, 400);
        assert_eq!(object(b"k8s\0\xff").unwrap_err().code, 400);
    }

    proptest! {
        #[test]
        fn hostile_bytes_do_no_harm(raw in prop::collection::vec(any::<u8>(), 0..200)) {
            for kind in ["Secret", "Service", "Namespace"] {
                if raw.len() < 100 {
                    let _ = object(&enveloped("v1", kind, &raw));
                }
            }
            let _ = object(&[MAGIC, &raw].concat());
        }
    }
}
