//! Whether a call in a node's name comes from that node.
//!
//! Anybody that reaches a port may call in the name of a member. So a node gives each node that it asks a *token*: a
//! number that it sends to that node's own name, and nowhere else. A call that brings it back is that node's. Any other
//! call in a node's name is a reason to ask that node, and nothing more.
//!
//! What is read or changed on its way between two nodes is not protected.

use md5::{Digest, Md5};

use crate::location::Location;
use crate::thrift_struct;

use super::{Member, Membership};

/// How many tokens of nodes are kept that are no members.
pub(super) const TOKENS_MAX: usize = 10_000;

/// The node that calls, as it says, and what shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// The node.
    pub me: Member,
    /// What the callee gave that node; 0: nothing yet.
    pub token: u64,
}
// The struct of idl/peer.thrift.
thrift_struct!(Caller { 1 me, 2 token });

/// A token that another node gave to this one.
#[derive(Debug, Clone, Copy)]
pub(super) struct Given {
    token: u64,
    /// It came in a call that was that node's.
    sure: bool,
}

impl Membership {
    /// This node, as it calls that one.
    pub fn caller(&self, to: &Location) -> Caller {
        Caller {
            me: self.me(),
            token: self.token_of(to),
        }
    }

    /// The token that node gave to this one; 0: none.
    pub fn token_of(&self, giver: &Location) -> u64 {
        self.tokens.get(giver).map_or(0, |given| given.token)
    }

    /// The token that this node gives to that one: the same as long as this process lives.
    pub(super) fn token_for(&self, to: &Location) -> u64 {
        let text = [&self.secret.to_ne_bytes(), to.name().as_bytes()].concat();
        let digest = Md5::digest(text);
        let first = digest.first_chunk().expect("BUG: a short digest");
        u64::from_ne_bytes(*first).max(1)
    }

    /// Whether the call is that of the node in whose name it comes.
    pub fn is_itself(&self, caller: &Caller) -> bool {
        caller.token == self.token_for(&caller.me.location)
    }

    /// Keeps the token that a caller gives. One that came in a call of the node itself isn't replaced by one that any
    /// program may have sent.
    pub(super) fn keep_token(&mut self, caller: &Caller, token: u64, sure: bool) {
        let giver = &caller.me.location;
        let peers = &self.peers;
        if self.tokens.len() >= peers.len() + TOKENS_MAX {
            self.tokens.retain(|giver, _| peers.contains_key(giver));
        }
        let known = self.tokens.get(giver);
        if token != 0 && (sure || known.is_none_or(|known| !known.sure)) {
            self.tokens.insert(giver.clone(), Given { token, sure });
        }
    }
}
