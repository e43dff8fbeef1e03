//! The calls of the Locator (idl/locator.thrift) and of the extension that our own nodes speak
//! among themselves (idl/peer.thrift), as far as the locator is concerned: what goes into a
//! request and comes out of it, side by side.

use std::sync::Arc;

use crate::location::Location;
use crate::net::{CallError, Connection, Request};
use crate::thrift::{Error, Exception, Limits, Reader, Write, wire};

use super::member::{Member, State};

/// The limits for what nodes read: the same for all, as batches and rings are ours to bound.
pub const LIMITS: Limits = Limits::DEFAULT;

/// The kind of the exception by which a node says that it has left: nothing was done. Above those
/// that Thrift uses.
pub const GONE: i32 = 1001;

/// What a node that has said goodbye answers to other nodes: it hears nothing of the network any
/// more, least of all of another run under its own name, whose place it must not take.
///
/// ```text
/// P                         L (gone, its last connections still open)    L' (new, same name)
///   takes L' in  <---------------------------------------------------------- pull
///   forward put k --------> holders, as L knows them: P and others
///                   store k <-+
///   "holders: L', P" -------->  L' is my own name: stores k here, acknowledges
///                                                                        get k: the old value
/// ```
pub fn gone() -> Exception {
    Exception::new(GONE, "this node has left")
}

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
    pub location: Location,
    pub authorities: Vec<Location>,
}

impl News {
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

/// `hello`: who asks, the digest of its list, and whether the one asked is in it.
pub struct HelloArguments {
    pub me: Member,
    pub digest: u64,
    pub counted: bool,
}

impl HelloArguments {
    pub fn write(&self) -> Vec<u8> {
        let mut out = Vec::new();
        out.write_field(wire::STRUCT, 1);
        self.me.write(&mut out);
        out.write_i64_field(2, self.digest.cast_signed());
        out.write_bool_field(3, self.counted);
        out.write_stop();
        out
    }

    pub fn read(arguments: &[u8]) -> Result<Self, Exception> {
        let (mut me, mut digest, mut counted) = (None, 0, false);
        Reader::new(arguments, &LIMITS).each_field(|id, kind, reader| {
            match (id, kind) {
                (1, wire::STRUCT) => me = Member::read(reader)?,
                (2, wire::I64) => digest = reader.i64()?.cast_unsigned(),
                (3, wire::BOOL) => counted = reader.bool()?,
                _ => return Ok(false),
            }
            Ok(true)
        })?;
        let me = me.ok_or_else(|| Exception::missing_argument("me"))?;
        Ok(HelloArguments {
            me,
            digest,
            counted,
        })
    }
}

/// What the one who was asked knows of the one who asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Known {
    No = 0,
    /// It was a member and went without goodbye.
    Lost = 1,
    Member = 2,
}

/// The answer to `hello`.
pub struct Hello {
    pub me: Member,
    pub digest: u64,
    pub known: Known,
    /// The list, if the digests differ.
    pub members: Option<Vec<Member>>,
}

impl Hello {
    /// Appends a result. `members` are written from the view, not from a copy of it.
    pub fn write(&self, members: Option<&[Member]>, out: &mut Vec<u8>) {
        out.write_field(wire::STRUCT, 0);
        out.write_field(wire::STRUCT, 1);
        self.me.write(out);
        out.write_i64_field(2, self.digest.cast_signed());
        out.write_byte_field(3, self.known as u8);
        if let Some(members) = members {
            out.write_field(wire::LIST, 4);
            write_members(members, out);
        }
        out.write_stop();
        out.write_stop();
    }

    pub fn read(result: &[u8]) -> Result<Self, CallError> {
        read_result(result, "hello", wire::STRUCT, |reader| {
            let (mut me, mut digest, mut known) = (None, 0, Known::No);
            let mut members = None;
            reader.each_field(|id, kind, reader| {
                match (id, kind) {
                    (1, wire::STRUCT) => me = Member::read(reader)?,
                    (2, wire::I64) => digest = reader.i64()?.cast_unsigned(),
                    (3, wire::BYTE) => {
                        known = match reader.byte()? {
                            1 => Known::Lost,
                            2 => Known::Member,
                            _ => Known::No,
                        }
                    }
                    (4, wire::LIST) => members = Some(read_members(reader)?),
                    _ => return Ok(false),
                }
                Ok(true)
            })?;
            Ok(me.map(|me| Hello {
                me,
                digest,
                known,
                members,
            }))
        })?
        .ok_or_else(|| CallError::Broken("hello: an answer without a sender".into()))
    }
}

