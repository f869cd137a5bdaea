//! Clients: what they ask for, what they do when no answer comes, and which numbers they put on messages.

use std::collections::BTreeMap;
use std::sync::Arc;

use wk_chat::request::{CallError, List, Mark, Origin, SetChange};
use wk_chat::{Answer, Query, Reply, Request, SendRequest, Write};
use wk_cluster::{LaneId, Retry};
use wk_proto::{
    ChannelId, ChannelKey, ChannelType, ConnId, Flags, MessageId, MessageSeq, Mono, NodeId,
    SessionRef, Uid,
};
use wk_store::Dir;

use crate::dice::Dice;
use crate::oracle::{Before, CONSTANT_NUMBER, Checked, OUTBOX_WAIT_MS, Oracle, ms_between, uid};

/// Groups clients talk in.
const GROUPS: u64 = 2;
/// The client that changes members.
const ADMIN: usize = 0;

/// How a client numbers its messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Numbers {
    /// Each its own.
    Unique,
    /// Always the same one (H33).
    Constant,
    /// None: never sent again after an unknown outcome (H32).
    None,
}

/// What an operation is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Work {
    Send(usize),
    History(ChannelKey),
    Conversations,
    MemberList(ChannelKey),
    Member {
        channel: ChannelKey,
        user: usize,
        add: bool,
    },
    Mark {
        channel: ChannelKey,
        seq: u64,
    },
    /// On the client's own deny list.
    Deny {
        user: usize,
        add: bool,
    },
    AddSystem(String),
    System,
}

/// Something a client waits for.
#[derive(Debug)]
struct Op {
    work: Work,
    sent: bool,
    /// When it was first asked for.
    begun: Mono,
    /// Not before then.
    due: Mono,
    before: Before,
}

/// A connection of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Conn {
    pub(crate) node: NodeId,
    /// Of the node's process.
    pub(crate) life: u64,
    pub(crate) number: u64,
}

/// One user with one device.
#[derive(Debug)]
pub(crate) struct Client {
    number: usize,
    pub(crate) conn: Option<Conn>,
    conns: u64,
    numbers: Numbers,
    window: usize,
    ops: BTreeMap<u64, Op>,
    next_op: u64,
    last_message: Option<usize>,
    /// What was pushed to it.
    pub(crate) received: Vec<(ChannelKey, u64, MessageId)>,
}

/// A request on its way to the client's node.
#[derive(Debug)]
pub(crate) struct Attempt {
    pub(crate) op: u64,
    pub(crate) lane: LaneId,
    pub(crate) request: Request,
    pub(crate) retry: Retry,
}

/// How an attempt ended.
#[derive(Debug)]
pub(crate) enum Ending {
    Result(Result<Reply, CallError>),
    /// The connection ended first.
    Lost,
}

impl Client {
    pub(crate) fn new(number: usize, dice: &mut Dice) -> Self {
        let numbers = match dice.below(5) {
            0 => Numbers::Constant,
            1 => Numbers::None,
            _ => Numbers::Unique,
        };
        let window = match numbers {
            Numbers::Unique => *dice.pick(&[1, 2, 8]),
            Numbers::Constant | Numbers::None => 1,
        };
        Self {
            number,
            conn: None,
            conns: 0,
            numbers,
            window,
            ops: BTreeMap::new(),
            next_op: 0,
            last_message: None,
            received: Vec::new(),
        }
    }

    /// Nothing is under way.
    pub(crate) fn is_idle(&self) -> bool {
        self.ops.is_empty()
    }

    pub(crate) fn connect(&mut self, node: NodeId, life: u64) -> Conn {
        self.conns += 1;
        let conn = Conn {
            node,
            life,
            number: self.conns,
        };
        self.conn = Some(conn);
        conn
    }

    /// The connection ended: everything under way has an unknown outcome.
    pub(crate) fn disconnected(&mut self, now: Mono, oracle: &mut Oracle) {
        self.conn = None;
        let lost: Vec<u64> = self
            .ops
            .iter()
            .filter(|(_, op)| op.sent)
            .map(|(n, _)| *n)
            .collect();
        for op in lost {
            // Only answers are checked.
            let _ = self.ended(op, Ending::Lost, now, 0, oracle);
        }
    }

