//! Values that structs and lists are made of: each type says once how it is written and read, and
//! [`thrift_struct!`](crate::thrift_struct) does so for a struct by the numbers of its fields.
//!
//! Invariants: what is written is read as the same; a value that is not valid for its type leaves out its field or
//! element, and nothing else.

use super::{Error, Reader, Write, wire};

/// A value that can be written.
pub trait Encode {
    /// Its type byte.
    const KIND: u8;

    /// Appends it, without a field's header.
    fn encode(&self, out: &mut Vec<u8>);

    /// As a field it is left out.
    fn is_absent(&self) -> bool {
        false
    }
}

/// A value that can be read.
pub trait Decode<'a>: Encode + Sized {
    /// Reads it, without a field's header.
    ///
    /// # Errors
    /// [`Error::Missing`]: the bytes are a value of this kind, but none that can be one. They have been read, and the
    /// field or the element is left out. Any other error, of the [`Reader`] or [`Error::OutOfRange`], is passed on: the
    /// struct around it is none either.
    fn decode(reader: &mut Reader<'a>) -> Result<Self, Error>;

    /// What a field stands for that did not come. `None`: it has to come.
    fn absent() -> Option<Self> {
        None
    }
}

/// Appends a field, unless its value is left out.
pub fn put_field<T: Encode + ?Sized>(out: &mut Vec<u8>, id: i16, value: &T) {
    if !value.is_absent() {
        out.write_field(T::KIND, id);
        value.encode(out);
    }
}

/// Reads the value of a field into its place, as [`Reader::each_field`] wants it. A value that is not valid for its
/// type reads as one that did not come.
///
/// # Errors
/// The bytes are no value.
pub fn take_field<'a, T: Decode<'a>>(
    kind: u8,
    reader: &mut Reader<'a>,
    place: &mut Option<T>,
) -> Result<bool, Error> {
    let expected = kind == T::KIND;
    if expected {
        *place = if_any(T::decode(reader))?;
    }
    Ok(expected)
}

fn if_any<T>(value: Result<T, Error>) -> Result<Option<T>, Error> {
    match value {
        Err(Error::Missing(_)) => Ok(None),
        value => value.map(Some),
    }
}

