//! What must be true, checked as answers come in (spec: cluster 7.1). A failed check is the text of a violation.
//!
//! The oracle knows what was asked and what was answered, never what the servers think.

use std::collections::{BTreeMap, BTreeSet};

use wk_chat::query::Conversation;
use wk_chat::{SendResult, query};
use wk_proto::{ChannelKey, ChannelType, MessageId, Mono, Reason, Uid};
use wk_store::Stored;

/// Acks that took longer may have stopped waiting for their outbox rows (H6).
pub(crate) const OUTBOX_WAIT_MS: u64 = 1_000;

/// What a client calls all its messages that gives no two of them different numbers.
pub(crate) const CONSTANT_NUMBER: &str = "always";

/// The text of a violation.
pub(crate) type Checked = Result<(), String>;

macro_rules! ensure {
    ($holds:expr, $($text:tt)*) => {
        if !$holds {
            return Err(format!($($text)*));
        }
    };
}
pub(crate) use ensure;

/// One message a client wants to send, and what became of it.
#[derive(Debug)]
pub(crate) struct Message {
    pub(crate) channel: ChannelKey,
    pub(crate) from: usize,
    pub(crate) number: String,
    /// Names the message: no two have the same.
    pub(crate) payload: String,
    begun: Mono,
    /// Highest seq anybody knew of in the channel when it was first sent.
    floor: u64,
    /// The sender's membership then, and his place on the receiver's deny list.
    member: Option<Membership>,
    denied: Option<Membership>,
    /// First answer of success.
    acked: Option<(MessageId, u64)>,
    refused: Option<Reason>,
    /// An attempt ended with nobody knowing what it did.
    unknown: bool,
    /// Sent again by the application after an error: its place in the order is lost.
    pub(crate) out_of_order: bool,
}

impl Message {
    pub(crate) fn is_acked(&self) -> bool {
        self.acked.is_some()
    }
}

/// What is known of a channel's log.
#[derive(Debug, Default)]
struct Known {
    by_seq: BTreeMap<u64, (MessageId, String)>,
    floor: u64,
}

/// What is known of one user's place in one group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Membership {
    /// Counts the changes asked for.
    version: u64,
    /// `None` while one is under way.
    present: Option<bool>,
    /// The last change was answered in time: the conversation row must show it.
    is_shown: bool,
}

/// What a user must see when he asks now.
#[derive(Debug, Default)]
pub(crate) struct Before {
    floor: u64,
    pairs: BTreeMap<ChannelKey, u64>,
    members: Vec<(ChannelKey, usize, Membership)>,
    system: BTreeSet<String>,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Oracle {
    pub(crate) messages: Vec<Message>,
    channels: BTreeMap<ChannelKey, Known>,
    members: BTreeMap<(ChannelKey, usize), Membership>,
    /// Deny lists: (owner, who is on it).
    denied: BTreeMap<(usize, usize), Membership>,
    /// Person conversations that must be there, with the highest read mark acknowledged.
    pairs: BTreeMap<(usize, ChannelKey), u64>,
    marks: BTreeMap<(usize, ChannelKey), u64>,
    system: BTreeSet<String>,
    ids: BTreeMap<MessageId, usize>,
    by_payload: BTreeMap<String, usize>,
    /// Bytes added to every message.
    padding: usize,
    pub(crate) acks: u64,
    pub(crate) reads: u64,
}

/// The user of a client.
pub(crate) fn uid(client: usize) -> Uid {
    Uid::trusted(&format!("u{client}"))
}

impl Oracle {
    pub(crate) fn new(padding: usize) -> Self {
        Self {
            padding,
            ..Self::default()
        }
    }

    /// A new message.
    pub(crate) fn compose(
        &mut self,
        now: Mono,
        channel: ChannelKey,
        from: usize,
        number: String,
    ) -> usize {
        let at = self.messages.len();
        let padding = "+".repeat(self.padding);
        let payload = format!("message {at} of u{from} {padding}");
        self.by_payload.insert(payload.clone(), at);
        let floor = self.floor(&channel);
        let member = self.members.get(&(channel.ordinary(), from)).copied();
        let denied = self.denial(&channel, from);
        self.messages.push(Message {
            denied,
            channel,
            from,
            number,
            payload,
            begun: now,
            floor,
            member,
            acked: None,
            refused: None,
            unknown: false,
            out_of_order: false,
        });
        at
    }

