//! The course of a run, and the look at everything when faults are over (spec: cluster 7.1).

use wk_chat::query::RecentsOf;
use wk_chat::{Answer, Machine, Query, implicit_recipients};
use wk_proto::{ChannelKey, ChannelType, GroupId, MessageSeq, NodeId, channel};
use wk_store::{Dir, Stored, Table, View};

use crate::load::{Work, all_groups, history};
use crate::node::groups;
use crate::oracle::{Checked, client_of, ensure, uid};
use crate::world::World;

/// Longest time after the faults until every call has its answer, in ms.
const ANSWERS_MS: u64 = 60_000;
/// Time after that until nothing is owed and all replicas are level, in ms: longer than any pause of the outbox.
const DRAIN_MS: u64 = 8_000;
/// Messages per client when everything is well.
const LAST_ROUNDS: u64 = 2;
/// Time in which they must be delivered, in ms (I-11).
const DELIVERY_MS: u64 = 5_000;
/// Rows, channels and messages read at once: more than any run has.
const EVERYTHING: usize = 1_000_000;
/// How an error of a disk begins.
const UNREADABLE: &str = "cannot read";
/// Tables a machine may use.
const TABLES: std::ops::Range<u8> = 1..240;

impl World {
    /// The whole run; [`World::failure`] tells how it ended.
    pub(crate) fn play(&mut self) {
        let storm = self.plan.storm_ms;
        self.run_until(storm, |_| false);
        self.loads = false;
        self.heal();
        if !self.settle() {
            return;
        }
        let last = self.last_rounds();
        if self.failure.is_some() || self.is_beyond_repair() {
            return;
        }
        self.run_until(DRAIN_MS, |_| false);
        if self.failure.is_some() || self.is_beyond_repair() {
            return;
        }
        self.look_for_damage();
        if self.is_beyond_repair() {
            return;
        }
        match self.check(&last) {
            // One more place that notices damage.
            Err(error) if error.starts_with(UNREADABLE) && self.is_damaged() => {}
            Err(violation) => self.fail(violation),
            Ok(()) => {}
        }
    }

    fn is_damaged(&self) -> bool {
        self.nodes.values().any(|n| n.damaged && n.lost.is_none())
    }

    /// Waits for all answers. False: there is nothing more to look at.
    fn settle(&mut self) -> bool {
        let done = |w: &Self| w.is_beyond_repair() || w.clients.iter().all(|c| c.is_idle());
        let settled = self.run_until(ANSWERS_MS, done);
        if !settled && self.failure.is_none() {
            let waiting: Vec<String> = self
                .clients
                .iter()
                .filter(|c| !c.is_idle())
                .map(|c| format!("{c:?}"))
                .collect();
            self.fail(format!(
                "I-10: no answer {ANSWERS_MS} ms after the last fault: {waiting:?}"
            ));
        }
        if self.failure.is_none() && !self.is_beyond_repair() {
            self.run_until(DRAIN_MS, |_| false);
        }
        self.failure.is_none() && !self.is_beyond_repair()
    }

    /// So many nodes found their disks damaged that no majority is left.
    pub(crate) fn is_beyond_repair(&self) -> bool {
        let lost = self.nodes.values().filter(|n| n.lost.is_some()).count();
        lost * 2 >= self.nodes.len()
    }

    /// Everything works now: every message must be accepted and reach its receivers.
    fn last_rounds(&mut self) -> Vec<usize> {
        let mut last = Vec::new();
        for _ in 0..LAST_ROUNDS {
            for client in 0..self.clients.len() {
                last.extend(self.last_work(client));
            }
            if !self.settle() {
                break;
            }
        }
        self.run_until(DELIVERY_MS, |_| false);
        last
    }

    fn last_work(&mut self, client: usize) -> Option<usize> {
        let now = self.now;
        let count = self.clients.len();
        let group = all_groups().find(|g| self.oracle.is_member(g, client));
        let channel = match group {
            Some(group) if self.load_dice.chance(50) => group,
            _ => ChannelKey::person(&uid(client), &uid((client + 1) % count)),
        };
        let channels: Vec<_> = self.oracle.channels().cloned().collect();
        let oracle = &mut self.oracle;
        let client = &mut self.clients[client];
        for channel in channels {
            client.add(Work::History(channel), now, oracle);
        }
        client.add(Work::Conversations, now, oracle);
        let send = client.compose(now, channel, oracle);
        client.add(send.clone(), now, oracle);
        match send {
            Work::Send(at) => Some(at),
            _ => None,
        }
    }

    /// Reads everything a damaged node has: an error is as good as the right answer.
    fn look_for_damage(&mut self) {
        for id in self.ids() {
            if !self.nodes[&id].damaged || self.nodes[&id].up.is_none() {
                continue;
            }
            let views = groups(&self.plan).into_iter().map(|g| self.view(id, g));
            let found = views.flatten().find_map(|view| fingerprint(&view).err());
            if let Some(error) = found {
                self.damage_found(id, error.to_string());
            }
        }
    }

    fn check(&mut self, last: &[usize]) -> Checked {
        let live: Vec<NodeId> = self
            .nodes
            .values()
            .filter(|n| n.lost.is_none())
            .map(|n| n.id)
            .collect();
        for id in &live {
            self.check_process(*id)?;
        }
        for group in groups(&self.plan) {
            self.check_group(group, &live)?;
        }
        self.oracle.final_messages()?;
        for client in 0..self.clients.len() {
            self.check_user(client, live[0])?;
            self.check_received(client)?;
        }
        last.iter().try_for_each(|at| self.check_delivered(*at))
    }

