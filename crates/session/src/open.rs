//! An authenticated client: its SENDs, its deliveries, and the ways it ends. Spec: wire-protocol 5, 11; messaging 6.
//!
//! Life of one SEND: decode, send ban, decrypt, channel, [`Effect::Call`]; its ack leaves when the result is there and every earlier
//! SEND of that channel has been acknowledged. Life of one delivery: the receiver's view is encoded from the shared record straight
//! into the output buffer; a persistent one is remembered until its RECVACK.

use bytes::Bytes;
use wk_proto::frame::{Frame, RecvParts, Recvack, Send, Sub, Suback};
use wk_proto::jsonrpc::{self, ErrorCode, Message, Rejection};
use wk_proto::{Flags, MessageId, MessageSeq, Mono, Reason};

use crate::inbox::{Inbox, Next, Protocol};
use crate::inflight::{Answer, InFlight, Order, Origin};
use crate::limits::{DRAIN_MS, JSON_ERRORS_MAX, READ_EFFECTS_MAX};
use crate::numbers::RefusalIds;
use crate::output::{Dialect, Output, json_error};
use crate::recent::Recent;
use crate::send;
use crate::session::{State, Transport, Turn, closed};
use crate::target::stored_channel;
use crate::view::View;
use crate::window::Window;
use crate::{CloseKind, Delivery, Effect, Event, Info, SendResult};

/// After CONNACK.
#[derive(Debug)]
pub(crate) struct Open {
    pub(crate) info: Info,
    dialect: Dialect,
    inbox: Inbox,
    in_flight: InFlight,
    window: Window,
    recent: Recent,
    refusals: RefusalIds,
    last_in: Mono,
    phase: Phase,
    send_ban: bool,
    json_errors: u8,
}

/// Whether it goes on.
#[derive(Clone, Copy, Debug)]
enum Phase {
    Serving,
    /// Told to go: acks of what was accepted before still leave, nothing else in or out.
    Kicked {
        at: Mono,
        kind: CloseKind,
    },
    /// The server goes: no new frames, closes when the last result is there.
    Draining {
        until: Mono,
    },
}

/// What a frame does to the connection.
enum After {
    Continue,
    Close,
}

impl Open {
    pub(crate) fn new(
        dialect: Dialect,
        info: Info,
        send_ban: bool,
        inbox: Inbox,
        last_in: Mono,
    ) -> Self {
        Self {
            info,
            dialect,
            inbox,
            in_flight: InFlight::default(),
            window: Window::default(),
            recent: Recent::default(),
            refusals: RefusalIds::default(),
            last_in,
            phase: Phase::Serving,
            send_ban,
            json_errors: 0,
        }
    }

    pub(crate) fn wants_bytes(&self) -> bool {
        match self.phase {
            Phase::Serving => self.in_flight.has_room(),
            // Read and dropped: a close with unread bytes would reset the connection and could take the DISCONNECT with it.
            Phase::Kicked { .. } => true,
            Phase::Draining { .. } => false,
        }
    }

    pub(crate) fn evicted(&self) -> u64 {
        self.window.evicted()
    }

    pub(crate) fn next_timeout(&self, idle_ms: u64) -> Option<Mono> {
        let phase = match self.phase {
            Phase::Serving => None,
            Phase::Kicked { at, .. } => Some(at),
            Phase::Draining { until } => Some(until),
        };
        [self.idle_at(idle_ms), self.window.next_due(), phase]
            .into_iter()
            .flatten()
            .min()
    }

    fn idle_at(&self, idle_ms: u64) -> Option<Mono> {
        (idle_ms > 0).then(|| self.last_in.plus_ms(idle_ms))
    }

