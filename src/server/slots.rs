//! Which connections get in near the limit: some slots are kept for the other nodes of the network.
//!
//! A node is known by its address alone, as whatever a message says can be forged. Each has [`EACH`] slots; where
//! that would be more than half of all for all nodes together, the half is shared out, and each has one at least.
//! Connections from a node's address beyond its slots count as anybody's. Invariants, as long as a new node's slots
//! have become free:
//!
//! * a connection within a node's slots finds room, and is not closed for others;
//! * anybody else finds room in half of all slots.
//!
//! A client that has the same address as a node may take its slots.

use std::collections::HashMap;
use std::net::IpAddr;

/// Slots that are kept for a node: one for its questions, one for those that it puts to silent nodes, one for what
/// moves items, and one for the requests that it forwards.
const EACH: usize = 4;

/// How the slots are shared out.
#[derive(Debug, Default)]
pub(super) struct Slots {
    all: usize,
    /// How many are out of reach for others.
    kept: usize,
    /// How many each address has.
    of: HashMap<IpAddr, usize>,
}

impl Slots {
    /// `nodes` are the addresses of the other nodes, one for each node.
    pub fn new(all: usize, nodes: &[IpAddr]) -> Self {
        let half = all / 2;
        let each = half.checked_div(nodes.len()).unwrap_or(0).clamp(1, EACH);
        let mut of = HashMap::new();
        for node in nodes {
            *of.entry(node.to_canonical()).or_default() += each;
        }
        Slots {
            all,
            kept: half.min(each * nodes.len()),
            of,
        }
    }

    /// How many slots are kept for an address.
    pub fn of(&self, address: IpAddr) -> usize {
        self.of.get(&address).copied().unwrap_or(0)
    }

    /// What `all` connections leave, of which so many come `by` each address.
    pub fn taken<'a>(&'a self, by: &'a HashMap<IpAddr, usize>, all: usize) -> Taken<'a> {
        let nodes = self.of.iter();
        let kept = nodes.map(|(node, own)| by.get(node).map_or(0, |taken| *own.min(taken)));
        Taken {
            slots: self,
            by,
            all,
            others: all - kept.sum::<usize>(),
        }
    }
}

/// How many slots are taken.
pub(super) struct Taken<'a> {
    slots: &'a Slots,
    by: &'a HashMap<IpAddr, usize>,
    all: usize,
    /// Other ones than a node's own.
    others: usize,
}

impl Taken<'_> {
    /// Whether an address has less than what is kept for it.
    pub fn is_owed(&self, address: IpAddr) -> bool {
        self.by(address) < self.slots.of(address)
    }

    /// Whether there is room for one more connection from there.
    pub fn has_room(&self, address: IpAddr) -> bool {
        let for_others = self.slots.all - self.slots.kept;
        self.all < self.slots.all && (self.is_owed(address) || self.others < for_others)
    }

    /// Whether a connection from there, one of those that were counted, may be closed for others.
    pub fn may_close(&self, address: IpAddr) -> bool {
        self.slots.of(address) == 0 || self.by(address) > self.slots.of(address)
    }

    fn by(&self, address: IpAddr) -> usize {
        self.by.get(&address).copied().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(number: u8) -> IpAddr {
        [127, 0, 0, number].into()
    }

    #[test]
    fn must_keep_four_for_each_node_and_no_more_than_half() {
        let of = |all, nodes: &[u8]| {
            let nodes: Vec<_> = nodes.iter().map(|node| address(*node)).collect();
            let slots = Slots::new(all, &nodes);
            (slots.kept, slots.of(address(1)))
        };
        assert_eq!(of(100, &[]), (0, 0));
        assert_eq!(of(100, &[1, 2]), (8, 4));
        assert_eq!(of(100, &[1, 2, 1]), (12, 8), "two nodes at one address");
        assert_eq!(of(8, &[1, 2]), (4, 2));
        assert_eq!(of(9, &[1]), (4, 4));
        assert_eq!(of(4, &[1, 2, 3]), (2, 1), "one at least");
        assert_eq!(of(1, &[1]), (0, 1));
    }

    #[test]
    fn must_tell_which_connection_finds_room_and_which_may_be_closed() {
        let [node, other, client] = [1, 2, 9].map(address);
        let slots = Slots::new(8, &[node, other]);
        let taken = |addresses: &[IpAddr]| {
            let mut by = HashMap::new();
            let count = |address: &IpAddr| *by.entry(*address).or_default() += 1;
            addresses.iter().for_each(count);
            let taken = slots.taken(&by, addresses.len());
            let room = [node, other, client].map(|address| taken.has_room(address));
            let close = [node, other, client].map(|address| taken.may_close(address));
            (room, close)
        };
        let clients = [client; 4];
        let (room, close) = taken(&clients);
        assert_eq!(room, [true, true, false]);
        assert_eq!(close, [false, false, true]);
        let (room, close) = taken(&[&clients[..], &[node, node]].concat());
        assert_eq!(room, [false, true, false], "its own are taken");
        assert_eq!(close, [false, false, true]);
        let (room, close) = taken(&[&clients[1..], &[node, node, node]].concat());
        assert_eq!(room, [false, true, false]);
        assert_eq!(close, [true, false, true], "it has more than its own");
        let (room, _) = taken(&[&clients[..], &clients[..]].concat());
        assert_eq!(room, [false; 3], "full, though it is owed some");
    }

    #[test]
    fn must_know_an_address_in_both_forms() {
        let mapped = "::ffff:127.0.0.1".parse().unwrap();
        assert_eq!(Slots::new(8, &[mapped]).of(address(1)), 4);
    }
}
