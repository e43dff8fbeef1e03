//! Output that nobody reads, or that can't be written, holds nothing up: no request, no end.

use std::fs::File;
use std::io::{BufRead, BufReader, PipeReader, PipeWriter, pipe};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use thrifty_p2p::location::Location;

use crate::running::{LONG, SECONDS, STORESERVER, network, own_address, put, wait_until};

/// At 20 bytes and more a line, several times what pipe and queue have room for.
const PUTS: usize = 30_000;

/// A child that is killed if the test fails.
struct Running(Child);

impl Running {
    fn signal(&self, name: &str) {
        let status = Command::new("kill")
            .args([format!("-{name}"), self.0.id().to_string()])
            .status();
        assert!(status.expect("kill").success());
    }

    /// Ends within seconds, and well.
    fn must_end(&mut self) {
        let began = Instant::now();
        let status = loop {
            if let Some(status) = self.0.try_wait().expect("it is a child") {
                break status;
            }
            assert!(began.elapsed() < SECONDS, "it doesn't end");
            thread::sleep(Duration::from_millis(5));
        };
        assert_eq!(status.code(), Some(0));
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It fails if it has ended: as good.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A store that says each request, and answers.
fn talkative(out: Stdio, errors: Stdio) -> (Running, Location) {
    let location = Location::new(&own_address(), 9900).expect("an address");
    let mut command = Command::new(STORESERVER);
    command.args(["-v", "-p", "9900", "-a", location.address()]);
    let node = command.stdin(Stdio::null()).stdout(out).stderr(errors);
    let node = Running(node.spawn().expect("the program starts"));
    let network = network();
    wait_until(LONG, "it serves", || {
        put(&network, &location, b"key", b"value").is_ok()
    });
    (node, location)
}

fn put_many(location: &Location) {
    let network = network();
    for _ in 0..PUTS {
        put(&network, location, b"key", b"value").expect("it goes on serving");
    }
}

fn both(writer: PipeWriter) -> (Stdio, Stdio) {
    let again = writer.try_clone().expect("a descriptor");
    (writer.into(), again.into())
}

/// On the line that says what was dropped.
fn must_complain(errors: PipeReader) {
    let mut lines = BufReader::new(errors).lines().map(Result::unwrap);
    let last = lines.next().expect("a line on stderr");
    assert!(last.ends_with("1 key dropped: nobody was left to take them"));
    assert_eq!(lines.next(), None);
}

#[test]
fn must_serve_and_end_though_nobody_reads_stdout() {
    let (reader, writer) = pipe().unwrap();
    let (errors, complaints) = pipe().unwrap();
    let (mut node, location) = talkative(writer.into(), complaints.into());
    put_many(&location);
    node.signal("TERM");
    node.must_end();
    must_complain(errors);
    drop(reader);
}

#[test]
fn must_serve_and_end_though_nobody_reads_either() {
    let (reader, writer) = pipe().unwrap();
    let (out, errors) = both(writer);
    let (mut node, location) = talkative(out, errors);
    put_many(&location);
    node.signal("TERM");
    // With a complaint for the pipe that is full.
    node.must_end();
    drop(reader);
}

#[test]
fn must_serve_and_end_though_the_readers_have_gone() {
    let (reader, writer) = pipe().unwrap();
    let (out, errors) = both(writer);
    drop(reader);
    let (mut node, location) = talkative(out, errors);
    put_many(&location);
    node.signal("TERM");
    node.must_end();
}

#[test]
fn must_serve_and_end_on_a_full_disk() {
    let full = || File::options().write(true).open("/dev/full").unwrap();
    let (mut node, location) = talkative(full().into(), full().into());
    put_many(&location);
    node.signal("TERM");
    node.must_end();
}

#[test]
fn must_say_how_many_lines_are_missing() {
    let (reader, writer) = pipe().unwrap();
    let (mut node, location) = talkative(writer.into(), Stdio::null());
    put_many(&location);
    let mut lines = BufReader::new(reader).lines().map(Result::unwrap);
    assert_eq!(
        lines.next(),
        Some(format!("Starting the server at {location}..."))
    );
    let mut said = 0;
    let missing: usize = lines
        .by_ref()
        .find_map(|line| {
            said += usize::from(line.ends_with(": put"));
            line.strip_suffix(" lines not written")?.parse().ok()
        })
        .expect("it says so");
    assert!(said + missing >= PUTS, "{said} and {missing}");
    node.signal("TERM");
    assert!(lines.any(|line| line == "Leaving the network..."));
    node.must_end();
}
