//! Golden conversations: `tests/transcripts/*.txt`.
//!
//! `@` settings, `>` what the client sends in one write (parts joined by ` ; `), `!` what the driver says, `<` what comes out. The `<`
//! lines are compared; `WK_BLESS=1` rewrites them. See [`Script`] for the words.

#![allow(
    clippy::unwrap_used,
    reason = "a script that does not parse is a failed test"
)]

mod common;

use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use common::world::{channel, delivery};
use common::{Client, World, config};
use wk_proto::frame::{Disconnect, Event as EventFrame, Frame, Recvack, Send, Sub};
use wk_proto::record::Body;
use wk_proto::{Flags, MessageId, MessageSeq, Reason, Ticket, WallMs};
use wk_session::{Config, Effect, Event, SendResult, Transport};

#[test]
fn conversations_are_as_recorded() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/transcripts");
    let mut files: Vec<_> = std::fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    assert!(!files.is_empty());
    for file in files {
        let recorded = std::fs::read_to_string(&file).unwrap();
        let played = play(&recorded);
        if std::env::var_os("WK_BLESS").is_some() {
            std::fs::write(&file, &played).unwrap();
            continue;
        }
        for (at, (recorded, played)) in recorded.lines().zip(played.lines()).enumerate() {
            assert_eq!(recorded, played, "{}:{}", file.display(), at + 1);
        }
        assert_eq!(recorded.len(), played.len(), "{}", file.display());
    }
}

/// Plays every conversation of a file; a line `== name` starts one.
fn play(text: &str) -> String {
    let mut out = String::new();
    let mut script = Script::new();
    for line in text.lines().filter(|line| !line.starts_with('<')) {
        writeln!(out, "{line}").unwrap();
        let (mark, rest) = line.split_at(line.len().min(2));
        let effects = match mark {
            "==" => {
                script = Script::new();
                continue;
            }
            "@ " => {
                script.set(rest);
                continue;
            }
            "> " => script.client(rest),
            "! " => script.driver(rest),
            "" | "# " => continue,
            _ => panic!("what is {line:?}?"),
        };
        for effect in &effects {
            for said in script.describe(effect) {
                writeln!(out, "< {said}").unwrap();
            }
        }
    }
    out
}

/// One conversation. Clients `connect`, `send`, `recvack`, `ping`, `pong`, `disconnect`, `sub`, or say `hex` and `text`; a line that
/// starts with a bracket is text as it stands. Drivers say `admitted`, `visible`, `refused`, `unavailable`, `done`, `deliver`, `event`,
/// `ban`, `kick`, `drain`, `eof`, and `wait` in ms.
struct Script {
    config: Config,
    transport: Transport,
    client: Client,
    world: Option<World>,
}

/// `word key=value flag` of one command.
struct Words<'a>(Vec<&'a str>);

impl<'a> Words<'a> {
    fn of(text: &'a str) -> Self {
        Self(text.split(' ').collect())
    }

    fn get(&self, key: &str) -> Option<&'a str> {
        let mut all = self.0.iter();
        all.find_map(|w| w.strip_prefix(key)?.strip_prefix('='))
    }

    fn text(&self, key: &str) -> Bytes {
        Bytes::copy_from_slice(self.get(key).unwrap_or_default().as_bytes())
    }

    fn number<T: std::str::FromStr + Default>(&self, key: &str) -> T
    where
        T::Err: std::fmt::Debug,
    {
        self.get(key)
            .map_or_else(T::default, |n| n.parse().unwrap())
    }

    fn has(&self, word: &str) -> bool {
        self.0.contains(&word)
    }

    fn flags(&self) -> Flags {
        Flags::default()
            .with(Flags::NO_PERSIST, self.has("noPersist"))
            .with(Flags::RED_DOT, self.has("redDot"))
            .with(Flags::SYNC_ONCE, self.has("syncOnce"))
            .with(Flags::DUP, self.has("dup"))
    }
}

impl Script {
    fn new() -> Self {
        Self {
            config: config(),
            transport: Transport::Tcp,
            client: Client::new(5),
            world: None,
        }
    }

    fn set(&mut self, text: &str) {
        let words = Words::of(text);
        if words.has("ws") {
            self.transport = Transport::WebSocket;
        }
        self.config.encryption &= !words.has("plain");
        self.config.json_rpc &= !words.has("no-json");
        if let Some(version) = words.get("version") {
            self.client = Client::new(version.parse().unwrap());
        }
        if words.get("retry_max").is_some() {
            self.config.retry_max = words.number("retry_max");
        }
    }

