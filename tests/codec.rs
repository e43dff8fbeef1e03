//! The codec against messages that real Thrift libraries wrote (`tests/data/wire.jsonl`), cut into
//! pieces, mutated, and against bytes at random.

mod counting;

use counting::measure;
use serde_json::Value;
use thrifty_p2p::diststore::KeyValue;
use thrifty_p2p::location::Location;
use thrifty_p2p::thrift::{
    Decode, Encode, Error, Exception, Limits, Message, MessageKind, Reader, Splitter, Write,
    begin_message, end_frame, wire,
};

/// A line of `wire.jsonl`.
struct Line {
    id: String,
    bytes: Vec<u8>,
    decoded: Value,
}

fn lines() -> Vec<Line> {
    let path = format!("{}/tests/data/wire.jsonl", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
    let line = |line| {
        let value: Value = serde_json::from_str(line).unwrap();
        Line {
            id: text_of(&value["id"]).to_owned(),
            bytes: unhex(text_of(&value["hex"])),
            decoded: value["decoded"].clone(),
        }
    };
    let lines: Vec<_> = text.lines().map(line).collect();
    assert!(lines.len() > 100);
    lines
}

fn text_of(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("no text: {value}"))
}

fn list_of(value: &Value) -> &[Value] {
    value
        .as_array()
        .unwrap_or_else(|| panic!("no list: {value}"))
}

fn integer_of(value: &Value) -> i64 {
    value
        .as_i64()
        .unwrap_or_else(|| panic!("no integer: {value}"))
}

/// A string's bytes: text, or `{"hex": …}` where they are none.
fn bytes_of(value: &Value) -> Vec<u8> {
    match value.get("hex") {
        Some(hex) => unhex(text_of(hex)),
        None => text_of(value).as_bytes().to_vec(),
    }
}

fn unhex(text: &str) -> Vec<u8> {
    let pairs = text.as_bytes().chunks(2);
    let byte = |pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    pairs.map(byte).collect()
}

fn type_byte(name: &Value) -> u8 {
    match text_of(name) {
        "bool" => wire::BOOL,
        "byte" => wire::BYTE,
        "double" => wire::DOUBLE,
        "i16" => wire::I16,
        "i32" => wire::I32,
        "i64" => wire::I64,
        "string" => wire::STRING,
        "struct" => wire::STRUCT,
        "map" => wire::MAP,
        "set" => wire::SET,
        "list" => wire::LIST,
        other => panic!("no such type: {other}"),
    }
}

fn kind_of(decoded: &Value) -> MessageKind {
    match text_of(&decoded["type"]) {
        "call" => MessageKind::Call,
        "reply" => MessageKind::Reply,
        "exception" => MessageKind::Exception,
        "oneway" => MessageKind::Oneway,
        other => panic!("no such kind: {other}"),
    }
}

/// All of a message that comes in one piece.
fn whole(bytes: &[u8]) -> Message<'_> {
    let found = Splitter::default().next(bytes, &Limits::default());
    let (message, length) = found.expect("a message").expect("all of it");
    assert_eq!(length, bytes.len());
    message
}

/// Reads a value and holds it against what another decoder found there.
fn assert_value(reader: &mut Reader<'_>, kind: u8, expected: &Value) {
    let integer = |value: i64| assert_eq!(value, integer_of(expected));
    match kind {
        wire::BOOL => assert_eq!(Some(reader.bool().unwrap()), expected.as_bool()),
        wire::BYTE => integer((reader.byte().unwrap() as i8).into()),
        wire::I16 => integer(reader.i16().unwrap().into()),
        wire::I32 => integer(reader.i32().unwrap().into()),
        wire::I64 => integer(reader.i64().unwrap()),
        wire::DOUBLE => assert_eq!(Some(reader.double().unwrap()), expected.as_f64()),
        wire::STRING => assert_eq!(reader.bytes().unwrap(), bytes_of(expected)),
        wire::STRUCT => assert_fields(reader, list_of(expected)),
        wire::LIST | wire::SET => {
            let (element, items) = (type_byte(&expected["elem"]), list_of(&expected["items"]));
            assert_eq!(reader.list(element), Ok(items.len()));
            for item in items {
                assert_value(reader, element, item);
            }
        }
        wire::MAP => {
            let kinds = [&expected["key"], &expected["val"]].map(type_byte);
            let entries = list_of(&expected["entries"]);
            assert_eq!([reader.byte(), reader.byte()], kinds.map(Ok));
            assert_eq!(reader.i32(), Ok(entries.len().try_into().unwrap()));
            for entry in entries {
                assert_value(reader, kinds[0], &entry[0]);
                assert_value(reader, kinds[1], &entry[1]);
            }
        }
        _ => panic!("no such type: {kind}"),
    }
}

