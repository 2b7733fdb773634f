//! The parser: tokens to trees.
//!
//! A text gives the tree of the template it is, and one tree for every `define` and `block` in it. Functions are
//! looked up here, so that a call of an unknown one is an error before anything runs; variables too.

use std::fmt;
use std::rc::Rc;

use super::lex::{Kind, LexError, Lexer, Token};
use crate::chart::functions::{self, Function};

/// How deep parentheses and control structures may be nested. Charts written by people stay below 20.
const NESTING: usize = 500;

/// Why a text is not a template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::chart) struct ParseError {
    /// From 1.
    pub(in crate::chart) line: usize,
    pub(in crate::chart) message: String,
}

/// A template's tree, and the text its positions point into.
#[derive(Debug)]
pub(in crate::chart) struct Template {
    /// What `define` calls it, or the file.
    pub(in crate::chart) name: Rc<str>,
    /// The file it was read from.
    pub(in crate::chart) file: Rc<str>,
    pub(in crate::chart) source: Rc<str>,
    pub(in crate::chart) body: Vec<Node>,
}

impl Template {
    /// Whether there is nothing but white space in it: such a template does not replace another.
    pub(in crate::chart) fn is_empty(&self) -> bool {
        self.body.iter().all(|node| match node {
            Node::Text(text) => text.trim().is_empty(),
            _ => false,
        })
    }
}

/// A piece of a template.
#[derive(Debug)]
pub(in crate::chart) enum Node {
    Text(Rc<str>),
    Action(Pipeline),
    If(Branch),
    With(Branch),
    Range(Branch),
    Call {
        position: usize,
        name: Rc<str>,
        argument: Option<Pipeline>,
    },
    Break,
    Continue,
}

/// `if`, `with` or `range`, with the part after `else`.
#[derive(Debug)]
pub(in crate::chart) struct Branch {
    pub(in crate::chart) pipeline: Pipeline,
    pub(in crate::chart) body: Vec<Node>,
    pub(in crate::chart) otherwise: Option<Vec<Node>>,
}

/// Commands, each fed with the result of the one before.
#[derive(Debug)]
pub(in crate::chart) struct Pipeline {
    pub(in crate::chart) position: usize,
    /// Whether the variables exist already (`=`) or begin here (`:=`).
    pub(in crate::chart) assigns: bool,
    pub(in crate::chart) variables: Vec<Rc<str>>,
    pub(in crate::chart) commands: Vec<Command>,
}

/// A term and its arguments.
#[derive(Debug)]
pub(in crate::chart) struct Command {
    pub(in crate::chart) terms: Vec<Term>,
}

/// An operand and where it stands.
#[derive(Debug)]
pub(in crate::chart) struct Term {
    pub(in crate::chart) position: usize,
    pub(in crate::chart) operand: Operand,
}

/// What a term is.
#[derive(Debug)]
pub(in crate::chart) enum Operand {
    Bool(bool),
    Dot,
    Nil,
    Number(Number),
    Text(Rc<str>),
    Field(Vec<Rc<str>>),
    Variable(Rc<str>, Vec<Rc<str>>),
    Function(&'static Function),
    Chain(Box<Term>, Vec<Rc<str>>),
    Pipeline(Box<Pipeline>),
}

/// A number as written; it may do for several types.
#[derive(Clone, Debug)]
pub(in crate::chart) struct Number {
    pub(in crate::chart) text: Rc<str>,
    pub(in crate::chart) integer: Option<i64>,
    pub(in crate::chart) float: Option<f64>,
}

impl Number {
    /// Whether it is a float where nothing else says what it should be.
    pub(in crate::chart) fn is_written_as_float(&self) -> bool {
        let hexadecimal = self.text.len() > 2
            && (self.text.starts_with("0x") || self.text.starts_with("0X"))
            && !self.text.contains(['p', 'P']);
        !hexadecimal
            && !self.text.starts_with('\'')
            && self.text.contains(['.', 'e', 'E', 'p', 'P'])
    }
}

/// Reads a text: its own template first, then those it defines, in order.
pub(in crate::chart) fn parse(
    name: &Rc<str>,
    source: &Rc<str>,
) -> Result<Vec<Rc<Template>>, ParseError> {
    let mut parser = Parser {
        lexer: Lexer::new(source),
        peeked: Vec::new(),
        source,
        file: name,
        position: 0,
        variables: vec![Rc::from("$")],
        ranges: 0,
        depth: 0,
        templates: Vec::new(),
    };
    let body = parser.top().map_err(|error| ParseError {
        line: line_of(source, error.position),
        message: error.message,
    })?;
    let main = Template {
        name: name.clone(),
        file: name.clone(),
        source: source.clone(),
        body,
    };
    let mut templates = vec![Rc::new(main)];
    templates.append(&mut parser.templates);
    Ok(templates)
}

/// The line a position is in, from 1.
pub(in crate::chart) fn line_of(source: &str, position: usize) -> usize {
    let before = &source.as_bytes()[..position.min(source.len())];
    1 + memchr::memchr_iter(b'\n', before).count()
}

struct Parser<'a> {
    lexer: Lexer<'a>,
    /// Tokens put back, the next one last.
    peeked: Vec<Token<'a>>,
    source: &'a Rc<str>,
    file: &'a Rc<str>,
    /// Where the last token read starts.
    position: usize,
    variables: Vec<Rc<str>>,
    ranges: usize,
    depth: usize,
    templates: Vec<Rc<Template>>,
}

