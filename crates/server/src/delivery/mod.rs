//! From a committed message to the mailboxes of its recipients' sessions.
//!
//! Pairs (two recipients, known from the channel's id) are pushed by the shard thread itself: less work than a hand-over. Everything
//! else goes to a worker by channel hash, FIFO per channel. A worker's memory is bounded: when it lags, only positions are kept and
//! the log is read again (H23). Recipients without a session are nobody's business here.

mod plan;
mod queue;
mod worker;

use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
use std::sync::Arc;

use wk_cluster::Directory;
use wk_proto::channel::SYSTEM_UID;
use wk_proto::{ChannelKey, ChannelType, MessageSeq, Record, SessionRef, Uid};
use wk_store::View;

pub(crate) use worker::Worker;

use self::queue::Queue;
use crate::counters::Totals;
use crate::hub::{Hub, Wakes};
use crate::peer::{Mesh, Remote};
use crate::presence::Presence;

/// One message on its way, and the session that must not get it back.
#[derive(Clone, Debug)]
pub(crate) struct Outgoing {
    pub(crate) delivery: Arc<wk_session::Delivery>,
    pub(crate) origin: Option<SessionRef>,
}

impl Outgoing {
    pub(crate) fn new(
        channel: ChannelKey,
        seq: Option<MessageSeq>,
        record: Record,
        origin: Option<SessionRef>,
    ) -> Self {
        Self {
            delivery: Arc::new(wk_session::Delivery {
                channel,
                seq,
                record,
            }),
            origin,
        }
    }

    /// Bytes of its body.
    pub(crate) fn bytes(&self) -> usize {
        self.delivery.record.as_bytes().len()
    }
}

/// Work of one worker, in order per channel.
#[derive(Debug)]
pub(crate) enum Job {
    /// Persistent messages of one channel with consecutive seqs.
    Push {
        channel: ChannelKey,
        messages: Vec<Outgoing>,
        /// Where its members are read, should there be no plan.
        view: View,
    },
    /// A message that is not stored. `recipients`: instead of the channel's.
    Transient {
        channel: ChannelKey,
        message: Outgoing,
        recipients: Option<Arc<[Uid]>>,
        view: View,
    },
    /// The plan of this channel is stale.
    Forget(ChannelKey),
}

impl Job {
    fn channel(&self) -> &ChannelKey {
        match self {
            Self::Push { channel, .. }
            | Self::Transient { channel, .. }
            | Self::Forget(channel) => channel,
        }
    }

    fn bytes(&self) -> usize {
        match self {
            Self::Push { messages, .. } => messages.iter().map(Outgoing::bytes).sum(),
            Self::Transient { message, .. } => message.bytes(),
            Self::Forget(_) => 0,
        }
    }
}

/// The queues of the workers.
#[derive(Debug)]
pub(crate) struct Delivery {
    queues: Vec<Arc<Queue>>,
    sender: Sender,
}

impl Delivery {
    pub(crate) fn new(workers: usize, sender: Sender) -> Self {
        let queues = (0..workers).map(|_| Arc::new(Queue::new(sender.totals.clone())));
        Self {
            queues: queues.collect(),
            sender,
        }
    }

    pub(crate) fn queues(&self) -> &[Arc<Queue>] {
        &self.queues
    }

    pub(crate) fn sender(&self) -> &Sender {
        &self.sender
    }

    /// Queues a batch. Never waits, and `jobs` is empty after.
    pub(crate) fn put(&self, jobs: &mut Vec<Job>) {
        if jobs.is_empty() {
            return;
        }
        if let [queue] = &self.queues[..] {
            queue.put(jobs.drain(..));
            return;
        }
        for job in jobs.drain(..) {
            let hasher = BuildHasherDefault::<DefaultHasher>::default();
            // By base: a twin shares its members with it, and so their plan.
            let hash = hasher.hash_one(&job.channel().base);
            let queue = &self.queues[hash as usize % self.queues.len()];
            queue.put(std::iter::once(job));
        }
    }

    pub(crate) fn close(&self) {
        for queue in &self.queues {
            queue.close();
        }
    }
}

/// Puts messages into mailboxes.
#[derive(Clone, Debug)]
pub(crate) struct Sender {
    pub(crate) hub: Arc<Hub>,
    pub(crate) presence: Arc<Presence>,
    pub(crate) totals: Arc<Totals>,
    pub(crate) mesh: Arc<Mesh>,
}

impl Sender {
    /// One batch of messages of one channel to one user's sessions on this node. Those on other nodes are added to `remote`: all
    /// recipients of the batch share one push to each node ([`Self::to_nodes`]).
    pub(crate) fn to_user(
        &self,
        directory: &Directory,
        uid: &Uid,
        messages: &[Outgoing],
        wakes: &mut Wakes,
        remote: &mut Remote,
    ) {
        for entry in directory.sessions(uid) {
            let session = entry.session;
            if session != self.presence.reference(session.conn) {
                remote.entry(session.node).or_default().push(session.conn);
                continue;
            }
            let Some(conn) = self.hub.get(session.conn) else {
                continue;
            };
            let wanted = messages.iter().filter(|m| m.origin != Some(session));
            conn.deliver(wanted.map(|m| &m.delivery), wakes);
        }
    }

    /// The same messages to sessions on other nodes.
    pub(crate) fn to_nodes(&self, remote: Remote, messages: &[Outgoing]) {
        let lost = self.mesh.push(remote, messages);
        self.totals.undelivered.add(lost as u64);
    }
}

/// Whether the channel's recipients are in its id alone.
pub(crate) fn is_pair(channel: &ChannelKey) -> bool {
    channel.kind == ChannelType::PERSON || channel.kind == ChannelType::AGENT
}

/// The server itself never receives.
pub(crate) fn receives(uid: &Uid) -> bool {
    uid.as_str() != SYSTEM_UID
}
