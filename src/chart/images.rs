//! Images in what a chart renders, and how each was found.
//!
//! Where the documents are looked at, in this order; an image found in two ways keeps the first:
//!
//! 1. pod specs, wherever they stand: `containers`, `initContainers`, `ephemeralContainers`, image volumes;
//!    workloads, pod templates, lists and custom resources that embed a pod template alike
//! 2. fields of custom resources known to name images (`Prometheus.spec.image`)
//! 3. the paths the user names
//! 4. arguments and variables of containers that hand an image on (`--acme-http01-solver-image=...`, `RELATED_IMAGE_*`)
//! 5. further fields of custom resources called `image` that hold a whole reference
//!
//! Apart from those, the values are scanned for groups of `registry`, `repository`, `tag` and `digest`: what a chart
//! could use. They fill in where templates failed; [`Found::needed`] tells the two apart.

use std::collections::BTreeMap;

use serde_json::{Map as JsonMap, Value as Json};

use super::jsonpath::Path;
use super::load::scalar_text;
use super::render::{Document, Failure, Rendered};
use super::yaml;
use crate::hint::Hint;
use crate::reference::Reference;

/// How an image was found; the first that applies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum How {
    /// A container or image volume of a pod spec.
    PodSpec,
    /// A field of a custom resource that is known to name an image.
    KnownField,
    /// A path the user named.
    ImagePath,
    /// An argument or variable of a container.
    Argument,
    /// A field called `image` of some custom resource.
    ImageField,
    /// The values of the chart: it may be used or not.
    Values,
}

impl How {
    /// Every way, first to last.
    pub const ALL: [Self; 6] = [
        Self::PodSpec,
        Self::KnownField,
        Self::ImagePath,
        Self::Argument,
        Self::ImageField,
        Self::Values,
    ];

    /// A word for it, for reports.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::PodSpec => "pod spec",
            Self::KnownField => "known field",
            Self::ImagePath => "image path",
            Self::Argument => "argument",
            Self::ImageField => "image field",
            Self::Values => "values",
        }
    }
}

/// An image a chart names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundImage {
    /// The reference as the chart writes it. It may lack a registry or a tag.
    pub reference: String,
    /// How it was found.
    pub by: How,
    /// Where: the template and the object, or the path in the values.
    pub place: String,
}

/// Whether everything could be looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Every template rendered, and every document could be read.
    Whole,
    /// These could not: images may be missing. What the values name stands in.
    Partial(Vec<Failure>),
}

/// The images of a chart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Every image, sorted by reference; each once.
    pub images: Vec<FoundImage>,
    /// Whether they are all.
    pub verdict: Verdict,
}

impl Found {
    /// The images the chart needs: those the documents name, and if some could not be looked at, those of the
    /// values as well.
    pub fn needed(&self) -> impl Iterator<Item = &FoundImage> {
        let whole = self.verdict == Verdict::Whole;
        self.images
            .iter()
            .filter(move |image| !whole || image.by != How::Values)
    }
}

/// Why a path of the user is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("image path {path:?} {message} at byte {position}")]
pub struct ImagePathError {
    /// What was written.
    pub path: String,
    /// What is wrong.
    pub message: String,
    /// Where.
    pub position: usize,
}

impl Hint for ImagePathError {
    fn hint(&self) -> Option<String> {
        Some("write it as kubectl does, for example {.spec.custom[*].image}".to_owned())
    }
}

