//! Sending and reading messages and commands.

use serde_json::{Value, json};

use super::host::Host;

fn seqs(messages: &Value) -> Vec<u64> {
    let messages = messages.as_array().unwrap();
    messages
        .iter()
        .map(|m| m["message_seq"].as_u64().unwrap())
        .collect()
}

#[tokio::test]
async fn what_cannot_be_sent() {
    let host = Host::start().await;
    let nothing = "无法处理发送消息请求！";
    for (body, text) in [
        (json!({"payload": "aGk="}), nothing),
        (
            json!({"channel_id": "x", "channel_type": 1}),
            "payload不能为空！",
        ),
        (
            json!({"channel_id": "a@b", "channel_type": 2, "payload": "aGk="}),
            "频道ID不合法！",
        ),
        (
            json!({"channel_id": "x", "payload": "aGk="}),
            "频道类型错误！",
        ),
        (
            json!({"channel_id": "x", "channel_type": 1, "payload": "@@"}),
            "illegal base64 data at input byte 0",
        ),
        (json!({"subscribers": ["x"], "payload": "aGk="}), nothing),
        (
            json!({"subscribers": ["x"], "channel_id": "y", "channel_type": 2, "payload": "aGk=", "header": {"sync_once": 1}}),
            nothing,
        ),
        (
            json!({"from_uid": "a@b", "channel_id": "x", "channel_type": 1, "payload": "aGk="}),
            "from_uid不能包含特殊字符！",
        ),
    ] {
        assert_eq!(host.refused("/message/send", body).await, text);
    }
    host.stop().await;
}

#[tokio::test]
async fn a_person_message_is_found_in_every_way() {
    let host = Host::start().await;
    let send = json!({
        "header": {"red_dot": 1}, "from_uid": "alice", "channel_id": "bob", "channel_type": 1, "expire": 30,
        "payload": "aGk=", "client_msg_no": "n1",
    });
    let sent = host.post("/message/send", send.clone()).await;
    let id = sent["data"]["message_id"].clone();
    assert_eq!(sent["data"]["message_seq"], 1);
    // A resend is answered with the first result.
    assert_eq!(host.post("/message/send", send).await, sent);

    let login = json!({"login_uid": "bob", "channel_id": "alice", "channel_type": 1});
    let with = |more: Value| {
        let mut body = login.clone();
        let more = more.as_object().unwrap().clone();
        body.as_object_mut().unwrap().extend(more);
        body
    };
    let page = host.post("/channel/messagesync", login.clone()).await;
    let message = &page["messages"][0];
    assert_eq!(
        message,
        &json!({
            "header": {"no_persist": 0, "red_dot": 1, "sync_once": 0}, "setting": 0, "message_id": id,
            "message_idstr": id.to_string(), "client_msg_no": "n1", "message_seq": 1, "from_uid": "alice",
            "channel_id": "bob", "channel_type": 1, "expire": 30, "timestamp": message["timestamp"], "payload": "aGk=",
        })
    );
    let found = host.post("/message", with(json!({"message_id": id}))).await;
    assert_eq!(&found, message);
    let by_number = with(json!({"client_msg_no": "n1"}));
    assert_eq!(&host.post("/message", by_number).await, message);
    let picked =
        with(json!({"message_seqs": [9, 1], "message_ids": [5], "client_msg_nos": ["none"]}));
    assert_eq!(
        host.post("/messages", picked).await["messages"],
        page["messages"]
    );
    let query = "channel_id=bob%40alice&channel_type=1";
    let found = host
        .get(&format!("/message/byclientmsgno?{query}&client_msg_no=n1"))
        .await;
    assert_eq!(&found, message);
    let last = "/channel/last_message?channel_id=alice&channel_type=1&login_uid=bob";
    assert_eq!(&host.get(last).await, message);
    let max = host.get(&format!("/channel/max_message_seq?{query}")).await;
    assert_eq!(max, json!({"message_seq": 1}));
    let not_found = json!({"status": 404});
    assert_eq!(
        host.post("/message", with(json!({"message_id": 5}))).await,
        not_found
    );
    let unused = "/channel/max_message_seq?channel_id=none&channel_type=2";
    assert_eq!(host.get(unused).await, json!({"message_seq": 0}));
    host.stop().await;
}

