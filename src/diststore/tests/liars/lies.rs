//! The lies. Each is of the right form mostly, and made up of what the node has said itself, so that it is believed.

mod calls;
mod forms;

use std::collections::BTreeMap;

use super::*;
use crate::digest::digest;
use crate::diststore::calls::{Account, Fetch, Item, ItemList, Part, Stored, store_request};
use crate::diststore::{Listed, Listing, RANGES};
use crate::locator::{EMPTY, EXTENSION, News, Status};
use crate::membership::{Caller, Question, Range as Lease, Side, Standing, View};
use crate::ring;
use crate::thrift_struct;

use forms::*;

/// How many liars there are.
const LIARS: u16 = 5;

/// What the liars know.
pub struct Heard {
    /// The node, as it said last.
    me: Member,
    /// Themselves.
    liars: Vec<Member>,
    /// What the node gave each of them to bring back, and what it shares with each, as it says.
    tokens: BTreeMap<Location, u64>,
    shared: BTreeMap<Location, u64>,
    /// What each has answered to a method, if it says that again and again.
    again: BTreeMap<(Location, &'static str), Option<Vec<u8>>>,
}

impl Heard {
    pub fn new(random: &Random) -> Self {
        let liar = |number| Member {
            location: location(number),
            state: match random.below(12) {
                0 => State::Joining,
                1 => State::Returning,
                2 => State::Leaving,
                3 => State::Original,
                _ => State::Full,
            },
            incarnation: match random.below(8) {
                0 => 0,
                1 => i64::MIN,
                number => 4 + number as i64,
            },
        };
        Heard {
            me: Member::original(location(0)),
            liars: (1..=LIARS).map(liar).collect(),
            tokens: BTreeMap::new(),
            shared: BTreeMap::new(),
            again: BTreeMap::new(),
        }
    }

    fn liar(&self, at: &Location) -> Member {
        let mut liars = self.liars.iter();
        let liar = liars.find(|liar| liar.location == *at).cloned();
        liar.unwrap_or(Member {
            location: at.clone(),
            state: State::Full,
            incarnation: 6,
        })
    }
}

impl World {
    pub fn key(&self) -> Vec<u8> {
        match self.below(30) {
            0 => Vec::new(),
            1 => vec![b'l'; 300],
            number => format!("key {}", number % 12).into_bytes(),
        }
    }

    pub fn value(&self) -> Vec<u8> {
        match self.below(60) {
            0 => vec![b'x'; 70_000],
            number => [&b""[..], b"a", b"value", b"another"][number % 4].to_vec(),
        }
    }

    fn number(&self) -> i64 {
        let near = [0, 1 << 61, 1 << 62, i64::MIN, i64::MAX, self.wall(), 7];
        self.pick(&near).wrapping_add(self.below(5) as i64 - 2)
    }

    pub fn name(&self) -> Location {
        match self.below(30) {
            0 => location(0),
            1 => Location::new("elsewhere", 1 + self.below(300) as u16).unwrap(),
            2 => location(10 + self.below(300) as u16),
            number => location(1 + number as u16 % LIARS),
        }
    }

    fn names(&self) -> Vec<Location> {
        (0..self.many(6)).map(|_| self.name()).collect()
    }

    /// Mostly few.
    fn many(&self, few: usize) -> usize {
        match self.below(200) {
            0 => 100 + self.below(300),
            _ => self.below(few),
        }
    }

    fn someone(&self) -> Someone {
        let at = self.name();
        let heard = self.heard();
        let incarnation = match self.below(6) {
            0 => heard.me.incarnation,
            1 => self.number(),
            _ => heard.liar(&at).incarnation,
        };
        Someone {
            location: at,
            state: self.below(9) as i32,
            incarnation,
        }
    }

    /// The liar at that place, as it mostly says.
    fn itself(&self, at: &Location) -> Someone {
        if self.once_in(60) {
            return self.someone();
        }
        let mut heard = self.heard();
        if let Some(liar) = heard.liars.iter_mut().find(|liar| liar.location == *at) {
            self.live(liar);
        }
        heard.liar(at).into()
    }

    /// It goes on in its life now and then, and begins another one.
    fn live(&self, liar: &mut Member) {
        liar.state = match liar.state {
            State::Joining | State::Returning if self.once_in(10) => State::Full,
            State::Full if self.once_in(200) => State::Leaving,
            State::Leaving if self.once_in(30) => State::Left,
            State::Left => State::Outside,
            State::Outside if self.once_in(40) => State::Full,
            _ => return,
        };
        if liar.state == State::Outside {
            liar.incarnation = liar.incarnation.wrapping_add(1 + self.below(2) as i64);
        }
    }

