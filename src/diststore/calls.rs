//! The calls of the Store (idl/diststore.thrift), and those of the extension that carry items
//! (idl/peer.thrift, service Replica): for each what is written and what is read, side by side.

use crate::locator::{
    LIMITS, of_the_key, read_member, read_members, read_result, request, write_member,
    write_members,
};
use crate::membership::Member;
use crate::net::{CallError, Request};
use crate::thrift::{Error, Exception, Reader, Write, wire};

/// The greatest version of a key. What is above is no version.
pub const VERSION_MAX: i64 = 1 << 62;

/// The arguments of `put` and of `forward`: `{1: key, 2: value, 3: above}`; without a value, `forward`
/// means a get.
pub struct KeyValue<'a> {
    /// Any bytes, up to the limit of a string.
    pub key: &'a [u8],
    /// `None` is a get; the empty value deletes.
    pub value: Option<&'a [u8]>,
    /// The greatest version in which this put has been tried.
    pub above: i64,
}

impl<'a> KeyValue<'a> {
    /// The arguments of `put`, or of `get` without a value; no version in them.
    pub fn write(key: &[u8], value: Option<&[u8]>) -> Vec<u8> {
        let mut out = Vec::with_capacity(key.len() + value.map_or(0, <[u8]>::len) + 16);
        out.write_bytes_field(1, key);
        if let Some(value) = value {
            out.write_bytes_field(2, value);
        }
        out.write_stop();
        out
    }

    /// `forward`.
    pub fn request(&self) -> Request {
        let mut out = KeyValue::write(self.key, self.value);
        if self.above > 0 {
            out.pop();
            out.write_i64_field(3, self.above);
            out.write_stop();
        }
        request("forward", out)
    }

    /// # Errors
    /// The key is missing, something is too large, or `above` is no version.
    pub fn read(arguments: &'a [u8]) -> Result<Self, Exception> {
        let (mut key, mut value, mut above) = (None, None, 0);
        Reader::new(arguments, &LIMITS).each_field(|id, kind, reader| {
            match (id, kind) {
                (1, wire::STRING) => key = Some(reader.bytes().map_err(of_the_key)?),
                (2, wire::STRING) => {
                    let bytes = reader.bytes();
                    value = Some(bytes.map_err(|error| error.of("bytes in the value"))?);
                }
                (3, wire::I64) => above = version(reader)?,
                _ => return Ok(false),
            }
            Ok(true)
        })?;
        let key = key.ok_or_else(|| Exception::missing_argument("key"))?;
        Ok(KeyValue { key, value, above })
    }
}

/// The first field, if it is a string: the key, as all clients write it first.
pub fn first_string(arguments: &[u8]) -> Option<&[u8]> {
    let mut reader = Reader::new(arguments, &LIMITS);
    match reader.field() {
        Ok(Some((wire::STRING, _))) => reader.bytes().ok(),
        _ => None,
    }
}

/// A string result: of `get`.
pub fn read_string(result: &[u8], method: &str) -> Result<Vec<u8>, CallError> {
    read_result(result, method, wire::STRING, |reader| {
        Ok(reader.bytes()?.to_vec())
    })
}

/// What came of a forwarded request.
#[derive(Debug, PartialEq, Eq)]
pub enum Forwarded {
    /// With the value, if it was a get.
    Done(Vec<u8>),
    /// The answerer isn't the key's primary; the greatest version in which a put has been tried.
    NotPrimary(i64),
}

impl Forwarded {
    /// Appends the result of `forward`.
    pub fn write(&self, out: &mut Vec<u8>) {
        out.write_field(wire::STRUCT, 0);
        match self {
            Forwarded::Done(value) => out.write_bytes_field(1, value),
            Forwarded::NotPrimary(above) => out.write_i64_field(2, *above),
        }
        out.write_stop();
        out.write_stop();
    }

    pub fn read(result: &[u8]) -> Result<Self, CallError> {
        read_result(result, "forward", wire::STRUCT, |reader| {
            let mut forwarded = Forwarded::Done(Vec::new());
            reader.each_field(|id, kind, reader| {
                match (id, kind) {
                    (1, wire::STRING) => forwarded = Forwarded::Done(reader.bytes()?.to_vec()),
                    (2, wire::I64) => forwarded = Forwarded::NotPrimary(version(reader)?),
                    _ => return Ok(false),
                }
                Ok(true)
            })?;
            Ok(forwarded)
        })
    }
}

