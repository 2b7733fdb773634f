//! A file of a catalog as a stream of documents: where each starts and ends, its schema, package and name.

use std::borrow::Cow;
use std::io::Read;

use serde::Deserialize;

use super::value::{Flaw, Value};
use super::{FbcError, PACKAGE, Place, yaml};

/// How much is asked of the reader at a time.
const CHUNK: u64 = 256 << 10;

/// How a document is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// A JSON object.
    Json,
    /// A YAML document.
    Yaml,
}

/// One document as it stands in the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawDocument {
    /// Its own bytes, without separators.
    pub bytes: Vec<u8>,
    /// The line it starts at, from 1.
    pub line: u64,
    /// How it is written.
    pub format: Format,
}

/// What tells a document from others.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Head {
    /// `olm.bundle` and so on.
    pub schema: String,
    /// Whose it is; empty for a document of the whole catalog.
    pub package: String,
    /// Its name; empty where it has none.
    pub name: String,
}

#[derive(Deserialize)]
struct Keys<'d> {
    #[serde(borrow, default)]
    schema: Option<Cow<'d, str>>,
    #[serde(borrow, default)]
    package: Option<Cow<'d, str>>,
    #[serde(borrow, default)]
    name: Option<Cow<'d, str>>,
}

impl Head {
    fn of(schema: Option<&str>, package: Option<&str>, name: Option<&str>) -> Result<Self, String> {
        let schema = schema
            .filter(|schema| !schema.is_empty())
            .ok_or("the document has no schema")?;
        let name = name.unwrap_or_default();
        let package = if schema == PACKAGE {
            name
        } else {
            package.unwrap_or_default()
        };
        if schema == PACKAGE && name.is_empty() {
            return Err("an olm.package has no name".to_owned());
        }
        Ok(Self {
            schema: schema.to_owned(),
            package: package.to_owned(),
            name: name.to_owned(),
        })
    }

    pub(super) fn of_value(value: &Value) -> Result<Self, String> {
        let text = |key: &str| match value.get(key) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::Text(text)) => Ok(Some(text.as_str())),
            Some(_) => Err(format!("{key} is not a string")),
        };
        Self::of(text("schema")?, text("package")?, text("name")?)
    }
}

impl RawDocument {
    /// The whole document.
    pub fn value(&self, member: &str) -> Result<Value, FbcError> {
        let value = match self.format {
            Format::Json => Value::from_json(&self.bytes).map_err(|Flaw { offset, reason }| {
                let line = memchr::memchr_iter(b'\n', &self.bytes[..offset.min(self.bytes.len())])
                    .count() as u64;
                self.flaw(member, line, reason)
            })?,
            Format::Yaml => yaml::read(&self.bytes)
                .map_err(|Flaw { offset, reason }| self.flaw(member, offset as u64, reason))?,
        };
        match value {
            Value::Map(_) => Ok(value),
            _ => Err(self.flaw(member, 0, "expected an object".to_owned())),
        }
    }

    /// What tells it from others, without reading the rest.
    ///
    /// A YAML document whose upper level is not one simple line per key is read as a whole.
    pub fn head(&self, member: &str) -> Result<Head, FbcError> {
        let flaw = |reason: String| self.flaw(member, 0, reason);
        match self.format {
            Format::Json => {
                let Ok(keys) = serde_json::from_slice::<Keys<'_>>(&self.bytes) else {
                    return Head::of_value(&self.value(member)?).map_err(flaw);
                };
                Head::of(
                    keys.schema.as_deref(),
                    keys.package.as_deref(),
                    keys.name.as_deref(),
                )
                .map_err(flaw)
            }
            Format::Yaml => match simple_head(&self.bytes) {
                Some(keys) => Head::of(keys[0], keys[1], keys[2]).map_err(flaw),
                None => Head::of_value(&self.value(member)?).map_err(flaw),
            },
        }
    }

    fn flaw(&self, member: &str, line: u64, reason: String) -> FbcError {
        FbcError::Document {
            place: Place {
                member: member.to_owned(),
                line: self.line + line,
            },
            reason,
        }
    }
}

