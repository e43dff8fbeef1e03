//! How tombstones are forgotten: each replica does so by itself, and tells no other.
//!
//! All members have to be clean ([`Membership::all_clean`]) at two moments under one view, at least 60 seconds and 120
//! ticks apart. At the first, this node learns the least of their floors: from then on every put, whichever node is its
//! primary, gets a version above that. So a tombstone up to it that lies here at the second moment was put before the
//! first one. That put has ended by then, its messages have arrived, and each replica has the tombstone or has
//! forgotten it: nothing older is anywhere.
//!
//! A replica that has forgotten a tombstone may be given it again by one that has not. It forgets it again.

use std::sync::PoisonError;
use std::time::Duration;

use crate::locator::give_way;
use crate::membership::Membership;

use super::Store;
use super::items::SHARDS;

/// Between two moments at which all are clean. No request takes nearly as long: neither one that a client has sent, nor one
/// that waits at a node that stood still, as that node is lost by then.
const BETWEEN: Duration = Duration::from_secs(60);
const BETWEEN_TICKS: u64 = 120;

/// The last moment at which all were clean, or at which the present view began.
#[derive(Debug, Default)]
pub(super) struct Agreed {
    changes: u64,
    /// When that was, by the monotonic clock: while this node stood still, nothing arrived. And the tick.
    at: Duration,
    tick: u64,
    /// The least floor of all members then.
    floor: i64,
    /// From when on members have to have said that they are clean, once that time has passed.
    since: Option<Duration>,
}

impl Store {
    /// Forgets tombstones, if it is time.
    pub(super) fn forget_tombstones(&self) {
        let (count, greatest) = self.items.tombstones();
        let forgettable = {
            let mut agreed = self.agreed.lock().unwrap_or_else(PoisonError::into_inner);
            let clock = self.locator.now();
            self.locator.with(|membership, now| {
                let greatest = Some(greatest).filter(|_| count > 0);
                let floor = agreed.go_on(membership, clock, now, greatest)?;
                Some((floor, self.locator.epoch()))
            })
        };
        let Some((floor, epoch)) = forgettable else {
            return;
        };
        for shard in 0..SHARDS {
            // What has come under another view is not looked at.
            let same = || self.locator.epoch() == epoch;
            give_way(self.items.forget(shard, floor, same));
        }
    }
}

impl Agreed {
    /// The version up to which tombstones may be forgotten now. `clock`: the monotonic one. `greatest`: the greatest version
    /// that a tombstone had here; `None`: there is none now.
    fn go_on(
        &mut self,
        membership: &mut Membership,
        clock: Duration,
        now: Duration,
        greatest: Option<i64>,
    ) -> Option<i64> {
        let (changes, tick) = (membership.changes(), membership.ticks_run());
        let next = Agreed {
            changes,
            at: clock,
            tick,
            floor: 0,
            since: None,
        };
        let Some(greatest) = greatest.filter(|_| changes == self.changes) else {
            membership.want_clean(None);
            *self = next;
            return None;
        };
        let Some(since) = self.since else {
            if clock.saturating_sub(self.at) >= BETWEEN && tick - self.tick >= BETWEEN_TICKS {
                // Those that are asked now hear of it, and answer with a floor that is not below.
                membership.raise_floor(greatest);
                membership.want_clean(Some(now));
                self.since = Some(now);
            }
            return None;
        };
        let floor = membership.all_clean(since)?;
        membership.want_clean(None);
        let agreed = std::mem::replace(self, Agreed { floor, ..next });
        Some(agreed.floor).filter(|floor| *floor > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::location::Location;
    use crate::membership::Rules;
    use crate::net::Random;

    const TICK: Duration = Duration::from_millis(500);

    /// A network of one, which is clean.
    fn alone() -> Membership {
        let location = Location::new("127.0.0.1", 9900).unwrap();
        let rules = Rules {
            copies: 2,
            tick: TICK,
        };
        let mut node = Membership::new(location, rules, Random::new(1), 1, Duration::ZERO);
        node.start(&[], true);
        node.brought(node.changes());
        node
    }

    /// A tombstone lies there all the time: when something may be forgotten, in ticks, and up to which version.
    fn forgets(node: &mut Membership, agreed: &mut Agreed, ticks: u32) -> Vec<(u32, i64)> {
        let mut times = Vec::new();
        for tick in 1..=ticks {
            let now = TICK * tick;
            node.tick(now);
            let floor = agreed.go_on(node, now, now, Some(i64::from(tick)));
            times.extend(floor.map(|floor| (tick, floor)));
        }
        times
    }

    #[test]
    fn must_forget_what_was_there_two_minutes_before() {
        let times = forgets(&mut alone(), &mut Agreed::default(), 600);
        assert_eq!(times, [(243, 121), (364, 242), (485, 363)]);
    }

    #[test]
    fn must_begin_anew_when_the_view_changes_or_nothing_is_deleted() {
        let (mut node, mut agreed) = (alone(), Agreed::default());
        assert_eq!(forgets(&mut node, &mut agreed, 242), []);
        node.raise_floor(7);
        let now = TICK * 243;
        assert_eq!(agreed.go_on(&mut node, now, now, None), None);
        assert_eq!(forgets(&mut node, &mut agreed, 100), []);
        let mut agreed = Agreed::default();
        assert_eq!(forgets(&mut node, &mut agreed, 242), []);
        node.leave();
        assert_eq!(forgets(&mut node, &mut agreed, 600), []);
    }

    #[test]
    fn must_wait_until_all_are_clean() {
        let (mut node, mut agreed) = (alone(), Agreed::default());
        assert_eq!(forgets(&mut node, &mut agreed, 130).len(), 0);
        let changes = node.changes();
        node.brought(changes + 1);
        assert_eq!(forgets(&mut node, &mut agreed, 600), []);
        node.brought(changes);
        assert_eq!(forgets(&mut node, &mut agreed, 1).len(), 1);
    }
}
