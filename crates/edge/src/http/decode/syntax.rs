//! JSON text to values, with v2's tolerance and v2's error texts (http-api 1.3).
//!
//! The grammar is RFC 8259; what follows the first value is not looked at. Invalid UTF-8 and lone surrogates become U+FFFD. Numbers
//! keep their text, because whether `1.0` is an integer is the field's business. Does not know any request.

use std::borrow::Cow;

/// Nesting of arrays and objects. No request needs more than four; deeper text is refused.
const DEPTH_MAX: usize = 64;

/// Values in one body, each element of an array and member of an object counting. The largest legal need is a payload of 700 KiB given
/// as an array of numbers. At it the body is refused.
const VALUES_MAX: usize = 1024 * 1024;

/// One JSON value. Texts without escapes point into the body.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Value<'a> {
    Null,
    Bool,
    /// As written.
    Number(&'a str),
    Text(Cow<'a, str>),
    Array(Vec<Value<'a>>),
    /// In order, duplicates included.
    Object(Vec<(Cow<'a, str>, Value<'a>)>),
}

impl Value<'_> {
    /// The name of the kind in error texts.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bool => "bool",
            Self::Number(_) => "number",
            Self::Text(_) => "string",
            Self::Array(_) => "array",
            Self::Object(_) => "object",
        }
    }
}

/// Reads the first value of `body`. The error is the text for the caller.
pub(crate) fn parse(body: &[u8]) -> Result<Value<'_>, String> {
    let mut parser = Parser {
        body,
        at: 0,
        values: 0,
    };
    parser.skip_space();
    if parser.at == body.len() {
        return Err("EOF".to_owned());
    }
    parser.value(0)
}

struct Parser<'a> {
    body: &'a [u8],
    at: usize,
    values: usize,
}

