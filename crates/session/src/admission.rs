//! From CONNECT to CONNACK: slot(uid) decides, the directory spreads the news. Spec: wire-protocol 11.2 (rows 4–10); H17, H29.

use std::sync::Arc;

use bytes::Bytes;
use wk_proto::crypto::{self, Cipher};
use wk_proto::frame::{Connack, Connect};
use wk_proto::limits::PREAUTH_BYTES_MAX;
use wk_proto::{Fence, Mono, Reason};

use crate::inbox::Inbox;
use crate::limits::{ADMISSION_MS, HELD_MAX};
use crate::numbers::Numbers;
use crate::open::Open;
use crate::output::{Caller, Dialect};
use crate::session::{State, Turn, closed};
use crate::{CloseKind, Delivery, Effect, Event, Info};

/// Version above which CONNACK carries the negotiated one, also when it refuses: the JS SDK reads nodeId only then.
const SERVER_VERSION_ABOVE: u8 = 3;

/// Somebody, perhaps.
#[derive(Debug)]
pub(crate) struct Admission {
    seed: [u8; 48],
    caller: Caller,
    /// Version, time and key of the CONNECT; the rest is in `info` or forgotten.
    connect: Connect,
    pub(crate) info: Info,
    /// Pipelined behind CONNECT, read after CONNACK.
    inbox: Inbox,
    last_in: Mono,
    pub(crate) deadline: Mono,
    grant: Option<Grant>,
    /// Told by an event, which is newer than what the admission answers; else by that.
    send_ban: Option<bool>,
    /// Arrived between publication and CONNACK.
    held: Vec<Arc<Delivery>>,
}

/// The slot said yes and the keys are made.
#[derive(Debug)]
struct Grant {
    dialect: Dialect,
    server_key: Bytes,
    salt: Bytes,
}

impl Admission {
    pub(crate) fn new(
        seed: [u8; 48],
        caller: Caller,
        connect: Connect,
        info: Info,
        inbox: Inbox,
        now: Mono,
    ) -> Self {
        Self {
            seed,
            caller,
            connect,
            info,
            inbox,
            last_in: now,
            deadline: now.plus_ms(ADMISSION_MS),
            grant: None,
            send_ban: None,
            held: Vec::new(),
        }
    }

    pub(crate) fn wants_bytes(&self) -> bool {
        self.inbox.len() < PREAUTH_BYTES_MAX
    }

    pub(crate) fn handle(mut self: Box<Self>, event: Event, turn: &mut Turn<'_>) -> State {
        match event {
            Event::Bytes(bytes) => {
                self.last_in = turn.now;
                self.inbox.append(bytes);
                self.inbox.detach();
                State::Admission(self)
            }
            Event::Admitted {
                master,
                send_ban,
                fence,
            } if self.grant.is_none() => self.admitted(master, send_ban, fence, turn),
            Event::Visible if self.grant.is_some() => self.open(turn),
            Event::Refused(reason) => refuse(&self.caller, &self.connect, reason, turn),
            Event::SendBan(banned) => {
                self.send_ban = Some(banned);
                State::Admission(self)
            }
            Event::Deliver(delivery) => {
                if self.held.len() < HELD_MAX {
                    self.held.push(delivery);
                }
                State::Admission(self)
            }
            // CONNACK is the first frame on every connection, so it is what tells a client of its kick, too.
            Event::Kick {
                notice: Some(_), ..
            } => refuse(&self.caller, &self.connect, Reason::ConnectKick, turn),
            Event::Timeout if turn.now < self.deadline => State::Admission(self),
            Event::Timeout | Event::Eof | Event::Drain | Event::Kick { notice: None, .. } => {
                closed(turn, CloseKind::Silent)
            }
            // Unavailable: hold until the deadline, the client only comes back after a silent close (H29).
            Event::Unavailable
            | Event::Admitted { .. }
            | Event::Visible
            | Event::Done(..)
            | Event::PushEvent(_) => State::Admission(self),
        }
    }

