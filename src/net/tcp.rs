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
use std::io::{self, ErrorKind, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpStream, ToSocketAddrs};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use super::incoming::Incoming;
use super::{Answer, CallError, Connection, Network, Request};
use crate::location::Location;
use crate::thrift::{Exception, Limits, Message, MessageKind, begin_message};

/// Idle connections kept to one location. Up: fewer new ones when many threads call one node at
/// once; down: fewer descriptors.
const IDLE_MAX: usize = 16;

/// A connection that nobody has used for so long is closed. Below the hour after which a server of
/// ours would close it.
const IDLE_LIMIT: Duration = Duration::from_secs(60);

/// Connections made at a time by one [`Network::call_all`].
const CONNECTING_MAX: usize = 64;

/// More than this may fill the peer's buffers, so its writing may have to wait for the peer.
const QUICK_BYTES_MAX: usize = 64 << 10;

/// Time limits are rounded up to this, so that the next call finds the one that it wants set.
const LIMIT_STEP: Duration = Duration::from_millis(10);

/// Stack of the threads that connect and resolve names.
const STACK_BYTES: usize = 256 << 10;

/// Connections to other nodes, and calls on them. Shared by all threads of a node.
#[derive(Debug, Default)]
pub struct TcpNetwork {
    limits: Limits,
    /// Guards the kept connections, idle and in use.
    pools: Mutex<Pools>,
}

#[derive(Debug, Default)]
struct Pools {
    of: HashMap<Location, Pool>,
    swept: Option<Instant>,
}

/// The connections kept to one location.
#[derive(Debug, Default)]
struct Pool {
    /// The last used is last.
    idle: Vec<(Instant, Link)>,
    in_use: Vec<Arc<TcpStream>>,
}

/// One connection.
#[derive(Debug)]
struct Link {
    stream: Arc<TcpStream>,
    /// Of the next request.
    sequence: i32,
    /// The time limit that is set for reading and writing; zero: neither waits.
    limit: Option<Duration>,
    /// It was kept, and nothing has been heard on it since: should it turn out to have ended,
    /// that says nothing of the peer.
    doubtful: bool,
}

/// Requests that travel together.
struct Group<'a> {
    to: &'a Location,
    connection: Connection,
    /// Each with its place among the answers.
    requests: Vec<(usize, &'a Request)>,
}

/// A group to be sent, on a connection that is to be made unless there is one.
struct Job<'a> {
    group: &'a Group<'a>,
    link: Option<Link>,
}

enum Failure {
    /// A kept connection had ended before the peer answered anything: to be tried afresh.
    Stale,
    Final(CallError),
}

impl Network for TcpNetwork {
    fn call_all(&self, calls: &[(Location, Request)], limit: Duration) -> Vec<Answer> {
        let deadline = Instant::now() + limit;
        let mut answers = vec![None; calls.len()];
        let groups = grouped(calls);
        let first = groups.iter().map(|group| Job {
            group,
            link: self.take(group),
        });
        let stale = self.exchange(first, deadline, &mut answers);
        let again = stale.into_iter().map(|group| Job { group, link: None });
        let stale = self.exchange(again, deadline, &mut answers);
        assert!(stale.is_empty(), "BUG: a fresh connection is stale");
        let answers = answers.into_iter();
        answers
            .map(|answer| answer.expect("BUG: an answer for each call"))
            .collect()
    }

