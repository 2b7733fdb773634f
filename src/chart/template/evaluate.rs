//! The evaluator: runs the trees of `parse` over values, within a budget.
//!
//! One [`Machine`] renders one chart. It holds the templates every other may call, counts what it has done, and
//! stops with a [`Fault`] of [`FaultKind::Limit`] when that is more than a chart may do: no chart can make it hang
//! or eat the memory. A fault says where in which template it happened.

use std::collections::HashMap;
use std::rc::Rc;

use super::parse::{Branch, Command, Node, Operand, Pipeline, Template, Term, line_of, parse};
use crate::chart::Limits;
use crate::chart::functions::{self, Function};
use crate::chart::value::{Map, Object, Value, WeakMap};

/// How deep pipelines, control structures and templates may be nested while they run.
const DEPTH: usize = 10_000;

/// How often a template may include itself, as in Helm.
const RECURSION: usize = 1000;

/// How deep a value may be nested where something walks the whole of it.
pub(in crate::chart) const VALUE_DEPTH: usize = 1000;

/// What went wrong, and where.
#[derive(Clone, Debug)]
pub(in crate::chart) struct Fault {
    pub(in crate::chart) kind: FaultKind,
    pub(in crate::chart) message: String,
    /// The file of the innermost template at fault, and the line in it.
    pub(in crate::chart) place: Option<(Rc<str>, usize)>,
}

/// Who is to blame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::chart) enum FaultKind {
    /// The template does not fit its values.
    Template,
    /// The chart called `fail` or `required`.
    Refused,
    /// The chart asks for more than the limits allow.
    Limit,
}

// Faults are carried far and seldom, so results hold them in boxes.
#[allow(clippy::unnecessary_box_returns)]
impl Fault {
    pub(in crate::chart) fn new(message: impl Into<String>) -> Box<Self> {
        Self::of(FaultKind::Template, message)
    }

    pub(in crate::chart) fn of(kind: FaultKind, message: impl Into<String>) -> Box<Self> {
        Box::new(Self {
            kind,
            message: message.into(),
            place: None,
        })
    }

    fn at(mut self: Box<Self>, template: &Template, position: usize) -> Box<Self> {
        if self.place.is_none() {
            self.place = Some((template.file.clone(), line_of(&template.source, position)));
        }
        self
    }
}

/// What evaluation gives.
pub(in crate::chart) type Evaluated<T> = Result<T, Box<Fault>>;

/// Where a template is told to go on.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Flow {
    Next,
    Break,
    Continue,
}

/// Renders the templates of one chart.
pub(in crate::chart) struct Machine {
    /// Templates by name; calls of `tpl` put theirs on top.
    layers: Vec<HashMap<Rc<str>, Rc<Template>>>,
    limits: Limits,
    steps: u64,
    memory: u64,
    depth: usize,
    included: HashMap<Rc<str>, usize>,
    parsed: HashMap<Rc<str>, Vec<Rc<Template>>>,
    maps: Vec<WeakMap>,
    pub(in crate::chart) regexes: functions::regex::Cache,
}

/// One run of one template.
struct Frame<'t> {
    template: &'t Template,
    variables: Vec<(Rc<str>, Value)>,
}

impl Machine {
    pub(in crate::chart) fn new(limits: Limits) -> Self {
        Self {
            layers: vec![HashMap::new()],
            limits,
            steps: 0,
            memory: 0,
            depth: 0,
            included: HashMap::new(),
            parsed: HashMap::new(),
            maps: Vec::new(),
            regexes: functions::regex::Cache::default(),
        }
    }

    /// Counts work; one step is about what reading a variable takes.
    pub(in crate::chart) fn step(&mut self, steps: usize) -> Evaluated<()> {
        self.steps = self.steps.saturating_add(steps as u64);
        if self.steps > self.limits.steps {
            return Err(Fault::of(
                FaultKind::Limit,
                format!("the chart takes more than {} steps", self.limits.steps),
            ));
        }
        Ok(())
    }

