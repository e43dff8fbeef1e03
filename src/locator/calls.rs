//! The calls of the Locator (idl/locator.thrift) and of the extension that our own nodes speak among
//! themselves (idl/peer.thrift), as far as the locator is concerned: for each what is written and what is
//! read, side by side.

use std::sync::Arc;

use crate::location::Location;
use crate::membership::{Entry, Member, Question, Reply, Side, Standing, State};
use crate::net::{CallError, Connection, Request};
use crate::thrift::{Error, Exception, Limits, Reader, Write, wire};

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
        oneway: false,
    }
}

/// A request to an original, or to a node of which nobody knows what it is.
pub fn single_request(method: &'static str, arguments: Vec<u8>, oneway: bool) -> Request {
    Request {
        connection: Connection::Single,
        oneway,
        ..request(method, arguments)
    }
}

/// What an answer that can't be read is to the caller.
impl From<Error> for CallError {
    fn from(error: Error) -> Self {
        CallError::Broken(error.to_string())
    }
}

/// Field 0 of a result, read by `read`.
///
/// # Errors
/// [`CallError::Exception`] if it is missing.
pub fn read_result<'a, T>(
    result: &'a [u8],
    method: &str,
    expected: u8,
    mut read: impl FnMut(&mut Reader<'a>) -> Result<T, Error>,
) -> Result<T, CallError> {
    let mut value = None;
    Reader::new(result, &LIMITS).each_field(|id, kind, reader| {
        let found = (id, kind) == (0, expected);
        if found {
            value = Some(read(reader)?);
        }
        Ok(found)
    })?;
    value.ok_or_else(|| CallError::Exception(Exception::missing_result(method)))
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

/// The arguments of `join`, `add` and `remove`: a node, and who has been told of it already.
pub struct News {
    /// The node that the news is about.
    pub location: Location,
    /// Nodes that know it already; at most as many as the limit of a list.
    pub authorities: Vec<Location>,
}

impl News {
    /// The arguments, `{1: location, 2: authorities}`.
    pub fn write<'a>(
        location: &Location,
        authorities: impl ExactSizeIterator<Item = &'a Location>,
    ) -> Vec<u8> {
        let mut out = Vec::new();
        out.write_field(wire::STRUCT, 1);
        location.write(&mut out);
        out.write_field(wire::LIST, 2);
        Location::write_list(&mut out, authorities);
        out.write_stop();
        out
    }

    /// Missing authorities read as none: `join` has no such argument.
    pub fn read(arguments: &[u8]) -> Result<Self, Exception> {
        let (mut location, mut authorities) = (None, Vec::new());
        Reader::new(arguments, &LIMITS).each_field(|id, kind, reader| {
            match (id, kind) {
                (1, wire::STRUCT) => location = Location::read(reader)?,
                (2, wire::LIST) => authorities = Location::read_list(reader)?,
                _ => return Ok(false),
            }
            Ok(true)
        })?;
        let location = location.ok_or_else(|| Exception::missing_argument("location"))?;
        Ok(News {
            location,
            authorities,
        })
    }
}

/// Appends a member as field `id`.
pub fn write_member(out: &mut Vec<u8>, id: i16, member: &Member) {
    out.write_field(wire::STRUCT, id);
    member.write(out);
}

/// A member that has to be there.
pub fn read_member(member: Option<Member>) -> Result<Member, Exception> {
    member.ok_or_else(|| Exception::missing_argument("me"))
}

/// Appends a list of members, with its field's header.
pub fn write_members(out: &mut Vec<u8>, id: i16, members: &[Member]) {
    out.write_field(wire::LIST, id);
    out.write_list(wire::STRUCT, members.len());
    members.iter().for_each(|member| member.write(out));
}

/// The members in a list. Elements that are no members are left out.
pub fn read_members(reader: &mut Reader<'_>) -> Result<Vec<Member>, Error> {
    let mut members = Vec::new();
    for _ in 0..reader.list(wire::STRUCT)? {
        members.extend(Member::read(reader)?);
    }
    Ok(members)
}

/// The struct `Standing`.
fn write_standing(out: &mut Vec<u8>, id: i16, standing: Standing) {
    let (state, incarnation) = match standing {
        Standing::Unknown => return,
        Standing::Lost(incarnation) => (State::Left, incarnation),
        Standing::Member(state, incarnation) => (state, incarnation),
    };
    out.write_field(wire::STRUCT, id);
    out.write_i32_field(1, state as i32);
    out.write_i64_field(2, incarnation);
    out.write_stop();
}

