//! AS_PATH and AS4_PATH in octets.

use bytes::{BufMut, BytesMut};

use crate::types::Asn;
use crate::wire::Fault;

use super::{AsPath, AsSegment};

/// How wide AS numbers are in a path: by the session for AS_PATH, always four octets in AS4_PATH.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AsnWidth {
    Two,
    Four,
}

impl AsnWidth {
    pub(super) const fn of(four_octets: bool) -> Self {
        if four_octets { Self::Four } else { Self::Two }
    }

    pub(super) const fn octets(self) -> usize {
        match self {
            Self::Two => 2,
            Self::Four => 4,
        }
    }
}

/// Reads a path. RFC 7606 §7.2 has what makes it malformed; AS 0 comes from RFC 7607 §2.
pub(super) fn decode_as_path(mut octets: &[u8], width: AsnWidth) -> Result<AsPath, Fault> {
    let mut path = AsPath::default();
    while !octets.is_empty() {
        let [kind, count, rest @ ..] = octets else {
            return Err(Fault::Value("segment header is cut off"));
        };
        let (asns, rest) = rest
            .split_at_checked(usize::from(*count) * width.octets())
            .ok_or(Fault::Value("segment runs past the end of the path"))?;
        if asns.is_empty() {
            return Err(Fault::Value("segment is empty"));
        }
        let asns: Vec<Asn> = match width {
            AsnWidth::Two => {
                let (asns, _) = asns.as_chunks();
                asns.iter()
                    .map(|asn| Asn(u16::from_be_bytes(*asn).into()))
                    .collect()
            }
            AsnWidth::Four => {
                let (asns, _) = asns.as_chunks();
                asns.iter()
                    .map(|asn| Asn(u32::from_be_bytes(*asn)))
                    .collect()
            }
        };
        if asns.contains(&Asn::ZERO) {
            return Err(Fault::Value("AS 0 in the path"));
        }
        path.push(match kind {
            1 => AsSegment::Set(asns),
            2 => AsSegment::Sequence(asns),
            3 => AsSegment::ConfedSequence(asns),
            4 => AsSegment::ConfedSet(asns),
            _ => return Err(Fault::Value("segment type is undefined")),
        });
        octets = rest;
    }
    Ok(path)
}

/// Appends a path. Segments above 255 ASes are cut into several; a four-octet AS in a two-octet
/// path becomes AS_TRANS.
pub(super) fn encode_as_path<'a>(
    segments: impl IntoIterator<Item = &'a AsSegment>,
    width: AsnWidth,
    out: &mut BytesMut,
) {
    for segment in segments {
        for part in segment.asns().chunks(usize::from(u8::MAX)) {
            out.put_u8(segment.code());
            // `chunks` keeps it within an octet.
            out.put_u8(u8::try_from(part.len()).unwrap_or_default());
            for asn in part {
                match width {
                    AsnWidth::Two => out.put_u16(asn.to_two_octets()),
                    AsnWidth::Four => out.put_u32(asn.0),
                }
            }
        }
    }
}
