//! What clients can't make a server do, however slow, many or silent they are.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use thrifty_p2p::thrift::{Exception, Limits, MessageKind, begin_message, end_frame};

use crate::house::{Client, House, LONG, house, message, write_arguments};

#[test]
fn must_close_the_longest_idle_connection_at_the_limit() {
    let house = house(|options| options.connections_max = 3);
    let mut busy = house.visit();
    busy.send(&message(MessageKind::Call, "wait", 1, &[]));
    house.service.wait_for("wait", 1);
    let [mut silent, mut lively] = [house.visit(), house.visit()];
    lively.call("ping", &[]); // It has been accepted after the silent one, and is idle from now on.
    house.call("ping", &[]);
    silent.must_be_closed();
    lively.call("ping", &[]);
    house.service.open_the_gate();
    assert_eq!(busy.answer().unwrap().sequence, 1);
}

#[test]
fn must_let_a_new_connection_wait_when_none_is_idle() {
    let house = house(|options| options.connections_max = 2);
    let mut busy = [house.visit(), house.visit()];
    for client in &mut busy {
        client.send(&message(MessageKind::Call, "wait", 1, &[]));
    }
    house.service.wait_for("wait", 2);
    let mut late = house.visit();
    late.send(&message(MessageKind::Call, "ping", 2, &[]));
    house.service.open_the_gate();
    for client in &mut busy {
        client.answer().unwrap();
    }
    assert_eq!(late.answer().unwrap().sequence, 2);
}

/// Where another node of the network is. Clients come from 127.0.0.1.
const NODE: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));

/// A server of eight connections, of which four are kept for a node.
fn house_with_a_node() -> House {
    house(|options| {
        options.connections_max = 8;
        options.nodes = Arc::new(|| vec![NODE]);
    })
}

#[test]
fn must_not_close_the_connections_of_a_node_for_clients() {
    let house = house_with_a_node();
    let mut kept: Vec<_> = (0..4).map(|_| house.visit_from(NODE)).collect();
    for connection in &mut kept {
        connection.call("ping", &[]);
    }
    // Each of them is idle for less long than those of the node.
    let mut clients: Vec<_> = (0..40).map(|_| house.visit()).collect();
    clients[39].call("ping", &[]);
    clients[0].must_be_closed();
    for connection in &mut kept {
        connection.call("ping", &[]);
    }
    // A fifth one counts as a client's.
    let mut fifth = house.visit_from(NODE);
    fifth.call("ping", &[]);
    clients[36].must_be_closed();
    house.visit().call("ping", &[]);
}

#[test]
fn must_let_a_node_in_though_no_client_goes() {
    let house = house_with_a_node();
    let half = &message(MessageKind::Call, "put", 1, &[b"k", b"v"])[..10];
    let clients: Vec<_> = (0..40)
        .map(|_| {
            let mut client = house.visit();
            client.send(half);
            client
        })
        .collect();
    // It comes behind those that wait for the clients before them.
    let mut kept: Vec<_> = (0..4).map(|_| house.visit_from(NODE)).collect();
    let began = Instant::now();
    for connection in &mut kept {
        connection.call("ping", &[]);
    }
    assert!(began.elapsed() < Duration::from_secs(5));
    drop(clients);
    house.call("ping", &[]);
}

/// What clients had taken before is theirs until they are idle.
#[test]
fn must_let_a_node_in_first_that_has_become_one_when_all_is_taken() {
    let is_node = Arc::new(AtomicBool::new(false));
    let known = Arc::clone(&is_node);
    let (tell, told) = mpsc::channel();
    let house = house(|options| {
        options.connections_max = 2;
        options.nodes = Arc::new(move || {
            if !known.load(Ordering::Relaxed) {
                return Vec::new();
            }
            // It fails when the test is over.
            let _ = tell.send(());
            vec![NODE]
        });
    });
    let mut busy = [house.visit(), house.visit()];
    for client in &mut busy {
        client.send(&message(MessageKind::Call, "wait", 1, &[]));
    }
    house.service.wait_for("wait", 2);
    let mut late = house.visit();
    late.send(&message(MessageKind::Call, "get", 1, &[b"k"]));
    let mut node = house.visit_from(NODE);
    node.send(&message(
        MessageKind::Call,
        "put",
        1,
        &[b"k", b"of the node"],
    ));
    is_node.store(true, Ordering::Relaxed);
    // By the second time it has long been accepted.
    for _ in 0..2 {
        told.recv_timeout(LONG).unwrap();
    }
    house.service.open_the_gate();
    node.answer().unwrap();
    let value = late.answer().unwrap().result();
    assert_eq!(value.as_deref(), Ok(&b"of the node"[..]));
}

