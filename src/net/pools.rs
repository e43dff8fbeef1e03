//! Connections to other nodes that are kept, and shared by all callers, a caller at a time.
//!
//! Invariants: nothing here waits, as all callers share one lock; how many are kept without being used is bounded.

use std::collections::HashMap;
use std::net::TcpStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::link::Link;
use crate::location::Location;

/// So many idle connections are kept to each location. Beyond that it has its share of an eighth of the process's
/// descriptors, so that some are left for files and for clients. Where few are kept, and the number in use goes up and
/// down, connections are made time and again: with 16, one for each fifth put of 64 clients.
const IDLE_MIN: usize = 16;

/// A connection that nobody has used for so long is closed, within twice that time. So no more are kept to a location
/// than were in use together a while ago. Below the hour after which a server of ours would close it.
const IDLE_LIMIT: Duration = Duration::from_secs(60);

/// The kept connections, idle and in use.
#[derive(Debug)]
pub(super) struct Pools {
    idle_max: usize,
    of: HashMap<Location, Pool>,
    swept: Option<Instant>,
}

/// The connections kept to one location.
#[derive(Debug, Default)]
pub(super) struct Pool {
    /// The last used is last.
    idle: Vec<(Instant, Link)>,
    pub in_use: Vec<Arc<TcpStream>>,
}

impl Pools {
    /// None yet. `idle_max`: idle connections that may be kept to all locations together, beyond [`IDLE_MIN`] to each.
    pub fn new(idle_max: usize) -> Self {
        Pools {
            idle_max,
            of: HashMap::new(),
            swept: None,
        }
    }

    /// A connection has been made, and is in use.
    pub fn use_new(&mut self, to: &Location, link: &Link) {
        let pool = self.of.entry(to.clone()).or_default();
        pool.in_use.push(Arc::clone(&link.stream));
    }

    /// The connection that was used last, if there is one.
    pub fn take(&mut self, to: &Location) -> Option<Link> {
        let pool = self.of.get_mut(to)?;
        let (since, link) = pool.idle.pop()?;
        if since.elapsed() > IDLE_LIMIT {
            pool.idle.clear(); // The others have been idle for longer still.
            return None;
        }
        pool.in_use.push(Arc::clone(&link.stream));
        Some(link)
    }

    /// A connection is in use no more; false if it is one that has been forgotten.
    pub fn release(&mut self, to: &Location, stream: &Arc<TcpStream>) -> bool {
        let Some(pool) = self.of.get_mut(to) else {
            return false;
        };
        let found = pool
            .in_use
            .iter()
            .position(|used| Arc::ptr_eq(used, stream));
        found.map(|at| pool.in_use.swap_remove(at)).is_some()
    }

    /// Keeps a connection for the next caller, if there is room for one more.
    pub fn keep(&mut self, to: &Location, link: Link, now: Instant) {
        let share = self.idle_max / self.of.len().max(1);
        let pool = self.of.entry(to.clone()).or_default();
        if pool.idle.len() < share.max(IDLE_MIN) {
            pool.idle.push((now, link));
        }
    }

    /// Takes those out that are not in use.
    pub fn take_idle(&mut self) -> Vec<(Instant, Link)> {
        let pools = self.of.values_mut();
        pools.flat_map(|pool| pool.idle.drain(..)).collect()
    }

    /// Takes out all connections to a location.
    pub fn forget(&mut self, location: &Location) -> Option<Pool> {
        self.of.remove(location)
    }

    /// Closes what has been idle for long, now and then.
    pub fn sweep(&mut self, now: Instant) {
        let due = |since: Instant| now.duration_since(since) > IDLE_LIMIT;
        if due(*self.swept.get_or_insert(now)) {
            self.swept = Some(now);
            self.of.retain(|_, pool| {
                pool.idle.retain(|(since, _)| !due(*since));
                !pool.idle.is_empty() || !pool.in_use.is_empty()
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn must_keep_no_more_idle_connections_than_descriptors_allow() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let locations = [9900, 9901].map(|port| Location::new("127.0.0.1", port).unwrap());
        for (idle_max, kept) in [(0, IDLE_MIN), (2 * IDLE_MIN + 4, IDLE_MIN + 2)] {
            let mut pools = Pools::new(idle_max);
            for _ in 0..2 * IDLE_MIN {
                let links = locations.each_ref().map(|to| {
                    let link = Link::new(TcpStream::connect(address).unwrap());
                    pools.use_new(to, &link);
                    (to, link)
                });
                for (to, link) in links {
                    assert!(pools.release(to, &link.stream));
                    pools.keep(to, link, Instant::now());
                }
            }
            assert_eq!(pools.of[&locations[0]].idle.len(), kept);
            assert_eq!(pools.take_idle().len(), 2 * kept);
        }
    }
}
