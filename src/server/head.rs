//! How a request of HTTP begins, on the port on which messages come.
//!
//! Its first word, read as a length, is far above the limits of a name and of a message, and its fifth byte begins no
//! strict header: so it can't be a message.

use crate::thrift::Limits;

/// The methods of RFC 9110 and RFC 5789. The server does not decide which of them are answered.
const METHODS: [&[u8]; 9] = [
    b"GET ",
    b"HEAD ",
    b"POST ",
    b"PUT ",
    b"DELETE ",
    b"CONNECT ",
    b"OPTIONS ",
    b"TRACE ",
    b"PATCH ",
];

/// So many bytes are enough to tell.
const ENOUGH: usize = 5;

/// A longer head of a request is answered before its end.
const HEAD_BYTES_MAX: usize = 8 << 10;

/// Whether these bytes begin a request of HTTP. If there are fewer than five, the next ones tell.
pub fn begins(bytes: &[u8], limits: &Limits) -> bool {
    let may = |method: &&[u8]| {
        let known = method.len().min(ENOUGH);
        bytes.len() >= ENOUGH && bytes[..known] == method[..known]
    };
    limits.message_bytes_max < 1 << 30 && METHODS.iter().any(may)
}

/// The head of the request, once it is all there or too long.
pub fn head(bytes: &[u8]) -> Option<&[u8]> {
    const END: &[u8] = b"\r\n\r\n";
    let end = bytes.windows(END.len()).position(|bytes| bytes == END);
    match end.map(|end| end + END.len()) {
        Some(end) if end <= HEAD_BYTES_MAX => Some(&bytes[..end]),
        _ => bytes.get(..HEAD_BYTES_MAX),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn must_tell_a_request_by_five_bytes() {
        let begins = |bytes: &[u8]| begins(bytes, &Limits::default());
        for method in METHODS {
            let line = [method, b"/ HTTP/1.1"].concat();
            for length in 0..line.len() {
                assert_eq!(begins(&line[..length]), length >= 5, "{length}");
            }
        }
        assert!(!begins(b"GETTER / HTTP/1.1"));
        assert!(!begins(b"get / HTTP/1.1"));
        assert!(!begins(b"\0\0\0\x04ping\x01\0\0\0\0\0"));
        assert!(!begins(b"\x80\x01\0\x01\0\0\0\x04ping"));
    }

    #[test]
    fn must_wait_for_the_end_of_a_head_and_not_too_long() {
        assert_eq!(head(b"GET / HTTP/1.1\r\n\r"), None);
        let (all, rest) = (b"GET / HTTP/1.1\r\n\r\n", b"more\r\n\r\n");
        assert_eq!(head(&[&all[..], rest].concat()), Some(&all[..]));
        let long = [b'x'; HEAD_BYTES_MAX];
        assert_eq!(head(&long[1..]), None);
        assert_eq!(head(&long), Some(&long[..]));
        assert_eq!(head(&[&long[..], b"\r\n\r\n"].concat()), Some(&long[..]));
    }
}
