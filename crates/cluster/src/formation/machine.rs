//! The formation itself.

use std::collections::VecDeque;

use wk_proto::{Mono, NodeId};

use super::report::{Readiness, Report};
use super::state::{Admission, Effect, Event, Setup};

/// One node's formation, from its start to its end.
#[derive(Debug)]
pub struct Formation {
    setup: Setup,
    effects: VecDeque<Effect>,
}

impl Formation {
    /// Begins, or goes on where the directory says. The first effects are there at once.
    pub fn new(setup: Setup, now: Mono) -> Self {
        let _ = now;
        Self {
            setup,
            effects: VecDeque::new(),
        }
    }
    /// Takes an event.
    pub fn handle(&mut self, event: Event, now: Mono) {
        let _ = (event, now);
    }
    /// Lets time pass: call at [`Self::deadline`].
    pub fn tick(&mut self, now: Mono) {
        let _ = now;
    }
    /// When [`Self::tick`] is due.
    pub fn deadline(&self) -> Mono {
        Mono(0)
    }
    /// The next thing to do, in order.
    pub fn poll(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }
    /// Whether a link that says it comes from this node and disk may be used, and for what. Ask at the hello, and again after
    /// [`Effect::SeatsChanged`].
    pub fn admits(&self, node: NodeId, uuid: u128, now: Mono) -> Admission {
        let _ = (node, uuid, now);
        Admission::FormationOnly
    }
    /// Everything but the client listeners is there: open them.
    pub fn may_serve(&self) -> bool {
        false
    }
    /// `/readyz`.
    pub fn readiness(&self, now: Mono) -> Readiness {
        let _ = now;
        todo!()
    }
    /// `/cluster/formation`.
    pub fn report(&self, now: Mono) -> Report {
        let _ = (now, &self.setup);
        todo!()
    }
}
