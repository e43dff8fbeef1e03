//! Requests that originals carry out, and what they send back meanwhile.

use std::collections::BTreeMap;
use std::sync::{MutexGuard, PoisonError};
use std::time::Duration;

use crate::location::Location;
use crate::locator::{EMPTY, Route, read_answer, single_request, write_key};
use crate::membership::State;
use crate::net::CallError;

use super::Store;
use super::calls::KeyValue;

/// How long an original may take to answer: it may be busy with a call of ours that waits for it.
const ORIGINAL_LIMIT: Duration = Duration::from_secs(2);

impl Store {
    /// Whether a put may be an original's handing over: this node is joining a network that has only originals so far.
    pub(super) fn is_handed_by_original(&self, route: &Route) -> bool {
        route.has_originals() && route.me().state == State::Joining && route.primary().is_none()
    }

    /// Calls `get` of an original. A get that it sends back meanwhile, as its ring differs, is answered from what lies
    /// here.
    pub(super) fn get_from_original(
        &self,
        original: &Location,
        key: &[u8],
    ) -> Result<Vec<u8>, CallError> {
        let _relayed = Relayed::new(self, key.to_vec());
        let request = single_request("get", write_key(key), false);
        let answer = self.locator.call_member(original, &request, ORIGINAL_LIMIT);
        read_answer(&answer?, "get")
    }

    /// An original's own `put`, and a `ping` behind it: when it answers, it has acted on the put.
    /// Between the two `done` is called: whatever is said to it from then on it hears later.
    pub(super) fn put_at_original(
        &self,
        original: &Location,
        key: &[u8],
        value: &[u8],
        done: &dyn Fn(),
    ) -> Result<(), CallError> {
        let _relayed = Relayed::new(self, put_mark(key, value));
        let put = single_request("put", KeyValue::write(key, Some(value)), true);
        self.locator.call_member(original, &put, ORIGINAL_LIMIT)?;
        done();
        let ping = single_request("ping", EMPTY.to_vec(), false);
        self.locator.call_member(original, &ping, ORIGINAL_LIMIT)?;
        Ok(())
    }

    fn relayed(&self) -> MutexGuard<'_, BTreeMap<Vec<u8>, Marked>> {
        self.relayed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// When a key was last marked as being relayed, if it is. Mostly none is.
    pub(super) fn relayed_since(&self, key: impl FnOnce() -> Vec<u8>) -> Option<Duration> {
        let relayed = self.relayed();
        if relayed.is_empty() {
            return None;
        }
        relayed.get(&key()).map(|marked| marked.since)
    }

    /// Whether an original that has been asked for so long has sent the question back, and waits itself.
    pub(super) fn may_be_sent_back(&self, since: Duration) -> bool {
        self.locator.now().saturating_sub(since) >= ORIGINAL_LIMIT / 2
    }
}

/// A key that is being relayed.
#[derive(Debug, Default)]
pub(super) struct Marked {
    /// By how many threads.
    count: usize,
    /// When it was marked last.
    since: Duration,
}

/// What stands for a put among the keys that are being relayed; no key is likely to look so, and one
/// that did would only be answered from here.
pub(super) fn put_mark(key: &[u8], value: &[u8]) -> Vec<u8> {
    [b"put\0", key, b"\0", value].concat()
}

/// The same for a value that a get sends back to replicas that have another.
pub(super) fn back_mark(key: &[u8]) -> Vec<u8> {
    [b"get\0", key].concat()
}

/// Marks a key as being relayed to an original, as long as it lives; several threads may do so at once.
pub(super) struct Relayed<'a> {
    store: &'a Store,
    key: Vec<u8>,
}

impl<'a> Relayed<'a> {
    fn new(store: &'a Store, key: Vec<u8>) -> Self {
        let since = store.locator.now();
        let mut relayed = store.relayed();
        let marked = relayed.entry(key.clone()).or_default();
        (marked.count, marked.since) = (marked.count + 1, since);
        drop(relayed);
        Relayed { store, key }
    }

    /// `None`: another thread has marked it.
    pub fn alone(store: &'a Store, key: Vec<u8>) -> Option<Self> {
        let marked = {
            let mut relayed = store.relayed();
            let marked = relayed.contains_key(&key);
            relayed.entry(key.clone()).or_insert(Marked {
                count: 1,
                since: Duration::ZERO,
            });
            marked
        };
        (!marked).then(|| Relayed { store, key })
    }
}

impl Drop for Relayed<'_> {
    fn drop(&mut self) {
        let mut relayed = self.store.relayed();
        if let Some(marked) = relayed.get_mut(&self.key) {
            marked.count -= 1;
            if marked.count == 0 {
                relayed.remove(&self.key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;
    use crate::locator::{LIMITS, Locator, Options};
    use crate::net::{Environment, Random, SystemClock, TcpNetwork};

    fn store() -> Store {
        let options = Options {
            service_types: crate::diststore::SERVICE_TYPES,
            replicas: 2,
            tick: Duration::from_millis(500),
            die_from_anywhere: false,
            on_die: Box::new(|| {}),
        };
        let environment = Environment {
            network: Arc::new(TcpNetwork::new(LIMITS)),
            clock: Arc::new(SystemClock::new()),
            random: Random::new(1),
            secret: 1,
            log: Box::new(|_, _| {}),
        };
        let location = Location::new("127.0.0.1", 9900).unwrap();
        Store::new(Locator::new(location, options, environment), usize::MAX)
    }

    #[test]
    fn must_let_one_alone_send_a_value_back() {
        let store = store();
        let alone = || Relayed::alone(&store, back_mark(b"k"));
        let first = alone();
        assert!(first.is_some());
        for _ in 0..3 {
            assert!(alone().is_none());
        }
        drop(first);
        assert!(alone().is_some());
    }
}
