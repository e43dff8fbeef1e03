//! The calls of the Store (idl/diststore.thrift), and those of the extension that carry items
//! (idl/peer.thrift, service Replica): the structs that are sent, by the numbers of their fields.

use crate::locator::{LIMITS, of_the_key, request};
use crate::membership::{Caller, Member};
use crate::net::{Connection, Request};
use crate::thrift::{Decode, Encode, Error, Exception, Reader, Write, put_field, take_field, wire};
use crate::thrift_struct;

/// The greatest version of a key. What is above is no version.
pub const VERSION_MAX: i64 = 1 << 62;

/// Versions are from 0, for none, up to [`VERSION_MAX`].
fn is_version(version: i64) -> bool {
    (0..=VERSION_MAX).contains(&version)
}

/// The arguments of `put` and of `forward`: `{1: key, 2: value, 3: above, 4: caller}`; without a value, `forward`
/// means a get.
pub struct KeyValue<'a> {
    /// Any bytes, up to the limit of a string.
    pub key: &'a [u8],
    /// `None` is a get; the empty value deletes.
    pub value: Option<&'a [u8]>,
    /// The greatest version in which this put has been tried. 0: in none.
    pub above: i64,
    /// The node that says so, if it has been tried.
    pub caller: Option<Caller>,
}

impl<'a> KeyValue<'a> {
    /// Of a get.
    pub fn get(key: &'a [u8]) -> Self {
        KeyValue {
            key,
            value: None,
            above: 0,
            caller: None,
        }
    }

    /// Of a deletion.
    pub fn delete(key: &'a [u8]) -> Self {
        KeyValue {
            value: Some(&[]),
            ..KeyValue::get(key)
        }
    }

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
            put_field(&mut out, 4, &self.caller);
            out.write_stop();
        }
        Request {
            // Tried afresh, a put wouldn't know the version of its first try; see `Forwarded::above`.
            connection: match self.value {
                Some(_) => Connection::Once,
                None => Connection::Kept,
            },
            ..request("forward", out)
        }
    }

    /// # Errors
    /// The key is missing, something is too large, or `above` is no version.
    pub fn read(arguments: &'a [u8]) -> Result<Self, Exception> {
        let (mut key, mut value, mut above, mut caller) = (None, None, 0, None);
        Reader::new(arguments, &LIMITS).each_field(|id, kind, reader| {
            match (id, kind) {
                (1, wire::STRING) => key = Some(reader.bytes().map_err(of_the_key)?),
                (2, wire::STRING) => {
                    let bytes = reader.bytes();
                    value = Some(bytes.map_err(|error| error.of("bytes in the value"))?);
                }
                (3, wire::I64) => above = reader.i64()?,
                (4, wire::STRUCT) => return take_field(kind, reader, &mut caller),
                _ => return Ok(false),
            }
            Ok(true)
        })?;
        let key = key.ok_or(Error::Missing("key"))?;
        if !is_version(above) {
            return Err(Error::OutOfRange.into());
        }
        Ok(KeyValue {
            key,
            value,
            above,
            caller,
        })
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

/// The answer to `forward`.
pub struct Forwarded {
    /// Done, with the value, if it was a get; not empty, if it has deleted a value. `None`: the answerer isn't the key's
    /// primary.
    pub done: Option<Vec<u8>>,
    /// The greatest version in which the answerer has tried the put, if it isn't the primary.
    pub above: i64,
}
thrift_struct!(Forwarded { 1 done, 2 above } if |forwarded| is_version(forwarded.above));

impl Forwarded {
    pub fn done(value: Vec<u8>) -> Self {
        Forwarded {
            done: Some(value),
            above: 0,
        }
    }

    pub fn not_primary(above: i64) -> Self {
        Forwarded { done: None, above }
    }
}

/// A key with a version and, unless it is only being asked for, a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Item<'a> {
    pub key: &'a [u8],
    pub version: i64,
    pub value: Option<&'a [u8]>,
    /// The digest of the value, where the value is not sent along: another value may have the same version.
    pub digest: Option<u64>,
    /// The digest of the key's list, as the sender has it; `None` in messages that don't need it.
    pub list: Option<u64>,
}
thrift_struct!(Item<'a> { 1 key, 2 version, 3 value, 4 digest, 5 list } if |item| is_version(item.version));

/// A list of items in the making, whose length is known at the end.
#[derive(Debug, Default)]
pub struct ItemList {
    bytes: Vec<u8>,
    length: usize,
    /// Whether an item has its value with it.
    pub has_values: bool,
}

impl ItemList {
    pub fn push(&mut self, item: &Item<'_>) {
        item.encode(&mut self.bytes);
        self.length += 1;
        self.has_values |= item.value.is_some();
    }

    /// What tells it apart from other lists: some of its first items.
    pub fn head(&self) -> &[u8] {
        &self.bytes[..self.bytes.len().min(1024)]
    }

    /// Of all items together.
    pub fn bytes(&self) -> usize {
        self.bytes.len()
    }
}

impl Encode for ItemList {
    const KIND: u8 = wire::LIST;

    fn encode(&self, out: &mut Vec<u8>) {
        out.write_list(wire::STRUCT, self.length);
        out.extend_from_slice(&self.bytes);
    }
}

/// `store`: items for a replica.
pub struct Stored<'a> {
    pub caller: Caller,
    /// True for a put: if the receiver holds something greater, the put has to be tried again above that.
    /// False: something greater is as good as the item itself.
    pub put: bool,
    pub items: Vec<Item<'a>>,
}
thrift_struct!(Stored<'a> { 1 caller, 2 put, 3 items });

pub fn store_request(caller: &Caller, put: bool, items: &ItemList) -> Request {
    let mut out = Vec::with_capacity(items.bytes() + 64);
    put_field(&mut out, 1, caller);
    put_field(&mut out, 2, &put);
    put_field(&mut out, 3, items);
    out.write_stop();
    request("store", out)
}

/// What came of an item that was sent to a replica.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Taken {
    /// The two nodes have different lists for the key.
    Differs,
    /// The answerer lacks it, and it came without its value.
    Wanted,
    /// There was no room for it.
    NoRoom,
    /// The version that is held now. If something greater than the item is held: the version that a put has to exceed.
    Held(i64),
}

