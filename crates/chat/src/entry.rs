//! Bytes of a log entry (D5). All numbers little-endian.
//!
//! ```text
//! batch:    version u16 = 1 | rules u16 | time u64 | cursors u8 | commands u32
//!           cursors × { consumer u8 | message id i64 }
//!           commands × { kind u16 | version u16 | len u32 | body }
//! append:   channel type u8 | bits u8 (1 twin, 2 conversation, 4 origin) | base len u16 | dedupe_since u64
//!           [ node u32 | conn u64 ]   base   record (the rest)
//! others:   prost messages, see `wire`
//! ```

use bytes::{Buf, BufMut, Bytes, BytesMut};
use wk_proto::{
    ChannelId, ChannelKey, ChannelType, ConnId, MessageId, NodeId, Record, SessionRef, WallMs,
};

use crate::command::{Append, Batch, Command, Consumer, DecodeError, RulesVersion, Stamp};
use crate::wire::{self, kind};

const BATCH_VERSION: u16 = 1;
const BATCH_HEADER: usize = 2 + 2 + 8 + 1 + 4;
const CURSOR: usize = 1 + 8;
const ENVELOPE: usize = 2 + 2 + 4;
const APPEND_HEADER: usize = 1 + 1 + 2 + 8;
const ORIGIN: usize = 4 + 8;

const TWIN: u8 = 1;
const CONVERSATION: u8 = 2;
const HAS_ORIGIN: u8 = 4;

pub(crate) fn encode(batch: &Batch) -> Bytes {
    let appends: usize = batch.commands.iter().map(append_len).sum();
    let cursors = &batch.stamp.cursors;
    let mut out = BytesMut::with_capacity(BATCH_HEADER + cursors.len() * CURSOR + appends);
    out.put_u16_le(BATCH_VERSION);
    out.put_u16_le(batch.stamp.rules.0);
    out.put_u64_le(batch.stamp.time.0);
    out.put_u8(u8::try_from(cursors.len()).expect("one cursor per consumer"));
    out.put_u32_le(batch.commands.len() as u32);
    for (consumer, id) in cursors {
        out.put_u8(*consumer as u8);
        out.put_i64_le(id.0);
    }
    for command in &batch.commands {
        put_command(&mut out, command);
    }
    out.freeze()
}

/// Exact for appends; others are rare and small, the buffer grows for them.
fn append_len(command: &Command) -> usize {
    match command {
        Command::Append(append) => ENVELOPE + append_body_len(append),
        Command::Write(_) => ENVELOPE,
    }
}

pub(crate) fn encoded_len(command: &Command) -> usize {
    match command {
        Command::Append(append) => ENVELOPE + append_body_len(append),
        Command::Write(write) => ENVELOPE + wire::encode_write(write).1.len(),
    }
}

fn append_body_len(append: &Append) -> usize {
    let origin = if append.origin.is_some() { ORIGIN } else { 0 };
    APPEND_HEADER + origin + append.channel.base.as_str().len() + append.record.as_bytes().len()
}

fn put_command(out: &mut BytesMut, command: &Command) {
    match command {
        Command::Append(append) => {
            put_envelope(out, kind::APPEND, append_body_len(append));
            put_append(out, append);
        }
        Command::Write(write) => {
            let (kind, body) = wire::encode_write(write);
            put_envelope(out, kind, body.len());
            out.put_slice(&body);
        }
    }
}

fn put_envelope(out: &mut BytesMut, kind: u16, len: usize) {
    out.put_u16_le(kind);
    out.put_u16_le(wire::VERSION);
    out.put_u32_le(u32::try_from(len).expect("a command is smaller than an entry"));
}

fn put_append(out: &mut BytesMut, append: &Append) {
    let base = append.channel.base.as_str();
    let bit = |on: bool, bit: u8| if on { bit } else { 0 };
    out.put_u8(append.channel.kind.0);
    out.put_u8(
        bit(append.channel.twin, TWIN)
            | bit(append.conversation, CONVERSATION)
            | bit(append.origin.is_some(), HAS_ORIGIN),
    );
    out.put_u16_le(u16::try_from(base.len()).expect("ids are at most 1,025 bytes"));
    out.put_u64_le(append.dedupe_since.0);
    if let Some(origin) = append.origin {
        out.put_u32_le(origin.node.0);
        out.put_u64_le(origin.conn.0);
    }
    out.put_slice(base.as_bytes());
    out.put_slice(append.record.as_bytes());
}

