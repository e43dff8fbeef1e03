//! Being asked to end: SIGINT (Ctrl-C), SIGTERM and SIGHUP (the terminal has gone), waited for in an
//! ordinary thread.
//!
//! No handler runs: the signals are blocked in every thread, and one thread takes them with
//! `sigwait` (POSIX, Issue 7) whenever it likes.

use std::ffi::c_int;
use std::ptr;

/// The same numbers on every Unix.
const SIGHUP: c_int = 1;
const SIGINT: c_int = 2;
const SIGTERM: c_int = 15;
const SIG_DFL: usize = 0;
const SIG_IGN: usize = 1;

/// 0 on Linux but for MIPS, 1 there and on the BSDs and macOS.
const SIG_BLOCK: c_int = if cfg!(all(
    target_os = "linux",
    not(any(target_arch = "mips", target_arch = "mips64"))
)) {
    0
} else {
    1
};

/// The number behind that on all of them.
const SIG_UNBLOCK: c_int = SIG_BLOCK + 1;

/// A `sigset_t` with room to spare: glibc's and musl's have 1024 bits, others' fewer. Only C
/// functions look inside, which never touch more than their own size.
#[repr(C, align(16))]
struct SignalSet([u64; 16]);

unsafe extern "C" {
    fn sigemptyset(set: *mut SignalSet) -> c_int;
    fn sigaddset(set: *mut SignalSet, signal: c_int) -> c_int;
    fn pthread_sigmask(how: c_int, set: *const SignalSet, old: *mut SignalSet) -> c_int;
    fn sigwait(set: *const SignalSet, signal: *mut c_int) -> c_int;
    /// The handler and the answer are a pointer or a small number; never called through here.
    fn signal(signal: c_int, handler: usize) -> usize;
}

/// The signals that are kept until [`Signals::wait`] takes them.
pub struct Signals(SignalSet);

impl Signals {
    /// Keeps the signals for [`Signals::wait`], in this thread and in those that it starts from now
    /// on: to be called in `main` before there are others, or a signal may end the process through
    /// one of them.
    ///
    /// SIGINT and SIGTERM that were ignored (shells start background jobs with SIGINT ignored) aren't
    /// any more. SIGHUP stays ignored if it was: that is how `nohup` asks for it.
    ///
    /// # Panics
    /// If the system refuses, which no argument of ours gives it reason to.
    pub fn block() -> Self {
        let hangup = set_of(&[SIGHUP]);
        change_mask(SIG_BLOCK, &hangup);
        // SAFETY: both are valid dispositions for these signals; no handler of ours is ever installed.
        let ignores_hangup = unsafe {
            signal(SIGINT, SIG_DFL);
            signal(SIGTERM, SIG_DFL);
            let ignores = signal(SIGHUP, SIG_DFL) == SIG_IGN;
            if ignores {
                signal(SIGHUP, SIG_IGN);
            }
            ignores
        };
        let set = if ignores_hangup {
            // What is blocked is kept, even if it is ignored.
            change_mask(SIG_UNBLOCK, &hangup);
            set_of(&[SIGINT, SIGTERM])
        } else {
            set_of(&[SIGHUP, SIGINT, SIGTERM])
        };
        change_mask(SIG_BLOCK, &set);
        Signals(set)
    }

    /// Waits for one of the signals, for ever if none comes. The answer is its number.
    pub fn wait(&self) -> c_int {
        loop {
            let mut number = 0;
            // SAFETY: both point to live, initialised values. A failure (an interrupted wait, on some
            // systems) leaves 0 in `number`, and another round is made.
            unsafe { sigwait(&raw const self.0, &raw mut number) };
            if number != 0 {
                return number;
            }
        }
    }
}

fn change_mask(how: c_int, set: &SignalSet) {
    // SAFETY: `set` is initialised and outlives the call; null means that the old mask isn't wanted.
    let error = unsafe { pthread_sigmask(how, set, ptr::null_mut()) };
    assert_eq!(error, 0, "BUG: pthread_sigmask refused the signals");
}

fn set_of(signals: &[c_int]) -> SignalSet {
    let mut set = SignalSet([0; 16]);
    // SAFETY: `set` is writable and at least as large and as aligned as the system's sigset_t.
    unsafe {
        sigemptyset(&raw mut set);
        for signal in signals {
            sigaddset(&raw mut set, *signal);
        }
    }
    set
}

#[cfg(test)]
mod tests {
    use super::*;

    unsafe extern "C" {
        /// Sends to the calling thread, so that no other test's thread gets it.
        fn raise(signal: c_int) -> c_int;
    }

    /// One test, as whether a signal is ignored is a matter of the whole process.
    #[test]
    fn must_keep_the_signals_for_the_thread_that_waits() {
        // SAFETY: valid dispositions. The tests may have been started with `nohup`.
        unsafe {
            signal(SIGINT, SIG_IGN);
            signal(SIGHUP, SIG_DFL);
        }
        assert!(is_ignored(SIGINT));
        let signals = Signals::block();
        assert!(!is_ignored(SIGINT) && !is_ignored(SIGHUP));
        for number in [SIGTERM, SIGHUP, SIGINT, SIGTERM] {
            // SAFETY: the signal is blocked in this thread: it stays pending until waited for.
            unsafe { raise(number) };
            assert_eq!(signals.wait(), number);
        }
        // SAFETY: a valid disposition.
        unsafe { signal(SIGHUP, SIG_IGN) };
        let signals = Signals::block();
        assert!(is_ignored(SIGHUP));
        // SAFETY: one is ignored, the other one blocked in this thread.
        unsafe {
            raise(SIGHUP);
            raise(SIGINT);
        }
        assert_eq!(signals.wait(), SIGINT);
    }

    fn is_ignored(number: c_int) -> bool {
        // SAFETY: the disposition found is put back at once, and nobody sends the signal meanwhile.
        unsafe {
            let found = signal(number, SIG_DFL);
            signal(number, found);
            found == SIG_IGN
        }
    }
}
