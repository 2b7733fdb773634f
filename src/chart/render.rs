//! Renders a chart: dependencies, values, then every template.
//!
//! The order of things is Helm's. Dependencies are enabled or dropped by their conditions and tags and renamed by
//! their aliases; values imported from dependencies come into the parents; the user's values are laid over the
//! chart's, which are laid over those of its dependencies, and `global` goes down to all. Then all templates of
//! all charts are read, deepest first, so that a parent may redefine what a dependency defines, and run in that
//! order. Unlike Helm, one template that fails does not stop the others.
//!
//! Not rendered: partials (`_*`), and the templates of library charts that are no partials. `NOTES.txt` runs, since
//! a chart may refuse its values there, but gives no document. `values.schema.json` is not applied.

use std::collections::BTreeMap;
use std::rc::Rc;

use serde_json::{Map as JsonMap, Value as Json};

use super::load::{Chart, Dependency};
use super::semver::{Constraint, Version};
use super::template::evaluate::{FaultKind, Machine};
use super::template::parse::parse;
use super::value::{
    Field, List, ListKind, Map, MapKind, Object, Record, Value, from_json, text_from_bytes,
    text_to_bytes,
};
use super::yaml::{self, YamlError};
use crate::hint::Hint;

/// The stack templates run on. It is reserved, not used: deep nesting ends at a limit long before.
const STACK: usize = 512 << 20;

/// What one chart may take while it renders.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Steps of evaluation; a million take well under a second.
    pub steps: u64,
    /// Bytes made in all, whether still in use or not.
    pub memory: u64,
}

impl Default for Limits {
    /// Of the charts measured (Istio's CRDs, cert-manager, the Splunk collector) none takes three million steps or 30 MB.
    fn default() -> Self {
        Self {
            steps: 30_000_000,
            memory: 512 << 20,
        }
    }
}

/// What the cluster can do, as the chart is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Capabilities {
    /// The version of Kubernetes, with or without `v`.
    pub kube_version: String,
    /// API versions beyond those every cluster has: `monitoring.coreos.com/v1`, `route.openshift.io/v1/Route`.
    pub api_versions: Vec<String>,
}

impl Default for Capabilities {
    /// Kubernetes 1.33, the one the Helm release modelled here was built against.
    fn default() -> Self {
        Self {
            kube_version: "v1.33.0".to_owned(),
            api_versions: Vec::new(),
        }
    }
}

/// The version of Helm that charts are told.
const HELM_VERSION: &str = "v3.18.6";

/// The API versions Helm knows without a cluster.
const API_VERSIONS: [&str; 57] = [
    "v1",
    "admissionregistration.k8s.io/v1",
    "admissionregistration.k8s.io/v1alpha1",
    "admissionregistration.k8s.io/v1beta1",
    "internal.apiserver.k8s.io/v1alpha1",
    "apps/v1",
    "apps/v1beta1",
    "apps/v1beta2",
    "authentication.k8s.io/v1",
    "authentication.k8s.io/v1alpha1",
    "authentication.k8s.io/v1beta1",
    "authorization.k8s.io/v1",
    "authorization.k8s.io/v1beta1",
    "autoscaling/v1",
    "autoscaling/v2",
    "autoscaling/v2beta1",
    "autoscaling/v2beta2",
    "batch/v1",
    "batch/v1beta1",
    "certificates.k8s.io/v1",
    "certificates.k8s.io/v1beta1",
    "certificates.k8s.io/v1alpha1",
    "coordination.k8s.io/v1alpha2",
    "coordination.k8s.io/v1beta1",
    "coordination.k8s.io/v1",
    "discovery.k8s.io/v1",
    "discovery.k8s.io/v1beta1",
    "events.k8s.io/v1",
    "events.k8s.io/v1beta1",
    "extensions/v1beta1",
    "flowcontrol.apiserver.k8s.io/v1",
    "flowcontrol.apiserver.k8s.io/v1beta1",
    "flowcontrol.apiserver.k8s.io/v1beta2",
    "flowcontrol.apiserver.k8s.io/v1beta3",
    "networking.k8s.io/v1",
    "networking.k8s.io/v1alpha1",
    "networking.k8s.io/v1beta1",
    "node.k8s.io/v1",
    "node.k8s.io/v1alpha1",
    "node.k8s.io/v1beta1",
    "policy/v1",
    "policy/v1beta1",
    "rbac.authorization.k8s.io/v1",
    "rbac.authorization.k8s.io/v1beta1",
    "rbac.authorization.k8s.io/v1alpha1",
    "resource.k8s.io/v1beta2",
    "resource.k8s.io/v1beta1",
    "resource.k8s.io/v1alpha3",
    "scheduling.k8s.io/v1alpha1",
    "scheduling.k8s.io/v1beta1",
    "scheduling.k8s.io/v1",
    "storage.k8s.io/v1beta1",
    "storage.k8s.io/v1",
    "storage.k8s.io/v1alpha1",
    "storagemigration.k8s.io/v1alpha1",
    "apiextensions.k8s.io/v1beta1",
    "apiextensions.k8s.io/v1",
];

