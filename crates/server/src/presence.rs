//! The directory with its lock, and what follows from it: kicks and grants pushed to sessions of this node, and the stream of this
//! node's sessions to its peers (H17).
//!
//! Changes of own sessions are queued for the peers while the directory is locked, so that every peer sees them in order.
//!
//! Lock order: admitting → directory → {unseen, hub, mesh}. A connection is known here from its admission request on, so that a kick between
//! the admission and the publication reaches it too.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use parking_lot::{Mutex, RwLock, RwLockReadGuard};
use wk_cluster::directory::KICK_DELAY_MS;
use wk_cluster::directory::Kick;
use wk_cluster::{Directory, Entry, Liveness, PublishId};
use wk_proto::{ConnId, Fence, NodeId, SessionRef, Uid};
use wk_session::{Event, Info};

use crate::hub::{Hub, Wakes};
use crate::limits::SESSIONS_PER_FRAME;
use crate::peer::{Mesh, Message, SessionOp};

/// Connections whose admission is on its way, by user. At most one per open connection.
type Admitting = HashMap<Uid, Vec<(ConnId, u8)>>;

/// See the module.
#[derive(Debug)]
pub(crate) struct Presence {
    node: NodeId,
    hub: Arc<Hub>,
    admitting: Mutex<Admitting>,
    directory: RwLock<Directory>,
    /// Published and not yet known everywhere. At most one per connection that waits for its CONNACK.
    unseen: Mutex<BTreeMap<PublishId, ConnId>>,
    mesh: Arc<Mesh>,
}

impl Presence {
    pub(crate) fn new(node: NodeId, hub: Arc<Hub>, mesh: Arc<Mesh>) -> Self {
        let mut directory = Directory::new(node);
        for peer in mesh.nodes() {
            directory.on_peer(peer, PublishId(0), Liveness::Unknown);
        }
        Self {
            node,
            hub,
            admitting: Mutex::default(),
            directory: RwLock::new(directory),
            unseen: Mutex::default(),
            mesh,
        }
    }

