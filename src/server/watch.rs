//! The watching thread of a server: it ends what takes too long, so that no connection needs time limits of its own.

use std::sync::Arc;
use std::time::Duration;

use super::connection::{Connection, Phase};
use super::{BACK_OFF, STOP_INTERVAL, Shared, wait};

/// How often it is noted how many requests come in a second.
const RATE_INTERVAL: Duration = Duration::from_secs(5);

impl Shared {
    /// The watching thread: ends the connections that take too long, and lets in those that wait.
    pub(super) fn watch(self: Arc<Self>) {
        let options = &self.options;
        let limits = [
            options.idle_limit,
            options.message_limit,
            options.write_limit,
        ];
        let shortest = limits.into_iter().min().expect("BUG: three limits");
        let interval = (shortest / 4).clamp(STOP_INTERVAL, Duration::from_secs(1));
        let overdue = |connection: &Connection| {
            let (phase, since) = connection.phase();
            let limit = match phase {
                Phase::Idle => options.idle_limit,
                Phase::Receiving => options.message_limit,
                Phase::Answering => options.write_limit,
                Phase::Serving => return None,
            };
            let lasted = Duration::from_micros(self.now().saturating_sub(since));
            (lasted > limit).then_some(phase)
        };
        let (mut noted, mut requests) = (0, 0);
        loop {
            let micros = self.now() - noted;
            if micros >= RATE_INTERVAL.as_micros() as u64 {
                requests = options.traffic.note_rate(micros, requests);
                noted += micros;
            }
            let table = self.let_in().unwrap_or_else(|error| {
                self.say_trouble(&error);
                self.table()
            });
            if table.listener.is_none() {
                return;
            }
            let pause = match table.waiting.is_empty() {
                true => interval,
                false => interval.min(BACK_OFF),
            };
            wait(&self.watching, table, pause);
            for connection in self.chosen(|connection| overdue(connection).is_some()) {
                match overdue(&connection) {
                    None => {} // It has just gone on.
                    Some(Phase::Idle) => connection.hang_up(),
                    Some(_) => connection.cut(),
                }
            }
        }
    }
}
