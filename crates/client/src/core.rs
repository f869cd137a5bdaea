//! The conversation with a server as a value: bytes and times in, bytes and events out. No socket, clock or random source.
//!
//! ```text
//!  Down ──start──▶ Hello ──CONNACK──▶ Open          lost(): back to Down; messages stay, and go out again when Open
//! ```
//!
//! A message's life: [`Core::send`] numbers it and keeps it; it is written when (and as often as) a connection opens, in
//! order of numbers; its SENDACK removes it and gives its tag back as [`Output::Acked`]. Messages are kept in clear, because
//! every connection has other keys.
//!
//! The driver writes what [`Core::wire`] holds, and calls [`Core::poll`] until it is empty after every other call.

mod outstanding;
mod seen;

use std::collections::VecDeque;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use wk_proto::crypto::KEY_BYTES;
use wk_proto::frame::{self, Frame, Recv, Sendack};
use wk_proto::limits::{PAYLOAD_BYTES_MAX, STR_BYTES_MAX};
use wk_proto::{Mono, Reason, WallMs, wire};

use crate::error::{Error, Refusal};
use crate::limits::{ACK_MS, CONNECT_MS, PONG_MS};
use crate::link::{self, Hello, HelloError, Link};
use crate::message::{Event, Message, SendAck};
use crate::options::Options;
use outstanding::Outstanding;
use seen::Seen;

/// What the conversation yields. `T` is what the caller attached to a message.
#[derive(Debug, PartialEq, Eq)]
pub enum Output<T> {
    /// For the application.
    Event(Event),
    /// A message's fate.
    Acked(T, Result<SendAck, Refusal>),
}

/// Why the connection must be dropped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The client is over.
    Terminal(Error),
    /// A new connection may do better.
    Lost(&'static str),
}

/// A message cannot be accepted; nothing happened, and the tag comes back.
#[derive(Debug, PartialEq, Eq)]
pub enum Rejected<T> {
    /// Over a limit of the wire.
    TooLong(T),
    /// [`Core::has_room`] was false.
    Full(T),
}

/// The state machine.
pub struct Core<T> {
    options: Options,
    state: State,
    outstanding: Outstanding<T>,
    seen: Seen,
    /// Received, not yet a complete frame.
    input: BytesMut,
    wire: BytesMut,
    scratch: BytesMut,
    outputs: VecDeque<Output<T>>,
    /// The peer was given time since this moment: start, last byte, or the end of a pause in reading.
    patient_since: Mono,
    ping_at: Option<Mono>,
}

enum State {
    Down,
    Hello(Hello),
    Open(Link),
}

impl<T> Core<T> {
    /// A client without a connection.
    pub fn new(options: Options) -> Self {
        Self {
            options,
            state: State::Down,
            outstanding: Outstanding::default(),
            seen: Seen::default(),
            input: BytesMut::new(),
            wire: BytesMut::new(),
            scratch: BytesMut::new(),
            outputs: VecDeque::new(),
            patient_since: Mono(0),
            ping_at: None,
        }
    }

    /// A connection is there: writes CONNECT. `private`: 32 fresh random bytes.
    pub fn start(
        &mut self,
        now: Mono,
        wall: WallMs,
        private: [u8; KEY_BYTES],
    ) -> Result<(), Error> {
        self.lost();
        let hello = Hello::new(&self.options, private);
        hello
            .push_connect(&self.options, wall, &mut self.wire)
            .map_err(|_| Error::Options)?;
        self.state = State::Hello(hello);
        self.patient_since = now;
        Ok(())
    }

    /// The connection is gone. Forgets its bytes and keys, keeps what is unacknowledged.
    pub fn lost(&mut self) {
        self.state = State::Down;
        self.input.clear();
        self.wire.clear();
        self.ping_at = None;
    }

