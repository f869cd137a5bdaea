//! The one encoding of a message body (decisions D3): made once at the slot's leader, then sliced as [`Bytes`]
//! through log, WAL, store and peer push. The channel and the seq are outside: they are the store's keys.
//!
//! ```text
//!  0        1       2         3         4        8            16        24         26          28         30           32
//!  | ver=1  | flags | setting | 0       | expire | message_id | time_ms | from_len | msgno_len | topic_len | stream_len | payload_len u32 |
//! 36: from, client_msg_no, topic, stream_no, payload          all numbers little-endian
//! ```

use bytes::{BufMut, Bytes, BytesMut};

use crate::limits::RECORD_BYTES_MAX;
use crate::{MessageId, WallMs};

/// Layout version written by this build.
pub const RECORD_VERSION: u8 = 1;
const HEADER: usize = 36;

/// The low nibble of a frame's first byte. Spec: wire-protocol 2.2.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flags(pub u8);

impl Flags {
    /// Do not store; no seq is assigned.
    pub const NO_PERSIST: u8 = 1;
    /// Count as unread, show a badge.
    pub const RED_DOT: u8 = 2;
    /// Command message, to be consumed once.
    pub const SYNC_ONCE: u8 = 4;
    /// The sender says this is a resend.
    pub const DUP: u8 = 8;

    /// Whether all bits of `mask` are set.
    pub const fn has(self, mask: u8) -> bool {
        self.0 & mask == mask
    }

    /// The same flags with the bits of `mask` set or cleared.
    pub const fn with(self, mask: u8, on: bool) -> Self {
        Self(if on { self.0 | mask } else { self.0 & !mask })
    }
}

/// The setting byte. Spec: wire-protocol 6. Unknown bits are kept.
pub mod setting {
    /// A receipt is wanted; passed through.
    pub const RECEIPT: u8 = 0x80;
    /// End-to-end encrypted by the clients; passed through.
    pub const SIGNAL: u8 = 0x20;
    /// The payload is plain, says the sender; passed through, and ignored except as wire-protocol 10.5 allows.
    pub const NO_ENCRYPT: u8 = 0x10;
    /// A topic field is present on the wire.
    pub const TOPIC: u8 = 0x08;
    /// Stream fields are present for protocol 2..=4.
    pub const STREAM: u8 = 0x02;
}

/// The parts of a message body, before encoding. Text lengths are at most `STR_BYTES_MAX`, the payload at most
/// `PAYLOAD_BYTES_MAX`: callers check at the entrance.
#[derive(Clone, Copy, Debug, Default)]
#[allow(missing_docs, reason = "the names are the protocol's")]
pub struct Body<'a> {
    pub flags: Flags,
    pub setting: u8,
    /// Seconds; 0 = for ever.
    pub expire: u32,
    pub message_id: MessageId,
    pub time: WallMs,
    pub from_uid: &'a str,
    pub client_msg_no: &'a str,
    pub topic: &'a str,
    pub stream_no: &'a str,
    pub payload: &'a [u8],
}

impl Body<'_> {
    /// Encodes. Panics if a part is over its limit: that is a caller's bug.
    pub fn encode(&self) -> Record {
        let texts = [
            self.from_uid,
            self.client_msg_no,
            self.topic,
            self.stream_no,
        ];
        let len = HEADER + texts.iter().map(|t| t.len()).sum::<usize>() + self.payload.len();
        assert!(
            len <= RECORD_BYTES_MAX,
            "parts are checked at the entrance: {len} bytes"
        );
        let mut out = BytesMut::with_capacity(len);
        out.put_slice(&[RECORD_VERSION, self.flags.0, self.setting, 0]);
        out.put_u32_le(self.expire);
        out.put_i64_le(self.message_id.0);
        out.put_u64_le(self.time.0);
        for text in texts {
            out.put_u16_le(u16::try_from(text.len()).expect("texts are checked at the entrance"));
        }
        out.put_u32_le(self.payload.len() as u32);
        for text in texts {
            out.put_slice(text.as_bytes());
        }
        out.put_slice(self.payload);
        Record(out.freeze())
    }
}

/// Why bytes are not a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// Shorter or longer than its header says.
    #[error("length does not match the header")]
    Length,
    /// Written by a newer build.
    #[error("unknown record version {0}")]
    Version(u8),
    /// A text part is not UTF-8.
    #[error("text is not UTF-8")]
    Text,
}

/// A checked, encoded message body. Cheap to clone; accessors read in place.
#[derive(Clone, PartialEq, Eq)]
pub struct Record(Bytes);