    fn some(&self, few: usize) -> Vec<Someone> {
        (0..self.many(few)).map(|_| self.someone()).collect()
    }

    /// The node as a member, and some liars.
    fn members(&self) -> Vec<Someone> {
        let mut members = match self.once_in(6) {
            true => self.some(3),
            false => Vec::new(),
        };
        let heard = self.heard();
        let liars = heard.liars.iter().filter(|_| !self.once_in(3));
        members.extend(liars.cloned().map(Someone::from));
        if !self.once_in(10) {
            let mut me = Someone::from(heard.me.clone());
            if !(2..=5).contains(&me.state) {
                me.state = State::Joining as i32;
            }
            members.push(me);
        }
        members
    }

    fn rarely_members(&self) -> Option<Vec<Someone>> {
        self.once_in(15).then(|| self.members())
    }

    /// What the node says that it has as the digest of a view, mostly.
    fn view(&self) -> u64 {
        match (self.once_in(5), self.store()) {
            (false, Some(store)) => store.locator().view().digest(),
            _ => self.number().cast_unsigned(),
        }
    }

    /// A lease for each key, as the node has their lists.
    fn leases(&self) -> Vec<Lease> {
        let Some(store) = self.store() else {
            return Vec::new();
        };
        let (view, copies) = (store.locator().view(), store.locator().replicas().max(2));
        let lease = |key: &str| {
            let hash = ring::hash(key.as_bytes());
            Lease {
                start: match self.once_in(40) {
                    true => self.number().cast_unsigned(),
                    false => hash.into(),
                },
                list: view.list_digest(view.list(hash, copies)),
            }
        };
        let keys = (0..12).map(|number| format!("key {number}"));
        let leases = keys.filter(|_| !self.once_in(10));
        leases.map(|key| lease(&key)).collect()
    }

    fn list(&self, key: &[u8]) -> u64 {
        let Some(store) = self.store().filter(|_| !self.once_in(20)) else {
            return self.number().cast_unsigned();
        };
        let view = store.locator().view();
        let list = view.list(ring::hash(key), store.locator().replicas());
        view.list_digest(list)
    }

    /// An answer, which may be none, or be no answer.
    pub fn lie(&self, to: &Location, request: &Request) -> Answer {
        if let Some(store) = self.store().filter(|it| it.locator().location() == to)
            && !self.once_in(10)
        {
            let answer = self.call(&store, request.method, &request.arguments);
            return answer.map_err(CallError::Exception);
        }
        if let Some(result) = self.again(to, request.method) {
            return Ok(result);
        }
        if self.once_in(self.wild) {
            return Err(match self.below(7) {
                0 => CallError::Silent,
                1 => CallError::Refused,
                2 => CallError::Local("no such host\n".to_owned()),
                3 => CallError::Broken("end".to_owned()),
                4 => CallError::Exception(Exception::new(Exception::NO_ROOM, "no room")),
                5 => CallError::Exception(Exception::unknown_method(b"m")),
                _ => CallError::Exception(Exception::internal("\u{202e}\n")),
            });
        }
        let mut result = Vec::new();
        self.write_lie(to, request, &mut result);
        if self.once_in(self.wild) && !result.is_empty() {
            let place = self.below(result.len());
            match self.below(3) {
                0 => result.truncate(place),
                1 => result[place] = self.below(256) as u8,
                _ => result.insert(place, self.below(16) as u8),
            }
        }
        let stuck = self.once_in(60);
        if stuck {
            let place = (to.clone(), request.method);
            self.heard().again.insert(place, Some(result.clone()));
        }
        Ok(result)
    }

    /// What it says again and again for a while.
    fn again(&self, to: &Location, method: &'static str) -> Option<Vec<u8>> {
        let mut heard = self.heard();
        let again = heard.again.get_mut(&(to.clone(), method))?;
        let result = again.clone();
        // An endless loop asks more often than that.
        if self.once_in(if method == "exchange" { 100_000 } else { 40 }) {
            *again = None;
        }
        result
    }

