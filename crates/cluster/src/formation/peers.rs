//! What a node knows of one listed peer.

use wk_proto::{Mono, NodeId};

use super::list::ListHash;
use super::message::{Formed, Stage, Status};
use super::state::{LinkNews, LinkState};

/// A peer counts as there this long after it was heard, in ms; unformed nodes say something every [`PROBE_MS`].
pub(crate) const ALIVE_MS: u64 = 3_000;
/// Between two probes to a peer, in ms.
pub(crate) const PROBE_MS: u64 = 500;

/// One listed peer.
#[derive(Debug, Default)]
pub(crate) struct Peer {
    /// Where it is said to be.
    pub addr: String,
    /// Its link.
    pub news: LinkNews,
    /// When it was last heard.
    pub seen: Option<Mono>,
    /// Who it is. Kept when the link breaks.
    pub status: Option<Status>,
    /// What it promised, in this directory.
    pub promise: Option<ListHash>,
    /// The cluster it says there is.
    pub formed: Option<Formed>,
    /// Why we have nothing to do with it, and until when that counts: what is still so is said again.
    pub trouble: Option<Trouble>,
    /// When it is to be probed next.
    pub next_probe: Mono,
}

/// Something an operator has to see.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Trouble {
    pub state: LinkState,
    pub text: String,
    pub until: Mono,
}

impl Peer {
    pub(crate) fn is_connected(&self) -> bool {
        self.news.state == LinkState::Connected
    }

    /// Heard a short time ago.
    pub(crate) fn is_alive(&self, now: Mono) -> bool {
        self.seen.is_some_and(|seen| now < seen.plus_ms(ALIVE_MS))
    }

    /// There, not formed, and of this list.
    pub(crate) fn agrees(&self, hash: ListHash, now: Mono) -> bool {
        let same = |s: &Status| s.list_hash == hash && s.stage < Stage::Formed;
        self.is_alive(now) && self.status.as_ref().is_some_and(same)
    }

    /// Its disk, if it promised this list.
    pub(crate) fn promised(&self, hash: ListHash) -> Option<u128> {
        let status = self.status?;
        (self.promise == Some(hash)).then_some(status.uuid)
    }

    pub(crate) fn trouble(&self, now: Mono) -> Option<&Trouble> {
        self.trouble.as_ref().filter(|trouble| now < trouble.until)
    }

    /// Takes what the peer says of itself, or says why that cannot be: another directory than the one that has the seat, two
    /// directories at once, or one directory twice.
    pub(crate) fn hear(
        &mut self,
        node: NodeId,
        status: &Status,
        seat: Option<u128>,
        now: Mono,
    ) -> Result<(), String> {
        if status.node != node {
            return Err(format!(
                "the node at {} is listed as node {node} but is configured as node {}: correct cluster.nodeId there, or cluster.initNodes here",
                self.addr, status.node
            ));
        }
        if let Some(seat) = seat
            && seat != status.uuid
        {
            return Err(other_disk(node, seat, status.uuid));
        }
        if let Some(known) = self.status {
            self.compare(&known, status, now)?;
        }
        self.status = Some(*status);
        self.seen = Some(now);
        Ok(())
    }

    fn compare(&mut self, known: &Status, status: &Status, now: Mono) -> Result<(), String> {
        let node = status.node;
        if known.uuid != status.uuid {
            if self.is_alive(now) {
                return Err(format!(
                    "two directories are node {node} at the same time: give one of them another cluster.nodeId, or stop it"
                ));
            }
            // The node was given another directory before anything depended on the old one.
            self.promise = None;
            self.formed = None;
        } else if status.incarnation < known.incarnation {
            return Err(format!(
                "node {node} started from an older copy of its directory, or the directory runs twice: stop all copies but the newest"
            ));
        }
        Ok(())
    }
}

/// What is said of a node that comes with another disk than the one it is bound to.
pub(crate) fn other_disk(node: NodeId, bound: u128, found: u128) -> String {
    format!(
        "node {node} is bound to another disk ({bound:032x}, not {found:032x}): start it with the directory it had; if that is lost, \
         replace the node by one with a new id. A new directory would have forgotten what the old one acknowledged"
    )
}
