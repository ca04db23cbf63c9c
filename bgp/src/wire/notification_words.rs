//! What a NOTIFICATION's data says, in words. The names of codes and subcodes are in [`super::notification`].

use crate::types::Family;

use super::{Cease, MessageType, Notification};

/// Capabilities that are named at most.
const NAMED: usize = 8;

impl Notification {
    /// What the data says beyond code and subcode, if it says anything that is understood.
    #[must_use]
    pub fn details(&self) -> Option<String> {
        let data = self.data.as_ref();
        match (self.code, self.subcode, data) {
            (1, 2, [high, low]) => {
                let length = u16::from_be_bytes([*high, *low]);
                Some(format!("length {length}"))
            }
            (1, 3, [kind]) => Some(format!("type {kind}")),
            (2, 1, [high, low]) => {
                let version = u16::from_be_bytes([*high, *low]);
                Some(format!("version {version} is the highest it speaks"))
            }
            (2, 7, [_, ..]) => Some(format!("wanted: {}", capabilities(data))),
            (3, 2 | 4 | 5 | 6 | 8 | 9, [_, code, ..]) => Some(format!("attribute {code}")),
            (3, 3, [code]) => Some(format!("attribute {code}")),
            (5, _, [kind]) => MessageType::from_code(*kind).map(|kind| kind.to_string()),
            _ if self.is_cease(Cease::MaximumPrefixes) => limit(data),
            _ => None,
        }
    }
}

/// RFC 4486 section 4.
fn limit(data: &[u8]) -> Option<String> {
    let [afi_high, afi_low, safi, count @ ..] = data else {
        return None;
    };
    let count = u32::from_be_bytes(count.try_into().ok()?);
    let afi = u16::from_be_bytes([*afi_high, *afi_low]);
    let family = Family::from_codes(afi, *safi);
    let family = family.map_or_else(
        || format!("family {afi}/{safi}"),
        |family| family.to_string(),
    );
    Some(format!("at most {count} prefixes of {family}"))
}

/// The capabilities in the data of 2/7 (RFC 5492 section 5).
fn capabilities(mut data: &[u8]) -> String {
    let mut names = Vec::new();
    while let [code, length, rest @ ..] = data {
        let Some((value, after)) = rest.split_at_checked(usize::from(*length)) else {
            break;
        };
        if names.len() == NAMED {
            names.push("and more".to_owned());
            break;
        }
        names.push(capability(*code, value));
        data = after;
    }
    if names.is_empty() {
        return "something that cannot be read".to_owned();
    }
    names.join(", ")
}

fn capability(code: u8, value: &[u8]) -> String {
    let name = match (code, value) {
        (1, [high, low, _, safi]) => {
            let afi = u16::from_be_bytes([*high, *low]);
            return match Family::from_codes(afi, *safi) {
                Some(family) => family.to_string(),
                None => format!("family {afi}/{safi}"),
            };
        }
        (1, _) => "multiprotocol",
        (2, _) => "route refresh",
        (5, _) => "extended next hop",
        (6, _) => "extended messages",
        (9, _) => "role",
        (64, _) => "graceful restart",
        (65, _) => "four-octet AS numbers",
        (69, _) => "ADD-PATH",
        (70, _) => "enhanced route refresh",
        (71, _) => "long-lived graceful restart",
        _ => return format!("capability {code}"),
    };
    name.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    #[test]
    fn the_data_is_told_in_words() {
        let table: [(u8, u8, &[u8], &str); 16] = [
            (1, 1, &[], "connection not synchronized (1/1)"),
            (1, 2, &[0x10, 1], "bad message length (1/2): length 4097"),
            (1, 3, &[99], "bad message type (1/3): type 99"),
            (
                2,
                1,
                &[0, 4],
                "unsupported version number (2/1): version 4 is the highest it speaks",
            ),
            (
                2,
                7,
                &[1, 4, 0, 2, 0, 1, 65, 4, 0, 0, 0, 1, 200, 0],
                "unsupported capability (2/7): wanted: ipv6-unicast, four-octet AS numbers, capability 200",
            ),
            (
                2,
                7,
                &[1, 4, 0, 25, 0, 70],
                "unsupported capability (2/7): wanted: family 25/70",
            ),
            (
                2,
                7,
                &[9],
                "unsupported capability (2/7): wanted: something that cannot be read",
            ),
            (
                3,
                3,
                &[3],
                "missing well-known attribute (3/3): attribute 3",
            ),
            (
                3,
                5,
                &[0x40, 1, 2, 0, 0],
                "attribute length error (3/5): attribute 1",
            ),
            (5, 3, &[1], "unexpected message in Established (5/3): OPEN"),
            (5, 3, &[77], "unexpected message in Established (5/3)"),
            (
                6,
                1,
                &[0, 1, 1, 0, 0, 0, 9],
                "maximum number of prefixes reached (6/1): at most 9 prefixes of ipv4-unicast",
            ),
            (6, 1, &[0, 1], "maximum number of prefixes reached (6/1)"),
            (
                6,
                2,
                &[3, b'b', b'y', b'e'],
                "administrative shutdown (6/2): \"bye\"",
            ),
            (
                6,
                9,
                &[6, 4],
                "hard reset (6/9) for administrative reset (6/4)",
            ),
            (99, 98, &[1], "unknown error (99/98)"),
        ];
        for (code, subcode, data, expected) in table {
            let notification = Notification {
                code,
                subcode,
                data: Bytes::copy_from_slice(data),
            };
            assert_eq!(notification.to_string(), expected);
        }
    }
}