    /// Accepts a message (payload in clear; `client_seq` is set here) and writes it if a connection is open.
    pub fn send(&mut self, now: Mono, plain: frame::Send, tag: T) -> Result<(), Rejected<T>> {
        let texts = [&plain.channel_id, &plain.client_msg_no, &plain.topic];
        let too_long = plain.payload.len() > PAYLOAD_BYTES_MAX
            || texts.iter().any(|t| t.len() > STR_BYTES_MAX);
        if too_long {
            return Err(Rejected::TooLong(tag));
        }
        if !self.has_room() {
            return Err(Rejected::Full(tag));
        }
        let plain = self.outstanding.push(now, plain, tag);
        if let State::Open(link) = &self.state {
            let fits = link.push_send(plain.clone(), &mut self.wire);
            debug_assert!(fits.is_ok(), "lengths were checked");
        }
        Ok(())
    }

    /// Whether a message of any legal size is accepted now.
    pub fn has_room(&self) -> bool {
        self.outstanding.has_room()
    }

    /// Messages without an acknowledgement.
    pub fn outstanding(&self) -> usize {
        self.outstanding.len()
    }

    /// Whether the server has accepted the login on this connection.
    pub fn is_open(&self) -> bool {
        matches!(self.state, State::Open(_))
    }

    /// Bytes from the server. RECVACKs of everything in them are written to [`Self::wire`] together.
    pub fn receive(&mut self, now: Mono, bytes: &[u8]) -> Result<(), Fault> {
        self.patient_since = now;
        self.ping_at = None;
        self.input.extend_from_slice(bytes);
        // More than one turn only if a bad frame follows good ones: the next turn meets it first.
        loop {
            let mut frames = link::complete_frames(&mut self.input)
                .map_err(|_| Fault::Lost("the server sent no valid frame"))?;
            if frames.is_empty() {
                return Ok(());
            }
            while let Some(frame) = self.next_frame(&mut frames)? {
                self.handle(now, frame)?;
            }
        }
    }

    fn next_frame(&self, frames: &mut Bytes) -> Result<Option<Frame>, Fault> {
        let version = match &self.state {
            State::Down => return Err(Fault::Lost("bytes without a connection")),
            State::Hello(hello) => hello.version(),
            State::Open(link) => link.version(),
        };
        link::next_frame(frames, version).map_err(|_| Fault::Lost("the server sent a broken frame"))
    }

    fn handle(&mut self, now: Mono, frame: Frame) -> Result<(), Fault> {
        match (&self.state, frame) {
            (State::Hello(hello), Frame::Connack(ack)) => {
                let link = hello.finish(&ack).map_err(|e| match e {
                    HelloError::Terminal(error) => Fault::Terminal(error),
                    HelloError::Nonsense(what) => Fault::Lost(what),
                })?;
                self.open(now, link);
            }
            (_, Frame::Disconnect(d)) => {
                return Err(Fault::Terminal(Error::Kicked {
                    code: Refusal(d.reason_code),
                    text: String::from_utf8_lossy(&d.reason).into_owned(),
                }));
            }
            (State::Down | State::Hello(_), _) => {
                return Err(Fault::Lost(
                    "the server answered CONNECT with something else",
                ));
            }
            (State::Open(_), Frame::Sendack(ack)) => self.acked(ack),
            (State::Open(_), Frame::Recv(recv)) => self.received(recv),
            (State::Open(_), Frame::Event(e)) => self.event(Event::Notice(e)),
            (
                State::Open(_),
                Frame::Pong
                | Frame::Ping
                | Frame::Suback(_)
                | Frame::Connack(_)
                | Frame::Connect(_)
                | Frame::Send(_)
                | Frame::Recvack(_)
                | Frame::Sub(_),
            ) => {}
        }
        Ok(())
    }

    fn open(&mut self, now: Mono, link: Link) {
        for plain in self.outstanding.again(now) {
            let fits = link.push_send(plain.clone(), &mut self.wire);
            debug_assert!(fits.is_ok(), "lengths were checked");
        }
        self.event(Event::Connected {
            node_id: link.node_id(),
            version: link.version(),
            encrypted: link.encrypted(),
        });
        self.state = State::Open(link);
    }