#[test]
fn must_close_idle_and_trickling_connections_in_time() {
    let house = house(|options| {
        options.idle_limit = Duration::from_millis(400);
        options.message_limit = Duration::from_millis(200);
    });
    let mut idle = house.visit();
    let mut trickling = house.visit();
    trickling.call("ping", &[]);
    let started = Instant::now();
    let endless = message(MessageKind::Call, "put", 1, &[&[b'x'; 1 << 20]]);
    let sent = endless.iter().take_while(|byte| {
        assert!(started.elapsed() < LONG, "it goes on");
        thread::sleep(Duration::from_millis(5));
        trickling.stream.write_all(&[**byte]).is_ok()
    });
    assert!(sent.count() < endless.len());
    assert!(started.elapsed() > Duration::from_millis(200));
    idle.must_be_closed();
    house.call("ping", &[]);
}

#[test]
fn must_give_up_on_a_client_that_does_not_read() {
    let house = house(|options| options.write_limit = Duration::from_millis(200));
    let mut client = house.visit();
    client.call("put", &[b"k", &[b'x'; 4 << 20]]);
    let get = message(MessageKind::Call, "get", 1, &[b"k"]);
    let deadline = Instant::now() + LONG;
    while client.stream.write_all(&get).is_ok() {
        assert!(Instant::now() < deadline, "the connection is kept");
        thread::sleep(Duration::from_millis(1));
    }
    house.call("ping", &[]);
}

#[test]
fn must_keep_serving_a_connection_that_has_been_large_and_quiet() {
    let house = house(|_| {});
    let mut client = house.visit();
    let value = vec![b'x'; 1 << 20];
    for pause in [0, 1_300, 0] {
        // Past the second after which the memory is given back.
        thread::sleep(Duration::from_millis(pause));
        client.call("put", &[b"k", &value]);
        assert!(client.call("get", &[b"k"]).result().unwrap() == value);
    }
}

/// Little is a message, and less a string.
const SMALL: Limits = Limits {
    message_bytes_max: 1 << 20,
    string_bytes_max: 1 << 18,
    ..Limits::DEFAULT
};

/// A call with a string of so many bytes, framed or not.
fn put_of(length: usize, framed: bool) -> Vec<u8> {
    let mut bytes = Vec::new();
    let start = begin_message(&mut bytes, MessageKind::Call, b"put", 3, framed);
    write_arguments(&mut bytes, &[b"k", &vec![b'x'; length]]);
    if framed {
        end_frame(&mut bytes, start);
    }
    bytes
}

#[test]
fn must_answer_what_is_too_large_though_it_is_sent_to_its_end_first() {
    let house = house(|options| options.limits = SMALL);
    for framed in [false, true] {
        // Far more than lies between the two; with the next request behind it.
        let large = put_of(50 << 20, framed);
        let mut client = house.visit();
        client.call("ping", &[]);
        client.send(&large);
        client.send(&message(MessageKind::Call, "ping", 4, &[]));
        let answer = client.answer().unwrap();
        assert_eq!((&*answer.name, answer.sequence), ("put", 3));
        assert_eq!(answer.framed, framed);
        let said = match framed {
            false => "52428800 bytes in a string, above the limit of 262144".to_owned(),
            true => format!(
                "{} bytes in a message, above the limit of 1048576",
                large.len()
            ),
        };
        let exception = answer.exception();
        let expected = Exception::new(Exception::PROTOCOL_ERROR, said);
        assert_eq!(exception, expected);
        client.must_be_closed();
    }
    // As large as a frame can be; nobody waits for its end.
    let mut client = house.visit();
    let mut largest = put_of(0, true);
    largest[..4].copy_from_slice(&i32::MAX.to_be_bytes());
    client.send(&largest);
    let exception = client.answer().unwrap().exception();
    let said = "2147483651 bytes in a message, above the limit of 1048576";
    assert_eq!(exception, Exception::new(Exception::PROTOCOL_ERROR, said));
    client.must_be_closed();
    // One-way, there is nothing to answer.
    let mut client = house.visit();
    let mut oneway = put_of(50 << 20, false);
    oneway[3] = MessageKind::Oneway as u8;
    // It may be cut off while it speaks.
    let _ = client.stream.write_all(&oneway);
    assert!(!matches!(client.stream.read(&mut [0]), Ok(1..)));
    // A string that is too long, in a message that isn't, is for the service to refuse.
    let mut client = house.visit();
    client.send(&put_of(1 << 19, true));
    assert_eq!(client.answer().unwrap().result(), Ok(Vec::new()));
    client.call("ping", &[]);
}

