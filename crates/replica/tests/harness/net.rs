//! What the network does to a message.

use std::collections::BTreeSet;

use wk_proto::NodeId;
use wk_replica::PeerMessage;

use super::Dice;

/// Rules in force; change them as the run goes.
#[derive(Clone, Debug)]
pub struct Net {
    /// Of 100 messages, this many disappear.
    pub drop_percent: u64,
    /// Of 100 messages, this many arrive twice.
    pub double_percent: u64,
    /// Shortest way, in µs.
    pub delay_us: u64,
    /// Longest addition to it: messages overtake each other.
    pub jitter_us: u64,
    /// Keep a copy of everything sent.
    pub record: bool,
    pub recorded: Vec<(NodeId, NodeId, PeerMessage)>,
    cuts: BTreeSet<(NodeId, NodeId)>,
}

impl Default for Net {
    fn default() -> Self {
        Self {
            drop_percent: 0,
            double_percent: 0,
            delay_us: 100,
            jitter_us: 0,
            record: false,
            recorded: Vec::new(),
            cuts: BTreeSet::new(),
        }
    }
}

impl Net {
    /// Delays of the copies of one message that arrive.
    pub fn deliveries(&self, dice: &mut Dice) -> Vec<u64> {
        if dice.chance(self.drop_percent) {
            return Vec::new();
        }
        let copies = 1 + usize::from(dice.chance(self.double_percent));
        let delay = |dice: &mut Dice| self.delay_us + dice.below(self.jitter_us + 1);
        (0..copies).map(|_| delay(dice)).collect()
    }

    pub fn note(&mut self, from: NodeId, to: NodeId, message: &PeerMessage) {
        if self.record {
            self.recorded.push((from, to, message.clone()));
        }
    }

    /// Cuts all ways from and to a node.
    pub fn isolate(&mut self, node: NodeId, nodes: u32) {
        for other in (1..=nodes).map(NodeId).filter(|n| *n != node) {
            self.cuts.insert((node, other));
            self.cuts.insert((other, node));
        }
    }

    /// Restores all ways.
    pub fn heal(&mut self) {
        self.cuts.clear();
    }

    pub fn is_cut(&self, from: NodeId, to: NodeId) -> bool {
        self.cuts.contains(&(from, to))
    }
}
