//! How far a long command is: a line on the terminal that is written over.

use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

use crate::words::counted;

/// How often it is written.
const INTERVAL: Duration = Duration::from_millis(250);

/// A line on stderr, if that is a terminal.
pub struct Progress {
    shown: bool,
    begun: Instant,
    written: Option<Instant>,
    keys: usize,
    /// Of all, up to 1, as far as it is known.
    share: Option<f64>,
}

impl Progress {
    /// Begins to count. `quiet`: nothing is shown.
    pub fn new(quiet: bool) -> Self {
        Progress {
            shown: !quiet && io::stderr().is_terminal(),
            begun: Instant::now(),
            written: None,
            keys: 0,
            share: None,
        }
    }

    /// So many keys more are done. `share`: of all, up to 1, if more is known of it now.
    pub fn add(&mut self, keys: usize, share: Option<f64>) {
        self.keys += keys;
        self.share = share.or(self.share);
        if !self.shown || self.written.is_some_and(|at| at.elapsed() < INTERVAL) {
            return;
        }
        self.written = Some(Instant::now());
        let rate = self.keys as f64 / self.begun.elapsed().as_secs_f64().max(0.001);
        let rate = counted(rate as usize, "", "");
        let mut line = counted(self.keys, "key", "keys");
        line += &format!(", {} a second", rate.trim());
        if let Some(share) = self.share.filter(|share| *share > 0.0) {
            let left = self.begun.elapsed().as_secs_f64() * (1.0 - share) / share;
            line += &format!(", {:.0} %, {left:.0} s left", 100.0 * share);
        }
        self.write(&format!("\r{line}\x1b[K"));
    }

    /// How many keys are done.
    pub fn keys(&self) -> usize {
        self.keys
    }

    fn write(&self, text: &str) {
        // Only people at a terminal read it: if it can't be written, nothing is lost.
        let _ = io::stderr().write_all(text.as_bytes());
    }
}

/// The line is wiped out.
impl Drop for Progress {
    fn drop(&mut self) {
        if self.written.is_some() {
            self.write("\r\x1b[K");
        }
    }
}
