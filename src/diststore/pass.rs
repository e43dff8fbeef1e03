//! The pass: make sure that every holder has it, and drop what isn't mine.
//!
//! It runs in the mover after each change of the ring, before the goodbye, and, in the form of
//! *repair*, from time to time. An item is first offered, key and version alone; who lacks it asks
//! for the value. It is forgotten here only under the lock of its shard, after a second look at its
//! version and at the ring.
//!
//! After a change of the ring an item is the business of the first of its old holders that is still
//! there; a leaver, and a node that is no holder, look after all they have. Repair compares digests
//! shard by shard with each other node, and offers what differs.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::Duration;

use crate::location::Location;
use crate::locator::{Item, ItemList, Member, State, View, fnv1a, request};
use crate::net::{CallError, Request};

use super::calls::{self, Taken};
use super::items::SHARDS;
use super::{BATCH_BYTES, Store};

/// Items that are offered at once.
const OFFER_MAX: usize = 4096;

/// Ticks between two repairs.
const REPAIR_TICKS: u32 = 60;

/// A leaver whose keys nobody has taken for so long gives up.
const NO_PROGRESS_MAX: Duration = Duration::from_secs(10);

/// What the mover knows of its own work.
#[derive(Debug, Default)]
pub(super) struct Moves {
    /// The view by which every item was last seen to be where it should be.
    pub passed: Option<Arc<View>>,
    /// Items that the last pass left unconfirmed.
    pub unconfirmed: usize,
    repaired: Duration,
    /// This node has filled again, with what it had before: nobody has compared that yet.
    pub repair_due: bool,
}

/// Which items a pass looks after.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scope {
    /// Those whose holders have changed and that are this node's business.
    Changed,
    /// All of them.
    All,
}

/// An item and the nodes that should say that they have it.
struct Offered {
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

impl Store {
    pub(super) fn moves(&self) -> MutexGuard<'_, Moves> {
        self.moves.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The mover's work, as far as there is any; to be called after each change of the view and at
    /// the interval of the ticks, by one thread. Can take long.
    pub(super) fn work_through(&self) {
        self.locator.fill(self);
        self.locator.look_after_originals();
        if self.pass_is_due() && self.locator.me().state == State::Full {
            self.pass_changed();
        }
        let repair_interval = self.locator.ticks(REPAIR_TICKS);
        let now = self.now();
        let due = {
            let moves = self.moves();
            moves.repair_due || now.saturating_sub(moves.repaired) >= repair_interval
        };
        if due && self.locator.me().state == State::Full {
            self.moves().repaired = now;
            let view = self.locator.view();
            if self.repair(&view) && self.locator.view().epoch() == view.epoch() {
                self.moves().repair_due = false;
            }
        }
        self.sum_up();
    }

    pub(super) fn pass_is_due(&self) -> bool {
        let epoch = self.locator.view().epoch();
        let passed = self.moves().passed.as_ref().map(|view| view.epoch());
        passed != Some(epoch) || self.untidy.load(Ordering::Relaxed)
    }

    fn pass_changed(&self) {
        self.untidy.store(false, Ordering::Relaxed);
        let view = self.locator.view();
        let unconfirmed = self.pass(&view, Scope::Changed);
        let mut moves = self.moves();
        moves.unconfirmed = unconfirmed;
        if unconfirmed == 0 {
            moves.passed = Some(view);
        } else {
            // Even if this view had been passed before: what was untidy then still is.
            self.mark_untidy();
        }
    }

    /// Whether something is to be moved, or may have to be.
    pub(super) fn is_due(&self) -> bool {
        self.pass_is_due() || self.moves().repair_due
    }

