//! The clocks of one simulated machine: the wall's, which may be anything, and the monotonic one, which
//! stands still while the machine is suspended. A machine keeps its clocks from one run of its node
//! to the next.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use thrifty_p2p::net::Clock;

use super::scheduler::Scheduler;

/// 2026-01-01, in microseconds.
const EPOCH: i64 = 1_767_225_600_000_000;

/// A day, in microseconds.
pub const DAY: i64 = 24 * 60 * 60 * 1_000_000;

pub struct MachineClock {
    scheduler: Arc<Scheduler>,
    hands: Mutex<Hands>, // guards itself
}

#[derive(Default)]
struct Hands {
    /// By how many microseconds the wall's clock is ahead of the world's time.
    ahead: i64,
    /// The wall's clock stands still, and shows this.
    stands_at: Option<i64>,
    /// The test has set it, and no restart of the node sets it anew.
    set: bool,
    /// For how long the machine has been suspended so far.
    suspended: Duration,
    suspended_since: Option<Duration>,
}

impl MachineClock {
    pub fn new(scheduler: Arc<Scheduler>) -> Self {
        MachineClock {
            scheduler,
            hands: Mutex::default(),
        }
    }

    fn hands(&self) -> MutexGuard<'_, Hands> {
        self.hands.lock().expect("BUG: a clock panicked")
    }

    fn true_time(&self) -> i64 {
        EPOCH + self.scheduler.now().as_micros() as i64
    }

    pub fn ahead(&self) -> i64 {
        self.hands().ahead
    }

    /// From now on the wall's clock is ahead by so many microseconds; below 0: behind.
    pub fn set_ahead(&self, ahead: i64) {
        let mut hands = self.hands();
        (hands.ahead, hands.set, hands.stands_at) = (ahead, true, None);
    }

    /// The same, unless the test has set it.
    pub fn draw(&self, ahead: i64) {
        let mut hands = self.hands();
        if !hands.set {
            hands.ahead = ahead;
        }
    }

    /// The wall's clock stands still, until it is set.
    pub fn stand_still(&self) {
        let shown = self.wall();
        let mut hands = self.hands();
        (hands.stands_at, hands.set) = (Some(shown), true);
    }

    /// The machine is suspended: the monotonic clock stands still, the wall's goes on.
    pub fn suspend(&self) {
        let now = self.scheduler.now();
        self.hands().suspended_since.get_or_insert(now);
    }

    pub fn wake(&self) {
        let now = self.scheduler.now();
        let mut hands = self.hands();
        if let Some(since) = hands.suspended_since.take() {
            hands.suspended += now - since;
        }
    }

    /// Waits until the monotonic clock shows this.
    pub fn sleep_until(&self, until: Duration) {
        loop {
            let now = self.now();
            self.scheduler.sleep(until.saturating_sub(now));
            if self.now() >= until {
                return;
            }
        }
    }
}

impl Clock for MachineClock {
    fn now(&self) -> Duration {
        let now = self.scheduler.now();
        let hands = self.hands();
        hands.suspended_since.unwrap_or(now) - hands.suspended
    }

    fn wall(&self) -> i64 {
        let shown = self.true_time();
        let hands = self.hands();
        hands.stands_at.unwrap_or(shown + hands.ahead)
    }

    fn pause(&self, time: Duration) {
        self.sleep_until(self.now() + time);
    }
}