fn assert_fields(reader: &mut Reader<'_>, expected: &[Value]) {
    for field in expected {
        let (kind, id) = (type_byte(&field["type"]), integer_of(&field["id"]));
        let (found, number) = reader.field().unwrap().expect("a field");
        assert_eq!((found, i64::from(number)), (kind, id));
        // The same place is skipped as well as read.
        let mut skipped = *reader;
        assert_value(reader, kind, &field["value"]);
        skipped.skip(kind).unwrap();
        let rest = |mut reader: Reader<'_>| {
            let mut bytes = Vec::new();
            while let Ok(byte) = reader.byte() {
                bytes.push(byte);
            }
            bytes
        };
        assert_eq!(rest(skipped), rest(*reader));
    }
    assert_eq!(reader.field(), Ok(None));
}

#[test]
fn must_read_every_message_as_the_libraries_do() {
    let limits = Limits::default();
    for line in lines() {
        let message = whole(&line.bytes);
        let decoded = &line.decoded;
        let strict = line.bytes[0] == 0x80;
        assert_eq!(Some(strict), decoded["strict"].as_bool(), "{}", line.id);
        assert_eq!(message.kind, kind_of(decoded), "{}", line.id);
        assert_eq!(message.name, text_of(&decoded["name"]).as_bytes());
        assert_eq!(i64::from(message.sequence), integer_of(&decoded["seqid"]));
        assert!(!message.framed);
        let mut reader = message.reader(&limits);
        assert_fields(&mut reader, list_of(&decoded["fields"]));
        assert_eq!(reader.byte(), Err(Error::Truncated), "{}: the end", line.id);
    }
}

/// Writes a value with our own functions, as our services do for these types.
fn write_value(out: &mut Vec<u8>, kind: u8, value: &Value) {
    match kind {
        wire::I32 => out.write_i32(integer_of(value).try_into().unwrap()),
        wire::STRING => out.write_bytes(&bytes_of(value)),
        wire::STRUCT => write_struct(out, list_of(value)),
        wire::LIST => {
            let (element, items) = (type_byte(&value["elem"]), list_of(&value["items"]));
            out.write_list(element, items.len());
            for item in items {
                write_value(out, element, item);
            }
        }
        _ => panic!("none of ours: {kind}"),
    }
}

fn write_struct(out: &mut Vec<u8>, fields: &[Value]) {
    for field in fields {
        let id = integer_of(&field["id"]).try_into().unwrap();
        let value = &field["value"];
        match type_byte(&field["type"]) {
            wire::BOOL => out.write_bool_field(id, value.as_bool().unwrap()),
            wire::BYTE => out.write_byte_field(id, integer_of(value) as u8),
            wire::I16 => out.write_i16_field(id, integer_of(value).try_into().unwrap()),
            wire::I64 => out.write_i64_field(id, integer_of(value)),
            wire::STRING => out.write_bytes_field(id, &bytes_of(value)),
            kind => {
                out.write_field(kind, id);
                write_value(out, kind, value);
            }
        }
    }
    out.write_stop();
}

#[test]
fn must_write_the_bytes_that_the_libraries_write() {
    let mut written = 0;
    for line in lines() {
        let decoded = &line.decoded;
        // We write no old headers, and nothing of the types that only odd requests have.
        let odd = line.id.contains("extra") || line.id.contains(".early.store_");
        if decoded["strict"] == false || odd {
            continue;
        }
        let mut out = Vec::new();
        let name = text_of(&decoded["name"]).as_bytes();
        let sequence = integer_of(&decoded["seqid"]).try_into().unwrap();
        begin_message(&mut out, kind_of(decoded), name, sequence, false);
        write_struct(&mut out, list_of(&decoded["fields"]));
        assert_eq!(out, line.bytes, "{}", line.id);
        written += 1;
    }
    assert!(written > 90, "{written}");
}

