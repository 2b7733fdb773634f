//! The lexer: texts outside of actions, and the tokens inside.
//!
//! Actions stand between `{{` and `}}`; `{{- ` trims the white space before, ` -}}` that after. Tokens borrow from
//! the text. Spaces inside an action are tokens, because `a .b` and `a.b` differ.

/// What a token is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::chart) enum Kind {
    Assign,
    Bool,
    Character,
    CharacterConstant,
    Declare,
    Dot,
    End,
    Field,
    Identifier,
    Keyword,
    LeftDelimiter,
    LeftParenthesis,
    Nil,
    Number,
    Pipe,
    RawString,
    RightDelimiter,
    RightParenthesis,
    Space,
    String,
    Text,
    Variable,
}

/// A token and where it starts, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::chart) struct Token<'a> {
    pub(in crate::chart) kind: Kind,
    pub(in crate::chart) text: &'a str,
    pub(in crate::chart) position: usize,
}

/// What the lexer cannot read, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::chart) struct LexError {
    pub(in crate::chart) message: String,
    pub(in crate::chart) position: usize,
}

const LEFT: &str = "{{";
const RIGHT: &str = "}}";
const SPACES: [char; 4] = [' ', '\t', '\r', '\n'];

/// Reads the tokens of a text, one at a time; the last is [`Kind::End`].
#[derive(Debug)]
pub(in crate::chart) struct Lexer<'a> {
    input: &'a str,
    position: usize,
    inside: bool,
    parentheses: usize,
}

impl<'a> Lexer<'a> {
    pub(in crate::chart) fn new(input: &'a str) -> Self {
        Self {
            input,
            position: 0,
            inside: false,
            parentheses: 0,
        }
    }

