//! Repair: comparing what two nodes have of what both should hold.

use std::sync::Arc;

use crate::location::Location;
use crate::locator::{View, fnv1a, request};

use super::Store;
use super::calls;
use super::items::SHARDS;
use super::table::Record;

/// Digests that are compared: more cost bytes, fewer make what differs hide among more that doesn't.
const RANGES: usize = 256;

/// The same on every node.
fn range_of(record: &Record) -> usize {
    fnv1a(record.key()) as usize % RANGES
}

impl Store {
    /// Compares what this node and each other one hold in common, and offers what differs. True: all
    /// have answered and taken it.
    pub(super) fn repair(&self, view: &Arc<View>) -> bool {
        let mut done = true;
        let others: Vec<_> = {
            let ours = view
                .members()
                .iter()
                .enumerate()
                .filter(|(_, member)| member.is_complete());
            ours.filter(|(_, member)| member.location != *self.locator.location())
                .collect()
        };
        let ask = crate::locator::write_location(self.locator.location());
        let ask = request("digests", ask);
        for (place, other) in others {
            let limit = self.locator.ticks(4);
            let answer = self.locator.call_member(&other.location, &ask, limit);
            let Ok(theirs) = answer.and_then(|result| calls::read_digests(&result)) else {
                done = false;
                continue;
            };
            let own = self.digests(view, &other.location);
            if own == theirs {
                continue;
            }
            let shared = self.shared(view, &other.location);
            let compared = true;
            let unconfirmed = self.offer_those(view, compared, |record| {
                let differs = |range| theirs.get(range) != Some(&own[range]);
                let offered = shared(record) && differs(range_of(record));
                offered.then(|| (vec![place], true))
            });
            done &= unconfirmed == 0;
        }
        // What lies here and isn't this node's.
        self.mark_untidy();
        done
    }

    /// For each range of keys, a number that tells whether two nodes have the same of what both
    /// should hold, as far as `view` says.
    pub(super) fn digests(&self, view: &View, other: &Location) -> Vec<u64> {
        let shared = self.shared(view, other);
        let mut digests = vec![0_u64; RANGES];
        for shard in 0..SHARDS {
            let shared = |record: &Record| shared(record).then_some(());
            self.items.each(shard, shared, |record, ()| {
                let version = record.version().to_be_bytes();
                let bytes = record.key().iter().chain(&version).chain(record.value());
                let digest = &mut digests[range_of(record)];
                *digest = digest.wrapping_add(fnv1a(bytes));
            });
        }
        digests
    }

    /// Whether this node and another are both holders of an item.
    fn shared(&self, view: &View, other: &Location) -> impl Fn(&Record) -> bool {
        let places = [self.locator.location(), other].map(|location| view.place(location));
        move |record| {
            let [Some(me), Some(other)] = places else {
                return false;
            };
            let holders = view.holders_at(record.ring_hash(), self.locator.replicas());
            holders
                .filter(|holder| [me, other].contains(holder))
                .count()
                == 2
        }
    }
}
