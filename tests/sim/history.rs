//! What clients did and saw, and whether they may have seen it.
//!
//! Every operation has the number of the event at which it began and, unless it still runs, of
//! that at which it ended. Values are unique but for the empty one, which deletes, and as which a
//! missing key reads.
//!
//! A put may *supersede* another one of the same key for certain only if it began after the other
//! was acknowledged. (Of puts that overlap either may be the newer; one that was never acknowledged may
//! take effect any time later.) So, where p and q are puts of one key,
//!
//! * **p is stale for a read r** if p was acknowledged, a q began after that, and q was acknowledged
//!   before r began. Before any put a key is missing, which is stale as soon as any
//!   q was acknowledged before r began.
//! * **A read r is wrong** if no put that had begun when r ended gave its value, or if all that did
//!   (several, for the empty value) are stale for r.
//!
//! Where silence may outlast the limits, q counts only if the world was stable to r's end, from when the node that was
//! asked began to serve q. (It may pass q on, and what it hears may wait behind the answer to another request of the
//! batch. So a put that one side of a cut acknowledged can be answered long after the cut.)
//!
//! Where what was *shown* counts too (`shown_counts`), q may be a put that no one has acknowledged: it is enough that a
//! read which gave its value had ended before r began. What a client has seen must not be taken back. (The empty value
//! shows nothing. A p that still runs may come again above q.)
//!
//! Requests of one connection to one key take effect in their order: what follows another one there began after it,
//! whenever the answers come.
//!
//! **At the end**, when all is settled, each key must read as a put whose version is not below that of any
//! acknowledged put, where the version is the one seen on the nodes at the acknowledgement; and,
//! unless stability counts, as one that is not stale.

use std::collections::BTreeMap;
use std::fmt;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Still running, or an error: may have had its effect, or may have it later.
    Unknown,
    /// A put was acknowledged; the version that nodes then had for it, if any still had it.
    Acknowledged(Option<i64>),
    /// What a get brought.
    Read(Vec<u8>),
}

#[derive(Debug, Clone)]
pub struct Operation {
    pub key: Vec<u8>,
    /// `None`: a get.
    pub put: Option<Vec<u8>>,
    pub begin: u64,
    pub end: Option<u64>,
    /// When the node that was asked began to serve it.
    pub served: u64,
    pub outcome: Outcome,
    /// When the first read that brought a put's value had ended, and when that was served.
    shown: Option<(u64, u64)>,
    number: usize,
    /// The one before it on its connection, of the same key.
    after: Option<usize>,
}

/// As text, and not all of it if it is long.
pub fn brief(bytes: &[u8]) -> String {
    const SHOWN: usize = 24;
    let text = String::from_utf8_lossy(&bytes[..bytes.len().min(SHOWN)]);
    match bytes.len().checked_sub(SHOWN) {
        Some(more) if more > 0 => format!("{text:?} and {more} bytes"),
        _ => format!("{text:?}"),
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let end = self.end.map_or("…".to_owned(), |end| end.to_string());
        write!(f, "[{}, {end}] ", self.begin)?;
        match &self.put {
            Some(value) => write!(f, "put({}, {})", brief(&self.key), brief(value))?,
            None => write!(f, "get({})", brief(&self.key))?,
        }
        match &self.outcome {
            Outcome::Read(value) => write!(f, " = {}", brief(value)),
            other => write!(f, ": {other:?}"),
        }
    }
}

/// Whether the world's stability decides what is promised.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Promise {
    Always,
    WhileStable,
}

#[derive(Debug, Default)]
pub struct History {
    pub shown_counts: bool,
    operations: Vec<Operation>,
    /// The numbers of each key's puts: to look through all operations for each read took most of a schedule's time.
    puts: BTreeMap<Vec<u8>, Vec<usize>>,
    event: u64,
    /// (event, from then on).
    stability: Vec<(u64, bool)>,
    /// The greatest version of each key's tombstones that was seen when a put of the empty value was acknowledged.
    tombstones: BTreeMap<Vec<u8>, i64>,
}

impl History {
    /// Events are numbered as they come.
    pub fn next_event(&mut self) -> u64 {
        self.event += 1;
        self.event
    }

    fn begin(&mut self, key: &[u8], put: Option<Vec<u8>>) -> usize {
        let begin = self.next_event();
        let number = self.operations.len();
        let puts = self.puts.entry(key.to_vec()).or_default();
        puts.extend(put.is_some().then_some(number));
        self.operations.push(Operation {
            key: key.to_vec(),
            put,
            begin,
            end: None,
            served: 0,
            outcome: Outcome::Unknown,
            shown: None,
            number,
            after: None,
        });
        number
    }