/// The arguments of calls that take a location alone: `{1: location}`.
pub fn write_location(location: &Location) -> Vec<u8> {
    let mut out = Vec::new();
    out.write_field(wire::STRUCT, 1);
    location.write(&mut out);
    out.write_stop();
    out
}

/// Reads field 1, a location; other fields are stepped over.
pub fn read_location(arguments: &[u8]) -> Result<Location, Exception> {
    News::read(arguments).map(|news| news.location)
}

/// The arguments of `suspect`: `{1: locations}`.
pub fn write_locations(locations: &[Location]) -> Vec<u8> {
    let mut out = Vec::new();
    out.write_field(wire::LIST, 1);
    Location::write_list(&mut out, locations.iter());
    out.write_stop();
    out
}

/// Reads field 1, a list of locations; other fields are stepped over.
pub fn read_locations(arguments: &[u8]) -> Result<Vec<Location>, Exception> {
    let mut locations = None;
    Reader::new(arguments, &LIMITS).each_field(|id, kind, reader| {
        if (id, kind) != (1, wire::LIST) {
            return Ok(false);
        }
        locations = Some(Location::read_list(reader)?);
        Ok(true)
    })?;
    locations.ok_or_else(|| Exception::missing_argument("locations"))
}

/// `pull`: take me in, and give me the next of the items that I should hold.
pub struct PullArguments<'a> {
    pub me: Member,
    pub replicas: usize,
    pub service: &'a [u8],
    /// Of the caller's list: an equal one needs no answer.
    pub digest: u64,
    /// Empty for the first page, then what the page before gave.
    pub cursor: &'a [u8],
    /// The caller looks for a network, and would start one.
    pub looking: bool,
}

impl<'a> PullArguments<'a> {
    pub fn write(&self) -> Vec<u8> {
        let mut out = Vec::new();
        out.write_field(wire::STRUCT, 1);
        self.me.write(&mut out);
        out.write_i32_field(2, i32::try_from(self.replicas).unwrap_or(i32::MAX));
        out.write_bytes_field(3, self.service);
        out.write_bytes_field(4, self.cursor);
        out.write_i64_field(5, self.digest.cast_signed());
        out.write_bool_field(6, self.looking);
        out.write_stop();
        out
    }

    pub fn read(arguments: &'a [u8]) -> Result<Self, Exception> {
        let (mut me, mut replicas, mut digest) = (None, 0, 0);
        let mut looking = false;
        let (mut service, mut cursor) = (&b""[..], &b""[..]);
        Reader::new(arguments, &LIMITS).each_field(|id, kind, reader| {
            match (id, kind) {
                (1, wire::STRUCT) => me = Member::read(reader)?,
                (2, wire::I32) => replicas = usize::try_from(reader.i32()?).unwrap_or(0),
                (3, wire::STRING) => service = reader.bytes()?,
                (4, wire::STRING) => cursor = reader.bytes()?,
                (5, wire::I64) => digest = reader.i64()?.cast_unsigned(),
                (6, wire::BOOL) => looking = reader.bool()?,
                _ => return Ok(false),
            }
            Ok(true)
        })?;
        let me = me.ok_or_else(|| Exception::missing_argument("me"))?;
        Ok(PullArguments {
            me,
            replicas,
            service,
            digest,
            cursor,
            looking,
        })
    }
}

/// The answer to `pull`.
pub struct Page<'a> {
    pub me: Member,
    /// Empty if the caller's digest was the same.
    pub members: Vec<Member>,
    pub items: Vec<Item<'a>>,
    /// What to ask with for the pages behind this one.
    pub cursors: Vec<&'a [u8]>,
    /// The answerer knows the network that it is part of.
    pub joined: bool,
}

