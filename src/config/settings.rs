//! `imgbuild.toml`: what an image set configuration has no room for.
//!
//! ```toml
//! store = "../store"
//! rules = "rules"
//! [stream.prod]            # config, lock, part-size, keep
//! [destination.site-a]     # registry, stream, layout, max-nested-paths, source-policy
//! [registry."quay.io"]     # connections, requests-per-second
//! [url."https://a/b"]      # location
//! [catalog."REF"]          # selection, prereleases
//! [chart."REF"]            # values, values-files, kubernetes-version, api-versions, strict; "*" is every chart
//! [graph]                  # data, base
//! [samples]                # configmap, imagestreams
//! [signatures."SCOPE"]     # policy, keys, referrers
//! [policy]                 # what `lock` refuses; its keys are the lock's, see Settings::check_policy
//! ```
//!
//! Every table is optional, an unknown key is an error. Paths are as written: relative to the file.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use toml::de::{DeTable, DeValue};

use super::decode::url;
use super::diagnostic::{At, ConfigErrors, Diagnostic, Document, Position, Severity};
use super::node::{Entry, Kind, Node, shorten};
use super::reader::{Fields, Reader, Schema, Since::Always, chain, did_you_mean};
use super::rows::{Branch, Row, Tree};
use super::size::parse_size;
use crate::canon::Value;
use crate::hint::Hint;
use crate::reference::{ImageName, Repository, is_path};

/// Largest settings file read.
const LARGEST_TEXT: usize = 4 << 20;

/// The contents of `imgbuild.toml`.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Folder of the store.
    pub store: Option<At<String>>,
    /// Folder of rule files that replace the embedded ones.
    pub rules: Option<At<String>>,
    /// By the name of the stream.
    pub streams: BTreeMap<String, At<Stream>>,
    /// By the name of the destination.
    pub destinations: BTreeMap<String, At<Destination>>,
    /// By `host[:port]`.
    pub registries: BTreeMap<String, At<RegistryLimits>>,
    /// By the URL that is asked for: where the bytes are got instead.
    pub urls: BTreeMap<String, At<String>>,
    /// By the catalog's name as the config writes it.
    pub catalogs: BTreeMap<String, At<CatalogSettings>>,
    /// By the chart's name in the lock.
    pub charts: BTreeMap<String, At<ChartSettings>>,
    /// What the update graph's image is made of.
    pub graph: Option<At<GraphSettings>>,
    /// Where the sample image streams come from.
    pub samples: Option<At<SampleSettings>>,
    /// By scope: a registry, a namespace or a repository.
    pub signatures: BTreeMap<String, At<SignatureSettings>>,
    /// As written; the lock says which keys there are.
    pub policy: BTreeMap<String, At<Value>>,
    policy_keys: BTreeMap<String, Position>,
    document: Arc<Document>,
}

impl Default for Settings {
    /// What holds where there is no `imgbuild.toml`.
    fn default() -> Self {
        Self {
            store: None,
            rules: None,
            streams: BTreeMap::new(),
            destinations: BTreeMap::new(),
            registries: BTreeMap::new(),
            urls: BTreeMap::new(),
            catalogs: BTreeMap::new(),
            charts: BTreeMap::new(),
            graph: None,
            samples: None,
            signatures: BTreeMap::new(),
            policy: BTreeMap::new(),
            policy_keys: BTreeMap::new(),
            document: Arc::new(Document::new("imgbuild.toml", "")),
        }
    }
}

/// `[stream.NAME]`: what is exported as one sequence of archives.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stream {
    /// The image set configuration.
    pub config: Option<At<String>>,
    /// Its lockfile.
    pub lock: Option<At<String>>,
    /// Largest archive file in bytes.
    pub part_size: Option<At<u64>>,
    /// How many of the last archives gc spares.
    pub keep: Option<At<u64>>,
}

/// `[destination.NAME]`: a registry that mirrors a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Destination {
    /// `HOST[:PORT][/PREFIX]`, without a scheme.
    pub registry: At<String>,
    /// The stream it takes.
    pub stream: Option<At<String>>,
    /// How repositories are named; the rules say which layouts there are.
    pub layout: Option<At<String>>,
    /// Longest path, in parts; 0 is unlimited.
    pub max_nested_paths: Option<At<u64>>,
    /// Whether a node may ask the source as well.
    pub source_policy: Option<At<SourcePolicy>>,
}

