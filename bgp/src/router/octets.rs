//! [`Octets`]: messages for one connection, in the pieces that they were made in.
//!
//! Peers that are given the same share the encoded messages; one that does not hear all of them gets what is before and
//! after what it does not hear, and a copy for each such peer would be the most there is in memory while a reflector has
//! something to tell.

use std::io::IoSlice;

use bytes::{Buf, Bytes};

/// With more pieces than this, one copy of them is less work for whoever writes them, and lets go of what they are parts of.
const MOST_PIECES: usize = 16;

/// Whole messages, one after the other; never none. Written by [`Buf`], or as one by [`Octets::into_bytes`].
#[derive(Debug, Clone)]
pub struct Octets(Pieces);

#[derive(Debug, Clone)]
enum Pieces {
    One(Bytes),
    /// The first one last.
    Several(Vec<Bytes>),
}

impl Octets {
    /// What there is in these pieces; nothing if there are none. None of them may be empty.
    pub(super) fn of(mut pieces: Vec<Bytes>) -> Option<Self> {
        match pieces.len() {
            0 | 1 => pieces.pop().map(Self::from),
            2..=MOST_PIECES => {
                pieces.reverse();
                Some(Self(Pieces::Several(pieces)))
            }
            _ => Some(Self::from(Bytes::from(pieces.concat()))),
        }
    }

    /// As one piece; copies if there are several.
    pub fn into_bytes(mut self) -> Bytes {
        self.copy_to_bytes(self.remaining())
    }
}

impl From<Bytes> for Octets {
    fn from(octets: Bytes) -> Self {
        Self(Pieces::One(octets))
    }
}

impl Buf for Octets {
    fn remaining(&self) -> usize {
        match &self.0 {
            Pieces::One(octets) => octets.len(),
            Pieces::Several(pieces) => pieces.iter().map(Bytes::len).sum(),
        }
    }

    fn chunk(&self) -> &[u8] {
        match &self.0 {
            Pieces::One(octets) => octets,
            Pieces::Several(pieces) => pieces.last().map_or(&[], |first| first),
        }
    }

    fn chunks_vectored<'a>(&'a self, into: &mut [IoSlice<'a>]) -> usize {
        match &self.0 {
            Pieces::One(octets) => octets.chunks_vectored(into),
            Pieces::Several(pieces) => {
                let slices = into.iter_mut().zip(pieces.iter().rev());
                slices
                    .map(|(slice, piece)| *slice = IoSlice::new(piece))
                    .count()
            }
        }
    }

    fn advance(&mut self, mut count: usize) {
        match &mut self.0 {
            Pieces::One(octets) => octets.advance(count),
            Pieces::Several(pieces) => {
                while let Some(first) = pieces.last_mut() {
                    if count < first.len() {
                        return first.advance(count);
                    }
                    count -= first.len();
                    pieces.pop();
                }
            }
        }
    }

    fn copy_to_bytes(&mut self, length: usize) -> Bytes {
        match &mut self.0 {
            // Shares them.
            Pieces::One(octets) => octets.copy_to_bytes(length),
            Pieces::Several(_) => {
                let mut all = bytes::BytesMut::with_capacity(length);
                bytes::BufMut::put(&mut all, self.take(length));
                all.freeze()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pieces(count: u8) -> Vec<Bytes> {
        let piece = |number| Bytes::from(vec![number; usize::from(number)]);
        (1..=count).map(piece).collect()
    }

    #[test]
    fn however_much_is_written_at_a_time_everything_is_written_once() {
        for count in [1, 2, 5, 16, 17, 40] {
            let whole = pieces(count).concat();
            for step in [1, 2, 3, 7, 1000] {
                let mut octets = Octets::of(pieces(count)).unwrap();
                let mut written = Vec::new();
                while octets.has_remaining() {
                    let mut slices = [IoSlice::new(&[]); 4];
                    let filled = octets.chunks_vectored(&mut slices);
                    let shown: Vec<u8> = slices[..filled].iter().flat_map(|s| s.to_vec()).collect();
                    assert!(shown.starts_with(octets.chunk()));
                    let taken = step.min(shown.len());
                    written.extend_from_slice(&shown[..taken]);
                    octets.advance(taken);
                    assert_eq!(octets.remaining(), whole.len() - written.len());
                }
                assert_eq!(written, whole, "{count} {step}");
                assert!(octets.chunk().is_empty());
            }
            assert_eq!(Octets::of(pieces(count)).unwrap().into_bytes(), whole);
        }
        assert!(Octets::of(Vec::new()).is_none());
    }

    #[test]
    fn one_piece_is_not_copied_and_none_is_held_by_a_copy_of_many() {
        let one = Bytes::from(vec![1, 2, 3]);
        let same = Octets::of(vec![one.clone()]).unwrap().into_bytes();
        assert_eq!(one.as_ptr(), same.as_ptr());
        let many = pieces(17);
        let first = many[0].clone();
        let octets = Octets::of(many).unwrap();
        assert!(first.is_unique());
        drop(octets);
    }

    #[test]
    fn a_connection_s_channel_holds_no_more_for_it() {
        assert_eq!(size_of::<Octets>(), size_of::<Bytes>());
    }
}
