//! The codec: nothing is read out of bounds, nothing costs more than it is worth, and what was read can be written and read
//! again with the same meaning.

use bytes::{BufMut, BytesMut};
use margay_bgp::types::{Family, FamilySet};
use margay_bgp::wire::{
    self, Context, Decoded, Message, NextHop, Nlri, PathAttributes, PlainUpdate, SessionKind,
    Update, Verdict,
};
use margay_bgp_sys::measure;

use crate::input::Input;

/// What decoding may hold for each octet of the message: an NLRI of one octet becomes a prefix and a path identifier, in a
/// vector that grows by doubling.
const OCTETS_EACH: usize = 100;
/// And beyond that, whatever the length.
const OCTETS_BASE: usize = 4096;

/// Reads messages under any [`Context`].
///
/// The first two octets are the context and the form: a message without its header (one octet type, then the body), or a stream
/// as it comes from a connection.
pub fn codec(octets: &[u8]) {
    let mut input = Input::new(octets);
    let (context, framed) = context(&mut input);
    let mut message = BytesMut::new();
    let stream = if framed {
        let kind = input.octet();
        let body = input.rest();
        let body = &body[..body
            .len()
            .min(wire::MAX_EXTENDED_MESSAGE_LENGTH - wire::HEADER_LENGTH)];
        message.put_slice(&[0xff; 16]);
        message.put_u16(u16::try_from(wire::HEADER_LENGTH + body.len()).unwrap());
        message.put_u8(kind);
        message.put_slice(body);
        &message[..]
    } else {
        input.rest()
    };
    read_stream(stream, &context);
}

fn context(input: &mut Input<'_>) -> (Context, bool) {
    let (flags, sets) = (input.octet(), input.octet());
    let set = |bits: u8| -> FamilySet {
        let families = [Family::Ipv4Unicast, Family::Ipv6Unicast];
        let chosen = families.into_iter().enumerate();
        let chosen = chosen.filter(|(index, _)| bits >> index & 1 == 1);
        chosen.map(|(_, family)| family).collect()
    };
    let context = Context {
        four_octet_asn: flags & 1 != 0,
        extended_messages: flags & 2 != 0,
        session: if flags & 4 != 0 {
            SessionKind::Internal
        } else {
            SessionKind::External
        },
        // None, mostly, is both: a session without any is not worth much of the time.
        families: match set(sets) {
            none if none.is_empty() && sets & 0x80 == 0 => FamilySet::ALL,
            families => families,
        },
        add_path_receive: set(sets >> 2),
        // So that what is written can be read again.
        add_path_send: set(sets >> 2),
        extended_next_hop: flags & 8 != 0,
    };
    (context, flags & 0x80 != 0)
}

fn read_stream(mut stream: &[u8], context: &Context) {
    loop {
        let length = match wire::frame_length(stream, context) {
            Ok(Some(length)) => length,
            Ok(None) => return,
            Err(notification) => return drop(notification.to_string()),
        };
        assert!((wire::HEADER_LENGTH..=context.max_message_length()).contains(&length));
        let Some((message, rest)) = stream.split_at_checked(length) else {
            return;
        };
        read(message, context);
        stream = rest;
    }
}

fn read(octets: &[u8], context: &Context) {
    let (decoded, allocated) = measure(|| wire::decode(octets, context));
    let allowed = OCTETS_BASE + OCTETS_EACH * octets.len();
    assert!(
        allocated.peak <= allowed,
        "{} octets cost {allocated:?}, {allowed} are allowed",
        octets.len()
    );
    compare_plain(octets, context, decoded.as_ref().ok());
    let decoded = match decoded {
        Ok(decoded) => decoded,
        Err(notification) => return drop(notification.to_string()),
    };
    for fault in decoded.verdict.faults() {
        let _ = fault.to_string();
    }
    match &decoded.message {
        Message::Update(update) => check_update(update, &decoded.verdict, octets),
        Message::Notification(notification) => drop(notification.to_string()),
        _ => {}
    }
    write_again(&decoded, context);
}

