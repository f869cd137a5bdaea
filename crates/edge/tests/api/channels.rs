//! Channels, subscribers, lists.

use serde_json::json;

use super::host::Host;

#[tokio::test]
async fn checks_in_their_order() {
    let host = Host::start().await;
    for (path, body, text) in [
        (
            "/channel",
            json!({"channel_id": " ", "channel_type": 2}),
            "频道ID不能为空！",
        ),
        ("/channel", json!({"channel_id": "x"}), "频道类型错误！"),
        (
            "/channel",
            json!({"channel_id": "a#b", "channel_type": 2}),
            "频道ID不能包含特殊字符！",
        ),
        (
            "/channel",
            json!({"channel_id": "u", "channel_type": 1, "subscribers": ["x"]}),
            "不支持个人频道添加订阅者！",
        ),
        (
            "/channel/info",
            json!({"channel_id": "", "channel_type": 2}),
            "频道ID不能为空！",
        ),
        (
            "/channel/delete",
            json!({"channel_id": "u", "channel_type": 1}),
            "个人频道不支持添加订阅者！",
        ),
        (
            "/channel/subscriber_add",
            json!({"channel_id": "x", "subscribers": [" ", ""]}),
            "订阅者不能为空！",
        ),
        (
            "/channel/subscriber_add",
            json!({"channel_id": "x", "subscribers": ["y"], "temp_subscriber": 1}),
            "新版本临时订阅者已不支持！",
        ),
        (
            "/channel/subscriber_remove_all",
            json!({"channel_id": "x"}),
            "频道类型不能为0！",
        ),
        (
            "/tmpchannel/subscriber_set",
            json!({"channel_id": "t"}),
            "uids不能为空！",
        ),
        (
            "/channel/blacklist_add",
            json!({"channel_id": "x", "channel_type": 2}),
            "uids不能为空！",
        ),
        ("/channel/blacklist_set", json!({}), "频道ID不能为空！"),
        (
            "/channel/whitelist_add",
            json!({"channel_id": "a@b", "channel_type": 2, "uids": ["x"]}),
            "频道ID不能包含特殊字符！",
        ),
    ] {
        assert_eq!(host.refused(path, body).await, text, "{path}");
    }
    let undecodable = host.post_raw("/channel", "x").await.json();
    assert_eq!(
        undecodable["msg"],
        "数据格式有误！: invalid character 'x' looking for beginning of value"
    );
    let undecodable = host.post_raw("/channel/info", "x").await.json();
    assert_eq!(undecodable["msg"], "数据格式有误！");
    host.stop().await;
}

#[tokio::test]
async fn subscribers_come_and_go_in_sets_of_any_size() {
    let host = Host::start().await;
    let path = "/cluster/channels/g/2/subscribers";
    let many: Vec<String> = (0..2_300).map(|n| format!("u{n:04}")).collect();
    let create = json!({"channel_id": "g", "channel_type": 2, "subscribers": many});
    host.post("/channel", create).await;
    assert_eq!(host.get(path).await, json!(many));
    let others: Vec<String> = (0..1_100).map(|n| format!("w{n:04}")).collect();
    let reset = json!({"channel_id": "g", "channel_type": 2, "subscribers": others, "reset": 1});
    host.post("/channel/subscriber_add", reset).await;
    assert_eq!(host.get(path).await, json!(others));
    let remove = json!({"channel_id": "g", "subscribers": others[1..]});
    host.post("/channel/subscriber_remove", remove).await;
    assert_eq!(host.get(path).await, json!(["w0000"]));
    let all = json!({"channel_id": "g", "channel_type": 2});
    host.post("/channel/subscriber_remove_all", all).await;
    assert_eq!(host.get(path).await, json!([]));
    host.stop().await;
}

#[tokio::test]
async fn lists() {
    let host = Host::start().await;
    let change = |uids| json!({"channel_id": "g", "channel_type": 2, "uids": uids});
    host.post("/channel/blacklist_add", change(json!(["a", "b"])))
        .await;
    host.post("/channel/blacklist_remove", change(json!(["a"])))
        .await;
    let deny = "/cluster/channels/g/2/denylist";
    assert_eq!(host.get(deny).await, json!(["b"]));
    host.post("/channel/blacklist_set", change(json!(["c"])))
        .await;
    assert_eq!(host.get(deny).await, json!(["c"]));
    host.post("/channel/blacklist_set", change(json!([]))).await;
    assert_eq!(host.get(deny).await, json!([]));
    host.post("/channel/whitelist_add", change(json!(["u1"])))
        .await;
    let listed = host
        .get("/channel/whitelist?channel_id=g&channel_type=2")
        .await;
    assert_eq!(listed[0]["id"], 631_765_120_777_144_307_u64);
    assert_eq!(listed[0]["uid"], "u1");
    let created = listed[0]["created_at"].as_str().unwrap();
    assert!(created.starts_with("20") && created.ends_with('Z'));
    assert_eq!(listed[0]["updated_at"], created);
    let all = json!({"channel_id": "g", "channel_type": 2});
    host.post("/channel/whitelist_remove_all", all).await;
    assert_eq!(host.get("/channel/whitelist").await, json!([]));
    host.stop().await;
}

#[tokio::test]
async fn a_disbanded_channel_refuses_and_keeps_its_history() {
    let host = Host::start().await;
    let create = json!({"channel_id": "g", "channel_type": 2, "subscribers": ["a"]});
    host.post("/channel", create.clone()).await;
    host.say("a", "g", 2, "hi").await;
    let delete = json!({"channel_id": "g", "channel_type": 2});
    host.post("/channel/delete", delete).await;
    let send = json!({"from_uid": "a", "channel_id": "g", "channel_type": 2, "payload": "aGk=", "client_msg_no": "n"});
    let refused = host.post("/message/send", send).await;
    assert_eq!(refused["data"]["reason"], 24);
    assert_eq!(refused["data"]["message_seq"], 0);
    let history = json!({"login_uid": "a", "channel_id": "g", "channel_type": 2});
    let page = host.post("/channel/messagesync", history).await;
    assert_eq!(page["messages"].as_array().unwrap().len(), 1);
    host.post("/channel", create).await;
    assert_eq!(host.say("a", "g", 2, "again").await, 2);
    host.stop().await;
}
