//! Carrying out requests that have arrived together, side by side.
//!
//! It goes in rounds. In each, every request that may go on takes its next step (`steps.rs`). What it has to ask others
//! is sent together with what the other requests ask. Of two requests for one key the later one waits until the earlier
//! one is done; gets one behind the other share an answer.
//!
//! A round ends with the last answer. The first request that isn't answered doesn't wait for that, as all others wait for
//! it: it takes its steps in between.
//!
//! A request alone is a batch of one.

use std::time::Duration;

use crate::locator::read_answer;
use crate::membership::{Member, State};
use crate::net::room::SMALL_BYTES;
use crate::net::{Answer, Event, Request as NetRequest};
use crate::service::Answers;
use crate::thrift::Exception;

use super::Store;
use super::calls::{Fetched, Forwarded, Item, ItemList, StoreAnswer, Taken, store_request};
use super::request::{Request, Step};

/// How long requests wait before they look again at what they wait for: at first, and twice as long each time, up
/// to a quarter of a tick.
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// Messages with more than so many bytes of items may be on their way for longer than tombstones are kept: this takes 16
/// seconds at 64 KiB a second.
const LARGE: usize = 1 << 20;

/// Such a message is on its way.
pub(super) struct Large<'a>(&'a Store);

impl<'a> Large<'a> {
    /// If it is so large.
    pub fn new(store: &'a Store, bytes: usize) -> Option<Self> {
        (bytes > LARGE).then(|| {
            store.locator.with(|membership, _| membership.sends(true));
            Large(store)
        })
    }
}

impl Drop for Large<'_> {
    fn drop(&mut self) {
        let locator = &self.0.locator;
        locator.with(|membership, _| membership.sends(false));
    }
}

/// A message to another node, and which requests it serves.
enum Message {
    Forward(usize),
    Fetch(usize),
    /// The copies of several puts, from this node.
    Copies(Member, Vec<usize>, ItemList),
}

/// The requests of a batch, and how far they are.
struct Batch<'a, 'b> {
    store: &'a Store,
    requests: &'b mut [Request<'a>],
    answers: &'b mut dyn Answers,
    /// How many have been answered: the first ones.
    answered: usize,
    /// A large message has been sent; tombstones are kept until all of them are done.
    large: Option<Large<'a>>,
    /// The first one takes steps of its own.
    between: bool,
}

impl Store {
    /// Carries out one request, and appends the result.
    pub(super) fn carry_out_alone(
        &self,
        request: Request<'_>,
        result: &mut Vec<u8>,
    ) -> Result<(), Exception> {
        struct Alone<'a>(&'a mut Vec<u8>, Result<(), Exception>);
        impl Answers for Alone<'_> {
            fn add(&mut self, write: &mut dyn FnMut(&mut Vec<u8>) -> Result<(), Exception>) {
                self.1 = write(self.0);
            }
        }
        let mut alone = Alone(result, Ok(()));
        self.carry_out(&mut [request], &mut alone);
        alone.1
    }

    /// Carries these requests out, and answers them in their order.
    pub(super) fn carry_out<'a>(&'a self, requests: &mut [Request<'a>], answers: &mut dyn Answers) {
        let mut batch = Batch {
            store: self,
            requests,
            answers,
            answered: 0,
            large: None,
            between: false,
        };
        let mut pause = LOOK_AGAIN;
        // Some may have failed already.
        batch.hand_out();
        loop {
            let turn = batch.turn();
            if turn.is_empty() {
                return;
            }
            if batch.round(&turn) {
                pause = LOOK_AGAIN;
            } else {
                batch.answers.flush();
                self.locator.environment().clock.pause(pause);
                pause = (2 * pause).min(self.locator.ticks(1) / 4);
            }
        }
    }
}