    /// Hands everything over and says goodbye. Until it returns, this node goes on serving and
    /// forwarding.
    ///
    /// # Errors
    /// The number of keys that nobody has taken.
    pub(super) fn hand_over(&self) -> Result<(), usize> {
        self.locator.begin_leaving();
        let mut least = usize::MAX;
        let mut progress = self.now();
        let mut taker = self.now();
        let mut confirmed = None;
        loop {
            let view = self.locator.view();
            let changes = self.changes.load(Ordering::Relaxed);
            let unconfirmed = self.pass(&view, Scope::All);
            // A newcomer that has taken everything here may still lack what others had, and could not
            // ask anybody if this were the last one that is not new.
            let full = |member: &Member| matches!(member.state, State::Full | State::Original);
            if unconfirmed == 0
                && (view.members().iter().any(full) || view.members().len() == 1)
                && self.locator.all_are_known()
                && self.locator.view().epoch() == view.epoch()
            {
                confirmed = Some(changes);
                break;
            }
            let now = self.now();
            if unconfirmed < least {
                (least, progress) = (unconfirmed, now);
            }
            let takes = |member: &Member| !matches!(member.state, State::Leaving | State::Gone);
            if view.members().iter().any(takes) {
                taker = now;
            }
            // A newcomer that only another leaver knew is about to ask.
            let nobody = now.saturating_sub(taker) > self.locator.ticks(4);
            if nobody || now.saturating_sub(progress) > NO_PROGRESS_MAX {
                break;
            }
            self.pause(self.locator.ticks(1) / 10);
        }
        self.locator.say_goodbye();
        // What came in meanwhile, from nodes that had not heard it yet; and these may take a moment
        // to agree on who holds it now.
        let end = self.now() + NO_PROGRESS_MAX;
        loop {
            let unconfirmed = self.pass(&self.locator.view(), Scope::All);
            if unconfirmed == 0 {
                return Ok(());
            }
            if self.now() >= end || self.locator.view().members().is_empty() {
                // Who took everything may have gone too by now.
                let nothing_new = confirmed == Some(self.changes.load(Ordering::Relaxed));
                return if nothing_new || !self.locator.has_counted() {
                    Ok(())
                } else {
                    Err(unconfirmed)
                };
            }
            self.pause(self.locator.ticks(1) / 10);
        }
    }

    /// Offers items to their holders, and drops those that aren't this node's once all have them.
    /// The answer is the number of items for which not all holders have answered so.
    fn pass(&self, view: &Arc<View>, scope: Scope) -> usize {
        let before = self.moves().passed.clone();
        let mut batch = Vec::new();
        let mut unconfirmed = 0;
        for shard in 0..SHARDS {
            self.items.each(shard, |key, version, value| {
                // A tombstone is handed over like any item; but nobody misses it if nobody is left.
                let nobody_needed = value.is_empty() && scope == Scope::All;
                batch.extend(self.business(
                    view,
                    before.as_deref(),
                    scope,
                    key,
                    version,
                    nobody_needed,
                ));
            });
            while batch.len() >= OFFER_MAX || (shard + 1 == SHARDS && !batch.is_empty()) {
                let rest = batch.split_off(batch.len().min(OFFER_MAX));
                unconfirmed += self.offer(view, batch);
                batch = rest;
            }
        }
        unconfirmed
    }

