//! How many connections may wait to be accepted.

use std::ffi::c_int;
use std::net::TcpListener;
use std::os::fd::AsRawFd;

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
    use std::net::TcpStream;
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
