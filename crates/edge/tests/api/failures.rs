//! What callers see when the state is not available: a node that never gets an answer stands in for an election that does not end.

use std::sync::Arc;

use serde_json::json;
use wk_chat::Policy;
use wk_chat::request::{CallError, Reply, Request, Why};
use wk_cluster::Entry;
use wk_edge::http::{ApiConfig, serve_backend};
use wk_edge::service::{Backend, Calling};
use wk_proto::{ConnId, NodeId, Reason, Uid};
use wk_server::node::{ConnectionInfo, Counters, Readiness};

use super::host;

/// Answers every request the same way.
#[derive(Debug)]
struct Scripted(Result<Reply, CallError>);

impl Backend for Scripted {
    fn call(&self, _: Request) -> Calling<'_> {
        let reply = self.0.clone();
        Box::pin(async move { reply })
    }

    fn sessions(&self, _: &Uid) -> Vec<Entry> {
        Vec::new()
    }

    fn close(&self, _: &Uid, _: ConnId, _: Option<&'static str>) {}

    fn connections(&self) -> Vec<ConnectionInfo> {
        Vec::new()
    }

    fn counters(&self) -> Counters {
        Counters::default()
    }

    fn readiness(&self) -> Readiness {
        Readiness {
            ready: false,
            groups_led: 1,
            groups: 65,
            waiting_for: vec!["slot 7 has no leader".to_owned()],
        }
    }

    fn policy(&self) -> Arc<Policy> {
        Arc::new(Policy::new())
    }

    fn id(&self) -> NodeId {
        NodeId(1)
    }
}

async fn answer(reply: Result<Reply, CallError>, line: &str, body: &str) -> host::Answer {
    let config = ApiConfig::new(([127, 0, 0, 1], 0).into());
    let backend = Arc::new(Scripted(reply));
    let serving = serve_backend(backend, config, std::future::pending())
        .await
        .unwrap();
    host::request(serving.addr(), line, "", body.as_bytes()).await
}

const WRITES_AND_READS: [(&str, &str); 6] = [
    (
        "POST /message/send",
        r#"{"channel_id":"g","channel_type":2,"payload":"aGk="}"#,
    ),
    ("POST /user/token", r#"{"uid":"u","token":"t"}"#),
    ("POST /channel", r#"{"channel_id":"g","channel_type":2}"#),
    ("POST /conversation/sync", r#"{"uid":"u","msg_count":1}"#),
    ("POST /message/sync", r#"{"uid":"u"}"#),
    ("GET /user/systemuids", ""),
];

#[tokio::test]
async fn no_answer_from_a_group_is_503_and_says_what_is_known() {
    for (error, text) in [
        (
            CallError::NotSent(Why::NotLeader),
            "not sent: no leader for this group here",
        ),
        (
            CallError::Unknown(Why::Timeout),
            "outcome unknown: timed out",
        ),
    ] {
        for (line, body) in WRITES_AND_READS {
            let answer = answer(Err(error), line, body).await;
            assert_eq!(answer.status, 503, "{line}");
            assert_eq!(answer.json(), json!({"msg": text, "status": 503}), "{line}");
        }
    }
}

#[tokio::test]
async fn a_refused_read_is_never_taken_for_a_list() {
    for (reason, status) in [(Reason::SystemError, 503), (Reason::ChannelIdError, 400)] {
        let refused = Ok(Reply::Refused(reason));
        let answer = answer(refused, "POST /conversation/sync", r#"{"uid":"u"}"#).await;
        assert_eq!(answer.status, status, "{answer:?}");
    }
}

#[tokio::test]
async fn an_answer_to_another_question_is_a_fault() {
    for (line, body) in WRITES_AND_READS {
        let answer = answer(Ok(Reply::Refused(Reason::SystemError)), line, body).await;
        assert_eq!(answer.status, 503, "{line}");
        let wrong = Ok(Reply::Answer(Box::new(wk_chat::Answer::Channel(None))));
        let answer = self::answer(wrong, line, body).await;
        assert_eq!(answer.status, 503, "{line}");
    }
}

#[tokio::test]
async fn a_node_that_is_not_ready_says_so() {
    let down = || Err(CallError::NotSent(Why::NotLeader));
    let health = answer(down(), "GET /health", "").await;
    assert_eq!(health.status, 500);
    assert_eq!(
        health.json(),
        json!({"message": "slot leader not found", "status": "error"})
    );
    let ready = answer(down(), "GET /readyz", "").await;
    assert_eq!(ready.status, 503);
    assert_eq!(ready.json()["waiting_for"], json!(["slot 7 has no leader"]));
    let alive = answer(down(), "GET /healthz", "").await;
    assert_eq!(alive.status, 200);
}
