//! YAML as Helm reads and writes it.
//!
//! Reading resolves plain scalars by the rules of Go's `yaml.v2` (YAML 1.1: `yes` and `on` are booleans, `010` is
//! eight, `1_000` a thousand), merges `<<`, lets the last of two equal keys win and turns keys into texts: what
//! `sigs.k8s.io/yaml` does on its way through JSON. Writing emits the same quoting, the same line breaks after 80
//! columns and the same block scalars as that library, since templates embed the result.
//!
//! The crates that read YAML into data types cannot do this: they lose whether a scalar was quoted. So this
//! module composes documents from the events of a parser.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt::Write as _;

use granit_parser::{Event, Options, Parser, ScalarStyle};
use serde_json::{Map, Number, Value as Json};

/// Nodes one document may have once its aliases are expanded. The largest charts known have a tenth of it.
const NODES: usize = 2_000_000;

/// Columns after which a long scalar is folded at a space.
const WIDTH: usize = 80;

/// Longest key that is written on the line of its value.
const SIMPLE_KEY: usize = 128;

/// Why a text is not a YAML document.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {message}")]
pub struct YamlError {
    /// The line, from 1.
    pub line: usize,
    /// What is wrong there.
    pub message: String,
}

/// One document of a stream.
#[derive(Clone, Debug, PartialEq)]
pub struct Document {
    /// Its first line, from 1.
    pub line: usize,
    /// What it holds, or what is wrong with it.
    pub content: Result<Json, YamlError>,
}

/// Reads the first document of a text; an empty text is null.
pub fn parse(text: &str) -> Result<Json, YamlError> {
    Composer::new(text)
        .document()
        .map(|document| document.unwrap_or(Json::Null))
}

/// Splits a stream at lines that start with `---` and reads each part; parts without content are left out.
///
/// What follows the marker on its line belongs to the part, whatever it is: templates that trim white space write
/// `---# a comment` or `---apiVersion: v1`, which is no YAML but is what Helm splits. And unlike in a YAML stream, one
/// malformed part does not hide those after it.
#[must_use]
pub fn parse_stream(text: &str) -> Vec<Document> {
    let mut documents = Vec::new();
    let mut push = |part: &str, line: usize| {
        let content = match parse(part) {
            Ok(Json::Null) => return,
            Ok(document) => Ok(document),
            Err(error) => Err(YamlError {
                line: error.line.max(1) + line - 1,
                message: error.message,
            }),
        };
        documents.push(Document { line, content });
    };
    let (mut start, mut first_line, mut offset) = (0, 1, 0);
    for (line, text_line) in (1..).zip(text.split_inclusive('\n')) {
        if text_line.starts_with("---") {
            push(&text[start..offset], first_line);
            start = offset + 3;
            first_line = line;
        }
        offset += text_line.len();
    }
    push(&text[start..], first_line);
    documents
}

struct Composer<'a> {
    parser: Parser<'a, granit_parser::StrInput<'a>>,
    anchors: HashMap<usize, (Json, usize)>,
    nodes: usize,
    line: usize,
}

/// What an event opens.
enum Opened<'a> {
    Scalar(Cow<'a, str>, bool, Option<String>),
    Sequence,
    Mapping,
    Alias(usize),
}

impl<'a> Composer<'a> {
    fn new(text: &'a str) -> Self {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let mut options = Options::default();
        options.set_emit_comments(false);
        // Longer keys are no YAML, but the library Helm uses reads them in flow mappings made from JSON.
        options.simple_key_max_lookahead = 16 * 1024;
        Self {
            parser: Parser::new_from_str_with_options(text, options),
            anchors: HashMap::new(),
            nodes: 0,
            line: 1,
        }
    }

    fn fail<T>(&self, message: impl Into<String>) -> Result<T, YamlError> {
        Err(YamlError {
            line: self.line,
            message: message.into(),
        })
    }

