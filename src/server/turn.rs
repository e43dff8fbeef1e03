//! Whose turn it is: the order of what connections say first.
//!
//! The 2009 original served one connection after the other, and its programs count on it: a leaving
//! node says `remove`, `ping` and `put` on three connections, a script says a one-way put and then
//! get on two. Connections are numbered as they are accepted, and the first request of one waits for
//!
//! * connections before it that have said nothing yet: for [`SILENT`] from when their threads have found
//!   nothing there (on a busy machine these threads may be late), and
//! * writes before it: until their effect is there, for [`WORKING`] from their arrival.
//!
//! All these times run side by side: a thousand silent connections delay the next one once; and
//! nobody waits for longer than [`WAIT_MAX`] in all.

use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::service::Order;

/// How long others wait for a connection to say something. Up: writes of slower clients keep their
/// order; down: a silent connection delays its successors less.
pub(super) const SILENT: Duration = Duration::from_millis(20);

/// How long others wait for a write's effect. Two nodes whose calls wait for each other lose no
/// more time than this.
pub(super) const WORKING: Duration = Duration::from_millis(300);

/// How long a connection waits in all: for one that was silent, and then for its write.
const WAIT_MAX: Duration = WORKING.saturating_mul(2);

/// The connections that others may have to wait for.
#[derive(Debug, Default)]
pub(super) struct Turns {
    /// Guards the numbering, too.
    queue: Mutex<Queue>,
}

#[derive(Debug, Default)]
struct Queue {
    accepted: u64,
    ahead: BTreeMap<u64, Ahead>,
}

/// A connection that others may have to wait for.
#[derive(Debug)]
struct Ahead {
    until: Instant,
    /// Notified when it is gone. There once another connection waits.
    gone: Option<Arc<Condvar>>,
}

/// One connection's place, until the effect of its first request is there, or it is dropped.
#[derive(Debug)]
pub(super) struct Turn {
    turns: Arc<Turns>,
    number: u64,
}

impl Turns {
    /// The place behind all connections so far. Its thread says [`Turn::listening`] as soon as it runs; a request that
    /// arrived before then still counts for the connections behind it.
    pub fn accepted(self: &Arc<Self>) -> Turn {
        let until = Instant::now() + WORKING;
        let mut queue = self.queue();
        let number = queue.accepted;
        queue.accepted += 1;
        queue.ahead.insert(number, Ahead { until, gone: None });
        Turn {
            turns: Arc::clone(self),
            number,
        }
    }