    fn forget(&self, location: &Location) {
        let forgotten = self.pools().of.remove(location);
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
            pools: Mutex::default(),
        }
    }

    /// Sends everything, then reads the answers. The groups that come back are to be tried afresh.
    fn exchange<'a>(
        &self,
        jobs: impl Iterator<Item = Job<'a>>,
        deadline: Instant,
        answers: &mut [Option<Answer>],
    ) -> Vec<&'a Group<'a>> {
        let send = |job: Job<'a>| (job.group, self.send(job, deadline));
        let (quick, slow): (Vec<_>, Vec<_>) = jobs.partition(Job::is_quick);
        let mut sent: Vec<_> = quick.into_iter().map(send).collect();
        sent.extend(side_by_side(slow, send));
        let mut stale = Vec::new();
        for (group, link) in sent {
            let received = link.and_then(|link| self.receive(group, link, deadline, answers));
            match received {
                Ok(()) => {}
                Err(Failure::Stale) => stale.push(group),
                Err(Failure::Final(error)) => {
                    for &(place, _) in &group.requests {
                        answers[place].get_or_insert_with(|| Err(error.clone()));
                    }
                }
            }
        }
        stale
    }

    fn send(&self, job: Job<'_>, deadline: Instant) -> Result<Link, Failure> {
        let Job { group, link } = job;
        let mut link = match link {
            Some(link) => link,
            None => self.connect(group, deadline).map_err(Failure::Final)?,
        };
        let bytes = group.encode(link.sequence);
        let written = link
            .wait_until(deadline)
            .and_then(|()| (&*link.stream).write_all(&bytes));
        match written {
            Ok(()) => Ok(link),
            Err(error) => Err(self.fail(group, &link, failure_of(&error))),
        }
    }

    /// Reads the answers of a group, each to its place.
    fn receive(
        &self,
        group: &Group<'_>,
        mut link: Link,
        deadline: Instant,
        answers: &mut [Option<Answer>],
    ) -> Result<(), Failure> {
        let mut incoming = Incoming::new();
        for &(place, request) in &group.requests {
            let answer = if request.oneway {
                Ok(vec![0])
            } else {
                self.read_answer(&mut incoming, &mut link, request.method, deadline)
            };
            match answer {
                Ok(_) | Err(CallError::Exception(_)) => answers[place] = Some(answer),
                Err(error) => return Err(self.fail(group, &link, error)),
            }
            link.sequence = link.sequence.wrapping_add(1);
        }
        match group.connection {
            Connection::Kept => self.put_back(group.to, link, incoming.is_empty()),
            // What has been written arrives, whatever happens to the connection on this side.
            Connection::Single => drop(link.stream.shutdown(Shutdown::Write)),
        }
        Ok(())
    }

    fn read_answer(
        &self,
        incoming: &mut Incoming,
        link: &mut Link,
        method: &str,
        deadline: Instant,
    ) -> Answer {
        let broken = |cause: &str| CallError::Broken(cause.to_owned());
        loop {
            match incoming.next(&self.limits) {
                Ok(Some(message)) => return check(&message, method, link.sequence, &self.limits),
                Ok(None) => {}
                Err(error) => return Err(CallError::Broken(error.to_string())),
            }
            let read = link
                .wait_until(deadline)
                .and_then(|()| incoming.read_from(&mut &*link.stream));
            match read {
                Ok(0) => return Err(broken("closed before the answer")),
                Ok(_) => link.doubtful = false,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(failure_of(&error)),
            }
        }
    }

    /// Gives a connection up.
    fn fail(&self, group: &Group<'_>, link: &Link, error: CallError) -> Failure {
        let forgotten = !self.pools().release(group.to, &link.stream);
        match error {
            CallError::Broken(_) if link.doubtful && !forgotten => Failure::Stale,
            error => Failure::Final(error),
        }
    }

    /// A kept connection, if there is one.
    fn take(&self, group: &Group<'_>) -> Option<Link> {
        if group.connection == Connection::Single {
            return None;
        }
        let mut pools = self.pools();
        let pool = pools.of.get_mut(group.to)?;
        let (since, link) = pool.idle.pop()?;
        if since.elapsed() > IDLE_LIMIT {
            pool.idle.clear(); // The others have been idle for longer still.
            return None;
        }
        pool.in_use.push(Arc::clone(&link.stream));
        Some(link)
    }

    /// Keeps a connection for the next caller, if all its answers came in time and nothing else.
    fn put_back(&self, to: &Location, mut link: Link, clean: bool) {
        link.doubtful = true;
        let now = Instant::now();
        let mut pools = self.pools();
        let wanted = pools.release(to, &link.stream) && clean && link.limit != Some(Duration::ZERO);
        if wanted {
            let pool = pools.of.entry(to.clone()).or_default();
            if pool.idle.len() < IDLE_MAX {
                pool.idle.push((now, link));
            }
        }
        pools.sweep(now);
    }

    fn connect(&self, group: &Group<'_>, deadline: Instant) -> Result<Link, CallError> {
        let mut outcome = Err(CallError::Local("no such host".to_owned()));
        for address in resolve(group.to, deadline)? {
            outcome = match (outcome, connect_to(address, deadline)) {
                // One address that refuses doesn't make up for one that is silent.
                (Err(CallError::Silent), Err(_)) => Err(CallError::Silent),
                (_, outcome) => outcome,
            };
            if outcome.is_ok() {
                break;
            }
        }
        let link = Link {
            stream: Arc::new(outcome?),
            sequence: 0,
            limit: None,
            doubtful: false,
        };
        if group.connection == Connection::Kept {
            let mut pools = self.pools();
            let pool = pools.of.entry(group.to.clone()).or_default();
            pool.in_use.push(Arc::clone(&link.stream));
        }
        Ok(link)
    }

    /// Nothing that is done under the lock can leave it half done: poison is passed over.
    fn pools(&self) -> MutexGuard<'_, Pools> {
        self.pools.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pools {
    /// A connection is in use no more; false if it is one that has been forgotten.
    fn release(&mut self, to: &Location, stream: &Arc<TcpStream>) -> bool {
        let Some(pool) = self.of.get_mut(to) else {
            return false;
        };
        let found = pool
            .in_use
            .iter()
            .position(|used| Arc::ptr_eq(used, stream));
        found.map(|at| pool.in_use.swap_remove(at)).is_some()
    }

    /// Closes what has been idle for long, now and then.
    fn sweep(&mut self, now: Instant) {
        let due = |since: Instant| now.duration_since(since) > IDLE_LIMIT;
        if due(*self.swept.get_or_insert(now)) {
            self.swept = Some(now);
            self.of.retain(|_, pool| {
                pool.idle.retain(|(since, _)| !due(*since));
                !pool.idle.is_empty() || !pool.in_use.is_empty()
            });
        }
    }
}

