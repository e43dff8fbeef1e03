//! Programs that run: nodes and clients as processes of their own, each test's on a loopback address of its own, so
//! that tests side by side, and ports that other programs use, don't meet.
//!
//! That all of 127.0.0.0/8 is this machine is so on Linux; elsewhere addresses have to be added.
//! Every process that is started is ended when its handle is dropped. Not here: what clients do and
//! what they may read, see `load` and `history`.

// Each test program uses its own part of it.
#![allow(dead_code)]

pub mod history;
pub mod load;

use std::cell::RefCell;
use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, LazyLock, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use thrifty_p2p::diststore::KeyValue;
use thrifty_p2p::location::Location;
use thrifty_p2p::locator::{EMPTY, Status, read_answer, request, write_key};
use thrifty_p2p::net::{Answer, CallError, Network, TcpNetwork};

/// Far more than anything here takes, on a busy machine too.
pub const LONG: Duration = Duration::from_secs(60);

/// What a program may take that has nothing to do but to complain.
pub const SECONDS: Duration = Duration::from_secs(15);

/// Longer than a node takes to answer or refuse.
pub const CALL_LIMIT: Duration = Duration::from_secs(10);

pub const STORESERVER: &str = env!("CARGO_BIN_EXE_storeserver");
pub const LOCATION: &str = env!("CARGO_BIN_EXE_location");
pub const STOREPUT: &str = env!("CARGO_BIN_EXE_storeput");
pub const STOREGET: &str = env!("CARGO_BIN_EXE_storeget");
pub const STOREPRIMER: &str = env!("CARGO_BIN_EXE_storeprimer");
pub const STORETEST: &str = env!("CARGO_BIN_EXE_storetest");

pub const STOREDEL: &str = env!("CARGO_BIN_EXE_storedel");
pub const STOREKEYS: &str = env!("CARGO_BIN_EXE_storekeys");
pub const STOREDUMP: &str = env!("CARGO_BIN_EXE_storedump");
pub const STORELOAD: &str = env!("CARGO_BIN_EXE_storeload");

pub const PROGRAMS: [&str; 10] = [
    STORESERVER,
    LOCATION,
    STOREPUT,
    STOREGET,
    STOREDEL,
    STOREKEYS,
    STOREDUMP,
    STORELOAD,
    STOREPRIMER,
    STORETEST,
];

/// Since the first look at the clock: one clock for all that is printed.
pub fn now() -> Duration {
    static SINCE: LazyLock<Instant> = LazyLock::new(Instant::now);
    SINCE.elapsed()
}

/// # Panics
/// If `reached` doesn't come true in `limit`.
pub fn wait_until(limit: Duration, what: &str, mut reached: impl FnMut() -> bool) {
    let deadline = Instant::now() + limit;
    while !reached() {
        assert!(
            Instant::now() < deadline,
            "not within {} s: {what}",
            limit.as_secs()
        );
        thread::sleep(Duration::from_millis(5));
    }
}

/// A loopback address that no other test uses.
pub fn own_address() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    let (process, number) = (
        std::process::id() % (250 * 250),
        NEXT.fetch_add(1, Ordering::Relaxed),
    );
    assert!(number < 255, "no address left for this test");
    format!("127.{}.{}.{number}", 1 + process / 250, 1 + process % 250)
}

/// What a program said and how it ended, if it ended in time.
///
/// # Panics
/// If it didn't: then it is killed.
pub fn run<S: AsRef<OsStr>>(program: &str, arguments: &[S], limit: Duration) -> Output {
    let mut command = Command::new(program);
    let command = command.env_remove("THRIFTY_PEERS").args(arguments);
    let mut process = Process::start(command);
    let status = process.wait(limit);
    Output {
        status,
        stdout: process.out.bytes(),
        stderr: process.errors.bytes(),
    }
}

/// A child process, killed when it is dropped.
pub struct Process {
    child: Child,
    out: Said,
    errors: Said,
    name: String,
}

impl Process {
    pub fn start(command: &mut Command) -> Self {
        let name = format!("{command:?}");
        let command = command.stdin(Stdio::null());
        let command = command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the program starts");
        let out = Said::read(child.stdout.take().expect("BUG: it is piped"));
        let errors = Said::read(child.stderr.take().expect("BUG: it is piped"));
        Process {
            child,
            out,
            errors,
            name,
        }
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal: INT, TERM, STOP, CONT, KILL.
    pub fn signal(&self, name: &str) {
        let kill = format!("kill -{name} {}", self.child.id());
        let status = Command::new("sh").args(["-c", &kill]).status();
        assert!(status.expect("a shell").success(), "{kill}");
    }

    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("it is a child").is_none()
    }

