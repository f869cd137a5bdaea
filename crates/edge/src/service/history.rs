//! Messages of one channel: history pages and single messages (http-api 4.4–4.9).

use wk_chat::query::{ANSWER_BYTES_MAX, Answer, Query, Recents, RecentsOf};
use wk_proto::limits::RECORD_BYTES_MAX;
use wk_proto::{ChannelKey, ChannelType, MessageId, MessageSeq, Uid};
use wk_store::{Dir, Stored};

use super::error::{Error, Result, ensure};
use super::{Service, ids, mismatch};

/// Messages of one page of history; a larger limit is lowered to it.
const PAGE_MAX: usize = 10_000;

/// Messages of a page if the caller does not say.
const PAGE_DEFAULT: usize = 100;

/// Messages one request may pick; more are refused.
const PICK_MAX: usize = 10_000;

/// Bytes of records after which the group may have cut a page: the page then says that more may follow.
const CUT_BYTES: usize = ANSWER_BYTES_MAX - RECORD_BYTES_MAX;

/// In which direction a page of history goes. Pages are always ascending.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PullMode {
    /// From the start to older messages.
    #[default]
    Down,
    /// From the start to newer messages.
    Up,
}

/// Which part of a channel's history.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HistoryWindow {
    /// Inclusive; 0 with `end` 0 = the newest.
    pub start: u64,
    /// Exclusive; 0 = open.
    pub end: u64,
    /// At most 10,000; ≤ 0 = 100.
    pub limit: i64,
    /// Direction.
    pub mode: PullMode,
}

/// `POST /channel/messagesync`.
#[derive(Clone, Debug, Default)]
#[allow(missing_docs, reason = "the names are the API's")]
pub struct History {
    pub login_uid: String,
    pub channel_id: String,
    pub channel_type: u8,
    pub window: HistoryWindow,
}

/// Messages of one channel.
#[derive(Clone, Debug, PartialEq)]
pub struct Page {
    /// Of which channel.
    pub channel: ChannelKey,
    /// As documented by the function that returns it.
    pub messages: Vec<Stored>,
    /// More may follow in the asked direction.
    pub more: bool,
}

/// A range as the group understands it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Range {
    first: MessageSeq,
    last: MessageSeq,
    dir: Dir,
    limit: usize,
}

impl HistoryWindow {
    /// `None`: nothing can match. A start beyond the newest message counts as the newest.
    fn range(self) -> Option<Range> {
        let limit = match usize::try_from(self.limit) {
            Ok(0) | Err(_) => PAGE_DEFAULT,
            Ok(n) => n.min(PAGE_MAX),
        };
        let (first, last, dir) = match (self.start, self.end, self.mode) {
            (0, 0, _) => (1, u64::MAX, Dir::Down),
            (start, 0, PullMode::Up) => (start, u64::MAX, Dir::Up),
            (start, end, PullMode::Up) => (start.max(1), end - 1, Dir::Up),
            (start, end, PullMode::Down) => (end.checked_add(1)?, start, Dir::Down),
        };
        (first <= last).then_some(Range {
            first: MessageSeq(first),
            last: MessageSeq(last),
            dir,
            limit,
        })
    }
}

impl Service {
    /// One page of history, ascending. Membership is not checked: callers are trusted. `None`: there is no such channel.
    pub async fn history(&self, request: History) -> Result<Option<Page>> {
        ensure(!ids::blank(&request.channel_id), "channel_id不能为空！")?;
        ensure(!ids::blank(&request.login_uid), "login_uid不能为空！")?;
        let channel = ids::seen_by(
            &request.login_uid,
            &request.channel_id,
            request.channel_type,
        );
        let Some((channel, range)) = channel.zip(request.window.range()) else {
            return Ok(None);
        };
        let messages = self.messages(channel.clone(), range).await?;
        let bytes: usize = messages.iter().map(|m| m.record.as_bytes().len()).sum();
        Ok(Some(Page {
            channel,
            more: messages.len() >= range.limit || bytes > CUT_BYTES,
            messages,
        }))
    }