    fn acked(&mut self, ack: Sendack) {
        // One that answers nothing: a second copy's, after the first was answered.
        let Some(tag) = self.outstanding.take(ack.client_seq) else {
            return;
        };
        let fate = if ack.reason_code == Reason::Success.code() {
            Ok(SendAck {
                message_id: ack.message_id,
                message_seq: ack.message_seq,
            })
        } else {
            Err(Refusal(ack.reason_code))
        };
        self.outputs.push_back(Output::Acked(tag, fate));
    }

    /// Only what was verified is acknowledged; what was seen before is acknowledged again, since that is what its sender
    /// waits for.
    fn received(&mut self, recv: Recv) {
        let State::Open(link) = &self.state else {
            return;
        };
        let event = match link.open(&recv, &mut self.scratch) {
            Err(link::Corrupt) => Event::Corrupt {
                message_id: recv.message_id,
            },
            Ok(payload) => {
                link.push_recvack(&recv, &mut self.wire);
                if !self.seen.is_new(recv.message_id, recv.message_seq) {
                    return;
                }
                Event::Message(Message::new(recv, payload))
            }
        };
        self.event(event);
    }

    fn event(&mut self, event: Event) {
        self.outputs.push_back(Output::Event(event));
    }

    /// Earliest moment [`Self::handle_timeout`] has something to do; `None` without a connection.
    pub fn next_timeout(&self) -> Option<Mono> {
        match &self.state {
            State::Down => None,
            State::Hello(_) => Some(self.patient_since.plus_ms(CONNECT_MS)),
            State::Open(_) => {
                let peer = match self.ping_at {
                    Some(at) => at.plus_ms(PONG_MS),
                    None => self.patient_since + self.ping_interval(),
                };
                Some(self.ack_deadline().map_or(peer, |ack| peer.min(ack)))
            }
        }
    }

    fn ping_interval(&self) -> Duration {
        self.options.ping_interval
    }

    fn ack_deadline(&self) -> Option<Mono> {
        let oldest = self.outstanding.oldest()?;
        Some(oldest.plus_ms(ACK_MS))
    }

    /// PINGs a quiet peer, gives up a silent one. May come early.
    pub fn handle_timeout(&mut self, now: Mono) -> Result<(), Fault> {
        match &self.state {
            State::Down => Ok(()),
            State::Hello(_) if now >= self.patient_since.plus_ms(CONNECT_MS) => {
                Err(Fault::Lost("no answer to CONNECT"))
            }
            State::Hello(_) => Ok(()),
            State::Open(_) => self.check_peer(now),
        }
    }

    fn check_peer(&mut self, now: Mono) -> Result<(), Fault> {
        if self.ack_deadline().is_some_and(|at| now >= at) {
            return Err(Fault::Lost("no answer to a message"));
        }
        match self.ping_at {
            Some(at) if now >= at.plus_ms(PONG_MS) => Err(Fault::Lost("no answer to PING")),
            None if now >= self.patient_since + self.ping_interval() => {
                self.ping_at = Some(now);
                let fits = wire::encode(&Frame::Ping, 0, &mut self.wire);
                debug_assert!(fits.is_ok(), "PING is one byte");
                Ok(())
            }
            Some(_) | None => Ok(()),
        }
    }

    /// The driver did not read until now, so silence proves nothing: all patience starts again.
    pub fn resume(&mut self, now: Mono) {
        self.patient_since = now;
        self.ping_at = None;
        self.outstanding.excuse(now);
    }

    /// Writes DISCONNECT: a clean end, if a connection is open.
    pub fn close(&mut self) {
        if self.is_open() {
            let bye = Frame::Disconnect(frame::Disconnect {
                reason_code: Reason::Success.code(),
                ..frame::Disconnect::default()
            });
            let fits = wire::encode(&bye, 0, &mut self.wire);
            debug_assert!(fits.is_ok(), "an empty text fits");
        }
    }

    /// Bytes for the server, in order; the driver takes off what it has written.
    pub fn wire(&mut self) -> &mut BytesMut {
        &mut self.wire
    }

    /// The next output, oldest first.
    pub fn poll(&mut self) -> Option<Output<T>> {
        self.outputs.pop_front()
    }
}

#[cfg(test)]
mod tests;
