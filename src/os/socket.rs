//! What has become of the bytes that were written to a connection, and how many connections may wait to be
//! accepted.

use std::ffi::c_int;
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsRawFd;

/// How many bytes were written to this connection and are not acknowledged by the peer's system yet.
/// They wait in a buffer here, or are on their way. 0 where the system can't tell: anything but Linux.
#[cfg(all(
    target_os = "linux",
    any(
        target_arch = "x86_64",
        target_arch = "aarch64",
        target_arch = "arm",
        target_arch = "riscv64"
    )
))]
pub fn unacknowledged(stream: &TcpStream) -> usize {
    use std::ffi::c_ulong;
    unsafe extern "C" {
        fn ioctl(descriptor: c_int, request: c_ulong, ...) -> c_int;
    }
    /// Linux, tcp(7); the number is asm-generic's, which these architectures use.
    const SIOCOUTQ: c_ulong = 0x5411;
    let mut bytes: c_int = 0;
    // SAFETY: the descriptor is open while `stream` lives; the request writes one int. If it fails it
    // writes nothing.
    unsafe { ioctl(stream.as_raw_fd(), SIOCOUTQ, &raw mut bytes) };
    usize::try_from(bytes).unwrap_or(0)
}

#[cfg(not(all(
    target_os = "linux",
    any(
        target_arch = "x86_64",
        target_arch = "aarch64",
        target_arch = "arm",
        target_arch = "riscv64"
    )
)))]
pub fn unacknowledged(_: &TcpStream) -> usize {
    0
}

/// Lets as many connections wait to be accepted as the system allows (Linux: `net.core.somaxconn`), where std lets
/// 128. Of what comes beyond, the first packet is dropped, and sent again after a second.
pub fn lengthen_backlog(listener: &TcpListener) {
    unsafe extern "C" {
        fn listen(descriptor: c_int, backlog: c_int) -> c_int;
    }
    // SAFETY: the descriptor is open while `listener` lives, and listens already. If it fails nothing has changed.
    unsafe { listen(listener.as_raw_fd(), c_int::MAX) };
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn must_let_more_connections_wait_than_std_does() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        lengthen_backlog(&listener);
        let address = listener.local_addr().unwrap();
        let connect = |_| TcpStream::connect_timeout(&address, Duration::from_millis(900)).unwrap();
        let waiting: Vec<_> = (0..200).map(connect).collect();
        assert_eq!(waiting.len(), 200);
    }
}