#[test]
fn must_carry_locations_as_the_libraries_do() {
    let limits = Limits::default();
    let mut carried = 0;
    for line in lines() {
        let mut reader = whole(&line.bytes).reader(&limits);
        while let Some((kind, _)) = reader.field().unwrap() {
            let start = reader;
            reader.skip(kind).unwrap();
            let mut again = start;
            let mut out = Vec::new();
            if line.id.starts_with("rep.get_all") {
                let locations = Vec::<Location>::decode(&mut again).unwrap();
                locations.encode(&mut out);
            } else if kind == wire::STRUCT && !line.id.contains("extra") {
                let Ok(location) = Location::decode(&mut again) else {
                    continue;
                };
                location.encode(&mut out);
            } else {
                continue;
            }
            let end = line.bytes.len() - 1;
            assert!(
                line.bytes[..end].windows(out.len()).any(|part| part == out),
                "{}: {out:?}",
                line.id
            );
            carried += 1;
        }
    }
    assert!(carried > 10, "{carried}");
}

#[test]
fn must_read_the_exceptions_of_the_libraries() {
    let mut read = 0;
    for line in lines() {
        let message = whole(&line.bytes);
        if message.kind == MessageKind::Exception {
            let exception = Exception::read(message.reader(&Limits::default())).unwrap();
            // One library sends no kind, another no text.
            let mut expected = Exception::new(0, "");
            for field in list_of(&line.decoded["fields"]) {
                match integer_of(&field["id"]) {
                    1 => text_of(&field["value"]).clone_into(&mut expected.message),
                    _ => expected.kind = integer_of(&field["value"]).try_into().unwrap(),
                }
            }
            assert_eq!(exception, expected, "{}", line.id);
            assert!([0, Exception::UNKNOWN_METHOD].contains(&exception.kind));
            read += 1;
        }
    }
    assert!(read >= 3, "{read}");
}

/// splitmix64: the numbers of a seed are the same everywhere.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % bound as u64) as usize
    }

    fn bytes(&mut self, length: usize) -> Vec<u8> {
        (0..length).map(|_| self.below(256) as u8).collect()
    }
}

/// The seeds of a test: those of `THRIFTY_SEED` if it is set (a number, as a failure names it),
/// else `count` from 0 on. More are tried with `THRIFTY_SEEDS=100000`.
fn seeds(count: u64) -> std::ops::Range<u64> {
    let number = |name| {
        let text = std::env::var(name).ok()?;
        Some(
            text.parse::<u64>()
                .unwrap_or_else(|error| panic!("{name}: {error}")),
        )
    };
    match number("THRIFTY_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("THRIFTY_SEEDS").unwrap_or(count),
    }
}

/// Says which seed it was if the test ends in a panic.
struct Seed(u64);

impl Drop for Seed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("with THRIFTY_SEED={}", self.0);
        }
    }
}

/// What a message says, without the buffer it lies in.
type Owned = (MessageKind, Vec<u8>, i32, Vec<u8>, bool);

fn owned(message: &Message<'_>) -> Owned {
    let (name, body) = (message.name.to_vec(), message.body.to_vec());
    (message.kind, name, message.sequence, body, message.framed)
}

/// Gives a stream to one splitter in pieces, of which `piece` says the lengths, as a connection
/// does: what has been read goes from the front of the buffer. The messages, the rest, and the
/// error that ended it.
fn feed(stream: &[u8], mut piece: impl FnMut() -> usize) -> (Vec<Owned>, Vec<u8>, Option<Error>) {
    let limits = Limits::default();
    let mut splitter = Splitter::default();
    let mut buffer = Vec::new();
    let mut messages = Vec::new();
    let mut rest = stream;
    loop {
        loop {
            match splitter.next(&buffer, &limits) {
                Err(error) => return (messages, buffer, Some(error)),
                Ok(None) => break,
                Ok(Some((message, length))) => {
                    messages.push(owned(&message));
                    buffer.drain(..length);
                }
            }
        }
        if rest.is_empty() {
            return (messages, buffer, None);
        }
        let (head, tail) = rest.split_at(piece().clamp(1, rest.len()));
        buffer.extend(head);
        rest = tail;
    }
}

