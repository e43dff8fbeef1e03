//! A message: header, and one struct. Finding the next one in a stream, and beginning one.

use super::scanner::{Scanner, count};
use super::{Error, Limits, Reader, Write, wire};

/// Method names are short; this one is far above the longest of any service here.
const NAME_BYTES_MAX: usize = 1024;

/// The first half of the first word of a strict header.
const VERSION: u32 = 0x8001_0000;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MessageKind {
    Call = 1,
    Reply = 2,
    Exception = 3,
    Oneway = 4,
}

impl MessageKind {
    fn from_byte(byte: u8) -> Result<Self, Error> {
        match byte {
            1 => Ok(MessageKind::Call),
            2 => Ok(MessageKind::Reply),
            3 => Ok(MessageKind::Exception),
            4 => Ok(MessageKind::Oneway),
            _ => Err(Error::UnknownMessageKind(byte)),
        }
    }
}

/// A whole message, as slices of the bytes that it came in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Message<'a> {
    pub kind: MessageKind,
    pub name: &'a [u8],
    pub sequence: i32,
    /// Exactly one struct: arguments, a result, or an exception.
    pub body: &'a [u8],
    /// It came in a frame (a length of four bytes in front), and is answered in one.
    pub framed: bool,
}

impl<'a> Message<'a> {
    pub fn reader(&self, limits: &'a Limits) -> Reader<'a> {
        Reader::new(self.body, limits)
    }
}

/// Finds one message after the other in a growing buffer. Strict, old (versionless) and framed
/// ones are told apart by their first bytes, each message for itself: an old header's first word
/// is the length of a method name, and no name begins with the bytes 0x80 or 0x00, with which the
/// message within a frame begins.
#[derive(Debug, Default)]
pub struct Splitter {
    scanner: Scanner,
    /// The header of the message at hand once it has all been there.
    header: Option<Header>,
}

#[derive(Debug, Clone, Copy)]
struct Header {
    kind: MessageKind,
    name: (usize, usize),
    sequence: i32,
    body: usize,
    /// Where the frame ends, for a framed message.
    frame_end: Option<usize>,
}

impl Splitter {
    /// The message with which `buffer` begins, and its length in the buffer; `None` if it isn't
    /// all there: call again with the same bytes and more behind them.
    ///
    /// # Errors
    /// The bytes are no message, or one above the limits. Nothing after them can be read.
    pub fn next<'a>(
        &mut self,
        buffer: &'a [u8],
        limits: &Limits,
    ) -> Result<Option<(Message<'a>, usize)>, Error> {
        let header = match self.header {
            Some(header) => header,
            None => match read_header(buffer, limits)? {
                None => return Ok(None),
                Some(header) => {
                    self.scanner.start(header.body, wire::STRUCT);
                    *self.header.insert(header)
                }
            },
        };
        // A frame's message must not reach beyond the frame.
        let visible = match header.frame_end {
            Some(end) => &buffer[..buffer.len().min(end)],
            None => buffer,
        };
        if !self.scanner.advance(visible, limits)? {
            return match header.frame_end {
                Some(end) if buffer.len() >= end => Err(Error::Truncated),
                _ => Ok(None),
            };
        }
        let end = self.scanner.position;
        if header.frame_end.is_some_and(|frame_end| frame_end != end) {
            return Err(Error::FrameMismatch);
        }
        self.header = None;
        let message = Message {
            kind: header.kind,
            name: &buffer[header.name.0..header.name.1],
            sequence: header.sequence,
            body: &buffer[header.body..end],
            framed: header.frame_end.is_some(),
        };
        Ok(Some((message, end)))
    }
}

fn read_header(buffer: &[u8], limits: &Limits) -> Result<Option<Header>, Error> {
    let Some(first) = word(buffer, 0) else {
        return Ok(None);
    };
    let strict = first & 0x8000_0000 != 0;
    if strict {
        return plain_header(buffer, 0, None);
    }
    match buffer.get(4) {
        None => Ok(None),
        Some(0x80 | 0x00) if first > 0 => {
            let length = count(buffer, 0, limits.message_bytes_max, "frame")?.unwrap_or(0);
            plain_header(buffer, 4, Some(4 + length))
        }
        Some(_) => plain_header(buffer, 0, None),
    }
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
    let name_length_at = if strict { start + 4 } else { start };
    let rest = buffer.get(name_length_at..).unwrap_or_default();
    let Some(name_length) = count(rest, 0, NAME_BYTES_MAX, "method name")? else {
        return Ok(None);
    };
    let name = (name_length_at + 4, name_length_at + 4 + name_length);
    let (kind_at, sequence_at) = if strict {
        (start + 3, name.1)
    } else {
        (name.1, name.1 + 1)
    };
    let Some(sequence) = word(buffer, sequence_at) else {
        return Ok(None);
    };
    Ok(Some(Header {
        kind: MessageKind::from_byte(buffer[kind_at])?,
        name,
        sequence: sequence.cast_signed(),
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

/// Appends a strict header; the body is the caller's to write. The answer is where the message
/// starts: what [`end_frame`] wants, if `framed`.
pub fn begin_message(
    out: &mut Vec<u8>,
    kind: MessageKind,
    name: &[u8],
    sequence: i32,
    framed: bool,
) -> usize {
    let start = out.len();
    if framed {
        out.write_i32(0);
    }
    out.write_i32((VERSION | kind as u32).cast_signed());
    out.write_bytes(name);
    out.write_i32(sequence);
    start
}

/// Fills in the length of the frame that was begun at `start`, its message being complete.
pub fn end_frame(out: &mut [u8], start: usize) {
    let length = i32::try_from(out.len() - start - 4).expect("BUG: a frame of 2 GiB");
    out[start..start + 4].copy_from_slice(&length.to_be_bytes());
}