    fn check_process(&self, id: NodeId) -> Checked {
        let up = self.nodes[&id].up.as_ref();
        let up = up.ok_or_else(|| format!("I-12: {id} is down at the end"))?;
        let waiting = up.callers.len();
        ensure!(
            waiting == 0,
            "I-10: {waiting} calls at {id} were never answered"
        );
        let waiting = up.router.in_flight();
        ensure!(waiting == 0, "I-10: {waiting} calls of {id} never ended");
        Ok(())
    }

    fn view(&self, id: NodeId, group: GroupId) -> Result<View, String> {
        let up = self.nodes[&id].up.as_ref();
        up.and_then(|up| up.shard.view(group))
            .ok_or_else(|| format!("{id} has no {group}"))
    }

    /// I-1, I-2, I-8, and nothing is owed.
    fn check_group(&mut self, group: GroupId, live: &[NodeId]) -> Checked {
        let mut first: Option<(NodeId, View, Vec<String>)> = None;
        for &id in live {
            let view = self.view(id, group)?;
            let state = text(fingerprint(&view))?;
            match &first {
                None => first = Some((id, view, state)),
                Some((other, known, expected)) => {
                    ensure!(
                        known.applied() == view.applied(),
                        "I-8: {group} stands at {} on {other}, at {} on {id}",
                        known.applied(),
                        view.applied()
                    );
                    let differs = expected.iter().zip(&state).find(|(a, b)| a != b);
                    ensure!(
                        expected.len() == state.len() && differs.is_none(),
                        "I-8: {group} at {} differs between {other} and {id}: {differs:?}",
                        view.applied()
                    );
                }
            }
        }
        let Some((_, view, _)) = first else {
            return Ok(());
        };
        let owed = text(Machine::owed(&view, None, 10))?;
        ensure!(owed.is_empty(), "outbox: {group} still owes {owed:?}");
        for (channel, _) in text(view.channels(None, EVERYTHING))? {
            let messages = messages(&view, &channel)?;
            self.oracle.final_history(&channel, &messages)?;
        }
        let known: Vec<ChannelKey> = self.oracle.channels().cloned().collect();
        let here = |c: &&ChannelKey| GroupId::Slot(c.slot(self.plan.slots)) == group;
        for channel in known.iter().filter(here) {
            let messages = messages(&view, channel)?;
            self.oracle.final_history(channel, &messages)?;
        }
        Ok(())
    }

    /// Conversations and unread counts of a user.
    fn check_user(&self, client: usize, node: NodeId) -> Checked {
        let user = uid(client);
        let slot = channel::slot_of(user.as_str(), self.plan.slots);
        let view = self.view(node, GroupId::Slot(slot))?;
        let query = Query::Conversations {
            uid: user.clone(),
            limit: EVERYTHING,
        };
        let Answer::Conversations(rows) = text(query.answer(&view))? else {
            return Err("conversations have another answer".into());
        };
        self.oracle.final_conversations(client, &rows)?;
        for row in rows.iter().filter(|row| row.chat) {
            let view = self.view(node, GroupId::Slot(row.channel.slot(self.plan.slots)))?;
            let query = Query::Recents(vec![RecentsOf {
                channel: row.channel.clone(),
                uid: user.clone(),
                from: MessageSeq(1),
                count: 0,
                dir: Dir::Up,
            }]);
            let Answer::Recents(recents) = text(query.answer(&view))? else {
                return Err("recents have another answer".into());
            };
            self.oracle.final_unread(client, row, &recents[0])?;
        }
        Ok(())
    }

    /// Nothing was ever delivered that is not in the log.
    fn check_received(&self, client: usize) -> Checked {
        for (channel, seq, id) in &self.clients[client].received {
            ensure!(
                self.oracle.holds(channel, *seq, *id),
                "u{client} received ({seq}, {id}) of {channel:?}, which does not have it"
            );
        }
        Ok(())
    }

    /// I-11, when everything is well.
    fn check_delivered(&self, at: usize) -> Checked {
        let message = &self.oracle.messages[at];
        let Some(seq) = self.oracle.place(at) else {
            return Ok(());
        };
        let is_group = message.channel.kind == ChannelType::GROUP;
        let members = (0..self.clients.len())
            .filter(|c| is_group && self.oracle.is_member(&message.channel, *c));
        let implicit = implicit_recipients(&message.channel);
        let receivers: Vec<usize> = members
            .chain(implicit.iter().filter_map(client_of))
            .collect();
        for client in receivers {
            let received = &self.clients[client].received;
            ensure!(
                received
                    .iter()
                    .any(|(c, s, _)| *c == message.channel && *s == seq),
                "I-11: u{client} did not receive {:?}",
                message.payload
            );
        }
        Ok(())
    }
}

fn messages(view: &View, channel: &ChannelKey) -> Result<Vec<Stored>, String> {
    match text(history(channel).answer(view))? {
        Answer::Messages(messages) => Ok(messages),
        other => Err(format!("a history is {other:?}")),
    }
}

/// Everything a replica holds, line by line.
fn fingerprint(view: &View) -> wk_store::Result<Vec<String>> {
    let mut lines = Vec::new();
    for table in TABLES {
        for (key, value) in view.scan(Table(table), &[], None, EVERYTHING)? {
            lines.push(format!("table {table} {key:?} = {value:?}"));
        }
    }
    for (channel, head) in view.channels(None, EVERYTHING)? {
        lines.push(format!("{channel:?} {head:?}"));
        if let Answer::Messages(messages) = history(&channel).answer(view)? {
            lines.extend(
                messages
                    .iter()
                    .map(|m| format!("{} {:?}", m.seq, m.record.as_bytes())),
            );
        }
    }
    Ok(lines)
}

fn text<T, E: std::fmt::Display>(result: Result<T, E>) -> Result<T, String> {
    result.map_err(|error| format!("{UNREADABLE}: {error}"))
}