/// Fields that name images: API group, kind, path.
const KNOWN_FIELDS: &[(&str, &str, &str)] = &[
    (
        "monitoring.coreos.com",
        "Prometheus",
        "{.spec.image}{.spec.thanos.image}",
    ),
    ("monitoring.coreos.com", "PrometheusAgent", "{.spec.image}"),
    ("monitoring.coreos.com", "Alertmanager", "{.spec.image}"),
    ("monitoring.coreos.com", "ThanosRuler", "{.spec.image}"),
    (
        "opentelemetry.io",
        "OpenTelemetryCollector",
        "{.spec.image}{.spec.targetAllocator.image}",
    ),
    ("opentelemetry.io", "TargetAllocator", "{.spec.image}"),
    ("opentelemetry.io", "OpAMPBridge", "{.spec.image}"),
    (
        "opentelemetry.io",
        "Instrumentation",
        "{.spec.java.image}{.spec.nodejs.image}{.spec.python.image}{.spec.dotnet.image}{.spec.go.image}{.spec.apacheHttpd.image}{.spec.nginx.image}{.spec.java.extensions[*].image}",
    ),
    (
        "elasticsearch.k8s.elastic.co",
        "Elasticsearch",
        "{.spec.image}",
    ),
    ("kibana.k8s.elastic.co", "Kibana", "{.spec.image}"),
    ("beat.k8s.elastic.co", "Beat", "{.spec.image}"),
    ("agent.k8s.elastic.co", "Agent", "{.spec.image}"),
    ("postgresql.cnpg.io", "Cluster", "{.spec.imageName}"),
    ("acid.zalan.do", "postgresql", "{.spec.dockerImage}"),
    (
        "kafka.strimzi.io",
        "Kafka",
        "{.spec.kafka.image}{.spec.zookeeper.image}{.spec.entityOperator.topicOperator.image}{.spec.entityOperator.userOperator.image}{.spec.cruiseControl.image}{.spec.kafkaExporter.image}",
    ),
    ("kafka.strimzi.io", "KafkaConnect", "{.spec.image}"),
    ("kafka.strimzi.io", "KafkaBridge", "{.spec.image}"),
    ("kafka.strimzi.io", "KafkaMirrorMaker2", "{.spec.image}"),
    ("rabbitmq.com", "RabbitmqCluster", "{.spec.image}"),
    ("argoproj.io", "ArgoCD", "{.spec.image}"),
    (
        "mongodbcommunity.mongodb.com",
        "MongoDBCommunity",
        "{.spec.image}",
    ),
    (
        "redis.redis.opstreelabs.in",
        "Redis",
        "{.spec.kubernetesConfig.image}{.spec.redisExporter.image}",
    ),
    ("minio.min.io", "Tenant", "{.spec.image}"),
    ("ceph.rook.io", "CephCluster", "{.spec.cephVersion.image}"),
    ("longhorn.io", "EngineImage", "{.spec.image}"),
    ("kubevirt.io", "KubeVirt", "{.spec.imageRegistry}"),
    (
        "operator.tigera.io",
        "Installation",
        "{.spec.variant.image}",
    ),
    (
        "serving.knative.dev",
        "Service",
        "{.spec.template.spec.containers[*].image}",
    ),
    ("operators.coreos.com", "CatalogSource", "{.spec.image}"),
    ("pkg.crossplane.io", "Provider", "{.spec.package}"),
    ("pkg.crossplane.io", "Configuration", "{.spec.package}"),
    ("pkg.crossplane.io", "Function", "{.spec.package}"),
    (
        "tekton.dev",
        "Task",
        "{.spec.steps[*].image}{.spec.sidecars[*].image}{.spec.stepTemplate.image}",
    ),
    (
        "tekton.dev",
        "ClusterTask",
        "{.spec.steps[*].image}{.spec.sidecars[*].image}",
    ),
    ("flink.apache.org", "FlinkDeployment", "{.spec.image}"),
    (
        "sparkoperator.k8s.io",
        "SparkApplication",
        "{.spec.image}{.spec.driver.image}{.spec.executor.image}",
    ),
];

/// Reads the images out of a rendered chart.
///
/// # Errors
/// If a path of the user is malformed.
pub fn find_images(rendered: &Rendered, image_paths: &[String]) -> Result<Found, ImagePathError> {
    let mut paths = Vec::new();
    for text in image_paths {
        paths.push(Path::parse(text).map_err(|error| ImagePathError {
            path: text.clone(),
            message: error.message,
            position: error.position,
        })?);
    }
    let mut finder = Finder {
        paths,
        found: BTreeMap::new(),
        failures: rendered.failures.clone(),
    };
    for document in rendered.documents.iter().chain(&rendered.crds) {
        finder.document(document);
    }
    scan_values(rendered, &mut finder);
    let images = finder
        .found
        .into_iter()
        .map(|(reference, (by, place))| FoundImage {
            reference,
            by,
            place,
        })
        .collect();
    let verdict = if finder.failures.is_empty() {
        Verdict::Whole
    } else {
        Verdict::Partial(finder.failures)
    };
    Ok(Found { images, verdict })
}

