//! The BFD control packet (RFC 5880 section 4.1), and the checks that need nothing but the packet (section 6.8.6).

use serde::Serialize;

/// Octets of a control packet without authentication, the only kind sent here.
pub const LENGTH: usize = 24;
/// Octets of the shortest packet with an authentication section.
const AUTHENTICATED_LENGTH: u8 = 26;
const VERSION: u8 = 1;

const POLL: u8 = 0x20;
const FINAL: u8 = 0x10;
const INDEPENDENT: u8 = 0x08;
const AUTHENTICATED: u8 = 0x04;
const DEMAND: u8 = 0x02;
const MULTIPOINT: u8 = 0x01;

/// State of a session (RFC 5880 section 4.1, "Sta").
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize)]
pub enum State {
    /// Held down by an operator; says nothing about the path.
    AdminDown = 0,
    /// Not up, or no longer.
    #[default]
    Down = 1,
    /// The peer is heard, and has not yet said that it hears us.
    Init = 2,
    /// Both sides hear each other.
    Up = 3,
}

/// Why a session last changed its state (RFC 5880 section 4.1, "Diag").
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Diagnostic(u8);

impl Diagnostic {
    /// 0: nothing to say.
    pub const NONE: Self = Self(0);
    /// 1: no packet came for the detection time.
    pub const TIME_EXPIRED: Self = Self(1);
    /// 3: the peer said that its side is down.
    pub const NEIGHBOR_DOWN: Self = Self(3);
    /// 7: an operator holds the session down.
    pub const ADMINISTRATIVELY_DOWN: Self = Self(7);

    /// A diagnostic code; only the lower five bits count, as on the wire.
    #[must_use]
    pub const fn new(code: u8) -> Self {
        Self(code & 0x1f)
    }

    /// The code, 0 to 31.
    #[must_use]
    pub const fn code(self) -> u8 {
        self.0
    }

    /// What it means, in the RFC's words.
    #[must_use]
    pub const fn text(self) -> &'static str {
        match self.0 {
            0 => "no diagnostic",
            1 => "control detection time expired",
            2 => "echo function failed",
            3 => "neighbor signaled session down",
            4 => "forwarding plane reset",
            5 => "path down",
            6 => "concatenated path down",
            7 => "administratively down",
            8 => "reverse concatenated path down",
            _ => "unassigned diagnostic",
        }
    }
}

impl std::fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ({})", self.text(), self.0)
    }
}

impl Serialize for Diagnostic {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// A control packet. All intervals are in microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Packet {
    /// Why the sender's session last left Up or changed otherwise.
    pub diagnostic: Diagnostic,
    /// The sender's state.
    pub state: State,
    /// The sender wants an answer with the Final bit.
    pub poll: bool,
    /// This answers a packet with the Poll bit.
    pub is_final: bool,
    /// The sender's BFD survives a restart of its control plane (the C bit).
    pub independent: bool,
    /// The sender is in demand mode: it wants no periodic packets once both sides are up.
    pub demand: bool,
    /// How many of the sender's packets may be missing, 1 to 255.
    pub multiplier: u8,
    /// The sender's number for the session; never 0.
    pub my_discriminator: u32,
    /// The receiver's number for the session as the sender knows it; 0 if it does not.
    pub your_discriminator: u32,
    /// The sender would not send faster than this.
    pub desired_min_tx: u32,
    /// The sender cannot receive faster than this; 0: wants no periodic packets.
    pub required_min_rx: u32,
    /// As `required_min_rx`, for the Echo function; 0: not supported.
    pub required_min_echo_rx: u32,
}