fn check_update(update: &Update, verdict: &Verdict, octets: &[u8]) {
    let announced: usize = update.reach.iter().map(|reach| reach.nlri.len()).sum();
    assert!(update.withdrawn.len() + announced <= octets.len());
    if matches!(verdict, Verdict::TreatAsWithdraw(_)) {
        assert!(update.reach.is_empty(), "{update:?} beside {verdict:?}");
    }
    for reach in &update.reach {
        let family = |route: &Nlri| route.prefix.family() == reach.family;
        assert!(reach.nlri.iter().all(family), "{reach:?}");
    }
    let _ = update.attributes.as_path.to_string();
}

/// The short way through an UPDATE comes to the same as the long one.
fn compare_plain(octets: &[u8], context: &Context, decoded: Option<&Decoded>) {
    if octets[wire::HEADER_LENGTH - 1] != wire::MessageType::Update as u8 {
        return;
    }
    let Some(plain) = PlainUpdate::split(octets, context) else {
        return;
    };
    let Some((next_hop, attributes)) = wire::decode_block(plain.attributes, context) else {
        return;
    };
    let Some(Decoded { message, verdict }) = decoded else {
        panic!("taken as plain, and refused: {octets:?}");
    };
    let Message::Update(update) = message else {
        panic!("taken as plain, and is {message:?}");
    };
    assert_eq!(*verdict, Verdict::Accept);
    assert_eq!(update.attributes, attributes);
    assert_eq!(plain.withdrawn.collect::<Vec<_>>(), update.withdrawn);
    let [reach] = update.reach.as_slice() else {
        panic!("taken as plain, and announces {:?}", update.reach);
    };
    assert_eq!(
        (reach.family, reach.next_hop),
        (Family::Ipv4Unicast, next_hop)
    );
    assert_eq!(plain.announced.collect::<Vec<_>>(), reach.nlri);
}

/// What was accepted can be passed on, and means the same then.
fn write_again(decoded: &Decoded, context: &Context) {
    let mut out = BytesMut::new();
    let Ok(count) = wire::encode(&decoded.message, context, &mut out) else {
        assert!(out.is_empty(), "half a message was written");
        return;
    };
    let again = decode_all(&out, context);
    assert_eq!(again.len(), count);
    let [Decoded { message, .. }] = again.as_slice() else {
        let updates = again.iter().map(|decoded| &decoded.message);
        return compare(&decoded.message, updates);
    };
    match &decoded.message {
        Message::Update(_) => compare(&decoded.message, [message]),
        // Capabilities of no use are left out by the sender, and what is unknown stays as it is.
        original => assert_eq!(original, message),
    }
}

/// A receiver knows the same after both.
fn compare<'a>(original: &Message, again: impl IntoIterator<Item = &'a Message>) {
    let (mut withdrawn, announced) = effect(again);
    let (mut expected, expected_announced) = effect([original]);
    // Families are withdrawn one after the other.
    withdrawn.sort();
    expected.sort();
    assert_eq!(withdrawn, expected);
    assert_eq!(announced, expected_announced);
}

type Announced<'a> = (Family, NextHop, Nlri, &'a PathAttributes);

fn effect<'a>(messages: impl IntoIterator<Item = &'a Message>) -> (Vec<Nlri>, Vec<Announced<'a>>) {
    let (mut withdrawn, mut announced) = (Vec::new(), Vec::new());
    for message in messages {
        let Message::Update(update) = message else {
            continue;
        };
        withdrawn.extend(&update.withdrawn);
        for reach in &update.reach {
            let one = |nlri: &Nlri| (reach.family, reach.next_hop, *nlri, &update.attributes);
            announced.extend(reach.nlri.iter().map(one));
        }
    }
    (withdrawn, announced)
}

fn decode_all(mut octets: &[u8], context: &Context) -> Vec<Decoded> {
    let mut all = Vec::new();
    while !octets.is_empty() {
        let length = wire::frame_length(octets, context);
        let length = length
            .expect("what was written has a header")
            .expect("and a whole one");
        let (message, rest) = octets.split_at(length);
        let decoded = wire::decode(message, context);
        let decoded =
            decoded.unwrap_or_else(|error| panic!("what was written is refused: {error}"));
        assert_eq!(
            decoded.verdict,
            Verdict::Accept,
            "what was written has a fault"
        );
        all.push(decoded);
        octets = rest;
    }
    all
}