    /// What has to be done about an item, if it is this node's business.
    fn business(
        &self,
        view: &View,
        before: Option<&View>,
        scope: Scope,
        key: &[u8],
        version: i64,
        nobody_needed: bool,
    ) -> Option<Offered> {
        let me = self.locator.location();
        let replicas = self.locator.replicas();
        let holders = view.holders(key, replicas);
        let is_me = |member: &&Member| member.location == *me;
        let keep = holders.iter().any(is_me) && scope == Scope::Changed;
        if keep && let Some(before) = before {
            let old = before.holders(key, replicas);
            let there = |member: &&&Member| {
                let now = view.get(&member.location);
                now.is_some_and(Member::is_complete)
            };
            let first = old.iter().find(there);
            let same = old.len() == holders.len()
                && old
                    .iter()
                    .zip(&holders)
                    .all(|(old, now)| old.location == now.location);
            if same || first.is_some_and(|first| !is_me(first)) {
                return None;
            }
        }
        // A node that is leaving takes nothing; one that is filling comes for it by itself, and has
        // to say that it has it only before it is forgotten here.
        let takes = |member: &&&Member| match member.state {
            State::Leaving => false,
            State::Filling => !keep && !is_me(member),
            State::Full | State::Gone | State::Original => !is_me(member),
        };
        let targets = holders.iter().filter(takes);
        let targets: Vec<_> = targets
            .filter_map(|member| view.place(&member.location))
            .collect();
        // What an original is to own it takes after the goodbye: before, it would hand it back.
        let leaving = before_goodbye(view, me);
        let original = || view.members().iter().any(|member| !member.is_ours());
        if targets.is_empty() && (keep || nobody_needed || (leaving && original())) {
            return None;
        }
        Some(Offered {
            key: key.to_vec(),
            version,
            digest: None,
            targets,
            held: 0,
            keep,
        })
    }

    /// One batch of a pass; see [`Store::pass`].
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
        let mut unconfirmed = 0;
        for offered in batch {
            if offered.held < offered.targets.len() || offered.targets.is_empty() {
                unconfirmed += 1;
            } else if !offered.keep {
                let same_ring = || self.locator.view().epoch() == view.epoch();
                // A leaver keeps its copies, as it is still the primary of what it has.
                let leaving = self.locator.me().state == State::Leaving;
                if !leaving && self.items.remove(&offered.key, offered.version, same_ring) {
                    self.note(|lines| &mut lines.dropped, "dropped", &offered.key);
                } else if !leaving && self.items.version(&offered.key) > 0 {
                    unconfirmed += 1;
                }
            }
        }
        unconfirmed
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
                    let sent = self.items.read(key, |version, value| {
                        // Maybe later than what was offered: the holder then has more than that.
                        list.push(&Item {
                            key,
                            version,
                            value: Some(value),
                            digest: None,
                        });
                    });
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
        let value = self.items.read(&offered.key, |_, value| value.to_vec());
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
            for (shard, digest) in own.iter().enumerate() {
                if theirs.get(shard) != Some(digest) {
                    let mut batch = Vec::new();
                    self.each_shared(view, shard, &other.location, |key, version, value| {
                        let key = key.to_vec();
                        batch.push(Offered {
                            key,
                            version,
                            digest: Some(fnv1a(value)),
                            targets: vec![place],
                            held: 0,
                            keep: true,
                        });
                    });
                    done &= self.offer(view, batch) == 0;
                }
            }
        }
        // What lies here and isn't this node's.
        self.mark_untidy();
        done
    }

    /// For each shard, a number that tells whether two nodes have the same of what both should
    /// hold, as far as `view` says.
    pub(super) fn digests(&self, view: &View, other: &Location) -> Vec<u64> {
        let digest = |shard| {
            let mut digest = 0_u64;
            self.each_shared(view, shard, other, |key, version, value| {
                let version = version.to_be_bytes();
                let bytes = key.iter().chain(&version).chain(value);
                digest = digest.wrapping_add(fnv1a(bytes));
            });
            digest
        };
        (0..SHARDS).map(digest).collect()
    }

    /// The items of a shard of which this node and another are both holders.
    fn each_shared(
        &self,
        view: &View,
        shard: usize,
        other: &Location,
        mut take: impl FnMut(&[u8], i64, &[u8]),
    ) {
        let me = self.locator.location();
        self.items.each(shard, |key, version, value| {
            let holders = view.holders(key, self.locator.replicas());
            let holds =
                |location: &Location| holders.iter().any(|holder| holder.location == *location);
            if holds(me) && holds(other) {
                take(key, version, value);
            }
        });
    }
}

/// Whether this node is leaving but still a member.
fn before_goodbye(view: &View, me: &Location) -> bool {
    view.get(me).is_some_and(|me| me.state == State::Leaving)
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