    /// # Panics
    /// If it doesn't end by itself in `limit`.
    pub fn wait(&mut self, limit: Duration) -> ExitStatus {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(status) = self.child.try_wait().expect("it is a child") {
                self.out.finish();
                self.errors.finish();
                return status;
            }
            assert!(
                Instant::now() < deadline,
                "{} does not end: {}{}",
                self.name,
                self.out(),
                self.errors()
            );
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// What it has said on stdout.
    pub fn out(&self) -> String {
        self.out.text()
    }

    /// What it has said on stderr.
    pub fn errors(&self) -> String {
        self.errors.text()
    }

    /// The lines on stderr that are none of its log, which begin with a time.
    pub fn complaints(&self) -> Vec<String> {
        let errors = self.errors();
        let is_logged = |line: &&str| line.starts_with(|first: char| first.is_ascii_digit());
        let complaints = errors.lines().filter(|line| !is_logged(line));
        complaints.map(str::to_owned).collect()
    }

    pub fn has_said(&self, line: &str) -> bool {
        self.out().lines().any(|said| said == line)
    }

    /// What a thread says of what others can see already may come a moment later.
    pub fn await_said(&self, line: &str) {
        wait_until(LONG, line, || self.has_said(line));
    }
}

impl Process {
    /// Its name and all that it has said, with times.
    fn account(&self) -> String {
        let mut account = format!("--- {}\n", self.name);
        for (time, line) in self.out.lines().iter().chain(&self.errors.lines()) {
            let line = String::from_utf8_lossy(line);
            account += &format!("{:8.3} {}\n", time.as_secs_f64(), line.trim_end());
        }
        account
    }
}

thread_local! {
    /// The accounts of the processes that have ended in this test.
    static ENDED: RefCell<String> = const { RefCell::new(String::new()) };
}

impl Drop for Process {
    fn drop(&mut self) {
        // It fails if the process has ended: as good.
        let _ = self.child.kill();
        let _ = self.child.wait();
        // What is a node, not a program that was run to the end.
        if self.out.text().starts_with("Starting") {
            ENDED.with_borrow_mut(|ended| *ended += &self.account());
        }
        if thread::panicking() {
            eprint!("{}", ENDED.take());
        }
    }
}

/// What comes out of a pipe, read by a thread that ends with the pipe.
struct Said {
    lines: Arc<Mutex<Vec<Line>>>,
    reader: Option<thread::JoinHandle<()>>,
}

/// When it came, and its bytes.
type Line = (Duration, Vec<u8>);

impl Said {
    fn read(pipe: impl Read + Send + 'static) -> Self {
        let lines = Arc::new(Mutex::new(Vec::new()));
        let into = Arc::clone(&lines);
        let reader = thread::spawn(move || {
            let mut pipe = BufReader::new(pipe);
            let mut line = Vec::new();
            while pipe.read_until(b'\n', &mut line).unwrap_or(0) > 0 {
                into.lock()
                    .unwrap()
                    .push((now(), std::mem::take(&mut line)));
            }
        });
        Said {
            lines,
            reader: Some(reader),
        }
    }

    fn lines(&self) -> Vec<Line> {
        self.lines.lock().unwrap().clone()
    }

    fn bytes(&self) -> Vec<u8> {
        self.lines().into_iter().flat_map(|line| line.1).collect()
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes()).into_owned()
    }

    fn finish(&mut self) {
        if let Some(reader) = self.reader.take() {
            reader.join().expect("a reader that only reads");
        }
    }
}

/// A node that runs.
pub struct Node {
    pub process: Process,
    pub location: Location,
}

impl Node {
    /// A store node on `address`; it finds its port, and its network, by itself, unless the options
    /// tell.
    pub fn store(address: &str, options: &[&str]) -> Self {
        Node::start(
            Command::new(STORESERVER)
                .env_remove("THRIFTY_PEERS")
                .args(["-a", address])
                .args(options),
        )
    }