    pub(in crate::chart) fn next(&mut self) -> Result<Token<'a>, LexError> {
        if self.inside {
            self.inside_action()
        } else {
            self.text()
        }
    }

    fn rest(&self) -> &'a str {
        &self.input[self.position..]
    }

    fn fail<T>(&self, message: impl Into<String>) -> Result<T, LexError> {
        Err(LexError {
            message: message.into(),
            position: self.position.min(self.input.len()),
        })
    }

    fn token(&mut self, kind: Kind, length: usize) -> Token<'a> {
        let position = self.position;
        self.position += length;
        Token {
            kind,
            text: &self.input[position..self.position],
            position,
        }
    }

    fn text(&mut self) -> Result<Token<'a>, LexError> {
        loop {
            let rest = self.rest();
            let Some(at) = rest.find(LEFT) else {
                return Ok(if rest.is_empty() {
                    self.token(Kind::End, 0)
                } else {
                    self.token(Kind::Text, rest.len())
                });
            };
            if at > 0 {
                let text = &rest[..at];
                let kept = if trims_left(&rest[at + LEFT.len()..]) {
                    text.trim_end_matches(SPACES).len()
                } else {
                    at
                };
                let token = self.token(Kind::Text, kept);
                self.position += at - kept;
                if kept > 0 {
                    return Ok(token);
                }
            }
            if let Some(token) = self.left_delimiter()? {
                return Ok(token);
            }
        }
    }

    /// Reads `{{`, or skips a whole comment.
    fn left_delimiter(&mut self) -> Result<Option<Token<'a>>, LexError> {
        let after = &self.rest()[LEFT.len()..];
        let marker = if trims_left(after) { 2 } else { 0 };
        if after[marker..].starts_with("/*") {
            self.position += LEFT.len() + marker;
            let Some(end) = self.rest()[2..].find("*/") else {
                return self.fail("unclosed comment");
            };
            self.position += 2 + end + 2;
            let Some(trims) = self.right_delimiter() else {
                return self.fail("comment ends before closing delimiter");
            };
            self.skip_right_delimiter(trims);
            return Ok(None);
        }
        let token = self.token(Kind::LeftDelimiter, LEFT.len());
        self.position += marker;
        self.inside = true;
        self.parentheses = 0;
        Ok(Some(token))
    }

    /// Whether a right delimiter follows, and whether it trims.
    fn right_delimiter(&self) -> Option<bool> {
        let rest = self.rest();
        if trims_right(rest) && rest[2..].starts_with(RIGHT) {
            Some(true)
        } else if rest.starts_with(RIGHT) {
            Some(false)
        } else {
            None
        }
    }

    fn skip_right_delimiter(&mut self, trims: bool) -> Token<'a> {
        if trims {
            self.position += 2;
        }
        let token = self.token(Kind::RightDelimiter, RIGHT.len());
        if trims {
            let rest = self.rest();
            self.position += rest.len() - rest.trim_start_matches(SPACES).len();
        }
        token
    }

    fn inside_action(&mut self) -> Result<Token<'a>, LexError> {
        if let Some(trims) = self.right_delimiter() {
            if self.parentheses > 0 {
                return self.fail("unclosed left paren");
            }
            self.inside = false;
            return Ok(self.skip_right_delimiter(trims));
        }
        let rest = self.rest();
        let Some(character) = rest.chars().next() else {
            return self.fail("unclosed action");
        };
        match character {
            ' ' | '\t' | '\r' | '\n' => {
                let all = rest.len() - rest.trim_start_matches(SPACES).len();
                // The last space may belong to a trimming delimiter.
                let trims = trims_right(&rest[all - 1..]) && rest[all + 1..].starts_with(RIGHT);
                if trims && all == 1 {
                    self.inside = false;
                    if self.parentheses > 0 {
                        return self.fail("unclosed left paren");
                    }
                    return Ok(self.skip_right_delimiter(true));
                }
                Ok(self.token(Kind::Space, if trims { all - 1 } else { all }))
            }
            '=' => Ok(self.token(Kind::Assign, 1)),
            ':' if rest[1..].starts_with('=') => Ok(self.token(Kind::Declare, 2)),
            ':' => self.fail("expected :="),
            '|' => Ok(self.token(Kind::Pipe, 1)),
            '"' => self.quoted('"', Kind::String, "unterminated quoted string"),
            '\'' => self.quoted(
                '\'',
                Kind::CharacterConstant,
                "unterminated character constant",
            ),
            '`' => match rest[1..].find('`') {
                Some(end) => Ok(self.token(Kind::RawString, end + 2)),
                None => self.fail("unterminated raw quoted string"),
            },
            '$' => self.field_or_variable(Kind::Variable),
            '.' if !rest[1..].starts_with(|c: char| c.is_ascii_digit()) => {
                self.field_or_variable(Kind::Field)
            }
            '.' | '+' | '-' | '0'..='9' => self.number(),
            '(' => {
                self.parentheses += 1;
                Ok(self.token(Kind::LeftParenthesis, 1))
            }
            ')' => {
                if self.parentheses == 0 {
                    return self.fail("unexpected right paren");
                }
                self.parentheses -= 1;
                Ok(self.token(Kind::RightParenthesis, 1))
            }
            _ if is_alphanumeric(character) => self.identifier(),
            _ if character.is_ascii_graphic() => Ok(self.token(Kind::Character, 1)),
            _ => self.fail(format!("unrecognized character in action: {character:?}")),
        }
    }

    fn quoted(
        &mut self,
        quote: char,
        kind: Kind,
        message: &'static str,
    ) -> Result<Token<'a>, LexError> {
        let mut escaped = false;
        for (at, character) in self.rest().char_indices().skip(1) {
            if character == '\n' {
                break;
            } else if escaped {
                escaped = false;
            } else if character == '\\' {
                escaped = true;
            } else if character == quote {
                return Ok(self.token(kind, at + 1));
            }
        }
        self.fail(message)
    }

    fn word(rest: &str) -> usize {
        rest.find(|character| !is_alphanumeric(character))
            .unwrap_or(rest.len())
    }

    fn ends_word(&self, at: usize) -> Result<(), LexError> {
        let rest = &self.rest()[at..];
        let ends = match rest.chars().next() {
            None => true,
            Some(character) => {
                SPACES.contains(&character)
                    || matches!(character, '.' | ',' | '|' | ':' | ')' | '(')
                    || rest.starts_with(RIGHT)
            }
        };
        if ends {
            return Ok(());
        }
        let character = rest.chars().next().unwrap_or_default();
        self.fail(format!("bad character {character:?}"))
    }

    fn identifier(&mut self) -> Result<Token<'a>, LexError> {
        let length = Self::word(self.rest());
        self.ends_word(length)?;
        let kind = match &self.rest()[..length] {
            "block" | "break" | "continue" | "define" | "else" | "end" | "if" | "range"
            | "template" | "with" => Kind::Keyword,
            "nil" => Kind::Nil,
            "true" | "false" => Kind::Bool,
            _ => Kind::Identifier,
        };
        Ok(self.token(kind, length))
    }

    fn field_or_variable(&mut self, kind: Kind) -> Result<Token<'a>, LexError> {
        let length = 1 + Self::word(&self.rest()[1..]);
        self.ends_word(length)?;
        let kind = if kind == Kind::Field && length == 1 {
            Kind::Dot
        } else {
            kind
        };
        Ok(self.token(kind, length))
    }

    fn number(&mut self) -> Result<Token<'a>, LexError> {
        let mut length = number_length(self.rest());
        if self.rest()[length..].starts_with(['+', '-']) {
            length += number_length(&self.rest()[length..]);
        }
        if self.rest()[length..].starts_with(is_alphanumeric) {
            let text = &self.rest()[..length];
            return self.fail(format!("bad number syntax: {text:?}"));
        }
        Ok(self.token(Kind::Number, length))
    }
}

