//! A served little store, and clients that visit it.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use thrifty_p2p::os::connect_from;
use thrifty_p2p::server::{Options, Server};
use thrifty_p2p::service::{Answers, Call, Order, Service};
use thrifty_p2p::thrift::{
    Exception, Limits, MessageKind, Reader, Splitter, Write as _, begin_message, wire,
};

/// Far more than anything here takes on a busy machine: what takes it has failed.
pub const LONG: Duration = Duration::from_secs(20);

/// A little store, which also lists the calls that it got, and waits when told so.
#[derive(Default)]
pub struct Little {
    items: Mutex<HashMap<Vec<u8>, Vec<u8>>>,
    calls: Mutex<Vec<String>>,
    called: Condvar,
    batches: Mutex<Vec<usize>>,
    open: Mutex<bool>,
    opened: Condvar,
}

impl Little {
    fn wait_at_the_gate(&self) {
        let open = self.open.lock().unwrap();
        let opened = self.opened.wait_timeout_while(open, LONG, |open| !*open);
        assert!(!opened.unwrap().1.timed_out(), "the gate stays closed");
    }

    pub fn open_the_gate(&self) {
        *self.open.lock().unwrap() = true;
        self.opened.notify_all();
    }

    /// How many calls came together, each time.
    pub fn batches(&self) -> Vec<usize> {
        self.batches.lock().unwrap().clone()
    }

    /// Waits until as many calls of this method have arrived.
    pub fn wait_for(&self, method: &str, times: usize) {
        let calls = self.calls.lock().unwrap();
        let fewer =
            |calls: &mut Vec<String>| calls.iter().filter(|call| *call == method).count() < times;
        let waited = self.called.wait_timeout_while(calls, LONG, fewer);
        assert!(!waited.unwrap().1.timed_out(), "{times} times {method}");
    }
}

impl Service for Little {
    fn call(&self, call: &Call<'_>, result: &mut Vec<u8>) -> Result<(), Exception> {
        let method = String::from_utf8_lossy(call.method).into_owned();
        self.calls.lock().unwrap().push(method);
        self.called.notify_all();
        let limits = Limits::default();
        let mut strings = Vec::new();
        let mut reader = Reader::new(call.arguments, &limits);
        while let Some((kind, _)) = reader.field()? {
            match kind {
                wire::STRING => strings.push(reader.bytes()?.to_vec()),
                _ => reader.skip(kind)?,
            }
        }
        let mut strings = strings.into_iter();
        let key = strings.next().unwrap_or_default();
        let value = strings.next().unwrap_or_default();
        let items = || self.items.lock().unwrap();
        match call.method {
            b"ping" | b"flush" => {}
            b"local" => result.write_bool_field(0, call.local),
            b"get" => result.write_bytes_field(0, items().get(&key).map_or(&[], Vec::as_slice)),
            b"put" => drop(items().insert(key, value)),
            b"put_slowly" => {
                self.wait_at_the_gate();
                items().insert(key, value);
            }
            b"put_and_tell" => {
                items().insert(key, value);
                (call.done)();
                self.wait_at_the_gate();
            }
            b"wait" => self.wait_at_the_gate(),
            b"panic" => {
                result.extend_from_slice(b"half an answer");
                let _poisoned = self.items.lock();
                panic!("on purpose");
            }
            other => return Err(Exception::unknown_method(other)),
        }
        result.write_stop();
        Ok(())
    }

    fn serve(&self, calls: &[Call<'_>], answers: &mut dyn Answers) {
        self.batches.lock().unwrap().push(calls.len());
        for call in calls {
            answers.add(&mut |result| self.call(call, result));
            if call.method == b"flush" {
                answers.flush();
            }
        }
    }

    fn order(&self, method: &[u8]) -> Order {
        match method {
            b"put" | b"put_slowly" | b"put_and_tell" => Order::Write,
            b"local" | b"wait" | b"panic" => Order::Free,
            _ => Order::Read,
        }
    }
}

pub struct House {
    pub service: Arc<Little>,
    pub server: Server,
    pub address: SocketAddr,
}

pub fn house(change: impl FnOnce(&mut Options)) -> House {
    let mut options = Options::default();
    change(&mut options);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let service = Arc::new(Little::default());
    let server = Server::start(listener, Arc::clone(&service) as Arc<_>, options).unwrap();
    House {
        service,
        server,
        address,
    }
}

impl House {
    pub fn visit(&self) -> Client {
        visit(self.address)
    }

