//! The calls of the Store (idl/diststore.thrift), and those of the extension that move items
//! (idl/peer.thrift, service Holder): what goes in and what comes out, side by side.

use crate::location::Location;
use crate::locator::{Item, LIMITS, of_the_key, read_result};
use crate::net::CallError;
use crate::thrift::{Exception, Reader, Write, wire};

/// The arguments of `put` and of `forward`: `{1: key, 2: value}`; without a value, `forward`
/// means a get.
pub struct KeyValue<'a> {
    pub key: &'a [u8],
    pub value: Option<&'a [u8]>,
}

impl<'a> KeyValue<'a> {
    pub fn write(key: &[u8], value: Option<&[u8]>) -> Vec<u8> {
        let mut out = Vec::with_capacity(key.len() + value.map_or(0, <[u8]>::len) + 16);
        out.write_bytes_field(1, key);
        if let Some(value) = value {
            out.write_bytes_field(2, value);
        }
        out.write_stop();
        out
    }

    pub fn read(arguments: &'a [u8]) -> Result<Self, Exception> {
        let (mut key, mut value) = (None, None);
        Reader::new(arguments, &LIMITS).each_field(|id, kind, reader| {
            match (id, kind) {
                (1, wire::STRING) => key = Some(reader.bytes().map_err(of_the_key)?),
                (2, wire::STRING) => {
                    let bytes = reader.bytes();
                    value = Some(bytes.map_err(|error| error.of("bytes in the value"))?);
                }
                _ => return Ok(false),
            }
            Ok(true)
        })?;
        let key = key.ok_or_else(|| Exception::missing_argument("key"))?;
        Ok(KeyValue { key, value })
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

/// The answer to `forward`, with the value if it was a get: `{0: {1: value}}`.
pub fn write_answer(value: Option<&[u8]>, out: &mut Vec<u8>) {
    out.write_field(wire::STRUCT, 0);
    if let Some(value) = value {
        out.write_bytes_field(1, value);
    }
    out.write_stop();
    out.write_stop();
}

pub fn read_answer(result: &[u8]) -> Result<Vec<u8>, CallError> {
    read_result(result, "forward", wire::STRUCT, |reader| {
        let mut value = Vec::new();
        reader.each_field(|id, kind, reader| {
            let found = (id, kind) == (1, wire::STRING);
            if found {
                value = reader.bytes()?.to_vec();
            }
            Ok(found)
        })?;
        Ok(value)
    })
}

/// The arguments of `store`: one item, `{1: item}`.
pub fn write_item(item: &Item<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    out.write_field(wire::STRUCT, 1);
    item.write(&mut out);
    out.write_stop();
    out
}

pub fn read_item(arguments: &[u8]) -> Result<Item<'_>, Exception> {
    let mut item = None;
    Reader::new(arguments, &LIMITS).each_field(|id, kind, reader| {
        let found = (id, kind) == (1, wire::STRUCT);
        if found {
            item = Some(Item::read(reader)?);
        }
        Ok(found)
    })?;
    item.ok_or_else(|| Exception::missing_argument("item"))
}

/// The answer to `store`.
pub struct Stored {
    /// That of the item, which is held now, or a greater one: what the item is to be above.
    pub version: i64,
    /// The key's holders, as the answerer's ring has them.
    pub holders: Vec<Location>,
}

impl Stored {
    pub fn write<'a>(
        version: i64,
        holders: impl ExactSizeIterator<Item = &'a Location>,
        out: &mut Vec<u8>,
    ) {
        out.write_field(wire::STRUCT, 0);
        out.write_i64_field(1, version);
        out.write_field(wire::LIST, 2);
        Location::write_list(out, holders);
        out.write_stop();
        out.write_stop();
    }

    pub fn read(result: &[u8]) -> Result<Self, CallError> {
        read_result(result, "store", wire::STRUCT, |reader| {
            let mut stored = Stored {
                version: 0,
                holders: Vec::new(),
            };
            reader.each_field(|id, kind, reader| {
                match (id, kind) {
                    (1, wire::I64) => stored.version = reader.i64()?,
                    (2, wire::LIST) => stored.holders = Location::read_list(reader)?,
                    _ => return Ok(false),
                }
                Ok(true)
            })?;
            Ok(stored)
        })
    }
}