/// Why a packet is discarded (RFC 5880 section 6.8.6).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PacketError {
    /// Shorter than the mandatory section.
    #[error("packet too short")]
    Short,
    /// Not version 1.
    #[error("version {0} is not 1")]
    Version(u8),
    /// The Length field is smaller than a packet can be, or larger than what arrived.
    #[error("length {0} does not fit the packet")]
    Length(u8),
    /// A detection multiplier of 0.
    #[error("detection multiplier is 0")]
    Multiplier,
    /// The Multipoint bit, which is reserved.
    #[error("multipoint bit is set")]
    Multipoint,
    /// My Discriminator is 0.
    #[error("my discriminator is 0")]
    MyDiscriminator,
    /// Your Discriminator is 0 in a state in which the sender must know it.
    #[error("your discriminator is 0 in state {0:?}")]
    YourDiscriminator(State),
    /// Authentication, which is not in use.
    #[error("authentication is not in use")]
    Authenticated,
}

impl Packet {
    /// Reads a UDP payload.
    ///
    /// # Errors
    /// A [`PacketError`] for everything RFC 5880 section 6.8.6 has discarded without looking for a session.
    pub fn decode(octets: &[u8]) -> Result<Self, PacketError> {
        let Some(fixed) = octets.first_chunk::<LENGTH>() else {
            return Err(PacketError::Short);
        };
        let [first, flags, multiplier, length, ..] = *fixed;
        let version = first >> 5;
        if version != VERSION {
            return Err(PacketError::Version(version));
        }
        let authenticated = flags & AUTHENTICATED != 0;
        let least = if authenticated {
            AUTHENTICATED_LENGTH
        } else {
            LENGTH as u8
        };
        if length < least || usize::from(length) > octets.len() {
            return Err(PacketError::Length(length));
        }
        if multiplier == 0 {
            return Err(PacketError::Multiplier);
        }
        if flags & MULTIPOINT != 0 {
            return Err(PacketError::Multipoint);
        }
        let word = |at: usize| {
            u32::from_be_bytes([fixed[at], fixed[at + 1], fixed[at + 2], fixed[at + 3]])
        };
        let packet = Self {
            diagnostic: Diagnostic::new(first),
            state: State::from_bits(flags >> 6),
            poll: flags & POLL != 0,
            is_final: flags & FINAL != 0,
            independent: flags & INDEPENDENT != 0,
            demand: flags & DEMAND != 0,
            multiplier,
            my_discriminator: word(4),
            your_discriminator: word(8),
            desired_min_tx: word(12),
            required_min_rx: word(16),
            required_min_echo_rx: word(20),
        };
        if packet.my_discriminator == 0 {
            return Err(PacketError::MyDiscriminator);
        }
        let knows_us = matches!(packet.state, State::Init | State::Up);
        if packet.your_discriminator == 0 && knows_us {
            return Err(PacketError::YourDiscriminator(packet.state));
        }
        if authenticated {
            return Err(PacketError::Authenticated);
        }
        Ok(packet)
    }

    /// The packet as a UDP payload.
    #[must_use]
    pub fn encode(&self) -> [u8; LENGTH] {
        let bit = |set: bool, bit: u8| if set { bit } else { 0 };
        let flags = (self.state as u8) << 6
            | bit(self.poll, POLL)
            | bit(self.is_final, FINAL)
            | bit(self.independent, INDEPENDENT)
            | bit(self.demand, DEMAND);
        let mut octets = [0; LENGTH];
        octets[0] = VERSION << 5 | self.diagnostic.code();
        octets[1] = flags;
        octets[2] = self.multiplier;
        octets[3] = LENGTH as u8;
        let words = [
            self.my_discriminator,
            self.your_discriminator,
            self.desired_min_tx,
            self.required_min_rx,
            self.required_min_echo_rx,
        ];
        for (place, word) in octets[4..].chunks_exact_mut(4).zip(words) {
            place.copy_from_slice(&word.to_be_bytes());
        }
        octets
    }
}

impl State {
    const fn from_bits(bits: u8) -> Self {
        match bits & 3 {
            0 => Self::AdminDown,
            1 => Self::Down,
            2 => Self::Init,
            _ => Self::Up,
        }
    }
}
