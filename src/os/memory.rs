//! That memory goes back to the system, and whether there is more.

use std::hint::black_box;

/// Whether so much more is to be had of the system now. Nothing is kept of it, so this is foresight, and no promise: what
/// fails for want of memory without it ends the process.
pub fn is_to_be_had(bytes: usize) -> bool {
    let mut piece: Vec<u8> = Vec::new();
    let reserved = piece.try_reserve_exact(bytes);
    // It would else be left out, as nothing is done with it.
    black_box(&piece);
    reserved.is_ok()
}

/// Has each piece of 1 MiB and more taken from the system by itself, and given back as soon as it is free. glibc
/// raises this bound with each such piece that becomes free, up to 32 MiB, and then each of its arenas keeps twice as
/// much of freed messages. To be called once, at the start. Does nothing where the C library is another one.
pub fn give_back_large_pieces() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        use std::ffi::c_int;
        unsafe extern "C" {
            fn mallopt(parameter: c_int, value: c_int) -> c_int;
        }
        // glibc, mallopt(3).
        const M_TRIM_THRESHOLD: c_int = -1;
        const M_MMAP_THRESHOLD: c_int = -3;
        // SAFETY: it takes numbers only. If it fails nothing has changed.
        unsafe {
            mallopt(M_MMAP_THRESHOLD, 1 << 20);
            mallopt(M_TRIM_THRESHOLD, 2 << 20);
        }
    }
}

/// Gives back whatever pages are free. glibc has an arena for each few threads, and what is freed in one of them is of no
/// use to the threads of another. Takes some milliseconds for each 100 MB, during which single threads wait for memory.
/// Does nothing where the C library is another one.
pub fn give_back_free_pages() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        unsafe extern "C" {
            fn malloc_trim(pad: usize) -> std::ffi::c_int;
        }
        // SAFETY: malloc_trim(3) may be called at any time, by any thread.
        unsafe {
            malloc_trim(0);
        }
    }
}
