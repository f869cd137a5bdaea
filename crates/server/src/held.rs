//! What this directory has promised, and of which cluster it is a part, as a file of its own: replaced as a whole, durable before
//! anybody is told (H45, H52).
//!
//! ```text
//! | "WKFORM\0" ver=1 | stage u8 | cluster u128 | counts u16 × 3 | nodes: count u32, u32 each | seats: count u32, (u32, u128) each | crc32c |
//! ```

use std::collections::BTreeMap;
use std::io;

use bytes::{Buf, BufMut, BytesMut};
use wk_cluster::formation::{Held, Pledge};
use wk_proto::NodeId;
use wk_store::Disk;

const FILE: &str = "formation";
const TEMP: &str = "formation.new";
const MAGIC: &[u8; 8] = b"WKFORM\0\x01";
/// Longest file; ours has less than 300 bytes for the most nodes there can be.
const FILE_BYTES_MAX: u64 = 64 * 1024;

/// What the directory holds; `None`: it has never been part of a formation.
pub(crate) fn load(disk: &dyn Disk) -> io::Result<Option<Held>> {
    if !disk.list("")?.iter().any(|name| name == FILE) {
        return Ok(None);
    }
    let file = disk.open(FILE, false)?;
    let mut bytes = vec![0; file.len()?.min(FILE_BYTES_MAX) as usize];
    file.read_at(0, &mut bytes)?;
    let damaged = || {
        io::Error::new(
            io::ErrorKind::InvalidData,
            "the file `formation` is damaged",
        )
    };
    decode(&bytes).map(Some).ok_or_else(damaged)
}

/// Durable on return.
pub(crate) fn save(disk: &dyn Disk, held: &Held) -> io::Result<()> {
    let file = disk.open(TEMP, true)?;
    file.set_len(0)?;
    file.write_at(0, &encode(held))?;
    file.sync()?;
    disk.rename(TEMP, FILE)?;
    disk.sync_dir("")
}

fn encode(held: &Held) -> BytesMut {
    let none = BTreeMap::new();
    let (stage, cluster, seats) = match held {
        Held::Fresh => (0, 0, &none),
        Held::Promised(_) => (1, 0, &none),
        Held::Voting { seats, .. } => (2, 0, seats),
        Held::Formed {
            cluster_id, seats, ..
        } => (3, *cluster_id, seats),
    };
    let mut out = BytesMut::from(&MAGIC[..]);
    out.put_u8(stage);
    out.put_u128_le(cluster);
    let pledge = held.pledge();
    let counts = pledge.map_or([0; 3], |p| {
        [p.slot_count, p.slot_replicas, p.channel_replicas]
    });
    counts.into_iter().for_each(|count| out.put_u16_le(count));
    let nodes = pledge.map_or(&[][..], |p| &p.nodes);
    out.put_u32_le(nodes.len() as u32);
    nodes.iter().for_each(|node| out.put_u32_le(node.0));
    out.put_u32_le(seats.len() as u32);
    for (node, disk) in seats {
        out.put_u32_le(node.0);
        out.put_u128_le(*disk);
    }
    let crc = crc32c::crc32c(&out);
    out.put_u32_le(crc);
    out
}

fn decode(bytes: &[u8]) -> Option<Held> {
    let (body, mut crc) = bytes.split_last_chunk::<4>().map(|(b, c)| (b, &c[..]))?;
    if crc32c::crc32c(body) != crc.get_u32_le() {
        return None;
    }
    let mut body = body.strip_prefix(MAGIC)?;
    let stage = body.try_get_u8().ok()?;
    let cluster_id = body.try_get_u128_le().ok()?;
    let mut count = || body.try_get_u16_le().ok();
    let (slot_count, slot_replicas, channel_replicas) = (count()?, count()?, count()?);
    let nodes = (0..body.try_get_u32_le().ok()?)
        .map(|_| body.try_get_u32_le().ok().map(NodeId))
        .collect::<Option<_>>()?;
    let seats = (0..body.try_get_u32_le().ok()?)
        .map(|_| {
            Some((
                NodeId(body.try_get_u32_le().ok()?),
                body.try_get_u128_le().ok()?,
            ))
        })
        .collect::<Option<_>>()?;
    let pledge = Pledge {
        nodes,
        slot_count,
        slot_replicas,
        channel_replicas,
    };
    Some(match stage {
        0 => Held::Fresh,
        1 => Held::Promised(pledge),
        2 => Held::Voting { pledge, seats },
        3 => Held::Formed {
            cluster_id,
            pledge,
            seats,
        },
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use wk_store::disk::SimDisk;

    #[test]
    fn every_stage_survives_and_damage_is_noticed() {
        let mut disk = SimDisk::new();
        assert_eq!(load(&disk).unwrap(), None);
        let pledge = Pledge {
            nodes: vec![NodeId(1), NodeId(7)],
            slot_count: 64,
            slot_replicas: 3,
            channel_replicas: 2,
        };
        let seats = BTreeMap::from([(NodeId(1), 5), (NodeId(7), u128::MAX)]);
        let stages = [
            Held::Promised(pledge.clone()),
            Held::Voting {
                pledge: pledge.clone(),
                seats: seats.clone(),
            },
            Held::Formed {
                cluster_id: 9,
                pledge,
                seats,
            },
        ];
        for held in stages {
            save(&disk, &held).unwrap();
            disk = disk.crash(1);
            assert_eq!(load(&disk).unwrap(), Some(held.clone()));
            let bytes = encode(&held);
            for at in 0..bytes.len() {
                let mut changed = bytes.to_vec();
                changed[at] ^= 1;
                assert_eq!(decode(&changed), None, "byte {at}");
                assert_eq!(decode(&bytes[..at]), None, "cut at {at}");
            }
        }
    }
}
