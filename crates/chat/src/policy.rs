//! What a leader knows besides the replicated state: configuration and cluster-wide lists. Apply never sees it (H5).

use std::collections::BTreeSet;
use std::sync::Arc;

use wk_proto::Uid;

/// Settings that decide requests. Shared by all groups of a node; replaced as a whole when something changes.
#[derive(Clone, Debug)]
pub struct Policy {
    /// Number of slots of the cluster.
    pub slot_count: u16,
    /// `tokenAuthOn`.
    pub token_auth: bool,
    /// `managerUID`.
    pub manager_uid: Uid,
    /// `managerToken`: if there is one, the manager logs in only with it (N3).
    pub manager_token: Option<Arc<str>>,
    /// `customerService.visitorsSuffix` if `visitorsOn`: such uids need no token.
    pub visitor_suffix: Option<Arc<str>>,
    /// `whitelistOffOfPerson` (default true): person allow lists are not enforced.
    pub whitelist_off_of_person: bool,
    /// Window of SEND idempotency in ms (24 h, H33).
    pub dedupe_window_ms: u64,
    /// How long the members of a temporary channel are kept after its last use, in ms (30 days, H9).
    pub temp_retention_ms: u64,
    /// Accounts that may send anywhere and that anyone may message; `____system` is always one.
    pub system_uids: Arc<BTreeSet<Uid>>,
}

impl Policy {
    /// v2's defaults with 64 slots.
    pub fn new() -> Self {
        Self {
            slot_count: 64,
            token_auth: false,
            manager_uid: Uid::trusted(wk_proto::channel::MANAGER_UID),
            manager_token: None,
            visitor_suffix: None,
            whitelist_off_of_person: true,
            dedupe_window_ms: 24 * 3600 * 1000,
            temp_retention_ms: 30 * 24 * 3600 * 1000,
            system_uids: Arc::default(),
        }
    }

    /// Whether `uid` is a visitor's: he needs no token, and may only send to visitors and customer-service channels (N2).
    pub fn is_visitor(&self, uid: &Uid) -> bool {
        // An empty suffix would make everybody a visitor.
        self.visitor_suffix
            .as_deref()
            .is_some_and(|suffix| !suffix.is_empty() && uid.as_str().ends_with(suffix))
    }

    /// Whether `uid` is a system account.
    pub fn is_system(&self, uid: &Uid) -> bool {
        uid.as_str() == wk_proto::channel::SYSTEM_UID || self.system_uids.contains(uid)
    }
}

impl Default for Policy {
    fn default() -> Self {
        Self::new()
    }
}