    /// What the client sends now: first what must be sent again, in order, then something new if it is told to.
    pub(crate) fn act(
        &mut self,
        now: Mono,
        new: bool,
        clients: usize,
        dice: &mut Dice,
        oracle: &mut Oracle,
    ) -> Vec<Attempt> {
        if new && self.ops.len() < self.window {
            let work = self.choose(now, clients, dice, oracle);
            self.add(work, now, oracle);
        }
        let due: Vec<u64> = self
            .ops
            .iter()
            .filter(|(_, op)| !op.sent && op.due <= now)
            .map(|(n, _)| *n)
            .collect();
        due.into_iter()
            .filter_map(|op| self.attempt(op, oracle))
            .collect()
    }

    /// Asks for something the run wants to see.
    pub(crate) fn add(&mut self, work: Work, now: Mono, oracle: &mut Oracle) {
        if let Work::Member { channel, user, .. } = &work {
            oracle.member_asked(channel, *user);
        }
        if let Work::Deny { user, .. } = &work {
            oracle.deny_asked(self.number, *user);
        }
        self.next_op += 1;
        let op = Op {
            work,
            sent: false,
            begun: now,
            due: now,
            before: Before::default(),
        };
        self.ops.insert(self.next_op, op);
    }

    /// A message to somewhere.
    pub(crate) fn compose(&mut self, now: Mono, channel: ChannelKey, oracle: &mut Oracle) -> Work {
        let number = match self.numbers {
            Numbers::Unique => format!("{}-{}", self.number, oracle.messages.len()),
            Numbers::Constant => CONSTANT_NUMBER.to_owned(),
            Numbers::None => String::new(),
        };
        let at = oracle.compose(now, channel, self.number, number);
        self.last_message = Some(at);
        Work::Send(at)
    }

    fn choose(&mut self, now: Mono, clients: usize, dice: &mut Dice, oracle: &mut Oracle) -> Work {
        match dice.below(100) {
            0..60 => {
                let channel = channel(self.number, clients, dice);
                self.compose(now, channel, oracle)
            }
            60..66 => self.repeat(oracle),
            66..78 => match known_channel(dice, oracle) {
                Some(channel) => Work::History(channel),
                None => Work::Conversations,
            },
            78..86 => Work::Conversations,
            86..90 => match known_channel(dice, oracle).filter(|c| !c.twin) {
                Some(channel) if channel.kind == ChannelType::PERSON => {
                    let seq = dice.between(0, oracle.floor(&channel));
                    let is_mine = channel.peer_of(&uid(self.number)).is_some();
                    if is_mine {
                        Work::Mark { channel, seq }
                    } else {
                        Work::History(channel)
                    }
                }
                _ => Work::Conversations,
            },
            90..93 => Work::MemberList(group(dice.below(GROUPS))),
            93 => Work::System,
            94 => self.deny(clients, dice),
            _ if self.number != ADMIN => Work::Conversations,
            95 => Work::AddSystem(format!("system{}", oracle.acks)),
            _ => {
                let pending = |op: &Op| matches!(op.work, Work::Member { .. });
                if self.ops.values().any(pending) {
                    return Work::Conversations;
                }
                Work::Member {
                    channel: group(dice.below(GROUPS)),
                    user: dice.below(clients as u64) as usize,
                    add: dice.chance(65),
                }
            }
        }
    }

    /// One change of the list at a time: two under way could end in either order.
    fn deny(&self, clients: usize, dice: &mut Dice) -> Work {
        let pending = |op: &Op| matches!(op.work, Work::Deny { .. });
        if self.ops.values().any(pending) {
            return Work::Conversations;
        }
        Work::Deny {
            user: (self.number + dice.between(1, clients as u64 - 1) as usize) % clients,
            add: dice.chance(40),
        }
    }

    /// The newest message again, as a client does that did not see the answer.
    fn repeat(&self, oracle: &Oracle) -> Work {
        let pending = |at: usize| self.ops.values().any(|op| op.work == Work::Send(at));
        match self.last_message {
            Some(at) if self.numbers != Numbers::None && !pending(at) => {
                if oracle.messages[at].is_acked() {
                    return Work::Send(at);
                }
                Work::Conversations
            }
            _ => Work::Conversations,
        }
    }

