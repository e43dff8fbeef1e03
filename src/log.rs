//! Lines on stdout and stderr that nobody waits for.
//!
//! A pipe that nobody reads, a full disk or a terminal stopped with Ctrl-S holds up a thread of this
//! module and nothing else. It is no logging framework: no files of its own, no targets, one filter.
//!
//! * A line is put into a bounded queue, which never blocks; a thread for each of the two writes.
//! * Lines of one of the two keep their order. What doesn't fit, or can't be written, is counted, and
//!   one line says later how many are missing, where they are missing.
//! * What has been said on stdout stands before a later complaint, if both go to one place, unless
//!   stdout is stuck.
//! * [`flush`] waits for a bounded time: a program ends whether its lines are written or not.
//!
//! Messages of panics don't pass through here: the standard library prints them.

use std::fs::File;
use std::io::{self, ErrorKind, Write};
use std::os::fd::AsFd;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::location::Location;
use crate::net::{Clock, Level, SystemClock};
use crate::words::{counted, utc_millis};

/// Bytes of lines that wait. Up: a slower reader misses nothing; down: less memory when nobody reads.
const QUEUE_BYTES_MAX: usize = 256 << 10;

/// How long [`flush`] waits for both together.
const FLUSH_LIMIT: Duration = Duration::from_millis(500);

/// How long a complaint waits for what was said before on stdout. Less than [`FLUSH_LIMIT`], so that it
/// is written in time where stdout is stuck.
const ORDER_LIMIT: Duration = Duration::from_millis(250);

/// How often an output that was set not to block, and takes nothing more, is tried.
const RETRY: Duration = Duration::from_millis(20);

/// `None`: no thread was to be had.
static OUT: OnceLock<Option<Arc<Log>>> = OnceLock::new();
static ERRORS: OnceLock<Option<Arc<Log>>> = OnceLock::new();

/// A line for stdout.
pub fn say(line: &str) {
    match OUT.get_or_init(|| Log::start(unbuffered_stdout(), || {})) {
        Some(log) => log.push(line),
        None => write_directly(io::stdout(), line),
    }
}

/// A line for stderr.
pub fn complain(line: &str) {
    match ERRORS.get_or_init(|| Log::start(Box::new(io::stderr()), let_stdout_go_first)) {
        Some(log) => log.push(line),
        None => write_directly(io::stderr(), line),
    }
}

/// What takes the lines that a node writes: those of its log go to stderr, as `TIME LEVEL NODE: TEXT`, down to `least`;
/// what is only [said](Level::Said) goes to stdout as it is.
pub fn of_node(least: Level, node: Location) -> impl Fn(Level, &str) + Send + Sync + Clone {
    move |level, line| {
        let name = Level::NAMES.iter().find(|(_, named)| *named == level);
        match name {
            None => say(line),
            Some((name, _)) if level <= least => {
                let time = utc_millis(SystemClock::new().wall());
                complain(&format!("{time} {name} {node}: {line}"));
            }
            Some(_) => {}
        }
    }
}

fn let_stdout_go_first() {
    if let Some(Some(out)) = OUT.get() {
        out.flush(Instant::now() + ORDER_LIMIT);
    }
}

/// Waits until all lines so far are written, for half a second at most.
pub fn flush() {
    let deadline = Instant::now() + FLUSH_LIMIT;
    for log in [&OUT, &ERRORS] {
        if let Some(Some(log)) = log.get() {
            log.flush(deadline);
        }
    }
}

/// The standard library's own keeps part of what it could not write.
fn unbuffered_stdout() -> Box<dyn Write + Send> {
    match io::stdout().as_fd().try_clone_to_owned() {
        Ok(descriptor) => Box::new(File::from(descriptor)),
        Err(_) => Box::new(io::stdout()),
    }
}

fn write_directly(mut out: impl Write, line: &str) {
    // There is nobody else to tell.
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}

/// One output.
#[derive(Default)]
struct Log {
    /// Guards the lines that wait. Never held while anything is written.
    queue: Mutex<Queue>,
    /// Notified when a line has come, and when all are written.
    changed: Condvar,
}

#[derive(Default)]
struct Queue {
    bytes: Vec<u8>,
    /// Lines behind those that had no room.
    left_out: usize,
    /// The thread has taken something and not yet come back.
    writing: bool,
}

