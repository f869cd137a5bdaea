//! The node's clocks. The only place of this crate that reads them for the cores.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use wk_proto::{Mono, WallMs};

/// Monotonic time since the node started, and wall time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    start: Instant,
}

impl Clock {
    pub(crate) fn new() -> Self {
        Self {
            start: Instant::now(),
        }
    }

    pub(crate) fn now(&self) -> Mono {
        Mono(u64::try_from(self.start.elapsed().as_micros()).unwrap_or(u64::MAX))
    }

    /// How long until `at`; zero if it passed.
    pub(crate) fn until(&self, at: Mono) -> Duration {
        at - self.now()
    }

    /// A clock before 1970 reads as 1970.
    pub(crate) fn wall(&self) -> WallMs {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        WallMs(since.map_or(0, |d| u64::try_from(d.as_millis()).unwrap_or(u64::MAX)))
    }
}

/// CPU time this thread has used.
pub(crate) fn thread_cpu() -> std::time::Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    let (secs, nanos) = (time.tv_sec.cast_unsigned(), time.tv_nsec as u32);
    std::time::Duration::new(secs, nanos)
}
