//! Time as an argument: the cores never read a clock (decisions D1).

use std::ops::{Add, Sub};

/// Microseconds on the process's monotonic clock. Only differences mean anything.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mono(pub u64);

impl Mono {
    /// This moment plus `ms` milliseconds.
    pub const fn plus_ms(self, ms: u64) -> Self {
        Self(self.0.saturating_add(ms.saturating_mul(1_000)))
    }

    /// Microseconds since `earlier`; 0 if `earlier` is later.
    pub const fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl Add<std::time::Duration> for Mono {
    type Output = Self;
    fn add(self, d: std::time::Duration) -> Self {
        Self(
            self.0
                .saturating_add(u64::try_from(d.as_micros()).unwrap_or(u64::MAX)),
        )
    }
}

impl Sub for Mono {
    type Output = std::time::Duration;
    fn sub(self, other: Self) -> std::time::Duration {
        std::time::Duration::from_micros(self.since(other))
    }
}

/// Milliseconds since 1970 on the wall clock. Chosen by a leader when it ends up in replicated state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WallMs(pub u64);

impl WallMs {
    /// Whole seconds, as the wire and the HTTP API carry them.
    pub const fn secs(self) -> u64 {
        self.0 / 1_000
    }
}
