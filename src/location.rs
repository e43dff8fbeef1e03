//! Where a node is: `host:port`, which is its name as well.
//!
//! Two names for one machine are two nodes (`localhost:9900` is not `127.0.0.1:9900`): every
//! comparison and every hash uses the text. The text is ordered as text: `a:10000` < `a:9900`.
//!
//! A node with an IPv6 address has the name that the original gives it, `::1:9900`. People write and read
//! `[::1]:9900`: [`fmt::Display`] gives that, and both are understood.

use std::fmt;
use std::net::Ipv6Addr;
use std::str::FromStr;
use std::sync::Arc;

use crate::thrift::{Decode, Encode, Error, Reader, Write, wire};

/// The port of the first node of a network, unless another one is named.
pub const DEFAULT_PORT: u16 = 9900;

/// The longest host name that DNS knows.
const ADDRESS_BYTES_MAX: usize = 255;

/// A node's name, cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Location {
    name: Arc<str>,
    port: u16,
}

impl Location {
    /// The name of the node at this address, or at the host of this name, and at this port.
    ///
    /// # Errors
    /// The address is empty, too long, or holds anything but visible ASCII characters: no host has such a name, and in
    /// lists and logs two names could look alike.
    pub fn new(address: &str, port: u16) -> Result<Self, InvalidLocation> {
        let fits = !address.is_empty() && address.len() <= ADDRESS_BYTES_MAX;
        if !fits || !address.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(InvalidLocation(format!("{address}:{port}")));
        }
        let name = format!("{address}:{port}").into();
        Ok(Location { name, port })
    }

    /// `address:port`, without brackets: what is hashed and compared.
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// An IP address or a host's name, without brackets.
    pub fn address(&self) -> &str {
        self.name
            .rsplit_once(':')
            .map_or("", |(address, _)| address)
    }

    /// Above 32,767 it travels as a negative number: two's complement.
    pub fn port(&self) -> u16 {
        self.port
    }
}

/// The struct `{1: string address, 2: i16 port}`. A port above 32767 travels as the negative
/// number with the same bits.
impl Encode for Location {
    const KIND: u8 = wire::STRUCT;

    fn encode(&self, out: &mut Vec<u8>) {
        out.write_bytes_field(1, self.address().as_bytes());
        out.write_i16_field(2, self.port as i16);
        out.write_stop();
    }
}

/// [`Error::Missing`] for a struct that doesn't describe a node: it has no address or no port, or its
/// address is invalid.
impl Decode<'_> for Location {
    fn decode(reader: &mut Reader<'_>) -> Result<Self, Error> {
        let (mut address, mut port) = (None, None);
        while let Some((kind, id)) = reader.field()? {
            match (id, kind) {
                (1, wire::STRING) => address = std::str::from_utf8(reader.bytes()?).ok(),
                (2, wire::I16) => port = Some(reader.i16()? as u16),
                _ => reader.skip(kind)?,
            }
        }
        let both = address.zip(port);
        let location = both.and_then(|(address, port)| Location::new(address, port).ok());
        location.ok_or(Error::Missing("location"))
    }
}

impl FromStr for Location {
    type Err = InvalidLocation;

    /// `host:port`, `[::1]:9900`, and `::1:9900` as the original writes it.
    fn from_str(text: &str) -> Result<Self, InvalidLocation> {
        match host_and_port(text) {
            Some((address, Some(port))) => Location::new(address, port),
            _ => Err(InvalidLocation(text.to_owned())),
        }
    }
}

/// Splits what people write: `host`, `host:port`, or an IPv6 address with or without brackets, with or
/// without a port behind it. `None` if it is none of these.
///
/// Without brackets, what stands behind the last colon is a port if an address stands before that colon:
/// `::1:9900` has a port, `::1` has none.
pub fn host_and_port(text: &str) -> Option<(&str, Option<u16>)> {
    if let Some(rest) = text.strip_prefix('[') {
        let (address, port) = rest.split_once(']')?;
        let port = match port.strip_prefix(':') {
            Some(port) => Some(port.parse().ok()?),
            None if port.is_empty() => None,
            None => return None,
        };
        return is_ipv6(address).then_some((address, port));
    }
    if let Some((address, port)) = text.rsplit_once(':')
        && (!address.contains(':') || is_ipv6(address))
        && let Ok(port) = port.parse()
    {
        return Some((address, Some(port)));
    }
    (!text.contains(':') || is_ipv6(text)).then_some((text, None))
}

