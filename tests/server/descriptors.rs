//! A server that has no descriptor left, in a process of its own.

use std::fs::File;
use std::io::{BufRead, BufReader, Lines, Read};
use std::net::SocketAddr;
use std::process::{ChildStderr, ChildStdout, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use thrifty_p2p::server::Options;
use thrifty_p2p::thrift::MessageKind;

use crate::house::{Client, house, message, visit};

/// A server in a process of its own, with few descriptors: this program once more, where one of its
/// "tests" serves. It ends when somebody calls `leave`.
struct Child {
    process: std::process::Child,
    address: SocketAddr,
    /// Kept open: it says on it how its tests went.
    out: Lines<BufReader<ChildStdout>>,
    errors: Lines<BufReader<ChildStderr>>,
}

const CHILD: &str = "FEW_DESCRIPTORS";

impl Child {
    fn start(test: &str, descriptors: u32) -> Child {
        let script = format!("ulimit -n {descriptors}; exec \"$0\" --exact {test} --nocapture");
        let mut process = Command::new("sh")
            .args(["-c", &script])
            .arg(std::env::current_exe().unwrap())
            .env(CHILD, "1")
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut out = BufReader::new(process.stdout.take().unwrap()).lines();
        let address = out.find_map(|line| Some(line.unwrap().strip_prefix("serving ")?.to_owned()));
        let errors = BufReader::new(process.stderr.take().unwrap()).lines();
        Child {
            process,
            address: address.unwrap().parse().unwrap(),
            out,
            errors,
        }
    }

    fn serve(change: impl FnOnce(&mut Options)) {
        if std::env::var_os(CHILD).is_some() {
            let house = house(|options| {
                options.connections_max = 1000;
                change(options);
            });
            println!("\nserving {}", house.address);
            house.service.wait_for("leave", 1);
        }
    }

    fn must_have_complained(&mut self) {
        assert!(self.errors.any(|line| is_complaint(&line.unwrap())));
    }

    /// It has complained no more.
    fn must_end_well(mut self) {
        visit(self.address).send(&message(MessageKind::Oneway, "leave", 0, &[]));
        let mut errors = self.errors.map(Result::unwrap);
        assert!(!errors.any(|line| is_complaint(&line)), "said once");
        assert!(self.out.all(|line| line.is_ok()));
        assert!(self.process.wait().unwrap().success());
    }
}

fn is_complaint(line: &str) -> bool {
    line.contains("can't accept a connection")
}

#[test]
fn child() {
    Child::serve(|_| {});
}

#[test]
fn must_outlive_a_lack_of_descriptors() {
    let mut child = Child::start("descriptors::child", 30);
    let mut clients: Vec<_> = (0..60).map(|_| visit(child.address)).collect();
    child.must_have_complained();
    // Those that have been idle longest have made room for those that came last.
    clients[0].must_be_closed();
    clients[59].call("ping", &[]);
    visit(child.address).call("ping", &[]);
    child.must_end_well();
}

/// What is given up doesn't stay free for long.
#[test]
fn relieved_child() {
    let open = || File::open("/dev/null");
    let spare: Vec<_> = (0..20).map(|_| open().unwrap()).collect();
    let spare = Mutex::new(spare);
    let relieve = move || {
        let given_up = spare.lock().unwrap().pop().is_some();
        thread::spawn(move || {
            thread::sleep(Duration::from_millis(5));
            open().map(std::mem::forget)
        });
        given_up
    };
    Child::serve(|options| options.relieve = Arc::new(relieve));
}

#[test]
fn must_take_what_it_is_relieved_of_at_once() {
    let mut child = Child::start("descriptors::relieved_child", 40);
    let clients = (0..30).map(|_| {
        let mut client = visit(child.address);
        client.call("ping", &[]);
        client
    });
    let mut clients: Vec<_> = clients.collect();
    child.must_have_complained();
    // None had to go.
    for client in &mut clients {
        client.call("ping", &[]);
    }
    child.must_end_well();
}

#[test]
fn crowded_child() {
    Child::serve(|options| options.connections_max = 1);
}

/// A client that is in the middle of a message, and is not closed for others.
fn in_the_middle(address: SocketAddr) -> Client {
    loop {
        let mut client = visit(address);
        let ping = message(MessageKind::Call, "ping", 1, &[]);
        client.send(&[&ping[..], &ping[..10]].concat());
        client.answer().unwrap();
        // It may have been idle still when the other one came: then it has been closed.
        let _other = visit(address);
        let a_moment = Some(Duration::from_millis(200));
        client.stream.set_read_timeout(a_moment).unwrap();
        if client.stream.read(&mut [0]).is_err() {
            return client;
        }
    }
}

#[test]
fn must_close_what_waits_beyond_a_sixteenth_of_the_descriptors() {
    let child = Child::start("descriptors::crowded_child", 64);
    let first = in_the_middle(child.address);
    // One that has gone waits as well.
    let mut clients: Vec<_> = (0..4).map(|_| visit(child.address)).collect();
    clients.pop().unwrap().must_be_closed();
    for client in &mut clients {
        client.send(&message(MessageKind::Call, "ping", 1, &[]));
    }
    // They get in one after the other.
    drop(first);
    for client in &mut clients {
        assert_eq!(client.answer().unwrap().sequence, 1);
    }
    child.must_end_well();
}
