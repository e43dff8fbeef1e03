//! How a message begins: the strict header, the old one, and the frame around either.
//!
//! Decides as soon as it can. What is no message from its first bytes on, another protocol say, is not
//! waited for.

use super::message::{Message, MessageKind};
use super::scanner::{MESSAGE_BYTES, count};
use super::{Error, Limits};

/// Method names are short; this one is far above the longest of any service here.
pub(super) const NAME_BYTES_MAX: usize = 1024;

pub(super) const NAME_BYTES: &str = "bytes in a method's name";

/// The first half of the first word of a strict header.
pub(super) const VERSION: u32 = 0x8001_0000;

/// What stands before a message's struct. Places are counted from the message's first byte.
#[derive(Debug, Clone, Copy)]
pub(super) struct Header {
    kind: MessageKind,
    name: (usize, usize),
    sequence: i32,
    /// Where the struct begins.
    pub body: usize,
    /// Where the frame ends, for a framed message.
    pub frame_end: Option<usize>,
}

impl Header {
    /// The message, whose struct ends at `end`.
    pub fn message<'a>(&self, buffer: &'a [u8], end: usize) -> Message<'a> {
        Message {
            kind: self.kind,
            name: &buffer[self.name.0..self.name.1],
            sequence: self.sequence,
            body: &buffer[self.body..end],
            framed: self.frame_end.is_some(),
        }
    }
}

pub(super) fn too_large_frame(end: usize, limits: &Limits) -> Error {
    Error::TooLarge {
        what: MESSAGE_BYTES,
        size: end,
        limit: limits.message_bytes_max,
    }
}

/// The header with which `buffer` begins; `None` if it isn't all there.
pub(super) fn read_header(buffer: &[u8], limits: &Limits) -> Result<Option<Header>, Error> {
    let end = match (word(buffer, 0), buffer.get(4)) {
        (Some(0x8000_0000..), _) => return plain_header(buffer, 0, None),
        (Some(length @ 1..), Some(0x80 | 0x00)) => 4 + length as usize,
        (Some(_), Some(_)) => return plain_header(buffer, 0, None),
        _ => return may_begin(buffer).map(|()| None),
    };
    // What is not surely a strict header is not waited for.
    if end > limits.message_bytes_max && buffer[4] == 0 {
        return Err(too_large_frame(end, limits));
    }
    match plain_header(&buffer[..buffer.len().min(end)], 4, Some(end))? {
        None if buffer.len() >= end => Err(Error::Truncated),
        header => Ok(header),
    }
}

/// Whether a message may begin so, of which fewer than five bytes have come. If the first word is not
/// negative it may: it may be the length of a frame, or of a name, and the fifth byte tells.
fn may_begin(buffer: &[u8]) -> Result<(), Error> {
    let known = buffer.len().min(2);
    if buffer[..known] == VERSION.to_be_bytes()[..known] || buffer[0] & 0x80 == 0 {
        return Ok(());
    }
    let mut first = [0; 4];
    first[..buffer.len()].copy_from_slice(buffer);
    Err(Error::UnknownVersion(u32::from_be_bytes(first)))
}

/// A strict or old header at `start`.
fn plain_header(
    buffer: &[u8],
    start: usize,
    frame_end: Option<usize>,
) -> Result<Option<Header>, Error> {
    let Some(first) = word(buffer, start) else {
        return Ok(None);
    };
    let strict = first & 0x8000_0000 != 0;
    if strict && first & 0xffff_0000 != VERSION {
        return Err(Error::UnknownVersion(first));
    }
    if strict {
        MessageKind::from_byte(first as u8)?;
    }
    let name_length_at = if strict { start + 4 } else { start };
    let rest = buffer.get(name_length_at..).unwrap_or_default();
    let Some(name_length) = count(rest, 0, NAME_BYTES_MAX, NAME_BYTES)? else {
        return Ok(None);
    };
    let name = (name_length_at + 4, name_length_at + 4 + name_length);
    let begins_name = |byte: u8| byte.is_ascii_alphabetic() || byte == b'_';
    // Nothing but its name tells an old header from anything else.
    if let Some(&byte) = buffer.get(name.0)
        && !strict
        && name_length > 0
        && !begins_name(byte)
    {
        return Err(Error::NoName(byte));
    }
    let (kind_at, sequence_at) = if strict {
        (start + 3, name.1)
    } else {
        (name.1, name.1 + 1)
    };
    if frame_end.is_some_and(|end| sequence_at + 4 >= end) {
        return Err(Error::Truncated);
    }
    let Some(sequence) = word(buffer, sequence_at) else {
        return Ok(None);
    };
    Ok(Some(Header {
        kind: MessageKind::from_byte(buffer[kind_at])?,
        name,
        sequence: sequence as i32,
        body: sequence_at + 4,
        frame_end,
    }))
}

fn word(buffer: &[u8], at: usize) -> Option<u32> {
    let bytes = buffer.get(at..at + 4)?;
    Some(u32::from_be_bytes(
        bytes.try_into().expect("BUG: four bytes"),
    ))
}
