//! Bytes of the log: frames of records. Encoder and decoder side by side; the decoder is total over any input.
//!
//! ```text
//! frame    magic u32 │ header_crc u32 │ segment u32 │ epoch u32 │ offset u32 │ payload_bytes u32 │ durable_upto u64
//!          │ oldest u32 │ records u32 │ payload_crc u32 │ zero u32 │ payload … │ zeros up to a multiple of 8
//! record   tag u8 │ kind u8 │ zero u16 │ data_bytes u32 │ replica u64 │ fields u64 … │ data …
//! ```
//!
//! Little-endian. `header_crc` covers everything after itself, `payload_crc` included, hence (segment, epoch, offset) and all
//! records: bytes of another place or of an earlier use of the file never validate.

use bytes::{BufMut, Bytes};
use wk_proto::{LogIndex, ReplicaId, Term};

use super::WalRecord;

/// Version of the layout on this page; see [`crate::home`].
pub(crate) const FORMAT: u32 = 1;

const MAGIC: u32 = u32::from_le_bytes(*b"wkl1");

/// Bytes before a frame's payload.
pub(super) const HEADER_BYTES: usize = 48;

/// Frames start at multiples of this, so that a search for them may step by it.
pub(super) const ALIGN: usize = 8;

/// Bytes before a record's fields.
const RECORD_BYTES: usize = 16;

/// Data of one entry. A larger one is refused as [`crate::Error::Invalid`]; the layers above close entries at a quarter of it.
pub const DATA_BYTES_MAX: usize = 4 * wk_proto::limits::ENTRY_BYTES_MAX;

const ENTRY: u8 = 1;
const STATE: u8 = 2;
const START: u8 = 3;
const REMOVED: u8 = 4;

/// A place in the log: which use of a segment, and the byte in it. Ordered as written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Position {
    /// Counts up by one with each segment taken into use, over the life of the log; from 1.
    pub(super) epoch: u32,
    pub(super) offset: u32,
}

impl Position {
    fn to_u64(self) -> u64 {
        u64::from(self.epoch) << 32 | u64::from(self.offset)
    }

    fn from_u64(n: u64) -> Self {
        Self {
            epoch: (n >> 32) as u32,
            offset: n as u32,
        }
    }
}

/// What a frame says about itself and about the log when it was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    /// Number in the file's name.
    pub(super) segment: u32,
    pub(super) at: Position,
    /// Everything before it was known synced. In a segment's first frame: where the segment before ends.
    pub(super) durable_upto: Position,
    /// Epoch of the first segment still needed, the records of this frame considered.
    pub(super) oldest: u32,
    pub(super) payload_bytes: u32,
    pub(super) records: u32,
    payload_crc: u32,
}

impl Header {
    pub(super) fn new(segment: u32, at: Position, durable_upto: Position, oldest: u32) -> Self {
        Self {
            segment,
            at,
            durable_upto,
            oldest,
            payload_bytes: 0,
            records: 0,
            payload_crc: 0,
        }
    }

    /// Bytes of the whole frame.
    pub(super) fn frame_bytes(&self) -> usize {
        (HEADER_BYTES + self.payload_bytes as usize).next_multiple_of(ALIGN)
    }

    /// Where the frame ends.
    pub(super) fn end(&self) -> Position {
        Position {
            epoch: self.at.epoch,
            offset: self.at.offset + self.frame_bytes() as u32,
        }
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let bytes = bytes.get(..HEADER_BYTES)?;
        if u32_at(bytes, 0) != MAGIC || u32_at(bytes, 4) != crc32c::crc32c(&bytes[8..]) {
            return None;
        }
        let header = Self {
            segment: u32_at(bytes, 8),
            at: Position {
                epoch: u32_at(bytes, 12),
                offset: u32_at(bytes, 16),
            },
            payload_bytes: u32_at(bytes, 20),
            durable_upto: Position::from_u64(u64_at(bytes, 24)),
            oldest: u32_at(bytes, 32),
            records: u32_at(bytes, 36),
            payload_crc: u32_at(bytes, 40),
        };
        // So that no arithmetic on a header can overflow.
        let end = u64::from(header.at.offset) + u64::from(header.payload_bytes);
        (end + 2 * HEADER_BYTES as u64 <= u64::from(u32::MAX)).then_some(header)
    }

    fn encode(&self, out: &mut [u8]) {
        let mut rest = &mut out[8..HEADER_BYTES];
        rest.put_u32_le(self.segment);
        rest.put_u32_le(self.at.epoch);
        rest.put_u32_le(self.at.offset);
        rest.put_u32_le(self.payload_bytes);
        rest.put_u64_le(self.durable_upto.to_u64());
        rest.put_u32_le(self.oldest);
        rest.put_u32_le(self.records);
        rest.put_u32_le(self.payload_crc);
        rest.put_u32_le(0);
        let crc = crc32c::crc32c(&out[8..HEADER_BYTES]);
        out[..4].copy_from_slice(&MAGIC.to_le_bytes());
        out[4..8].copy_from_slice(&crc.to_le_bytes());
    }
}