    pub(crate) fn handle(mut self: Box<Self>, event: Event, turn: &mut Turn<'_>) -> State {
        match event {
            Event::Deliver(delivery) => self.deliver(&delivery, turn),
            Event::Bytes(bytes) => return self.bytes(bytes, turn),
            Event::Done(ticket, result) => {
                let dialect = &self.dialect;
                self.in_flight.settle(ticket, result, |answer| {
                    dialect.sendack(&answer, &mut turn.out)
                });
                return self.read(turn);
            }
            Event::PushEvent(event) => {
                if !self.is_kicked() {
                    self.dialect.event(&event, &mut turn.out);
                }
            }
            Event::SendBan(banned) => self.send_ban = banned,
            Event::Kick { notice, delay_ms } => return self.kick(notice, delay_ms, turn),
            Event::Timeout => return self.timeout(turn),
            Event::Drain => return self.drain(turn),
            Event::Eof => return closed(turn, CloseKind::Silent),
            // Answers that have been given.
            Event::Admitted { .. } | Event::Visible | Event::Refused(_) | Event::Unavailable => {}
        }
        State::Open(self)
    }

    fn is_kicked(&self) -> bool {
        matches!(self.phase, Phase::Kicked { .. })
    }

    fn protocol(&self) -> Protocol {
        match self.dialect {
            Dialect::Binary { version, .. } => Protocol::Binary(version),
            Dialect::JsonRpc { .. } => Protocol::JsonRpc,
        }
    }

    fn bytes(mut self: Box<Self>, bytes: Bytes, turn: &mut Turn<'_>) -> State {
        self.last_in = turn.now;
        match self.phase {
            Phase::Serving => {
                self.inbox.append(bytes);
                self.read(turn)
            }
            Phase::Kicked { .. } | Phase::Draining { .. } => State::Open(self),
        }
    }

    /// Handles whole messages while there is room for what they start, and ends a drain that has nothing to wait for.
    pub(crate) fn read(mut self: Box<Self>, turn: &mut Turn<'_>) -> State {
        match self.phase {
            Phase::Serving => {}
            Phase::Draining { .. } if self.in_flight.is_empty() => {
                return closed(turn, CloseKind::Silent);
            }
            Phase::Kicked { .. } | Phase::Draining { .. } => return State::Open(self),
        }
        let protocol = self.protocol();
        let effects_max = turn.out.effects.len() + READ_EFFECTS_MAX;
        while self.in_flight.has_room() {
            let after = match self.inbox.next(protocol) {
                Next::More => break,
                Next::Binary(frame) => self.binary(frame, turn),
                Next::Json(message) => self.json(message, turn),
                Next::Rejected(rejection) => self.reject(&rejection, &mut turn.out),
                Next::Syntax => self.syntax(&mut turn.out),
                Next::Broken => After::Close,
            };
            match after {
                After::Continue if turn.out.effects.len() <= effects_max => {}
                After::Continue | After::Close => return closed(turn, CloseKind::Silent),
            }
        }
        self.inbox.detach();
        State::Open(self)
    }

    fn binary(&mut self, frame: Frame, turn: &mut Turn<'_>) -> After {
        match frame {
            Frame::Send(send) => {
                let origin = Origin::Seq(send.client_seq);
                self.send(send, origin, turn);
            }
            Frame::Recvack(ack) => self.recvack(&ack, &mut turn.out),
            Frame::Ping => self.answer(&Frame::Pong, &mut turn.out),
            Frame::Sub(sub) => self.answer(&Frame::Suback(refuse_sub(sub)), &mut turn.out),
            Frame::Connect(_) | Frame::Disconnect(_) => return After::Close,
            // A server's frames mean nothing from a client.
            Frame::Connack(_)
            | Frame::Sendack(_)
            | Frame::Recv(_)
            | Frame::Pong
            | Frame::Suback(_)
            | Frame::Event(_) => {}
        }
        After::Continue
    }

    fn answer(&self, frame: &Frame, out: &mut Output<'_>) {
        if let Dialect::Binary { version, .. } = self.dialect {
            out.frame(frame, version);
        }
    }