/// Writes and reads a struct by the numbers of its fields. A condition may follow: a struct that is read and doesn't meet
/// it is an [`Error::OutOfRange`]. What is written is not held against it.
///
/// | in Rust | in the IDL | if it is missing |
/// |---|---|---|
/// | `bool`, `i32`, `i64` | `bool`, `i32`, `i64` | false, 0 |
/// | `u32`, `usize` | `i32`, `i64`: a count | 0 |
/// | `u64` | `i64`: any 64 bits | 0 |
/// | `&[u8]` | `binary`, `string` | [`Error::Missing`] |
/// | `Vec<u8>`, `String` | the same | empty |
/// | `Vec<T>` | `list<T>` | empty |
/// | a struct | the struct | [`Error::Missing`] |
/// | `Option<T>` | `optional` | `None` |
///
/// A count above 2^31 - 1, for `usize` 2^63 - 1, is written as that number. One below 0 is read as an `OutOfRange`.
///
/// ```
/// use thrifty_p2p::thrift::{Decode, Encode, Limits, Reader};
///
/// struct Fruit<'a> {
///     name: &'a [u8],
///     grams: Option<i32>,
/// }
/// thrifty_p2p::thrift_struct!(Fruit<'a> { 1 name, 2 grams } if |fruit| fruit.grams != Some(0));
///
/// let mut bytes = Vec::new();
/// Fruit { name: b"apple", grams: None }.encode(&mut bytes);
/// assert_eq!(bytes, b"\x0b\0\x01\0\0\0\x05apple\0");
/// let fruit = Fruit::decode(&mut Reader::new(&bytes, &Limits::DEFAULT)).unwrap();
/// assert_eq!((fruit.name, fruit.grams), (&b"apple"[..], None));
/// ```
#[macro_export]
macro_rules! thrift_struct {
    ($name:ident { $($fields:tt)* } $(if $valid:expr)?) => {
        $crate::thrift_struct!(@encode ($name) { $($fields)* });
        $crate::thrift_struct!(@decode 'a ($name) $name { $($fields)* } $($valid)?);
    };
    ($name:ident<$life:lifetime> { $($fields:tt)* } $(if $valid:expr)?) => {
        $crate::thrift_struct!(@encode ($name<'_>) { $($fields)* });
        $crate::thrift_struct!(@decode $life ($name<$life>) $name { $($fields)* } $($valid)?);
    };
    (@encode ($type:ty) { $($id:literal $field:ident),* $(,)? }) => {
        impl $crate::thrift::Encode for $type {
            const KIND: u8 = $crate::thrift::wire::STRUCT;

            fn encode(&self, out: &mut Vec<u8>) {
                $($crate::thrift::put_field(out, $id, &self.$field);)*
                $crate::thrift::Write::write_stop(out);
            }
        }
    };
    (@decode $life:lifetime ($type:ty) $name:ident { $($id:literal $field:ident),* $(,)? } $($valid:expr)?) => {
        impl<$life> $crate::thrift::Decode<$life> for $type {
            fn decode(
                reader: &mut $crate::thrift::Reader<$life>,
            ) -> Result<Self, $crate::thrift::Error> {
                $(let mut $field = None;)*
                reader.each_field(|id, kind, reader| match id {
                    $($id => $crate::thrift::take_field(kind, reader, &mut $field),)*
                    _ => Ok(false),
                })?;
                let value = $name {
                    $($field: $field
                        .or_else($crate::thrift::Decode::absent)
                        .ok_or($crate::thrift::Error::Missing(stringify!($field)))?,)*
                };
                $(
                    let valid: fn(&Self) -> bool = $valid;
                    if !valid(&value) {
                        return Err($crate::thrift::Error::OutOfRange);
                    }
                )?
                Ok(value)
            }
        }
    };
}

/// How numbers travel: type, kind, the number as it is written, and as it is read.
macro_rules! number {
    ($type:ty, $kind:ident, $as_sent:expr, $read:expr) => {
        impl Encode for $type {
            const KIND: u8 = wire::$kind;

            fn encode(&self, out: &mut Vec<u8>) {
                out.extend_from_slice(&$as_sent(*self).to_be_bytes());
            }
        }

        impl Decode<'_> for $type {
            fn decode(reader: &mut Reader<'_>) -> Result<Self, Error> {
                $read(reader)
            }

            fn absent() -> Option<Self> {
                Some(Self::default())
            }
        }
    };
}

number!(bool, BOOL, u8::from, Reader::bool);
number!(i32, I32, i32::from, Reader::i32);
number!(i64, I64, i64::from, Reader::i64);
// A digest: any 64 bits.
number!(u64, I64, u64::cast_signed, |reader: &mut Reader<'_>| {
    Ok(reader.i64()?.cast_unsigned())
});
// Counts: not below 0, and the greatest stands for all that is above.
number!(
    u32,
    I32,
    |count| i32::try_from(count).unwrap_or(i32::MAX),
    |reader: &mut Reader<'_>| u32::try_from(reader.i32()?).map_err(|_| Error::OutOfRange)
);
number!(
    usize,
    I64,
    |count| i64::try_from(count).unwrap_or(i64::MAX),
    |reader: &mut Reader<'_>| usize::try_from(reader.i64()?).map_err(|_| Error::OutOfRange)
);

impl<T: Encode + ?Sized> Encode for &T {
    const KIND: u8 = T::KIND;

    fn encode(&self, out: &mut Vec<u8>) {
        (**self).encode(out);
    }

    fn is_absent(&self) -> bool {
        (**self).is_absent()
    }
}

impl Encode for [u8] {
    const KIND: u8 = wire::STRING;

    fn encode(&self, out: &mut Vec<u8>) {
        out.write_bytes(self);
    }
}

impl<'a> Decode<'a> for &'a [u8] {
    fn decode(reader: &mut Reader<'a>) -> Result<Self, Error> {
        reader.bytes()
    }
}

impl Encode for Vec<u8> {
    const KIND: u8 = wire::STRING;

    fn encode(&self, out: &mut Vec<u8>) {
        out.write_bytes(self);
    }
}

impl Decode<'_> for Vec<u8> {
    fn decode(reader: &mut Reader<'_>) -> Result<Self, Error> {
        Ok(reader.bytes()?.to_vec())
    }

    fn absent() -> Option<Self> {
        Some(Vec::new())
    }
}

/// What is no UTF-8 is replaced.
impl Decode<'_> for String {
    fn decode(reader: &mut Reader<'_>) -> Result<Self, Error> {
        Ok(String::from_utf8_lossy(reader.bytes()?).into_owned())
    }

    fn absent() -> Option<Self> {
        Some(String::new())
    }
}

impl Encode for String {
    const KIND: u8 = wire::STRING;

    fn encode(&self, out: &mut Vec<u8>) {
        out.write_bytes(self.as_bytes());
    }
}

impl<T: Encode> Encode for [T] {
    const KIND: u8 = wire::LIST;

    fn encode(&self, out: &mut Vec<u8>) {
        out.write_list(T::KIND, self.len());
        self.iter().for_each(|element| element.encode(out));
    }
}

impl<T: Encode> Encode for Vec<T> {
    const KIND: u8 = wire::LIST;

    fn encode(&self, out: &mut Vec<u8>) {
        self.as_slice().encode(out);
    }
}

/// Elements that can't be one are left out.
impl<'a, T: Decode<'a>> Decode<'a> for Vec<T> {
    fn decode(reader: &mut Reader<'a>) -> Result<Self, Error> {
        let mut list = Vec::new();
        for _ in 0..reader.list(T::KIND)? {
            list.extend(if_any(T::decode(reader))?);
        }
        Ok(list)
    }

    fn absent() -> Option<Self> {
        Some(Vec::new())
    }
}