    /// Highest seq anybody was told of.
    pub(crate) fn floor(&self, channel: &ChannelKey) -> u64 {
        self.channels.get(channel).map_or(0, |known| known.floor)
    }

    /// Channels anybody was told of.
    pub(crate) fn channels(&self) -> impl Iterator<Item = &ChannelKey> {
        self.channels.keys()
    }

    /// I-1 … I-4 at the moment of an answer.
    pub(crate) fn sent(&mut self, at: usize, result: SendResult, now: Mono) -> Checked {
        if result.reason != Reason::Success {
            return self.refused(at, result.reason);
        }
        self.acks += 1;
        let place = (result.message_id, result.message_seq.0);
        let message = &mut self.messages[at];
        if let Some(first) = message.acked {
            ensure!(
                first == place,
                "I-4: {:?} was acknowledged as {first:?} and as {place:?}",
                message.payload
            );
            return Ok(());
        }
        message.acked = Some(place);
        ensure!(
            place.1 > message.floor,
            "I-3: {:?} got seq {} in {:?} although {} was known before it was sent",
            message.payload,
            place.1,
            message.channel,
            message.floor
        );
        let (channel, payload) = (message.channel.clone(), message.payload.clone());
        self.may_send(at, true)?;
        self.learn(&channel, place.1, place.0, &payload)?;
        // Only the first message of a pair waits for its rows; behind one that stopped waiting, later acks promise nothing.
        let is_first = channel.kind == ChannelType::PERSON && !channel.twin && place.1 == 1;
        if is_first && ms_between(self.messages[at].begun, now) < OUTBOX_WAIT_MS {
            self.show_pair(&channel);
        }
        Ok(())
    }

    fn show_pair(&mut self, channel: &ChannelKey) {
        if let Some((a, b)) = channel.pair() {
            for user in [a, b] {
                if let Some(client) = client_of(&user) {
                    self.pairs.entry((client, channel.clone())).or_default();
                }
            }
        }
    }

    fn refused(&mut self, at: usize, reason: Reason) -> Checked {
        self.may_send(at, false)?;
        let message = &mut self.messages[at];
        // Who was removed or denied meanwhile is told what became of the first attempt all the same.
        ensure!(
            message.acked.is_none() || message.number == CONSTANT_NUMBER,
            "I-4: {:?} was acknowledged, its repetition refused: {reason:?}",
            message.payload
        );
        message.refused = Some(reason);
        Ok(())
    }

    /// I-7: a change of members that was answered binds the next SEND.
    fn may_send(&self, at: usize, accepted: bool) -> Checked {
        let message = &self.messages[at];
        if message.channel.kind == ChannelType::PERSON {
            return self.may_write_to(message, accepted);
        }
        if message.channel.kind != ChannelType::GROUP {
            ensure!(
                accepted,
                "{:?} was refused: {:?}",
                message.payload,
                message.refused
            );
            return Ok(());
        }
        let key = (message.channel.ordinary(), message.from);
        let now = self.members.get(&key).copied();
        let same = now.map(|m| m.version) == message.member.map(|m| m.version);
        let present = message.member.map_or(Some(false), |m| m.present);
        if !same || present.is_none() || now.is_some_and(|m| m.present.is_none()) {
            return Ok(());
        }
        ensure!(
            present == Some(accepted),
            "I-7: {:?} in {:?}: accepted = {accepted}, member = {present:?}",
            message.payload,
            message.channel
        );
        Ok(())
    }

    /// H1: a deny list that was changed binds the next SEND.
    fn may_write_to(&self, message: &Message, accepted: bool) -> Checked {
        let now = self.denial(&message.channel, message.from);
        let listed = match (message.denied, now) {
            (None, None) => false,
            (then, now) if then != now => return Ok(()),
            (_, now) => match now.filter(|d| d.is_shown).and_then(|d| d.present) {
                Some(listed) => listed,
                None => return Ok(()),
            },
        };
        ensure!(
            listed != accepted,
            "H1: {:?} in {:?}: accepted = {accepted}, on the deny list = {listed}",
            message.payload,
            message.channel
        );
        Ok(())
    }

    fn denial(&self, channel: &ChannelKey, from: usize) -> Option<Membership> {
        let owner = channel.peer_of(&uid(from)).as_ref().and_then(client_of)?;
        self.denied.get(&(owner, from)).copied()
    }

