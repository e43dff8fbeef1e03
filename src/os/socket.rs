//! What has become of the bytes that were written to a connection.

use std::net::TcpStream;

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
    use std::ffi::{c_int, c_ulong};
    use std::os::fd::AsRawFd;
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