impl<'a> Page<'a> {
    /// Appends a result, with the items that `write_items` puts into the list; its answer are the
    /// cursors of the pages behind.
    pub fn write(
        me: &Member,
        joined: bool,
        members: &[Member],
        out: &mut Vec<u8>,
        write_items: impl FnOnce(&mut ItemList) -> Vec<Vec<u8>>,
    ) {
        out.write_field(wire::STRUCT, 0);
        out.write_field(wire::STRUCT, 1);
        me.write(out);
        out.write_field(wire::LIST, 2);
        write_members(members, out);
        out.write_field(wire::LIST, 3);
        let mut items = ItemList::default();
        let cursors = write_items(&mut items);
        items.write(out);
        out.write_field(wire::LIST, 4);
        out.write_list(wire::STRING, cursors.len());
        cursors.iter().for_each(|cursor| out.write_bytes(cursor));
        out.write_bool_field(5, joined);
        out.write_stop();
        out.write_stop();
    }

    pub fn read(result: &'a [u8]) -> Result<Self, CallError> {
        read_result(result, "pull", wire::STRUCT, |reader| {
            let (mut me, mut members, mut items) = (None, Vec::new(), Vec::new());
            let (mut cursors, mut joined) = (Vec::new(), true);
            reader.each_field(|id, kind, reader| {
                match (id, kind) {
                    (1, wire::STRUCT) => me = Member::read(reader)?,
                    (2, wire::LIST) => members = read_members(reader)?,
                    (3, wire::LIST) => items = Item::read_list(reader)?,
                    (4, wire::LIST) => {
                        for _ in 0..reader.list(wire::STRING)? {
                            cursors.push(reader.bytes()?);
                        }
                    }
                    (5, wire::BOOL) => joined = reader.bool()?,
                    _ => return Ok(false),
                }
                Ok(true)
            })?;
            Ok(me.map(|me| Page {
                me,
                members,
                items,
                cursors,
                joined,
            }))
        })?
        .ok_or_else(|| CallError::Broken("pull: an answer without a sender".into()))
    }
}

fn write_members(members: &[Member], out: &mut Vec<u8>) {
    out.write_list(wire::STRUCT, members.len());
    for member in members {
        member.write(out);
    }
}

fn read_members(reader: &mut Reader<'_>) -> Result<Vec<Member>, Error> {
    let mut members = Vec::new();
    for _ in 0..reader.list(wire::STRUCT)? {
        members.extend(Member::read(reader)?);
    }
    Ok(members)
}

/// A key with a version and, unless it is only being asked for, a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Item<'a> {
    pub key: &'a [u8],
    pub version: i64,
    pub value: Option<&'a [u8]>,
    /// Of a value that is not sent along: another one may have the same version.
    pub digest: Option<u64>,
}

impl<'a> Item<'a> {
    pub fn write(&self, out: &mut Vec<u8>) {
        out.write_bytes_field(1, self.key);
        out.write_i64_field(2, self.version);
        if let Some(value) = self.value {
            out.write_bytes_field(3, value);
        }
        if let Some(digest) = self.digest {
            out.write_i64_field(4, digest.cast_signed());
        }
        out.write_stop();
    }

    /// A missing key or version reads as "" and 0.
    pub fn read(reader: &mut Reader<'a>) -> Result<Self, Error> {
        let mut item = Item {
            key: b"",
            version: 0,
            value: None,
            digest: None,
        };
        reader.each_field(|id, kind, reader| {
            match (id, kind) {
                (1, wire::STRING) => item.key = reader.bytes()?,
                (2, wire::I64) => item.version = reader.i64()?,
                (3, wire::STRING) => item.value = Some(reader.bytes()?),
                (4, wire::I64) => item.digest = Some(reader.i64()?.cast_unsigned()),
                _ => return Ok(false),
            }
            Ok(true)
        })?;
        Ok(item)
    }

