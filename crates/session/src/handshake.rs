//! From the first byte to a complete CONNECT. Spec: wire-protocol 11.2 (rows 1–3), 12.1, 12.3.

use std::sync::Arc;

use bytes::Bytes;
use wk_proto::channel::{SYSTEM_DEVICE, SYSTEM_UID};
use wk_proto::frame::{Connect, Frame};
use wk_proto::jsonrpc::{ErrorCode, Rejection};
use wk_proto::limits::PREAUTH_BYTES_MAX;
use wk_proto::proxy::{self, Parsed};
use wk_proto::{Mono, Reason, Uid, wire};

use crate::admission::{Admission, refuse};
use crate::inbox::{Inbox, Next, Protocol};
use crate::limits::HANDSHAKE_HALVES;
use crate::output::{Caller, json_error};
use crate::session::{State, Transport, Turn, closed};
use crate::{CloseKind, ConnectRequest, Effect, Event, Info};

/// High nibble of the only binary frame that may come first.
const CONNECT_TYPE: u8 = 1;

/// Nobody yet.
#[derive(Debug)]
pub(crate) struct Handshake {
    seed: [u8; 48],
    accepted: Mono,
    last_in: Mono,
    inbox: Inbox,
    /// A PROXY header may still come.
    proxy: bool,
    /// Decided by the first byte of the client's own.
    protocol: Option<Protocol>,
}

/// What the bytes so far amount to.
enum Hello {
    More,
    /// Not a client of ours. Whatever there is to say has been said.
    Bad,
    Connect(Connect, Caller),
}

impl Handshake {
    pub(crate) fn new(seed: [u8; 48], now: Mono, proxy: bool) -> Self {
        Self {
            seed,
            accepted: now,
            last_in: now,
            inbox: Inbox::default(),
            proxy,
            protocol: None,
        }
    }

    pub(crate) fn deadline(&self, handshake_ms: u64) -> Mono {
        let idle = self.last_in.plus_ms(handshake_ms);
        let total = handshake_ms.saturating_mul(HANDSHAKE_HALVES) / 2;
        idle.min(self.accepted.plus_ms(total))
    }

    pub(crate) fn handle(mut self: Box<Self>, event: Event, turn: &mut Turn<'_>) -> State {
        match event {
            Event::Bytes(bytes) => {
                self.last_in = turn.now;
                self.inbox.append(bytes);
                self.advance(turn)
            }
            Event::Timeout if turn.now < self.deadline(turn.config.handshake_ms) => {
                State::Handshake(self)
            }
            Event::Timeout | Event::Eof | Event::Drain | Event::Kick { .. } => {
                closed(turn, CloseKind::Silent)
            }
            // Answers to questions that were not asked.
            Event::Admitted { .. }
            | Event::Visible
            | Event::Refused(_)
            | Event::Unavailable
            | Event::Done(..)
            | Event::Deliver(_)
            | Event::PushEvent(_)
            | Event::SendBan(_) => State::Handshake(self),
        }
    }

    fn advance(mut self: Box<Self>, turn: &mut Turn<'_>) -> State {
        match self.read(turn) {
            Hello::Connect(connect, caller) => self.admit(connect, caller, turn),
            Hello::More if self.inbox.len() <= PREAUTH_BYTES_MAX => {
                self.inbox.detach();
                State::Handshake(self)
            }
            Hello::More | Hello::Bad => closed(turn, CloseKind::Silent),
        }
    }

    fn read(&mut self, turn: &mut Turn<'_>) -> Hello {
        if self.proxy {
            match self.read_proxy_header(turn) {
                Parsed::NeedMore => return Hello::More,
                Parsed::Absent | Parsed::Header(..) => self.proxy = false,
            }
        }
        if self.protocol.is_none() {
            self.protocol = detect(self.inbox.as_slice(), turn.config.json_rpc);
        }
        match self.protocol {
            None => Hello::More,
            Some(Protocol::Binary(_)) => self.read_binary(),
            Some(Protocol::JsonRpc) => self.read_json(turn),
        }
    }

