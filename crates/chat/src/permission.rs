//! Who may send where: the channel check and the sender check, as one table each. Spec: messaging 3.2, 3.3.

use wk_proto::{ChannelKey, ChannelType, Reason, Uid};
use wk_store::Result;

use crate::policy::Policy;
use crate::request::{ChannelFlags, Origin};
use crate::rows::{Channel, Pair, Rows};
use crate::tables::{self, Set};

/// What the channel's slot knows about one sender in one channel. For a person channel the lists are the receiver's, from the pair
/// row; a twin has its base's.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct SenderFacts {
    pub flags: ChannelFlags,
    pub denied: bool,
    pub member: bool,
    /// The channel's allow list has entries; not used for persons.
    pub allow_list: bool,
    pub allowed: bool,
}

impl SenderFacts {
    pub(crate) fn fetch(rows: &impl Rows, channel: &ChannelKey, from: &Uid) -> Result<Self> {
        let row = Channel::read(rows, channel)?;
        let mut facts = Self {
            flags: row.flags(),
            ..Self::default()
        };
        if channel.kind == ChannelType::PERSON {
            if let Some(receiver) = channel.peer_of(from) {
                let key = tables::pair(channel, &receiver);
                let pair: Pair = rows.load(tables::PAIRS, &key)?;
                facts.denied = pair.deny.present;
                facts.allowed = pair.allow.present;
            }
            return Ok(facts);
        }
        facts.denied = row.contains(rows, channel, Set::Deny, from)?;
        facts.member = row.contains(rows, channel, Set::Members, from)?;
        facts.allow_list = row.allow.count > 0;
        facts.allowed = row.contains(rows, channel, Set::Allow, from)?;
        Ok(facts)
    }
}

/// One SEND, for judging.
pub(crate) struct Question<'a> {
    pub policy: &'a Policy,
    pub channel: &'a ChannelKey,
    pub from: &'a Uid,
    pub origin: Origin,
    pub facts: SenderFacts,
    /// `allow_stranger` of the receiver's own row, once it was asked for.
    pub receiver_allows_strangers: Option<bool>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ruling {
    Pass,
    Refuse(Reason),
    /// Depends on the receiver's `allow_stranger`, which lives in slot(receiver).
    AskReceiver,
}

/// First match wins, the channel before the sender.
pub(crate) fn judge(q: &Question<'_>) -> Ruling {
    match check_channel(q) {
        Some(reason) => Ruling::Refuse(reason),
        None => check_sender(q),
    }
}

/// Applies to everybody, the server and system accounts included.
fn check_channel(q: &Question<'_>) -> Option<Reason> {
    use ChannelType as T;
    if !q.channel.kind.is_known() {
        return Some(Reason::NotSupportChannelType);
    }
    match q.channel.kind {
        T::CUSTOMER_SERVICE | T::INFO | T::VISITORS | T::AGENT => None,
        _ if q.facts.flags.ban => Some(Reason::Ban),
        _ if q.facts.flags.disband => Some(Reason::Disband),
        _ => None,
    }
}

/// Rows 1–15 of messaging 3.3, and before them: visitors' sessions stay in their channels (N2).
fn check_sender(q: &Question<'_>) -> Ruling {
    use ChannelType as T;
    let service = matches!(q.channel.kind, T::VISITORS | T::CUSTOMER_SERVICE);
    if !service && q.origin != Origin::Server && q.policy.is_visitor(q.from) {
        return Ruling::Refuse(Reason::NotAllowSend);
    }
    let passes = match q.channel.kind {
        T::INFO | T::CUSTOMER_SERVICE => true,
        T::AGENT => q.channel.peer_of(q.from).is_some(),
        T::VISITORS => q.channel.base.as_str() == q.from.as_str(),
        _ => false,
    };
    if passes || q.origin == Origin::Server || q.policy.is_system(q.from) {
        return Ruling::Pass;
    }
    if q.channel.kind == T::PERSON {
        check_person(q)
    } else {
        check_general(q)
    }
}

/// Rows 6–10.
fn check_person(q: &Question<'_>) -> Ruling {
    let Some(receiver) = q.channel.peer_of(q.from) else {
        return Ruling::Refuse(Reason::ChannelIdError);
    };
    if q.policy.is_system(&receiver) {
        return Ruling::Pass;
    }
    if q.facts.denied {
        return Ruling::Refuse(Reason::InBlacklist);
    }
    if q.policy.whitelist_off_of_person || q.facts.allowed {
        return Ruling::Pass;
    }
    match q.receiver_allows_strangers {
        None => Ruling::AskReceiver,
        Some(true) => Ruling::Pass,
        Some(false) => Ruling::Refuse(Reason::NotInWhitelist),
    }
}

/// Rows 11–15.
fn check_general(q: &Question<'_>) -> Ruling {
    let facts = &q.facts;
    if facts.flags.send_ban {
        Ruling::Refuse(Reason::SendBan)
    } else if facts.denied {
        Ruling::Refuse(Reason::InBlacklist)
    } else if !facts.member {
        Ruling::Refuse(Reason::SubscriberNotExist)
    } else if facts.allow_list && !facts.allowed {
        Ruling::Refuse(Reason::NotInWhitelist)
    } else {
        Ruling::Pass
    }
}

#[cfg(test)]
mod tests;
