//! YAML (and so JSON) into a tree with places.
//!
//! Read from parser events, not through serde: a config with five mistakes gets five messages, each at its
//! line, and a version such as `4.10` is never a number on the way. Anchors, aliases and merge keys (`<<`)
//! work; what an alias brings in is bounded, so a small file cannot stand for a huge one.

use std::collections::HashMap;
use std::rc::Rc;

use granit_parser::{Event, Parser, ScalarStyle, Span, Tag};

use super::diagnostic::{Diagnostic, Document, Position, Severity};
use super::node::{Entry, Kind, Node, shorten};

/// Largest config read: the largest known are below 1 MiB.
const LARGEST_TEXT: usize = 16 << 20;

/// Deepest nesting: the schema needs 9.
const DEEPEST: usize = 64;

/// Most that aliases may bring in, all together, in nodes and bytes of text.
const LARGEST_EXPANSION: usize = 4 << 20;

/// What a node weighs against [`LARGEST_EXPANSION`] beside its text.
const NODE_WEIGHT: usize = 32;

/// A finished node, and what it would weigh brought in once more.
#[derive(Clone)]
struct Built {
    node: Rc<Node>,
    weight: usize,
    depth: usize,
}

enum Open {
    List(Vec<Built>),
    /// The entries so far and a key that waits for its value.
    Mapping(Vec<(Built, Built)>, Option<Built>),
}

struct Frame {
    open: Open,
    position: Position,
    anchor: usize,
}

struct Reader<'d> {
    document: &'d Document,
    diagnostics: Vec<Diagnostic>,
    anchors: HashMap<usize, Built>,
    stack: Vec<Frame>,
    expansion: usize,
}

/// Reads the one document of a file; `None` only with an error among the diagnostics.
pub(super) fn read(document: &Document) -> (Option<Rc<Node>>, Vec<Diagnostic>) {
    let mut reader = Reader {
        document,
        diagnostics: Vec::new(),
        anchors: HashMap::new(),
        stack: Vec::new(),
        expansion: 0,
    };
    if document.text().len() > LARGEST_TEXT {
        reader.error(
            Position {
                line: 1,
                column: 1,
                length: 1,
            },
            format!(
                "the file has {} bytes; a config has at most {LARGEST_TEXT}",
                document.text().len()
            ),
            None,
        );
        return (None, reader.diagnostics);
    }
    let root = reader.document_node();
    if root.is_none() && reader.diagnostics.is_empty() {
        reader.error(
            Position {
                line: 1,
                column: 1,
                length: 1,
            },
            "the file holds no config",
            Some("`imgbuild init` writes a config to start from".to_owned()),
        );
    }
    (root, reader.diagnostics)
}

