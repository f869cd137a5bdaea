//! This node: health, totals, sockets (http-api 8, 10).

use wk_proto::{ConnId, Uid};
use wk_server::node::{ConnectionInfo, Counters, Readiness};

use super::Service;
use super::error::{Error, Result, ensure};

/// Text of the DISCONNECT an operator causes.
const KICK_NOTICE: &str = "server kick";

impl Service {
    /// Whether requests are served now.
    pub fn readiness(&self) -> Readiness {
        self.backend.readiness()
    }

    /// Totals of this node.
    pub fn counters(&self) -> Counters {
        self.backend.counters()
    }

    /// Sockets of this node.
    pub fn connections(&self) -> Vec<ConnectionInfo> {
        self.backend.connections()
    }

    /// This node's number.
    pub fn node_id(&self) -> u64 {
        u64::from(self.backend.id().0)
    }

    /// Fails with `text` if `node` is another node's number; 0 is this one.
    pub fn check_here(&self, node: u64, text: &'static str) -> Result<()> {
        ensure(node == 0 || node == self.node_id(), text)
    }

    /// The user the manager logs in as.
    pub fn manager_uid(&self) -> Uid {
        self.backend.policy().manager_uid.clone()
    }

    /// Ends one connection of this node if it is the user's; `kick` tells the client first. An unknown one is left alone.
    pub fn close_connection(&self, uid: &str, conn_id: i64, kick: bool) -> Result<()> {
        ensure(conn_id != 0, "conn_id is 0")?;
        let conn = u64::try_from(conn_id).ok().map(ConnId);
        if let (Some(conn), Ok(uid)) = (conn, Uid::parse(uid)) {
            let notice = kick.then_some(KICK_NOTICE);
            self.backend.close(&uid, conn, notice);
        }
        Ok(())
    }

    /// Ready, or why not in one of the words of v2's `/health`.
    pub fn health(&self) -> Result<()> {
        let readiness = self.readiness();
        if readiness.ready {
            return Ok(());
        }
        Err(Error::invalid(match readiness.groups {
            0 => "no slots",
            groups if readiness.groups_led < groups => "slot leader not found",
            _ => "slot not ready",
        }))
    }
}
