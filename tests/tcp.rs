//! Calls over TCP, against a server of ours and against listeners that misbehave.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, Condvar, Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use thrifty_p2p::location::Location;
use thrifty_p2p::net::TcpNetwork;
use thrifty_p2p::net::{CallError, Connection, Event, Network, Request};
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
        limit: None,
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

#[test]
fn must_tell_refused_from_silent_from_broken() {
    let network = TcpNetwork::default();
    let echo = request("echo", b"x");
    let (listener, to) = listen();
    assert_eq!(network.call(&to, &echo, SHORT), Err(CallError::Silent));
    drop(listener);
    assert_eq!(network.call(&to, &echo, LONG), Err(CallError::Refused));
    let nowhere = Location::new("no-such-host.invalid", 9900).unwrap();
    let error = network.call(&nowhere, &echo, LONG).unwrap_err();
    assert!(matches!(error, CallError::Local(_)), "{error}");
    for answer in [&b""[..], b"GET /", &reply("echo", 1), &reply("ohce", 0)] {
        let (listener, to) = listen();
        let peer = script(listener, vec![answer.to_vec()]);
        let error = network.call(&to, &echo, LONG).unwrap_err();
        assert!(matches!(error, CallError::Broken(_)), "{error}");
        peer.join().unwrap();
    }
}

/// A look-up that has failed is not made again for each call.
#[test]
fn must_not_look_up_again_at_once_what_nobody_knows() {
    let network = TcpNetwork::default();
    let echo = request("echo", b"x");
    let nowhere = Location::new("no-such-host-either.invalid", 9900).unwrap();
    network.call(&nowhere, &echo, LONG).unwrap_err();
    let began = Instant::now();
    let error = network.call(&nowhere, &echo, LONG).unwrap_err();
    assert!(matches!(error, CallError::Local(_)), "{error}");
    assert!(began.elapsed() < Duration::from_millis(100));
}

fn reply(name: &str, sequence: i32) -> Vec<u8> {
    let mut bytes = Vec::new();
    begin_message(
        &mut bytes,
        MessageKind::Reply,
        name.as_bytes(),
        sequence,
        false,
    );
    bytes.write_stop();
    bytes
}

/// A peer that takes one connection after the other, reads what comes first on it, says one of
/// these things, and closes.
fn script(listener: TcpListener, answers: Vec<Vec<u8>>) -> thread::JoinHandle<()> {
    thread::spawn(move || {
        for answer in answers {
            let (mut stream, _) = listener.accept().unwrap();
            assert!(stream.read(&mut [0; 4096]).unwrap() > 0);
            stream.write_all(&answer).unwrap();
        }
    })
}

#[test]
fn must_reach_a_peer_that_has_been_replaced() {
    let network = TcpNetwork::default();
    let echo = request("echo", b"x");
    let (listener, to) = listen();
    let again = listener.local_addr().unwrap();
    let (_, server) = serve(listener);
    for _ in 0..3 {
        network.call(&to, &echo, LONG).unwrap();
    }
    server.stop(LONG);
    let (echoes, server) = serve(TcpListener::bind(again).unwrap());
    network.call(&to, &echo, LONG).unwrap();
    assert_eq!(echoes.served.load(Ordering::SeqCst), 1);
    server.stop(LONG);
    assert_eq!(network.call(&to, &echo, LONG), Err(CallError::Refused));
}

#[test]
fn must_try_a_kept_connection_that_breaks_once_more_and_no_other() {
    let network = TcpNetwork::default();
    let ping = request("ping", b"");
    let (listener, to) = listen();
    let (tell, told) = mpsc::channel();
    let peer = thread::spawn(move || {
        let read = |stream: &mut TcpStream| stream.read(&mut [0; 4096]).unwrap();
        let (mut stream, _) = listener.accept().unwrap();
        read(&mut stream);
        stream.write_all(&reply("ping", 0)).unwrap();
        read(&mut stream); // The second call, for which this connection ends,
        drop(stream);
        let (mut stream, _) = listener.accept().unwrap();
        read(&mut stream); // and which comes again here, and is answered.
        stream.write_all(&reply("ping", 0)).unwrap();
        read(&mut stream); // The third call gets half an answer.
        stream.write_all(&reply("ping", 1)[..9]).unwrap();
        drop(stream);
        listener.set_nonblocking(true).unwrap();
        told.recv().unwrap();
        assert!(listener.accept().is_err(), "it came again");
    });
    assert!(network.call(&to, &ping, LONG).is_ok());
    assert!(network.call(&to, &ping, LONG).is_ok());
    let error = network.call(&to, &ping, LONG).unwrap_err();
    assert!(matches!(error, CallError::Broken(_)), "{error}");
    tell.send(()).unwrap();
    peer.join().unwrap();
}