/// The same message in a frame.
fn in_frame(message: &[u8]) -> Vec<u8> {
    let mut out = vec![0; 4];
    out.extend(message);
    end_frame(&mut out, 0);
    out
}

/// Messages one behind the other, some framed, as no two neighbours need be alike.
fn stream(lines: &[Line], numbers: &mut Numbers, count: usize) -> (Vec<u8>, Vec<Owned>) {
    let (mut stream, mut expected) = (Vec::new(), Vec::new());
    for _ in 0..count {
        let bytes = &lines[numbers.below(lines.len())].bytes;
        let framed = numbers.below(3) == 0;
        let mut message = whole(bytes);
        message.framed = framed;
        expected.push(owned(&message));
        stream.extend(if framed {
            in_frame(bytes)
        } else {
            bytes.clone()
        });
    }
    (stream, expected)
}

#[test]
fn must_find_the_same_messages_however_they_are_cut() {
    let lines = lines();
    let everything = lines.iter().flat_map(|line| line.bytes.clone());
    let everything: Vec<_> = everything.collect();
    let expected: Vec<_> = lines
        .iter()
        .map(|line| owned(&whole(&line.bytes)))
        .collect();
    assert_eq!(
        feed(&everything, || usize::MAX),
        (expected.clone(), vec![], None)
    );
    assert_eq!(feed(&everything, || 1), (expected, vec![], None));
    for seed in seeds(200) {
        let _named = Seed(seed);
        let mut numbers = Numbers(seed);
        let (stream, expected) = stream(&lines, &mut numbers, 20);
        let longest = 1 + numbers.below(200);
        let found = feed(&stream, || 1 + numbers.below(longest));
        assert_eq!(found, (expected, vec![], None));
    }
}

#[test]
fn must_wait_for_the_rest_of_every_message() {
    for line in lines() {
        for bytes in [line.bytes.clone(), in_frame(&line.bytes)] {
            for end in 0..bytes.len() {
                let found = Splitter::default().next(&bytes[..end], &Limits::default());
                assert_eq!(found, Ok(None), "{}, {end} bytes", line.id);
            }
        }
    }
}

/// A value of type `kind`, at random, nested at most `depth` levels more.
fn random_value(numbers: &mut Numbers, kind: u8, depth: usize) -> Vec<u8> {
    const FLAT: [u8; 8] = [
        wire::BOOL,
        wire::BYTE,
        wire::DOUBLE,
        wire::I16,
        wire::I32,
        wire::I64,
        wire::STRING,
        wire::UUID,
    ];
    let any = |numbers: &mut Numbers| {
        let types = [&FLAT[..], &[wire::STRUCT, wire::MAP, wire::SET, wire::LIST]].concat();
        let choice = if depth > 1 { types.len() } else { FLAT.len() };
        types[numbers.below(choice)]
    };
    let size = |kind| match kind {
        wire::BOOL | wire::BYTE => 1,
        wire::I16 => 2,
        wire::I32 => 4,
        wire::UUID => 16,
        _ => 8,
    };
    let length = numbers.below(4);
    let mut out = Vec::new();
    match kind {
        wire::STRING => out.write_bytes(&numbers.bytes(length)),
        wire::STRUCT => {
            for _ in 0..length {
                let kind = any(numbers);
                out.write_field(kind, numbers.below(1 << 16) as u16 as i16);
                out.extend(random_value(numbers, kind, depth - 1));
            }
            out.write_stop();
        }
        wire::LIST | wire::SET => {
            let kind = any(numbers);
            out.write_list(kind, length);
            for _ in 0..length {
                out.extend(random_value(numbers, kind, depth - 1));
            }
        }
        wire::MAP => {
            let kinds = [any(numbers), any(numbers)];
            out.push(kinds[0]);
            out.write_list(kinds[1], length);
            for _ in 0..length {
                out.extend(random_value(numbers, kinds[0], depth - 1));
                out.extend(random_value(numbers, kinds[1], depth - 1));
            }
        }
        kind => out.extend(numbers.bytes(size(kind))),
    }
    out
}

const ALL_TYPES: [u8; 12] = [
    wire::BOOL,
    wire::BYTE,
    wire::DOUBLE,
    wire::I16,
    wire::I32,
    wire::I64,
    wire::STRING,
    wire::STRUCT,
    wire::MAP,
    wire::SET,
    wire::LIST,
    wire::UUID,
];

