//! The pass: make sure that every holder has it, and drop what isn't mine.
//!
//! It runs in the mover after each change of the ring, before the goodbye, and, in the form of
//! *repair* (`repair.rs`), from time to time.
//!
//! After a change of the ring an item is the business of the first of its old holders that is still
//! there; a leaver, and a node that is no holder, look after all they have (`business.rs`). How an
//! item is handed over, and when it is forgotten, is in `offer.rs`.

use std::sync::atomic::Ordering;
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::Duration;

use crate::locator::{Member, REQUEST_TICKS, State, View};

use super::Store;
use super::business::{Business, Scope};

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
    /// Since when it tries to bring in what it had.
    returning: Option<Duration>,
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

    /// Gives what this node had when it was stopped or cut off to all holders, before it counts as full:
    ///
    /// ```text
    /// A (cut off, clock ahead)      B (full)
    ///   k removed, acknowledged
    ///   pulls from B, is full
    ///                               put k: acknowledged, below A's version
    ///   gives k away: removed
    /// ```
    ///
    /// True: they have it; or somebody doesn't take it, and has had as long as a request may take.
    pub(super) fn bring_in(&self) -> bool {
        let now = self.now();
        let since = {
            let mut moves = self.moves();
            moves.passed = None;
            moves.repair_due = true;
            *moves.returning.get_or_insert(now)
        };
        let late = now.saturating_sub(since) > self.locator.ticks(REQUEST_TICKS);
        let settled = self.pass(&self.locator.view(), Scope::Changed) == 0 || late;
        if settled {
            self.moves().returning = None;
        }
        settled
    }

    /// Hands everything over and says goodbye. Until it returns, this node goes on serving and
    /// forwarding. The answer is the number of keys that go with it, as nobody is left to take them.
    ///
    /// # Errors
    /// The number of keys that were not taken, though there was somebody.
    pub(super) fn hand_over(&self) -> Result<usize, usize> {
        let confirmed = match self.locator.begin_leaving() {
            true => self.hand_to_those_who_stay(),
            false => None,
        };
        self.locator.say_goodbye();
        // What came in meanwhile, from nodes that had not heard it yet; and these may take a moment
        // to agree on who holds it now.
        let end = self.now() + NO_PROGRESS_MAX;
        loop {
            let unconfirmed = self.pass(&self.locator.view(), Scope::All);
            if unconfirmed == 0 {
                return Ok(0);
            }
            // Asked after the goodbye: who comes to those that leave from now on has not heard of this
            // node, and misses nothing here.
            let alone = self.locator.is_left_alone();
            if alone || self.now() >= end {
                // Who took everything may have gone too by now.
                let nothing_new = confirmed == Some(self.changes.load(Ordering::Relaxed))
                    && !self.originals_alone_own_some();
                return if nothing_new || !self.locator.has_counted() {
                    Ok(0)
                } else if alone {
                    Ok(unconfirmed)
                } else {
                    Err(unconfirmed)
                };
            }
            self.pause(self.locator.ticks(1) / 10);
        }
    }

    /// Whether there are keys that nobody but an original is to have when this node has gone. It takes them
    /// after the goodbye, so nobody has confirmed them before.
    fn originals_alone_own_some(&self) -> bool {
        let view = self.locator.view();
        let ours =
            |member: &Member| member.is_ours() && member.location != *self.locator.location();
        let copies = self.locator.replicas() > 1 && view.members().iter().any(ours);
        view.members().iter().any(|member| !member.is_ours()) && !copies
    }

    /// Repeats the pass until all is with those who stay; the answer is the number of changes that this
    /// includes. `None`: nobody takes it.
    fn hand_to_those_who_stay(&self) -> Option<u64> {
        let mut least = usize::MAX;
        let mut progress = self.now();
        let mut taker = self.now();
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
                return Some(changes);
            }
            let now = self.now();
            if unconfirmed < least {
                (least, progress) = (unconfirmed, now);
            }
            let takes = |member: &Member| !matches!(member.state, State::Leaving | State::Gone);
            if view.members().iter().any(takes) {
                taker = now;
            }
            if self.locator.is_left_alone() {
                return None;
            }
            // A newcomer that only another leaver knew, which doesn't answer any more, is about to ask.
            let nobody = now.saturating_sub(taker) > self.locator.ticks(4);
            if nobody || now.saturating_sub(progress) > NO_PROGRESS_MAX {
                return None;
            }
            self.pause(self.locator.ticks(1) / 10);
        }
    }

    /// Offers items to their holders, and drops those that aren't this node's once all have them.
    /// The answer is the number of items for which not all holders have answered so.
    fn pass(&self, view: &Arc<View>, scope: Scope) -> usize {
        let before = self.moves().passed.clone();
        let (me, replicas) = (self.locator.location(), self.locator.replicas());
        // A tombstone is handed over like any item. Who is only out of reach may have what was removed
        // here.
        let drops_tombstones = scope == Scope::All && !self.locator.has_lost();
        let before = before.as_deref();
        let mut business = Business::new(view, before, scope, replicas, me, drops_tombstones);
        self.offer_those(view, false, |record| business.with(record))
    }
}
