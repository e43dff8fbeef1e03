//! The calls of the Locator (idl/locator.thrift) and of the extension that our own nodes speak among
//! themselves (idl/peer.thrift), as far as the locator is concerned: the structs that are sent, by the numbers of
//! their fields.

use std::sync::Arc;

use crate::location::Location;
use crate::membership::{Caller, Entry, Member, Question, Range, Reply, Side, Standing, State};
use crate::net::{CallError, Connection, Request};
use crate::thrift::{Decode, Encode, Error, Exception, Limits, Reader, Write, put_field, wire};
use crate::thrift_struct;

/// The limits for what nodes read: the same for all, as batches and rings are ours to bound.
pub const LIMITS: Limits = Limits::DEFAULT;

/// A struct without fields: no arguments, or the result of a void method.
pub const EMPTY: &[u8] = &[wire::STOP];

/// A request to one of our own nodes.
pub fn request(method: &'static str, arguments: Vec<u8>) -> Request {
    Request {
        method,
        arguments: Arc::new(arguments),
        connection: Connection::Kept,
        limit: None,
        oneway: false,
    }
}

/// A request to an original, or to a node whose kind is not known yet.
pub fn single_request(method: &'static str, arguments: Vec<u8>, oneway: bool) -> Request {
    Request {
        connection: Connection::Single,
        oneway,
        ..request(method, arguments)
    }
}

/// The error that the caller gets for an answer that can't be read.
impl From<Error> for CallError {
    fn from(error: Error) -> Self {
        CallError::Broken(error.to_string())
    }
}

/// The arguments of `get` and `get_node`: `{1: key}`.
pub fn write_key(key: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(key.len() + 8);
    out.write_bytes_field(1, key);
    out.write_stop();
    out
}

/// Says what it is that is too large.
pub fn of_the_key(error: Error) -> Error {
    error.of("bytes in the key")
}

/// The key in the arguments of `get` and `get_node`: `{1: key}`.
///
/// # Errors
/// It is missing, or too large.
pub fn read_key(arguments: &[u8]) -> Result<&[u8], Exception> {
    let mut key = None;
    Reader::new(arguments, &LIMITS).each_field(|id, kind, reader| {
        let found = (id, kind) == (1, wire::STRING);
        if found {
            key = Some(reader.bytes().map_err(of_the_key)?);
        }
        Ok(found)
    })?;
    key.ok_or_else(|| Exception::missing_argument("key"))
}

/// The arguments of one of our own calls.
///
/// # Errors
/// One is missing, or malformed.
pub fn read_arguments<'a, T: Decode<'a>>(arguments: &'a [u8]) -> Result<T, Exception> {
    Ok(T::decode(&mut Reader::new(arguments, &LIMITS))?)
}

/// A request to one of our own nodes, with these arguments.
pub fn request_of(method: &'static str, arguments: &impl Encode) -> Request {
    let mut out = Vec::new();
    arguments.encode(&mut out);
    request(method, out)
}

/// Appends the result of a call.
pub fn write_answer(answer: &impl Encode, out: &mut Vec<u8>) {
    put_field(out, 0, answer);
    out.write_stop();
}

/// The result of a call: field 0.
///
/// # Errors
/// [`CallError::Exception`] if it is missing, [`CallError::Broken`] if it can't be read.
pub fn read_answer<'a, T: Decode<'a>>(result: &'a [u8], method: &str) -> Result<T, CallError> {
    let mut answer = None;
    Reader::new(result, &LIMITS).each_field(|id, kind, reader| {
        let found = (id, kind) == (0, T::KIND);
        if found {
            answer = Some(T::decode(reader)?);
        }
        Ok(found)
    })?;
    answer.ok_or_else(|| CallError::Exception(Exception::missing_result(method)))
}

/// The arguments of `join`, `add` and `remove`: a node, and the nodes that have been told of it already.
pub struct News {
    /// The node that the news is about.
    pub location: Location,
    /// Nodes that know it already; at most as many as the limit of a list. Empty if the field is missing: `join` has
    /// no such argument.
    pub authorities: Vec<Location>,
}
thrift_struct!(News { 1 location, 2 authorities });

impl News {
    /// The arguments.
    pub fn write<'a>(
        location: &Location,
        authorities: impl Iterator<Item = &'a Location>,
    ) -> Vec<u8> {
        let mut out = Vec::new();
        put_field(&mut out, 1, location);
        put_field(&mut out, 2, &authorities.collect::<Vec<_>>());
        out.write_stop();
        out
    }
}

/// A [`Standing`] as it is sent, a state and an incarnation: no state means unknown, *left* means lost.
struct Known {
    state: Option<State>,
    incarnation: i64,
}
thrift_struct!(Known { 1 state, 2 incarnation });

impl Encode for Standing {
    const KIND: u8 = wire::STRUCT;

    fn encode(&self, out: &mut Vec<u8>) {
        let (state, incarnation) = match *self {
            Standing::Unknown => (None, 0),
            Standing::Lost(incarnation) => (Some(State::Left), incarnation),
            Standing::Member(state, incarnation) => (Some(state), incarnation),
        };
        Known { state, incarnation }.encode(out);
    }

