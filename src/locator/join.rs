//! Coming in: joining is pulling.
//!
//! A node is *filling* from its start until every other node has answered its `pull` to the end.
//! The one that answers takes the caller in first and then pages out what the caller should hold,
//! together with its list of members; new names in it are pulled from too. So the calls that fetch
//! the items are the ones that make the newcomer known to everybody, and there is no chain of calls
//! that could break. Of two newcomers one pulls later from any third node, and finds the other in
//! its list.

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use crate::location::Location;
use crate::net::CallError;
use crate::thrift::Exception;
use crate::words::counted;

use super::calls::{GONE, Known, Page, PullArguments, gone, request};
use super::member::{Member, State};
use super::membership::{Membership, Pulled};
use super::{Application, Locator, PAGE_TICKS, give_way, kind};

/// Pages asked for at once, of which one is in memory at a time.
const PAGES_AT_ONCE: usize = 32;

/// The most pages of one node that can be asked for; one that offers more is not understood.
const CURSORS_MAX: usize = 16;

/// A node that was given as the peer has so long to know its own network.
const START_TICKS: u32 = 20;

/// After so long, of nodes that were given each other as peers the first begins.
const CIRCLE_TICKS: u32 = 8;

/// How long a starting node waits before it asks again.
const START_AGAIN: Duration = Duration::from_millis(10);

/// Why a node can't take part. It hasn't become a member anywhere.
#[derive(Debug)]
pub enum StartError {
    /// The peer doesn't answer.
    Unreachable(Location, CallError),
    /// The peer runs another service, or is no node at all; what it said of itself.
    OtherService(Location, String),
    /// The peer won't have this node; its reason.
    NotAdmitted(Location, String),
    /// The peer is this node.
    Itself(Location),
    /// This node's port can't be told to originals, which know ports up to 32767.
    PortTooHigh(Location),
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StartError::Unreachable(peer, cause) => write!(f, "peer {peer}: {cause}"),
            StartError::OtherService(peer, service) => {
                write!(f, "peer {peer}: it runs another service: {service}")
            }
            StartError::NotAdmitted(peer, reason) => write!(f, "peer {peer}: {reason}"),
            StartError::Itself(peer) => write!(f, "peer {peer}: that is this node itself"),
            StartError::PortTooHigh(peer) => write!(
                f,
                "peer {peer}: a network with nodes of the original takes no port above 32767"
            ),
        }
    }
}

impl std::error::Error for StartError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            StartError::Unreachable(_, cause) => Some(cause),
            _ => None,
        }
    }
}

impl StartError {
    fn from_call(peer: &Location, cause: CallError) -> Self {
        match cause {
            CallError::Exception(exception) if exception.kind != GONE => {
                StartError::NotAdmitted(peer.clone(), exception.message)
            }
            cause => StartError::Unreachable(peer.clone(), cause),
        }
    }
}

impl Locator {
    /// Starts a network, or joins the one that `peer` is in: afterwards this node knows the
    /// members. What it should hold is still to be fetched, by [`Locator::fill`].
    ///
    /// # Errors
    /// The peer is none; nothing has changed.
    pub fn start(
        &self,
        peer: Option<&Location>,
        application: &dyn Application,
    ) -> Result<(), StartError> {
        let Some(peer) = peer else {
            self.say("Initiating the network...");
            {
                let mut membership = self.membership();
                membership.joined = true;
                membership.rooted = true;
            }
            self.fill(application);
            return Ok(());
        };
        self.membership().told = true;
        let types = self.service_types_of(peer);
        let types = types.map_err(|cause| StartError::Unreachable(peer.clone(), cause))?;
        if kind(&types).is_some_and(|kind| kind != self.service_type()) {
            return Err(StartError::OtherService(peer.clone(), types.join(", ")));
        }
        self.say("Joining the network...");
        if types.iter().any(|name| name == super::EXTENSION) {
            self.start_at(peer, application)?;
        } else {
            let members = self.members_of_original(peer);
            let members = members.map_err(|cause| StartError::from_call(peer, cause))?;
            for location in members {
                self.admit(Member::original(location));
            }
        }
        let originals = self.view().members().iter().any(|member| !member.is_ours());
        if originals && self.location.port() > i16::MAX.cast_unsigned() {
            return Err(StartError::PortTooHigh(peer.clone()));
        }
        self.membership().joined = true;
        self.changed();
        Ok(())
    }