#[test]
fn must_skip_unknown_fields_of_every_type_in_any_order() {
    let limits = Limits::default();
    for seed in seeds(500) {
        let _named = Seed(seed);
        let mut numbers = Numbers(seed);
        // A location among fields of other numbers, and under its own numbers with other types.
        let mut fields = Vec::new();
        for kind in ALL_TYPES {
            for id in [0, 1, 2, 3, -1] {
                if (kind, id) != (wire::STRING, 1) && (kind, id) != (wire::I16, 2) {
                    let mut field = Vec::new();
                    field.write_field(kind, id);
                    field.extend(random_value(&mut numbers, kind, 5));
                    fields.push(field);
                }
            }
        }
        let (mut address, mut port) = (Vec::new(), Vec::new());
        address.write_bytes_field(1, b"127.0.0.1");
        port.write_i16_field(2, 9900);
        fields.extend([address, port]);
        for place in (1..fields.len()).rev() {
            fields.swap(place, numbers.below(place + 1));
        }
        let mut bytes = Vec::new();
        begin_message(&mut bytes, MessageKind::Call, b"join", 7, false);
        bytes.extend(fields.concat());
        bytes.write_stop();
        let mut reader = whole(&bytes).reader(&limits);
        let location = Location::decode(&mut reader).unwrap();
        assert_eq!(location, "127.0.0.1:9900".parse().unwrap());
        assert_eq!(reader.byte(), Err(Error::Truncated));
    }
}

fn location_of(fields: &[Vec<u8>]) -> Option<Location> {
    let bytes = [fields.concat(), vec![wire::STOP]].concat();
    match Location::decode(&mut Reader::new(&bytes, &Limits::default())) {
        Err(Error::Missing("location")) => None,
        location => Some(location.unwrap()),
    }
}

#[test]
fn must_read_locations_with_fields_twice_missing_or_of_the_wrong_type() {
    let field = |write: &dyn Fn(&mut Vec<u8>)| {
        let mut out = Vec::new();
        write(&mut out);
        out
    };
    let address = |text: &str| field(&|out| out.write_bytes_field(1, text.as_bytes()));
    let port = |port| field(&|out| out.write_i16_field(2, port));
    let wide_port = field(&|out| out.write_i32_field(2, 9900));
    let number = field(&|out| out.write_i64_field(1, 127));
    let location = |text: &str| text.parse::<Location>().ok();

    assert_eq!(location_of(&[port(1), address("a")]), location("a:1"));
    assert_eq!(location_of(&[address("a"), port(-1)]), location("a:65535"));
    // Of a field that comes twice the last counts, as in the libraries.
    let twice = [address("a"), port(1), address("b"), port(2)];
    assert_eq!(location_of(&twice), location("b:2"));
    let also_wrong = [number.clone(), address("a"), port(1), wide_port.clone()];
    assert_eq!(location_of(&also_wrong), location("a:1"));
    for missing in [
        vec![],
        vec![address("a")],
        vec![port(1)],
        vec![address("a"), wide_port],
        vec![number, port(1)],
        vec![address(""), port(0)],
        vec![address("a b"), port(1)],
        vec![field(&|out| out.write_bytes_field(1, b"\xff")), port(1)],
    ] {
        assert_eq!(location_of(&missing), None, "{missing:?}");
    }
}

#[test]
fn must_leave_out_of_a_list_what_is_no_location() {
    let mut bytes = Vec::new();
    bytes.write_list(wire::STRUCT, 3);
    bytes.write_stop();
    "a:1".parse::<Location>().unwrap().encode(&mut bytes);
    bytes.write_bytes_field(1, b"b");
    bytes.write_stop();
    let limits = Limits::default();
    let found = Vec::<Location>::decode(&mut Reader::new(&bytes, &limits));
    assert_eq!(found, Ok(vec!["a:1".parse().unwrap()]));
    let numbers = [wire::I16, 0, 0, 0, 1, 0, 1];
    let found = Vec::<Location>::decode(&mut Reader::new(&numbers, &limits));
    assert_eq!(found, Err(Error::WrongType(wire::I16)));
}

