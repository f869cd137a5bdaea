//! Conversation lists (http-api 6.1–6.4, messaging 7.4). Computed when read: the user's rows, joined with one question per slot (H10).

use std::collections::BTreeMap;
use std::sync::Arc;

use wk_chat::query::{Answer, Conversation, Query, Recents, RecentsOf, unread};
use wk_proto::channel::SYSTEM_UID;
use wk_proto::{ChannelId, ChannelKey, ChannelType, MessageSeq, Uid, WallMs};
use wk_store::{Dir, Stored};

use super::error::{Result, ensure};
use super::{Service, ids, mismatch};

/// Rows of one user that are looked at; above it those changed last (H10).
pub(super) const ROWS_MAX: usize = 50_000;

/// Candidates up to which messages are asked for at once. More: heads first, messages only for what is shown.
const ONE_PASS_ROWS_MAX: usize = 300;

/// Recent messages per conversation; more are not given.
const MESSAGES_PER_CONVERSATION_MAX: usize = 1_000;

/// Recent messages of the routes that name channels, if the caller does not say.
const MESSAGES_DEFAULT: usize = 15;

/// Channels one request may name; more are refused.
const CHANNELS_MAX: usize = 10_000;

/// Conversations of a page if the caller does not say, and at most.
const PAGE_DEFAULT: usize = 100;
const PAGE_MAX: usize = 500;

/// `POST /conversation/sync`.
#[derive(Clone, Debug, Default)]
#[allow(missing_docs, reason = "the names are the API's")]
pub struct SyncConversations {
    pub uid: String,
    /// > 0: as `only_unread`.
    pub version: i64,
    /// `id:type:seq` joined by `|`; only newer messages of these channels.
    pub last_msg_seqs: String,
    /// Recent messages per conversation; 0 = none, only the conversations.
    pub msg_count: i64,
    /// Only channels with messages after the read position.
    pub only_unread: bool,
    /// Types left out, unless the channel is named in `last_msg_seqs`.
    pub exclude_channel_types: Vec<u8>,
    /// From 1; 0 = all.
    pub page: i64,
    /// ≤ 0 = 100, at most 500.
    pub page_size: i64,
}

/// One conversation as its user sees it.
#[derive(Clone, Debug, PartialEq)]
pub struct ConversationView {
    /// Which channel.
    pub channel: ChannelKey,
    /// As the user names it: the peer of a person channel.
    pub shown_id: Arc<str>,
    /// Unread messages.
    pub unread: u64,
    /// Everything up to here counts as read.
    pub read: MessageSeq,
    /// The newest message, if there is one.
    pub last: Option<Stored>,
    /// When the row changed, for conversations without messages.
    pub updated: WallMs,
    /// Newest first.
    pub recents: Vec<Stored>,
}

/// Messages of one channel for a sync of another kind.
#[derive(Clone, Debug, PartialEq)]
pub struct ChannelMessages {
    /// Which channel, by its stored id.
    pub channel: ChannelKey,
    /// In the order asked for.
    pub messages: Vec<Stored>,
    /// Newest seq sent by the asking user.
    pub own_last: MessageSeq,
}

/// A row that may be shown.
struct Candidate {
    row: Conversation,
    /// Messages below are not wanted.
    from: MessageSeq,
}

impl Service {
    /// The user's conversations, the one with the newest message first. Those without a wanted message are left out.
    pub async fn conversations(&self, request: SyncConversations) -> Result<Vec<ConversationView>> {
        let uid = ids::uid(&request.uid, "uid不能为空！", "uid不能包含特殊字符！")?;
        let rows = self.rows(&uid, ROWS_MAX).await?;
        let known = parse_seqs(&request.uid, &request.last_msg_seqs);
        let mut candidates: Vec<_> = rows
            .into_iter()
            .filter_map(|row| candidate(&uid, row, &known, &request))
            .collect();
        let page = Paging::of(&request, self.config.conversations_per_user_max);
        let one_pass = candidates.len() <= ONE_PASS_ROWS_MAX;
        if !one_pass {
            candidates = page.cut(self.newest_first(&uid, candidates).await?);
        }
        let wanted = usize::try_from(request.msg_count).unwrap_or(0);
        let wanted = wanted.min(MESSAGES_PER_CONVERSATION_MAX);
        let questions = candidates
            .iter()
            .map(|c| question(&uid, &c.row.channel, c.from, wanted.max(1)))
            .collect();
        let found = self.recents(questions).await?;
        let mut views: Vec<_> = candidates
            .iter()
            .zip(found)
            .map(|(c, recents)| view(&uid, c.row.channel.clone(), Some(&c.row), recents, wanted))
            .filter(|view| view.last.is_some())
            .collect();
        views.sort_by_key(|view| std::cmp::Reverse(rank(view)));
        Ok(if one_pass { page.cut(views) } else { views })
    }