/// Leaves room for a frame's header at the end of `buf`; records follow.
pub(super) fn begin_frame(buf: &mut Vec<u8>) {
    debug_assert_eq!(buf.len() % ALIGN, 0);
    buf.resize(buf.len() + HEADER_BYTES, 0);
}

/// Closes the frame that began at `start` of `buf`: fills in the header and pads. `header` has all but the payload's fields.
pub(super) fn end_frame(buf: &mut Vec<u8>, start: usize, records: u32, mut header: Header) {
    let payload = &buf[start + HEADER_BYTES..];
    header.payload_bytes = payload.len() as u32;
    header.payload_crc = crc32c::crc32c(payload);
    header.records = records;
    header.encode(&mut buf[start..]);
    buf.resize(buf.len().next_multiple_of(ALIGN), 0);
}

/// A frame whose header is intact.
#[derive(Clone, Copy, Debug)]
pub(super) struct Frame<'a> {
    pub(super) header: Header,
    payload: &'a [u8],
    /// Whether the payload is, too.
    pub(super) is_intact: bool,
}

impl<'a> Frame<'a> {
    /// The frame at the start of `bytes`; `None` if its header is not intact or its payload is cut short.
    pub(super) fn decode(bytes: &'a [u8]) -> Option<Self> {
        let header = Header::decode(bytes)?;
        let payload = bytes.get(HEADER_BYTES..HEADER_BYTES + header.payload_bytes as usize)?;
        Some(Self {
            header,
            payload,
            is_intact: crc32c::crc32c(payload) == header.payload_crc,
        })
    }

    /// The frame's records from byte `from` of the payload on, with the byte each starts at.
    pub(super) fn records(&self, from: u32) -> Records<'a> {
        Records {
            payload: self.payload,
            at: from as usize,
        }
    }
}

/// A header at the start of `bytes`, for reading a frame in two steps.
pub(super) fn decode_header(bytes: &[u8]) -> Option<Header> {
    Header::decode(bytes)
}

/// Iterator over the records of a payload. Ends early, without a word, at bytes that are no record; an intact frame has none.
#[derive(Clone, Debug)]
pub(super) struct Records<'a> {
    payload: &'a [u8],
    at: usize,
}

impl<'a> Iterator for Records<'a> {
    type Item = (u32, RecordRef<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        let at = self.at;
        let (record, bytes) = RecordRef::decode(self.payload.get(at..)?)?;
        self.at += bytes;
        Some((at as u32, record))
    }
}

/// A [`WalRecord`] whose data is still in the buffer it was read to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RecordRef<'a> {
    pub(super) replica: ReplicaId,
    pub(super) what: What<'a>,
}

/// What it says of the replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum What<'a> {
    Entry {
        term: Term,
        index: LogIndex,
        kind: u8,
        data: &'a [u8],
    },
    State {
        term: Term,
        vote: u64,
        commit: LogIndex,
    },
    Start {
        index: LogIndex,
        term: Term,
        /// Entries after it stay. Decided once, when written: a replay may lack the entry that decides.
        is_continuation: bool,
    },
    Removed,
}

impl<'a> RecordRef<'a> {
    /// Bytes [`Self::encode`] appends.
    pub(super) fn encoded_bytes(&self) -> usize {
        RECORD_BYTES
            + match self.what {
                What::Entry { data, .. } => 16 + data.len(),
                What::State { .. } => 24,
                What::Start { .. } => 16,
                What::Removed => 0,
            }
    }

    pub(super) fn encode(&self, buf: &mut Vec<u8>) {
        let (tag, kind, data): (u8, u8, &[u8]) = match self.what {
            What::Entry { kind, data, .. } => (ENTRY, kind, data),
            What::State { .. } => (STATE, 0, &[]),
            What::Start {
                is_continuation, ..
            } => (START, u8::from(is_continuation), &[]),
            What::Removed => (REMOVED, 0, &[]),
        };
        buf.extend_from_slice(&[tag, kind, 0, 0]);
        buf.put_u32_le(data.len() as u32);
        buf.put_u64_le(self.replica.0);
        match self.what {
            What::Entry { term, index, .. } | What::Start { index, term, .. } => {
                buf.put_u64_le(index.0);
                buf.put_u64_le(term.0);
            }
            What::State { term, vote, commit } => {
                buf.put_u64_le(term.0);
                buf.put_u64_le(vote);
                buf.put_u64_le(commit.0);
            }
            What::Removed => {}
        }
        buf.extend_from_slice(data);
    }