/// Takes a struct apart as far as it goes, every value in every way.
fn read_all(mut reader: Reader<'_>) {
    let mut as_location = reader;
    // Bytes at random: whatever comes of it, it comes back.
    let _ = Location::decode(&mut as_location);
    let _ = Exception::read(reader);
    while let Ok(Some((kind, _))) = reader.field() {
        let mut inside = reader;
        match kind {
            wire::STRUCT => read_all(inside),
            wire::LIST | wire::SET => {
                let _ = Vec::<Location>::decode(&mut inside);
                for element in ALL_TYPES {
                    let mut inside = reader;
                    if let Ok(length) = inside.list(element) {
                        for _ in 0..length {
                            if inside.skip(element).is_err() {
                                break;
                            }
                        }
                    }
                }
            }
            wire::STRING => {
                let _ = inside.bytes();
            }
            _ => {}
        }
        if reader.skip(kind).is_err() {
            break;
        }
    }
}

/// What a server does with what arrives. Nothing of it may panic, hang, or take memory beyond a
/// small multiple of the bytes.
fn swallow(stream: &[u8]) -> usize {
    let limits = Limits::default();
    let mut splitter = Splitter::default();
    let mut rest = stream;
    let mut found = 0;
    while let Ok(Some((message, length))) = splitter.next(rest, &limits) {
        assert!(length > 0 && length <= rest.len());
        found += 1;
        read_all(message.reader(&limits));
        rest = &rest[length..];
    }
    // As a body, too: most bytes at random are no header.
    read_all(Reader::new(stream, &limits));
    found
}

fn assert_bounded(stream: &[u8]) -> usize {
    let (found, usage) = measure(|| swallow(stream));
    // The stack of the nesting, and what is made of strings and lists of locations.
    let most = 4096 + 20 * stream.len();
    assert!(usage.peak <= most, "{usage:?} for {} bytes", stream.len());
    found
}

#[test]
fn must_survive_bytes_at_random() {
    for seed in seeds(20_000) {
        let _named = Seed(seed);
        let mut numbers = Numbers(seed);
        let length = numbers.below(200);
        let mut bytes = numbers.bytes(length);
        // Bytes that mean something come oftener.
        for byte in &mut bytes {
            if numbers.below(3) > 0 {
                *byte = [0, 0, 0, 1, 2, 8, 11, 12, 13, 15, 16, 127, 128, 255][numbers.below(14)];
            }
        }
        assert_bounded(&bytes);
        if numbers.below(2) == 0 {
            let header = b"\x80\x01\0\x01\0\0\0\x01x\0\0\0\0";
            assert_bounded(&[header, &bytes[..]].concat());
        }
    }
}

#[test]
fn must_survive_mutated_messages() {
    let lines = lines();
    let mut found = 0;
    for seed in seeds(20_000) {
        let _named = Seed(seed);
        let mut numbers = Numbers(seed);
        let (mut bytes, _) = stream(&lines, &mut numbers, 2);
        for _ in 0..1 + numbers.below(4) {
            let at = numbers.below(bytes.len());
            let until = bytes.len().min(at + 1 + numbers.below(8));
            match numbers.below(6) {
                0 => bytes[at] ^= 1 << numbers.below(8),
                1 => bytes[at] = numbers.below(256) as u8,
                2 => drop(bytes.drain(at..until)),
                3 => {
                    let part = bytes[at..until].to_vec();
                    bytes.splice(at..at, part);
                }
                4 => bytes.truncate(at.max(1)),
                // A forged length or count.
                _ => {
                    let length = [0, 1, 0xffff, 1_000_000, 1 << 25, i32::MAX, -1][numbers.below(7)];
                    let end = bytes.len().min(at + 4);
                    bytes[at..end].copy_from_slice(&length.to_be_bytes()[..end - at]);
                }
            }
            if bytes.is_empty() {
                break;
            }
        }
        found += assert_bounded(&bytes);
        // The same in pieces: the same messages, the same end.
        let at_once = feed(&bytes, || usize::MAX);
        let in_pieces = feed(&bytes, || 1 + numbers.below(9));
        assert_eq!(in_pieces.0, at_once.0);
        // Known sooner, it may be known less exactly.
        let errors = (in_pieces.2, at_once.2);
        assert!(errors.0.is_some() == errors.1.is_some(), "{errors:?}");
    }
    // Not everything breaks by it, else nothing behind the header would be tried.
    assert!(found > 0);
}

