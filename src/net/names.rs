//! Addresses of hosts' names, as the system's resolver finds them.
//!
//! Invariants: a name is looked up by one thread at a time, however many wait for it; threads and names are bounded; a
//! resolver that is silent, or doesn't know a name, costs a caller its time once, and the callers behind it none.

use std::collections::HashMap;
use std::mem;
use std::net::{IpAddr, ToSocketAddrs};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// Names that are looked up at a time. A look-up can't be ended: one of a silent resolver takes some ten seconds.
const LOOK_UPS_MAX: usize = 16;

/// Names of which something is remembered.
const NAMES_MAX: usize = 1000;

/// How long a look-up is waited for by those that come later, and a failed one holds.
const PATIENCE: Duration = Duration::from_secs(1);

/// Stack of the threads that look names up.
const STACK_BYTES: usize = 256 << 10;

#[derive(Debug, Clone)]
enum Known {
    /// Being looked up since then.
    Asked(Instant),
    Found(Vec<IpAddr>),
    /// Found, but they didn't serve.
    Doubted(Vec<IpAddr>),
    /// Not found then, and why.
    Failed(Instant, String),
}

/// What is known of names. Shared by all that connect.
#[derive(Debug, Default)]
pub(super) struct Names {
    /// Guards what is known.
    known: Mutex<HashMap<String, Known>>,
    /// Notified when a look-up has ended.
    ended: Condvar,
}

impl Names {
    /// The addresses of a name, or the address that it is.
    ///
    /// # Errors
    /// Why there are none, for people.
    pub fn addresses(
        self: &Arc<Self>,
        name: &str,
        deadline: Instant,
    ) -> Result<Vec<IpAddr>, String> {
        if let Ok(address) = name.parse::<IpAddr>() {
            return Ok(vec![address]);
        }
        let mut known = self.known();
        loop {
            match known.get(name) {
                Some(Known::Found(addresses)) => return Ok(addresses.clone()),
                Some(Known::Failed(at, cause)) if at.elapsed() < PATIENCE => {
                    return Err(cause.clone());
                }
                Some(Known::Asked(since)) => {
                    let until = deadline.min(*since + PATIENCE);
                    let left = until.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        return Err("no answer to the look-up of the name".to_owned());
                    }
                    let waited = self.ended.wait_timeout(known, left);
                    known = waited.unwrap_or_else(PoisonError::into_inner).0;
                }
                Some(Known::Failed(..) | Known::Doubted(_)) | None => {
                    if let Err(cause) = make_room(&mut known) {
                        // Names that strangers give can keep all look-ups busy.
                        return match known.get(name) {
                            Some(Known::Doubted(addresses)) => Ok(addresses.clone()),
                            _ => Err(cause),
                        };
                    }
                    known.insert(name.to_owned(), Known::Asked(Instant::now()));
                    self.look_up(name, &mut known)?;
                }
            }
        }
    }

    /// They didn't serve: they are looked up again next time, if that is possible then.
    pub fn doubt(&self, name: &str) {
        if let Some(known) = self.known().get_mut(name)
            && let Known::Found(addresses) = known
        {
            *known = Known::Doubted(mem::take(addresses));
        }
    }

    fn look_up(
        self: &Arc<Self>,
        name: &str,
        known: &mut HashMap<String, Known>,
    ) -> Result<(), String> {
        let (names, asked) = (Arc::clone(self), name.to_owned());
        let look_up = move || {
            let found = (asked.as_str(), 0).to_socket_addrs();
            let now = Instant::now();
            let found = match found.map(|found| found.map(|socket| socket.ip()).collect::<Vec<_>>())
            {
                Ok(addresses) if addresses.is_empty() => {
                    Known::Failed(now, "no address".to_owned())
                }
                Ok(addresses) => Known::Found(addresses),
                Err(error) => Known::Failed(now, error.to_string()),
            };
            names.known().insert(asked, found);
            names.ended.notify_all();
        };
        let thread = thread::Builder::new().name("resolve".to_owned());
        let spawned = thread.stack_size(STACK_BYTES).spawn(look_up);
        spawned.map(drop).map_err(|error| {
            known.remove(name);
            error.to_string()
        })
    }

    /// No change under the lock can be half done: a poisoned lock is taken all the same.
    fn known(&self) -> MutexGuard<'_, HashMap<String, Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// For one more look-up. Of too many names, those go first that were not found.