    pub fn read_list(reader: &mut Reader<'a>) -> Result<Vec<Self>, Error> {
        let mut items = Vec::new();
        for _ in 0..reader.list(wire::STRUCT)? {
            items.push(Item::read(reader)?);
        }
        Ok(items)
    }
}

/// A list of items in the making, whose length is known at the end.
#[derive(Debug, Default)]
pub struct ItemList {
    bytes: Vec<u8>,
    length: usize,
}

impl ItemList {
    pub fn push(&mut self, item: &Item<'_>) {
        item.write(&mut self.bytes);
        self.length += 1;
    }

    /// Of all items together.
    pub fn bytes(&self) -> usize {
        self.bytes.len()
    }

    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Appends the list.
    pub fn write(&self, out: &mut Vec<u8>) {
        out.write_list(wire::STRUCT, self.length);
        out.extend_from_slice(&self.bytes);
    }
}

/// The answer to `status`: is everything where it should be?
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    pub me: Member,
    pub replicas: usize,
    pub members: usize,
    pub digest: u64,
    pub items: usize,
    /// Items that other holders are not known to have.
    pub unconfirmed: usize,
    /// Filling, leaving, or a pass over the items is due or going on.
    pub moving: bool,
    /// The members that were asked last had the same list.
    pub agreed: bool,
    /// It knows the network that it is part of.
    pub joined: bool,
    /// It doesn't, looks for one, and would start one.
    pub looking: bool,
}

impl Status {
    pub fn write(&self, out: &mut Vec<u8>) {
        let number = |value: usize| i64::try_from(value).unwrap_or(i64::MAX);
        let small = |value: usize| i32::try_from(value).unwrap_or(i32::MAX);
        out.write_field(wire::STRUCT, 0);
        out.write_field(wire::STRUCT, 1);
        self.me.write(out);
        out.write_i32_field(2, small(self.replicas));
        out.write_i32_field(3, small(self.members));
        out.write_i64_field(4, self.digest.cast_signed());
        out.write_i64_field(5, number(self.items));
        out.write_i64_field(6, number(self.unconfirmed));
        out.write_bool_field(7, self.moving);
        out.write_bool_field(8, self.agreed);
        out.write_bool_field(9, self.joined);
        out.write_bool_field(10, self.looking);
        out.write_stop();
        out.write_stop();
    }

    pub fn read(result: &[u8]) -> Result<Self, CallError> {
        read_result(result, "status", wire::STRUCT, |reader| {
            let mut me = None;
            let (mut replicas, mut members, mut digest) = (0, 0, 0);
            let (mut items, mut unconfirmed) = (0, 0);
            let (mut moving, mut agreed, mut joined) = (true, false, true);
            let mut looking = false;
            reader.each_field(|id, kind, reader| {
                match (id, kind) {
                    (1, wire::STRUCT) => me = Member::read(reader)?,
                    (2, wire::I32) => replicas = usize::try_from(reader.i32()?).unwrap_or(0),
                    (3, wire::I32) => members = usize::try_from(reader.i32()?).unwrap_or(0),
                    (4, wire::I64) => digest = reader.i64()?.cast_unsigned(),
                    (5, wire::I64) => items = usize::try_from(reader.i64()?).unwrap_or(0),
                    (6, wire::I64) => unconfirmed = usize::try_from(reader.i64()?).unwrap_or(0),
                    (7, wire::BOOL) => moving = reader.bool()?,
                    (8, wire::BOOL) => agreed = reader.bool()?,
                    (9, wire::BOOL) => joined = reader.bool()?,
                    (10, wire::BOOL) => looking = reader.bool()?,
                    _ => return Ok(false),
                }
                Ok(true)
            })?;
            Ok(me.map(|me| Status {
                me,
                replicas,
                members,
                digest,
                items,
                unconfirmed,
                moving,
                agreed,
                joined,
                looking,
            }))
        })?
        .ok_or_else(|| CallError::Broken("status: an answer without a sender".into()))
    }

    /// As far as this node can tell, every key is with all its holders, and nothing is going on.
    pub fn is_safe(&self) -> bool {
        self.me.state == State::Full && self.unconfirmed == 0 && !self.moving && self.agreed
    }
}
