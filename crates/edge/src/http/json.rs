//! JSON answers, written straight into one buffer (http-api 1.4). Escapes what v2 escapes: `<`, `>`, `&`, U+2028 and U+2029 too.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// A JSON text under construction. Callers give members in the order v2 shows them.
#[derive(Debug, Default)]
pub(crate) struct Json {
    out: Vec<u8>,
    /// A value was written at this level, so the next one needs a comma.
    comma: bool,
}

impl Json {
    pub(crate) fn with_capacity(bytes: usize) -> Self {
        Self {
            out: Vec::with_capacity(bytes),
            comma: false,
        }
    }

    pub(crate) fn into_bytes(self) -> Vec<u8> {
        self.out
    }

    pub(crate) fn object(&mut self, members: impl FnOnce(&mut Self)) -> &mut Self {
        self.nested(b'{', b'}', members)
    }

    pub(crate) fn array(&mut self, items: impl FnOnce(&mut Self)) -> &mut Self {
        self.nested(b'[', b']', items)
    }

    /// The name of the next member; `name` needs no escape.
    pub(crate) fn key(&mut self, name: &str) -> &mut Self {
        self.separate();
        self.out.push(b'"');
        self.out.extend_from_slice(name.as_bytes());
        self.out.extend_from_slice(b"\":");
        self.comma = false;
        self
    }

    pub(crate) fn text(&mut self, text: &str) -> &mut Self {
        self.separate();
        push_text(&mut self.out, text);
        self
    }

    pub(crate) fn int(&mut self, n: impl itoa::Integer) -> &mut Self {
        self.separate();
        push_int(&mut self.out, n);
        self
    }

    /// An integer as a text of digits.
    pub(crate) fn int_text(&mut self, n: impl itoa::Integer) -> &mut Self {
        let mut digits = itoa::Buffer::new();
        self.text(digits.format(n))
    }

    /// A finite number; anything else is 0.
    pub(crate) fn float(&mut self, n: f64) -> &mut Self {
        self.separate();
        let n = if n.is_finite() { n } else { 0.0 };
        self.out.extend_from_slice(n.to_string().as_bytes());
        self
    }

    pub(crate) fn bool(&mut self, yes: bool) -> &mut Self {
        self.raw(if yes { b"true" } else { b"false" })
    }

    pub(crate) fn null(&mut self) -> &mut Self {
        self.raw(b"null")
    }

    /// One value that the caller writes byte for byte: what is written a thousand times an answer.
    pub(crate) fn by_hand(&mut self, write: impl FnOnce(&mut Vec<u8>)) -> &mut Self {
        self.separate();
        write(&mut self.out);
        self
    }

    pub(crate) fn texts<'a>(&mut self, items: impl IntoIterator<Item = &'a str>) -> &mut Self {
        self.array(|json| {
            for item in items {
                json.text(item);
            }
        })
    }

    /// Text that is JSON already.
    pub(crate) fn raw(&mut self, json: &[u8]) -> &mut Self {
        self.separate();
        self.out.extend_from_slice(json);
        self
    }

    fn nested(&mut self, open: u8, close: u8, inside: impl FnOnce(&mut Self)) -> &mut Self {
        self.separate();
        self.out.push(open);
        self.comma = false;
        inside(self);
        self.out.push(close);
        self.comma = true;
        self
    }

    fn separate(&mut self) {
        if self.comma {
            self.out.push(b',');
        }
        self.comma = true;
    }
}

pub(crate) fn push_text(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    escape(text, out);
    out.push(b'"');
}

pub(crate) fn push_int(out: &mut Vec<u8>, n: impl itoa::Integer) {
    let mut digits = itoa::Buffer::new();
    out.extend_from_slice(digits.format(n).as_bytes());
}

pub(crate) fn push_base64(out: &mut Vec<u8>, bytes: &[u8]) {
    out.push(b'"');
    let start = out.len();
    out.resize(start + bytes.len().div_ceil(3) * 4, 0);
    let written = STANDARD
        .encode_slice(bytes, &mut out[start..])
        .expect("the buffer has the length of the text");
    out.truncate(start + written);
    out.push(b'"');
}

fn escape(text: &str, out: &mut Vec<u8>) {
    let bytes = text.as_bytes();
    let mut done = 0;
    for (at, &byte) in bytes.iter().enumerate() {
        if !ESCAPED[usize::from(byte)] {
            continue;
        }
        let rest = &bytes[at..];
        let (length, escaped): (usize, &[u8]) = match byte {
            b'"' => (1, b"\\\""),
            b'\\' => (1, b"\\\\"),
            b'\n' => (1, b"\\n"),
            b'\r' => (1, b"\\r"),
            b'\t' => (1, b"\\t"),
            0xe2 if rest.starts_with("\u{2028}".as_bytes()) => (3, b"\\u2028"),
            0xe2 if rest.starts_with("\u{2029}".as_bytes()) => (3, b"\\u2029"),
            0xe2 => continue,
            control => {
                out.extend_from_slice(&bytes[done..at]);
                push_code(control, out);
                done = at + 1;
                continue;
            }
        };
        out.extend_from_slice(&bytes[done..at]);
        out.extend_from_slice(escaped);
        done = at + length;
    }
    out.extend_from_slice(&bytes[done..]);
}

/// Bytes that are not copied as they are. 0xe2 starts U+2028 and U+2029, among others.
const ESCAPED: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        table[byte] = byte < 0x20 || matches!(byte as u8, b'"' | b'\\' | b'<' | b'>' | b'&' | 0xe2);
        byte += 1;
    }
    table
};

fn push_code(byte: u8, out: &mut Vec<u8>) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    out.extend_from_slice(b"\\u00");
    out.push(HEX[usize::from(byte >> 4)]);
    out.push(HEX[usize::from(byte & 15)]);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text_of(json: Json) -> String {
        String::from_utf8(json.into_bytes()).unwrap()
    }

    #[test]
    fn commas_and_nesting() {
        let mut json = Json::default();
        json.object(|o| {
            o.key("a").array(|a| {
                a.int(1).int(-2_i64).object(|_| ());
            });
            o.key("b").texts(["x", "y"]);
            o.key("c").null().key("d").bool(true).key("e").float(1.5);
            o.key("f").by_hand(|out| push_base64(out, b"hi"));
            o.key("g").int_text(7_u8);
        });
        assert_eq!(
            text_of(json),
            r#"{"a":[1,-2,{}],"b":["x","y"],"c":null,"d":true,"e":1.5,"f":"aGk=","g":"7"}"#
        );
    }

    #[test]
    fn escapes_like_v2() {
        let mut json = Json::default();
        json.text("a\"\\<>&\n\u{1}\u{2028}\u{2029}€中");
        assert_eq!(
            text_of(json),
            r#""a\"\\\u003c\u003e\u0026\n\u0001\u2028\u2029€中""#
        );
    }

    proptest::proptest! {
        #[test]
        fn any_text_reads_back(text in ".*") {
            let mut json = Json::default();
            json.text(&text);
            let read: String = serde_json::from_slice(&json.into_bytes()).unwrap();
            proptest::prop_assert_eq!(read, text);
        }
    }
}
