//! Takes the bytes of one struct apart, field by field.

use super::scanner::{ELEMENTS, STRING_BYTES, Scanner, fixed_size, least_size, within};
use super::{Error, Limits, wire};

/// A place in bytes that hold a value. Strings are handed out as slices of them, nothing is copied.
#[derive(Debug, Clone, Copy)]
pub struct Reader<'a> {
    rest: &'a [u8],
    limits: &'a Limits,
}

impl<'a> Reader<'a> {
    /// Reads one struct, from its first field on.
    pub fn new(bytes: &'a [u8], limits: &'a Limits) -> Self {
        Reader {
            rest: bytes,
            limits,
        }
    }

    /// The next field's type and number; `None` at the end of the struct. The type is not looked at: it may be one
    /// that there is not.
    ///
    /// # Errors
    /// [`Error::Truncated`].
    ///
    /// ```
    /// # use thrifty_p2p::thrift::{Limits, Reader, wire};
    /// let limits = Limits::default();
    /// let mut reader = Reader::new(&[6, 0, 2, 0x26, 0xac, 0], &limits);
    /// assert_eq!(reader.field(), Ok(Some((wire::I16, 2))));
    /// assert_eq!(reader.i16(), Ok(9900));
    /// assert_eq!(reader.field(), Ok(None));
    /// ```
    pub fn field(&mut self) -> Result<Option<(u8, i16)>, Error> {
        match self.byte()? {
            wire::STOP => Ok(None),
            kind => Ok(Some((kind, self.i16()?))),
        }
    }

    /// Hands each field of a struct to `take`, which reads its value and answers true, or answers
    /// false: then the value is stepped over.
    ///
    /// # Errors
    /// Those of [`Reader::field`], of [`Reader::skip`] and of `take`. Nothing is read after the first.
    pub fn each_field(
        &mut self,
        mut take: impl FnMut(i16, u8, &mut Self) -> Result<bool, Error>,
    ) -> Result<(), Error> {
        while let Some((kind, id)) = self.field()? {
            if !take(id, kind, self)? {
                self.skip(kind)?;
            }
        }
        Ok(())
    }

    /// One byte; any but 0 is true.
    ///
    /// # Errors
    /// [`Error::Truncated`].
    pub fn bool(&mut self) -> Result<bool, Error> {
        Ok(self.byte()? != 0)
    }

    /// An unsigned byte; Thrift's is signed.
    ///
    /// # Errors
    /// [`Error::Truncated`].
    pub fn byte(&mut self) -> Result<u8, Error> {
        Ok(self.array::<1>()?[0])
    }

    /// Two bytes, the high one first.
    ///
    /// # Errors
    /// [`Error::Truncated`].
    pub fn i16(&mut self) -> Result<i16, Error> {
        Ok(i16::from_be_bytes(self.array()?))
    }

    /// Four bytes, the high one first.
    ///
    /// # Errors
    /// [`Error::Truncated`].
    pub fn i32(&mut self) -> Result<i32, Error> {
        Ok(i32::from_be_bytes(self.array()?))
    }

    /// Eight bytes, the high one first.
    ///
    /// # Errors
    /// [`Error::Truncated`].
    pub fn i64(&mut self) -> Result<i64, Error> {
        Ok(i64::from_be_bytes(self.array()?))
    }

    /// Eight bytes, IEEE 754.
    ///
    /// # Errors
    /// [`Error::Truncated`].
    pub fn double(&mut self) -> Result<f64, Error> {
        Ok(f64::from_be_bytes(self.array()?))
    }