struct Finder {
    paths: Vec<Path>,
    found: BTreeMap<String, (How, String)>,
    failures: Vec<Failure>,
}

impl Finder {
    fn add(&mut self, text: &str, by: How, place: &str) {
        // A path may select several references in one text.
        for reference in text.split_whitespace() {
            let known = self.found.get(reference);
            if known.is_none_or(|(known, _)| by < *known) {
                self.found
                    .insert(reference.to_owned(), (by, place.to_owned()));
            }
        }
    }

    fn document(&mut self, document: &Document) {
        // The older tools do not look at these either: they are texts for people.
        if ending(&document.template) == "txt" {
            return;
        }
        for part in yaml::parse_stream(&document.text) {
            match part.content {
                Ok(object) => self.object(&object, &document.template, 0),
                Err(error) => self.failures.push(Failure {
                    template: document.template.clone(),
                    file: document.template.clone(),
                    line: error.line,
                    message: format!(
                        "the output is no YAML (document from line {}): {}",
                        part.line, error.message
                    ),
                    refused: false,
                }),
            }
        }
    }

    fn object(&mut self, object: &Json, template: &str, depth: usize) {
        let kind = object.get("kind").and_then(Json::as_str).unwrap_or("");
        let api_version = object
            .get("apiVersion")
            .and_then(Json::as_str)
            .unwrap_or("");
        if kind.ends_with("List")
            && depth < 8
            && let Some(Json::Array(items)) = object.get("items")
        {
            for item in items {
                self.object(item, template, depth + 1);
            }
            return;
        }
        let name = object
            .pointer("/metadata/name")
            .map(|name| scalar_text(Some(name)))
            .unwrap_or_default();
        let place = format!("{template} {kind}/{name}");
        self.pod_specs(object, &place);
        let group = api_version.split_once('/').map_or("", |(group, _)| group);
        for (known_group, known_kind, path) in KNOWN_FIELDS {
            if group == *known_group && kind == *known_kind {
                let path = Path::parse(path).expect("the paths of the table are well-formed");
                self.select(&path, object, How::KnownField, &place);
            }
        }
        for path in std::mem::take(&mut self.paths) {
            self.select(&path, object, How::ImagePath, &place);
            self.paths.push(path);
        }
        let custom = group.contains('.') && !group.ends_with(".k8s.io");
        if custom && kind != "CustomResourceDefinition" {
            self.image_fields(object.get("spec").unwrap_or(&Json::Null), &place);
        }
    }

    fn select(&mut self, path: &Path, object: &Json, by: How, place: &str) {
        for value in path.select(object) {
            if let Json::String(text) = value {
                self.add(text, by, place);
            }
        }
    }

    /// Looks for pod specs at any depth.
    fn pod_specs(&mut self, value: &Json, place: &str) {
        match value {
            Json::Array(items) => items.iter().for_each(|item| self.pod_specs(item, place)),
            Json::Object(entries) => {
                let mut is_pod = false;
                for key in ["containers", "initContainers", "ephemeralContainers"] {
                    let Some(Json::Array(containers)) = entries.get(key) else {
                        continue;
                    };
                    for container in containers {
                        if let Some(Json::String(image)) = container.get("image") {
                            is_pod = true;
                            self.add(image, How::PodSpec, place);
                            self.arguments(container, place);
                        }
                    }
                }
                if is_pod && let Some(Json::Array(volumes)) = entries.get("volumes") {
                    for volume in volumes {
                        if let Some(Json::String(image)) = volume.pointer("/image/reference") {
                            self.add(image, How::PodSpec, place);
                        }
                    }
                }
                entries
                    .values()
                    .for_each(|item| self.pod_specs(item, place));
            }
            _ => {}
        }
    }