impl Log {
    /// `before` is called whenever there is something to write.
    fn start(out: Box<dyn Write + Send>, before: impl Fn() + Send + 'static) -> Option<Arc<Log>> {
        let log: Arc<Log> = Arc::default();
        let lines = Arc::clone(&log);
        let thread = thread::Builder::new().name("log".to_owned());
        let started = thread.spawn(move || lines.write_on(Writer { out, torn: false }, before));
        started.ok().map(|_| log)
    }

    /// Never blocks.
    fn push(&self, line: &str) {
        {
            let mut queue = self.queue();
            // Once one is left out, so are those behind it, until the thread has taken the rest: so
            // it can be said where they are missing.
            if queue.left_out > 0 || queue.bytes.len() + line.len() >= QUEUE_BYTES_MAX {
                queue.left_out += 1;
            } else {
                queue.bytes.extend_from_slice(line.as_bytes());
                queue.bytes.push(b'\n');
            }
        }
        self.changed.notify_all();
    }

    fn flush(&self, deadline: Instant) {
        let queue = self.queue();
        let left = deadline.saturating_duration_since(Instant::now());
        let written = self
            .changed
            .wait_timeout_while(queue, left, |queue| queue.writing || !queue.is_empty());
        drop(written);
    }

    /// The thread: writes for as long as the process runs.
    fn write_on(&self, mut writer: Writer, before: impl Fn()) {
        let mut failed = 0;
        loop {
            let (lines, left_out) = self.take();
            before();
            if failed > 0 && writer.write(missing(failed).as_bytes()) == 0 {
                failed = 0;
            }
            failed += writer.write(&lines);
            if left_out > 0 && writer.write(missing(left_out).as_bytes()) > 0 {
                failed += left_out;
            }
        }
    }

    /// Waits for lines. The answer: they, and the number of those left out behind them.
    fn take(&self) -> (Vec<u8>, usize) {
        let mut queue = self.queue();
        queue.writing = false;
        self.changed.notify_all();
        let come = self
            .changed
            .wait_while(queue, |queue: &mut Queue| queue.is_empty());
        let mut queue = come.unwrap_or_else(PoisonError::into_inner);
        queue.writing = true;
        let left_out = std::mem::take(&mut queue.left_out);
        (std::mem::take(&mut queue.bytes), left_out)
    }

    /// No change under the lock can be half done: a poisoned lock is taken all the same.
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Queue {
    fn is_empty(&self) -> bool {
        self.bytes.is_empty() && self.left_out == 0
    }
}

fn missing(count: usize) -> String {
    format!("{} not written\n", counted(count, "line", "lines"))
}

/// What takes the lines.
struct Writer {
    out: Box<dyn Write + Send>,
    /// It ends within a line.
    torn: bool,
}

impl Writer {
    /// Writes lines, for as long as that takes. The answer is the number of those that it could not
    /// write.
    fn write(&mut self, lines: &[u8]) -> usize {
        if self.torn && self.write_all(b"\n").is_ok() {
            self.torn = false;
        }
        let Err(written) = self.write_all(lines) else {
            return 0;
        };
        let (written, rest) = lines.split_at(written);
        self.torn |= written.last().is_some_and(|last| *last != b'\n');
        rest.iter().filter(|byte| **byte == b'\n').count()
    }