    fn event(&mut self) -> Result<Option<Event<'a>>, YamlError> {
        match self.parser.next_event() {
            None => Ok(None),
            Some(Ok((event, span))) => {
                self.line = span.start.line();
                Ok(Some(event))
            }
            Some(Err(error)) => Err(YamlError {
                line: error.marker().line(),
                message: error.info(),
            }),
        }
    }

    fn document(&mut self) -> Result<Option<Json>, YamlError> {
        loop {
            match self.event()? {
                None | Some(Event::StreamEnd) => return Ok(None),
                Some(Event::StreamStart | Event::DocumentStart(..)) => {}
                Some(event) => return self.node(event).map(|(node, _)| Some(node)),
            }
        }
    }

    fn count(&mut self, nodes: usize) -> Result<(), YamlError> {
        self.nodes += nodes;
        if self.nodes > NODES {
            return self.fail(format!("the document has more than {NODES} nodes"));
        }
        Ok(())
    }

    fn open(&mut self, event: Event<'a>) -> Result<(Opened<'a>, usize), YamlError> {
        self.count(1)?;
        Ok(match event {
            Event::Scalar(text, style, anchor, tag) => {
                let tag = tag.map(|tag| match tag.core_suffix() {
                    Some(core) => format!("!!{core}"),
                    None => tag.original(),
                });
                (
                    Opened::Scalar(text, style == ScalarStyle::Plain, tag),
                    anchor,
                )
            }
            Event::SequenceStart(_, anchor, _) => (Opened::Sequence, anchor),
            Event::MappingStart(_, anchor, _) => (Opened::Mapping, anchor),
            Event::Alias(anchor) => (Opened::Alias(anchor), 0),
            other => return self.fail(format!("unexpected {other:?}")),
        })
    }

    /// Composes one node; the second result is how many nodes it has.
    fn node(&mut self, event: Event<'a>) -> Result<(Json, usize), YamlError> {
        let (opened, anchor) = self.open(event)?;
        let (node, size) = match opened {
            Opened::Alias(target) => {
                let Some((node, size)) = self.anchors.get(&target) else {
                    return self.fail("an alias stands inside the node it names");
                };
                let (node, size) = (node.clone(), *size);
                self.count(size)?;
                return Ok((node, size));
            }
            Opened::Scalar(text, plain, tag) => (self.scalar(&text, plain, tag.as_deref())?, 1),
            Opened::Sequence => {
                let mut items = Vec::new();
                let mut size = 1;
                loop {
                    match self.event()? {
                        Some(Event::SequenceEnd) => break,
                        Some(event) => {
                            let (item, nodes) = self.node(event)?;
                            size += nodes;
                            items.push(item);
                        }
                        None => return self.fail("the document ends inside a sequence"),
                    }
                }
                (Json::Array(items), size)
            }
            Opened::Mapping => self.mapping()?,
        };
        if anchor != 0 {
            self.anchors.insert(anchor, (node.clone(), size));
            self.count(size)?;
        }
        Ok((node, size))
    }

    fn mapping(&mut self) -> Result<(Json, usize), YamlError> {
        let mut entries = Map::new();
        let mut merged = Vec::new();
        let mut size = 1;
        loop {
            let event = match self.event()? {
                Some(Event::MappingEnd) => break,
                Some(event) => event,
                None => return self.fail("the document ends inside a mapping"),
            };
            let merge = matches!(
                &event,
                Event::Scalar(text, ScalarStyle::Plain, _, None) if text == "<<"
            );
            let (key, _) = self.node(event)?;
            let Some(event) = self.event()? else {
                return self.fail("the document ends inside a mapping");
            };
            let (value, nodes) = self.node(event)?;
            size += nodes + 1;
            if merge {
                merged.push(value);
                continue;
            }
            let key = match key {
                Json::String(text) => text,
                Json::Bool(truth) => truth.to_string(),
                Json::Number(number) => match number.as_f64() {
                    Some(float) if number.is_f64() => {
                        #[allow(clippy::cast_possible_truncation)]
                        let single = float as f32;
                        super::functions::print::shortest(f64::from(single), Some(single))
                    }
                    _ => number.to_string(),
                },
                Json::Null => return self.fail("a key is null"),
                Json::Array(_) | Json::Object(_) => {
                    return self.fail("a key is a sequence or mapping");
                }
            };
            entries.insert(key, value);
        }
        for source in merged {
            self.merge(&mut entries, source)?;
        }
        Ok((Json::Object(entries), size))
    }

    fn merge(&self, entries: &mut Map<String, Json>, source: Json) -> Result<(), YamlError> {
        match source {
            Json::Object(source) => {
                for (key, value) in source {
                    entries.entry(key).or_insert(value);
                }
                Ok(())
            }
            Json::Array(sources) => {
                for source in sources {
                    self.merge(entries, source)?;
                }
                Ok(())
            }
            _ => self.fail("map merge requires map or sequence of maps as the value"),
        }
    }

    fn scalar(&self, text: &str, plain: bool, tag: Option<&str>) -> Result<Json, YamlError> {
        match tag {
            None if plain => Ok(resolve(text)),
            Some("!!binary") => {
                let compact: String = text.split_ascii_whitespace().collect();
                super::functions::encoding::base64_decode(&compact)
                    .map(|bytes| Json::String(super::value::text_from_bytes(&bytes).into_owned()))
                    .or_else(|message| self.fail(format!("!!binary value: {message}")))
            }
            Some(tag @ ("!!bool" | "!!int" | "!!float" | "!!null")) => {
                let resolved = resolve(text);
                let fits = match (&resolved, tag) {
                    (Json::Bool(_), "!!bool")
                    | (Json::Null, "!!null")
                    | (Json::Number(_), "!!float") => true,
                    (Json::Number(number), "!!int") => !number.is_f64(),
                    _ => false,
                };
                if fits {
                    return Ok(resolved);
                }
                self.fail(format!("cannot decode `{text}` as a {tag}"))
            }
            _ => Ok(Json::String(text.to_owned())),
        }
    }
}

