//! The calls of liars.

use super::*;

impl World {
    /// A liar calls the node, in its own name mostly.
    pub fn call_as_liar(&self, store: &Store) {
        let (name, view) = (self.name(), store.locator().view());
        let (caller, shared) = {
            let heard = self.heard();
            let me = match view.get(&name).filter(|_| !self.once_in(5)) {
                Some(member) => member.clone(),
                None => heard.liar(&name),
            };
            let token = heard.tokens.get(&name).copied().unwrap_or(0);
            let shared = heard.shared.get(&name).copied().unwrap_or(0);
            (Caller { me, token }, shared)
        };
        let by_member = view.get(&name).is_some() && caller.token != 0;
        let mut out = Vec::new();
        let (key, value) = (self.key(), self.value());
        let method = match self.below(12) {
            0..3 => {
                self.question(caller).encode(&mut out);
                "ask"
            }
            3 => {
                let me = Someone {
                    state: self.pick(&[2, 2, 3, 1, 4]),
                    ..self.outside(&name, &view).into()
                };
                let candidate = Candidate {
                    me,
                    service: "diststore.Store".to_owned(),
                    replicas: store.locator().replicas() as u32,
                    tick_millis: TICK.as_millis() as i64,
                    version: 4,
                };
                candidate.encode(&mut out);
                "enter"
            }
            4 => {
                let candidate = self.someone();
                Reach { candidate }.encode(&mut out);
                "reach"
            }
            5 => {
                let comparison = Comparison {
                    caller,
                    shared,
                    digests: vec![0; self.pick(&[0, 5, 1024, 2000])],
                    exchanged: self.once_in(2),
                    view: self.view(),
                };
                comparison.encode(&mut out);
                "compare"
            }
            6..8 => {
                let mut items = ItemList::default();
                for _ in 0..self.below(5) {
                    let key = self.key();
                    items.push(&Item {
                        key: &key,
                        version: self.below(9) as i64,
                        value: Some(&value[..]).filter(|_| !self.once_in(4)),
                        digest: None,
                        list: Some(self.list(&key)),
                    });
                }
                let request = store_request(&caller, self.once_in(2), &items);
                out.extend_from_slice(&request.arguments);
                "store"
            }
            8 => {
                let (list, key) = (self.list(&key), &key[..]);
                Fetch { list, key }.encode(&mut out);
                "fetch"
            }
            9 => {
                let part = Part {
                    caller,
                    shared,
                    range: self.below(1025) as u32,
                    after: None,
                    upto: Some(&key).filter(|_| self.once_in(2)).map(|key| &key[..]),
                    items: Vec::new(),
                };
                let request = part.request(&ItemList::default());
                out.extend_from_slice(&request.arguments);
                "exchange"
            }
            10 => {
                let forward = KeyValue {
                    key: &key,
                    value: Some(&value[..]).filter(|_| self.once_in(2)),
                    above: self.number().clamp(0, 1 << 62),
                    caller: Some(caller),
                };
                out.extend_from_slice(&forward.request().arguments);
                "forward"
            }
            _ => {
                out = News::write(&self.name(), self.names().iter());
                self.pick(&[
                    "join",
                    "add",
                    "remove",
                    "get_all",
                    "status",
                    "debug",
                    "accept_loss",
                ])
            }
        };
        let was = view.get(&name).is_some();
        let answer = self.within(LIMIT, "serve", || self.call(store, method, &out));
        let is = store.locator().view().get(&name).is_some();
        if method == "enter" && !was && is {
            self.note("let another in");
            let mut heard = self.heard();
            let mut liars = heard.liars.iter_mut();
            if let Some(liar) = liars.find(|liar| liar.location == name) {
                liar.state = State::Joining;
            }
        }
        if by_member && answer.is_ok() {
            self.note("was called by a member");
        }
    }

    /// A liar that is to be let in, if it is no member.
    fn outside(&self, at: &Location, view: &View) -> Member {
        let mut heard = self.heard();
        let mut liars = heard.liars.iter_mut();
        if let Some(liar) = liars.find(|liar| liar.location == *at)
            && view.get(at).is_none()
        {
            liar.state = State::Outside;
        }
        heard.liar(at)
    }

    fn question(&self, caller: Caller) -> Question {
        let me = self.store().map(|store| store.locator().me());
        let me = me.unwrap_or_else(|| self.heard().me.clone());
        Question {
            caller,
            you: match self.below(20) {
                0 => Standing::Unknown,
                1 => Standing::Lost(me.incarnation),
                _ => Standing::Member(me.state, me.incarnation),
            },
            wants_lease: !self.once_in(3),
            digest: self.view(),
            side: None,
            wants_members: self.once_in(3),
            lost: self.names(),
            token: self.number().cast_unsigned(),
            floor: self.number(),
        }
    }
}