#[tokio::test]
async fn pages_of_history() {
    let host = Host::start().await;
    for n in 0..12 {
        host.say("a", "g", 2, &n.to_string()).await;
    }
    for (start, end, limit, pull_mode, expected, more) in [
        (0, 0, 5, 0, 8..=12, 1),
        (20, 0, 5, 0, 8..=12, 1),
        (5, 0, 0, 1, 5..=12, 0),
        (3, 6, 5, 1, 3..=5, 0),
        (9, 5, 100, 0, 6..=9, 0),
    ] {
        let body = json!({
            "login_uid": "a", "channel_id": "g", "channel_type": 2, "start_message_seq": start, "end_message_seq": end,
            "limit": limit, "pull_mode": pull_mode,
        });
        let page = host.post("/channel/messagesync", body).await;
        assert_eq!(seqs(&page["messages"]), expected.collect::<Vec<u64>>());
        assert_eq!(page["more"], more);
        assert_eq!(page["start_message_seq"], start);
    }
    host.stop().await;
}

#[tokio::test]
async fn a_broadcast_is_one_message_each() {
    let host = Host::start().await;
    let body = json!({"from_uid": "s", "subscribers": ["a@b", "u1", "u2"], "payload": "aGk="});
    let result = host.post("/message/sendbatch", body).await;
    let expected = json!({"fail_uids": ["a@b"], "reason": ["频道ID不合法！"]});
    assert_eq!(result, expected);
    for uid in ["u1", "u2"] {
        let query = format!("channel_id={uid}&channel_type=1&login_uid=s");
        let last = host.get(&format!("/channel/last_message?{query}")).await;
        assert_eq!(last["payload"], "aGk=");
    }
    host.stop().await;
}

#[tokio::test]
async fn commands_are_handed_out_until_acknowledged() {
    let host = Host::start().await;
    let create = json!({"channel_id": "g", "channel_type": 2, "subscribers": ["a", "b"]});
    host.post("/channel", create).await;
    for n in 0..3 {
        let command = json!({
            "header": {"sync_once": 1}, "from_uid": "a", "channel_id": "g", "channel_type": 2, "payload": "aGk=",
            "client_msg_no": format!("c{n}"),
        });
        host.post("/message/send", command).await;
    }
    let targeted = json!({
        "header": {"sync_once": 1}, "from_uid": "x", "subscribers": ["b", "c"], "payload": "eW8=",
    });
    let sent = host.post("/message/send", targeted).await;
    assert_eq!(sent["data"]["message_seq"], 1);

    let sync = |limit: u8| host.post("/message/sync", json!({"uid": "b", "limit": limit}));
    let first = sync(2).await;
    assert_eq!(seqs(&first), [1, 2]);
    assert_eq!(first[0]["channel_id"], "g");
    assert_eq!(first[0]["header"]["sync_once"], 1);
    // Without an ack the same again; after it the rest, of both channels, oldest first.
    assert_eq!(sync(2).await, first);
    let ack = json!({"uid": "b", "last_message_seq": 1});
    host.post("/message/syncack", ack.clone()).await;
    let rest = sync(200).await;
    assert_eq!(seqs(&rest), [3, 1]);
    assert_eq!(rest[1]["payload"], "eW8=");
    host.post("/message/syncack", ack).await;
    assert_eq!(sync(200).await, json!([]));
    let offline = host.post("/message/sync", json!({"uid": "c"})).await;
    assert_eq!(seqs(&offline), [1]);

    // Commands are in no history and in no conversation list.
    let history = json!({"login_uid": "b", "channel_id": "g", "channel_type": 2});
    let page = host.post("/channel/messagesync", history).await;
    assert_eq!(page["messages"], json!([]));
    let list = json!({"uid": "b", "msg_count": 5});
    assert_eq!(host.post("/conversation/sync", list).await, json!([]));
    host.stop().await;
}

#[tokio::test]
async fn switched_off_commands_do_not_even_read_the_body() {
    let host = Host::with(|c| c.service.command_sync_off = true).await;
    let answer = host.post_raw("/message/sync", "not read").await;
    assert_eq!((answer.status, answer.body.as_str()), (200, "[]"));
    let answer = host.post_raw("/message/syncack", "not read").await;
    assert_eq!(answer.json(), json!({"status": 200}));
    host.stop().await;
}
