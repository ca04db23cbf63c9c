//! A batch of encoded messages with its audiences, and the log that a group's members read.

use std::collections::VecDeque;

use bytes::Bytes;

use super::{Audience, Reader};
use crate::rib::{DestinationId, Table};

/// What a log holds at most before its slowest readers have to leave it, in octets.
const LIMIT: usize = 256 * 1024;

/// Messages for the same readers, one after the other.
#[derive(Debug)]
pub(super) struct Segment {
    /// Where it ends in the chunk; it starts where the one before it ends.
    pub(super) end: usize,
    pub(super) messages: u64,
    pub(super) audience: Audience,
}

/// A batch of encoded messages.
#[derive(Debug, Default)]
pub(in crate::router) struct Chunk {
    pub(super) octets: Bytes,
    pub(super) segments: Vec<Segment>,
    /// The destinations it speaks of.
    pub(super) touched: Vec<DestinationId>,
}

impl Chunk {
    pub(in crate::router) fn is_empty(&self) -> bool {
        self.octets.is_empty()
    }

    /// Appends what the reader hears of it, in as few pieces as possible, and returns the number of messages.
    pub(in crate::router) fn read(&self, reader: &Reader, pieces: &mut Vec<Bytes>) -> u64 {
        let (mut start, mut end, mut messages) = (0, 0, 0);
        for segment in &self.segments {
            let (from, heard) = (end, segment.audience.has(reader));
            end = segment.end;
            if heard {
                messages += segment.messages;
                continue;
            }
            if start < from {
                pieces.push(self.octets.slice(start..from));
            }
            start = end;
        }
        if start < end {
            pieces.push(self.octets.slice(start..end));
        }
        messages
    }

    /// Gives back the numbers of the destinations it speaks of, which it holds. A chunk must not just be dropped.
    pub(in crate::router) fn let_go(&self, table: &mut Table) {
        self.touched.iter().for_each(|id| table.release(*id));
    }

    fn cost(&self) -> usize {
        self.octets.len()
            + self.segments.len() * size_of::<Segment>()
            + self.touched.len() * size_of::<DestinationId>()
    }
}

/// The chunks that some member of a group still has to read. Every chunk in it holds the numbers of its destinations.
#[derive(Debug, Default)]
pub(super) struct Log {
    /// Each with the number of members that have not read it.
    chunks: VecDeque<(Chunk, usize)>,
    /// The number of the first chunk.
    first: u64,
    cost: usize,
}

impl Log {
    /// The number that the next chunk is going to have.
    pub(super) fn end(&self) -> u64 {
        self.first + self.chunks.len() as u64
    }

    /// Whether it holds more than it should.
    pub(super) fn is_full(&self) -> bool {
        self.cost > LIMIT
    }

    /// The number of the oldest chunk.
    pub(super) fn first(&self) -> u64 {
        self.first
    }

    /// Adds a chunk that `readers` members are going to read.
    pub(super) fn push(&mut self, table: &mut Table, chunk: Chunk, readers: usize) {
        if readers == 0 || chunk.is_empty() {
            return chunk.let_go(table);
        }
        self.cost += chunk.cost();
        self.chunks.push_back((chunk, readers));
    }

    /// The chunk of a number.
    pub(super) fn get(&self, number: u64) -> Option<&Chunk> {
        let at = usize::try_from(number.checked_sub(self.first)?).ok()?;
        self.chunks.get(at).map(|(chunk, _)| chunk)
    }

    /// One reader is not going to read the chunks from `from` up to `to` any more.
    pub(super) fn done(&mut self, table: &mut Table, from: u64, to: u64) {
        for number in from..to {
            let at = number.checked_sub(self.first).map(usize::try_from);
            if let Some(Ok(at)) = at
                && let Some((_, readers)) = self.chunks.get_mut(at)
            {
                *readers = readers.saturating_sub(1);
            }
        }
        while self
            .chunks
            .front()
            .is_some_and(|(_, readers)| *readers == 0)
        {
            if let Some((chunk, _)) = self.chunks.pop_front() {
                self.first += 1;
                self.cost -= chunk.cost();
                chunk.let_go(table);
            }
        }
    }

    /// Gives back every number held.
    pub(super) fn retire(self, table: &mut Table) {
        for (chunk, _) in self.chunks {
            chunk.let_go(table);
        }
    }
}