    /// A change of a deny list is asked for.
    pub(crate) fn deny_asked(&mut self, owner: usize, user: usize) {
        let denied = self.denied.entry((owner, user)).or_default();
        denied.version += 1;
        denied.present = None;
        denied.is_shown = false;
    }

    /// It was answered.
    pub(crate) fn deny_done(&mut self, owner: usize, user: usize, listed: bool, in_time: bool) {
        let denied = self.denied.entry((owner, user)).or_default();
        denied.present = Some(listed);
        denied.is_shown = in_time;
    }

    /// Nobody knows whether an attempt stored it.
    pub(crate) fn unknown(&mut self, at: usize) {
        self.messages[at].unknown = true;
    }

    /// I-2: one message per seq, one seq per message.
    fn learn(&mut self, channel: &ChannelKey, seq: u64, id: MessageId, payload: &str) -> Checked {
        let at = self.by_payload.get(payload).copied();
        let at = at.ok_or_else(|| format!("I-2: {payload:?} was never sent"))?;
        ensure!(
            self.messages[at].channel == *channel,
            "I-2: {payload:?} is in {channel:?}, was sent to {:?}",
            self.messages[at].channel
        );
        let same = *self.ids.entry(id).or_insert(at) == at;
        ensure!(same, "I-2: id {id} names two messages");
        let known = self.channels.entry(channel.clone()).or_default();
        known.floor = known.floor.max(seq);
        let found = known
            .by_seq
            .entry(seq)
            .or_insert_with(|| (id, payload.to_owned()));
        ensure!(
            found.0 == id && found.1 == payload,
            "I-2: seq {seq} of {channel:?} is {found:?} and ({id}, {payload:?})"
        );
        Ok(())
    }

    /// What must be seen by a read that begins now.
    pub(crate) fn before(&self, client: usize, channel: Option<&ChannelKey>) -> Before {
        let of_client = self.pairs.range((client, first_channel())..);
        let pairs = of_client
            .take_while(|((c, _), _)| *c == client)
            .map(|((_, channel), _)| {
                let mark = self.marks.get(&(client, channel.clone()));
                (channel.clone(), mark.copied().unwrap_or_default())
            })
            .collect();
        let members = self
            .members
            .iter()
            .filter(|((c, user), _)| channel.map_or(*user == client, |wanted| wanted == c))
            .map(|((c, user), m)| (c.clone(), *user, *m))
            .collect();
        Before {
            floor: channel.map_or(0, |c| self.floor(c)),
            pairs,
            members,
            system: self.system.clone(),
        }
    }

    /// I-6: everything known before the read began, and nothing that contradicts what anybody was told.
    pub(crate) fn history(
        &mut self,
        channel: &ChannelKey,
        before: &Before,
        messages: &[Stored],
    ) -> Checked {
        self.reads += 1;
        let mut last_id = MessageId(0);
        for (n, stored) in messages.iter().enumerate() {
            ensure!(
                stored.seq.0 == n as u64 + 1,
                "I-2: {channel:?} has seq {} where {} belongs",
                stored.seq,
                n + 1
            );
            let id = stored.record.message_id();
            ensure!(id > last_id, "ids of {channel:?} do not ascend at {id}");
            last_id = id;
            let payload = String::from_utf8_lossy(stored.record.payload_ref()).into_owned();
            self.learn(channel, stored.seq.0, id, &payload)?;
        }
        ensure!(
            messages.len() as u64 >= before.floor,
            "I-6: {channel:?} was read up to {}, {} was known before",
            messages.len(),
            before.floor
        );
        Ok(())
    }

    /// H6, I-7: conversations an answered call made must be there, with the marks that were set.
    pub(crate) fn conversations(
        &mut self,
        client: usize,
        before: &Before,
        rows: &[Conversation],
    ) -> Checked {
        self.reads += 1;
        let find = |channel: &ChannelKey| rows.iter().find(|r| r.channel == *channel && r.chat);
        for (channel, mark) in &before.pairs {
            let row = find(channel)
                .ok_or_else(|| format!("H6: u{client} has no conversation {channel:?}"))?;
            ensure!(
                row.read.0 >= *mark,
                "I-7: u{client} read {channel:?} up to {mark}, the row says {}",
                row.read
            );
        }
        for (channel, user, then) in &before.members {
            let now = self.members.get(&(channel.clone(), *user));
            if now != Some(then) || !then.is_shown {
                continue;
            }
            let shown = find(channel).is_some();
            ensure!(
                then.present == Some(shown),
                "H6: membership of u{client} in {channel:?} is {:?}, its conversation is there: {shown}",
                then.present
            );
        }
        Ok(())
    }

