//! Requests, and the one right answer to each: templates into which a key and a sequence number are written.
//!
//! A key is [`KEY_BYTES`] long and made from a number; its value starts with the key, so that a value tells whose it is.
//! In every protocol here a right answer is one exact string of bytes, so checking is comparing.

/// Length of every key: `key:` and nine digits.
pub const KEY_BYTES: usize = 13;
/// Keys are numbered below this.
pub const KEYS_MAX: u32 = 1_000_000_000;

const CALL: u8 = 1;
const REPLY: u8 = 2;
const FIELD_STRING: u8 = 11;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Protocol {
    /// Thrift binary, unframed, service diststore.Store.
    Thrift,
    /// The bytes of the Thrift request, which must come back as they are.
    Echo,
    /// Redis RESP.
    Redis,
    /// Memcached's text protocol.
    Memcached,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Operation {
    Get,
    Put,
}

impl std::str::FromStr for Protocol {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        Ok(match text {
            "thrift" => Protocol::Thrift,
            "echo" => Protocol::Echo,
            "redis" => Protocol::Redis,
            "memcached" => Protocol::Memcached,
            _ => return Err(()),
        })
    }
}

impl std::str::FromStr for Operation {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        Ok(match text {
            "get" => Operation::Get,
            "put" => Operation::Put,
            _ => return Err(()),
        })
    }
}

/// Bytes with gaps for the key's digits and for a sequence number.
#[derive(Clone, Default)]
pub struct Template {
    bytes: Vec<u8>,
    keys_at: Vec<usize>,
    sequence_at: Option<usize>,
}

impl Template {
    fn then(mut self, bytes: impl AsRef<[u8]>) -> Self {
        self.bytes.extend_from_slice(bytes.as_ref());
        self
    }

    fn then_key(mut self) -> Self {
        self = self.then("key:");
        self.keys_at.push(self.bytes.len());
        self.then("000000000")
    }

    fn then_value(self, value_bytes: usize) -> Self {
        let filler = (KEY_BYTES..value_bytes).map(|at| b'a' + (at % 26) as u8);
        self.then_key().then(filler.collect::<Vec<u8>>())
    }

    /// The strict header of a Thrift message.
    fn thrift(message_type: u8, method: &str) -> Self {
        let mut message = Template::default()
            .then([0x80, 1, 0, message_type])
            .then((method.len() as u32).to_be_bytes())
            .then(method);
        message.sequence_at = Some(message.bytes.len());
        message.then([0; 4])
    }

    fn then_string_field(self, id: u8, length: usize) -> Self {
        self.then([FIELD_STRING, 0, id])
            .then((length as u32).to_be_bytes())
    }

    fn then_stop(self) -> Self {
        self.then([0])
    }

    /// The Thrift call `method(1: key)`.
    pub fn thrift_call_with_key(method: &str) -> Self {
        Template::thrift(CALL, method)
            .then_string_field(1, KEY_BYTES)
            .then_key()
            .then_stop()
    }

    /// Appends the message for this key and sequence number to `out`.
    pub fn write(&self, key: u32, sequence: u32, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(&self.bytes);
        let message = &mut out[start..];
        if let Some(at) = self.sequence_at {
            message[at..at + 4].copy_from_slice(&sequence.to_be_bytes());
        }
        let mut digits = [b'0'; 9];
        let mut rest = key;
        for digit in digits.iter_mut().rev() {
            *digit = b'0' + (rest % 10) as u8;
            rest /= 10;
        }
        for &at in &self.keys_at {
            message[at..at + 9].copy_from_slice(&digits);
        }
    }
}

/// What to send for an operation, and what has to come back.
pub struct Exchange {
    pub request: Template,
    pub answer: Template,
}

impl Exchange {
    /// Redis: wait until one replica has all puts before.
    pub fn wait() -> Self {
        Exchange {
            request: Template::default().then("*3\r\n$4\r\nWAIT\r\n$1\r\n1\r\n$1\r\n0\r\n"),
            answer: Template::default().then(":1\r\n"),
        }
    }

