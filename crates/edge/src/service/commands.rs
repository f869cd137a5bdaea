//! Commands a user has not consumed yet: `/message/sync` and `/message/syncack` (http-api 4.3, messaging 8.4).
//!
//! What was handed out is remembered in memory as a hint, so that an ack without positions can be turned into marks. A lost hint means
//! that commands are handed out again: at least once.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, PoisonError};

use wk_chat::query::{Answer, Conversation, Query, RecentsOf};
use wk_chat::request::{Mark, Write};
use wk_proto::{ChannelKey, MessageSeq, Uid};
use wk_store::{Dir, Stored};

use super::conversations::ROWS_MAX;
use super::error::{Result, ensure};
use super::fanout::all;
use super::{Service, ids, mismatch};

/// Commands handed out if the caller does not say.
const LIMIT_DEFAULT: usize = 200;

/// Commands handed out at most; a larger limit is lowered to it.
const LIMIT_MAX: usize = 10_000;

/// Users of one generation of [`Handed`]. When it is full the generation before it is forgotten.
const USERS_PER_GENERATION_MAX: usize = 25_000;

impl Service {
    /// Commands of `uid` that are not acknowledged, by time. `limit` 0 = 200.
    pub async fn commands(&self, uid: &str, limit: i64) -> Result<Vec<(ChannelKey, Stored)>> {
        if self.config.command_sync_off {
            return Ok(Vec::new());
        }
        ensure(!ids::blank(uid), "用户uid不能为空！")?;
        ensure(limit >= 0, "limit不能为负数！")?;
        let limit = match usize::try_from(limit).unwrap_or(LIMIT_MAX) {
            0 => LIMIT_DEFAULT,
            n => n.min(LIMIT_MAX),
        };
        let Ok(uid) = Uid::parse(uid) else {
            return Ok(Vec::new());
        };
        let wanted = self.command_parts(&uid, limit).await?;
        let channels: Vec<_> = wanted.iter().map(|(of, _)| of.channel.clone()).collect();
        let untils: Vec<_> = wanted.iter().map(|(_, until)| *until).collect();
        let found = self
            .recents(wanted.into_iter().map(|(of, _)| of).collect())
            .await?;
        let parts = channels.into_iter().zip(untils).zip(found);
        let messages = parts.flat_map(|((channel, until), recents)| {
            let due = recents.messages.into_iter().filter(move |m| m.seq <= until);
            due.map(move |message| (channel.clone(), message))
        });
        let handed = oldest(messages.collect(), limit);
        self.handed.remember(&uid, &handed);
        Ok(handed)
    }

    /// Everything handed out to `uid` is consumed.
    pub async fn acknowledge_commands(&self, uid: &str, last_message_seq: u64) -> Result<()> {
        if self.config.command_sync_off {
            return Ok(());
        }
        ensure(!ids::blank(uid), "用户UID不能为空！")?;
        ensure(last_message_seq != 0, "最后一次messageSeq不能为0！")?;
        let Ok(uid) = Uid::parse(uid) else {
            return Ok(());
        };
        let positions = self.handed.take(&uid);
        let marks = positions.iter().map(|(channel, &seq)| {
            self.write(Write::Mark {
                uid: uid.clone(),
                channel: channel.clone(),
                mark: Mark::Read(seq),
            })
        });
        let marks = marks.collect();
        let results: Result<Vec<()>> = all(marks).await.into_iter().collect();
        if results.is_err() {
            // The next ack tries again; marks are idempotent.
            self.handed.raise(&uid, positions);
        }
        results.map(drop)
    }

    /// The command parts of the user's rows as questions, and the last seq that concerns him in each.
    async fn command_parts(&self, uid: &Uid, limit: usize) -> Result<Vec<(RecentsOf, MessageSeq)>> {
        let answer = self
            .query(Query::Conversations {
                uid: uid.clone(),
                limit: ROWS_MAX,
            })
            .await?;
        let Answer::Conversations(rows) = answer else {
            return Err(mismatch(&answer));
        };
        let part = |row: Conversation| {
            let (read, until) = row.command?;
            let open_end = until == MessageSeq(0);
            let until = if open_end {
                MessageSeq(u64::MAX)
            } else {
                until
            };
            let of = RecentsOf {
                channel: row.channel.command(),
                uid: uid.clone(),
                from: read.next(),
                count: limit,
                dir: Dir::Up,
            };
            (read < until).then_some((of, until))
        };
        Ok(rows.into_iter().filter_map(part).collect())
    }
}

