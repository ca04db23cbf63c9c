//! Framing: the header every message starts with, read and written.

use bytes::{BufMut, BytesMut};

use super::{Context, EncodeError, HEADER_LENGTH, MAX_MESSAGE_LENGTH, MessageType, Notification};

const MARKER: [u8; 16] = [0xff; 16];

/// How long the message at the start of `buffer` is, in octets with its header: as soon as the
/// header is there, whether or not the rest is. `None` asks for more input.
///
/// The length is at least [`HEADER_LENGTH`] and at most [`Context::max_message_length`], so a
/// caller that waits for it holds no more than one message of a peer.
///
/// # Errors
/// The NOTIFICATION that ends the session (RFC 4271 §6.1): 1/1 for a marker that is not all ones,
/// at its first wrong octet; 1/2 for a length the message cannot have; 1/3 for a type that does
/// not exist.
pub fn frame_length(buffer: &[u8], context: &Context) -> Result<Option<usize>, Notification> {
    if buffer.iter().zip(MARKER).any(|(octet, one)| *octet != one) {
        return Err(Notification::connection_not_synchronized());
    }
    let Some([high, low, code]) = buffer.get(MARKER.len()..HEADER_LENGTH) else {
        return Ok(None);
    };
    let field = u16::from_be_bytes([*high, *low]);
    let length = usize::from(field);
    if length < HEADER_LENGTH || length > context.max_message_length() {
        return Err(Notification::bad_message_length(field));
    }
    let Some(kind) = MessageType::from_code(*code) else {
        return Err(Notification::bad_message_type(*code));
    };
    let allowed = match kind {
        // RFC 8654 §4: these two do not grow.
        MessageType::Open => 29..=MAX_MESSAGE_LENGTH,
        MessageType::Keepalive => HEADER_LENGTH..=HEADER_LENGTH,
        MessageType::Update | MessageType::RouteRefresh => 23..=length,
        MessageType::Notification => 21..=length,
    };
    if !allowed.contains(&length) {
        return Err(Notification::bad_message_length(field));
    }
    Ok(Some(length))
}

/// Appends a message of at most `limit` octets whose body `body` writes. On an error nothing is
/// appended.
pub(super) fn write_message(
    out: &mut BytesMut,
    kind: MessageType,
    limit: usize,
    body: impl FnOnce(&mut BytesMut) -> Result<(), EncodeError>,
) -> Result<(), EncodeError> {
    let start = out.len();
    out.put_slice(&MARKER);
    out.put_u16(0);
    out.put_u8(kind as u8);
    let result = body(out).and_then(|()| {
        let length = out.len() - start;
        if length > limit {
            return Err(EncodeError::TooLong { length, limit });
        }
        write_length(out, start + MARKER.len(), length, "message")
    });
    if result.is_err() {
        out.truncate(start);
    }
    result
}

/// Writes `length` into the two octets at `position`.
pub(super) fn write_length(
    out: &mut BytesMut,
    position: usize,
    length: usize,
    field: &'static str,
) -> Result<(), EncodeError> {
    let limit = usize::from(u16::MAX);
    let too_long = EncodeError::FieldTooLong {
        field,
        length,
        limit,
    };
    let octets = u16::try_from(length).map_err(|_| too_long)?.to_be_bytes();
    if let Some(place) = out.get_mut(position..position + 2) {
        place.copy_from_slice(&octets);
    }
    Ok(())
}