impl<'a> Batch<'a, '_> {
    /// Those that may go on.
    fn turn(&self) -> Vec<usize> {
        let requests = &*self.requests;
        let open = (self.answered..requests.len()).filter(|i| requests[*i].outcome.is_none());
        let free = |place: &usize| {
            let mut before = requests[self.answered..*place].iter();
            !before.any(|other| other.outcome.is_none() && other.key == requests[*place].key)
        };
        open.filter(free).collect()
    }

    /// A step of each of these. False: all that are left wait for something.
    fn round(&mut self, turn: &[usize]) -> bool {
        let done = self.count_done();
        turn.iter()
            .for_each(|place| self.requests[*place].again = false);
        let room = SMALL_BYTES.saturating_sub(self.kept());
        self.store.begin(self.requests, turn, self.answered, room);
        self.send(turn);
        self.write_own(turn);
        self.hand_out();
        let now = self.store.locator.now();
        for place in turn {
            let request = &mut self.requests[*place];
            let begun = !request.deadline.is_zero();
            let over = begun && now >= request.deadline;
            if request.outcome.is_none() && !request.again && over {
                self.store.expire(request, self.large.is_some());
            }
        }
        self.hand_out();
        let again = turn.iter().any(|place| self.requests[*place].again);
        again || self.count_done() > done
    }

    /// While answers to others are waited for, the first that isn't answered goes on, unless one to it is.
    fn go_on(&mut self) {
        let began = self.store.locator.now();
        let mut gone_on = None;
        while let Some(head) = self.requests.get(self.answered)
            && head.missing == 0
            && !std::mem::replace(&mut self.between, true)
        {
            gone_on = Some(self.answered);
            let further = self.round(&[self.answered]);
            self.between = false;
            if !further {
                break;
            }
        }
        if let Some(place) = gone_on {
            self.put_off(place + 1, self.store.locator.now() - began);
        }
    }

    /// Time that is none of these on their way, from that one on.
    fn put_off(&mut self, from: usize, took: Duration) {
        for request in &mut self.requests[from..] {
            if !request.deadline.is_zero() {
                request.deadline += took;
            }
        }
    }

    fn count_done(&self) -> usize {
        let requests = self.requests.iter();
        requests.filter(|request| request.outcome.is_some()).count()
    }

    /// Bytes of answers that wait for earlier ones.
    fn kept(&self) -> usize {
        let kept = self.requests[self.answered..].iter();
        kept.map(Request::answer_bytes).sum()
    }

    /// Answers those whose turn it is.
    fn hand_out(&mut self) {
        let began = self.store.locator.now();
        self.hand_out_all();
        // The client's time.
        let took = self.store.locator.now() - began;
        self.put_off(self.answered, took);
    }

    fn hand_out_all(&mut self) {
        while let Some(request) = self.requests.get_mut(self.answered) {
            let Some(outcome) = &mut request.outcome else {
                return;
            };
            let outcome = std::mem::replace(outcome, Ok(Forwarded::done(Vec::new())));
            self.share(&outcome);
            let request = &self.requests[self.answered];
            let wants = request.wants();
            let mut outcome = Some(outcome);
            self.answers.add(&mut |result| {
                let outcome = outcome.take().expect("BUG: an answer is written twice");
                outcome?.write(wants, result);
                Ok(())
            });
            self.answered += 1;
        }
    }

    /// Gets of the key that come right behind the one that is being answered take its answer.
    fn share(&mut self, outcome: &Result<Forwarded, Exception>) {
        let Ok(Forwarded {
            done: Some(value), ..
        }) = outcome
        else {
            return;
        };
        let (head, room) = (self.answered, SMALL_BYTES.saturating_sub(self.kept()));
        if self.requests[head].value.is_some() || value.len() > room / self.requests.len() {
            return;
        }
        let (done, rest) = self.requests.split_at_mut(head + 1);
        let same = rest.iter_mut().filter(|other| other.key == done[head].key);
        let forwarded = done[head].forwarded;
        // Not beyond one that has begun: it may know something later.
        let alike = |other: &&mut Request<'_>| {
            let begun = other.outcome.is_some() || !matches!(other.step, Step::Begin);
            other.value.is_none() && other.forwarded == forwarded && !begun
        };
        for get in same.take_while(alike) {
            get.outcome = Some(Ok(Forwarded::done(value.clone())));
        }
    }

    /// Makes the calls that the requests of this turn need, and lets them go on with the answers.
    fn send(&mut self, turn: &[usize]) {
        let mut messages: Vec<(Member, Message)> = Vec::new();
        for place in turn.iter().copied() {
            let request = &mut self.requests[place];
            match &request.step {
                Step::Forward(route) => {
                    let primary = route.primary().cloned();
                    request.missing = usize::from(primary.is_some());
                    messages.extend(primary.map(|primary| (primary, Message::Forward(place))));
                }
                Step::Fetch(route) => {
                    let before = messages.len();
                    let others = route.others().cloned();
                    messages.extend(others.map(|other| (other, Message::Fetch(place))));
                    request.missing = messages.len() - before;
                }
                Step::Copies(tried) => {
                    let item = Item {
                        key: request.key,
                        version: tried.version,
                        value: Some(tried.value(request.value)),
                        digest: None,
                        list: Some(tried.route.digest),
                    };
                    request.missing = tried.route.others().count();
                    for other in tried.route.others() {
                        push_copy(&mut messages, tried.route.me(), other, place, &item);
                    }
                }
                Step::Begin | Step::Own(_) => {}
            }
        }
        if messages.is_empty() {
            return;
        }
        let locator = &self.store.locator;
        let now = locator.now();
        let (members, messages): (Vec<_>, Vec<_>) = messages.into_iter().unzip();
        let call = |(to, message): (Member, &Message)| {
            let request = match message {
                Message::Forward(place) => self.store.forward(&self.requests[*place], &to, now),
                Message::Fetch(place) => self.store.fetch(&self.requests[*place]),
                Message::Copies(me, _, items) => {
                    store_request(&locator.caller(me, &to.location), true, items)
                }
            };
            (to, request)
        };
        let calls: Vec<_> = members.into_iter().zip(&messages).map(call).collect();
        let large = Large::new(self.store, bytes_with_copies(&messages, &calls));
        self.large = self.large.take().or(large);
        locator.call_each_member(&calls, locator.ticks(2), &mut |event| {
            self.hand_out();
            let Event::Answer(number, answer) = event else {
                self.go_on();
                return self.answers.flush();
            };
            let member = &calls[number].0;
            match &messages[number] {
                Message::Forward(place) => self.take_forwarded(*place, answer),
                Message::Fetch(place) => self.take_fetched(*place, member, answer),
                Message::Copies(_, places, _) => self.take_stored(places, member, answer),
            }
            self.hand_out();
            self.go_on();
        });
    }

    fn take_forwarded(&mut self, place: usize, answer: Answer) {
        let answer = answer.and_then(|result| read_answer::<Forwarded>(&result, "forward"));
        let bytes = answer.as_ref().map_or(0, Forwarded::bytes);
        let room = SMALL_BYTES.saturating_sub(self.kept());
        let request = &mut self.requests[place];
        request.missing = 0;
        if place > self.answered && bytes > room {
            request.wait_for_others();
        } else {
            self.store.forwarded(request, answer);
        }
    }

    fn take_fetched(&mut self, place: usize, member: &Member, answer: Answer) {
        let room = SMALL_BYTES.saturating_sub(self.kept());
        let request = &mut self.requests[place];
        request.missing -= 1;
        if !matches!(request.step, Step::Fetch(_)) {
            return; // It waits for others.
        }
        match answer.and_then(|result| read_answer(&result, "fetch")) {
            Ok(Fetched {
                members: Some(members),
                ..
            }) => self.store.locator.differs(member, &members),
            Ok(Fetched { value, .. }) if place > self.answered && value.len() > room => {
                return request.wait_for_others();
            }
            Ok(Fetched { version, value, .. }) => request.accounts.push((version, value)),
            Err(_) => {}
        }
        if request.missing == 0 {
            self.store.fetched(request);
        }
    }

    fn take_stored(&mut self, places: &[usize], member: &Member, answer: Answer) {
        let StoreAnswer { taken, full, .. } = self.store.stored(member, answer);
        for (number, place) in places.iter().enumerate() {
            let request = &mut self.requests[*place];
            let taken = match taken.get(number) {
                // One that is joining ends: the put goes on without it.
                Some(Taken::NoRoom) if member.state == State::Joining => None,
                taken => taken,
            };
            if let Step::Copies(tried) = &mut request.step {
                tried.hear(member, taken, &full);
            }
            request.missing -= 1;
            if request.missing == 0 {
                self.store.copied(request, self.large.is_some());
            }
        }
        self.write_own(places);
    }

    /// Writes the primary's own copies for those of these requests whose other copies have been accepted.
    fn write_own(&mut self, places: &[usize]) {
        let waits = |place: &usize| matches!(self.requests[*place].step, Step::Own(_));
        let waiting: Vec<_> = places.iter().copied().filter(waits).collect();
        let large = self.large.is_some();
        self.store.write_own(self.requests, &waiting, large);
    }
}