    /// `value_bytes` is at least [`KEY_BYTES`].
    pub fn new(protocol: Protocol, operation: Operation, value_bytes: usize) -> Self {
        let text = Template::default;
        let (request, answer) = match (protocol, operation) {
            (Protocol::Thrift, Operation::Get) => (
                Template::thrift_call_with_key("get"),
                Template::thrift(REPLY, "get")
                    .then_string_field(0, value_bytes)
                    .then_value(value_bytes)
                    .then_stop(),
            ),
            (Protocol::Thrift, Operation::Put) => (
                Template::thrift(CALL, "put")
                    .then_string_field(1, KEY_BYTES)
                    .then_key()
                    .then_string_field(2, value_bytes)
                    .then_value(value_bytes)
                    .then_stop(),
                Template::thrift(REPLY, "put").then_stop(),
            ),
            (Protocol::Echo, _) => {
                let request = Exchange::new(Protocol::Thrift, operation, value_bytes).request;
                (request.clone(), request)
            }
            (Protocol::Redis, Operation::Get) => (
                text()
                    .then(format!("*2\r\n$3\r\nGET\r\n${KEY_BYTES}\r\n"))
                    .then_key()
                    .then("\r\n"),
                text()
                    .then(format!("${value_bytes}\r\n"))
                    .then_value(value_bytes)
                    .then("\r\n"),
            ),
            (Protocol::Redis, Operation::Put) => (
                text()
                    .then(format!("*3\r\n$3\r\nSET\r\n${KEY_BYTES}\r\n"))
                    .then_key()
                    .then(format!("\r\n${value_bytes}\r\n"))
                    .then_value(value_bytes)
                    .then("\r\n"),
                text().then("+OK\r\n"),
            ),
            (Protocol::Memcached, Operation::Get) => (
                text().then("get ").then_key().then("\r\n"),
                text()
                    .then("VALUE ")
                    .then_key()
                    .then(format!(" 0 {value_bytes}\r\n"))
                    .then_value(value_bytes)
                    .then("\r\nEND\r\n"),
            ),
            (Protocol::Memcached, Operation::Put) => (
                text()
                    .then("set ")
                    .then_key()
                    .then(format!(" 0 0 {value_bytes}\r\n"))
                    .then_value(value_bytes)
                    .then("\r\n"),
                text().then("STORED\r\n"),
            ),
        };
        Exchange { request, answer }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rendered(template: &Template, key: u32, sequence: u32) -> String {
        let mut out = Vec::new();
        template.write(key, sequence, &mut out);
        out.escape_ascii().to_string()
    }

    #[test]
    fn thrift_put_is_the_interface_s_bytes() {
        let put = Exchange::new(Protocol::Thrift, Operation::Put, 15);
        assert_eq!(
            rendered(&put.request, 42, 7),
            r"\x80\x01\x00\x01\x00\x00\x00\x03put\x00\x00\x00\x07\x0b\x00\x01\x00\x00\x00\rkey:000000042\x0b\x00\x02\x00\x00\x00\x0fkey:000000042no\x00"
        );
        assert_eq!(
            rendered(&put.answer, 42, 7),
            r"\x80\x01\x00\x02\x00\x00\x00\x03put\x00\x00\x00\x07\x00"
        );
    }

    #[test]
    fn memcached_get_names_the_key_twice_in_its_answer() {
        let get = Exchange::new(Protocol::Memcached, Operation::Get, 14);
        assert_eq!(
            rendered(&get.request, 999_999_999, 0),
            r"get key:999999999\r\n"
        );
        assert_eq!(
            rendered(&get.answer, 999_999_999, 0),
            r"VALUE key:999999999 0 14\r\nkey:999999999n\r\nEND\r\n"
        );
    }

    #[test]
    fn echo_answers_its_request() {
        let put = Exchange::new(Protocol::Echo, Operation::Put, 100);
        assert_eq!(rendered(&put.request, 1, 2), rendered(&put.answer, 1, 2));
    }
}
