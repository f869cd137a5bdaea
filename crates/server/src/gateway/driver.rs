//! The driver of one connection: moves bytes between socket and session, and the session's wishes to the rest of the node.
//!
//! ```text
//!  poll:  flush ─▶ mailbox ─▶ read ─▶ session ─▶ effects ─▶ one batch of calls ─▶ again, until nothing moves
//! ```
//!
//! Back-pressure: while the outbox is above its target neither the mailbox nor the socket is read. A client that does not read fills
//! its mailbox to the bound and is closed (H24). An idle connection owns no buffer: reading uses one per thread.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use wk_chat::request::{AdmitRequest, Mark};
use wk_chat::{Request, SendRequest, Write};
use wk_cluster::{Call, LaneId, Retry};
use wk_proto::{ChannelKey, ConnId, Fence, MessageSeq, Mono, Ticket, Uid};
use wk_session::{CloseKind, ConnectRequest, Effect, Event, Info, SendPacket, Session, Transport};

use super::Gateway;
use super::outbox::Outbox;
use super::ws::{self, Ws};
use crate::hub::{ConnGuard, Mail, Wakes, bump};
use crate::limits::{
    ADMIT_MS, CALL_MS, CLOSE_LINGER_MS, CONN_OUT_BYTES_MAX, CONN_OUT_BYTES_TARGET, CONN_ROUNDS_MAX,
    READ_BYTES_MAX,
};
use crate::route::{Origin, Submission};

/// Room for one turn, shared by all connections of a thread.
struct Scratch {
    read: Box<[u8]>,
    events: VecDeque<Event>,
    effects: Vec<Effect>,
    calls: Vec<Submission>,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::new(Scratch {
        read: vec![0; READ_BYTES_MAX].into(),
        events: VecDeque::new(),
        effects: Vec::new(),
        calls: Vec::new(),
    });
}

/// Items of the per-thread room kept between turns.
const SCRATCH_ITEMS_KEPT: usize = 1_024;

/// Who a connection is to the directory.
struct Who {
    uid: Uid,
    published: bool,
}

/// How far a closing connection is.
struct Closing {
    /// The socket is dropped then, whatever the peer does.
    until: Mono,
    /// Our side is shut; the peer's end is awaited, because closing before it could destroy what it has not read.
    shut: bool,
}

/// See the module.
pub(super) struct Driver {
    gateway: Arc<Gateway>,
    guard: ConnGuard,
    socket: TcpStream,
    session: Session,
    ws: Option<Ws>,
    out: Outbox,
    who: Option<Who>,
    closing: Option<Closing>,
}

enum Round {
    /// Something moved.
    Again,
    /// Everything waits for somebody else.
    Wait,
    /// The connection is over.
    Over,
}

impl Driver {
    pub(super) fn new(
        gateway: Arc<Gateway>,
        guard: ConnGuard,
        socket: TcpStream,
        session: Session,
        kind: Transport,
    ) -> Self {
        let driver = Self {
            gateway,
            guard,
            socket,
            session,
            ws: (kind == Transport::WebSocket).then(Ws::new),
            out: Outbox::default(),
            who: None,
            closing: None,
        };
        driver.arm();
        driver
    }