    /// A malformed header is no header: then the bytes are no CONNECT either.
    fn read_proxy_header(&mut self, turn: &mut Turn<'_>) -> Parsed {
        let parsed = proxy::parse(self.inbox.as_slice()).unwrap_or(Parsed::Absent);
        if let Parsed::Header(address, len) = parsed {
            self.inbox.skip(len);
            if let Some(address) = address {
                turn.out.effect(Effect::PeerAddress(address));
            }
        }
        parsed
    }

    fn read_binary(&mut self) -> Hello {
        let bytes = self.inbox.as_slice();
        if bytes.first().is_some_and(|b| b >> 4 != CONNECT_TYPE) {
            return Hello::Bad;
        }
        // Looked at before anything is kept for it.
        let announced = wire::frame_len(bytes).ok().flatten();
        if announced.is_some_and(|len| len > PREAUTH_BYTES_MAX) {
            return Hello::Bad;
        }
        match self.inbox.next(Protocol::Binary(0)) {
            Next::More => Hello::More,
            Next::Binary(Frame::Connect(connect)) => {
                let version = connect.version.min(wire::LATEST);
                Hello::Connect(connect, Caller::Binary { version })
            }
            _ => Hello::Bad,
        }
    }

    fn read_json(&mut self, turn: &mut Turn<'_>) -> Hello {
        let rejection = match self.inbox.next(Protocol::JsonRpc) {
            Next::More => return Hello::More,
            Next::Json(message) => match (message.frame, message.id) {
                (Frame::Connect(connect), Some(id)) => {
                    let id = id[..].into();
                    return Hello::Connect(connect, Caller::JsonRpc { id });
                }
                (_, id) => Rejection {
                    id,
                    code: ErrorCode::InvalidRequest,
                    message: "the first message must be connect",
                },
            },
            Next::Rejected(rejection) => rejection,
            Next::Syntax => Rejection::syntax(),
            Next::Broken | Next::Binary(_) => return Hello::Bad,
        };
        let Rejection { id, code, message } = rejection;
        json_error(id.as_deref(), code, message, &mut turn.out);
        Hello::Bad
    }

    fn admit(self, connect: Connect, caller: Caller, turn: &mut Turn<'_>) -> State {
        let Some(request) = request(&connect) else {
            return refuse(&caller, &connect, Reason::AuthFail, turn);
        };
        let info = Info {
            uid: request.uid.clone(),
            device_flag: request.device_flag,
            device_id: request.device_id.clone(),
            master: false,
            version: connect.version.min(wire::LATEST),
            json: matches!(caller, Caller::JsonRpc { .. }),
        };
        turn.out.effect(Effect::Admit(request));
        let mut inbox = self.inbox;
        inbox.detach();
        // What is kept across turns must not hold on to the driver's buffer.
        let connect = Connect {
            client_key: Bytes::copy_from_slice(&connect.client_key),
            client_timestamp: connect.client_timestamp,
            version: connect.version,
            ..Connect::default()
        };
        let admission = Admission::new(self.seed, caller, connect, info, inbox, turn.now);
        State::Admission(Box::new(admission))
    }
}

/// The protocol by the first byte that is not JSON whitespace; `None` while there is none.
fn detect(bytes: &[u8], json_rpc: bool) -> Option<Protocol> {
    if !json_rpc {
        return (!bytes.is_empty()).then_some(Protocol::Binary(0));
    }
    let first = bytes.iter().find(|b| !b" \t\n\r".contains(b))?;
    Some(match first {
        b'{' => Protocol::JsonRpc,
        _ => Protocol::Binary(0),
    })
}

/// The checks that need nobody else: ids are ids, and the server's own names are nobody's. Texts that are not UTF-8 equal no stored
/// one, so they are refused here.
fn request(connect: &Connect) -> Option<ConnectRequest> {
    let text = |bytes| std::str::from_utf8(bytes).ok();
    let uid = Uid::parse(text(&connect.uid)?).ok()?;
    let device_id = text(&connect.device_id)?;
    if uid.as_str() == SYSTEM_UID || device_id == SYSTEM_DEVICE {
        return None;
    }
    Some(ConnectRequest {
        uid,
        token: Arc::from(text(&connect.token)?),
        device_flag: connect.device_flag,
        device_id: Arc::from(device_id),
    })
}

/// Whether a PROXY header may come first.
pub(crate) fn expects_proxy(transport: Transport, proxy_protocol: bool) -> bool {
    transport == Transport::Tcp && proxy_protocol
}
