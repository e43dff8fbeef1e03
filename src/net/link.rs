//! One connection to another node: writing and reading with a limit that moving bytes move on.

use std::io::{self, ErrorKind, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::incoming::Incoming;
use super::patience::Patience;
use crate::os::unacknowledged;

/// More than this may fill the peer's buffers, so its writing may have to wait for the peer.
pub const QUICK_BYTES_MAX: usize = 64 << 10;

/// How often in a time limit a caller looks whether bytes move, while more than [`QUICK_BYTES_MAX`] are on their way.
const LOOKS: u32 = 8;

/// A wait is cut into pieces: a short one, which most calls get by with, so that the next call finds its limit set; and
/// longer ones behind it.
const PIECES: [Duration; 2] = [Duration::from_millis(20), Duration::from_millis(200)];

/// A wait that is shorter than its piece is rounded up to this.
const LIMIT_STEP: Duration = Duration::from_millis(10);

/// One connection.
#[derive(Debug)]
pub struct Link {
    pub stream: Arc<TcpStream>,
    /// Of the next request.
    pub sequence: i32,
    /// The time limit that is set for reading and writing; zero: neither waits.
    limit: Option<Duration>,
    /// The last wait was in vain.
    pub waits: bool,
    /// Bytes of this request that were written, and of which it isn't known that the peer's system has them.
    pub underway: usize,
    /// It was kept, and nothing has been heard on it since: should it turn out to have ended,
    /// that says nothing of the peer.
    pub doubtful: bool,
    /// The peer has ended it in good order: it may have read all that was written.
    pub ended: bool,
}

impl Link {
    /// A connection on which nothing has been said.
    pub fn new(stream: TcpStream) -> Self {
        Link {
            stream: Arc::new(stream),
            sequence: 0,
            limit: None,
            waits: false,
            underway: 0,
            doubtful: false,
            ended: false,
        }
    }

    /// Writes all, while time is left.
    ///
    /// # Errors
    /// The connection has ended, or time is up.
    pub fn write_all(&mut self, mut bytes: &[u8], patience: &mut Patience) -> io::Result<()> {
        // Not `write_all` of the stream: a peer that reads now and then would get the time anew.
        while !bytes.is_empty() {
            self.wait(patience)?;
            // Not all at once: a write that gets stuck says how far it came only at the deadline.
            match (&*self.stream).write(&bytes[..bytes.len().min(QUICK_BYTES_MAX)]) {
                Ok(count) => {
                    bytes = &bytes[count..];
                    self.underway += count;
                    if !bytes.is_empty() {
                        self.look(patience);
                    }
                }
                Err(error) => self.bear(error, patience)?,
            }
        }
        Ok(())
    }

    /// How many bytes have come, 0 at the end of the stream. `None`: none yet.
    ///
    /// # Errors
    /// As of [`Link::write_all`].
    pub fn read(
        &mut self,
        incoming: &mut Incoming,
        patience: &mut Patience,
    ) -> io::Result<Option<usize>> {
        self.wait(patience)?;
        match incoming.read_from(&mut &*self.stream) {
            Ok(count) => {
                self.waits = false;
                Ok(Some(count))
            }
            Err(error) => self.bear(error, patience).map(|()| None),
        }
    }

    /// Whether reading or writing goes on after an error: it was interrupted, or bytes have moved.
    fn bear(&mut self, error: io::Error, patience: &mut Patience) -> io::Result<()> {
        match error.kind() {
            ErrorKind::Interrupted => return Ok(()),
            ErrorKind::WouldBlock | ErrorKind::TimedOut => {
                self.waits = true;
                self.look(patience);
            }
            _ => return Err(error),
        }
        if Instant::now() < patience.deadline {
            Ok(())
        } else {
            Err(error)
        }
    }

    /// What has reached the peer's system buys time. What only fills buffers here buys none: so a
    /// peer that is stuck is found out in one limit, however much is written to it.
    fn look(&mut self, patience: &mut Patience) {
        let left = unacknowledged(&self.stream).min(self.underway);
        patience.buy(self.underway - left);
        self.underway = left;
    }

    /// Lets the next read or write wait until the deadline, or until it is time to look.
    fn wait(&mut self, patience: &Patience) -> io::Result<()> {
        let look = match self.underway > QUICK_BYTES_MAX {
            true => Instant::now() + patience.limit / LOOKS,
            false => patience.deadline,
        };
        self.wait_until(patience.deadline.min(look))
    }

    /// Lets the next read or write wait until then, or for a piece of that, or not at all if that is past.
    fn wait_until(&mut self, deadline: Instant) -> io::Result<()> {
        let left = deadline.saturating_duration_since(Instant::now());
        let steps = left.as_nanos().div_ceil(LIMIT_STEP.as_nanos());
        let limit = LIMIT_STEP * u32::try_from(steps).unwrap_or(u32::MAX);
        let limit = limit.min(PIECES[usize::from(self.waits)]);
        if self.limit == Some(limit) {
            return Ok(());
        }
        let waited_before = self.limit != Some(Duration::ZERO);
        if limit.is_zero() == waited_before {
            self.stream.set_nonblocking(limit.is_zero())?;
        }
        if !limit.is_zero() {
            self.stream.set_read_timeout(Some(limit))?;
            self.stream.set_write_timeout(Some(limit))?;
        }
        self.limit = Some(limit);
        Ok(())
    }
}