/// What a plain scalar means.
pub(super) fn resolve(text: &str) -> Json {
    match text {
        "y" | "Y" | "yes" | "Yes" | "YES" | "true" | "True" | "TRUE" | "on" | "On" | "ON" => {
            return Json::Bool(true);
        }
        "n" | "N" | "no" | "No" | "NO" | "false" | "False" | "FALSE" | "off" | "Off" | "OFF" => {
            return Json::Bool(false);
        }
        "" | "~" | "null" | "Null" | "NULL" => return Json::Null,
        _ => {}
    }
    number(text).map_or_else(|| Json::String(text.to_owned()), Json::Number)
}

/// The number a plain scalar is. Infinities and NaN have no JSON form and stay texts.
fn number(text: &str) -> Option<Number> {
    match text.as_bytes()[0] {
        b'.' => decimal_float(text).and_then(Number::from_f64),
        b'0'..=b'9' | b'+' | b'-' => {
            let plain = text.replace('_', "");
            if let Some(integer) = integer(&plain) {
                return Some(integer);
            }
            decimal_float(&plain).and_then(Number::from_f64)
        }
        _ => None,
    }
}

/// Go's `strconv.ParseInt` and `ParseUint` with base 0.
fn integer(text: &str) -> Option<Number> {
    let (negative, digits) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    let lower = digits.to_ascii_lowercase();
    let (radix, digits) = if let Some(rest) = lower.strip_prefix("0x") {
        (16, rest)
    } else if let Some(rest) = lower.strip_prefix("0b") {
        (2, rest)
    } else if let Some(rest) = lower.strip_prefix("0o") {
        (8, rest)
    } else if lower.len() > 1 && lower.starts_with('0') {
        (8, &lower[1..])
    } else {
        (10, &lower[..])
    };
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
        return None;
    }
    let magnitude = u64::from_str_radix(digits, radix).ok()?;
    if negative {
        let number = 0_i64.checked_sub_unsigned(magnitude)?;
        Some(Number::from(number))
    } else if text.starts_with('+') && i64::try_from(magnitude).is_err() {
        None
    } else {
        Some(Number::from(magnitude))
    }
}