impl<'a> Parser<'a> {
    fn value(&mut self, depth: usize) -> Result<Value<'a>, String> {
        if depth > DEPTH_MAX {
            return Err("exceeded max depth".to_owned());
        }
        self.values += 1;
        if self.values > VALUES_MAX {
            return Err(format!("more than {VALUES_MAX} values"));
        }
        match self.peek()? {
            b'{' => self.object(depth),
            b'[' => self.array(depth),
            b'"' => self.text().map(Value::Text),
            b't' => self.literal(b"true", Value::Bool),
            b'f' => self.literal(b"false", Value::Bool),
            b'n' => self.literal(b"null", Value::Null),
            b'-' | b'0'..=b'9' => self.number(),
            other => Err(unexpected(other, "looking for beginning of value")),
        }
    }

    fn object(&mut self, depth: usize) -> Result<Value<'a>, String> {
        self.at += 1;
        let mut members = Vec::new();
        if self.next_is(b'}')? {
            return Ok(Value::Object(members));
        }
        loop {
            let key = match self.peek()? {
                b'"' => self.text()?,
                other => {
                    return Err(unexpected(
                        other,
                        "looking for beginning of object key string",
                    ));
                }
            };
            self.expect_after(b':', "after object key")?;
            self.skip_space();
            members.push((key, self.value(depth + 1)?));
            if self.closes(b'}', "after object key:value pair")? {
                return Ok(Value::Object(members));
            }
        }
    }

    fn array(&mut self, depth: usize) -> Result<Value<'a>, String> {
        self.at += 1;
        let mut items = Vec::new();
        if self.next_is(b']')? {
            return Ok(Value::Array(items));
        }
        loop {
            items.push(self.value(depth + 1)?);
            if self.closes(b']', "after array element")? {
                return Ok(Value::Array(items));
            }
        }
    }

    /// Skips space; consumes `byte` if it is next.
    fn next_is(&mut self, byte: u8) -> Result<bool, String> {
        self.skip_space();
        let found = self.peek()? == byte;
        self.at += usize::from(found);
        Ok(found)
    }

    fn expect_after(&mut self, byte: u8, context: &str) -> Result<(), String> {
        self.skip_space();
        match self.peek()? {
            found if found == byte => {
                self.at += 1;
                Ok(())
            }
            other => Err(unexpected(other, context)),
        }
    }

    /// Consumes a comma (`false`) or the closing bracket (`true`).
    fn closes(&mut self, bracket: u8, context: &str) -> Result<bool, String> {
        self.skip_space();
        match self.peek()? {
            b',' => {
                self.at += 1;
                self.skip_space();
                Ok(false)
            }
            found if found == bracket => {
                self.at += 1;
                Ok(true)
            }
            other => Err(unexpected(other, context)),
        }
    }

    fn literal(&mut self, word: &[u8], value: Value<'a>) -> Result<Value<'a>, String> {
        for (n, &wanted) in word.iter().enumerate() {
            let found = self.peek()?;
            if n > 0 && found != wanted {
                let word = String::from_utf8_lossy(word);
                let context = format!("in literal {word} (expecting {})", quote(wanted));
                return Err(unexpected(found, &context));
            }
            self.at += 1;
        }
        Ok(value)
    }

    fn number(&mut self) -> Result<Value<'a>, String> {
        let start = self.at;
        self.at += usize::from(self.body[start] == b'-');
        match self.peek()? {
            b'0' => self.at += 1,
            b'1'..=b'9' => self.digits(),
            other => return Err(unexpected(other, "in numeric literal")),
        }
        if self.current() == Some(b'.') {
            self.at += 1;
            self.some_digits("after decimal point in numeric literal")?;
        }
        if matches!(self.current(), Some(b'e' | b'E')) {
            self.at += 1;
            if matches!(self.peek()?, b'+' | b'-') {
                self.at += 1;
            }
            self.some_digits("in exponent of numeric literal")?;
        }
        let text = std::str::from_utf8(&self.body[start..self.at])
            .expect("only ASCII bytes were accepted");
        Ok(Value::Number(text))
    }

    fn some_digits(&mut self, context: &str) -> Result<(), String> {
        let first = self.peek()?;
        if !first.is_ascii_digit() {
            return Err(unexpected(first, context));
        }
        self.digits();
        Ok(())
    }

    fn digits(&mut self) {
        while self.current().is_some_and(|b| b.is_ascii_digit()) {
            self.at += 1;
        }
    }

    fn text(&mut self) -> Result<Cow<'a, str>, String> {
        self.at += 1;
        let start = self.at;
        let plain = self.body[start..]
            .iter()
            .position(|&b| b == b'"' || b == b'\\' || b < 0x20)
            .ok_or_else(truncated)?;
        self.at += plain;
        if self.body[self.at] == b'"' {
            let text = String::from_utf8_lossy(&self.body[start..self.at]);
            self.at += 1;
            return Ok(text);
        }
        self.escaped_text(start).map(Cow::Owned)
    }

    /// The rest of a text whose first special byte is at `self.at`.
    fn escaped_text(&mut self, start: usize) -> Result<String, String> {
        let mut out = self.body[start..self.at].to_vec();
        loop {
            let byte = self.peek()?;
            self.at += 1;
            match byte {
                b'"' => return Ok(lossy(out)),
                b'\\' => self.escape(&mut out)?,
                0..0x20 => return Err(unexpected(byte, "in string literal")),
                other => out.push(other),
            }
        }
    }

    fn escape(&mut self, out: &mut Vec<u8>) -> Result<(), String> {
        let byte = self.peek()?;
        self.at += 1;
        let plain = match byte {
            b'"' | b'\\' | b'/' => byte,
            b'b' => 0x08,
            b'f' => 0x0c,
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            b'u' => {
                let c = self.unicode_escape()?;
                out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
                return Ok(());
            }
            other => return Err(unexpected(other, "in string escape code")),
        };
        out.push(plain);
        Ok(())
    }

    /// The character after `\u`; a pair of surrogates is one character, half a pair is U+FFFD.
    fn unicode_escape(&mut self) -> Result<char, String> {
        let first = self.hex4()?;
        if !(0xd800..0xdc00).contains(&first) {
            return Ok(char::from_u32(first).unwrap_or(char::REPLACEMENT_CHARACTER));
        }
        if !self.body[self.at..].starts_with(b"\\u") {
            return Ok(char::REPLACEMENT_CHARACTER);
        }
        let before = self.at;
        self.at += 2;
        let second = self.hex4()?;
        if (0xdc00..0xe000).contains(&second) {
            let code = 0x1_0000 + ((first - 0xd800) << 10) + (second - 0xdc00);
            return Ok(char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER));
        }
        self.at = before;
        Ok(char::REPLACEMENT_CHARACTER)
    }

    fn hex4(&mut self) -> Result<u32, String> {
        let mut code = 0;
        for _ in 0..4 {
            let byte = self.peek()?;
            let digit = char::from(byte)
                .to_digit(16)
                .ok_or_else(|| unexpected(byte, "in \\u hexadecimal character escape"))?;
            self.at += 1;
            code = code * 16 + digit;
        }
        Ok(code)
    }

    fn skip_space(&mut self) {
        while matches!(self.current(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    fn current(&self) -> Option<u8> {
        self.body.get(self.at).copied()
    }

    fn peek(&self) -> Result<u8, String> {
        self.current().ok_or_else(truncated)
    }
}

fn lossy(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).unwrap_or_else(|e| String::from_utf8_lossy(e.as_bytes()).into_owned())
}

fn truncated() -> String {
    "unexpected EOF".to_owned()
}

fn unexpected(byte: u8, context: &str) -> String {
    format!("invalid character {} {context}", quote(byte))
}

/// A byte as v2's error texts show it.
fn quote(byte: u8) -> String {
    match byte {
        b'\'' => r"'\''".to_owned(),
        b'\\' => r"'\\'".to_owned(),
        b'\n' => r"'\n'".to_owned(),
        b'\r' => r"'\r'".to_owned(),
        b'\t' => r"'\t'".to_owned(),
        0x20..=0x7e | 0xa1..=0xac | 0xae..=0xff => format!("'{}'", char::from(byte)),
        0x80.. => format!("'\\u{byte:04x}'"),
        other => format!("'\\x{other:02x}'"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn error(body: &str) -> String {
        parse(body.as_bytes()).unwrap_err()
    }

    #[test]
    fn texts_of_malformed_bodies() {
        for (body, text) in [
            ("", "EOF"),
            (" \n", "EOF"),
            ("[", "unexpected EOF"),
            ("{\"a", "unexpected EOF"),
            ("{\"a\":1", "unexpected EOF"),
            ("x", "invalid character 'x' looking for beginning of value"),
            (
                "nojson",
                "invalid character 'o' in literal null (expecting 'u')",
            ),
            (
                "{bad",
                "invalid character 'b' looking for beginning of object key string",
            ),
            (
                "{\"a\":1,}",
                "invalid character '}' looking for beginning of object key string",
            ),
            ("{\"a\" 1}", "invalid character '1' after object key"),
            (
                "{\"a\":01}",
                "invalid character '1' after object key:value pair",
            ),
            ("[1 2]", "invalid character '2' after array element"),
            (
                "[1,]",
                "invalid character ']' looking for beginning of value",
            ),
            ("-x", "invalid character 'x' in numeric literal"),
            (
                "1.x",
                "invalid character 'x' after decimal point in numeric literal",
            ),
            (
                "1ex",
                "invalid character 'x' in exponent of numeric literal",
            ),
            ("\"a\nb\"", "invalid character '\\n' in string literal"),
            ("\"\\q\"", "invalid character 'q' in string escape code"),
            (
                "\"\\u00g0\"",
                "invalid character 'g' in \\u hexadecimal character escape",
            ),
            (
                "\u{1f}",
                "invalid character '\\x1f' looking for beginning of value",
            ),
            ("中", "invalid character 'ä' looking for beginning of value"),
        ] {
            assert_eq!(error(body), text, "{body:?}");
        }
    }

    #[test]
    fn reads_texts_and_ignores_what_follows() {
        let text = |body: &[u8]| match parse(body).unwrap() {
            Value::Text(t) => t.into_owned(),
            other => panic!("{other:?}"),
        };
        assert_eq!(text(b"\"a\" trailing"), "a");
        assert_eq!(text(br#""\u4e2d\ud83d\ude00\n\/""#), "中😀\n/");
        assert_eq!(text(br#""\ud83dx""#), "\u{fffd}x");
        assert_eq!(text(br#""\ud83d\u0041""#), "\u{fffd}A");
        assert_eq!(text(b"\"a\xffb\""), "a\u{fffd}b");
        assert_eq!(text(b"\"\\n\xff\""), "\n\u{fffd}");
    }

    #[test]
    fn bounds_depth_and_count() {
        let deep = |n: usize| format!("{}1{}", "[".repeat(n), "]".repeat(n));
        assert!(parse(deep(DEPTH_MAX).as_bytes()).is_ok());
        assert_eq!(error(&deep(DEPTH_MAX + 1)), "exceeded max depth");
        let wide = format!("[{}1]", "1,".repeat(VALUES_MAX));
        assert!(error(&wide).starts_with("more than"));
    }

    /// The same value as another parser, leaving out what [`Value`] does not keep.
    fn same(ours: &Value<'_>, theirs: &serde_json::Value) -> bool {
        match (ours, theirs) {
            (Value::Null, serde_json::Value::Null) | (Value::Bool, serde_json::Value::Bool(_)) => {
                true
            }
            (Value::Number(text), serde_json::Value::Number(n)) => *text == n.to_string(),
            (Value::Text(a), serde_json::Value::String(b)) => a == b,
            (Value::Array(a), serde_json::Value::Array(b)) => {
                a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b))
            }
            (Value::Object(a), serde_json::Value::Object(b)) => {
                a.len() == b.len() && a.iter().all(|(key, value)| same(value, &b[&**key]))
            }
            _ => false,
        }
    }

    fn any_json() -> impl Strategy<Value = serde_json::Value> {
        let leaf = prop_oneof![
            Just(serde_json::Value::Null),
            any::<bool>().prop_map(Into::into),
            any::<i64>().prop_map(Into::into),
            ".*".prop_map(Into::into),
        ];
        leaf.prop_recursive(4, 64, 8, |inner| {
            let list = proptest::collection::vec(inner.clone(), 0..8);
            let map = proptest::collection::btree_map(".*", inner, 0..8);
            prop_oneof![
                list.prop_map(Into::into),
                map.prop_map(|m| serde_json::Value::Object(m.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn any_json_is_read_as_by_another_parser(value in any_json(), pretty: bool) {
            let text = if pretty { format!("{value:#}") } else { value.to_string() };
            prop_assert!(same(&parse(text.as_bytes()).unwrap(), &value), "{}", text);
        }

        /// Accepted or refused, never a panic; what is refused as a whole is refused by the other parser, too.
        #[test]
        fn any_bytes_are_survived(bytes: Vec<u8>) {
            let _ = parse(&bytes);
        }

        #[test]
        fn any_json_like_text_is_survived(text in r#"[\[\]{}",:\\u0-9dDtfnrale.+ -]{0,40}"#) {
            if parse(text.as_bytes()).is_err() {
                prop_assert!(serde_json::from_str::<serde_json::Value>(&text).is_err(), "{}", text);
            }
        }
    }
}