/// Values laid over those of the chart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ValuesLayer {
    /// Where they come from, for messages.
    pub name: String,
    /// A YAML mapping.
    pub text: Vec<u8>,
}

/// How to render.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RenderOptions {
    /// The release's name.
    pub name: String,
    /// The namespace it is for.
    pub namespace: String,
    /// Whether an older release is upgraded, rather than a new one installed.
    pub upgrade: bool,
    /// Values, later ones over earlier ones. A null removes the chart's default.
    pub values: Vec<ValuesLayer>,
    /// What the cluster can do.
    pub capabilities: Capabilities,
    /// What the chart may take.
    pub limits: Limits,
}

impl Default for RenderOptions {
    /// A release `release-name` in `default`, with the chart's own values.
    fn default() -> Self {
        Self {
            name: "release-name".to_owned(),
            namespace: "default".to_owned(),
            upgrade: false,
            values: Vec::new(),
            capabilities: Capabilities::default(),
            limits: Limits::default(),
        }
    }
}

/// Why nothing could be rendered.
#[derive(Debug, thiserror::Error)]
pub enum RenderError {
    /// A layer of values cannot be read.
    #[error("cannot read the values of {name}")]
    Values {
        /// Where they come from.
        name: String,
        /// What is wrong.
        source: YamlError,
    },
    /// A layer of values is no mapping.
    #[error("the values of {name} are no mapping")]
    NotAMapping {
        /// Where they come from.
        name: String,
    },
    /// The Kubernetes version is none.
    #[error("the Kubernetes version {version:?} is malformed")]
    KubeVersion {
        /// What was given.
        version: String,
    },
    /// The values of a dependency are no mapping.
    #[error("the values of the dependency {name:?} are no mapping")]
    DependencyValues {
        /// The dependency.
        name: String,
    },
    /// No thread to render on.
    #[error("cannot start a thread to render on")]
    Thread {
        /// Why.
        source: std::io::Error,
    },
}

impl Hint for RenderError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::KubeVersion { .. } => Some("write it as 1.30 or v1.30.2".to_owned()),
            Self::NotAMapping { .. } => {
                Some("a values file is a YAML mapping, as values.yaml is".to_owned())
            }
            _ => None,
        }
    }
}

/// What a template gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Document {
    /// `chart/templates/file.yaml`, `chart/charts/dependency/templates/file.yaml`.
    pub template: String,
    /// Its output: a stream of YAML documents, mostly.
    pub text: String,
}

/// A template that gave nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The template that was rendered; `Chart.yaml` for what concerns the chart as a whole.
    pub template: String,
    /// The file of the innermost template at fault; often that of a helper.
    pub file: String,
    /// The line in that file, from 1; 0 where there is none.
    pub line: usize,
    /// What is wrong.
    pub message: String,
    /// Whether the chart itself refused (`fail`, `required`): its values do not suffice.
    pub refused: bool,
}

/// A rendered chart.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rendered {
    /// The output of every template that rendered, in the order of their names. Empty outputs are left out.
    pub documents: Vec<Document>,
    /// Files of `crds/`, which Helm installs as they are.
    pub crds: Vec<Document>,
    /// The templates that did not render.
    pub failures: Vec<Failure>,
    /// The values the templates saw, defaults and dependencies included.
    pub values: JsonMap<String, Json>,
    /// The `appVersion` of the chart and of the enabled dependencies, by the path of their values.
    pub app_versions: Vec<(Vec<String>, String)>,
}