    /// Writes all of it, and waits where the other side is slow.
    ///
    /// # Errors
    /// The number of bytes that were written.
    fn write_all(&mut self, bytes: &[u8]) -> Result<(), usize> {
        let mut written = 0;
        while written < bytes.len() {
            match self.out.write(&bytes[written..]) {
                Ok(0) => return Err(written),
                Ok(count) => written += count,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => thread::sleep(RETRY),
                Err(_) => return Err(written),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{BufRead, BufReader, pipe};
    use std::sync::mpsc;

    const LONG: Duration = Duration::from_secs(20);

    fn later(limit: Duration) -> Instant {
        Instant::now() + limit
    }

    /// What a log has written, and what becomes of the next writes.
    #[derive(Default, Clone)]
    struct Disk(Arc<Mutex<(Vec<u8>, Option<usize>)>>);

    impl Disk {
        /// Room for so many bytes from now on; `None`: for all.
        fn set_room(&self, room: Option<usize>) {
            self.0.lock().unwrap().1 = room;
        }

        fn text(&self) -> String {
            String::from_utf8(self.0.lock().unwrap().0.clone()).unwrap()
        }
    }

    impl Write for Disk {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let (written, room) = &mut *self.0.lock().unwrap();
            let count = room.map_or(bytes.len(), |room| room.min(bytes.len()));
            if count == 0 {
                return Err(ErrorKind::StorageFull.into());
            }
            if let Some(room) = room {
                *room -= count;
            }
            written.extend_from_slice(&bytes[..count]);
            Ok(count)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn must_write_all_in_order() {
        let disk = Disk::default();
        let log = Log::start(Box::new(disk.clone()), || {}).unwrap();
        let mut expected = String::new();
        for number in 0..1000 {
            log.push(&format!("line {number}"));
            expected += &format!("line {number}\n");
        }
        log.flush(later(LONG));
        assert_eq!(disk.text(), expected);
    }

    /// Writes to the disk once the other end of the channel has been dropped.
    struct Late(mpsc::Receiver<()>, Disk);

    impl Write for Late {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            // It fails in any case: nothing is ever sent.
            let _ = self.0.recv();
            self.1.write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn must_write_a_complaint_behind_what_was_said_before() {
        let disk = Disk::default();
        let (go_on, wait) = mpsc::channel();
        let out = Log::start(Box::new(Late(wait, disk.clone())), || {}).unwrap();
        let first = Arc::clone(&out);
        let before = move || first.flush(later(LONG));
        let errors = Log::start(Box::new(disk.clone()), before).unwrap();
        out.push("said");
        errors.push("complaint");
        errors.flush(later(Duration::from_millis(50)));
        drop(go_on);
        errors.flush(later(LONG));
        assert_eq!(disk.text(), "said\ncomplaint\n");
    }

    #[test]
    fn must_not_wait_for_a_reader_and_say_where_how_many_lines_are_missing() {
        let (reader, writer) = pipe().unwrap();
        let log = Log::start(Box::new(writer), || {}).unwrap();
        // More than the pipe and the queue have room for.
        let pushed = 100_000;
        for number in 0..pushed {
            log.push(&format!("line {number}"));
        }
        let began = Instant::now();
        log.flush(later(Duration::from_millis(50)));
        assert!(began.elapsed() >= Duration::from_millis(50), "it is stuck");
        // In one place or, where the thread got to it late, in several.
        let (mut next, mut missing) = (0, 0);
        let mut lines = BufReader::new(reader).lines().map(Result::unwrap);
        while next < pushed {
            let line = lines.next().unwrap();
            if let Some(number) = line.strip_prefix("line ") {
                assert_eq!(number, next.to_string());
                next += 1;
            } else {
                let (count, words) = line.split_once(' ').unwrap();
                assert!(words.ends_with(" not written"), "{line}");
                let count: usize = count.parse().unwrap();
                next += count;
                missing += count;
            }
        }
        assert_eq!(next, pushed);
        assert!(missing > 0 && pushed - missing > 10_000, "{missing}");
        log.push("afterwards");
        assert_eq!(lines.next().unwrap(), "afterwards");
        log.flush(later(LONG));
    }

    #[test]
    fn must_go_on_when_a_full_disk_has_room_again() {
        let disk = Disk::default();
        let log = Log::start(Box::new(disk.clone()), || {}).unwrap();
        let push = |line: &str| {
            log.push(line);
            log.flush(later(LONG));
        };
        push("before");
        disk.set_room(Some(3));
        push("torn");
        push("lost");
        assert_eq!(disk.text(), "before\ntor");
        disk.set_room(None);
        push("after");
        push("and on");
        assert_eq!(
            disk.text(),
            "before\ntor\n2 lines not written\nafter\nand on\n"
        );
        disk.set_room(Some(0));
        push("lost");
        disk.set_room(None);
        push("again");
        assert!(disk.text().ends_with("and on\n1 line not written\nagain\n"));
    }

    #[test]
    fn must_outlive_a_reader_that_has_gone() {
        let (reader, writer) = pipe().unwrap();
        let log = Log::start(Box::new(writer), || {}).unwrap();
        drop(reader);
        for _ in 0..3 {
            log.push("nobody reads this");
            log.flush(later(LONG));
        }
    }

    #[test]
    fn must_leave_out_a_line_that_no_queue_holds() {
        let disk = Disk::default();
        let log = Log::start(Box::new(disk.clone()), || {}).unwrap();
        log.push(&"x".repeat(QUEUE_BYTES_MAX));
        log.flush(later(LONG));
        assert_eq!(disk.text(), "1 line not written\n");
    }
}