    /// Waits until it says where it serves.
    ///
    /// # Panics
    /// If it doesn't come to that.
    pub fn start(command: &mut Command) -> Self {
        Node::serving(Process::start(command))
    }

    /// The same, of a process that has been started already.
    pub fn serving(mut process: Process) -> Self {
        let mut location = None;
        wait_until(LONG, "a node that serves", || {
            let ended = process.child.try_wait().expect("it is a child");
            assert!(ended.is_none(), "a node ended at once");
            let out = process.out();
            let said = out.lines().find_map(|line| {
                let place = line.strip_prefix("Starting the server at ")?;
                place.strip_suffix("...")?.parse().ok()
            });
            location = said;
            location.is_some()
        });
        let location = location.expect("BUG: waited for");
        Node { process, location }
    }

    pub fn kill(mut self) {
        self.process.signal("KILL");
        self.process.wait(LONG);
    }

    /// Ends it with a signal and waits for that.
    ///
    /// # Panics
    /// If it doesn't end well, everything handed over.
    pub fn leave(mut self, signal: &str) {
        self.process.signal(signal);
        self.left();
    }

    /// Waits for the end of one that has been told to leave.
    ///
    /// # Panics
    /// As above.
    pub fn left(&mut self) {
        let status = self.process.wait(LONG);
        let complaints = self.process.complaints();
        assert!(
            status.success() && complaints.is_empty(),
            "{status}: {complaints:?}"
        );
    }
}

/// Whether these nodes, and no others, are one network in which every key is safe, or would be if there were as many
/// nodes as copies: what `location --status` says.
pub fn is_settled(nodes: &[&Location]) -> bool {
    let Some(first) = nodes.first() else {
        return true;
    };
    let output = run(LOCATION, &["--status", "-h", first.name()], LONG);
    let out = String::from_utf8_lossy(&output.stdout).into_owned();
    let remark = |line: &&str| line.starts_with("not safe: ") || line.starts_with("note: ");
    let rows = out.lines().skip(1).filter(|line| !remark(line));
    let listed: Vec<_> = rows.filter_map(|row| row.split(' ').next()).collect();
    let mut why = out
        .lines()
        .filter_map(|line| line.strip_prefix("not safe: "));
    let too_few = why.all(|why| why.starts_with("fewer nodes than copies: "));
    (output.status.success() || (output.status.code() == Some(1) && too_few))
        && listed.len() == nodes.len()
        && nodes
            .iter()
            .all(|node| listed.contains(&&*node.to_string()))
}

/// Waits until they are, and says how long that took.
pub fn settle(nodes: &[&Node]) -> Duration {
    let started = Instant::now();
    let locations: Vec<_> = nodes.iter().map(|node| &node.location).collect();
    wait_until(LONG, "all nodes agree and every key is safe", || {
        is_settled(&locations)
    });
    started.elapsed()
}

pub fn put(network: &TcpNetwork, at: &Location, key: &[u8], value: &[u8]) -> Answer {
    let request = request("put", KeyValue::write(key, Some(value)));
    network.call(at, &request, CALL_LIMIT)
}

/// The value, empty for a missing key.
pub fn get(network: &TcpNetwork, at: &Location, key: &[u8]) -> Result<Vec<u8>, CallError> {
    let answer = network.call(at, &request("get", write_key(key)), CALL_LIMIT);
    answer.and_then(|result| read_answer(&result, "get"))
}

/// The node that a key belongs to.
pub fn owner(network: &TcpNetwork, at: &Location, key: &[u8]) -> Location {
    let answer = network.call(at, &request("get_node", write_key(key)), CALL_LIMIT);
    let owner = answer.and_then(|result| read_answer(&result, "get_node"));
    owner.expect("get_node is answered")
}

pub fn members(network: &TcpNetwork, at: &Location) -> Result<Vec<Location>, CallError> {
    let answer = network.call(at, &request("get_all", EMPTY.to_vec()), CALL_LIMIT)?;
    read_answer(&answer, "get_all")
}

pub fn status(network: &TcpNetwork, at: &Location) -> Status {
    let answer = network.call(at, &request("status", EMPTY.to_vec()), CALL_LIMIT);
    answer
        .and_then(|result| read_answer(&result, "status"))
        .expect("status is answered")
}

pub fn network() -> TcpNetwork {
    TcpNetwork::new(thrifty_p2p::locator::LIMITS)
}
