//! The directory with its lock, and what follows from it: kicks and grants pushed to sessions of this node.
//!
//! Lock order: admitting → directory → hub. A connection is known here from its admission request on, so that a kick between
//! the admission and the publication reaches it too.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::{Mutex, RwLock, RwLockReadGuard};
use wk_cluster::directory::KICK_DELAY_MS;
use wk_cluster::{Directory, Entry};
use wk_proto::{ConnId, Fence, NodeId, SessionRef, Uid};
use wk_session::{Event, Info};

use crate::hub::{Hub, Wakes};

/// Connections whose admission is on its way, by user. At most one per open connection.
type Admitting = HashMap<Uid, Vec<(ConnId, u8)>>;

/// See the module.
#[derive(Debug)]
pub(crate) struct Presence {
    node: NodeId,
    hub: Arc<Hub>,
    admitting: Mutex<Admitting>,
    directory: RwLock<Directory>,
}

impl Presence {
    pub(crate) fn new(node: NodeId, hub: Arc<Hub>) -> Self {
        Self {
            node,
            hub,
            admitting: Mutex::default(),
            directory: RwLock::new(Directory::new(node)),
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
    /// knows it (H17): always, as long as this node has no peers.
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
        let (id, kicks) = directory.publish(&info.uid, entry);
        forget(&mut admitting, &info.uid, conn);
        for kick in kicks {
            directory.remove(&info.uid, kick.session);
            self.kick(kick.session, kick.notice, KICK_DELAY_MS, wakes);
        }
        directory.visible(id)
    }

    /// The connection ended. `published`: it had got that far.
    pub(crate) fn remove(&self, uid: &Uid, conn: ConnId, published: bool) {
        if published {
            self.directory.write().remove(uid, self.reference(conn));
        } else {
            forget(&mut self.admitting.lock(), uid, conn);
        }
    }

    /// Kicks a user's sessions of one device class, or all. They receive nothing further.
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
            .filter(|entry| concerned(entry.device_flag))
            .map(|entry| entry.session)
            .collect();
        for session in kicked {
            directory.remove(uid, session);
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
        self.directory.write().remove(uid, session);
        let delay_ms = notice.map_or(0, |_| KICK_DELAY_MS);
        self.kick(session, notice, delay_ms, &mut wakes);
        self.hub.wake(wakes);
    }

    /// Gives a user's sessions a new grant (H2).
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
