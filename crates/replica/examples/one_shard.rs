//! One shard with one group and one voter: a driver in its smallest form. Run with `cargo run -p wk-replica --example one_shard`.
//!
//! A real driver has a thread for the WAL, sockets for the peers and a clock; here everything happens at once, in memory.

use std::collections::BTreeMap;
use std::sync::Arc;

use wk_chat::request::Origin;
use wk_chat::{Policy, Request, SendRequest};
use wk_proto::{
    ChannelId, ChannelKey, ChannelType, Flags, GroupId, LogIndex, Mono, NodeId, ReplicaId, SlotId,
    Term, Ticket, Uid, WallMs,
};
use wk_replica::{Group, Input, Output, Shard, ShardConfig, membership};
use wk_store::disk::SimDisk;
use wk_store::{Recovered, ReplicaMeta, Store};

const NOW: Mono = Mono(0);
const WALL: WallMs = WallMs(1_700_000_000_000);

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut shard = start()?;
    drive(&mut shard);
    for text in ["hello", "world", "hello"] {
        let request = Request::Send(Arc::new(message(text)));
        let call = Input::Call(Ticket(1), request.group(1), None, request);
        println!("SEND {text:?}");
        shard.handle(NOW, WALL, call);
        drive(&mut shard);
    }
    Ok(())
}

/// One turn after the other, until there is nothing more to do.
fn drive(shard: &mut Shard) {
    loop {
        let mut outputs = Vec::new();
        shard.poll(NOW, WALL, &mut outputs);
        if outputs.is_empty() {
            break;
        }
        for output in outputs {
            match output {
                Output::Persist(mark, records) => {
                    println!("  write {} records and sync, up to {mark:?}", records.len());
                    shard.handle(NOW, WALL, Input::Durable(mark));
                }
                Output::Committed(group, index, effects) => {
                    println!(
                        "  {group}, entry {index}: {} effects to act on",
                        effects.len()
                    );
                }
                Output::Reply(ticket, result) => println!("  end of call {ticket}: {result:?}"),
                other => println!("  {other:?}"),
            }
        }
    }
}

/// A new group on an empty disk.
fn start() -> wk_store::Result<Shard> {
    let (group, replica, node) = (GroupId::Slot(SlotId(0)), ReplicaId(1), NodeId(1));
    let voters = BTreeMap::from([(replica, node)]);
    let store = Store::open(Arc::new(SimDisk::new()))?;
    store.create(&[ReplicaMeta {
        replica,
        group,
        membership: membership::encode(&voters),
        applied: LogIndex(0),
        applied_term: Term(0),
    }])?;
    let group = Group {
        group,
        replica,
        voters,
        store: store.slot(replica)?,
        applied_term: Term(0),
        log: Recovered::default(),
    };
    let policy = Policy {
        slot_count: 1,
        ..Policy::new()
    };
    let config = ShardConfig::new(node);
    Ok(Shard::new(config, Arc::new(policy), vec![group], NOW, WALL))
}

fn message(text: &'static str) -> SendRequest {
    SendRequest {
        channel: ChannelKey::new(ChannelId::trusted("news"), ChannelType::INFO),
        from: Uid::trusted("ann"),
        origin: Origin::Server,
        flags: Flags(0),
        setting: 0,
        expire: 0,
        client_msg_no: text.into(),
        topic: "".into(),
        stream_no: "".into(),
        payload: text.into(),
        recipients: None,
        receiver_allows_strangers: None,
    }
}
