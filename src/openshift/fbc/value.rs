//! One document as a tree, and its one canonical text.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

/// Deepest nesting that is read. The deepest known document has 26 levels.
pub(super) const DEEPEST: usize = 120;

/// What a document holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// `null`
    Null,
    /// `true` or `false`
    Bool(bool),
    /// A number, in the digits it was written with.
    Number(String),
    /// A string.
    Text(String),
    /// A list.
    List(Vec<Value>),
    /// An object.
    Map(BTreeMap<String, Value>),
}

/// Why a text is not one value, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Flaw {
    /// In bytes from the start of the text.
    pub(super) offset: usize,
    pub(super) reason: String,
}

impl Value {
    /// Reads exactly one JSON value; a key that occurs twice in an object has the same value both times.
    pub(super) fn from_json(bytes: &[u8]) -> Result<Self, Flaw> {
        let text = std::str::from_utf8(bytes).map_err(|error| Flaw {
            offset: error.valid_up_to(),
            reason: "the text is not UTF-8".to_owned(),
        })?;
        let mut reader = Reader {
            bytes: text.as_bytes(),
            text,
            at: 0,
        };
        let value = reader.value(0)?;
        reader.space();
        if reader.at < bytes.len() {
            return Err(reader.flaw("expected nothing after the value"));
        }
        Ok(value)
    }

    /// The value of `key`, where this is an object that has it.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&Self> {
        match self {
            Self::Map(entries) => entries.get(key),
            _ => None,
        }
    }

    /// The value of `key` to change, where this is an object that has it.
    pub fn get_mut(&mut self, key: &str) -> Option<&mut Self> {
        match self {
            Self::Map(entries) => entries.get_mut(key),
            _ => None,
        }
    }

    /// The string, where this is one.
    #[must_use]
    pub fn as_text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The canonical JSON text, on one line.
    #[must_use]
    pub fn to_json(&self) -> String {
        let mut out = String::new();
        self.write(&mut out);
        out
    }

    fn write(&self, out: &mut String) {
        match self {
            Self::Null => out.push_str("null"),
            Self::Bool(true) => out.push_str("true"),
            Self::Bool(false) => out.push_str("false"),
            Self::Number(digits) => out.push_str(digits),
            Self::Text(text) => write_text(text, out),
            Self::List(items) => {
                out.push('[');
                for (index, item) in items.iter().enumerate() {
                    if index > 0 {
                        out.push(',');
                    }
                    item.write(out);
                }
                out.push(']');
            }
            Self::Map(entries) => {
                out.push('{');
                for (index, (key, value)) in entries.iter().enumerate() {
                    if index > 0 {
                        out.push(',');
                    }
                    write_text(key, out);
                    out.push(':');
                    value.write(out);
                }
                out.push('}');
            }
        }
    }
}

fn write_text(text: &str, out: &mut String) {
    out.push('"');
    let mut plain = 0;
    for (index, byte) in text.bytes().enumerate() {
        let escape = match byte {
            b'"' => "\\\"",
            b'\\' => "\\\\",
            0x08 => "\\b",
            b'\t' => "\\t",
            b'\n' => "\\n",
            0x0c => "\\f",
            b'\r' => "\\r",
            0..0x20 => "\\u00",
            _ => continue,
        };
        out.push_str(&text[plain..index]);
        out.push_str(escape);
        if escape.len() == 4 {
            out.push_str(&crate::digest::hex(&[byte]));
        }
        plain = index + 1;
    }
    out.push_str(&text[plain..]);
    out.push('"');
}

/// Whether a text is a number as JSON writes it.
pub(super) fn is_number(text: &str) -> bool {
    let mut reader = Reader {
        bytes: text.as_bytes(),
        text,
        at: 0,
    };
    reader.number().is_ok() && reader.at == text.len()
}

struct Reader<'t> {
    bytes: &'t [u8],
    text: &'t str,
    at: usize,
}