    /// A string or binary.
    ///
    /// # Errors
    /// [`Error::Truncated`], [`Error::Negative`], or [`Error::TooLarge`] above [`Limits::string_bytes_max`].
    pub fn bytes(&mut self) -> Result<&'a [u8], Error> {
        let length = within(self.i32()?, self.limits.string_bytes_max, STRING_BYTES)?;
        self.take(length)
    }

    /// The head of a list or set whose elements have to be of type `kind`: their number. It is
    /// never more than the bytes that are there can hold.
    ///
    /// # Errors
    /// [`Error::WrongType`]: its elements have another type. Nothing has been taken, so that the list can be skipped.
    /// [`Error::Truncated`], [`Error::Negative`], [`Error::TooLarge`] above [`Limits::elements_max`], and
    /// [`Error::UnknownType`] if there is no type `kind`.
    pub fn list(&mut self, kind: u8) -> Result<usize, Error> {
        let mut ahead = *self;
        let found = ahead.byte()?;
        let length = within(ahead.i32()?, self.limits.elements_max, ELEMENTS)?;
        // Some libraries write no proper type for an empty list.
        if length > 0 && found != kind {
            return Err(Error::WrongType(found));
        }
        if length > 0 && length > ahead.rest.len() / least_size(kind)? {
            return Err(Error::Truncated);
        }
        *self = ahead;
        Ok(length)
    }

    /// Steps over a value of type `kind`.
    ///
    /// # Errors
    /// [`Error::Truncated`], [`Error::Negative`], [`Error::UnknownType`] for `kind` or within the value, or
    /// [`Error::TooLarge`] for a string, a count or a depth above its limit.
    pub fn skip(&mut self, kind: u8) -> Result<(), Error> {
        if let Some(size) = fixed_size(kind) {
            return self.take(size).map(|_| ());
        }
        if kind == wire::STRING {
            return self.bytes().map(|_| ());
        }
        let mut scanner = Scanner::default();
        scanner.start(0, kind);
        if !scanner.advance(self.rest, self.limits)? {
            return Err(Error::Truncated);
        }
        self.take(scanner.position).map(|_| ())
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Error> {
        let (head, rest) = self.rest.split_first_chunk().ok_or(Error::Truncated)?;
        self.rest = rest;
        Ok(*head)
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], Error> {
        let (head, rest) = self.rest.split_at_checked(length).ok_or(Error::Truncated)?;
        self.rest = rest;
        Ok(head)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits {
        message_bytes_max: 100,
        string_bytes_max: 10,
        elements_max: 5,
        depth_max: 3,
    };

    fn reader(bytes: &[u8]) -> Reader<'_> {
        Reader::new(bytes, &LIMITS)
    }

    #[test]
    fn must_read_numbers() {
        assert_eq!(reader(&[0xfe]).byte(), Ok(0xfe));
        assert_eq!(reader(&[0xff, 0xfe]).i16(), Ok(-2));
        assert_eq!(reader(&[1, 2, 3, 4]).i32(), Ok(0x0102_0304));
        assert_eq!(reader(&[0xff; 8]).i64(), Ok(-1));
        assert_eq!(reader(&[0x3f, 0xf8, 0, 0, 0, 0, 0, 0]).double(), Ok(1.5));
    }

    #[test]
    fn must_read_every_bool_but_0_as_true() {
        for (byte, value) in [(0, false), (1, true), (2, true), (255, true)] {
            assert_eq!(reader(&[byte]).bool(), Ok(value));
        }
    }

    #[test]
    fn must_read_strings_as_slices_of_what_came() {
        let bytes = [0, 0, 0, 2, 0xff, 0, 0, 0, 0, 0];
        let mut reader = reader(&bytes);
        let first = reader.bytes().unwrap();
        assert_eq!(first.as_ptr(), bytes[4..].as_ptr());
        assert_eq!(first, [0xff, 0]);
        assert_eq!(reader.bytes(), Ok(&b""[..]));
        assert_eq!(reader.bytes(), Err(Error::Truncated));
    }

    #[test]
    fn must_enforce_the_limit_of_strings() {
        let string = |length: u8| [&[0, 0, 0, length], &[b'x'; 11][..]].concat();
        assert_eq!(reader(&string(10)).bytes(), Ok(&[b'x'; 10][..]));
        let large = |size| {
            Err(Error::TooLarge {
                what: STRING_BYTES,
                size,
                limit: 10,
            })
        };
        assert_eq!(reader(&string(11)).bytes(), large(11));
        assert_eq!(reader(&[0xff; 20]).bytes(), Err(Error::Negative));
        let most = reader(&[0x7f, 255, 255, 255]).bytes();
        assert_eq!(most, large(0x7fff_ffff));
    }

    #[test]
    fn must_enforce_the_limit_of_elements() {
        let list = |length: u8| [&[wire::BOOL, 0, 0, 0, length], &[1; 6][..]].concat();
        assert_eq!(reader(&list(5)).list(wire::BOOL), Ok(5));
        assert_eq!(
            reader(&list(6)).list(wire::BOOL),
            Err(Error::TooLarge {
                what: ELEMENTS,
                size: 6,
                limit: 5
            })
        );
        assert_eq!(
            reader(&[wire::BOOL, 255, 255, 255, 255]).list(wire::BOOL),
            Err(Error::Negative)
        );
    }

    #[test]
    fn must_refuse_a_list_that_the_bytes_cannot_hold() {
        // The least that two elements of each type take, and one byte less.
        for (kind, least) in [
            (wire::BOOL, 1),
            (wire::BYTE, 1),
            (wire::I16, 2),
            (wire::I32, 4),
            (wire::I64, 8),
            (wire::DOUBLE, 8),
            (wire::UUID, 16),
            (wire::STRING, 4),
            (wire::STRUCT, 1),
            (wire::LIST, 5),
            (wire::SET, 5),
            (wire::MAP, 6),
        ] {
            let bytes = [&[kind, 0, 0, 0, 2], &[0; 32][..]].concat();
            let end = 5 + 2 * least;
            assert_eq!(reader(&bytes[..end]).list(kind), Ok(2), "{kind}");
            let short = reader(&bytes[..end - 1]).list(kind);
            assert_eq!(short, Err(Error::Truncated), "{kind}");
        }
        assert_eq!(
            reader(&[99, 0, 0, 0, 1, 0]).list(99),
            Err(Error::UnknownType(99))
        );
    }

    #[test]
    fn must_leave_a_list_of_another_type_to_be_skipped() {
        let bytes = [wire::I16, 0, 0, 0, 2, 1, 2, 3, 4, wire::STOP];
        let mut reader = reader(&bytes);
        assert_eq!(reader.list(wire::STRUCT), Err(Error::WrongType(wire::I16)));
        reader.skip(wire::LIST).unwrap();
        assert_eq!(reader.field(), Ok(None));
    }

    #[test]
    fn must_take_an_empty_list_of_any_type() {
        for kind in [wire::STOP, wire::I16, wire::STRUCT, 99] {
            assert_eq!(reader(&[kind, 0, 0, 0, 0]).list(wire::STRING), Ok(0));
        }
    }

    #[test]
    fn must_refuse_what_ends_too_early() {
        let full = [0; 16];
        let cut = |length| reader(&full[..length]);
        assert_eq!(cut(0).field(), Err(Error::Truncated));
        assert_eq!(reader(&[wire::I32, 0]).field(), Err(Error::Truncated));
        assert_eq!(cut(0).bool(), Err(Error::Truncated));
        assert_eq!(cut(1).i16(), Err(Error::Truncated));
        assert_eq!(cut(3).i32(), Err(Error::Truncated));
        assert_eq!(cut(7).i64(), Err(Error::Truncated));
        assert_eq!(cut(7).double(), Err(Error::Truncated));
        assert_eq!(cut(3).bytes(), Err(Error::Truncated));
        assert_eq!(reader(&[0, 0, 0, 2, b'x']).bytes(), Err(Error::Truncated));
        assert_eq!(cut(4).list(wire::BOOL), Err(Error::Truncated));
        assert_eq!(cut(3).skip(wire::I32), Err(Error::Truncated));
        assert_eq!(cut(15).skip(wire::UUID), Err(Error::Truncated));
        assert_eq!(cut(4).skip(wire::LIST), Err(Error::Truncated));
        assert_eq!(cut(0).skip(wire::STRUCT), Err(Error::Truncated));
    }

    #[test]
    fn must_skip_to_the_end_of_the_value_and_no_further() {
        let cases: [(u8, &[u8]); 12] = [
            (wire::BOOL, &[1]),
            (wire::BYTE, &[1]),
            (wire::I16, &[1; 2]),
            (wire::I32, &[1; 4]),
            (wire::I64, &[1; 8]),
            (wire::DOUBLE, &[1; 8]),
            (wire::UUID, &[1; 16]),
            (wire::STRING, &[0, 0, 0, 3, 1, 1, 1]),
            (wire::STRUCT, &[wire::BYTE, 0, 1, 7, wire::STOP]),
            (wire::LIST, &[wire::I16, 0, 0, 0, 2, 1, 1, 1, 1]),
            (
                wire::SET,
                &[wire::STRUCT, 0, 0, 0, 2, 0, wire::BOOL, 0, 1, 1, 0],
            ),
            (
                wire::MAP,
                // {1: "a", 2: ""}
                &[
                    wire::BYTE,
                    wire::STRING,
                    0,
                    0,
                    0,
                    2,
                    1,
                    0,
                    0,
                    0,
                    1,
                    b'a',
                    2,
                    0,
                    0,
                    0,
                    0,
                ],
            ),
        ];
        for (kind, value) in cases {
            let bytes = [value, &[0x26, 0xac]].concat();
            let mut reader = reader(&bytes);
            assert_eq!(reader.skip(kind), Ok(()), "type {kind}");
            assert_eq!(reader.i16(), Ok(9900), "type {kind}");
            for end in 0..value.len() {
                let mut short = self::reader(&value[..end]);
                assert_eq!(
                    short.skip(kind),
                    Err(Error::Truncated),
                    "type {kind}, {end}"
                );
            }
        }
        for kind in [wire::STOP, 1, 5, 7, 9, 17, 128, 255] {
            assert_eq!(reader(&[0; 20]).skip(kind), Err(Error::UnknownType(kind)));
        }
    }
}
