//! Base64 as the send routes take it: standard alphabet, padding required, CR and LF inside ignored (http-api 1.3).

use std::borrow::Cow;

use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::{GeneralPurpose, GeneralPurposeConfig};

/// Unused bits of the last character may be anything, as in v2.
const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_allow_trailing_bits(true),
);

/// The bytes of `text`, or v2's error text with the position of the first byte that is wrong.
pub(crate) fn decode(text: &str) -> Result<Vec<u8>, String> {
    let joined: Cow<'_, str> = if text.contains(['\r', '\n']) {
        text.replace(['\r', '\n'], "").into()
    } else {
        text.into()
    };
    LENIENT.decode(joined.as_bytes()).map_err(|_| {
        let at = first_wrong(text.as_bytes());
        format!("illegal base64 data at input byte {at}")
    })
}

/// Where v2's decoder stops. `text` is known to be wrong.
fn first_wrong(text: &[u8]) -> usize {
    let mut significant = text
        .iter()
        .enumerate()
        .filter(|(_, b)| !matches!(b, b'\r' | b'\n'));
    let mut in_group = 0;
    while let Some((at, &byte)) = significant.next() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'+' | b'/' => in_group = (in_group + 1) % 4,
            b'=' if in_group == 2 => {
                return match significant.next() {
                    None => text.len(),
                    Some((second, b'=')) => significant.next().map_or(second, |(at, _)| at),
                    Some((second, _)) => second.saturating_sub(1).max(at),
                };
            }
            b'=' if in_group == 3 => return significant.next().map_or(at, |(next, _)| next),
            _ => return at,
        }
    }
    text.len() - in_group
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepts_what_v2_accepts() {
        for (text, bytes) in [
            ("", &b""[..]),
            ("aGk=", b"hi"),
            ("aG\r\nk=\n", b"hi"),
            ("aGl=", b"hi"),
            ("AP8=", b"\x00\xff"),
        ] {
            assert_eq!(decode(text).unwrap(), bytes, "{text:?}");
        }
    }

    #[test]
    fn names_the_first_wrong_byte() {
        for (text, at) in [
            ("@@", 0),
            ("aGk", 0),
            ("aGkxa", 4),
            ("aG-k", 2),
            ("aG=", 3),
            ("aGk=x", 4),
            ("aG==x", 4),
            ("a===", 1),
        ] {
            let text_of = format!("illegal base64 data at input byte {at}");
            assert_eq!(decode(text).unwrap_err(), text_of, "{text:?}");
        }
    }
}
