//! `needs → decide → apply`. Spec: messaging 1.3, 2, 3, 7, 8; decisions H1–H11, H33.

use wk_proto::{Fence, LogIndex, MessageId, Term, WallMs};
use wk_store::{Tx, View};

use crate::command::{Command, Effect, Outcome, Stamp};
use crate::policy::Policy;
use crate::request::{Reply, Request};

/// Names of the facts a request is decided on.
#[derive(Clone, Debug, Default)]
pub struct Needs {}

/// The facts, in memory.
#[derive(Clone, Debug, Default)]
pub struct Facts {}

impl Facts {
    /// Reads them. Runs inline or on a read thread: the state may move on between this and `decide` only by entries that were
    /// proposed and not yet acknowledged, which is allowed.
    pub fn fetch(view: &View, needs: &Needs) -> wk_store::Result<Self> {
        let _ = (view, needs);
        todo!()
    }
}

/// The leader's side of a decision: time, ids and settings.
#[derive(Debug)]
pub struct Context<'a> {
    /// Time of the entry being built.
    pub now: WallMs,
    /// Term this leader leads.
    pub term: Term,
    /// Settings.
    pub policy: &'a Policy,
    /// Next message id; `decide` takes it and adds one. Larger than any id in the slot's log.
    pub next_id: &'a mut MessageId,
    /// Last fence given; `decide` counts up.
    pub fence: &'a mut Fence,
}

/// What a leader does with a request.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    /// Put this into the log; the answer is apply's.
    Propose(Command),
    /// Answer at once, nothing changes (refused; admitted: after a proof of leadership).
    Answer(Reply),
    /// Not persistent: act and answer, after a proof of leadership (D16).
    Transient(Effect, Reply),
}

/// The machine of one group. Holds only derived caches: two machines with the same store contents behave the same.
#[derive(Debug, Default)]
pub struct Machine {}

impl Machine {
    /// What must be in memory to decide.
    pub fn needs(&self, req: &Request, needs: &mut Needs) {
        let _ = (req, needs);
        todo!()
    }
    /// Leader only, pure but for the counters in `ctx`. Not for queries.
    pub fn decide(&self, facts: &Facts, ctx: &mut Context<'_>, req: &Request) -> Verdict {
        let _ = (facts, ctx, req);
        todo!()
    }
    /// Applies one command of the entry at `at`; `position` is its number inside the entry. Errors are the store's, and stop the group.
    pub fn apply(
        &mut self,
        at: LogIndex,
        position: u32,
        stamp: &Stamp,
        command: Command,
        tx: &mut Tx<'_>,
        out: &mut Vec<Effect>,
    ) -> wk_store::Result<Outcome> {
        let _ = (at, position, stamp, command, tx, out);
        todo!()
    }
    /// Outbox rows still owed, as `Effect::Outbox`, after `after`: what a new leader resumes with.
    pub fn owed(
        view: &View,
        after: Option<crate::request::OutboxKey>,
        limit: usize,
    ) -> wk_store::Result<Vec<Effect>> {
        let _ = (view, after, limit);
        todo!()
    }
}
