//! Octets of messages, right and wrong. Nothing here uses the codec under test.

/// The prefix whose fate tells what became of a message: 203.0.113.0/24.
pub(crate) const VICTIM: &[u8] = &[24, 203, 0, 113];
/// The prefix that shows that the session still works: 198.51.100.0/24.
pub(crate) const GOOD: &[u8] = &[24, 198, 51, 100];

pub(crate) const OPTIONAL: u8 = 0x80;
pub(crate) const TRANSITIVE: u8 = 0x40;
pub(crate) const PARTIAL: u8 = 0x20;
pub(crate) const EXTENDED: u8 = 0x10;

/// A message with a right header.
pub(crate) fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    with_length(kind, u16::try_from(19 + body.len()).unwrap(), body)
}

/// A message whose header says `length`, whatever follows.
pub(crate) fn with_length(kind: u8, length: u16, body: &[u8]) -> Vec<u8> {
    let mut octets = vec![0xff; 16];
    octets.extend(length.to_be_bytes());
    octets.push(kind);
    octets.extend(body);
    octets
}

/// An OPEN with these optional parameters.
pub(crate) fn open(version: u8, asn: u16, hold: u16, id: [u8; 4], parameters: &[u8]) -> Vec<u8> {
    let length = u8::try_from(parameters.len()).unwrap();
    open_raw(version, asn, hold, id, &[&[length], parameters].concat())
}

/// An OPEN with everything after the identifier given.
pub(crate) fn open_raw(version: u8, asn: u16, hold: u16, id: [u8; 4], rest: &[u8]) -> Vec<u8> {
    let body = [
        &[version][..],
        &asn.to_be_bytes(),
        &hold.to_be_bytes(),
        &id,
        rest,
    ]
    .concat();
    message(1, &body)
}

/// A capabilities parameter (RFC 5492) with these capabilities.
pub(crate) fn capabilities(list: &[&[u8]]) -> Vec<u8> {
    let value = list.concat();
    let mut octets = vec![2, u8::try_from(value.len()).unwrap()];
    octets.extend(value);
    octets
}

/// The multiprotocol capability for IPv4 unicast.
pub(crate) const MP_IPV4: &[u8] = &[1, 4, 0, 1, 0, 1];
/// The multiprotocol capability for IPv6 unicast.
pub(crate) const MP_IPV6: &[u8] = &[1, 4, 0, 2, 0, 1];
/// The route refresh capability.
pub(crate) const REFRESH: &[u8] = &[2, 0];
/// The enhanced route refresh capability.
pub(crate) const ENHANCED_REFRESH: &[u8] = &[70, 0];

/// The four-octet AS capability.
pub(crate) fn as4(asn: u32) -> Vec<u8> {
    [&[65, 4][..], &asn.to_be_bytes()].concat()
}

/// An attribute with a length field of one octet.
pub(crate) fn attribute(flags: u8, code: u8, value: &[u8]) -> Vec<u8> {
    let mut octets = vec![flags, code, u8::try_from(value.len()).unwrap()];
    octets.extend(value);
    octets
}

/// An attribute with the long form of the length.
pub(crate) fn attribute_extended(flags: u8, code: u8, value: &[u8]) -> Vec<u8> {
    let mut octets = vec![flags | 0x10, code];
    octets.extend(u16::try_from(value.len()).unwrap().to_be_bytes());
    octets.extend(value);
    octets
}

/// An attribute whose length field says `length`, whatever follows.
pub(crate) fn lying_attribute(flags: u8, code: u8, length: u8, value: &[u8]) -> Vec<u8> {
    let mut octets = vec![flags, code, length];
    octets.extend(value);
    octets
}

/// ORIGIN IGP.
pub(crate) fn origin() -> Vec<u8> {
    attribute(TRANSITIVE, 1, &[0])
}

/// AS_PATH with one sequence, four octets a number.
pub(crate) fn as_path(asns: &[u32]) -> Vec<u8> {
    attribute(TRANSITIVE, 2, &segment(2, asns))
}

/// A segment of an AS_PATH.
pub(crate) fn segment(kind: u8, asns: &[u32]) -> Vec<u8> {
    let mut value = vec![kind, u8::try_from(asns.len()).unwrap()];
    value.extend(asns.iter().flat_map(|asn| asn.to_be_bytes()));
    value
}

/// A segment of an AS_PATH for a peer without four-octet AS numbers.
pub(crate) fn old_segment(kind: u8, asns: &[u16]) -> Vec<u8> {
    let mut value = vec![kind, u8::try_from(asns.len()).unwrap()];
    value.extend(asns.iter().flat_map(|asn| asn.to_be_bytes()));
    value
}

/// NEXT_HOP.
pub(crate) fn next_hop(address: [u8; 4]) -> Vec<u8> {
    attribute(TRANSITIVE, 3, &address)
}

/// An UPDATE.
pub(crate) fn update(withdrawn: &[u8], attributes: &[Vec<u8>], nlri: &[u8]) -> Vec<u8> {
    let attributes = attributes.concat();
    let body = [
        &u16::try_from(withdrawn.len()).unwrap().to_be_bytes(),
        withdrawn,
        &u16::try_from(attributes.len()).unwrap().to_be_bytes(),
        &attributes,
        nlri,
    ]
    .concat();
    message(2, &body)
}

/// MP_REACH_NLRI with its parts.
pub(crate) fn mp_reach(afi: u16, safi: u8, next_hop: &[u8], nlri: &[u8]) -> Vec<u8> {
    let value = [
        &afi.to_be_bytes()[..],
        &[safi, u8::try_from(next_hop.len()).unwrap()],
        next_hop,
        &[0],
        nlri,
    ]
    .concat();
    attribute(OPTIONAL, 14, &value)
}

/// MP_UNREACH_NLRI with its parts.
pub(crate) fn mp_unreach(afi: u16, safi: u8, nlri: &[u8]) -> Vec<u8> {
    attribute(
        OPTIONAL,
        15,
        &[&afi.to_be_bytes()[..], &[safi], nlri].concat(),
    )
}
