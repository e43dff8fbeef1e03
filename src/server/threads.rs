//! Threads that run one job after the other, so that a client with a connection for each request
//! doesn't cost a new thread each time.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

/// What a thread may use of a stack; only what it touches takes memory.
const STACK_BYTES: usize = 256 << 10;

/// Threads that wait for another job at a time. Up: more connections at once without a new
/// thread; down: less memory when all is quiet.
const IDLE_MAX: usize = 64;

/// A thread that got no job for so long ends.
const IDLE_LIMIT: Duration = Duration::from_secs(1);

pub(super) type Job = Box<dyn FnOnce() + Send>;

#[derive(Default)]
pub(super) struct Threads {
    /// Guards the jobs given to waiting threads, and the number of these.
    waiting: Mutex<Waiting>,
    /// Notified when there is a job.
    given: Condvar,
}

#[derive(Default)]
struct Waiting {
    threads: usize,
    jobs: VecDeque<Job>,
}

impl Threads {
    /// Runs a job in a thread that waits, or in a new one.
    ///
    /// # Errors
    /// No thread is to be had; the job is dropped.
    pub fn run(self: &Arc<Self>, job: Job) -> io::Result<()> {
        {
            let mut waiting = self.waiting();
            if waiting.threads > waiting.jobs.len() {
                waiting.jobs.push_back(job);
                drop(waiting);
                self.given.notify_one();
                return Ok(());
            }
        }
        let threads = Arc::clone(self);
        let thread = thread::Builder::new()
            .name("connection".to_owned())
            .stack_size(STACK_BYTES);
        thread.spawn(move || threads.work(job)).map(drop)
    }

    fn work(&self, mut job: Job) {
        loop {
            job();
            let mut waiting = self.waiting();
            if waiting.threads >= IDLE_MAX {
                return;
            }
            waiting.threads += 1;
            let woken = self
                .given
                .wait_timeout_while(waiting, IDLE_LIMIT, |waiting| waiting.jobs.is_empty());
            waiting = woken.unwrap_or_else(PoisonError::into_inner).0;
            waiting.threads -= 1;
            match waiting.jobs.pop_front() {
                Some(next) => job = next,
                None => return,
            }
        }
    }

    /// No change under the lock can be half done: a poisoned lock is taken all the same.
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    const LONG: Duration = Duration::from_secs(20);

    #[test]
    fn must_run_all_jobs_at_once_in_threads_old_and_new() {
        let threads = Arc::new(Threads::default());
        for jobs in 1..30 {
            let (begun, begin) = mpsc::channel();
            let gates: Vec<_> = (0..jobs)
                .map(|_| {
                    let (gate, open) = mpsc::channel::<()>();
                    let begun = begun.clone();
                    let job = move || {
                        begun.send(thread::current().id()).unwrap();
                        open.recv_timeout(LONG).unwrap();
                    };
                    threads.run(Box::new(job)).unwrap();
                    gate
                })
                .collect();
            // None of them ends before all have begun.
            let begun: Vec<_> = gates
                .iter()
                .map(|_| begin.recv_timeout(LONG).unwrap())
                .collect();
            assert_eq!(begun.len(), jobs);
            gates.iter().for_each(|gate| gate.send(()).unwrap());
        }
    }

    #[test]
    fn must_use_a_thread_again() {
        let threads = Arc::new(Threads::default());
        let (tell, told) = mpsc::channel();
        let run = || {
            let tell = tell.clone();
            let job = move || tell.send(thread::current().id()).unwrap();
            threads.run(Box::new(job)).unwrap();
            let thread = told.recv_timeout(LONG).unwrap();
            while threads.waiting().threads == 0 {
                thread::yield_now(); // It will have nothing to do in a moment.
            }
            thread
        };
        assert_eq!(run(), run());
    }
}