    /// Looks for images a container is told to start others from.
    fn arguments(&mut self, container: &Json, place: &str) {
        let names_image = |name: &str| {
            let name = name.to_ascii_lowercase();
            name.contains("image") || name.ends_with("reloader")
        };
        for key in ["args", "command"] {
            let Some(Json::Array(arguments)) = container.get(key) else {
                continue;
            };
            let texts: Vec<&str> = arguments.iter().filter_map(Json::as_str).collect();
            for (index, text) in texts.iter().enumerate() {
                let Some(flag) = text.strip_prefix('-') else {
                    continue;
                };
                match flag.split_once('=') {
                    Some((name, value)) if names_image(name) => {
                        self.add_whole(value, How::Argument, place);
                    }
                    None if names_image(flag) => {
                        if let Some(value) = texts.get(index + 1) {
                            self.add_whole(value, How::Argument, place);
                        }
                    }
                    _ => {}
                }
            }
        }
        if let Some(Json::Array(variables)) = container.get("env") {
            for variable in variables {
                if let (Some(Json::String(name)), Some(Json::String(value))) =
                    (variable.get("name"), variable.get("value"))
                    && names_image(name)
                {
                    self.add_whole(value, How::Argument, place);
                }
            }
        }
    }

    /// Adds a text only if it is a reference with registry and tag or digest: it might be something else.
    fn add_whole(&mut self, text: &str, by: How, place: &str) {
        if is_whole(text) {
            self.add(text.trim(), by, place);
        }
    }

    fn image_fields(&mut self, value: &Json, place: &str) {
        match value {
            Json::Array(items) => items.iter().for_each(|item| self.image_fields(item, place)),
            Json::Object(entries) => {
                for (key, value) in entries {
                    match value {
                        Json::String(text) if key == "image" || key.ends_with("Image") => {
                            self.add_whole(text, How::ImageField, place);
                        }
                        _ => self.image_fields(value, place),
                    }
                }
            }
            _ => {}
        }
    }
}

/// Whether a text is a reference with registry and tag or digest.
fn is_whole(text: &str) -> bool {
    let text = text.trim();
    !text.contains("://") && text.parse::<Reference>().is_ok()
}

/// What follows the last dot of a path.
fn ending(path: &str) -> &str {
    path.rsplit_once('.').map_or("", |(_, ending)| ending)
}

/// A reference that the values spell out: in parts, or whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Group {
    /// Where it stands in the values.
    pub(super) path: Vec<String>,
    /// What it spells.
    pub(super) reference: String,
    /// How it is written.
    pub(super) form: Form,
    /// Whether it stands inside of a list, where no value of another layer reaches it.
    pub(super) is_in_list: bool,
}

/// How the values write a reference.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// A text that is the whole reference.
    Whole,
    /// A mapping with the repository under this key, and perhaps a registry beside it.
    Parts {
        /// `repository`, `image` or `name`.
        repository: &'static str,
        /// Whether the mapping has a key for the registry.
        registry: bool,
    },
}

/// The references that the values of a rendered chart spell out.
pub(super) fn groups(rendered: &Rendered) -> Vec<Group> {
    let mut scan = Scan {
        rendered,
        path: Vec::new(),
        lists: 0,
        groups: Vec::new(),
    };
    scan.mapping(&rendered.values);
    scan.groups
}

/// Looks for groups of registry, repository, tag and digest.
fn scan_values(rendered: &Rendered, finder: &mut Finder) {
    for group in groups(rendered) {
        let place = format!("values {}", group.path.join("."));
        finder.add(&group.reference, How::Values, &place);
    }
}

struct Scan<'a> {
    rendered: &'a Rendered,
    path: Vec<String>,
    lists: usize,
    groups: Vec<Group>,
}

