//! Questions to nodes, over one blocking connection each: which one holds a key (`get_node`), which are there
//! (`get_all`), how many keys one has (`/metrics`).

use crate::Outcome;
use crate::message::Template;
use std::collections::BTreeMap;
use std::io::{BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

/// Requests sent before their answers are read.
const BATCH: u32 = 1000;
/// How long a node may take for an answer.
const ANSWER_TIME: Duration = Duration::from_secs(10);
/// Pause before a node is asked again.
const PAUSE: Duration = Duration::from_millis(1);
/// Pause between two looks at what nodes have in [`watch`]: each costs a node some 0.1 ms.
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// How long [`watch`] goes on at most.
const WATCH_MAX: Duration = Duration::from_secs(60);
/// The longest text and the longest list that are believed.
const LENGTH_MAX: usize = 1 << 20;

/// `yardstick holders HOST:PORT KEYS`: how many of the first KEYS keys each node holds, as that node sees it.
pub fn holders(arguments: &[String]) -> Outcome {
    let [address, keys] = arguments else {
        return Err("usage: yardstick holders HOST:PORT KEYS".into());
    };
    let mut node = Node::connect(address.parse()?)?;
    let mut counts = BTreeMap::new();
    node.each_holder(keys.parse()?, |_, holder| {
        *counts.entry(holder).or_insert(0_u32) += 1;
        true
    })?;
    for (holder, count) in counts {
        println!("{holder}\t{count}");
    }
    Ok(())
}

/// `yardstick await COUNT HOST:PORT...`: waits until every one of these nodes lists COUNT members, then prints the time
/// as seconds since 1970. A node that does not listen yet is tried again.
pub fn await_members(arguments: &[String]) -> Outcome {
    let [count, addresses @ ..] = arguments else {
        return Err("usage: yardstick await COUNT HOST:PORT...".into());
    };
    let count: usize = count.parse()?;
    for address in addresses {
        let address = address.parse()?;
        let mut node = loop {
            match Node::connect(address) {
                Ok(node) => break node,
                Err(_) => thread::sleep(PAUSE), // not there yet; the caller's time limit ends this
            }
        };
        while node.members()?.len() != count {
            thread::sleep(PAUSE);
        }
    }
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?;
    println!("{:.6}", now.as_secs_f64());
    Ok(())
}

/// `yardstick watch SECONDS NEWCOMER OLD`: waits until the newcomer has got keys and neither node has got or lost any for
/// so long. It prints how many the newcomer has, how long it took until it had them, and until the old one had forgotten
/// them, from the last look at which the newcomer had none.
pub fn watch(arguments: &[String]) -> Outcome {
    let [seconds, newcomer, old] = arguments else {
        return Err("usage: yardstick watch SECONDS NEWCOMER OLD".into());
    };
    let quiet = Duration::from_secs_f64(seconds.parse()?);
    let begin = Instant::now();
    let (mut started, mut changed) = (Duration::ZERO, [Duration::ZERO; 2]);
    let mut last = [0, keys_at(old)?];
    while last[0] == 0 || changed.iter().any(|at| begin.elapsed() - *at < quiet) {
        let now = begin.elapsed();
        if now > WATCH_MAX {
            return Err(format!("{last:?} keys after {WATCH_MAX:?}, and no end").into());
        }
        let taken = match keys_at(newcomer) {
            // It has not begun yet.
            Err(_) if last[0] == 0 => 0,
            count => count?,
        };
        let looks = [taken, keys_at(old)?];
        for place in 0..2 {
            if looks[place] != last[place] {
                (last[place], changed[place]) = (looks[place], begin.elapsed());
            }
        }
        if last[0] == 0 {
            started = now;
        }
        thread::sleep(LOOK_EVERY);
    }
    let [taken, forgotten] = changed.map(|at| (at - started).as_secs_f64());
    println!(
        "taken\t{}\ntaken_s\t{taken:.4}\nforgotten_s\t{forgotten:.4}",
        last[0]
    );
    Ok(())
}

/// How many keys a node has, as its metrics say.
fn keys_at(node: &str) -> Outcome<u64> {
    let mut stream = TcpStream::connect(node)?;
    stream.set_read_timeout(Some(ANSWER_TIME))?;
    write!(stream, "GET /metrics HTTP/1.1\r\nHost: {node}\r\n\r\n")?;
    let mut metrics = String::new();
    stream.read_to_string(&mut metrics)?;
    let mut lines = metrics.lines();
    let keys = lines.find_map(|line| line.strip_prefix("thrifty_keys "));
    Ok(keys.ok_or("no number of keys in the metrics")?.parse()?)
}

/// Up to `wanted` of the first `keys` keys that this node holds (`here`) or another one.
pub fn keys_held(address: SocketAddr, here: bool, keys: u32, wanted: usize) -> Outcome<Vec<u32>> {
    let name = address.to_string();
    let mut found = Vec::new();
    Node::connect(address)?.each_holder(keys, |key, holder| {
        if (holder == name) == here {
            found.push(key);
        }
        found.len() < wanted
    })?;
    if found.is_empty() {
        return Err(format!("of {keys} keys none is held as wanted").into());
    }
    Ok(found)
}

struct Node {
    stream: BufReader<TcpStream>,
}

impl Node {
    fn connect(address: SocketAddr) -> Outcome<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(ANSWER_TIME))?;
        Ok(Node {
            stream: BufReader::new(stream),
        })
    }

    /// Calls `see` with each of the first `keys` keys and the name of its holder, until that returns false.
    fn each_holder(&mut self, keys: u32, mut see: impl FnMut(u32, String) -> bool) -> Outcome {
        let question = Template::thrift_call_with_key("get_node");
        for start in (0..keys).step_by(BATCH as usize) {
            let batch = start..keys.min(start + BATCH);
            let mut out = Vec::new();
            for key in batch.clone() {
                question.write(key, key, &mut out);
            }
            self.stream.get_mut().write_all(&out)?;
            let mut wanted = true;
            for key in batch {
                self.expect(&[0x80, 1, 0, 2, 0, 0, 0, 8])?;
                self.expect(b"get_node")?;
                self.expect(&key.to_be_bytes())?;
                self.expect(&[12, 0, 0])?;
                let holder = self.location()?;
                self.expect(&[0])?;
                wanted = wanted && see(key, holder);
            }
            if !wanted {
                break;
            }
        }
        Ok(())
    }

    fn members(&mut self) -> Outcome<Vec<String>> {
        let question = b"\x80\x01\0\x01\0\0\0\x07get_all\0\0\0\0\0";
        self.stream.get_mut().write_all(question)?;
        self.expect(b"\x80\x01\0\x02\0\0\0\x07get_all\0\0\0\0\x0f\0\0\x0c")?;
        let count = self.length()?;
        let members = (0..count).map(|_| self.location()).collect();
        self.expect(&[0])?;
        members
    }

    /// A Location, as every library writes it.
    fn location(&mut self) -> Outcome<String> {
        self.expect(&[11, 0, 1])?;
        let mut host = vec![0; self.length()?];
        self.stream.read_exact(&mut host)?;
        self.expect(&[6, 0, 2])?;
        let mut port = [0; 2];
        self.stream.read_exact(&mut port)?;
        self.expect(&[0])?;
        Ok(format!(
            "{}:{}",
            String::from_utf8(host)?,
            u16::from_be_bytes(port)
        ))
    }

    fn length(&mut self) -> Outcome<usize> {
        let mut bytes = [0; 4];
        self.stream.read_exact(&mut bytes)?;
        let length = u32::from_be_bytes(bytes) as usize;
        if length > LENGTH_MAX {
            return Err(format!("a length of {length} in an answer").into());
        }
        Ok(length)
    }

    fn expect(&mut self, expected: &[u8]) -> Outcome {
        let mut got = vec![0; expected.len()];
        self.stream.read_exact(&mut got)?;
        if got != expected {
            let (expected, got) = (expected.escape_ascii(), got.escape_ascii());
            return Err(format!("expected {expected}, got {got}").into());
        }
        Ok(())
    }
}