    fn world(&mut self) -> &mut World {
        let (config, transport) = (self.config.clone(), self.transport);
        self.world
            .get_or_insert_with(|| World::new(config, transport))
    }

    fn client(&mut self, text: &str) -> Vec<Effect> {
        let bytes = if text.starts_with(['{', '[']) {
            text.as_bytes().to_vec()
        } else {
            text.split(" ; ")
                .flat_map(|part| self.encode(part))
                .collect()
        };
        self.world().bytes(&bytes)
    }

    fn encode(&self, text: &str) -> Vec<u8> {
        let words = Words::of(text);
        let frame = match words.0[0] {
            "hex" => return unhex(words.0[1]),
            "text" => return text["text ".len()..].replace("\\r\\n", "\r\n").into_bytes(),
            "connect" => self.connect(&words),
            "send" => Frame::Send(self.send(&words)),
            "recvack" => Frame::Recvack(Recvack {
                flags: words.flags(),
                message_id: words.number("id"),
                message_seq: words.number("seq"),
            }),
            "ping" => Frame::Ping,
            "pong" => Frame::Pong,
            "disconnect" => Frame::Disconnect(Disconnect::default()),
            "sub" => Frame::Sub(Sub {
                sub_no: words.text("no"),
                channel_id: words.text("channel"),
                channel_type: words.number("type"),
                action: words.number("action"),
                ..Sub::default()
            }),
            other => panic!("no client says {other:?}"),
        };
        self.client.encode(&frame).to_vec()
    }

    fn connect(&self, words: &Words<'_>) -> Frame {
        let mut connect = self.client.connect(words.get("uid").unwrap_or("alice"));
        connect.device_flag = words.number("flag");
        if words.get("device").is_some() {
            connect.device_id = words.text("device");
        }
        if words.get("key").is_some() {
            connect.client_key = words.text("key");
        }
        Frame::Connect(connect)
    }

    fn send(&self, words: &Words<'_>) -> Send {
        let send = Send {
            flags: words.flags(),
            setting: words.number("setting"),
            client_seq: words.number("seq"),
            client_msg_no: words.text("no"),
            stream_no: words.text("stream"),
            channel_id: words.text("to"),
            channel_type: words.number("type"),
            expire: words.number("expire"),
            topic: words.text("topic"),
            payload: words.text("payload"),
            ..Send::default()
        };
        let mut send = self.client.seal(send);
        if words.get("raw").is_some() {
            send.payload = words.text("raw");
            send.msg_key = self.client.sign(&send);
        }
        if words.get("msgkey").is_some() {
            send.msg_key = words.text("msgkey");
        }
        send
    }

    fn driver(&mut self, text: &str) -> Vec<Effect> {
        let words = Words::of(text);
        let event = match words.0[0] {
            "admitted" => return self.world().admit(words.has("master"), words.has("ban")),
            "wait" => return self.world().pass(words.0[1].parse().unwrap()),
            "visible" => Event::Visible,
            "unavailable" => Event::Unavailable,
            "refused" => Event::Refused(reason(words.0[1])),
            "done" => Event::Done(
                Ticket(words.0[1].parse().unwrap()),
                SendResult {
                    message_id: MessageId(words.number("id")),
                    message_seq: MessageSeq(words.number("seq")),
                    reason: reason(words.get("reason").unwrap_or("1")),
                },
            ),
            "deliver" => Event::Deliver(deliver(&words)),
            "event" => Event::PushEvent(Arc::new(EventFrame {
                id: words.text("id"),
                kind: words.text("type"),
                data: words.text("data"),
                ..EventFrame::default()
            })),
            "ban" => Event::SendBan(words.has("on")),
            "kick" => Event::Kick {
                notice: words.get("text").map(|t| &*t.to_owned().leak()),
                delay_ms: words.number("delay"),
            },
            "drain" => Event::Drain,
            "eof" => Event::Eof,
            other => panic!("no driver says {other:?}"),
        };
        self.world().event(event)
    }