/// Values of the three keys, where every line of the upper level is `key:` or `key: value` and the three values end
/// on their lines and cannot be anything but strings; `None` where that is not sure.
fn simple_head(bytes: &[u8]) -> Option<[Option<&str>; 3]> {
    let mut found = [None; 3];
    // Whether what is indented belongs to the key above.
    let mut open = false;
    for line in std::str::from_utf8(bytes).ok()?.lines() {
        if line.starts_with('#') || line.trim().is_empty() {
            continue;
        }
        if line.starts_with([' ', '\t']) || line.starts_with("- ") {
            if !open {
                return None;
            }
            continue;
        }
        let (key, value) = match line.split_once(": ") {
            Some((key, value)) => (key, value.trim()),
            None => (line.strip_suffix(':')?, ""),
        };
        if key.is_empty() || !key.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            return None;
        }
        let quoted = simple_quoted(value);
        if value.starts_with(['"', '\'', '{', '[', '&', '*', '!', '?']) && !quoted {
            return None;
        }
        open = !quoted;
        let Some(slot) = ["schema", "package", "name"]
            .iter()
            .position(|name| *name == key)
        else {
            continue;
        };
        open = false;
        let plain = value
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"._-/".contains(&byte))
            && yaml::is_text(value);
        let value = if quoted {
            &value[1..value.len() - 1]
        } else if plain {
            value
        } else {
            return None;
        };
        if found[slot].replace(value).is_some() {
            return None;
        }
    }
    Some(found)
}

/// Whether a text is a quoted string without anything that needs to be unquoted.
fn simple_quoted(value: &str) -> bool {
    let quote = value.as_bytes().first().copied();
    value.len() >= 2
        && matches!(quote, Some(b'"' | b'\''))
        && value.as_bytes().last().copied() == quote
        && !value[1..value.len() - 1].contains(['"', '\'', '\\'])
}

/// The documents of one file, in its order.
///
/// Holds one document and one chunk at a time.
pub struct Documents<'m, R> {
    reader: R,
    member: &'m str,
    limit: u64,
    buffer: Vec<u8>,
    /// Bytes of the buffer that have been given out.
    start: usize,
    line: u64,
    ended: bool,
    format: Option<Format>,
    failed: bool,
}

impl<'m, R: Read> Documents<'m, R> {
    /// Reads `member`; a document longer than `limit` bytes is an error.
    pub fn new(reader: R, member: &'m str, limit: u64) -> Self {
        Self {
            reader,
            member,
            limit,
            buffer: Vec::new(),
            start: 0,
            line: 1,
            ended: false,
            format: None,
            failed: false,
        }
    }

    /// Asks for more; false at the end of the file.
    fn fill(&mut self) -> Result<bool, FbcError> {
        if self.ended {
            return Ok(false);
        }
        if self.start > 0 {
            self.buffer.drain(..self.start);
            self.start = 0;
        }
        if self.buffer.len() as u64 > self.limit {
            return Err(FbcError::Limit {
                place: Place {
                    member: self.member.to_owned(),
                    line: self.line,
                }
                .to_string(),
                what: "the size of a document",
                limit: self.limit,
            });
        }
        let mut chunk = self.reader.by_ref().take(CHUNK);
        let read = chunk
            .read_to_end(&mut self.buffer)
            .map_err(|source| FbcError::Io {
                place: self.member.to_owned(),
                source,
            })?;
        self.ended = read == 0;
        Ok(read > 0)
    }

    fn flaw(&self, reason: impl Into<String>) -> FbcError {
        FbcError::Document {
            place: Place {
                member: self.member.to_owned(),
                line: self.line,
            },
            reason: reason.into(),
        }
    }

    /// Drops `length` bytes and counts their lines.
    fn skip(&mut self, length: usize) {
        let dropped = &self.buffer[self.start..self.start + length];
        self.line += memchr::memchr_iter(b'\n', dropped).count() as u64;
        self.start += length;
    }

