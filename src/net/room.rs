//! Memory for large messages: a total for all that a node receives and answers.
//!
//! A thread that serves a connection says so with [`Room::enter`]. From then on it takes from the total what the
//! largest buffer needs that it has at the same time: what comes in, the answer of another node, its own answer. So
//! a request has one account, from the first byte to the last of its answer, and never waits for memory that it
//! has itself. A request makes some copies of a value, of which one is counted. What has no more than
//! [`SMALL_BYTES`] is free, and costs nothing here. Threads that serve nobody take nothing: they are few.
//!
//! A thread that would go beyond the total waits, holding no lock, and gives up after [`PATIENCE`]. So requests that
//! wait for each other get on again. Of a message whose size is known all is taken at once: of several large ones that
//! come side by side some get through, while the others have taken little.

use std::cell::RefCell;
use std::fmt;
use std::io::{self, ErrorKind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::os::is_to_be_had;
use crate::thrift::Exception;

/// So much is free.
pub(crate) const SMALL_BYTES: usize = 64 << 10;

/// A request makes up to so many copies of a value.
const COPIES_MAX: usize = 4;

/// How long room is waited for. Above the time after which an idle connection gives back what it has; below the
/// ticks that a request may take.
const PATIENCE: Duration = Duration::from_secs(3);

/// The total. Shared by all threads of a server.
#[derive(Debug)]
pub(crate) struct Room {
    total: usize,
    /// Guards how much is taken.
    taken: Mutex<usize>,
    /// Notified when something has been given back.
    given_back: Condvar,
    /// How many threads wait.
    waiting: AtomicUsize,
}

/// What a thread has taken.
struct Account {
    room: Arc<Room>,
    bytes: usize,
}

thread_local! {
    static ACCOUNT: RefCell<Option<Account>> = const { RefCell::new(None) };
}

/// While it lives, what this thread takes is counted.
pub(crate) struct Entered(());

/// Why there is no room for a message or an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Full {
    /// Others took the total, and didn't give it back in time.
    Taken { total: usize },
    /// The system has not that much.
    Lacking { bytes: usize },
}

impl Room {
    /// Of so many bytes.
    pub fn new(total: usize) -> Self {
        Room {
            total,
            taken: Mutex::new(0),
            given_back: Condvar::new(),
            waiting: AtomicUsize::new(0),
        }
    }

    /// Counts what this thread takes from now on.
    pub fn enter(self: &Arc<Self>) -> Entered {
        let room = Arc::clone(self);
        ACCOUNT.set(Some(Account { room, bytes: 0 }));
        Entered(())
    }

    /// Whether anybody waits for room.
    pub fn is_awaited(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) > 0
    }

    #[cfg(test)]
    pub fn taken_bytes(&self) -> usize {
        *self.taken()
    }

    /// No change under the lock can be half done: a poisoned lock is taken all the same.
    fn taken(&self) -> MutexGuard<'_, usize> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        ACCOUNT.set(None);
    }
}

/// Sees to it that this thread has taken that much at least. Must not be called under a lock.
///
/// # Errors
/// There was no room for it in time, or there is no memory. What the thread had taken it has.
pub(crate) fn hold(bytes: usize) -> Result<(), Full> {
    if bytes <= SMALL_BYTES {
        return Ok(());
    }
    ACCOUNT.with_borrow_mut(|account| account.as_mut().map_or(Ok(()), |own| own.grow(bytes)))
}

/// Gives back all that this thread has taken.
pub(crate) fn give_back() {
    ACCOUNT.with_borrow_mut(|account| account.iter_mut().for_each(Account::give_back));
}

impl Account {
    fn grow(&mut self, bytes: usize) -> Result<(), Full> {
        let room = &*self.room;
        // What is larger than the total is refused by its size; a buffer may be a little longer than its message.
        let more = bytes.min(room.total).saturating_sub(self.bytes);
        if more == 0 {
            return Ok(());
        }
        if !is_to_be_had(COPIES_MAX.saturating_mul(bytes)) {
            return Err(Full::Lacking { bytes });
        }
        room.waiting.fetch_add(1, Ordering::Relaxed);
        let waited = room
            .given_back
            .wait_timeout_while(room.taken(), PATIENCE, |taken| *taken + more > room.total);
        let (mut taken, waited) = waited.unwrap_or_else(PoisonError::into_inner);
        room.waiting.fetch_sub(1, Ordering::Relaxed);
        if waited.timed_out() {
            return Err(Full::Taken { total: room.total });
        }
        *taken += more;
        self.bytes += more;
        Ok(())
    }

    fn give_back(&mut self) {
        let bytes = std::mem::take(&mut self.bytes);
        if bytes > 0 {
            *self.room.taken() -= bytes;
            self.room.given_back.notify_all();
        }
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        self.give_back();
    }
}

impl fmt::Display for Full {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Full::Taken { total } => write!(
                f,
                "no room: other messages take what there is, {total} bytes"
            ),
            Full::Lacking { bytes } => write!(f, "no memory for a message of {bytes} bytes"),
        }
    }
}

impl std::error::Error for Full {}

impl From<Full> for io::Error {
    fn from(full: Full) -> Self {
        io::Error::new(ErrorKind::OutOfMemory, full)
    }
}

impl From<Full> for Exception {
    fn from(full: Full) -> Self {
        Exception::internal(full.to_string())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::thread;
    use std::time::Instant;

    use super::*;

    const PART: usize = 2 * SMALL_BYTES;

    #[test]
    fn must_count_the_largest_and_give_all_back() {
        let room = Arc::new(Room::new(3 * PART));
        let entered = room.enter();
        for (bytes, taken) in [
            (SMALL_BYTES, 0),
            (PART, PART),
            (PART - 1, PART),
            (2 * PART, 2 * PART),
            (9 * PART, 3 * PART),
        ] {
            hold(bytes).unwrap();
            assert_eq!(room.taken_bytes(), taken);
        }
        give_back();
        assert_eq!(room.taken_bytes(), 0);
        hold(PART).unwrap();
        drop(entered);
        assert_eq!(room.taken_bytes(), 0);
        hold(PART).unwrap();
        assert_eq!(room.taken_bytes(), 0, "nobody is served");
    }

    #[test]
    fn must_not_take_what_the_system_has_not() {
        let room = Arc::new(Room::new(usize::MAX));
        let _entered = room.enter();
        let bytes = isize::MAX as usize / COPIES_MAX;
        assert_eq!(hold(bytes), Err(Full::Lacking { bytes }));
        assert_eq!(room.taken_bytes(), 0);
        hold(PART).unwrap();
    }

    #[test]
    fn must_wait_for_room_and_not_for_ever() {
        let room = Arc::new(Room::new(PART));
        let _entered = room.enter();
        hold(PART).unwrap();
        let (tell, told) = mpsc::channel();
        let others = Arc::clone(&room);
        let other = thread::spawn(move || {
            let _entered = others.enter();
            let began = Instant::now();
            assert_eq!(hold(PART), Err(Full::Taken { total: PART }));
            assert!(began.elapsed() >= PATIENCE);
            tell.send(()).unwrap();
            hold(PART)
        });
        told.recv().unwrap();
        while !room.is_awaited() {
            thread::yield_now();
        }
        give_back();
        other.join().unwrap().unwrap();
        assert_eq!(room.taken_bytes(), 0);
    }
}
