//! Query parameters and path parts. Lenient, as v2: a number that cannot be read is 0.

use std::borrow::Cow;

/// Parameters of one request, in order.
#[derive(Debug, Default)]
pub(super) struct Params(Vec<(String, String)>);

/// Parameters looked at; more are ignored.
const PARAMS_MAX: usize = 64;

impl Params {
    pub(super) fn parse(query: &str) -> Self {
        let pairs = query.split('&').filter(|part| !part.is_empty());
        let pairs = pairs.take(PARAMS_MAX).map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decoded(name).into_owned(), decoded(value).into_owned())
        });
        Self(pairs.collect())
    }

    /// The first value of a parameter; empty if it is absent.
    pub(super) fn text(&self, name: &str) -> &str {
        let found = self.0.iter().find(|(key, _)| key == name);
        found.map_or("", |(_, value)| value)
    }

    pub(super) fn int(&self, name: &str) -> i64 {
        self.text(name).parse().unwrap_or(0)
    }

    pub(super) fn u64(&self, name: &str) -> u64 {
        self.text(name).parse().unwrap_or(0)
    }

    /// A number above 255 is 255.
    pub(super) fn u8(&self, name: &str) -> u8 {
        u8::try_from(self.u64(name)).unwrap_or(u8::MAX)
    }
}

/// One part of a path, `%xx` undone.
pub(super) fn path_part(text: &str) -> Cow<'_, str> {
    unescaped(text, false)
}

fn decoded(text: &str) -> Cow<'_, str> {
    unescaped(text, true)
}

/// `%xx` undone, and `+` where it means a space; what is not UTF-8 becomes U+FFFD.
fn unescaped(text: &str, plus_is_space: bool) -> Cow<'_, str> {
    if !text.contains(['%', '+']) {
        return Cow::Borrowed(text);
    }
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        match (byte, after) {
            (b'+', _) if plus_is_space => out.push(b' '),
            (b'%', [high, low, after @ ..]) => match (hex(*high), hex(*low)) {
                (Some(high), Some(low)) => {
                    out.push(high << 4 | low);
                    rest = after;
                }
                _ => out.push(byte),
            },
            _ => out.push(byte),
        }
    }
    Cow::Owned(String::from_utf8_lossy(&out).into_owned())
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).map(|d| d as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_lenient() {
        let params = Params::parse("uid=a%40b+c&limit=x&channel_type=300&n=7&uid=z&flag&bad=%zz%4");
        assert_eq!(params.text("uid"), "a@b c");
        assert_eq!((params.int("limit"), params.int("n")), (0, 7));
        assert_eq!((params.u8("channel_type"), params.u8("n")), (255, 7));
        assert_eq!((params.text("flag"), params.text("none")), ("", ""));
        assert_eq!(params.text("bad"), "%zz%4");
        assert_eq!(path_part("a+b%20c"), "a+b c");
        assert_eq!(Params::parse("q=%E4%B8%AD").text("q"), "中");
    }
}