    fn take(&mut self, length: usize, format: Format) -> Result<RawDocument, FbcError> {
        if length as u64 > self.limit {
            return Err(FbcError::Limit {
                place: Place {
                    member: self.member.to_owned(),
                    line: self.line,
                }
                .to_string(),
                what: "the size of a document",
                limit: self.limit,
            });
        }
        let document = RawDocument {
            bytes: self.buffer[self.start..self.start + length].to_vec(),
            line: self.line,
            format,
        };
        self.skip(length);
        Ok(document)
    }

    /// The first byte that is not white space, left in place; `None` at the end of the file.
    fn first(&mut self) -> Result<Option<u8>, FbcError> {
        loop {
            let rest = &self.buffer[self.start..];
            if let Some(at) = rest.iter().position(|byte| !byte.is_ascii_whitespace()) {
                let byte = rest[at];
                self.skip(at);
                return Ok(Some(byte));
            }
            let length = rest.len();
            self.skip(length);
            if !self.fill()? {
                return Ok(None);
            }
        }
    }

    fn next_json(&mut self) -> Result<Option<RawDocument>, FbcError> {
        match self.first()? {
            None => return Ok(None),
            Some(b'{') => {}
            Some(_) => return Err(self.flaw("expected a JSON object")),
        }
        let (mut depth, mut in_string, mut scanned) = (0u64, false, 0usize);
        loop {
            let text = &self.buffer[self.start..];
            while scanned < text.len() {
                if in_string {
                    match memchr::memchr2(b'"', b'\\', &text[scanned..]) {
                        None => scanned = text.len(),
                        Some(at) if text[scanned + at] == b'"' => {
                            scanned += at + 1;
                            in_string = false;
                        }
                        // What follows the backslash may be in the next chunk.
                        Some(at) if scanned + at + 1 < text.len() => scanned += at + 2,
                        Some(at) => {
                            scanned += at;
                            break;
                        }
                    }
                    continue;
                }
                match text[scanned] {
                    b'"' => in_string = true,
                    b'{' | b'[' => depth += 1,
                    b'}' | b']' => depth -= 1,
                    _ => {}
                }
                scanned += 1;
                if depth == 0 {
                    return self.take(scanned, Format::Json).map(Some);
                }
            }
            if !self.fill()? {
                return Err(self.flaw("the object does not end"));
            }
        }
    }

    fn next_yaml(&mut self) -> Result<Option<RawDocument>, FbcError> {
        loop {
            // The document runs to the next line that is a marker.
            let (mut scanned, mut length) = (0usize, None);
            while length.is_none() {
                let text = &self.buffer[self.start..];
                match memchr::memchr(b'\n', &text[scanned..]) {
                    Some(at) => {
                        if is_marker(&text[scanned..scanned + at]) {
                            length = Some(scanned);
                        } else {
                            scanned += at + 1;
                        }
                    }
                    None => {
                        if !self.fill()? {
                            let text = &self.buffer[self.start..];
                            length = Some(if is_marker(&text[scanned..]) {
                                scanned
                            } else {
                                text.len()
                            });
                        }
                    }
                }
            }
            let length = length.unwrap_or_default();
            let text = &self.buffer[self.start..self.start + length];
            let mut directive = None;
            let blank = text.split(|byte| *byte == b'\n').all(|line| {
                let line = line.trim_ascii();
                if line.starts_with(b"%") {
                    directive = Some(line.to_vec());
                }
                line.is_empty() || line.starts_with(b"#") || line.starts_with(b"%")
            });
            if let Some(directive) = directive.filter(|line| blank && !line.starts_with(b"%YAML")) {
                let directive = String::from_utf8_lossy(&directive).into_owned();
                return Err(self.flaw(format!("directive {directive:?} has no use in a catalog")));
            }
            let document = if blank {
                self.skip(length);
                None
            } else {
                Some(self.take(length, Format::Yaml)?)
            };
            // Behind a marker the next document may start on the same line.
            let rest = &self.buffer[self.start..];
            let at_end = rest.is_empty() && self.ended;
            if rest.len() >= 3 {
                self.start += 3;
            }
            if document.is_some() || at_end {
                return Ok(document);
            }
        }
    }

