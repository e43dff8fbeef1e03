//! Bad input: one line that names the program, the place and the cause, exit code 2, within
//! seconds.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::thread;

use crate::running::{
    LOCATION, Node, PROGRAMS, SECONDS, STOREDEL, STOREDUMP, STOREGET, STOREKEYS, STORELOAD,
    STOREPRIMER, STOREPUT, STORESERVER, STORETEST, own_address, run, settle,
};
use std::process::Command;

/// The program's complaint has all these parts.
fn complains(program: &str, arguments: &[&str], parts: &[&str]) {
    let output = run(program, arguments, SECONDS);
    let errors = String::from_utf8(output.stderr).expect("text");
    let what = format!("{arguments:?}: {errors}");
    assert_eq!(output.status.code(), Some(2), "{what}");
    assert_eq!(errors.lines().count(), 1, "{what}");
    let name = program.rsplit('/').next().unwrap();
    assert!(errors.starts_with(&format!("{name}: ")), "{what}");
    assert!(!errors.contains("panic"), "{what}");
    for part in parts {
        assert!(errors.contains(part), "{what}: no {part:?}");
    }
}

#[test]
fn must_name_a_port_that_is_taken() {
    let address = own_address();
    let node = Node::store(&address, &[]);
    let arguments = ["-a", &address, "-p", "9900"];
    let parts = [&**node.location.name(), "in use"];
    complains(STORESERVER, &arguments, &parts);
    complains(LOCATION, &arguments, &parts);
}

#[test]
fn must_name_a_peer_that_is_not_there() {
    let (own, address) = (own_address(), own_address());
    let peer = format!("{address}:9900");
    for program in [STORESERVER, LOCATION] {
        complains(program, &["-a", &own, "-h", &peer], &[&peer, "refused"]);
    }
    complains(STOREPUT, &["-h", &peer, "a", "apple"], &[&peer, "refused"]);
    complains(STOREGET, &["-h", &peer, "a"], &[&peer, "refused"]);
    complains(STOREPRIMER, &["-h", &peer], &[&peer, "refused"]);
    complains(STORETEST, &["-h", &peer], &[&peer, "refused"]);
    complains(LOCATION, &["--status", "-h", &peer], &[&peer, "refused"]);
    complains(LOCATION, &["--status", "-a", &own], &[&own, "no node"]);
}

#[test]
fn must_name_a_peer_that_does_not_answer() {
    let listener = TcpListener::bind((own_address(), 9900)).unwrap();
    let peer = listener.local_addr().unwrap().to_string();
    complains(
        STORESERVER,
        &["-a", &own_address(), "-h", &peer],
        &[&peer, "no answer"],
    );
    complains(STOREGET, &["-h", &peer, "a"], &[&peer, "no answer"]);
    complains(LOCATION, &["--status", "-h", &peer], &[&peer, "no answer"]);
}

#[test]
fn must_name_a_peer_that_speaks_something_else() {
    let listener = TcpListener::bind((own_address(), 9900)).unwrap();
    let peer = listener.local_addr().unwrap().to_string();
    // It ends with the test program.
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            // Whether this works shows at the other end.
            let _ = stream.read(&mut [0; 100]);
            let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n");
        }
    });
    complains(STORESERVER, &["-a", &own_address(), "-h", &peer], &[&peer]);
    complains(STOREGET, &["-h", &peer, "a"], &[&peer]);
}

#[test]
fn must_name_a_peer_of_another_service() {
    let address = own_address();
    let locator = Node::start(Command::new(LOCATION).args(["-a", &address]));
    let store = Node::store(&address, &[]);
    settle(&[&locator]);
    settle(&[&store]);
    let (own, another) = (own_address(), "another service");
    let (locator, store) = (locator.location.name(), store.location.name());
    complains(
        STORESERVER,
        &["-a", &own, "-h", locator],
        &[locator, another],
    );
    complains(
        LOCATION,
        &["-a", &own, "-h", store],
        &[store, "diststore.Store"],
    );
    complains(STOREGET, &["-h", locator, "a"], &[locator, another]);
    complains(STOREPUT, &["-h", locator, "a", "b"], &[locator, another]);
}