fn make_room(known: &mut HashMap<String, Known>) -> Result<(), String> {
    let is_asked = |known: &Known| matches!(known, Known::Asked(_));
    if known.values().filter(|known| is_asked(known)).count() >= LOOK_UPS_MAX {
        return Err(format!("{LOOK_UPS_MAX} names are being looked up already"));
    }
    if known.len() >= NAMES_MAX {
        known.retain(|_, known| !matches!(known, Known::Failed(..)));
    }
    if known.len() >= NAMES_MAX {
        known.retain(|_, known| is_asked(known));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(10)
    }

    fn is_asked(name: &str, names: &Names) {
        names
            .known()
            .insert(name.to_owned(), Known::Asked(Instant::now()));
    }

    #[test]
    fn must_take_addresses_as_they_are_and_look_names_up() {
        let names = Arc::new(Names::default());
        let address = "127.0.0.7".parse().unwrap();
        assert_eq!(names.addresses("127.0.0.7", soon()), Ok(vec![address]));
        assert!(names.known().is_empty());
        let found = names.addresses("localhost", soon()).unwrap();
        assert!(found.iter().all(IpAddr::is_loopback));
        assert!(matches!(names.known()["localhost"], Known::Found(_)));
    }

    #[test]
    fn must_not_wait_behind_a_silent_resolver_twice() {
        let names = Arc::new(Names::default());
        is_asked("silent", &names);
        let began = Instant::now();
        names.addresses("silent", soon()).unwrap_err();
        assert!(began.elapsed() >= PATIENCE / 2);
        let began = Instant::now();
        names.addresses("silent", soon()).unwrap_err();
        assert!(began.elapsed() < PATIENCE / 2);
    }

    #[test]
    fn must_not_look_up_more_than_so_many_names_at_once() {
        let names = Arc::new(Names::default());
        for number in 0..LOOK_UPS_MAX {
            is_asked(&format!("silent {number}"), &names);
        }
        let cause = names.addresses("localhost", soon()).unwrap_err();
        assert_eq!(cause, "16 names are being looked up already");
        names.known().remove("silent 0");
        assert!(names.addresses("localhost", soon()).is_ok());
    }

    #[test]
    fn must_find_again_what_it_had_found_though_no_more_can_be_looked_up() {
        let names = Arc::new(Names::default());
        let old = vec!["127.9.9.9".parse().unwrap()];
        let found = Known::Found(old.clone());
        names.known().insert("localhost".to_owned(), found);
        names.doubt("localhost");
        for number in 0..LOOK_UPS_MAX {
            is_asked(&format!("silent {number}"), &names);
        }
        assert_eq!(names.addresses("localhost", soon()), Ok(old));
        names.known().remove("silent 0");
        let new = names.addresses("localhost", soon()).unwrap();
        assert!(new.iter().all(|address| address.to_string() != "127.9.9.9"));
    }

    #[test]
    fn must_remember_no_more_than_so_many_names() {
        let names = Arc::new(Names::default());
        for number in 0..NAMES_MAX {
            let failed = Known::Failed(Instant::now(), "no such name".to_owned());
            names.known().insert(number.to_string() + "x", failed);
        }
        assert_eq!(
            names.addresses("7x", soon()),
            Err("no such name".to_owned())
        );
        assert!(names.addresses("localhost", soon()).is_ok());
        assert_eq!(names.known().len(), 1);
        // Those that were found stay, unless there are too many of them.
        names.known().clear();
        for number in 1..NAMES_MAX {
            let failed = Known::Failed(Instant::now(), "no such name".to_owned());
            names.known().insert(number.to_string() + "x", failed);
        }
        let found = Known::Found(Vec::new());
        names.known().insert("a member".to_owned(), found.clone());
        assert!(names.addresses("localhost", soon()).is_ok());
        assert_eq!(names.known().len(), 2);
        assert!(names.known().contains_key("a member"));
        for number in 0..NAMES_MAX {
            let name = number.to_string() + "x";
            names.known().insert(name, found.clone());
        }
        names.known().remove("localhost");
        assert!(names.addresses("localhost", soon()).is_ok());
        assert_eq!(names.known().len(), 1);
    }
}
