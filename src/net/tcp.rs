//! Calls over TCP: what [`Network`] is outside simulations.
//!
//! Between our own nodes connections are kept and shared by all callers, a caller at a time.
//! Invariants:
//!
//! * no lock is held while anything is connected, written or read;
//! * what may take long (connecting, writing much) is done side by side, so several hosts that don't
//!   answer cost one time limit together;
//! * only a connection whose every answer came is used again, so nobody reads another's answer.

use std::collections::HashMap;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, Shutdown};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::dial::{connect, descriptors_max, side_by_side};
use super::incoming::Incoming;
use super::link::{Link, QUICK_BYTES_MAX};
use super::names::Names;
use super::patience::Patience;
use super::pools::Pools;
use super::{Answer, CallError, Connection, Event, Network, Request};
use crate::location::Location;
use crate::os::has_ended;
use crate::thrift::{Exception, Limits, Message, MessageKind, begin_message};

/// Connections to other nodes, and calls on them. Shared by all threads of a node.
#[derive(Debug)]
pub struct TcpNetwork {
    limits: Limits,
    /// Our own address, if we have one.
    from: Option<IpAddr>,
    names: Arc<Names>,
    /// Guards the kept connections, idle and in use.
    pools: Mutex<Pools>,
}

/// Requests that travel together.
struct Group<'a> {
    to: &'a Location,
    connection: Connection,
    /// The longest of their limits.
    limit: Duration,
    /// Each with its place among the answers.
    requests: Vec<(usize, &'a Request)>,
}

/// A group to be sent, on a connection that is to be made unless there is one.
struct Job<'a> {
    group: &'a Group<'a>,
    link: Option<Link>,
}

/// A group whose requests have been written.
struct Sent<'a> {
    group: &'a Group<'a>,
    link: Link,
    incoming: Incoming,
    patience: Patience,
    /// How many of its answers have come.
    taken: usize,
}

enum Failure {
    /// A kept connection had ended before the peer answered anything: to be tried afresh.
    Stale,
    Final(CallError),
}

impl Default for TcpNetwork {
    fn default() -> Self {
        TcpNetwork::new(Limits::default())
    }
}

impl Network for TcpNetwork {
    fn call_all(&self, calls: &[(Location, Request)], limit: Duration) -> Vec<Answer> {
        let mut answers = vec![None; calls.len()];
        self.exchange_all(calls, limit, false, &mut |event| {
            if let Event::Answer(place, answer) = event {
                answers[place] = Some(answer);
            }
        });
        let answers = answers.into_iter();
        answers
            .map(|answer| answer.expect("BUG: an answer for each call"))
            .collect()
    }

    fn call_each(
        &self,
        calls: &[(Location, Request)],
        limit: Duration,
        take: &mut dyn FnMut(Event),
    ) {
        self.exchange_all(calls, limit, true, take);
    }