#[test]
fn must_not_repeat_a_call_that_may_have_been_carried_out() {
    let network = TcpNetwork::default();
    let ping = request("ping", b"");
    let mut once = request("ping", b"");
    once.connection = Connection::Once;
    let (listener, to) = listen();
    let (tell, told) = mpsc::channel();
    let (ended, end) = mpsc::channel();
    let peer = thread::spawn(move || {
        let accept = || listener.accept().unwrap().0;
        let read = |stream: &mut TcpStream| stream.read(&mut [0; 4096]).unwrap();
        let answer = |stream: &mut TcpStream, sequence| {
            stream.write_all(&reply("ping", sequence)).unwrap();
        };
        let mut stream = accept();
        read(&mut stream);
        answer(&mut stream, 0);
        drop(stream); // Ended before the second call,
        ended.send(()).unwrap();
        let mut stream = accept(); // which comes here.
        read(&mut stream);
        answer(&mut stream, 0);
        assert!(stream.peek(&mut [0]).unwrap() > 0);
        drop(stream); // Reset, with the third call unread.
        let mut stream = accept();
        read(&mut stream);
        answer(&mut stream, 0);
        read(&mut stream); // The fourth one has been read, and may have been carried out.
        drop(stream);
        listener.set_nonblocking(true).unwrap();
        told.recv().unwrap();
        assert!(listener.accept().is_err(), "it came again");
    });
    assert!(network.call(&to, &ping, LONG).is_ok());
    end.recv().unwrap();
    assert!(network.call(&to, &once, LONG).is_ok());
    assert!(network.call(&to, &once, LONG).is_ok());
    let error = network.call(&to, &once, LONG).unwrap_err();
    assert!(matches!(error, CallError::Broken(_)), "{error}");
    tell.send(()).unwrap();
    peer.join().unwrap();
}

#[test]
fn must_not_repeat_several_calls_of_which_some_may_have_been_carried_out() {
    let network = TcpNetwork::default();
    let ping = request("ping", b"");
    let mut once = request("ping", b"");
    once.connection = Connection::Once;
    let (listener, to) = listen();
    let (tell, told) = mpsc::channel();
    let peer = thread::spawn(move || {
        let mut stream = listener.accept().unwrap().0;
        let first = stream.read(&mut [0; 4096]).unwrap();
        stream.write_all(&reply("ping", 0)).unwrap();
        // Of two calls it reads the first, and the rest is reset.
        stream.read_exact(&mut vec![0; first]).unwrap();
        assert!(stream.peek(&mut [0]).unwrap() > 0);
        drop(stream);
        listener.set_nonblocking(true).unwrap();
        told.recv().unwrap();
        assert!(listener.accept().is_err(), "they came again");
    });
    assert!(network.call(&to, &ping, LONG).is_ok());
    let calls = [(to.clone(), once.clone()), (to, once)];
    for answer in network.call_all(&calls, LONG) {
        assert!(matches!(answer, Err(CallError::Broken(_))), "{answer:?}");
    }
    tell.send(()).unwrap();
    peer.join().unwrap();
}