impl Scan<'_> {
    fn found(&mut self, reference: String, form: Form) {
        self.groups.push(Group {
            path: self.path.clone(),
            reference,
            form,
            is_in_list: self.lists > 0,
        });
    }

    fn mapping(&mut self, entries: &JsonMap<String, Json>) {
        if let Some((reference, repository)) = group(entries, &self.path, self.rendered) {
            let registry = entries.contains_key("registry");
            self.found(
                reference,
                Form::Parts {
                    repository,
                    registry,
                },
            );
        }
        for (key, value) in entries {
            self.path.push(key.clone());
            match value {
                Json::Object(inner) => self.mapping(inner),
                Json::Array(items) => {
                    self.lists += 1;
                    for item in items {
                        if let Json::Object(inner) = item {
                            self.mapping(inner);
                        }
                    }
                    self.lists -= 1;
                }
                Json::String(text)
                    if (key == "image" || key.ends_with("Image")) && is_whole(text) =>
                {
                    self.found(text.trim().to_owned(), Form::Whole);
                }
                _ => {}
            }
            self.path.pop();
        }
    }
}

/// The reference a mapping of the values spells out in parts, and the key that the repository stands under.
fn group(
    entries: &JsonMap<String, Json>,
    path: &[String],
    rendered: &Rendered,
) -> Option<(String, &'static str)> {
    let text = |key: &str| scalar_text(entries.get(key));
    let (tag, digest) = (text("tag"), text("digest"));
    let has_tag = entries.contains_key("tag") || entries.contains_key("digest");
    let (repository, key) = match (entries.get("repository"), entries.get("image")) {
        (Some(Json::String(repository)), _) => (repository.clone(), "repository"),
        (None, Some(Json::String(image))) if has_tag => (image.clone(), "image"),
        (None, None) if has_tag || looks_like_image(path) => {
            let name = text("name");
            let name = match scalar_text(rendered.values.get("imageNamespace")).as_str() {
                "" => name,
                _ if name.is_empty() => name,
                namespace => format!("{namespace}/{name}"),
            };
            (name, "name")
        }
        _ => return None,
    };
    // A repository may be one of git or of charts.
    if repository.is_empty() || repository.contains("://") || !(has_tag || looks_like_image(path)) {
        return None;
    }
    let mut reference = String::new();
    let registry = [text("registry"), global_registry(rendered)]
        .into_iter()
        .find(|registry| !registry.is_empty());
    if let Some(registry) = registry
        && !repository.starts_with(&format!("{registry}/"))
        && (entries.contains_key("registry") || !names_registry(&repository))
    {
        reference.push_str(registry.trim_end_matches('/'));
        reference.push('/');
    }
    reference.push_str(&repository);
    let already_tagged = repository
        .rsplit('/')
        .next()
        .is_some_and(|last| last.contains([':', '@']));
    if already_tagged {
        return Some((reference, key));
    }
    if !tag.is_empty() {
        reference.push(':');
        reference.push_str(&tag);
    } else if digest.is_empty() {
        // By custom a tag left out is the version of the application.
        let version = rendered
            .app_versions
            .iter()
            .filter(|(prefix, _)| path.starts_with(prefix))
            .max_by_key(|(prefix, _)| prefix.len())
            .map_or("", |(_, version)| version.as_str());
        if version.is_empty() {
            return None;
        }
        reference.push(':');
        reference.push_str(version);
    }
    if !digest.is_empty() {
        reference.push('@');
        reference.push_str(&digest);
    }
    Some((reference, key))
}

fn looks_like_image(path: &[String]) -> bool {
    path.last()
        .is_some_and(|last| last.to_ascii_lowercase().contains("image"))
}

fn names_registry(repository: &str) -> bool {
    repository
        .split_once('/')
        .is_some_and(|(first, _)| first.contains(['.', ':']) || first == "localhost")
}

/// The registry all images of a chart share, where charts are used to say it.
fn global_registry(rendered: &Rendered) -> String {
    let global = rendered.values.get("global");
    [
        global.and_then(|global| global.get("imageRegistry")),
        global.and_then(|global| global.pointer("/image/registry")),
        rendered.values.get("imageRegistry"),
    ]
    .into_iter()
    .map(scalar_text)
    .find(|registry| !registry.is_empty())
    .unwrap_or_default()
}