/// Two large messages that never end: there is room for one of them. Small ones need none.
#[test]
fn must_close_who_waits_for_room_too_long_and_nobody_else() {
    let house = house(|options| options.messages_bytes_max = 1 << 20);
    let half = |client: &mut Client| {
        let mut bytes = message(MessageKind::Call, "put", 1, &[b"k", &[b'x'; 800_000]]);
        bytes.truncate(bytes.len() / 2);
        client.send(&bytes);
    };
    let [mut first, mut second, mut small] = [(); 3].map(|()| house.visit());
    half(&mut first);
    small.call("ping", &[]);
    let began = Instant::now();
    half(&mut second);
    let (tell, told) = mpsc::channel();
    let waits = thread::spawn(move || {
        let exception = second.answer().unwrap().exception();
        second.must_be_closed();
        tell.send(began.elapsed()).unwrap();
        exception
    });
    let took = loop {
        small.call("ping", &[]);
        match told.try_recv() {
            Ok(took) => break took,
            Err(_) => assert!(began.elapsed() < LONG, "it is never closed"),
        }
    };
    assert!(took >= Duration::from_secs(3), "{took:?}");
    let said = "no room: other messages take what there is, 1048576 bytes";
    assert_eq!(waits.join().unwrap().message, said);
    // The first one is there still, and ends in order.
    let rest = message(MessageKind::Call, "put", 1, &[b"k", &[b'x'; 800_000]]);
    first.send(&rest[rest.len() / 2..]);
    assert_eq!(first.answer().unwrap().result(), Ok(Vec::new()));
}

#[test]
fn must_say_once_a_second_that_it_has_closed_connections_and_always_if_verbose() {
    for verbose in [false, true] {
        let lines = Arc::new(Mutex::new(Vec::new()));
        let taken = Arc::clone(&lines);
        let house = house(|options| {
            options.verbose = verbose;
            options.log = Arc::new(move |_, line| taken.lock().unwrap().push(line.to_owned()));
        });
        let began = Instant::now();
        for _ in 0..50 {
            let mut client = house.visit();
            client.send(b"GET / HTTP/1.1\r\n\r\n");
            client.must_be_closed();
        }
        let lines = lines.lock().unwrap();
        let closed = |line: &&String| line.starts_with("closed the connection of 127.0.0.1:");
        assert_eq!(lines.iter().filter(closed).count(), lines.len());
        if verbose {
            assert_eq!(lines.len(), 50);
        } else {
            let most = 1 + began.elapsed().as_secs() as usize;
            assert!((1..=most).contains(&lines.len()), "{lines:?}");
        }
        assert!(lines[0].ends_with("bytes in a method's name, above the limit of 1024"));
    }
}

/// The write limit went on for the request behind an answer that had been written early.
#[test]
fn regression_must_not_count_serving_as_writing() {
    let limit = Duration::from_millis(50);
    let house = house(|options| options.write_limit = limit);
    let mut client = house.visit();
    client.call("put", &[b"k", &[b'x'; 300_000]]);
    let get = message(MessageKind::Call, "get", 1, &[b"k"]);
    let wait = message(MessageKind::Call, "wait", 2, &[]);
    client.send(&[get, wait].concat());
    assert_eq!(client.answer().unwrap().sequence, 1);
    house.service.wait_for("wait", 1);
    thread::sleep(4 * limit); // Past the limit, and the interval at which it is looked at.
    house.service.open_the_gate();
    assert_eq!(client.answer().unwrap().sequence, 2);
}
