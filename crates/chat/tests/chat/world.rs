//! All groups of a little cluster in one thread: real machines on real stores (on a disk in memory), entries through their bytes,
//! and an outbox that is delivered at once, later, or in any order.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use wk_chat::command::RulesVersion;
use wk_chat::query::{Answer, Conversation};
use wk_chat::request::{
    AdmitRequest, Inbox, List, Mark, Origin, OutboxKey, SendRequest, SendResult, SetChange,
};
use wk_chat::{
    Batch, Command, Context, Effect, Facts, Machine, Needs, Policy, Query, Reply, Request, Stamp,
    Verdict, Write,
};
use wk_proto::{
    ChannelId, ChannelKey, ChannelType, ConnId, Fence, Flags, GroupId, LogIndex, MessageId, NodeId,
    Reason, ReplicaId, SessionRef, SlotId, Term, Uid, WallMs,
};
use wk_store::disk::SimDisk;
use wk_store::{ReplicaMeta, SlotStore, Store, Table, View};

pub const SLOTS: u16 = 4;

pub fn uid(s: &str) -> Uid {
    Uid::trusted(s)
}

pub fn uids(list: &[&str]) -> Vec<Uid> {
    list.iter().map(|s| uid(s)).collect()
}

pub fn channel(base: &str, kind: ChannelType) -> ChannelKey {
    ChannelKey::new(ChannelId::trusted(base), kind)
}

pub fn group(base: &str) -> ChannelKey {
    channel(base, ChannelType::GROUP)
}

pub fn person(a: &str, b: &str) -> ChannelKey {
    ChannelKey::person(&uid(a), &uid(b))
}

pub fn own(user: &str) -> ChannelKey {
    channel(user, ChannelType::PERSON)
}

pub fn client() -> Origin {
    Origin::Client(SessionRef {
        node: NodeId(1),
        conn: ConnId(1),
    })
}

/// A persistent client message without idempotency key.
pub fn message(channel: &ChannelKey, from: &str, payload: &str) -> SendRequest {
    SendRequest {
        channel: channel.clone(),
        from: uid(from),
        origin: client(),
        flags: Flags(0),
        setting: 0,
        expire: 0,
        client_msg_no: Arc::from(""),
        topic: Arc::from(""),
        stream_no: Arc::from(""),
        payload: Bytes::copy_from_slice(payload.as_bytes()),
        recipients: None,
        receiver_allows_strangers: None,
    }
}

/// Every answer survives a peer link.
fn over_a_link(reply: Reply) -> Reply {
    assert_eq!(Reply::decode(reply.encode()).as_ref(), Ok(&reply));
    reply
}

struct Replica {
    store: SlotStore,
    machine: Machine,
    next_id: MessageId,
    fence: Fence,
}

pub struct World {
    groups: BTreeMap<GroupId, Replica>,
    pub policy: Policy,
    pub now: WallMs,
    /// Effects other than outbox rows, since the last `take_effects`.
    effects: Vec<Effect>,
    /// Undelivered outbox rows, oldest first.
    pub outbox: VecDeque<(GroupId, OutboxKey, Inbox)>,
    /// Deliver outbox rows before a call returns.
    pub deliver: bool,
    /// Every entry, for replaying elsewhere.
    pub log: Vec<(GroupId, LogIndex, Bytes)>,
}

impl World {
    pub fn new() -> Self {
        let groups =
            std::iter::once(GroupId::Control).chain((0..SLOTS).map(|n| GroupId::Slot(SlotId(n))));
        let metas: Vec<_> = groups
            .map(|group| ReplicaMeta {
                replica: ReplicaId(u64::from(group.to_u32()) + 1),
                group,
                membership: Bytes::new(),
                applied: LogIndex(0),
                applied_term: Term(0),
            })
            .collect();
        let store = Store::open(Arc::new(SimDisk::new())).unwrap();
        store.create(&metas).unwrap();
        let replica = |meta: &ReplicaMeta| Replica {
            store: store.slot(meta.replica).unwrap(),
            machine: Machine::default(),
            next_id: MessageId(1),
            fence: Fence::default(),
        };
        let policy = Policy {
            slot_count: SLOTS,
            ..Policy::new()
        };
        Self {
            groups: metas.iter().map(|m| (m.group, replica(m))).collect(),
            policy,
            now: WallMs(1_700_000_000_000),
            effects: Vec::new(),
            outbox: VecDeque::new(),
            deliver: true,
            log: Vec::new(),
        }
    }

