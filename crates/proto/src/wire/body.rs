//! The fields of every packet, in wire order, written once for two readers: [`Count`] (how long?) and `BytesMut`.

use bytes::{BufMut, BytesMut};

use super::Layout;
use crate::frame::{
    Connack, Connect, Disconnect, Event, RecvParts, Recvack, Send, Sendack, Sub, Suback,
};
use crate::limits::STR_BYTES_MAX;

/// Takes the fields of a body one after the other.
pub(super) trait Sink {
    fn raw(&mut self, bytes: &[u8]);
    /// A length-prefixed string. Its length is checked by [`Count`], which always runs first.
    fn str(&mut self, bytes: &[u8]);

    fn u8(&mut self, n: u8) {
        self.raw(&[n]);
    }
    fn u32(&mut self, n: u32) {
        self.raw(&n.to_be_bytes());
    }
    fn i32(&mut self, n: i32) {
        self.raw(&n.to_be_bytes());
    }
    fn u64(&mut self, n: u64) {
        self.raw(&n.to_be_bytes());
    }
    fn i64(&mut self, n: i64) {
        self.raw(&n.to_be_bytes());
    }
}

/// Adds up the length and notes whether every string fits its prefix.
#[derive(Default)]
pub(super) struct Count {
    pub len: usize,
    pub string_too_long: bool,
}

impl Sink for Count {
    fn raw(&mut self, bytes: &[u8]) {
        self.len += bytes.len();
    }

    fn str(&mut self, bytes: &[u8]) {
        self.string_too_long |= bytes.len() > STR_BYTES_MAX;
        self.len += 2 + bytes.len();
    }
}

impl Sink for BytesMut {
    fn raw(&mut self, bytes: &[u8]) {
        self.put_slice(bytes);
    }

    fn str(&mut self, bytes: &[u8]) {
        debug_assert!(bytes.len() <= STR_BYTES_MAX);
        self.put_u16(bytes.len() as u16);
        self.put_slice(bytes);
    }
}

pub(super) fn connect(f: &Connect, to: &mut impl Sink) {
    to.u8(f.version);
    to.u8(f.device_flag);
    to.str(&f.device_id);
    to.str(&f.uid);
    to.str(&f.token);
    to.i64(f.client_timestamp);
    to.str(&f.client_key);
}

pub(super) fn connack(f: &Connack, version: u8, to: &mut impl Sink) {
    if let Some(server_version) = f.server_version {
        to.u8(server_version);
    }
    to.i64(f.time_diff);
    to.u8(f.reason_code);
    to.str(&f.server_key);
    to.str(&f.salt);
    if version >= 4 {
        to.u64(f.node_id);
    }
}

pub(super) fn send(f: &Send, version: u8, to: &mut impl Sink) {
    let layout = Layout::of(version, f.setting);
    to.u8(f.setting);
    to.u32(f.client_seq);
    to.str(&f.client_msg_no);
    if layout.stream {
        to.str(&f.stream_no);
    }
    to.str(&f.channel_id);
    to.u8(f.channel_type);
    if layout.expire {
        to.u32(f.expire);
    }
    to.str(&f.msg_key);
    if layout.topic {
        to.str(&f.topic);
    }
    to.raw(&f.payload);
}

pub(super) fn sendack(f: &Sendack, to: &mut impl Sink) {
    to.i64(f.message_id);
    to.u32(f.client_seq);
    to.u32(f.message_seq);
    to.u8(f.reason_code);
}

/// Everything before the payload. The msgKey's text starts at [`RECV_MSG_KEY_AT`] of the body.
pub(super) fn recv_head(f: &RecvParts<'_>, msg_key: &[u8], version: u8, to: &mut impl Sink) {
    let layout = Layout::of(version, f.setting);
    to.u8(f.setting);
    to.str(msg_key);
    to.str(f.from_uid);
    to.str(f.channel_id);
    to.u8(f.channel_type);
    if layout.expire {
        to.u32(f.expire);
    }
    to.str(f.client_msg_no);
    if layout.stream {
        to.u8(f.stream_flag);
        to.str(f.stream_no);
        to.u64(f.stream_id);
    }
    to.i64(f.message_id);
    to.u32(f.message_seq);
    to.i32(f.timestamp);
    if layout.topic {
        to.str(f.topic);
    }
}

/// Setting byte and string length come before it.
pub(super) const RECV_MSG_KEY_AT: usize = 3;

pub(super) fn recvack(f: &Recvack, to: &mut impl Sink) {
    to.i64(f.message_id);
    to.u32(f.message_seq);
}

pub(super) fn disconnect(f: &Disconnect, to: &mut impl Sink) {
    to.u8(f.reason_code);
    to.str(&f.reason);
}

pub(super) fn sub(f: &Sub, to: &mut impl Sink) {
    to.u8(f.setting);
    to.str(&f.sub_no);
    to.str(&f.channel_id);
    to.u8(f.channel_type);
    to.u8(f.action);
    to.str(&f.param);
}

pub(super) fn suback(f: &Suback, to: &mut impl Sink) {
    to.str(&f.sub_no);
    to.str(&f.channel_id);
    to.u8(f.channel_type);
    to.u8(f.action);
    to.u8(f.reason_code);
}

pub(super) fn event(f: &Event, to: &mut impl Sink) {
    to.str(&f.id);
    to.str(&f.kind);
    to.i64(f.timestamp);
    to.raw(&f.data);
}