    pub(crate) fn directory(&self) -> RwLockReadGuard<'_, Directory> {
        self.directory.read()
    }

    pub(crate) fn reference(&self, conn: ConnId) -> SessionRef {
        SessionRef {
            node: self.node,
            conn,
        }
    }

    /// slot(uid) is being asked about this connection.
    pub(crate) fn admitting(&self, uid: &Uid, conn: ConnId, device_flag: u8) {
        let mut admitting = self.admitting.lock();
        admitting
            .entry(uid.clone())
            .or_default()
            .push((conn, device_flag));
    }

    /// An admitted session becomes known; sessions the device rules exclude are kicked. Returns whether every node that may deliver
    /// knows it (H17); if not, the connection gets [`Event::Visible`] later.
    pub(crate) fn publish(
        &self,
        conn: ConnId,
        info: &Info,
        fence: Fence,
        wakes: &mut Wakes,
    ) -> bool {
        let entry = Entry {
            session: self.reference(conn),
            device_flag: info.device_flag,
            device_id: info.device_id.clone(),
            master: info.master,
            fence,
        };
        let mut admitting = self.admitting.lock();
        let mut directory = self.directory.write();
        let (id, kicks) = directory.publish(&info.uid, entry.clone());
        forget(&mut admitting, &info.uid, conn);
        self.mesh
            .session(SessionOp::Add(id, info.uid.clone(), entry));
        self.exclude(&mut directory, &info.uid, kicks, wakes);
        let is_visible = directory.visible(id);
        if !is_visible {
            self.unseen.lock().insert(id, conn);
        }
        is_visible
    }

    /// Sessions that the device rules exclude end; whoever holds one closes it.
    fn exclude(&self, directory: &mut Directory, uid: &Uid, kicks: Vec<Kick>, wakes: &mut Wakes) {
        for kick in kicks {
            self.drop_session(directory, uid, kick.session);
            self.kick(kick.session, kick.notice, KICK_DELAY_MS, wakes);
        }
    }

    /// Forgets a session; if it is one of ours, peers are told.
    fn drop_session(&self, directory: &mut Directory, uid: &Uid, session: SessionRef) {
        let was_there = directory.remove(uid, session);
        if was_there && session.node == self.node {
            self.mesh
                .session(SessionOp::Remove(uid.clone(), session.conn));
        }
    }

    /// Tells a peer, over its new connection, of every session of this node.
    pub(crate) fn tell_all(&self, put: impl Fn(&Message)) {
        // Nothing may come in between: a change after this is queued after this.
        let directory = self.directory.write();
        put(&Message::SessionsBegin);
        let mut ops = Vec::with_capacity(SESSIONS_PER_FRAME);
        for (uid, entry) in directory.of_node(self.node) {
            ops.push(SessionOp::Add(PublishId(0), uid.clone(), entry.clone()));
            if ops.len() == SESSIONS_PER_FRAME {
                put(&Message::Sessions(std::mem::take(&mut ops)));
            }
        }
        put(&Message::Sessions(ops));
        put(&Message::SessionsEnd(directory.last_published()));
    }

    /// A peer has a session.
    pub(crate) fn peer_adds(&self, uid: &Uid, entry: Entry, wakes: &mut Wakes) {
        let mut directory = self.directory.write();
        let kicks = directory.insert(uid, entry);
        self.exclude(&mut directory, uid, kicks, wakes);
    }

    /// A peer's session ended.
    pub(crate) fn peer_removes(&self, node: NodeId, uid: &Uid, conn: ConnId) {
        let session = SessionRef { node, conn };
        self.directory.write().remove(uid, session);
    }

    /// These are all the sessions a peer has.
    pub(crate) fn peer_has(&self, node: NodeId, keep: impl Fn(ConnId) -> bool) {
        self.directory.write().retain(node, keep);
    }

    /// A peer knows this node's sessions up to here.
    pub(crate) fn peer_knows(&self, node: NodeId, id: PublishId, wakes: &mut Wakes) {
        let mut directory = self.directory.write();
        let liveness = directory.node(node);
        directory.on_peer(node, id, liveness);
        self.show(&directory, wakes);
    }

    /// What may be assumed of a peer changed.
    pub(crate) fn peer_is(&self, node: NodeId, liveness: Liveness, wakes: &mut Wakes) {
        let mut directory = self.directory.write();
        directory.on_peer(node, PublishId(0), liveness);
        if liveness == Liveness::Gone {
            directory.retain(node, |_| false);
        }
        self.show(&directory, wakes);
    }

    /// Lets sessions go on that everybody knows now.
    fn show(&self, directory: &Directory, wakes: &mut Wakes) {
        let mut unseen = self.unseen.lock();
        while let Some(first) = unseen.first_entry()
            && directory.visible(*first.key())
        {
            self.hub.push(first.remove(), Event::Visible, wakes);
        }
    }

    /// The connection ended. `published`: it had got that far.
    pub(crate) fn remove(&self, uid: &Uid, conn: ConnId, published: bool) {
        if published {
            let mut directory = self.directory.write();
            self.drop_session(&mut directory, uid, self.reference(conn));
        } else {
            forget(&mut self.admitting.lock(), uid, conn);
        }
    }

    /// Kicks a user's sessions on this node of one device class, or all. They receive nothing further.
    pub(crate) fn kick_user(
        &self,
        uid: &Uid,
        device_flag: Option<u8>,
        text: &'static str,
        delay_ms: u64,
        wakes: &mut Wakes,
    ) {
        let concerned = |flag: u8| device_flag.is_none_or(|wanted| wanted == flag);
        let admitting = self.admitting.lock();
        for (conn, flag) in admitting.get(uid).into_iter().flatten() {
            if concerned(*flag) {
                self.kick(self.reference(*conn), Some(text), delay_ms, wakes);
            }
        }
        let mut directory = self.directory.write();
        let sessions = directory.sessions(uid).iter();
        let kicked: Vec<_> = sessions
            .filter(|entry| concerned(entry.device_flag) && entry.session.node == self.node)
            .map(|entry| entry.session)
            .collect();
        for session in kicked {
            self.drop_session(&mut directory, uid, session);
            self.kick(session, Some(text), delay_ms, wakes);
        }
    }

    /// Kicks one connection of this node if it is a session of `uid`.
    pub(crate) fn kick_one(&self, uid: &Uid, conn: ConnId, notice: Option<&'static str>) {
        let is_his = self
            .hub
            .get(conn)
            .is_some_and(|conn| conn.with_info(|info| info.is_some_and(|info| info.uid == *uid)));
        if !is_his {
            return;
        }
        let mut wakes = Wakes::default();
        let session = self.reference(conn);
        self.drop_session(&mut self.directory.write(), uid, session);
        let delay_ms = notice.map_or(0, |_| KICK_DELAY_MS);
        self.kick(session, notice, delay_ms, &mut wakes);
        self.hub.wake(wakes);
    }

    /// Gives a user's sessions on this node a new grant (H2).
    pub(crate) fn send_ban(&self, uid: &Uid, on: bool, wakes: &mut Wakes) {
        let admitting = self.admitting.lock();
        for (conn, _) in admitting.get(uid).into_iter().flatten() {
            self.hub.push(*conn, Event::SendBan(on), wakes);
        }
        for entry in self.directory.read().sessions(uid) {
            if entry.session.node == self.node {
                self.hub.push(entry.session.conn, Event::SendBan(on), wakes);
            }
        }
    }

    fn kick(
        &self,
        session: SessionRef,
        notice: Option<&'static str>,
        delay_ms: u64,
        wakes: &mut Wakes,
    ) {
        if session.node == self.node {
            let event = Event::Kick { notice, delay_ms };
            self.hub.push(session.conn, event, wakes);
        }
    }
}

