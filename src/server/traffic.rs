//! What a server counts: requests by method and outcome, how long they took, bytes, connections.
//!
//! Counting costs next to nothing: a connection counts by itself, and adds a run of like requests, and what a batch took,
//! at once. The sums stand in several parts, so that threads on several cores seldom write to the same line of memory.
//! Nothing here is exact at a moment: one number may be read before, the other after a request.
//!
//! Invariant: what is kept doesn't grow with what comes. Methods that the service doesn't name count as one.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};

/// The upper ends of the ranges by which times are counted, in nanoseconds. Longer ones come behind the last.
pub const TIMES: [u64; 16] = [
    50_000,
    100_000,
    250_000,
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    25_000_000,
    50_000_000,
    100_000_000,
    250_000_000,
    500_000_000,
    1_000_000_000,
    2_500_000_000,
    10_000_000_000,
];

/// Enough that threads on a few cores seldom meet.
const PARTS: usize = 8;

/// How requests of a method that the service doesn't name are counted.
const OTHER: &str = "other";

/// What a server has counted since it was made.
pub struct Traffic {
    /// The last one is [`OTHER`].
    methods: Vec<&'static str>,
    parts: Vec<Part>,
    connections: AtomicUsize,
    rate: AtomicUsize,
}

/// On lines of memory of its own.
#[repr(align(128))]
struct Part {
    /// By method: how many got an answer, and how many an exception.
    requests: Vec<[AtomicU64; 2]>,
    times: [AtomicU64; TIMES.len() + 1],
    nanos: AtomicU64,
    read: AtomicU64,
    written: AtomicU64,
}

impl Traffic {
    /// Nothing yet. Requests are counted by these methods; all others count as `other`.
    pub fn new(methods: &[&'static str]) -> Self {
        let methods = [methods, &[OTHER]].concat();
        let part = |_| Part {
            requests: methods.iter().map(|_| Default::default()).collect(),
            times: Default::default(),
            nanos: AtomicU64::new(0),
            read: AtomicU64::new(0),
            written: AtomicU64::new(0),
        };
        Traffic {
            parts: (0..PARTS).map(part).collect(),
            methods,
            connections: AtomicUsize::new(0),
            rate: AtomicUsize::new(0),
        }
    }

    fn sum(&self, of: impl Fn(&Part) -> &AtomicU64) -> u64 {
        self.parts.iter().map(|part| of(part).load(Relaxed)).sum()
    }

    /// By method: how many requests got an answer, and how many an exception.
    pub fn requests(&self) -> impl Iterator<Item = (&'static str, [u64; 2])> {
        self.methods.iter().enumerate().map(|(method, name)| {
            let outcome = |outcome| self.sum(|part| &part.requests[method][outcome]);
            (*name, [outcome(0), outcome(1)])
        })
    }

    /// From when a request has come until its answer is ready. Requests that come together take as long as all of them.
    /// How many took no longer than each of [`TIMES`], but longer than the one before; the last number: longer than all.
    pub fn times(&self) -> [u64; TIMES.len() + 1] {
        std::array::from_fn(|place| self.sum(|part| &part.times[place]))
    }

    /// The sum of these times, in nanoseconds.
    pub fn nanos(&self) -> u64 {
        self.sum(|part| &part.nanos)
    }

    /// Bytes that were read, and bytes that were written.
    pub fn bytes(&self) -> [u64; 2] {
        [self.sum(|part| &part.read), self.sum(|part| &part.written)]
    }

    /// How many connections are open.
    pub fn connections(&self) -> usize {
        self.connections.load(Relaxed)
    }

    pub(super) fn set_connections(&self, count: usize) {
        self.connections.store(count, Relaxed);
    }

    /// Requests a second, over some seconds up to now.
    pub fn rate(&self) -> usize {
        self.rate.load(Relaxed)
    }

    /// Notes the rate, as it was over so many microseconds, when there had been `before` requests before them. The
    /// answer: how many there have been by now.
    pub(super) fn note_rate(&self, micros: u64, before: u64) -> u64 {
        let all = self.times().iter().sum::<u64>();
        let rate = u128::from(all.saturating_sub(before)) * 1_000_000 / u128::from(micros.max(1));
        self.rate.store(rate as usize, Relaxed);
        all
    }
}

/// What one connection counts.
pub(super) struct Tally<'a> {
    traffic: &'a Traffic,
    part: &'a Part,
    /// When the first request of a batch had come.
    began: Option<u64>,
    /// A run of requests of one method and outcome.
    method: usize,
    outcome: usize,
    run: u64,
    /// Requests that have been counted, and whose time is not over.
    open: u64,
}

