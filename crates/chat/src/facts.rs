//! "Fetch first, decide second" (H4): what a request is decided on, named before it is read.

use std::collections::{BTreeMap, BTreeSet};

use wk_proto::{ChannelKey, Uid};
use wk_store::View;

use crate::permission::SenderFacts;
use crate::request::Request;
use crate::users::AdmitFacts;

/// Names of the facts requests are decided on. Collects over many requests; equal names are kept once.
#[derive(Clone, Debug, Default)]
pub struct Needs {
    senders: BTreeSet<(ChannelKey, Uid)>,
    admissions: BTreeSet<(Uid, u8)>,
}

impl Needs {
    /// Nothing has to be read.
    pub fn is_empty(&self) -> bool {
        self.senders.is_empty() && self.admissions.is_empty()
    }

    /// Forgets all names, for the next turn.
    pub fn clear(&mut self) {
        self.senders.clear();
        self.admissions.clear();
    }

    pub(crate) fn add(&mut self, request: &Request) {
        match request {
            Request::Send(send) => {
                // A twin is judged by its base's rows.
                let channel = send.channel.ordinary();
                self.senders.insert((channel, send.from.clone()));
            }
            Request::Admit(admit) => {
                self.admissions
                    .insert((admit.uid.clone(), admit.device_flag));
            }
            // Decided by apply, where the state is exact.
            Request::Write(_) | Request::Query(_) => {}
        }
    }
}

/// The facts, in memory.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    senders: BTreeMap<(ChannelKey, Uid), SenderFacts>,
    admissions: BTreeMap<(Uid, u8), AdmitFacts>,
}

impl Facts {
    /// Reads them. Runs inline or on a read thread: the state may move on between this and `decide` only by entries that were
    /// proposed and not yet acknowledged, which is allowed.
    pub fn fetch(view: &View, needs: &Needs) -> wk_store::Result<Self> {
        let mut facts = Self::default();
        for (channel, from) in &needs.senders {
            let sender = SenderFacts::fetch(view, channel, from)?;
            facts
                .senders
                .insert((channel.clone(), from.clone()), sender);
        }
        for (uid, flag) in &needs.admissions {
            let admission = AdmitFacts::fetch(view, uid, *flag)?;
            facts.admissions.insert((uid.clone(), *flag), admission);
        }
        Ok(facts)
    }

    /// `None`: `needs` was not asked about this request.
    pub(crate) fn sender(&self, channel: &ChannelKey, from: &Uid) -> Option<SenderFacts> {
        self.senders
            .get(&(channel.ordinary(), from.clone()))
            .copied()
    }

    pub(crate) fn admission(&self, uid: &Uid, device_flag: u8) -> Option<&AdmitFacts> {
        self.admissions.get(&(uid.clone(), device_flag))
    }
}