    /// Keys are checked only now: a wrong token beats a wrong key, and strangers do not cost a key exchange.
    fn admitted(
        mut self: Box<Self>,
        master: bool,
        send_ban: bool,
        fence: Fence,
        turn: &mut Turn<'_>,
    ) -> State {
        match self.make_grant(turn.config.encryption) {
            Err(reason) => refuse(&self.caller, &self.connect, reason, turn),
            Ok(grant) => {
                self.grant = Some(grant);
                self.info.master = master;
                self.send_ban.get_or_insert(send_ban);
                turn.out.effect(Effect::Publish(self.info.clone(), fence));
                State::Admission(self)
            }
        }
    }

    fn make_grant(&self, encryption: bool) -> Result<Grant, Reason> {
        let (private, random) = self.seed.split_first_chunk().expect("48 is more than 32");
        let random = random.first_chunk().expect("48 - 32 is 16");
        let version = match self.caller {
            Caller::JsonRpc { .. } => {
                return Ok(Grant::plain(Dialect::JsonRpc {
                    numbers: Numbers::new(random),
                }));
            }
            Caller::Binary { version } => version,
        };
        if !encryption {
            return Ok(Grant::plain(Dialect::Binary {
                version,
                cipher: None,
            }));
        }
        let secret = crypto::agree(private, &self.connect.client_key).map_err(|e| e.reason())?;
        let salt = crypto::salt(*random);
        Ok(Grant {
            dialect: Dialect::Binary {
                version,
                cipher: Some(Cipher::new(&secret, salt)),
            },
            server_key: Bytes::copy_from_slice(&crypto::public_key(private)),
            salt: Bytes::copy_from_slice(&salt),
        })
    }

    fn open(mut self: Box<Self>, turn: &mut Turn<'_>) -> State {
        let Some(grant) = self.grant.take() else {
            return State::Admission(self);
        };
        let connack = Connack {
            server_key: grant.server_key,
            salt: grant.salt,
            ..connack(&self.caller, &self.connect, Reason::Success, turn)
        };
        self.caller.connack(&connack, &mut turn.out);
        let this = *self;
        let mut open = Open::new(
            grant.dialect,
            this.info,
            this.send_ban.unwrap_or(false),
            this.inbox,
            this.last_in,
        );
        for delivery in &this.held {
            open.deliver(delivery, turn);
        }
        Box::new(open).read(turn)
    }
}

impl Grant {
    fn plain(dialect: Dialect) -> Self {
        Self {
            dialect,
            server_key: Bytes::new(),
            salt: Bytes::new(),
        }
    }
}

/// CONNACK with a reason, then the close that tells clients not to come back.
pub(crate) fn refuse(
    caller: &Caller,
    connect: &Connect,
    reason: Reason,
    turn: &mut Turn<'_>,
) -> State {
    let connack = connack(caller, connect, reason, turn);
    caller.connack(&connack, &mut turn.out);
    closed(turn, CloseKind::Terminal(reason))
}

/// Without keys. An old binary client does not know the version byte; JSON-RPC has a member for it.
fn connack(caller: &Caller, connect: &Connect, reason: Reason, turn: &Turn<'_>) -> Connack {
    let now = i64::try_from(turn.wall.0).unwrap_or(i64::MAX);
    let version = connect.version.min(wk_proto::wire::LATEST);
    let told = match caller {
        Caller::Binary { .. } => connect.version > SERVER_VERSION_ABOVE,
        Caller::JsonRpc { .. } => true,
    };
    Connack {
        server_version: told.then_some(version),
        time_diff: now.saturating_sub(connect.client_timestamp),
        reason_code: reason.code(),
        server_key: Bytes::new(),
        salt: Bytes::new(),
        node_id: u64::from(turn.config.node.0),
    }
}
