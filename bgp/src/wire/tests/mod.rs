//! Tests of the codec as a whole: octets of known messages both ways, a table of reactions to
//! malformed ones, and properties over generated ones.

mod malformed;
mod malformed_update;
mod messages;
mod packing;
mod properties;
mod updates;

use bytes::BytesMut;

use crate::types::{Asn, Family, FamilySet, Prefix, RouterId};

use super::*;

/// The octets of a text of hexadecimal digits; blanks are for the reader.
fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text
        .chars()
        .filter(|c| !c.is_whitespace())
        .map(|c| u8::try_from(c.to_digit(16).unwrap()).unwrap())
        .collect();
    assert_eq!(digits.len() % 2, 0, "{text}");
    digits
        .chunks(2)
        .map(|pair| pair[0] << 4 | pair[1])
        .collect()
}

/// A message with its header.
fn framed(kind: MessageType, body: &[u8]) -> Vec<u8> {
    let length = u16::try_from(HEADER_LENGTH + body.len()).unwrap();
    let mut message = vec![0xff; 16];
    message.extend(length.to_be_bytes());
    message.push(kind as u8);
    message.extend(body);
    message
}

/// An UPDATE's octets from its three parts.
fn update_of(withdrawn: &[u8], attributes: &[u8], nlri: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    body.extend(u16::try_from(withdrawn.len()).unwrap().to_be_bytes());
    body.extend(withdrawn);
    body.extend(u16::try_from(attributes.len()).unwrap().to_be_bytes());
    body.extend(attributes);
    body.extend(nlri);
    framed(MessageType::Update, &body)
}

/// What a modern external session with both families has negotiated.
fn external() -> Context {
    Context {
        four_octet_asn: true,
        families: FamilySet::ALL,
        ..Context::default()
    }
}

fn internal() -> Context {
    Context {
        session: SessionKind::Internal,
        ..external()
    }
}

fn encoded(message: &Message, context: &Context) -> Vec<u8> {
    let mut out = BytesMut::new();
    encode(message, context, &mut out).unwrap();
    out.to_vec()
}

fn prefix(text: &str) -> Prefix {
    text.parse().unwrap()
}

fn nlri(text: &str) -> Nlri {
    prefix(text).into()
}

fn v4(text: &str) -> NextHop {
    NextHop::V4(text.parse().unwrap())
}

fn v6(text: &str) -> NextHop {
    NextHop::V6 {
        global: text.parse().unwrap(),
        link_local: None,
    }
}

/// That `octets` and `message` are each other's encoding.
#[track_caller]
fn same(octets: &[u8], message: &Message, context: &Context) {
    let decoded = decode(octets, context).unwrap();
    assert_eq!(&decoded.message, message);
    assert_eq!(decoded.verdict, Verdict::Accept);
    assert_eq!(encoded(message, context), octets);
}

fn asns(numbers: &[u32]) -> AsPath {
    AsPath::sequence(numbers.iter().copied().map(Asn))
}

fn router_id(text: &str) -> RouterId {
    text.parse().unwrap()
}

/// One announcement.
fn reach(family: Family, next_hop: NextHop, nlri: &[Nlri]) -> Reach {
    Reach {
        family,
        next_hop,
        nlri: nlri.to_vec(),
    }
}