/// The oldest `limit` messages in order of (time, id). What is kept of a channel is a prefix of its part: ids and times ascend within one.
fn oldest(mut messages: Vec<(ChannelKey, Stored)>, limit: usize) -> Vec<(ChannelKey, Stored)> {
    messages.sort_by_key(|(_, m)| (m.record.time(), m.record.message_id()));
    messages.truncate(limit);
    messages
}

type Positions = BTreeMap<ChannelKey, MessageSeq>;

/// Per user, the newest seq handed out per channel. Two generations: forgetting is cheap, and who synced recently is remembered.
#[derive(Debug, Default)]
pub(super) struct Handed {
    generations: Mutex<[HashMap<Uid, Positions>; 2]>,
}

impl Handed {
    fn remember(&self, uid: &Uid, messages: &[(ChannelKey, Stored)]) {
        let mut positions = Positions::new();
        for (channel, message) in messages {
            let position = positions.entry(channel.clone()).or_default();
            *position = message.seq.max(*position);
        }
        self.raise(uid, positions);
    }

    /// Another device's newer position is kept.
    fn raise(&self, uid: &Uid, positions: Positions) {
        if positions.is_empty() {
            return;
        }
        let mut generations = self.lock();
        let [young, old] = &mut *generations;
        if young.len() >= USERS_PER_GENERATION_MAX && !young.contains_key(uid) {
            *old = std::mem::take(young);
        }
        let known = young.entry(uid.clone()).or_default();
        for (channel, seq) in positions
            .into_iter()
            .chain(old.remove(uid).into_iter().flatten())
        {
            let position = known.entry(channel).or_default();
            *position = seq.max(*position);
        }
    }

    fn take(&self, uid: &Uid) -> Positions {
        let mut generations = self.lock();
        let mut all = Positions::new();
        for generation in &mut *generations {
            for (channel, seq) in generation.remove(uid).into_iter().flatten() {
                let position = all.entry(channel).or_default();
                *position = seq.max(*position);
            }
        }
        all
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, [HashMap<Uid, Positions>; 2]> {
        // A hint: whatever a panicking holder left behind is good enough.
        self.generations
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use wk_proto::record::Body;
    use wk_proto::{ChannelId, ChannelType, MessageId, WallMs};

    fn uid(n: usize) -> Uid {
        Uid::parse(&format!("u{n}")).unwrap()
    }

    fn command(channel: &str, seq: u64, id: i64, time: u64) -> (ChannelKey, Stored) {
        let body = Body {
            message_id: MessageId(id),
            time: WallMs(time),
            ..Body::default()
        };
        let key = ChannelKey::new(ChannelId::trusted(channel), ChannelType::GROUP);
        let stored = Stored {
            seq: MessageSeq(seq),
            record: body.encode(),
        };
        (key.command(), stored)
    }

    #[test]
    fn only_what_was_handed_out_is_remembered() {
        let all = vec![
            command("a", 1, 10, 5),
            command("a", 2, 11, 9),
            command("b", 1, 20, 6),
            command("c", 7, 30, 8),
        ];
        let handed = oldest(all, 2);
        let hint = Handed::default();
        hint.remember(&uid(1), &handed);
        let positions: Vec<_> = hint
            .take(&uid(1))
            .into_iter()
            .map(|(c, s)| (c.stored_id(), s.0))
            .collect();
        assert_eq!(positions, [("a____cmd".into(), 1), ("b____cmd".into(), 1)]);
        assert!(hint.take(&uid(1)).is_empty());
    }

    #[test]
    fn two_devices_keep_the_newer_position() {
        let hint = Handed::default();
        hint.remember(&uid(1), &[command("a", 5, 1, 1)]);
        hint.remember(&uid(1), &[command("a", 3, 1, 1), command("b", 1, 2, 2)]);
        let seqs: Vec<_> = hint.take(&uid(1)).into_values().map(|s| s.0).collect();
        assert_eq!(seqs, [5, 1]);
    }

    #[test]
    fn the_hint_is_bounded() {
        let hint = Handed::default();
        let one = [command("a", 1, 1, 1)];
        for n in 0..3 * USERS_PER_GENERATION_MAX {
            hint.remember(&uid(n), &one);
        }
        let kept: usize = hint.lock().iter().map(HashMap::len).sum();
        assert!(kept <= 2 * USERS_PER_GENERATION_MAX);
        assert_eq!(hint.take(&uid(3 * USERS_PER_GENERATION_MAX - 1)).len(), 1);
        assert!(hint.take(&uid(0)).is_empty());
    }
}
