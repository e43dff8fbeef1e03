//! Appends values to a `Vec<u8>`.

use super::wire;

/// Writing in the binary protocol; for `Vec<u8>`, where nothing can fail.
///
/// ```
/// use thrifty_p2p::thrift::Write;
/// let mut out = Vec::new();
/// out.write_i16_field(2, 9900);
/// out.write_stop();
/// assert_eq!(out, [6, 0, 2, 0x26, 0xac, 0]);
/// ```
pub trait Write {
    /// A field's header: the type of its value, see [`wire`], and its number.
    fn write_field(&mut self, kind: u8, id: i16);
    /// The end of a struct.
    fn write_stop(&mut self);
    /// A number without a field's header.
    fn write_i32(&mut self, value: i32);
    /// A string or binary without a field's header.
    ///
    /// # Panics
    /// If `bytes` are 2 GiB or more: the limits let nothing of that size in.
    fn write_bytes(&mut self, bytes: &[u8]);
    /// A list's header, without a field's; its elements follow.
    ///
    /// # Panics
    /// If there are 2^31 elements or more.
    fn write_list(&mut self, kind: u8, length: usize);
    /// A whole field.
    fn write_bool_field(&mut self, id: i16, value: bool);
    /// A whole field.
    fn write_byte_field(&mut self, id: i16, value: u8);
    /// A whole field.
    fn write_i16_field(&mut self, id: i16, value: i16);
    /// A whole field.
    fn write_i32_field(&mut self, id: i16, value: i32);
    /// A whole field.
    fn write_i64_field(&mut self, id: i16, value: i64);
    /// A whole field: string or binary.
    ///
    /// # Panics
    /// As [`Write::write_bytes`].
    fn write_bytes_field(&mut self, id: i16, bytes: &[u8]);
}

impl Write for Vec<u8> {
    fn write_field(&mut self, kind: u8, id: i16) {
        let [high, low] = id.to_be_bytes();
        self.extend_from_slice(&[kind, high, low]);
    }

    fn write_stop(&mut self) {
        self.push(wire::STOP);
    }

    fn write_i32(&mut self, value: i32) {
        self.extend_from_slice(&value.to_be_bytes());
    }

    fn write_bytes(&mut self, bytes: &[u8]) {
        self.write_i32(i32::try_from(bytes.len()).expect("BUG: a string of 2 GiB"));
        self.extend_from_slice(bytes);
    }

    fn write_list(&mut self, kind: u8, length: usize) {
        self.push(kind);
        self.write_i32(i32::try_from(length).expect("BUG: a list of 2^31 elements"));
    }

    fn write_bool_field(&mut self, id: i16, value: bool) {
        self.write_field(wire::BOOL, id);
        self.push(u8::from(value));
    }

    fn write_byte_field(&mut self, id: i16, value: u8) {
        self.write_field(wire::BYTE, id);
        self.push(value);
    }

    fn write_i16_field(&mut self, id: i16, value: i16) {
        self.write_field(wire::I16, id);
        self.extend_from_slice(&value.to_be_bytes());
    }

    fn write_i32_field(&mut self, id: i16, value: i32) {
        self.write_field(wire::I32, id);
        self.write_i32(value);
    }

    fn write_i64_field(&mut self, id: i16, value: i64) {
        self.write_field(wire::I64, id);
        self.extend_from_slice(&value.to_be_bytes());
    }

    fn write_bytes_field(&mut self, id: i16, bytes: &[u8]) {
        self.write_field(wire::STRING, id);
        self.write_bytes(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(write: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
        let mut out = vec![0xee];
        write(&mut out);
        assert_eq!(out.remove(0), 0xee, "what was there stays");
        out
    }

    #[test]
    fn must_write_fields() {
        let cases: [(Vec<u8>, &[u8]); 8] = [
            (written(|out| out.write_bool_field(1, true)), &[2, 0, 1, 1]),
            (
                written(|out| out.write_bool_field(-1, false)),
                &[2, 255, 255, 0],
            ),
            (
                written(|out| out.write_byte_field(2, 0xfe)),
                &[3, 0, 2, 0xfe],
            ),
            (
                written(|out| out.write_i16_field(256, -2)),
                &[6, 1, 0, 0xff, 0xfe],
            ),
            (
                written(|out| out.write_i32_field(3, 0x0102_0304)),
                &[8, 0, 3, 1, 2, 3, 4],
            ),
            (
                written(|out| out.write_i64_field(4, 0x0102_0304_0506_0708)),
                &[10, 0, 4, 1, 2, 3, 4, 5, 6, 7, 8],
            ),
            (
                written(|out| out.write_bytes_field(5, b"a\0")),
                &[11, 0, 5, 0, 0, 0, 2, b'a', 0],
            ),
            (
                written(|out| out.write_bytes_field(0, b"")),
                &[11, 0, 0, 0, 0, 0, 0],
            ),
        ];
        for (found, expected) in cases {
            assert_eq!(found, expected);
        }
    }

    #[test]
    fn must_write_what_fields_are_made_of() {
        assert_eq!(written(|out| out.write_field(wire::MAP, 7)), [13, 0, 7]);
        assert_eq!(written(|out| out.write_stop()), [0]);
        assert_eq!(written(|out| out.write_i32(-1)), [255; 4]);
        assert_eq!(
            written(|out| out.write_bytes(b"hi")),
            [0, 0, 0, 2, b'h', b'i']
        );
        assert_eq!(
            written(|out| out.write_list(wire::STRUCT, 258)),
            [12, 0, 0, 1, 2]
        );
    }
}