#[test]
fn must_take_no_memory_for_forged_lengths() {
    let head = |kind| {
        let mut out = Vec::new();
        begin_message(&mut out, MessageKind::Call, b"put", 7, false);
        out.write_field(kind, 1);
        out
    };
    let limits = Limits::default();
    let (string, elements) = (limits.string_bytes_max, limits.elements_max);
    for (kind, types, most) in [
        (wire::STRING, &[][..], string),
        (wire::LIST, &[wire::STRING], elements),
        (wire::LIST, &[wire::STRUCT], elements),
        (wire::SET, &[wire::DOUBLE], elements),
        (wire::MAP, &[wire::STRING, wire::LIST], elements),
    ] {
        // A string above its limit is read as long as the message has room for it.
        let above = match kind {
            wire::STRING => limits.message_bytes_max,
            _ => most + 1,
        };
        for (length, allowed) in [(most, true), (above, false), (i32::MAX as usize, false)] {
            let mut bytes = head(kind);
            bytes.extend(types);
            bytes.write_i32(length.try_into().unwrap());
            let (found, usage) = measure(|| {
                let found = Splitter::default().next(&bytes, &limits);
                found.map(|message| message.is_some())
            });
            let what = match kind {
                wire::STRING => "bytes in a string",
                _ => "elements in a container",
            };
            let expected = if allowed {
                Ok(false)
            } else {
                Err(Error::TooLarge {
                    what,
                    size: length,
                    limit: most,
                })
            };
            assert_eq!(found, expected, "type {kind}, {length}");
            assert!(usage.peak < 4096, "{usage:?}");
        }
    }
    // Nor does a reader believe a count that the bytes cannot hold.
    let mut list = vec![wire::STRUCT];
    list.write_i32(1_000_000);
    list.extend([0; 1000]);
    let (found, usage) = measure(|| Vec::<Location>::decode(&mut Reader::new(&list, &limits)));
    assert_eq!((found, usage.peak), (Err(Error::Truncated), 0));
}

#[test]
fn must_split_and_read_without_an_allocation_once_warm() {
    let limits = Limits::default();
    let mut bytes = Vec::new();
    begin_message(&mut bytes, MessageKind::Call, b"put", 7, false);
    bytes.write_bytes_field(1, b"a");
    bytes.write_bytes_field(2, b"apple");
    bytes.write_stop();
    let mut splitter = Splitter::default();
    splitter.next(&bytes, &limits).unwrap();
    let (value, usage) = measure(|| {
        let (message, _) = splitter.next(&bytes, &limits).unwrap().unwrap();
        let mut reader = message.reader(&limits);
        reader.field().unwrap();
        reader.skip(wire::STRING).unwrap();
        reader.field().unwrap();
        reader.bytes().unwrap()
    });
    assert_eq!((value, usage.allocations), (&b"apple"[..], 0));
}

#[test]
fn must_enforce_the_default_limits_on_large_messages() {
    let limits = Limits::default();
    let put = |length: usize| {
        let mut out = Vec::with_capacity(length + 100);
        begin_message(&mut out, MessageKind::Call, b"put", 7, false);
        out.write_bytes_field(1, b"a");
        out.write_bytes_field(2, &vec![b'v'; length]);
        out.write_stop();
        out
    };
    let largest = put(limits.string_bytes_max);
    assert_eq!(whole(&largest).body.len(), limits.string_bytes_max + 16);
    // One byte more is a message, of which the value is refused.
    let larger = put(limits.string_bytes_max + 1);
    let refused = KeyValue::read(whole(&larger).body).err();
    let refused = refused.map(|exception| exception.message);
    let expected = "33554433 bytes in the value, above the limit of 33554432";
    assert_eq!(refused.as_deref(), Some(expected));
    // Three strings that are within the limit each, and together above that of a message.
    let mut out = Vec::new();
    begin_message(&mut out, MessageKind::Call, b"put", 7, false);
    let string = vec![b'v'; limits.message_bytes_max / 3];
    for id in 1..=3 {
        out.write_bytes_field(id, &string);
    }
    let found = Splitter::default().next(&out, &limits);
    let large = Error::TooLarge {
        what: "bytes in a message",
        size: 3 * (string.len() + 7) + 15,
        limit: limits.message_bytes_max,
    };
    assert_eq!(found, Err(large));
}