/// `mirrorSourcePolicy` of the resources written for a destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SourcePolicy {
    /// `NeverContactSource`
    NeverContactSource,
    /// `AllowContactingSource`
    AllowContactingSource,
}

impl SourcePolicy {
    /// As the resources write it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NeverContactSource => "NeverContactSource",
            Self::AllowContactingSource => "AllowContactingSource",
        }
    }
}

/// `[registry."HOST"]`: what registries.conf cannot say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RegistryLimits {
    /// Most connections at once.
    pub connections: Option<At<u64>>,
    /// Most requests per second.
    pub requests_per_second: Option<At<u64>>,
}

/// `[catalog."REF"]`
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CatalogSettings {
    /// Which selection algorithm; the catalog filter says which there are.
    pub selection: Option<At<String>>,
    /// What becomes of pre-releases, where the algorithm's own answer is not wanted.
    pub prereleases: Option<At<String>>,
}

/// `[chart."REF"]`
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ChartSettings {
    /// Values to render with, as one JSON object with sorted keys.
    pub values: Option<At<String>>,
    /// Files of values, weakest first.
    pub values_files: Vec<At<String>>,
    /// The version of Kubernetes that the chart is rendered for.
    pub kubernetes_version: Option<At<String>>,
    /// API versions of the cluster beyond those that every cluster has.
    pub api_versions: Vec<At<String>>,
    /// Whether an image that cannot be read is an error.
    pub strict: Option<At<bool>>,
}

/// `[graph]`
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GraphSettings {
    /// Where the data are: a URL or a file, a tar that may be compressed with gzip.
    pub data: Option<At<String>>,
    /// The image that they are laid on.
    pub base: Option<At<ImageName>>,
}

/// `[samples]`
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SampleSettings {
    /// The ConfigMap that names the images.
    pub configmap: Option<At<String>>,
    /// Only these image streams; all, if empty.
    pub imagestreams: Vec<At<String>>,
}

/// `[signatures."SCOPE"]`
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SignatureSettings {
    /// What a missing signature means.
    pub policy: Option<At<SignaturePolicy>>,
    /// Files of public keys.
    pub keys: Vec<At<String>>,
    /// Whether to look for referrers as well.
    pub referrers: Option<At<bool>>,
}

/// What a missing signature means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SignaturePolicy {
    /// An error.
    Require,
    /// A warning.
    Warn,
    /// Nothing: none is looked for.
    Skip,
}

impl SignaturePolicy {
    /// As the file writes it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Require => "require",
            Self::Warn => "warn",
            Self::Skip => "skip",
        }
    }
}

const ROOT: Schema = Schema {
    place: "",
    keys: &[
        ("store", Always),
        ("rules", Always),
        ("stream", Always),
        ("destination", Always),
        ("registry", Always),
        ("url", Always),
        ("catalog", Always),
        ("chart", Always),
        ("graph", Always),
        ("samples", Always),
        ("signatures", Always),
        ("policy", Always),
    ],
    advice: &[(
        "mirror",
        "what to mirror stands in the image set configuration",
    )],
};
const STREAM: Schema = Schema {
    place: "stream.NAME",
    keys: &[
        ("config", Always),
        ("lock", Always),
        ("part-size", Always),
        ("keep", Always),
    ],
    advice: &[("archiveSize", "did you mean \"part-size\"?")],
};
const DESTINATION: Schema = Schema {
    place: "destination.NAME",
    keys: &[
        ("registry", Always),
        ("stream", Always),
        ("layout", Always),
        ("max-nested-paths", Always),
        ("source-policy", Always),
    ],
    advice: &[],
};
const REGISTRY: Schema = Schema {
    place: "registry.HOST",
    keys: &[("connections", Always), ("requests-per-second", Always)],
    advice: &[
        (
            "insecure",
            "TLS and mirrors of a registry stand in registries.conf",
        ),
        (
            "mirror",
            "TLS and mirrors of a registry stand in registries.conf",
        ),
        (
            "username",
            "credentials stand in the auth file (--authfile)",
        ),
        (
            "password",
            "credentials stand in the auth file (--authfile)",
        ),
    ],
};
const URL: Schema = Schema {
    place: "url.URL",
    keys: &[("location", Always)],
    advice: &[],
};
const CATALOG: Schema = Schema {
    place: "catalog.REF",
    keys: &[("selection", Always), ("prereleases", Always)],
    advice: &[],
};
const CHART: Schema = Schema {
    place: "chart.REF",
    keys: &[
        ("values", Always),
        ("values-files", Always),
        ("kubernetes-version", Always),
        ("api-versions", Always),
        ("strict", Always),
    ],
    advice: &[],
};
const GRAPH: Schema = Schema {
    place: "graph",
    keys: &[("data", Always), ("base", Always)],
    advice: &[],
};
const SAMPLES: Schema = Schema {
    place: "samples",
    keys: &[("configmap", Always), ("imagestreams", Always)],
    advice: &[],
};
const SIGNATURES: Schema = Schema {
    place: "signatures.SCOPE",
    keys: &[("policy", Always), ("keys", Always), ("referrers", Always)],
    advice: &[],
};
static SCHEMAS: &[&Schema] = &[
    &ROOT,
    &STREAM,
    &DESTINATION,
    &REGISTRY,
    &URL,
    &CATALOG,
    &CHART,
    &SAMPLES,
    &SIGNATURES,
];

