//! Where does the next JSON object end? Looks at brackets and strings only; what is inside is the parser's business.

use crate::limits::JSON_BYTES_MAX;

/// Open brackets at any moment of one message. Deeper is a syntax error: no message of ours needs more than four.
pub const JSON_DEPTH_MAX: u8 = 64;

/// Progress through the front of a buffer. Remembers what it has seen, so that an object arriving byte by byte costs
/// linear time.
#[derive(Clone, Debug, Default)]
pub(super) struct Scanner {
    /// Bytes of the buffer already looked at.
    at: usize,
    /// Where the object starts: whitespace comes before it. Meaningful while `depth > 0`.
    start: usize,
    depth: u8,
    in_string: bool,
    /// The last byte was a backslash inside a string.
    escaped: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scan {
    NeedMore,
    /// One bracketed value at `start..end`, perhaps an array, perhaps nonsense inside.
    Value {
        start: usize,
        end: usize,
    },
    /// Starts with neither `{` nor `[`, or is too deep.
    Syntax,
    TooLong,
}

impl Scanner {
    /// Looks at what is new in `buf`, which starts with the same bytes as at the last call that needed more.
    pub(super) fn scan(&mut self, buf: &[u8]) -> Scan {
        while let Some(&byte) = buf.get(self.at) {
            self.at += 1;
            if self.at - self.start > JSON_BYTES_MAX {
                return Scan::TooLong;
            }
            if self.in_string {
                self.string_byte(byte);
                continue;
            }
            match byte {
                b'{' | b'[' if self.depth == JSON_DEPTH_MAX => return Scan::Syntax,
                b'{' | b'[' => self.depth += 1,
                b' ' | b'\t' | b'\n' | b'\r' if self.depth == 0 => self.start = self.at,
                _ if self.depth == 0 => return Scan::Syntax,
                b'"' => self.in_string = true,
                b'}' | b']' => {
                    self.depth -= 1;
                    if self.depth == 0 {
                        return Scan::Value {
                            start: self.start,
                            end: self.at,
                        };
                    }
                }
                _ => {}
            }
        }
        Scan::NeedMore
    }

    fn string_byte(&mut self, byte: u8) {
        match byte {
            _ if self.escaped => self.escaped = false,
            b'\\' => self.escaped = true,
            b'"' => self.in_string = false,
            _ => {}
        }
    }

    /// Bytes before the object that a caller may drop now: whitespace.
    pub(super) fn leading(&self) -> usize {
        if self.depth == 0 { self.at } else { self.start }
    }

    /// Forgets `n` leading bytes, which the caller drops.
    pub(super) fn forget(&mut self, n: usize) {
        self.at -= n;
        self.start -= n;
    }
}
