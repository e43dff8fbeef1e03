//! One connection: reads what is there, serves every complete request in it, writes the answers in
//! one piece once no complete request is left.
//!
//! A request costs no lock, no allocation and no system call of its own beyond what the service
//! does; a batch costs one read, one write, two looks at the clock and two lists. The service gets all calls that have
//! arrived together.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use super::Shared;
use super::connection::{Connection, Phase};
use super::head;
use super::options::Http;
use super::traffic::Tally;
use super::turn::Turn;
use crate::net::incoming::{BUFFER_BYTES_MIN, Incoming};
use crate::net::room::{self, SMALL_BYTES};
use crate::service::{Answers, Call};
use crate::thrift::{Error, Exception, Message, MessageKind, begin_message, end_frame};

/// Answers are written before the last one of a batch is there if they come to more.
const BATCH_BYTES_MAX: usize = SMALL_BYTES;

/// A connection that has been quiet for so long gives back the memory of its large messages.
const QUIET: Duration = Duration::from_secs(1);

/// What is read, and thrown away, behind something that was no message: closing with unread bytes
/// would reset the connection, and answers on their way would be lost.
const REST_BYTES_MAX: usize = 1 << 20;

/// Serves until the peer or somebody here ends the connection.
pub(super) fn serve(shared: &Shared, connection: &Connection, turn: Turn) {
    if !has_spoken(&connection.stream) {
        turn.listening();
    }
    let _entered = shared.room.enter();
    let mut conversation = Conversation {
        shared,
        connection,
        turn: Some(turn),
        answers: Vec::new(),
        tally: Tally::new(&shared.options.traffic, usize::from(connection.peer.port())),
    };
    let mut incoming = Incoming::new();
    let Err(end) = conversation.hold(&mut incoming) else {
        return;
    };
    // No connection waits for a request that will not come.
    conversation.turn = None;
    let mut rest_bytes_max = REST_BYTES_MAX;
    let refusal = match &end {
        End::Malformed(error) => Some(((*error).into(), error.to_string())),
        End::Full(error) => Some((Exception::internal(error.to_string()), error.to_string())),
        End::Answered | End::Failed | End::Gone => None,
    };
    if let Some((exception, cause)) = refusal {
        let begun = incoming.begun();
        shared.say_closed(connection.peer, || {
            let name = begun.map(|message| String::from_utf8_lossy(message.name));
            let name = name.map_or(String::new(), |name| format!("{}: ", name.escape_debug()));
            format!("{name}{cause}")
        });
        if let Some(message) = begun.filter(|message| message.kind == MessageKind::Call) {
            let start = conversation.answers.len();
            conversation.except(&message, &exception, start);
            if matches!(end, End::Malformed(Error::TooLarge { .. }) | End::Full(_)) {
                // A client that sends so much may not read its answer before it has sent all.
                rest_bytes_max = usize::MAX;
            }
        }
    }
    // The messages that have come may be large, and ending the connection may take long.
    drop(incoming);
    if conversation.answers.capacity() <= SMALL_BYTES {
        room::give_back();
    }
    if !matches!(end, End::Gone) && conversation.flush().is_ok() {
        conversation.take_leave(rest_bytes_max);
    }
}

/// Whether something has arrived, or the end: on a busy machine the first request may have lain there
/// for longer than a silent connection is waited for.
fn has_spoken(stream: &TcpStream) -> bool {
    let spoken = stream.set_nonblocking(true).is_ok() && stream.peek(&mut [0]).is_ok();
    // Should this fail, reading ends the connection.
    let _ = stream.set_nonblocking(false);
    spoken
}

/// Why a connection ends before the peer closes it.
enum End {
    /// What came is no message.
    Malformed(Error),
    /// There is no room for what comes.
    Full(io::Error),
    /// The service panicked: a bug of ours.
    Failed,
    /// It was a request of HTTP, whose answer ends it.
    Answered,
    /// It can't be read or written any more, or its time is over.
    Gone,
}

impl From<Error> for End {
    fn from(error: Error) -> Self {
        End::Malformed(error)
    }
}

impl From<io::Error> for End {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            ErrorKind::OutOfMemory => End::Full(error),
            _ => End::Gone,
        }
    }
}

/// Whether a service is to serve it.
fn is_call(message: &&Message<'_>) -> bool {
    matches!(message.kind, MessageKind::Call | MessageKind::Oneway)
}

fn call<'a>(message: &Message<'a>, local: bool, done: &'a dyn Fn()) -> Call<'a> {
    Call {
        method: message.name,
        arguments: message.body,
        local,
        done,
    }
}

