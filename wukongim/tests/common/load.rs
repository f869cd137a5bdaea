//! Clients that send until told to stop, over breaks of the connection, and books about what they were told.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use base64::Engine as _;
use serde_json::{Value, json};
use wk_client::{Client, Event, Options, SendError, SendOptions};
use wk_proto::ChannelType;

use super::{PATIENCE, Server};

/// Senders; each has its own channel of the group kind, and they share one.
const SENDERS: usize = 4;

/// Messages one sender has in flight.
const PIPELINE: usize = 16;

/// What a sensible client waits before it goes on after a refusal.
const AFTER_REFUSAL: std::time::Duration = std::time::Duration::from_millis(20);

const SHARED: &str = "everybody";

/// channel → client_msg_no → (message_id, message_seq) as acknowledged.
type Acked = HashMap<String, HashMap<String, (i64, u64)>>;

#[derive(Default)]
pub struct Books {
    acked: Mutex<Acked>,
    count: AtomicU64,
    refused: AtomicU64,
    /// What should not have happened, in words.
    failures: Mutex<Vec<String>>,
}

impl Books {
    pub fn acked(&self) -> u64 {
        self.count.load(Relaxed)
    }

    /// How many were refused in words: not stored, and the sender knows.
    pub fn refused(&self) -> u64 {
        self.refused.load(Relaxed)
    }

    fn note(&self, channel: &str, number: &str, id: i64, seq: u64) {
        let mut acked = self.acked.lock().unwrap();
        let known = acked.entry(channel.to_owned()).or_default();
        let before = known.insert(number.to_owned(), (id, seq));
        if before.is_some() {
            self.fail(format!("two answers for {channel} {number}"));
        }
        self.count.fetch_add(1, Relaxed);
    }

    fn fail(&self, what: String) {
        self.failures.lock().unwrap().push(what);
    }

    /// Every acknowledged message is in history once, where it was said to be; seqs have no gaps.
    pub fn check(&self, server: &Server) {
        let acked = self.acked.lock().unwrap();
        assert!(!acked.is_empty());
        assert_eq!(*self.failures.lock().unwrap(), [""; 0]);
        for (channel, acked) in acked.iter() {
            let mut left = acked.clone();
            let mut numbers = std::collections::HashSet::new();
            for (at, message) in history(server, channel).iter().enumerate() {
                let seq = message["message_seq"].as_u64().unwrap();
                assert_eq!(seq, at as u64 + 1, "{channel}: a gap");
                let number = message["client_msg_no"].as_str().unwrap().to_owned();
                let id: i64 = message["message_idstr"].as_str().unwrap().parse().unwrap();
                if let Some(said) = left.remove(&number) {
                    assert_eq!((id, seq), said, "{channel} {number}");
                }
                let payload = message["payload"].as_str().unwrap();
                let payload = base64::prelude::BASE64_STANDARD.decode(payload).unwrap();
                assert!(
                    payload.starts_with(number.as_bytes()),
                    "{channel}: another's payload"
                );
                assert!(numbers.insert(number), "{channel}: twice in history");
            }
            assert!(
                left.is_empty(),
                "{channel}: {} acknowledged and lost",
                left.len()
            );
        }
    }

    /// The newest message of each sender, sent again: the first answer, and no copy.
    pub fn check_resend(&self, server: &Server) {
        for n in 0..SENDERS {
            let channel = own_channel(n);
            let before = history(server, &channel);
            let number = before.last().unwrap()["client_msg_no"].as_str().unwrap();
            let body = json!({
                "from_uid": sender(n), "channel_id": channel, "channel_type": 2, "client_msg_no": number,
                "payload": base64::prelude::BASE64_STANDARD.encode(number),
            });
            let answer = server.post("/message/send", &body);
            assert_eq!(answer.status, 200, "{}", answer.text());
            let data = &answer.json()["data"];
            assert_eq!(
                data["message_seq"],
                before.last().unwrap()["message_seq"],
                "{data}"
            );
            assert_eq!(history(server, &channel).len(), before.len());
        }
    }
}

fn sender(n: usize) -> String {
    format!("sender{n}")
}

fn own_channel(n: usize) -> String {
    format!("group{n}")
}

/// A channel's whole history, page by page.
pub fn history(server: &Server, channel: &str) -> Vec<Value> {
    let mut all: Vec<Value> = Vec::new();
    loop {
        let body = json!({
            "login_uid": "sender0", "channel_id": channel, "channel_type": 2,
            "start_message_seq": all.len() + 1, "end_message_seq": 0, "limit": 1000, "pull_mode": 1,
        });
        let answer = server.post("/channel/messagesync", &body);
        assert_eq!(answer.status, 200, "{}", answer.text());
        let mut page = answer.json();
        let messages = page["messages"].as_array_mut().unwrap();
        let count = messages.len();
        all.append(messages);
        if count == 0 || page["more"] == 0 {
            return all;
        }
    }
}

