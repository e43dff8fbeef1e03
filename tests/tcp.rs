//! Calls over TCP, against a server of ours and against listeners that misbehave.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use thrifty_p2p::location::Location;
use thrifty_p2p::net::TcpNetwork;
use thrifty_p2p::net::{CallError, Connection, Network, Request};
use thrifty_p2p::server::{Options, Server};
use thrifty_p2p::service::{Call, Order, Service};
use thrifty_p2p::thrift::{Exception, Limits, MessageKind, Splitter, Write as _, begin_message};

/// Far more than anything here takes on a busy machine.
const LONG: Duration = Duration::from_secs(20);

const SHORT: Duration = Duration::from_millis(200);

/// Answers with what it got; `wait` does so when the gate is opened.
#[derive(Default)]
struct Echo {
    gate: Mutex<bool>,
    opened: Condvar,
    waiting: AtomicUsize,
    served: AtomicUsize,
}

impl Service for Echo {
    fn call(&self, call: &Call<'_>, result: &mut Vec<u8>) -> Result<(), Exception> {
        self.served.fetch_add(1, Ordering::SeqCst);
        match call.method {
            b"echo" => {}
            b"wait" => {
                self.waiting.fetch_add(1, Ordering::SeqCst);
                let gate = self.gate.lock().unwrap();
                let opened = self.opened.wait_timeout_while(gate, LONG, |open| !*open);
                drop(opened.unwrap());
            }
            other => return Err(Exception::unknown_method(other)),
        }
        result.extend_from_slice(call.arguments);
        Ok(())
    }

    fn order(&self, _: &[u8]) -> Order {
        Order::Free
    }
}

impl Echo {
    fn open(&self) {
        *self.gate.lock().unwrap() = true;
        self.opened.notify_all();
    }
}

fn wait_until(what: &str, reached: impl Fn() -> bool) {
    let deadline = Instant::now() + LONG;
    while !reached() {
        assert!(Instant::now() < deadline, "{what}");
        thread::sleep(Duration::from_millis(1));
    }
}

fn serve(listener: TcpListener) -> (Arc<Echo>, Server) {
    let echo = Arc::new(Echo::default());
    let service = Arc::clone(&echo) as Arc<dyn Service>;
    (
        echo,
        Server::start(listener, service, Options::default()).unwrap(),
    )
}

fn listen() -> (TcpListener, Location) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    (listener, Location::new("127.0.0.1", port).unwrap())
}

fn request(method: &'static str, value: &[u8]) -> Request {
    let mut arguments = Vec::new();
    arguments.write_bytes_field(1, value);
    arguments.write_stop();
    Request {
        method,
        arguments: Arc::new(arguments),
        connection: Connection::Kept,
        oneway: false,
    }
}

#[test]
fn must_bring_answers_in_the_order_of_the_calls() {
    let network = TcpNetwork::default();
    let (first, a) = listen();
    let (second, b) = listen();
    let _servers = (serve(first), serve(second));
    let big = vec![b'x'; 3 << 20];
    let calls: Vec<_> = (0..200_u32)
        .map(|i| {
            let to = if i % 3 == 0 { &a } else { &b };
            let mut call = request("echo", &i.to_be_bytes());
            if i % 50 == 0 {
                call = request("echo", &big);
            }
            if i % 7 == 0 {
                call.connection = Connection::Single;
            }
            if i % 11 == 0 {
                call.method = "nothing";
            }
            (to.clone(), call)
        })
        .collect();
    for _ in 0..3 {
        let answers = network.call_all(&calls, LONG);
        for ((_, call), answer) in calls.iter().zip(answers) {
            match answer {
                Ok(answer) => assert!(answer == *call.arguments),
                Err(CallError::Exception(exception)) => {
                    assert_eq!(call.method, "nothing");
                    assert_eq!(exception.kind, Exception::UNKNOWN_METHOD);
                }
                Err(error) => panic!("{error}"),
            }
        }
    }
}