    /// The two, of the same key, were sent one behind the other on one connection.
    pub fn note_order(&mut self, earlier: usize, later: usize) {
        self.operations[later].after = Some(earlier);
    }

    fn follows(&self, later: &Operation, earlier: &Operation) -> bool {
        let mut before = later.after;
        while let Some(number) = before {
            if number == earlier.number {
                return true;
            }
            before = self.operations[number].after;
        }
        false
    }

    pub fn begin_put(&mut self, key: &[u8], value: &[u8]) -> usize {
        self.begin(key, Some(value.to_vec()))
    }

    pub fn begin_get(&mut self, key: &[u8]) -> usize {
        self.begin(key, None)
    }

    pub fn end(&mut self, operation: usize, served: u64, outcome: Outcome) {
        let event = self.next_event();
        if let Outcome::Read(value) = &outcome {
            for number in &self.puts[&self.operations[operation].key] {
                let put = &mut self.operations[*number];
                if put.put.as_ref() == Some(value) {
                    put.shown.get_or_insert((event, served));
                }
            }
        }
        let operation = &mut self.operations[operation];
        operation.end = Some(event);
        operation.served = served;
        operation.outcome = outcome;
    }

    /// `true`: it has changed.
    pub fn note_stability(&mut self, stable: bool) -> bool {
        let before = self.stability.last().is_some_and(|(_, stable)| *stable);
        if before != stable {
            let event = self.next_event();
            self.stability.push((event, stable));
        }
        before != stable
    }

    fn is_stable(&self, from: u64, to: u64) -> bool {
        let before = self.stability.partition_point(|(event, _)| *event <= from);
        let at_first = before > 0 && self.stability[before - 1].1;
        let later = self.stability[before..].iter();
        at_first && later.take_while(|(event, _)| *event < to).count() == 0
    }

    /// Whether a put that was acknowledged counts, should nodes be killed later.
    pub fn is_promised(&self, put: &Operation, promise: Promise) -> bool {
        let stable = |end| self.is_stable(put.served, end);
        promise == Promise::Always || put.end.is_some_and(stable)
    }

    pub fn operations(&self) -> &[Operation] {
        &self.operations
    }

    pub fn keys(&self) -> Vec<Vec<u8>> {
        self.puts.keys().cloned().collect()
    }

    fn puts(&self, key: &[u8]) -> impl Iterator<Item = (&Operation, &Vec<u8>)> {
        let numbers = self.puts.get(key).into_iter().flatten();
        let puts = numbers.map(|number| &self.operations[*number]);
        puts.filter_map(|o| o.put.as_ref().map(|value| (o, value)))
    }

    /// From when on a put certainly was in effect, and when that was served: its acknowledgement, or the
    /// first read that showed it.
    fn known(&self, put: &Operation) -> Option<(u64, u64)> {
        let acknowledged = matches!(put.outcome, Outcome::Acknowledged(_));
        let acknowledged = put.end.filter(|_| acknowledged);
        let acknowledged = acknowledged.map(|end| (end, put.served));
        let shows = put.put.as_ref().is_some_and(|value| !value.is_empty());
        let shown = put.shown.filter(|_| self.shown_counts && shows);
        acknowledged.into_iter().chain(shown).min()
    }

    /// Whether a read was sent behind that put, which was acknowledged, or behind another read that showed it.
    fn follows_known(&self, read: &Operation, put: &Operation) -> bool {
        let mut before = read.after;
        while let Some(number) = before {
            let one = &self.operations[number];
            let knows = match &one.outcome {
                Outcome::Acknowledged(_) => number == put.number,
                Outcome::Read(value) => {
                    self.shown_counts && !value.is_empty() && put.put.as_ref() == Some(value)
                }
                Outcome::Unknown => false,
            };
            if knows {
                return true;
            }
            before = one.after;
        }
        false
    }

