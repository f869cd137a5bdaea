//! Blacklists and whitelists (http-api 3.5).

use wk_chat::query::{Answer, ListEntry, Query};
use wk_chat::request::{List, SetChange, UIDS_PER_WRITE_MAX, Write};
use wk_proto::{ChannelKey, ChannelType, Uid, WallMs};

use super::error::{Error, Result, ensure};
use super::members::replacement;
use super::{Service, ids, mismatch};

/// Uids of one list that can be listed; a longer one is refused rather than cut.
const LISTED_MAX: usize = 200_000;

/// Uids asked for at a time.
const LISTED_PAGE: usize = 1_000;

/// Change of a list: whose, and which uids.
#[derive(Clone, Debug, Default)]
#[allow(missing_docs, reason = "the names are the API's")]
pub struct ListChange {
    pub channel_id: String,
    pub channel_type: u8,
    pub uids: Vec<String>,
}

/// An entry of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// v2's id of the entry: a hash of the uid.
    pub id: u64,
    /// Who.
    pub uid: Uid,
    /// When he came onto the list.
    pub created: WallMs,
    /// When he was last put there.
    pub updated: WallMs,
}

impl ListChange {
    /// Checks of `_add` and `_remove`. The whitelist's are stricter, as in v2.
    fn check(&self, list: List) -> Result<(ChannelKey, Vec<Uid>)> {
        ensure(!self.channel_id.is_empty(), "channel_id不能为空！")?;
        if list == List::Allow {
            let special = ids::has_special(&self.channel_id);
            ensure(!special, "频道ID不能包含特殊字符！")?;
        }
        ensure(self.channel_type != 0, "频道类型不能为0！")?;
        let any = self.uids.iter().any(|uid| !ids::blank(uid));
        ensure(any, "uids不能为空！")?;
        let channel = ids::owned(&self.channel_id, self.channel_type)?;
        Ok((channel, ids::uids(&self.uids)?))
    }
}

impl Service {
    /// Puts uids on a list.
    pub async fn add_to_list(&self, list: List, request: ListChange) -> Result<()> {
        let (channel, uids) = request.check(list)?;
        for chunk in uids.chunks(UIDS_PER_WRITE_MAX) {
            let change = SetChange::Add(chunk.to_vec());
            self.change_list(&channel, list, change).await?;
        }
        Ok(())
    }

    /// Takes uids off a list.
    pub async fn remove_from_list(&self, list: List, request: ListChange) -> Result<()> {
        let (channel, uids) = request.check(list)?;
        for chunk in uids.chunks(UIDS_PER_WRITE_MAX) {
            let change = SetChange::Remove(chunk.to_vec());
            self.change_list(&channel, list, change).await?;
        }
        Ok(())
    }

    /// Makes uids the list; none = clear.
    pub async fn set_list(&self, list: List, request: ListChange) -> Result<()> {
        ensure(!ids::blank(&request.channel_id), "频道ID不能为空！")?;
        let uids = ids::uids(&request.uids)?;
        // v2 does not check the type here: without one nothing can be meant.
        if !ChannelType(request.channel_type).is_known() {
            return Ok(());
        }
        let channel = ids::owned(&request.channel_id, request.channel_type)?;
        for change in replacement(uids) {
            self.change_list(&channel, list, change).await?;
        }
        Ok(())
    }

    /// Clears a list.
    pub async fn clear_list(&self, list: List, channel_id: &str, channel_type: u8) -> Result<()> {
        ensure(!channel_id.is_empty(), "channel_id不能为空！")?;
        ensure(channel_type != 0, "频道类型不能为0！")?;
        let channel = ids::owned(channel_id, channel_type)?;
        let change = SetChange::Replace(Vec::new());
        self.change_list(&channel, list, change).await
    }

    /// A whole list, in order of the uids. What cannot be a channel has none.
    pub async fn list(
        &self,
        list: List,
        channel_id: &str,
        channel_type: u8,
    ) -> Result<Vec<Listed>> {
        let Some(channel) = ids::stored(channel_id, channel_type) else {
            return Ok(Vec::new());
        };
        let question = |last: Option<&ListEntry>| Query::Listed {
            channel: channel.clone(),
            list,
            after: last.map(|entry| entry.uid.clone()),
            limit: LISTED_PAGE,
        };
        let page_of = |answer| match answer {
            Answer::Listed(page, more) => Ok((page, more)),
            other => Err(mismatch(&other)),
        };
        let entries = self.pages(question, page_of).await?;
        let shown = |entry: ListEntry| Listed {
            id: ids::fnv1a64(entry.uid.as_str().as_bytes()),
            uid: entry.uid,
            created: entry.created,
            updated: entry.updated,
        };
        Ok(entries.into_iter().map(shown).collect())
    }

    /// All subscribers of a channel, in order of the uids.
    pub async fn subscribers(&self, channel_id: &str, channel_type: u8) -> Result<Vec<Uid>> {
        let Some(channel) = ids::stored(channel_id, channel_type) else {
            return Ok(Vec::new());
        };
        let question = |last: Option<&Uid>| Query::Members {
            channel: channel.clone(),
            after: last.cloned(),
            limit: LISTED_PAGE,
        };
        let page_of = |answer| match answer {
            Answer::Uids(page, more) => Ok((page, more)),
            other => Err(mismatch(&other)),
        };
        self.pages(question, page_of).await
    }

    async fn change_list(&self, channel: &ChannelKey, list: List, change: SetChange) -> Result<()> {
        self.write(Write::Lists {
            channel: channel.clone(),
            list,
            change,
        })
        .await
    }

    /// All pages of a listing; `question` asks for the one after an entry.
    async fn pages<T>(
        &self,
        question: impl Fn(Option<&T>) -> Query,
        page_of: impl Fn(Answer) -> Result<(Vec<T>, bool)>,
    ) -> Result<Vec<T>> {
        let mut all: Vec<T> = Vec::new();
        loop {
            let answer = self.query(question(all.last())).await?;
            let (page, more) = page_of(answer)?;
            let last_page = !more || page.is_empty();
            all.extend(page);
            if last_page {
                return Ok(all);
            }
            if all.len() >= LISTED_MAX {
                return Err(Error::invalid(format!("more than {LISTED_MAX} uids")));
            }
        }
    }
}
