//! What a node shows by HTTP, on its own port: a page for people, metrics for Prometheus, and the document that
//! `location --status --json` prints.
//!
//! It only shows: nothing can be changed by it. No key and no value is shown. It is no web server: a connection has
//! one request, and the answer ends it. RFC 9110 and RFC 9112.
//!
//! Invariants:
//!
//! * Nothing that a request says comes back in an answer.
//! * The other members are asked by one thread at a time, and once a second at most, however many ask for a page.
//! * A request names this node as its host, or an IP address. So a page of another site whose name leads to this node's
//!   address can't read what is here (DNS rebinding).

mod metrics;
mod page;

use std::net::IpAddr;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::location::host_and_port;
use crate::locator::Participant;
use crate::report::{self, Report};
use crate::server::Traffic;

/// How long the others have to say how they are.
const LIMIT: Duration = Duration::from_secs(2);

/// For so long what they said is shown again; longer if they took longer.
const KEPT: Duration = Duration::from_secs(1);

/// What a node shows.
pub struct Pages<P> {
    participant: Arc<P>,
    traffic: Arc<Traffic>,
    /// The node is bound to an address that `localhost` stands for.
    is_localhost: bool,
    /// Guards what the members have said. Never held while they are asked.
    kept: Mutex<Kept>,
    /// Notified when nobody asks any more.
    asked: Condvar,
}

#[derive(Default)]
struct Kept {
    /// What was said, and until when it is shown.
    report: Option<(Arc<Report>, Instant)>,
    /// A thread is asking.
    asking: bool,
}

/// While it lives, this thread is the one that asks.
struct Asking<'a, P: Participant>(&'a Pages<P>);

impl<P: Participant> Drop for Asking<'_, P> {
    fn drop(&mut self) {
        self.0.kept().asking = false;
        self.0.asked.notify_all();
    }
}

/// What a request wants.
#[derive(Debug, PartialEq, Eq)]
struct Request<'a> {
    method: &'a str,
    path: &'a str,
    host: &'a str,
}

