//! The control packet, octet by octet.

use proptest::prelude::*;

use crate::bfd::{Diagnostic, Packet, PacketError, State};

/// As FRR sends it on an established session of 50 ms x 3.
const UP: [u8; 24] = [
    0x20, 0xc0, 3, 24, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88, 0, 0, 0xc3, 0x50, 0, 0,
    0xc3, 0x50, 0, 0, 0, 50,
];

fn up() -> Packet {
    Packet {
        diagnostic: Diagnostic::NONE,
        state: State::Up,
        poll: false,
        is_final: false,
        independent: false,
        demand: false,
        multiplier: 3,
        my_discriminator: 0x1122_3344,
        your_discriminator: 0x5566_7788,
        desired_min_tx: 50_000,
        required_min_rx: 50_000,
        required_min_echo_rx: 50,
    }
}

#[test]
fn every_bit_has_its_place() {
    assert_eq!(Packet::decode(&UP), Ok(up()));
    assert_eq!(up().encode(), UP);
    type Change = fn(&mut Packet);
    let cases: [(usize, u8, Change); 9] = [
        (0, 0x27, |p| {
            p.diagnostic = Diagnostic::ADMINISTRATIVELY_DOWN
        }),
        (0, 0x3f, |p| p.diagnostic = Diagnostic::new(31)),
        (1, 0x80, |p| p.state = State::Init),
        (1, 0x40, |p| p.state = State::Down),
        (1, 0x00, |p| p.state = State::AdminDown),
        (1, 0xe0, |p| p.poll = true),
        (1, 0xd0, |p| p.is_final = true),
        (1, 0xc8, |p| p.independent = true),
        (1, 0xc2, |p| p.demand = true),
    ];
    for (at, octet, change) in cases {
        let (mut octets, mut packet) = (UP, up());
        octets[at] = octet;
        change(&mut packet);
        assert_eq!(Packet::decode(&octets), Ok(packet));
        assert_eq!(packet.encode(), octets);
    }
}

#[test]
fn what_follows_the_length_is_not_looked_at() {
    let longer: Vec<u8> = UP.into_iter().chain([0xff; 40]).collect();
    assert_eq!(Packet::decode(&longer), Ok(up()));
}

#[test]
fn every_check_of_section_6_8_6() {
    let with = |changes: &[(usize, u8)]| {
        let mut octets = UP.to_vec();
        octets.extend([0; 8]);
        for (at, octet) in changes {
            octets[*at] = *octet;
        }
        octets
    };
    let no_peer = [(4, 0), (5, 0), (6, 0), (7, 0)];
    let no_self = |flags| [(1, flags), (8, 0), (9, 0), (10, 0), (11, 0)];
    let cases: [(Vec<u8>, PacketError); 15] = [
        (Vec::new(), PacketError::Short),
        (UP[..23].to_vec(), PacketError::Short),
        (with(&[(0, 0x00)]), PacketError::Version(0)),
        (with(&[(0, 0x40)]), PacketError::Version(2)),
        (with(&[(3, 23)]), PacketError::Length(23)),
        (with(&[(3, 0)]), PacketError::Length(0)),
        (with(&[(3, 33)]), PacketError::Length(33)),
        (with(&[(3, 255)]), PacketError::Length(255)),
        (with(&[(1, 0xc4), (3, 25)]), PacketError::Length(25)),
        (with(&[(2, 0)]), PacketError::Multiplier),
        (with(&[(1, 0xc1)]), PacketError::Multipoint),
        (with(&no_peer), PacketError::MyDiscriminator),
        (
            with(&no_self(0xc0)),
            PacketError::YourDiscriminator(State::Up),
        ),
        (
            with(&no_self(0x80)),
            PacketError::YourDiscriminator(State::Init),
        ),
        (with(&[(1, 0xc4), (3, 26)]), PacketError::Authenticated),
    ];
    for (octets, error) in cases {
        assert_eq!(Packet::decode(&octets), Err(error), "{octets:02x?}");
    }
    // In Down and AdminDown the sender need not know us.
    for flags in [0x40, 0x00] {
        assert!(Packet::decode(&with(&no_self(flags))).is_ok());
    }
}

proptest! {
    #[test]
    fn any_octets_are_read_without_a_panic(octets in proptest::collection::vec(any::<u8>(), 0..80)) {
        let _ = Packet::decode(&octets);
    }

    #[test]
    fn what_is_read_is_written_the_same(mut octets: [u8; 24]) {
        // As near to valid as chance gets.
        octets[0] = octets[0] & 0x1f | 0x20;
        octets[1] &= !0x05;
        octets[3] = 24;
        if let Ok(packet) = Packet::decode(&octets) {
            prop_assert_eq!(packet.encode(), octets);
        } else {
            prop_assert!(octets[2] == 0 || octets[4..8] == [0; 4] || octets[8..12] == [0; 4]);
        }
    }
}
