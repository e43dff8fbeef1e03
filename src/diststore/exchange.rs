//! How items move: one node says what it has, the other what it lacks.
//!
//! Two replicas compare digests, shard by shard, of what both should hold, and exchange what differs. A node offers
//! items that it need not hold to their replicas, and forgets each once all replicas have it. Both end in `store`,
//! which takes each item under its own list.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;

use crate::location::Location;
use crate::locator::{give_way, read_answer, read_arguments};
use crate::membership::{Member, State, View};
use crate::net::room::hold;
use crate::net::{Answer, CallError, Event};
use crate::ring;
use crate::thrift::Exception;

use super::Store;
use super::batch::Large;
use super::calls::{
    Exchanged, Item, ItemList, Part, StoreAnswer, Taken, store_request, write_exchanged,
};
use super::items::{NoRoom, SHARDS};
use super::table::Record;

/// A batch is closed when it has this many bytes: it has less than twice as many, or one large item more.
pub(super) const BATCH_BYTES: usize = 256 << 10;

/// Keys that are compared, or listed, at a time.
pub(super) const KEYS_MAX: usize = 2000;

/// Parts that are under way at once.
const PARTS_MAX: usize = 16;

/// Items that are taken in under one lock.
const TAKEN_MAX: usize = 64;

/// A part of a shard that is to be compared.
struct Open {
    shard: u32,
    /// Behind this key.
    after: Option<Vec<u8>>,
}

/// Whether there has been no room for an item in an exchange.
#[derive(Default)]
struct NoRoomFor {
    /// Nothing more is taken in, nor asked for.
    me: bool,
    /// Nothing more is sent.
    other: bool,
}

/// What this node says that it has of a part.
struct Offer {
    /// The last key, if there are more.
    upto: Option<Vec<u8>>,
    keys: Vec<Vec<u8>>,
    list: ItemList,
}

/// An item that others are to have before it is forgotten here.
struct Stray {
    key: Vec<u8>,
    version: i64,
    digest: u64,
    hash: u32,
    /// Of the list of its replicas.
    list: u64,
    /// Places among the view's members.
    replicas: Vec<usize>,
    /// How many of them have it.
    held: usize,
    /// It stays here as well: this node keeps a copy of an item that an original owns.
    keep: bool,
}

impl Store {
    /// Whether both this node and another are replicas of an item.
    fn shares(&self, view: &View, other: &Location) -> impl Fn(&Record) -> bool {
        let places = [self.locator.location(), other].map(|location| view.place(location));
        move |record| {
            let [Some(me), Some(other)] = places else {
                return false;
            };
            let list = view.list(record.ring_hash(), self.locator.replicas());
            list.filter(|place| [me, other].contains(place)).count() == 2
        }
    }

    /// For each of the others a digest for each shard, of what it and this node should hold.
    pub(super) fn digests_of_shards(&self, view: &View, others: &[Location]) -> Vec<Vec<u64>> {
        let mut digests = vec![vec![0_u64; SHARDS]; others.len()];
        let Some(me) = view.place(self.locator.location()) else {
            return digests;
        };
        let mut number = vec![usize::MAX; view.members().len()];
        for (index, other) in others.iter().enumerate() {
            if let Some(place) = view.place(other) {
                number[place] = index;
            }
        }
        for shard in 0..SHARDS {
            let walked = self.items.each(shard, |record| {
                let list: Vec<_> = view
                    .list(record.ring_hash(), self.locator.replicas())
                    .collect();
                if !list.contains(&me) {
                    return;
                }
                for place in list {
                    if let Some(digests) = digests.get_mut(number[place]) {
                        digests[shard] = digests[shard].wrapping_add(record.digest());
                    }
                }
            });
            give_way(walked);
        }
        digests
    }