/// What the caller takes for an answer doesn't count against those that have yet to be read.
#[test]
fn must_wait_for_answers_as_long_though_the_caller_is_slow() {
    let network = TcpNetwork::default();
    let (slow, fast) = (listen(), listen());
    let (tell, told) = mpsc::channel();
    let peer = |(listener, to): (TcpListener, Location), wait: bool, told: mpsc::Receiver<()>| {
        let serve = thread::spawn(move || {
            let mut stream = listener.accept().unwrap().0;
            assert!(stream.read(&mut [0; 4096]).unwrap() > 0);
            if wait {
                told.recv().unwrap();
            }
            stream.write_all(&reply("ping", 0)).unwrap();
        });
        (to, serve)
    };
    let (first, one) = peer(fast, false, mpsc::channel().1);
    let (second, other) = peer(slow, true, told);
    let calls = [first, second].map(|to| (to, request("ping", b"")));
    let mut taken = Vec::new();
    network.call_each(&calls, SHORT, &mut |event| {
        let Event::Answer(place, answer) = event else {
            return;
        };
        taken.push((place, answer.is_ok()));
        if place == 0 {
            thread::sleep(2 * SHORT);
            tell.send(()).unwrap();
        }
    });
    assert_eq!(taken, [(0, true), (1, true)]);
    one.join().unwrap();
    other.join().unwrap();
}

#[test]
fn must_hand_out_an_answer_before_the_next_one_is_there() {
    let network = TcpNetwork::default();
    let (listener, to) = listen();
    let (echo, _server) = serve(listener);
    // Large answers are sent one by one.
    let large = request("echo", &vec![b'x'; 3 << 20]);
    let calls = [(to.clone(), large), (to, request("wait", b"x"))];
    let mut taken = Vec::new();
    network.call_each(&calls, LONG, &mut |event| {
        if let Event::Answer(place, answer) = event {
            taken.push((place, answer.is_ok()));
            echo.open();
        }
    });
    assert_eq!(taken, [(0, true), (1, true)]);
}

#[test]
fn must_hand_out_one_answer_to_each_call_of_a_connection_that_breaks() {
    let network = TcpNetwork::default();
    let (listener, to) = listen();
    let peer = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        assert!(stream.read(&mut [0; 4096]).unwrap() > 0);
        stream.write_all(&reply("ping", 0)).unwrap();
    });
    let calls = vec![(to, request("ping", b"x")); 3];
    let mut taken = Vec::new();
    network.call_each(&calls, LONG, &mut |event| {
        if let Event::Answer(place, answer) = event {
            taken.push((place, answer.is_ok()));
        }
    });
    assert_eq!(taken, [(0, true), (1, false), (2, false)]);
    peer.join().unwrap();
}

#[test]
fn must_take_no_late_answer_for_another() {
    let network = TcpNetwork::default();
    let (listener, to) = listen();
    let (echo, _server) = serve(listener);
    let wait = network.call(&to, &request("wait", b"first"), SHORT);
    assert_eq!(wait, Err(CallError::Silent));
    echo.open();
    let second = request("wait", b"second");
    assert_eq!(
        network.call(&to, &second, LONG),
        Ok(second.arguments.to_vec())
    );
}

#[test]
fn must_hear_everybody_but_the_silent_one_within_one_limit() {
    let network = TcpNetwork::default();
    let (silent, silent_at) = listen();
    let houses: Vec<_> = (0..9).map(|_| listen()).collect();
    let mut calls: Vec<_> = houses
        .iter()
        .map(|(_, to)| (to.clone(), request("echo", &[b'x'; 100_000])))
        .collect();
    let _servers: Vec<_> = houses
        .into_iter()
        .map(|(listener, _)| serve(listener))
        .collect();
    // More than fits into the buffers between: its writing gets stuck.
    calls.insert(0, (silent_at, request("echo", &vec![b'x'; 16 << 20])));
    let limit = 10 * SHORT;
    // The second time with kept connections.
    for _ in 0..2 {
        let started = Instant::now();
        let answers = network.call_all(&calls, limit);
        let took = started.elapsed();
        assert!(took < 2 * limit, "{took:?}");
        assert_eq!(answers[0], Err(CallError::Silent));
        assert!(answers[1..].iter().all(Result::is_ok));
    }
    drop(silent);
}

#[test]
fn must_hear_the_others_when_a_kept_connection_gets_stuck() {
    let network = TcpNetwork::default();
    let (listener, stuck_at) = listen();
    let (house, to) = listen();
    let _server = serve(house);
    let (tell, told) = mpsc::channel();
    let stuck = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        assert!(stream.read(&mut [0; 4096]).unwrap() > 0);
        stream.write_all(&reply("ping", 0)).unwrap();
        told.recv().unwrap();
    });
    network
        .call(&stuck_at, &request("ping", b""), LONG)
        .unwrap();
    let calls = [
        (stuck_at, request("ping", &vec![b'x'; 16 << 20])),
        (to, request("echo", b"x")),
    ];
    let answers = network.call_all(&calls, 5 * SHORT);
    assert_eq!(answers[0], Err(CallError::Silent));
    assert!(answers[1].is_ok());
    tell.send(()).unwrap();
    stuck.join().unwrap();
}