impl Settings {
    /// Reads the text of an `imgbuild.toml`; `file` is its name in messages.
    ///
    /// # Errors
    /// Everything that is wrong with it, in the order of the file.
    pub fn parse(text: &str, file: &str) -> Result<Self, ConfigErrors> {
        let document = Arc::new(Document::new(file, text));
        let mut reader = Reader::new(&document, Vec::new(), SCHEMAS, true);
        let root = read_toml(&mut reader, &document);
        let settings = root.and_then(|root| {
            let fields = reader.fields(&root, &ROOT)?;
            Some(settings(&mut reader, &fields, &document))
        });
        reader.finish(settings).map(|(settings, _)| settings)
    }

    /// Reads the bytes of an `imgbuild.toml`.
    ///
    /// # Errors
    /// As [`Settings::parse`], and if the bytes are not UTF-8.
    pub fn parse_bytes(bytes: &[u8], file: &str) -> Result<Self, ConfigErrors> {
        Self::parse(super::utf8(bytes, file)?, file)
    }

    /// An error of a later layer about a place in this file.
    pub fn error(
        &self,
        position: Position,
        message: impl Into<String>,
        hint: Option<String>,
    ) -> Diagnostic {
        self.document
            .diagnostic(Severity::Error, position, message, hint)
    }

    /// Refuses every key of `[policy]` that is not among `known`.
    ///
    /// # Errors
    /// Each unknown key, at its place.
    pub fn check_policy(&self, known: &[&str]) -> Result<(), ConfigErrors> {
        let unknown = self
            .policy_keys
            .iter()
            .filter(|(key, _)| !known.contains(&key.as_str()));
        let diagnostics = unknown.map(|(key, position)| {
            let hint = did_you_mean(key, known.iter().copied());
            self.error(
                *position,
                format!("unknown key {:?} in policy", shorten(key)),
                hint,
            )
        });
        match ConfigErrors::of(diagnostics) {
            Some(errors) => Err(errors),
            None => Ok(()),
        }
    }