/// Puts the answers to these messages into the place of their conversation's.
struct Answering<'a, 'b, 'c> {
    messages: std::slice::Iter<'a, Message<'a>>,
    /// The message whose answer is being written, and where that begins.
    begun: Option<(&'a Message<'a>, usize)>,
    /// Whether answers can still be sent.
    outcome: Result<(), End>,
    conversation: &'b mut Conversation<'c>,
}

impl Answering<'_, '_, '_> {
    /// Answers the next message, or the one that has been begun, with an exception.
    fn fail(&mut self, exception: &Exception) {
        let end = self.conversation.answers.len();
        let next = || self.messages.next().map(|message| (message, end));
        if let Some((message, start)) = self.begun.take().or_else(next) {
            self.conversation.tally.count(message.name, true);
            match message.kind {
                MessageKind::Oneway => self.conversation.answers.truncate(start),
                _ => self.conversation.except(message, exception, start),
            }
        }
    }
}

impl Answers for Answering<'_, '_, '_> {
    fn add(&mut self, write: &mut dyn FnMut(&mut Vec<u8>) -> Result<(), Exception>) {
        let Some(message) = self.messages.next() else {
            return;
        };
        if self.conversation.answers.len() > BATCH_BYTES_MAX {
            self.flush();
        }
        let conversation = &mut *self.conversation;
        let start = conversation.answers.len();
        self.begun = Some((message, start));
        conversation.begin(MessageKind::Reply, message);
        let written = write(&mut conversation.answers);
        conversation.tally.count(message.name, written.is_err());
        match written {
            _ if message.kind == MessageKind::Oneway => conversation.answers.truncate(start),
            Err(exception) => conversation.except(message, &exception, start),
            Ok(()) if message.framed => end_frame(&mut conversation.answers, start),
            Ok(()) => {}
        }
        self.begun = None;
        if self.outcome.is_err() {
            conversation.answers.clear(); // Nobody gets them.
        }
    }

    fn flush(&mut self) {
        if self.outcome.is_ok() && !self.conversation.answers.is_empty() {
            self.outcome = self.conversation.flush();
            self.conversation.connection.enter(Phase::Serving, 0);
        }
    }
}

struct Conversation<'a> {
    shared: &'a Shared,
    connection: &'a Connection,
    /// Until the first request has been served.
    turn: Option<Turn>,
    /// Written, but not sent yet.
    answers: Vec<u8>,
    tally: Tally<'a>,
}