impl Reader<'_> {
    fn error(&mut self, position: Position, message: impl Into<String>, hint: Option<String>) {
        let diagnostic = self
            .document
            .diagnostic(Severity::Error, position, message, hint);
        self.diagnostics.push(diagnostic);
    }

    fn position(&self, span: &Span) -> Position {
        let (line, column) = (span.start.line(), span.start.col() + 1);
        let length = if span.end.line() == line {
            span.end.col().saturating_sub(span.start.col())
        } else {
            (self.document.line(line).chars().count() + 1).saturating_sub(column)
        };
        Position {
            line,
            column,
            length: length.max(1),
        }
    }

    fn document_node(&mut self) -> Option<Rc<Node>> {
        let document = self.document;
        let options = granit_parser::options! {
            emit_comments: false,
            flow_nesting_limit: DEEPEST,
            block_nesting_limit: DEEPEST,
        };
        let mut root = None;
        for event in Parser::new_from_str_with_options(document.text(), options) {
            let (event, span) = match event {
                Ok(event) => event,
                Err(error) => {
                    self.syntax_error(&error);
                    return None;
                }
            };
            let position = self.position(&span);
            let built = match event {
                Event::Scalar(text, style, anchor, tag) => {
                    let kind = self.scalar(&text, style, tag.as_deref(), position);
                    let weight = NODE_WEIGHT + text.len();
                    Some((
                        Built {
                            node: Rc::new(Node { position, kind }),
                            weight,
                            depth: 1,
                        },
                        anchor,
                    ))
                }
                Event::SequenceStart(_, anchor, tag) => {
                    self.open(
                        Open::List(Vec::new()),
                        position,
                        anchor,
                        tag.as_deref(),
                        "seq",
                    )?;
                    None
                }
                Event::MappingStart(_, anchor, tag) => {
                    self.open(
                        Open::Mapping(Vec::new(), None),
                        position,
                        anchor,
                        tag.as_deref(),
                        "map",
                    )?;
                    None
                }
                Event::SequenceEnd | Event::MappingEnd => {
                    let frame = self.stack.pop()?;
                    let anchor = frame.anchor;
                    Some((self.close(frame), anchor))
                }
                Event::Alias(anchor) => Some((self.alias(anchor, position)?, 0)),
                Event::DocumentStart(..) if root.is_some() => {
                    self.error(
                        Position {
                            length: 3,
                            ..position
                        },
                        "a second document starts here; a config is one document",
                        Some(
                            "keep one document per file: split the file at its `---` lines"
                                .to_owned(),
                        ),
                    );
                    return root;
                }
                _ => None,
            };
            if let Some((built, anchor)) = built {
                if anchor != 0 {
                    self.anchors.insert(anchor, built.clone());
                }
                match self.stack.last_mut().map(|frame| &mut frame.open) {
                    None => root = Some(built.node),
                    Some(Open::List(items)) => items.push(built),
                    Some(Open::Mapping(entries, key)) => match key.take() {
                        None => *key = Some(built),
                        Some(key) => entries.push((key, built)),
                    },
                }
            }
        }
        root
    }

    fn syntax_error(&mut self, error: &granit_parser::ScanError) {
        let marker = error.marker();
        let position = Position {
            line: marker.line(),
            column: marker.col() + 1,
            length: 1,
        };
        let line = self.document.line(position.line);
        let indent = &line[..line.len() - line.trim_start().len()];
        let reason = error.info();
        let hint = if indent.contains('\t') {
            Some("YAML is indented with spaces: replace the tabs")
        } else if reason.contains("did not find expected '-'") || reason.contains("expected key") {
            Some("check the indentation of this line and of the lines above it")
        } else if reason.contains("escape") {
            Some("in double quotes a backslash opens an escape: write single quotes")
        } else if reason.contains("quoted scalar") {
            Some("a quote that opens on this line or above is not closed")
        } else {
            None
        };
        // A template has its own hint.
        let hint = hint.filter(|_| !line.contains("{{")).map(str::to_owned);
        self.error(position, format!("not YAML: {reason}"), hint);
    }

    /// Starts a list or a mapping; `None` where it is too deep, after saying so.
    fn open(
        &mut self,
        open: Open,
        position: Position,
        anchor: usize,
        tag: Option<&Tag>,
        expected: &str,
    ) -> Option<()> {
        if self.stack.len() >= DEEPEST {
            self.error(
                position,
                format!("nested deeper than {DEEPEST} levels"),
                None,
            );
            return None;
        }
        self.refuse_tag(tag, &[expected], position);
        self.stack.push(Frame {
            open,
            position: Position {
                length: 1,
                ..position
            },
            anchor,
        });
        Some(())
    }

    fn refuse_tag(&mut self, tag: Option<&Tag>, allowed: &[&str], position: Position) {
        if let Some(tag) = tag
            && !tag
                .core_suffix()
                .is_some_and(|suffix| allowed.contains(&suffix))
            && tag.original() != "!"
        {
            self.error(
                position,
                format!(
                    "the tag {:?} means nothing in a config",
                    shorten(&tag.original())
                ),
                Some("remove the tag".to_owned()),
            );
        }
    }

    fn scalar(
        &mut self,
        text: &str,
        style: ScalarStyle,
        tag: Option<&Tag>,
        position: Position,
    ) -> Kind {
        self.refuse_tag(tag, &["str", "int", "float", "bool", "null"], position);
        let is_text =
            tag.is_some_and(|tag| tag.core_suffix() == Some("str") || tag.original() == "!");
        let plain = style == ScalarStyle::Plain && !is_text;
        if plain && matches!(text, "" | "~" | "null" | "Null" | "NULL") {
            Kind::Null
        } else {
            Kind::Scalar {
                text: text.to_owned(),
                plain,
            }
        }
    }

    fn alias(&mut self, anchor: usize, position: Position) -> Option<Built> {
        let Some(built) = self.anchors.get(&anchor).cloned() else {
            self.error(
                position,
                "an alias inside the value that it stands for",
                None,
            );
            return None;
        };
        self.expansion = self.expansion.saturating_add(built.weight);
        if self.expansion > LARGEST_EXPANSION || self.stack.len() + built.depth > DEEPEST {
            self.error(
                position,
                "the aliases of this file stand for more than a config may hold",
                Some("write the values out".to_owned()),
            );
            return None;
        }
        let node = Node {
            position,
            kind: built.node.kind.clone(),
        };
        Some(Built {
            node: Rc::new(node),
            ..built
        })
    }

    fn close(&mut self, frame: Frame) -> Built {
        let mut weight = NODE_WEIGHT;
        let mut depth = 0;
        let mut count = |built: &Built| {
            weight += built.weight;
            depth = depth.max(built.depth);
        };
        let (position, kind) = match frame.open {
            Open::List(items) => {
                items.iter().for_each(&mut count);
                let items = items.into_iter().map(|built| built.node).collect();
                (frame.position, Kind::List(items))
            }
            Open::Mapping(pairs, _) => {
                for (key, value) in &pairs {
                    count(key);
                    count(value);
                }
                let position = pairs.first().map_or(frame.position, |(key, _)| {
                    // A flow mapping starts at its brace, a block mapping at its first key.
                    frame.position.min(Position {
                        length: 1,
                        ..key.node.position
                    })
                });
                (position, Kind::Mapping(self.entries(pairs)))
            }
        };
        Built {
            node: Rc::new(Node { position, kind }),
            weight,
            depth: depth + 1,
        }
    }

    /// The entries of a mapping: no key twice, merge keys merged in behind what is written out.
    fn entries(&mut self, pairs: Vec<(Built, Built)>) -> Vec<Entry> {
        let mut entries: Vec<Entry> = Vec::with_capacity(pairs.len());
        let mut seen: HashMap<String, Position> = HashMap::with_capacity(pairs.len());
        let mut merged = Vec::new();
        for (key, value) in pairs {
            let key_position = key.node.position;
            let (text, plain) = match &key.node.kind {
                Kind::Scalar { text, plain } => (text.clone(), *plain),
                Kind::Null => ("null".to_owned(), false),
                Kind::List(_) | Kind::Mapping(_) => {
                    self.error(
                        key_position,
                        format!("a key is text, found {}", key.node.found()),
                        None,
                    );
                    continue;
                }
            };
            if let Some(first) = seen.get(&text) {
                let first = format!(
                    "the first one is at line {}, column {}",
                    first.line, first.column
                );
                self.error(
                    key_position,
                    format!("the key {:?} is given twice in one mapping", shorten(&text)),
                    Some(first),
                );
                continue;
            }
            seen.insert(text.clone(), key_position);
            if plain && text == "<<" {
                merged.push((key_position, value.node));
            } else {
                entries.push(Entry {
                    key: text,
                    key_position,
                    value: value.node,
                });
            }
        }
        for (position, value) in merged {
            self.merge(&mut entries, &mut seen, position, &value);
        }
        entries
    }

    fn merge(
        &mut self,
        entries: &mut Vec<Entry>,
        seen: &mut HashMap<String, Position>,
        position: Position,
        value: &Node,
    ) {
        let sources: Vec<&Node> = match &value.kind {
            Kind::List(items) => items.iter().map(Rc::as_ref).collect(),
            _ => vec![value],
        };
        for source in sources {
            let Kind::Mapping(source_entries) = &source.kind else {
                self.error(
                    position,
                    format!(
                        "`<<` takes a mapping or a list of mappings, found {}",
                        source.found()
                    ),
                    None,
                );
                continue;
            };
            for entry in source_entries {
                if !seen.contains_key(&entry.key) {
                    seen.insert(entry.key.clone(), entry.key_position);
                    entries.push(entry.clone());
                }
            }
        }
    }
}