    /// I-7: member lists are complete.
    pub(crate) fn member_list(
        &mut self,
        channel: &ChannelKey,
        before: &Before,
        uids: &[Uid],
    ) -> Checked {
        self.reads += 1;
        for (_, user, then) in &before.members {
            let now = self.members.get(&(channel.clone(), *user));
            let Some(present) = then.present.filter(|_| now == Some(then)) else {
                continue;
            };
            ensure!(
                uids.contains(&uid(*user)) == present,
                "I-7: u{user} in the list of {channel:?}: {}, told: {present}",
                !present
            );
        }
        Ok(())
    }

    /// I-7 for the control group.
    pub(crate) fn system_uids(&mut self, before: &Before, uids: &[Uid]) -> Checked {
        self.reads += 1;
        let has = |name: &String| uids.iter().any(|u| u.as_str() == name);
        match before.system.iter().find(|name| !has(name)) {
            None => Ok(()),
            Some(name) => Err(format!("I-7: system account {name} is gone")),
        }
    }

    pub(crate) fn system_uid_added(&mut self, name: String) {
        self.system.insert(name);
    }

    /// A change of members is asked for.
    pub(crate) fn member_asked(&mut self, channel: &ChannelKey, user: usize) {
        let member = self.members.entry((channel.clone(), user)).or_default();
        member.version += 1;
        member.present = None;
        member.is_shown = false;
    }

    /// It was answered.
    pub(crate) fn member_done(
        &mut self,
        channel: &ChannelKey,
        user: usize,
        present: bool,
        in_time: bool,
    ) {
        let member = self.members.entry((channel.clone(), user)).or_default();
        member.present = Some(present);
        member.is_shown = in_time;
    }

    /// A read mark was answered.
    pub(crate) fn marked(&mut self, client: usize, channel: &ChannelKey, seq: u64) {
        let mark = self.marks.entry((client, channel.clone())).or_default();
        *mark = seq.max(*mark);
        if channel.kind == ChannelType::PERSON && seq > 0 {
            self.pairs.entry((client, channel.clone())).or_default();
        }
    }

    /// The end: a channel's whole log, on one replica.
    pub(crate) fn final_history(&mut self, channel: &ChannelKey, messages: &[Stored]) -> Checked {
        let before = self.before(usize::MAX, Some(channel));
        self.history(channel, &before, messages)
    }

    /// The end: every message was stored as often as it may, and in the sender's order. All final histories were seen.
    pub(crate) fn final_messages(&self) -> Checked {
        let mut places: BTreeMap<&str, Vec<u64>> = BTreeMap::new();
        for known in self.channels.values() {
            for (seq, (_, payload)) in &known.by_seq {
                places.entry(payload).or_default().push(*seq);
            }
        }
        for message in &self.messages {
            let found = places.get(message.payload.as_str()).map_or(0, Vec::len);
            let name = &message.payload;
            ensure!(found <= 1, "I-4: {name:?} is stored {found} times");
            match message.acked {
                Some(place) => ensure!(
                    found == 1,
                    "I-1: {name:?} was acknowledged as {place:?}, it is gone"
                ),
                None => ensure!(
                    // Only the newest message of a number is looked at: a copy of another one may be refused (H33).
                    found == 0 || message.unknown || message.number == CONSTANT_NUMBER,
                    "I-5: {name:?} was refused or not sent ({:?}), and is stored",
                    message.refused
                ),
            }
        }
        self.order(&places)
    }

    /// I-3 for messages one connection had on their way at the same time.
    fn order(&self, places: &BTreeMap<&str, Vec<u64>>) -> Checked {
        let mut last: BTreeMap<(usize, &ChannelKey), (u64, &str)> = BTreeMap::new();
        for message in self.messages.iter().filter(|m| !m.out_of_order) {
            let Some(seq) = places.get(message.payload.as_str()).and_then(|p| p.first()) else {
                continue;
            };
            let before = last.insert((message.from, &message.channel), (*seq, &message.payload));
            if let Some((earlier, name)) = before {
                ensure!(
                    earlier < *seq,
                    "I-3: {:?} has seq {seq}, {name:?} sent before it has {earlier}",
                    message.payload
                );
            }
        }
        Ok(())
    }