    fn forget(&self, location: &Location) {
        let forgotten = self.pools().forget(location);
        for stream in forgotten.iter().flat_map(|pool| &pool.in_use) {
            // It fails if the peer has ended the connection: as good.
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

impl TcpNetwork {
    /// A network that reads answers up to these limits.
    pub fn new(limits: Limits) -> Self {
        TcpNetwork {
            limits,
            from: None,
            names: Arc::default(),
            pools: Mutex::new(Pools::new(descriptors_max() / 8)),
        }
    }

    /// The same, with connections that come from this address where it can be: by it the others know this node.
    #[must_use]
    pub fn from(self, address: IpAddr) -> Self {
        TcpNetwork {
            from: Some(address),
            ..self
        }
    }

    /// The addresses of a location as far as they are known. Doesn't wait: those of a host's name are known a while
    /// after they have been asked for.
    pub fn known_addresses(&self, location: &Location) -> Vec<IpAddr> {
        let found = self.names.addresses(location.address(), Instant::now());
        found.unwrap_or_default()
    }

    /// Closes the connections that are kept and not in use. False: there were none.
    pub fn close_idle(&self) -> bool {
        let closed = self.pools().take_idle();
        !closed.is_empty()
    }

    /// Sends everything and hands out an answer for each call. `anew`: limits begin anew with each answer.
    fn exchange_all(
        &self,
        calls: &[(Location, Request)],
        limit: Duration,
        anew: bool,
        take: &mut dyn FnMut(Event),
    ) {
        let groups = grouped(calls, limit);
        let jobs = groups.iter().map(|group| Job {
            group,
            link: self.take(group),
        });
        let (quick, slow): (Vec<_>, Vec<_>) = jobs.partition(Job::is_quick);
        if !slow.is_empty() {
            take(Event::Waiting);
        }
        let quick = quick.into_iter().map(|job| self.send(job, anew));
        let mut outcomes: Vec<_> = quick.collect();
        outcomes.extend(side_by_side(slow, |job| self.send(job, anew)));
        let (mut sent, mut turns) = (Vec::new(), Vec::new());
        for outcome in outcomes {
            match outcome {
                Ok(one) => {
                    let places = one.group.requests.iter().map(|(place, _)| *place);
                    turns.extend(places.map(|place| (place, sent.len())));
                    sent.push(Some(one));
                }
                Err((group, error)) => group.fail(0, error, take),
            }
        }
        let gained = sent.iter().flatten().map(Sent::gained);
        let gained = gained.max().unwrap_or_default();
        sent.iter_mut()
            .flatten()
            .for_each(|one| one.patience.extend(gained));
        turns.sort_unstable();
        for (place, number) in turns {
            let Some(mut one) = sent[number].take() else {
                continue; // It has failed.
            };
            let (group, began) = (one.group, one.patience.deadline);
            let received = match self.receive(&mut one, &mut || take(Event::Waiting)) {
                Err(Failure::Stale) => match self.send(Job { group, link: None }, anew) {
                    Ok(again) => {
                        one = again;
                        self.receive(&mut one, &mut || take(Event::Waiting))
                    }
                    Err((_, error)) => Err(Failure::Final(error)),
                },
                received => received,
            };
            let gained = one.patience.deadline.saturating_duration_since(began);
            let taking = Instant::now();
            match received {
                Ok(answer) => {
                    take(Event::Answer(place, answer));
                    if one.taken < group.requests.len() {
                        sent[number] = Some(one);
                    } else if group.connection != Connection::Single {
                        self.put_back(group.to, one.link, one.incoming.is_empty());
                    }
                    // One that isn't kept is closed here; what has been written arrives all the same.
                }
                Err(Failure::Stale) => unreachable!("BUG: a fresh connection is stale"),
                Err(Failure::Final(error)) => group.fail(one.taken, error, take),
            }
            // What the caller takes for an answer is none of the peers' time.
            let taking = taking.elapsed();
            for (other, one) in sent.iter_mut().enumerate() {
                let Some(one) = one else { continue };
                one.patience.deadline += taking;
                if other != number {
                    one.patience.extend(gained);
                }
            }
        }
    }

    /// Writes all requests of a group; again afresh, if a kept connection had ended.
    fn send<'a>(&self, job: Job<'a>, anew: bool) -> Result<Sent<'a>, (&'a Group<'a>, CallError)> {
        let Job { group, link } = job;
        let mut patience = Patience::new(group.limit);
        patience.anew = anew;
        let mut link = match link {
            Some(link) => link,
            None => self
                .connect(group, patience.deadline)
                .map_err(|error| (group, error))?,
        };
        let bytes = group.encode(link.sequence);
        if let Err(error) = link.write_all(&bytes, &mut patience) {
            return match self.fail(group, &link, failure_of(&error)) {
                Failure::Stale => self.send(Job { group, link: None }, anew),
                Failure::Final(error) => Err((group, error)),
            };
        }
        Ok(Sent {
            group,
            link,
            incoming: Incoming::new(),
            patience,
            taken: 0,
        })
    }

    /// Reads the next answer of a group. `wait` is called if it doesn't come soon.
    fn receive(&self, sent: &mut Sent<'_>, wait: &mut dyn FnMut()) -> Result<Answer, Failure> {
        let Sent {
            group,
            link,
            incoming,
            patience,
            taken,
        } = sent;
        let (_, request) = group.requests[*taken];
        let answer = if request.oneway {
            Ok(vec![0])
        } else {
            self.read_answer(incoming, link, request.method, patience, wait)
        };
        match answer {
            Ok(_) | Err(CallError::Exception(_)) => {
                patience.renew();
                link.sequence = link.sequence.wrapping_add(1);
                *taken += 1;
                if incoming.is_large() {
                    incoming.shrink();
                }
                Ok(answer)
            }
            Err(error) => Err(self.fail(group, link, error)),
        }
    }

    fn read_answer(
        &self,
        incoming: &mut Incoming,
        link: &mut Link,
        method: &str,
        patience: &mut Patience,
        wait: &mut dyn FnMut(),
    ) -> Answer {
        let broken = |cause: &str| CallError::Broken(cause.to_owned());
        loop {
            match incoming.next(&self.limits) {
                Ok(Some(message)) => return check(&message, method, link.sequence, &self.limits),
                Ok(None) => {}
                Err(error) => return Err(CallError::Broken(error.to_string())),
            }
            match link.read(incoming, patience) {
                Ok(None) => {
                    // Nor is that time.
                    let waiting = Instant::now();
                    wait();
                    patience.deadline += waiting.elapsed();
                }
                Ok(Some(0)) => {
                    link.ended = true;
                    return Err(broken("closed before the answer"));
                }
                Ok(Some(count)) => {
                    link.doubtful = false;
                    patience.buy(count);
                }
                Err(error) => return Err(failure_of(&error)),
            }
        }
    }

    /// Gives a connection up.
    fn fail(&self, group: &Group<'_>, link: &Link, error: CallError) -> Failure {
        let forgotten = !self.pools().release(group.to, &link.stream);
        // A connection that is reset has something left that the peer has not read: the call, if there is but one.
        let single = group.requests.len() == 1;
        let done = group.connection == Connection::Once && (link.ended || !single);
        match error {
            CallError::Broken(_) if link.doubtful && !forgotten && !done => Failure::Stale,
            error => Failure::Final(error),
        }
    }

    /// A kept connection, if there is one.
    fn take(&self, group: &Group<'_>) -> Option<Link> {
        if group.connection == Connection::Single {
            return None;
        }
        loop {
            let link = self.pools().take(group.to)?;
            if group.connection != Connection::Once || !has_ended(&link.stream) {
                return Some(link);
            }
            self.pools().release(group.to, &link.stream);
        }
    }

    /// Keeps a connection for the next caller, if all its answers came and nothing else.
    fn put_back(&self, to: &Location, mut link: Link, clean: bool) {
        link.doubtful = true;
        link.underway = 0; // It has answered: those bytes buy no time for a later request.
        let now = Instant::now();
        let mut pools = self.pools();
        if pools.release(to, &link.stream) && clean {
            pools.keep(to, link, now);
        }
        pools.sweep(now);
    }

    fn connect(&self, group: &Group<'_>, deadline: Instant) -> Result<Link, CallError> {
        let relieve = || self.close_idle();
        let link = Link::new(connect(
            self.from,
            group.to,
            &self.names,
            deadline,
            &relieve,
        )?);
        if group.connection != Connection::Single {
            self.pools().use_new(group.to, &link);
        }
        Ok(link)
    }

    /// No change under the lock can be half done: a poisoned lock is taken all the same.
    fn pools(&self) -> MutexGuard<'_, Pools> {
        self.pools.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Sent<'_> {
    /// By how much bytes that moved have put the deadline off.
    fn gained(&self) -> Duration {
        let first = self.patience.began + self.patience.limit;
        self.patience.deadline.saturating_duration_since(first)
    }
}

impl Group<'_> {
    /// Hands out an error for each request but the first ones.
    fn fail(&self, taken: usize, error: CallError, take: &mut dyn FnMut(Event)) {
        for &(place, _) in &self.requests[taken..] {
            take(Event::Answer(place, Err(error.clone())));
        }
    }