impl Record {
    /// Checks the layout of `bytes` (from a log, a file or a peer).
    pub fn parse(bytes: Bytes) -> Result<Self, RecordError> {
        if bytes.len() < HEADER {
            return Err(RecordError::Length);
        }
        if bytes[0] != RECORD_VERSION {
            return Err(RecordError::Version(bytes[0]));
        }
        let record = Self(bytes);
        let ends = record.ends();
        if ends[3] + record.payload_len() != record.0.len() {
            return Err(RecordError::Length);
        }
        // Each text on its own, so that a boundary never cuts a character.
        let mut start = HEADER;
        for end in ends {
            std::str::from_utf8(&record.0[start..end]).map_err(|_| RecordError::Text)?;
            start = end;
        }
        Ok(record)
    }

    /// The encoded form.
    pub fn as_bytes(&self) -> &Bytes {
        &self.0
    }

    /// Header flags of the SEND.
    pub fn flags(&self) -> Flags {
        Flags(self.0[1])
    }

    /// Setting byte of the SEND, verbatim.
    pub fn setting(&self) -> u8 {
        self.0[2]
    }

    /// Seconds after [`Self::time`] at which the message disappears; 0 = never.
    pub fn expire(&self) -> u32 {
        u32::from_le_bytes(self.array(4))
    }

    /// Assigned by the slot's leader.
    pub fn message_id(&self) -> MessageId {
        MessageId(i64::from_le_bytes(self.array(8)))
    }

    /// Chosen by the slot's leader: the one time of this message everywhere (D17).
    pub fn time(&self) -> WallMs {
        WallMs(u64::from_le_bytes(self.array(16)))
    }

    /// Sender; `____system` for the server itself.
    pub fn from_uid(&self) -> &str {
        self.text(0)
    }

    /// The sender's idempotency key; may be empty.
    pub fn client_msg_no(&self) -> &str {
        self.text(1)
    }

    /// Topic; empty unless the setting bit is set.
    pub fn topic(&self) -> &str {
        self.text(2)
    }

    /// Stream number of protocol 2..=4; usually empty.
    pub fn stream_no(&self) -> &str {
        self.text(3)
    }

    /// Application bytes, in clear, in place.
    pub fn payload_ref(&self) -> &[u8] {
        &self.0[self.ends()[3]..]
    }

    /// Application bytes, in clear, sharing this record's buffer.
    pub fn payload(&self) -> Bytes {
        self.0.slice(self.ends()[3]..)
    }

    fn array<const N: usize>(&self, at: usize) -> [u8; N] {
        self.0[at..at + N]
            .try_into()
            .expect("the header is checked by parse")
    }

    fn payload_len(&self) -> usize {
        u32::from_le_bytes(self.array(32)) as usize
    }

    fn ends(&self) -> [usize; 4] {
        let mut end = HEADER;
        [24, 26, 28, 30].map(|at| {
            end += usize::from(u16::from_le_bytes(self.array(at)));
            end
        })
    }

    fn text(&self, index: usize) -> &str {
        let ends = self.ends();
        let start = if index == 0 { HEADER } else { ends[index - 1] };
        std::str::from_utf8(&self.0[start..ends[index]]).expect("texts are checked by parse")
    }
}

impl std::fmt::Debug for Record {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Record")
            .field("id", &self.message_id())
            .field("from", &self.from_uid())
            .field("client_msg_no", &self.client_msg_no())
            .field("payload_bytes", &self.payload_len())
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body() -> Body<'static> {
        Body {
            flags: Flags(3),
            setting: 8,
            expire: 7,
            message_id: MessageId(99),
            time: WallMs(1_700_000_000_123),
            from_uid: "u1",
            client_msg_no: "no1",
            topic: "t",
            stream_no: "",
            payload: b"hello",
        }
    }

    #[test]
    fn reads_back_what_was_encoded() {
        let r = Record::parse(body().encode().as_bytes().clone()).unwrap();
        assert_eq!((r.flags(), r.setting(), r.expire()), (Flags(3), 8, 7));
        assert_eq!(
            (r.message_id(), r.time()),
            (MessageId(99), WallMs(1_700_000_000_123))
        );
        assert_eq!(
            (r.from_uid(), r.client_msg_no(), r.topic(), r.stream_no()),
            ("u1", "no1", "t", "")
        );
        assert_eq!(&r.payload()[..], b"hello");
    }

    #[test]
    fn refuses_every_truncation_and_a_newer_version() {
        let bytes = body().encode().as_bytes().clone();
        for n in 0..bytes.len() {
            assert_eq!(Record::parse(bytes.slice(..n)), Err(RecordError::Length));
        }
        let mut newer = bytes.to_vec();
        newer[0] = 2;
        assert_eq!(Record::parse(newer.into()), Err(RecordError::Version(2)));
    }
}