    /// What a shard does with a request: needs, fetch, decide, and an entry of its own.
    pub fn call(&mut self, request: Request) -> Reply {
        assert_eq!(Request::decode(request.encode()).as_ref(), Ok(&request));
        let group = request.group(SLOTS);
        if let Request::Query(query) = &request {
            let answer = query.answer(&self.view(group)).unwrap();
            return over_a_link(Reply::Answer(Box::new(answer)));
        }
        over_a_link(self.act(group, request))
    }

    fn act(&mut self, group: GroupId, request: Request) -> Reply {
        match self.decide(group, &request) {
            Verdict::Answer(reply) => reply,
            Verdict::Transient(effect, reply) => {
                self.effects.push(effect);
                reply
            }
            Verdict::Propose(command) => self.entry(group, vec![command]).remove(0),
            Verdict::Ask(query) => self.ask(query, request),
        }
    }

    fn ask(&mut self, query: Query, request: Request) -> Reply {
        let Reply::Answer(answer) = self.call(Request::Query(Box::new(query))) else {
            panic!("a query was not answered");
        };
        let (Answer::Channel(flags), Request::Send(mut send)) = (*answer, request) else {
            panic!("only SENDs ask, for a channel row");
        };
        assert_eq!(send.receiver_allows_strangers, None, "asked twice");
        Arc::make_mut(&mut send).receiver_allows_strangers =
            Some(flags.is_some_and(|f| f.allow_stranger));
        self.call(Request::Send(send))
    }

    pub fn decide(&mut self, group: GroupId, request: &Request) -> Verdict {
        let replica = self.groups.get_mut(&group).unwrap();
        let mut needs = Needs::default();
        replica.machine.needs(request, &mut needs);
        let facts = Facts::fetch(&replica.store.view(), &needs).unwrap();
        let mut context = Context {
            now: self.now,
            term: Term(1),
            policy: &self.policy,
            next_id: &mut replica.next_id,
            fence: &mut replica.fence,
        };
        replica.machine.decide(&facts, &mut context, request)
    }

    /// Logs and applies one entry; then delivers, if `deliver` is set.
    pub fn entry(&mut self, group: GroupId, commands: Vec<Command>) -> Vec<Reply> {
        self.now.0 += 1;
        let stamp = Stamp {
            time: self.now,
            rules: RulesVersion::CURRENT,
            cursors: Vec::new(),
        };
        let data = Batch { stamp, commands }.encode();
        let at = self.groups[&group].store.applied().next();
        self.log.push((group, at, data.clone()));
        let replies = self.apply(group, at, data);
        if self.deliver {
            self.deliver_all();
        }
        replies
    }

    pub fn apply(&mut self, group: GroupId, at: LogIndex, data: Bytes) -> Vec<Reply> {
        let batch = Batch::decode(data).unwrap();
        let replica = self.groups.get_mut(&group).unwrap();
        let mut tx = replica.store.begin(at);
        let mut effects = Vec::new();
        let mut replies = Vec::new();
        let mut waits = Vec::new();
        Machine::apply_stamp(&batch.stamp, &mut tx).unwrap();
        for (position, command) in batch.commands.into_iter().enumerate() {
            let outcome = replica
                .machine
                .apply(
                    at,
                    position as u32,
                    &batch.stamp,
                    command,
                    &mut tx,
                    &mut effects,
                )
                .unwrap();
            replies.push(outcome.reply);
            waits.extend(outcome.outbox);
        }
        tx.commit();
        let mut owed = Vec::new();
        for effect in effects {
            match effect {
                Effect::Outbox(key, inbox) => {
                    owed.push(key);
                    self.outbox.push_back((group, key, inbox));
                }
                other => self.effects.push(other),
            }
        }
        assert_eq!(owed, waits, "answers wait for exactly the rows written");
        replies
    }

    pub fn deliver_all(&mut self) {
        while let Some((from, key, inbox)) = self.outbox.pop_front() {
            self.deliver_one(inbox);
            self.write_to(from, Write::OutboxDone { keys: vec![key] });
        }
    }

    pub fn deliver_one(&mut self, inbox: Inbox) {
        let to = inbox.group(SLOTS);
        self.write_to(to, Write::Inbox(inbox));
    }

    /// A write the shard itself proposes in a group.
    pub fn write_to(&mut self, group: GroupId, write: Write) {
        let deliver = std::mem::replace(&mut self.deliver, false);
        let replies = self.entry(group, vec![Command::Write(Box::new(write))]);
        self.deliver = deliver;
        assert_eq!(replies, vec![Reply::Done]);
    }

    pub fn view(&self, group: GroupId) -> View {
        self.groups[&group].store.view()
    }

