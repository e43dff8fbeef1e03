//! When a node that has become full may act as one: as a primary, a granter, or a replica that accepts puts.
//!
//! Another node was the primary of its keys before, or granted the lease for them, and may not have heard of it. Until it
//! has, its lease holds. So the node waits until each member that may be full has said that it knows. One that was lost
//! may still have a lease: a member that had it as a member itself, until it knew of this node, may have granted it.

use std::collections::BTreeSet;

use crate::location::Location;

use super::{LEASE_TICKS, Member, Membership, Peer};

/// What a node that has become full waits for.
#[derive(Debug, Default)]
pub(super) struct Takeover {
    /// The members that have not said that they have this node as full or leaving. Those that it had when it became full.
    unaware: BTreeSet<Location>,
    /// A member was lost in silence before all that was over.
    has_lost: bool,
    /// If so: at that tick the last lease has ended that it may have.
    leases_until: u64,
}

impl Membership {
    /// This node becomes full.
    pub(super) fn begin_takeover(&mut self) {
        let unaware = self.peers.keys().filter(|peer| self.may_be_full(peer));
        self.takeover.unaware = unaware.cloned().collect();
    }

    /// Whether a member is full or leaving, or may be without this node's knowing.
    fn may_be_full(&self, member: &Location) -> bool {
        let holds_all = |member: &Member| member.state.holds_all();
        let known = self.view.get(member).is_some_and(holds_all);
        let may = |peer: &Peer| peer.compared.is_some() || peer.done == Some(true);
        known || self.peers.get(member).is_some_and(may)
    }

    /// Whether a full or leaving node may act as one, and any other as what it is.
    pub fn has_taken_over(&self) -> bool {
        let Takeover {
            unaware,
            has_lost,
            leases_until,
        } = &self.takeover;
        !self.state().holds_all()
            || (unaware.is_empty() && (!has_lost || self.ticks >= *leases_until))
    }

    /// The members that are to be asked, as they may not know.
    pub(super) fn unaware(&self) -> impl Iterator<Item = &Location> {
        self.takeover.unaware.iter()
    }

    /// A member has said that it has this node as full or leaving; and whether it has the same members, so that it has lost
    /// the same ones. One that has lost a silent node has granted it no lease for longer than that lasts.
    pub(super) fn note_aware(&mut self, member: &Location, same_view: bool) {
        let heard = self.takeover.unaware.remove(member);
        if heard && !(self.takeover.has_lost && same_view) {
            self.wait_for_leases();
        }
    }

    /// A member is lost for silence. A lease that it has comes from another one: from one that goes, see
    /// [`Membership::note_gone`], or from one that stays, and will say that it knows.
    pub(super) fn note_silent(&mut self, member: &Location) {
        let takes_over = self.state().is_coming() || !self.has_taken_over();
        if takes_over && self.may_be_full(member) {
            self.takeover.has_lost = true;
        }
        if self.takeover.unaware.remove(member) {
            self.wait_for_leases();
        }
    }

    /// A member is lost for another cause, or has left. It may have granted a lease to a silent one just before.
    pub(super) fn note_gone(&mut self, member: &Location) {
        if self.takeover.unaware.remove(member) || self.state().is_coming() {
            self.wait_for_leases();
        }
    }

    /// Whether a member that may be full has been silent for more than a tick. A node that is coming in waits until it
    /// answers or is lost: as a full one it would have to wait for that as well, and could not serve meanwhile.
    pub(super) fn waits_for_a_silent_one(&self) -> bool {
        let silent = |peer: &Peer| peer.waiting.is_some_and(|(_, tick)| self.ticks - tick > 1);
        let mut peers = self.peers.iter();
        peers.any(|(name, peer)| silent(peer) && self.may_be_full(name))
    }

    fn wait_for_leases(&mut self) {
        self.takeover.leases_until = self.ticks + u64::from(LEASE_TICKS) + 1;
    }
}
