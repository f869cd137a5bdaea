//! Clients that break every rule: each may hurt itself alone.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::net::TcpStream;
use std::time::{Duration, Instant};

use bytes::Bytes;
use common::raw::{Raw, connect, seal, send_to};
use common::{Place, Setup, http, until};
use serde_json::{Value, json};
use wk_proto::frame::{Frame, Recvack, Send, Sub};
use wk_proto::limits::{FRAME_BYTES_MAX, PAYLOAD_BYTES_MAX};

/// Handshake time, as documented: 2 s without a byte, 5 s in all; and what a busy machine adds.
const SILENCE: Duration = Duration::from_secs(15);

/// Reproducible noise.
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| (self.next() >> 32) as u8).collect()
    }
}

/// The remaining length of a frame: seven bits a byte, low ones first.
fn length(mut n: usize) -> Vec<u8> {
    let mut out = Vec::new();
    loop {
        let low = (n & 0x7f) as u8;
        n >>= 7;
        out.push(if n > 0 { low | 0x80 } else { low });
        if n == 0 {
            return out;
        }
    }
}

#[test]
fn garbage_before_the_login_is_closed() {
    let place = Place::new();
    let mut server = Setup::new(&place).start();
    let mut noise = Noise(7);
    let mut pieces: Vec<Vec<u8>> = (1..60).map(|n| noise.bytes(n * n)).collect();
    pieces.push(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n".to_vec());
    pieces.push(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec());
    pieces.push(b"PROXY TCP4 999.1.1.1 x y z\r\n".to_vec());
    pieces.push(b"{\"jsonrpc\":\"2.0\",\"method\":\"connect\",\"params\":".repeat(1000));
    pieces.push(
        [
            b"{\"a\":".repeat(50_000),
            b"1".to_vec(),
            b"}".repeat(50_000),
        ]
        .concat(),
    );
    // Announced and never sent: huge, endless, a login of more than a login may have.
    pieces.push([&[0x10][..], &length(FRAME_BYTES_MAX + 1)].concat());
    pieces.push([&[0x10][..], &length(300 * 1024)].concat());
    pieces.push([&[0x10][..], &[0xff; 64]].concat());
    // A frame that only a logged-in client may send.
    pieces.push(vec![0x70]);
    pieces.push([&[0x30][..], &length(10), &[0; 10]].concat());
    // A login whose texts do not end where it says.
    pieces.push(
        [
            &[0x10][..],
            &length(12),
            &[5, 0, 0xff, 0xff, 0, 1, 2, 3, 4, 5, 6, 7],
        ]
        .concat(),
    );
    let mut open: Vec<Raw> = Vec::new();
    for to in [server.tcp(), server.ws()] {
        for piece in &pieces {
            let mut raw = Raw::open(to);
            raw.write(piece);
            open.push(raw);
        }
    }
    // A frame that never ends, and one that trickles.
    for half in [1, 3, 20] {
        let mut raw = Raw::open(server.tcp());
        let mut whole = bytes::BytesMut::new();
        wk_proto::wire::encode(&Frame::Connect(connect(b"half", b"")), 5, &mut whole).unwrap();
        raw.write(&whole[..half]);
        open.push(raw);
    }
    for raw in &mut open {
        assert!(raw.is_closed_within(SILENCE));
    }
    server.assert_well();
    let (_, most) = server.memory_mib();
    assert!(most < 400, "{most} MiB");
}

#[test]
fn garbage_after_the_login_is_closed() {
    let place = Place::new();
    let mut server = Setup::new(&place).start();
    let mut noise = Noise(11);
    let mut pieces: Vec<Vec<u8>> = (0..16)
        .map(|n| [&[n << 4][..], &[0xff; 8]].concat())
        .collect();
    pieces.push([&[0x30][..], &length(FRAME_BYTES_MAX + 1)].concat());
    pieces.extend((0..30).map(|n| {
        let body = noise.bytes(n * 10);
        [&[0x30][..], &length(body.len()), &body].concat()
    }));
    for (number, piece) in pieces.iter().enumerate() {
        let mut raw = Raw::login(server.tcp(), &format!("garbage{number}"));
        raw.write(piece);
        // Never an end of its own accord for what could still become a frame: it is asked whether it lives.
        raw.send(&Frame::Ping);
        let _ = raw.socket.shutdown(std::net::Shutdown::Write);
        assert!(raw.is_closed_within(SILENCE), "{piece:?}");
    }
    server.assert_well();
}

/// Every frame type a client has no business with, after the login.
#[test]
fn frames_out_of_place_hurt_nobody() {
    let place = Place::new();
    let mut server = Setup::new(&place).start();
    let frames = [
        Frame::Pong,
        Frame::Connect(connect(b"twice", b"")),
        Frame::Recvack(Recvack {
            message_id: i64::MIN,
            message_seq: u32::MAX,
            ..Recvack::default()
        }),
        Frame::Sub(Sub {
            channel_id: Bytes::from_static(b"x"),
            ..Sub::default()
        }),
    ];
    for frame in frames {
        let mut raw = Raw::login(server.tcp(), "twice");
        raw.send(&frame);
        raw.send(&Frame::Ping);
        let _ = raw.socket.shutdown(std::net::Shutdown::Write);
        assert!(raw.is_closed_within(SILENCE), "{frame:?}");
    }
    server.assert_well();
}

#[test]
fn ids_that_are_no_ids_are_refused_at_the_login() {
    let place = Place::new();
    let mut server = Setup::new(&place).start();
    let long = vec![b'x'; 513];
    let bad: [&[u8]; 9] = [
        b"",
        &long,
        b"a@b",
        b"a#b",
        b"a&b",
        b"a\0b",
        b"\xff\xfe",
        b"____system",
        b" ",
    ];
    for uid in bad {
        let mut raw = Raw::open(server.tcp());
        let connack = raw.hello(uid, b"").expect("an answer before the end");
        assert_ne!(connack.reason_code, 1, "{:?}", Bytes::copy_from_slice(uid));
        assert!(raw.is_closed_within(SILENCE));
    }
    for uid in [&long[..512], "中文用户".as_bytes()] {
        let mut raw = Raw::open(server.tcp());
        assert_eq!(raw.hello(uid, b"").unwrap().reason_code, 1);
    }
    server.assert_well();
}

#[test]
fn sends_that_cannot_be_are_answered() {
    let place = Place::new();
    let mut server = Setup::new(&place).start();
    let mut raw = Raw::login(server.tcp(), "sender");
    let cipher = raw.cipher.take();
    let cipher = cipher.as_ref();
    let long = vec![b'x'; 513];
    let mut seq = 0;
    let ask = |raw: &mut Raw, send: Send| {
        raw.send(&Frame::Send(send));
        match raw.next() {
            Some(Frame::Sendack(ack)) => ack,
            other => panic!("no SENDACK: {other:?}"),
        }
    };
    let targets: [&[u8]; 8] = [
        b"",
        &long,
        b"a@b",
        b"a#b",
        b"a&b",
        b"a\0b",
        b"\xff\xfe",
        b"a b",
    ];
    for to in targets {
        for kind in [1, 2] {
            seq += 1;
            let mut send = send_to(None, to, seq, b"hello");
            send.channel_type = kind;
            seal(cipher, &mut send);
            let ack = ask(&mut raw, send);
            assert_eq!(ack.client_seq, seq);
            if to != b"a b" && !(kind == 2 && to == b"a@b") {
                assert_ne!(ack.reason_code, 1, "{to:?} {kind}");
            }
        }
    }
    for kind in [0, 12, 99, 255] {
        seq += 1;
        let mut send = send_to(None, b"someone", seq, b"hello");
        send.channel_type = kind;
        seal(cipher, &mut send);
        assert_ne!(ask(&mut raw, send).reason_code, 1, "channel type {kind}");
    }
    // A payload at the limit and one byte above it.
    for (size, reason) in [(PAYLOAD_BYTES_MAX, 1), (PAYLOAD_BYTES_MAX + 1, 9), (0, 1)] {
        seq += 1;
        let send = send_to(cipher, b"someone", seq, &vec![b'p'; size]);
        let ack = ask(&mut raw, send);
        assert_eq!(
            (ack.client_seq, ack.reason_code),
            (seq, reason),
            "{size} bytes"
        );
    }
    // A seal that is not the connection's.
    seq += 1;
    let mut send = send_to(cipher, b"someone", seq, b"hello");
    send.msg_key = Bytes::from_static(b"00000000000000000000000000000000");
    assert_ne!(ask(&mut raw, send).reason_code, 1, "msgKey");
    seq += 1;
    let mut send = send_to(cipher, b"someone", seq, b"hello");
    send.payload = Bytes::from_static(b"not base64 at all");
    assert_ne!(ask(&mut raw, send).reason_code, 1, "payload");
    // And it is still a good connection.
    seq += 1;
    let ack = ask(&mut raw, send_to(cipher, b"someone", seq, b"hello"));
    assert_eq!(ack.reason_code, 1);
    let page =
        json!({"login_uid": "sender", "channel_id": "someone", "channel_type": 1, "limit": 100});
    let page = server.post("/channel/messagesync", &page).json();
    assert_eq!(
        page["messages"].as_array().unwrap().len(),
        3,
        "what was acknowledged, and no more"
    );
    server.assert_well();
}

#[test]
fn a_wrong_token_is_answered_and_closed() {
    let place = Place::new();
    let mut server = Setup::new(&place).env("WK_TOKENAUTHON", "true").start();
    let token = json!({"uid": "ann", "token": "right", "device_flag": 0, "device_level": 1});
    assert_eq!(server.post("/user/token", &token).status, 200);
    let long = vec![b't'; 30_000];
    for (uid, token) in [
        (&b"ann"[..], &b"wrong"[..]),
        (b"ann", b""),
        (b"ann", &long),
        (b"ann", b"\xff\xfe"),
        (b"nobody", b"right"),
    ] {
        let mut raw = Raw::open(server.tcp());
        let connack = raw.hello(uid, token).expect("an answer before the end");
        assert_eq!(connack.reason_code, 2);
        assert!(raw.is_closed_within(SILENCE));
    }
    let mut raw = Raw::open(server.tcp());
    assert_eq!(raw.hello(b"ann", b"right").unwrap().reason_code, 1);
    server.assert_well();
}

/// Every route with every kind of body: an answer in time, never 5xx, and the server is well.
#[test]
fn bodies_of_the_wrong_kind_are_refused() {
    let place = Place::new();
    // The documentation lists the routes, in this mode only.
    let mut server = Setup::new(&place).args(&["--mode", "debug"]).start();
    let docs = server.get("/docs/openapi.json").json();
    let mut routes = Vec::new();
    for (path, methods) in docs["paths"].as_object().unwrap() {
        for method in methods.as_object().unwrap().keys() {
            routes.push((
                method.to_uppercase(),
                path.replace("{id}", "x").replace("{type}", "2"),
            ));
        }
    }
    assert!(routes.len() > 40);
    let deep = format!("{}1{}", "[".repeat(5_000), "]".repeat(5_000));
    let wrong = r#"{"uid":5,"uids":"x","channel_id":{"a":1},"channel_type":"2","limit":"many","payload":17,"subscribers":{"a":[]},"header":[1],"from_uid":[],"message_seqs":"1","channels":5,"token":[]}"#;
    let extreme = r#"{"uid":"u","login_uid":"u","from_uid":"u","channel_id":"c","channel_type":2,"limit":-9223372036854775808,"start_message_seq":18446744073709551615,"end_message_seq":18446744073709551615,"msg_count":-9223372036854775808,"page":-1,"page_size":9223372036854775807,"version":-1,"unread":2147483647,"message_seq":18446744073709551615,"last_message_seq":18446744073709551615,"device_flag":255,"last_msg_seqs":"c:2:18446744073709551615|::|:|c","message_seqs":[0,18446744073709551615],"message_ids":[-1],"pull_mode":99}"#;
    let twice = r#"{"uid":"u","uid":"v","login_uid":"u","login_uid":"v","from_uid":"u","from_uid":"v","channel_id":"c","channel_id":"d","channel_type":2,"channel_type":3,"payload":"aGk=","payload":"aG8="}"#;
    let ids = [
        String::new(),
        "x".repeat(513),
        "a@b".into(),
        "a#b".into(),
        "a&b".into(),
        "a\\u0000b".into(),
    ];
    let mut bodies: Vec<Vec<u8>> = [
        "", "null", "5", "[]", "{}", "\"text\"", "{", "[1,", "nul", wrong, extreme, twice, &deep,
    ]
    .map(|body| body.as_bytes().to_vec())
    .into();
    bodies.push(b"{\"uid\":\"\xff\xfe\",\"channel_id\":\"\xff\"}".to_vec());
    bodies.extend(ids.iter().map(|id| {
        let one = format!(r#""uid":"{id}","from_uid":"{id}","login_uid":"{id}","channel_id":"{id}","token":"t","client_msg_no":"{id}""#);
        format!(r#"{{{one},"channel_type":1,"payload":"aGk=","uids":["{id}"],"subscribers":["{id}"]}}"#).into_bytes()
    }));
    for (method, path) in &routes {
        for body in &bodies {
            let answer = http::request(server.http(), method, path, body);
            let status = answer.status;
            assert!(
                status < 500,
                "{method} {path} {}: {status} {}",
                String::from_utf8_lossy(&body[..body.len().min(100)]),
                answer.text()
            );
        }
        for query in [
            "?",
            "?limit=-1&uid=%00&channel_id=%ff&channel_type=-9",
            "?channel_type=99999999999999999999&limit=99999999999999999999",
            "?%%%&&&===",
        ] {
            let answer = http::request(server.http(), method, &format!("{path}{query}"), b"");
            assert!(answer.status < 500, "{path}{query}: {}", answer.text());
        }
    }
    server.assert_well();
}

#[test]
fn http_that_is_no_http_hurts_nobody() {
    let place = Place::new();
    let mut server = Setup::new(&place).start();
    let many = format!("GET /health HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(50_000));
    let long = format!("GET /{} HTTP/1.1\r\n\r\n", "x".repeat(200_000));
    let pieces: [&[u8]; 8] = [
        b"\0\0\0\0\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"POST /message/send HTTP/1.1\r\nContent-Length: -5\r\n\r\n",
        b"POST /message/send HTTP/1.1\r\nContent-Length: 99999999999999999999999\r\n\r\n",
        b"POST /message/send HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        many.as_bytes(),
        long.as_bytes(),
    ];
    for piece in pieces {
        if let Some(answer) = http::try_raw(server.http(), piece) {
            assert!((400..500).contains(&answer.status), "{}", answer.status);
        }
    }
    let big = vec![b' '; 5 * 1024 * 1024];
    if let Some(answer) = http::try_request(server.http(), "POST", "/message/send", &big) {
        assert!((400..500).contains(&answer.status), "{}", answer.status);
    }
    server.assert_well();
}

/// 10,000 that say nothing: 5,000 at a time, so that two processes with 20,000 descriptors each have room. Others are served
/// meanwhile, and the silent ones are closed when their time is over.
#[test]
fn connections_that_say_nothing_are_closed() {
    let place = Place::new();
    let mut server = Setup::new(&place).start();
    let mut slowest = Duration::ZERO;
    for half in 0..2 {
        let silent: Vec<TcpStream> = (0..5_000)
            .map(|n| {
                let to = if n % 5 == 0 {
                    server.ws()
                } else {
                    server.tcp()
                };
                TcpStream::connect(to).unwrap()
            })
            .collect();
        let before = Instant::now();
        let mut raw = Raw::login(server.tcp(), &format!("guest{half}"));
        let cipher = raw.cipher.take();
        raw.send(&Frame::Send(send_to(cipher.as_ref(), b"host", 1, b"hello")));
        assert!(matches!(raw.next(), Some(Frame::Sendack(ack)) if ack.reason_code == 1));
        slowest = slowest.max(before.elapsed());
        until("all silent ones closed", || server.connections() <= 1);
        for mut socket in silent {
            socket.set_read_timeout(Some(SILENCE)).unwrap();
            let read = std::io::Read::read(&mut socket, &mut [0]);
            assert!(
                !matches!(&read, Err(e) if e.kind() == std::io::ErrorKind::WouldBlock),
                "open"
            );
        }
    }
    assert!(slowest < Duration::from_secs(5), "{slowest:?}");
    let (_, most) = server.memory_mib();
    assert!(most < 400, "{most} MiB");
    server.assert_well();
}

/// The same with fewer descriptors than clients: the API answers, messages are stored and checkpoints are made.
#[test]
fn clients_cannot_take_the_last_descriptor() {
    let place = Place::new();
    let mut server = Setup::new(&place).files_max(300).start();
    let mut crowd: Vec<Raw> = Vec::new();
    for n in 0..600 {
        let Ok(socket) = TcpStream::connect_timeout(&server.tcp(), Duration::from_secs(1)) else {
            continue;
        };
        let mut raw = Raw::from(socket);
        raw.send(&Frame::Connect(connect(
            format!("crowd{n}").as_bytes(),
            b"",
        )));
        crowd.push(raw);
    }
    // The crowd presses on; the operator asks what is wrong, a back-end sends.
    assert_eq!(server.get("/health").status, 200);
    server.assert_well();
    let took = server.stop(rustix::process::Signal::TERM);
    assert!(took < Duration::from_secs(6), "{took:?}");
    let said = server.said();
    assert!(!said.contains("ERROR"), "{said}");
}

/// The API has no room for all of them either, and is there again when their time is over.
#[test]
fn http_connections_without_a_request_are_closed() {
    let place = Place::new();
    let mut server = Setup::new(&place).files_max(300).start();
    let connect = |_| TcpStream::connect(server.http()).unwrap();
    let silent: Vec<TcpStream> = (0..40).map(connect).collect();
    for mut half in silent.iter().step_by(2) {
        std::io::Write::write_all(&mut half, b"GET /health HTTP/1.1\r\nHost: ").unwrap();
    }
    let before = Instant::now();
    assert_eq!(server.get("/health").status, 200);
    assert!(before.elapsed() < SILENCE, "{:?}", before.elapsed());
    drop(silent);
    server.assert_well();
}

/// Those who never read: a receiver of much, and a sender of much who does not want the answers.
#[test]
fn a_client_that_never_reads_is_dropped() {
    let place = Place::new();
    let mut server = Setup::new(&place).start();
    let mut deaf = Raw::login(server.tcp(), "deaf");
    let mut sender = Raw::login(server.tcp(), "talker");
    let cipher = sender.cipher.take();
    let payload = vec![b'z'; 500 * 1024];
    let mut sent = 0;
    while server.connections() > 1 {
        assert!(sent < 100, "still connected after {sent} messages");
        sent += 1;
        sender.send(&Frame::Send(send_to(
            cipher.as_ref(),
            b"deaf",
            sent,
            &payload,
        )));
        assert!(matches!(sender.next(), Some(Frame::Sendack(ack)) if ack.reason_code == 1));
    }
    assert!(deaf.is_closed_within(SILENCE));
    // What it did not read is not lost.
    let newest: Value = server
        .get("/channel/max_message_seq?login_uid=deaf&channel_id=talker&channel_type=1")
        .json();
    assert_eq!(newest["message_seq"], sent);
    let mut flood = Raw::login(server.tcp(), "flood");
    flood
        .socket
        .set_write_timeout(Some(Duration::from_secs(2)))
        .unwrap();
    let pings = [0x70].repeat(64 * 1024);
    let mut stuck = false;
    for _ in 0..4_000 {
        if !flood.write(&pings) {
            stuck = true;
            break;
        }
    }
    assert!(
        stuck,
        "it takes everything from a client that reads nothing"
    );
    let (_, most) = server.memory_mib();
    assert!(most < 500, "{most} MiB");
    server.assert_well();
}
