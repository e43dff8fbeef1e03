//! An allocator that counts, so that a test can say how much memory some code takes. Each thread
//! counts for itself: tests that run beside one another don't disturb each other.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

thread_local! {
    static TAKEN: Cell<usize> = const { Cell::new(0) };
    static HELD: Cell<isize> = const { Cell::new(0) };
    static PEAK: Cell<isize> = const { Cell::new(0) };
}

fn note(taken: usize, change: isize) {
    // A thread that ends frees what it holds after its counters are gone: nobody asks then.
    let _ = TAKEN.try_with(|counter| counter.set(counter.get() + taken));
    let _ = HELD.try_with(|held| {
        held.set(held.get() + change);
        let _ = PEAK.try_with(|peak| peak.set(peak.get().max(held.get())));
    });
}

// SAFETY: every call is passed on to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        note(1, layout.size() as isize);
        // SAFETY: as above.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        note(0, -(layout.size() as isize));
        // SAFETY: as above.
        unsafe { System.dealloc(memory, layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        note(1, layout.size() as isize);
        // SAFETY: as above.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        note(1, size as isize - layout.size() as isize);
        // SAFETY: as above.
        unsafe { System.realloc(memory, layout, size) }
    }
}

/// What some code took on its own thread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// How often it asked for memory.
    pub allocations: usize,
    /// The most that it held at a time, in bytes, above what was held before.
    pub peak: usize,
}

pub fn measure<T>(code: impl FnOnce() -> T) -> (T, Usage) {
    let (taken, held) = (TAKEN.get(), HELD.get());
    PEAK.set(held);
    let value = code();
    let usage = Usage {
        allocations: TAKEN.get() - taken,
        peak: PEAK.get().abs_diff(held),
    };
    (value, usage)
}