    /// Conversations of named channels, in their order, also without messages.
    pub async fn conversations_of(
        &self,
        uid: &str,
        channels: &[(String, u8)],
        msg_count: i64,
    ) -> Result<Vec<ConversationView>> {
        ensure(!uid.is_empty(), "uid cannot be empty")?;
        ensure(!channels.is_empty(), "channels cannot be empty")?;
        ensure(channels.len() <= CHANNELS_MAX, "too many channels")?;
        let uid = ids::uid(uid, "uid cannot be empty", "uid不能包含特殊字符！")?;
        let rows = self.rows(&uid, ROWS_MAX).await?;
        let rows: BTreeMap<_, _> = rows.iter().map(|row| (&row.channel, row)).collect();
        let count = messages_or_default(msg_count);
        let named = |(id, kind): &(String, u8)| ids::seen_by(uid.as_str(), id, *kind);
        let keys: Vec<_> = channels.iter().map(named).collect();
        let questions = keys
            .iter()
            .flatten()
            .map(|key| {
                let deleted = rows.get(key).map(|row| row.deleted).unwrap_or_default();
                question(&uid, key, deleted.next(), count)
            })
            .collect();
        let mut found = self.recents(questions).await?.into_iter();
        let views = keys.into_iter().zip(channels).map(|(key, (id, kind))| {
            let recents = key.as_ref().and_then(|_| found.next());
            let key = key.unwrap_or_else(|| impossible(id, *kind));
            let row = rows.get(&key).copied();
            view(&uid, key, row, recents.unwrap_or_else(nothing), count)
        });
        Ok(views.collect())
    }

    /// Messages of channels given by stored id and lowest wanted seq; `newest_first`, or ascending from that seq.
    pub async fn channel_messages(
        &self,
        uid: &str,
        channels: &[(String, u8, u64)],
        msg_count: i64,
        newest_first: bool,
    ) -> Result<Vec<ChannelMessages>> {
        ensure(channels.len() <= CHANNELS_MAX, "too many channels")?;
        let uid = Uid::parse(uid).unwrap_or_else(|_| Uid::trusted(SYSTEM_UID));
        let count = messages_or_default(msg_count);
        let known = |(id, kind, seq): &(String, u8, u64)| {
            let key = ids::stored(id, *kind)?;
            Some((key, MessageSeq(*seq)))
        };
        let keys: Vec<_> = channels.iter().filter_map(known).collect();
        let dir = if newest_first { Dir::Down } else { Dir::Up };
        let questions = keys
            .iter()
            .map(|(key, seq)| RecentsOf {
                dir,
                ..question(&uid, key, *seq, count)
            })
            .collect();
        let found = self.recents(questions).await?;
        let parts = keys.into_iter().zip(found).map(|((channel, _), recents)| {
            let mut messages = recents.messages;
            if newest_first {
                messages.reverse();
            }
            ChannelMessages {
                channel,
                messages,
                own_last: recents.own_last,
            }
        });
        Ok(parts.collect())
    }

    /// Channels of the user's conversations, those changed last first; deleted ones included.
    pub async fn conversation_channels(&self, uid: &str) -> Result<Vec<ChannelKey>> {
        let uid = ids::uid(uid, "uid不能为空！", "uid不能包含特殊字符！")?;
        let rows = self.rows(&uid, ROWS_MAX).await?;
        let chats = rows.into_iter().filter(|row| row.chat);
        Ok(chats
            .take(self.config.conversations_per_user_max)
            .map(|row| row.channel)
            .collect())
    }

