//! Patterns over paths: `.Files.Glob`, and the lines of `.helmignore`.

use std::fmt::Write as _;

use regex::{Regex, RegexBuilder};

use crate::chart::load::ChartError;

/// Largest compiled pattern.
const SIZE: usize = 1 << 20;

/// A pattern over whole paths.
#[derive(Debug)]
pub(super) struct Glob(Option<Regex>);

impl Glob {
    /// A pattern of `.Files.Glob`: `*` and `?` stop at slashes, `**` does not, `{a,b}` is a choice. A malformed
    /// pattern matches everything, as in Helm.
    pub(super) fn files(pattern: &str) -> Self {
        Self(compile(&translated(pattern, true)))
    }

    /// A pattern of a `.helmignore` file; `None` if it is malformed.
    fn ignore(pattern: &str) -> Option<Self> {
        compile(&translated(pattern, false)).map(|regex| Self(Some(regex)))
    }

    pub(super) fn matches(&self, path: &str) -> bool {
        self.0.as_ref().is_none_or(|regex| regex.is_match(path))
    }
}

fn compile(expression: &str) -> Option<Regex> {
    RegexBuilder::new(expression).size_limit(SIZE).build().ok()
}

/// A pattern as a regular expression.
fn translated(pattern: &str, extended: bool) -> String {
    let mut expression = String::from("(?s)^");
    let mut characters = pattern.chars().peekable();
    let mut choices = 0_usize;
    while let Some(character) = characters.next() {
        match character {
            '*' if extended && characters.peek() == Some(&'*') => {
                while characters.peek() == Some(&'*') {
                    characters.next();
                }
                expression.push_str(".*");
            }
            '*' => expression.push_str("[^/]*"),
            '?' => expression.push_str("[^/]"),
            '[' => {
                expression.push('[');
                if matches!(characters.peek(), Some('!' | '^')) {
                    characters.next();
                    expression.push('^');
                }
                let mut closed = false;
                for inner in characters.by_ref() {
                    match inner {
                        ']' => {
                            closed = true;
                            break;
                        }
                        '-' => expression.push('-'),
                        _ => escape(inner, &mut expression),
                    }
                }
                // Without its end the expression will not compile, which is what is wanted.
                expression.push_str(if closed { "]" } else { "" });
            }
            '{' if extended => {
                choices += 1;
                expression.push_str("(?:");
            }
            '}' if extended && choices > 0 => {
                choices -= 1;
                expression.push(')');
            }
            ',' if extended && choices > 0 => expression.push('|'),
            '\\' => match characters.next() {
                Some(escaped) => escape(escaped, &mut expression),
                None => expression.push('('),
            },
            _ => escape(character, &mut expression),
        }
    }
    expression.push('$');
    expression
}

fn escape(character: char, expression: &mut String) {
    if character.is_alphanumeric() || character == '_' || character == '/' || !character.is_ascii()
    {
        expression.push(character);
    } else {
        let _ = write!(expression, "\\x{{{:x}}}", u32::from(character));
    }
}

/// Which files of a directory are no part of its chart.
#[derive(Debug, Default)]
pub(super) struct Ignore {
    rules: Vec<Rule>,
}

#[derive(Debug)]
struct Rule {
    glob: Glob,
    negated: bool,
    directories_only: bool,
    base_name: bool,
}

impl Ignore {
    /// Reads a `.helmignore` file. Hidden files among the templates are always ignored.
    pub(super) fn parse(text: &str) -> Result<Self, ChartError> {
        let mut rules = Vec::new();
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        for (number, line) in text.lines().chain(["templates/.?*"]).enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let malformed = || ChartError::Ignore {
                line: number + 1,
                rule: line.to_owned(),
            };
            if line.contains("**") {
                return Err(malformed());
            }
            let (negated, rule) = match line.strip_prefix('!') {
                Some(rule) => (true, rule),
                None => (false, line),
            };
            let (directories_only, rule) = match rule.strip_suffix('/') {
                Some(rule) => (true, rule),
                None => (false, rule),
            };
            let base_name = !rule.contains('/');
            let rule = rule.strip_prefix('/').unwrap_or(rule);
            rules.push(Rule {
                glob: Glob::ignore(rule).ok_or_else(malformed)?,
                negated,
                directories_only,
                base_name,
            });
        }
        Ok(Self { rules })
    }

    /// Whether a path, relative to the chart, is ignored.
    pub(super) fn ignores(&self, path: &str, is_directory: bool) -> bool {
        for rule in &self.rules {
            let subject = if rule.base_name {
                path.rsplit('/').next().unwrap_or(path)
            } else {
                path
            };
            if rule.negated {
                if (rule.directories_only && !is_directory) || !rule.glob.matches(subject) {
                    return true;
                }
                continue;
            }
            if rule.directories_only && !is_directory {
                continue;
            }
            if rule.glob.matches(subject) {
                return true;
            }
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_of_files_match_as_in_helm() {
        for (pattern, path, matches) in [
            ("files/*", "files/a.yaml", true),
            ("files/*", "files/a/b.yaml", false),
            ("files/**", "files/a/b.yaml", true),
            ("**.yaml", "files/a/b.yaml", true),
            ("{a,b}/*.txt", "b/x.txt", true),
            ("[a-c].txt", "b.txt", true),
            ("[!a-c].txt", "b.txt", false),
        ] {
            assert_eq!(
                Glob::files(pattern).matches(path),
                matches,
                "{pattern} on {path}"
            );
        }
    }

    #[test]
    fn ignored_files_are_those_helm_ignores() {
        let ignore = Ignore::parse("# a comment\n*.tmp\n/root.txt\nci/\na/b.yaml\n").unwrap();
        for (path, is_directory, ignored) in [
            ("x.tmp", false, true),
            ("deep/x.tmp", false, true),
            ("root.txt", false, true),
            ("deep/root.txt", false, false),
            ("ci", true, true),
            ("ci", false, false),
            ("a/b.yaml", false, true),
            ("templates/.hidden", false, true),
            ("templates/deployment.yaml", false, false),
        ] {
            assert_eq!(ignore.ignores(path, is_directory), ignored, "{path}");
        }
        assert!(
            Ignore::parse("a/**").is_err(),
            "Helm knows no double star here, so it is an error and not a guess"
        );
    }
}