impl Link {
    /// Lets the next read or write wait until then, or not at all if that is past.
    fn wait_until(&mut self, deadline: Instant) -> io::Result<()> {
        let left = deadline.saturating_duration_since(Instant::now());
        let steps = left.as_nanos().div_ceil(LIMIT_STEP.as_nanos());
        let limit = LIMIT_STEP * u32::try_from(steps).unwrap_or(u32::MAX);
        if self.limit == Some(limit) {
            return Ok(());
        }
        if limit.is_zero() {
            self.stream.set_nonblocking(true)?;
        } else {
            self.stream.set_read_timeout(Some(limit))?;
            self.stream.set_write_timeout(Some(limit))?;
        }
        self.limit = Some(limit);
        Ok(())
    }
}

impl Group<'_> {
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

/// One group for each location, but for calls that want a connection of their own.
fn grouped(calls: &[(Location, Request)]) -> Vec<Group<'_>> {
    let mut groups: Vec<Group<'_>> = Vec::new();
    let mut kept: HashMap<&Location, usize> = HashMap::new();
    for (place, (to, request)) in calls.iter().enumerate() {
        let new = groups.len();
        let at = match request.connection {
            Connection::Kept => *kept.entry(to).or_insert(new),
            Connection::Single => new,
        };
        if at == new {
            groups.push(Group {
                to,
                connection: request.connection,
                requests: Vec::new(),
            });
        }
        groups[at].requests.push((place, request));
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

/// The addresses of a location. A name is looked up in a thread of its own, which ends when the
/// system's resolver gives up, as nothing else bounds that.
fn resolve(to: &Location, deadline: Instant) -> Result<Vec<SocketAddr>, CallError> {
    if let Ok(ip) = to.address().parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(ip, to.port())]);
    }
    let (answer, answered) = mpsc::channel();
    let (name, port) = (to.address().to_owned(), to.port());
    let look_up = move || {
        let addresses = (name.as_str(), port).to_socket_addrs();
        // Nobody may be waiting any more.
        let _ = answer.send(addresses.map(Vec::from_iter));
    };
    let thread = thread::Builder::new()
        .name("resolve".to_owned())
        .stack_size(STACK_BYTES);
    let local =
        |cause: &dyn std::fmt::Display| CallError::Local(format!("{}: {cause}", to.address()));
    thread.spawn(look_up).map_err(|error| local(&error))?;
    let left = deadline.saturating_duration_since(Instant::now());
    match answered.recv_timeout(left) {
        Ok(addresses) => addresses.map_err(|error| local(&error)),
        Err(_) => Err(local(&"no answer to the look-up of the name")),
    }
}

fn connect_to(address: SocketAddr, deadline: Instant) -> Result<TcpStream, CallError> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() {
        return Err(CallError::Silent);
    }
    let connected = TcpStream::connect_timeout(&address, left).and_then(|stream| {
        stream.set_nodelay(true)?;
        Ok((stream.local_addr()?, stream))
    });
    match connected {
        // The system may choose the very port that we connect to, if it is free, as ours.
        Ok((own, _)) if own == address => Err(CallError::Refused),
        Ok((_, stream)) => Ok(stream),
        Err(error) => Err(match error.kind() {
            ErrorKind::ConnectionRefused => CallError::Refused,
            ErrorKind::TimedOut
            | ErrorKind::WouldBlock
            | ErrorKind::HostUnreachable
            | ErrorKind::NetworkUnreachable => CallError::Silent,
            ErrorKind::ConnectionReset | ErrorKind::ConnectionAborted => {
                CallError::Broken(error.to_string())
            }
            _ => CallError::Local(error.to_string()),
        }),
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

/// Does the work for all items, several at a time, on this thread and others.
fn side_by_side<T: Send, R: Send>(items: Vec<T>, work: impl Fn(T) -> R + Sync) -> Vec<R> {
    let helpers = items.len().min(CONNECTING_MAX).saturating_sub(1);
    let items = Mutex::new(items.into_iter());
    let next = || items.lock().unwrap_or_else(PoisonError::into_inner).next();
    let work_off = || std::iter::from_fn(next).map(&work).collect::<Vec<_>>();
    if helpers == 0 {
        return work_off();
    }
    thread::scope(|scope| {
        let spawn = |_| {
            let thread = thread::Builder::new()
                .name("connect".to_owned())
                .stack_size(STACK_BYTES);
            thread.spawn_scoped(scope, work_off).ok()
        };
        // Where no thread is to be had, the others do its work.
        let helpers: Vec<_> = (0..helpers).filter_map(spawn).collect();
        let mut done = work_off();
        for helper in helpers {
            done.extend(helper.join().expect("BUG: a panic while connecting"));
        }
        done
    })
}
