//! JSONPath as `kubectl` writes it, as far as it selects values: `{.spec.custom[*].image}`.
//!
//! Fields (`.a`, `['a']`, `.a\.b`), wildcards (`.*`, `[*]`), indexes and slices (`[0]`, `[-1]`, `[0:2]`), unions
//! (`['a','b']`, `[0,2]`), recursion (`..image`) and filters that compare a field with a constant
//! (`[?(@.name=="x")]`). A missing key selects nothing. `range` and `end`, which format text, are refused.

use serde_json::Value as Json;

/// Longest path.
const LENGTH: usize = 4096;

/// Most values one path may select.
const SELECTED: usize = 100_000;

/// A path that has been read.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Path(Vec<Vec<Step>>);

#[derive(Clone, Debug, PartialEq)]
enum Step {
    Field(String),
    Wildcard,
    Recursive,
    Index(i64),
    Slice(Option<i64>, Option<i64>, i64),
    Union(Vec<Step>),
    Filter {
        path: Vec<Step>,
        test: Test,
        constant: Json,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Test {
    Exists,
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

/// Why a text is no path: what is wrong, and the byte it is at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PathError {
    pub(super) message: String,
    pub(super) position: usize,
}

impl Path {
    /// Reads `{...}{...}`, or a path without braces.
    pub(super) fn parse(text: &str) -> Result<Self, PathError> {
        let mut reader = Reader { text, position: 0 };
        if text.len() > LENGTH {
            return reader.fail("is too long");
        }
        let trimmed = text.trim();
        let mut paths = Vec::new();
        if trimmed.starts_with('{') {
            while reader.position < text.len() {
                reader.skip_spaces();
                if reader.rest().is_empty() {
                    break;
                }
                reader.expect('{')?;
                paths.push(reader.steps('}')?);
                reader.expect('}')?;
            }
        } else {
            paths.push(reader.steps('\0')?);
        }
        Ok(Self(paths))
    }

    /// The values it selects, in the order of the document.
    pub(super) fn select<'d>(&self, document: &'d Json) -> Vec<&'d Json> {
        let mut selected = Vec::new();
        for steps in &self.0 {
            selected.extend(select(steps, document));
        }
        selected
    }
}

fn select<'d>(steps: &[Step], document: &'d Json) -> Vec<&'d Json> {
    let mut current = vec![document];
    for step in steps {
        let mut next = Vec::new();
        for value in current {
            apply(step, value, &mut next);
            if next.len() > SELECTED {
                next.truncate(SELECTED);
                break;
            }
        }
        current = next;
    }
    current
}

fn apply<'d>(step: &Step, value: &'d Json, into: &mut Vec<&'d Json>) {
    match (step, value) {
        (Step::Field(name), Json::Object(entries)) => into.extend(entries.get(name)),
        // kubectl reads the fields of each item after a recursion.
        (Step::Wildcard, Json::Object(entries)) => into.extend(entries.values()),
        (Step::Wildcard, Json::Array(items)) => into.extend(items),
        (Step::Index(index), Json::Array(items)) => {
            into.extend(position(*index, items.len()).and_then(|at| items.get(at)));
        }
        (Step::Slice(from, to, step), Json::Array(items)) => {
            let length = i64::try_from(items.len()).unwrap_or(i64::MAX);
            let bound = |index: i64| {
                if index < 0 {
                    (index + length).max(0)
                } else {
                    index.min(length)
                }
            };
            let mut at = bound(from.unwrap_or(0));
            let end = bound(to.unwrap_or(length));
            while at < end {
                into.extend(usize::try_from(at).ok().and_then(|at| items.get(at)));
                at = at.saturating_add(*step);
            }
        }
        (Step::Union(steps), _) => {
            for step in steps {
                apply(step, value, into);
            }
        }
        (
            Step::Filter {
                path,
                test,
                constant,
            },
            Json::Array(items),
        ) => {
            into.extend(
                items
                    .iter()
                    .filter(|item| passes(path, *test, constant, item)),
            );
        }
        (Step::Recursive, _) => descend(value, into),
        _ => {}
    }
}

fn descend<'d>(value: &'d Json, into: &mut Vec<&'d Json>) {
    if into.len() > SELECTED {
        return;
    }
    into.push(value);
    match value {
        Json::Array(items) => items.iter().for_each(|item| descend(item, into)),
        Json::Object(entries) => entries.values().for_each(|item| descend(item, into)),
        _ => {}
    }
}

fn position(index: i64, length: usize) -> Option<usize> {
    if index < 0 {
        length.checked_sub(usize::try_from(index.unsigned_abs()).ok()?)
    } else {
        usize::try_from(index).ok()
    }
}