    /// The rows of a table, by its name; `None` where there is no such table.
    ///
    /// A row has the keys of its table in the spelling of the file, absent ones absent, and under `name` what
    /// the table itself is called: `prod` for `[stream.prod]`. `samples` and `policy` have at most one row.
    #[must_use]
    pub fn rows(&self, table: &str) -> Option<Vec<Row>> {
        fn of<T>(table: &BTreeMap<String, At<T>>, tree: impl Fn(&T) -> Branch) -> Vec<Row> {
            table
                .iter()
                .map(|(name, row)| {
                    let name = At::new(name.clone(), row.position);
                    tree(row).text("name", &name).row(row.position)
                })
                .collect()
        }
        Some(match table {
            "stream" => of(&self.streams, |stream| {
                Branch::default()
                    .maybe("config", stream.config.as_ref())
                    .maybe("lock", stream.lock.as_ref())
                    .number("part-size", stream.part_size.as_ref())
                    .number("keep", stream.keep.as_ref())
            }),
            "destination" => of(&self.destinations, |destination| {
                let policy = destination
                    .source_policy
                    .clone()
                    .map(|at| at.map(SourcePolicy::as_str));
                Branch::default()
                    .text("registry", &destination.registry)
                    .maybe("stream", destination.stream.as_ref())
                    .maybe("layout", destination.layout.as_ref())
                    .number("max-nested-paths", destination.max_nested_paths.as_ref())
                    .maybe("source-policy", policy.as_ref())
            }),
            "registry" => of(&self.registries, |registry| {
                Branch::default()
                    .number("connections", registry.connections.as_ref())
                    .number("requests-per-second", registry.requests_per_second.as_ref())
            }),
            "url" => self
                .urls
                .iter()
                .map(|(url, location)| {
                    Branch::default()
                        .text("name", &At::new(url.clone(), location.position))
                        .text("location", location)
                        .row(location.position)
                })
                .collect(),
            "catalog" => of(&self.catalogs, |catalog| {
                Branch::default()
                    .maybe("selection", catalog.selection.as_ref())
                    .maybe("prereleases", catalog.prereleases.as_ref())
            }),
            "chart" => of(&self.charts, |chart| {
                Branch::default()
                    .maybe("values", chart.values.as_ref())
                    .texts("values-files", &chart.values_files)
                    .maybe("kubernetes-version", chart.kubernetes_version.as_ref())
                    .texts("api-versions", &chart.api_versions)
                    .truth("strict", chart.strict.as_ref())
            }),
            "graph" => self
                .graph
                .iter()
                .map(|graph| {
                    let base = graph
                        .base
                        .as_ref()
                        .map(|base| At::new(base.value.to_string(), base.position));
                    Branch::default()
                        .maybe("data", graph.data.as_ref())
                        .maybe("base", base.as_ref())
                        .row(graph.position)
                })
                .collect(),
            "samples" => self
                .samples
                .iter()
                .map(|samples| {
                    Branch::default()
                        .maybe("configmap", samples.configmap.as_ref())
                        .texts("imagestreams", &samples.imagestreams)
                        .row(samples.position)
                })
                .collect(),
            "signatures" => of(&self.signatures, |signatures| {
                let policy = signatures
                    .policy
                    .clone()
                    .map(|at| at.map(SignaturePolicy::as_str));
                Branch::default()
                    .maybe("policy", policy.as_ref())
                    .texts("keys", &signatures.keys)
                    .truth("referrers", signatures.referrers.as_ref())
            }),
            "policy" => match self.policy_keys.values().min() {
                Some(first) => {
                    let fields = self
                        .policy
                        .iter()
                        .map(|(key, value)| (key.clone(), value.value.clone()));
                    vec![Row {
                        position: *first,
                        fields: fields.collect(),
                        positions: self.policy_keys.clone(),
                    }]
                }
                None => Vec::new(),
            },
            _ => return None,
        })
    }
}