    /// Pulls from a peer of ours until that one knows its own network: before, its list says
    /// nothing.
    fn start_at(&self, peer: &Location, application: &dyn Application) -> Result<(), StartError> {
        let began = self.now();
        loop {
            let mut result = Err(CallError::Silent);
            self.pull_from(&[(peer.clone(), Vec::new())], &mut |_, answer| {
                result = answer
            });
            let result = result.map_err(|cause| StartError::from_call(peer, cause))?;
            let page = Page::read(&result).map_err(|cause| StartError::from_call(peer, cause))?;
            if page.me.location == self.location {
                return Err(StartError::Itself(peer.clone()));
            }
            self.take_page(&page, b"", application)
                .map_err(|cause| StartError::from_call(peer, cause))?;
            let waited = self.now().saturating_sub(began);
            if page.joined {
                return Ok(());
            }
            if waited > self.ticks(CIRCLE_TICKS) {
                let members = self.view();
                let members = members.members().iter().map(|member| &member.location);
                if self.begin_if_first(&members.cloned().collect()) {
                    return Ok(());
                }
            }
            if waited > self.ticks(START_TICKS) {
                return Err(StartError::Unreachable(peer.clone(), CallError::Silent));
            }
            self.environment.clock.pause(START_AGAIN);
        }
    }

    /// No node was found that knows its network; those in `starting` look for one as well. The
    /// first of all in name order starts the network, the others are to look again. True: this
    /// node knows its network now.
    ///
    /// Each of two nodes has taken its port before it looks at the other's, so one of them sees the
    /// other and makes itself known there by pulling, before it may begin:
    ///
    /// ```text
    /// A                                B (nobody there when it looked)
    ///   looks: B is starting
    ///   pull --------------------------> takes A in
    ///   B has answered, and is the later   A is the first: B looks again
    ///   name: begins
    /// ```
    ///
    /// Had B begun before the pull came, its answer would say so.
    ///
    /// # Errors
    /// One that comes first won't have this node.
    pub fn start_among(
        &self,
        starting: &[Location],
        application: &dyn Application,
    ) -> Result<bool, StartError> {
        let mut rivals: BTreeSet<_> = {
            let mut membership = self.membership();
            membership.told = false;
            let rivals = membership.rivals.iter();
            rivals.chain(starting).cloned().collect()
        };
        let calls: Vec<_> = rivals
            .iter()
            .map(|rival| (rival.clone(), Vec::new()))
            .collect();
        let mut answers = Vec::new();
        self.pull_from(&calls, &mut |place, answer| {
            let joined = answer.and_then(|result| {
                let page = Page::read(&result)?;
                self.take_page(&page, b"", application)?;
                Ok(page.joined)
            });
            answers.push((place, joined));
        });
        for (place, joined) in answers {
            let location = &calls[place].0;
            match joined {
                Ok(false) => {}
                Ok(true) => return self.start(Some(location), application).map(|()| true),
                Err(CallError::Exception(exception))
                    if *location < self.location && exception.kind != GONE =>
                {
                    let reason = exception.message;
                    return Err(StartError::NotAdmitted(location.clone(), reason));
                }
                Err(CallError::Refused | CallError::Exception(_)) => {
                    rivals.remove(location);
                    let now = self.now();
                    let mut membership = self.membership();
                    membership.rivals.remove(location);
                    membership.remove(location, None, now);
                }
                Err(_) => return Ok(false),
            }
        }
        if !self.begin_if_first(&rivals) {
            return Ok(false);
        }
        self.say("Initiating the network...");
        self.fill(application);
        Ok(true)
    }

    /// This node's list is the network, if it comes first among these and its rivals.
    fn begin_if_first(&self, others: &BTreeSet<Location>) -> bool {
        let mut membership = self.membership();
        let first = membership
            .rivals
            .iter()
            .chain(others)
            .all(|other| *other >= self.location);
        membership.joined |= first;
        membership.rooted |= first;
        first
    }

    /// Whether this node knows the network it is part of.
    pub fn has_joined(&self) -> bool {
        self.membership().joined
    }