/// The most bytes that go to one node and have copies among them, which may come behind all else; or fewer than are
/// [`LARGE`].
fn bytes_with_copies(messages: &[Message], calls: &[(Member, NetRequest)]) -> usize {
    let bytes = |(_, request): &(Member, NetRequest)| request.arguments.len();
    let all = calls.iter().map(bytes).sum();
    if all <= LARGE {
        return all;
    }
    let messages = messages.iter().zip(calls);
    let copies = messages.filter(|(message, _)| matches!(message, Message::Copies(..)));
    let most = copies.map(|(_, (to, _))| {
        let same = calls.iter().filter(|(other, _)| other == to);
        same.map(bytes).sum()
    });
    most.max().unwrap_or(0)
}

/// Adds a copy to the message to that node, or begins one.
fn push_copy(
    messages: &mut Vec<(Member, Message)>,
    me: &Member,
    to: &Member,
    place: usize,
    item: &Item<'_>,
) {
    for (member, message) in &mut *messages {
        if let Message::Copies(from, places, items) = message
            && (&*member, &*from) == (to, me)
            && items.bytes() < LARGE
        {
            places.push(place);
            items.push(item);
            return;
        }
    }
    let mut items = ItemList::default();
    items.push(item);
    messages.push((to.clone(), Message::Copies(me.clone(), vec![place], items)));
}
