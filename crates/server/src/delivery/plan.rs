//! Who receives the messages of a channel, cached per worker until the members change.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use wk_chat::{Answer, Query};
use wk_proto::{ChannelKey, ChannelType, Uid};
use wk_store::View;

use super::receives;
use crate::limits::{PLAN_PAGE, PLAN_RECIPIENTS_MAX};

#[derive(Debug)]
struct Plan {
    recipients: Arc<[Uid]>,
    used: u64,
}

/// A bounded cache of plans. Not shared: invalidation is in order with the messages.
#[derive(Debug)]
pub(super) struct Plans {
    by_channel: HashMap<ChannelKey, Plan>,
    /// Uids held in all.
    uids: usize,
    uids_max: usize,
    uses: u64,
}

impl Plans {
    pub(super) fn new(uids_max: usize) -> Self {
        Self {
            by_channel: HashMap::new(),
            uids: 0,
            uids_max,
            uses: 0,
        }
    }

    /// The recipients of a channel, from the cache or from `load`.
    pub(super) fn of(
        &mut self,
        channel: &ChannelKey,
        load: impl FnOnce(&ChannelKey) -> wk_store::Result<Vec<Uid>>,
    ) -> wk_store::Result<Arc<[Uid]>> {
        self.uses += 1;
        let owner = owner(channel);
        if let Some(plan) = self.by_channel.get_mut(&owner) {
            plan.used = self.uses;
            return Ok(plan.recipients.clone());
        }
        let recipients: Arc<[Uid]> = load(&owner)?.into();
        self.make_room(recipients.len());
        self.uids += recipients.len();
        let plan = Plan {
            recipients: recipients.clone(),
            used: self.uses,
        };
        self.by_channel.insert(owner, plan);
        Ok(recipients)
    }

    /// The members of this channel changed.
    pub(super) fn forget(&mut self, channel: &ChannelKey) {
        if let Some(plan) = self.by_channel.remove(&owner(channel)) {
            self.uids -= plan.recipients.len();
        }
    }

    fn make_room(&mut self, wanted: usize) {
        // An empty plan counts as one, so that the number of plans is bounded too.
        while self.uids + self.by_channel.len() + wanted > self.uids_max {
            let oldest = self.by_channel.iter().min_by_key(|(_, plan)| plan.used);
            let Some(channel) = oldest.map(|(channel, _)| channel.clone()) else {
                return;
            };
            self.forget(&channel);
        }
    }
}

/// The channel whose member list counts: a twin's base, but a temporary channel's own (its id names the list).
fn owner(channel: &ChannelKey) -> ChannelKey {
    if channel.kind == ChannelType::TEMP {
        channel.clone()
    } else {
        channel.ordinary()
    }
}

/// Reads the recipients of a channel from a view.
pub(super) fn load(view: &View, channel: &ChannelKey) -> wk_store::Result<Vec<Uid>> {
    collect(channel, |query| query.answer(view))
}

/// The recipients of a channel, its members page by page from `ask`. Spec: messaging 2.3.
pub(super) fn collect(
    channel: &ChannelKey,
    ask: impl FnMut(Query) -> wk_store::Result<Answer>,
) -> wk_store::Result<Vec<Uid>> {
    let mut recipients = members(channel, ask)?;
    for uid in wk_chat::implicit_recipients(channel) {
        if !recipients.contains(&uid) {
            recipients.push(uid);
        }
    }
    recipients.retain(receives);
    Ok(recipients)
}

fn members(
    channel: &ChannelKey,
    mut ask: impl FnMut(Query) -> wk_store::Result<Answer>,
) -> wk_store::Result<Vec<Uid>> {
    let mut all = Vec::new();
    loop {
        let query = Query::Members {
            channel: channel.clone(),
            after: all.last().cloned(),
            limit: PLAN_PAGE,
        };
        let Answer::Uids(page, more) = ask(query)? else {
            return Ok(all);
        };
        let progress = !page.is_empty();
        all.extend(page);
        if all.len() >= PLAN_RECIPIENTS_MAX {
            tracing::warn!(?channel, "more recipients than one message is pushed to");
            return Ok(all);
        }
        if !more || !progress {
            return Ok(all);
        }
    }
}

/// Explicit recipients, each once.
pub(super) fn explicit(recipients: &[Uid]) -> Vec<Uid> {
    let unique: BTreeSet<&Uid> = recipients.iter().filter(|uid| receives(uid)).collect();
    unique.into_iter().cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use wk_proto::ChannelId;

    fn channel(id: &str, kind: ChannelType) -> ChannelKey {
        ChannelKey::new(ChannelId::trusted(id), kind)
    }

    fn uids(n: usize) -> Vec<Uid> {
        (0..n).map(|i| Uid::trusted(&format!("u{i}"))).collect()
    }

    #[test]
    fn a_twin_shares_its_bases_plan_and_forgets_with_it() {
        let mut plans = Plans::new(100);
        let group = channel("g", ChannelType::GROUP);
        plans.of(&group, |_| Ok(uids(3))).unwrap();
        let twin = group.command();
        let shared = plans.of(&twin, |_| panic!("cached")).unwrap();
        assert_eq!(shared.len(), 3);
        plans.forget(&twin);
        assert_eq!(plans.of(&group, |_| Ok(uids(4))).unwrap().len(), 4);
    }

    #[test]
    fn a_temporary_twin_has_its_own_members() {
        let temp = channel("t", ChannelType::TEMP).command();
        assert_eq!(owner(&temp), temp);
    }

    #[test]
    fn the_plan_used_longest_ago_makes_room() {
        let mut plans = Plans::new(25);
        let (a, b, c) = (
            channel("a", ChannelType::GROUP),
            channel("b", ChannelType::GROUP),
            channel("c", ChannelType::GROUP),
        );
        plans.of(&a, |_| Ok(uids(10))).unwrap();
        plans.of(&b, |_| Ok(uids(10))).unwrap();
        plans.of(&a, |_| panic!("cached")).unwrap();
        plans.of(&c, |_| Ok(uids(10))).unwrap();
        assert_eq!(plans.uids, 20);
        plans.of(&a, |_| panic!("kept")).unwrap();
        let mut read = false;
        plans
            .of(&b, |_| {
                read = true;
                Ok(uids(1))
            })
            .unwrap();
        assert!(read);
    }

    #[test]
    fn explicit_recipients_are_unique_and_never_the_server() {
        let list = ["b", "a", "b", "____system"].map(Uid::trusted);
        assert_eq!(explicit(&list), ["a", "b"].map(Uid::trusted));
    }
}
