//! Thrift's binary protocol: bytes to values to messages and back.
//!
//! Knows nothing about rings, stores or sockets. Invariants:
//!
//! * nothing that is read can panic, and memory is taken only for bytes that have arrived;
//! * every length and count is held against [`Limits`] before it is used;
//! * nesting is bounded, and walked with a stack of its own, never by recursion.
//!
//! Source: the Thrift binary protocol specification
//! (<https://github.com/apache/thrift/blob/master/doc/specs/thrift-binary-protocol.md>).
//! [`Splitter`] finds messages in a stream, [`Reader`] takes a struct apart, the `write_*`
//! functions of [`Write`] append one to a `Vec<u8>`; [`thrift_struct!`](crate::thrift_struct) does both for a struct
//! of Rust.

mod header;
mod message;
mod reader;
mod scanner;
mod value;
mod writer;

pub use message::{Message, MessageKind, Splitter, begin_message, end_frame};
pub use reader::Reader;
pub use value::{Decode, Encode, put_field, take_field};
pub use writer::Write;

use std::fmt;

/// The type bytes of the binary protocol.
pub mod wire {
    /// The end of a struct.
    pub const STOP: u8 = 0;
    /// One byte, 0 or 1.
    pub const BOOL: u8 = 2;
    /// One byte.
    pub const BYTE: u8 = 3;
    /// Eight bytes, IEEE 754.
    pub const DOUBLE: u8 = 4;
    /// Two bytes, two's complement; all numbers have the high byte first.
    pub const I16: u8 = 6;
    /// Four bytes.
    pub const I32: u8 = 8;
    /// Eight bytes.
    pub const I64: u8 = 10;
    /// `string` and `binary` are the same on the wire: a length and bytes.
    pub const STRING: u8 = 11;
    /// Fields, each with its type and number, and [`STOP`].
    pub const STRUCT: u8 = 12;
    /// Two types, a count, keys and values.
    pub const MAP: u8 = 13;
    /// A type, a count, elements.
    pub const SET: u8 = 14;
    /// The same as a set.
    pub const LIST: u8 = 15;
    /// Sixteen bytes; in the specification since 2022. No service here has one; it is skipped.
    pub const UUID: u8 = 16;
}

/// What a peer may make us read. Each is checked before memory is taken for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// A whole message in bytes, with its header and its frame's length. Up: larger values and batches; down: less
    /// memory per connection.
    pub message_bytes_max: usize,
    /// One string or binary that is read, in bytes. A longer one, in a message that is not too long, can
    /// be stepped over.
    pub string_bytes_max: usize,
    /// Elements of one list, set or map.
    pub elements_max: usize,
    /// Containers and structs inside one another, the message's own struct being the first.
    pub depth_max: usize,
}

impl Limits {
    /// 68 MiB a message, 32 MiB a string, a million elements, 32 levels: above the largest batch (two
    /// megabytes, and one item of a longest key and a longest value) and the largest ring that nodes
    /// send one another.
    pub const DEFAULT: Self = Limits {
        message_bytes_max: 68 << 20,
        string_bytes_max: 32 << 20,
        elements_max: 1_000_000,
        depth_max: 32,
    };
}

impl Default for Limits {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// Why bytes are not a message. From [`Splitter`]: the connection they came on can't be used any
/// further, as nobody knows where the next message begins. From [`Reader`]: the struct is not what
/// was expected, and an exception can be answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Error {
    /// The bytes end within a value.
    Truncated,
    /// A type byte that the protocol doesn't have.
    UnknownType(u8),
    /// A header of another protocol or version; the first four bytes.
    UnknownVersion(u32),
    /// A message type other than call, reply, exception and one-way.
    UnknownMessageKind(u8),
    /// A negative length or count.
    Negative,
    /// A length, count or depth above its limit.
    TooLarge {
        /// Of what `size` and `limit` are the number.
        what: &'static str,
        /// What was asked for.
        size: usize,
        /// What is allowed at most.
        limit: usize,
    },
    /// A method's name that begins with neither a letter nor an underscore: some other protocol.
    NoName(u8),
    /// Elements of another type than the one that was asked for. Only [`Reader::list`] says so, and
    /// the message can be read on.
    WrongType(u8),
    /// Something is left within a frame after its message. (A frame too short is `Truncated`.)
    FrameMismatch,
    /// A struct lacks a field that it has to have; its name. From [`Decode`], as is the next.
    Missing(&'static str),
    /// A count below 0, or a struct that doesn't meet the condition that [`thrift_struct!`](crate::thrift_struct) has
    /// for it.
    OutOfRange,
}

impl Error {
    /// The same, where it is known what is too large.
    #[must_use]
    pub fn of(self, what: &'static str) -> Self {
        match self {
            Error::TooLarge { size, limit, .. } => Error::TooLarge { what, size, limit },
            other => other,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Truncated => write!(f, "the message ends within a value"),
            Error::UnknownType(kind) => write!(f, "no such type: {kind}"),
            Error::UnknownVersion(word) => write!(f, "not Thrift's binary protocol: {word:#010x}"),
            Error::UnknownMessageKind(kind) => write!(f, "no such message type: {kind}"),
            Error::Negative => write!(f, "negative length"),
            Error::TooLarge { what, size, limit } => {
                write!(f, "{size} {what}, above the limit of {limit}")
            }
            Error::NoName(byte) => write!(
                f,
                "not Thrift's binary protocol: a method's name that begins with {byte:#04x}"
            ),
            Error::WrongType(kind) => write!(f, "a value of the wrong type: {kind}"),
            Error::FrameMismatch => write!(f, "the frame is longer than its message"),
            Error::Missing(name) => write!(f, "missing field: {name}"),
            Error::OutOfRange => write!(f, "a number out of range"),
        }
    }
}

impl std::error::Error for Error {}

/// A `TApplicationException`: what a peer answers instead of a result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exception {
    /// One of the constants below; others are carried as they came.
    pub kind: i32,
    /// For people.
    pub message: String,
}