impl Encode for Taken {
    const KIND: u8 = wire::I64;

    fn encode(&self, out: &mut Vec<u8>) {
        let number = match self {
            Taken::Wanted => -1,
            Taken::NoRoom => -2,
            Taken::Differs => 0,
            Taken::Held(version) => *version,
        };
        number.encode(out);
    }
}

impl Decode<'_> for Taken {
    fn decode(reader: &mut Reader<'_>) -> Result<Self, Error> {
        Ok(match reader.i64()? {
            0 => Taken::Differs,
            -2 => Taken::NoRoom,
            version if is_version(version) => Taken::Held(version),
            _ => Taken::Wanted,
        })
    }
}

/// The answer to `store`.
#[derive(Default)]
pub struct StoreAnswer {
    /// In the order of the items.
    pub taken: Vec<Taken>,
    /// The answerer's members, if a list differs.
    pub members: Option<Vec<Member>>,
    /// What the answerer says of it, if there was no room for an item.
    pub full: Option<String>,
}
thrift_struct!(StoreAnswer { 1 taken, 2 members, 3 full });

/// `fetch`: what a replica has of a key.
pub struct Fetch<'a> {
    /// Digest of the key's list, as the caller has it.
    pub list: u64,
    pub key: &'a [u8],
}
thrift_struct!(Fetch<'a> { 1 list, 2 key });

/// An account of a key: version and value; version 0: there is none.
pub type Account = (i64, Vec<u8>);

/// The answer to `fetch`: an account.
pub struct Fetched {
    pub version: i64,
    pub value: Vec<u8>,
    /// The answerer's members, if the lists differ: then there is no account.
    pub members: Option<Vec<Member>>,
}
thrift_struct!(Fetched { 1 version, 2 value, 3 members } if |fetched| is_version(fetched.version));

/// `exchange`: what the caller has of a part of a range, without the values.
pub struct Part<'a> {
    pub caller: Caller,
    /// The digest of the ranges of the ring that both share, and of their lists.
    pub shared: u64,
    pub range: u32,
    /// The part begins behind this key; `None`: with the least key.
    pub after: Option<&'a [u8]>,
    /// The part ends with this key; `None`: with the greatest.
    pub upto: Option<&'a [u8]>,
    pub items: Vec<Item<'a>>,
}
thrift_struct!(Part<'a> { 1 caller, 2 shared, 3 range, 4 after, 5 upto, 6 items });

impl Part<'_> {
    /// The request, with these items in the place of the part's own.
    pub fn request(&self, items: &ItemList) -> Request {
        let mut out = Vec::with_capacity(items.bytes() + 64);
        put_field(&mut out, 1, &self.caller);
        put_field(&mut out, 2, &self.shared);
        put_field(&mut out, 3, &self.range);
        put_field(&mut out, 4, &self.after);
        put_field(&mut out, 5, &self.upto);
        put_field(&mut out, 6, items);
        out.write_stop();
        request("exchange", out)
    }
}

