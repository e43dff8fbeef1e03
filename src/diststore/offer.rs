//! Making sure that holders have what they should, batch by batch, and forgetting what they have.
//!
//! An item is first offered, key and version alone; who lacks it asks for the value. It is forgotten
//! here only under the lock of its shard, after a second look at its version and at the ring.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::locator::{Item, ItemList, Member, State, View, fnv1a, give_way, request};
use crate::net::{CallError, Request};

use super::calls::{self, Taken};
use super::items::SHARDS;
use super::table::Record;
use super::{BATCH_BYTES, Store};

/// An item and the nodes that should say that they have it.
struct Offered {
    shard: usize,
    key: Vec<u8>,
    version: i64,
    /// Of the value, where it may differ from another one of the same version.
    digest: Option<u64>,
    /// Places among the view's members.
    targets: Vec<usize>,
    /// How many of them have said so.
    held: usize,
    /// This node is a holder too.
    keep: bool,
}

/// Items that are offered at once.
const OFFER_MAX: usize = 4096;

impl Store {
    /// Offers those of all items for which `choose` says who should say that they have them, places among
    /// the view's members, and whether this node keeps them. The answer is the number of those for
    /// which not all have said so. `by_value`: a holder's value of the same version may differ.
    pub(super) fn offer_those(
        &self,
        view: &Arc<View>,
        by_value: bool,
        mut choose: impl FnMut(&Record) -> Option<(Vec<usize>, bool)>,
    ) -> usize {
        let mut batch = Vec::new();
        let mut unconfirmed = 0;
        for shard in 0..SHARDS {
            let mut looked_at_some = false;
            let choose = |record: &Record| {
                looked_at_some = true;
                choose(record)
            };
            self.items.each(shard, choose, |record, (targets, keep)| {
                batch.push(Offered {
                    shard,
                    key: record.key().to_vec(),
                    version: record.version(),
                    digest: by_value.then(|| fnv1a(record.value())),
                    targets,
                    held: 0,
                    keep,
                });
            });
            if looked_at_some {
                give_way(0);
            }
            while batch.len() >= OFFER_MAX || (shard + 1 == SHARDS && !batch.is_empty()) {
                let rest = batch.split_off(batch.len().min(OFFER_MAX));
                unconfirmed += self.offer(view, batch);
                batch = rest;
            }
        }
        unconfirmed
    }

    /// Offers a batch, in the order of its shards. The answer is the number of items for which not all
    /// holders have answered that they have them.
    ///
    /// What a node has that knows other members than this one counts as not confirmed, until the two
    /// agree. Without that a newcomer would have to pull from everybody twice:
    ///
    /// ```text
    /// N (new)              X                     L (leaving, doesn't know N)
    ///   pull -------------> takes N in
    ///     <---- nothing yet
    ///                         <---- offer k, v
    ///     <------------------------------------- goodbye
    /// ```
    fn offer(&self, view: &Arc<View>, mut batch: Vec<Offered>) -> usize {
        let mut unsure = BTreeSet::new();
        let mut wanted = self.offer_versions(view, &mut batch, &mut unsure);
        self.send_values(view, &mut batch, &mut wanted, &mut unsure);
        let unsure = unsure.into_iter();
        let unsure: Vec<_> = unsure
            .map(|place| view.members()[place].location.clone())
            .collect();
        self.locator.compare_with(&unsure);
        let of_shards = batch.chunk_by(|one, next| one.shard == next.shard);
        of_shards.map(|items| self.forget(view, items)).sum()
    }

    /// Forgets those of some items of one shard that all holders have and this node isn't to keep. The
    /// answer is the number of those that not all have.
    fn forget(&self, view: &Arc<View>, items: &[Offered]) -> usize {
        let confirmed = |item: &&Offered| item.held > 0 && item.held >= item.targets.len();
        let confirmed = items.iter().filter(confirmed);
        let unconfirmed = items.len() - confirmed.clone().count();
        // A leaver keeps its copies, as it is still the primary of what it has.
        if self.locator.me().state == State::Leaving {
            return unconfirmed;
        }
        let done = confirmed.filter(|item| !item.keep);
        let done: Vec<_> = done.map(|item| (&item.key[..], item.version)).collect();
        let same_ring = || self.locator.view().epoch() == view.epoch();
        let forgotten = match items {
            [] => Vec::new(),
            [first, ..] => self.items.remove(first.shard, &done, same_ring),
        };
        give_way(0);
        let mut changed = 0;
        for ((key, _), forgotten) in done.into_iter().zip(forgotten) {
            if forgotten {
                self.note(|lines| &mut lines.dropped, "dropped", key);
            } else {
                changed += usize::from(self.items.version(key) > 0);
            }
        }
        unconfirmed + changed
    }