    /// Counts memory before it is taken. It is never given back: what a chart makes in all is bounded.
    pub(in crate::chart) fn charge(&mut self, bytes: usize) -> Evaluated<()> {
        self.memory = self.memory.saturating_add(bytes as u64);
        if self.memory > self.limits.memory {
            return Err(Fault::of(
                FaultKind::Limit,
                format!("the chart makes more than {} bytes", self.limits.memory),
            ));
        }
        self.step(bytes / 64)
    }

    /// Counts the work of looking at arguments: whatever a function does, it may read a text from end to end.
    fn weigh(&mut self, arguments: &[Value]) -> Evaluated<()> {
        let bytes: usize = arguments
            .iter()
            .map(|argument| match argument {
                Value::Text(text) => text.len(),
                Value::Bytes(bytes) => bytes.len(),
                _ => 0,
            })
            .sum();
        self.step(bytes / 32)
    }

    /// Makes a text, counted.
    pub(in crate::chart) fn text(&mut self, text: impl AsRef<str>) -> Evaluated<Value> {
        self.charge(text.as_ref().len())?;
        Ok(Value::text(text))
    }

    /// Registers a map, so that cycles through it end with the machine.
    pub(in crate::chart) fn watch(&mut self, map: &Map) -> Evaluated<()> {
        self.charge(64 + 48 * map.len())?;
        self.maps.push(map.downgrade());
        Ok(())
    }

    /// Adds the templates of a file; one that is empty does not replace one that is not.
    pub(in crate::chart) fn define(&mut self, templates: &[Rc<Template>]) {
        let layer = self.layers.last_mut().expect("the first layer stays");
        for template in templates {
            if template.is_empty() && layer.contains_key(&template.name) {
                continue;
            }
            layer.insert(template.name.clone(), template.clone());
        }
    }

    fn lookup(&self, name: &str) -> Option<Rc<Template>> {
        self.layers
            .iter()
            .rev()
            .find_map(|layer| layer.get(name).cloned())
    }

    /// Runs a template.
    pub(in crate::chart) fn execute(&mut self, name: &str, data: &Value) -> Evaluated<String> {
        let Some(template) = self.lookup(name) else {
            return Err(Fault::new(format!("no template {name:?}")));
        };
        let mut output = String::new();
        self.run(&template, data, &mut output)?;
        Ok(output)
    }

    fn run(&mut self, template: &Template, data: &Value, output: &mut String) -> Evaluated<()> {
        let mut frame = Frame {
            template,
            variables: vec![(Rc::from("$"), data.clone())],
        };
        self.walk(&mut frame, data, &template.body, output)?;
        Ok(())
    }

    /// The function `include`.
    pub(in crate::chart) fn include(&mut self, name: &Rc<str>, data: &Value) -> Evaluated<String> {
        let count = self.included.entry(name.clone()).or_insert(0);
        if *count > RECURSION {
            return Err(Fault::of(
                FaultKind::Limit,
                format!("rendering template has a nested reference name: {name}"),
            ));
        }
        *count += 1;
        let output = self.execute(name, data);
        if let Some(count) = self.included.get_mut(name) {
            *count -= 1;
        }
        output
    }

    /// The function `tpl`: a text as a template, which sees all others and hides what it defines.
    pub(in crate::chart) fn tpl(&mut self, text: &Rc<str>, data: &Value) -> Evaluated<String> {
        let templates = if let Some(templates) = self.parsed.get(text) {
            templates.clone()
        } else {
            self.charge(text.len() * 8)?;
            let templates = parse(&Rc::from("tpl"), text).map_err(|error| {
                Fault::new(format!(
                    "cannot parse template {}: line {}: {}",
                    functions::print::quote(&functions::print::shortened(text)),
                    error.line,
                    error.message
                ))
            })?;
            self.parsed.insert(text.clone(), templates.clone());
            templates
        };
        self.layers.push(HashMap::new());
        self.define(&templates[1..]);
        let mut output = String::new();
        let result = self.run(&templates[0], data, &mut output);
        self.layers.pop();
        result.map_err(|mut fault| {
            // A line of a text that stands in no file helps nobody: say where `tpl` was called.
            if fault
                .place
                .as_ref()
                .is_some_and(|(file, _)| **file == *"tpl")
            {
                fault.place = None;
            }
            fault
        })?;
        Ok(if output.contains("<no value>") {
            output.replace("<no value>", "")
        } else {
            output
        })
    }