/// Renders every template of a chart and its enabled dependencies.
///
/// # Errors
/// If the options themselves are wrong. What is wrong with the chart is in [`Rendered::failures`].
pub fn render(chart: &Chart, options: &RenderOptions) -> Result<Rendered, RenderError> {
    std::thread::scope(|scope| {
        let worker = std::thread::Builder::new()
            .name("render".to_owned())
            .stack_size(STACK)
            .spawn_scoped(scope, || render_here(chart, options))
            .map_err(|source| RenderError::Thread { source })?;
        match worker.join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

type Tree = JsonMap<String, Json>;

/// A chart as it is in this release: renamed, its dependencies chosen, its values completed.
struct Node<'c> {
    chart: &'c Chart,
    name: String,
    values: Tree,
    wanted: Vec<Dependency>,
    children: Vec<Node<'c>>,
}

fn render_here(chart: &Chart, options: &RenderOptions) -> Result<Rendered, RenderError> {
    let layers = layered(&options.values)?;
    let kube_version = Version::parse(&options.capabilities.kube_version).map_err(|_| {
        RenderError::KubeVersion {
            version: options.capabilities.kube_version.clone(),
        }
    })?;
    let mut rendered = Rendered::default();
    let mut root = Node::new(chart);
    root.enable(&layers, "")?;
    root.import()?;
    let mut values = layers;
    root.coalesce(&mut values, false)?;

    root.note_incompatible(&kube_version, &mut rendered.failures);
    root.collect_crds(&root.name, &mut rendered.crds);
    root.collect_app_versions(&mut Vec::new(), &mut rendered.app_versions);

    let mut machine = Machine::new(options.limits);
    let all = Value::Map(Map::of(
        match from_json(&Json::Object(values.clone())) {
            Value::Map(map) => map.entries().into_iter().collect(),
            _ => BTreeMap::new(),
        },
        MapKind::Values,
    ));
    rendered.values = values;
    let shared = Shared {
        release: release(options),
        capabilities: capabilities(&kube_version, &options.capabilities),
    };
    let mut templates = Vec::new();
    root.contexts(&root.name.clone(), &all, true, &shared, &mut templates);
    run(&mut machine, templates, &mut rendered);
    Ok(rendered)
}

/// A template that waits for its turn.
struct Pending<'c> {
    path: String,
    base_path: String,
    text: &'c [u8],
    context: Map,
}

fn run(machine: &mut Machine, mut templates: Vec<Pending<'_>>, rendered: &mut Rendered) {
    // Helm's order: more slashes first, then names backwards.
    templates.sort_by(|left, right| {
        let slashes = |path: &str| memchr::memchr_iter(b'/', path.as_bytes()).count();
        (slashes(&right.path), &right.path).cmp(&(slashes(&left.path), &left.path))
    });
    let mut runnable = Vec::new();
    for template in templates {
        let name: Rc<str> = Rc::from(template.path.as_str());
        let source: Rc<str> = Rc::from(text_from_bytes(template.text));
        let read = machine
            .charge(source.len() * 4)
            .map_err(|fault| (0, fault.message.clone()))
            .and_then(|()| parse(&name, &source).map_err(|error| (error.line, error.message)));
        match read {
            Ok(read) => {
                machine.define(&read);
                let base_name = template.path.rsplit('/').next().unwrap_or("");
                if !base_name.starts_with('_') {
                    runnable.push((name, template));
                }
            }
            Err((line, message)) => rendered.failures.push(Failure {
                template: template.path.clone(),
                file: template.path,
                line,
                message,
                refused: false,
            }),
        }
    }
    for (name, template) in runnable {
        let own = BTreeMap::from([
            (Rc::from("Name"), Value::Text(name.clone())),
            (Rc::from("BasePath"), Value::text(&template.base_path)),
        ]);
        template
            .context
            .insert(Rc::from("Template"), Value::map(own));
        match machine.execute(&name, &Value::Map(template.context.clone())) {
            Ok(_) if template.path.ends_with("/NOTES.txt") => {}
            // The notes are for people, but it is there that many charts say what they cannot do without.
            Err(fault)
                if template.path.ends_with("/NOTES.txt") && fault.kind != FaultKind::Refused => {}
            Ok(text) => {
                let text = text.replace("<no value>", "");
                if !text.trim().is_empty() {
                    let text = match text_to_bytes(&text) {
                        std::borrow::Cow::Borrowed(_) => text,
                        std::borrow::Cow::Owned(bytes) => {
                            String::from_utf8_lossy(&bytes).into_owned()
                        }
                    };
                    rendered.documents.push(Document {
                        template: template.path,
                        text,
                    });
                }
            }
            Err(fault) => {
                let (file, line) = fault.place.map_or_else(
                    || (template.path.clone(), 0),
                    |(file, line)| (file.to_string(), line),
                );
                rendered.failures.push(Failure {
                    template: template.path,
                    file,
                    line,
                    message: fault.message,
                    refused: fault.kind == FaultKind::Refused,
                });
            }
        }
    }
    rendered
        .documents
        .sort_by(|left, right| left.template.cmp(&right.template));
    rendered.failures.sort_by(|left, right| {
        (&left.template, left.line, &left.message).cmp(&(
            &right.template,
            right.line,
            &right.message,
        ))
    });
}

/// What every template of a release is told alike.
struct Shared {
    release: Value,
    capabilities: Value,
}

fn release(options: &RenderOptions) -> Value {
    Value::map(BTreeMap::from([
        (Rc::from("Name"), Value::text(&options.name)),
        (Rc::from("Namespace"), Value::text(&options.namespace)),
        (Rc::from("IsUpgrade"), Value::Bool(options.upgrade)),
        (Rc::from("IsInstall"), Value::Bool(!options.upgrade)),
        (Rc::from("Revision"), Value::int(1)),
        (Rc::from("Service"), Value::text("Helm")),
    ]))
}

fn record(type_name: &'static str, fields: Vec<(&'static str, &'static str, Value)>) -> Value {
    Value::object(Object::Record(Record {
        type_name,
        fields: fields
            .into_iter()
            .map(|(name, json, value)| Field { name, json, value })
            .collect(),
    }))
}

fn capabilities(kube_version: &Version, given: &Capabilities) -> Value {
    let version = format!("v{kube_version}");
    let versions = API_VERSIONS
        .into_iter()
        .chain(given.api_versions.iter().map(String::as_str))
        .map(Value::text)
        .collect();
    record(
        "*chartutil.Capabilities",
        vec![
            (
                "KubeVersion",
                "KubeVersion",
                record(
                    "chartutil.KubeVersion",
                    vec![
                        ("Version", "Version", Value::text(&version)),
                        (
                            "Major",
                            "Major",
                            Value::text(kube_version.major.to_string()),
                        ),
                        (
                            "Minor",
                            "Minor",
                            Value::text(kube_version.minor.to_string()),
                        ),
                        ("__string", "__string", Value::text(&version)),
                    ],
                ),
            ),
            (
                "APIVersions",
                "APIVersions",
                Value::List(List::of(versions, ListKind::Versions)),
            ),
            (
                "HelmVersion",
                "HelmVersion",
                record(
                    "version.BuildInfo",
                    vec![
                        ("Version", "version", Value::text(HELM_VERSION)),
                        ("GitCommit", "git_commit", Value::text("")),
                        ("GitTreeState", "git_tree_state", Value::text("clean")),
                        ("GoVersion", "go_version", Value::text("go1.24.6")),
                    ],
                ),
            ),
        ],
    )
}

/// Reads the layers and lays them over each other.
fn layered(layers: &[ValuesLayer]) -> Result<Tree, RenderError> {
    let mut values = Tree::new();
    for layer in layers {
        let text = text_from_bytes(&layer.text);
        match yaml::parse(&text) {
            Ok(Json::Object(over)) => lay_over(&mut values, over),
            Ok(Json::Null) => {}
            Ok(_) => {
                return Err(RenderError::NotAMapping {
                    name: layer.name.clone(),
                });
            }
            Err(source) => {
                return Err(RenderError::Values {
                    name: layer.name.clone(),
                    source,
                });
            }
        }
    }
    Ok(values)
}

fn lay_over(values: &mut Tree, over: Tree) {
    for (key, value) in over {
        match (values.get_mut(&key), value) {
            (Some(Json::Object(values)), Json::Object(over)) => lay_over(values, over),
            (_, value) => {
                values.insert(key, value);
            }
        }
    }
}

/// Adds to a table what it lacks of another; unless merging, a null in it removes the key.
fn coalesce_tables(values: &mut Tree, defaults: &Tree, merge: bool) {
    for (key, default) in defaults {
        match values.get_mut(key) {
            Some(Json::Null) if !merge => {
                values.remove(key);
            }
            None => {
                values.insert(key.clone(), default.clone());
            }
            Some(Json::Object(values)) => {
                if let Json::Object(defaults) = default {
                    coalesce_tables(values, defaults, merge);
                }
            }
            Some(_) => {}
        }
    }
}

/// Takes the parent's globals into a dependency's values.
fn coalesce_globals(values: &mut Tree, parent: &Tree) {
    let mut globals = match values.get("global") {
        None => Tree::new(),
        Some(Json::Object(globals)) => globals.clone(),
        Some(_) => return,
    };
    let theirs = match parent.get("global") {
        None => Tree::new(),
        Some(Json::Object(globals)) => globals.clone(),
        Some(_) => return,
    };
    for (key, value) in theirs {
        match (value, globals.get(&key)) {
            (Json::Object(mut value), Some(Json::Object(own))) => {
                coalesce_tables(&mut value, own, true);
                globals.insert(key, Json::Object(value));
            }
            // A table and what is none do not mix; what is there stays.
            (Json::Object(_), Some(_)) | (_, Some(Json::Object(_))) => {}
            (value, _) => {
                globals.insert(key, value);
            }
        }
    }
    values.insert("global".to_owned(), Json::Object(globals));
}

/// The table at a path of names with dots between them.
fn table<'v>(values: &'v Tree, path: &str) -> Option<&'v Tree> {
    let mut table = values;
    for name in path.split('.') {
        table = table.get(name)?.as_object()?;
    }
    Some(table)
}