    fn attempt(&mut self, number: u64, oracle: &Oracle) -> Option<Attempt> {
        let conn = self.conn?;
        let client = self.number;
        let op = self.ops.get_mut(&number)?;
        op.sent = true;
        op.before = oracle.before(
            client,
            match &op.work {
                Work::History(channel) | Work::MemberList(channel) => Some(channel),
                _ => None,
            },
        );
        let retry = match &op.work {
            Work::Send(at) if oracle.messages[*at].number.is_empty() => Retry::Never,
            _ => Retry::IfIdempotent,
        };
        Some(Attempt {
            op: number,
            lane: LaneId(((client as u64) << 32) | conn.number),
            request: request(&op.work, client, conn, oracle),
            retry,
        })
    }

    /// An attempt ended.
    pub(crate) fn ended(
        &mut self,
        number: u64,
        ending: Ending,
        now: Mono,
        pause_ms: u64,
        oracle: &mut Oracle,
    ) -> Checked {
        let Some(op) = self.ops.get_mut(&number) else {
            return Ok(());
        };
        if !op.sent {
            return Ok(());
        }
        let reply = match ending {
            Ending::Result(Ok(reply)) => Some(reply),
            Ending::Result(Err(error)) => {
                if let Work::Send(at) = op.work {
                    oracle.messages[at].out_of_order = true;
                    if matches!(error, CallError::Unknown(_)) {
                        oracle.unknown(at);
                    }
                }
                let is_lost = matches!(error, CallError::Unknown(_));
                return self.again(number, is_lost, now.plus_ms(pause_ms), oracle);
            }
            Ending::Lost => {
                if let Work::Send(at) = op.work {
                    oracle.unknown(at);
                }
                return self.again(number, true, now, oracle);
            }
        };
        let Some(op) = self.ops.remove(&number) else {
            return Ok(());
        };
        match reply {
            Some(reply) => answered(self.number, &op, reply, now, oracle),
            None => Ok(()),
        }
    }

    /// Reads are given up, everything else is tried again, unless nobody may.
    fn again(&mut self, number: u64, unknown: bool, due: Mono, oracle: &Oracle) -> Checked {
        let Some(op) = self.ops.get_mut(&number) else {
            return Ok(());
        };
        let repeats = match &op.work {
            Work::Send(at) => !unknown || !oracle.messages[*at].number.is_empty(),
            Work::Member { .. } | Work::Deny { .. } | Work::Mark { .. } | Work::AddSystem(_) => {
                true
            }
            Work::History(_) | Work::Conversations | Work::MemberList(_) | Work::System => false,
        };
        if repeats {
            op.sent = false;
            op.due = due;
        } else {
            self.ops.remove(&number);
        }
        Ok(())
    }
}

fn answered(client: usize, op: &Op, reply: Reply, now: Mono, oracle: &mut Oracle) -> Checked {
    // What an earlier attempt owes may have been waited for, from then on.
    let in_time = ms_between(op.begun, now) < OUTBOX_WAIT_MS;
    match (&op.work, reply) {
        (Work::Send(at), Reply::Sent(result)) => oracle.sent(*at, result, now),
        (Work::Member { channel, user, add }, Reply::Done) => {
            oracle.member_done(channel, *user, *add, in_time);
            Ok(())
        }
        (Work::Deny { user, add }, Reply::Done) => {
            oracle.deny_done(client, *user, *add, in_time);
            Ok(())
        }
        (Work::Mark { channel, seq }, Reply::Done) => {
            oracle.marked(client, channel, *seq);
            Ok(())
        }
        (Work::AddSystem(name), Reply::Done) => {
            oracle.system_uid_added(name.clone());
            Ok(())
        }
        (work, Reply::Answer(answer)) => match (work, *answer) {
            (Work::History(channel), Answer::Messages(found)) => {
                oracle.history(channel, &op.before, &found)
            }
            (Work::Conversations, Answer::Conversations(rows)) => {
                oracle.conversations(client, &op.before, &rows)
            }
            (Work::MemberList(channel), Answer::Uids(uids, false)) => {
                oracle.member_list(channel, &op.before, &uids)
            }
            (Work::System, Answer::SystemUids(uids)) => oracle.system_uids(&op.before, &uids),
            (work, answer) => Err(format!("{work:?} was answered with {answer:?}")),
        },
        (work, reply) => Err(format!("{work:?} was answered with {reply:?}")),
    }
}

