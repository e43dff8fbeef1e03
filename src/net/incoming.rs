//! The bytes that come in on one connection, and the messages in them.
//!
//! One buffer, small until a message or a full read wants more, so memory is only ever taken
//! for bytes that have arrived (at most four times as much). Messages are slices of it. What it takes for large ones
//! is held against the total, see `src/net/room.rs`.

use std::io::{self, ErrorKind, Read};

use super::room::{self, SMALL_BYTES};
use crate::thrift::{Error, Limits, Message, Splitter};

/// What a quiet connection holds: most requests fit, and thousands of connections cost little.
pub(crate) const BUFFER_BYTES_MIN: usize = 1 << 10;

/// Up to here the buffer grows when a read fills it; beyond only for a message that needs it.
const BUFFER_BYTES_BATCH: usize = SMALL_BYTES;

/// Messages that are handed out at once, at most. More of them: fewer messages between nodes, as what they have to ask
/// others travels together; and more memory for what is known of each.
const BATCH_MESSAGES: usize = 64;

/// Most batches have no more.
const FEW_MESSAGES: usize = 16;

#[derive(Debug)]
pub(crate) struct Incoming {
    /// Initialised throughout; what has been read and not yet handed out is `start..end`.
    bytes: Vec<u8>,
    start: usize,
    end: usize,
    splitter: Splitter,
}

impl Incoming {
    pub fn new() -> Self {
        Incoming {
            bytes: vec![0; BUFFER_BYTES_MIN],
            start: 0,
            end: 0,
            splitter: Splitter::default(),
        }
    }

    /// Reads once: how many bytes came, 0 at the end of the stream.
    ///
    /// # Errors
    /// As of reading; [`io::ErrorKind::OutOfMemory`] where there is no room for the message.
    pub fn read_from(&mut self, stream: &mut impl Read) -> io::Result<usize> {
        let length = self.bytes.len();
        let filled = self.end == length;
        if self.start > 0 {
            self.bytes.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
        if filled && length < BUFFER_BYTES_BATCH {
            self.bytes.resize(4 * length, 0);
        } else if self.end == length {
            // A message that ends with what is known of it fits.
            let known = self.splitter.known_bytes() + BUFFER_BYTES_MIN;
            let grown = match 2 * length {
                twice if known > length => twice.min(known),
                twice => twice,
            };
            room::hold(grown.max(known))?;
            let reserved = self.bytes.try_reserve_exact(grown - length);
            reserved.map_err(|error| io::Error::new(ErrorKind::OutOfMemory, error))?;
            self.bytes.resize(grown, 0);
        }
        let count = stream.read(&mut self.bytes[self.end..])?;
        self.end += count;
        Ok(count)
    }

    /// The next message, if it is all there.
    ///
    /// # Errors
    /// The bytes are no message, or one above the limits: nothing after them can be read.
    pub fn next(&mut self, limits: &Limits) -> Result<Option<Message<'_>>, Error> {
        let unread = &self.bytes[self.start..self.end];
        let Some((message, length)) = self.splitter.next(unread, limits)? else {
            return Ok(None);
        };
        self.start += length;
        Ok(Some(message))
    }