/// Whether a version is in a range; what is malformed is not.
fn is_in_range(range: &str, version: &str) -> bool {
    match (Constraint::parse(range), Version::parse(version)) {
        (Ok(range), Ok(version)) => range.check(&version),
        _ => false,
    }
}

impl<'c> Node<'c> {
    fn new(chart: &'c Chart) -> Self {
        Self {
            chart,
            name: chart.metadata.name.clone(),
            values: chart.values.clone(),
            wanted: chart.metadata.dependencies.clone(),
            children: chart.dependencies.iter().map(Node::new).collect(),
        }
    }

    /// Chooses dependencies by what is asked for, by tags and by conditions.
    fn enable(&mut self, values: &Tree, path: &str) -> Result<(), RenderError> {
        if self.wanted.is_empty() {
            return Ok(());
        }
        let names = |node: &Node<'_>, wanted: &Dependency| {
            node.name == wanted.name && is_in_range(&wanted.version, &node.chart.metadata.version)
        };
        let mut chosen: Vec<Node<'c>> = Vec::new();
        for child in &self.children {
            if !self.wanted.iter().any(|wanted| names(child, wanted)) {
                chosen.push(Node::new(child.chart));
            }
        }
        for wanted in &mut self.wanted {
            if let Some(child) = self.children.iter().find(|child| names(child, wanted)) {
                let mut child = Node::new(child.chart);
                if !wanted.alias.is_empty() {
                    child.name.clone_from(&wanted.alias);
                }
                chosen.push(child);
            }
            if !wanted.alias.is_empty() {
                wanted.name.clone_from(&wanted.alias);
            }
        }
        self.children = chosen;

