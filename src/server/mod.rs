//! Serves a [`Service`] on a listener: a thread for each connection, blocking.
//!
//! Knows messages, not methods. Invariants:
//!
//! * the message type decides: a CALL is answered, a ONEWAY never, whatever the method;
//! * what one connection sends ends at most that connection, and an accept error ends nothing;
//! * connections are bounded, and so is the time that one may take over a message or over reading its
//!   answers: one thread watches over all, so that no connection needs time limits of its own;
//! * clients, however many, don't keep out the other nodes of the network: some slots are kept for these, see
//!   `src/server/slots.rs`. A connection is accepted at once. If there is no room, it waits, and a node's connection
//!   may overtake it.
//!
//! ```
//! # use std::{net::TcpListener, sync::Arc, time::Duration};
//! # use thrifty_p2p::{server::{Options, Server}, service::{Call, Order, Service}, thrift::{Exception, Write}};
//! struct Ping;
//!
//! impl Service for Ping {
//!     fn call(&self, call: &Call<'_>, result: &mut Vec<u8>) -> Result<(), Exception> {
//!         match call.method {
//!             b"ping" => Ok(result.write_stop()),
//!             other => Err(Exception::unknown_method(other)),
//!         }
//!     }
//!
//!     fn order(&self, _: &[u8]) -> Order {
//!         Order::Read
//!     }
//! }
//!
//! let listener = TcpListener::bind("127.0.0.1:0")?;
//! let server = Server::start(listener, Arc::new(Ping), Options::default())?;
//! server.stop(Duration::from_secs(1));
//! # Ok::<(), std::io::Error>(())
//! ```

mod connection;
mod conversation;
mod head;
mod options;
mod slots;
mod table;
mod threads;
mod traffic;
mod turn;
mod watch;

pub use options::{Http, Options, connections_max};
pub use traffic::{TIMES, Traffic};

use std::io::{self, ErrorKind};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::net::room::Room;
use crate::net::{Level, descriptors_max, lacks_descriptors};
use crate::os::lengthen_backlog;
use crate::service::Service;
use crate::thrift::Limits;
use connection::{Connection, Phase};
use table::Table;
use threads::Threads;
use turn::Turns;

/// How long the accepting thread waits after trouble (no descriptors, no threads); and how often it is looked
/// whether there is room for connections that wait for it.
const BACK_OFF: Duration = Duration::from_millis(20);

/// Trouble is reported once in this time, however often it comes.
const REPORT_INTERVAL: Duration = Duration::from_secs(60);

/// That a connection was closed for what it sent is said once in this time.
const CLOSED_INTERVAL: Duration = Duration::from_secs(1);

/// How often a stopping server looks which connections have become idle.
const STOP_INTERVAL: Duration = Duration::from_millis(10);

/// How long a stopping server waits for the first request of a connection.
const FRESH: Duration = Duration::from_millis(100);

/// A stopping server takes at most so many of the connections that wait to be accepted; and at most so many that
/// have been accepted wait for room.
const WAITING_MAX: usize = 1024;

/// How long waking the accepting thread may take.
const WAKE_LIMIT: Duration = Duration::from_secs(1);

/// A server that runs. Dropping this doesn't end it, [`Server::stop`] does.
pub struct Server {
    shared: Arc<Shared>,
}

struct Shared {
    service: Arc<dyn Service>,
    options: Options,
    started: Instant,
    /// How many connections may wait for room.
    waiting_max: usize,
    /// From which microsecond on a closed connection is worth another line.
    closed_due: AtomicU64,
    /// The same of trouble.
    trouble_due: AtomicU64,
    turns: Arc<Turns>,
    room: Arc<Room>,
    threads: Arc<Threads>,
    /// Guards the connections and whether the server goes on.
    table: Mutex<Table>,
    /// Notified when a connection or the accepting thread has ended.
    changed: Condvar,
    /// Notified when the server is to stop, and when there is something to do for connections that wait for room.
    watching: Condvar,
}

