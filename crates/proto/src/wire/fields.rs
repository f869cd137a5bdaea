//! The fields of every packet in wire order, reading and writing side by side. Spec: wire-protocol 5.

use super::decode::{Body, DecodeError};
use super::encode::Sink;
use super::{HAS_SERVER_VERSION, Layout};
use crate::frame::{
    Connack, Connect, Disconnect, Event, Recv, RecvParts, Recvack, Send, Sendack, Sub, Suback,
};
use crate::record::Flags;

/// A packet with a body. `version` is the connection's; what its layout does not have is neither read nor written.
pub(super) trait Fields: Sized {
    /// Struct literals evaluate their fields in the order written, which is the order on the wire.
    fn read(flags: Flags, version: u8, b: &mut Body<'_>) -> Result<Self, DecodeError>;
    fn write(&self, version: u8, to: &mut impl Sink);
}

impl Fields for Connect {
    fn read(flags: Flags, _version: u8, b: &mut Body<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            flags,
            version: b.u8()?,
            device_flag: b.u8()?,
            device_id: b.str()?,
            uid: b.str()?,
            token: b.str()?,
            client_timestamp: b.i64()?,
            client_key: b.str()?,
        })
    }

    fn write(&self, _version: u8, to: &mut impl Sink) {
        to.u8(self.version);
        to.u8(self.device_flag);
        to.str(&self.device_id);
        to.str(&self.uid);
        to.str(&self.token);
        to.i64(self.client_timestamp);
        to.str(&self.client_key);
    }
}

impl Fields for Connack {
    fn read(flags: Flags, version: u8, b: &mut Body<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            server_version: b.only_if(flags.has(HAS_SERVER_VERSION), |b| b.u8().map(Some))?,
            time_diff: b.i64()?,
            reason_code: b.u8()?,
            server_key: b.str()?,
            salt: b.str()?,
            node_id: b.only_if(version >= 4, Body::u64)?,
        })
    }

    fn write(&self, version: u8, to: &mut impl Sink) {
        if let Some(server_version) = self.server_version {
            to.u8(server_version);
        }
        to.i64(self.time_diff);
        to.u8(self.reason_code);
        to.str(&self.server_key);
        to.str(&self.salt);
        if version >= 4 {
            to.u64(self.node_id);
        }
    }
}

impl Fields for Send {
    fn read(flags: Flags, version: u8, b: &mut Body<'_>) -> Result<Self, DecodeError> {
        let setting = b.u8()?;
        let layout = Layout::of(version, setting);
        Ok(Self {
            flags,
            setting,
            client_seq: b.u32()?,
            client_msg_no: b.str()?,
            stream_no: b.only_if(layout.stream, Body::str)?,
            channel_id: b.str()?,
            channel_type: b.u8()?,
            expire: b.only_if(layout.expire, Body::u32)?,
            msg_key: b.str()?,
            topic: b.only_if(layout.topic, Body::str)?,
            payload: b.rest(),
        })
    }

    fn write(&self, version: u8, to: &mut impl Sink) {
        let layout = Layout::of(version, self.setting);
        to.u8(self.setting);
        to.u32(self.client_seq);
        to.str(&self.client_msg_no);
        if layout.stream {
            to.str(&self.stream_no);
        }
        to.str(&self.channel_id);
        to.u8(self.channel_type);
        if layout.expire {
            to.u32(self.expire);
        }
        to.str(&self.msg_key);
        if layout.topic {
            to.str(&self.topic);
        }
        to.raw(&self.payload);
    }
}

impl Fields for Sendack {
    fn read(flags: Flags, _version: u8, b: &mut Body<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            flags,
            message_id: b.i64()?,
            client_seq: b.u32()?,
            message_seq: b.u32()?,
            reason_code: b.u8()?,
        })
    }

    fn write(&self, _version: u8, to: &mut impl Sink) {
        to.i64(self.message_id);
        to.u32(self.client_seq);
        to.u32(self.message_seq);
        to.u8(self.reason_code);
    }
}

impl Fields for Recv {
    fn read(flags: Flags, version: u8, b: &mut Body<'_>) -> Result<Self, DecodeError> {
        let setting = b.u8()?;
        let layout = Layout::of(version, setting);
        Ok(Self {
            flags,
            setting,
            msg_key: b.str()?,
            from_uid: b.str()?,
            channel_id: b.str()?,
            channel_type: b.u8()?,
            expire: b.only_if(layout.expire, Body::u32)?,
            client_msg_no: b.str()?,
            stream_flag: b.only_if(layout.stream, Body::u8)?,
            stream_no: b.only_if(layout.stream, Body::str)?,
            stream_id: b.only_if(layout.stream, Body::u64)?,
            message_id: b.i64()?,
            message_seq: b.u32()?,
            timestamp: b.i32()?,
            topic: b.only_if(layout.topic, Body::str)?,
            payload: b.rest(),
        })
    }

    fn write(&self, version: u8, to: &mut impl Sink) {
        recv_head(&self.parts(), &self.msg_key, version, to);
        to.raw(&self.payload);
    }
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

impl Fields for Recvack {
    fn read(flags: Flags, _version: u8, b: &mut Body<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            flags,
            message_id: b.i64()?,
            message_seq: b.u32()?,
        })
    }

    fn write(&self, _version: u8, to: &mut impl Sink) {
        to.i64(self.message_id);
        to.u32(self.message_seq);
    }
}

impl Fields for Disconnect {
    fn read(flags: Flags, _version: u8, b: &mut Body<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            flags,
            reason_code: b.u8()?,
            reason: b.str()?,
        })
    }

    fn write(&self, _version: u8, to: &mut impl Sink) {
        to.u8(self.reason_code);
        to.str(&self.reason);
    }
}

impl Fields for Sub {
    fn read(flags: Flags, _version: u8, b: &mut Body<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            flags,
            setting: b.u8()?,
            sub_no: b.str()?,
            channel_id: b.str()?,
            channel_type: b.u8()?,
            action: b.u8()?,
            param: b.str()?,
        })
    }

    fn write(&self, _version: u8, to: &mut impl Sink) {
        to.u8(self.setting);
        to.str(&self.sub_no);
        to.str(&self.channel_id);
        to.u8(self.channel_type);
        to.u8(self.action);
        to.str(&self.param);
    }
}

impl Fields for Suback {
    fn read(flags: Flags, _version: u8, b: &mut Body<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            flags,
            sub_no: b.str()?,
            channel_id: b.str()?,
            channel_type: b.u8()?,
            action: b.u8()?,
            reason_code: b.u8()?,
        })
    }

    fn write(&self, _version: u8, to: &mut impl Sink) {
        to.str(&self.sub_no);
        to.str(&self.channel_id);
        to.u8(self.channel_type);
        to.u8(self.action);
        to.u8(self.reason_code);
    }
}

impl Fields for Event {
    fn read(flags: Flags, _version: u8, b: &mut Body<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            flags,
            id: b.str()?,
            kind: b.str()?,
            timestamp: b.i64()?,
            data: b.rest(),
        })
    }

    fn write(&self, _version: u8, to: &mut impl Sink) {
        to.str(&self.id);
        to.str(&self.kind);
        to.i64(self.timestamp);
        to.raw(&self.data);
    }
}