    fn write_lie(&self, to: &Location, request: &Request, result: &mut Vec<u8>) {
        let arguments = &request.arguments[..];
        match request.method {
            "service_types" => write_answer(&self.types(to), result),
            "get_all" => write_answer(&self.names(), result),
            "get" => write_answer(&self.value(), result),
            "status" => write_answer(&self.status(to), result),
            "enter" => write_answer(&self.entered(arguments), result),
            "ask" => write_answer(&self.reply(to, arguments), result),
            "reach" => {
                let reached = Reached {
                    reached: !self.once_in(8),
                    reason: self.pick(&["", "why\n"]).to_owned(),
                };
                write_answer(&reached, result);
            }
            "compare" => write_answer(&self.compared(to, arguments), result),
            "exchange" => self.write_exchanged(arguments, result),
            "store" => write_answer(&self.said(arguments), result),
            "list_keys" => self.write_listing(arguments, result),
            "fetch" => write_answer(&self.found(arguments), result),
            "forward" => {
                let forwarded = Forwarded {
                    done: (!self.once_in(3)).then(|| self.value()),
                    tried: self.once_in(3).then(|| self.number()),
                };
                write_answer(&forwarded, result);
            }
            _ => result.extend(EMPTY),
        }
    }

    fn types(&self, at: &Location) -> Vec<String> {
        let original = self.heard().liar(at).state == State::Original;
        let all = [
            "locator.Base",
            "locator.Locator",
            "diststore.Store",
            EXTENSION,
        ];
        let types = match self.below(30) {
            0 => &all[..2],
            1 => &[],
            2 => &all[..3],
            _ if original => &all[..3],
            _ => &all[..],
        };
        types.iter().map(|name| (*name).to_owned()).collect()
    }

    fn status(&self, at: &Location) -> Status {
        let count = || self.below(4) as u32;
        Status {
            me: self.heard().liar(at),
            replicas: count(),
            members: count(),
            full: count(),
            digest: self.view(),
            items: self.below(usize::MAX),
            unconfirmed: self.below(2),
            settled: self.once_in(2),
            missing: self.names(),
            taken: self.below(usize::MAX),
            memory: self.below(usize::MAX),
            lacking: self.below(2),
            deleted: Some(self.below(usize::MAX)),
            connections: None,
            rate: Some(self.below(usize::MAX)),
            version: Some("\u{202e}".repeat(self.below(50))),
            since: Some(self.number()),
        }
    }

    fn entered(&self, arguments: &[u8]) -> Entered {
        if let Ok(Candidate { me, .. }) = read_arguments(arguments) {
            self.heard().me = Member {
                location: me.location,
                state: State::from_number(me.state).unwrap(),
                incarnation: me.incarnation,
            };
        }
        let kind = match self.below(12) {
            number @ 0..10 if number > 7 => number as i32 - 1,
            2 => 2,
            3 => 3,
            4 => 4,
            5 => 5,
            10 => self.number() as i32,
            _ => 1,
        };
        let rarely = |few| match self.once_in(4) {
            true => self.some(few),
            false => Vec::new(),
        };
        Entered {
            kind,
            members: self.members(),
            lost: rarely(4),
            locations: self.names(),
            reason: self.pick(&["", "why\n"]).to_owned(),
            missing: rarely(3),
            expired: rarely(3),
            floor: self.number(),
        }
    }

    fn reply(&self, to: &Location, arguments: &[u8]) -> Reply {
        let Ok(question) = read_arguments::<Question>(arguments) else {
            panic!("a question that can't be read");
        };
        let me = question.caller.me;
        {
            let mut heard = self.heard();
            heard.me = me.clone();
            heard.tokens.insert(to.clone(), question.token);
        }
        let you = match self.below(60) {
            0 => Standing::Unknown,
            1..3 => Standing::Lost(me.incarnation),
            3 => Standing::Lost(self.number()),
            4 => Standing::Member(State::Full, me.incarnation),
            5 => Standing::Member(State::Original, self.number()),
            _ => Standing::Member(me.state, me.incarnation),
        };
        let side = Side {
            confirmed: self.number() as i32,
            first: self.name(),
            slept: self.once_in(2),
            expired: self.once_in(6),
        };
        let sometimes = |times| self.once_in(times).then(|| self.some(3));
        Reply {
            me: (!self.once_in(100)).then(|| self.itself(to)),
            you,
            granted: self.leases(),
            digest: self.view(),
            side: (!self.once_in(4)).then_some(side),
            members: self.rarely_members(),
            missing: sometimes(60),
            floor: match self.once_in(20) {
                true => self.number(),
                false => 0,
            },
            clean: !self.once_in(6),
        }
    }

