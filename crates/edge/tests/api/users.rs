//! `/user/*`.

use serde_json::json;

use super::host::Host;

#[tokio::test]
async fn tokens() {
    let host = Host::start().await;
    for (body, text) in [
        (json!({"uid": "", "token": "t"}), "uid不能为空！"),
        (json!({"uid": "u", "token": ""}), "token不能为空！"),
        (json!({"uid": "a@b", "token": "t"}), "uid不能包含特殊字符！"),
        (
            json!({"uid": "____system", "token": "t"}),
            "系统账号不允许更新token！",
        ),
        (
            json!({"uid": "u", "token": "t", "device_flag": 300}),
            "json: cannot unmarshal number 300 into Go struct field UpdateTokenReq.device_flag of type wkproto.DeviceFlag",
        ),
    ] {
        assert_eq!(host.refused("/user/token", body).await, text);
    }
    let token = json!({"UID": "u1", "Token": "t", "device_level": 1});
    let done = json!({"status": 200});
    assert_eq!(host.post("/user/token", token.clone()).await, done);
    let ban = |on: u8| json!({"channel_id": "u1", "channel_type": 1, "ban": on});
    host.post("/channel/info", ban(1)).await;
    let banned = json!({"status": 19});
    assert_eq!(host.post("/user/token", token.clone()).await, banned);
    host.post("/channel/info", ban(0)).await;
    assert_eq!(host.post("/user/token", token).await, done);
    let quit = json!({"uid": "u1", "device_flag": -1});
    assert_eq!(host.post("/user/device_quit", quit).await, done);
    let nobody = host.refused("/user/device_quit", json!({})).await;
    assert_eq!(nobody, "uid不能为空！");
    host.stop().await;
}

#[tokio::test]
async fn presence_and_system_accounts() {
    let host = Host::start().await;
    let online = |uids| host.post("/user/onlinestatus", uids);
    assert_eq!(online(json!([])).await, json!({"status": 200}));
    assert_eq!(online(json!(["a", ""])).await, json!([]));
    assert_eq!(host.get("/user/systemuids").await, json!([]));
    let uids = json!({"uids": ["sysB", "sysA", "", "sysA"]});
    host.post("/user/systemuids_add", uids.clone()).await;
    assert_eq!(host.get("/user/systemuids").await, json!(["sysA", "sysB"]));
    host.post("/user/systemuids_remove", uids).await;
    assert_eq!(host.get("/user/systemuids").await, json!([]));
    let cache = json!({"uids": ["sysC"]});
    host.post("/user/systemuids_add_to_cache", cache).await;
    assert_eq!(host.get("/user/systemuids").await, json!([]));
    host.stop().await;
}
