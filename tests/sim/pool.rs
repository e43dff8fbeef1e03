//! The operating system's threads that activities run on, used again and again.
//!
//! Measured: a turn passed by park and unpark costs about 4 µs, by a condition variable the same,
//! with spinning twice that; a new thread costs some 30 µs.

use std::any::Any;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::{self, JoinHandle, Thread};

/// Debug builds have deep frames; only what is touched takes memory.
const STACK_BYTES: usize = 1 << 20;

/// What a thread does when it is given its first turn.
pub type Errand = Box<dyn FnOnce(&Arc<Worker>) + Send>;

/// One thread, which runs only when it has been given the turn.
pub struct Worker {
    turn: AtomicBool,
    inner: Mutex<Inner>, // guards the thread's handle and its next errand
}

#[derive(Default)]
struct Inner {
    thread: Option<Thread>,
    errand: Option<Errand>,
}

impl Worker {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().expect("BUG: a worker panicked")
    }

    /// Blocks until somebody gives the turn to this thread.
    pub fn await_turn(&self) {
        while !self.turn.swap(false, Ordering::Acquire) {
            thread::park();
        }
    }

    pub fn give_turn(&self) {
        self.turn.store(true, Ordering::Release);
        let thread = self.inner().thread.clone();
        thread.expect("BUG: a worker without a thread").unpark();
    }

    pub fn set_errand(&self, errand: Errand) {
        self.inner().errand = Some(errand);
    }

    /// Without an errand, a turn is the end.
    fn live(self: &Arc<Self>) {
        loop {
            self.await_turn();
            let errand = self.inner().errand.take();
            match errand {
                Some(errand) => errand(self),
                None => return,
            }
        }
    }
}

/// The owner of threads that schedules use, one schedule after the other; dropping it ends them.
#[derive(Default)]
pub struct Pool(Arc<Threads>);

/// Threads that have nothing to do, and the handles of all.
#[derive(Default)]
pub struct Threads {
    inner: Mutex<PoolInner>, // guards itself
}

#[derive(Default)]
struct PoolInner {
    idle: Vec<Arc<Worker>>,
    all: Vec<(Arc<Worker>, JoinHandle<()>)>,
    abandoned: bool,
}

impl Pool {
    pub fn threads(&self) -> &Arc<Threads> {
        &self.0
    }
}

impl Threads {
    fn inner(&self) -> MutexGuard<'_, PoolInner> {
        self.inner.lock().expect("BUG: the pool's user panicked")
    }

    /// An idle thread, or a new one.
    pub fn take(&self) -> Arc<Worker> {
        let idle = self.inner().idle.pop();
        idle.unwrap_or_else(|| self.hire())
    }

    fn hire(&self) -> Arc<Worker> {
        let worker = Arc::new(Worker {
            turn: AtomicBool::new(false),
            inner: Mutex::default(),
        });
        let own = worker.clone();
        let handle = thread::Builder::new()
            .name("activity".into())
            .stack_size(STACK_BYTES)
            .spawn(move || own.live())
            .expect("a thread for an activity");
        worker.inner().thread = Some(handle.thread().clone());
        self.inner().all.push((worker.clone(), handle));
        worker
    }

    /// A schedule hangs: its threads can't be had back.
    pub fn abandon(&self) {
        self.inner().abandoned = true;
    }

    /// To be said by the worker itself, before it gives its turn away.
    pub fn give_back(&self, worker: &Arc<Worker>) {
        self.inner().idle.push(worker.clone());
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        let all = {
            let mut inner = self.0.inner();
            if inner.abandoned {
                return;
            }
            std::mem::take(&mut inner.all)
        };
        for (worker, _) in &all {
            worker.give_turn();
        }
        for (_, handle) in all {
            handle.join().expect("BUG: a worker panicked");
        }
    }
}

/// What a panic said.
pub fn panic_text(payload: &(dyn Any + Send)) -> String {
    if let Some(text) = payload.downcast_ref::<&str>() {
        return (*text).to_owned();
    }
    let text = payload.downcast_ref::<String>();
    text.cloned().unwrap_or_else(|| "a panic".to_owned())
}