/// The answer to `fetch`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Found {
    /// 0: it holds none.
    pub version: i64,
    pub value: Vec<u8>,
    /// The answerer has all that it should hold and is the key's primary: nobody has a later one.
    pub primary: bool,
    /// The key's holders, but for originals, as the answerer's ring has them.
    pub holders: Vec<Location>,
}

impl Found {
    pub fn write(&self, out: &mut Vec<u8>) {
        out.write_field(wire::STRUCT, 0);
        out.write_i64_field(1, self.version);
        out.write_bytes_field(2, &self.value);
        out.write_bool_field(3, self.primary);
        out.write_field(wire::LIST, 4);
        Location::write_list(out, self.holders.iter());
        out.write_stop();
        out.write_stop();
    }

    pub fn read(result: &[u8]) -> Result<Self, CallError> {
        read_result(result, "fetch", wire::STRUCT, |reader| {
            let mut found = Found {
                version: 0,
                value: Vec::new(),
                primary: false,
                holders: Vec::new(),
            };
            reader.each_field(|id, kind, reader| {
                match (id, kind) {
                    (1, wire::I64) => found.version = reader.i64()?,
                    (2, wire::STRING) => found.value = reader.bytes()?.to_vec(),
                    (3, wire::BOOL) => found.primary = reader.bool()?,
                    (4, wire::LIST) => found.holders = Location::read_list(reader)?,
                    _ => return Ok(false),
                }
                Ok(true)
            })?;
            Ok(found)
        })
    }
}

/// What a node says to one item that it is offered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Taken {
    /// It has this version or a greater one, and is a holder.
    Held = 0,
    /// It is no holder, or is leaving: it has taken nothing.
    NotMine = 1,
    /// It is a holder and lacks that version: send the value.
    Wanted = 2,
    /// As `Held`, but its list of members isn't the caller's: one of them may know a node that the
    /// other one doesn't.
    Unsure = 3,
}

/// The arguments of `offer` are a list of items and the digest of the names that the caller knows,
/// `{1: items, 2: names}`: the list's length and the items' bytes are written by `write_items`.
pub fn write_offer(names: u64, write_items: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut out = Vec::new();
    out.write_field(wire::LIST, 1);
    write_items(&mut out);
    out.write_i64_field(2, names.cast_signed());
    out.write_stop();
    out
}

pub fn read_offer(arguments: &[u8]) -> Result<(Vec<Item<'_>>, u64), Exception> {
    let (mut items, mut names) = (Vec::new(), 0);
    Reader::new(arguments, &LIMITS).each_field(|id, kind, reader| {
        match (id, kind) {
            (1, wire::LIST) => items = Item::read_list(reader)?,
            (2, wire::I64) => names = reader.i64()?.cast_unsigned(),
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    Ok((items, names))
}

pub fn write_taken(taken: &[Taken], out: &mut Vec<u8>) {
    out.write_field(wire::LIST, 0);
    out.write_list(wire::BYTE, taken.len());
    out.extend(taken.iter().map(|taken| *taken as u8));
    out.write_stop();
}

pub fn read_taken(result: &[u8]) -> Result<Vec<Taken>, CallError> {
    read_result(result, "offer", wire::LIST, |reader| {
        let mut taken = Vec::new();
        for _ in 0..reader.list(wire::BYTE)? {
            taken.push(match reader.byte()? {
                0 => Taken::Held,
                2 => Taken::Wanted,
                3 => Taken::Unsure,
                _ => Taken::NotMine,
            });
        }
        Ok(taken)
    })
}

/// The answer to `digests`: a number for each shard.
pub fn write_digests(digests: &[u64], out: &mut Vec<u8>) {
    out.write_field(wire::LIST, 0);
    out.write_list(wire::I64, digests.len());
    out.extend(digests.iter().flat_map(|digest| digest.to_be_bytes()));
    out.write_stop();
}

pub fn read_digests(result: &[u8]) -> Result<Vec<u64>, CallError> {
    read_result(result, "digests", wire::LIST, |reader| {
        let mut digests = Vec::new();
        for _ in 0..reader.list(wire::I64)? {
            digests.push(reader.i64()?.cast_unsigned());
        }
        Ok(digests)
    })
}