type Parsed<T> = Result<T, LexError>;

/// What ended a list of nodes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Ending {
    End,
    Else,
    /// `else if`, `else with`: the keyword is still to be read.
    ElseChain,
}

enum Item {
    Node(Node),
    Ending(Ending),
}

impl<'a> Parser<'a> {
    fn fail<T>(&self, message: impl Into<String>) -> Parsed<T> {
        Err(LexError {
            message: message.into(),
            position: self.position,
        })
    }

    fn next(&mut self) -> Parsed<Token<'a>> {
        let token = match self.peeked.pop() {
            Some(token) => token,
            None => self.lexer.next()?,
        };
        self.position = token.position;
        Ok(token)
    }

    fn back(&mut self, token: Token<'a>) {
        self.peeked.push(token);
    }

    fn peek(&mut self) -> Parsed<Token<'a>> {
        let token = self.next()?;
        self.back(token);
        Ok(token)
    }

    fn next_word(&mut self) -> Parsed<Token<'a>> {
        loop {
            let token = self.next()?;
            if token.kind != Kind::Space {
                return Ok(token);
            }
        }
    }

    fn peek_word(&mut self) -> Parsed<Token<'a>> {
        let token = self.next_word()?;
        self.back(token);
        Ok(token)
    }

    fn unexpected<T>(&self, token: Token<'a>, context: &str) -> Parsed<T> {
        let what = match token.kind {
            Kind::End => "EOF".to_owned(),
            Kind::Keyword => format!("<{}>", token.text),
            _ if token.text.chars().count() > 10 => {
                let start: String = token.text.chars().take(10).collect();
                format!("{start:?}...")
            }
            _ => format!("{:?}", token.text),
        };
        self.fail(format!("unexpected {what} in {context}"))
    }

    fn expect(&mut self, kind: Kind, context: &str) -> Parsed<Token<'a>> {
        let token = self.next_word()?;
        if token.kind == kind {
            Ok(token)
        } else {
            self.unexpected(token, context)
        }
    }

    fn deeper(&mut self) -> Parsed<()> {
        self.depth += 1;
        if self.depth > NESTING {
            return self.fail(format!("nested more than {NESTING} deep"));
        }
        Ok(())
    }

    fn top(&mut self) -> Parsed<Vec<Node>> {
        let mut nodes = Vec::new();
        loop {
            let token = self.next()?;
            match token.kind {
                Kind::End => return Ok(nodes),
                Kind::LeftDelimiter => {
                    let word = self.next_word()?;
                    if word.kind == Kind::Keyword && word.text == "define" {
                        self.definition()?;
                        continue;
                    }
                    self.back(word);
                    match self.action()? {
                        Item::Node(node) => nodes.push(node),
                        Item::Ending(Ending::End) => return self.fail("unexpected {{end}}"),
                        Item::Ending(_) => return self.fail("unexpected {{else}}"),
                    }
                }
                Kind::Text => nodes.push(Node::Text(Rc::from(token.text))),
                _ => return self.unexpected(token, "input"),
            }
        }
    }

    fn template_name(&mut self, context: &str) -> Parsed<Rc<str>> {
        let token = self.next_word()?;
        match token.kind {
            Kind::String | Kind::RawString => Ok(Rc::from(self.unquote(token.text)?)),
            _ => self.unexpected(token, context),
        }
    }

    fn definition(&mut self) -> Parsed<()> {
        let name = self.template_name("define clause")?;
        self.expect(Kind::RightDelimiter, "define clause")?;
        self.nested_template(name)
    }

    /// Reads the body of `define` or `block`, which knows no variables of its surroundings.
    fn nested_template(&mut self, name: Rc<str>) -> Parsed<()> {
        let variables = std::mem::replace(&mut self.variables, vec![Rc::from("$")]);
        let ranges = std::mem::take(&mut self.ranges);
        self.deeper()?;
        let (body, ending) = self.list()?;
        self.depth -= 1;
        if ending != Ending::End {
            return self.fail("unexpected {{else}} in define clause");
        }
        self.variables = variables;
        self.ranges = ranges;
        let template = Template {
            name,
            file: self.file.clone(),
            source: self.source.clone(),
            body,
        };
        let twin = self
            .templates
            .iter()
            .position(|other| other.name == template.name);
        match twin {
            Some(at) if self.templates[at].is_empty() => self.templates[at] = Rc::new(template),
            Some(_) if !template.is_empty() => {
                return self.fail(format!(
                    "multiple definition of template {:?}",
                    template.name
                ));
            }
            Some(_) => {}
            None => self.templates.push(Rc::new(template)),
        }
        Ok(())
    }

    fn list(&mut self) -> Parsed<(Vec<Node>, Ending)> {
        let mut nodes = Vec::new();
        loop {
            let token = self.next_word()?;
            match token.kind {
                Kind::End => return self.fail("unexpected EOF"),
                Kind::Text => nodes.push(Node::Text(Rc::from(token.text))),
                Kind::LeftDelimiter => match self.action()? {
                    Item::Node(node) => nodes.push(node),
                    Item::Ending(ending) => return Ok((nodes, ending)),
                },
                _ => return self.unexpected(token, "input"),
            }
        }
    }

    fn action(&mut self) -> Parsed<Item> {
        let token = self.next_word()?;
        if token.kind != Kind::Keyword {
            self.back(token);
            return Ok(Item::Node(Node::Action(
                self.pipeline("command", Kind::RightDelimiter)?,
            )));
        }
        let node = match token.text {
            "if" => Node::If(self.branch("if")?),
            "with" => Node::With(self.branch("with")?),
            "range" => Node::Range(self.branch("range")?),
            "template" => {
                let name = self.template_name("template clause")?;
                let position = token.position;
                let after = self.next_word()?;
                let argument = if after.kind == Kind::RightDelimiter {
                    None
                } else {
                    self.back(after);
                    Some(self.pipeline("template clause", Kind::RightDelimiter)?)
                };
                Node::Call {
                    position,
                    name,
                    argument,
                }
            }
            "block" => {
                let name = self.template_name("block clause")?;
                let argument = self.pipeline("block clause", Kind::RightDelimiter)?;
                self.nested_template(name.clone())?;
                Node::Call {
                    position: token.position,
                    name,
                    argument: Some(argument),
                }
            }
            word @ ("break" | "continue") => {
                self.expect(Kind::RightDelimiter, word)?;
                if self.ranges == 0 {
                    return self.fail(format!("{{{{{word}}}}} outside {{{{range}}}}"));
                }
                if word == "break" {
                    Node::Break
                } else {
                    Node::Continue
                }
            }
            "end" => {
                self.expect(Kind::RightDelimiter, "end")?;
                return Ok(Item::Ending(Ending::End));
            }
            "else" => {
                let next = self.peek_word()?;
                if next.kind == Kind::Keyword && matches!(next.text, "if" | "with") {
                    return Ok(Item::Ending(Ending::ElseChain));
                }
                self.expect(Kind::RightDelimiter, "else")?;
                return Ok(Item::Ending(Ending::Else));
            }
            _ => return self.unexpected(token, "command"),
        };
        Ok(Item::Node(node))
    }

    fn branch(&mut self, keyword: &str) -> Parsed<Branch> {
        self.deeper()?;
        let variables = self.variables.len();
        let pipeline = self.pipeline(keyword, Kind::RightDelimiter)?;
        if keyword == "range" {
            self.ranges += 1;
        }
        let (body, ending) = self.list()?;
        if keyword == "range" {
            self.ranges -= 1;
        }
        let otherwise = match ending {
            Ending::End => None,
            Ending::Else => {
                let (otherwise, ending) = self.list()?;
                if ending != Ending::End {
                    return self.fail("expected end; found {{else}}");
                }
                Some(otherwise)
            }
            Ending::ElseChain => {
                let word = self.next_word()?;
                if word.text != keyword {
                    return self.unexpected(word, "else");
                }
                // The chain's end is the end of the whole.
                let chained = self.branch(keyword)?;
                Some(vec![if keyword == "if" {
                    Node::If(chained)
                } else {
                    Node::With(chained)
                }])
            }
        };
        self.variables.truncate(variables);
        self.depth -= 1;
        Ok(Branch {
            pipeline,
            body,
            otherwise,
        })
    }

    fn pipeline(&mut self, context: &str, end: Kind) -> Parsed<Pipeline> {
        let position = self.peek_word()?.position;
        let mut pipeline = Pipeline {
            position,
            assigns: false,
            variables: Vec::new(),
            commands: Vec::new(),
        };
        self.declarations(context, &mut pipeline)?;
        loop {
            let token = self.next_word()?;
            if token.kind == end {
                break;
            }
            match token.kind {
                Kind::Bool
                | Kind::CharacterConstant
                | Kind::Dot
                | Kind::Field
                | Kind::Identifier
                | Kind::Number
                | Kind::Nil
                | Kind::RawString
                | Kind::String
                | Kind::Variable
                | Kind::LeftParenthesis => {
                    self.back(token);
                    let command = self.command()?;
                    pipeline.commands.push(command);
                }
                _ => return self.unexpected(token, context),
            }
        }
        if pipeline.commands.is_empty() {
            return self.fail(format!("missing value for {context}"));
        }
        for (stage, command) in pipeline.commands.iter().enumerate().skip(1) {
            if matches!(
                command.terms[0].operand,
                Operand::Bool(_)
                    | Operand::Dot
                    | Operand::Nil
                    | Operand::Number(_)
                    | Operand::Text(_)
            ) {
                return self.fail(format!(
                    "non executable command in pipeline stage {}",
                    stage + 1
                ));
            }
        }
        Ok(pipeline)
    }

    fn declarations(&mut self, context: &str, pipeline: &mut Pipeline) -> Parsed<()> {
        loop {
            let variable = self.peek_word()?;
            if variable.kind != Kind::Variable {
                return Ok(());
            }
            let variable = self.next_word()?;
            let after = self.next()?;
            let next = if after.kind == Kind::Space {
                self.next_word()?
            } else {
                after
            };
            match next.kind {
                Kind::Assign | Kind::Declare => {
                    pipeline.assigns = next.kind == Kind::Assign;
                    self.declare(variable, pipeline);
                    return Ok(());
                }
                Kind::Character if next.text == "," => {
                    self.declare(variable, pipeline);
                    if context == "range" && pipeline.variables.len() < 2 {
                        match self.peek_word()?.kind {
                            Kind::Variable | Kind::RightDelimiter | Kind::RightParenthesis => {
                                continue;
                            }
                            _ => return self.fail("range can only initialize variables"),
                        }
                    }
                    return self.fail(format!("too many declarations in {context}"));
                }
                _ => {
                    self.back(next);
                    if after.kind == Kind::Space {
                        self.back(after);
                    }
                    self.back(variable);
                    return Ok(());
                }
            }
        }
    }

    fn declare(&mut self, token: Token<'a>, pipeline: &mut Pipeline) {
        let name: Rc<str> = Rc::from(token.text);
        self.variables.push(name.clone());
        pipeline.variables.push(name);
    }

    fn command(&mut self) -> Parsed<Command> {
        let mut terms = Vec::new();
        loop {
            self.peek_word()?;
            if let Some(term) = self.operand()? {
                terms.push(term);
            }
            let token = self.next()?;
            match token.kind {
                Kind::Space => {}
                Kind::RightDelimiter | Kind::RightParenthesis => {
                    self.back(token);
                    break;
                }
                Kind::Pipe => break,
                _ => return self.unexpected(token, "operand"),
            }
        }
        if terms.is_empty() {
            return self.fail("empty command");
        }
        Ok(Command { terms })
    }

    /// A term and the fields that follow it without a space.
    fn operand(&mut self) -> Parsed<Option<Term>> {
        let Some(mut term) = self.term()? else {
            return Ok(None);
        };
        let mut fields = Vec::new();
        while self.peek()?.kind == Kind::Field {
            let token = self.next()?;
            fields.push(Rc::from(&token.text[1..]));
        }
        if fields.is_empty() {
            return Ok(Some(term));
        }
        match &mut term.operand {
            Operand::Field(path) | Operand::Variable(_, path) => path.append(&mut fields),
            Operand::Bool(_)
            | Operand::Text(_)
            | Operand::Number(_)
            | Operand::Nil
            | Operand::Dot => {
                return self.fail(format!("unexpected . after term {:?}", term.to_string()));
            }
            Operand::Function(_) | Operand::Pipeline(_) | Operand::Chain(..) => {
                term = Term {
                    position: term.position,
                    operand: Operand::Chain(Box::new(term), fields),
                };
            }
        }
        Ok(Some(term))
    }

    fn term(&mut self) -> Parsed<Option<Term>> {
        let token = self.next_word()?;
        let operand = match token.kind {
            Kind::Identifier => match functions::find(token.text) {
                Some(function) => Operand::Function(function),
                None => return self.fail(format!("function {:?} not defined", token.text)),
            },
            Kind::Dot => Operand::Dot,
            Kind::Nil => Operand::Nil,
            Kind::Variable => {
                if !self.variables.iter().any(|name| **name == *token.text) {
                    return self.fail(format!("undefined variable {:?}", token.text));
                }
                Operand::Variable(Rc::from(token.text), Vec::new())
            }
            Kind::Field => Operand::Field(vec![Rc::from(&token.text[1..])]),
            Kind::Bool => Operand::Bool(token.text == "true"),
            Kind::Number | Kind::CharacterConstant => Operand::Number(self.number(token)?),
            Kind::LeftParenthesis => {
                self.deeper()?;
                let pipeline = self.pipeline("parenthesized pipeline", Kind::RightParenthesis)?;
                self.depth -= 1;
                Operand::Pipeline(Box::new(pipeline))
            }
            Kind::String | Kind::RawString => Operand::Text(Rc::from(self.unquote(token.text)?)),
            _ => {
                self.back(token);
                return Ok(None);
            }
        };
        Ok(Some(Term {
            position: token.position,
            operand,
        }))
    }

    fn unquote(&self, quoted: &str) -> Parsed<String> {
        match functions::print::unquote(quoted) {
            Some(text) => Ok(text),
            None => self.fail("invalid syntax"),
        }
    }

    fn number(&self, token: Token<'a>) -> Parsed<Number> {
        let text = token.text;
        let mut number = Number {
            text: Rc::from(text),
            integer: None,
            float: None,
        };
        if token.kind == Kind::CharacterConstant {
            let content = self.unquote(text)?;
            let mut characters = content.chars();
            let (Some(character), None) = (characters.next(), characters.next()) else {
                return self.fail(format!("malformed character constant: {text}"));
            };
            let scalar = match crate::chart::value::stray_byte(character) {
                Some(byte) => u32::from(byte),
                None => u32::from(character),
            };
            number.integer = Some(i64::from(scalar));
            number.float = Some(f64::from(scalar));
            return Ok(number);
        }
        if text.ends_with('i') {
            return self.fail(format!("complex numbers are not supported: {text:?}"));
        }
        number.integer = functions::math::parse_integer(text, 0);
        #[allow(clippy::cast_precision_loss)]
        if let Some(integer) = number.integer {
            number.float = Some(integer as f64);
            return Ok(number);
        }
        let Some(float) = functions::math::parse_float(text) else {
            return self.fail(format!("bad number syntax: {text:?}"));
        };
        if !text.contains(['.', 'e', 'E', 'p', 'P']) {
            return self.fail(format!("integer overflow: {text:?}"));
        }
        number.float = Some(float);
        #[allow(
            clippy::cast_possible_truncation,
            clippy::cast_precision_loss,
            clippy::float_cmp
        )]
        if float.abs() < 9e18 && (float as i64) as f64 == float {
            number.integer = Some(float as i64);
        }
        Ok(number)
    }
}

