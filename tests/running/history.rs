//! What clients have put and read, and whether the reads were right.
//!
//! The rule: a read that begins after a put was acknowledged returns that put's value or a later
//! one. A put is *later* than another if it was not acknowledged before the other began; one
//! that was never acknowledged may take effect at any time after its beginning. So a read is wrong
//! if the value was never put, or not yet; or if some put was acknowledged before the read began,
//! and the value's own put before that one began.
//!
//! Every value that is put is another one. Nothing is ever deleted.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use thrifty_p2p::location::Location;

pub struct History {
    since: Instant,
    events: Mutex<Events>,
}

#[derive(Default)]
struct Events {
    puts: Vec<Put>,
    reads: Vec<Read>,
}

struct Put {
    key: usize,
    value: Vec<u8>,
    began: Duration,
    acknowledged: Option<Duration>,
}

struct Read {
    at: Location,
    key: usize,
    value: Vec<u8>,
    began: Duration,
    ended: Duration,
}

/// What a history comes to.
#[derive(Debug, Clone, Copy)]
pub struct Sums {
    pub puts: usize,
    pub acknowledged: usize,
    pub reads: usize,
}

impl History {
    pub fn new() -> Self {
        History {
            since: Instant::now(),
            events: Mutex::default(),
        }
    }

    pub fn now(&self) -> Duration {
        self.since.elapsed()
    }

    /// To be called before the value is sent anywhere. The answer is for [`History::acknowledged`].
    pub fn begin_put(&self, key: usize, value: &[u8]) -> usize {
        let mut events = self.events.lock().unwrap();
        let began = self.now();
        events.puts.push(Put {
            key,
            value: value.to_vec(),
            began,
            acknowledged: None,
        });
        events.puts.len() - 1
    }

    pub fn acknowledged(&self, put: usize) {
        let mut events = self.events.lock().unwrap();
        let now = self.now();
        events.puts[put].acknowledged = Some(now);
    }

    /// A read that is over; `began` is a time of [`History::now`] before it was sent.
    pub fn read(&self, at: &Location, key: usize, value: Vec<u8>, began: Duration) {
        let mut events = self.events.lock().unwrap();
        let ended = self.now();
        events.reads.push(Read {
            at: at.clone(),
            key,
            value,
            began,
            ended,
        });
    }

    /// Checks all reads so far.
    ///
    /// # Errors
    /// What was wrong, a line for each.
    pub fn check(&self) -> Result<Sums, String> {
        let events = self.events.lock().unwrap();
        let mut by_value = HashMap::new();
        for put in &events.puts {
            let before = by_value.insert((put.key, &put.value[..]), put);
            assert!(before.is_none(), "BUG: the same value twice");
        }
        let bounds = Bounds::of(&events.puts);
        let wrong: Vec<_> = events
            .reads
            .iter()
            .filter_map(|read| {
                let put = by_value.get(&(read.key, &read.value[..]));
                let cause = bounds.judge(read, put.copied())?;
                let value = String::from_utf8_lossy(&read.value[..read.value.len().min(20)]);
                let Read {
                    key,
                    at,
                    began,
                    ended,
                    ..
                } = read;
                Some(format!(
                    "key {key} read {value:?} at {at} ({began:?} to {ended:?}): {cause}",
                ))
            })
            .collect();
        if !wrong.is_empty() {
            return Err(wrong.join("\n"));
        }
        let acknowledged = events.puts.iter().filter(|put| put.acknowledged.is_some());
        Ok(Sums {
            puts: events.puts.len(),
            acknowledged: acknowledged.count(),
            reads: events.reads.len(),
        })
    }
}

/// For each key the times of acknowledgement, and the latest beginning of all that were
/// acknowledged up to then.
struct Bounds(HashMap<usize, Vec<(Duration, Duration)>>);

impl Bounds {
    fn of(puts: &[Put]) -> Self {
        let mut bounds: HashMap<usize, Vec<_>> = HashMap::new();
        for put in puts {
            let of_key = bounds.entry(put.key).or_default();
            of_key.extend(put.acknowledged.map(|time| (time, put.began)));
        }
        for of_key in bounds.values_mut() {
            of_key.sort_unstable();
            let mut latest = Duration::ZERO;
            for (_, began) in of_key {
                latest = latest.max(*began);
                *began = latest;
            }
        }
        Bounds(bounds)
    }

    /// What is wrong with a read that returned what `put` has put.
    fn judge(&self, read: &Read, put: Option<&Put>) -> Option<String> {
        let of_key = self.0.get(&read.key).map_or(&[][..], Vec::as_slice);
        let count = of_key.partition_point(|(acknowledged, _)| *acknowledged < read.began);
        let bound = count.checked_sub(1).map(|last| of_key[last].1);
        match (put, bound) {
            (None, None) if read.value.is_empty() => None,
            (None, Some(bound)) if read.value.is_empty() => Some(format!(
                "lost: a put that began at {bound:?} was acknowledged"
            )),
            (None, _) => Some("nobody has put that".to_owned()),
            (Some(put), _) if put.began > read.ended => Some("not put yet".to_owned()),
            (Some(put), Some(bound)) => {
                let acknowledged = put.acknowledged?;
                (acknowledged < bound).then(|| {
                    format!(
                        "stale: acknowledged at {acknowledged:?}, and then one that began at {bound:?}"
                    )
                })
            }
            (Some(_), None) => None,
        }
    }
}