impl Exception {
    /// The peer has no such method.
    pub const UNKNOWN_METHOD: i32 = 1;
    /// A message that is neither a call nor one-way.
    pub const WRONG_MESSAGE_TYPE: i32 = 2;
    /// A call without a result.
    pub const MISSING_RESULT: i32 = 5;
    /// The peer couldn't do it.
    pub const INTERNAL_ERROR: i32 = 6;
    /// The message is not what was expected.
    pub const PROTOCOL_ERROR: i32 = 7;
    /// The peer has no room for it. Not one of Thrift's own, which end below this.
    pub const NO_ROOM: i32 = 100;

    /// `kind` is one of the constants.
    pub fn new(kind: i32, message: impl Into<String>) -> Self {
        Exception {
            kind,
            message: message.into(),
        }
    }

    /// There is no method of that name.
    pub fn unknown_method(name: &[u8]) -> Self {
        let name = String::from_utf8_lossy(name);
        Exception::new(Self::UNKNOWN_METHOD, format!("unknown method: {name}"))
    }

    /// It can't be done; the message says why.
    pub fn internal(message: impl Into<String>) -> Self {
        Exception::new(Self::INTERNAL_ERROR, message)
    }

    /// An argument that has to be there and is not, or has another type.
    pub fn missing_argument(name: &str) -> Self {
        Exception::new(Self::PROTOCOL_ERROR, format!("missing argument: {name}"))
    }

    /// The answer of that method has no result.
    pub fn missing_result(method: &str) -> Self {
        Exception::new(Self::MISSING_RESULT, format!("{method}: missing result"))
    }

    /// The struct `{1: string message, 2: i32 type}`.
    pub fn write(&self, out: &mut Vec<u8>) {
        out.write_bytes_field(1, self.message.as_bytes());
        out.write_i32_field(2, self.kind);
        out.write_stop();
    }

    /// Reads that struct. Fields that are missing, or of another type, read as "" and 0.
    ///
    /// # Errors
    /// The bytes are no struct.
    pub fn read(mut reader: Reader<'_>) -> Result<Self, Error> {
        let mut exception = Exception::new(0, "");
        while let Some((kind, id)) = reader.field()? {
            match (id, kind) {
                (1, wire::STRING) => {
                    exception.message = String::from_utf8_lossy(reader.bytes()?).into_owned();
                }
                (2, wire::I32) => exception.kind = reader.i32()?,
                _ => reader.skip(kind)?,
            }
        }
        Ok(exception)
    }
}

impl From<Error> for Exception {
    fn from(error: Error) -> Self {
        match error {
            Error::Missing(name) => Exception::missing_argument(name),
            error => Exception::new(Exception::PROTOCOL_ERROR, error.to_string()),
        }
    }
}

impl fmt::Display for Exception {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (exception type {})", self.message, self.kind)
    }
}

impl std::error::Error for Exception {}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &[u8]) -> Result<Exception, Error> {
        Exception::read(Reader::new(bytes, &Limits::default()))
    }

    #[test]
    fn must_write_an_exception() {
        let mut out = Vec::new();
        Exception::new(Exception::INTERNAL_ERROR, "no").write(&mut out);
        let expected = b"\x0b\0\x01\0\0\0\x02no\x08\0\x02\0\0\0\x06\0";
        assert_eq!(out, expected);
    }

    #[test]
    fn must_read_an_exception_with_whatever_fields_it_has() {
        assert_eq!(read(&[0]), Ok(Exception::new(0, "")));
        let other_order = b"\x08\0\x02\0\0\0\x63\x02\0\x09\x01\x0b\0\x01\0\0\0\x02n\xff\0";
        assert_eq!(read(other_order), Ok(Exception::new(99, "n\u{fffd}")));
        let wrong_types = b"\x08\0\x01\0\0\0\x63\x0b\0\x02\0\0\0\x01n\0";
        assert_eq!(read(wrong_types), Ok(Exception::new(0, "")));
        assert_eq!(read(&other_order[..9]), Err(Error::Truncated));
    }

    #[test]
    fn must_name_the_standard_kinds() {
        let kinds = [
            (Exception::unknown_method(b"fly"), 1, "unknown method: fly"),
            (Exception::missing_result("get"), 5, "get: missing result"),
            (Exception::internal("full"), 6, "full"),
            (
                Exception::missing_argument("key"),
                7,
                "missing argument: key",
            ),
            (Error::Negative.into(), 7, "negative length"),
        ];
        for (exception, kind, message) in kinds {
            assert_eq!(
                (exception.kind, exception.message.as_str()),
                (kind, message)
            );
        }
        assert_eq!(Exception::WRONG_MESSAGE_TYPE, 2);
    }
}
