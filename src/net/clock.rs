//! The machine's clocks.

use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::Clock;

/// The clocks of this process: monotonic since its making, and the wall's.
#[derive(Debug, Clone, Copy)]
pub struct SystemClock {
    started: Instant,
}

impl SystemClock {
    /// Begins at 0 now.
    pub fn new() -> Self {
        SystemClock {
            started: Instant::now(),
        }
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        SystemClock::new()
    }
}

impl Clock for SystemClock {
    /// `CLOCK_MONOTONIC` underneath: it goes on while the process is stopped (SIGSTOP), and stands
    /// still while the machine is suspended.
    fn now(&self) -> Duration {
        self.started.elapsed()
    }

    /// 0 before 1970, and the largest number after 294,000 AD.
    fn wall(&self) -> i64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        i64::try_from(since.unwrap_or_default().as_micros()).unwrap_or(i64::MAX)
    }

    fn pause(&self, time: Duration) {
        thread::sleep(time);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn must_move_forward_while_pausing() {
        let clock = SystemClock::new();
        let (now, wall) = (clock.now(), clock.wall());
        clock.pause(Duration::from_millis(2));
        assert!(clock.now() >= now + Duration::from_millis(2));
        assert!(wall > 1_700_000_000_000_000, "in microseconds since 1970");
    }
}