    /// Single messages: by seqs, then ids, then client_msg_nos (the newest each). Unknown ones are left out.
    pub async fn pick(
        &self,
        login_uid: &str,
        (channel_id, channel_type): (&str, u8),
        seqs: Vec<u64>,
        message_ids: Vec<i64>,
        client_msg_nos: Vec<String>,
    ) -> Result<Option<Page>> {
        ensure(!ids::blank(channel_id), "channel_id不能为空！")?;
        let count = seqs.len() + message_ids.len() + client_msg_nos.len();
        ensure(count <= PICK_MAX, "消息数量过多！")?;
        let Some(channel) = ids::seen_by(login_uid, channel_id, channel_type) else {
            return Ok(None);
        };
        let answer = self
            .query(Query::Pick {
                channel: channel.clone(),
                seqs: seqs.into_iter().map(MessageSeq).collect(),
                ids: message_ids.into_iter().map(MessageId).collect(),
                client_msg_nos,
            })
            .await?;
        match answer {
            Answer::Messages(messages) => Ok(Some(Page {
                channel,
                messages,
                more: false,
            })),
            other => Err(mismatch(&other)),
        }
    }

    /// One message by id or, if that is 0, by client_msg_no (the newest). [`Error::NotFound`] if there is none.
    pub async fn message(
        &self,
        login_uid: &str,
        (channel_id, channel_type): (&str, u8),
        message_id: i64,
        client_msg_no: String,
    ) -> Result<Page> {
        ensure(!ids::blank(channel_id), "channel_id不能为空！")?;
        ensure(channel_type != 0, "channel_type不能为0")?;
        let person = ChannelType(channel_type) == ChannelType::PERSON;
        let named = !person || !ids::blank(login_uid);
        ensure(named, "login_uid不能为空！")?;
        let (by_id, by_number) = match (message_id, client_msg_no.as_str()) {
            (0, "") => return Err(Error::NotFound),
            (0, _) => (Vec::new(), vec![client_msg_no]),
            (id, _) => (vec![id], Vec::new()),
        };
        let channel = (channel_id, channel_type);
        let found = self
            .pick(login_uid, channel, Vec::new(), by_id, by_number)
            .await?;
        found
            .filter(|page| !page.messages.is_empty())
            .ok_or(Error::NotFound)
    }

    /// The newest message with this client_msg_no of a channel given by its stored id.
    pub async fn message_by_number(
        &self,
        channel_id: &str,
        channel_type: u8,
        client_msg_no: String,
    ) -> Result<Page> {
        ensure(!channel_id.is_empty(), "channel_id不能为空")?;
        ensure(channel_type != 0, "channel_type不能为0")?;
        ensure(!client_msg_no.is_empty(), "client_msg_no不能为空")?;
        let channel = ids::stored(channel_id, channel_type).ok_or(Error::NotFound)?;
        let answer = self
            .query(Query::Pick {
                channel: channel.clone(),
                seqs: Vec::new(),
                ids: Vec::new(),
                client_msg_nos: vec![client_msg_no],
            })
            .await?;
        let Answer::Messages(messages) = answer else {
            return Err(mismatch(&answer));
        };
        found(channel, messages)
    }

    /// Seq of the newest message; 0 if there is none. A person channel may be given by its stored id.
    pub async fn last_seq(
        &self,
        login_uid: &str,
        channel_id: &str,
        channel_type: u8,
    ) -> Result<MessageSeq> {
        ensure(!channel_id.is_empty(), "channel_id不能为空")?;
        let person = ChannelType(channel_type) == ChannelType::PERSON;
        let channel = if person && !channel_id.contains('@') {
            ensure(!ids::blank(login_uid), "login_uid不能为空")?;
            ids::seen_by(login_uid, channel_id, channel_type)
        } else {
            ids::stored(channel_id, channel_type)
        };
        match channel {
            Some(channel) => self.head_seq(channel).await,
            None => Ok(MessageSeq(0)),
        }
    }

    /// The newest message of a channel. [`Error::NotFound`] if there is none.
    pub async fn last_message(
        &self,
        login_uid: &str,
        channel_id: &str,
        channel_type: u8,
    ) -> Result<Page> {
        ensure(!channel_id.is_empty(), "channel_id不能为空")?;
        let person = ChannelType(channel_type) == ChannelType::PERSON;
        let named = !person || !ids::blank(login_uid);
        ensure(named, "login_uid不能为空")?;
        let channel = ids::seen_by(login_uid, channel_id, channel_type).ok_or(Error::NotFound)?;
        let newest = self.newest(channel.clone(), 1).await?;
        found(channel, newest.messages)
    }