    /// The record at the start of `bytes`, and how many bytes it takes.
    fn decode(bytes: &'a [u8]) -> Option<(Self, usize)> {
        let head = bytes.get(..RECORD_BYTES)?;
        let data_bytes = u32_at(head, 4) as usize;
        let fields: usize = match head[0] {
            ENTRY | START => 2,
            STATE => 3,
            REMOVED => 0,
            _ => return None,
        };
        let data_at = RECORD_BYTES + 8 * fields;
        let field = |n: usize| u64_at(&bytes[..data_at], RECORD_BYTES + 8 * n);
        let data = bytes.get(data_at..data_at.checked_add(data_bytes)?)?;
        if !data.is_empty() && head[0] != ENTRY {
            return None;
        }
        let what = match head[0] {
            ENTRY => What::Entry {
                index: LogIndex(field(0)),
                term: Term(field(1)),
                kind: head[1],
                data,
            },
            STATE => What::State {
                term: Term(field(0)),
                vote: field(1),
                commit: LogIndex(field(2)),
            },
            START => What::Start {
                index: LogIndex(field(0)),
                term: Term(field(1)),
                is_continuation: head[1] != 0,
            },
            _ => What::Removed,
        };
        let replica = ReplicaId(u64_at(head, 8));
        Some((Self { replica, what }, data_at + data_bytes))
    }
}

impl<'a> From<&'a WalRecord> for RecordRef<'a> {
    fn from(record: &'a WalRecord) -> Self {
        let (replica, what) = match record {
            WalRecord::Entry {
                replica,
                term,
                index,
                kind,
                data,
            } => (
                replica,
                What::Entry {
                    term: *term,
                    index: *index,
                    kind: *kind,
                    data,
                },
            ),
            WalRecord::State {
                replica,
                term,
                vote,
                commit,
            } => (
                replica,
                What::State {
                    term: *term,
                    vote: *vote,
                    commit: *commit,
                },
            ),
            WalRecord::Start {
                replica,
                index,
                term,
            } => (
                replica,
                What::Start {
                    index: *index,
                    term: *term,
                    is_continuation: false,
                },
            ),
            WalRecord::Removed { replica } => (replica, What::Removed),
        };
        Self {
            replica: *replica,
            what,
        }
    }
}

/// An entry as callers get it. Copied, so that a small entry does not keep a large buffer alive.
pub(super) fn entry(index: LogIndex, term: Term, kind: u8, data: &[u8]) -> super::LogEntry {
    (index, term, kind, Bytes::copy_from_slice(data))
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let mut le = [0; 4];
    le.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(le)
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let mut le = [0; 8];
    le.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(le)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn records() -> Vec<WalRecord> {
        let replica = ReplicaId(7);
        let (term, index) = (Term(3), LogIndex(9));
        vec![
            WalRecord::Entry {
                replica,
                term,
                index,
                kind: 2,
                data: Bytes::from_static(b"hello"),
            },
            WalRecord::State {
                replica,
                term,
                vote: 5,
                commit: index,
            },
            WalRecord::Start {
                replica,
                index,
                term,
            },
            WalRecord::Removed { replica },
        ]
    }

    fn frame() -> Vec<u8> {
        let mut buf = Vec::new();
        begin_frame(&mut buf);
        for record in &records() {
            let record = RecordRef::from(record);
            let before = buf.len();
            record.encode(&mut buf);
            assert_eq!(buf.len() - before, record.encoded_bytes());
        }
        let at = Position {
            epoch: 4,
            offset: 4096,
        };
        let durable = Position {
            epoch: 3,
            offset: 96,
        };
        end_frame(&mut buf, 0, 4, Header::new(2, at, durable, 3));
        buf
    }

    #[test]
    fn frames_round_trip() {
        let bytes = frame();
        let frame = Frame::decode(&bytes).expect("frame");
        assert!(frame.is_intact);
        assert_eq!(frame.header.frame_bytes(), bytes.len());
        assert_eq!(frame.header.end().offset, 4096 + bytes.len() as u32);
        assert_eq!((frame.header.segment, frame.header.oldest), (2, 3));
        assert_eq!(frame.header.durable_upto.offset, 96);
        let expected = records();
        let decoded: Vec<_> = frame.records(0).collect();
        assert_eq!(decoded.len(), 4);
        for ((at, record), expected) in decoded.iter().zip(&expected) {
            assert_eq!(*record, RecordRef::from(expected));
            assert_eq!(frame.records(*at).next(), Some((*at, *record)));
        }
    }

    #[test]
    fn the_layout_is_stable() {
        let bytes = frame();
        assert_eq!(&bytes[..4], b"wkl1");
        assert_eq!(bytes.len(), 48 + (32 + 5) + 40 + 32 + 16 + 3);
        assert_eq!(crc32c::crc32c(&bytes), 3_908_705_424);
    }

    #[test]
    fn any_flipped_bit_is_noticed() {
        let good = frame();
        let covered = 48 + 37 + 40 + 32 + 16;
        for bit in 0..covered * 8 {
            let mut bytes = good.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(
                Frame::decode(&bytes).is_none_or(|frame| !frame.is_intact),
                "bit {bit}"
            );
        }
        for len in 0..covered {
            assert!(Frame::decode(&good[..len]).is_none(), "cut at {len}");
        }
    }

    proptest::proptest! {
        #[test]
        fn decoding_never_panics(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..200)) {
            let _ = Frame::decode(&bytes);
            let _ = RecordRef::decode(&bytes);
        }
    }
}