fn passes(path: &[Step], test: Test, constant: &Json, item: &Json) -> bool {
    use std::cmp::Ordering;
    let found = select(path, item);
    let Some(first) = found.first() else {
        return false;
    };
    if test == Test::Exists {
        return true;
    }
    let order = match (first, constant) {
        (Json::String(left), Json::String(right)) => Some(left.as_str().cmp(right.as_str())),
        (Json::Number(left), Json::Number(right)) => left
            .as_f64()
            .zip(right.as_f64())
            .and_then(|(left, right)| left.partial_cmp(&right)),
        (Json::Bool(left), Json::Bool(right)) => Some(left.cmp(right)),
        _ => None,
    };
    match (test, order) {
        (Test::NotEqual, order) => order != Some(Ordering::Equal),
        (_, None) => false,
        (Test::Exists, _) => true,
        (Test::Equal, Some(order)) => order.is_eq(),
        (Test::Less, Some(order)) => order.is_lt(),
        (Test::LessOrEqual, Some(order)) => order.is_le(),
        (Test::Greater, Some(order)) => order.is_gt(),
        (Test::GreaterOrEqual, Some(order)) => order.is_ge(),
    }
}

struct Reader<'a> {
    text: &'a str,
    position: usize,
}

impl<'a> Reader<'a> {
    fn rest(&self) -> &'a str {
        &self.text[self.position..]
    }

    fn fail<T>(&self, message: impl Into<String>) -> Result<T, PathError> {
        Err(PathError {
            message: message.into(),
            position: self.position,
        })
    }

    fn skip_spaces(&mut self) {
        let rest = self.rest();
        self.position += rest.len() - rest.trim_start().len();
    }

    fn take(&mut self, text: &str) -> bool {
        if self.rest().starts_with(text) {
            self.position += text.len();
            return true;
        }
        false
    }

    fn expect(&mut self, character: char) -> Result<(), PathError> {
        self.skip_spaces();
        if self.rest().starts_with(character) {
            self.position += character.len_utf8();
            Ok(())
        } else {
            self.fail(format!("expected {character:?}"))
        }
    }

    /// Steps up to the end of the path, or to a character that ends it.
    fn steps(&mut self, end: char) -> Result<Vec<Step>, PathError> {
        let mut steps = Vec::new();
        self.skip_spaces();
        let _ = self.take("$") || self.take("@");
        let mut first = true;
        while let Some(character) = self.rest().chars().next() {
            if character == end || character.is_whitespace() {
                self.skip_spaces();
                if end == ')' || self.rest().is_empty() || self.rest().starts_with(end) {
                    break;
                }
                return self.fail("expected the end of the path");
            }
            match character {
                '.' => {
                    if self.take("..") {
                        steps.push(Step::Recursive);
                        if self.rest().starts_with('[') {
                            continue;
                        }
                    } else {
                        self.take(".");
                        if self.rest().starts_with('[') || self.rest().is_empty() {
                            continue;
                        }
                        if self.rest().starts_with(end) {
                            break;
                        }
                    }
                    steps.push(self.name()?);
                }
                '[' => steps.push(self.brackets()?),
                '=' | '!' | '<' | '>' | ')' if end == ')' => break,
                _ if first => steps.push(self.name()?),
                _ => return self.fail("expected '.' or '['"),
            }
            first = false;
        }
        Ok(steps)
    }

    fn name(&mut self) -> Result<Step, PathError> {
        let mut name = String::new();
        let mut characters = self.rest().char_indices();
        let mut length = self.rest().len();
        while let Some((at, character)) = characters.next() {
            match character {
                '\\' => match characters.next() {
                    Some((_, escaped)) => name.push(escaped),
                    None => return self.fail("ends with a backslash"),
                },
                '.' | '[' | ']' | '}' | '{' | ')' | '(' | '=' | '!' | '<' | '>' | ',' | '\''
                | '"' => {
                    length = at;
                    break;
                }
                _ if character.is_whitespace() => {
                    length = at;
                    break;
                }
                _ => name.push(character),
            }
        }
        if name.is_empty() {
            return self.fail("expected the name of a field");
        }
        if matches!(name.as_str(), "range" | "end") && self.position > 0 {
            let before = self.text[..self.position].chars().next_back();
            if before == Some('{') {
                return self.fail("range and end are not supported");
            }
        }
        self.position += length;
        Ok(if name == "*" {
            Step::Wildcard
        } else {
            Step::Field(name)
        })
    }

    fn brackets(&mut self) -> Result<Step, PathError> {
        self.expect('[')?;
        self.skip_spaces();
        if self.take("?(") {
            let step = self.filter()?;
            self.expect(')')?;
            self.expect(']')?;
            return Ok(step);
        }
        let mut steps = Vec::new();
        loop {
            self.skip_spaces();
            let step = match self.rest().chars().next() {
                Some('*') => {
                    self.take("*");
                    Step::Wildcard
                }
                Some(quote @ ('\'' | '"')) => Step::Field(self.quoted(quote)?),
                _ => self.index_or_slice()?,
            };
            steps.push(step);
            self.skip_spaces();
            if self.take(",") {
                continue;
            }
            self.expect(']')?;
            break;
        }
        Ok(match steps.len() {
            1 => steps.remove(0),
            _ => Step::Union(steps),
        })
    }

    fn quoted(&mut self, quote: char) -> Result<String, PathError> {
        self.expect(quote)?;
        let mut text = String::new();
        let mut characters = self.rest().char_indices();
        while let Some((at, character)) = characters.next() {
            if character == quote {
                self.position += at + 1;
                return Ok(text);
            }
            match character {
                '\\' => text.extend(characters.next().map(|(_, escaped)| escaped)),
                _ => text.push(character),
            }
        }
        self.fail("has an open quote")
    }

    fn integer(&mut self) -> Result<Option<i64>, PathError> {
        self.skip_spaces();
        let rest = self.rest();
        let length = rest
            .char_indices()
            .find(|(at, character)| {
                !(character.is_ascii_digit() || (*at == 0 && *character == '-'))
            })
            .map_or(rest.len(), |(at, _)| at);
        if length == 0 {
            return Ok(None);
        }
        match rest[..length].parse() {
            Ok(number) => {
                self.position += length;
                Ok(Some(number))
            }
            Err(_) => self.fail("has a malformed index"),
        }
    }

    fn index_or_slice(&mut self) -> Result<Step, PathError> {
        let from = self.integer()?;
        self.skip_spaces();
        if !self.take(":") {
            return match from {
                Some(index) => Ok(Step::Index(index)),
                None => self.fail("expected an index, a name in quotes or '*'"),
            };
        }
        let to = self.integer()?;
        self.skip_spaces();
        let step = if self.take(":") {
            self.integer()?.unwrap_or(1)
        } else {
            1
        };
        if step < 1 {
            return self.fail("a step must be positive");
        }
        Ok(Step::Slice(from, to, step))
    }

    fn filter(&mut self) -> Result<Step, PathError> {
        let path = self.steps(')')?;
        self.skip_spaces();
        let test = [
            ("==", Test::Equal),
            ("!=", Test::NotEqual),
            ("<=", Test::LessOrEqual),
            (">=", Test::GreaterOrEqual),
            ("<", Test::Less),
            (">", Test::Greater),
        ]
        .into_iter()
        .find(|(text, _)| self.rest().starts_with(text));
        let Some((sign, test)) = test else {
            return Ok(Step::Filter {
                path,
                test: Test::Exists,
                constant: Json::Null,
            });
        };
        self.take(sign);
        self.skip_spaces();
        let constant = if let Some(quote @ ('\'' | '"')) = self.rest().chars().next() {
            Json::String(self.quoted(quote)?)
        } else {
            let rest = self.rest();
            let length = rest.find(')').unwrap_or(rest.len());
            let Ok(constant @ (Json::Number(_) | Json::Bool(_))) =
                serde_json::from_str(rest[..length].trim())
            else {
                return self.fail("a filter compares with a constant");
            };
            self.position += length;
            constant
        };
        Ok(Step::Filter {
            path,
            test,
            constant,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn paths_select_what_kubectl_selects() {
        let document = json!({
            "spec": {
                "custom": [
                    {"name": "a", "image": "one:1", "weight": 1},
                    {"name": "b", "image": "two:2", "weight": 2},
                    {"name": "c"}
                ],
                "dotted.key": {"image": "three:3"}
            }
        });
        for (path, expected) in [
            ("{.spec.custom[*].image}", vec!["one:1", "two:2"]),
            (".spec.custom[*].image", vec!["one:1", "two:2"]),
            ("{.spec.custom[0].image}", vec!["one:1"]),
            ("{.spec.custom[-2].image}", vec!["two:2"]),
            ("{.spec.custom[0:1].image}", vec!["one:1"]),
            ("{.spec.custom[0,1].name}", vec!["a", "b"]),
            ("{..image}", vec!["one:1", "two:2", "three:3"]),
            ("{.spec['dotted.key'].image}", vec!["three:3"]),
            ("{.spec.dotted\\.key.image}", vec!["three:3"]),
            ("{.spec.custom[?(@.name==\"b\")].image}", vec!["two:2"]),
            ("{.spec.custom[?(@.weight>1)].image}", vec!["two:2"]),
            ("{.spec.custom[?(@.image)].name}", vec!["a", "b"]),
            ("{.missing[*].image}", vec![]),
        ] {
            let selected: Vec<&str> = Path::parse(path)
                .unwrap()
                .select(&document)
                .into_iter()
                .filter_map(Json::as_str)
                .collect();
            assert_eq!(selected, expected, "{path}");
        }
    }

    #[test]
    fn what_is_no_path_is_refused() {
        for path in [
            "{.spec",
            "{.spec[}",
            "{range .items[*]}{.a}{end}",
            "{.a b}",
            "{.a[?(@.b==c)]}",
        ] {
            assert!(
                Path::parse(path).is_err(),
                "{path} must not select something else"
            );
        }
    }

    proptest! {
        #[test]
        fn no_text_stops_the_reader(text in "[{}.\\[\\]'\"*?@()=a0:,\\\\ -]{0,30}") {
            if let Ok(path) = Path::parse(&text) {
                let _ = path.select(&json!({"a": [{"a": 1}, [0]]}));
            }
        }
    }
}