    /// All requests, in one piece.
    fn encode(&self, mut sequence: i32) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.size());
        for (_, request) in &self.requests {
            let kind = if request.oneway {
                MessageKind::Oneway
            } else {
                MessageKind::Call
            };
            begin_message(&mut bytes, kind, request.method.as_bytes(), sequence, false);
            bytes.extend_from_slice(&request.arguments);
            sequence = sequence.wrapping_add(1);
        }
        bytes
    }

    /// Of all requests, in bytes.
    fn size(&self) -> usize {
        const HEADER_BYTES: usize = 12;
        let sizes = self
            .requests
            .iter()
            .map(|(_, request)| HEADER_BYTES + request.method.len() + request.arguments.len());
        sizes.sum()
    }
}

impl Job<'_> {
    /// Whether sending it is a matter of microseconds.
    fn is_quick(&self) -> bool {
        self.link.is_some() && self.group.size() <= QUICK_BYTES_MAX
    }
}

/// One group for each location, but for calls that want a connection of their own. If one call of a group must not be
/// carried out twice, none is.
fn grouped(calls: &[(Location, Request)], limit: Duration) -> Vec<Group<'_>> {
    let mut groups: Vec<Group<'_>> = Vec::new();
    let mut kept: HashMap<&Location, usize> = HashMap::new();
    for (place, (to, request)) in calls.iter().enumerate() {
        let (new, connection) = (groups.len(), request.connection);
        let at = match connection {
            Connection::Single => new,
            Connection::Kept | Connection::Once => *kept.entry(to).or_insert(new),
        };
        if at == new {
            groups.push(Group {
                to,
                connection,
                limit: Duration::ZERO,
                requests: Vec::new(),
            });
        }
        let group = &mut groups[at];
        if connection == Connection::Once {
            group.connection = connection;
        }
        group.limit = group.limit.max(request.limit.unwrap_or(limit));
        group.requests.push((place, request));
    }
    groups
}

