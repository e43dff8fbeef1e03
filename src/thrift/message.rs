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
    /// The header of a message of which the rest has not all come.
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
        let header = match self.header.take() {
            Some(header) => header,
            None => {
                let Some(header) = read_header(buffer, limits)? else {
                    return Ok(None);
                };
                self.scanner.start(header.body, wire::STRUCT);
                header
            }
        };
        // A frame's message must not reach beyond the frame.
        let visible = match header.frame_end {
            Some(end) => &buffer[..buffer.len().min(end)],
            None => buffer,
        };
        if !self.scanner.advance(visible, limits)? {
            return match header.frame_end {
                Some(end) if buffer.len() >= end => Err(Error::Truncated),
                _ => {
                    self.header = Some(header);
                    Ok(None)
                }
            };
        }
        let end = self.scanner.position;
        if header.frame_end.is_some_and(|frame_end| frame_end != end) {
            return Err(Error::FrameMismatch);
        }
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
    let framed = !strict
        && first > 0
        && match buffer.get(4) {
            None => return Ok(None),
            Some(byte) => matches!(byte, 0x80 | 0x00),
        };
    if !framed {
        return plain_header(buffer, 0, None);
    }
    let length_max = limits.message_bytes_max.saturating_sub(4);
    let end = 4 + count(buffer, 0, length_max, "frame")?.unwrap_or(0);
    match plain_header(&buffer[..buffer.len().min(end)], 4, Some(end))? {
        None if buffer.len() >= end => Err(Error::Truncated),
        header => Ok(header),
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
    out.write_i32((VERSION | kind as u32) as i32);
    out.write_bytes(name);
    out.write_i32(sequence);
    start
}