pub(crate) fn decode(mut data: Bytes) -> Result<Batch, DecodeError> {
    if data.len() < BATCH_HEADER {
        return Err(malformed("short header"));
    }
    let version = data.get_u16_le();
    if version != BATCH_VERSION {
        return Err(DecodeError::Unknown { kind: 0, version });
    }
    let rules = RulesVersion(data.get_u16_le());
    if rules > RulesVersion::CURRENT {
        let version = rules.0;
        return Err(DecodeError::Unknown { kind: 0, version });
    }
    let time = WallMs(data.get_u64_le());
    let cursors = usize::from(data.get_u8());
    let count = data.get_u32_le() as usize;
    let stamp = Stamp {
        time,
        rules,
        cursors: cursors_of(take(&mut data, cursors * CURSOR)?)?,
    };
    // A lie about the count costs no memory: each command needs its envelope.
    let mut commands = Vec::with_capacity(count.min(data.len() / ENVELOPE));
    for _ in 0..count {
        commands.push(command(&mut data)?);
    }
    if !data.is_empty() {
        return Err(malformed("bytes after the last command"));
    }
    Ok(Batch { stamp, commands })
}

fn malformed(what: &str) -> DecodeError {
    DecodeError::Malformed(what.to_owned())
}

fn take(data: &mut Bytes, len: usize) -> Result<Bytes, DecodeError> {
    if len > data.len() {
        return Err(malformed("a length beyond the entry"));
    }
    Ok(data.split_to(len))
}

fn cursors_of(mut data: Bytes) -> Result<Vec<(Consumer, MessageId)>, DecodeError> {
    let mut out = Vec::with_capacity(data.len() / CURSOR);
    while data.has_remaining() {
        let consumer = match data.get_u8() {
            1 => Consumer::Deliver,
            2 => Consumer::Notify,
            3 => Consumer::PersistAfter,
            _ => return Err(malformed("unknown consumer")),
        };
        out.push((consumer, MessageId(data.get_i64_le())));
    }
    Ok(out)
}

fn command(data: &mut Bytes) -> Result<Command, DecodeError> {
    let mut envelope = take(data, ENVELOPE)?;
    let kind = envelope.get_u16_le();
    let version = envelope.get_u16_le();
    let body = take(data, envelope.get_u32_le() as usize)?;
    match (kind, version) {
        (kind::APPEND, wire::VERSION) => append(body).map(Command::Append),
        (kind::APPEND, _) => Err(DecodeError::Unknown { kind, version }),
        _ => {
            let write = wire::decode_write(kind, version, body)?;
            Ok(Command::Write(Box::new(write)))
        }
    }
}

fn append(mut data: Bytes) -> Result<Append, DecodeError> {
    let mut header = take(&mut data, APPEND_HEADER)?;
    let kind = ChannelType(header.get_u8());
    let bits = header.get_u8();
    let base_len = usize::from(header.get_u16_le());
    let dedupe_since = WallMs(header.get_u64_le());
    if bits & !(TWIN | CONVERSATION | HAS_ORIGIN) != 0 {
        return Err(malformed("unknown bits in an append"));
    }
    let origin = if bits & HAS_ORIGIN != 0 {
        let mut origin = take(&mut data, ORIGIN)?;
        Some(SessionRef {
            node: NodeId(origin.get_u32_le()),
            conn: ConnId(origin.get_u64_le()),
        })
    } else {
        None
    };
    let base = take(&mut data, base_len)?;
    let base = std::str::from_utf8(&base).map_err(|_| malformed("channel id is not UTF-8"))?;
    Ok(Append {
        channel: ChannelKey {
            base: ChannelId::trusted(base),
            kind,
            twin: bits & TWIN != 0,
        },
        record: Record::parse(data).map_err(|e| malformed(&e.to_string()))?,
        dedupe_since,
        conversation: bits & CONVERSATION != 0,
        origin,
    })
}
