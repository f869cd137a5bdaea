//! What a SEND must be before anybody else sees it. Spec: wire-protocol 5.3, 9, 10.4.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use wk_proto::crypto::sealed_len;
use wk_proto::frame::Send;
use wk_proto::limits::{FRAME_BYTES_MAX, PAYLOAD_BYTES_MAX, STR_BYTES_MAX};
use wk_proto::{ChannelKey, Reason, Uid};

use crate::SendPacket;
use crate::output::Dialect;

/// Fields of a RECV that have a fixed size, and the length prefixes and msgKey of the others, generously.
const RECV_FIXED_BYTES: usize = 128;

/// Checks in the order of the reference: keys and payload (9), then the channel (23, 16). The send ban came before.
pub(crate) fn packet(
    me: &Uid,
    dialect: &mut Dialect,
    send: Send,
    target: Result<ChannelKey, Reason>,
) -> Result<SendPacket, Reason> {
    let payload = payload(dialect, &send)?;
    if payload.len() > PAYLOAD_BYTES_MAX || recv_bytes(me, &send, payload.len()) > FRAME_BYTES_MAX {
        return Err(Reason::PayloadDecodeError);
    }
    let channel = target?;
    Ok(SendPacket {
        channel,
        flags: send.flags,
        setting: send.setting,
        expire: send.expire,
        client_msg_no: client_msg_no(dialect, &send.client_msg_no)?,
        topic: text(&send.topic)?,
        stream_no: text(&send.stream_no)?,
        payload,
    })
}

fn payload(dialect: &Dialect, send: &Send) -> Result<Bytes, Reason> {
    match dialect {
        Dialect::Binary {
            cipher: Some(cipher),
            ..
        } => cipher
            .open_send(send, &mut BytesMut::new())
            .map_err(|_| Reason::PayloadDecodeError),
        Dialect::Binary { cipher: None, .. } | Dialect::JsonRpc { .. } => Ok(send.payload.clone()),
    }
}

/// Largest RECV this SEND can become: encrypted, for the receiver with the longest layout.
fn recv_bytes(me: &Uid, send: &Send, payload: usize) -> usize {
    RECV_FIXED_BYTES
        + me.as_str().len().max(send.channel_id.len())
        + me.as_str().len()
        + send.client_msg_no.len()
        + send.topic.len()
        + send.stream_no.len()
        + sealed_len(payload)
}

/// As the reference, JSON-RPC clients get a number: nobody could resend or find a message without one.
fn client_msg_no(dialect: &mut Dialect, given: &[u8]) -> Result<Arc<str>, Reason> {
    match dialect {
        Dialect::JsonRpc { numbers } if given.is_empty() => Ok(numbers.next().into()),
        Dialect::JsonRpc { .. } | Dialect::Binary { .. } => text(given),
    }
}

/// A stored text is UTF-8 and fits a `str` field; anything else could not be given back as it came, so it is refused like a payload
/// that cannot be read.
fn text(bytes: &[u8]) -> Result<Arc<str>, Reason> {
    if bytes.is_empty() {
        return Ok(Arc::default()); // shared, unlike Arc::from("")
    }
    if bytes.len() > STR_BYTES_MAX {
        return Err(Reason::PayloadDecodeError);
    }
    std::str::from_utf8(bytes)
        .map(Arc::from)
        .map_err(|_| Reason::PayloadDecodeError)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::target::stored_channel;

    fn plain(send: Send) -> Result<SendPacket, Reason> {
        let me = Uid::trusted("me");
        let target = stored_channel(&me, &send.channel_id, send.channel_type);
        let mut dialect = Dialect::Binary {
            version: 5,
            cipher: None,
        };
        packet(&me, &mut dialect, send, target)
    }

    fn send(payload: usize, text: usize) -> Send {
        Send {
            channel_id: "g".into(),
            channel_type: 2,
            client_msg_no: vec![b'n'; text].into(),
            topic: vec![b't'; text].into(),
            stream_no: vec![b's'; text].into(),
            payload: vec![0; payload].into(),
            ..Send::default()
        }
    }

    #[test]
    fn what_no_receiver_could_read_is_refused() {
        assert!(plain(send(PAYLOAD_BYTES_MAX, 100)).is_ok());
        assert!(plain(send(100, STR_BYTES_MAX)).is_ok());
        for too_long in [
            send(PAYLOAD_BYTES_MAX + 1, 0),
            send(PAYLOAD_BYTES_MAX, STR_BYTES_MAX),
        ] {
            assert_eq!(plain(too_long), Err(Reason::PayloadDecodeError));
        }
    }

    #[test]
    fn texts_that_are_not_utf8_are_refused() {
        for field in 0..3 {
            let mut bad = send(1, 0);
            let bytes = Bytes::from_static(b"\xff");
            match field {
                0 => bad.client_msg_no = bytes,
                1 => bad.topic = bytes,
                _ => bad.stream_no = bytes,
            }
            assert_eq!(plain(bad), Err(Reason::PayloadDecodeError));
        }
    }
}