/// The answer to `exchange`.
pub struct Exchanged<'a> {
    /// Items of the answerer that are later than the caller's, or that the caller lacks.
    pub items: Vec<Item<'a>>,
    /// The places among the caller's items of those that the answerer lacks.
    pub wanted: Vec<u32>,
    /// The part was looked through up to this key; `None`: all of it.
    pub reached: Option<&'a [u8]>,
    /// The lists are not the same: the answerer's members.
    pub differs: Option<Vec<Member>>,
}
thrift_struct!(Exchanged<'a> { 1 items, 2 wanted, 3 reached, 4 differs } if |exchanged| exchanged.is_in_order());

impl Exchanged<'_> {
    /// Each key and each place comes once, and what goes on behind a key has brought something up to that. Otherwise an
    /// exchange might never end, or ask for an item a million times.
    fn is_in_order(&self) -> bool {
        let in_order = self.items.is_sorted_by(|one, next| one.key < next.key);
        let last = self.items.last().map(|last| last.key);
        in_order
            && self.wanted.is_sorted_by(|one, next| one < next)
            && (self.reached.is_none() || (last.is_some() && last <= self.reached))
    }
}

pub fn write_exchanged(
    items: &ItemList,
    wanted: &[u32],
    reached: Option<&[u8]>,
    differs: Option<&[Member]>,
    out: &mut Vec<u8>,
) {
    out.write_field(wire::STRUCT, 0);
    put_field(out, 1, items);
    put_field(out, 2, wanted);
    put_field(out, 3, &reached);
    put_field(out, 4, &differs);
    out.write_stop();
    out.write_stop();
}

/// `list_keys`: which keys of a range lie at the answerer.
pub struct List<'a> {
    /// The number of the range, below 1024.
    pub range: u32,
    /// Behind this key; `None`: from the least one on.
    pub after: Option<&'a [u8]>,
    /// Keys that begin so.
    pub prefix: &'a [u8],
    /// Up to so many; at most some thousands are answered at a time.
    pub most: u32,
}
thrift_struct!(List<'a> { 1 range, 2 after, 3 prefix, 4 most });

/// A key in the answer to `list_keys`.
pub struct Listed<'a> {
    /// Any bytes.
    pub key: &'a [u8],
    /// If two nodes list a key, the one with the greater version is right.
    pub version: i64,
    /// Of its value. 0: it has been deleted.
    pub bytes: usize,
}
thrift_struct!(Listed<'a> { 1 key, 2 version, 3 bytes });

/// The answer to `list_keys`.
pub struct Listing<'a> {
    /// In the order of the keys.
    pub keys: Vec<Listed<'a>>,
    /// There may be more behind this key; `None`: there are not.
    pub reached: Option<&'a [u8]>,
    /// How many keys of the range the answerer has forgotten since it runs, as others have them.
    pub removed: u64,
    /// The digest of its view.
    pub view: u64,
    /// How many members there are in it.
    pub members: u32,
}
thrift_struct!(Listing<'a> { 1 keys, 2 reached, 3 removed, 4 view, 5 members });

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(numbers: &[i64]) -> Vec<Taken> {
        let mut answer = Vec::new();
        put_field(&mut answer, 1, numbers);
        answer.write_stop();
        let answer = StoreAnswer::decode(&mut Reader::new(&answer, &LIMITS));
        answer.unwrap().taken
    }

    /// A member that says so only has the item sent again, with its value. The greatest version there is would be believed:
    /// the put that hears it is refused, and the next one knows nothing of it, as nothing of that version is kept.
    #[test]
    fn must_not_believe_a_version_that_is_none() {
        for none in [i64::MAX, VERSION_MAX + 1, i64::MIN, -3, -1] {
            assert_eq!(taken(&[none]), [Taken::Wanted], "{none}");
        }
        assert_eq!(
            taken(&[-2, 0, 1, VERSION_MAX]),
            [
                Taken::NoRoom,
                Taken::Differs,
                Taken::Held(1),
                Taken::Held(VERSION_MAX)
            ]
        );
        let forwarded = Forwarded::not_primary(VERSION_MAX + 1);
        let mut answer = Vec::new();
        forwarded.encode(&mut answer);
        assert!(Forwarded::decode(&mut Reader::new(&answer, &LIMITS)).is_err());
    }
}