    fn deeper(&mut self) -> Evaluated<()> {
        self.step(1)?;
        self.depth += 1;
        if self.depth > DEPTH {
            return Err(Fault::of(
                FaultKind::Limit,
                format!("templates are nested more than {DEPTH} deep"),
            ));
        }
        Ok(())
    }

    fn walk(
        &mut self,
        frame: &mut Frame<'_>,
        dot: &Value,
        nodes: &[Node],
        output: &mut String,
    ) -> Evaluated<Flow> {
        self.deeper()?;
        let mut flow = Flow::Next;
        for node in nodes {
            flow = self.node(frame, dot, node, output)?;
            if flow != Flow::Next {
                break;
            }
        }
        self.depth -= 1;
        Ok(flow)
    }

    fn node(
        &mut self,
        frame: &mut Frame<'_>,
        dot: &Value,
        node: &Node,
        output: &mut String,
    ) -> Evaluated<Flow> {
        match node {
            Node::Text(text) => {
                self.charge(text.len())?;
                output.push_str(text);
            }
            Node::Action(pipeline) => {
                let value = self.pipeline(frame, dot, pipeline)?;
                if pipeline.variables.is_empty() {
                    let start = output.len();
                    functions::print::print(self, &value, output)
                        .map_err(|fault| fault.at(frame.template, pipeline.position))?;
                    self.charge(output.len() - start)?;
                }
            }
            Node::If(branch) => return self.branch(frame, dot, branch, false, output),
            Node::With(branch) => return self.branch(frame, dot, branch, true, output),
            Node::Range(branch) => return self.range(frame, dot, branch, output),
            Node::Call {
                position,
                name,
                argument,
            } => {
                let Some(template) = self.lookup(name) else {
                    return Err(Fault::new(format!("template {name:?} not defined"))
                        .at(frame.template, *position));
                };
                let data = match argument {
                    Some(argument) => self.pipeline(frame, dot, argument)?,
                    None => Value::Null,
                };
                self.run(&template, &data, output)
                    .map_err(|fault| fault.at(frame.template, *position))?;
            }
            Node::Break => return Ok(Flow::Break),
            Node::Continue => return Ok(Flow::Continue),
        }
        Ok(Flow::Next)
    }

    fn branch(
        &mut self,
        frame: &mut Frame<'_>,
        dot: &Value,
        branch: &Branch,
        rebinds: bool,
        output: &mut String,
    ) -> Evaluated<Flow> {
        let mark = frame.variables.len();
        let value = self.pipeline(frame, dot, &branch.pipeline)?;
        let flow = if value.is_true() {
            let dot = if rebinds { &value } else { dot };
            self.walk(frame, dot, &branch.body, output)?
        } else if let Some(otherwise) = &branch.otherwise {
            self.walk(frame, dot, otherwise, output)?
        } else {
            Flow::Next
        };
        frame.variables.truncate(mark);
        Ok(flow)
    }

