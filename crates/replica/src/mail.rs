//! Raft messages of one turn, gathered per peer and per what must be durable before they leave.

use std::collections::BTreeMap;

use bytes::BytesMut;
use raft::eraftpb::Message;
use wk_proto::{GroupId, NodeId};

use crate::limits::PEER_MESSAGE_BYTES_TARGET;
use crate::shard::{After, Output, PeerMessage, WalMark};
use crate::wire;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Mail {
    /// `None` = may leave now; these come first.
    open: BTreeMap<(Option<WalMark>, NodeId), Vec<BytesMut>>,
}

impl Mail {
    /// Adds one message of one group.
    pub(crate) fn put(
        &mut self,
        to: NodeId,
        after: Option<WalMark>,
        group: GroupId,
        message: &Message,
    ) {
        let parts = self.open.entry((after, to)).or_default();
        let is_full = parts
            .last()
            .is_none_or(|p| p.len() >= PEER_MESSAGE_BYTES_TARGET);
        if is_full {
            parts.push(BytesMut::new());
        }
        if let Some(part) = parts.last_mut() {
            wire::put(part, group, message);
        }
    }

    /// Everything, ready to send.
    pub(crate) fn drain(&mut self, out: &mut Vec<Output>) {
        for ((after, to), parts) in std::mem::take(&mut self.open) {
            let after = after.map_or(After::Now, After::Durable);
            for part in parts.into_iter().filter(|p| !p.is_empty()) {
                out.push(Output::Send(to, PeerMessage(part.freeze()), after));
            }
        }
    }
}