impl Server {
    /// Serves from now on. Two threads are started: one accepts, one watches over connections.
    ///
    /// # Errors
    /// No descriptor or no thread is to be had, or there may be no connection at all; the listener is closed.
    pub fn start(
        listener: TcpListener,
        service: Arc<dyn Service>,
        mut options: Options,
    ) -> io::Result<Server> {
        if options.connections_max == 0 {
            let cause = "connections_max is 0: nobody would ever be served";
            return Err(io::Error::new(ErrorKind::InvalidInput, cause));
        }
        let Limits {
            message_bytes_max: message,
            string_bytes_max: string,
            ..
        } = &mut options.limits;
        *message = options.messages_bytes_max.min(*message);
        *string = options.messages_bytes_max.min(*string);
        lengthen_backlog(&listener);
        // A listener and a stream are the same to the system, and only the latter has a shutdown.
        let again = TcpStream::from(OwnedFd::from(listener.try_clone()?));
        let shared = Arc::new(Shared {
            service,
            room: Arc::new(Room::new(options.messages_bytes_max)),
            options,
            started: Instant::now(),
            waiting_max: (descriptors_max() / 16).clamp(1, WAITING_MAX),
            closed_due: AtomicU64::new(0),
            trouble_due: AtomicU64::new(0),
            turns: Arc::default(),
            threads: Arc::default(),
            table: Mutex::new(Table::new(again)),
            changed: Condvar::new(),
            watching: Condvar::new(),
        });
        let server = Server { shared };
        let shared = Arc::clone(&server.shared);
        let watch = thread::Builder::new().name("watch".to_owned());
        watch.spawn(move || shared.watch())?;
        let shared = Arc::clone(&server.shared);
        let accept = thread::Builder::new().name("accept".to_owned());
        let accepting = accept.spawn(move || shared.accept(listener));
        if let Err(error) = accepting {
            server.shared.end_accepting();
            return Err(error);
        }
        Ok(server)
    }

    /// Ends the server, within about `limit`: closes the listener, serves and answers what has
    /// arrived, closes idle connections at once and the others after their requests. A connection
    /// that came just before gets a moment for its first request: its caller, unlike that of a kept
    /// one, can't know that nothing was done. What isn't through by then is cut off; a service
    /// that is still busy is not waited for.
    pub fn stop(&self, limit: Duration) {
        let deadline = Instant::now() + limit;
        self.shared.end_accepting();
        loop {
            let now = self.shared.now();
            let is_idle = |connection: &Connection| {
                let (phase, since) = connection.phase();
                let quiet = Duration::from_micros(now.saturating_sub(since));
                phase == Phase::Idle && (connection.has_begun() || quiet > FRESH)
            };
            for connection in self.shared.chosen(is_idle) {
                connection.hang_up();
            }
            let table = self.shared.table();
            let left = deadline.saturating_duration_since(Instant::now());
            if (table.open.is_empty() && !table.accepting) || left.is_zero() {
                break;
            }
            wait(&self.shared.changed, table, left.min(STOP_INTERVAL));
        }
        for connection in self.shared.chosen(|_| true) {
            connection.cut();
        }
    }
}

impl Shared {
    /// Nanoseconds since the start.
    fn nanos(&self) -> u64 {
        self.started.elapsed().as_nanos() as u64
    }

    /// Microseconds since the start.
    fn now(&self) -> u64 {
        self.nanos() / 1000
    }

    fn say_if_verbose(&self, line: impl FnOnce() -> String) {
        if self.options.verbose {
            (self.options.log)(Level::Trace, &line());
        }
    }

    /// That a connection was closed for what it sent, or for want of room: once in [`CLOSED_INTERVAL`], or always if
    /// verbose.
    fn say_closed(&self, peer: SocketAddr, cause: impl FnOnce() -> String) {
        if self.is_due(&self.closed_due, CLOSED_INTERVAL) || self.options.verbose {
            let line = format!("closed the connection of {peer}: {}", cause());
            (self.options.log)(Level::Warn, &line);
        }
    }