fn settings(reader: &mut Reader<'_>, fields: &Fields<'_>, document: &Arc<Document>) -> Settings {
    let mut settings = Settings {
        document: Arc::clone(document),
        ..Settings::default()
    };
    settings.store = reader.text(fields, "store");
    settings.rules = reader.text(fields, "rules");
    settings.streams = tables(
        reader,
        fields,
        "stream",
        &STREAM,
        is_name,
        |reader, row, _| {
            Some(Stream {
                config: reader.text(row, "config"),
                lock: reader.text(row, "lock"),
                part_size: size(reader, row, "part-size"),
                keep: reader.number(row, "keep", 1),
            })
        },
    );
    settings.destinations = tables(
        reader,
        fields,
        "destination",
        &DESTINATION,
        is_name,
        |reader, row, _| {
            let registry = reader
                .required(row, "registry")
                .and_then(|text| destination(reader, &text));
            let source_policy = reader.text(row, "source-policy").and_then(|text| {
                let words = [
                    SourcePolicy::NeverContactSource,
                    SourcePolicy::AllowContactingSource,
                ]
                .map(|policy| (policy.as_str(), policy));
                reader.choice("destination.NAME.source-policy", &text, &words, &[])
            });
            Some(Destination {
                stream: reader.text(row, "stream"),
                layout: reader.text(row, "layout"),
                max_nested_paths: reader.number(row, "max-nested-paths", 0),
                source_policy,
                registry: registry?,
            })
        },
    );
    settings.registries = tables(
        reader,
        fields,
        "registry",
        &REGISTRY,
        |host| {
            Repository::new(host, "a")
                .map(|_| ())
                .map_err(|_| "expected host, host:port or [IPv6]:port")
        },
        |reader, row, _| {
            Some(RegistryLimits {
                connections: reader.number(row, "connections", 1),
                requests_per_second: reader.number(row, "requests-per-second", 1),
            })
        },
    );
    settings.urls = tables(
        reader,
        fields,
        "url",
        &URL,
        |_| Ok(()),
        |reader, row, key| {
            url(reader, key, "the name of a [url] table", &["https", "http"])?;
            reader.required(row, "location")
        },
    )
    .into_iter()
    .map(|(key, row)| (key, row.value))
    .collect();
    settings.catalogs = tables(
        reader,
        fields,
        "catalog",
        &CATALOG,
        |_| Ok(()),
        |reader, row, key| {
            if let Err(error) = key.parse::<ImageName>() {
                reader.error(
                    key.position,
                    format!("catalog: {}", chain(&error)),
                    error.hint(),
                );
                return None;
            }
            Some(CatalogSettings {
                selection: reader.text(row, "selection"),
                prereleases: reader.text(row, "prereleases"),
            })
        },
    );
    settings.charts = tables(
        reader,
        fields,
        "chart",
        &CHART,
        |_| Ok(()),
        |reader, row, _| {
            Some(ChartSettings {
                values: values(reader, row),
                values_files: reader.texts(row, "values-files"),
                kubernetes_version: reader.text(row, "kubernetes-version"),
                api_versions: reader.texts(row, "api-versions"),
                strict: reader.optional_flag(row, "strict"),
            })
        },
    );
    if let Some(node) = fields.get("graph")
        && let Some(row) = reader.fields(node, &GRAPH)
    {
        let base =
            reader
                .text(&row, "base")
                .and_then(|text| match text.value.parse::<ImageName>() {
                    Ok(name) => Some(At::new(name, text.position)),
                    Err(error) => {
                        reader.error(text.position, error.to_string(), error.hint());
                        None
                    }
                });
        let graph = GraphSettings {
            data: reader.text(&row, "data"),
            base,
        };
        settings.graph = Some(At::new(graph, row.position));
    }
    if let Some(node) = fields.get("samples")
        && let Some(row) = reader.fields(node, &SAMPLES)
    {
        let samples = SampleSettings {
            configmap: reader.text(&row, "configmap"),
            imagestreams: reader.texts(&row, "imagestreams"),
        };
        settings.samples = Some(At::new(samples, row.position));
    }
    settings.signatures = tables(
        reader,
        fields,
        "signatures",
        &SIGNATURES,
        |scope| {
            if scope.is_empty() || scope.contains("://") || scope.ends_with('/') {
                Err(
                    "expected a registry, a namespace or a repository, for example quay.io/openshift-release-dev",
                )
            } else {
                Ok(())
            }
        },
        |reader, row, _| {
            let policy = reader.text(row, "policy").and_then(|text| {
                let words = [
                    SignaturePolicy::Require,
                    SignaturePolicy::Warn,
                    SignaturePolicy::Skip,
                ]
                .map(|policy| (policy.as_str(), policy));
                reader.choice(
                    "signatures.SCOPE.policy",
                    &text,
                    &words,
                    &[("required", "require"), ("ignore", "skip")],
                )
            });
            Some(SignatureSettings {
                policy,
                keys: reader.texts(row, "keys"),
                referrers: reader.optional_flag(row, "referrers"),
            })
        },
    );
    policy(reader, fields, &mut settings);
    settings
}

/// A stream or a destination names files and folders.
fn is_name(name: &str) -> Result<(), &'static str> {
    let good = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    if !name.is_empty()
        && name.len() <= 100
        && !name.starts_with(['.', '-'])
        && name.bytes().all(good)
    {
        Ok(())
    } else {
        Err("expected letters, digits, '.', '_' and '-', not opening with '.' or '-'")
    }
}

