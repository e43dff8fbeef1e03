//! What others see of a connection: where it comes from, what it does, and since when.

use std::io;
use std::net::{IpAddr, Shutdown, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// What a connection does. The watching thread decides by this, and by how long it has lasted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// Between requests.
    Idle,
    /// A message has begun.
    Receiving,
    Serving,
    /// Answers are being written.
    Answering,
}

/// What others see of a connection.
#[derive(Debug)]
pub(super) struct Connection {
    pub stream: TcpStream,
    pub peer: SocketAddr,
    /// It comes from this machine.
    pub local: bool,
    /// The phase in the lowest two bits, the microsecond in which it began above them.
    phase: AtomicU64,
    /// It has said something.
    begun: AtomicBool,
    /// It has been told to go.
    hung_up: AtomicBool,
}

impl Connection {
    /// # Errors
    /// The connection has ended already.
    pub fn new(stream: TcpStream, peer: SocketAddr, now: u64) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        let caller = peer.ip().to_canonical();
        let local = caller.is_loopback() || caller == stream.local_addr()?.ip().to_canonical();
        let connection = Connection {
            stream,
            peer,
            local,
            phase: AtomicU64::new(0),
            begun: AtomicBool::new(false),
            hung_up: AtomicBool::new(false),
        };
        connection.enter(Phase::Idle, now);
        Ok(connection)
    }

    /// The phase, and the microsecond in which it began.
    pub fn phase(&self) -> (Phase, u64) {
        let word = self.phase.load(Ordering::Relaxed);
        let phase = match word & 3 {
            0 => Phase::Idle,
            1 => Phase::Receiving,
            2 => Phase::Serving,
            _ => Phase::Answering,
        };
        (phase, word >> 2)
    }

    /// No further request is taken; what has arrived is still served and answered.
    pub fn hang_up(&self) {
        self.hung_up.store(true, Ordering::Relaxed);
        // It fails if the peer has ended the connection: as good.
        let _ = self.stream.shutdown(Shutdown::Read);
    }

    /// Ends it at once, whatever it does.
    pub fn cut(&self) {
        // As above.
        let _ = self.stream.shutdown(Shutdown::Both);
    }

    pub fn is_hung_up(&self) -> bool {
        self.hung_up.load(Ordering::Relaxed)
    }

    /// Where it comes from.
    pub fn caller(&self) -> IpAddr {
        self.peer.ip().to_canonical()
    }

    /// A request has come.
    pub fn begin(&self) {
        self.begun.store(true, Ordering::Relaxed);
    }

    /// Whether a request has come.
    pub fn has_begun(&self) -> bool {
        self.begun.load(Ordering::Relaxed)
    }

    pub fn enter(&self, phase: Phase, now: u64) {
        self.phase.store(now << 2 | phase as u64, Ordering::Relaxed);
    }
}