    fn json(&mut self, message: Message, turn: &mut Turn<'_>) -> After {
        let Message { id, end, frame } = message;
        match (frame, id) {
            (Frame::Send(send), Some(id)) => {
                self.send(send, Origin::Request(id[..].into(), end), turn);
                After::Continue
            }
            (Frame::Recvack(ack), _) => {
                self.recvack(&ack, &mut turn.out);
                After::Continue
            }
            (Frame::Ping, id) => {
                json_ok(id, &mut turn.out);
                After::Continue
            }
            (Frame::Disconnect(_), id) => {
                json_ok(id, &mut turn.out);
                After::Close
            }
            (Frame::Connect(_), id) => {
                let rejection = invalid(id, "already connected");
                self.reject(&rejection, &mut turn.out)
            }
            (_, id) => {
                let rejection = invalid(id, "not a client's method");
                self.reject(&rejection, &mut turn.out)
            }
        }
    }

    /// Answers with an error; too many of them end the connection.
    fn reject(&mut self, rejection: &Rejection, out: &mut Output<'_>) -> After {
        if self.json_errors >= JSON_ERRORS_MAX {
            return After::Close;
        }
        self.json_errors += 1;
        json_error(
            rejection.id.as_deref(),
            rejection.code,
            rejection.message,
            out,
        );
        After::Continue
    }

    /// A WebSocket message has an end, so the next one is in step again; a byte stream is not.
    fn syntax(&mut self, out: &mut Output<'_>) -> After {
        let transport = out.transport;
        match (self.reject(&Rejection::syntax(), out), transport) {
            (After::Continue, Transport::WebSocket) => {
                self.inbox.clear();
                After::Continue
            }
            (After::Continue | After::Close, _) => After::Close,
        }
    }

    fn send(&mut self, send: Send, origin: Origin, turn: &mut Turn<'_>) {
        let flags = send.flags;
        let target = stored_channel(&self.info.uid, &send.channel_id, send.channel_type);
        let order = match &target {
            Ok(channel) => Order::of(channel.base.as_str().as_bytes(), channel.kind.0),
            Err(_) => Order::of(&send.channel_id, send.channel_type),
        };
        let packet = if self.send_ban {
            Err(Reason::SendBan)
        } else {
            send::packet(&self.info.uid, &mut self.dialect, send, target)
        };
        match packet {
            Ok(packet) => {
                let bytes = packet.payload.len();
                let ticket = self.in_flight.submit(order, origin, flags, bytes);
                turn.out.effect(Effect::Call(ticket, packet));
            }
            Err(reason) => {
                let result = SendResult {
                    message_id: self.refusals.next(turn.wall, turn.config.node),
                    message_seq: MessageSeq(0),
                    reason,
                };
                let refusal = Answer {
                    origin,
                    flags,
                    result,
                };
                if let Some(answer) = self.in_flight.refuse(order, refusal) {
                    self.dialect.sendack(&answer, &mut turn.out);
                }
            }
        }
    }

    fn recvack(&mut self, ack: &Recvack, out: &mut Output<'_>) {
        if ack.flags.has(Flags::NO_PERSIST) {
            return;
        }
        // Late, repeated and invented ids are not in the window.
        let Some(entry) = self.window.acknowledge(MessageId(ack.message_id)) else {
            return;
        };
        if ack.flags.has(Flags::SYNC_ONCE) && self.info.master && entry.channel.twin {
            out.effect(Effect::CommandRead(entry.channel, entry.seq));
        }
    }

    /// Writes one message for this client, unless it has just had it.
    pub(crate) fn deliver(&mut self, delivery: &Delivery, turn: &mut Turn<'_>) {
        if self.is_kicked() {
            return;
        }
        let id = delivery.record.message_id();
        let Some(seq) = delivery.seq else {
            self.write_recv(delivery, &mut turn.out);
            return;
        };
        if self.window.take_asked(id) {
            self.write_recv(delivery, &mut turn.out);
        } else if !self.recent.contains(id) && self.write_recv(delivery, &mut turn.out) {
            self.recent.insert(id);
            let due = turn.now.plus_ms(turn.config.retry_interval_ms);
            self.window.push(id, &delivery.channel, seq, due);
        }
    }