    fn is_absent(&self) -> bool {
        *self == Standing::Unknown
    }
}

impl Decode<'_> for Standing {
    fn decode(reader: &mut Reader<'_>) -> Result<Self, Error> {
        let Known { state, incarnation } = Known::decode(reader)?;
        Ok(match state {
            None => Standing::Unknown,
            Some(State::Left) => Standing::Lost(incarnation),
            Some(state) => Standing::Member(state, incarnation),
        })
    }

    fn absent() -> Option<Self> {
        Some(Standing::Unknown)
    }
}

// `ask`: the question that nodes put to each other, and its answer.
thrift_struct!(Side { 1 confirmed, 2 first, 3 slept, 4 expired });
thrift_struct!(Range { 1 start, 2 list });
thrift_struct!(Question { 1 caller, 2 you, 3 wants_lease, 4 digest, 5 side, 6 wants_members, 7 lost, 8 token, 9 floor });
thrift_struct!(Reply { 1 me, 2 you, 3 granted, 4 digest, 5 side, 6 members, 7 missing, 8 floor, 9 clean });

/// `enter`: what a candidate says of itself and of its network.
pub struct Candidate {
    pub me: Member,
    pub service: String,
    pub replicas: u32,
    pub tick_millis: i64,
    pub version: i32,
}
thrift_struct!(Candidate { 1 me, 2 service, 3 replicas, 4 tick_millis, 5 version });

/// The answer to `enter`: a kind, and what that kind has.
#[derive(Default)]
struct Entered {
    kind: i32,
    members: Vec<Member>,
    lost: Vec<Member>,
    names: Vec<Location>,
    reason: String,
    missing: Vec<Member>,
    expired: Vec<Member>,
    floor: i64,
}
thrift_struct!(Entered { 1 kind, 2 members, 3 lost, 4 names, 5 reason, 6 missing, 7 expired, 8 floor });

/// Appends the result of `enter`.
pub fn write_entry(entry: Entry, out: &mut Vec<u8>) {
    let mut entered = Entered::default();
    entered.kind = match entry {
        Entry::Admitted {
            members,
            lost,
            missing,
            expired,
            floor,
        } => {
            let life = |(location, incarnation)| Member {
                location,
                state: State::Left,
                incarnation,
            };
            entered.members = members;
            entered.lost = lost.into_iter().map(life).collect();
            entered.missing = missing;
            entered.expired = expired;
            entered.floor = floor;
            1
        }
        Entry::Refer(to) => {
            entered.names = vec![to];
            2
        }
        Entry::Later(reason) => {
            entered.reason = reason;
            3
        }
        Entry::Lost => 4,
        Entry::Outside(names) => {
            entered.names = names;
            5
        }
        Entry::Refused(reason) => {
            entered.reason = reason;
            6
        }
        Entry::Expired => 7,
    };
    write_answer(&entered, out);
}

pub fn read_entry(result: &[u8]) -> Result<Entry, CallError> {
    let Entered {
        kind,
        members,
        lost,
        mut names,
        reason,
        missing,
        expired,
        floor,
    } = read_answer(result, "enter")?;
    let lives = |member: Member| (member.location, member.incarnation);
    let entry = match kind {
        1 => Some(Entry::Admitted {
            members,
            lost: lost.into_iter().map(lives).collect(),
            missing,
            expired,
            floor,
        }),
        2 => names.pop().map(Entry::Refer),
        3 => Some(Entry::Later(reason)),
        4 => Some(Entry::Lost),
        5 => Some(Entry::Outside(names)),
        6 => Some(Entry::Refused(reason)),
        7 => Some(Entry::Expired),
        _ => None,
    };
    entry.ok_or_else(|| CallError::Broken("enter: an answer of no known kind".to_owned()))
}

/// `reach`: the candidate that is to be asked at its name.
pub struct Reach {
    pub candidate: Member,
}
thrift_struct!(Reach { 1 candidate });

/// The answer to `reach`.
pub struct Reached {
    /// The answerer has found that life there, outside.
    pub reached: bool,
    /// Why not; empty if it may be in a moment.
    pub reason: String,
}
thrift_struct!(Reached { 1 reached, 2 reason });

/// `compare`: what both should hold, as the caller has it.
pub struct Comparison {
    pub caller: Caller,
    /// Of the ranges that both share.
    pub shared: u64,
    pub digests: Vec<u64>,
    /// What differed has been exchanged since: both have the same.
    pub exchanged: bool,
    /// Digest of the caller's view.
    pub view: u64,
}
thrift_struct!(Comparison { 1 caller, 2 shared, 3 digests, 4 exchanged, 5 view });

/// The answer to `compare`.
pub struct Compared {
    pub me: Member,
    /// The answerer's members, if the two views differ.
    pub members: Option<Vec<Member>>,
    /// `None`: the two have not the same lists.
    pub digests: Option<Vec<u64>>,
    /// The last ones that left in good order.
    pub left: Vec<Member>,
}
thrift_struct!(Compared { 1 me, 2 members, 3 digests, 4 left });
