//! Standard base64 with padding, as lenient as the clients' own decoders.

use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{GeneralPurpose, GeneralPurposeConfig};
use bytes::BytesMut;

/// Padding required, stray bits in the last character ignored, as Go and browsers do.
pub(crate) const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_allow_trailing_bits(true),
);

/// Appends what `text` encodes to `out`. CR and LF are skipped: some encoders wrap lines. `None`, and `out` as before,
/// if it is not base64.
pub(crate) fn decode_into(text: &[u8], out: &mut BytesMut) -> Option<()> {
    decode_exact(text, out).or_else(|| {
        let is_break = |b: &u8| matches!(b, b'\r' | b'\n');
        if !text.iter().any(is_break) {
            return None;
        }
        let joined: Vec<u8> = text.iter().copied().filter(|b| !is_break(b)).collect();
        decode_exact(&joined, out)
    })
}

fn decode_exact(text: &[u8], out: &mut BytesMut) -> Option<()> {
    let start = out.len();
    out.resize(start + base64::decoded_len_estimate(text.len()), 0);
    let decoded = BASE64.decode_slice(text, &mut out[start..]).ok();
    out.truncate(start + decoded.unwrap_or(0));
    decoded.map(|_| ())
}