    /// The task: ready when the connection is over.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        SCRATCH.with_borrow_mut(|scratch| {
            for _ in 0..CONN_ROUNDS_MAX {
                match self.round(cx, scratch) {
                    Round::Again => {}
                    Round::Wait => return Poll::Pending,
                    Round::Over => return Poll::Ready(()),
                }
            }
            cx.waker().wake_by_ref();
            Poll::Pending
        })
    }

    fn round(&mut self, cx: &mut Context<'_>, scratch: &mut Scratch) -> Round {
        let mut written = 0;
        let flushed = self.out.poll_flush(&mut self.socket, cx, &mut written);
        self.count_written(written);
        if let Poll::Ready(Err(_)) = flushed {
            return Round::Over;
        }
        if self.closing.is_some() {
            return self.close(cx, scratch);
        }
        match self.collect(cx, scratch) {
            Ok(false) => Round::Wait,
            Ok(true) => {
                self.handle(scratch);
                if self.out.len() > CONN_OUT_BYTES_MAX {
                    return self.too_slow();
                }
                Round::Again
            }
            Err(round) => round,
        }
    }

    /// Gathers what happened into `scratch.events`; false: nothing.
    fn collect(&mut self, cx: &mut Context<'_>, scratch: &mut Scratch) -> Result<bool, Round> {
        // Nothing of another connection may be left, not even of one whose turn ended in a panic.
        scratch.events.clear();
        scratch.effects.clear();
        scratch.calls.clear();
        let has_room = self.out.len() < CONN_OUT_BYTES_TARGET;
        let take = if has_room { CONN_OUT_BYTES_TARGET } else { 0 };
        let mut moved = false;
        if let Poll::Ready(mail) = self.guard.conn.poll_mail(cx, take, &mut scratch.events) {
            moved = true;
            self.on_mail(mail, &mut scratch.events)?;
        }
        if has_room
            && self.session.wants_bytes()
            && let Poll::Ready(read) = self.read(cx, scratch)
        {
            moved = true;
            if read.is_err() {
                scratch.events.push_back(Event::Eof);
            }
        }
        Ok(moved)
    }

    fn on_mail(&self, mail: Mail, events: &mut VecDeque<Event>) -> Result<(), Round> {
        if mail.overflow {
            return Err(self.too_slow());
        }
        let delivered = events.iter().filter_map(|event| match event {
            Event::Deliver(delivery) => Some(delivery.record.as_bytes().len() as u64),
            _ => None,
        });
        let (count, bytes) = delivered.fold((0, 0), |(n, sum), len| (n + 1, sum + len));
        if count > 0 {
            let stats = &self.guard.conn.stats;
            bump(&stats.out_msgs, count);
            bump(&stats.out_msg_bytes, bytes);
            self.gateway.parts.totals.out_msgs.add(count);
        }
        if mail.timer {
            events.push_back(Event::Timeout);
        }
        Ok(())
    }

    /// Reads once. An error is the end of the stream.
    fn read(&mut self, cx: &mut Context<'_>, scratch: &mut Scratch) -> Poll<io::Result<()>> {
        let mut buf = ReadBuf::new(&mut scratch.read);
        // Clears the readiness when the socket had less than the buffer takes: no further call just to hear that it is empty.
        match Pin::new(&mut self.socket).poll_read(cx, &mut buf) {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
            Poll::Ready(Ok(())) => {}
        }
        let input = buf.filled();
        if input.is_empty() {
            return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
        }
        let conn = &self.guard.conn;
        bump(&conn.stats.in_packets, 1);
        bump(&conn.stats.in_packet_bytes, input.len() as u64);
        let wall = self.gateway.parts.clock.wall();
        conn.stats.last_activity_ms.store(wall.0, Relaxed);
        self.gateway.parts.totals.in_bytes.add(input.len() as u64);
        match &mut self.ws {
            None => {
                let bytes = Bytes::copy_from_slice(input);
                scratch.events.push_back(Event::Bytes(bytes));
            }
            Some(ws) => {
                let mut output = ws::Output::default();
                ws.read(input, &mut output);
                if output.alive || !output.data.is_empty() {
                    let bytes = output.data.freeze();
                    scratch.events.push_back(Event::Bytes(bytes));
                }
                if output.ended {
                    scratch.events.push_back(Event::Eof);
                }
                self.out.push(output.reply);
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Gives the events to the session and acts on what it wants, until both are done.
    fn handle(&mut self, scratch: &mut Scratch) {
        let now = self.gateway.parts.clock.now();
        let wall = self.gateway.parts.clock.wall();
        while !scratch.events.is_empty() {
            while let Some(event) = scratch.events.pop_front() {
                self.session.handle(now, wall, event, &mut scratch.effects);
            }
            self.act(now, scratch);
        }
        self.gateway.parts.route.submit(&mut scratch.calls);
        scratch.effects.shrink_to(SCRATCH_ITEMS_KEPT);
        scratch.events.shrink_to(SCRATCH_ITEMS_KEPT);
        self.arm();
    }

    fn arm(&self) {
        if let Some(at) = self.next_timeout() {
            self.gateway.parts.timers.arm(&self.guard.conn, at);
        }
    }

    fn next_timeout(&self) -> Option<Mono> {
        match &self.closing {
            Some(closing) => Some(closing.until),
            None => self.session.next_timeout(),
        }
    }

    fn act(&mut self, now: Mono, scratch: &mut Scratch) {
        for effect in scratch.effects.drain(..) {
            match effect {
                Effect::Transmit { bytes, text } => self.transmit(bytes, text),
                Effect::Admit(connect) => scratch.calls.push(self.admit(connect)),
                Effect::Publish(info, fence) => {
                    if self.publish(info, fence) {
                        scratch.events.push_back(Event::Visible);
                    }
                }
                Effect::Call(ticket, packet) => scratch.calls.extend(self.send(ticket, packet)),
                Effect::CommandRead(channel, seq) => {
                    scratch.calls.extend(self.command_read(channel, seq));
                }
                Effect::PeerAddress(peer) => self.guard.conn.set_peer(peer),
                Effect::Redeliver(channel, seq) => {
                    let route = &self.gateway.parts.route;
                    scratch
                        .calls
                        .push(route.redelivery(self.conn(), channel, seq));
                }
                Effect::Close(kind) => self.begin_close(now, kind),
            }
        }
    }

    fn conn(&self) -> ConnId {
        self.guard.conn.id
    }

    fn transmit(&mut self, bytes: BytesMut, text: bool) {
        bump(&self.guard.conn.stats.out_packets, 1);
        if self.ws.is_some() {
            let mut header = BytesMut::with_capacity(16);
            ws::data_header(text, bytes.len(), &mut header);
            self.out.push(header);
        }
        self.out.push(bytes);
    }

    fn admit(&mut self, connect: ConnectRequest) -> Submission {
        let ConnectRequest {
            uid,
            token,
            device_flag,
            device_id,
        } = connect;
        self.gateway
            .parts
            .presence
            .admitting(&uid, self.conn(), device_flag);
        self.who = Some(Who {
            uid: uid.clone(),
            published: false,
        });
        let request = Request::Admit(Box::new(AdmitRequest {
            uid,
            token,
            device_flag,
            device_id,
        }));
        let origin = Origin::Admit(self.conn());
        self.submission(None, origin, request, Retry::IfIdempotent, ADMIT_MS)
    }

    /// Returns whether everybody knows the session.
    fn publish(&mut self, info: Info, fence: Fence) -> bool {
        let mut wakes = Wakes::default();
        let presence = &self.gateway.parts.presence;
        let visible = presence.publish(self.conn(), &info, fence, &mut wakes);
        self.gateway.parts.hub.wake(wakes);
        self.who = Some(Who {
            uid: info.uid.clone(),
            published: true,
        });
        self.guard.conn.set_info(info);
        visible
    }

    fn send(&self, ticket: Ticket, packet: SendPacket) -> Option<Submission> {
        let stats = &self.guard.conn.stats;
        bump(&stats.in_msgs, 1);
        bump(&stats.in_msg_bytes, packet.payload.len() as u64);
        self.gateway.parts.totals.in_msgs.add(1);
        // H32: a message without a number cannot be told from its copy.
        let retry = if packet.client_msg_no.is_empty() {
            Retry::Never
        } else {
            Retry::IfIdempotent
        };
        let request = Request::Send(Arc::new(SendRequest {
            channel: packet.channel,
            from: self.who.as_ref()?.uid.clone(),
            origin: wk_chat::request::Origin::Client(
                self.gateway.parts.presence.reference(self.conn()),
            ),
            flags: packet.flags,
            setting: packet.setting,
            expire: packet.expire,
            client_msg_no: packet.client_msg_no,
            topic: packet.topic,
            stream_no: packet.stream_no,
            payload: packet.payload,
            recipients: None,
            receiver_allows_strangers: None,
        }));
        let lane = LaneId(self.conn().0);
        let origin = Origin::Send(self.conn(), ticket);
        Some(self.submission(Some(lane), origin, request, retry, CALL_MS))
    }

    fn command_read(&self, channel: ChannelKey, seq: MessageSeq) -> Option<Submission> {
        let request = Request::Write(Box::new(Write::Mark {
            uid: self.who.as_ref()?.uid.clone(),
            channel,
            mark: Mark::Read(seq),
        }));
        Some(self.submission(None, Origin::Nobody, request, Retry::IfIdempotent, CALL_MS))
    }

    fn submission(
        &self,
        lane: Option<LaneId>,
        origin: Origin,
        request: Request,
        retry: Retry,
        ms: u64,
    ) -> Submission {
        Submission {
            lane,
            origin,
            call: Call {
                request,
                retry,
                deadline: self.gateway.parts.route.deadline(ms),
            },
        }
    }

    fn begin_close(&mut self, now: Mono, kind: CloseKind) {
        if let Some(ws) = &self.ws
            && ws.is_open()
        {
            let code = match kind {
                CloseKind::Terminal(_) => ws::Code::Normal,
                CloseKind::Silent => ws::Code::GoingAway,
            };
            let mut frame = BytesMut::with_capacity(4);
            ws::close_frame(code, &mut frame);
            self.out.push(frame);
        }
        self.closing = Some(Closing {
            until: now.plus_ms(CLOSE_LINGER_MS),
            shut: false,
        });
        self.depart();
    }

    /// One step of the end: flush, shut our side, wait for the peer's end or the time limit.
    fn close(&mut self, cx: &mut Context<'_>, scratch: &mut Scratch) -> Round {
        let Some(closing) = &mut self.closing else {
            return Round::Over;
        };
        if self.gateway.parts.clock.now() >= closing.until {
            return Round::Over;
        }
        if self.out.is_empty() && !closing.shut {
            match Pin::new(&mut self.socket).poll_shutdown(cx) {
                Poll::Ready(Ok(())) => closing.shut = true,
                Poll::Ready(Err(_)) => return Round::Over,
                Poll::Pending => {}
            }
        }
        let mut buf = ReadBuf::new(&mut scratch.read);
        match Pin::new(&mut self.socket).poll_read(cx, &mut buf) {
            Poll::Ready(Ok(())) if !buf.filled().is_empty() => return Round::Again,
            Poll::Ready(_) => return Round::Over,
            Poll::Pending => {}
        }
        // Only the timer matters now; anything else in the mailbox is dropped with it.
        let timer = self.guard.conn.poll_mail(cx, 0, &mut scratch.events);
        match timer {
            Poll::Ready(mail) if mail.overflow => Round::Over,
            Poll::Ready(_) => {
                self.arm();
                Round::Again
            }
            Poll::Pending => Round::Wait,
        }
    }

    fn too_slow(&self) -> Round {
        self.gateway.parts.totals.slow_clients.add(1);
        Round::Over
    }

    fn count_written(&self, written: usize) {
        if written > 0 {
            bump(&self.guard.conn.stats.out_packet_bytes, written as u64);
            self.gateway.parts.totals.out_bytes.add(written as u64);
        }
    }

    /// Leaves the directory.
    fn depart(&mut self) {
        if let Some(who) = self.who.take() {
            let presence = &self.gateway.parts.presence;
            presence.remove(&who.uid, self.conn(), who.published);
        }
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        self.depart();
    }
}
