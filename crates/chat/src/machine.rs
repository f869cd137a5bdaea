//! `needs → decide → apply`. Spec: messaging 1.3, 2, 3, 7, 8; decisions H1–H11, H33.

use wk_proto::limits::{PAYLOAD_BYTES_MAX, STR_BYTES_MAX};
use wk_proto::record::Body;
use wk_proto::{Fence, Flags, LogIndex, MessageId, MessageSeq, Reason, Record, Term, WallMs};
use wk_store::{Tx, View};

use crate::command::{Append, Command, Consumer, Effect, Outcome, Stamp};
use crate::control::{self, ControlView, Secret};
pub use crate::facts::{Facts, Needs};
use crate::messages::{self, sent};
use crate::permission::{self, Question, Ruling};
use crate::policy::Policy;
use crate::query::Query;
use crate::request::{
    AdmitRequest, Inbox, Origin, OutboxKey, Reply, Request, SendRequest, SetChange,
    UIDS_PER_WRITE_MAX, Write,
};
use crate::step::Step;
use crate::{conversations, cursors, lists, members, outbox, sweep, users};

/// The leader's side of a decision: time, ids and settings.
#[derive(Debug)]
pub struct Context<'a> {
    /// Time of the entry being built.
    pub now: WallMs,
    /// Term this leader leads.
    pub term: Term,
    /// Settings.
    pub policy: &'a Policy,
    /// Next message id; `decide` takes it and adds one. Larger than any id in the slot's log.
    pub next_id: &'a mut MessageId,
    /// Last fence given; `decide` counts up.
    pub fence: &'a mut Fence,
}

/// What a leader does with a request.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    /// Put this into the log; the answer is apply's.
    Propose(Command),
    /// Answer at once, nothing changes (refused; admitted: after a proof of leadership).
    Answer(Reply),
    /// Not persistent: act and answer, after a proof of leadership (D16).
    Transient(Effect, Reply),
    /// Ask another group this and resubmit the SEND with `receiver_allows_strangers` set from the answer's flags (no row =
    /// `false`). Only with `whitelistOffOfPerson=false`, for a sender who is not on the allow list (H1).
    Ask(Query),
}

/// The machine of one group. Holds only derived caches: two machines with the same store contents behave the same. A store that
/// is replaced (a snapshot, a rebuilt replica) gets a new machine.
#[derive(Debug, Default)]
pub struct Machine {
    made: messages::Made,
}

impl Machine {
    /// What must be in memory to decide.
    pub fn needs(&self, req: &Request, needs: &mut Needs) {
        needs.add(req);
    }

    /// Leader only, pure but for the counters in `ctx`. Not for queries: they are refused with `SystemError`, as is a request
    /// whose facts were not fetched.
    pub fn decide(&self, facts: &Facts, ctx: &mut Context<'_>, req: &Request) -> Verdict {
        match req {
            Request::Send(send) => decide_send(facts, ctx, send),
            Request::Admit(admit) => Verdict::Answer(decide_admit(facts, ctx, admit)),
            Request::Write(write) => decide_write(write),
            Request::Query(_) => Verdict::Answer(Reply::Refused(Reason::SystemError)),
        }
    }

    /// The result of the first copy of a SEND, if `view` holds it: the leader's answer where [`Self::decide`] refuses a later copy
    /// (H33). Only a message with a number has copies.
    pub fn result_of_first(
        view: &View,
        policy: &Policy,
        now: WallMs,
        send: &SendRequest,
    ) -> wk_store::Result<Option<Reply>> {
        if !send.is_numbered() {
            return Ok(None);
        }
        let since = dedupe_since(send, now, policy.dedupe_window_ms);
        messages::result_of_first(view, send, since)
    }

    /// Applies one command of the entry at `at`; `position` is its number inside the entry. Errors are the store's, and stop the group.
    pub fn apply(
        &mut self,
        at: LogIndex,
        position: u32,
        stamp: &Stamp,
        command: Command,
        tx: &mut Tx<'_>,
        out: &mut Vec<Effect>,
    ) -> wk_store::Result<Outcome> {
        let mut step = Step::new(at, position, stamp.time, tx, out);
        let reply = match command {
            Command::Append(append) => messages::append(&mut step, &mut self.made, append)?,
            Command::Write(write) => apply_write(&mut step, *write)?,
        };
        Ok(step.finish(reply))
    }

    /// Applies what a stamp carries besides the commands: consumers' positions. Once per entry, also if it has no command.
    pub fn apply_stamp(stamp: &Stamp, tx: &mut Tx<'_>) -> wk_store::Result<()> {
        cursors::advance(tx, &stamp.cursors)
    }