impl Conversation<'_> {
    /// Returns when the peer has said all it wanted, or nothing for too long.
    fn hold(&mut self, incoming: &mut Incoming) -> Result<(), End> {
        let mut stream = &self.connection.stream;
        let mut message_begun = false;
        let mut quiet_limited = false;
        loop {
            if !message_begun && !incoming.is_empty() {
                message_begun = true;
                self.connection.enter(Phase::Receiving, self.shared.now());
            }
            let grown = incoming.is_grown() || self.answers.capacity() > BUFFER_BYTES_MIN;
            if grown && !quiet_limited {
                stream.set_read_timeout(Some(QUIET))?;
                quiet_limited = true;
            }
            match incoming.read_from(&mut stream) {
                Ok(0) => return Ok(()),
                Ok(count) => self.tally.read(count),
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    if incoming.is_empty() {
                        self.shrink(incoming);
                        stream.set_read_timeout(None)?;
                        quiet_limited = false;
                    }
                    continue;
                }
                Err(error) => return Err(error.into()),
            }
            // Only the first that a connection says may be a request of HTTP.
            if self.turn.is_some()
                && let Some(http) = &self.shared.options.http
                && head::begins(incoming.unread(), &self.shared.options.limits)
            {
                match head::head(incoming.unread()) {
                    Some(head) => return Err(self.answer(&**http, head)),
                    None => continue,
                }
            }
            while !incoming.is_empty() {
                let messages = incoming.batch(&self.shared.options.limits)?;
                if messages.is_empty() {
                    break;
                }
                message_begun = false;
                self.tally.begin(|| self.shared.nanos());
                let mut rest = &messages[..];
                while !rest.is_empty() {
                    let run = self.next_run(rest);
                    self.serve(&rest[..run])?;
                    rest = &rest[run..];
                }
            }
            if !message_begun {
                self.flush()?;
                self.tally.end();
                let is_large = incoming.is_large() || self.answers.capacity() > SMALL_BYTES;
                if is_large && incoming.is_empty() && self.shared.room.is_awaited() {
                    self.shrink(incoming);
                }
            }
        }
    }

    /// Answers the one request of HTTP that this connection has.
    fn answer(&mut self, http: &Http, head: &[u8]) -> End {
        self.shared
            .say_if_verbose(|| format!("{}: HTTP", self.connection.peer));
        self.connection.enter(Phase::Serving, 0);
        self.connection.begin();
        // Nobody waits for it.
        self.turn = None;
        let Ok(answer) = catch_unwind(AssertUnwindSafe(|| http(head))) else {
            return End::Failed;
        };
        if let Err(full) = room::hold(answer.len()) {
            return io::Error::from(full).into();
        }
        self.answers = answer;
        End::Answered
    }

    /// Gives back the memory of large messages, once there is nothing in it.
    fn shrink(&mut self, incoming: &mut Incoming) {
        incoming.shrink();
        self.answers = Vec::new();
        room::give_back();
    }

    /// How many of these messages are served together: calls, but the first one of a connection waits for its turn.
    fn next_run(&self, messages: &[Message<'_>]) -> usize {
        match self.turn {
            Some(_) => 1,
            None => messages.iter().take_while(is_call).count().max(1),
        }
    }

    /// Serves these messages and appends the answers, of those that want one: calls, or one that is none.
    fn serve(&mut self, messages: &[Message<'_>]) -> Result<(), End> {
        let shared = self.shared;
        for message in messages {
            shared.say_if_verbose(|| {
                let name = String::from_utf8_lossy(message.name);
                format!("{}: {}", self.connection.peer, name.escape_debug())
            });
        }
        self.connection.enter(Phase::Serving, 0);
        let turn = self.turn.take();
        if turn.is_some() {
            self.connection.begin();
        }
        if !is_call(&&messages[0]) {
            let exception = Exception::new(Exception::WRONG_MESSAGE_TYPE, "an answer to nothing");
            let start = self.answers.len();
            self.tally.count(messages[0].name, true);
            self.except(&messages[0], &exception, start);
            return Ok(());
        }
        if let Some(turn) = &turn {
            turn.wait(shared.service.order(messages[0].name));
        }
        let done = || turn.iter().for_each(Turn::done);
        let local = self.connection.local;
        let mut answering = Answering {
            messages: messages.iter(),
            begun: None,
            outcome: Ok(()),
            conversation: self,
        };
        // Nothing of ours is half done when the service panics: its answer is thrown away.
        let served = catch_unwind(AssertUnwindSafe(|| match messages {
            [one] => shared
                .service
                .serve(&[call(one, local, &done)], &mut answering),
            all => {
                let calls: Vec<_> = all.iter().map(|one| call(one, local, &done)).collect();
                shared.service.serve(&calls, &mut answering);
            }
        }));
        if served.is_err() {
            answering.fail(&Exception::internal("the service failed"));
            answering.outcome = answering.outcome.and(Err(End::Failed));
        } else {
            while !answering.messages.as_slice().is_empty() {
                answering.fail(&Exception::internal("the service gives no answer"));
            }
        }
        answering.outcome
    }

    /// Answers with an exception, in place of what stands behind `start`.
    fn except(&mut self, message: &Message<'_>, exception: &Exception, start: usize) {
        self.answers.truncate(start);
        self.begin(MessageKind::Exception, message);
        exception.write(&mut self.answers);
        if message.framed {
            end_frame(&mut self.answers, start);
        }
    }

    fn begin(&mut self, kind: MessageKind, message: &Message<'_>) {
        let (name, sequence) = (message.name, message.sequence);
        begin_message(&mut self.answers, kind, name, sequence, message.framed);
    }

    /// Writes the answers so far. The connection counts as idle from when that began.
    fn flush(&mut self) -> Result<(), End> {
        let nanos = self.shared.nanos();
        let now = nanos / 1000;
        self.tally.add(nanos);
        if !self.answers.is_empty() {
            self.connection.enter(Phase::Answering, now);
            let mut stream = &self.connection.stream;
            stream.write_all(&self.answers)?;
            self.tally.written(self.answers.len());
            self.answers.clear();
        }
        self.connection.enter(Phase::Idle, now);
        Ok(())
    }

    /// Ends the connection so that the answers given so far arrive: reads on for a while, at most as
    /// long as a message may take.
    fn take_leave(&mut self, rest_bytes_max: usize) {
        self.answers = Vec::new();
        room::give_back();
        let mut stream = &self.connection.stream;
        self.connection.enter(Phase::Receiving, self.shared.now());
        let prepared = stream
            .shutdown(Shutdown::Write)
            .and_then(|()| stream.set_read_timeout(Some(QUIET)));
        let mut rest = [0; 16 << 10];
        let mut left = rest_bytes_max;
        while prepared.is_ok() && left > 0 {
            match stream.read(&mut rest) {
                Ok(1..) => left = left.saturating_sub(rest.len()),
                Ok(0) | Err(_) => return,
            }
        }
    }
}
