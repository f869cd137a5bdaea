//! Conversation lists and marks.

use serde_json::{Value, json};

use super::host::Host;

async fn sync(host: &Host, body: Value) -> Vec<Value> {
    let list = host.post("/conversation/sync", body).await;
    list.as_array().unwrap().clone()
}

fn ids(list: &[Value]) -> Vec<&str> {
    list.iter()
        .map(|c| c["channel_id"].as_str().unwrap())
        .collect()
}

#[tokio::test]
async fn a_list_by_newest_message_with_unread_counts() {
    let host = Host::start().await;
    for group in ["g1", "g2", "g3"] {
        let create = json!({"channel_id": group, "channel_type": 2, "subscribers": ["u", "v"]});
        host.post("/channel", create).await;
        for n in 0..3 {
            host.say("v", group, 2, &n.to_string()).await;
        }
    }
    host.say("v", "u", 1, "hello").await;
    host.say("u", "g1", 2, "mine").await;

    let all = sync(&host, json!({"uid": "u", "msg_count": 2})).await;
    assert_eq!(ids(&all), ["g1", "v", "g3", "g2"]);
    assert_eq!(
        (&all[0]["unread"], &all[0]["readed_to_msg_seq"]),
        (&json!(0), &json!(4))
    );
    assert_eq!(
        (&all[2]["unread"], &all[2]["last_msg_seq"]),
        (&json!(3), &json!(3))
    );
    let recents = all[2]["recents"].as_array().unwrap();
    assert_eq!((&recents[0]["message_seq"], recents.len()), (&json!(3), 2));
    assert_eq!(all[1]["recents"][0]["channel_id"], "u");

    let bare = sync(&host, json!({"uid": "u"})).await;
    assert_eq!(ids(&bare), ids(&all));
    assert!(bare.iter().all(|c| c["recents"] == json!([])));
    assert_eq!(bare[1]["last_client_msg_no"], all[1]["last_client_msg_no"]);

    let page = sync(
        &host,
        json!({"uid": "u", "msg_count": 1, "page": 2, "page_size": 3}),
    )
    .await;
    assert_eq!(ids(&page), ["g2"]);
    let unread = sync(&host, json!({"uid": "u", "msg_count": 1, "only_unread": 1})).await;
    // Own messages are not asked about: the row's read position counts, as in v2.
    assert_eq!(unread.len(), 4);
    let some = json!({
        "uid": "u", "msg_count": 5, "last_msg_seqs": "g2:2:3|g3:2:1", "exclude_channel_types": [1, 2],
    });
    let some = sync(&host, some).await;
    assert_eq!(ids(&some), ["g3"]);
    assert_eq!(some[0]["recents"].as_array().unwrap().len(), 2);
    host.stop().await;
}

#[tokio::test]
async fn marks() {
    let host = Host::start().await;
    for n in 0..5 {
        host.say("v", "u", 1, &n.to_string()).await;
    }
    let target = json!({"uid": "u", "channel_id": "v", "channel_type": 1});
    let with_unread = |n: i64| {
        let mut body = target.clone();
        body["unread"] = json!(n);
        body
    };
    let unread =
        async || sync(&host, json!({"uid": "u", "msg_count": 1})).await[0]["unread"].clone();
    assert_eq!(unread().await, 5);
    host.post("/conversations/clearUnread", target.clone())
        .await;
    assert_eq!(unread().await, 0);
    for (n, expected) in [(2, 2), (4, 4), (99, 5), (0, 0)] {
        host.post("/conversations/setUnread", with_unread(n)).await;
        assert_eq!(unread().await, expected, "setUnread {n}");
    }
    let text = host
        .refused("/conversations/setUnread", with_unread(-1))
        .await;
    assert_eq!(text, "unread cannot be negative");
    host.post("/conversations/delete", target.clone()).await;
    assert!(
        sync(&host, json!({"uid": "u", "msg_count": 9}))
            .await
            .is_empty()
    );
    let channels = host
        .post("/conversation/channels", json!({"uid": "u"}))
        .await;
    assert_eq!(channels, json!([{"channel_id": "u@v", "channel_type": 1}]));
    host.say("v", "u", 1, "new").await;
    let list = sync(&host, json!({"uid": "u", "msg_count": 9})).await;
    assert_eq!(list[0]["recents"].as_array().unwrap().len(), 1);
    assert_eq!(list[0]["unread"], 1);
    for (path, text) in [
        ("/conversations/clearUnread", "uid cannot be empty"),
        ("/conversations/setUnread", "UID cannot be empty"),
        ("/conversations/delete", "Uid cannot be empty"),
        ("/conversation/sync", "uid不能为空！"),
        ("/conversation/channels", "uid不能为空！"),
        ("/conversation/syncByChannels", "uid cannot be empty"),
    ] {
        assert_eq!(host.refused(path, json!({})).await, text);
    }
    host.stop().await;
}

#[tokio::test]
async fn named_channels() {
    let host = Host::start().await;
    let create = json!({"channel_id": "g", "channel_type": 2, "subscribers": ["u"]});
    host.post("/channel", create).await;
    for n in 0..3 {
        host.say("v", "g", 2, &n.to_string()).await;
    }
    let body = json!({
        "uid": "u", "channels": [
            {"channel_id": "none", "channel_type": 2}, {"channel_id": "g", "channel_type": 2}, {"channel_id": "a@b", "channel_type": 1},
        ],
    });
    let list = host.post("/conversation/syncByChannels", body).await;
    // One element per channel, in order, also for what cannot be a channel.
    assert_eq!(ids(list.as_array().unwrap()), ["none", "g", "a@b"]);
    assert_eq!(
        (&list[0]["recents"], &list[0]["version"]),
        (&json!([]), &json!(0))
    );
    assert_eq!(list[1]["unread"], 3);
    let body = |order: u8| {
        json!({
            "uid": "v", "msg_count": 2, "order_by_last": order,
            "channels": [{"channel_id": "g", "channel_type": 2, "last_msg_seq": 1}],
        })
    };
    let seqs = |list: &Value| {
        let messages = list[0]["messages"].as_array().unwrap();
        messages
            .iter()
            .map(|m| m["message_seq"].as_u64().unwrap())
            .collect::<Vec<_>>()
    };
    let path = "/conversation/syncMessages";
    let oldest = host.post(path, body(0)).await;
    assert_eq!(
        (seqs(&oldest), &oldest[0]["user_last_msg_seq"]),
        (vec![1, 2], &json!(3))
    );
    assert_eq!(seqs(&host.post(path, body(1)).await), [3, 2]);
    host.stop().await;
}

/// Above the one-pass bound heads are asked first and messages only for the page; the result must not differ.
#[tokio::test]
async fn many_conversations_are_ranked_before_they_are_read() {
    const ROWS: usize = 320;
    let host = Host::start().await;
    for n in 0..ROWS {
        host.say(&format!("peer{n:03}"), "u", 1, "hi").await;
    }
    let page = json!({"uid": "u", "msg_count": 1, "page": 2, "page_size": 100});
    let page = sync(&host, page).await;
    let expected: Vec<_> = (0..ROWS)
        .rev()
        .skip(100)
        .take(100)
        .map(|n| format!("peer{n:03}"))
        .collect();
    assert_eq!(ids(&page), expected);
    assert!(
        page.iter()
            .all(|c| c["recents"].as_array().unwrap().len() == 1)
    );
    host.stop().await;
}