/// The number of a refusal, and its words.
type Refusal = (u16, &'static str);

const BAD_REQUEST: Refusal = (400, "Bad Request");
const NOT_FOUND: Refusal = (404, "Not Found");
const METHOD_NOT_ALLOWED: Refusal = (405, "Method Not Allowed");
const MISDIRECTED: Refusal = (421, "Misdirected Request");
const TOO_LARGE: Refusal = (431, "Request Header Fields Too Large");

/// What each answer says: not to be kept, guessed at, framed or embedded, and nothing to be loaded or run.
const HEADERS: &str = "Connection: close\r\n\
    Cache-Control: no-store\r\n\
    X-Content-Type-Options: nosniff\r\n\
    X-Frame-Options: DENY\r\n\
    Referrer-Policy: no-referrer\r\n\
    Cross-Origin-Resource-Policy: same-origin\r\n\
    Content-Security-Policy: default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; \
    frame-ancestors 'none'\r\n";

impl<P: Participant> Pages<P> {
    /// Of a node that is bound to that address, and whose server counts there.
    pub fn new(participant: Arc<P>, traffic: Arc<Traffic>, bound: IpAddr) -> Self {
        Pages {
            participant,
            traffic,
            is_localhost: bound.to_canonical().is_loopback(),
            kept: Mutex::default(),
            asked: Condvar::new(),
        }
    }

    /// The answer to a request with this head, which may have been cut off as it is too long. Blocks while others are
    /// asked, for some seconds at most.
    pub fn answer(&self, head: &[u8]) -> Vec<u8> {
        let request = parse(head);
        let shown = request.as_ref().map_err(|refusal| *refusal);
        let shown = shown.and_then(|request| self.show(request));
        let ((code, words), kind, body) = match shown {
            Ok((kind, body)) => ((200, "OK"), kind, body),
            Err(refusal) => (refusal, "text/plain", format!("{}\n", refusal.1)),
        };
        let allow = match code {
            405 => "Allow: GET, HEAD\r\n",
            _ => "",
        };
        let length = body.len();
        let head = format!(
            "HTTP/1.1 {code} {words}\r\nContent-Type: {kind}; charset=utf-8\r\nContent-Length: {length}\r\n\
             {allow}{HEADERS}\r\n"
        );
        match request {
            Ok(Request { method: "HEAD", .. }) => head.into_bytes(),
            _ => (head + &body).into_bytes(),
        }
    }

    /// Type and text of what is asked for.
    fn show(&self, request: &Request<'_>) -> Result<(&'static str, String), Refusal> {
        if !self.is_own(request.host)? {
            return Err(MISDIRECTED);
        }
        if !matches!(request.method, "GET" | "HEAD") {
            return Err(METHOD_NOT_ALLOWED);
        }
        let locator = self.participant.locator();
        match request.path {
            "/" => {
                let page = page::page(&self.report(), locator.location());
                Ok(("text/html", page))
            }
            "/status.json" => Ok(("application/json", self.report().to_json() + "\n")),
            "/metrics" => {
                let state = locator.state(&*self.participant);
                let metrics = metrics::metrics(&state, &locator.view(), &self.traffic);
                Ok(("text/plain; version=0.0.4", metrics))
            }
            _ => Err(NOT_FOUND),
        }
    }

    /// Whether a host is this node, as far as nobody else can have given it that name.
    fn is_own(&self, host: &str) -> Result<bool, Refusal> {
        let (name, _port) = host_and_port(host).ok_or(BAD_REQUEST)?;
        let is_name = |own: &str| name.eq_ignore_ascii_case(own);
        Ok(name.parse::<IpAddr>().is_ok()
            || is_name(self.participant.locator().location().address())
            || (self.is_localhost && is_name("localhost")))
    }

    /// What the members say: of late, or now. Waits while another thread asks them.
    fn report(&self) -> Arc<Report> {
        let fresh = |kept: &Kept| {
            let report = kept.report.as_ref();
            let fresh = report.filter(|(_, until)| Instant::now() < *until);
            fresh.map(|(report, _)| Arc::clone(report))
        };
        let is_awaited = |kept: &mut Kept| kept.asking && fresh(kept).is_none();
        let asked = self.asked.wait_while(self.kept(), is_awaited);
        let mut kept = asked.unwrap_or_else(PoisonError::into_inner);
        if let Some(report) = fresh(&kept) {
            return report;
        }
        kept.asking = true;
        drop(kept);
        let asking = Asking(self);
        let began = Instant::now();
        let report = Arc::new(self.ask());
        let until = Instant::now() + began.elapsed().max(KEPT);
        self.kept().report = Some((Arc::clone(&report), until));
        drop(asking);
        report
    }

    fn ask(&self) -> Report {
        let locator = self.participant.locator();
        let members = locator.members();
        let me = locator.location();
        let others: Vec<_> = members.iter().filter(|name| *name != me).cloned().collect();
        let network = &*locator.environment().network;
        let mut answers = report::ask(network, &others, LIMIT).into_iter();
        let answers = members.into_iter().filter_map(|member| {
            let answer = match member == *me {
                true => Some(Ok(locator.status(&*self.participant))),
                false => answers.next(),
            };
            Some((member, answer?))
        });
        Report::new(answers)
    }

    /// No change under the lock can be half done: a poisoned lock is taken all the same.
    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Reads the head of a request.
fn parse(head: &[u8]) -> Result<Request<'_>, Refusal> {
    let head = head.strip_suffix(b"\r\n\r\n").ok_or(TOO_LARGE)?;
    let head = str::from_utf8(head).map_err(|_| BAD_REQUEST)?;
    let mut lines = head.split("\r\n");
    if lines
        .clone()
        .any(|line| line.contains(|c: char| c.is_control() && c != '\t'))
    {
        return Err(BAD_REQUEST);
    }
    let words: Vec<_> = lines.next().unwrap_or_default().split(' ').collect();
    let [method, target, "HTTP/1.0" | "HTTP/1.1"] = words[..] else {
        return Err(BAD_REQUEST);
    };
    let mut host = None;
    for line in lines {
        let (name, value) = line.split_once(':').ok_or(BAD_REQUEST)?;
        // A blank in front would continue the line before, one behind would hide the name from others.
        if name.is_empty() || name.contains([' ', '\t']) {
            return Err(BAD_REQUEST);
        }
        if name.eq_ignore_ascii_case("host") && host.replace(value.trim()).is_some() {
            return Err(BAD_REQUEST);
        }
    }
    Ok(Request {
        method,
        path: target.split('?').next().unwrap_or_default(),
        host: host.ok_or(BAD_REQUEST)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn must_read_a_request() {
        let head = b"GET /metrics?x=1 HTTP/1.1\r\nAccept: */*\r\nhOST:\t[::1]:9900 \r\n\r\n";
        let request = Request {
            method: "GET",
            path: "/metrics",
            host: "[::1]:9900",
        };
        assert_eq!(parse(head), Ok(request));
    }

    #[test]
    fn must_refuse_what_is_no_request() {
        for head in [
            "GET /",
            "GET / HTTP/1.1",
            "GET / HTTP/2.0\r\nHost: a",
            "GET  / HTTP/1.1\r\nHost: a",
            "GET / HTTP/1.1 \r\nHost: a",
            " GET / HTTP/1.1\r\nHost: a",
            "GET / HTTP/1.1\r\nHost: a\r\nHost: a",
            "GET / HTTP/1.1\r\nHost : a",
            "GET / HTTP/1.1\r\nHost: a\r\n b",
            "GET / HTTP/1.1\r\nHost: a\r\nb",
            "GET / HTTP/1.1\r\nHost: a\nb: c",
            "GET / HTTP/1.1\r\nHost: a\0",
            "GET / HTTP/1.1\r\nHost: a\r\n: b",
            "",
        ] {
            let head = format!("{head}\r\n\r\n");
            assert_eq!(parse(head.as_bytes()), Err(BAD_REQUEST), "{head:?}");
        }
        let bytes = b"GET / HTTP/1.1\r\nHost: \xff\r\n\r\n";
        assert_eq!(parse(bytes), Err(BAD_REQUEST));
        assert_eq!(parse(b"GET / HTTP/1.1\r\nHost: a\r\n"), Err(TOO_LARGE));
    }
}
