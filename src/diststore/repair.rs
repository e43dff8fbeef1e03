//! Repair: comparing what two nodes have of what both should hold.

use std::sync::Arc;

use crate::location::Location;
use crate::locator::{View, fnv1a, request};

use super::Store;
use super::calls;
use super::items::SHARDS;
use super::offer::Offered;

/// Digests that are compared: more cost bytes, fewer make what differs hide among more that doesn't.
const RANGES: usize = 256;

fn shards_of(range: usize) -> impl Iterator<Item = usize> {
    (range..SHARDS).step_by(RANGES)
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
            for (range, digest) in own.iter().enumerate() {
                if theirs.get(range) == Some(digest) {
                    continue;
                }
                let mut batch = Vec::new();
                for shard in shards_of(range) {
                    self.each_shared(view, shard, &other.location, |key, version, value| {
                        let key = key.to_vec();
                        batch.push(Offered {
                            shard,
                            key,
                            version,
                            digest: Some(fnv1a(value)),
                            targets: vec![place],
                            held: 0,
                            keep: true,
                        });
                    });
                }
                done &= self.offer(view, batch) == 0;
            }
        }
        // What lies here and isn't this node's.
        self.mark_untidy();
        done
    }

    /// For each range of shards, a number that tells whether two nodes have the same of what both
    /// should hold, as far as `view` says.
    pub(super) fn digests(&self, view: &View, other: &Location) -> Vec<u64> {
        let digest = |range| {
            let mut digest = 0_u64;
            for shard in shards_of(range) {
                self.each_shared(view, shard, other, |key, version, value| {
                    let version = version.to_be_bytes();
                    let bytes = key.iter().chain(&version).chain(value);
                    digest = digest.wrapping_add(fnv1a(bytes));
                });
            }
            digest
        };
        (0..RANGES).map(digest).collect()
    }

    /// The items of a shard of which this node and another are both holders.
    fn each_shared(
        &self,
        view: &View,
        shard: usize,
        other: &Location,
        mut take: impl FnMut(&[u8], i64, &[u8]),
    ) {
        let me = view.place(self.locator.location());
        let (Some(me), Some(other)) = (me, view.place(other)) else {
            return;
        };
        self.items.each(shard, |key, version, value| {
            let holders = view.holders_at(view.hash(key), self.locator.replicas());
            let shared = holders.filter(|holder| [me, other].contains(holder));
            if shared.count() == 2 {
                take(key, version, value);
            }
        });
    }
}