/// With a zone, as in `fe80::1%eth0`, or without.
fn is_ipv6(text: &str) -> bool {
    let (address, _zone) = text.split_once('%').unwrap_or((text, ""));
    address.parse::<Ipv6Addr>().is_ok()
}

/// For people: `host:port`, `[::1]:9900`.
impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.address() {
            address if address.contains(':') => write!(f, "[{address}]:{}", self.port),
            _ => f.write_str(&self.name),
        }
    }
}

impl fmt::Debug for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The text of something that is no `host:port`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InvalidLocation(String);

impl fmt::Display for InvalidLocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "not a location (host:port): {}", self.0.escape_debug())
    }
}

impl std::error::Error for InvalidLocation {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::thrift::Limits;

    fn round_trip(location: &Location) -> Option<Location> {
        let mut bytes = Vec::new();
        location.encode(&mut bytes);
        Location::decode(&mut Reader::new(&bytes, &Limits::default())).ok()
    }

    #[test]
    fn must_carry_every_port() {
        for port in [0, 9900, 32767, 32768, 40000, 65535] {
            let location = Location::new("127.0.0.1", port).unwrap();
            assert_eq!(round_trip(&location), Some(location));
        }
    }

    #[test]
    fn must_write_high_ports_in_twos_complement() {
        let mut bytes = Vec::new();
        Location::new("h", 40000).unwrap().encode(&mut bytes);
        let port = (-25536_i16).to_be_bytes();
        assert_eq!(
            bytes,
            [11, 0, 1, 0, 0, 0, 1, b'h', 6, 0, 2, port[0], port[1], 0]
        );
    }

    #[test]
    fn must_take_ipv6_with_brackets_and_without() {
        for text in ["::1:9900", "[::1]:9900"] {
            let location: Location = text.parse().unwrap();
            assert_eq!((location.address(), location.port()), ("::1", 9900));
            assert_eq!(&**location.name(), "::1:9900", "the original's form");
            assert_eq!(location.to_string(), "[::1]:9900", "for people");
            assert_eq!(round_trip(&location), Some(location));
        }
    }

    #[test]
    fn must_split_what_people_write() {
        let full = "2001:db8:0:1:2:3:4:9900";
        for (text, address, port) in [
            ("host", "host", None),
            ("host:9901", "host", Some(9901)),
            ("::1", "::1", None),
            ("[::1]", "::1", None),
            ("::1:9900", "::1", Some(9900)),
            ("[::1:9900]", "::1:9900", None),
            ("fd00::1", "fd00::1", None),
            ("fd00::1:9900", "fd00::1", Some(9900)),
            ("[fd00::1]:9900", "fd00::1", Some(9900)),
            (full, full, None),
            ("fd00::1:a", "fd00::1:a", None),
            ("::ffff:127.0.0.1", "::ffff:127.0.0.1", None),
            ("::ffff:127.0.0.1:9901", "::ffff:127.0.0.1", Some(9901)),
            ("fe80::1%eth0", "fe80::1%eth0", None),
            ("[fe80::1%eth0]:9900", "fe80::1%eth0", Some(9900)),
        ] {
            assert_eq!(host_and_port(text), Some((address, port)), "{text}");
        }
        for text in [
            "a:b:9900",
            "[host]:1",
            "[::1",
            "::1]",
            "[::1]9900",
            "[::1]:",
            "[::1]:x",
            "[]",
            "::g",
        ] {
            assert_eq!(host_and_port(text), None, "{text}");
        }
    }

    #[test]
    fn must_refuse_what_is_no_location() {
        for text in [
            "",
            "9900",
            ":9900",
            "host:",
            "host:port",
            "host:65536",
            "a b:1",
            "h\n:1",
            "h\u{202e}:1",
            "\u{200b}h:1",
            "h\u{0430}:1",
            "::1",
            "[::1]",
            "a:b:1",
        ] {
            assert!(text.parse::<Location>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn must_enforce_the_limit_of_addresses() {
        let address = |length| "a".repeat(length);
        assert!(Location::new(&address(ADDRESS_BYTES_MAX), 1).is_ok());
        assert!(Location::new(&address(ADDRESS_BYTES_MAX + 1), 1).is_err());
    }

    #[test]
    fn must_order_as_text() {
        let [low, high] = ["a:10000", "a:9900"].map(|text| text.parse::<Location>().unwrap());
        assert!(low < high);
    }
}