    /// Exchanges what differs in these shards. True: each has what the other had, or this node, which comes in to stay,
    /// has it and the other has no room: that one may have room only when this one is full. Then all is compared again.
    pub(super) fn exchange_shards(&self, with: &Member, shared: u64, shards: &[usize]) -> bool {
        let mut open: Vec<_> = shards
            .iter()
            .rev()
            .filter(|shard| **shard < SHARDS)
            .filter_map(|shard| u32::try_from(*shard).ok())
            .map(|shard| Open { shard, after: None })
            .collect();
        if self.items.lacking() > 0 {
            // Each time with others: the next ones are not reached if this node has no room.
            let start = self.locator.environment().random.below(open.len().max(1));
            open.rotate_left(start);
        }
        let mut no_room = NoRoomFor::default();
        while !open.is_empty() && !no_room.me {
            let parts = open.split_off(open.len().saturating_sub(PARTS_MAX));
            let Some(rest) = self.exchange_parts(with, shared, parts, &mut no_room) else {
                return false;
            };
            open.extend(rest);
        }
        if no_room.me {
            self.locator.rest_from(&with.location);
        }
        !no_room.me && (!no_room.other || self.locator.with(|it, _| it.comes_in_to_stay()))
    }

    /// What is left of the parts; `None`: something went wrong, and it is to be done again.
    fn exchange_parts(
        &self,
        with: &Member,
        shared: u64,
        parts: Vec<Open>,
        no_room: &mut NoRoomFor,
    ) -> Option<Vec<Open>> {
        let (caller, view) = self
            .locator
            .with(|membership, _| (membership.caller(&with.location), membership.view().clone()));
        let offers: Vec<_> = parts
            .iter()
            .map(|part| self.offer(&view, &with.location, part))
            .collect();
        let calls = parts.iter().zip(&offers).map(|(open, offer)| {
            let part = Part {
                caller: caller.clone(),
                shared,
                range: open.shard,
                after: open.after.as_deref(),
                upto: offer.upto.as_deref(),
                items: Vec::new(),
            };
            (with.location.clone(), part.request(&offer.list))
        });
        let calls: Vec<_> = calls.collect();
        let (made, limit) = (self.locator.with(|_, now| now), self.locator.ticks(4));
        let (mut rest, mut wanted, mut good) = (Vec::new(), Vec::new(), true);
        let network = &self.locator.environment().network;
        network.call_each(&calls, limit, &mut |event| {
            let Event::Answer(place, answer) = event else {
                return;
            };
            let (open, offer) = (&parts[place], &offers[place]);
            let result = match answer {
                Ok(result) => result,
                Err(cause) => {
                    good = false;
                    let (_, request) = &calls[place];
                    return self.locator.note_outcome(with, request, made, &Err(cause));
                }
            };
            let Ok(exchanged) = read_answer::<Exchanged<'_>>(&result, "exchange") else {
                good = false;
                return;
            };
            if let Some(members) = exchanged.differs {
                good = false;
                return self.locator.differs(with, &members);
            }
            let first = exchanged.items.first().map(|first| first.key);
            good &= first.is_none_or(|first| open.after.as_deref() < Some(first));
            match self.take_in(with, shared, &exchanged.items) {
                Ok(same) => good &= same,
                Err(NoRoom) => no_room.me = true,
            }
            let keys = exchanged.wanted.iter();
            wanted.extend(keys.filter_map(|place| offer.keys.get(*place as usize).cloned()));
            let after = exchanged.reached.map(<[u8]>::to_vec);
            let after = after.or_else(|| offer.upto.clone());
            let shard = open.shard;
            rest.extend(after.is_some().then_some(Open { shard, after }));
        });
        if good && !no_room.other {
            match self.send_values(&caller.me, &view, with, &wanted) {
                Ok(all) => good = all,
                Err(_) => no_room.other = true,
            }
        }
        good.then_some(rest)
    }

    /// What lies here of a part that both should hold.
    fn offer(&self, view: &View, other: &Location, part: &Open) -> Offer {
        let mut offer = Offer {
            upto: None,
            keys: Vec::new(),
            list: ItemList::default(),
        };
        let shares = self.shares(view, other);
        let (shard, after) = (part.shard as usize, part.after.as_deref());
        offer.upto = self.page(shard, after, shares, KEYS_MAX, |record| {
            offer.list.push(&Item {
                key: record.key(),
                version: record.version(),
                value: None,
                digest: Some(record.value_digest()),
                list: None,
            });
            offer.keys.push(record.key().to_vec());
            offer.list.bytes()
        });
        give_way(offer.keys.len());
        offer
    }

    /// Stores items that a replica has sent, as long as both have the same lists.
    ///
    /// # Errors
    /// There is no room for one; the others have been stored.
    fn take_in(&self, from: &Member, shared: u64, items: &[Item<'_>]) -> Result<bool, NoRoom> {
        let mut full = false;
        for some in items.chunks(TAKEN_MAX) {
            let mut new = Vec::new();
            let same = self.locator.with(|membership, _| {
                let now = membership.shared_with_life(from);
                let same = now.is_some_and(|now| now.digest == shared);
                for item in some.iter().filter(|_| same) {
                    let value = item.value.unwrap_or_default();
                    match self.items.merge(item.key, item.version, value, false) {
                        Ok(merged) => {
                            if merged.new {
                                new.push(item.key);
                            }
                            if merged.taken && !self.underway.take(item.key, item.version) {
                                membership.doubt_others(ring::hash(item.key), Some(&from.location));
                            }
                        }
                        Err(_) => full = true,
                    }
                }
                same
            });
            new.iter().for_each(|key| self.note_received(key));
            if !same {
                return Ok(false);
            }
            give_way(some.len());
        }
        if full {
            self.cannot_take();
            return Err(NoRoom);
        }
        Ok(true)
    }

    /// Sends the present values of these keys to a replica. True: it has them all.
    ///
    /// # Errors
    /// It has no room for one.
    fn send_values(
        &self,
        me: &Member,
        view: &View,
        to: &Member,
        keys: &[Vec<u8>],
    ) -> Result<bool, Exception> {
        let mut keys = keys.iter().peekable();
        while keys.peek().is_some() {
            let (mut items, mut versions) = (ItemList::default(), Vec::new());
            while items.bytes() < BATCH_BYTES
                && let Some(key) = keys.next()
            {
                self.items.read(key, |record| {
                    let list = view.list(record.ring_hash(), self.locator.replicas());
                    items.push(&Item {
                        key,
                        version: record.version(),
                        value: Some(record.value()),
                        digest: None,
                        list: Some(view.list_digest(list)),
                    });
                    versions.push(record.version());
                });
            }
            let taken = self.send_to(me, to, &items)?;
            let held = |(taken, version): (&Taken, &i64)| matches!(taken, Taken::Held(held) if held >= version);
            if taken.len() != versions.len() || !taken.iter().zip(&versions).all(held) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// A member's answer to `store`; it says nothing, if there is none.
    pub(super) fn stored(&self, member: &Member, answer: Answer) -> StoreAnswer {
        let stored = answer.and_then(|result| read_answer(&result, "store"));
        let stored: StoreAnswer = stored.unwrap_or_default();
        if let Some(members) = &stored.members {
            self.locator.differs(member, members);
        }
        stored
    }

    /// Sends items to a member: what it says to each, nothing if it doesn't answer; an exception if it has no room for
    /// one.
    fn send_to(&self, me: &Member, to: &Member, items: &ItemList) -> Result<Vec<Taken>, Exception> {
        let request = store_request(&self.locator.caller(me, &to.location), false, items);
        let large = Large::new(self, items.bytes());
        self.note_sent(&to.location, items.head(), items.bytes());
        let limit = self.locator.ticks(2);
        let mut answers = self.locator.call_members(&[(to.clone(), request)], limit);
        drop(large);
        let answer = answers.pop().expect("BUG: an answer for each call");
        let StoreAnswer { taken, full, .. } = self.stored(to, answer);
        let held = |taken: &&Taken| items.has_values && matches!(taken, Taken::Held(_));
        let held = taken.iter().filter(held).count();
        self.confirmed.fetch_add(held, Ordering::Relaxed);
        match full {
            None => Ok(taken),
            Some(why) => {
                self.note_no_room(&to.location);
                Err(Exception::new(Exception::NO_ROOM, why))
            }
        }
    }

    /// `exchange`: the other side of that.
    pub(super) fn on_exchange(
        &self,
        arguments: &[u8],
        result: &mut Vec<u8>,
    ) -> Result<(), Exception> {
        let part: Part<'_> = read_arguments(arguments)?;
        let range = part.range as usize;
        let look = || {
            self.locator.with(|membership, _| {
                let now = membership.shared_with(&part.caller);
                let same = now.is_some_and(|now| now.digest == part.shared);
                (same, membership.view().clone())
            })
        };
        let (mut list, mut wanted, mut reached) = (ItemList::default(), Vec::new(), None);
        let (same, view) = look();
        if same && range < SHARDS {
            let shares = self.shares(&view, &part.caller.me.location);
            let mut theirs = (0_u32..).zip(&part.items).peekable();
            let in_part = |record: &Record| {
                part.after.is_none_or(|after| record.key() > after)
                    && part.upto.is_none_or(|upto| record.key() <= upto)
                    && shares(record)
            };
            self.items.each_in_order(range, in_part, |record| {
                if list.bytes() >= BATCH_BYTES {
                    return false;
                }
                // What the caller has before this one is lacking here.
                while let Some((place, _)) = theirs.next_if(|(_, item)| item.key < record.key()) {
                    wanted.push(place);
                }
                let met = theirs.next_if(|(_, item)| item.key == record.key());
                let order = met.map(|(place, item)| {
                    let same = item.digest == Some(record.value_digest());
                    (place, item.version.cmp(&record.version()), same)
                });
                // If the versions are the same, the values decide: one of the two has to see both.
                let give =
                    order.is_none_or(|(_, order, same)| order.is_le() && !(order.is_eq() && same));
                if let Some((place, order, same)) = order
                    && order.is_ge()
                    && !(order.is_eq() && same)
                {
                    wanted.push(place);
                }
                if give {
                    list.push(&record.item());
                }
                reached = Some(record.key().to_vec());
                true
            });
            if list.bytes() < BATCH_BYTES {
                wanted.extend(theirs.map(|(place, _)| place));
                reached = None;
            }
        }
        hold(list.bytes())?;
        let what = [&part.range.to_le_bytes(), part.after.unwrap_or_default()].concat();
        self.note_sent(&part.caller.me.location, &what, list.bytes());
        // The lists are compared again: what has been forgotten meanwhile was forgotten under another list.
        let differs = Some(look()).filter(|(same, _)| !same);
        let differs = differs.as_ref().map(|(_, view)| view.members());
        write_exchanged(&list, &wanted, reached.as_deref(), differs, result);
        Ok(())
    }

    /// Hands over: offers each item of which this node is no replica to the replicas, and forgets it when all of them
    /// have it. True: no such item is left.
    pub(super) fn give_strays(&self) -> bool {
        let (me, view, epoch) = {
            let epoch = self.locator.epoch();
            (self.locator.me(), self.locator.view(), epoch)
        };
        let looked = {
            let strays = self.strays();
            let rests = self.locator.now() < strays.again;
            (strays.epoch == epoch && (strays.count == 0 || rests)).then_some(strays.count)
        };
        if let Some(left) = looked {
            return left == 0;
        }
        if matches!(me.state, State::Outside | State::Joining) {
            return false;
        }
        let place = view.place(self.locator.location());
        let members = view.members();
        let (mut left, mut silent) = (0, BTreeSet::new());
        for shard in 0..SHARDS {
            let mut strays = Vec::new();
            let walked = self.items.each(shard, |record| {
                let hash = record.ring_hash();
                let mut replicas: Vec<_> = view.list(hash, self.locator.replicas()).collect();
                let list = view.list_digest(replicas.iter().copied());
                let keep = place.is_some_and(|place| replicas.contains(&place));
                if keep {
                    // The primary of ours sees to it that the original has what it owns.
                    let primary = replicas.iter().find(|at| members[**at].state.holds_all());
                    if members[replicas[0]].is_ours() || primary.copied() != place {
                        return;
                    }
                }
                if keep || me.state == State::Left {
                    // All others of ours have it.
                    replicas.retain(|place| !members[*place].is_ours());
                }
                if !(replicas.is_empty() && me.state == State::Left) {
                    strays.push(Stray {
                        key: record.key().to_vec(),
                        version: record.version(),
                        digest: record.value_digest(),
                        hash,
                        list,
                        replicas,
                        held: 0,
                        keep,
                    });
                }
            });
            give_way(walked);
            for some in strays.chunks_mut(KEYS_MAX) {
                left += self.give_some(&me, &view, some, &mut silent);
            }
        }
        let mut strays = self.strays();
        strays.epoch = epoch;
        strays.count = left;
        strays.again = self.locator.rests_until();
        left == 0
    }

    /// The answer: how many of them lie here still. An original that is silent is asked for nothing more, and a member
    /// that has no room gets no more values.
    fn give_some(
        &self,
        me: &Member,
        view: &View,
        strays: &mut [Stray],
        silent: &mut BTreeSet<Location>,
    ) -> usize {
        for (place, member) in view.members().iter().enumerate() {
            let concerned: Vec<_> = (0..strays.len())
                .filter(|number| strays[*number].replicas.contains(&place))
                .collect();
            if concerned.is_empty() {
                continue;
            }
            if !member.is_ours() {
                for number in concerned {
                    if silent.contains(&member.location) {
                        break;
                    }
                    match self.give_to_original(&member.location, &strays[number]) {
                        Ok(held) => {
                            strays[number].held += usize::from(held);
                            self.confirmed
                                .fetch_add(usize::from(held), Ordering::Relaxed);
                        }
                        Err(_) => drop(silent.insert(member.location.clone())),
                    }
                }
                continue;
            }
            let mut list = ItemList::default();
            for number in &concerned {
                let stray = &strays[*number];
                list.push(&Item {
                    key: &stray.key,
                    version: stray.version,
                    value: None,
                    digest: Some(stray.digest),
                    list: Some(stray.list),
                });
            }
            let taken = self.send_to(me, member, &list).unwrap_or_default();
            let (mut wanted, mut asked) = (Vec::new(), Vec::new());
            for (number, taken) in concerned.into_iter().zip(taken) {
                match taken {
                    Taken::Held(_) => strays[number].held += 1,
                    Taken::Wanted => {
                        wanted.push(strays[number].key.clone());
                        asked.push(number);
                    }
                    Taken::Differs | Taken::NoRoom => {}
                }
            }
            if silent.contains(&member.location) {
                continue;
            }
            match self.send_values(me, view, member, &wanted) {
                Ok(true) => asked.iter().for_each(|number| strays[*number].held += 1),
                Ok(false) => {}
                Err(_) => drop(silent.insert(member.location.clone())),
            }
        }
        let mut left = 0;
        for stray in strays {
            let confirmed = stray.held == stray.replicas.len() && stray.held > 0;
            if stray.keep {
                left += usize::from(!confirmed);
                continue;
            }
            let forgotten = confirmed
                && self.locator.with(|membership, _| {
                    membership.has_list(stray.hash, stray.list)
                        && self.items.remove(&stray.key, stray.version)
                });
            if forgotten {
                self.note(|lines| &mut lines.dropped, "dropped", &stray.key);
            } else {
                left += usize::from(self.items.version(&stray.key) > 0);
            }
        }
        left
    }

    /// Gives an original what is its own now, and reads it back. True: it has it, or something later.
    ///
    /// # Errors
    /// It doesn't answer.
    fn give_to_original(&self, original: &Location, stray: &Stray) -> Result<bool, CallError> {
        self.locator.ask_kind(original);
        let (_, value) = self.account(&stray.key);
        // One that leaves hands its keys over itself, and has later values than the copies here.
        if self.locator.originals_are_leaving() {
            return Ok(false);
        }
        // The empty value is its word for a missing key.
        if value.is_empty() {
            return Ok(true);
        }
        let mut found = self.get_from_original(original, &stray.key)?;
        if found.is_empty() {
            self.put_at_original(original, &stray.key, &value, &|| ())?;
            found = self.get_from_original(original, &stray.key)?;
        }
        // Something else was put there by others: what is here is the older one, as it was never told.
        Ok(!found.is_empty())
    }
}
