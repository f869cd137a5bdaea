//! The network between nodes: datagrams for raft, which may be lost, doubled and overtaken; ordered links for calls, which break
//! instead of losing something in the middle, as a TCP connection does.

use std::collections::{BTreeMap, BTreeSet};

use wk_proto::{Mono, NodeId};

use crate::dice::Dice;

/// How all links behave now.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Weather {
    /// Of 100 datagrams, this many disappear. Links break at a quarter of the rate.
    pub(crate) drop_percent: u64,
    /// Of 100 datagrams, this many arrive twice.
    pub(crate) double_percent: u64,
    /// Shortest way, in µs.
    pub(crate) delay_us: u64,
    /// Longest addition to it.
    pub(crate) jitter_us: u64,
}

impl Default for Weather {
    fn default() -> Self {
        Self {
            drop_percent: 0,
            double_percent: 0,
            delay_us: 100,
            jitter_us: 50,
        }
    }
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Net {
    pub(crate) weather: Weather,
    cuts: BTreeSet<(NodeId, NodeId)>,
    /// How often the link between two nodes broke.
    lives: BTreeMap<(NodeId, NodeId), u64>,
    /// No new life begins before then: both ends must know first that the last one ended.
    down_until: BTreeMap<(NodeId, NodeId), Mono>,
    /// When the last thing sent one way arrives.
    last: BTreeMap<(NodeId, NodeId), Mono>,
}

fn pair(a: NodeId, b: NodeId) -> (NodeId, NodeId) {
    (a.min(b), a.max(b))
}

impl Net {
    /// Delays in µs of the copies of a datagram that arrive.
    pub(crate) fn datagram(&self, dice: &mut Dice) -> Vec<u64> {
        let weather = self.weather;
        if dice.chance(weather.drop_percent) {
            return Vec::new();
        }
        let copies = 1 + u64::from(dice.chance(weather.double_percent));
        (0..copies).map(|_| self.delay(dice)).collect()
    }

    fn delay(&self, dice: &mut Dice) -> u64 {
        self.weather.delay_us + dice.below(self.weather.jitter_us + 1)
    }

    /// When something sent over the link now arrives, and in which life of the link. `None`: it breaks the link instead.
    pub(crate) fn send(
        &mut self,
        now: Mono,
        dice: &mut Dice,
        from: NodeId,
        to: NodeId,
    ) -> Option<(Mono, u64)> {
        let breaks = dice.below(400) < self.weather.drop_percent;
        let is_down = self
            .down_until
            .get(&pair(from, to))
            .is_some_and(|until| now <= *until);
        if breaks || is_down || self.is_cut(from, to) || self.is_cut(to, from) {
            return None;
        }
        let at = Mono(now.0 + self.delay(dice));
        let last = self.last.entry((from, to)).or_default();
        *last = at.max(Mono(last.0 + 1));
        Some((*last, self.life(from, to)))
    }

    /// Which life of the link it is.
    pub(crate) fn life(&self, a: NodeId, b: NodeId) -> u64 {
        self.lives.get(&pair(a, b)).copied().unwrap_or_default()
    }

    /// Everything on its way over the link is lost, and everything sent until both ends know, at `known`.
    pub(crate) fn break_link(&mut self, known: Mono, a: NodeId, b: NodeId) {
        self.down_until.insert(pair(a, b), known);
        *self.lives.entry(pair(a, b)).or_default() += 1;
    }

    /// Nothing gets from one to the other.
    pub(crate) fn cut(&mut self, from: NodeId, to: NodeId) {
        self.cuts.insert((from, to));
    }

    /// Undoes all cuts.
    pub(crate) fn heal(&mut self) {
        self.cuts.clear();
    }

    pub(crate) fn is_cut(&self, from: NodeId, to: NodeId) -> bool {
        self.cuts.contains(&(from, to))
    }
}