/// `^[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?$`
fn decimal_float(text: &str) -> Option<f64> {
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    let (mantissa, exponent) = match unsigned.find(['e', 'E']) {
        Some(at) => (&unsigned[..at], Some(&unsigned[at + 1..])),
        None => (unsigned, None),
    };
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    if !digits(whole) || !digits(fraction) || (whole.is_empty() && fraction.is_empty()) {
        return None;
    }
    if let Some(exponent) = exponent {
        let exponent = exponent.strip_prefix(['-', '+']).unwrap_or(exponent);
        if exponent.is_empty() || !digits(exponent) {
            return None;
        }
    }
    text.parse().ok().filter(|float: &f64| float.is_finite())
}

/// How a document is laid out.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Layout {
    /// As `yaml.v2` writes it: sequences in mappings stand at the column of their key.
    Compact,
    /// As `yaml.v3` writes it with an indent of two: sequences are indented, long lines are not folded.
    Pretty,
}

/// Writes a document, with a line feed at its end.
pub(super) fn emit(document: &Json, layout: Layout) -> String {
    let mut emitter = Emitter {
        text: String::new(),
        layout,
        column: 0,
    };
    emitter.node(document, 0, Context::Root);
    if !emitter.text.ends_with('\n') {
        emitter.text.push('\n');
    }
    emitter.text
}

/// Where a node stands.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Context {
    Root,
    /// After `- `.
    Item,
    /// After `key:`.
    Value,
}

struct Emitter {
    text: String,
    layout: Layout,
    column: usize,
}

impl Emitter {
    fn put(&mut self, text: &str) {
        self.text.push_str(text);
        match text.rfind('\n') {
            Some(at) => self.column = text[at + 1..].chars().count(),
            None => self.column += text.chars().count(),
        }
    }

    fn line(&mut self, indent: usize) {
        if !self.text.is_empty() && !self.text.ends_with('\n') {
            self.text.push('\n');
        }
        self.text.extend(std::iter::repeat_n(' ', indent));
        self.column = indent;
    }

    /// Writes a node whose block, if it has one, is indented by `indent`.
    fn node(&mut self, node: &Json, indent: usize, context: Context) {
        match node {
            Json::Array(items) if items.is_empty() => self.inline("[]", context),
            Json::Object(entries) if entries.is_empty() => self.inline("{}", context),
            Json::Array(items) => {
                for (index, item) in items.iter().enumerate() {
                    if context == Context::Item && index == 0 {
                        self.put(" ");
                    } else {
                        self.line(indent);
                    }
                    self.put("-");
                    self.node(item, indent + 2, Context::Item);
                }
            }
            Json::Object(entries) => {
                let sorted = sort_keys(entries.iter().collect());
                for (index, (key, value)) in sorted.into_iter().enumerate() {
                    if context == Context::Item && index == 0 {
                        self.put(" ");
                    } else {
                        self.line(indent);
                    }
                    self.entry(key, value, indent);
                }
            }
            Json::String(text) => self.scalar(text, indent, context),
            Json::Null => self.inline("null", context),
            Json::Bool(truth) => self.inline(if *truth { "true" } else { "false" }, context),
            Json::Number(number) => {
                let text = match number.as_f64() {
                    Some(float) if number.is_f64() => {
                        super::functions::print::shortest(float, None)
                    }
                    _ => number.to_string(),
                };
                self.inline(&text, context);
            }
        }
    }

    fn entry(&mut self, key: &str, value: &Json, indent: usize) {
        let analysis = Analysis::of(key);
        if key.len() > SIMPLE_KEY || analysis.multiline {
            self.put("?");
            self.scalar(key, indent + 2, Context::Item);
            self.line(indent);
            self.put(":");
            self.node(value, indent + 2, Context::Item);
            return;
        }
        let plain = Self::may_be_plain(key) && analysis.plain && !key.is_empty();
        let wanted_quotes = !Self::may_be_plain(key);
        if plain {
            self.put(key);
        } else if !wanted_quotes && analysis.single {
            let quoted = format!("'{}'", key.replace('\'', "''"));
            self.put(&quoted);
        } else {
            let quoted = double_quoted(key);
            self.put(&quoted);
        }
        self.put(":");
        let inner = match value {
            Json::Array(_) if self.layout == Layout::Compact => indent,
            _ => indent + 2,
        };
        self.node(value, inner, Context::Value);
    }