/// The result in an answer, or what the peer gave instead.
fn check(message: &Message<'_>, method: &str, sequence: i32, limits: &Limits) -> Answer {
    let broken = |cause: &str| Err(CallError::Broken(cause.to_owned()));
    if message.name != method.as_bytes() || message.sequence != sequence {
        return broken("the answer to another call");
    }
    match message.kind {
        MessageKind::Reply => Ok(message.body.to_vec()),
        MessageKind::Exception => match Exception::read(message.reader(limits)) {
            Ok(exception) => Err(CallError::Exception(exception)),
            Err(error) => Err(CallError::Broken(error.to_string())),
        },
        MessageKind::Call | MessageKind::Oneway => broken("a request for an answer"),
    }
}

/// What an error on an established connection means.
fn failure_of(error: &io::Error) -> CallError {
    match error.kind() {
        ErrorKind::WouldBlock
        | ErrorKind::TimedOut
        | ErrorKind::HostUnreachable
        | ErrorKind::NetworkUnreachable => CallError::Silent,
        _ => CallError::Broken(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::net::TcpListener;
    use std::thread;

    use super::*;
    use crate::thrift::Write as _;

    #[test]
    fn must_count_what_is_underway_from_each_request_on() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let peer = thread::spawn(move || {
            let mut stream = listener.accept().unwrap().0;
            let mut incoming = Incoming::new();
            let mut answered = 0;
            while answered < 2 && incoming.read_from(&mut stream).unwrap() > 0 {
                while let Some(message) = incoming.next(&Limits::default()).unwrap() {
                    let mut answer = Vec::new();
                    let (name, sequence) = (message.name, message.sequence);
                    begin_message(&mut answer, MessageKind::Reply, name, sequence, false);
                    answer.write_stop();
                    stream.write_all(&answer).unwrap();
                    answered += 1;
                }
            }
        });
        let network = TcpNetwork::new(Limits::default());
        let to = Location::new("127.0.0.1", port).unwrap();
        let mut arguments = Vec::new();
        arguments.write_bytes_field(1, &[b'x'; 10_000]);
        arguments.write_stop();
        let put = Request {
            method: "put",
            arguments: arguments.into(),
            limit: None,
            oneway: false,
            connection: Connection::Kept,
        };
        for _ in 0..2 {
            network.call(&to, &put, Duration::from_secs(10)).unwrap();
            let link = network.pools().take(&to).unwrap();
            assert_eq!(link.underway, 0);
            network.put_back(&to, link, true);
        }
        peer.join().unwrap();
    }
}