/// Users with tokens, groups with members, a list: what must survive besides messages.
pub fn prepare(server: &Server) {
    let post = |path: &str, body: Value| {
        let answer = server.post(path, &body);
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
    };
    let everybody: Vec<String> = (0..SENDERS).map(sender).collect();
    for (n, uid) in everybody.iter().enumerate() {
        post(
            "/user/token",
            json!({"uid": uid, "token": format!("token-{uid}"), "device_flag": 0, "device_level": 1}),
        );
        post(
            "/channel",
            json!({"channel_id": own_channel(n), "channel_type": 2, "subscribers": [uid, "reader"]}),
        );
    }
    post(
        "/channel",
        json!({"channel_id": SHARED, "channel_type": 2, "subscribers": everybody}),
    );
    post(
        "/channel/blacklist_add",
        json!({"channel_id": SHARED, "channel_type": 2, "uids": ["outcast"]}),
    );
    post("/user/systemuids_add", json!({"uids": ["robot"]}));
    post(
        "/message/send",
        json!({"from_uid": "sender0", "channel_id": "reader", "channel_type": 1, "payload": "aGk="}),
    );
    post(
        "/conversations/setUnread",
        json!({"uid": "reader", "channel_id": "sender0", "channel_type": 1, "unread": 0}),
    );
}

/// What [`prepare`] made is all there, and conversations agree with history.
pub fn check_state(server: &Server) {
    let members = server
        .get(&format!("/cluster/channels/{SHARED}/2/subscribers"))
        .text();
    for n in 0..SENDERS {
        assert!(members.contains(&sender(n)), "{members}");
    }
    let denied = server
        .get(&format!("/cluster/channels/{SHARED}/2/denylist"))
        .text();
    assert!(denied.contains("outcast"), "{denied}");
    assert!(server.get("/user/systemuids").text().contains("robot"));
    let mut raw = super::raw::Raw::open(server.tcp());
    assert_eq!(
        raw.hello(b"sender1", b"token-sender1").unwrap().reason_code,
        1
    );
    let mut raw = super::raw::Raw::open(server.tcp());
    assert_eq!(
        raw.hello(b"sender1", b"token-sender2").unwrap().reason_code,
        2
    );
    let views = server
        .post(
            "/conversation/sync",
            &json!({"uid": "reader", "msg_count": 1}),
        )
        .json();
    let views = views.as_array().unwrap();
    let find = |id: &str| {
        views
            .iter()
            .find(|v| v["channel_id"] == id)
            .unwrap_or_else(|| panic!("no {id}: {views:?}"))
    };
    for n in 0..SENDERS {
        let newest = history(server, &own_channel(n)).len();
        let view = find(&own_channel(n));
        assert_eq!(view["last_msg_seq"], newest, "{view}");
        assert_eq!(view["unread"], newest, "{view}");
    }
    assert_eq!(find("sender0")["unread"], 0);
}

/// Running senders. They reconnect by themselves and send again what was not answered.
pub struct Load {
    pub books: Arc<Books>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Load {
    pub fn start(server: &Server) -> Self {
        Self::of_size(server, 0)
    }

    /// In messages of `size` bytes at least.
    pub fn of_size(server: &Server, size: usize) -> Self {
        let (books, stop) = (Arc::new(Books::default()), Arc::new(AtomicBool::new(false)));
        let address = server.tcp().to_string();
        let (b, s) = (books.clone(), stop.clone());
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .worker_threads(1)
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async {
                let mut senders = tokio::task::JoinSet::new();
                for n in 0..SENDERS {
                    senders.spawn(send(address.clone(), n, size, b.clone(), s.clone()));
                }
                while let Some(ended) = senders.join_next().await {
                    ended.expect("a sender");
                }
            });
        });
        Self {
            books,
            stop,
            thread: Some(thread),
        }
    }

    /// No new messages; returns when all are answered.
    pub fn finish(mut self) -> Arc<Books> {
        self.stop.store(true, Relaxed);
        self.thread.take().unwrap().join().unwrap();
        self.books.clone()
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
    }
}

async fn send(address: String, n: usize, size: usize, books: Arc<Books>, stop: Arc<AtomicBool>) {
    let mut options = Options::new(sender(n));
    options.token = format!("token-{}", sender(n));
    options.give_up_after = PATIENCE;
    let (client, mut inbox) = Client::connect(&address, options).await.unwrap();
    let reading = tokio::spawn(async move {
        while let Ok(event) = inbox.next().await {
            assert!(!matches!(event, Event::Corrupt { .. }));
        }
    });
    let room = Arc::new(tokio::sync::Semaphore::new(PIPELINE));
    let mut number = 0;
    while !stop.load(Relaxed) {
        let permit = room.clone().acquire_owned().await.unwrap();
        number += 1;
        let channel = if number % 4 == 0 {
            SHARED.to_owned()
        } else {
            own_channel(n)
        };
        let name = format!("{}-{number}", sender(n));
        let named = SendOptions {
            client_msg_no: Some(name.clone()),
            ..SendOptions::default()
        };
        let payload = format!("{name:<size$}");
        let pending = client
            .submit(&channel, ChannelType::GROUP, payload, named)
            .await
            .unwrap();
        let books = books.clone();
        tokio::spawn(async move {
            match pending.await {
                Ok(ack) => books.note(&channel, &name, ack.message_id, ack.message_seq.into()),
                Err(SendError::Refused(_)) => {
                    books.refused.fetch_add(1, Relaxed);
                    tokio::time::sleep(AFTER_REFUSAL).await;
                }
                Err(error) => books.fail(format!("{channel} {name}: {error}")),
            }
            drop(permit);
        });
    }
    let all = tokio::time::timeout(PATIENCE, room.acquire_many(PIPELINE as u32)).await;
    all.expect("everything is answered").unwrap().forget();
    client.close().await;
    reading.abort();
}