    /// Pulls from everybody from whom something is still missing. Ends when this node is full, or
    /// as soon as nobody answers any more: then it is to be called again later.
    pub fn fill(&self, application: &dyn Application) {
        if self.is_lost() {
            (self.options.on_die)();
            return;
        }
        loop {
            self.take_up_contacts();
            let (ours, originals) = {
                let membership = self.membership();
                if membership.me.state != State::Filling || !membership.joined {
                    return;
                }
                left_to_pull(&membership)
            };
            if ours.is_empty() && originals.is_empty() {
                if !application.settle() {
                    return;
                }
                // Somebody whom an orphan has lost may come back, or is catching up right now.
                if self.become_full(application) || self.membership().is_orphan() {
                    return;
                }
                continue;
            }
            let mut progress = false;
            for original in originals {
                progress |= self.enter_original(&original);
            }
            for ours in ours.chunks(PAGES_AT_ONCE) {
                progress |= self.pull_pages(ours, application);
            }
            if !progress {
                return;
            }
        }
    }

    /// Pulls a page from each. True: something has come of it.
    fn pull_pages(&self, from: &[(Location, Vec<u8>)], application: &dyn Application) -> bool {
        let (asked, view) = (self.now(), self.view());
        let mut progress = false;
        let mut refused = BTreeSet::new();
        self.pull_from(from, &mut |place, answer| {
            let (location, cursor) = &from[place];
            let page = |result: Vec<u8>| {
                let page = Page::read(&result)?;
                if page.me.location != *location {
                    // A node of another name has come to its place.
                    return Err(CallError::Refused);
                }
                self.take_page(&page, cursor, application)
            };
            match answer.and_then(page) {
                Ok(()) => {
                    let mut membership = self.membership();
                    membership.answered = membership.answered.max(asked);
                    membership.contacts.remove(location);
                    progress = true;
                }
                Err(CallError::Refused) => {
                    self.membership().contacts.remove(location);
                    refused.insert(location.clone());
                }
                Err(CallError::Exception(exception)) => {
                    self.say(&format!(
                        "{location} doesn't take this node in: {exception}"
                    ));
                    self.membership().contacts.remove(location);
                }
                Err(CallError::Silent | CallError::Broken(_) | CallError::Local(_)) => {}
            }
        });
        let refused: Vec<_> = refused.into_iter().collect();
        self.drop_members(&refused, &view);
        progress || !refused.is_empty()
    }

    /// Nodes outside are to be pulled from, if they still know this one, which is filling again then.
    /// Asked first, as the word that led here may have been a late one: of a node that has gone, and at
    /// whose place there is another network's by now.
    fn take_up_contacts(&self) {
        let contacts: Vec<_> = self.membership().contacts.iter().cloned().collect();
        if contacts.is_empty() {
            return;
        }
        let hellos = self.hello(&contacts);
        let wall = self.wall();
        let mut membership = self.membership();
        for (location, hello) in contacts.iter().zip(hellos) {
            if hello.is_ok_and(|hello| hello.known == Known::No) {
                membership.contacts.remove(location);
            }
        }
        if membership.me.state == State::Full && !membership.contacts.is_empty() {
            membership.refill(wall);
        }
    }

    /// Asks each for a page. `take` must call nobody.
    fn pull_from(
        &self,
        from: &[(Location, Vec<u8>)],
        take: &mut dyn FnMut(usize, crate::net::Answer),
    ) {
        let (me, digest, looking) = {
            let membership = self.membership();
            let digest = membership.view.digest();
            (membership.me.clone(), digest, membership.is_looking())
        };
        let pull = |(location, cursor): &(Location, Vec<u8>)| {
            let arguments = PullArguments {
                me: me.clone(),
                replicas: self.options.replicas,
                service: self.service_type().as_bytes(),
                cursor,
                digest,
                looking,
            };
            (location.clone(), request("pull", arguments.write()))
        };
        let calls: Vec<_> = from.iter().map(pull).collect();
        let network = &self.environment.network;
        network.call_each(&calls, self.ticks(PAGE_TICKS), take);
    }

    /// Takes in the page that was asked for by `asked`.
    ///
    /// # Errors
    /// It says that more is to come and brings nothing, or offers too much at once: who believed that
    /// might ask for ever. Its items are taken in, but it counts for nothing.
    pub(super) fn take_page(
        &self,
        page: &Page<'_>,
        asked: &[u8],
        application: &dyn Application,
    ) -> Result<(), CallError> {
        for (number, item) in page.items.iter().enumerate() {
            give_way(number);
            application.accept(item);
        }
        let endless = !page.cursors.is_empty() && page.items.is_empty();
        if endless || page.cursors.len() > CURSORS_MAX {
            return Err(CallError::Broken("pull: a page that leads nowhere".into()));
        }
        self.admit(page.me.clone());
        for member in &page.members {
            self.admit(member.clone());
        }
        // It took this node for its earlier run, which has said goodbye, and gave it nothing: with the
        // stamp that it has now it is to ask again.
        let refused =
            |member: &Member| member.location == self.location && member.state == State::Gone;
        if !page.members.iter().any(refused) {
            let mut membership = self.membership();
            membership.take_page(&page.me.location, asked, &page.cursors);
        }
        Ok(())
    }

