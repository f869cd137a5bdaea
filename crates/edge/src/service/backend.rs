//! What the use cases need of a node.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use wk_chat::Policy;
use wk_chat::request::{CallError, Reply, Request};
use wk_cluster::Entry;
use wk_proto::{ConnId, NodeId, Uid};
use wk_server::node::{ConnectionInfo, Counters, Node, Readiness};

/// A call under way.
pub type Calling<'a> =
    Pin<Box<dyn Future<Output = std::result::Result<Reply, CallError>> + Send + 'a>>;

/// A node, as the use cases see it. [`Node`] is the one in production; tests put a model in its place. Methods as on [`Node`].
#[allow(missing_docs, reason = "documented on Node")]
pub trait Backend: std::fmt::Debug + Send + Sync + 'static {
    fn call(&self, request: Request) -> Calling<'_>;
    fn sessions(&self, uid: &Uid) -> Vec<Entry>;
    fn close(&self, uid: &Uid, conn: ConnId, notice: Option<&'static str>);
    fn connections(&self) -> Vec<ConnectionInfo>;
    fn counters(&self) -> Counters;
    fn readiness(&self) -> Readiness;
    fn policy(&self) -> Arc<Policy>;
    fn id(&self) -> NodeId;
}

impl Backend for Node {
    fn call(&self, request: Request) -> Calling<'_> {
        Box::pin(Node::call(self, request))
    }

    fn sessions(&self, uid: &Uid) -> Vec<Entry> {
        Node::sessions(self, uid)
    }

    fn close(&self, uid: &Uid, conn: ConnId, notice: Option<&'static str>) {
        Node::close(self, uid, conn, notice);
    }

    fn connections(&self) -> Vec<ConnectionInfo> {
        Node::connections(self)
    }

    fn counters(&self) -> Counters {
        Node::counters(self)
    }

    fn readiness(&self) -> Readiness {
        Node::readiness(self)
    }

    fn policy(&self) -> Arc<Policy> {
        Node::policy(self)
    }

    fn id(&self) -> NodeId {
        Node::id(self)
    }
}
