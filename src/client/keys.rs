//! All keys of a network, with nothing twice and nothing missing, while nodes come and go.
//!
//! Each node lists what it holds, range by range (the shards of its items). If two list a key, the one with the greater
//! version is right. An item that moves is at its new node before the old one forgets it. Each node counts what it has
//! forgotten. So nothing was missed if no node's count has changed between a look before the first listing and its own
//! listing. Otherwise the range is listed again; also if the nodes don't all see the same members, or others than were
//! asked.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use crate::digest::digest;
use crate::diststore::{List, Listing, RANGES};
use crate::location::Location;
use crate::locator::{read_answer, request_of};
use crate::net::CallError;

use super::many::PAUSE;
use super::{Client, Error, Manners};

/// Ranges that are listed at a time.
const RANGES_AT_ONCE: u32 = 32;

/// Keys that a node is asked for at a time; it may answer fewer.
const KEYS_AT_ONCE: u32 = 1000;

/// A key, as it was at some time while it was looked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    /// The key.
    pub key: Vec<u8>,
    /// Bytes of its value, 1 or more.
    pub bytes: usize,
}

/// A range at a node.
struct Part {
    at: Location,
    range: u32,
    after: Option<Vec<u8>>,
}

/// What was heard of some ranges.
#[derive(Default)]
struct Found {
    /// Version and bytes of the value, 0 if it is deleted.
    keys: BTreeMap<Vec<u8>, (i64, usize)>,
    /// How many keys of each range each node has forgotten, as others have them.
    removed: BTreeMap<(Location, u32), u64>,
    /// The views of the nodes, and how many members they have.
    views: BTreeSet<(u64, u32)>,
}

impl Client {
    /// Hands all keys that begin with `prefix` to `take`, some at a time, and which share of the network has been
    /// looked through then, up to 1. Each key that is there from beginning to end comes once, one that is put or
    /// deleted meanwhile once or not at all. In no order. The answer is false if there are nodes of the original: they
    /// can't list what only they have.
    ///
    /// # Errors
    /// A node has not answered for 30 s (three times [the limit](Client::with_limit)), or nodes came and went all that
    /// time; or the node that was found first is an original. Those of `take` end it.
    pub fn keys<E: From<Error>>(
        &self,
        prefix: &[u8],
        take: &mut dyn FnMut(Vec<Key>, f64) -> Result<(), E>,
    ) -> Result<bool, E> {
        if self.manners != Manners::Ours {
            let cause = "a node of the original can't list keys";
            return Err(Error::local(self.server(), cause).into());
        }
        let mut complete = true;
        for first in (0..RANGES).step_by(RANGES_AT_ONCE as usize) {
            let ranges = first..RANGES.min(first + RANGES_AT_ONCE);
            let done = f64::from(ranges.end) / f64::from(RANGES);
            let since = self.clock.now();
            let keys = loop {
                match self.list(ranges.clone(), prefix) {
                    Ok((keys, all)) => {
                        complete &= all;
                        break keys;
                    }
                    Err(error) if self.clock.now().saturating_sub(since) > self.patience() => {
                        return Err(error.into());
                    }
                    Err(_) => {
                        self.forget_members();
                        self.clock.pause(PAUSE);
                    }
                }
            };
            let keys = keys.into_iter().filter(|(_, (_, bytes))| *bytes > 0);
            let keys = keys.map(|(key, (_, bytes))| Key { key, bytes });
            take(keys.collect(), done)?;
        }
        Ok(complete)
    }

    /// The keys of some ranges, and whether all members could list them.
    #[expect(clippy::type_complexity, reason = "named in `Found`")]
    fn list(
        &self,
        ranges: Range<u32>,
        prefix: &[u8],
    ) -> Result<(BTreeMap<Vec<u8>, (i64, usize)>, bool), Error> {
        let members = self.members()?;
        if let Some(doubtful) = &members.doubtful {
            return Err(Error::local(
                doubtful,
                "doesn't answer as a member of this network",
            ));
        }
        let part = |at: &Location, range| Part {
            at: at.clone(),
            range,
            after: None,
        };
        let parts = || {
            let nodes = members.ours();
            nodes.flat_map(|at| ranges.clone().map(move |range| part(at, range)))
        };
        // No keys: only how many have been forgotten so far.
        let mut before = Found::default();
        self.list_parts(parts().collect(), prefix, 0, &mut before)?;
        let mut found = Found::default();
        let mut open: Vec<_> = parts().collect();
        while !open.is_empty() {
            open = self.list_parts(open, prefix, KEYS_AT_ONCE, &mut found)?;
        }
        let count = members.count();
        let views: BTreeSet<_> = found.views.union(&before.views).collect();
        let one = views.len() == 1 && views.iter().all(|(_, members)| *members as usize == count);
        if before.removed != found.removed || !one {
            return Err(Error::local(
                self.server(),
                "nodes come and go: keys may be missing",
            ));
        }
        Ok((found.keys, members.ours().count() == count))
    }

