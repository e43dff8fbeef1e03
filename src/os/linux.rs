//! What only Linux tells of sockets. Its structs and numbers are those of asm-generic, so only for architectures that use
//! them; elsewhere `elsewhere.rs` stands in.

use std::ffi::{c_int, c_ulong};
use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::time::{Duration, Instant};

// socket(2), ip(7), ipv6(7).
const AF_INET: u16 = 2;
const AF_INET6: u16 = 10;
const SOCK_STREAM: c_int = 1;
const SOCK_CLOEXEC: c_int = 0o2_000_000;
const IPPROTO_IP: c_int = 0;
const IP_BIND_ADDRESS_NO_PORT: c_int = 24;
const EINPROGRESS: i32 = 115;
// recv(2).
const MSG_PEEK: c_int = 2;
const MSG_DONTWAIT: c_int = 0x40;

unsafe extern "C" {
    fn socket(domain: c_int, kind: c_int, protocol: c_int) -> c_int;
    fn setsockopt(
        descriptor: c_int,
        level: c_int,
        name: c_int,
        value: *const c_int,
        length: u32,
    ) -> c_int;
    fn bind(descriptor: c_int, address: *const u8, length: u32) -> c_int;
    fn connect(descriptor: c_int, address: *const u8, length: u32) -> c_int;
    fn recv(descriptor: c_int, buffer: *mut u8, length: usize, flags: c_int) -> isize;
}

/// `struct sockaddr_in` or `sockaddr_in6`, byte by byte: family, port, and what the family adds.
fn encode(address: SocketAddr) -> Vec<u8> {
    let (family, rest) = match address {
        SocketAddr::V4(v4) => (AF_INET, [&v4.ip().octets()[..], &[0; 8]].concat()),
        SocketAddr::V6(v6) => {
            let scope = v6.scope_id().to_ne_bytes();
            let flow = v6.flowinfo().to_be_bytes();
            (AF_INET6, [&flow[..], &v6.ip().octets(), &scope].concat())
        }
    };
    let port = address.port().to_be_bytes();
    [&family.to_ne_bytes()[..], &port, &rest].concat()
}

fn checked(result: c_int) -> io::Result<c_int> {
    match result {
        -1 => Err(io::Error::last_os_error()),
        result => Ok(result),
    }
}

/// A connection to `to` that comes from the address `from`, one of this machine's, from any port. Its limit for
/// writing is set.
///
/// # Errors
/// As of [`TcpStream::connect_timeout`]; `from` is no address of this machine, or of the other family than `to`.
pub fn connect_from(from: IpAddr, to: SocketAddr, limit: Duration) -> io::Result<TcpStream> {
    let deadline = Instant::now() + limit;
    let [own, peer] = [SocketAddr::new(from, 0), to].map(encode);
    let family = c_int::from(if to.is_ipv4() { AF_INET } else { AF_INET6 });
    // SAFETY: takes numbers only. What it returns is a descriptor that nobody else has.
    let stream = unsafe {
        let descriptor = checked(socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0))?;
        TcpStream::from(OwnedFd::from_raw_fd(descriptor))
    };
    let descriptor = stream.as_raw_fd();
    let length = |address: &[u8]| address.len() as u32;
    let on: c_int = 1;
    // SAFETY: the descriptor is open; the pointers are to one int, and to as many bytes as is said, which the system
    // only reads. If the option can't be set, the port is taken now, and not when the other end of the connection is
    // known.
    unsafe {
        setsockopt(
            descriptor,
            IPPROTO_IP,
            IP_BIND_ADDRESS_NO_PORT,
            &raw const on,
            size_of::<c_int>() as u32,
        );
        checked(bind(descriptor, own.as_ptr(), length(&own)))?;
    }
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(ErrorKind::TimedOut.into());
        }
        // socket(7): this is the limit for connecting as well.
        stream.set_write_timeout(Some(left))?;
        // SAFETY: as above.
        match checked(unsafe { connect(descriptor, peer.as_ptr(), length(&peer)) }) {
            Ok(_) => return Ok(stream),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.raw_os_error() == Some(EINPROGRESS) => {
                return Err(ErrorKind::TimedOut.into());
            }
            Err(error) => return Err(error),
        }
    }
}

/// How many bytes were written to this connection and are not acknowledged by the peer's system yet.
/// They wait in a buffer here, or are on their way.
pub fn unacknowledged(stream: &TcpStream) -> usize {
    unsafe extern "C" {
        fn ioctl(descriptor: c_int, request: c_ulong, ...) -> c_int;
    }
    /// tcp(7).
    const SIOCOUTQ: c_ulong = 0x5411;
    let mut bytes: c_int = 0;
    // SAFETY: the descriptor is open while `stream` lives; the request writes one int. If it fails it
    // writes nothing.
    unsafe { ioctl(stream.as_raw_fd(), SIOCOUTQ, &raw mut bytes) };
    usize::try_from(bytes).unwrap_or(0)
}

/// Whether the peer has ended a connection, or it has failed. Doesn't wait.
pub fn has_ended(stream: &TcpStream) -> bool {
    let mut byte = 0;
    // SAFETY: the descriptor is open while `stream` lives, and one byte is there to be written.
    let count = unsafe { recv(stream.as_raw_fd(), &mut byte, 1, MSG_PEEK | MSG_DONTWAIT) };
    count == 0 || (count < 0 && io::Error::last_os_error().kind() != ErrorKind::WouldBlock)
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    const LONG: Duration = Duration::from_secs(20);

    #[test]
    fn must_come_from_the_address_that_was_asked_for() {
        for (own, other) in [("127.3.2.1", "127.0.0.1:0"), ("::1", "[::1]:0")] {
            let Ok(listener) = TcpListener::bind(other) else {
                continue; // There is no IPv6 here.
            };
            let own: IpAddr = own.parse().unwrap();
            let stream = connect_from(own, listener.local_addr().unwrap(), LONG).unwrap();
            let peer = listener.accept().unwrap().1;
            assert_eq!((peer.ip(), peer), (own, stream.local_addr().unwrap()));
        }
    }

    #[test]
    fn must_tell_refusal_from_silence() {
        let own = "127.0.0.1".parse().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        let refused = connect_from(own, address, LONG).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
        let stranger = connect_from("192.0.2.1".parse().unwrap(), address, LONG).unwrap_err();
        assert_eq!(stranger.kind(), ErrorKind::AddrNotAvailable);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let began = Instant::now();
        // Once as many wait to be accepted as may wait, nothing is answered.
        let waiting = (0..10_000).map(|_| connect_from(own, address, Duration::from_millis(100)));
        let silent = waiting
            .map(|outcome| outcome.map(drop))
            .find_map(Result::err);
        assert_eq!(silent.unwrap().kind(), ErrorKind::TimedOut);
        assert!(began.elapsed() < LONG);
    }
}
