//! Who votes in a group, as bytes beside its checkpoint ([`wk_store::ReplicaMeta::membership`]).
//!
//! ```text
//! | ver=1 | count u16 | count × ( replica u64 | node u32 ) |      little-endian, ascending by replica
//! ```

use std::collections::BTreeMap;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use wk_proto::{NodeId, ReplicaId};

const VERSION: u8 = 1;
const ROW: usize = 12;

/// Encodes the voters of a group. At most 65,535, which no group has.
pub fn encode(voters: &BTreeMap<ReplicaId, NodeId>) -> Bytes {
    let mut out = BytesMut::with_capacity(3 + voters.len() * ROW);
    out.put_u8(VERSION);
    out.put_u16_le(u16::try_from(voters.len()).expect("a group has a handful of voters"));
    for (replica, node) in voters {
        out.put_u64_le(replica.0);
        out.put_u32_le(node.0);
    }
    out.freeze()
}

/// Reads what [`encode`] wrote; `None` if these are other bytes.
pub fn decode(mut bytes: &[u8]) -> Option<BTreeMap<ReplicaId, NodeId>> {
    if bytes.len() < 3 || bytes.get_u8() != VERSION {
        return None;
    }
    let count = usize::from(bytes.get_u16_le());
    if bytes.len() != count * ROW {
        return None;
    }
    let voters: BTreeMap<_, _> = (0..count)
        .map(|_| (ReplicaId(bytes.get_u64_le()), NodeId(bytes.get_u32_le())))
        .collect();
    (voters.len() == count).then_some(voters)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_back_what_was_encoded_and_nothing_else() {
        let voters = BTreeMap::from([(ReplicaId(7), NodeId(1)), (ReplicaId(9), NodeId(u32::MAX))]);
        let bytes = encode(&voters);
        assert_eq!(decode(&bytes), Some(voters));
        for n in 0..bytes.len() {
            assert_eq!(decode(&bytes[..n]), None, "cut at {n}");
        }
        let mut twice = bytes.to_vec();
        twice.copy_within(3..15, 15);
        assert_eq!(decode(&twice), None, "a replica listed twice");
        assert_eq!(decode(&[2, 0, 0]), None, "another version");
    }
}