    /// Seq of the newest message, from the group that holds the log.
    pub(super) async fn head_seq(&self, channel: ChannelKey) -> Result<MessageSeq> {
        let newest = self.newest(channel, 0).await?;
        Ok(newest.head.map(|head| head.seq).unwrap_or_default())
    }

    async fn newest(&self, channel: ChannelKey, count: usize) -> Result<Recents> {
        let wanted = RecentsOf {
            channel,
            uid: Uid::trusted(wk_proto::channel::SYSTEM_UID),
            from: MessageSeq(0),
            count,
            dir: Dir::Down,
        };
        let found = self.recents(vec![wanted]).await?.pop();
        found.ok_or_else(|| mismatch(&"no answer"))
    }

    async fn messages(&self, channel: ChannelKey, range: Range) -> Result<Vec<Stored>> {
        let answer = self
            .query(Query::Messages {
                channel,
                first: range.first,
                last: range.last,
                dir: range.dir,
                limit: range.limit,
            })
            .await?;
        match answer {
            Answer::Messages(messages) => Ok(messages),
            other => Err(mismatch(&other)),
        }
    }
}

fn found(channel: ChannelKey, messages: Vec<Stored>) -> Result<Page> {
    if messages.is_empty() {
        return Err(Error::NotFound);
    }
    Ok(Page {
        channel,
        messages,
        more: false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The table of http-api 4.7 with its fixes, one message at a time.
    fn naive(window: HistoryWindow, last: u64) -> Vec<u64> {
        let limit = match window.limit {
            n if n <= 0 => 100,
            n => n.min(10_000) as usize,
        };
        let newest = |mut seqs: Vec<u64>| {
            let cut = seqs.len().saturating_sub(limit);
            seqs.split_off(cut)
        };
        let all = 1..=last;
        let HistoryWindow { start, end, .. } = window;
        if start == 0 && end == 0 {
            return newest(all.collect());
        }
        match window.mode {
            PullMode::Up => all
                .filter(|&seq| seq >= start && (end == 0 || seq < end))
                .take(limit)
                .collect(),
            PullMode::Down => newest(all.filter(|&seq| seq <= start && seq > end).collect()),
        }
    }

    fn by_range(window: HistoryWindow, last: u64) -> Vec<u64> {
        let Some(range) = window.range() else {
            return Vec::new();
        };
        let mut seqs: Vec<u64> = (range.first.0..=range.last.0.min(last)).collect();
        match range.dir {
            Dir::Up => seqs.truncate(range.limit),
            Dir::Down => drop(seqs.drain(..seqs.len().saturating_sub(range.limit))),
        }
        seqs
    }

    fn window(start: u64, end: u64, limit: i64, mode: PullMode) -> HistoryWindow {
        HistoryWindow {
            start,
            end,
            limit,
            mode,
        }
    }

    #[test]
    fn recorded_windows() {
        use PullMode::{Down, Up};
        for (w, seqs) in [
            (window(0, 0, 10, Down), 21..=30),
            (window(0, 0, 10, Up), 21..=30),
            (window(20, 0, 5, Down), 16..=20),
            (window(5, 0, 5, Up), 5..=9),
            (window(5, 9, 100, Up), 5..=8),
            (window(9, 5, 100, Down), 6..=9),
            (window(30, 0, 100, Up), 30..=30),
            (window(20, 10, 5, Down), 16..=20),
            (window(1, 0, 10, Down), 1..=1),
            (window(100, 0, 5, Down), 26..=30),
        ] {
            assert_eq!(by_range(w, 30), seqs.collect::<Vec<_>>(), "{w:?}");
        }
        for w in [window(31, 0, 100, Up), window(5, 9, 10, Down)] {
            assert!(by_range(w, 30).is_empty(), "{w:?}");
        }
        assert_eq!(window(u64::MAX, u64::MAX, 1, Down).range(), None);
    }

    proptest! {
        #[test]
        fn windows_are_as_the_table_says(
            start in 0..14_u64, end in 0..14_u64, limit in -1..14_i64, up: bool, last in 0..12_u64,
        ) {
            let mode = if up { PullMode::Up } else { PullMode::Down };
            let w = window(start, end, limit, mode);
            prop_assert_eq!(by_range(w, last), naive(w, last));
        }
    }
}
