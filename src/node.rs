//! A node as a process runs it: a service on a listener, and the threads that look after it.
//!
//! This is where the parts meet: the server (a thread for each connection), the *ticker*, which
//! calls [`Locator::tick`](crate::locator::Locator::tick) at an interval, the *asker* and the *patient asker*, which put
//! questions, the latter to nodes that were silent, and the *mover*, which does what can take long. Nothing here knows
//! what the service is for.

use std::io;
use std::net::TcpListener;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::location::Location;
use crate::locator::{Errand, Participant, StartError};
use crate::server::{self, Server};

/// What a stopping server may take to finish what is at hand.
const STOP_LIMIT: Duration = Duration::from_secs(2);

/// A node that runs.
pub struct Node<P> {
    participant: Arc<P>,
    server: Server,
    stopping: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl<P: Participant> Node<P> {
    /// Serves on `listener`, whose port is the node's own already. The port serves as a lock: of two nodes
    /// that are started at once, only one gets it. Calls that need to know the network wait until
    /// [`Node::join`] or [`Node::begin`].
    ///
    /// # Errors
    /// As of [`Server::start`].
    pub fn start(
        listener: TcpListener,
        participant: Arc<P>,
        options: server::Options,
    ) -> io::Result<Self> {
        participant.locator().on_traffic(options.traffic.clone());
        let server = Server::start(listener, participant.clone(), options)?;
        Ok(Node {
            participant,
            server,
            stopping: Arc::default(),
            threads: Vec::new(),
        })
    }

    /// Joins the network of the first of these peers that answers; see
    /// [`Locator::join`](crate::locator::Locator::join).
    ///
    /// # Errors
    /// They won't do; the node is to be stopped.
    pub fn join(&mut self, peers: &[Location]) -> Result<(), StartError> {
        self.participant.locator().join(peers)?;
        self.look_after();
        Ok(())
    }

    /// Joins the network that these nodes are in, or starts one; see
    /// [`Locator::start`](crate::locator::Locator::start).
    ///
    /// # Errors
    /// They won't do; the node is to be stopped.
    pub fn begin(&mut self, found: &[Location]) -> Result<(), StartError> {
        self.participant.locator().start(found, true)?;
        self.look_after();
        Ok(())
    }

    fn look_after(&mut self) {
        let interval = self.participant.locator().ticks(1);
        self.repeat("ticker", interval, |participant| {
            participant.locator().tick()
        });
        let ask = self.repeat("asker", interval, |participant| {
            participant.locator().ask(false);
        });
        let ask_silent = self.repeat("patient asker", interval, |participant| {
            participant.locator().ask(true);
        });
        let mover = self.repeat("mover", interval, P::work);
        self.participant
            .locator()
            .on_errand(move |errand| match errand {
                Errand::Ask => ask.unpark(),
                Errand::AskSilent => ask_silent.unpark(),
                Errand::Work => mover.unpark(),
            });
    }

    /// A thread that does `work` at each interval, and sooner when it is unparked, until the node
    /// ends.
    fn repeat(&mut self, name: &str, interval: Duration, work: fn(&P)) -> thread::Thread {
        let participant = self.participant.clone();
        let stopping = self.stopping.clone();
        let run = move || {
            while !stopping.load(Ordering::Acquire) {
                let started = Instant::now();
                // A node whose ticker or mover has ended would look well and take part in nothing.
                // What panics has said so on stderr; the next time may go well.
                let _ = catch_unwind(AssertUnwindSafe(|| work(&participant)));
                thread::park_timeout(interval.saturating_sub(started.elapsed()));
            }
        };
        let spawned = thread::Builder::new().name(name.to_owned()).spawn(run);
        let handle = spawned.expect("the machine gives no thread to a node that starts");
        let thread = handle.thread().clone();
        self.threads.push(handle);
        thread
    }

    /// Leaves the network and ends: goes on serving and forwarding while it hands over, and closes
    /// the listener last. The answer is the number of items that go with it, as nobody is left to take
    /// them.
    ///
    /// # Errors
    /// How many items at most were not taken, though there was somebody.
    pub fn leave(self) -> Result<usize, usize> {
        // The ticker goes on: a leaving node has to notice which others go. The mover may still be at work for a
        // moment, which does no harm.
        let left = self.participant.leave();
        self.stop();
        left
    }

    /// Ends without a goodbye.
    pub fn stop(self) {
        self.stopping.store(true, Ordering::Release);
        for thread in &self.threads {
            thread.thread().unpark();
        }
        self.server.stop(STOP_LIMIT);
    }
}