    /// Up to where a consumer of the message log is done; 0 = nothing yet (H13).
    pub fn cursor(view: &View, consumer: Consumer) -> wk_store::Result<MessageId> {
        cursors::read(view, consumer)
    }

    /// What a leader proposes at `now` because time passed; `None`: nothing is old enough. Costs three look-ups (D20).
    pub fn sweep(view: &View, policy: &Policy, now: WallMs) -> wk_store::Result<Option<Write>> {
        sweep::due(view, policy, now)
    }

    /// The cluster as this replica of the control group has it; `None` before `Genesis`. No proof of leadership: it may be old.
    pub fn cluster(view: &View) -> wk_store::Result<Option<ControlView>> {
        control::view(view)
    }

    /// The cluster's secret, likewise.
    pub fn cluster_secret(view: &View) -> wk_store::Result<Option<Secret>> {
        control::secret(view)
    }

    /// Outbox rows still owed, as `Effect::Outbox`, after `after`: what a new leader resumes with.
    pub fn owed(
        view: &View,
        after: Option<OutboxKey>,
        limit: usize,
    ) -> wk_store::Result<Vec<Effect>> {
        outbox::owed(view, after, limit)
    }
}

fn decide_send(facts: &Facts, ctx: &mut Context<'_>, send: &SendRequest) -> Verdict {
    let id = *ctx.next_id;
    ctx.next_id.0 += 1;
    let refuse = |reason| Verdict::Answer(sent(id, MessageSeq(0), reason));
    if let Some(reason) = malformed(send) {
        return refuse(reason);
    }
    let Some(sender) = facts.sender(&send.channel, &send.from) else {
        return refuse(Reason::SystemError);
    };
    let ruling = permission::judge(&Question {
        policy: ctx.policy,
        channel: &send.channel,
        from: &send.from,
        origin: send.origin,
        facts: sender,
        receiver_allows_strangers: send.receiver_allows_strangers,
    });
    match ruling {
        Ruling::Refuse(reason) => refuse(reason),
        Ruling::AskReceiver => match send.channel.peer_of(&send.from) {
            Some(receiver) => Verdict::Ask(Query::Channel(lists::own_row(&receiver))),
            None => refuse(Reason::ChannelIdError),
        },
        Ruling::Pass => accept(ctx, send, id),
    }
}

/// What must not reach the log whoever sends it.
fn malformed(send: &SendRequest) -> Option<Reason> {
    let texts = [
        send.from.as_str(),
        &send.client_msg_no,
        &send.topic,
        &send.stream_no,
    ];
    let wants_pair = matches!(
        send.channel.kind,
        wk_proto::ChannelType::PERSON | wk_proto::ChannelType::AGENT
    );
    if send.payload.len() > PAYLOAD_BYTES_MAX || texts.iter().any(|t| t.len() > STR_BYTES_MAX) {
        Some(Reason::PayloadDecodeError)
    } else if wants_pair && send.channel.pair().is_none() {
        Some(Reason::ChannelIdError)
    } else if send.recipients.is_some()
        && (send.origin != Origin::Server || !send.flags.has(Flags::NO_PERSIST))
    {
        // Explicit recipients are never stored (H9): a persistent command goes to a temp channel with members.
        Some(Reason::NotAllowSend)
    } else {
        None
    }
}

fn accept(ctx: &Context<'_>, send: &SendRequest, id: MessageId) -> Verdict {
    let record = record(send, id, ctx.now);
    let origin = match send.origin {
        Origin::Client(session) => Some(session),
        Origin::Server => None,
    };
    let channel = send.channel.clone();
    if send.flags.has(Flags::NO_PERSIST) {
        let effect = Effect::Transient {
            channel,
            record,
            origin,
            recipients: send.recipients.clone(),
        };
        return Verdict::Transient(effect, sent(id, MessageSeq(0), Reason::Success));
    }
    let policy = ctx.policy;
    Verdict::Propose(Command::Append(Append {
        conversation: messages::makes_conversations(&channel, policy.whitelist_off_of_person),
        dedupe_since: dedupe_since(send, ctx.now, policy.dedupe_window_ms),
        channel,
        record,
        origin,
    }))
}

fn record(send: &SendRequest, id: MessageId, now: WallMs) -> Record {
    Body {
        flags: send.flags,
        setting: send.setting,
        expire: send.expire,
        message_id: id,
        time: now,
        from_uid: send.from.as_str(),
        client_msg_no: &send.client_msg_no,
        topic: &send.topic,
        stream_no: &send.stream_no,
        payload: &send.payload,
    }
    .encode()
}