#[test]
fn must_name_another_number_of_copies() {
    let address = own_address();
    let node = Node::store(&address, &["--replicas", "2"]);
    settle(&[&node]);
    for replicas in ["1", "3"] {
        let arguments = ["-a", &address, "--replicas", replicas];
        let (peer, copies) = (
            node.location.name(),
            format!("2 copies of each key, not {replicas}"),
        );
        complains(STORESERVER, &arguments, &[peer, &copies]);
    }
    settle(&[&node]);
}

#[test]
fn must_name_another_tick() {
    let address = own_address();
    let node = Node::store(&address, &["--tick", "400"]);
    settle(&[&node]);
    let peer = node.location.name();
    for tick in [&["--tick", "401"][..], &[]] {
        let own = own_address();
        let arguments = [&["-a", &own, "-h", peer], tick].concat();
        let other = tick.last().unwrap_or(&"500");
        let ticks = format!("a tick of 400 ms, not {other}");
        complains(STORESERVER, &arguments, &[peer, &ticks]);
    }
    // One that finds the network by itself.
    complains(STORESERVER, &["-a", &address], &[peer, "400 ms, not 500"]);
}

#[test]
fn must_name_an_address_that_can_not_be_used() {
    for everything in ["0.0.0.0", "::", "0:0:0:0:0:0:0:0", "::ffff:0.0.0.0", "0"] {
        complains(STORESERVER, &["-a", everything], &[everything]);
    }
    // An address that no machine has, written in each way.
    for peer in ["fd00::1", "[fd00::1]", "[fd00::1]:9900"] {
        complains(STOREGET, &["-h", peer, "a"], &["[fd00::1]:9900"]);
        complains(LOCATION, &["--status", "-h", peer], &["[fd00::1]:9900"]);
        complains(
            STORESERVER,
            &["-a", &own_address(), "-h", peer],
            &["peer [fd00::1]:9900"],
        );
    }
    // An address of no machine: kept for documentation (RFC 5737).
    complains(STORESERVER, &["-a", "192.0.2.1"], &["192.0.2.1", "assign"]);
    complains(STORESERVER, &["-a", "two words"], &["two words"]);
    complains(STORESERVER, &["-a", ""], &["address"]);
    // A local address of IPv6 that this machine hasn't got (RFC 4193).
    for address in ["fd00::1", "[fd00::1]"] {
        complains(STORESERVER, &["-a", address], &["[fd00::1]:9900", "assign"]);
    }
    complains(STORESERVER, &["-a", "[::1]:9900"], &["not an address"]);
    complains(STORESERVER, &["-a", "[127.0.0.1]"], &["not an address"]);
}

