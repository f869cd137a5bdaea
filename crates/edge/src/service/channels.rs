//! Channels: rows and flags (http-api 3.1–3.3).

use wk_chat::request::{ChannelFlags, Write};
use wk_proto::{ChannelKey, ChannelType};

use super::error::{Result, ensure};
use super::{Service, ids};

/// A channel and all its flags; those not sent are off, as in v2.
#[derive(Clone, Debug, Default)]
#[allow(missing_docs, reason = "the names are the API's")]
pub struct ChannelInfo {
    pub channel_id: String,
    pub channel_type: u8,
    pub flags: ChannelFlags,
}

/// `POST /channel`.
#[derive(Clone, Debug, Default)]
pub struct CreateChannel {
    /// The row.
    pub info: ChannelInfo,
    /// Drop all current subscribers first.
    pub reset: bool,
    /// New subscribers.
    pub subscribers: Vec<String>,
}

impl ChannelInfo {
    fn key(&self) -> Result<ChannelKey> {
        ensure(!ids::blank(&self.channel_id), "频道ID不能为空！")?;
        ensure(ChannelType(self.channel_type).is_known(), "频道类型错误！")?;
        let special = ids::has_special(&self.channel_id);
        ensure(!special, "频道ID不能包含特殊字符！")?;
        ids::owned(&self.channel_id, self.channel_type)
    }
}

impl Service {
    /// Creates or overwrites a channel and adds subscribers.
    pub async fn create_channel(&self, request: CreateChannel) -> Result<()> {
        let channel = request.info.key()?;
        let person = channel.kind == ChannelType::PERSON;
        let no_members = request.subscribers.is_empty();
        ensure(!person || no_members, "不支持个人频道添加订阅者！")?;
        let subscribers = ids::uids(&request.subscribers)?;
        self.set_channel(channel.clone(), request.info.flags)
            .await?;
        if request.reset && !person {
            return self.replace_members(channel, subscribers).await;
        }
        self.add_members(channel, &subscribers).await
    }

    /// Overwrites the flags of a channel, creating it if absent. For persons the id is the user's uid.
    pub async fn set_channel_info(&self, info: ChannelInfo) -> Result<()> {
        self.set_channel(info.key()?, info.flags).await
    }

    /// Disbands a channel; history stays readable. An unknown one is left alone.
    pub async fn delete_channel(&self, channel_id: &str, channel_type: u8) -> Result<()> {
        // The text is v2's.
        let person = ChannelType(channel_type) == ChannelType::PERSON;
        ensure(!person, "个人频道不支持添加订阅者！")?;
        ensure(!ids::blank(channel_id), "频道ID不能为空！")?;
        if !ChannelType(channel_type).is_known() {
            return Ok(());
        }
        let channel = ids::owned(channel_id, channel_type)?;
        self.write(Write::Disband { channel }).await
    }

    async fn set_channel(&self, channel: ChannelKey, flags: ChannelFlags) -> Result<()> {
        self.write(Write::SetChannel {
            channel,
            flags,
            create_only: false,
        })
        .await
    }
}
