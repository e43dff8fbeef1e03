//! Takes the bytes of one struct apart, field by field.

use super::scanner::{Scanner, count, fixed_size, least_size};
use super::{Error, Limits, wire};

/// A place in bytes that hold a value. Strings are handed out as slices of them, nothing is copied.
#[derive(Debug, Clone, Copy)]
pub struct Reader<'a> {
    rest: &'a [u8],
    limits: &'a Limits,
}

impl<'a> Reader<'a> {
    pub fn new(bytes: &'a [u8], limits: &'a Limits) -> Self {
        Reader {
            rest: bytes,
            limits,
        }
    }

    /// The next field's type and number; `None` at the end of the struct.
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

    pub fn bool(&mut self) -> Result<bool, Error> {
        Ok(self.byte()? != 0)
    }

    pub fn byte(&mut self) -> Result<u8, Error> {
        Ok(self.array::<1>()?[0])
    }

    pub fn i16(&mut self) -> Result<i16, Error> {
        Ok(i16::from_be_bytes(self.array()?))
    }

    pub fn i32(&mut self) -> Result<i32, Error> {
        Ok(i32::from_be_bytes(self.array()?))
    }

    pub fn i64(&mut self) -> Result<i64, Error> {
        Ok(i64::from_be_bytes(self.array()?))
    }

    pub fn double(&mut self) -> Result<f64, Error> {
        Ok(f64::from_be_bytes(self.array()?))
    }

    /// A string or binary.
    pub fn bytes(&mut self) -> Result<&'a [u8], Error> {
        let length =
            count(self.rest, 0, self.limits.string_bytes_max, "string")?.ok_or(Error::Truncated)?;
        self.take(4)?;
        self.take(length)
    }

    /// The head of a list or set whose elements have to be of type `kind`: their number. It is
    /// never more than the bytes that are there can hold.
    pub fn list(&mut self, kind: u8) -> Result<usize, Error> {
        let length =
            count(self.rest, 1, self.limits.elements_max, "container")?.ok_or(Error::Truncated)?;
        let found = self.rest[0];
        if length > 0 && found != kind {
            return Err(Error::WrongType(found));
        }
        self.take(5)?;
        if length > 0 && length > self.rest.len() / least_size(kind)? {
            return Err(Error::Truncated);
        }
        Ok(length)
    }

    /// Steps over a value of type `kind`.
    pub fn skip(&mut self, kind: u8) -> Result<(), Error> {
        if let Some(size) = fixed_size(kind) {
            return self.take(size).map(|_| ());
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