    /// No change under the lock can be half done: a poisoned lock is taken all the same.
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Turn {
    /// Nothing has arrived yet: from now on the first request would be noticed.
    pub fn listening(&self) {
        let until = Instant::now() + SILENT;
        let mut queue = self.turns.queue();
        if let Some(ahead) = queue.ahead.get_mut(&self.number) {
            ahead.until = until;
            // A connection that waits already expects a later end.
            ahead.gone.iter().for_each(|gone| gone.notify_all());
        }
    }

    /// The first request has arrived: waits until its turn comes, for at most [`WAIT_MAX`].
    pub fn wait(&self, order: Order) {
        let mut queue = self.turns.queue();
        match order {
            Order::Write => queue.hold(self.number, Instant::now() + WORKING),
            Order::Read | Order::Free => queue.leave(self.number),
        }
        if order == Order::Free {
            return;
        }
        // Those before may say something late, one after the other, and hold this one up anew.
        let end = Instant::now() + WAIT_MAX;
        loop {
            let now = Instant::now();
            let Some((until, gone)) = queue.last_before(self.number, now) else {
                return;
            };
            if now >= end {
                return;
            }
            let woken = gone.wait_timeout(queue, until.min(end) - now);
            queue = woken.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// No connection needs to wait for this one any more.
    pub fn done(&self) {
        self.turns.queue().leave(self.number);
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.done();
    }
}

impl Queue {
    fn hold(&mut self, number: u64, until: Instant) {
        let ahead = Ahead { until, gone: None };
        self.ahead.entry(number).or_insert(ahead).until = until;
    }

    fn leave(&mut self, number: u64) {
        let ahead = self.ahead.remove(&number);
        if let Some(gone) = ahead.and_then(|ahead| ahead.gone) {
            gone.notify_all();
        }
    }

    /// The last one before `number` that has to be waited for. Not the first: of many silent ones the
    /// last is waited for longest, so one wait does for all, and a connection that leaves wakes only those
    /// that come next. The ones whose time is over are forgotten on the way.
    fn last_before(&mut self, number: u64, now: Instant) -> Option<(Instant, Arc<Condvar>)> {
        while let Some((&last, ahead)) = self.ahead.range_mut(..number).next_back() {
            if ahead.until > now {
                return Some((ahead.until, Arc::clone(ahead.gone.get_or_insert_default())));
            }
            self.ahead.remove(&last);
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread;

    /// Waits in a thread of its own, whose answer is when it went on.
    fn waiting(turn: Turn, order: Order) -> thread::JoinHandle<Instant> {
        thread::spawn(move || {
            turn.wait(order);
            Instant::now()
        })
    }

    fn ahead(turns: &Turns) -> usize {
        turns.queue().ahead.len()
    }

    #[test]
    fn must_wait_for_a_silent_connection_from_when_it_is_listened_to() {
        let turns = Arc::new(Turns::default());
        let accepted = Instant::now();
        let silent = turns.accepted();
        silent.listening();
        turns.accepted().wait(Order::Read);
        assert!(accepted.elapsed() >= SILENT);
        assert!(accepted.elapsed() < WORKING);
        assert_eq!(ahead(&turns), 0, "forgotten: nobody waits for it again");
        drop(silent);
    }

    #[test]
    fn must_wait_for_all_side_by_side() {
        let turns = Arc::new(Turns::default());
        let silent: Vec<_> = (0..1000).map(|_| turns.accepted()).collect();
        silent.iter().for_each(Turn::listening);
        let started = Instant::now();
        turns.accepted().wait(Order::Read);
        assert!(started.elapsed() < 100 * SILENT);
        assert_eq!(ahead(&turns), 0);
        drop(silent);
    }

    #[test]
    fn must_wait_for_writes_until_they_are_done_and_no_longer() {
        let turns = Arc::new(Turns::default());
        let started = Instant::now();
        for _ in 0..50 {
            let [write, read] = [turns.accepted(), turns.accepted()];
            write.wait(Order::Write);
            let read = waiting(read, Order::Read);
            while ahead(&turns) > 1 {
                thread::yield_now(); // The read has not said anything yet.
            }
            let done = Instant::now();
            write.done();
            assert!(read.join().unwrap() >= done);
        }
        assert!(
            started.elapsed() < 25 * WORKING,
            "half of what waiting to the end takes"
        );
    }

    #[test]
    fn must_not_wait_for_reads_nor_for_what_comes_later_nor_when_free() {
        let turns = Arc::new(Turns::default());
        let [read, free, other] = [turns.accepted(), turns.accepted(), turns.accepted()];
        other.wait(Order::Free);
        assert_eq!(ahead(&turns), 2, "they would be forgotten, had it waited");
        free.wait(Order::Free);
        read.wait(Order::Read);
        assert_eq!(ahead(&turns), 0);
    }

    #[test]
    fn regression_must_not_be_held_up_by_one_late_write_after_the_other() {
        let turns = Arc::new(Turns::default());
        let writes: Vec<_> = (0..40).map(|_| turns.accepted()).collect();
        let last = turns.accepted();
        let started = Instant::now();
        let waiting = waiting(last, Order::Read);
        // Each begins before the time of the one before it is over; from the last to the first, as
        // each waits for those before it.
        for write in writes.iter().rev() {
            thread::sleep(WORKING / 10);
            let mut queue = turns.queue();
            queue.hold(write.number, Instant::now() + WORKING);
        }
        let waited = waiting.join().unwrap() - started;
        assert!(
            waited >= WAIT_MAX,
            "it had somebody to wait for all the time"
        );
        assert!(waited < WORKING / 10 * 40, "it waited for all of them");
    }

    #[test]
    fn must_hold_others_up_for_a_bounded_time() {
        let turns = Arc::new(Turns::default());
        let writes: Vec<_> = (0..4).map(|_| turns.accepted()).collect();
        let started = Instant::now();
        for write in writes.iter().rev() {
            let mut queue = turns.queue();
            queue.hold(write.number, Instant::now() + WORKING);
        }
        turns.accepted().wait(Order::Read);
        assert!(started.elapsed() >= WORKING);
        assert!(started.elapsed() < 4 * WORKING, "one after the other");
    }
}