/// How long the number at the start of a text is.
fn number_length(text: &str) -> usize {
    let bytes = text.as_bytes();
    let run = |mut at: usize, allowed: &[u8]| {
        while bytes.get(at).is_some_and(|byte| allowed.contains(byte)) {
            at += 1;
        }
        at
    };
    let one = |at: usize, allowed: &[u8]| {
        if bytes.get(at).is_some_and(|byte| allowed.contains(byte)) {
            at + 1
        } else {
            at
        }
    };
    let mut at = one(0, b"+-");
    let mut digits: &[u8] = b"0123456789_";
    let (mut decimal, mut hexadecimal) = (true, false);
    if bytes.get(at) == Some(&b'0') {
        at += 1;
        let prefix = bytes.get(at).map(u8::to_ascii_lowercase);
        match prefix {
            Some(b'x') => {
                digits = b"0123456789abcdefABCDEF_";
                (decimal, hexadecimal) = (false, true);
                at += 1;
            }
            Some(b'o') => {
                digits = b"01234567_";
                decimal = false;
                at += 1;
            }
            Some(b'b') => {
                digits = b"01_";
                decimal = false;
                at += 1;
            }
            _ => {}
        }
    }
    at = run(at, digits);
    if bytes.get(at) == Some(&b'.') {
        at = run(at + 1, digits);
    }
    let exponent: &[u8] = if decimal {
        b"eE"
    } else if hexadecimal {
        b"pP"
    } else {
        b""
    };
    let after = one(at, exponent);
    if after > at {
        at = run(one(after, b"+-"), b"0123456789_");
    }
    one(at, b"i")
}

fn is_alphanumeric(character: char) -> bool {
    character == '_' || character.is_alphabetic() || character.is_numeric()
}

fn trims_left(text: &str) -> bool {
    text.starts_with('-') && text[1..].starts_with(SPACES)
}

fn trims_right(text: &str) -> bool {
    text.starts_with(SPACES) && text[1..].starts_with('-')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kinds(text: &str) -> Vec<(Kind, &str)> {
        let mut lexer = Lexer::new(text);
        let mut tokens = Vec::new();
        loop {
            let token = lexer.next().unwrap();
            if token.kind == Kind::End {
                return tokens;
            }
            tokens.push((token.kind, token.text));
        }
    }

    #[test]
    fn markers_trim_white_space() {
        let text = "a \n{{- 3 -}}\n b {{/* no */ -}}  c";
        let texts: Vec<&str> = kinds(text)
            .into_iter()
            .filter(|(kind, _)| *kind == Kind::Text)
            .map(|(_, text)| text)
            .collect();
        assert_eq!(
            texts,
            ["a", "b ", "c"],
            "a marker takes the space beside it"
        );
    }

    #[test]
    fn a_minus_sign_is_no_marker() {
        assert_eq!(
            kinds("{{-3}}")[1],
            (Kind::Number, "-3"),
            "only a minus with a space beside it trims"
        );
    }
}