fn request(work: &Work, client: usize, conn: Conn, oracle: &Oracle) -> Request {
    let write = |write| Request::Write(Box::new(write));
    let query = |query| Request::Query(Box::new(query));
    match work {
        Work::Send(at) => Request::Send(Arc::new(send(*at, client, conn, oracle))),
        Work::History(channel) => query(history(channel)),
        Work::Conversations => query(Query::Conversations {
            uid: uid(client),
            limit: 1_000,
        }),
        Work::MemberList(channel) => query(members(channel)),
        Work::Member { channel, user, add } => write(Write::Members {
            channel: channel.clone(),
            change: match add {
                true => SetChange::Add(vec![uid(*user)]),
                false => SetChange::Remove(vec![uid(*user)]),
            },
        }),
        Work::Deny { user, add } => write(Write::Lists {
            channel: ChannelKey::new(
                ChannelId::trusted(uid(client).as_str()),
                ChannelType::PERSON,
            ),
            list: List::Deny,
            change: match add {
                true => SetChange::Add(vec![uid(*user)]),
                false => SetChange::Remove(vec![uid(*user)]),
            },
        }),
        Work::Mark { channel, seq } => write(Write::Mark {
            uid: uid(client),
            channel: channel.clone(),
            mark: Mark::Read(MessageSeq(*seq)),
        }),
        Work::AddSystem(name) => write(Write::SystemUids {
            uids: vec![Uid::trusted(name)],
            add: true,
        }),
        Work::System => query(Query::SystemUids),
    }
}

fn send(at: usize, client: usize, conn: Conn, oracle: &Oracle) -> SendRequest {
    let message = &oracle.messages[at];
    SendRequest {
        channel: message.channel.clone(),
        from: uid(client),
        origin: Origin::Client(SessionRef {
            node: conn.node,
            conn: ConnId(conn.number),
        }),
        flags: Flags(0),
        setting: 0,
        expire: 0,
        client_msg_no: message.number.as_str().into(),
        topic: "".into(),
        stream_no: "".into(),
        payload: message.payload.clone().into(),
        recipients: None,
        receiver_allows_strangers: None,
    }
}

/// All of a channel.
pub(crate) fn history(channel: &ChannelKey) -> Query {
    Query::Messages {
        channel: channel.clone(),
        first: MessageSeq(1),
        last: MessageSeq(u64::MAX >> 1),
        dir: Dir::Up,
        limit: 10_000,
    }
}

/// All members of a group.
pub(crate) fn members(channel: &ChannelKey) -> Query {
    Query::Members {
        channel: channel.clone(),
        after: None,
        limit: 1_000,
    }
}

/// The groups of a run.
pub(crate) fn all_groups() -> impl Iterator<Item = ChannelKey> {
    (0..GROUPS).map(group)
}

fn group(n: u64) -> ChannelKey {
    ChannelKey::new(ChannelId::trusted(&format!("g{n}")), ChannelType::GROUP)
}

fn channel(client: usize, clients: usize, dice: &mut Dice) -> ChannelKey {
    let channel = match dice.below(10) {
        0 => ChannelKey::new(ChannelId::trusted("news"), ChannelType::INFO),
        1..6 => group(dice.below(GROUPS)),
        _ => {
            let other = (client + dice.between(1, clients as u64 - 1) as usize) % clients;
            ChannelKey::person(&uid(client), &uid(other))
        }
    };
    match dice.below(8) {
        0 => channel.command(),
        _ => channel,
    }
}

fn known_channel(dice: &mut Dice, oracle: &Oracle) -> Option<ChannelKey> {
    let count = oracle.channels().count() as u64;
    oracle.channels().nth(dice.below(count) as usize).cloned()
}
