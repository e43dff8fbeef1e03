//! What stands in for `linux.rs` on other systems.

use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::Duration;

/// A connection that comes from the address that the system chooses.
///
/// # Errors
/// As of [`TcpStream::connect_timeout`].
pub fn connect_from(_: IpAddr, to: SocketAddr, limit: Duration) -> io::Result<TcpStream> {
    TcpStream::connect_timeout(&to, limit)
}

/// Nothing is known of what is on its way.
pub fn unacknowledged(_: &TcpStream) -> usize {
    0
}

/// Whether the peer has ended a connection, or it has failed. Doesn't wait.
pub fn has_ended(stream: &TcpStream) -> bool {
    let prepared = stream.set_nonblocking(true).is_ok();
    let ended = match stream.peek(&mut [0]) {
        Ok(count) => count == 0,
        Err(error) => error.kind() != ErrorKind::WouldBlock,
    };
    !prepared || ended || stream.set_nonblocking(false).is_err()
}