    fn inline(&mut self, text: &str, context: Context) {
        if context != Context::Root {
            self.put(" ");
        }
        self.put(text);
    }

    /// Whether a text without quotes would still be read as that text.
    fn may_be_plain(text: &str) -> bool {
        matches!(resolve(text), Json::String(_))
            && !is_base_60(text)
            && !is_special_float(text)
            && !is_timestamp(text)
    }

    fn scalar(&mut self, text: &str, indent: usize, context: Context) {
        let stray = super::value::text_to_bytes(text);
        if let Cow::Owned(bytes) = &stray {
            let encoded = super::functions::encoding::base64_encode(bytes);
            self.inline("!!binary ", context);
            self.put(&encoded);
            return;
        }
        let analysis = Analysis::of(text);
        let indent = if context == Context::Root { 2 } else { indent };
        let literal = text.contains('\n');
        let plain = Self::may_be_plain(text);
        if literal && analysis.block {
            self.literal(text, indent, context);
            return;
        }
        if context != Context::Root {
            self.put(" ");
        }
        if !literal && plain && analysis.plain {
            self.folded(text, indent, Style::Plain);
        } else if !literal && plain && analysis.single {
            self.folded(text, indent, Style::Single);
        } else {
            self.folded(text, indent, Style::Double);
        }
    }

    fn literal(&mut self, text: &str, indent: usize, context: Context) {
        if context != Context::Root {
            self.put(" ");
        }
        self.put("|");
        if text.starts_with([' ', '\n', '\r', '\u{85}', '\u{2028}', '\u{2029}']) {
            self.put("2");
        }
        if !text.ends_with(is_break) {
            self.put("-");
        } else if text.chars().count() == 1 || text.chars().rev().nth(1).is_some_and(is_break) {
            self.put("+");
        }
        self.put("\n");
        let mut fresh = true;
        for character in text.chars() {
            if is_break(character) {
                self.text.push(character);
                fresh = true;
            } else {
                if fresh {
                    self.text.extend(std::iter::repeat_n(' ', indent));
                    fresh = false;
                }
                self.text.push(character);
            }
        }
        self.column = 0;
    }