#[test]
fn must_name_an_option_that_is_none() {
    let programs: [(&str, &[&str]); 10] = [
        (STORESERVER, &[]),
        (LOCATION, &[]),
        (STOREPUT, &["a", "apple"]),
        (STOREGET, &["a"]),
        (STOREDEL, &["a"]),
        (STOREKEYS, &[]),
        (STOREDUMP, &[]),
        (STORELOAD, &[]),
        (STOREPRIMER, &[]),
        (STORETEST, &[]),
    ];
    for (program, behind) in programs {
        let complains = |options: &[&str], parts: &[&str]| {
            complains(program, &[options, behind].concat(), parts);
        };
        complains(&["--nonsense"], &["nonsense", "--help"]);
        complains(&["--non\nsense"], &["non\\nsense"]);
        complains(&["-x"], &["x"]);
        complains(&["-h", "::::no:where"], &["::::no:where"]);
        complains(&["-h", "two words:9900"], &["two words"]);
        complains(&["-h", "host:port"], &["host:port"]);
        complains(&["-h", "line\nbreak:9900"], &["line\\nbreak"]);
        for port in ["0", "-1", "65536", "99oo", ""] {
            complains(&["-p", port], &["port", port]);
        }
    }
    for program in [STORESERVER, LOCATION] {
        for number in ["0", "6", "-1", "two", "1\n2"] {
            complains(program, &["--replicas", number], &["--replicas"]);
        }
        complains(program, &["--connections", "0"], &["--connections"]);
        for bytes in ["1023k", "9999999g", "64 m", "-64m", "lots"] {
            complains(program, &["--memory", bytes], &["--memory", "m"]);
        }
        complains(program, &["-p"], &["p"]);
        complains(program, &["a", "b", "c"], &["PEER", "PORT"]);
        complains(program, &["nowhere"], &["nowhere"]);
    }
    complains(STOREPUT, &["a"], &["no VALUE"]);
    complains(STOREPUT, &[], &["KEY [VALUE]"]);
    complains(STOREPUT, &["a", "b", "c"], &["KEY [VALUE]"]);
    complains(STOREDEL, &[], &["KEY..."]);
    complains(STOREKEYS, &["a", "b"], &["[PREFIX]"]);
    complains(STOREGET, &[], &["KEY"]);
    complains(STORETEST, &["a"], &["no arguments"]);
}

/// A program that asks a node has no port of its own: only one port may be given.
#[test]
fn must_name_a_port_that_is_given_twice() {
    let node = Node::store(&own_address(), &["-p", "9950"]);
    settle(&[&node]);
    let (name, address) = (node.location.name(), node.location.address());
    let asks: [(&str, &[&str]); 5] = [
        (STOREPUT, &["a", "apple"]),
        (STOREGET, &["a"]),
        (STOREPRIMER, &[]),
        (STORETEST, &[]),
        (LOCATION, &["--status"]),
    ];
    for (program, behind) in asks {
        let twice = [&["-h", name, "-p", "9950"], behind].concat();
        complains(program, &twice, &[name, "9950", "twice"]);
        let once = [&["-h", address, "-p", "9950"], behind].concat();
        let output = run(program, &once, SECONDS);
        assert!(output.stderr.is_empty(), "{program}: {output:?}");
    }
    let twice = ["-h", "[::1]:9900", "-p", "9900", "a"];
    complains(STOREGET, &twice, &["[::1]:9900", "twice"]);
}

/// What begins with a dash is an option before KEY and data behind it: easily mixed up.
#[test]
fn must_name_what_lets_a_key_begin_with_a_dash() {
    let mixed: [(&str, &[&str]); 9] = [
        (STOREPUT, &["a", "apple", "-p", "9901"]),
        (STOREPUT, &["a", "apple", "--", "-p"]),
        (STOREPUT, &["-key", "apple"]),
        (STOREPUT, &["-p", "apple"]),
        (STOREPUT, &["-hello", "apple"]),
        (STOREGET, &["a", "-h", "127.0.0.1"]),
        (STOREGET, &["--key"]),
        (STOREGET, &["-p"]),
        (STOREGET, &["-5"]),
    ];
    for (program, arguments) in mixed {
        complains(program, arguments, &[" -- before a KEY"]);
    }
    let plain = run(STOREGET, &["a", "b"], SECONDS);
    let plain = String::from_utf8(plain.stderr).unwrap();
    assert!(!plain.contains(" -- "), "{plain}");
}

#[test]
fn must_tell_about_themselves() {
    for program in PROGRAMS {
        for option in ["--help", "--version"] {
            let output = run(program, &[option], SECONDS);
            assert!(output.status.success() && output.stderr.is_empty());
            let name = program.rsplit('/').next().unwrap();
            let out = String::from_utf8(output.stdout).unwrap();
            assert!(out.contains(name), "{out}");
        }
    }
}
