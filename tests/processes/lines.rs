//! Output that nobody reads, or that can't be written, holds nothing up: no request, no end.

use std::fs::File;
use std::io::{BufRead, BufReader, ErrorKind, PipeReader, PipeWriter, Write, pipe};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use thrifty_p2p::location::Location;

use crate::running::{
    LONG, SECONDS, STORESERVER, is_settled, network, own_address, put, wait_until,
};

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

    /// Ends within seconds, and well; in how long.
    fn must_end(&mut self) -> Duration {
        let began = Instant::now();
        let status = loop {
            if let Some(status) = self.0.try_wait().expect("it is a child") {
                break status;
            }
            assert!(began.elapsed() < SECONDS, "it doesn't end");
            thread::sleep(Duration::from_millis(5));
        };
        assert_eq!(status.code(), Some(0));
        began.elapsed()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It fails if it has ended: as good.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A store that logs each request, and answers.
fn talkative(out: Stdio, errors: Stdio) -> (Running, Location) {
    store_with(&["-v"], out, errors)
}

/// One that logs nothing while all is well.
fn silent(out: Stdio, errors: Stdio) -> (Running, Location) {
    store_with(&[], out, errors)
}

fn store_with(options: &[&str], out: Stdio, errors: Stdio) -> (Running, Location) {
    let location = Location::new(&own_address(), 9900).expect("an address");
    let node = store(&location, options, out, errors);
    (node, location)
}

/// A store that answers.
fn store(location: &Location, options: &[&str], out: Stdio, errors: Stdio) -> Running {
    let mut command = Command::new(STORESERVER);
    let port = location.port().to_string();
    command.args(["-a", location.address(), "-p", &port]);
    command.args(options);
    let node = command.stdin(Stdio::null()).stdout(out).stderr(errors);
    let node = Running(node.spawn().expect("the program starts"));
    let network = network();
    wait_until(LONG, "it serves", || {
        put(&network, location, b"key", b"value").is_ok()
    });
    node
}

/// A pipe that takes nothing more, until somebody reads the zeros in it.
fn full_pipe() -> (PipeReader, PipeWriter) {
    let (reader, writer) = pipe().expect("a pipe");
    /// On Linux, but for a few of its machines.
    const O_NONBLOCK: i32 = 0o4000;
    let place = format!("/proc/self/fd/{}", writer.as_raw_fd());
    let mut filler = File::options()
        .write(true)
        .custom_flags(O_NONBLOCK)
        .open(place)
        .expect("the pipe once more");
    let full = std::iter::repeat_with(|| filler.write(&[0])).find_map(Result::err);
    assert_eq!(full.expect("an end").kind(), ErrorKind::WouldBlock);
    (reader, writer)
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
    let (reader, writer) = full_pipe();
    let (errors, complaints) = pipe().unwrap();
    let (mut node, location) = silent(writer.into(), complaints.into());
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

/// It used to wait twice: before its complaint, and at its end.
#[test]
fn must_end_in_half_a_second_and_a_little_though_nobody_reads() {
    let end = || {
        let (reader, writer) = full_pipe();
        let (errors, complaints) = pipe().unwrap();
        let (mut node, _) = silent(writer.into(), complaints.into());
        node.signal("TERM");
        let took = node.must_end();
        must_complain(errors);
        drop(reader);
        took
    };
    // On a busy machine a little may be more: then another time.
    assert!((0..10).any(|_| end() < Duration::from_millis(900)));
}

/// No request says anything here; the news of other nodes does.
#[test]
fn must_stay_in_a_network_that_changes_though_nobody_reads() {
    let address = own_address();
    let start = |port| {
        let location = Location::new(&address, port).unwrap();
        let (reader, writer) = full_pipe();
        let node = store(&location, &[], writer.into(), Stdio::null());
        (node, location, reader)
    };
    let mut nodes: Vec<_> = (9900..9904).map(start).collect();
    let settle = |nodes: &[(Running, Location, PipeReader)]| {
        let locations: Vec<_> = nodes.iter().map(|node| &node.1).collect();
        wait_until(LONG, "they agree", || is_settled(&locations));
    };
    settle(&nodes);
    let (mut leaver, left, _unread) = nodes.remove(1);
    leaver.signal("TERM");
    leaver.must_end();
    settle(&nodes);
    let (killed, lost, _) = nodes.remove(1);
    drop(killed);
    settle(&nodes);
    let (_, first, reader) = &mut nodes[0];
    put(&network(), first, b"key", b"value").unwrap();
    // It was stuck all the time, and has forgotten nothing.
    let mut out = BufReader::new(reader);
    out.skip_until(b'S').unwrap();
    let mut lines = out.lines().map(Result::unwrap);
    assert_eq!(
        lines.next(),
        Some(format!("tarting the server at {first}..."))
    );
    for news in [
        format!("added {left}"),
        format!("removed {left}"),
        format!("removed {lost}"),
    ] {
        assert!(lines.any(|line| line == news), "{news}");
    }
}

#[test]
fn must_say_how_many_lines_are_missing() {
    let (reader, writer) = pipe().unwrap();
    let (mut node, location) = talkative(Stdio::null(), writer.into());
    put_many(&location);
    let mut lines = BufReader::new(reader).lines().map(Result::unwrap);
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
    assert!(lines.any(|line| line.ends_with("1 key dropped: nobody was left to take them")));
    node.must_end();
}