/// A key with a version and, unless it is only being asked for, a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Item<'a> {
    pub key: &'a [u8],
    pub version: i64,
    pub value: Option<&'a [u8]>,
    /// Of the value, where that is not sent along: another one may have the same version.
    pub digest: Option<u64>,
    /// Of the list of the key's replicas, as the sender has it; 0 where that isn't spoken of.
    pub list: u64,
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
        if self.list != 0 {
            out.write_i64_field(5, self.list.cast_signed());
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
            list: 0,
        };
        reader.each_field(|id, kind, reader| {
            match (id, kind) {
                (1, wire::STRING) => item.key = reader.bytes()?,
                (2, wire::I64) => item.version = version(reader)?,
                (3, wire::STRING) => item.value = Some(reader.bytes()?),
                (4, wire::I64) => item.digest = Some(reader.i64()?.cast_unsigned()),
                (5, wire::I64) => item.list = reader.i64()?.cast_unsigned(),
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

/// Versions are from 0, for none, up to [`VERSION_MAX`].
fn version(reader: &mut Reader<'_>) -> Result<i64, Error> {
    let version = reader.i64()?;
    let in_range = (0..=VERSION_MAX).contains(&version);
    in_range.then_some(version).ok_or(Error::Negative)
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

    /// Appends the list.
    pub fn write(&self, out: &mut Vec<u8>) {
        out.write_list(wire::STRUCT, self.length);
        out.extend_from_slice(&self.bytes);
    }
}

/// `store`: items for a replica.
pub struct StoreArguments<'a> {
    pub me: Member,
    /// A put's: what is greater there has to be outdone. Otherwise it is as good.
    pub put: bool,
    pub items: Vec<Item<'a>>,
}

pub fn store_request(me: &Member, put: bool, items: &ItemList) -> Request {
    let mut out = Vec::with_capacity(items.bytes() + 64);
    write_member(&mut out, 1, me);
    out.write_bool_field(2, put);
    out.write_field(wire::LIST, 3);
    items.write(&mut out);
    out.write_stop();
    request("store", out)
}

impl<'a> StoreArguments<'a> {
    pub fn read(arguments: &'a [u8]) -> Result<Self, Exception> {
        let (mut me, mut put, mut items) = (None, false, Vec::new());
        Reader::new(arguments, &LIMITS).each_field(|id, kind, reader| {
            match (id, kind) {
                (1, wire::STRUCT) => me = Member::read(reader)?,
                (2, wire::BOOL) => put = reader.bool()?,
                (3, wire::LIST) => items = Item::read_list(reader)?,
                _ => return Ok(false),
            }
            Ok(true)
        })?;
        Ok(StoreArguments {
            me: read_member(me)?,
            put,
            items,
        })
    }
}

/// What came of an item that was sent to a replica.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Taken {
    /// The two have not the same list for the key.
    Differs,
    /// The answerer lacks it, and it came without its value.
    Wanted,
    /// This version is held now, or what is to be above where something greater is.
    Held(i64),
}

/// The answer to `store`, with the answerer's members if a list differs.
pub fn write_taken(taken: &[Taken], members: Option<&[Member]>, out: &mut Vec<u8>) {
    out.write_field(wire::STRUCT, 0);
    out.write_field(wire::LIST, 1);
    out.write_list(wire::I64, taken.len());
    for taken in taken {
        let number = match taken {
            Taken::Wanted => -1,
            Taken::Differs => 0,
            Taken::Held(version) => *version,
        };
        out.extend(number.to_be_bytes());
    }
    if let Some(members) = members {
        write_members(out, 2, members);
    }
    out.write_stop();
    out.write_stop();
}

pub fn read_taken(result: &[u8]) -> Result<(Vec<Taken>, Option<Vec<Member>>), CallError> {
    read_result(result, "store", wire::STRUCT, |reader| {
        let (mut taken, mut members) = (Vec::new(), None);
        reader.each_field(|id, kind, reader| {
            match (id, kind) {
                (1, wire::LIST) => {
                    for _ in 0..reader.list(wire::I64)? {
                        taken.push(match reader.i64()? {
                            0 => Taken::Differs,
                            version if (1..=VERSION_MAX).contains(&version) => Taken::Held(version),
                            _ => Taken::Wanted,
                        });
                    }
                }
                (2, wire::LIST) => members = Some(read_members(reader)?),
                _ => return Ok(false),
            }
            Ok(true)
        })?;
        Ok((taken, members))
    })
}

/// `fetch`: what a replica has of a key.
pub fn fetch_request(list: u64, key: &[u8]) -> Request {
    let mut out = Vec::with_capacity(key.len() + 24);
    out.write_i64_field(1, list.cast_signed());
    out.write_bytes_field(2, key);
    out.write_stop();
    request("fetch", out)
}

pub fn read_fetch(arguments: &[u8]) -> Result<(u64, &[u8]), Exception> {
    let (mut list, mut key) = (0, None);
    Reader::new(arguments, &LIMITS).each_field(|id, kind, reader| {
        match (id, kind) {
            (1, wire::I64) => list = reader.i64()?.cast_unsigned(),
            (2, wire::STRING) => key = Some(reader.bytes()?),
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    Ok((list, key.ok_or_else(|| Exception::missing_argument("key"))?))
}

/// An account of a key: version and value; version 0: there is none.
pub type Account = (i64, Vec<u8>);

/// The answer to `fetch`: an account, or the members, as the lists differ.
pub fn write_found(found: Result<&Account, &[Member]>, out: &mut Vec<u8>) {
    out.write_field(wire::STRUCT, 0);
    match found {
        Ok((version, value)) => {
            out.write_i64_field(1, *version);
            out.write_bytes_field(2, value);
        }
        Err(members) => write_members(out, 3, members),
    }
    out.write_stop();
    out.write_stop();
}

pub fn read_found(result: &[u8]) -> Result<Result<Account, Vec<Member>>, CallError> {
    read_result(result, "fetch", wire::STRUCT, |reader| {
        let (mut account, mut members) = ((0, Vec::new()), None);
        reader.each_field(|id, kind, reader| {
            match (id, kind) {
                (1, wire::I64) => account.0 = version(reader)?,
                (2, wire::STRING) => account.1 = reader.bytes()?.to_vec(),
                (3, wire::LIST) => members = Some(read_members(reader)?),
                _ => return Ok(false),
            }
            Ok(true)
        })?;
        Ok(members.map_or(Ok(account), Err))
    })
}

/// `exchange`: what the caller has of a part of a range, without the values.
pub struct Part<'a> {
    pub me: Member,
    /// Of the ranges of the ring that both share.
    pub shared: u64,
    pub range: usize,
    /// Behind this key; `None`: from the least on.
    pub after: Option<&'a [u8]>,
    /// Up to this key; `None`: to the greatest.
    pub upto: Option<&'a [u8]>,
}

impl<'a> Part<'a> {
    pub fn request(&self, items: &ItemList) -> Request {
        let mut out = Vec::with_capacity(items.bytes() + 64);
        write_member(&mut out, 1, &self.me);
        out.write_i64_field(2, self.shared.cast_signed());
        out.write_i32_field(3, i32::try_from(self.range).unwrap_or(i32::MAX));
        if let Some(after) = self.after {
            out.write_bytes_field(4, after);
        }
        if let Some(upto) = self.upto {
            out.write_bytes_field(5, upto);
        }
        out.write_field(wire::LIST, 6);
        items.write(&mut out);
        out.write_stop();
        request("exchange", out)
    }

    pub fn read(arguments: &'a [u8]) -> Result<(Self, Vec<Item<'a>>), Exception> {
        let (mut me, mut shared, mut range) = (None, 0, 0);
        let (mut after, mut upto, mut items) = (None, None, Vec::new());
        Reader::new(arguments, &LIMITS).each_field(|id, kind, reader| {
            match (id, kind) {
                (1, wire::STRUCT) => me = Member::read(reader)?,
                (2, wire::I64) => shared = reader.i64()?.cast_unsigned(),
                (3, wire::I32) => range = usize::try_from(reader.i32()?).unwrap_or(usize::MAX),
                (4, wire::STRING) => after = Some(reader.bytes()?),
                (5, wire::STRING) => upto = Some(reader.bytes()?),
                (6, wire::LIST) => items = Item::read_list(reader)?,
                _ => return Ok(false),
            }
            Ok(true)
        })?;
        let part = Part {
            me: read_member(me)?,
            shared,
            range,
            after,
            upto,
        };
        Ok((part, items))
    }
}

/// The answer to `exchange`.
#[derive(Default)]
pub struct Exchanged<'a> {
    /// The lists are not the same: the answerer's members.
    pub differs: Option<Vec<Member>>,
    /// What the answerer has later, or the caller has not.
    pub items: Vec<Item<'a>>,
    /// The places among the caller's items of those that the answerer lacks.
    pub wanted: Vec<usize>,
    /// The part was looked through up to this key; `None`: all of it.
    pub reached: Option<&'a [u8]>,
}

pub fn write_exchanged(
    items: &ItemList,
    wanted: &[usize],
    reached: Option<&[u8]>,
    differs: Option<&[Member]>,
    out: &mut Vec<u8>,
) {
    out.write_field(wire::STRUCT, 0);
    out.write_field(wire::LIST, 1);
    items.write(out);
    out.write_field(wire::LIST, 2);
    out.write_list(wire::I32, wanted.len());
    for place in wanted {
        out.write_i32(i32::try_from(*place).unwrap_or(i32::MAX));
    }
    if let Some(reached) = reached {
        out.write_bytes_field(3, reached);
    }
    if let Some(members) = differs {
        write_members(out, 4, members);
    }
    out.write_stop();
    out.write_stop();
}

pub fn read_exchanged(result: &[u8]) -> Result<Exchanged<'_>, CallError> {
    read_result(result, "exchange", wire::STRUCT, |reader| {
        let mut exchanged = Exchanged::default();
        reader.each_field(|id, kind, reader| {
            match (id, kind) {
                (1, wire::LIST) => exchanged.items = Item::read_list(reader)?,
                (2, wire::LIST) => {
                    for _ in 0..reader.list(wire::I32)? {
                        let place = usize::try_from(reader.i32()?).unwrap_or(usize::MAX);
                        exchanged.wanted.push(place);
                    }
                }
                (3, wire::STRING) => exchanged.reached = Some(reader.bytes()?),
                (4, wire::LIST) => exchanged.differs = Some(read_members(reader)?),
                _ => return Ok(false),
            }
            Ok(true)
        })?;
        Ok(exchanged)
    })
}