    /// Whether it was written: a message that fits no frame stays in history.
    fn write_recv(&self, delivery: &Delivery, out: &mut Output<'_>) -> bool {
        let me = self.info.uid.as_str();
        let record = &delivery.record;
        let view = View::new(me, &delivery.channel, record);
        let payload = record.payload_ref();
        let id = record.message_id().0;
        let parts = RecvParts {
            flags: view.flags,
            setting: record.setting(),
            from_uid: view.from_uid.as_bytes(),
            channel_id: view.channel_id.as_bytes(),
            channel_type: delivery.channel.kind.0,
            expire: record.expire(),
            client_msg_no: record.client_msg_no().as_bytes(),
            stream_flag: 0,
            stream_no: record.stream_no().as_bytes(),
            stream_id: id.cast_unsigned(),
            message_id: id,
            message_seq: delivery.seq.map_or(0, |seq| seq.0 as u32),
            timestamp: i32::try_from(record.time().secs()).unwrap_or(i32::MAX),
            topic: record.topic().as_bytes(),
            payload,
        };
        self.dialect.recv(&parts, out)
    }

    fn kick(
        mut self: Box<Self>,
        notice: Option<&'static str>,
        delay_ms: u64,
        turn: &mut Turn<'_>,
    ) -> State {
        if self.is_kicked() {
            return State::Open(self);
        }
        let kind = match notice {
            Some(text) => {
                self.dialect.kick(text, &mut turn.out);
                CloseKind::Terminal(Reason::ConnectKick)
            }
            None => CloseKind::Silent,
        };
        if delay_ms == 0 {
            return closed(turn, kind);
        }
        let at = turn.now.plus_ms(delay_ms);
        self.phase = Phase::Kicked { at, kind };
        self.window = Window::default();
        self.inbox.clear();
        State::Open(self)
    }

    fn drain(mut self: Box<Self>, turn: &mut Turn<'_>) -> State {
        match self.phase {
            Phase::Serving => {
                let until = turn.now.plus_ms(DRAIN_MS);
                self.phase = Phase::Draining { until };
                self.inbox.clear();
                self.read(turn)
            }
            Phase::Kicked { .. } | Phase::Draining { .. } => State::Open(self),
        }
    }

    fn timeout(mut self: Box<Self>, turn: &mut Turn<'_>) -> State {
        let now = turn.now;
        match self.phase {
            Phase::Kicked { at, kind } if at <= now => return closed(turn, kind),
            Phase::Draining { until } if until <= now => return closed(turn, CloseKind::Silent),
            Phase::Serving | Phase::Kicked { .. } | Phase::Draining { .. } => {}
        }
        if self
            .idle_at(turn.config.idle_ms)
            .is_some_and(|at| at <= now)
        {
            return closed(turn, CloseKind::Silent);
        }
        self.resend(turn);
        State::Open(self)
    }

    /// Asks for what has not been acknowledged in time.
    fn resend(&mut self, turn: &mut Turn<'_>) {
        // At least a moment later, so that an interval of 0 cannot spin here.
        let again = turn.now.plus_ms(turn.config.retry_interval_ms.max(1));
        while let Some((channel, seq)) = self.window.pop_due(turn.now, turn.config.retry_max, again)
        {
            turn.out.effect(Effect::Redeliver(channel, seq));
        }
    }
}

/// Subscriptions do not exist; the client that asks deserves to know.
fn refuse_sub(sub: Sub) -> Suback {
    Suback {
        flags: Flags::default(),
        sub_no: sub.sub_no,
        channel_id: sub.channel_id,
        channel_type: sub.channel_type,
        action: sub.action,
        reason_code: Reason::NotSupportChannelType.code(),
    }
}

fn json_ok(id: Option<Bytes>, out: &mut Output<'_>) {
    if let Some(id) = id {
        out.json(|to| jsonrpc::encode_ok(&id, to));
    }
}

fn invalid(id: Option<Bytes>, message: &'static str) -> Rejection {
    Rejection {
        id,
        code: ErrorCode::InvalidRequest,
        message,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// With the ids' text (some 60 bytes) an idle session stays below 600.
    #[test]
    fn an_idle_client_is_small() {
        let size = size_of::<Open>() + size_of::<crate::Session>();
        println!("an open session: {size} bytes and two ids");
        assert!(size <= 540, "{size}");
    }
}