    /// The next messages that are all there, [`BATCH_MESSAGES`] at most.
    ///
    /// # Errors
    /// As of [`Incoming::next`], once the messages before have been handed out.
    pub fn batch(&mut self, limits: &Limits) -> Result<Vec<Message<'_>>, Error> {
        let mut messages = Vec::with_capacity(FEW_MESSAGES);
        while messages.len() < BATCH_MESSAGES {
            match self
                .splitter
                .next(&self.bytes[self.start..self.end], limits)
            {
                Ok(Some((message, length))) => {
                    self.start += length;
                    messages.push(message);
                }
                // It stays where it is, and is found again.
                Err(error) if messages.is_empty() => return Err(error),
                Ok(None) | Err(_) => break,
            }
        }
        Ok(messages)
    }

    /// The head of the message that has begun, or turned out to be none; see [`Splitter::begun`].
    pub fn begun(&self) -> Option<Message<'_>> {
        self.splitter.begun(&self.bytes[self.start..self.end])
    }

    /// What has been read and not yet handed out.
    pub fn unread(&self) -> &[u8] {
        &self.bytes[self.start..self.end]
    }

    /// Whether nothing is left of what has been read.
    pub fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// Whether the buffer has grown so far that others may have to wait for what it takes.
    pub fn is_large(&self) -> bool {
        self.bytes.len() > SMALL_BYTES
    }

    /// Whether the buffer has grown.
    pub fn is_grown(&self) -> bool {
        self.bytes.len() > BUFFER_BYTES_MIN
    }

    /// Gives memory back, unless a message is under way.
    pub fn shrink(&mut self) {
        if self.is_empty() {
            (self.start, self.end) = (0, 0);
            self.bytes.truncate(BUFFER_BYTES_MIN);
            self.bytes.shrink_to_fit();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::thrift::{MessageKind, Write, begin_message};

    fn message(value: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        begin_message(&mut bytes, MessageKind::Call, b"put", 7, false);
        bytes.write_bytes_field(1, value);
        bytes.write_stop();
        bytes
    }

    /// Hands out as many bytes at a time as asked for.
    struct Pieces<'a>(&'a [u8], usize);

    impl Read for Pieces<'_> {
        fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
            let count = self.1.min(self.0.len()).min(into.len());
            let (head, rest) = self.0.split_at(count);
            into[..count].copy_from_slice(head);
            self.0 = rest;
            Ok(count)
        }
    }

    #[test]
    fn must_find_the_same_messages_however_they_come() {
        let values: Vec<Vec<u8>> = [0, 1, 100, 5_000, 3, 200_000, 9]
            .map(|length| vec![b'x'; length])
            .into();
        let stream: Vec<u8> = values.iter().flat_map(|value| message(value)).collect();
        for piece in [1, 7, 4096, usize::MAX] {
            let mut pieces = Pieces(&stream, piece);
            let mut incoming = Incoming::new();
            let mut bodies = Vec::new();
            while incoming.read_from(&mut pieces).unwrap() > 0 {
                while let Some(message) = incoming.next(&Limits::default()).unwrap() {
                    bodies.push(message.body[7..message.body.len() - 1].to_vec());
                }
            }
            assert!(bodies == values, "in pieces of {piece}");
            assert!(incoming.is_empty());
        }
    }

    #[test]
    fn must_hand_out_batches_and_what_came_before_garbage() {
        let limits = Limits::default();
        let mut bytes = message(b"").repeat(BATCH_MESSAGES + 3);
        bytes.extend([0xff; 20]);
        let (mut incoming, mut pieces) = (Incoming::new(), Pieces(&bytes, usize::MAX));
        while incoming.read_from(&mut pieces).unwrap() > 0 {}
        for count in [BATCH_MESSAGES, 3] {
            let batch = incoming.batch(&limits).unwrap();
            assert_eq!(batch.len(), count);
            assert!(batch.iter().all(|message| message.name == b"put"));
        }
        for _ in 0..2 {
            let garbage = incoming.batch(&limits);
            assert_eq!(garbage, Err(Error::UnknownVersion(u32::MAX)));
        }
    }

    #[test]
    fn must_not_take_memory_for_what_has_not_come() {
        let claim = &message(&[b'x'; 1 << 20])[..1000];
        let mut incoming = Incoming::new();
        let mut pieces = Pieces(claim, usize::MAX);
        while incoming.read_from(&mut pieces).unwrap() > 0 {
            assert_eq!(incoming.next(&Limits::default()), Ok(None));
        }
        assert!(!incoming.is_grown());
        incoming.shrink();
        assert!(!incoming.is_empty(), "a message under way is kept");
    }

    #[test]
    fn must_give_memory_back() {
        let bytes = message(&[b'x'; 1 << 20]);
        let mut incoming = Incoming::new();
        let mut pieces = Pieces(&bytes, usize::MAX);
        while incoming.next(&Limits::default()).unwrap().is_none() {
            incoming.read_from(&mut pieces).unwrap();
        }
        assert!(incoming.is_grown());
        assert!(incoming.bytes.len() < 4 << 20);
        incoming.shrink();
        assert!(!incoming.is_grown());
    }
}
