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
use std::time::Duration;

use thrifty_p2p::location::Location;

use super::now;

#[derive(Default)]
pub struct History {
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
    /// To be called before the value is sent anywhere. The answer is for [`History::acknowledged`].
    pub fn begin_put(&self, key: usize, value: &[u8]) -> usize {
        let mut events = self.events.lock().unwrap();
        let began = now();
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
        let now = now();
        events.puts[put].acknowledged = Some(now);
    }

    /// A read that is over; `began` is a time of [`now`] before it was sent.
    pub fn read(&self, at: &Location, key: usize, value: Vec<u8>, began: Duration) {
        let mut events = self.events.lock().unwrap();
        let ended = now();
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

#[cfg(test)]
mod tests {
    use super::*;

    fn at() -> Location {
        Location::new("127.0.0.1", 9900).unwrap()
    }

    /// What a read of `value` is, after a was acknowledged, then b, and c not.
    fn judge(value: &[u8]) -> Result<Sums, String> {
        let history = History::default();
        let early = now();
        for value in [b"a", b"b"] {
            let put = history.begin_put(1, value);
            history.acknowledged(put);
        }
        history.begin_put(1, b"c");
        // This one may have been answered by anybody at any time.
        history.read(&at(), 1, b"a".to_vec(), early);
        history.read(&at(), 1, value.to_vec(), now());
        history.check()
    }

    #[test]
    fn must_tell_right_reads_from_wrong_ones() {
        assert!(judge(b"b").is_ok());
        assert!(judge(b"c").is_ok());
        assert!(judge(b"a").unwrap_err().contains("stale"));
        assert!(judge(b"").unwrap_err().contains("lost"));
        assert!(judge(b"d").unwrap_err().contains("nobody"));
    }

    #[test]
    fn must_allow_either_of_two_at_once() {
        let history = History::default();
        let puts = [b"a", b"b"].map(|value| history.begin_put(1, value));
        for put in puts {
            history.acknowledged(put);
        }
        history.read(&at(), 1, b"a".to_vec(), now());
        history.read(&at(), 1, b"b".to_vec(), now());
        assert!(history.check().is_ok());
    }
}
