//! How far the formation is, and how long each phase took.

use std::collections::BTreeMap;

use wk_proto::Mono;

use super::report::{Phase, PhaseReport, PhaseState};

#[derive(Clone, Copy, Debug, Default)]
struct Row {
    state: PhaseState,
    started: Option<Mono>,
    took_ms: Option<u64>,
}

/// All phases.
#[derive(Debug)]
pub(crate) struct Phases {
    began: Mono,
    rows: BTreeMap<Phase, Row>,
}

impl Phases {
    pub(crate) fn new(began: Mono) -> Self {
        Self {
            began,
            rows: Phase::ALL.map(|phase| (phase, Row::default())).into(),
        }
    }

    pub(crate) fn state(&self, phase: Phase) -> PhaseState {
        self.rows
            .get(&phase)
            .map_or_else(Default::default, |r| r.state)
    }

    /// Sets a state; returns the ms in the phase if that is a change. What is done stays done.
    pub(crate) fn set(&mut self, phase: Phase, state: PhaseState, now: Mono) -> Option<u64> {
        let row = self.rows.entry(phase).or_default();
        if row.state == state || row.state == PhaseState::Done {
            return None;
        }
        row.state = state;
        let started = *row.started.get_or_insert(now);
        let ms = now.since(started) / 1_000;
        if state == PhaseState::Done {
            row.took_ms = Some(ms);
        }
        Some(ms)
    }

    /// The first phase that is not over; the last if all are.
    pub(crate) fn current(&self, joining: bool) -> Phase {
        let open = |phase: &Phase| self.state(*phase) != PhaseState::Done;
        let mut order = order(joining).filter(|phase| !is_drivers(*phase));
        order.find(open).unwrap_or(Phase::Ready)
    }

    pub(crate) fn report(&self, joining: bool) -> Vec<PhaseReport> {
        let rows = order(joining).map(|phase| {
            let row = self.rows.get(&phase).copied().unwrap_or_default();
            PhaseReport {
                phase,
                state: row.state,
                started_ms: row.started.map(|at| at.since(self.began) / 1_000),
                took_ms: row.took_ms,
                progress: None,
            }
        });
        rows.collect()
    }
}

/// The phases a node goes through.
pub(crate) fn order(joining: bool) -> impl Iterator<Item = Phase> {
    let left_out = if joining {
        Phase::ControlElection
    } else {
        Phase::Join
    };
    Phase::ALL
        .into_iter()
        .filter(move |phase| *phase != left_out)
}

/// Phases only the driver knows of; nothing here waits for them.
pub(crate) fn is_drivers(phase: Phase) -> bool {
    phase <= Phase::Transport
}
