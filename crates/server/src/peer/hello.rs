//! Who is on the other end of a peer connection, and whether it may be (D13, H45, H53).
//!
//! ```text
//! acceptor ──Challenge{nonce}──▶ dialer ──Hello{…, nonce', MAC(secret, nonce ‖ hello)}──▶ acceptor
//! acceptor ──Hello{…, MAC(secret, nonce' ‖ hello)} or Refusal──▶ dialer
//! ```

use bytes::{BufMut, Bytes, BytesMut};
use hmac::{Hmac, Mac};
use sha2::Sha256;
use wk_cluster::formation::LinkState;
use wk_proto::NodeId;

use super::frame::{self, Reader};

pub(super) const CHALLENGE: u8 = 1;
pub(super) const HELLO: u8 = 2;
pub(super) const REFUSAL: u8 = 3;

const MAGIC: &[u8; 8] = b"WUKONGIM";

/// Oldest and newest protocol between nodes that this version speaks.
pub(super) const PROTOCOLS: (u16, u16) = (1, 1);

pub(super) type Nonce = [u8; 16];
type Tag = [u8; 32];

/// What a connection is for: a long answer must not hold up a heartbeat.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Purpose {
    /// Raft messages and heartbeats.
    Raft,
    /// Calls, their results, the directory, pushes.
    Calls,
}

impl Purpose {
    pub(crate) const ALL: [Self; 2] = [Self::Raft, Self::Calls];

    fn from_u8(n: u8) -> Option<Self> {
        Self::ALL.get(usize::from(n)).copied()
    }
}

/// Why a connection is not wanted: the words of the formation report (cluster 7.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    /// Not a node of this product, or damaged.
    #[error("malformed")]
    Malformed,
    /// No common protocol version.
    #[error("version_mismatch")]
    Version,
    /// Another cluster, or another list of nodes.
    #[error("foreign_cluster")]
    ForeignCluster,
    /// Wrong secret, or, without one, an address that is not in the list.
    #[error("auth_failed")]
    Auth,
    /// Not in the list, the wrong one, or another directory than the one known for this node.
    #[error("id_conflict")]
    IdConflict,
    /// For everything but forming a cluster the disk needs a seat in one first.
    #[error("no_seat")]
    NoSeat,
}

impl Refusal {
    const ALL: [Self; 6] = [
        Self::Malformed,
        Self::Version,
        Self::ForeignCluster,
        Self::Auth,
        Self::IdConflict,
        Self::NoSeat,
    ];

    /// As the formation report has it.
    pub(super) fn state(self) -> LinkState {
        match self {
            Self::Malformed | Self::NoSeat => LinkState::Unreachable,
            Self::Version => LinkState::VersionMismatch,
            Self::ForeignCluster => LinkState::ForeignCluster,
            Self::Auth => LinkState::AuthFailed,
            Self::IdConflict => LinkState::IdConflict,
        }
    }

    pub(super) fn of(state: &LinkState) -> Self {
        match state {
            LinkState::ForeignCluster => Self::ForeignCluster,
            LinkState::AuthFailed => Self::Auth,
            LinkState::VersionMismatch => Self::Version,
            _ => Self::IdConflict,
        }
    }

    pub(super) fn encode(self) -> Bytes {
        frame::encode(REFUSAL, 1, |out| out.put_u8(self as u8))
    }

    pub(super) fn decode(body: Bytes) -> Self {
        let number = Reader(body).u8().unwrap_or_default();
        let known = Self::ALL.get(usize::from(number));
        known.copied().unwrap_or(Self::Malformed)
    }
}

/// How a node introduces itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Hello {
    pub(crate) purpose: Purpose,
    /// The cluster's id; 0 before there is one, or before the process knew of it.
    pub(crate) cluster: u128,
    pub(crate) node: NodeId,
    /// Which node it wants to talk to.
    pub(crate) to: NodeId,
    /// Which directory it runs on (H45).
    pub(crate) disk: u128,
    /// Which run of the process.
    pub(crate) incarnation: u64,
    /// What the answer must prove to have seen.
    pub(crate) nonce: Nonce,
}

impl Hello {
    /// A frame; `seen` is the nonce of the other side.
    pub(super) fn encode(&self, seen: &Nonce, secret: Option<&[u8]>) -> Bytes {
        frame::encode(HELLO, 128, |out| {
            let start = out.len();
            self.put(out);
            let tag = tag(secret, seen, &out[start..]);
            out.put_slice(&tag);
        })
    }