    /// The end: a user's rows against a model made from the histories.
    pub(crate) fn final_conversations(&self, client: usize, rows: &[Conversation]) -> Checked {
        for (channel, known) in &self.channels {
            if channel.kind != ChannelType::PERSON || channel.twin {
                continue;
            }
            let me = uid(client);
            if channel.peer_of(&me).is_none() || known.by_seq.is_empty() {
                continue;
            }
            let row = rows.iter().find(|r| r.channel == *channel && r.chat);
            let row =
                row.ok_or_else(|| format!("H6: {me} has no row of {channel:?} at the end"))?;
            let marked = self.marks.get(&(client, channel.clone())).copied();
            let wrote_first = self.sender(known, 1) == Some(client);
            let read = marked.unwrap_or(0).max(u64::from(wrote_first));
            ensure!(
                row.read.0 == read,
                "{me} read {channel:?} up to {read}, the row says {}",
                row.read
            );
        }
        for ((channel, user), member) in &self.members {
            let shown = rows.iter().any(|r| r.channel == *channel && r.chat);
            ensure!(
                *user != client || member.present.is_none_or(|present| present == shown),
                "H7: u{client} is a member of {channel:?}: {:?}, has its conversation: {shown}",
                member.present
            );
        }
        Ok(())
    }

    /// The end: what a client would show as unread, against counting.
    pub(crate) fn final_unread(
        &self,
        client: usize,
        row: &Conversation,
        recents: &query::Recents,
    ) -> Checked {
        let Some(known) = self.channels.get(&row.channel) else {
            return Ok(());
        };
        let own = known.by_seq.keys().rev();
        let own = own
            .copied()
            .find(|seq| self.sender(known, *seq) == Some(client));
        let last = known.by_seq.keys().next_back().copied().unwrap_or(0);
        let (me, channel) = (uid(client), &row.channel);
        ensure!(
            recents.own_last.0 == own.unwrap_or(0),
            "{me} wrote {own:?} last in {channel:?}, told {}",
            recents.own_last
        );
        let head = recents.head.as_ref().map_or(0, |h| h.seq.0);
        ensure!(head == last, "{channel:?} ends at {last}, told {head}");
        let seen = row.read.0.max(row.deleted.0).max(own.unwrap_or(0));
        let counted = known.by_seq.keys().filter(|seq| **seq > seen).count() as u64;
        let (unread, _) = query::unread(
            row.read,
            row.deleted,
            wk_proto::MessageSeq(head),
            recents.own_last,
            own == Some(last),
        );
        ensure!(
            unread == counted,
            "{me} has {counted} unread in {channel:?}, told {unread}"
        );
        Ok(())
    }

    fn sender(&self, known: &Known, seq: u64) -> Option<usize> {
        let (_, payload) = known.by_seq.get(&seq)?;
        let at = self.by_payload.get(payload)?;
        Some(self.messages[*at].from)
    }

    /// Whether this is what the channel has at this place.
    pub(crate) fn holds(&self, channel: &ChannelKey, seq: u64, id: MessageId) -> bool {
        let known = self.channels.get(channel);
        known
            .and_then(|k| k.by_seq.get(&seq))
            .is_some_and(|(known, _)| *known == id)
    }

    /// Members of a group as far as they are certain.
    pub(crate) fn is_member(&self, channel: &ChannelKey, client: usize) -> bool {
        let member = self.members.get(&(channel.ordinary(), client));
        member.is_some_and(|m| m.present == Some(true))
    }

    pub(crate) fn place(&self, at: usize) -> Option<u64> {
        self.messages[at].acked.map(|(_, seq)| seq)
    }
}

/// Milliseconds between two moments.
pub(crate) fn ms_between(earlier: Mono, later: Mono) -> u64 {
    later.since(earlier) / 1_000
}

pub(crate) fn client_of(uid: &Uid) -> Option<usize> {
    uid.as_str().strip_prefix('u')?.parse().ok()
}

/// Before all channels, in key order.
fn first_channel() -> ChannelKey {
    ChannelKey::new(wk_proto::ChannelId::trusted(""), ChannelType(0))
}
