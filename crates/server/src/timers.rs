//! One timer wheel for all connections, so that an idle one costs no timer of its own.
//!
//! A connection is in the wheel at its earliest wish. Later wishes (every read moves the idle limit) cost one store; the wheel
//! finds out when it gets there, wakes the task, and the task arms again.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use wk_proto::{ConnId, Mono};

use crate::hub::{Conn, Hub, Wakes};
use crate::limits::{TIMER_BUCKETS, TIMER_TICK_MS};
use crate::parts::Parts;

/// See the module. Holds at most a few entries per open connection.
#[derive(Debug)]
pub(crate) struct Timers {
    wheel: Mutex<Wheel>,
}

#[derive(Debug)]
struct Wheel {
    /// By tick modulo the number of buckets.
    buckets: Vec<Vec<(u64, ConnId)>>,
    /// First tick not looked at.
    next: u64,
}

fn tick_of(at: Mono) -> u64 {
    // Rounded up: a timer never fires early.
    at.0.div_ceil(TIMER_TICK_MS * 1_000)
}

impl Timers {
    pub(crate) fn new() -> Self {
        Self {
            wheel: Mutex::new(Wheel {
                buckets: vec![Vec::new(); TIMER_BUCKETS],
                next: 0,
            }),
        }
    }

    /// Makes sure `conn` is woken at `at` or earlier.
    pub(crate) fn arm(&self, conn: &Conn, at: Mono) {
        if conn.arm(at) {
            self.wheel.lock().insert(tick_of(at), conn.id);
        }
    }

    /// Wakes every connection whose time came.
    pub(crate) fn advance(&self, now: Mono, hub: &Hub) {
        let due = self.wheel.lock().take_due(now.0 / (TIMER_TICK_MS * 1_000));
        let mut wakes = Wakes::default();
        for id in due {
            if let Some(conn) = hub.get(id) {
                conn.disarm();
                conn.fire(&mut wakes);
            }
        }
        hub.wake(wakes);
    }
}

impl Wheel {
    fn insert(&mut self, tick: u64, id: ConnId) {
        // The past and the present go to the next tick; the far future comes by once a turn and goes round again.
        let tick = tick.max(self.next);
        self.buckets[tick as usize % TIMER_BUCKETS].push((tick, id));
    }

    fn take_due(&mut self, now: u64) -> Vec<ConnId> {
        let mut due = HashMap::new();
        // After a long pause one turn of the wheel has seen every bucket.
        let first = self
            .next
            .max((now + 1).saturating_sub(TIMER_BUCKETS as u64));
        for tick in first..=now {
            let bucket = &mut self.buckets[tick as usize % TIMER_BUCKETS];
            bucket.retain(|(at, id)| {
                let later = *at > now;
                if !later {
                    due.insert(*id, ());
                }
                later
            });
            if bucket.is_empty() {
                *bucket = Vec::new();
            }
        }
        self.next = self.next.max(now + 1);
        due.into_keys().collect()
    }
}

/// Drives the wheel until the node is gone.
pub(crate) async fn run(parts: Arc<Parts>) {
    let mut ticks = tokio::time::interval(Duration::from_millis(TIMER_TICK_MS));
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    loop {
        ticks.tick().await;
        parts.timers.advance(parts.clock.now(), &parts.hub);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wheel() -> Wheel {
        Wheel {
            buckets: vec![Vec::new(); TIMER_BUCKETS],
            next: 0,
        }
    }

    #[test]
    fn fires_at_its_tick_and_not_before() {
        let mut w = wheel();
        w.insert(5, ConnId(1));
        assert!(w.take_due(4).is_empty());
        assert_eq!(w.take_due(5), [ConnId(1)]);
        assert!(w.take_due(6).is_empty());
    }

    #[test]
    fn a_timer_beyond_one_turn_waits_for_its_own_turn() {
        let mut w = wheel();
        let far = TIMER_BUCKETS as u64 + 3;
        w.insert(far, ConnId(1));
        assert!(w.take_due(3).is_empty());
        assert!(w.take_due(far - 1).is_empty());
        assert_eq!(w.take_due(far), [ConnId(1)]);
    }

    #[test]
    fn a_long_pause_loses_nothing() {
        let mut w = wheel();
        w.insert(1, ConnId(1));
        w.insert(2_000, ConnId(2));
        let mut due = w.take_due(100_000);
        due.sort();
        assert_eq!(due, [ConnId(1), ConnId(2)]);
        w.insert(7, ConnId(3));
        assert_eq!(w.take_due(100_001), [ConnId(3)]);
    }

    #[test]
    fn a_timer_never_fires_early() {
        assert_eq!(tick_of(Mono(1)), 1);
        assert_eq!(tick_of(Mono(TIMER_TICK_MS * 1_000)), 1);
    }
}