    /// True if nothing was left to pull, looked at again under the lock.
    fn become_full(&self, application: &dyn Application) -> bool {
        let wall = self.wall();
        let view = {
            let mut membership = self.membership();
            let (ours, originals) = left_to_pull(&membership);
            if !ours.is_empty() || !originals.is_empty() || membership.me.state != State::Filling {
                return false;
            }
            if membership.is_orphan() {
                return false;
            }
            membership.lapsed = false;
            membership.rooted = true;
            membership.set_state(State::Full, wall);
            membership.view.clone()
        };
        application.filled(&view);
        self.changed();
        let others = view.members().iter().filter(|member| member.is_ours());
        let others = others.map(|member| member.location.clone());
        let others: Vec<_> = others
            .filter(|location| *location != self.location)
            .collect();
        // Who doesn't hear it learns by comparing lists.
        let _ = self.hello(&others);
        true
    }

    /// Answers a `pull`.
    pub(super) fn on_pull(
        &self,
        mut pull: PullArguments<'_>,
        result: &mut Vec<u8>,
        application: &dyn Application,
    ) -> Result<(), Exception> {
        if self.me().state == State::Gone {
            return Err(gone());
        }
        if pull.service != self.service_type().as_bytes() {
            let service = self.service_type();
            return Err(Exception::internal(format!(
                "this is a network of {service}"
            )));
        }
        if pull.replicas != self.options.replicas {
            let (ours, theirs) = (self.options.replicas, pull.replicas);
            let ours = counted(ours, "copy", "copies");
            let message = format!("this network keeps {ours} of each key, not {theirs}");
            return Err(Exception::internal(message));
        }
        let newcomer = pull.me.location.clone();
        // A run whose clock is behind that of its earlier one is new all the same: it hears of its
        // later stamp in the list, and goes on from there.
        if let Some(known) = self.view().get(&newcomer)
            && known.stamp > pull.me.stamp
        {
            pull.me.stamp = known.stamp.saturating_add(1);
        }
        self.admit(pull.me);
        let (me, joined, view, gone) = {
            let mut membership = self.membership();
            if pull.looking {
                membership.rivals.insert(newcomer.clone());
            } else {
                membership.rivals.remove(&newcomer);
            }
            let gone = membership.gone.get(&newcomer).copied();
            let view = membership.view.clone();
            (membership.me.clone(), membership.is_ready(), view, gone)
        };
        let same = pull.digest == view.digest();
        let members = if same { &[] } else { view.members() };
        // An earlier run under this name has said goodbye with a later stamp: the newcomer has to
        // know, to have one above that.
        let earlier = gone.filter(|_| view.get(&newcomer).is_none());
        let earlier = earlier.map(|stamp| Member {
            location: newcomer.clone(),
            state: State::Gone,
            stamp,
        });
        let members: Vec<_> = members.iter().cloned().chain(earlier).collect();
        Page::write(&me, joined, &members, result, |items| {
            application.page(&view, &newcomer, pull.cursor, items)
        });
        Ok(())
    }
}

/// Of whom something is still missing: ours with cursors, each for itself, and originals.
fn left_to_pull(membership: &Membership) -> (Vec<(Location, Vec<u8>)>, Vec<Location>) {
    let contacts = membership.contacts.iter();
    let mut ours: Vec<_> = contacts
        .map(|location| (location.clone(), Vec::new()))
        .collect();
    let mut originals = Vec::new();
    for member in membership.others() {
        let location = &member.location;
        let pulled = membership.pulled.get(location);
        if pulled == Some(&Pulled::All) {
            continue;
        }
        if !member.is_ours() {
            originals.push(location.clone());
        } else if !membership.contacts.contains(location) {
            match pulled {
                Some(Pulled::But(cursors)) => {
                    let cursors = cursors.iter().cloned();
                    ours.extend(cursors.map(|cursor| (location.clone(), cursor)));
                }
                _ => ours.push((location.clone(), Vec::new())),
            }
        }
    }
    (ours, originals)
}