    fn range(
        &mut self,
        frame: &mut Frame<'_>,
        dot: &Value,
        branch: &Branch,
        output: &mut String,
    ) -> Evaluated<Flow> {
        let outer = frame.variables.len();
        let value = self.pipeline(frame, dot, &branch.pipeline)?;
        let mark = frame.variables.len();
        let names = &branch.pipeline.variables;
        let fail =
            |message: String| Err(Fault::new(message).at(frame.template, branch.pipeline.position));
        let entries: Box<dyn Iterator<Item = (Value, Value)>> = match &value {
            Value::Null | Value::NilElement => Box::new(std::iter::empty()),
            Value::Int(number, kind) => {
                if names.len() > 1 {
                    return fail(format!(
                        "can't use {number} to iterate over more than one variable"
                    ));
                }
                let kind = *kind;
                Box::new((0..*number).map(move |index| (Value::Null, Value::Int(index, kind))))
            }
            Value::List(list) => {
                let list = list.clone();
                Box::new((0..list.items().len()).map(move |index| {
                    #[allow(clippy::cast_possible_wrap)]
                    let key = Value::int(index as i64);
                    (key, list.items()[index].clone())
                }))
            }
            Value::Bytes(bytes) => {
                let bytes = bytes.clone();
                Box::new((0..bytes.len()).map(move |index| {
                    #[allow(clippy::cast_possible_wrap)]
                    let key = Value::int(index as i64);
                    (key, Value::int(i64::from(bytes[index])))
                }))
            }
            Value::Map(map) => {
                self.step(map.len())?;
                Box::new(
                    map.entries()
                        .into_iter()
                        .map(|(key, value)| (Value::Text(key), value)),
                )
            }
            Value::Object(object) => match &**object {
                Object::Files(files) => Box::new(
                    files
                        .clone()
                        .into_iter()
                        .map(|(name, bytes)| (Value::Text(name), Value::Bytes(bytes))),
                ),
                _ => return fail(format!("range can't iterate over {}", value.type_name())),
            },
            Value::Bool(_) | Value::Float(_) | Value::Text(_) => {
                let mut shown = String::new();
                functions::print::print(self, &value, &mut shown)?;
                return fail(format!(
                    "range can't iterate over {}",
                    functions::print::shortened(&shown)
                ));
            }
        };
        let mut any = false;
        let mut result = Flow::Next;
        for (key, element) in entries {
            any = true;
            self.step(1)?;
            let element = element.element();
            match (names.as_slice(), branch.pipeline.assigns) {
                ([], _) => {}
                ([name], true) => Self::assign(frame, name, element.clone()),
                ([first, second], true) => {
                    Self::assign(frame, first, key);
                    Self::assign(frame, second, element.clone());
                }
                ([_], false) => frame.variables[mark - 1].1 = element.clone(),
                (_, _) => {
                    frame.variables[mark - 2].1 = key;
                    frame.variables[mark - 1].1 = element.clone();
                }
            }
            let flow = self.walk(frame, &element, &branch.body, output)?;
            frame.variables.truncate(mark);
            if flow == Flow::Break {
                break;
            }
        }
        if !any && let Some(otherwise) = &branch.otherwise {
            result = self.walk(frame, dot, otherwise, output)?;
        }
        frame.variables.truncate(outer);
        Ok(result)
    }

    fn assign(frame: &mut Frame<'_>, name: &str, value: Value) {
        // The parser has seen its declaration; it may have been in a scope that is gone.
        if let Some(variable) = frame
            .variables
            .iter_mut()
            .rev()
            .find(|variable| *variable.0 == *name)
        {
            variable.1 = value;
        }
    }

    fn pipeline(
        &mut self,
        frame: &mut Frame<'_>,
        dot: &Value,
        pipeline: &Pipeline,
    ) -> Evaluated<Value> {
        self.deeper()?;
        let mut value: Option<Value> = None;
        for command in &pipeline.commands {
            value = Some(
                self.command(frame, dot, command, value)
                    .map_err(|fault| fault.at(frame.template, command.terms[0].position))?
                    .plain(),
            );
        }
        let value = value.unwrap_or(Value::Null);
        for name in &pipeline.variables {
            if pipeline.assigns {
                Self::assign(frame, name, value.clone());
            } else {
                frame.variables.push((name.clone(), value.clone()));
            }
        }
        self.depth -= 1;
        Ok(value)
    }

