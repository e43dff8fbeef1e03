//! What nodes tell each other of a node: where it is, which of its lives is meant, and how far it is in that life.

use crate::digest::{digest, mix};
use crate::location::Location;
use crate::thrift::{Decode, Encode, Error, Reader, Write, wire};
use crate::thrift_struct;

/// How far a node is in one of its lives. Within a life, states follow each other in this order: if two nodes tell
/// different states of one life, the one that is further down is right.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum State {
    /// In no view: it looks for a network, or asks one to let it in.
    Outside = 1,
    /// A member that has never been full.
    Joining = 2,
    /// A member that was full in an earlier life, and brings what it has.
    Returning = 3,
    /// Had all that it should hold when it became full. It may lack items after a change of the view.
    Full = 4,
    /// Hands over what it has.
    Leaving = 5,
    /// Has said goodbye: in no view.
    Left = 6,
    /// A node of the 2009 original, or one that has not been asked yet what it is.
    Original = 7,
}

impl State {
    /// `None` for a number that stands for none.
    pub fn from_number(number: i32) -> Option<Self> {
        let all = [
            State::Outside,
            State::Joining,
            State::Returning,
            State::Full,
            State::Leaving,
            State::Left,
            State::Original,
        ];
        all.into_iter().find(|state| *state as i32 == number)
    }

    /// A member that has not been full in this life.
    pub fn is_coming(self) -> bool {
        matches!(self, State::Joining | State::Returning)
    }

    /// In a view, and one of ours.
    pub fn takes_part(self) -> bool {
        matches!(
            self,
            State::Joining | State::Returning | State::Full | State::Leaving
        )
    }

    /// Holds what was acknowledged: is full, or was until it began to leave.
    pub fn holds_all(self) -> bool {
        matches!(self, State::Full | State::Leaving)
    }
}

/// A node, which of its lives, and how far it is in that.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Its name: no two members have the same.
    pub location: Location,
    /// As it said last.
    pub state: State,
    /// The number of the life, drawn at random whenever the node asks a network to let it in, and never
    /// 0; odd if it began with what the node had before. A life that was lost never comes back. 0 for
    /// originals.
    pub incarnation: i64,
}

impl Member {
    /// A node of the 2009 program.
    pub fn original(location: Location) -> Self {
        Member {
            location,
            state: State::Original,
            incarnation: 0,
        }
    }

    /// Whether its life began with what it had in an earlier one.
    pub fn has_returned(&self) -> bool {
        self.incarnation % 2 == 1
    }

    /// Whether the two are accounts of one life.
    pub fn is_life_of(&self, other: &Member) -> bool {
        self.location == other.location && self.incarnation == other.incarnation
    }

    /// Whether it is no original.
    pub fn is_ours(&self) -> bool {
        self.state != State::Original
    }

    /// A number whose wrapping sum over all members tells two views apart.
    pub fn digest(&self) -> u64 {
        let name = digest(self.location.name().as_bytes());
        mix(name ^ self.incarnation.cast_unsigned().rotate_left(8) ^ self.state as u64)
    }
}

// The struct of idl/peer.thrift.
thrift_struct!(Member { 1 location, 2 state, 3 incarnation });

impl Encode for State {
    const KIND: u8 = wire::I32;

    fn encode(&self, out: &mut Vec<u8>) {
        out.write_i32(*self as i32);
    }
}

impl Decode<'_> for State {
    fn decode(reader: &mut Reader<'_>) -> Result<Self, Error> {
        State::from_number(reader.i32()?).ok_or(Error::Missing("state"))
    }
}