    async fn rows(&self, uid: &Uid, limit: usize) -> Result<Vec<Conversation>> {
        let uid = uid.clone();
        match self.query(Query::Conversations { uid, limit }).await? {
            Answer::Conversations(rows) => Ok(rows),
            other => Err(mismatch(&other)),
        }
    }

    /// Candidates with a wanted message, by their newest message.
    async fn newest_first(&self, uid: &Uid, candidates: Vec<Candidate>) -> Result<Vec<Candidate>> {
        let heads = candidates
            .iter()
            .map(|c| question(uid, &c.row.channel, c.from, 0))
            .collect();
        let heads = self.recents(heads).await?;
        let mut ranked: Vec<_> = candidates
            .into_iter()
            .zip(heads)
            .filter_map(|(c, recents)| Some((recents.head?, c)))
            .filter(|(head, c)| head.seq >= c.from)
            .collect();
        ranked.sort_by_key(|(head, _)| std::cmp::Reverse((head.time, head.id)));
        Ok(ranked.into_iter().map(|(_, c)| c).collect())
    }
}

/// Which part of a ranked list is shown.
struct Paging {
    skip: usize,
    take: usize,
    /// Entries considered at all.
    max: usize,
}

impl Paging {
    fn of(request: &SyncConversations, max: usize) -> Self {
        let size = match usize::try_from(request.page_size) {
            Ok(0) | Err(_) => PAGE_DEFAULT,
            Ok(n) => n.min(PAGE_MAX),
        };
        match usize::try_from(request.page) {
            Ok(0) | Err(_) => Self {
                skip: 0,
                take: max,
                max,
            },
            Ok(page) => Self {
                skip: (page - 1).saturating_mul(size),
                take: size,
                max,
            },
        }
    }

    fn cut<T>(&self, list: Vec<T>) -> Vec<T> {
        let considered = list.into_iter().take(self.max);
        considered.skip(self.skip).take(self.take).collect()
    }
}

/// Whether a row may be shown, and from where on its messages are wanted.
fn candidate(
    uid: &Uid,
    row: Conversation,
    known: &BTreeMap<ChannelKey, u64>,
    request: &SyncConversations,
) -> Option<Candidate> {
    let client = known.get(&row.channel);
    let excluded = request.exclude_channel_types.contains(&row.channel.kind.0);
    if !row.chat || (excluded && client.is_none()) || is_with_system(uid, &row.channel) {
        return None;
    }
    let newer_only = request.version > 0 || request.only_unread;
    let from = match client {
        Some(&seq) => MessageSeq(seq.saturating_add(1)),
        None if newer_only => row.read.next(),
        None => MessageSeq(0),
    };
    let from = from.max(row.deleted.next());
    Some(Candidate { row, from })
}

/// A channel that cannot exist, to be answered without messages.
fn impossible(id: &str, kind: u8) -> ChannelKey {
    ChannelKey::new(ChannelId::trusted(id), ChannelType(kind))
}

fn nothing() -> Recents {
    Recents {
        head: None,
        own_last: MessageSeq(0),
        messages: Vec::new(),
    }
}

fn is_with_system(uid: &Uid, channel: &ChannelKey) -> bool {
    channel.kind == ChannelType::PERSON
        && channel
            .peer_of(uid)
            .is_some_and(|peer| peer.as_str() == SYSTEM_UID)
}

fn question(uid: &Uid, channel: &ChannelKey, from: MessageSeq, count: usize) -> RecentsOf {
    RecentsOf {
        channel: channel.clone(),
        uid: uid.clone(),
        from,
        count,
        dir: Dir::Down,
    }
}

fn messages_or_default(msg_count: i64) -> usize {
    match usize::try_from(msg_count) {
        Ok(0) | Err(_) => MESSAGES_DEFAULT,
        Ok(n) => n.min(MESSAGES_PER_CONVERSATION_MAX),
    }
}