    pub fn view_of(&self, key: &ChannelKey) -> View {
        self.view(GroupId::Slot(key.slot(SLOTS)))
    }

    /// Number of rows in all groups.
    pub fn rows(&self) -> usize {
        self.dump().len()
    }

    /// All rows of all groups.
    pub fn dump(&self) -> Vec<(u32, u8, Bytes, Bytes)> {
        let mut out = Vec::new();
        for group in self.groups.keys() {
            for table in 1..=20 {
                let rows = self.view(*group).scan(Table(table), &[], None, 100_000);
                let rows = rows.unwrap().into_iter();
                out.extend(rows.map(|(k, v)| (group.to_u32(), table, k, v)));
            }
        }
        out
    }

    pub fn owed(&self, group: GroupId) -> Vec<Effect> {
        Machine::owed(&self.view(group), None, 1_000).unwrap()
    }

    pub fn take_effects(&mut self) -> Vec<Effect> {
        std::mem::take(&mut self.effects)
    }

    // Shorthands.

    pub fn send(&mut self, send: SendRequest) -> SendResult {
        match self.call(Request::Send(Arc::new(send))) {
            Reply::Sent(result) => result,
            other => panic!("a SEND was answered {other:?}"),
        }
    }

    /// Sends and gives the seq; panics if refused.
    pub fn say(&mut self, channel: &ChannelKey, from: &str, payload: &str) -> u64 {
        let result = self.send(message(channel, from, payload));
        assert_eq!(result.reason, Reason::Success);
        result.message_seq.0
    }

    /// As [`Self::say`], from the server, under the name of `from`.
    pub fn command(&mut self, twin: &ChannelKey, from: &str) -> u64 {
        let result = self.send(SendRequest {
            origin: Origin::Server,
            flags: Flags(Flags::SYNC_ONCE),
            ..message(twin, from, "command")
        });
        assert_eq!(result.reason, Reason::Success);
        result.message_seq.0
    }

    pub fn reason(&mut self, channel: &ChannelKey, from: &str) -> Reason {
        self.send(message(channel, from, "x")).reason
    }

    pub fn write(&mut self, write: Write) -> Reply {
        self.call(Request::Write(Box::new(write)))
    }

    pub fn done(&mut self, write: Write) {
        assert_eq!(self.write(write), Reply::Done);
    }

    pub fn members(&mut self, channel: &ChannelKey, change: SetChange) {
        let channel = channel.clone();
        self.done(Write::Members { channel, change });
    }

    pub fn add(&mut self, channel: &ChannelKey, list: &[&str]) {
        self.members(channel, SetChange::Add(uids(list)));
    }

    pub fn remove(&mut self, channel: &ChannelKey, list: &[&str]) {
        self.members(channel, SetChange::Remove(uids(list)));
    }

    pub fn list(&mut self, channel: &ChannelKey, list: List, change: SetChange) {
        let channel = channel.clone();
        self.done(Write::Lists {
            channel,
            list,
            change,
        });
    }

    pub fn mark(&mut self, user: &str, channel: &ChannelKey, mark: Mark) {
        let channel = channel.clone();
        let uid = uid(user);
        self.done(Write::Mark { uid, channel, mark });
    }

    pub fn query(&mut self, query: Query) -> Answer {
        match self.call(Request::Query(Box::new(query))) {
            Reply::Answer(answer) => *answer,
            other => panic!("a query was answered {other:?}"),
        }
    }

    pub fn members_of(&mut self, channel: &ChannelKey) -> Vec<Uid> {
        let query = Query::Members {
            channel: channel.clone(),
            after: None,
            limit: 10_000,
        };
        match self.query(query) {
            Answer::Uids(uids, false) => uids,
            other => panic!("{other:?}"),
        }
    }

    pub fn conversations(&mut self, user: &str) -> Vec<Conversation> {
        let uid = uid(user);
        match self.query(Query::Conversations {
            uid,
            limit: 100_000,
        }) {
            Answer::Conversations(rows) => rows,
            other => panic!("{other:?}"),
        }
    }

    pub fn conversation(&mut self, user: &str, channel: &ChannelKey) -> Option<Conversation> {
        let channel = channel.ordinary();
        let mut rows = self.conversations(user).into_iter();
        rows.find(|row| row.channel == channel)
    }

    pub fn admit(&mut self, user: &str, token: &str, flag: u8, device: &str) -> Reply {
        self.call(Request::Admit(Box::new(AdmitRequest {
            uid: uid(user),
            token: token.into(),
            device_flag: flag,
            device_id: device.into(),
        })))
    }
}