impl Reader<'_> {
    fn flaw(&self, reason: &str) -> Flaw {
        let found = match self.text[self.at.min(self.text.len())..].chars().next() {
            Some(character) => format!("{character:?}"),
            None => "the end".to_owned(),
        };
        Flaw {
            offset: self.at,
            reason: format!("{reason}, found {found}"),
        }
    }

    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    fn value(&mut self, depth: usize) -> Result<Value, Flaw> {
        self.space();
        if depth > DEEPEST {
            return Err(Flaw {
                offset: self.at,
                reason: format!("nested deeper than {DEEPEST} levels"),
            });
        }
        match self.peek() {
            Some(b'{') => self.map(depth),
            Some(b'[') => self.list(depth),
            Some(b'"') => self.string().map(Value::Text),
            Some(b'-' | b'0'..=b'9') => self.number().map(Value::Number),
            _ => {
                for (word, value) in [
                    ("null", Value::Null),
                    ("true", Value::Bool(true)),
                    ("false", Value::Bool(false)),
                ] {
                    if self.bytes[self.at..].starts_with(word.as_bytes()) {
                        self.at += word.len();
                        return Ok(value);
                    }
                }
                Err(self.flaw("expected a value"))
            }
        }
    }

    fn map(&mut self, depth: usize) -> Result<Value, Flaw> {
        let mut entries = BTreeMap::new();
        self.at += 1;
        self.space();
        if self.peek() == Some(b'}') {
            self.at += 1;
            return Ok(Value::Map(entries));
        }
        loop {
            self.space();
            if self.peek() != Some(b'"') {
                return Err(self.flaw("expected a key"));
            }
            let offset = self.at;
            let key = self.string()?;
            self.space();
            if self.peek() != Some(b':') {
                return Err(self.flaw("expected \":\""));
            }
            self.at += 1;
            let value = self.value(depth + 1)?;
            match entries.entry(key) {
                Entry::Vacant(entry) => {
                    entry.insert(value);
                }
                Entry::Occupied(entry) if *entry.get() == value => {}
                Entry::Occupied(entry) => {
                    return Err(Flaw {
                        offset,
                        reason: format!("key {:?} has two values in one object", entry.key()),
                    });
                }
            }
            self.space();
            match self.peek() {
                Some(b',') => self.at += 1,
                Some(b'}') => {
                    self.at += 1;
                    return Ok(Value::Map(entries));
                }
                _ => return Err(self.flaw("expected \",\" or \"}\"")),
            }
        }
    }

    fn list(&mut self, depth: usize) -> Result<Value, Flaw> {
        let mut items = Vec::new();
        self.at += 1;
        self.space();
        if self.peek() == Some(b']') {
            self.at += 1;
            return Ok(Value::List(items));
        }
        loop {
            items.push(self.value(depth + 1)?);
            self.space();
            match self.peek() {
                Some(b',') => self.at += 1,
                Some(b']') => {
                    self.at += 1;
                    return Ok(Value::List(items));
                }
                _ => return Err(self.flaw("expected \",\" or \"]\"")),
            }
        }
    }

    fn digits(&mut self) -> Result<(), Flaw> {
        let start = self.at;
        while matches!(self.peek(), Some(b'0'..=b'9')) {
            self.at += 1;
        }
        if start == self.at {
            return Err(self.flaw("expected a digit"));
        }
        Ok(())
    }

    fn number(&mut self) -> Result<String, Flaw> {
        let start = self.at;
        if self.peek() == Some(b'-') {
            self.at += 1;
        }
        if self.peek() == Some(b'0') {
            self.at += 1;
        } else {
            self.digits()?;
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            self.digits()?;
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            self.at += 1;
            if matches!(self.peek(), Some(b'+' | b'-')) {
                self.at += 1;
            }
            self.digits()?;
        }
        Ok(self.text[start..self.at].to_owned())
    }

    fn string(&mut self) -> Result<String, Flaw> {
        let opened = self.at;
        self.at += 1;
        let mut out = String::new();
        loop {
            let start = self.at;
            while self
                .peek()
                .is_some_and(|byte| byte != b'"' && byte != b'\\' && byte >= 0x20)
            {
                self.at += 1;
            }
            out.push_str(&self.text[start..self.at]);
            match self.peek() {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(out);
                }
                Some(b'\\') => {
                    let offset = self.at;
                    self.at += 1;
                    let plain = match self.peek() {
                        Some(byte @ (b'"' | b'\\' | b'/')) => char::from(byte),
                        Some(b'b') => '\u{8}',
                        Some(b'f') => '\u{c}',
                        Some(b'n') => '\n',
                        Some(b'r') => '\r',
                        Some(b't') => '\t',
                        Some(b'u') => {
                            self.at += 1;
                            out.push(self.escaped(offset)?);
                            continue;
                        }
                        _ => return Err(self.flaw("expected an escape that JSON has")),
                    };
                    self.at += 1;
                    out.push(plain);
                }
                Some(_) => return Err(self.flaw("control characters must be escaped in a string")),
                None => {
                    return Err(Flaw {
                        offset: opened,
                        reason: "the string does not end".to_owned(),
                    });
                }
            }
        }
    }

    /// The character of `\uXXXX`, or of the two that make a pair; `at` is behind the `u`.
    fn escaped(&mut self, offset: usize) -> Result<char, Flaw> {
        let half = || Flaw {
            offset,
            reason: "half a surrogate pair stands for no character".to_owned(),
        };
        let first = self.four()?;
        let code = match first {
            0xd800..0xdc00 => {
                if !self.bytes[self.at..].starts_with(b"\\u") {
                    return Err(half());
                }
                self.at += 2;
                match self.four()? {
                    second @ 0xdc00..0xe000 => {
                        0x1_0000 + ((first - 0xd800) << 10) + (second - 0xdc00)
                    }
                    _ => return Err(half()),
                }
            }
            code => code,
        };
        char::from_u32(code).ok_or_else(half)
    }

    fn four(&mut self) -> Result<u32, Flaw> {
        let digits = self
            .bytes
            .get(self.at..self.at + 4)
            .filter(|digits| digits.iter().all(u8::is_ascii_hexdigit))
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u32::from_str_radix(digits, 16).ok())
            .ok_or_else(|| self.flaw("expected four hexadecimal digits"))?;
        self.at += 4;
        Ok(digits)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_canonical_text_is_pinned() {
        for (given, expected) in [
            (r#" {"b" : 1.0 , "a":[ ] } "#, r#"{"a":[],"b":1.0}"#),
            (
                r#"{"é":1,"z":2,"A":-0,"B":1E+5}"#,
                r#"{"A":-0,"B":1E+5,"z":2,"é":1}"#,
            ),
            (
                r#"["\u00e9\ud83d\ude00\/<>&\u2028"]"#,
                "[\"é😀/<>&\u{2028}\"]",
            ),
            (
                r#""\u0000\u001F\b\f\n\r\t\"\\""#,
                r#""\u0000\u001f\b\f\n\r\t\"\\""#,
            ),
            (
                "18446744073709551616.000000000000000000001",
                "18446744073709551616.000000000000000000001",
            ),
        ] {
            let value = Value::from_json(given.as_bytes()).unwrap();
            assert_eq!(value.to_json(), expected, "the canonical text of {given}");
            assert_eq!(
                Value::from_json(expected.as_bytes()).unwrap(),
                value,
                "it must read back"
            );
        }
    }

    #[test]
    fn what_readers_disagree_about_is_refused() {
        for (given, offset, part) in [
            (r#"{"a":1,"a":2}"#, 7, "two values"),
            (r#"{"a":{"b":1,"\u0062":null}}"#, 12, "two values"),
            (r#""\ud800""#, 1, "surrogate"),
            (r#""\udc00\ud800""#, 1, "surrogate"),
            ("01", 1, "nothing after"),
            ("1.", 2, "digit"),
            ("[1,]", 3, "value"),
            (r#"{"a":1,}"#, 7, "key"),
            ("\"a\nb\"", 2, "control"),
            (r#""abc"#, 0, "does not end"),
            ("nul", 0, "expected a value"),
            ("", 0, "found the end"),
            (r#""\x""#, 2, "escape"),
            (r#""\u00g0""#, 3, "hexadecimal"),
        ] {
            let flaw = Value::from_json(given.as_bytes()).unwrap_err();
            assert!(
                flaw.reason.contains(part) && flaw.offset == offset,
                "{given}: {flaw:?} must say {part:?} at {offset}"
            );
        }
        let deep = "[".repeat(1 << 20);
        let flaw = Value::from_json(deep.as_bytes()).unwrap_err();
        assert!(flaw.reason.contains("deeper"), "{flaw:?}");
        assert!(
            Value::from_json(b"\"\xff\"").is_err(),
            "bytes that are no text are refused"
        );
    }

    pub(in crate::openshift::fbc) fn any_value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::Bool),
            any::<i64>().prop_map(|number| Value::Number(number.to_string())),
            any::<i32>()
                .prop_map(|number| Value::Number(format!("{:.3}", f64::from(number) / 8.0))),
            any::<String>().prop_map(Value::Text),
        ];
        leaf.prop_recursive(4, 32, 5, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..5).prop_map(Value::List),
                prop::collection::btree_map(any::<String>(), inner, 0..5).prop_map(Value::Map),
            ]
        })
    }

    proptest! {
        #[test]
        fn a_value_survives_printing(value in any_value()) {
            let text = value.to_json();
            prop_assert_eq!(Value::from_json(text.as_bytes()).unwrap(), value);
        }

        #[test]
        fn what_is_read_here_is_what_serde_json_reads(value in any_value(), pretty in any::<bool>()) {
            let theirs: serde_json::Value = serde_json::from_str(&value.to_json()).unwrap();
            let text = if pretty { serde_json::to_string_pretty(&theirs) } else { serde_json::to_string(&theirs) }.unwrap();
            let ours = Value::from_json(text.as_bytes()).unwrap();
            prop_assert_eq!(serde_json::from_str::<serde_json::Value>(&ours.to_json()).unwrap(), theirs);
        }

        #[test]
        fn any_text_is_read_or_refused_as_serde_json_does(text in r#"[\[\]{}",:\\u0-9a-f.eE+\- tnl]{0,24}"#) {
            let theirs = serde_json::from_str::<serde_json::Value>(&text);
            match Value::from_json(text.as_bytes()) {
                Ok(_) => prop_assert!(theirs.is_ok() || text.contains(['e', 'E']), "{:?} is no JSON", text),
                Err(flaw) => prop_assert!(theirs.is_err() || flaw.reason.contains("two values"), "{:?}: {:?}", text, flaw),
            }
        }
    }
}
