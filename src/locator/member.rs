//! A member of the network, as nodes tell each other of it.

use std::sync::Arc;

use crate::location::Location;
use crate::thrift::{Error, Reader, Write, wire};

/// How far a node is in taking part.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum State {
    /// Has not yet got all that it should hold. A holder beside the ones that count.
    Filling = 1,
    /// Has all that it should hold.
    Full = 2,
    /// Is handing over. A holder beside the ones that count, like a filling one.
    Leaving = 3,
    /// Has said goodbye: no member any more.
    Gone = 4,
    /// A node of the 2009 original, or one that has not been asked yet what it is.
    Original = 5,
}

impl State {
    fn from_byte(byte: u8) -> Option<Self> {
        let all = [
            State::Filling,
            State::Full,
            State::Leaving,
            State::Gone,
            State::Original,
        ];
        all.into_iter().find(|state| *state as u8 == byte)
    }
}

/// A node, its state, and when that began.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    pub location: Location,
    pub state: State,
    /// Microseconds, by the clock of the node itself, and growing with each of its states: of two
    /// accounts of a node the greater stamp is the later one. 0 for originals.
    pub stamp: i64,
}

impl Member {
    pub fn original(location: Location) -> Self {
        Member {
            location,
            state: State::Original,
            stamp: 0,
        }
    }

    pub fn is_ours(&self) -> bool {
        self.state != State::Original
    }

    /// Whether it has all that it should hold, as far as one of ours can tell.
    pub fn is_complete(&self) -> bool {
        matches!(self.state, State::Full | State::Leaving)
    }

    pub(super) fn name(&self) -> &Arc<str> {
        self.location.name()
    }

    /// A number whose sum over all members tells two lists apart: FNV-1a, 64 bits, over name,
    /// state and stamp, its bits then mixed as the sum of plain FNVs would keep patterns.
    pub(super) fn digest(&self) -> u64 {
        let stamp = self.stamp.to_be_bytes();
        let parts = [self.name().as_bytes(), &[0, self.state as u8], &stamp];
        fnv1a(parts.into_iter().flatten())
    }

    pub fn write(&self, out: &mut Vec<u8>) {
        out.write_field(wire::STRUCT, 1);
        self.location.write(out);
        out.write_i32_field(2, self.state as i32);
        out.write_i64_field(3, self.stamp);
        out.write_stop();
    }

    /// `None` for a struct that tells of no node.
    pub fn read(reader: &mut Reader<'_>) -> Result<Option<Self>, Error> {
        let (mut location, mut state, mut stamp) = (None, None, None);
        reader.each_field(|id, kind, reader| {
            match (id, kind) {
                (1, wire::STRUCT) => location = Location::read(reader)?,
                (2, wire::I32) => {
                    state = u8::try_from(reader.i32()?).ok().and_then(State::from_byte);
                }
                (3, wire::I64) => stamp = Some(reader.i64()?),
                _ => return Ok(false),
            }
            Ok(true)
        })?;
        let (Some(location), Some(state), Some(stamp)) = (location, state, stamp) else {
            return Ok(None);
        };
        Ok(Some(Member {
            location,
            state,
            stamp,
        }))
    }
}

/// The hash by Fowler, Noll and Vo, with a final mix (that of splitmix64): fast on short input,
/// the same on every node, and good enough where nobody gains by a collision.
pub fn fnv1a<'a>(bytes: impl IntoIterator<Item = &'a u8>) -> u64 {
    let step = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    let hash = bytes.into_iter().fold(0xcbf2_9ce4_8422_2325, step);
    let hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    hash ^ (hash >> 31)
}