    /// Lists up to so many keys of each of these parts; what is left of them.
    fn list_parts(
        &self,
        parts: Vec<Part>,
        prefix: &[u8],
        most: u32,
        found: &mut Found,
    ) -> Result<Vec<Part>, Error> {
        let call = |part: &Part| {
            let list = List {
                range: part.range,
                after: part.after.as_deref(),
                prefix,
                most,
            };
            (part.at.clone(), request_of("list_keys", &list))
        };
        let calls: Vec<_> = parts.iter().map(call).collect();
        let mut left = Vec::new();
        for (mut part, answer) in parts
            .into_iter()
            .zip(self.network.call_all(&calls, self.limit))
        {
            let error = |cause: CallError| Error::new(&part.at, cause);
            let result = answer.map_err(error)?;
            let listing: Listing<'_> = read_answer(&result, "list_keys").map_err(error)?;
            let wrong = || error(CallError::Broken("keys of no such page".to_owned()));
            for listed in &listing.keys {
                let key = listed.key;
                let is_next = part.after.as_deref().is_none_or(|after| key > after);
                let is_of_range = digest(key) % u64::from(RANGES) == u64::from(part.range);
                if !is_next || !is_of_range || !key.starts_with(prefix) {
                    return Err(wrong());
                }
                part.after = Some(key.to_vec());
                let account = (listed.version, listed.bytes);
                let known = found.keys.entry(key.to_vec()).or_insert(account);
                *known = account.max(*known);
            }
            let more = listing.reached.is_some() && most > 0;
            if more && (listing.keys.is_empty() || listing.reached != part.after.as_deref()) {
                return Err(wrong());
            }
            let of = (part.at.clone(), part.range);
            found.removed.insert(of, listing.removed);
            found.views.insert((listing.view, listing.members));
            if more {
                left.push(part);
            }
        }
        Ok(left)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};
    use std::time::Duration;

    use super::*;
    use crate::client::STORE;
    use crate::diststore::Listed;
    use crate::locator::{EXTENSION, read_arguments, write_answer};
    use crate::net::{Answer, Network, Request, SystemClock};
    use crate::report::tests::full;

    /// Two nodes, one of which gives its only key to the other just after that one has been listed. Nobody comes or
    /// goes.
    struct Moving {
        nodes: [Location; 2],
        /// The key is at the first of them.
        moved: Mutex<bool>,
    }

    impl Moving {
        fn answer(&self, at: &Location, request: &Request) -> Vec<u8> {
            let mut result = Vec::new();
            match request.method {
                "get_all" => write_answer(&self.nodes.to_vec(), &mut result),
                "service_types" => {
                    let types = ["diststore.Store", EXTENSION].map(str::to_owned);
                    write_answer(&types.to_vec(), &mut result);
                }
                "status" => write_answer(&full(at, 2), &mut result),
                _ => {
                    let list: List<'_> = read_arguments(&request.arguments).unwrap();
                    let mut moved = self.moved.lock().unwrap();
                    let first = *at == self.nodes[0];
                    let range = (digest(b"k") % u64::from(RANGES)) as u32;
                    let mine = list.range == range && *moved == first;
                    let listed = Listed {
                        key: b"k",
                        version: 1,
                        bytes: 5,
                    };
                    let keys = Some(listed).filter(|_| mine && list.most > 0);
                    let listing = Listing {
                        keys: keys.into_iter().collect(),
                        reached: None,
                        removed: u64::from(list.range == range && *moved && !first),
                        view: 9,
                        members: 2,
                    };
                    write_answer(&listing, &mut result);
                    *moved |= first && list.range == range && list.most > 0;
                }
            }
            result
        }
    }

    impl Network for Moving {
        fn call_all(&self, calls: &[(Location, Request)], _: Duration) -> Vec<Answer> {
            let answers = calls.iter();
            answers
                .map(|(at, request)| Ok(self.answer(at, request)))
                .collect()
        }

        fn forget(&self, _: &Location) {}
    }

    #[test]
    fn must_find_a_key_that_moves_between_two_looks() {
        let nodes = [1, 2].map(|port| Location::new("h", port).unwrap());
        let network = Arc::new(Moving {
            nodes: nodes.clone(),
            moved: Mutex::new(false),
        });
        let clock = Arc::new(SystemClock::new());
        let client = Client::connect_over(STORE, network.clone(), clock, &nodes).unwrap();
        let mut found = Vec::new();
        let all = client.keys(b"", &mut |keys, _| {
            found.extend(keys);
            Ok::<(), Error>(())
        });
        assert!(all.unwrap() && *network.moved.lock().unwrap());
        let key = Key {
            key: b"k".to_vec(),
            bytes: 5,
        };
        assert_eq!(found, [key]);
    }
}