impl fmt::Display for Term {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.operand {
            Operand::Bool(truth) => write!(f, "{truth}"),
            Operand::Dot => f.write_str("."),
            Operand::Nil => f.write_str("nil"),
            Operand::Number(number) => f.write_str(&number.text),
            Operand::Text(text) => f.write_str(&functions::print::quote(text)),
            Operand::Field(path) => path.iter().try_for_each(|name| write!(f, ".{name}")),
            Operand::Variable(name, path) => {
                f.write_str(name)?;
                path.iter().try_for_each(|name| write!(f, ".{name}"))
            }
            Operand::Function(function) => f.write_str(function.name),
            Operand::Chain(term, path) => {
                write!(f, "{term}")?;
                path.iter().try_for_each(|name| write!(f, ".{name}"))
            }
            Operand::Pipeline(pipeline) => write!(f, "({pipeline})"),
        }
    }
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, term) in self.terms.iter().enumerate() {
            if index > 0 {
                f.write_str(" ")?;
            }
            write!(f, "{term}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Pipeline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.variables.is_empty() {
            f.write_str(&self.variables.join(", "))?;
            f.write_str(if self.assigns { " = " } else { " := " })?;
        }
        for (index, command) in self.commands.iter().enumerate() {
            if index > 0 {
                f.write_str(" | ")?;
            }
            write!(f, "{command}")?;
        }
        Ok(())
    }
}
