//! What a node shows by HTTP, beside its calls: as a browser and Prometheus see it, and as an attacker does.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::thread;
use std::time::Instant;

use serde_json::Value;
use thrifty_p2p::location::Location;

use crate::running::{
    LOCATION, LONG, Node, SECONDS, get, network, own_address, put, run, settle, wait_until,
};

/// All that a node answers to these bytes, until it ends the connection.
fn say(at: &Location, bytes: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect((at.address(), at.port())).unwrap();
    stream.set_read_timeout(Some(LONG)).unwrap();
    stream.write_all(bytes).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    answer
}

struct Answer {
    code: u16,
    headers: BTreeMap<String, String>,
    body: String,
}

fn read(answer: Vec<u8>) -> Answer {
    let answer = String::from_utf8(answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    let mut lines = head.split("\r\n");
    let status = lines.next().unwrap();
    let (version, code) = status.split_once(' ').unwrap();
    assert_eq!(version, "HTTP/1.1");
    let headers = lines.map(|line| {
        let (name, value) = line.split_once(": ").expect("a header");
        (name.to_ascii_lowercase(), value.to_owned())
    });
    Answer {
        code: code.split(' ').next().unwrap().parse().unwrap(),
        headers: headers.collect(),
        body: body.to_owned(),
    }
}

fn ask(at: &Location, method: &str, path: &str, host: &str) -> Answer {
    let request = format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\nAccept: */*\r\n\r\n");
    let answer = read(say(at, request.as_bytes()));
    let header = |name: &str| answer.headers.get(name).map(String::as_str);
    assert_eq!(header("connection"), Some("close"));
    assert_eq!(header("cache-control"), Some("no-store"));
    assert_eq!(header("x-content-type-options"), Some("nosniff"));
    let policy = header("content-security-policy").unwrap();
    assert!(policy.contains("default-src 'none'") && policy.contains("frame-ancestors 'none'"));
    if method != "HEAD" {
        assert_eq!(
            header("content-length"),
            Some(&*answer.body.len().to_string())
        );
    }
    answer
}

fn shown(at: &Location, path: &str) -> String {
    let answer = ask(at, "GET", path, at.name());
    assert_eq!(answer.code, 200, "{path}: {}", answer.body);
    answer.body
}

fn two() -> [Node; 2] {
    let address = own_address();
    let nodes = [0, 1].map(|_| Node::store(&address, &[]));
    settle(&[&nodes[0], &nodes[1]]);
    nodes
}

#[test]
fn must_show_page_metrics_and_status() {
    let nodes = two();
    let at = &nodes[0].location;
    for (path, kind) in [
        ("/", "text/html; charset=utf-8"),
        ("/metrics", "text/plain; version=0.0.4; charset=utf-8"),
        ("/status.json", "application/json; charset=utf-8"),
    ] {
        for path in [path.to_owned(), format!("{path}?a=b")] {
            let got = ask(at, "GET", &path, at.name());
            let head = ask(at, "HEAD", &path, at.name());
            assert_eq!((got.code, head.code), (200, 200), "{path}");
            assert_eq!(got.headers["content-type"], kind);
            assert_eq!(head.headers["content-type"], kind);
            assert!(!got.body.is_empty() && head.body.is_empty());
            assert_ne!(head.headers["content-length"], "0");
        }
    }
}

/// Numbers and times change between two questions.
fn constant(document: &str) -> Value {
    let mut document: Value = serde_json::from_str(document).unwrap();
    for member in document["members"].as_array_mut().unwrap() {
        for field in ["connections", "requests_per_second"] {
            assert!(member[field].take().is_u64());
        }
    }
    document
}

#[test]
fn must_show_what_status_prints() {
    let nodes = two();
    let at = &nodes[0].location;
    put(&network(), at, b"a", b"apple").unwrap();
    let printed = run(LOCATION, &["--status", "--json", "-h", at.name()], SECONDS);
    let printed = constant(&String::from_utf8(printed.stdout).unwrap());
    assert_eq!(constant(&shown(at, "/status.json")), printed);
    assert_eq!(printed["members"].as_array().unwrap().len(), 2);
    assert_eq!(printed["members"][0]["keys"], 1);
    // A member that says nothing.
    nodes[1].process.signal("STOP");
    wait_until(LONG, "it is missed", || {
        let document: Value = serde_json::from_str(&shown(at, "/status.json")).unwrap();
        document["safe"] == false && document["members"][1]["state"] == "unknown"
    });
    assert!(shown(at, "/").contains("Not every key is safe now:"));
    nodes[1].process.signal("CONT");
}

/// Checks that tags are balanced, and gives their names.
fn tags(page: &str) -> Vec<&str> {
    let (mut open, mut all) = (Vec::new(), Vec::new());
    let mut rest = page.strip_prefix("<!DOCTYPE html>").expect("a doctype");
    while let Some((text, behind)) = rest.split_once('<') {
        assert!(!text.contains('>'), "a tag without a beginning: {text}");
        let (tag, after) = behind.split_once('>').expect("a tag ends");
        let name = tag.split([' ', '/']).find(|word| !word.is_empty()).unwrap();
        assert_eq!(tag.matches('"').count() % 2, 0, "{tag}");
        if tag.starts_with('/') {
            assert_eq!(open.pop(), Some(name), "{tag} closes another one");
        } else {
            all.push(name);
            if !tag.ends_with('/') {
                open.push(name);
            }
        }
        rest = after;
    }
    assert!(open.is_empty() && rest.trim().is_empty(), "{open:?} {rest}");
    all
}

#[test]
fn must_draw_the_ring_in_a_page_that_needs_nothing_else() {
    let nodes = two();
    let page = shown(&nodes[1].location, "/");
    let tags = tags(&page);
    let count = |name| tags.iter().filter(|tag| **tag == name).count();
    assert_eq!((count("path"), count("tr"), count("script")), (2, 3, 0));
    for node in &nodes {
        assert!(
            page.contains(&format!("<title>{}, full, ", node.location)),
            "{page}"
        );
    }
    assert!(page.contains("Every key is safe."), "{page}");
    for outside in ["http://", "https://", "src=", "url(", "@import"] {
        assert!(!page.contains(outside), "{outside}");
    }
}

/// The sums of a text of metrics by name and labels, if it is what Prometheus' text format wants; and the kind of each
/// family.
fn parse(text: &str) -> (BTreeMap<String, f64>, BTreeMap<String, String>) {
    let is_name = |name: &str| {
        let part = |c: char| c.is_ascii_alphanumeric() || c == '_';
        name.chars().all(part) && name.starts_with(|c: char| c.is_ascii_alphabetic())
    };
    let (mut series, mut kinds) = (BTreeMap::new(), BTreeMap::new());
    let mut helped = BTreeSet::new();
    let mut family = String::new();
    assert!(text.ends_with('\n'));
    for line in text.lines() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            let (name, help) = help.split_once(' ').unwrap();
            assert!(is_name(name) && help.ends_with('.'), "{line}");
            assert!(helped.insert(name), "{name} has two helps");
            continue;
        }
        if let Some(kind) = line.strip_prefix("# TYPE ") {
            let (name, kind) = kind.split_once(' ').unwrap();
            assert!(helped.contains(name), "{name} has no help");
            assert!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
            assert_eq!(kind == "counter", name.ends_with("_total"), "{line}");
            let twice = kinds.insert(name.to_owned(), kind.to_owned());
            assert_eq!(twice, None, "{name} has two kinds");
            family = name.to_owned();
            continue;
        }
        let (key, value) = line.rsplit_once(' ').unwrap();
        let value: f64 = value
            .parse()
            .unwrap_or_else(|_| panic!("no number: {line}"));
        assert!(value >= 0.0 && value.is_finite(), "{line}");
        let (name, labels) = match key.split_once('{') {
            Some((name, labels)) => (name, labels.strip_suffix('}').expect("labels end")),
            None => (key, ""),
        };
        let suffix = name
            .strip_prefix(&*family)
            .unwrap_or_else(|| panic!("stray: {line}"));
        let of_histogram = kinds[&family] == "histogram";
        let suffixes: &[&str] = match of_histogram {
            true => &["_bucket", "_sum", "_count"],
            false => &[""],
        };
        assert!(is_name(name) && suffixes.contains(&suffix), "{line}");
        let mut names = BTreeSet::new();
        for label in labels.split(',').filter(|label| !label.is_empty()) {
            let (name, value) = label.split_once('=').unwrap();
            let value = value.strip_prefix('"').and_then(|v| v.strip_suffix('"'));
            let plain = |c: char| c.is_ascii_graphic() && !"\"\\{},".contains(c);
            assert!(is_name(name) && value.unwrap().chars().all(plain), "{line}");
            assert!(names.insert(name), "{line}");
        }
        assert_eq!(suffix == "_bucket", names.contains("le"), "{line}");
        assert_eq!(series.insert(key.to_owned(), value), None, "twice: {line}");
    }
    (series, kinds)
}

fn metrics(at: &Location) -> BTreeMap<String, f64> {
    parse(&shown(at, "/metrics")).0
}

#[test]
fn must_give_metrics_that_prometheus_understands() {
    let nodes = two();
    let at = &nodes[0].location;
    let (series, kinds) = parse(&shown(at, "/metrics"));
    for (name, kind) in [
        ("thrifty_requests_total", "counter"),
        ("thrifty_request_duration_seconds", "histogram"),
        ("thrifty_received_bytes_total", "counter"),
        ("thrifty_sent_bytes_total", "counter"),
        ("thrifty_keys", "gauge"),
        ("thrifty_safe", "gauge"),
        ("thrifty_replicas_missing", "gauge"),
        ("thrifty_members", "gauge"),
        ("thrifty_connections", "gauge"),
        ("process_threads", "gauge"),
        ("process_resident_memory_bytes", "gauge"),
        ("process_start_time_seconds", "gauge"),
    ] {
        assert_eq!(kinds[name], kind, "{name}");
    }
    let name = "thrifty_request_duration_seconds";
    let bucket = |(key, count): (&String, &f64)| {
        let end = key.strip_prefix(&format!("{name}_bucket{{le=\""))?;
        let end = end.strip_suffix("\"}")?.replace("+Inf", "inf");
        Some((end.parse::<f64>().unwrap(), *count))
    };
    let mut buckets: Vec<_> = series.iter().filter_map(bucket).collect();
    buckets.sort_by(|one, other| one.0.total_cmp(&other.0));
    assert!(buckets.len() > 10 && buckets[buckets.len() - 1].0.is_infinite());
    assert!(buckets.is_sorted_by(|one, other| one.0 < other.0 && one.1 <= other.1));
    let count = series[&format!("{name}_count")];
    assert_eq!(buckets[buckets.len() - 1].1, count);
    assert!(count > 0.0 && series[&format!("{name}_sum")] > 0.0);
    assert_eq!(series["thrifty_members{state=\"full\"}"], 2.0);
    assert_eq!(series["thrifty_safe"], 1.0);
    assert_eq!(series["thrifty_replicas_missing"], 0.0);
    let started = series["process_start_time_seconds"];
    let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_secs_f64();
    assert!((now - started).abs() < 60.0);
}

#[test]
fn must_say_in_metrics_whether_every_key_is_safe() {
    let mut nodes = two().into_iter();
    let (first, second) = (nodes.next().unwrap(), nodes.next().unwrap());
    let says = |what: &str, safe: f64, missing: &[f64]| {
        wait_until(LONG, what, || {
            let series = metrics(&first.location);
            let lacks = series["thrifty_replicas_missing"];
            series["thrifty_safe"] == safe && missing.contains(&lacks)
        });
    };
    says("all is well", 1.0, &[0.0]);
    // Before it is lost, nobody is missing, but nobody knows what it has.
    second.process.signal("STOP");
    says("the other is silent", 0.0, &[0.0, 1.0]);
    says("the other is lost", 0.0, &[1.0]);
    second.process.signal("CONT");
    says("the other is back", 1.0, &[0.0]);
}

#[test]
fn must_count_calls_beside_what_it_shows() {
    let nodes = two();
    let (at, network) = (&nodes[0].location, network());
    let before = metrics(at);
    for number in 0..20 {
        put(&network, at, format!("key {number}").as_bytes(), b"value").unwrap();
        assert_eq!(get(&network, at, b"key 0").unwrap(), b"value");
        shown(at, "/metrics");
    }
    let too_large = vec![b'x'; thrifty_p2p::locator::LIMITS.string_bytes_max + 1];
    put(&network, at, b"large", &too_large).unwrap_err();
    let after = metrics(at);
    let grown = |name: &str| after[name] - before[name];
    let requests = |method: &str, outcome: &str| {
        grown(&format!(
            "thrifty_requests_total{{method=\"{method}\",outcome=\"{outcome}\"}}"
        ))
    };
    assert_eq!(requests("put", "answer"), 20.0);
    assert_eq!(requests("get", "answer"), 20.0);
    assert_eq!(requests("put", "exception"), 1.0);
    assert_eq!(requests("debug", "answer"), 0.0);
    assert!(grown("thrifty_request_duration_seconds_count") >= 41.0);
    assert!(grown("thrifty_received_bytes_total") > too_large.len() as f64);
    assert!(
        grown("thrifty_sent_bytes_total") > 20.0 * 1000.0,
        "what is shown counts"
    );
    assert_eq!(after["thrifty_keys"], 20.0);
}

#[test]
fn must_answer_only_requests_that_name_it_and_what_it_has() {
    let node = Node::store(&own_address(), &[]);
    settle(&[&node]);
    let at = &node.location;
    let code = |method, path, host: &str| ask(at, method, path, host).code;
    for host in [
        at.name(),
        at.address(),
        "localhost",
        "LocalHost:80",
        "10.1.2.3:1",
        "[::1]:9900",
    ] {
        assert_eq!(code("GET", "/metrics", host), 200, "{host}");
    }
    for host in [
        "evil.example",
        "evil.example:9900",
        "localhost.evil.example",
        "127.0.0.1.nip.io",
    ] {
        for path in ["/", "/metrics", "/status.json", "/none"] {
            assert_eq!(code("GET", path, host), 421, "{host}");
        }
    }
    for host in ["", "a:b:c", "[::1", "a:99999"] {
        assert!([400, 421].contains(&code("GET", "/", host)), "{host}");
    }
    for method in [
        "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "CONNECT",
    ] {
        let answer = ask(at, method, "/", at.name());
        assert_eq!(answer.code, 405, "{method}");
        assert_eq!(answer.headers["allow"], "GET, HEAD");
    }
    for path in [
        "/none",
        "//",
        "/metrics/",
        "/../metrics",
        "*",
        "http://a/",
        "/%2e",
        "/<script>",
    ] {
        let answer = ask(at, "GET", path, at.name());
        assert_eq!(answer.code, 404, "{path}");
        assert_eq!(
            answer.body, "Not Found\n",
            "nothing of the request comes back"
        );
    }
    let body = "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\nhello";
    assert_eq!(read(say(at, body.as_bytes())).code, 405);
    for bad in [
        "GET / HTTP/1.1\r\n\r\n",
        "GET /\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
    ] {
        assert_eq!(read(say(at, bad.as_bytes())).code, 400, "{bad:?}");
    }
}

#[test]
fn must_bear_lines_without_end_and_half_requests() {
    let node = Node::store(&own_address(), &[]);
    settle(&[&node]);
    let at = &node.location;
    let long = [b"GET /".to_vec(), vec![b'x'; 100_000]].concat();
    assert_eq!(read(say(at, &long)).code, 431);
    let many = format!("GET / HTTP/1.1\r\n{}", "A: b\r\n".repeat(10_000));
    assert_eq!(read(say(at, many.as_bytes())).code, 431);
    let request = b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n";
    for length in 0..request.len() {
        let mut stream = TcpStream::connect((at.address(), at.port())).unwrap();
        stream.set_read_timeout(Some(LONG)).unwrap();
        stream.write_all(&request[..length]).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let mut answer = Vec::new();
        match stream.read_to_end(&mut answer) {
            Ok(_) => assert!(answer.is_empty(), "after {length}"),
            Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset),
        }
    }
    // Byte by byte, while others are served.
    let mut slow = TcpStream::connect((at.address(), at.port())).unwrap();
    slow.set_read_timeout(Some(LONG)).unwrap();
    slow.set_nodelay(true).unwrap();
    for byte in request {
        slow.write_all(&[*byte]).unwrap();
        shown(at, "/metrics");
    }
    let mut answer = Vec::new();
    slow.read_to_end(&mut answer).unwrap();
    assert_eq!(read(answer).code, 200);
}

/// However many pages are loaded, the other nodes are asked once a second.
#[test]
fn must_ask_the_others_once_a_second_however_many_look() {
    let nodes = two();
    let [at, other] = [&nodes[0].location, &nodes[1].location];
    let asked = "thrifty_requests_total{method=\"status\",outcome=\"answer\"}";
    let before = metrics(other)[asked];
    let began = Instant::now();
    thread::scope(|scope| {
        for _ in 0..20 {
            scope.spawn(|| (0..20).for_each(|_| drop(shown(at, "/"))));
        }
    });
    let most = began.elapsed().as_secs_f64() + 2.0;
    let times = metrics(other)[asked] - before;
    assert!((1.0..=most).contains(&times), "{times} times, not {most}");
}

#[test]
fn must_show_nothing_if_told_so() {
    let node = Node::store(&own_address(), &["--no-http"]);
    settle(&[&node]);
    let request = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";
    assert!(say(&node.location, request).is_empty());
}