    /// Writes a scalar on one line, folded where it gets long.
    fn folded(&mut self, text: &str, indent: usize, style: Style) {
        let quote = match style {
            Style::Plain => "",
            Style::Single => "'",
            Style::Double => "\"",
        };
        self.put(quote);
        let mut previous_space = false;
        let mut rest = text.chars().peekable();
        let mut first = true;
        while let Some(character) = rest.next() {
            if character == ' ' {
                let next = rest.peek().copied();
                let room = match style {
                    Style::Plain => true,
                    Style::Single | Style::Double => !first && next.is_some(),
                };
                let fold = self.layout == Layout::Compact
                    && room
                    && !previous_space
                    && self.column > WIDTH
                    && (style == Style::Double || next != Some(' '));
                if fold {
                    self.text.push('\n');
                    self.text.extend(std::iter::repeat_n(' ', indent));
                    self.column = indent;
                    if style == Style::Double && next == Some(' ') {
                        self.put("\\");
                    }
                } else {
                    self.put(" ");
                }
                previous_space = true;
            } else {
                match style {
                    Style::Single if character == '\'' => self.put("''"),
                    Style::Double => {
                        let mut escaped = String::new();
                        escape(character, &mut escaped);
                        self.put(&escaped);
                    }
                    _ => self.put(character.encode_utf8(&mut [0; 4])),
                }
                previous_space = false;
            }
            first = false;
        }
        self.put(quote);
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Style {
    Plain,
    Single,
    Double,
}

fn is_break(character: char) -> bool {
    matches!(character, '\n' | '\r' | '\u{85}' | '\u{2028}' | '\u{2029}')
}

/// What YAML calls printable, of what the writer may leave unescaped. Four-byte characters are escaped.
fn is_printable(character: char) -> bool {
    matches!(character, '\n' | '\u{20}'..='\u{7e}' | '\u{a0}'..='\u{d7ff}' | '\u{e000}'..='\u{fffd}')
        && character != '\u{feff}'
}

/// Which forms a scalar may take, each on its own.
#[allow(clippy::struct_excessive_bools)]
struct Analysis {
    multiline: bool,
    plain: bool,
    single: bool,
    block: bool,
}

impl Analysis {
    fn of(text: &str) -> Self {
        if text.is_empty() {
            return Self {
                multiline: false,
                plain: true,
                single: true,
                block: false,
            };
        }
        let characters: Vec<char> = text.chars().collect();
        let mut indicators = text.starts_with("---") || text.starts_with("...");
        let (mut line_breaks, mut special) = (false, false);
        let (mut break_space, mut space_break) = (false, false);
        let (mut previous_space, mut previous_break) = (false, false);
        let mut after_blank = true;
        for (index, &character) in characters.iter().enumerate() {
            let before_blank = characters
                .get(index + 1)
                .is_none_or(|next| matches!(next, ' ' | '\t'));
            indicators |= match character {
                '#' | ',' | '[' | ']' | '{' | '}' | '&' | '*' | '!' | '|' | '>' | '\'' | '"'
                | '%' | '@' | '`'
                    if index == 0 =>
                {
                    true
                }
                '?' | '-' if index == 0 => before_blank,
                ':' => before_blank,
                '#' => after_blank,
                _ => false,
            };
            special |= !is_printable(character);
            if character == ' ' {
                break_space |= previous_break;
                previous_space = true;
                previous_break = false;
            } else if is_break(character) {
                line_breaks = true;
                space_break |= previous_space;
                previous_space = false;
                previous_break = true;
            } else {
                previous_space = false;
                previous_break = false;
            }
            after_blank = matches!(character, ' ' | '\t' | '\0') || is_break(character);
        }
        let blank_edge = |character: Option<&char>| {
            character.is_some_and(|&character| character == ' ' || is_break(character))
        };
        let edges = blank_edge(characters.first()) || blank_edge(characters.last());
        let trailing_space = characters.last() == Some(&' ');
        Self {
            multiline: line_breaks,
            plain: !(edges || break_space || space_break || special || line_breaks || indicators),
            single: !(break_space || space_break || special),
            block: !(trailing_space || space_break || special),
        }
    }
}

fn double_quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for character in text.chars() {
        escape(character, &mut quoted);
    }
    quoted.push('"');
    quoted
}

fn escape(character: char, into: &mut String) {
    let short = match character {
        '\0' => '0',
        '\u{7}' => 'a',
        '\u{8}' => 'b',
        '\t' => 't',
        '\n' => 'n',
        '\u{b}' => 'v',
        '\u{c}' => 'f',
        '\r' => 'r',
        '\u{1b}' => 'e',
        '"' => '"',
        '\\' => '\\',
        '\u{85}' => 'N',
        '\u{2028}' => 'L',
        '\u{2029}' => 'P',
        _ if is_printable(character) => {
            into.push(character);
            return;
        }
        _ => {
            let scalar = u32::from(character);
            let _ = if scalar <= 0xFF {
                write!(into, "\\x{scalar:02X}")
            } else if scalar <= 0xFFFF {
                write!(into, "\\u{scalar:04X}")
            } else {
                write!(into, "\\U{scalar:08X}")
            };
            return;
        }
    };
    into.push('\\');
    into.push(short);
}

fn is_special_float(text: &str) -> bool {
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    matches!(unsigned, ".inf" | ".Inf" | ".INF") || matches!(text, ".nan" | ".NaN" | ".NAN")
}

/// `^[-+]?[0-9][0-9_]*(?::[0-5]?[0-9])+(?:\.[0-9_]*)?$`: an old notation of times, still read by some.
fn is_base_60(text: &str) -> bool {
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    let (whole, fraction) = unsigned.split_once('.').unwrap_or((unsigned, ""));
    let mut groups = whole.split(':');
    let digits_or_underscores = |text: &str| {
        text.bytes()
            .all(|byte| byte.is_ascii_digit() || byte == b'_')
    };
    let first = groups.next().unwrap_or("");
    if !first.starts_with(|character: char| character.is_ascii_digit())
        || !digits_or_underscores(first)
        || !digits_or_underscores(fraction)
    {
        return false;
    }
    let mut more = false;
    for group in groups {
        more = true;
        let fits = match group.as_bytes() {
            [digit] => digit.is_ascii_digit(),
            [tens, digit] => (b'0'..=b'5').contains(tens) && digit.is_ascii_digit(),
            _ => false,
        };
        if !fits {
            return false;
        }
    }
    more
}

/// Whether `yaml.v2` would read a plain scalar as a time.
fn is_timestamp(text: &str) -> bool {
    let bytes = text.as_bytes();
    if bytes.len() < 8 || !bytes[..4].iter().all(u8::is_ascii_digit) || bytes[4] != b'-' {
        return false;
    }
    let number = |text: &str, most: u32| {
        (1..=2).contains(&text.len())
            && text.bytes().all(|byte| byte.is_ascii_digit())
            && text.parse::<u32>().is_ok_and(|number| number <= most)
    };
    let (date, time) = match text.find(['T', 't', ' ']) {
        Some(at) => (&text[..at], Some((&text[at..=at], &text[at + 1..]))),
        None => (text, None),
    };
    let parts: Vec<&str> = date.split('-').collect();
    let [_, month, day] = parts[..] else {
        return false;
    };
    if !number(month, 12) || !number(day, 31) || month.parse() == Ok(0) || day.parse() == Ok(0) {
        return false;
    }
    let Some((separator, time)) = time else {
        return true;
    };
    let clock = if separator == " " {
        time
    } else if let Some(clock) = time.strip_suffix('Z') {
        clock
    } else {
        let Some(at) = time.rfind(['+', '-']) else {
            return false;
        };
        let zone = &time[at + 1..];
        if zone.len() != 5 || zone.as_bytes()[2] != b':' {
            return false;
        }
        &time[..at]
    };
    let (clock, fraction) = clock.split_once('.').unwrap_or((clock, "0"));
    let parts: Vec<&str> = clock.split(':').collect();
    let [hour, minute, second] = parts[..] else {
        return false;
    };
    number(hour, 23)
        && number(minute, 59)
        && number(second, 59)
        && !fraction.is_empty()
        && fraction.bytes().all(|byte| byte.is_ascii_digit())
}

/// Whether `yaml.v2` writes one key before another: digits by value, letters after everything else.
fn is_before(left: &str, right: &str) -> bool {
    let left: Vec<char> = left.chars().collect();
    let right: Vec<char> = right.chars().collect();
    let Some(at) = (0..left.len().min(right.len())).find(|&at| left[at] != right[at]) else {
        return left.len() < right.len();
    };
    match (left[at].is_alphabetic(), right[at].is_alphabetic()) {
        (true, true) => return left[at] < right[at],
        (false, false) => {}
        (_, right_is_letter) => return right_is_letter,
    }
    let mut base = 0;
    if left[at] == '0' || right[at] == '0' {
        let digits_before = left[..at].iter().rev().take_while(|c| c.is_numeric());
        if digits_before.into_iter().any(|&digit| digit != '0') {
            base = 1;
        }
    }
    let run = |characters: &[char]| {
        let mut value: i64 = base;
        let mut end = at;
        while let Some(digit) = characters.get(end).filter(|c| c.is_numeric()) {
            let digit = i64::from(u32::from(*digit)) - i64::from(u32::from('0'));
            value = value.wrapping_mul(10).wrapping_add(digit);
            end += 1;
        }
        (value, end)
    };
    let (left_run, right_run) = (run(&left), run(&right));
    if left_run == right_run {
        left[at] < right[at]
    } else {
        left_run < right_run
    }
}

/// Sorts keys by [`is_before`].
///
/// That order is no total one for every set of keys (runs of digits overflow), which the sorts of the standard
/// library may punish with a panic; this merge sort ends with some order whatever the comparison says.
fn sort_keys<'a>(keys: Vec<(&'a String, &'a Json)>) -> Vec<(&'a String, &'a Json)> {
    if keys.len() < 2 {
        return keys;
    }
    let mut left = keys;
    let right = left.split_off(left.len() / 2);
    let mut left = sort_keys(left).into_iter().peekable();
    let mut right = sort_keys(right).into_iter().peekable();
    let mut sorted = Vec::with_capacity(left.len() + right.len());
    while let (Some((left_key, _)), Some((right_key, _))) = (left.peek(), right.peek()) {
        let next = if is_before(right_key, left_key) {
            right.next()
        } else {
            left.next()
        };
        sorted.extend(next);
    }
    sorted.extend(left);
    sorted.extend(right);
    sorted
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn scalars_mean_what_they_mean_to_helm() {
        for (text, expected) in [
            ("yes", json!(true)),
            ("Off", json!(false)),
            ("y", json!(true)),
            ("'yes'", json!("yes")),
            ("010", json!(8)),
            ("0o10", json!(8)),
            ("0x1F", json!(31)),
            ("1_000", json!(1000)),
            ("1e3", json!(1000.0)),
            ("1.10", json!(1.1)),
            (".5", json!(0.5)),
            ("-5", json!(-5)),
            ("12:30", json!("12:30")),
            ("2024-01-01", json!("2024-01-01")),
            ("~", json!(null)),
            ("v1.2", json!("v1.2")),
            ("!!str 5", json!("5")),
            ("!!float 5", json!(5)),
            ("!custom 5", json!("5")),
            ("!!binary aGk=", json!("hi")),
            (
                "{1: a, true: b, 1.5: c}",
                json!({"1": "a", "true": "b", "1.5": "c"}),
            ),
            ("{a: 1, a: 2}", json!({"a": 2})),
            (
                "{b: &x {p: 1}, c: {<<: *x, q: 2}}",
                json!({"b": {"p": 1}, "c": {"p": 1, "q": 2}}),
            ),
        ] {
            assert_eq!(parse(text), Ok(expected), "{text}");
        }
        for text in ["{null: a}", "{[a]: b}", "!!int x", "a: [", "a: b: c"] {
            assert!(parse(text).is_err(), "{text} is no document");
        }
    }