/// Fills in the length of the frame that was begun at `start`, its message being complete.
pub fn end_frame(out: &mut [u8], start: usize) {
    let length = i32::try_from(out.len() - start - 4).expect("BUG: a frame of 2 GiB");
    out[start..start + 4].copy_from_slice(&length.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits {
        message_bytes_max: 60,
        string_bytes_max: 40,
        elements_max: 5,
        depth_max: 3,
    };

    type Found<'a> = Result<Option<(Message<'a>, usize)>, Error>;

    fn next(buffer: &[u8]) -> Found<'_> {
        Splitter::default().next(buffer, &LIMITS)
    }

    const PING: [u8; 17] = *b"\x80\x01\0\x01\0\0\0\x04ping\0\0\0\x07\0";
    const OLD_PING: [u8; 14] = *b"\0\0\0\x04ping\x01\0\0\0\x07\0";

    fn ping(framed: bool) -> Message<'static> {
        Message {
            kind: MessageKind::Call,
            name: b"ping",
            sequence: 7,
            body: &[0],
            framed,
        }
    }

    fn in_frame(message: &[u8]) -> Vec<u8> {
        let length = u32::try_from(message.len()).unwrap();
        [&length.to_be_bytes(), message].concat()
    }

    /// A message whose only field is a string of `length` bytes: `length` + 24 bytes.
    fn with_string(length: usize) -> Vec<u8> {
        let mut out = Vec::new();
        begin_message(&mut out, MessageKind::Call, b"ping", 7, false);
        out.write_bytes_field(1, &vec![b'x'; length]);
        out.write_stop();
        assert_eq!(out.len(), length + 24);
        out
    }

    #[test]
    fn must_write_a_strict_header() {
        let mut out = vec![0xee];
        let start = begin_message(&mut out, MessageKind::Call, b"ping", 7, false);
        out.write_stop();
        assert_eq!((start, &out[1..]), (1, &PING[..]));
    }

    #[test]
    fn must_write_every_kind_and_sequence() {
        for (kind, byte) in [
            (MessageKind::Call, 1),
            (MessageKind::Reply, 2),
            (MessageKind::Exception, 3),
            (MessageKind::Oneway, 4),
        ] {
            for sequence in [0, -2, i32::MIN, i32::MAX] {
                let mut out = Vec::new();
                begin_message(&mut out, kind, b"", sequence, false);
                assert_eq!(out[..8], [0x80, 1, 0, byte, 0, 0, 0, 0]);
                assert_eq!(out[8..], sequence.to_be_bytes());
                out.write_stop();
                let (message, _) = next(&out).unwrap().unwrap();
                assert_eq!((message.kind, message.sequence), (kind, sequence));
            }
        }
    }

    #[test]
    fn must_write_the_length_of_a_frame() {
        let mut out = vec![0xee];
        let start = begin_message(&mut out, MessageKind::Call, b"ping", 7, true);
        out.write_stop();
        end_frame(&mut out, start);
        assert_eq!(out[1..], in_frame(&PING));
    }

    #[test]
    fn must_read_strict_and_old_headers_in_a_frame_or_not() {
        for message in [&PING[..], &OLD_PING] {
            for framed in [false, true] {
                let mut bytes = message.to_vec();
                if framed {
                    bytes = in_frame(message);
                }
                let length = bytes.len();
                assert_eq!(next(&bytes), Ok(Some((ping(framed), length))));
                for end in 0..length {
                    assert_eq!(next(&bytes[..end]), Ok(None), "{end} of {bytes:?}");
                }
                bytes.push(0xee);
                assert_eq!(next(&bytes), Ok(Some((ping(framed), length))));
            }
        }
    }

    #[test]
    fn must_read_an_old_header_without_a_name() {
        let (message, length) = next(b"\0\0\0\0\x04\0\0\0\x07\0").unwrap().unwrap();
        let found = (message.kind, message.name, message.sequence, length);
        assert_eq!(found, (MessageKind::Oneway, &b""[..], 7, 10));
    }

    #[test]
    fn must_not_mind_the_third_byte_of_a_strict_header() {
        let mut bytes = PING;
        bytes[2] = 0xee;
        assert_eq!(next(&bytes), Ok(Some((ping(false), 17))));
    }

    #[test]
    fn must_refuse_other_versions_and_kinds() {
        for first in [
            [0x80, 0, 0, 1],
            [0x80, 2, 0, 1],
            [0x81, 1, 0, 1],
            [0x82, 0x21, 1, 0],
        ] {
            let word = u32::from_be_bytes(first);
            assert_eq!(next(&first), Err(Error::UnknownVersion(word)));
        }
        for kind in [0, 5, 255] {
            let (mut strict, mut old) = (PING, OLD_PING);
            strict[3] = kind;
            old[8] = kind;
            assert_eq!(next(&strict), Err(Error::UnknownMessageKind(kind)));
            assert_eq!(next(&old), Err(Error::UnknownMessageKind(kind)));
        }
    }

    #[test]
    fn must_refuse_other_protocols_by_their_first_bytes() {
        let name = Error::TooLarge("method name");
        assert_eq!(next(b"GET / HTTP/1.1\r\n"), Err(name));
        assert_eq!(next(b"*3\r\n$3\r\nSET"), Err(name));
        assert_eq!(next(b"SSH-2.0-x"), Err(name));
        assert_eq!(
            next(b"\x16\x03\x01\x02\0\x01"),
            Err(Error::TooLarge("frame"))
        );
        assert_eq!(next(&[0xff; 8]), Err(Error::UnknownVersion(u32::MAX)));
        assert_eq!(next(&[0; 9]), Err(Error::UnknownMessageKind(0)));
    }

    #[test]
    fn must_enforce_the_limit_of_method_names() {
        let limits = Limits::default();
        let message = |length: usize| {
            let mut out = Vec::new();
            begin_message(&mut out, MessageKind::Call, &vec![b'n'; length], 7, false);
            out.write_stop();
            out
        };
        let (longest, long) = (message(NAME_BYTES_MAX), message(NAME_BYTES_MAX + 1));
        let found = Splitter::default().next(&longest, &limits);
        assert_eq!(found.unwrap().unwrap().0.name.len(), NAME_BYTES_MAX);
        let name = Err(Error::TooLarge("method name"));
        // By the length alone.
        assert_eq!(Splitter::default().next(&long[..8], &limits), name);
        assert_eq!(
            next(b"\x80\x01\0\x01\xff\xff\xff\xff"),
            Err(Error::Negative)
        );
    }

    #[test]
    fn must_enforce_the_limit_of_messages() {
        let message = Err(Error::TooLarge("message"));
        assert_eq!(next(&with_string(36)).unwrap().unwrap().1, 60);
        assert_eq!(next(&with_string(37)), message);
        // By the length of the string alone.
        assert_eq!(next(&with_string(38)[..23]), message);
        let framed = |length| in_frame(&with_string(length));
        assert_eq!(next(&framed(32)).unwrap().unwrap().1, 60);
        assert_eq!(next(&framed(33)), Err(Error::TooLarge("frame")));
        assert_eq!(next(&framed(33)[..5]), Err(Error::TooLarge("frame")));
    }

    #[test]
    fn must_enforce_the_limit_of_nesting_on_the_body() {
        // The body itself is the first level.
        let nested = |levels: usize| {
            let header = &PING[..16];
            let fields = [wire::STRUCT, 0, 1].repeat(levels - 1);
            [header, &fields, &vec![wire::STOP; levels]].concat()
        };
        assert!(next(&nested(3)).unwrap().is_some());
        assert_eq!(next(&nested(4)), Err(Error::TooLarge("nesting")));
    }

    #[test]
    fn must_refuse_a_frame_of_another_length_than_its_message() {
        for message in [&PING[..], &OLD_PING, &with_string(5)] {
            for length in 1..message.len() {
                let mut bytes = in_frame(message);
                bytes[3] = u8::try_from(length).unwrap();
                bytes.truncate(4 + length);
                let short = next(&bytes);
                assert_eq!(short, Err(Error::Truncated), "{length} of {message:?}");
                // More behind it changes nothing.
                bytes.extend(PING);
                assert_eq!(
                    next(&bytes),
                    Err(Error::Truncated),
                    "{length} of {message:?}"
                );
            }
            let longer = in_frame(&[message, &[0]].concat());
            assert_eq!(next(&longer), Err(Error::FrameMismatch));
        }
    }

    #[test]
    fn must_find_mixed_messages_one_after_the_other() {
        let stream = [
            &PING[..],
            &in_frame(&OLD_PING),
            &OLD_PING,
            &in_frame(&PING),
            &PING,
        ]
        .concat();
        let mut splitter = Splitter::default();
        let mut rest = &stream[..];
        let mut framed = Vec::new();
        while let Some((message, length)) = splitter.next(rest, &LIMITS).unwrap() {
            assert_eq!(message, ping(message.framed));
            framed.push(message.framed);
            rest = &rest[length..];
        }
        assert_eq!(framed, [false, true, false, true, false]);
        assert_eq!(rest, b"");
    }

    #[test]
    fn must_take_one_step_a_value_however_the_message_comes() {
        let mut bytes = Vec::new();
        let start = begin_message(&mut bytes, MessageKind::Call, b"many", 7, true);
        for _ in 0..100_000 {
            bytes.write_bytes_field(1, b"x");
        }
        bytes.write_stop();
        end_frame(&mut bytes, start);
        let mut splitter = Splitter::default();
        for end in 0..bytes.len() {
            assert_eq!(splitter.next(&bytes[..end], &Limits::default()), Ok(None));
        }
        let (message, length) = splitter.next(&bytes, &Limits::default()).unwrap().unwrap();
        assert_eq!((message.name, length), (&b"many"[..], bytes.len()));
        assert!(splitter.scanner.steps <= bytes.len() + 100_000 + 10);
    }
}
