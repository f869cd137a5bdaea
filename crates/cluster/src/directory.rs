//! Who is connected where. Each entry has one writer, the node that holds the socket; there is nothing to merge (H18).
//!
//! Every node keeps the whole directory (≤ 9 nodes, ≤ 10 M sessions: H18). This value is the local copy and, for this node's own
//! sessions, the list of what peers have not acknowledged: an entry is *visible* once every node that may deliver has it (H17).

use std::collections::{BTreeMap, HashMap};
use std::hash::BuildHasherDefault;
use std::sync::Arc;

use wk_proto::{ConnId, Fence, NodeId, SessionRef, Uid};

/// One session, as delivery and the device rules see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Where the socket is.
    pub session: SessionRef,
    /// Device class.
    pub device_flag: u8,
    /// Client's device id.
    pub device_id: Arc<str>,
    /// Master device.
    pub master: bool,
    /// Orders admissions of the user (H19).
    pub fence: Fence,
}

/// Names a publication; ascending.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PublishId(pub u64);

/// What this node may assume about another (H20).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Liveness {
    /// It answers.
    Alive,
    /// No contact, but its lease has not ended: neither push nor report offline.
    Unknown,
    /// Its lease ended: its sessions are gone.
    Gone,
}

/// A session that the device rules exclude now (messaging 1.4).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kick {
    /// Which.
    pub session: SessionRef,
    /// DISCONNECT's text; `None` = it is dropped silently.
    pub notice: Option<&'static str>,
}

/// Milliseconds between a device-rule kick and the close.
pub const KICK_DELAY_MS: u64 = 2_000;

/// Looked up, never walked: order cannot leak.
type Map<K, V> = HashMap<K, V, BuildHasherDefault<std::hash::DefaultHasher>>;

/// See the module.
#[derive(Debug)]
pub struct Directory {
    node: NodeId,
    by_uid: Map<Uid, Vec<Entry>>,
    /// Whose each session is: for what a node publishes, and for forgetting a node.
    by_node: BTreeMap<NodeId, BTreeMap<ConnId, Uid>>,
    sessions: usize,
    next_publish: u64,
    /// What each peer has acknowledged of this node's publications, and how it is doing.
    peers: BTreeMap<NodeId, (PublishId, Liveness)>,
}

impl Directory {
    /// An empty directory of `node`, alone.
    pub fn new(node: NodeId) -> Self {
        Self {
            node,
            by_uid: Map::default(),
            by_node: BTreeMap::new(),
            sessions: 0,
            next_publish: 1,
            peers: BTreeMap::new(),
        }
    }

    /// A session of this node becomes known. Returns its publication and the sessions the device rules exclude now; an older fence
    /// than the one it meets excludes itself.
    pub fn publish(&mut self, uid: &Uid, entry: Entry) -> (PublishId, Vec<Kick>) {
        let id = PublishId(self.next_publish);
        self.next_publish += 1;
        let kicks = self.insert(uid, entry);
        (id, kicks)
    }

    /// A session (own or a peer's) enters. See [`Self::publish`].
    pub fn insert(&mut self, uid: &Uid, entry: Entry) -> Vec<Kick> {
        let SessionRef { node, conn } = entry.session;
        let before = self
            .by_node
            .entry(node)
            .or_default()
            .insert(conn, uid.clone());
        if let Some(before) = before.filter(|before| before != uid) {
            // A peer says that a connection is another user's now.
            self.drop_entry(&before, entry.session);
        }
        let entries = self.by_uid.entry(uid.clone()).or_default();
        let mut kicks = Vec::new();
        for old in entries.iter().filter(|old| old.session != entry.session) {
            let (winner, loser) = if old.fence > entry.fence {
                (old, &entry)
            } else {
                (&entry, old)
            };
            if let Some(notice) = excludes(winner, loser) {
                kicks.push(Kick {
                    session: loser.session,
                    notice,
                });
            }
        }
        match entries.iter_mut().find(|old| old.session == entry.session) {
            Some(old) => *old = entry,
            None => {
                entries.push(entry);
                self.sessions += 1;
            }
        }
        kicks
    }

