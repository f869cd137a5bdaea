//! Every route survives values of any kind in every member: an answer with a known status, never a dropped connection, and the node
//! serves afterwards.

use serde_json::{Map, Value, json};

use super::host::Host;
use super::model::Dice;

const MEMBERS: [&str; 26] = [
    "uid",
    "token",
    "device_flag",
    "device_level",
    "uids",
    "channel_id",
    "channel_type",
    "subscribers",
    "reset",
    "header",
    "from_uid",
    "payload",
    "client_msg_no",
    "login_uid",
    "start_message_seq",
    "end_message_seq",
    "limit",
    "message_seqs",
    "message_ids",
    "last_msg_seqs",
    "msg_count",
    "page",
    "channels",
    "unread",
    "last_message_seq",
    "exclude_channel_types",
];

fn pool() -> Vec<Value> {
    vec![
        json!(null),
        json!(""),
        json!(" "),
        json!("u1"),
        json!("g1"),
        json!("a@b"),
        json!("g____cmd"),
        json!("____cmd"),
        json!("____system"),
        json!("systemcmdonline"),
        json!("nul\u{0}"),
        json!("x".repeat(600)),
        json!("中|文:1:2|g1:2:18446744073709551615"),
        json!("aGk="),
        json!(0),
        json!(1),
        json!(2),
        json!(8),
        json!(11),
        json!(255),
        json!(-1),
        json!(i64::MAX),
        json!(i64::MIN),
        json!(u64::MAX),
        json!(1.5),
        json!(true),
        json!([]),
        json!(["u1", "u2", ""]),
        json!([0, 1, u64::MAX]),
        json!([{"channel_id": "g1", "channel_type": 2, "last_msg_seq": u64::MAX}, null, {}]),
        json!({"sync_once": 1, "no_persist": 1}),
        json!({"sync_once": 1}),
    ]
}

/// Members that usually have a sensible value, so that requests get past the first check.
fn usual() -> Map<String, Value> {
    let usual = json!({
        "uid": "u1", "token": "t", "channel_id": "g1", "channel_type": 2, "uids": ["u1"], "subscribers": ["u1"], "from_uid": "u1",
        "payload": "aGk=", "login_uid": "u1", "last_message_seq": 1, "msg_count": 2,
    });
    usual.as_object().unwrap().clone()
}

#[tokio::test]
async fn every_route_survives_any_values() {
    const ROUNDS: usize = 25;
    let host = Host::with(|c| c.mode = "debug".into()).await;
    let document = host.get("/docs/openapi.json").await;
    let paths = document["paths"].as_object().unwrap();
    let (mut dice, pool) = (Dice(7), pool());
    for (path, _) in paths.iter().filter(|(_, p)| p["post"].is_object()) {
        for _ in 0..ROUNDS {
            let mut body = usual();
            if path == "/message/send" && dice.roll(2) == 0 {
                body.remove("subscribers");
            }
            for _ in 0..=dice.roll(4) {
                let member = MEMBERS[dice.roll(MEMBERS.len())];
                let value = pool[dice.roll(pool.len())].clone();
                body.insert(member.to_owned(), value);
            }
            let body = match dice.roll(12) {
                0 => pool[dice.roll(pool.len())].clone(),
                _ => Value::Object(body),
            };
            let answer = host.post_raw(path, &body.to_string()).await;
            let known = matches!(answer.status, 200 | 400);
            assert!(known, "{path} {body}: {answer:?}");
        }
    }
    host.say("u9", "g9", 2, "still here").await;
    assert_eq!(host.get("/readyz").await["ready"], true);
    host.stop().await;
}