    fn say_trouble(&self, error: &io::Error) {
        if self.is_due(&self.trouble_due, REPORT_INTERVAL) {
            let line = format!("can't accept a connection: {error}");
            (self.options.log)(Level::Error, &line);
        }
    }

    /// Once in this interval.
    fn is_due(&self, due: &AtomicU64, interval: Duration) -> bool {
        let now = self.now();
        let next = |due| (now >= due).then(|| now + interval.as_micros() as u64);
        due.fetch_update(Relaxed, Relaxed, next).is_ok()
    }

    /// No change under the lock can be half done: a poisoned lock is taken all the same.
    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Those of the open connections that are to be handled; the table is free meanwhile.
    fn chosen(&self, by: impl Fn(&Connection) -> bool) -> Vec<Arc<Connection>> {
        let table = self.table();
        let chosen = table.open.values().filter(|connection| by(connection));
        chosen.cloned().collect()
    }

    fn end_accepting(&self) {
        let listener = self.table().listener.take();
        // A shutdown would reset the connections that wait: their callers have sent requests. So the
        // accepting thread is told not to wait any more, and woken. This end is closed before: what
        // comes between that thread's last look and its closing is reset as well.
        let address = listener.and_then(|listener| {
            listener.set_nonblocking(true).ok()?;
            listener.local_addr().ok()
        });
        if let Some(address) = address {
            // If it fails, that thread has ended already.
            let _ = TcpStream::connect_timeout(&address, WAKE_LIMIT);
        }
        self.watching.notify_all();
    }

    /// The accepting thread.
    fn accept(self: Arc<Self>, listener: TcpListener) {
        let mut left = WAITING_MAX;
        while left > 0 {
            let accepted = listener.accept();
            let stopping = self.table().listener.is_none();
            let outcome = accepted.and_then(|(stream, peer)| {
                if stopping {
                    left -= 1;
                    // Some systems hand it on from the listener.
                    stream.set_nonblocking(false)?;
                }
                self.receive(stream, peer)
            });
            if let Err(error) = outcome {
                if stopping {
                    break;
                }
                self.say_trouble(&error);
                let lacks_descriptors = lacks_descriptors(&error);
                if lacks_descriptors && (self.options.relieve)() {
                    // Or somebody else takes what has been got back.
                    continue;
                }
                let table = self.table();
                if lacks_descriptors {
                    table.hang_up_longest_idle();
                }
                wait(&self.changed, table, BACK_OFF);
            }
        }
        drop(listener);
        // Those that still wait, should there have been trouble.
        drop(self.let_in());
        self.table().accepting = false;
        self.changed.notify_all();
    }

    /// Takes a new connection in, or lets it wait for room.
    fn receive(self: &Arc<Self>, stream: TcpStream, peer: SocketAddr) -> io::Result<()> {
        let Ok(connection) = Connection::new(stream, peer, self.now()) else {
            return Ok(()); // It has ended before it began, which is no trouble of ours.
        };
        self.table().waiting.push_back(connection);
        let mut table = self.let_in()?;
        if table.waiting.len() > self.waiting_max {
            let refused = table.refuse();
            drop(table);
            self.say_closed(refused.peer, || {
                format!("{} wait for room already", self.waiting_max)
            });
        } else if !table.waiting.is_empty() {
            self.watching.notify_all();
        }
        Ok(())
    }