/// The tables below `key`, by name.
fn tables<T>(
    reader: &mut Reader<'_>,
    fields: &Fields<'_>,
    key: &str,
    schema: &'static Schema,
    check: impl Fn(&str) -> Result<(), &'static str>,
    mut read: impl FnMut(&mut Reader<'_>, &Fields<'_>, &At<String>) -> Option<T>,
) -> BTreeMap<String, At<T>> {
    let mut tables = BTreeMap::new();
    let Some(node) = fields.get(key) else {
        return tables;
    };
    let Kind::Mapping(entries) = &node.kind else {
        reader.error(
            node.position,
            format!("{key} holds tables, found {}", node.found()),
            Some(format!(
                "write [{}]",
                schema.place.replacen('.', ".\"", 1) + "\""
            )),
        );
        return tables;
    };
    for entry in entries {
        if let Err(expected) = check(&entry.key) {
            reader.error(
                entry.key_position,
                format!(
                    "{key} has a table named {:?}: {expected}",
                    shorten(&entry.key)
                ),
                None,
            );
        }
        let name = At::new(entry.key.clone(), entry.key_position);
        if let Some(row) = reader.fields(&entry.value, schema)
            && let Some(value) = read(reader, &row, &name)
        {
            tables.insert(entry.key.clone(), At::new(value, entry.key_position));
        }
    }
    tables
}

/// `[docker://]HOST[:PORT][/PREFIX]`
fn destination(reader: &mut Reader<'_>, text: &At<String>) -> Option<At<String>> {
    let bare = text.strip_prefix("docker://").unwrap_or(text);
    let (host, prefix) = bare
        .split_once('/')
        .map_or((bare, None), |(host, prefix)| (host, Some(prefix)));
    if Repository::new(host, "a").is_err() || !prefix.is_none_or(is_path) {
        reader.error(
            text.position,
            format!(
                "destination.NAME.registry is HOST[:PORT][/PREFIX], found {:?}",
                shorten(text)
            ),
            None,
        );
        return None;
    }
    Some(At::new(bare.to_owned(), text.position))
}

fn size(reader: &mut Reader<'_>, row: &Fields<'_>, key: &str) -> Option<At<u64>> {
    let node = row.get(key)?;
    let Kind::Scalar { text, .. } = &node.kind else {
        reader.text(row, key);
        return None;
    };
    match parse_size(text) {
        Ok(size) => Some(At::new(size, node.position)),
        Err(error) => {
            reader.error(node.position, format!("{key}: {error}"), None);
            None
        }
    }
}

/// The values of a chart as one JSON text.
fn values(reader: &mut Reader<'_>, row: &Fields<'_>) -> Option<At<String>> {
    let node = row.get("values")?;
    if !matches!(node.kind, Kind::Mapping(_)) {
        reader.error(
            node.position,
            format!("chart.REF.values is a table, found {}", node.found()),
            None,
        );
        return None;
    }
    let json = json(reader, node)?;
    Some(At::new(json.to_string(), node.position))
}

fn json(reader: &mut Reader<'_>, node: &Node) -> Option<serde_json::Value> {
    Some(match &node.kind {
        Kind::Null => serde_json::Value::Null,
        Kind::Scalar { text, plain: false } => text.clone().into(),
        Kind::Scalar { text, .. } => {
            if let Ok(value) = serde_json::from_str(text) {
                value
            } else {
                reader.error(
                    node.position,
                    format!(
                        "a value of a chart is text, a number, true or false, found {}",
                        node.found()
                    ),
                    Some(format!("write it in quotes: {text:?}")),
                );
                return None;
            }
        }
        Kind::List(items) => serde_json::Value::Array(
            items
                .iter()
                .map(|item| json(reader, item))
                .collect::<Option<_>>()?,
        ),
        Kind::Mapping(entries) => {
            let mut sorted: Vec<&Entry> = entries.iter().collect();
            sorted.sort_by(|left, right| left.key.cmp(&right.key));
            let entries = sorted
                .into_iter()
                .map(|entry| Some((entry.key.clone(), json(reader, &entry.value)?)));
            serde_json::Value::Object(entries.collect::<Option<_>>()?)
        }
    })
}

