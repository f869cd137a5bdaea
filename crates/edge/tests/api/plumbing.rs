//! Transport, access, health, documentation.

use serde_json::json;

use super::host::Host;

#[tokio::test]
async fn unknown_paths_preflights_and_slashes() {
    let host = Host::start().await;
    for line in [
        "GET /nope",
        "DELETE /user/token",
        "GET /user/token",
        "GET /HEALTH",
        "POST /message/revoke",
    ] {
        let answer = host.request(line, "", b"").await;
        assert_eq!(
            (answer.status, answer.body.as_str()),
            (404, "404 page not found"),
            "{line}"
        );
        assert_eq!(answer.header("content-type"), "text/plain");
        assert_eq!(answer.header("access-control-allow-origin"), "*");
    }
    for line in ["OPTIONS /user/token", "OPTIONS /nope"] {
        let answer = host.request(line, "", b"").await;
        assert_eq!((answer.status, answer.body.as_str()), (204, ""));
        assert_eq!(
            answer.header("access-control-allow-methods"),
            "POST, OPTIONS, GET, PUT,DELETE,PATCH"
        );
    }
    let moved = host.request("GET /route/?intranet=1", "", b"").await;
    assert_eq!(
        (moved.status, moved.header("location")),
        (301, "/route?intranet=1")
    );
    let moved = host.request("POST /user/token/", "", b"{}").await;
    assert_eq!(
        (moved.status, moved.header("location")),
        (307, "/user/token")
    );
    host.stop().await;
}

#[tokio::test]
async fn a_token_guards_everything_but_probes_and_preflights() {
    let host = Host::with(|c| c.manager_token = "secret".into()).await;
    for (line, headers, status) in [
        ("GET /route", "", 401),
        ("GET /nope", "", 401),
        ("GET /route", "token: wrong\r\n", 401),
        ("GET /route", "Token: secret\r\n", 200),
        ("GET /health", "", 200),
        ("GET /readyz", "", 200),
        ("OPTIONS /route", "", 204),
    ] {
        let answer = host.request(line, headers, b"").await;
        assert_eq!(answer.status, status, "{line} {headers}");
        if status == 401 {
            assert_eq!(answer.body, "");
        }
    }
    host.stop().await;
}

#[tokio::test]
async fn without_a_token_a_proxied_request_is_told_what_to_set() {
    let host = Host::start().await;
    let answer = host
        .request("GET /route", "X-Forwarded-For: 8.8.8.8\r\n", b"")
        .await;
    assert_eq!(answer.status, 401);
    assert!(answer.body.contains("managerToken"), "{answer:?}");
    assert_eq!(host.request("GET /route", "", b"").await.status, 200);
    host.stop().await;
    let open = Host::with(|c| c.open_to_network = true).await;
    let answer = open
        .request("GET /route", "X-Real-IP: 8.8.8.8\r\n", b"")
        .await;
    assert_eq!(answer.status, 200);
    open.stop().await;
}

#[tokio::test]
async fn bodies_are_bounded() {
    let host = Host::start().await;
    let long = vec![b' '; 4 * 1024 * 1024 + 1];
    let answer = host.request("POST /user/token", "", &long).await;
    assert_eq!(answer.status, 400);
    assert!(answer.body.contains("larger than"));
    let payload = "A".repeat(4 * (700 * 1024 / 3 + 1));
    let body = json!({"channel_id": "g", "channel_type": 2, "payload": payload});
    let text = host.refused("/message/send", body).await;
    assert!(text.contains("716800"), "{text}");
    host.stop().await;
}

#[tokio::test]
async fn the_node_tells_about_itself() {
    let host = Host::with(|c| {
        c.mode = "debug".into();
        c.addresses.tcp = "1.2.3.4:5100".into();
        c.addresses.intranet_tcp = "10.0.0.1:5100".into();
    })
    .await;
    assert_eq!(host.get("/health").await, json!({"status": "ok"}));
    assert_eq!(host.get("/healthz").await, json!({"status": "ok"}));
    assert_eq!(host.get("/readyz").await["ready"], true);
    let external = json!({"tcp_addr": "1.2.3.4:5100", "ws_addr": "", "wss_addr": ""});
    assert_eq!(host.get("/route?uid=a&intranet=2").await, external);
    assert_eq!(
        host.get("/route?intranet=1").await["tcp_addr"],
        "10.0.0.1:5100"
    );
    let batch = host.post("/route/batch", json!(["a", "b"])).await;
    assert_eq!(batch[0]["uids"], json!(["a", "b"]));
    let varz = host.get("/varz?show=conn").await;
    assert_eq!(varz["server_name"], "WuKongIM");
    assert!(varz["mem"].as_u64().unwrap() > 1_000_000);
    assert_eq!(host.get("/connz?offset=-1").await["connections"], json!([]));
    let answer = host.request("GET /varz?node_id=77", "", b"").await;
    assert_eq!(answer.json()["msg"], "node not found");
    let kick = json!({"uid": "a", "conn_id": 0});
    assert_eq!(host.refused("/conn/kick", kick).await, "conn_id is 0");
    let paths = &host.get("/docs/openapi.json").await["paths"];
    assert!(paths["/message/send"]["post"].is_object());
    let page = host.request("GET /docs", "", b"").await;
    assert!(page.body.contains("/conversation/sync"));
    host.stop().await;
}

#[tokio::test]
async fn in_release_mode_there_is_no_documentation() {
    let host = Host::start().await;
    for path in ["/docs", "/docs/", "/docs/openapi.json"] {
        let answer = host.request(&format!("GET {path}"), "", b"").await;
        assert_eq!(
            (answer.status, &answer.json()["mode"]),
            (403, &json!("release"))
        );
    }
    assert_eq!(host.get("/docs/health").await["status"], "disabled");
    host.stop().await;
}

#[tokio::test]
async fn a_connection_is_kept_and_may_be_filled() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    const REQUESTS: usize = 20;
    let host = Host::start().await;
    let mut socket = tokio::net::TcpStream::connect(host.addr).await.unwrap();
    let request = "POST /route/batch HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\n\r\n[\"a\"]";
    let all = request.repeat(REQUESTS);
    socket.write_all(all.as_bytes()).await.unwrap();
    let mut seen = Vec::new();
    while seen.windows(7).filter(|w| w == br#"["a"]}]"#).count() < REQUESTS {
        assert_ne!(socket.read_buf(&mut seen).await.unwrap(), 0, "closed early");
    }
    // An idle connection does not hold up the stop.
    host.stop().await;
    assert_eq!(socket.read(&mut [0]).await.unwrap(), 0);
}
