//! What happened, as a hash of everything and, if wanted, as lines.

use std::fmt::{self, Write as _};
use std::io::Write;

use wk_proto::Mono;

/// One line per event. Equal hashes mean equal runs.
pub(crate) struct Trace {
    hash: u64,
    lines: u64,
    line: String,
    dump: Option<Box<dyn Write>>,
}

impl Trace {
    /// Lines also go to `dump`, if there is one.
    pub(crate) fn new(dump: Option<Box<dyn Write>>) -> Self {
        Self {
            hash: 0xcbf2_9ce4_8422_2325,
            lines: 0,
            line: String::new(),
            dump,
        }
    }

    pub(crate) fn note(&mut self, now: Mono, what: fmt::Arguments<'_>) {
        self.line.clear();
        // Writing to a String cannot fail.
        let _ = write!(self.line, "{}.{:03} {what}", now.0 / 1_000, now.0 % 1_000);
        let sum = u64::from(crc32c::crc32c(self.line.as_bytes()));
        self.hash = (self.hash.rotate_left(5) ^ sum).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.lines += 1;
        if let Some(dump) = &mut self.dump {
            // A reader that went away is no reason to stop.
            let _ = writeln!(dump, "{}", self.line);
        }
    }

    pub(crate) fn hash(&self) -> u64 {
        self.hash
    }

    pub(crate) fn lines(&self) -> u64 {
        self.lines
    }
}