fn policy(reader: &mut Reader<'_>, fields: &Fields<'_>, settings: &mut Settings) {
    let Some(node) = fields.get("policy") else {
        return;
    };
    let Kind::Mapping(entries) = &node.kind else {
        reader.error(
            node.position,
            format!("policy is a table, found {}", node.found()),
            None,
        );
        return;
    };
    for entry in entries {
        let Some(value) = plain_value(&entry.value) else {
            reader.error(
                entry.value.position,
                format!(
                    "policy.{} is text, a whole number, true, false or a list of these",
                    shorten(&entry.key)
                ),
                None,
            );
            continue;
        };
        settings
            .policy
            .insert(entry.key.clone(), At::new(value, entry.value.position));
        settings
            .policy_keys
            .insert(entry.key.clone(), entry.key_position);
    }
}

fn plain_value(node: &Node) -> Option<Value> {
    Some(match &node.kind {
        Kind::Scalar { text, plain: false } => Value::Text(text.clone()),
        Kind::Scalar { text, .. } => match text.as_str() {
            "true" => Value::Bool(true),
            "false" => Value::Bool(false),
            number => Value::Integer(number.parse().ok()?),
        },
        Kind::List(items) => Value::List(
            items
                .iter()
                .map(|item| plain_value(item))
                .collect::<Option<_>>()?,
        ),
        Kind::Mapping(_) | Kind::Null => return None,
    })
}

/// The tree of a TOML file; `None` with every syntax error said.
fn read_toml(reader: &mut Reader<'_>, document: &Document) -> Option<Node> {
    let text = document.text();
    if text.len() > LARGEST_TEXT {
        let start = document.position(&(0..1));
        reader.error(
            start,
            format!(
                "the file has {} bytes; imgbuild.toml has at most {LARGEST_TEXT}",
                text.len()
            ),
            None,
        );
        return None;
    }
    let (table, errors) = DeTable::parse_recoverable(text);
    for error in &errors {
        let position = document.position(&error.span().unwrap_or(0..0));
        let message = error.message().trim().replace('\n', "; ");
        reader.error(position, format!("not TOML: {message}"), None);
    }
    if !errors.is_empty() {
        return None;
    }
    let span = table.span();
    Some(table_node(document, &table.into_inner(), &span))
}

fn table_node(document: &Document, table: &DeTable<'_>, span: &std::ops::Range<usize>) -> Node {
    let mut entries: Vec<Entry> = table
        .iter()
        .map(|(key, value)| Entry {
            key: key.get_ref().to_string(),
            key_position: document.position(&key.span()),
            value: Rc::new(value_node(document, value.get_ref(), &value.span())),
        })
        .collect();
    entries.sort_by_key(|entry| entry.key_position);
    Node {
        position: document.position(span),
        kind: Kind::Mapping(entries),
    }
}

fn value_node(document: &Document, value: &DeValue<'_>, span: &std::ops::Range<usize>) -> Node {
    let plain = |text: String| Kind::Scalar { text, plain: true };
    let kind = match value {
        DeValue::String(text) => Kind::Scalar {
            text: text.to_string(),
            plain: false,
        },
        DeValue::Integer(number) => {
            let decimal = i128::from_str_radix(number.as_str(), number.radix());
            plain(decimal.map_or_else(|_| number.as_str().to_owned(), |number| number.to_string()))
        }
        DeValue::Float(number) => plain(number.as_str().to_owned()),
        DeValue::Boolean(value) => plain(value.to_string()),
        DeValue::Datetime(time) => plain(time.to_string()),
        DeValue::Array(items) => Kind::List(
            items
                .iter()
                .map(|item| Rc::new(value_node(document, item.get_ref(), &item.span())))
                .collect(),
        ),
        DeValue::Table(table) => return table_node(document, table, span),
    };
    Node {
        position: document.position(span),
        kind,
    }
}

/// For rows.
impl Branch {
    fn number(self, key: &'static str, number: Option<&At<u64>>) -> Self {
        match number {
            Some(number) => self.with(key, Some(number.position), Tree::Integer(number.value)),
            None => self,
        }
    }

    fn truth(self, key: &'static str, truth: Option<&At<bool>>) -> Self {
        match truth {
            Some(truth) => self.with(key, Some(truth.position), Tree::Bool(truth.value)),
            None => self,
        }
    }
}