    fn command(
        &mut self,
        frame: &mut Frame<'_>,
        dot: &Value,
        command: &Command,
        last: Option<Value>,
    ) -> Evaluated<Value> {
        let first = &command.terms[0];
        let arguments = &command.terms[1..];
        let no_arguments = |last: &Option<Value>| {
            if arguments.is_empty() && last.is_none() {
                Ok(())
            } else {
                Err(Fault::new(format!(
                    "can't give argument to non-function {first}"
                )))
            }
        };
        match &first.operand {
            Operand::Field(path) => self.fields(frame, dot, dot.clone(), path, arguments, last),
            Operand::Chain(inner, path) => {
                let receiver = self.chain_receiver(frame, dot, inner)?;
                self.fields(frame, dot, receiver, path, arguments, last)
            }
            Operand::Variable(name, path) => {
                let receiver = Self::variable(frame, name)?;
                if path.is_empty() {
                    no_arguments(&last)?;
                    return Ok(receiver);
                }
                self.fields(frame, dot, receiver, path, arguments, last)
            }
            Operand::Function(function) => self.call(frame, dot, function, arguments, last),
            Operand::Pipeline(pipeline) => {
                no_arguments(&last)?;
                self.pipeline(frame, dot, pipeline)
            }
            Operand::Nil => Err(Fault::new("nil is not a command")),
            Operand::Bool(_) | Operand::Dot | Operand::Number(_) | Operand::Text(_) => {
                no_arguments(&last)?;
                self.term(frame, dot, first, b'a')
            }
        }
    }

    fn chain_receiver(
        &mut self,
        frame: &mut Frame<'_>,
        dot: &Value,
        inner: &Term,
    ) -> Evaluated<Value> {
        match &inner.operand {
            Operand::Pipeline(pipeline) => self.pipeline(frame, dot, pipeline),
            Operand::Function(function) => self.call(frame, dot, function, &[], None),
            _ => self.term(frame, dot, inner, b'a'),
        }
    }

    fn variable(frame: &Frame<'_>, name: &str) -> Evaluated<Value> {
        frame
            .variables
            .iter()
            .rev()
            .find(|variable| *variable.0 == *name)
            .map(|variable| variable.1.clone())
            .ok_or_else(|| Fault::new(format!("undefined variable: {name}")))
    }

    fn fields(
        &mut self,
        frame: &mut Frame<'_>,
        dot: &Value,
        mut receiver: Value,
        path: &[Rc<str>],
        arguments: &[Term],
        last: Option<Value>,
    ) -> Evaluated<Value> {
        let (name, before) = path.split_last().expect("a field has a name");
        for name in before {
            receiver = self.field(frame, dot, &receiver, name, &[], None)?;
        }
        self.field(frame, dot, &receiver, name, arguments, last)
    }

    fn field(
        &mut self,
        frame: &mut Frame<'_>,
        dot: &Value,
        receiver: &Value,
        name: &str,
        arguments: &[Term],
        last: Option<Value>,
    ) -> Evaluated<Value> {
        self.step(1)?;
        if let Some(method) = functions::methods::find(receiver, name) {
            let mut values = vec![receiver.clone()];
            for argument in arguments {
                values.push(self.term(frame, dot, argument, b'a')?.plain());
            }
            values.extend(last.map(Value::plain));
            if values.len() != method.arity + 1 {
                return Err(Fault::new(format!(
                    "wrong number of args for {name}: want {} got {}",
                    method.arity,
                    values.len() - 1
                )));
            }
            self.weigh(&values)?;
            return (method.native)(self, &values).map_err(|mut fault| {
                fault.message = format!("error calling {name}: {}", fault.message);
                fault
            });
        }
        let has_arguments = !arguments.is_empty() || last.is_some();
        match receiver {
            Value::Null => Ok(Value::Null),
            Value::NilElement => Err(Fault::new(format!(
                "nil pointer evaluating interface {{}}.{name}"
            ))),
            Value::Map(_) if has_arguments => Err(Fault::new(format!(
                "{name} is not a method but has arguments"
            ))),
            Value::Map(map) => Ok(functions::dicts::entry(map, name).element()),
            Value::Object(object) => match &**object {
                Object::Record(record) => match record.field(name) {
                    Some(_) if has_arguments => Err(Fault::new(format!(
                        "{name} has arguments but cannot be invoked as function"
                    ))),
                    Some(value) => Ok(value.clone()),
                    None => Err(Fault::new(format!(
                        "can't evaluate field {name} in type {}",
                        record.type_name
                    ))),
                },
                Object::Files(files) => Ok(Value::Bytes(
                    files.get(name).cloned().unwrap_or_else(|| Rc::from([])),
                )),
                _ => Err(Fault::new(format!(
                    "can't evaluate field {name} in type {}",
                    receiver.type_name()
                ))),
            },
            _ => Err(Fault::new(format!(
                "can't evaluate field {name} in type {}",
                receiver.type_name()
            ))),
        }
    }

