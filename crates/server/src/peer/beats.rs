//! Every tenth of a second: tell the peers what this node leads, and look who has gone silent (H20, H56).

use std::sync::Arc;
use std::time::Duration;

use tokio::time::MissedTickBehavior;
use wk_cluster::Liveness;

use crate::former;
use crate::hub::Wakes;
use crate::limits::BEAT_MS;
use crate::parts::Parts;

/// Runs until the node is gone.
pub(crate) async fn run(parts: Arc<Parts>) {
    let mut ticks = tokio::time::interval(Duration::from_millis(BEAT_MS));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        ticks.tick().await;
        beat(&parts);
    }
}

fn beat(parts: &Parts) {
    let mesh = &parts.mesh;
    // A node that cannot write is nobody's leader.
    if !parts.gate.is_broken() {
        mesh.beat(parts.offices());
    }
    let now = parts.clock.now();
    let mut wakes = Wakes::default();
    for (node, liveness) in mesh.changes(now) {
        tracing::info!(%node, ?liveness, "peer");
        parts.presence.peer_is(node, liveness, &mut wakes);
        if liveness == Liveness::Gone
            && let Some(peer) = mesh.peer(node)
        {
            // It may be back any moment: then everything starts afresh, and both sides know it.
            peer.end.notify_waiters();
        }
    }
    former::look(parts);
    let mut news = mesh.overdue(now);
    parts.route.report(&mut news, &mut wakes);
    parts.hub.wake(wakes);
}