    /// Asks each target which versions it has. The answer: who wants which items of the batch.
    fn offer_versions(
        &self,
        view: &View,
        batch: &mut [Offered],
        unsure: &mut BTreeSet<usize>,
    ) -> BTreeMap<usize, Vec<usize>> {
        let mut by_target: BTreeMap<usize, (Vec<usize>, ItemList)> = BTreeMap::new();
        for (number, offered) in batch.iter().enumerate() {
            for target in &offered.targets {
                let (numbers, list) = by_target.entry(*target).or_default();
                numbers.push(number);
                list.push(&Item {
                    key: &offered.key,
                    version: offered.version,
                    value: None,
                    digest: offered.digest,
                });
            }
        }
        let mut wanted: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        let mut calls = Vec::new();
        let mut asked = Vec::new();
        for (target, (numbers, list)) in by_target {
            let member = &view.members()[target];
            if member.is_ours() {
                calls.push((member.location.clone(), offer_request(view, &list)));
                asked.push((target, numbers));
            } else {
                for number in numbers {
                    self.offer_to_original(member, &mut batch[number]);
                }
            }
        }
        let limit = self.locator.ticks(4);
        for ((target, numbers), answer) in asked
            .into_iter()
            .zip(self.locator.call_members(&calls, limit))
        {
            for (number, taken) in numbers.into_iter().zip(said(answer)) {
                match taken {
                    Taken::Held => batch[number].held += 1,
                    Taken::Wanted => wanted.entry(target).or_default().push(number),
                    // Not that one's, or no longer: then it knows others than this node.
                    Taken::Unsure | Taken::NotMine => {
                        unsure.insert(target);
                    }
                }
            }
        }
        wanted
    }

    /// Sends the values that are wanted: about a megabyte to a request, all requests at once.
    fn send_values(
        &self,
        view: &View,
        batch: &mut [Offered],
        wanted: &mut BTreeMap<usize, Vec<usize>>,
        unsure: &mut BTreeSet<usize>,
    ) {
        while !wanted.is_empty() {
            let mut calls = Vec::new();
            let mut sent = Vec::new();
            wanted.retain(|target, numbers| {
                let mut list = ItemList::default();
                let mut count = 0;
                for number in numbers.iter() {
                    if list.bytes() >= BATCH_BYTES {
                        break;
                    }
                    let key = &batch[*number].key;
                    // Maybe later than what was offered: the holder then has more than that.
                    let sent = self.items.read(key, |record| list.push(&record.item()));
                    if sent.is_none() {
                        // Forgotten meanwhile: asked for once more, so that answers fit questions.
                        let version = batch[*number].version;
                        list.push(&Item {
                            key,
                            version,
                            value: None,
                            digest: None,
                        });
                    }
                    count += 1;
                }
                let rest = numbers.split_off(count);
                calls.push((
                    view.members()[*target].location.clone(),
                    offer_request(view, &list),
                ));
                sent.push((*target, std::mem::replace(numbers, rest)));
                !numbers.is_empty()
            });
            let limit = self.locator.ticks(4);
            for ((target, numbers), answer) in sent
                .into_iter()
                .zip(self.locator.call_members(&calls, limit))
            {
                for (number, taken) in numbers.into_iter().zip(said(answer)) {
                    match taken {
                        Taken::Held => batch[number].held += 1,
                        Taken::Unsure => {
                            unsure.insert(target);
                        }
                        Taken::NotMine | Taken::Wanted => {}
                    }
                }
            }
        }
    }

    /// Gives an original what is its own now, and reads it back.
    fn offer_to_original(&self, original: &Member, offered: &mut Offered) {
        self.locator.ask_kind(&original.location);
        let now = self.locator.view().get(&original.location).cloned();
        let value = self
            .items
            .read(&offered.key, |record| record.value().to_vec());
        let (Some(original), Some(value)) = (now.filter(|now| !now.is_ours()), value) else {
            return;
        };
        // One that leaves hands its keys over itself, and has later values than the copies here.
        if self.locator.originals_are_leaving() {
            return;
        }
        // The empty value is its word for a missing key.
        if value.is_empty() {
            offered.held += 1;
            return;
        }
        let mut found = self.get_from_original(&original, &offered.key);
        if found.as_ref().is_ok_and(Vec::is_empty)
            && self
                .put_at_original(&original.location, &offered.key, &value, &|| ())
                .is_ok()
        {
            found = self.get_from_original(&original, &offered.key);
        }
        match found {
            Ok(found) if found == value => offered.held += 1,
            // Put there by others: what is here is the older one, as it was never told.
            Ok(found) if !found.is_empty() => {
                let version = self.next_version(offered.version);
                self.items.merge(&offered.key, version, &found);
            }
            _ => {}
        }
    }
}

fn offer_request(view: &View, list: &ItemList) -> Request {
    request(
        "offer",
        calls::write_offer(view.names(), |out| list.write(out)),
    )
}

/// What a node said to the items it was offered; nothing, if it didn't answer.
fn said(answer: Result<Vec<u8>, CallError>) -> Vec<Taken> {
    answer
        .and_then(|result| calls::read_taken(&result))
        .unwrap_or_default()
}
