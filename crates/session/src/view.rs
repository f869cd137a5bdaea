//! What one receiver sees of a message. Spec: messaging 6.2, wire-protocol 5.5.

use std::borrow::Cow;

use wk_proto::channel::SYSTEM_UID;
use wk_proto::{ChannelKey, ChannelType, Flags, Record};

/// The fields of a RECV that depend on who receives it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct View<'a> {
    /// The badge is for others' messages; `dup` is never set.
    pub(crate) flags: Flags,
    /// The server itself has no name.
    pub(crate) from_uid: &'a str,
    pub(crate) channel_id: Cow<'a, str>,
}

impl<'a> View<'a> {
    pub(crate) fn new(me: &'a str, channel: &'a ChannelKey, record: &'a Record) -> Self {
        let from = record.from_uid();
        let flags = record.flags().with(Flags::DUP, false);
        let from_uid = if from == SYSTEM_UID { "" } else { from };
        Self {
            flags: if from == me {
                flags.with(Flags::RED_DOT, false)
            } else {
                flags
            },
            from_uid,
            channel_id: match channel.kind {
                ChannelType::PERSON if from != me => Cow::Borrowed(from_uid),
                _ => channel_id(me, channel),
            },
        }
    }
}

/// The channel id `me` knows: the peer of a person channel, the agent's uid of an agent channel. A command twin looks like its base,
/// except that of a temporary channel, whose clients know it with the suffix.
fn channel_id<'a>(me: &str, channel: &'a ChannelKey) -> Cow<'a, str> {
    let base = channel.base.as_str();
    match channel.kind {
        ChannelType::PERSON => Cow::Borrowed(peer(me, base)),
        ChannelType::AGENT => Cow::Borrowed(base.split_once('@').map_or(base, |(_, agent)| agent)),
        ChannelType::TEMP if channel.twin => Cow::Owned(channel.stored_id()),
        _ => Cow::Borrowed(base),
    }
}

/// The other half of a pair id. Unlike [`ChannelKey::peer_of`] it does not allocate: this runs for each delivery.
fn peer<'a>(me: &str, pair: &'a str) -> &'a str {
    match pair.split_once('@') {
        Some((first, second)) if first == me => second,
        Some((first, _)) => first,
        None => pair,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use wk_proto::record::Body;
    use wk_proto::{ChannelId, Uid};

    fn record(from: &str, flags: u8) -> Record {
        Body {
            from_uid: from,
            flags: Flags(flags),
            ..Body::default()
        }
        .encode()
    }

    fn uid(s: &str) -> Uid {
        Uid::trusted(s)
    }

    fn seen(me: &str, channel: &ChannelKey, from: &str) -> (String, String) {
        let record = record(from, 0);
        let view = View::new(me, channel, &record);
        (view.channel_id.into_owned(), view.from_uid.to_owned())
    }

    #[test]
    fn a_person_channel_is_named_after_the_peer() {
        let channel = ChannelKey::person(&uid("a"), &uid("b"));
        for (me, from, id) in [("b", "a", "a"), ("a", "a", "b"), ("a", "b", "b")] {
            assert_eq!(seen(me, &channel, from), (id.into(), from.into()));
        }
        let own = ChannelKey::person(&uid("a"), &uid("a"));
        assert_eq!(seen("a", &own, "a"), ("a".into(), "a".into()));
        let system = ChannelKey::person(&uid(SYSTEM_UID), &uid("b"));
        assert_eq!(
            seen("b", &system, SYSTEM_UID),
            (String::new(), String::new())
        );
        let twin = channel.command();
        assert_eq!(seen("b", &twin, "a"), ("a".into(), "a".into()));
    }

    #[test]
    fn other_channels_keep_their_ids() {
        let key = |id: &str, kind| ChannelKey::new(ChannelId::trusted(id), kind);
        let group = key("g", ChannelType::GROUP);
        assert_eq!(seen("b", &group, SYSTEM_UID), ("g".into(), String::new()));
        assert_eq!(seen("b", &group.command(), "a").0, "g");
        let temp = key("77", ChannelType::TEMP);
        assert_eq!(seen("b", &temp.command(), "a").0, "77____cmd");
        let online = key("systemcmdonline", ChannelType::TEMP);
        assert_eq!(seen("b", &online, "a").0, "systemcmdonline");
        let agent = key("a@bot", ChannelType::AGENT);
        assert_eq!(seen("a", &agent, "bot").0, "bot");
        assert_eq!(seen("bot", &agent, "a").0, "bot");
    }

    #[test]
    fn the_badge_is_for_others_messages() {
        let record = record("a", 15);
        let group = ChannelKey::new(ChannelId::trusted("g"), ChannelType::GROUP);
        assert_eq!(View::new("b", &group, &record).flags, Flags(7));
        assert_eq!(View::new("a", &group, &record).flags, Flags(5));
    }
}