    fn compared(&self, to: &Location, arguments: &[u8]) -> Compared {
        let Ok(comparison) = read_arguments::<Comparison>(arguments) else {
            panic!("a comparison that can't be read");
        };
        self.heard().shared.insert(to.clone(), comparison.shared);
        let mut digests = comparison.digests;
        match self.below(6) {
            0..2 => {
                for _ in 0..self.below(20) {
                    let key = format!("lie {}", self.below(12));
                    let place = digest(key.as_bytes()) as usize % RANGES as usize;
                    if let Some(digest) = digests.get_mut(place) {
                        *digest = self.number().cast_unsigned();
                    }
                }
            }
            2 if self.once_in(3) => digests.truncate(self.below(2000)),
            3 if self.once_in(3) => digests.resize(1 + self.below(2000), 5),
            _ => {}
        }
        Compared {
            me: (!self.once_in(60)).then(|| self.itself(to)),
            members: self.rarely_members(),
            digests: (!self.once_in(12)).then_some(digests),
            left: match self.once_in(10) {
                true => self.some(4),
                false => Vec::new(),
            },
        }
    }

    fn write_exchanged(&self, arguments: &[u8], result: &mut Vec<u8>) {
        let Ok(part) = read_arguments::<Part<'_>>(arguments) else {
            panic!("a part that can't be read");
        };
        let mut keys: Vec<_> = (0..self.below(4))
            .map(|_| match self.once_in(4) {
                true => self.key(),
                false => format!("lie {}", self.below(12)).into_bytes(),
            })
            .collect();
        if !self.once_in(8) {
            keys.sort_unstable();
            keys.dedup();
            keys.retain(|key| part.after.is_none_or(|after| &key[..] > after));
        }
        let value = self.value();
        let items = keys.iter().map(|key| Item {
            key,
            version: match self.once_in(20) {
                true => self.number(),
                false => self.below(9) as i64,
            },
            value: (!self.once_in(8)).then_some(&value),
            digest: None,
            list: None,
        });
        let places = part.items.len();
        let exchanged = Exchanged {
            items: items.collect(),
            wanted: match self.once_in(30) {
                true => (0..self.many(9)).map(|_| self.number() as i32).collect(),
                false => (0..places as i32).filter(|_| self.once_in(2)).collect(),
            },
            reached: match self.below(8) {
                0 => Some(self.key()),
                1 => part.after.map(<[u8]>::to_vec),
                2..4 => keys.last().cloned(),
                _ => None,
            },
            members: self.rarely_members().filter(|_| self.once_in(3)),
        };
        write_answer(&exchanged, result);
    }

    fn write_listing(&self, arguments: &[u8], result: &mut Vec<u8>) {
        let Ok(List { range, after, .. }) = read_arguments(arguments) else {
            panic!("a list that can't be read");
        };
        let keys = (0..12).map(|number| format!("lie {number}"));
        let mut keys: Vec<_> = keys
            .filter(|key| digest(key.as_bytes()) % u64::from(RANGES) == u64::from(range))
            .filter(|key| after.is_none_or(|after| key.as_bytes() > after))
            .collect();
        if self.once_in(50) {
            keys.push("lie 3".to_owned());
        }
        let listed = keys.iter().map(|key| Listed {
            key: key.as_bytes(),
            version: self.number(),
            bytes: self.below(3),
        });
        let last = keys.last().map(|key| key.as_bytes());
        let listing = Listing {
            keys: listed.collect(),
            reached: last.or(after).filter(|_| self.once_in(3)),
            removed: u64::from(self.once_in(500)),
            view: 1,
            members: 1 + u32::from(self.once_in(100)),
        };
        write_answer(&listing, result);
    }

    fn said(&self, arguments: &[u8]) -> Said {
        let Ok(Stored { items, .. }) = read_arguments(arguments) else {
            panic!("items that can't be read");
        };
        let mut taken: Vec<_> = items
            .iter()
            .map(|item| match self.below(30) {
                0 => self.number(),
                1 => item.version + 1,
                2 => -2,
                3..5 => -1,
                _ => item.version,
            })
            .collect();
        if self.once_in(30) {
            taken.resize(self.many(4), 0);
        }
        Said {
            taken,
            members: self.rarely_members().filter(|_| self.once_in(3)),
            full: self.once_in(20).then(|| "no room\n".to_owned()),
        }
    }

    fn found(&self, arguments: &[u8]) -> Found {
        let Ok(Fetch { key, .. }) = read_arguments(arguments) else {
            panic!("a key that can't be read");
        };
        let held: Account = match self.store() {
            Some(store) if !self.once_in(3) => store.account(key),
            _ => (self.number(), self.value()),
        };
        Found {
            version: held.0,
            value: held.1,
            members: self.rarely_members().filter(|_| self.once_in(2)),
        }
    }
}