    fn describe(&mut self, effect: &Effect) -> Vec<String> {
        let key = |c: &wk_proto::ChannelKey| format!("{}:{}", c.kind, c.stored_id());
        vec![match effect {
            Effect::Transmit { bytes, text: true } => {
                let text = std::str::from_utf8(bytes).unwrap();
                return text.trim_end().split('\n').map(str::to_owned).collect();
            }
            Effect::Transmit { bytes, text: false } => {
                let frames = self.client.receive(bytes);
                return frames.iter().map(describe_frame).collect();
            }
            Effect::Admit(r) => format!(
                "admit {} flag={} device={} token={}",
                r.uid, r.device_flag, r.device_id, r.token
            ),
            Effect::Publish(i, _) => format!(
                "publish {} flag={} device={} master={} version={} json={}",
                i.uid, i.device_flag, i.device_id, i.master, i.version, i.json
            ),
            Effect::Call(ticket, p) => format!(
                "call {ticket} {} flags={} setting={} expire={} no={} topic={} stream={} payload={}",
                key(&p.channel),
                p.flags.0,
                p.setting,
                p.expire,
                mask_number(&p.client_msg_no),
                p.topic,
                p.stream_no,
                String::from_utf8_lossy(&p.payload),
            ),
            Effect::CommandRead(c, seq) => format!("command-read {} {seq}", key(c)),
            Effect::Redeliver(c, seq) => format!("redeliver {} {seq}", key(c)),
            Effect::PeerAddress(address) => format!("peer {address}"),
            Effect::Close(kind) => format!("close {kind:?}"),
        }]
    }
}

fn deliver(words: &Words<'_>) -> Arc<wk_session::Delivery> {
    let topic = words.get("topic").unwrap_or_default();
    let body = Body {
        flags: words.flags(),
        setting: words.number("setting"),
        expire: words.number("expire"),
        message_id: MessageId(words.number("id")),
        time: WallMs(1_760_000_123_456),
        from_uid: words.get("from").unwrap_or("bob"),
        client_msg_no: words.get("no").unwrap_or_default(),
        topic,
        stream_no: words.get("stream").unwrap_or_default(),
        payload: words.get("payload").unwrap_or_default().as_bytes(),
    };
    let to = words.0[1];
    assert!(!channel(to).base.as_str().is_empty());
    delivery(to, words.get("seq").map(|n| n.parse().unwrap()), &body)
}

fn describe_frame(frame: &Frame) -> String {
    match frame {
        Frame::Connack(a) => format!(
            "connack version={:?} diff={} reason={} key={} salt={} node={}",
            a.server_version,
            a.time_diff,
            a.reason_code,
            a.server_key.len(),
            a.salt.len(),
            a.node_id
        ),
        Frame::Sendack(a) => format!(
            "sendack flags={} id={} client_seq={} seq={} reason={}",
            a.flags.0, a.message_id, a.client_seq, a.message_seq, a.reason_code
        ),
        Frame::Recv(r) => format!(
            "recv flags={} setting={} from={:?} channel={}:{:?} expire={} no={:?} stream={},{:?},{} id={} seq={} time={} topic={:?} payload={:?}",
            r.flags.0,
            r.setting,
            r.from_uid,
            r.channel_type,
            r.channel_id,
            r.expire,
            r.client_msg_no,
            r.stream_flag,
            r.stream_no,
            r.stream_id,
            r.message_id,
            r.message_seq,
            r.timestamp,
            r.topic,
            r.payload
        ),
        Frame::Pong => "pong".into(),
        Frame::Disconnect(d) => format!("disconnect {} {:?}", d.reason_code, d.reason),
        Frame::Suback(s) => format!(
            "suback no={:?} channel={}:{:?} action={} reason={}",
            s.sub_no, s.channel_type, s.channel_id, s.action, s.reason_code
        ),
        Frame::Event(e) => format!("event id={:?} type={:?} data={:?}", e.id, e.kind, e.data),
        other => format!("NOT A SERVER'S FRAME {other:?}"),
    }
}

/// A number made by the session, as the recorded transcripts show it.
fn mask_number(no: &str) -> &str {
    if no.len() == 32 && no.bytes().all(|b| b.is_ascii_hexdigit()) {
        "<uuid>"
    } else {
        no
    }
}

fn reason(code: &str) -> Reason {
    Reason::from_code(code.parse().unwrap()).unwrap()
}

fn unhex(text: &str) -> Vec<u8> {
    let digit = |b: u8| char::from(b).to_digit(16).unwrap() as u8;
    text.as_bytes()
        .chunks(2)
        .map(|pair| digit(pair[0]) << 4 | digit(pair[1]))
        .collect()
}