impl<T: Encode> Encode for Option<T> {
    const KIND: u8 = T::KIND;

    fn encode(&self, out: &mut Vec<u8>) {
        if let Some(value) = self {
            value.encode(out);
        }
    }

    fn is_absent(&self) -> bool {
        self.is_none()
    }
}

impl<'a, T: Decode<'a>> Decode<'a> for Option<T> {
    fn decode(reader: &mut Reader<'a>) -> Result<Self, Error> {
        T::decode(reader).map(Some)
    }

    fn absent() -> Option<Self> {
        Some(None)
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Debug;

    use super::*;
    use crate::thrift::Limits;

    #[derive(Debug, PartialEq, Eq)]
    struct Leaf {
        number: i32,
    }
    thrift_struct!(Leaf { 7 number } if |leaf| leaf.number != 13);

    #[derive(Debug, PartialEq, Eq)]
    struct Tree<'a> {
        name: &'a [u8],
        leaf: Option<Leaf>,
        leaves: Vec<Leaf>,
        digest: u64,
        count: u32,
        bytes: usize,
        green: bool,
        text: String,
        owned: Vec<u8>,
    }
    thrift_struct!(Tree<'a> {
        1 name, 2 leaf, 3 leaves, 4 digest, 5 count, 6 bytes, 7 green, 8 text, 9 owned
    });

    fn bare(name: &[u8]) -> Tree<'_> {
        Tree {
            name,
            leaf: None,
            leaves: Vec::new(),
            digest: 0,
            count: 0,
            bytes: 0,
            green: false,
            text: String::new(),
            owned: Vec::new(),
        }
    }

    fn written(value: &impl Encode) -> Vec<u8> {
        let mut out = Vec::new();
        value.encode(&mut out);
        out
    }

    fn read<'a, T: Decode<'a> + Debug>(bytes: &'a [u8]) -> Result<T, Error> {
        let mut reader = Reader::new(bytes, &Limits::DEFAULT);
        let value = T::decode(&mut reader);
        if matches!(value, Ok(_) | Err(Error::Missing(_))) {
            assert_eq!(
                reader.byte(),
                Err(Error::Truncated),
                "it is read to its end"
            );
        }
        value
    }

    #[test]
    fn must_read_what_was_written() {
        let full = Tree {
            leaf: Some(Leaf { number: -1 }),
            leaves: vec![Leaf { number: 1 }, Leaf { number: 2 }],
            digest: u64::MAX,
            count: 5,
            bytes: 1 << 40,
            green: true,
            text: "x".to_owned(),
            owned: vec![0, 255],
            ..bare(b"\xff")
        };
        assert_eq!(read(&written(&full)), Ok(full));
        assert_eq!(read(&written(&bare(b""))), Ok(bare(b"")));
    }

    #[test]
    fn must_do_without_all_but_what_has_to_come() {
        assert_eq!(read(b"\x0b\0\x01\0\0\0\x01n\0"), Ok(bare(b"n")));
        assert_eq!(read::<Tree<'_>>(b"\0"), Err(Error::Missing("name")));
        let wrong_type = b"\x08\0\x01\0\0\0\x01\0";
        assert_eq!(read::<Tree<'_>>(wrong_type), Err(Error::Missing("name")));
    }

    #[test]
    fn must_leave_out_elements_and_fields_that_lack_something_and_nothing_else() {
        // The second lacks its name, and so does the field below.
        let list = [
            &b"\x0c\0\0\0\x03"[..],
            b"\x0b\0\x01\0\0\0\x01a\0",
            b"\0",
            b"\x0b\0\x01\0\0\0\x01b\0",
        ];
        let list = list.concat();
        let names: Vec<_> = read::<Vec<Tree<'_>>>(&list).unwrap();
        assert_eq!(names, [bare(b"a"), bare(b"b")]);
        struct Holder<'a> {
            tree: Option<Tree<'a>>,
            after: bool,
        }
        thrift_struct!(Holder<'a> { 1 tree, 2 after });
        let bytes = b"\x0c\0\x01\0\x02\0\x02\x01\0";
        let holder = Holder::decode(&mut Reader::new(bytes, &Limits::DEFAULT)).unwrap();
        assert!(holder.tree.is_none() && holder.after);
    }

    #[test]
    fn must_refuse_numbers_out_of_range() {
        assert_eq!(
            read::<Leaf>(b"\x08\0\x07\0\0\0\x0d\0"),
            Err(Error::OutOfRange)
        );
        assert_eq!(
            read::<Vec<Leaf>>(b"\x0c\0\0\0\x01\x08\0\x07\0\0\0\x0d\0"),
            Err(Error::OutOfRange)
        );
        assert_eq!(read::<u32>(&[255; 4]), Err(Error::OutOfRange));
        assert_eq!(read::<usize>(&[255; 8]), Err(Error::OutOfRange));
        assert_eq!(written(&u32::MAX), i32::MAX.to_be_bytes());
    }
}