/// 0 means "do not look", so a window that reaches back to 1970 begins at 1.
fn dedupe_since(send: &SendRequest, now: WallMs, window_ms: u64) -> WallMs {
    if send.client_msg_no.is_empty() {
        WallMs(0)
    } else {
        WallMs(now.0.saturating_sub(window_ms).max(1))
    }
}

fn decide_admit(facts: &Facts, ctx: &mut Context<'_>, admit: &AdmitRequest) -> Reply {
    let Some(known) = facts.admission(&admit.uid, admit.device_flag) else {
        return Reply::Refused(Reason::SystemError);
    };
    match users::admit(ctx.policy, known, admit) {
        Ok(grant) => Reply::Admitted(grant, next_fence(ctx)),
        Err(reason) => Reply::Refused(reason),
    }
}

/// Fences of a term count from 1 (H19).
fn next_fence(ctx: &mut Context<'_>) -> Fence {
    let last = if ctx.fence.term == ctx.term {
        ctx.fence.n
    } else {
        0
    };
    *ctx.fence = Fence {
        term: ctx.term,
        n: last + 1,
    };
    *ctx.fence
}

fn decide_write(write: &Write) -> Verdict {
    match refused(write) {
        Some(reason) => Verdict::Answer(Reply::Refused(reason)),
        None => Verdict::Propose(Command::Write(Box::new(write.clone()))),
    }
}

/// Requests no state would make right: not worth a log entry.
fn refused(write: &Write) -> Option<Reason> {
    let (channel, uids) = match write {
        Write::Members { channel, change } => {
            if channel.kind == wk_proto::ChannelType::PERSON {
                return Some(Reason::ChannelIdError);
            }
            (Some(channel), uids_of(change))
        }
        Write::Lists {
            channel, change, ..
        } => (Some(channel), uids_of(change)),
        Write::SetChannel { channel, .. } | Write::Disband { channel } => (Some(channel), 0),
        Write::SystemUids { uids, .. } => (None, uids.len()),
        Write::OutboxDone { keys } => (None, keys.len()),
        Write::Genesis(genesis) if !genesis.is_sound() => return Some(Reason::SystemError),
        Write::SetToken { .. }
        | Write::QuitDevices { .. }
        | Write::Mark { .. }
        | Write::Sweep { .. }
        | Write::Genesis(_)
        | Write::Bind { .. }
        | Write::Inbox(_) => (None, 0),
    };
    if channel.is_some_and(|c| c.twin) {
        Some(Reason::ChannelIdError)
    } else if uids > UIDS_PER_WRITE_MAX {
        Some(Reason::RateLimit)
    } else {
        None
    }
}

fn uids_of(change: &SetChange) -> usize {
    match change {
        SetChange::Add(uids)
        | SetChange::Remove(uids)
        | SetChange::Replace(uids)
        | SetChange::Stage { uids, .. } => uids.len(),
        SetChange::Switch { .. } => 0,
    }
}

fn apply_write(step: &mut Step<'_, '_>, write: Write) -> wk_store::Result<Reply> {
    match write {
        Write::SetToken {
            uid,
            device_flag,
            level,
            token,
        } => users::set_token(step, uid, device_flag, level, &token),
        Write::QuitDevices { uid, device_flag } => users::quit_devices(step, uid, device_flag),
        Write::SetChannel {
            channel,
            flags,
            create_only,
        } => members::set_channel(step, &channel, flags, create_only),
        Write::Disband { channel } => members::disband(step, &channel),
        Write::Members { channel, change } => members::change_members(step, &channel, change),
        Write::Lists {
            channel,
            list,
            change,
        } => lists::change_list(step, &channel, list, change),
        Write::Mark { uid, channel, mark } => conversations::mark(step, &uid, &channel, mark),
        Write::Inbox(inbox) => apply_inbox(step, inbox),
        Write::OutboxDone { keys } => Ok(outbox::done(step, &keys)),
        Write::Sweep {
            tombstones,
            temporaries,
        } => sweep::sweep(step, tombstones, temporaries),
        Write::SystemUids { uids, add } => users::change_system_uids(step, &uids, add),
        Write::Genesis(genesis) => control::genesis(step, &genesis),
        Write::Bind { node, uuid } => control::bind(step, node, uuid),
    }
}

fn apply_inbox(step: &mut Step<'_, '_>, inbox: Inbox) -> wk_store::Result<Reply> {
    match inbox {
        Inbox::Membership {
            uid,
            channel,
            epoch,
            change,
            time,
        } => conversations::apply_membership(step, &uid, &channel, epoch, change, time),
        Inbox::Pair {
            owner,
            uid,
            list,
            present,
            epoch,
        } => lists::apply_pair(step, &owner, &uid, list, present, epoch),
    }
}
