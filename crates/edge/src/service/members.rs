//! Subscribers (http-api 3.4). Long lists go in chunks; a replacement is staged and switched, so that it is atomic (H11).

use wk_chat::request::{SetChange, UIDS_PER_WRITE_MAX, Write};
use wk_proto::{ChannelKey, ChannelType, Uid};

use super::error::{Result, ensure};
use super::{Service, ids};

/// Change of a channel's subscribers.
#[derive(Clone, Debug, Default)]
#[allow(missing_docs, reason = "the names are the API's")]
pub struct ChangeMembers {
    pub channel_id: String,
    /// 0 = group.
    pub channel_type: u8,
    pub subscribers: Vec<String>,
}

impl ChangeMembers {
    fn check(&self) -> Result<ChannelKey> {
        let (id, kind) = (&self.channel_id, self.channel_type);
        ensure(!ids::blank(id), "频道ID不能为空！")?;
        ensure(!ids::has_special(id), "频道ID不能包含特殊字符！")?;
        let any = self.subscribers.iter().any(|uid| !ids::blank(uid));
        ensure(any, "订阅者不能为空！")?;
        let kind = ChannelType(if kind == 0 { 2 } else { kind });
        let person = kind == ChannelType::PERSON;
        ensure(!person, "个人频道不支持添加订阅者！")?;
        ids::owned(id, kind.0)
    }
}

impl Service {
    /// Adds subscribers, creating the channel if absent; `reset` drops the others.
    pub async fn add_subscribers(
        &self,
        request: ChangeMembers,
        reset: bool,
        temporary: bool,
    ) -> Result<()> {
        let channel = request.check()?;
        ensure(!temporary, "新版本临时订阅者已不支持！")?;
        let uids = ids::uids(&request.subscribers)?;
        if reset {
            return self.replace_members(channel, uids).await;
        }
        self.add_members(channel, &uids).await
    }

    /// Removes subscribers and their conversations.
    pub async fn remove_subscribers(&self, request: ChangeMembers) -> Result<()> {
        let channel = request.check()?;
        let uids = ids::uids(&request.subscribers)?;
        self.change_members(channel, uids.chunks(UIDS_PER_WRITE_MAX), SetChange::Remove)
            .await
    }

    /// Removes all subscribers.
    pub async fn remove_all_subscribers(&self, channel_id: &str, channel_type: u8) -> Result<()> {
        ensure(!channel_id.is_empty(), "channel_id不能为空！")?;
        ensure(channel_type != 0, "频道类型不能为0！")?;
        let person = ChannelType(channel_type) == ChannelType::PERSON;
        ensure(!person, "个人频道不支持此操作！")?;
        let channel = ids::owned(channel_id, channel_type)?;
        self.replace_members(channel, Vec::new()).await
    }

    /// Sets the recipients of a temporary channel (type 8).
    pub async fn set_temporary_members(&self, channel_id: &str, list: &[String]) -> Result<()> {
        ensure(!channel_id.is_empty(), "channel_id不能为空！")?;
        ensure(!ids::has_special(channel_id), "频道ID不能包含特殊字符！")?;
        let uids = ids::uids(list)?;
        ensure(!uids.is_empty(), "uids不能为空！")?;
        let channel = ids::stored(channel_id, ChannelType::TEMP.0);
        let Some(channel) = channel else {
            return ensure(false, "频道ID不能包含特殊字符！");
        };
        self.replace_members(channel.ordinary(), uids).await
    }

    pub(super) async fn add_members(&self, channel: ChannelKey, uids: &[Uid]) -> Result<()> {
        self.change_members(channel, uids.chunks(UIDS_PER_WRITE_MAX), SetChange::Add)
            .await
    }

    /// Replaces the whole set, atomically whatever its size.
    pub(super) async fn replace_members(&self, channel: ChannelKey, uids: Vec<Uid>) -> Result<()> {
        for change in replacement(uids) {
            let channel = channel.clone();
            self.write(Write::Members { channel, change }).await?;
        }
        Ok(())
    }

    async fn change_members<'a>(
        &self,
        channel: ChannelKey,
        chunks: impl Iterator<Item = &'a [Uid]>,
        change: fn(Vec<Uid>) -> SetChange,
    ) -> Result<()> {
        for chunk in chunks {
            let (channel, change) = (channel.clone(), change(chunk.to_vec()));
            self.write(Write::Members { channel, change }).await?;
        }
        Ok(())
    }
}

/// The writes that make `uids` the set: one if they fit, else a staged generation and a switch.
pub(super) fn replacement(uids: Vec<Uid>) -> Vec<SetChange> {
    if uids.len() <= UIDS_PER_WRITE_MAX {
        return vec![SetChange::Replace(uids)];
    }
    let token = rand::random();
    let staged = uids.chunks(UIDS_PER_WRITE_MAX).map(|chunk| {
        let uids = chunk.to_vec();
        SetChange::Stage { token, uids }
    });
    staged
        .chain(std::iter::once(SetChange::Switch { token }))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_replacements_are_staged_in_order() {
        let uids = |n: usize| (0..n).map(|i| Uid::trusted(&format!("u{i}"))).collect();
        let one: Vec<Uid> = uids(UIDS_PER_WRITE_MAX);
        assert_eq!(replacement(one.clone()), [SetChange::Replace(one)]);
        let writes = replacement(uids(2 * UIDS_PER_WRITE_MAX + 1));
        assert_eq!(writes.len(), 4);
        let mut staged = Vec::new();
        let mut tokens = std::collections::BTreeSet::new();
        for write in &writes[..3] {
            let SetChange::Stage { token, uids } = write else {
                panic!("{write:?}");
            };
            tokens.insert(*token);
            staged.extend(uids.iter().cloned());
        }
        assert!(matches!(&writes[3], SetChange::Switch { token } if tokens.contains(token)));
        assert_eq!(tokens.len(), 1);
        assert_eq!(staged, uids(2 * UIDS_PER_WRITE_MAX + 1));
    }
}
