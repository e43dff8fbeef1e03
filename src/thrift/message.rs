//! A message: header, and one struct. Finding the next one in a stream, and beginning one.

use super::header::{Header, VERSION, read_header, too_large_frame};
use super::scanner::Scanner;
use super::{Error, Limits, Reader, Write, wire};

/// What a message is; the numbers are those of the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MessageKind {
    /// A request that wants an answer.
    Call = 1,
    /// A result.
    Reply = 2,
    /// An [`Exception`](super::Exception) instead of a result.
    Exception = 3,
    /// A request that wants no answer.
    Oneway = 4,
}

impl MessageKind {
    pub(super) fn from_byte(byte: u8) -> Result<Self, Error> {
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
    /// What it is.
    pub kind: MessageKind,
    /// The method's name, the same in the answer; any bytes.
    pub name: &'a [u8],
    /// Chosen by the caller, the same in the answer.
    pub sequence: i32,
    /// Exactly one struct: arguments, a result, or an exception.
    pub body: &'a [u8],
    /// It came in a frame (a length of four bytes in front), and is answered in one.
    pub framed: bool,
}

impl<'a> Message<'a> {
    /// Takes the body apart.
    pub fn reader(&self, limits: &'a Limits) -> Reader<'a> {
        Reader::new(self.body, limits)
    }
}

/// Finds one message after the other in a growing buffer. Strict, old (versionless) and framed
/// ones are told apart by their first bytes, each message for itself: an old header's first word
/// is the length of a method name, which begins with a letter or an underscore, and the message
/// within a frame begins with 0x80 or 0x00. Nothing else is waited for: other protocols (compact,
/// JSON, header) are no message from their first bytes on.
#[derive(Debug, Default)]
pub struct Splitter {
    scanner: Scanner,
    /// The header of a message whose rest has not all come, or has turned out to be no message.
    header: Option<Header>,
}

impl Splitter {
    /// The message with which `buffer` begins, and its length in the buffer; `None` if it isn't
    /// all there: call again with the same bytes and more behind them.
    ///
    /// # Errors
    /// The bytes are no message, or one above the limits. Nothing after them can be read. The same
    /// bytes bring the same error again, and [`Splitter::begun`] tells what it may be the answer to.
    pub fn next<'a>(
        &mut self,
        buffer: &'a [u8],
        limits: &Limits,
    ) -> Result<Option<(Message<'a>, usize)>, Error> {
        let header = match self.header {
            Some(header) => header,
            None => {
                let Some(header) = read_header(buffer, limits)? else {
                    return Ok(None);
                };
                self.scanner.start(header.body, wire::STRUCT);
                self.header = Some(header);
                header
            }
        };
        // A frame's message must not reach beyond the frame.
        let visible = match header.frame_end {
            Some(end) if end > limits.message_bytes_max => {
                return Err(too_large_frame(end, limits));
            }
            Some(end) => &buffer[..buffer.len().min(end)],
            None => buffer,
        };
        if !self.scanner.advance(visible, limits)? {
            return match header.frame_end {
                Some(end) if buffer.len().max(self.scanner.position) >= end => {
                    Err(Error::Truncated)
                }
                _ => Ok(None),
            };
        }
        let end = self.scanner.position;
        if header.frame_end.is_some_and(|frame_end| frame_end != end) {
            return Err(Error::FrameMismatch);
        }
        self.header = None;
        Ok(Some((header.message(buffer, end), end)))
    }

    /// How many bytes, from its first on, the message that has begun is known to have at least; 0: none has.
    pub fn known_bytes(&self) -> usize {
        let known = |header: Header| header.frame_end.unwrap_or(self.scanner.position);
        self.header.map_or(0, known)
    }

    /// The head of the message that has begun and is not all there, or turned out to be none; its body is empty.
    /// `buffer` has the bytes that [`Splitter::next`] got last.
    ///
    /// # Panics
    /// If `buffer` is shorter than that head.
    pub fn begun<'a>(&self, buffer: &'a [u8]) -> Option<Message<'a>> {
        let header = self.header.as_ref()?;
        Some(header.message(buffer, header.body))
    }
}

