//! What the codec costs: `cargo bench --bench codec`.
//!
//! A server's work on one request: find it in the buffer, take its arguments out, write the answer.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use thrifty_p2p::thrift::{Limits, MessageKind, Reader, Splitter, Write, begin_message, wire};

fn request(method: &[u8], fields: &[&[u8]]) -> Vec<u8> {
    let mut out = Vec::new();
    begin_message(&mut out, MessageKind::Call, method, 7, false);
    for (id, field) in (1..).zip(fields) {
        out.write_bytes_field(id, field);
    }
    out.write_stop();
    out
}

/// The first two string fields.
fn strings(mut reader: Reader<'_>) -> [&[u8]; 2] {
    let mut found: [&[u8]; 2] = [b"", b""];
    while let Some((kind, id)) = reader.field().expect("fields") {
        match (id, kind) {
            (1, wire::STRING) => found[0] = reader.bytes().expect("a string"),
            (2, wire::STRING) => found[1] = reader.bytes().expect("a string"),
            _ => reader.skip(kind).expect("a value"),
        }
    }
    found
}

fn codec(c: &mut Criterion) {
    let limits = Limits::default();
    let key = b"key-000000007";
    let value = vec![b'v'; 100];
    let requests = [
        ("get", request(b"get", &[key])),
        ("put", request(b"put", &[key, &value])),
        ("put-64K", request(b"put", &[key, &vec![b'v'; 1 << 16]])),
    ];
    let mut group = c.benchmark_group("codec");
    for (name, bytes) in &requests {
        let mut splitter = Splitter::default();
        group.bench_function(format!("split/{name}"), |b| {
            b.iter(|| splitter.next(black_box(bytes), &limits).expect("a message"));
        });
        let (message, _) = splitter.next(bytes, &limits).unwrap().unwrap();
        group.bench_function(format!("decode/{name}"), |b| {
            b.iter(|| strings(black_box(&message).reader(&limits)));
        });
    }
    let mut out = Vec::new();
    group.bench_function("encode/reply-to-get", |b| {
        b.iter(|| {
            out.clear();
            begin_message(&mut out, MessageKind::Reply, black_box(b"get"), 7, false);
            out.write_bytes_field(0, black_box(&value));
            out.write_stop();
            out.len()
        });
    });
    group.bench_function("encode/reply-to-put", |b| {
        b.iter(|| {
            out.clear();
            begin_message(&mut out, MessageKind::Reply, black_box(b"put"), 7, false);
            out.write_stop();
            out.len()
        });
    });
    for (name, bytes) in &requests[..2] {
        let mut splitter = Splitter::default();
        group.bench_function(format!("all-of/{name}"), |b| {
            b.iter(|| {
                let found = splitter.next(black_box(bytes), &limits);
                let (message, _) = found.expect("a message").expect("all of it");
                let [key, _] = strings(message.reader(&limits));
                out.clear();
                let sequence = message.sequence;
                begin_message(&mut out, MessageKind::Reply, message.name, sequence, false);
                out.write_bytes_field(0, key);
                out.write_stop();
                out.len()
            });
        });
    }
    group.finish();
}

/// Many values within one message: a member list, and a list of numbers to skip.
fn lists(c: &mut Criterion) {
    let limits = Limits::default();
    let mut group = c.benchmark_group("lists");
    let mut nodes = Vec::new();
    begin_message(&mut nodes, MessageKind::Reply, b"get_all", 7, false);
    nodes.write_field(wire::LIST, 0);
    nodes.write_list(wire::STRUCT, 1000);
    for port in 0..1000 {
        nodes.write_bytes_field(1, b"127.0.0.1");
        nodes.write_i16_field(2, port);
        nodes.write_stop();
    }
    nodes.write_stop();
    let mut splitter = Splitter::default();
    group.throughput(Throughput::Bytes(nodes.len() as u64));
    group.bench_function("split/1000-nodes", |b| {
        b.iter(|| {
            splitter
                .next(black_box(&nodes), &limits)
                .expect("a message")
        });
    });
    group.finish();
}

criterion_group!(benches, codec, lists);
criterion_main!(benches);