    /// The session is gone. Returns whether it was there.
    pub fn remove(&mut self, uid: &Uid, session: SessionRef) -> bool {
        let removed = self.drop_entry(uid, session);
        if removed && let Some(conns) = self.by_node.get_mut(&session.node) {
            conns.remove(&session.conn);
        }
        removed
    }

    /// Whose session it is.
    pub fn owner(&self, session: SessionRef) -> Option<&Uid> {
        self.by_node.get(&session.node)?.get(&session.conn)
    }

    /// Every session of a node, by connection.
    pub fn of_node(&self, node: NodeId) -> impl Iterator<Item = (&Uid, &Entry)> {
        let conns = self.by_node.get(&node).into_iter().flatten();
        conns.filter_map(move |(conn, uid)| {
            let session = SessionRef { node, conn: *conn };
            let entries = self.sessions(uid);
            let entry = entries.iter().find(|entry| entry.session == session)?;
            Some((uid, entry))
        })
    }

    /// Forgets the sessions of a node, except those to `keep`: it is gone, or it has said which ones it has.
    pub fn retain(&mut self, node: NodeId, keep: impl Fn(ConnId) -> bool) {
        let Some(conns) = self.by_node.get_mut(&node) else {
            return;
        };
        let gone: Vec<_> = conns.extract_if(.., |conn, _| !keep(*conn)).collect();
        for (conn, uid) in gone {
            self.drop_entry(&uid, SessionRef { node, conn });
        }
    }

    /// The newest publication.
    pub fn last_published(&self) -> PublishId {
        PublishId(self.next_publish - 1)
    }

    fn drop_entry(&mut self, uid: &Uid, session: SessionRef) -> bool {
        let Some(entries) = self.by_uid.get_mut(uid) else {
            return false;
        };
        let before = entries.len();
        entries.retain(|e| e.session != session);
        let removed = before - entries.len();
        if entries.is_empty() {
            self.by_uid.remove(uid);
        }
        self.sessions -= removed;
        removed > 0
    }

    /// Whether every node that may deliver knows the publication (H17). Alone: at once.
    pub fn visible(&self, id: PublishId) -> bool {
        self.peers
            .values()
            .all(|(acked, liveness)| *acked >= id || *liveness == Liveness::Gone)
    }

    /// A peer acknowledged everything up to `id`, or its liveness changed.
    pub fn on_peer(&mut self, peer: NodeId, acked: PublishId, liveness: Liveness) {
        assert_ne!(peer, self.node, "a node is not its own peer");
        let known = self.peers.entry(peer).or_insert((acked, liveness));
        *known = (known.0.max(acked), liveness);
    }

    /// All sessions of a user, in order of arrival.
    pub fn sessions(&self, uid: &Uid) -> &[Entry] {
        self.by_uid.get(uid).map_or(&[], Vec::as_slice)
    }

    /// Sessions in all.
    pub fn len(&self) -> usize {
        self.sessions
    }

    /// Nobody is connected.
    pub fn is_empty(&self) -> bool {
        self.sessions == 0
    }

    /// What may be assumed about a node.
    pub fn node(&self, node: NodeId) -> Liveness {
        if node == self.node {
            return Liveness::Alive;
        }
        self.peers
            .get(&node)
            .map_or(Liveness::Gone, |(_, liveness)| *liveness)
    }
}

