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
    fn write_field(&mut self, kind: u8, id: i16);
    fn write_stop(&mut self);
    fn write_i32(&mut self, value: i32);
    /// # Panics
    /// If `bytes` are 2 GiB or more: the limits let nothing of that size in.
    fn write_bytes(&mut self, bytes: &[u8]);
    fn write_list(&mut self, kind: u8, length: usize);
    fn write_bool_field(&mut self, id: i16, value: bool);
    fn write_byte_field(&mut self, id: i16, value: u8);
    fn write_i16_field(&mut self, id: i16, value: i16);
    fn write_i32_field(&mut self, id: i16, value: i32);
    fn write_i64_field(&mut self, id: i16, value: i64);
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