    /// An object at once is JSON; whatever else is YAML. Space in front is left in place, for YAML may need it.
    fn detect(&mut self) -> Result<Option<Format>, FbcError> {
        let mut scanned = 0;
        loop {
            let rest = &self.buffer[self.start + scanned..];
            match rest.iter().find(|byte| !byte.is_ascii_whitespace()) {
                Some(b'{') => return Ok(Some(Format::Json)),
                Some(_) => return Ok(Some(Format::Yaml)),
                None => scanned += rest.len(),
            }
            if !self.fill()? {
                return Ok(None);
            }
        }
    }

    fn advance(&mut self) -> Result<Option<RawDocument>, FbcError> {
        if self.format.is_none() {
            self.format = self.detect()?;
        }
        match self.format {
            None => Ok(None),
            Some(Format::Json) => self.next_json(),
            Some(Format::Yaml) => self.next_yaml(),
        }
    }
}

/// Whether a line separates YAML documents.
fn is_marker(line: &[u8]) -> bool {
    (line.starts_with(b"---") || line.starts_with(b"..."))
        && line
            .get(3)
            .is_none_or(|next| matches!(next, b' ' | b'\t' | b'\r'))
}

impl<R: Read> Iterator for Documents<'_, R> {
    type Item = Result<RawDocument, FbcError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        let next = self.advance();
        self.failed = next.is_err();
        next.transpose()
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;
    use proptest::prelude::*;

    /// Gives its bytes in pieces of one size.
    struct Pieces<'b>(&'b [u8], usize);

    impl Read for Pieces<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let length = self.1.min(self.0.len()).min(buffer.len());
            buffer[..length].copy_from_slice(&self.0[..length]);
            self.0 = &self.0[length..];
            Ok(length)
        }
    }

    fn heads(text: &str) -> Result<Vec<(u64, String, String)>, String> {
        let read = |size| {
            Documents::new(Pieces(text.as_bytes(), size), "f", 1 << 20)
                .map(|document| {
                    let document = document.map_err(|error| error.to_string())?;
                    let head = document.head("f").map_err(|error| error.to_string())?;
                    let value = document.value("f").map_err(|error| error.to_string())?;
                    assert_eq!(
                        Head::of_value(&value),
                        Ok(head.clone()),
                        "the quick look must see what is there"
                    );
                    Ok((document.line, head.package, head.name))
                })
                .collect::<Result<Vec<_>, String>>()
        };
        let whole = read(usize::MAX);
        for size in [1, 2, 7] {
            assert_eq!(read(size), whole, "the pieces must not matter: {text:?}");
        }
        whole
    }

    #[test]
    fn documents_are_found_whatever_they_are_written_in() {
        let expected = [("p", "a"), ("p", "b"), ("", "")];
        for (text, lines) in [
            (
                r#"{"schema":"s","package":"p","name":"a"}{"schema":"s","package":"p","name":"b"}{"schema":"s"}"#,
                [1, 1, 1],
            ),
            (
                "\n{\"schema\":\"s\",\n\"package\":\"p\",\"name\":\"a\", \"x\":\"}\\\"{\\\\\"}\n\n{\"schema\":\"s\",\"package\":\"p\",\"name\":\"b\",\"y\":[{}]}\n{\"schema\":\"s\"}\n",
                [2, 5, 6],
            ),
            (
                "schema: s\npackage: p\nname: a\n---\nschema: s\npackage: p\nname: b\n---\nschema: s\n",
                [1, 4, 8],
            ),
            (
                "---\nschema: s\npackage: \"p\"\nname: 'a'\n--- # next\n---\r\n# c\nschema: s\npackage: p\nname: b\nx: |\n  ---\n  --- y\n...\n\n---\nschema: s",
                [1, 6, 16],
            ),
            (
                "%YAML 1.1\n--- {schema: s, package: p, name: a}\n---\n\nname: b\nschema: s\nitems:\n- name: c\n  schema: d\npackage: p\n---\nschema: s\nname: null\n---",
                [2, 3, 11],
            ),
            (
                "# {\n{\"schema\": \"s\", \"package\": \"p\",\n \"name\": \"a\"}\n---\nschema: \"s\"\nname: >-\n  b\npackage: p\n---\n\"schema\": s\n---\n",
                [1, 4, 9],
            ),
        ] {
            let found = heads(text).unwrap();
            let expected: Vec<_> = expected
                .iter()
                .zip(lines)
                .map(|((package, name), line)| (line, (*package).to_owned(), (*name).to_owned()))
                .collect();
            assert_eq!(found, expected, "documents of {text:?}");
        }
        for nothing in ["", " \n\t\n", "---\n---\n", "# only words\n", "---"] {
            assert_eq!(heads(nothing), Ok(Vec::new()), "{nothing:?} holds nothing");
        }
    }

    #[test]
    fn what_is_no_catalog_is_refused_with_its_line() {
        for (text, part) in [
            ("{\"schema\":\"s\"}\n[1]", "f:2: expected a JSON object"),
            (
                "{\"schema\":\"s\"}\n{\"schema\":",
                "f:2: the object does not end",
            ),
            ("{\"name\":\"a\"}", "f:1: the document has no schema"),
            ("{\"schema\":\"\"}", "no schema"),
            (
                "{\"schema\":\"s\",\"schema\":\"t\"}",
                "key \"schema\" has two values",
            ),
            ("{\"schema\":1}", "f:1: "),
            ("{\"schema\":\"s\"]", "f:1: "),
            ("{\"schema\":\"olm.package\"}", "an olm.package has no name"),
            ("\n\n# words\njust words\n", "f:1: expected an object"),
            ("schema: s\nname: 1\n", "name is not a string"),
            ("schema: s\nschema: t\n", "two values"),
            ("%TAG ! x\n---\nschema: s\n", "directive"),
            ("\u{0}\u{1}", "f:1: "),
        ] {
            let error = heads(text).unwrap_err();
            assert!(
                error.contains(part),
                "{text:?}: {error:?} must say {part:?}"
            );
        }
        let long = format!("{{\"schema\":\"{}\"}}", "s".repeat(2 << 20));
        assert!(
            heads(&long).unwrap_err().contains("over the limit"),
            "a long document is refused"
        );
        let endless = Documents::new(io::repeat(b'{'), "f", 1 << 20)
            .next()
            .unwrap();
        assert!(
            endless.unwrap_err().to_string().contains("over the limit"),
            "a document without end is refused before memory is"
        );
        let endless = Documents::new(io::repeat(b'\n'), "f", 1 << 20)
            .next()
            .unwrap();
        assert!(endless.is_err(), "a file of nothing without end is refused");
    }

    proptest! {
        #[test]
        fn the_quick_look_sees_what_is_there(pieces in prop::collection::vec(prop::sample::select(vec![
            "schema: ", "name: ", "package: ", "\nschema: s", "\nname: n", "\npackage: p", "\nother: ", "\nother:\n", "\n", "\n  ", "\n- ", " ",
            "a", "b: c", "'", "\"", "#", " #", "|", ">", ":", "yes", "1", "~", "&x ", "*x", "[", "]", "{", "}", ",", "\\", "\t", "\r",
        ]), 0..24)) {
            let text = pieces.concat();
            for document in Documents::new(text.as_bytes(), "f", 1 << 20).flatten() {
                if let (Ok(head), Ok(value)) = (document.head("f"), document.value("f")) {
                    prop_assert_eq!(Head::of_value(&value), Ok(head), "{:?}", text);
                }
            }
        }

        #[test]
        fn no_bytes_make_the_reader_fall_over(bytes in prop::collection::vec(prop_oneof![any::<u8>(), prop::sample::select(b"{}[]\"\\:-. \nschema".to_vec())], 0..200)) {
            for document in Documents::new(bytes.as_slice(), "f", 1 << 20).flatten() {
                if let (Ok(head), Ok(value)) = (document.head("f"), document.value("f")) {
                    prop_assert_eq!(Head::of_value(&value), Ok(head));
                }
            }
        }
    }
}