/// Appends a strict header; the body is the caller's to write. The answer is where the message
/// starts: what [`end_frame`] wants, if `framed`.
///
/// # Panics
/// If the name has 2 GiB or more. A [`Splitter`] takes names of up to 1,024 bytes.
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
///
/// # Panics
/// If the message has 2 GiB or more, or `out` is shorter than `start` and the length of the frame. That it is a frame
/// that begins there is not checked.
pub fn end_frame(out: &mut [u8], start: usize) {
    let length = i32::try_from(out.len() - start - 4).expect("BUG: a frame of 2 GiB");
    out[start..start + 4].copy_from_slice(&length.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::super::header::{NAME_BYTES, NAME_BYTES_MAX};
    use super::super::scanner::MESSAGE_BYTES;
    use super::*;

    const LIMITS: Limits = Limits {
        message_bytes_max: 60,
        string_bytes_max: 40,
        elements_max: 5,
        depth_max: 3,
    };

    fn too_large<T>(size: usize, what: &'static str, limit: usize) -> Result<T, Error> {
        Err(Error::TooLarge { what, size, limit })
    }

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
        let name = |size| too_large(size, NAME_BYTES, NAME_BYTES_MAX);
        assert_eq!(next(b"GET / HTTP/1.1\r\n"), name(0x4745_5420));
        assert_eq!(next(b"*3\r\n$3\r\nSET"), name(0x2a33_0d0a));
        assert_eq!(next(b"SSH-2.0-x"), name(0x5353_482d));
        assert_eq!(
            next(b"\x16\x03\x01\x02\0\x01"),
            too_large(0x1603_0102 + 4, MESSAGE_BYTES, 60)
        );
        assert_eq!(next(&[0xff; 8]), Err(Error::UnknownVersion(u32::MAX)));
        assert_eq!(next(&[0; 9]), Err(Error::UnknownMessageKind(0)));
    }

    /// `ping()` as Apache Thrift's libraries send it; each has come to the end, and is waited for no longer.
    #[test]
    fn must_refuse_the_other_protocols_of_thrift() {
        let compact = b"\x82\x21\x01\x04ping\0";
        assert_eq!(next(compact), Err(Error::UnknownVersion(0x8221_0104)));
        assert_eq!(next(&in_frame(compact)), Err(Error::NoName(0x82)));
        let json = br#"[1,"ping",1,0,{}]"#;
        let name = too_large(0x5b31_2c22, NAME_BYTES, NAME_BYTES_MAX);
        assert_eq!(next(json), name);
        assert_eq!(next(&in_frame(json)), Err(Error::NoName(b'[')));
        let long = in_frame(&[&json[..16], &[b' '; 5000], b"]"].concat());
        assert_eq!(next(&long), too_large(5017, NAME_BYTES, NAME_BYTES_MAX));
        // Magic, flags, sequence number, header's size in words; protocol, no transforms; the payload.
        let header = [b"\x0f\xff\0\0\0\0\0\x01\0\x01\x02\0\0\0", &compact[..]].concat();
        assert_eq!(next(&in_frame(&header)), Err(Error::NoName(0x0f)));
        // And as soon as anything is known.
        assert!(next(&compact[..1]).is_err());
        let framed = [in_frame(compact), in_frame(json), in_frame(&header)];
        for protocol in framed.iter().map(Vec::as_slice).chain([&json[..]]) {
            assert!(next(&protocol[..5]).is_err());
            assert_eq!(next(&protocol[..4]), Ok(None));
        }
    }

    #[test]
    fn must_not_wait_for_what_can_not_become_a_message() {
        for start in [&b"GET /"[..], b"PING\r", b"\x81", b"\x80\x02", b"\xff"] {
            assert!(next(start).is_err(), "{start:?}");
        }
        // Text may be the length of a frame until its fifth byte.
        for start in [&b""[..], b"\0", b"\0\0\0", b"GET ", b"\x80", b"\x80\x01"] {
            assert_eq!(next(start), Ok(None), "{start:?}");
        }
        // A kind that is none, a name or a string that its frame has no room for.
        let kind = next(b"\x80\x01\0\x05");
        assert_eq!(kind, Err(Error::UnknownMessageKind(5)));
        let name = next(b"\0\0\0\x14\x80\x01\0\x01\0\0\0\x20");
        assert_eq!(name, Err(Error::Truncated));
        let long = in_frame(&with_string(30));
        let mut string = long[..27].to_vec();
        assert_eq!(next(&string), Ok(None));
        string[3] -= 1;
        assert_eq!(next(&string), Err(Error::Truncated));
        // What is strict is ours, whatever the name: it is answered.
        let strict = b"\x80\x01\0\x01\0\0\0\x01\x82\0\0\0\x07\0";
        assert_eq!(next(strict).unwrap().unwrap().0.name, [0x82]);
        let underscore = b"\0\0\0\x02_x\x01\0\0\0\x07\0";
        assert_eq!(next(underscore).unwrap().unwrap().0.name, b"_x");
    }

    #[test]
    fn must_tell_what_an_error_is_the_answer_to() {
        let large = with_string(41);
        for framed in [false, true] {
            let bytes = match framed {
                true => in_frame(&large),
                false => large.clone(),
            };
            let mut splitter = Splitter::default();
            assert_eq!(splitter.begun(&bytes), None);
            let error = splitter.next(&bytes, &LIMITS).unwrap_err();
            let begun = splitter.begun(&bytes).unwrap();
            assert_eq!(
                begun,
                Message {
                    body: &[],
                    ..ping(framed)
                }
            );
            assert_eq!(splitter.next(&bytes, &LIMITS), Err(error), "again");
        }
        let mut splitter = Splitter::default();
        assert!(splitter.next(&PING, &LIMITS).unwrap().is_some());
        assert_eq!(splitter.begun(&PING), None);
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
        let name = too_large(NAME_BYTES_MAX + 1, NAME_BYTES, NAME_BYTES_MAX);
        // By the length alone.
        assert_eq!(Splitter::default().next(&long[..8], &limits), name);
        assert_eq!(
            next(b"\x80\x01\0\x01\xff\xff\xff\xff"),
            Err(Error::Negative)
        );
    }

    #[test]
    fn must_enforce_the_limit_of_messages() {
        let large = |size| too_large(size, MESSAGE_BYTES, 60);
        assert_eq!(next(&with_string(36)).unwrap().unwrap().1, 60);
        assert_eq!(next(&with_string(37)), large(61));
        // By the length of the string alone.
        assert_eq!(next(&with_string(38)[..23]), large(61));
        let string = too_large(41, "bytes in a string", 40);
        assert_eq!(next(&with_string(41)[..23]), string);
        let framed = |length| in_frame(&with_string(length));
        assert_eq!(next(&framed(32)).unwrap().unwrap().1, 60);
        assert_eq!(next(&framed(33)), large(61));
        // As soon as it is known what there is to answer.
        assert_eq!(next(&framed(33)[..19]), Ok(None));
        assert_eq!(next(&framed(33)[..20]), large(61));
        // Whatever the length.
        for length in [0x2000_0000_u32, 0x4745_5420, i32::MAX as u32] {
            let bytes = [&length.to_be_bytes(), &PING[..]].concat();
            let mut splitter = Splitter::default();
            for end in 0..20 {
                assert_eq!(splitter.next(&bytes[..end], &LIMITS), Ok(None), "{end}");
            }
            assert_eq!(splitter.next(&bytes, &LIMITS), large(length as usize + 4));
            assert_eq!(splitter.begun(&bytes).unwrap().name, b"ping");
        }
        let old = in_frame(&[&OLD_PING[..13], &[0; 50]].concat());
        assert_eq!(next(&old[..5]), large(67));
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
        let deep = too_large(4, "levels of nesting", 3);
        assert_eq!(next(&nested(4)), deep);
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