#[test]
fn must_not_add_up_the_limits_of_hosts_that_do_not_answer() {
    // A listener whose queue is full: the system drops what else wants to connect.
    let listener = TcpListener::bind("0.0.0.0:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let patience = Duration::from_millis(100);
    let fill = || TcpStream::connect_timeout(&([127, 0, 0, 1], port).into(), patience).ok();
    let _queue: Vec<_> = std::iter::from_fn(fill).collect();
    let calls: Vec<_> = (2..42)
        .map(|host| {
            let to = Location::new(&format!("127.0.0.{host}"), port).unwrap();
            (to, request("echo", b"x"))
        })
        .collect();
    let started = Instant::now();
    let answers = TcpNetwork::default().call_all(&calls, 5 * SHORT);
    assert!(started.elapsed() < 4 * 5 * SHORT);
    assert!(
        answers
            .iter()
            .all(|answer| *answer == Err(CallError::Silent))
    );
}

#[test]
fn must_end_the_calls_that_wait_when_a_location_is_forgotten() {
    let network = TcpNetwork::default();
    let (listener, to) = listen();
    let (echo, _server) = serve(listener);
    for kept in [false, true] {
        if kept {
            network.call(&to, &request("echo", b"x"), LONG).unwrap();
        }
        let before = echo.waiting.load(Ordering::SeqCst);
        thread::scope(|scope| {
            let waiting = scope.spawn(|| network.call(&to, &request("wait", b""), LONG));
            wait_until("the call waits", || {
                echo.waiting.load(Ordering::SeqCst) > before
            });
            let started = Instant::now();
            network.forget(&to);
            let error = waiting.join().unwrap().unwrap_err();
            assert!(matches!(error, CallError::Broken(_)), "{error}");
            assert!(started.elapsed() < LONG / 2);
        });
        assert_eq!(
            echo.waiting.load(Ordering::SeqCst),
            before + 1,
            "not repeated"
        );
    }
    network.call(&to, &request("echo", b"x"), LONG).unwrap();
    echo.open();
}

#[test]
fn must_not_wait_for_answers_to_oneway_requests() {
    let network = TcpNetwork::default();
    let (listener, to) = listen();
    let mut put = request("put", &vec![b'x'; 1 << 20]);
    put.oneway = true;
    put.connection = Connection::Single;
    thread::scope(|scope| {
        let reading = scope.spawn(|| {
            let (mut stream, _) = listener.accept().unwrap();
            let mut bytes = Vec::new();
            stream.read_to_end(&mut bytes).unwrap();
            bytes
        });
        assert_eq!(network.call(&to, &put, LONG), Ok(vec![0]));
        let bytes = reading.join().unwrap();
        let limits = Limits::default();
        let (message, length) = Splitter::default().next(&bytes, &limits).unwrap().unwrap();
        assert_eq!((message.kind, length), (MessageKind::Oneway, bytes.len()));
        assert!(message.body == *put.arguments);
    });
}

#[test]
fn must_keep_connections_between_our_own_nodes_only() {
    let network = TcpNetwork::default();
    let (listener, to) = listen();
    let mut ping = request("ping", b"");
    thread::scope(|scope| {
        scope.spawn(|| {
            // Answers once on the first connection, and reads to its end, as an original would;
            // then twice on the second.
            for times in [1, 2] {
                let (mut stream, _) = listener.accept().unwrap();
                for sequence in 0..times {
                    assert!(stream.read(&mut [0; 4096]).unwrap() > 0);
                    stream.write_all(&reply("ping", sequence)).unwrap();
                }
                assert_eq!(stream.read(&mut [0; 4096]).unwrap(), 0);
            }
        });
        ping.connection = Connection::Single;
        assert!(network.call(&to, &ping, LONG).is_ok());
        ping.connection = Connection::Kept;
        assert!(network.call(&to, &ping, LONG).is_ok());
        assert!(network.call(&to, &ping, LONG).is_ok());
        network.forget(&to);
    });
}

/// As many callers as connections are answered at once, so each needs one of its own.
#[test]
fn must_keep_as_many_connections_as_were_in_use_together() {
    const CALLERS: usize = 100;
    let (listener, to) = listen();
    let (together, accepted) = (Barrier::new(CALLERS), AtomicUsize::new(0));
    let over = AtomicBool::new(false);
    let network = TcpNetwork::default();
    thread::scope(|scope| {
        scope.spawn(|| {
            loop {
                let (mut stream, _) = listener.accept().unwrap();
                if over.load(Ordering::SeqCst) {
                    return;
                }
                accepted.fetch_add(1, Ordering::SeqCst);
                let together = &together;
                scope.spawn(move || {
                    let mut sequence = 0;
                    while stream.read(&mut [0; 4096]).unwrap() > 0 {
                        together.wait();
                        stream.write_all(&reply("ping", sequence)).unwrap();
                        sequence += 1;
                    }
                });
            }
        });
        for _ in 0..2 {
            let call = || network.call(&to, &request("ping", b""), LONG).unwrap();
            let callers: Vec<_> = (0..CALLERS).map(|_| scope.spawn(call)).collect();
            callers
                .into_iter()
                .for_each(|one| drop(one.join().unwrap()));
        }
        network.close_idle();
        over.store(true, Ordering::SeqCst);
        drop(TcpStream::connect((to.address(), to.port())));
    });
    assert_eq!(accepted.load(Ordering::SeqCst), CALLERS);
}

/// Both ends write more than fits in between, each to the other.
#[test]
fn must_finish_when_two_nodes_send_much_to_each_other() {
    let networks = [TcpNetwork::default(), TcpNetwork::default()];
    let (first, a) = listen();
    let (second, b) = listen();
    let _servers = (serve(first), serve(second));
    let much = request("echo", &vec![b'x'; 16 << 20]);
    thread::scope(|scope| {
        for (network, to) in networks.iter().zip([a, b]) {
            let much = &much;
            scope.spawn(move || assert!(network.call(&to, much, LONG).is_ok()));
        }
    });
}

#[test]
fn world_24_must_not_be_kept_waiting_by_an_answer_that_trickles() {
    let (listener, to) = listen();
    let trickling = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        // A field of a megabyte, of which the bytes come one by one.
        let mut answer = Vec::new();
        begin_message(&mut answer, MessageKind::Reply, b"echo", 0, false);
        answer.write_bytes_field(0, &[b'x'; 1 << 20]);
        for byte in answer {
            thread::sleep(Duration::from_millis(5));
            if stream.write_all(&[byte]).is_err() {
                return;
            }
        }
    });
    let answer = TcpNetwork::default().call(&to, &request("echo", b"x"), SHORT);
    assert_eq!(answer, Err(CallError::Silent));
    trickling.join().unwrap();
}

/// Not a test of its own: calls to many locations, in a process with few descriptors.
#[test]
fn few_descriptors_child() {
    let Some(port) = std::env::var_os("FEW_DESCRIPTORS_PORT") else {
        return;
    };
    let port = port.to_str().unwrap().parse().unwrap();
    let network = TcpNetwork::default();
    for number in 1..100 {
        let to = Location::new(&format!("127.0.0.{number}"), port).unwrap();
        let answer = network.call(&to, &request("echo", b"x"), LONG);
        assert!(answer.is_ok(), "{to}: {answer:?}");
    }
}

/// One connection would be kept to each of them.
#[test]
fn must_give_up_kept_connections_when_descriptors_are_lacking() {
    let listener = TcpListener::bind("0.0.0.0:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let (echo, _server) = serve(listener);
    let child = Command::new("sh")
        .args([
            "-c",
            "ulimit -n 30; exec \"$0\" --exact few_descriptors_child",
        ])
        .arg(std::env::current_exe().unwrap())
        .env("FEW_DESCRIPTORS_PORT", port.to_string())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&child.stdout);
    assert!(child.status.success(), "{said}");
    assert_eq!(echo.served.load(Ordering::SeqCst), 99);
}
