//! What bad peers say when they say something sensible: messages as a good speaker would send them.

use bytes::{BufMut, BytesMut};
use margay_bgp::types::{Asn, Family, RouterId};
use margay_bgp::wire::{
    self, AddPathMode, Capability, Context, GracefulRestart, GracefulRestartFamily,
    LongLivedFamily, Message, Open,
};

use super::settings::{bad_address, bad_asn};

/// A message from its type and body, with a length that is right.
pub(super) fn framed(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut message = vec![0xff; 16];
    message.put_u16(u16::try_from(wire::HEADER_LENGTH + body.len()).unwrap_or(u16::MAX));
    message.put_u8(kind);
    message.put_slice(body);
    message
}

pub(super) fn keepalive() -> Vec<u8> {
    framed(4, &[])
}

/// An OPEN with some of all capabilities.
pub(super) fn open(index: usize, choice: u8) -> Vec<u8> {
    let families = Family::ALL;
    let mut capabilities: Vec<_> = families
        .into_iter()
        .map(Capability::Multiprotocol)
        .collect();
    if choice & 1 == 0 {
        capabilities.push(Capability::FourOctetAsn(Asn(bad_asn(index))));
    }
    if choice & 2 != 0 {
        capabilities.extend([Capability::RouteRefresh, Capability::EnhancedRouteRefresh]);
    }
    if choice & 4 != 0 {
        capabilities.push(Capability::GracefulRestart(GracefulRestart {
            restarting: choice & 64 != 0,
            notification: choice & 128 != 0,
            restart_time: 30,
            families: families
                .into_iter()
                .map(|family| GracefulRestartFamily {
                    family,
                    forwarding: true,
                })
                .collect(),
        }));
    }
    if choice & 68 == 68 {
        let families = families.into_iter().map(|family| LongLivedFamily {
            family,
            forwarding: true,
            stale_time: 20,
        });
        capabilities.push(Capability::LongLivedGracefulRestart(families.collect()));
    }
    if choice & 8 != 0 {
        capabilities.push(Capability::ExtendedMessage);
    }
    if choice & 16 != 0 {
        let both = families
            .into_iter()
            .map(|family| (family, AddPathMode::Both));
        capabilities.push(Capability::AddPath(both.collect()));
    }
    let open = Open {
        asn: Asn(bad_asn(index)),
        hold_time: if choice & 32 != 0 { 3 } else { 90 },
        router_id: RouterId(100 + u32::try_from(index).unwrap_or_default()),
        capabilities,
    };
    let mut out = BytesMut::new();
    wire::encode(&Message::Open(open), &Context::default(), &mut out)
        .expect("an OPEN of ours fits");
    out.to_vec()
}

fn attribute(flags: u8, code: u8, value: &[u8]) -> Vec<u8> {
    let mut octets = vec![flags, code, u8::try_from(value.len()).unwrap_or(u8::MAX)];
    octets.put_slice(value);
    octets
}

/// What an UPDATE is about: routes from the pool, `count` from `first` on.
pub(super) struct Routes {
    pub(super) first: u8,
    pub(super) count: u8,
    /// 1: withdrawn; 2: two octets for each AS; 4: with path identifiers; 8: longer path; 16: communities; 32: a next hop of
    /// another network; 64: routes of half the length; 128: a MED.
    pub(super) choice: u8,
}

pub(super) fn update(index: usize, routes: &Routes) -> Vec<u8> {
    let Routes {
        first,
        count,
        choice,
    } = *routes;
    let mut nlri = Vec::new();
    for step in 0..count {
        if choice & 4 != 0 {
            nlri.put_u32(u32::from(step % 3));
        }
        let place = first.wrapping_add(step);
        match choice & 64 {
            0 => nlri.extend([16, 10, place]),
            _ => nlri.extend([24, 10, place, place]),
        }
    }
    let mut body = Vec::new();
    if choice & 1 != 0 {
        body.put_u16(u16::try_from(nlri.len()).unwrap_or_default());
        body.extend(nlri);
        body.put_u16(0);
        return framed(2, &body);
    }
    let attributes = attributes(index, choice);
    body.put_u16(0);
    body.put_u16(u16::try_from(attributes.len()).unwrap_or_default());
    body.extend(attributes);
    body.extend(nlri);
    framed(2, &body)
}

fn attributes(index: usize, choice: u8) -> Vec<u8> {
    let asn = bad_asn(index);
    let mut path = if index == 1 { Vec::new() } else { vec![asn] };
    if choice & 8 != 0 {
        path.extend([4_200_000_000, 65010, 64512]);
    }
    let mut segments = Vec::new();
    if !path.is_empty() {
        segments.extend([2, u8::try_from(path.len()).unwrap_or_default()]);
        for asn in path {
            match choice & 2 {
                0 => segments.put_u32(asn),
                _ => segments.put_u16(u16::try_from(asn).unwrap_or(23456)),
            }
        }
    }
    let next_hop = match bad_address(index) {
        std::net::IpAddr::V4(address) if choice & 32 == 0 => address.octets(),
        _ => [192, 0, 2, choice],
    };
    let mut all = [
        attribute(0x40, 1, &[0]),
        attribute(0x40, 2, &segments),
        attribute(0x40, 3, &next_hop),
    ]
    .concat();
    if index == 1 {
        all.extend(attribute(0x40, 5, &[0, 0, 0, choice]));
    }
    if choice & 128 != 0 {
        all.extend(attribute(0x80, 4, &[0, 0, 0, choice]));
    }
    if choice & 16 != 0 {
        all.extend(attribute(
            0xc0,
            8,
            &[0xff, 0xff, 0xff, choice, 0, 1, 0, choice],
        ));
        all.extend(attribute(0xc0, 32, &[choice; 12]));
    }
    all
}