/// `shown`: how many of the messages found are shown; the newest is always looked at.
fn view(
    uid: &Uid,
    channel: ChannelKey,
    row: Option<&Conversation>,
    found: Recents,
    shown: usize,
) -> ConversationView {
    let (read, deleted) = row.map(|row| (row.read, row.deleted)).unwrap_or_default();
    let mut recents = found.messages;
    recents.reverse();
    let last = recents.first().cloned();
    let (unread, read) = match &last {
        Some(last) => {
            let is_own = last.record.from_uid() == uid.as_str();
            unread(read, deleted, last.seq, found.own_last, is_own)
        }
        None => (0, read),
    };
    recents.truncate(shown);
    let shown_id = match channel.peer_of(uid) {
        Some(peer) if channel.kind == ChannelType::PERSON => peer.as_str().into(),
        _ => channel.base.as_str().into(),
    };
    ConversationView {
        channel,
        shown_id,
        unread,
        read,
        last,
        updated: row.map(|row| row.updated).unwrap_or_default(),
        recents,
    }
}

fn rank(view: &ConversationView) -> impl Ord + use<> {
    view.last
        .as_ref()
        .map(|last| (last.record.time(), last.record.message_id()))
}

/// `id:type:seq` joined by `|`. Numbers are taken from the right, so an id may contain `:`. What is malformed is left out.
fn parse_seqs(uid: &str, text: &str) -> BTreeMap<ChannelKey, u64> {
    let part = |part: &str| {
        let mut fields = part.rsplitn(3, ':');
        let seq = fields.next()?.parse().ok()?;
        let kind = fields.next()?.parse().ok()?;
        let id = fields.next()?;
        Some((ids::seen_by(uid, id, kind)?, seq))
    };
    text.split('|').filter_map(part).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(id: &str) -> ChannelKey {
        ChannelKey::new(ChannelId::trusted(id), ChannelType::GROUP)
    }

    fn row(channel: ChannelKey, read: u64, deleted: u64) -> Conversation {
        Conversation {
            channel,
            chat: true,
            read: MessageSeq(read),
            deleted: MessageSeq(deleted),
            command: None,
            created: WallMs(0),
            updated: WallMs(0),
        }
    }

    #[test]
    fn known_seqs_are_read_from_the_right() {
        let seqs = parse_seqs("bob", "alice:1:6|bad|x:y:z|a:b:2:40|g1:2:x|:2:1");
        let seqs: Vec<_> = seqs
            .into_iter()
            .map(|(key, seq)| (key.stored_id(), key.kind.0, seq))
            .collect();
        assert_eq!(
            seqs,
            [("a:b".into(), 2, 40), ("bob@alice".to_owned(), 1, 6)]
        );
    }

    #[test]
    fn from_where_messages_are_wanted() {
        let uid = Uid::parse("u").unwrap();
        let from = |read, deleted, request: &SyncConversations| {
            let known = parse_seqs("u", &request.last_msg_seqs);
            candidate(&uid, row(group("g"), read, deleted), &known, request).map(|c| c.from.0)
        };
        let plain = SyncConversations::default();
        assert_eq!(from(5, 0, &plain), Some(1));
        assert_eq!(from(5, 7, &plain), Some(8));
        let unread = SyncConversations {
            only_unread: true,
            ..plain.clone()
        };
        assert_eq!(from(5, 3, &unread), Some(6));
        let client = SyncConversations {
            last_msg_seqs: "g:2:4".into(),
            version: 1,
            exclude_channel_types: vec![2],
            ..plain.clone()
        };
        // A deleted last message does not come back, though the client's next seq is exactly the deleted one.
        assert_eq!(from(9, 5, &client), Some(6));
        assert_eq!(from(9, 0, &client), Some(5));
        let excluded = SyncConversations {
            exclude_channel_types: vec![2],
            ..plain
        };
        assert_eq!(from(0, 0, &excluded), None);
    }

    #[test]
    fn pages_start_at_one() {
        let cut = |page, page_size, max| {
            let request = SyncConversations {
                page,
                page_size,
                ..SyncConversations::default()
            };
            Paging::of(&request, max).cut((0..10).collect::<Vec<_>>())
        };
        assert_eq!(cut(0, 3, 8), (0..8).collect::<Vec<_>>());
        assert_eq!(cut(1, 3, 8), [0, 1, 2]);
        assert_eq!(cut(3, 3, 8), [6, 7]);
        assert!(cut(9, 3, 8).is_empty());
        assert!(cut(i64::MAX, 500, 8).is_empty());
        assert_eq!(cut(1, 0, 8).len(), 8);
    }
}