    /// From another address of this machine.
    pub fn visit_from(&self, own: IpAddr) -> Client {
        client(connect_from(own, self.address, LONG).unwrap())
    }

    /// The answer to one call on a connection of its own.
    pub fn call(&self, method: &str, strings: &[&[u8]]) -> Answer {
        self.visit().call(method, strings)
    }
}

pub fn visit(address: SocketAddr) -> Client {
    client(TcpStream::connect(address).unwrap())
}

fn client(stream: TcpStream) -> Client {
    stream.set_nodelay(true).unwrap();
    stream.set_read_timeout(Some(LONG)).unwrap();
    Client {
        stream,
        bytes: Vec::new(),
    }
}

pub struct Client {
    pub stream: TcpStream,
    bytes: Vec<u8>,
}

#[derive(Debug, PartialEq)]
pub struct Answer {
    kind: MessageKind,
    pub name: String,
    pub sequence: i32,
    body: Vec<u8>,
    pub framed: bool,
}

impl Answer {
    /// The string in field 0, or the code of the exception.
    pub fn result(&self) -> Result<Vec<u8>, i32> {
        let limits = Limits::default();
        let mut reader = Reader::new(&self.body, &limits);
        if self.kind == MessageKind::Exception {
            return Err(Exception::read(reader).unwrap().kind);
        }
        match reader.field().unwrap() {
            Some((wire::STRING, 0)) => Ok(reader.bytes().unwrap().to_vec()),
            Some((wire::BOOL, 0)) => Ok(vec![u8::from(reader.bool().unwrap())]),
            _ => Ok(Vec::new()),
        }
    }
}

impl Answer {
    pub fn exception(&self) -> Exception {
        assert_eq!(self.kind, MessageKind::Exception);
        Exception::read(Reader::new(&self.body, &Limits::default())).unwrap()
    }
}

impl Client {
    pub fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    pub fn call(&mut self, method: &str, strings: &[&[u8]]) -> Answer {
        self.send(&message(MessageKind::Call, method, 7, strings));
        self.answer().expect("an answer")
    }

    /// The next answer; `None` if the connection has been closed (not reset) instead.
    pub fn answer(&mut self) -> Option<Answer> {
        let limits = Limits::default();
        let mut splitter = Splitter::default();
        loop {
            if let Some((message, length)) = splitter.next(&self.bytes, &limits).unwrap() {
                let answer = Answer {
                    kind: message.kind,
                    name: String::from_utf8_lossy(message.name).into_owned(),
                    sequence: message.sequence,
                    body: message.body.to_vec(),
                    framed: message.framed,
                };
                self.bytes.drain(..length);
                return Some(answer);
            }
            let mut more = [0; 64 << 10];
            match self.stream.read(&mut more) {
                Ok(0) => return None,
                Ok(count) => self.bytes.extend_from_slice(&more[..count]),
                Err(error) => panic!("neither answered nor closed in order: {error}"),
            }
        }
    }

    pub fn must_be_closed(&mut self) {
        assert_eq!(self.answer(), None);
    }
}

pub fn message(kind: MessageKind, method: &str, sequence: i32, strings: &[&[u8]]) -> Vec<u8> {
    let mut bytes = Vec::new();
    begin_message(&mut bytes, kind, method.as_bytes(), sequence, false);
    write_arguments(&mut bytes, strings);
    bytes
}

pub fn write_arguments(bytes: &mut Vec<u8>, strings: &[&[u8]]) {
    for (id, string) in (1..).zip(strings) {
        bytes.write_bytes_field(id, string);
    }
    bytes.write_stop();
}