    /// A put that began after `p` was acknowledged, if there is one, and was known before that read began, or the end.
    fn superseding<'a>(
        &'a self,
        key: &[u8],
        p: Option<&Operation>,
        read: Option<&Operation>,
        promise: Promise,
    ) -> Option<&'a Operation> {
        let of_key = self.puts(key).map(|(put, _)| put);
        let later = |q: &&Operation| {
            p.is_none_or(|p| p.end.is_some_and(|end| q.begin > end) || self.follows(q, p))
        };
        let (begin, end) = match read {
            Some(read) => (read.begin, read.end.unwrap_or(self.event + 1)),
            None => (self.event + 1, self.event + 1),
        };
        of_key.filter(later).find(|q| {
            let known = self.known(q).filter(|(known, _)| {
                *known < begin || read.is_some_and(|read| self.follows_known(read, q))
            });
            known.is_some_and(|(_, served)| {
                promise == Promise::Always || self.is_stable(served, end)
            })
        })
    }

    /// # Errors
    /// Says which read is wrong and why.
    pub fn check_reads(&self, promise: Promise) -> Result<(), String> {
        for read in &self.operations {
            if let (Outcome::Read(value), Some(_)) = (&read.outcome, read.end) {
                self.check_read(&read.key, value, Some(read), promise)
                    .map_err(|why| format!("{read}: {why}"))?;
            }
        }
        Ok(())
    }

    fn check_read(
        &self,
        key: &[u8],
        value: &[u8],
        read: Option<&Operation>,
        promise: Promise,
    ) -> Result<(), String> {
        let mut excuse = Err("nobody has put this value".to_owned());
        if value.is_empty() {
            match self.superseding(key, None, read, promise) {
                None => return Ok(()),
                Some(q) => excuse = Err(format!("missing after {q}")),
            }
        }
        for (put, given) in self.puts(key) {
            let end = read.and_then(|read| read.end);
            if given != value || end.is_some_and(|end| put.begin > end) {
                continue;
            }
            if !matches!(put.outcome, Outcome::Acknowledged(_)) {
                return Ok(());
            }
            match self.superseding(key, Some(put), read, promise) {
                None => return Ok(()),
                Some(q) => excuse = Err(format!("{put} is older than {q}")),
            }
        }
        excuse
    }

    /// How many puts of the empty value to a key have not been acknowledged.
    pub fn open_deletes(&self, key: &[u8]) -> usize {
        let deletes = self.puts(key).filter(|(_, value)| value.is_empty());
        let open = deletes.filter(|(put, _)| put.outcome == Outcome::Unknown);
        open.count()
    }

    /// A tombstone of that version lay somewhere.
    pub fn note_tombstone(&mut self, key: &[u8], version: i64) {
        let greatest = self.tombstones.entry(key.to_vec()).or_insert(version);
        *greatest = version.max(*greatest);
    }

    /// The greatest version that a tombstone of the key may have had. `None`: it was never deleted.
    pub fn deleted(&self, key: &[u8]) -> Option<i64> {
        let seen = self.tombstones.get(key).copied();
        let deletes = self.puts(key).filter(|(_, value)| value.is_empty());
        let versions = deletes.map(|(put, _)| match put.outcome {
            // That is the least, of those that lay there then.
            Outcome::Acknowledged(Some(version)) => version.max(seen.unwrap_or(version)),
            _ => i64::MAX,
        });
        versions.max()
    }

    /// Whether a key may, at the very end, lie on the nodes with this value and version; `None`:
    /// nowhere, which is as good as a tombstone if it was deleted.
    ///
    /// # Errors
    /// Says what has been lost.
    pub fn check_final(
        &self,
        key: &[u8],
        found: Option<(i64, &[u8])>,
        promise: Promise,
    ) -> Result<(), String> {
        let fail = |why: String| {
            let found = found.map(|(version, value)| (version, brief(value)));
            let puts = self.puts(key).map(|(put, _)| put.to_string());
            let puts = puts.collect::<Vec<_>>().join("\n  ");
            let key = brief(key);
            Err(format!(
                "at the end {key} is {found:?}: {why}; the puts:\n  {puts}"
            ))
        };
        let deleted = self.deleted(key).map(|version| (version, &b""[..]));
        let found = found.or(deleted);
        for (put, _) in self.puts(key) {
            match (&put.outcome, found) {
                (Outcome::Acknowledged(_), None) => return fail(format!("{put} is lost")),
                (Outcome::Acknowledged(Some(version)), Some((held, _))) if held < *version => {
                    return fail(format!("{put} was newer"));
                }
                _ => (),
            }
        }
        match found {
            Some((_, value)) if promise == Promise::Always => {
                self.check_read(key, value, None, promise).or_else(fail)
            }
            _ => Ok(()),
        }
    }
}