    fn call(
        &mut self,
        frame: &mut Frame<'_>,
        dot: &Value,
        function: &'static Function,
        arguments: &[Term],
        last: Option<Value>,
    ) -> Evaluated<Value> {
        self.step(1)?;
        let count = arguments.len() + usize::from(last.is_some());
        let (fixed, variadic) = function.arity();
        if count < fixed || (!variadic && count > fixed) {
            let bound = if variadic { "at least " } else { "" };
            return Err(Fault::new(format!(
                "wrong number of args for {}: want {bound}{fixed} got {count}",
                function.name
            )));
        }
        if function.is_short_circuit() {
            let stop_at = function.name == "or";
            let mut value = Value::Null;
            for argument in arguments {
                value = self.term(frame, dot, argument, b'a')?.plain();
                if value.is_true() == stop_at {
                    return Ok(value);
                }
            }
            return Ok(last.map_or(value, Value::plain));
        }
        let mut values = Vec::with_capacity(count);
        for (index, argument) in arguments.iter().enumerate() {
            let code = function.code(index);
            values.push(
                self.term(frame, dot, argument, code)
                    .map_err(|fault| fault.at(frame.template, argument.position))?,
            );
        }
        if let Some(last) = last {
            let last = functions::check(last, function.code(count - 1))?;
            values.push(last);
        }
        self.weigh(&values)?;
        (function.native)(self, &values).map_err(|mut fault| {
            if fault.place.is_none() && fault.kind == FaultKind::Template {
                fault.message = format!("error calling {}: {}", function.name, fault.message);
            }
            fault
        })
    }

    /// Evaluates an argument for a parameter of the type `code` says.
    fn term(
        &mut self,
        frame: &mut Frame<'_>,
        dot: &Value,
        term: &Term,
        code: u8,
    ) -> Evaluated<Value> {
        self.step(1)?;
        let value = match &term.operand {
            Operand::Dot => dot.clone(),
            Operand::Nil => {
                return match code {
                    b'a' | b'm' => functions::check(Value::Null, code),
                    _ => Err(Fault::new("cannot assign nil to a value")),
                };
            }
            Operand::Field(path) => self.fields(frame, dot, dot.clone(), path, &[], None)?,
            Operand::Variable(name, path) => {
                let receiver = Self::variable(frame, name)?;
                if path.is_empty() {
                    receiver
                } else {
                    self.fields(frame, dot, receiver, path, &[], None)?
                }
            }
            Operand::Chain(inner, path) => {
                let receiver = self.chain_receiver(frame, dot, inner)?;
                self.fields(frame, dot, receiver, path, &[], None)?
            }
            Operand::Pipeline(pipeline) => self.pipeline(frame, dot, pipeline)?,
            Operand::Function(function) => self.call(frame, dot, function, &[], None)?,
            Operand::Bool(truth) => Value::Bool(*truth),
            Operand::Text(text) => Value::Text(text.clone()),
            Operand::Number(number) => match code {
                b'i' => match number.integer {
                    Some(integer) => Value::int(integer),
                    None => return Err(Fault::new(format!("expected integer; found {term}"))),
                },
                b'f' => match number.float {
                    Some(float) => Value::Float(float),
                    None => return Err(Fault::new(format!("expected float; found {term}"))),
                },
                b's' => return Err(Fault::new(format!("expected string; found {term}"))),
                _ => match (number.is_written_as_float(), number.integer, number.float) {
                    (true, _, Some(float)) => Value::Float(float),
                    (_, Some(integer), _) => Value::int(integer),
                    _ => return Err(Fault::new(format!("{term} overflows int"))),
                },
            },
        };
        functions::check(value, code)
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        for map in &self.maps {
            if let Some(map) = map.upgrade() {
                map.clear();
            }
        }
    }
}
