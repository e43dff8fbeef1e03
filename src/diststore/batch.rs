//! Carrying out requests that have arrived together, side by side.
//!
//! It goes in rounds. In each, every request that may go on takes its next step (`steps.rs`). What it has to ask others
//! is sent together with what the other requests ask. Of two requests for one key the later one waits until the earlier
//! one is done; gets one behind the other share an answer.
//!
//! A round ends with the last answer. All others wait for the first request that isn't answered: if its turn comes while
//! answers to others have been waited for, for long, it begins in between.
//!
//! A request alone is a batch of one.

use std::collections::HashMap;
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
    /// The last one that has begun in between, and when it had taken its steps. No other one begins meanwhile.
    between: Option<(usize, Duration)>,
    /// How long the client has taken for its answers: that time is none of the requests'.
    late: Duration,
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
            between: None,
            late: Duration::ZERO,
        };
        batch.link();
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
    /// Has each request know those for the same key that stand next to it.
    fn link(&mut self) {
        if self.requests.len() == 1 {
            return;
        }
        let mut last = HashMap::with_capacity(self.requests.len());
        for place in 0..self.requests.len() {
            if self.requests[place].outcome.is_some() {
                continue; // It can't be read.
            }
            let before = last.insert(self.requests[place].key, place);
            self.requests[place].before = before;
            if let Some(before) = before {
                self.requests[before].behind = Some(place);
            }
        }
    }

    /// Those that may go on.
    fn turn(&self) -> Vec<usize> {
        let requests = &*self.requests;
        let open = (self.answered..requests.len()).filter(|i| requests[*i].outcome.is_none());
        let is_done = |before: usize| requests[before].outcome.is_some();
        open.filter(|place| requests[*place].before.is_none_or(is_done))
            .collect()
    }

    /// The time by which requests have their deadlines.
    fn now(&self) -> Duration {
        self.store.locator.now().saturating_sub(self.late)
    }

    /// A step of each of these. False: all that are left wait for something.
    fn round(&mut self, turn: &[usize]) -> bool {
        let done = self.count_done();
        turn.iter()
            .for_each(|place| self.requests[*place].again = false);
        let (room, now) = (SMALL_BYTES.saturating_sub(self.kept()), self.now());
        let head = self.answered;
        self.store.begin(self.requests, turn, (head, room), now);
        self.send(turn);
        self.write_own(turn);
        self.hand_out();
        let now = self.now();
        for place in turn {
            let request = &mut self.requests[*place];
            let begun = !request.deadline.is_zero();
            let over = begun && now >= request.deadline;
            if request.outcome.is_none() && !request.again && over {
                self.store.expire(request);
            }
        }
        self.hand_out();
        let again = turn.iter().any(|place| self.requests[*place].again);
        again || self.count_done() > done
    }

    /// Others wait for answers since then: after a quarter of a tick the first that isn't answered begins, if it has not. If
    /// it isn't done then, it goes on with the others. A node that hangs is not waited for time and again: no other one
    /// begins after one that isn't done, or has taken a tick.
    fn begin_between(&mut self, since: Duration) {
        let tick = self.store.locator.ticks(1);
        let is_new = |request: &Request<'_>| {
            let begins = matches!(request.step, Step::Begin) && !request.waits_for_others;
            request.outcome.is_none() && request.deadline.is_zero() && begins
        };
        let head = |batch: &Self| batch.requests.get(batch.answered).is_some_and(is_new);
        let mut now = self.now();
        while now.saturating_sub(since) >= tick / 4 && self.between.is_none() && head(self) {
            let (head, began) = (self.answered, now);
            self.between = Some((head, now));
            self.round(&[head]);
            now = self.now();
            let took = now.saturating_sub(began);
            let goes_on = self.answered > head && took < tick;
            self.between = (!goes_on).then_some((head, now));
            self.put_off(head + 1, took);
            self.answers.flush();
        }
    }

    /// So much time is none of these requests', from that one on.
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

    /// Whether an answer of so many bytes may wait for earlier ones: each has its share, and takes what others leave.
    fn may_wait(&self, place: usize, bytes: usize) -> bool {
        place == self.answered
            || bytes <= SMALL_BYTES / self.requests.len()
            || bytes <= SMALL_BYTES.saturating_sub(self.kept())
    }

    /// Answers those whose turn it is.
    fn hand_out(&mut self) {
        let head = self.requests.get(self.answered);
        if head.is_none_or(|head| head.outcome.is_none()) {
            return;
        }
        let began = self.store.locator.now();
        self.hand_out_all();
        self.late += self.store.locator.now() - began;
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
        let head = &self.requests[self.answered];
        if head.value.is_some() || value.len() > SMALL_BYTES / self.requests.len() {
            return;
        }
        let (forwarded, mut next) = (head.forwarded, head.behind);
        while let Some(place) = next {
            let other = &mut self.requests[place];
            // Not beyond one that has begun: it may know something later.
            let begun = other.outcome.is_some() || !matches!(other.step, Step::Begin);
            if begun || other.value.is_some() || other.forwarded != forwarded {
                return;
            }
            other.is_done(value.clone());
            next = other.behind;
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
        let (locator, now) = (&self.store.locator, self.now());
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
        for place in turn {
            if let Step::Copies(tried) = &mut self.requests[*place].step {
                tried.large = self.large.is_some();
            }
        }
        let is_between = self.between.is_some();
        locator.call_each_member(&calls, locator.ticks(2), &mut |event| {
            self.hand_out();
            let Event::Answer(number, answer) = event else {
                self.answers.flush();
                return self.begin_between(now);
            };
            let member = &calls[number].0;
            match &messages[number] {
                Message::Forward(place) => self.take_forwarded(*place, answer),
                Message::Fetch(place) => self.take_fetched(*place, member, answer),
                Message::Copies(_, places, _) => self.take_stored(places, member, answer),
            }
            self.hand_out();
        });
        if !is_between && let Some((place, since)) = self.between.take() {
            let waited = self.now().saturating_sub(since);
            self.requests[place].deadline += waited;
        }
    }

    fn take_forwarded(&mut self, place: usize, answer: Answer) {
        let answer = answer.and_then(|result| read_answer::<Forwarded>(&result, "forward"));
        let bytes = answer.as_ref().map_or(0, Forwarded::bytes);
        let may_wait = self.may_wait(place, bytes);
        let request = &mut self.requests[place];
        request.missing = 0;
        match may_wait {
            true => self.store.forwarded(request, answer),
            false => request.wait_for_others(),
        }
    }

    fn take_fetched(&mut self, place: usize, member: &Member, answer: Answer) {
        let fetched = answer.and_then(|result| read_answer::<Fetched>(&result, "fetch"));
        let bytes = fetched.as_ref().map_or(0, |fetched| fetched.value.len());
        let may_wait = self.may_wait(place, bytes);
        let request = &mut self.requests[place];
        request.missing -= 1;
        if !matches!(request.step, Step::Fetch(_)) {
            return; // It waits for others.
        }
        match fetched {
            Ok(Fetched {
                members: Some(members),
                ..
            }) => self.store.locator.differs(member, &members),
            Ok(_) if !may_wait => return request.wait_for_others(),
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
                self.store.copied(request);
            }
        }
        self.write_own(places);
    }

    /// Writes the primary's own copies for those of these requests whose other copies have been accepted.
    fn write_own(&mut self, places: &[usize]) {
        let waits = |place: &usize| matches!(self.requests[*place].step, Step::Own(_));
        let waiting: Vec<_> = places.iter().copied().filter(waits).collect();
        self.store.write_own(self.requests, &waiting);
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
