//! Read and delete marks of conversations (http-api 6.5). Positions are absolute: the newest seq comes from the channel's slot.

use wk_chat::request::{Mark, Write};
use wk_proto::{ChannelKey, MessageSeq, Uid};

use super::error::{Result, ensure};
use super::{Service, ids};

/// Which conversation of whom.
#[derive(Clone, Debug, Default)]
#[allow(missing_docs, reason = "the names are the API's")]
pub struct MarkTarget {
    pub uid: String,
    pub channel_id: String,
    pub channel_type: u8,
}

impl MarkTarget {
    /// `None`: no conversation can be meant. `empty` is the route's text for a missing uid.
    fn key(&self, empty: &'static str) -> Result<Option<(Uid, ChannelKey)>> {
        ensure(!self.uid.is_empty(), empty)?;
        let named = !self.channel_id.is_empty() && self.channel_type != 0;
        ensure(named, "channel_id or channel_type cannot be empty")?;
        let uid = Uid::parse(&self.uid).ok();
        let channel = ids::seen_by(&self.uid, &self.channel_id, self.channel_type);
        Ok(uid.zip(channel))
    }
}

impl Service {
    /// Everything is read.
    pub async fn clear_unread(&self, target: MarkTarget) -> Result<()> {
        let key = target.key("uid cannot be empty")?;
        self.mark(key, Mark::Read).await
    }

    /// Exactly `unread` messages are unread, as far as there are as many.
    pub async fn set_unread(&self, target: MarkTarget, unread: i64) -> Result<()> {
        let key = target.key("UID cannot be empty")?;
        ensure(unread >= 0, "unread cannot be negative")?;
        let position = |last: MessageSeq| {
            let read = last.0.saturating_sub(unread.unsigned_abs());
            Mark::Unread(MessageSeq(read))
        };
        self.mark(key, position).await
    }

    /// Everything up to now is hidden.
    pub async fn delete_conversation(&self, target: MarkTarget) -> Result<()> {
        let key = target.key("Uid cannot be empty")?;
        self.mark(key, Mark::Deleted).await
    }

    async fn mark(
        &self,
        key: Option<(Uid, ChannelKey)>,
        mark: impl Fn(MessageSeq) -> Mark,
    ) -> Result<()> {
        let Some((uid, channel)) = key else {
            return Ok(());
        };
        let last = self.head_seq(channel.clone()).await?;
        if last == MessageSeq(0) {
            return Ok(());
        }
        let mark = mark(last);
        self.write(Write::Mark { uid, channel, mark }).await
    }
}