    #[test]
    fn a_document_is_written_as_templates_expect() {
        let long = "word ".repeat(20) + "end";
        for (document, expected) in [
            (
                json!({"b": [1, {"c": "d"}], "a": {}}),
                "a: {}\nb:\n- 1\n- c: d\n".to_owned(),
            ),
            (
                json!({"a": "yes", "b": "1.10", "c": "x: y", "d": "#"}),
                "a: \"yes\"\nb: \"1.10\"\nc: 'x: y'\nd: '#'\n".to_owned(),
            ),
            (
                json!({"t": "a\nb\n", "u": " a\nb", "v": "a\n\n"}),
                "t: |\n  a\n  b\nu: |2-\n   a\n  b\nv: |+\n  a\n\n".to_owned(),
            ),
            (
                json!([[1, 2], ["\u{1}"]]),
                "- - 1\n  - 2\n- - \"\\x01\"\n".to_owned(),
            ),
            (json!({"k10": 1, "k9": 2}), "k9: 2\nk10: 1\n".to_owned()),
            (
                json!(long),
                format!("{}\n  word word word end\n", "word ".repeat(17).trim_end()),
            ),
            (json!(""), "\"\"\n".to_owned()),
        ] {
            assert_eq!(emit(&document, Layout::Compact), expected, "{document}");
        }
    }

    #[test]
    fn a_malformed_part_does_not_hide_the_others() {
        let text = "a: 1\n---\nb: [\n---# a comment\nc: 3\n---\n# nothing\n---\nd: 4\n";
        let documents = parse_stream(text);
        let read: Vec<(usize, Option<Json>)> = documents
            .into_iter()
            .map(|document| (document.line, document.content.ok()))
            .collect();
        assert_eq!(
            read,
            [
                (1, Some(json!({"a": 1}))),
                (2, None),
                (4, Some(json!({"c": 3}))),
                (8, Some(json!({"d": 4}))),
            ],
            "each part stands for itself, with the line it starts on"
        );
    }
}
