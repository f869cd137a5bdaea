//! The rules of this node's leaders: configuration plus the replicated list of system accounts.

use std::sync::Arc;

use parking_lot::RwLock;
use wk_chat::Policy;
use wk_proto::Uid;
use wk_replica::Input;

use crate::inbox::Inbox;

/// Replaced as a whole; every shard decides by the new rules from its next input on. Lock order: rules → inbox.
#[derive(Debug)]
pub(crate) struct Rules {
    configured: Policy,
    current: RwLock<Current>,
    shards: Vec<Arc<Inbox>>,
}

#[derive(Debug)]
struct Current {
    policy: Arc<Policy>,
    /// The replicated list was seen.
    is_complete: bool,
}

impl Rules {
    pub(crate) fn new(configured: Policy, shards: Vec<Arc<Inbox>>) -> Self {
        let policy = Arc::new(configured.clone());
        Self {
            configured,
            current: RwLock::new(Current {
                policy,
                is_complete: false,
            }),
            shards,
        }
    }

    pub(crate) fn get(&self) -> Arc<Policy> {
        self.current.read().policy.clone()
    }

    /// Whether the replicated list was seen.
    pub(crate) fn is_complete(&self) -> bool {
        self.current.read().is_complete
    }

    /// The list was read after the start. News that came in the meantime are newer.
    pub(crate) fn system_uids_were(&self, uids: &[Uid]) {
        self.set(uids, true);
    }

    /// The list changed.
    pub(crate) fn system_uids_are(&self, uids: &[Uid]) {
        self.set(uids, false);
    }

    fn set(&self, uids: &[Uid], is_first: bool) {
        let mut current = self.current.write();
        if is_first && current.is_complete {
            return;
        }
        let configured = self.configured.system_uids.iter();
        current.policy = Arc::new(Policy {
            system_uids: Arc::new(configured.chain(uids).cloned().collect()),
            ..self.configured.clone()
        });
        current.is_complete = true;
        for shard in &self.shards {
            shard.push(Input::Policy(current.policy.clone()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn news_win_over_the_first_reading() {
        let rules = Rules::new(Policy::new(), Vec::new());
        let (old, new) = (Uid::trusted("old"), Uid::trusted("new"));
        rules.system_uids_are(std::slice::from_ref(&new));
        rules.system_uids_were(std::slice::from_ref(&old));
        assert!(rules.get().is_system(&new) && !rules.get().is_system(&old));
    }

    #[test]
    fn configured_accounts_stay() {
        let boss = Uid::trusted("boss");
        let policy = Policy {
            system_uids: Arc::new([boss.clone()].into()),
            ..Policy::new()
        };
        let rules = Rules::new(policy, Vec::new());
        rules.system_uids_are(&[]);
        assert!(rules.get().is_system(&boss));
    }
}