fn forget(admitting: &mut Admitting, uid: &Uid, conn: ConnId) {
    if let Some(list) = admitting.get_mut(uid) {
        list.retain(|(id, _)| *id != conn);
        if list.is_empty() {
            admitting.remove(uid);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peer::Own;
    use std::collections::VecDeque;
    use std::task::{Context, Waker};
    use wk_proto::{Mono, Term, WallMs};

    const PEERS: [NodeId; 2] = [NodeId(2), NodeId(3)];

    fn presence() -> (Presence, Arc<Hub>) {
        let own = Own {
            node: NodeId(1),
            cluster: 0,
            disk: 0,
            incarnation: 0,
            secret: None,
        };
        let peers = PEERS.map(|node| (node, String::new())).into();
        let mesh = Arc::new(Mesh::new(own, peers, Mono(0)));
        let hub = Arc::new(Hub::new().0);
        (Presence::new(NodeId(1), hub.clone(), mesh), hub)
    }

    fn info() -> Info {
        Info {
            uid: Uid::trusted("ann"),
            device_flag: 0,
            device_id: "d".into(),
            master: false,
            version: 5,
            json: false,
        }
    }

    fn fence(n: u64) -> Fence {
        Fence { term: Term(1), n }
    }

    #[test]
    fn a_session_is_visible_once_every_peer_knows_it_or_is_gone() {
        let (presence, hub) = presence();
        let guard = hub.add(([127, 0, 0, 1], 1).into(), WallMs(0));
        let mut wakes = Wakes::default();
        assert!(!presence.publish(guard.conn.id, &info(), fence(1), &mut wakes));
        let is_told = || {
            let mut events = VecDeque::new();
            let cx = Context::from_waker(Waker::noop());
            guard.conn.poll_mail(&cx, 1, &mut events).is_ready()
                && matches!(events.front(), Some(Event::Visible))
        };
        presence.peer_knows(PEERS[0], PublishId(1), &mut wakes);
        assert!(!events_of(&guard.conn), "the other does not know it");
        presence.peer_is(PEERS[1], Liveness::Gone, &mut wakes);
        assert!(is_told());
        // A peer that comes back is waited for again.
        presence.peer_is(PEERS[1], Liveness::Unknown, &mut wakes);
        assert!(!presence.publish(guard.conn.id, &info(), fence(2), &mut wakes));
    }

    #[test]
    fn the_younger_admission_wins_wherever_it_was() {
        let (presence, hub) = presence();
        let guard = hub.add(([127, 0, 0, 1], 1).into(), WallMs(0));
        let mut wakes = Wakes::default();
        presence.publish(guard.conn.id, &info(), fence(5), &mut wakes);
        let elsewhere = |conn, n| Entry {
            session: SessionRef {
                node: PEERS[0],
                conn: ConnId(conn),
            },
            device_flag: 0,
            device_id: "d".into(),
            master: false,
            fence: fence(n),
        };
        let ann = Uid::trusted("ann");
        presence.peer_adds(&ann, elsewhere(1, 4), &mut wakes);
        assert!(
            !events_of(&guard.conn),
            "the older one is kicked over there"
        );
        presence.peer_adds(&ann, elsewhere(2, 6), &mut wakes);
        assert!(events_of(&guard.conn));
        assert_eq!(presence.directory().sessions(&ann).len(), 1);
    }

    fn events_of(conn: &crate::hub::Conn) -> bool {
        let cx = Context::from_waker(Waker::noop());
        conn.poll_mail(&cx, 1, &mut VecDeque::new()).is_ready()
    }
}
