//! What is wrong with a file, and where.
//!
//! A [`Diagnostic`] carries the place, the line as it stands in the file and the advice, so it can be shown
//! without the file at hand. Nothing it holds shows a credential: user names and passwords inside URLs are
//! masked on the way in.
//!
//! ```text
//! error: unknown key "additionalImage" in mirror
//!  --> imageset.yaml:4:3
//!   |
//! 4 |   additionalImage:
//!   |   ^^^^^^^^^^^^^^^
//! hint: did you mean "additionalImages"?
//! ```

use std::fmt;
use std::ops::Deref;

use unicode_width::UnicodeWidthChar;

use crate::hint::Hint;

/// Characters of a line kept on either side of the place: enough to recognise it, also in one-line JSON.
const WINDOW: usize = 100;

/// Most diagnostics reported for one file: beyond this a reader fixes the first ones anyway.
const MOST_REPORTED: usize = 100;

/// A place in a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    /// From 1.
    pub line: usize,
    /// In characters, from 1.
    pub column: usize,
    /// In characters; what is marked goes no further than the end of the line.
    pub length: usize,
}

/// A value and the place in the file that it was read from.
///
/// The place is no part of the value: two are equal when their values are.
#[derive(Clone, Debug, Default)]
pub struct At<T> {
    /// What was read.
    pub value: T,
    /// Where.
    pub position: Position,
}

impl<T> At<T> {
    /// A value read from `position`.
    pub fn new(value: T, position: Position) -> Self {
        Self { value, position }
    }

    /// From 1.
    #[must_use]
    pub fn line(&self) -> usize {
        self.position.line
    }

    /// In characters, from 1.
    #[must_use]
    pub fn column(&self) -> usize {
        self.position.column
    }

    /// Another value for the same place.
    pub fn map<U>(self, with: impl FnOnce(T) -> U) -> At<U> {
        At::new(with(self.value), self.position)
    }
}

impl<T> Deref for At<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T: PartialEq> PartialEq for At<T> {
    fn eq(&self, other: &Self) -> bool {
        self.value == other.value
    }
}

impl<T: Eq> Eq for At<T> {}

impl<T: fmt::Display> fmt::Display for At<T> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.value, formatter)
    }
}

/// How much a diagnostic matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// The file is refused.
    Error,
    /// The file is taken; its author should know this.
    Note,
}

impl fmt::Display for Severity {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Error => "error",
            Self::Note => "note",
        })
    }
}

/// One thing to say about one place in a file.
///
/// `Display` is one line, `file:line:column: message`; [`Diagnostic::render`] shows the place as well.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// Whether the file is refused for it.
    pub severity: Severity,
    /// The name the caller gave for the file.
    pub file: String,
    /// From 1.
    pub line: usize,
    /// In characters, from 1.
    pub column: usize,
    /// In characters, at least 1.
    pub length: usize,
    /// The line; of a very long one, the part around the place.
    pub line_text: String,
    /// Characters of `line_text` before the place.
    pub offset: usize,
    /// The thing, the expectation and the finding.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
}

impl Diagnostic {
    /// The form with the line and a mark under the place; several lines, no newline at the end.
    #[must_use]
    pub fn render(&self) -> String {
        let number = self.line.to_string();
        let margin = " ".repeat(number.len());
        let mut line = String::new();
        let mut mark = String::new();
        for (index, character) in self.line_text.chars().enumerate() {
            let shown = match character {
                '\t' => "    ".to_owned(),
                character if character.is_control() => "\u{fffd}".to_owned(),
                character => character.to_string(),
            };
            let width: usize = shown.chars().filter_map(UnicodeWidthChar::width).sum();
            line.push_str(&shown);
            if index < self.offset {
                mark.push_str(&" ".repeat(width));
            } else if index < self.offset + self.length {
                mark.push_str(&"^".repeat(width));
            }
        }
        if !mark.ends_with('^') {
            mark.push('^');
        }
        let mut text = format!(
            "{}: {}\n{margin}--> {}:{}:{}\n{margin} |\n{number} | {line}\n{margin} | {mark}",
            self.severity, self.message, self.file, self.line, self.column
        );
        if let Some(hint) = &self.hint {
            text.push_str("\nhint: ");
            text.push_str(hint);
        }
        text
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "{}:{}:{}: {}",
            self.file, self.line, self.column, self.message
        )
    }
}

impl std::error::Error for Diagnostic {}

impl Hint for Diagnostic {
    fn hint(&self) -> Option<String> {
        self.hint.clone()
    }
}

/// Why a file is refused: everything found at once, in the order of the file; never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigErrors {
    diagnostics: Vec<Diagnostic>,
}