impl<'a> Tally<'a> {
    /// `number`: another one for each connection.
    pub fn new(traffic: &'a Traffic, number: usize) -> Self {
        Tally {
            traffic,
            part: &traffic.parts[number % PARTS],
            began: None,
            method: 0,
            outcome: 0,
            run: 0,
            open: 0,
        }
    }

    /// Requests have come. `now` is in nanoseconds.
    pub fn begin(&mut self, now: impl FnOnce() -> u64) {
        self.began.get_or_insert_with(now);
    }

    /// A request has been served.
    pub fn count(&mut self, name: &[u8], excepted: bool) {
        let methods = &self.traffic.methods;
        let outcome = usize::from(excepted);
        if self.outcome != outcome || methods[self.method].as_bytes() != name {
            self.add_run();
            let known = methods.iter().position(|method| method.as_bytes() == name);
            self.method = known.unwrap_or(methods.len() - 1);
            self.outcome = outcome;
        }
        self.run += 1;
        self.open += 1;
    }

    fn add_run(&mut self) {
        let run = std::mem::take(&mut self.run);
        if run > 0 {
            self.part.requests[self.method][self.outcome].fetch_add(run, Relaxed);
        }
    }

    /// The answers so far are ready.
    pub fn add(&mut self, now: u64) {
        self.add_run();
        let count = std::mem::take(&mut self.open);
        if count > 0 {
            let took = now.saturating_sub(self.began.unwrap_or(now));
            let place = TIMES.partition_point(|end| *end < took);
            self.part.times[place].fetch_add(count, Relaxed);
            self.part.nanos.fetch_add(took * count, Relaxed);
        }
    }

    /// All requests that have come are answered.
    pub fn end(&mut self) {
        self.began = None;
    }

    pub fn read(&self, bytes: usize) {
        self.part.read.fetch_add(bytes as u64, Relaxed);
    }

    pub fn written(&self, bytes: usize) {
        self.part.written.fetch_add(bytes as u64, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn must_count_by_method_outcome_and_time() {
        let traffic = Traffic::new(&["get", "put"]);
        for number in [0, 1, 9] {
            let mut tally = Tally::new(&traffic, number);
            tally.begin(|| 1000);
            tally.begin(|| 9999);
            for name in ["get", "get", "put", "frobnicate"] {
                tally.count(name.as_bytes(), name == "frobnicate");
            }
            tally.add(51_000);
            tally.count(b"get", true);
            tally.add(51_001);
            tally.end();
            tally.begin(|| 0);
            tally.count(b"get", false);
            tally.add(u64::MAX >> 8);
            tally.read(10);
            tally.written(20);
        }
        let requests: Vec<_> = traffic.requests().collect();
        assert_eq!(
            requests,
            [("get", [9, 3]), ("put", [3, 0]), ("other", [0, 3])]
        );
        let times = traffic.times();
        assert_eq!((times[0], times[1]), (12, 3));
        assert_eq!(times[TIMES.len()], 3);
        assert_eq!(times.iter().sum::<u64>(), 18);
        assert_eq!(traffic.bytes(), [30, 60]);
        assert_eq!(traffic.note_rate(2_000_000, 8), 18);
        assert_eq!(traffic.rate(), 5);
    }
}