/// Whether `winner` excludes `loser`, and with which notice. Spec: messaging 1.4.
fn excludes(winner: &Entry, loser: &Entry) -> Option<Option<&'static str>> {
    if winner.device_flag != loser.device_flag {
        return None;
    }
    if winner.device_id == loser.device_id {
        return Some(None);
    }
    winner.master.then_some(Some("login in other device"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use wk_proto::{ConnId, Term};

    fn entry(conn: u64, device: &str, master: bool) -> Entry {
        Entry {
            session: SessionRef {
                node: NodeId(1),
                conn: ConnId(conn),
            },
            device_flag: 0,
            device_id: device.into(),
            master,
            fence: Fence {
                term: Term(1),
                n: conn,
            },
        }
    }

    fn kicked(kicks: &[Kick]) -> Vec<(u64, Option<&'static str>)> {
        kicks.iter().map(|k| (k.session.conn.0, k.notice)).collect()
    }

    #[test]
    fn device_rules_row_by_row() {
        let uid = Uid::trusted("u");
        let after = |old: Entry, new: Entry| {
            let mut d = Directory::new(NodeId(1));
            assert!(d.publish(&uid, old).1.is_empty());
            kicked(&d.publish(&uid, new).1)
        };
        let notice = Some("login in other device");
        assert_eq!(
            after(entry(1, "a", false), entry(2, "b", true)),
            [(1, notice)],
            "master, other device"
        );
        assert_eq!(
            after(entry(1, "a", true), entry(2, "a", true)),
            [(1, None)],
            "master, same device"
        );
        assert_eq!(
            after(entry(1, "a", false), entry(2, "a", false)),
            [(1, None)],
            "slave, same device"
        );
        assert_eq!(
            after(entry(1, "a", true), entry(2, "b", false)),
            [],
            "slave, other device"
        );
        let other_flag = Entry {
            device_flag: 1,
            ..entry(2, "a", true)
        };
        assert_eq!(after(entry(1, "a", true), other_flag), [], "other flag");
    }

    #[test]
    fn the_larger_fence_wins_whatever_arrives_last() {
        let uid = Uid::trusted("u");
        let mut d = Directory::new(NodeId(1));
        d.publish(&uid, entry(5, "a", true));
        assert_eq!(
            kicked(&d.publish(&uid, entry(4, "b", true)).1),
            [(4, Some("login in other device"))]
        );
    }

    #[test]
    fn visible_only_when_every_live_peer_has_it() {
        let uid = Uid::trusted("u");
        let mut d = Directory::new(NodeId(1));
        d.on_peer(NodeId(2), PublishId(0), Liveness::Alive);
        let (id, _) = d.publish(&uid, entry(1, "a", false));
        assert!(!d.visible(id));
        d.on_peer(NodeId(2), PublishId(0), Liveness::Unknown);
        assert!(!d.visible(id), "unknown is not gone");
        d.on_peer(NodeId(2), PublishId(0), Liveness::Gone);
        assert!(d.visible(id));
        d.on_peer(NodeId(2), id, Liveness::Alive);
        assert!(d.visible(id));
    }

    #[test]
    fn a_node_that_is_gone_takes_its_sessions_and_no_others_along() {
        let [ann, bob] = ["ann", "bob"].map(Uid::trusted);
        let on = |node: u32, conn| {
            let mut entry = entry(conn, "a", false);
            entry.session.node = NodeId(node);
            entry
        };
        let mut d = Directory::new(NodeId(1));
        d.publish(&ann, entry(1, "b", false));
        for (uid, conn) in [(&ann, 1), (&ann, 2), (&bob, 3)] {
            let mut remote = on(2, conn);
            remote.device_id = conn.to_string().into();
            assert!(d.insert(uid, remote).is_empty());
        }
        assert_eq!(d.of_node(NodeId(2)).count(), 3);
        d.retain(NodeId(2), |conn| conn == ConnId(2));
        assert_eq!((d.len(), d.sessions(&ann).len()), (2, 2));
        assert!(d.sessions(&bob).is_empty());
        d.retain(NodeId(2), |_| false);
        assert_eq!((d.len(), d.of_node(NodeId(1)).count()), (1, 1));
        // A connection that changed hands belongs to one user only.
        d.insert(&bob, on(2, 9));
        d.insert(&ann, on(2, 9));
        assert!(d.sessions(&bob).is_empty());
        assert_eq!(d.owner(on(2, 9).session), Some(&ann));
        assert_eq!(d.len(), 2);
    }

    #[test]
    fn removal_forgets_the_user_with_the_last_session() {
        let uid = Uid::trusted("u");
        let mut d = Directory::new(NodeId(1));
        let e = entry(1, "a", false);
        d.publish(&uid, e.clone());
        assert!(d.remove(&uid, e.session));
        assert!(!d.remove(&uid, e.session));
        assert!(d.is_empty() && d.sessions(&uid).is_empty());
    }
}