impl ConfigErrors {
    /// The errors among `diagnostics`, in the order of the file; `None` where there are none.
    #[must_use]
    pub fn of(diagnostics: impl IntoIterator<Item = Diagnostic>) -> Option<Self> {
        let mut diagnostics: Vec<_> = diagnostics
            .into_iter()
            .filter(|diagnostic| diagnostic.severity == Severity::Error)
            .collect();
        sort(&mut diagnostics);
        (!diagnostics.is_empty()).then_some(Self { diagnostics })
    }

    /// Each of them.
    #[must_use]
    pub fn diagnostics(&self) -> &[Diagnostic] {
        &self.diagnostics
    }

    /// All of them with their lines, an empty line between two.
    #[must_use]
    pub fn render(&self) -> String {
        let rendered: Vec<_> = self.diagnostics.iter().map(Diagnostic::render).collect();
        rendered.join("\n\n")
    }
}

impl From<Diagnostic> for ConfigErrors {
    fn from(diagnostic: Diagnostic) -> Self {
        Self {
            diagnostics: vec![diagnostic],
        }
    }
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, diagnostic) in self.diagnostics.iter().enumerate() {
            if index > 0 {
                formatter.write_str("\n")?;
            }
            write!(formatter, "{diagnostic}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigErrors {}

impl Hint for ConfigErrors {
    fn hint(&self) -> Option<String> {
        self.diagnostics
            .iter()
            .find_map(|diagnostic| diagnostic.hint.clone())
    }
}

/// Puts diagnostics in the order of the file, each once, and no more than a person reads.
pub(super) fn sort(diagnostics: &mut Vec<Diagnostic>) {
    diagnostics.sort_by(|left, right| {
        (left.line, left.column, left.severity)
            .cmp(&(right.line, right.column, right.severity))
            .then_with(|| left.message.cmp(&right.message))
    });
    diagnostics.dedup();
    diagnostics.truncate(MOST_REPORTED);
}

/// A file's text, by line.
pub(super) struct Document {
    file: String,
    text: String,
    /// Where each line starts.
    lines: Vec<usize>,
    /// One byte is one character throughout.
    ascii: bool,
}

impl Document {
    /// Takes the text of `file`; a byte order mark at its start is no part of it.
    pub(super) fn new(file: &str, text: &str) -> Self {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let bytes = text.as_bytes();
        let mut lines = vec![0];
        for (index, byte) in bytes.iter().enumerate() {
            if *byte == b'\n' || (*byte == b'\r' && bytes.get(index + 1) != Some(&b'\n')) {
                lines.push(index + 1);
            }
        }
        Self {
            file: file.to_owned(),
            text: text.to_owned(),
            lines,
            ascii: text.is_ascii(),
        }
    }

    pub(super) fn text(&self) -> &str {
        &self.text
    }

    /// The line numbered `number` from 1, without what ends it; empty where there is none.
    pub(super) fn line(&self, number: usize) -> &str {
        let Some(start) = number
            .checked_sub(1)
            .and_then(|index| self.lines.get(index))
        else {
            return "";
        };
        let end = self.lines.get(number).copied().unwrap_or(self.text.len());
        self.text[*start..end].trim_end_matches(['\r', '\n'])
    }

    /// The place of a range of bytes; its length ends with the line.
    pub(super) fn position(&self, bytes: &std::ops::Range<usize>) -> Position {
        let start = bytes.start.min(self.text.len());
        let line = self.lines.partition_point(|first| *first <= start);
        let first = self.lines[line - 1];
        let count = |from: usize, to: usize| {
            if self.ascii {
                to.saturating_sub(from)
            } else {
                self.text
                    .get(from..to)
                    .map_or(0, |part| part.chars().count())
            }
        };
        let end = bytes.end.min(first + self.line(line).len());
        Position {
            line,
            column: count(first, start) + 1,
            length: count(start, end).max(1),
        }
    }

    /// Says something about a place.
    pub(super) fn diagnostic(
        &self,
        severity: Severity,
        position: Position,
        message: impl Into<String>,
        hint: Option<String>,
    ) -> Diagnostic {
        let line = self.line(position.line);
        let before = position.column.saturating_sub(1);
        let skipped = before.saturating_sub(WINDOW);
        let mut line_text: String = line.chars().skip(skipped).take(2 * WINDOW).collect();
        let mut offset = before - skipped;
        if skipped + line_text.chars().count() < line.chars().count() {
            line_text.push('…');
        }
        if skipped > 0 {
            line_text.insert(0, '…');
            offset += 1;
        }
        let hint = hint.or_else(|| {
            (line.contains("{{") || line.contains("${")).then(|| {
                "this looks like a template: fill it in first, then give the result".to_owned()
            })
        });
        Diagnostic {
            severity,
            file: self.file.clone(),
            line: position.line,
            column: position.column,
            length: position.length.max(1),
            line_text: without_credentials(&line_text),
            offset,
            message: without_credentials(&message.into()),
            hint: hint.map(|hint| without_credentials(&hint)),
        }
    }
}

impl fmt::Debug for Document {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("Document").field(&self.file).finish()
    }
}

/// Masks what stands between `://` and `@` in a host, character by character.
fn without_credentials(text: &str) -> String {
    let mut rest = text;
    let mut masked = String::with_capacity(text.len());
    while let Some(start) = rest.find("://") {
        let (before, after) = rest.split_at(start + 3);
        masked.push_str(before);
        let host = after
            .find(|character: char| {
                matches!(character, '/' | '"' | '\'') || character.is_whitespace()
            })
            .unwrap_or(after.len());
        if let Some(end) = after[..host].rfind('@') {
            masked.extend(after[..end].chars().map(|_| '*'));
            rest = &after[end..];
        } else {
            rest = after;
        }
    }
    masked.push_str(rest);
    masked
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_marked_under_what_is_shown() {
        let text = "a: 1\n\tkey: 日本 value\r\nlast";
        let document = Document::new("x.yaml", text);
        for (part, expected) in [
            (
                "value",
                "error: wrong\n --> x.yaml:2:10\n  |\n2 |     key: 日本 value\n  |               ^^^^^",
            ),
            (
                "last",
                "error: wrong\n --> x.yaml:3:1\n  |\n3 | last\n  | ^^^^",
            ),
        ] {
            let start = text.find(part).unwrap();
            let position = document.position(&(start..start + part.len()));
            let diagnostic = document.diagnostic(Severity::Error, position, "wrong", None);
            assert_eq!(
                diagnostic.render(),
                expected,
                "the mark stands under {part:?}"
            );
        }
    }

    #[test]
    fn a_very_long_line_is_cut_around_the_place() {
        let text = format!("{}HERE{}", "a".repeat(5000), "b".repeat(5000));
        let document = Document::new("x.json", &text);
        let diagnostic = document.diagnostic(
            Severity::Error,
            document.position(&(5000..5004)),
            "wrong",
            None,
        );
        let shown: String = diagnostic
            .line_text
            .chars()
            .skip(diagnostic.offset)
            .take(4)
            .collect();
        assert_eq!(
            shown, "HERE",
            "the offset points at the place in the part kept"
        );
        assert_eq!(diagnostic.column, 5001, "the column is that of the file");
        assert!(
            diagnostic.line_text.chars().count() < 250,
            "the rest of the line is left out"
        );
    }

    #[test]
    fn a_diagnostic_shows_no_credentials() {
        let text = "url: https://user:secret@host.test/a # https://token@b";
        let document = Document::new("x.yaml", text);
        let diagnostic =
            document.diagnostic(Severity::Error, document.position(&(5..10)), text, None);
        for shown in [
            diagnostic.render(),
            diagnostic.to_string(),
            format!("{diagnostic:?}"),
        ] {
            assert!(
                !shown.contains("secret") && !shown.contains("token") && !shown.contains("user"),
                "{shown} must not show a credential"
            );
            assert!(shown.contains("@host.test/a"), "the host stays: {shown}");
        }
    }

    #[test]
    fn control_characters_do_not_reach_the_terminal() {
        let document = Document::new("x.yaml", "a\u{1b}[31mb");
        let diagnostic = document.diagnostic(
            Severity::Note,
            Position {
                line: 1,
                column: 1,
                length: 1,
            },
            "look",
            None,
        );
        assert!(
            !diagnostic.render().contains('\u{1b}'),
            "an escape sequence must not be printed raw"
        );
    }

    #[test]
    fn errors_come_in_the_order_of_the_file_and_once() {
        let document = Document::new("x.yaml", "a\nb\n");
        let at = |line| Position {
            line,
            column: 1,
            length: 1,
        };
        let errors = ConfigErrors::of([
            document.diagnostic(Severity::Error, at(2), "second", None),
            document.diagnostic(Severity::Error, at(1), "first", None),
            document.diagnostic(Severity::Note, at(1), "a note", None),
            document.diagnostic(Severity::Error, at(1), "first", None),
        ])
        .unwrap();
        assert_eq!(
            errors.to_string(),
            "x.yaml:1:1: first\nx.yaml:2:1: second",
            "sorted, once, without notes"
        );
        assert_eq!(ConfigErrors::of([]), None, "no diagnostic is no error");
    }
}