    /// Lets in those that wait, as far as there is room. The table as it is then, so that no change is missed.
    fn let_in(self: &Arc<Self>) -> io::Result<MutexGuard<'_, Table>> {
        loop {
            let mut table = self.table();
            let Some(connection) = table.next(&self.options, self.now()) else {
                return Ok(table);
            };
            // Until now it could not say anything, which is not being idle.
            connection.enter(Phase::Idle, self.now());
            let connection = Arc::new(connection);
            // Numbered under the lock: in the order in which they get in.
            let turn = self.turns.accepted();
            let number = table.admit(Arc::clone(&connection));
            self.options.traffic.set_connections(table.open.len());
            drop(table);
            let place = Place {
                shared: Arc::clone(self),
                number,
            };
            let serve = move || {
                let place = place;
                conversation::serve(&place.shared, &connection, turn);
                // Before the place: a thread that waits for the end of the connection finds its descriptor free.
                drop(connection);
            };
            self.threads.run(Box::new(serve))?;
        }
    }
}

/// Waits for the notification, for `time` at most, without the table's lock. The lock is free afterwards, too.
fn wait(notification: &Condvar, table: MutexGuard<'_, Table>, time: Duration) {
    // The guard comes back in either case, poisoned or not.
    drop(notification.wait_timeout(table, time));
}

/// A connection's entry in the table, until its thread ends, however that comes.
struct Place {
    shared: Arc<Shared>,
    number: u64,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut table = self.shared.table();
        let ended = table.remove(self.number);
        let open = table.open.len();
        self.shared.options.traffic.set_connections(open);
        let awaited = !table.waiting.is_empty();
        drop(table);
        drop(ended);
        self.shared.changed.notify_all();
        if awaited {
            self.shared.watching.notify_all();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;
    use crate::net::room::hold;
    use crate::service::{Call, Order};
    use crate::thrift::{Exception, MessageKind, Write as _, begin_message};

    const LARGE: usize = 4 << 20;

    /// Answers much, to whatever it is asked.
    struct Talker;

    impl Service for Talker {
        fn call(&self, _: &Call<'_>, result: &mut Vec<u8>) -> Result<(), Exception> {
            hold(LARGE)?;
            result.write_bytes_field(0, &vec![0; LARGE]);
            result.write_stop();
            Ok(())
        }

        fn order(&self, _: &[u8]) -> Order {
            Order::Free
        }
    }

    fn wait_until(what: &str, reached: impl Fn() -> bool) {
        let began = Instant::now();
        while !reached() {
            assert!(began.elapsed() < Duration::from_secs(20), "never {what}");
            thread::sleep(Duration::from_millis(1));
        }
    }

    /// Its callers would wait for a slot for ever.
    #[test]
    fn must_not_serve_without_a_single_connection() {
        let options = Options {
            connections_max: 0,
            ..Options::default()
        };
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let refused = Server::start(listener, Arc::new(Talker), options).err();
        let refused = refused.map(|error| error.kind());
        assert_eq!(refused, Some(ErrorKind::InvalidInput));
    }

    #[test]
    fn must_have_all_room_again_once_all_have_gone() {
        let options = Options {
            messages_bytes_max: 3 * LARGE,
            write_limit: Duration::from_millis(100),
            ..Options::default()
        };
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let server = Server::start(listener, Arc::new(Talker), options).unwrap();
        let room = &server.shared.room;
        let mut call = Vec::new();
        begin_message(&mut call, MessageKind::Call, b"say", 1, false);
        call.write_bytes_field(1, &vec![0; LARGE]);
        call.write_stop();
        let say = |bytes: &[u8]| {
            let mut stream = TcpStream::connect(address).unwrap();
            stream.write_all(bytes).unwrap();
            stream
        };
        let half = say(&call[..LARGE / 2]);
        wait_until("taken for what comes", || room.taken_bytes() >= LARGE);
        let deaf = say(&call);
        wait_until("taken for the answer", || room.taken_bytes() >= 2 * LARGE);
        // It is cut off as it doesn't read.
        wait_until("given back", || room.taken_bytes() < 2 * LARGE);
        drop(half);
        wait_until("all given back", || room.taken_bytes() == 0);
        drop(deaf);
        server.stop(Duration::ZERO);
    }
}