    fn put(&self, out: &mut BytesMut) {
        out.put_slice(MAGIC);
        out.put_u16_le(PROTOCOLS.0);
        out.put_u16_le(PROTOCOLS.1);
        out.put_u8(self.purpose as u8);
        out.put_u128_le(self.cluster);
        out.put_u32_le(self.node.0);
        out.put_u32_le(self.to.0);
        out.put_u128_le(self.disk);
        out.put_u64_le(self.incarnation);
        out.put_slice(&self.nonce);
    }

    /// Reads a body and checks what the words themselves prove: the format, the version and, with a secret, the tag over `seen`.
    pub(super) fn decode(
        body: Bytes,
        seen: &Nonce,
        secret: Option<&[u8]>,
    ) -> Result<Self, Refusal> {
        let mut reader = Reader(body.clone());
        if reader.array() != Some(*MAGIC) {
            return Err(Refusal::Malformed);
        }
        let range = (reader.u16(), reader.u16());
        let (Some(min), Some(max)) = range else {
            return Err(Refusal::Malformed);
        };
        if min > PROTOCOLS.1 || max < PROTOCOLS.0 {
            return Err(Refusal::Version);
        }
        let (hello, given) = Self::read(&mut reader).ok_or(Refusal::Malformed)?;
        let said = body.len() - reader.0.len() - given.len();
        if let Some(secret) = secret {
            let mac = keyed(secret, seen, &body[..said]);
            mac.verify_slice(&given).map_err(|_| Refusal::Auth)?;
        }
        Ok(hello)
    }

    fn read(reader: &mut Reader) -> Option<(Self, Tag)> {
        let hello = Self {
            purpose: Purpose::from_u8(reader.u8()?)?,
            cluster: reader.u128()?,
            node: NodeId(reader.u32()?),
            to: NodeId(reader.u32()?),
            disk: reader.u128()?,
            incarnation: reader.u64()?,
            nonce: reader.array()?,
        };
        Some((hello, reader.array()?))
    }
}

fn keyed(secret: &[u8], seen: &Nonce, said: &[u8]) -> Hmac<Sha256> {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret).expect("HMAC takes keys of any length");
    mac.update(seen);
    mac.update(said);
    mac
}

fn tag(secret: Option<&[u8]>, seen: &Nonce, said: &[u8]) -> Tag {
    secret.map_or([0; 32], |secret| {
        keyed(secret, seen, said).finalize().into_bytes().into()
    })
}

pub(super) fn challenge(nonce: &Nonce) -> Bytes {
    frame::encode(CHALLENGE, 24, |out| {
        out.put_slice(MAGIC);
        out.put_slice(nonce);
    })
}

pub(super) fn read_challenge(body: Bytes) -> Option<Nonce> {
    let mut reader = Reader(body);
    (reader.array() == Some(*MAGIC)).then_some(())?;
    reader.array()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hello() -> Hello {
        Hello {
            purpose: Purpose::Calls,
            cluster: 5,
            node: NodeId(1),
            to: NodeId(2),
            disk: 7,
            incarnation: 9,
            nonce: [3; 16],
        }
    }

    fn body(frame: &Bytes) -> Bytes {
        frame.slice(frame::HEADER..)
    }

    #[test]
    fn a_hello_proves_the_secret_and_the_challenge_it_has_seen() {
        let seen = [1; 16];
        let said = body(&hello().encode(&seen, Some(b"secret")));
        let read = |seen, secret: &'static [u8]| Hello::decode(said.clone(), seen, Some(secret));
        assert_eq!(read(&seen, b"secret"), Ok(hello()));
        assert_eq!(read(&seen, b"other"), Err(Refusal::Auth));
        assert_eq!(read(&[2; 16], b"secret"), Err(Refusal::Auth), "replayed");
        assert_eq!(Hello::decode(said, &seen, None), Ok(hello()));
    }

    #[test]
    fn any_changed_byte_is_refused() {
        let said = body(&hello().encode(&[1; 16], Some(b"s")));
        for at in 0..said.len() {
            let mut changed = said.to_vec();
            changed[at] ^= 1;
            let read = Hello::decode(changed.into(), &[1; 16], Some(b"s"));
            assert!(read.is_err(), "byte {at}");
            let cut = Hello::decode(said.slice(..at), &[1; 16], Some(b"s"));
            assert_eq!(cut, Err(Refusal::Malformed), "cut at {at}");
        }
    }

    #[test]
    fn refusals_have_numbers() {
        for refusal in Refusal::ALL {
            assert_eq!(Refusal::decode(body(&refusal.encode())), refusal);
        }
    }
}