fn read_standing(reader: &mut Reader<'_>) -> Result<Standing, Error> {
    let (mut state, mut incarnation) = (None, 0);
    reader.each_field(|id, kind, reader| {
        match (id, kind) {
            (1, wire::I32) => state = State::from_number(reader.i32()?),
            (2, wire::I64) => incarnation = reader.i64()?,
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    Ok(match state {
        None => Standing::Unknown,
        Some(State::Left) => Standing::Lost(incarnation),
        Some(state) => Standing::Member(state, incarnation),
    })
}

fn write_side(out: &mut Vec<u8>, id: i16, side: Option<&Side>) {
    let Some(side) = side else { return };
    out.write_field(wire::STRUCT, id);
    out.write_i32_field(1, side.confirmed);
    out.write_field(wire::STRUCT, 2);
    side.first.write(out);
    out.write_bool_field(3, side.slept);
    out.write_stop();
}

fn read_side(reader: &mut Reader<'_>) -> Result<Option<Side>, Error> {
    let (mut confirmed, mut first, mut slept) = (0, None, false);
    reader.each_field(|id, kind, reader| {
        match (id, kind) {
            (1, wire::I32) => confirmed = reader.i32()?,
            (2, wire::STRUCT) => first = Location::read(reader)?,
            (3, wire::BOOL) => slept = reader.bool()?,
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    Ok(first.map(|first| Side {
        confirmed,
        first,
        slept,
    }))
}

/// `ask`: the question that nodes put to each other.
pub fn ask_request(question: &Question) -> Request {
    let mut out = Vec::new();
    write_member(&mut out, 1, &question.me);
    write_standing(&mut out, 2, question.you);
    out.write_i64_field(3, question.lease.cast_signed());
    out.write_i64_field(4, question.digest.cast_signed());
    write_side(&mut out, 5, question.side.as_ref());
    out.write_bool_field(6, question.wants_members);
    if !question.lost.is_empty() {
        out.write_field(wire::LIST, 7);
        Location::write_list(&mut out, question.lost.iter());
    }
    out.write_stop();
    request("ask", out)
}

pub fn read_question(arguments: &[u8]) -> Result<Question, Exception> {
    let (mut me, mut you) = (None, Standing::Unknown);
    let (mut lease, mut digest, mut side, mut wants_members) = (0, 0, None, false);
    let mut lost = Vec::new();
    Reader::new(arguments, &LIMITS).each_field(|id, kind, reader| {
        match (id, kind) {
            (1, wire::STRUCT) => me = Member::read(reader)?,
            (2, wire::STRUCT) => you = read_standing(reader)?,
            (3, wire::I64) => lease = reader.i64()?.cast_unsigned(),
            (4, wire::I64) => digest = reader.i64()?.cast_unsigned(),
            (5, wire::STRUCT) => side = read_side(reader)?,
            (6, wire::BOOL) => wants_members = reader.bool()?,
            (7, wire::LIST) => lost = Location::read_list(reader)?,
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    Ok(Question {
        me: read_member(me)?,
        you,
        lease,
        digest,
        side,
        wants_members,
        lost,
    })
}

/// Appends the result of `ask`, with the members if they were wanted, and the views differ.
pub fn write_reply(reply: &Reply, members: Option<&[Member]>, out: &mut Vec<u8>) {
    out.write_field(wire::STRUCT, 0);
    write_member(out, 1, &reply.me);
    write_standing(out, 2, reply.you);
    out.write_i64_field(3, reply.granted.cast_signed());
    out.write_i64_field(4, reply.digest.cast_signed());
    write_side(out, 5, reply.side.as_ref());
    if let Some(members) = members {
        write_members(out, 6, members);
    }
    out.write_stop();
    out.write_stop();
}

pub fn read_reply(result: &[u8]) -> Result<(Reply, Option<Vec<Member>>), CallError> {
    read_result(result, "ask", wire::STRUCT, |reader| {
        let (mut me, mut you, mut members) = (None, Standing::Unknown, None);
        let (mut granted, mut digest, mut side) = (0, 0, None);
        reader.each_field(|id, kind, reader| {
            match (id, kind) {
                (1, wire::STRUCT) => me = Member::read(reader)?,
                (2, wire::STRUCT) => you = read_standing(reader)?,
                (3, wire::I64) => granted = reader.i64()?.cast_unsigned(),
                (4, wire::I64) => digest = reader.i64()?.cast_unsigned(),
                (5, wire::STRUCT) => side = read_side(reader)?,
                (6, wire::LIST) => members = Some(read_members(reader)?),
                _ => return Ok(false),
            }
            Ok(true)
        })?;
        let reply = me.map(|me| Reply {
            me,
            you,
            granted,
            digest,
            side,
        });
        Ok(reply.map(|reply| (reply, members)))
    })?
    .ok_or_else(|| no_sender("ask"))
}

pub(super) fn no_sender(method: &str) -> CallError {
    CallError::Broken(format!("{method}: an answer without a sender"))
}

/// `enter`: what a candidate says of itself and of its network.
pub struct Candidate {
    pub me: Member,
    pub service: Vec<u8>,
    pub replicas: i32,
    pub tick_millis: i64,
    pub version: i32,
}

impl Candidate {
    pub fn request(&self) -> Request {
        let mut out = Vec::new();
        write_member(&mut out, 1, &self.me);
        out.write_bytes_field(2, &self.service);
        out.write_i32_field(3, self.replicas);
        out.write_i64_field(4, self.tick_millis);
        out.write_i32_field(5, self.version);
        out.write_stop();
        request("enter", out)
    }

    pub fn read(arguments: &[u8]) -> Result<Self, Exception> {
        let (mut me, mut service) = (None, Vec::new());
        let (mut replicas, mut tick_millis, mut version) = (0, 0, 0);
        Reader::new(arguments, &LIMITS).each_field(|id, kind, reader| {
            match (id, kind) {
                (1, wire::STRUCT) => me = Member::read(reader)?,
                (2, wire::STRING) => service = reader.bytes()?.to_vec(),
                (3, wire::I32) => replicas = reader.i32()?,
                (4, wire::I64) => tick_millis = reader.i64()?,
                (5, wire::I32) => version = reader.i32()?,
                _ => return Ok(false),
            }
            Ok(true)
        })?;
        Ok(Candidate {
            me: read_member(me)?,
            service,
            replicas,
            tick_millis,
            version,
        })
    }
}

/// Appends the result of `enter`.
pub fn write_entry(entry: &Entry, out: &mut Vec<u8>) {
    out.write_field(wire::STRUCT, 0);
    let kind = |out: &mut Vec<u8>, kind| out.write_i32_field(1, kind);
    match entry {
        Entry::Admitted {
            members,
            lost,
            alarmed,
        } => {
            kind(out, 1);
            write_members(out, 2, members);
            let lost = lost.iter().map(|(location, incarnation)| Member {
                location: location.clone(),
                state: State::Left,
                incarnation: *incarnation,
            });
            write_members(out, 3, &lost.collect::<Vec<_>>());
            out.write_bool_field(6, *alarmed);
        }
        Entry::Refer(to) => {
            kind(out, 2);
            out.write_field(wire::LIST, 4);
            Location::write_list(out, std::iter::once(to));
        }
        Entry::Later(reason) => {
            kind(out, 3);
            out.write_bytes_field(5, reason.as_bytes());
        }
        Entry::Lost => kind(out, 4),
        Entry::Outside(names) => {
            kind(out, 5);
            out.write_field(wire::LIST, 4);
            Location::write_list(out, names.iter());
        }
        Entry::Refused(reason) => {
            kind(out, 6);
            out.write_bytes_field(5, reason.as_bytes());
        }
    }
    out.write_stop();
    out.write_stop();
}

pub fn read_entry(result: &[u8]) -> Result<Entry, CallError> {
    let entry = read_result(result, "enter", wire::STRUCT, |reader| {
        let (mut kind, mut members, mut lost) = (0, Vec::new(), Vec::new());
        let (mut names, mut reason, mut alarmed) = (Vec::new(), String::new(), false);
        reader.each_field(|id, wire_kind, reader| {
            match (id, wire_kind) {
                (1, wire::I32) => kind = reader.i32()?,
                (2, wire::LIST) => members = read_members(reader)?,
                (3, wire::LIST) => lost = read_members(reader)?,
                (4, wire::LIST) => names = Location::read_list(reader)?,
                (5, wire::STRING) => {
                    reason = String::from_utf8_lossy(reader.bytes()?).into_owned();
                }
                (6, wire::BOOL) => alarmed = reader.bool()?,
                _ => return Ok(false),
            }
            Ok(true)
        })?;
        let lives = |member: Member| (member.location, member.incarnation);
        Ok(match kind {
            1 => Some(Entry::Admitted {
                members,
                lost: lost.into_iter().map(lives).collect(),
                alarmed,
            }),
            2 => names.pop().map(Entry::Refer),
            3 => Some(Entry::Later(reason)),
            4 => Some(Entry::Lost),
            5 => Some(Entry::Outside(names)),
            6 => Some(Entry::Refused(reason)),
            _ => None,
        })
    })?;
    entry.ok_or_else(|| CallError::Broken("enter: an answer of no known kind".to_owned()))
}

/// The arguments of calls that take a member alone: `{1: member}`.
pub fn member_arguments(member: &Member) -> Vec<u8> {
    let mut out = Vec::new();
    write_member(&mut out, 1, member);
    out.write_stop();
    out
}

/// Reads field 1, a member; other fields are stepped over.
pub fn read_member_arguments(arguments: &[u8]) -> Result<Member, Exception> {
    let mut member = None;
    Reader::new(arguments, &LIMITS).each_field(|id, kind, reader| {
        let found = (id, kind) == (1, wire::STRUCT);
        if found {
            member = Member::read(reader)?;
        }
        Ok(found)
    })?;
    read_member(member)
}

/// The result of `reach`, if the answerer has reached the candidate: whether it has an alarm; otherwise why it can't.
pub fn read_reached(result: &[u8]) -> Result<Result<bool, String>, CallError> {
    read_result(result, "reach", wire::STRUCT, |reader| {
        let (mut reached, mut reason, mut alarmed) = (false, String::new(), false);
        reader.each_field(|id, kind, reader| {
            match (id, kind) {
                (1, wire::BOOL) => reached = reader.bool()?,
                (2, wire::STRING) => {
                    reason = String::from_utf8_lossy(reader.bytes()?).into_owned();
                }
                (3, wire::BOOL) => alarmed = reader.bool()?,
                _ => return Ok(false),
            }
            Ok(true)
        })?;
        Ok(if reached { Ok(alarmed) } else { Err(reason) })
    })
}

/// `compare`: what both should hold, as the caller has it.
pub struct Comparison {
    pub me: Member,
    /// Of the ranges that both share.
    pub shared: u64,
    pub digests: Vec<u64>,
    /// What differed has been exchanged since: both have the same.
    pub exchanged: bool,
    /// Digest of the caller's view.
    pub view: u64,
}

fn write_digests(out: &mut Vec<u8>, id: i16, digests: &[u64]) {
    out.write_field(wire::LIST, id);
    out.write_list(wire::I64, digests.len());
    out.extend(digests.iter().flat_map(|digest| digest.to_be_bytes()));
}

fn read_digests(reader: &mut Reader<'_>) -> Result<Vec<u64>, Error> {
    let mut digests = Vec::new();
    for _ in 0..reader.list(wire::I64)? {
        digests.push(reader.i64()?.cast_unsigned());
    }
    Ok(digests)
}

impl Comparison {
    pub fn request(&self) -> Request {
        let mut out = Vec::new();
        write_member(&mut out, 1, &self.me);
        out.write_i64_field(2, self.shared.cast_signed());
        write_digests(&mut out, 3, &self.digests);
        out.write_bool_field(4, self.exchanged);
        out.write_i64_field(5, self.view.cast_signed());
        out.write_stop();
        request("compare", out)
    }

    pub fn read(arguments: &[u8]) -> Result<Self, Exception> {
        let (mut me, mut shared, mut digests) = (None, 0, Vec::new());
        let (mut exchanged, mut view) = (false, 0);
        Reader::new(arguments, &LIMITS).each_field(|id, kind, reader| {
            match (id, kind) {
                (1, wire::STRUCT) => me = Member::read(reader)?,
                (2, wire::I64) => shared = reader.i64()?.cast_unsigned(),
                (3, wire::LIST) => digests = read_digests(reader)?,
                (4, wire::BOOL) => exchanged = reader.bool()?,
                (5, wire::I64) => view = reader.i64()?.cast_unsigned(),
                _ => return Ok(false),
            }
            Ok(true)
        })?;
        Ok(Comparison {
            me: read_member(me)?,
            shared,
            digests,
            exchanged,
            view,
        })
    }
}

/// The answer to `compare`.
pub struct Compared {
    pub me: Member,
    /// The answerer's members, if the two views differ.
    pub members: Option<Vec<Member>>,
    /// The last ones that left in good order.
    pub left: Vec<Member>,
    /// `None`: the two have not the same lists.
    pub digests: Option<Vec<u64>>,
}

impl Compared {
    pub fn write(&self, out: &mut Vec<u8>) {
        out.write_field(wire::STRUCT, 0);
        write_member(out, 1, &self.me);
        if let Some(members) = &self.members {
            write_members(out, 2, members);
        }
        if let Some(digests) = &self.digests {
            write_digests(out, 3, digests);
        }
        write_members(out, 4, &self.left);
        out.write_stop();
        out.write_stop();
    }

    pub fn read(result: &[u8]) -> Result<Self, CallError> {
        read_result(result, "compare", wire::STRUCT, |reader| {
            let (mut me, mut members, mut digests) = (None, None, None);
            let mut left = Vec::new();
            reader.each_field(|id, kind, reader| {
                match (id, kind) {
                    (1, wire::STRUCT) => me = Member::read(reader)?,
                    (2, wire::LIST) => members = Some(read_members(reader)?),
                    (3, wire::LIST) => digests = Some(read_digests(reader)?),
                    (4, wire::LIST) => left = read_members(reader)?,
                    _ => return Ok(false),
                }
                Ok(true)
            })?;
            Ok(me.map(|me| Compared {
                me,
                members,
                left,
                digests,
            }))
        })?
        .ok_or_else(|| no_sender("compare"))
    }
}