        let mut all = values.clone();
        self.coalesce(&mut all, false)?;
        let tags = all.get("tags").and_then(Json::as_object);
        let mut disabled = Vec::new();
        for wanted in &self.wanted {
            let mut enabled = true;
            if let Some(tags) = tags {
                let said: Vec<bool> = wanted
                    .tags
                    .iter()
                    .filter_map(|tag| tags.get(tag).and_then(Json::as_bool))
                    .collect();
                enabled = said.is_empty() || said.contains(&true);
            }
            for condition in wanted.condition.trim().split(',') {
                if condition.is_empty() {
                    continue;
                }
                let full = format!("{path}{condition}");
                let said = match full.rsplit_once('.') {
                    Some((parents, key)) => table(&all, parents).and_then(|table| table.get(key)),
                    None => all.get(&full),
                };
                if let Some(Json::Bool(said)) = said {
                    enabled = *said;
                    break;
                }
            }
            if !enabled {
                disabled.push(wanted.name.clone());
            }
        }
        self.children
            .retain(|child| !disabled.contains(&child.name));
        self.wanted
            .retain(|wanted| !disabled.contains(&wanted.name));
        for child in &mut self.children {
            let path = format!("{path}{}.", child.name);
            child.enable(&all, &path)?;
        }
        Ok(())
    }

    /// Takes over what the dependencies export, innermost charts first.
    fn import(&mut self) -> Result<(), RenderError> {
        for child in &mut self.children {
            child.import()?;
        }
        if self.wanted.is_empty() {
            return Ok(());
        }
        let mut all = Tree::new();
        self.coalesce(&mut all, true)?;
        let mut imported = Tree::new();
        for wanted in &self.wanted {
            for import in &wanted.import_values {
                let Some(found) = table(&all, &format!("{}.{}", wanted.name, import.child)) else {
                    continue;
                };
                let mut wrapped = found.clone();
                if import.parent != "." {
                    for name in import.parent.rsplit('.') {
                        let inner = std::mem::take(&mut wrapped);
                        wrapped.insert(name.to_owned(), Json::Object(inner));
                    }
                }
                coalesce_tables(&mut imported, &wrapped, true);
            }
        }
        coalesce_tables(&mut all, &imported, true);
        self.values = all;
        Ok(())
    }

    /// Completes values by the chart's own and those of its dependencies.
    fn coalesce(&self, values: &mut Tree, merge: bool) -> Result<(), RenderError> {
        for (key, default) in &self.values {
            match values.get_mut(key) {
                Some(Json::Null) if !merge => {
                    values.remove(key);
                }
                Some(Json::Object(values)) => {
                    if let Json::Object(defaults) = default {
                        // A dependency's nulls are for the dependency to see.
                        let for_child = self.children.iter().any(|child| child.name == *key);
                        coalesce_tables(values, defaults, merge || for_child);
                    }
                }
                Some(_) => {}
                None => {
                    values.insert(key.clone(), default.clone());
                }
            }
        }
        for child in &self.children {
            let mut inner = match values.get_mut(&child.name) {
                None => Tree::new(),
                Some(Json::Object(inner)) => std::mem::take(inner),
                Some(_) => {
                    return Err(RenderError::DependencyValues {
                        name: child.name.clone(),
                    });
                }
            };
            coalesce_globals(&mut inner, values);
            child.coalesce(&mut inner, merge)?;
            values.insert(child.name.clone(), Json::Object(inner));
        }
        Ok(())
    }

    fn note_incompatible(&self, kube_version: &Version, failures: &mut Vec<Failure>) {
        let wanted = &self.chart.metadata.kube_version;
        if !wanted.is_empty() && !is_in_range(wanted, &kube_version.to_string()) {
            failures.push(Failure {
                template: "Chart.yaml".to_owned(),
                file: "Chart.yaml".to_owned(),
                line: 0,
                message: format!(
                    "chart {:?} requires kubeVersion {wanted}, which v{kube_version} is not",
                    self.name
                ),
                refused: true,
            });
        }
        for missing in &self.wanted {
            if !self.children.iter().any(|child| child.name == missing.name) {
                failures.push(Failure {
                    template: "Chart.yaml".to_owned(),
                    file: "Chart.yaml".to_owned(),
                    line: 0,
                    message: format!(
                        "the dependency {:?} {} of chart {:?} is not in its charts directory",
                        missing.name, missing.version, self.name
                    ),
                    refused: false,
                });
            }
        }
    }

    fn collect_crds(&self, path: &str, crds: &mut Vec<Document>) {
        for (name, bytes) in &self.chart.files {
            let yaml = [".yaml", ".yml", ".json"]
                .iter()
                .any(|ending| name.ends_with(ending));
            if name.starts_with("crds/") && yaml {
                crds.push(Document {
                    template: format!("{path}/{name}"),
                    text: String::from_utf8_lossy(bytes).into_owned(),
                });
            }
        }
        for child in &self.children {
            child.collect_crds(&format!("{path}/charts/{}", child.name), crds);
        }
    }

    fn collect_app_versions(
        &self,
        path: &mut Vec<String>,
        versions: &mut Vec<(Vec<String>, String)>,
    ) {
        versions.push((path.clone(), self.chart.metadata.app_version.clone()));
        for child in &self.children {
            path.push(child.name.clone());
            child.collect_app_versions(path, versions);
            path.pop();
        }
    }

    /// Makes what the templates of this chart and its dependencies see.
    fn contexts(
        &self,
        path: &str,
        values: &Value,
        is_root: bool,
        shared: &Shared,
        templates: &mut Vec<Pending<'c>>,
    ) -> Value {
        let files = self
            .chart
            .files
            .iter()
            .map(|(name, bytes)| (Rc::from(name.as_str()), Rc::from(bytes.as_slice())))
            .collect();
        let subcharts = Map::new(BTreeMap::new());
        let context = Map::new(BTreeMap::from([
            (Rc::from("Chart"), self.chart_record(is_root)),
            (Rc::from("Files"), Value::object(Object::Files(files))),
            (Rc::from("Release"), shared.release.clone()),
            (Rc::from("Capabilities"), shared.capabilities.clone()),
            (Rc::from("Values"), values.clone()),
            (Rc::from("Subcharts"), Value::Map(subcharts.clone())),
        ]));
        for child in &self.children {
            let inner = match values {
                Value::Map(values) => values.get(&child.name),
                _ => None,
            };
            let inner = inner
                .filter(|inner| matches!(inner, Value::Map(_)))
                .unwrap_or_else(|| Value::map(BTreeMap::new()));
            let child_context = child.contexts(
                &format!("{path}/charts/{}", child.name),
                &inner,
                false,
                shared,
                templates,
            );
            subcharts.insert(Rc::from(child.name.as_str()), child_context);
        }
        let is_library = self.chart.metadata.kind.eq_ignore_ascii_case("library");
        for (name, text) in &self.chart.templates {
            let base_name = name.rsplit('/').next().unwrap_or(name);
            if is_library && !base_name.starts_with('_') {
                continue;
            }
            templates.push(Pending {
                path: format!("{path}/{name}"),
                base_path: format!("{path}/templates"),
                text,
                context: context.clone(),
            });
        }
        Value::Map(context)
    }

    fn chart_record(&self, is_root: bool) -> Value {
        let metadata = &self.chart.metadata;
        let annotations = metadata
            .annotations
            .iter()
            .map(|(key, value)| (Rc::from(key.as_str()), Value::text(value)))
            .collect();
        let maintainers = metadata
            .maintainers
            .iter()
            .map(|maintainer| {
                record(
                    "*chart.Maintainer",
                    vec![
                        ("Name", "name", Value::text(&maintainer.name)),
                        ("Email", "email", Value::text(&maintainer.email)),
                        ("URL", "url", Value::text(&maintainer.url)),
                    ],
                )
            })
            .collect();
        let dependencies = self
            .wanted
            .iter()
            .map(|wanted| {
                record(
                    "*chart.Dependency",
                    vec![
                        ("Name", "name", Value::text(&wanted.name)),
                        ("Version", "version", Value::text(&wanted.version)),
                        ("Repository", "repository", Value::text(&wanted.repository)),
                        ("Condition", "condition", Value::text(&wanted.condition)),
                        ("Tags", "tags", Value::texts(&wanted.tags)),
                        ("Enabled", "enabled", Value::Bool(true)),
                        ("Alias", "alias", Value::text(&wanted.alias)),
                    ],
                )
            })
            .collect();
        record(
            "chart.Metadata",
            vec![
                ("Name", "name", Value::text(&self.name)),
                ("Home", "home", Value::text(&metadata.home)),
                ("Sources", "sources", Value::texts(&metadata.sources)),
                ("Version", "version", Value::text(&metadata.version)),
                (
                    "Description",
                    "description",
                    Value::text(&metadata.description),
                ),
                ("Keywords", "keywords", Value::texts(&metadata.keywords)),
                ("Maintainers", "maintainers", Value::list(maintainers)),
                ("Icon", "icon", Value::text(&metadata.icon)),
                (
                    "APIVersion",
                    "apiVersion",
                    Value::text(&metadata.api_version),
                ),
                ("Condition", "condition", Value::text(&metadata.condition)),
                ("Tags", "tags", Value::text(&metadata.tags)),
                (
                    "AppVersion",
                    "appVersion",
                    Value::text(&metadata.app_version),
                ),
                ("Deprecated", "deprecated", Value::Bool(metadata.deprecated)),
                (
                    "Annotations",
                    "annotations",
                    Value::Map(Map::of(annotations, MapKind::Texts)),
                ),
                (
                    "KubeVersion",
                    "kubeVersion",
                    Value::text(&metadata.kube_version),
                ),
                ("Dependencies", "dependencies", Value::list(dependencies)),
                ("Type", "type", Value::text(&metadata.kind)),
                ("IsRoot", "IsRoot", Value::Bool(is_root)),
            ],
        )
    }
}
