//! Making connections: to the addresses of a name, several at a time.

use std::fs;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Instant;

use super::CallError;
use super::names::Names;
use crate::location::Location;
use crate::os::connect_from;

/// Connections made at a time by one caller.
const CONNECTING_MAX: usize = 64;

/// Stack of the threads that connect.
const STACK_BYTES: usize = 256 << 10;

/// Whether this process, or the machine, has no descriptor left: `EMFILE` and `ENFILE`, the same
/// numbers on every Unix.
pub(crate) fn lacks_descriptors(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(23 | 24))
}

/// The soft limit of descriptors of this process, or 1024, the usual one, where the system doesn't tell.
pub(crate) fn descriptors_max() -> usize {
    let limits = fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let line = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max open files"));
    let soft = line.and_then(|line| line.split_whitespace().next());
    soft.and_then(|soft| soft.parse().ok()).unwrap_or(1024)
}

/// A connection to the first address of a location that takes one, from our own address if there is one. `relieve`
/// is called when there is no descriptor for it, and says whether it has got one back.
pub(super) fn connect(
    from: Option<IpAddr>,
    to: &Location,
    names: &Arc<Names>,
    deadline: Instant,
    relieve: &dyn Fn() -> bool,
) -> Result<TcpStream, CallError> {
    let addresses = names.addresses(to.address(), deadline);
    let addresses =
        addresses.map_err(|cause| CallError::Local(format!("{}: {cause}", to.address())))?;
    let mut outcome = Err(CallError::Local(format!("{}: no address", to.address())));
    for address in addresses {
        let address = SocketAddr::new(address, to.port());
        outcome = match (outcome, connect_to(from, address, deadline, relieve)) {
            // One address that refuses doesn't make up for one that is silent.
            (Err(CallError::Silent), Err(_)) => Err(CallError::Silent),
            (_, outcome) => outcome,
        };
        if outcome.is_ok() {
            return outcome;
        }
    }
    names.doubt(to.address());
    outcome
}

fn connect_to(
    from: Option<IpAddr>,
    address: SocketAddr,
    deadline: Instant,
    relieve: &dyn Fn() -> bool,
) -> Result<TcpStream, CallError> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() {
        return Err(CallError::Silent);
    }
    // Between the loopback and other addresses, or the two families, there is no way.
    let alike = |from: &IpAddr| {
        from.is_ipv4() == address.is_ipv4() && from.is_loopback() == address.ip().is_loopback()
    };
    let once = || match from.filter(alike) {
        Some(from) => connect_from(from, address, left),
        None => TcpStream::connect_timeout(&address, left),
    };
    let connected = match once() {
        Err(error) if lacks_descriptors(&error) && relieve() => once(),
        outcome => outcome,
    };
    let connected = connected.and_then(|stream| {
        stream.set_nodelay(true)?;
        Ok((stream.local_addr()?, stream))
    });
    match connected {
        // The system may choose the very port that we connect to, if it is free, as ours.
        Ok((own, _)) if own == address => Err(CallError::Refused),
        Ok((_, stream)) => Ok(stream),
        Err(error) => Err(match error.kind() {
            ErrorKind::ConnectionRefused => CallError::Refused,
            ErrorKind::TimedOut
            | ErrorKind::WouldBlock
            | ErrorKind::HostUnreachable
            | ErrorKind::NetworkUnreachable => CallError::Silent,
            ErrorKind::ConnectionReset | ErrorKind::ConnectionAborted => {
                CallError::Broken(error.to_string())
            }
            _ => CallError::Local(error.to_string()),
        }),
    }
}

/// Does the work for all items, several at a time, on this thread and others.
pub(super) fn side_by_side<T: Send, R: Send>(
    items: Vec<T>,
    work: impl Fn(T) -> R + Sync,
) -> Vec<R> {
    let helpers = items.len().min(CONNECTING_MAX).saturating_sub(1);
    let items = Mutex::new(items.into_iter());
    let next = || items.lock().unwrap_or_else(PoisonError::into_inner).next();
    let work_off = || std::iter::from_fn(next).map(&work).collect::<Vec<_>>();
    if helpers == 0 {
        return work_off();
    }
    thread::scope(|scope| {
        let spawn = |_| {
            let thread = thread::Builder::new()
                .name("connect".to_owned())
                .stack_size(STACK_BYTES);
            thread.spawn_scoped(scope, work_off).ok()
        };
        // Where no thread is to be had, the others do its work.
        let helpers: Vec<_> = (0..helpers).filter_map(spawn).collect();
        let mut done = work_off();
        for helper in helpers {
            done.extend(helper.join().expect("BUG: a panic while connecting"));
        }
        done
    })
}
