//! A config by name instead of by type: the lists that rules read, and the text that a config prints as.
//!
//! The typed structs are the truth; both forms derive from them through one ordered tree, in the spelling of
//! the file, with absent fields absent.

use std::collections::BTreeMap;
use std::fmt;

use super::diagnostic::{At, Position};
use super::imageset::{
    AdditionalImage, Chart, Config, DeleteImageSet, Helm, HelmRepository, ImageSet, LocalChart,
    Mirror, Operator, OperatorChannel, Package, Platform, ReleaseChannel, StorageConfig,
};
use crate::canon::Value;
use crate::oci::PlatformName;

/// A part of a config that something must serve, named by its path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Section {
    /// `mirror.additionalImages`
    pub name: String,
    /// Where it is asked for first.
    pub position: Position,
}

/// One row of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Where it starts.
    pub position: Position,
    /// Its fields as the file spells them; absent fields are absent, false flags too.
    pub fields: BTreeMap<String, Value>,
    /// Where each of its own fields stands.
    pub positions: BTreeMap<String, Position>,
}

impl Row {
    /// Where `field` stands, else where the row does.
    #[must_use]
    pub fn position_of(&self, field: &str) -> Position {
        self.positions.get(field).copied().unwrap_or(self.position)
    }

    /// All fields as one value.
    #[must_use]
    pub fn value(&self) -> Value {
        Value::Map(self.fields.clone())
    }
}

/// The lists of a stanza that [`Mirror::rows`] knows.
pub const LISTS: &[&str] = &[
    "platform.channels",
    "platform.release",
    "platform.graph",
    "platform.kubeVirtContainer",
    "operators",
    "operators.packages",
    "additionalImages",
    "helm.repositories",
    "helm.repositories.charts",
    "helm.local",
    "blockedImages",
    "samples",
];

impl Mirror {
    /// The parts in use, in the order of [`LISTS`], with paths under `stanza` (`mirror` or `delete`).
    ///
    /// `samples` is never among them: nothing serves it, and a note says so. Neither are channels beside a
    /// `release`, which replaces them, nor `helm.repositories` where each of them lists its charts.
    #[must_use]
    pub fn sections(&self, stanza: &str) -> Vec<Section> {
        [
            "platform.channels",
            "platform.release",
            "platform.graph",
            "platform.kubeVirtContainer",
        ]
        .into_iter()
        .chain([
            "operators",
            "additionalImages",
            "helm.repositories",
            "helm.repositories.charts",
            "helm.local",
            "blockedImages",
        ])
        .filter_map(|list| {
            let rows = self.rows(list)?;
            // A repository with a list of charts is served through that.
            let first = rows
                .iter()
                .find(|row| list != "helm.repositories" || !row.fields.contains_key("charts"))?
                .position;
            Some(Section {
                name: format!("{stanza}.{list}"),
                position: first,
            })
        })
        .collect()
    }

    /// The rows of a list, by its path below the stanza; `None` where there is no such list.
    ///
    /// Beside its own fields a row has what it needs of its parents: `platform.*` the effective
    /// `architectures` and the `platforms`; `operators.packages` the `catalog`;
    /// `helm.repositories.charts` the `repository` and its `url`. Charts have the `ref` that the lock calls them by:
    /// `URL#NAME`, `oci://PATH/NAME`, or the path. `targetCatalog` says what `targetName` comes to, too. `platform.release`, `platform.graph` and
    /// `platform.kubeVirtContainer` have one row if they are asked for. Names of images are in full.
    #[must_use]
    pub fn rows(&self, list: &str) -> Option<Vec<Row>> {
        let platform = &self.platform;
        let rows = match list {
            "platform.channels" if platform.release.is_some() => Vec::new(),
            "platform.channels" => platform
                .channels
                .iter()
                .map(|row| platform.with_parent(row.tree()).row(row.position))
                .collect(),
            "platform.release" => platform
                .release
                .iter()
                .map(|release| {
                    platform
                        .with_parent(Branch::default().text("release", release))
                        .row(release.position)
                })
                .collect(),
            "platform.graph" => platform.switch("graph", &platform.graph),
            "platform.kubeVirtContainer" => {
                platform.switch("kubeVirtContainer", &platform.kube_virt_container)
            }
            "operators" => self
                .operators
                .iter()
                .map(|row| {
                    let mut read = row.tree().row(row.position);
                    if let Some(path) = row.target_path() {
                        read.fields.insert("targetCatalog".to_owned(), path.into());
                    }
                    read
                })
                .collect(),
            "operators.packages" => self
                .operators
                .iter()
                .flat_map(|operator| {
                    operator.packages.iter().map(|row| {
                        row.tree()
                            .text("catalog", &operator.catalog)
                            .row(row.position)
                    })
                })
                .collect(),
            "additionalImages" => self
                .additional_images
                .iter()
                .map(|row| row.tree().row(row.position))
                .collect(),
            "helm.repositories" => self
                .helm
                .repositories
                .iter()
                .map(|row| row.tree().row(row.position))
                .collect(),
            "helm.repositories.charts" => self
                .helm
                .repositories
                .iter()
                .flat_map(|repository| {
                    repository.charts.iter().flatten().map(|row| {
                        row.tree()
                            .text("repository", &repository.name)
                            .text("url", &repository.url)
                            .text(
                                "ref",
                                &row.value
                                    .name
                                    .clone()
                                    .map(|name| chart_reference(&repository.url, &name)),
                            )
                            .row(row.position)
                    })
                })
                .collect(),
            "helm.local" => self
                .helm
                .local
                .iter()
                .map(|row| row.tree().text("ref", &row.value.path).row(row.position))
                .collect(),
            "blockedImages" => self.blocked_images.iter().map(name_row).collect(),
            "samples" => self.samples.iter().map(name_row).collect(),
            _ => return None,
        };
        Some(rows)
    }

    fn tree(&self) -> Branch {
        let names = |rows: &[At<String>]| {
            rows.iter()
                .map(|row| Tree::Map(Branch::default().text("name", row)))
                .collect()
        };
        Branch::default()
            .map("platform", self.platform.tree())
            .rows("operators", &self.operators, Operator::tree)
            .rows(
                "additionalImages",
                &self.additional_images,
                AdditionalImage::tree,
            )
            .map("helm", self.helm.tree())
            .list(
                "blockedImages",
                self.blocked_images
                    .iter()
                    .map(|row| Tree::Map(Branch::default().text("name", row)))
                    .collect(),
            )
            .list("samples", names(&self.samples))
    }
}

/// What the lock calls a chart of a repository.
fn chart_reference(url: &str, name: &str) -> String {
    let url = url.trim_end_matches('/');
    if url.starts_with("oci://") {
        format!("{url}/{name}")
    } else {
        format!("{url}#{name}")
    }
}

fn name_row<T: fmt::Display>(name: &At<T>) -> Row {
    Branch::default().text("name", name).row(name.position)
}

impl ImageSet {
    /// The parts in use; see [`Mirror::sections`].
    #[must_use]
    pub fn sections(&self) -> Vec<Section> {
        self.mirror.sections("mirror")
    }

    /// The rows of a list, by its full path (`mirror.additionalImages`); `None` where there is no such list.
    #[must_use]
    pub fn rows(&self, path: &str) -> Option<Vec<Row>> {
        self.mirror.rows(path.strip_prefix("mirror.")?)
    }
}

impl DeleteImageSet {
    /// The parts in use; see [`Mirror::sections`].
    #[must_use]
    pub fn sections(&self) -> Vec<Section> {
        self.delete.sections("delete")
    }

    /// The rows of a list, by its full path (`delete.additionalImages`); `None` where there is no such list.
    #[must_use]
    pub fn rows(&self, path: &str) -> Option<Vec<Row>> {
        self.delete.rows(path.strip_prefix("delete.")?)
    }
}

impl Config {
    /// The parts in use; see [`Mirror::sections`].
    #[must_use]
    pub fn sections(&self) -> Vec<Section> {
        match self {
            Self::ImageSet(set) => set.sections(),
            Self::Delete(set) => set.sections(),
        }
    }
}

/// A value in the order of the schema.
#[derive(Clone, Debug)]
pub(super) enum Tree {
    Bool(bool),
    Integer(u64),
    Text(String),
    List(Vec<Tree>),
    Map(Branch),
}

/// A mapping in the order of the schema; each value knows where it was read.
#[derive(Clone, Debug, Default)]
pub(super) struct Branch(Vec<(&'static str, Option<Position>, Tree)>);

impl Branch {
    pub(super) fn with(
        mut self,
        key: &'static str,
        position: Option<Position>,
        tree: Tree,
    ) -> Self {
        self.0.push((key, position, tree));
        self
    }

    pub(super) fn text<T: fmt::Display>(self, key: &'static str, text: &At<T>) -> Self {
        self.with(key, Some(text.position), Tree::Text(text.value.to_string()))
    }

    pub(super) fn maybe<T: fmt::Display>(self, key: &'static str, text: Option<&At<T>>) -> Self {
        match text {
            Some(text) => self.text(key, text),
            None => self,
        }
    }

    fn flag(self, key: &'static str, flag: &At<bool>) -> Self {
        if flag.value {
            self.with(key, Some(flag.position), Tree::Bool(true))
        } else {
            self
        }
    }

    fn list(self, key: &'static str, items: Vec<Tree>) -> Self {
        if items.is_empty() {
            self
        } else {
            self.with(key, None, Tree::List(items))
        }
    }

    pub(super) fn texts(self, key: &'static str, items: &[At<String>]) -> Self {
        self.list(
            key,
            items
                .iter()
                .map(|item| Tree::Text(item.value.clone()))
                .collect(),
        )
    }

    fn rows<T>(self, key: &'static str, rows: &[At<T>], tree: impl Fn(&T) -> Branch) -> Self {
        self.list(
            key,
            rows.iter().map(|row| Tree::Map(tree(&row.value))).collect(),
        )
    }

    fn map(self, key: &'static str, branch: Branch) -> Self {
        if branch.0.is_empty() {
            self
        } else {
            self.with(key, None, Tree::Map(branch))
        }
    }

    fn platforms(self, platforms: &[At<PlatformName>]) -> Self {
        self.rows("platforms", platforms, |platform| {
            let text = |text: &String| Tree::Text(text.clone());
            Branch::default().with("os", None, text(&platform.os)).with(
                "architecture",
                None,
                text(&platform.architecture),
            )
        })
    }

    pub(super) fn row(self, position: Position) -> Row {
        let positions = self
            .0
            .iter()
            .filter_map(|(key, position, _)| Some(((*key).to_owned(), (*position)?)))
            .collect();
        let fields = self
            .0
            .into_iter()
            .map(|(key, _, tree)| (key.to_owned(), tree.into_value()))
            .collect();
        Row {
            position,
            fields,
            positions,
        }
    }
}

impl Tree {
    fn into_value(self) -> Value {
        match self {
            Self::Bool(value) => Value::Bool(value),
            Self::Integer(value) => Value::Integer(i64::try_from(value).unwrap_or(i64::MAX)),
            Self::Text(text) => Value::Text(text),
            Self::List(items) => Value::List(items.into_iter().map(Self::into_value).collect()),
            Self::Map(branch) => Value::Map(
                branch
                    .0
                    .into_iter()
                    .map(|(key, _, tree)| (key.to_owned(), tree.into_value()))
                    .collect(),
            ),
        }
    }
}

impl Platform {
    fn tree(&self) -> Branch {
        Branch::default()
            .flag("graph", &self.graph)
            .rows("channels", &self.channels, ReleaseChannel::tree)
            .list(
                "architectures",
                self.architectures
                    .iter()
                    .map(|architecture| Tree::Text(architecture.to_string()))
                    .collect(),
            )
            .platforms(&self.platforms)
            .maybe("release", self.release.as_ref())
            .flag("kubeVirtContainer", &self.kube_virt_container)
    }

    fn with_parent(&self, branch: Branch) -> Branch {
        let architectures = self.effective_architectures();
        branch
            .list(
                "architectures",
                architectures
                    .into_iter()
                    .map(|architecture| Tree::Text(architecture.to_string()))
                    .collect(),
            )
            .platforms(&self.platforms)
    }

    fn switch(&self, key: &'static str, flag: &At<bool>) -> Vec<Row> {
        if flag.value {
            vec![
                self.with_parent(Branch::default().flag(key, flag))
                    .row(flag.position),
            ]
        } else {
            Vec::new()
        }
    }
}

impl ReleaseChannel {
    fn tree(&self) -> Branch {
        Branch::default()
            .text("name", &self.name)
            .text("type", &self.kind)
            .maybe("minVersion", self.min_version.as_ref())
            .maybe("maxVersion", self.max_version.as_ref())
            .flag("shortestPath", &self.shortest_path)
            .flag("full", &self.full)
    }
}

impl Operator {
    fn tree(&self) -> Branch {
        Branch::default()
            .text("catalog", &self.catalog)
            .flag("full", &self.full)
            .maybe("targetCatalog", self.target_catalog.as_ref())
            .maybe("targetName", self.target_name.as_ref())
            .maybe("targetTag", self.target_tag.as_ref())
            .maybe(
                "targetCatalogSourceTemplate",
                self.target_catalog_source_template.as_ref(),
            )
            .flag("skipDependencies", &self.skip_dependencies)
            .maybe("originalRef", self.original_ref.as_ref())
            .platforms(&self.platforms)
            .rows("packages", &self.packages, Package::tree)
    }
}

impl Package {
    fn tree(&self) -> Branch {
        Branch::default()
            .text("name", &self.name)
            .maybe("defaultChannel", self.default_channel.as_ref())
            .maybe("minVersion", self.min_version.as_ref())
            .maybe("maxVersion", self.max_version.as_ref())
            .maybe("minBundle", self.min_bundle.as_ref())
            .rows("channels", &self.channels, OperatorChannel::tree)
            .list(
                "bundles",
                self.bundles
                    .iter()
                    .map(|bundle| Tree::Map(Branch::default().text("name", bundle)))
                    .collect(),
            )
    }
}

impl OperatorChannel {
    fn tree(&self) -> Branch {
        Branch::default()
            .text("name", &self.name)
            .maybe("minVersion", self.min_version.as_ref())
            .maybe("maxVersion", self.max_version.as_ref())
            .maybe("minBundle", self.min_bundle.as_ref())
    }
}

impl AdditionalImage {
    fn tree(&self) -> Branch {
        Branch::default()
            .text("name", &self.name)
            .maybe("targetRepo", self.target_repo.as_ref())
            .maybe("targetTag", self.target_tag.as_ref())
            .platforms(&self.platforms)
    }
}

impl Helm {
    fn tree(&self) -> Branch {
        Branch::default()
            .rows("repositories", &self.repositories, HelmRepository::tree)
            .rows("local", &self.local, LocalChart::tree)
    }
}

impl HelmRepository {
    fn tree(&self) -> Branch {
        let branch = Branch::default()
            .text("name", &self.name)
            .text("url", &self.url);
        match &self.charts {
            // An empty list is no chart, an absent one is every chart.
            Some(charts) => branch.with(
                "charts",
                None,
                Tree::List(charts.iter().map(|chart| Tree::Map(chart.tree())).collect()),
            ),
            None => branch,
        }
    }
}

impl Chart {
    fn tree(&self) -> Branch {
        Branch::default()
            .text("name", &self.name)
            .maybe("version", self.version.as_ref())
            .maybe("path", self.path.as_ref())
            .texts("imagePaths", &self.image_paths)
            .platforms(&self.platforms)
    }
}

impl LocalChart {
    fn tree(&self) -> Branch {
        Branch::default()
            .maybe("name", self.name.as_ref())
            .text("path", &self.path)
            .maybe("version", self.version.as_ref())
            .texts("imagePaths", &self.image_paths)
            .platforms(&self.platforms)
    }
}

impl StorageConfig {
    fn tree(&self) -> Branch {
        let mut registry = Branch::default().maybe("imageURL", self.registry_image.as_ref());
        if let Some(skip) = &self.registry_skip_tls {
            registry = registry.with("skipTLS", None, Tree::Bool(skip.value));
        }
        Branch::default()
            .map(
                "local",
                Branch::default().maybe("path", self.local_path.as_ref()),
            )
            .map("registry", registry)
    }
}

/// The config as YAML, in the order of the schema; reading it gives an equal config.
impl fmt::Display for ImageSet {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut branch = head(&self.api_version.to_string(), "ImageSetConfiguration");
        if let Some(size) = &self.archive_size {
            branch = branch.with("archiveSize", None, Tree::Integer(size.value));
        }
        if let Some(storage) = &self.storage_config {
            branch = branch.with("storageConfig", None, Tree::Map(storage.tree()));
        }
        print_map(
            &branch.with("mirror", None, Tree::Map(self.mirror.tree())),
            0,
            formatter,
        )
    }
}

/// The config as YAML, in the order of the schema; reading it gives an equal config.
impl fmt::Display for DeleteImageSet {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let branch = head(
            &super::ApiVersion::V2Alpha1.to_string(),
            "DeleteImageSetConfiguration",
        );
        print_map(
            &branch.with("delete", None, Tree::Map(self.delete.tree())),
            0,
            formatter,
        )
    }
}

impl fmt::Display for Config {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ImageSet(set) => fmt::Display::fmt(set, formatter),
            Self::Delete(set) => fmt::Display::fmt(set, formatter),
        }
    }
}

fn head(api_version: &str, kind: &str) -> Branch {
    Branch::default()
        .with("apiVersion", None, Tree::Text(api_version.to_owned()))
        .with("kind", None, Tree::Text(kind.to_owned()))
}

/// Prints entries, each on a line of its own; the cursor stands where the first key goes.
fn print_map(branch: &Branch, indent: usize, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
    for (index, (key, _, tree)) in branch.0.iter().enumerate() {
        if index > 0 {
            write!(formatter, "{:indent$}", "")?;
        }
        write!(formatter, "{key}:")?;
        match tree {
            Tree::List(items) if !items.is_empty() => {
                formatter.write_str("\n")?;
                for item in items {
                    write!(formatter, "{:indent$}- ", "")?;
                    match item {
                        Tree::Map(branch) => print_map(branch, indent + 2, formatter)?,
                        scalar => writeln!(formatter, "{}", Scalar(scalar))?,
                    }
                }
            }
            Tree::Map(branch) if !branch.0.is_empty() => {
                write!(formatter, "\n{:1$}", "", indent + 2)?;
                print_map(branch, indent + 2, formatter)?;
            }
            scalar => writeln!(formatter, " {}", Scalar(scalar))?,
        }
    }
    Ok(())
}

/// A value that fits on a line.
struct Scalar<'a>(&'a Tree);

impl fmt::Display for Scalar<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Tree::Bool(value) => write!(formatter, "{value}"),
            Tree::Integer(value) => write!(formatter, "{value}"),
            Tree::Text(text) if is_plain(text) => formatter.write_str(text),
            Tree::Text(text) => print_quoted(text, formatter),
            Tree::List(_) => formatter.write_str("[]"),
            Tree::Map(_) => formatter.write_str("{}"),
        }
    }
}

/// Whether every YAML reader takes the bare text as this text: no number, truth value, date or null.
fn is_plain(text: &str) -> bool {
    text.starts_with(|first: char| first.is_ascii_alphabetic())
        && !text.ends_with(':')
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"./:@_-+".contains(&byte))
        && ![
            "true", "false", "yes", "no", "on", "off", "y", "n", "null", "inf", "nan",
        ]
        .iter()
        .any(|word| text.eq_ignore_ascii_case(word))
}

fn print_quoted(text: &str, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
    formatter.write_str("\"")?;
    for character in text.chars() {
        match character {
            '"' => formatter.write_str("\\\"")?,
            '\\' => formatter.write_str("\\\\")?,
            ' '..='~' => write!(formatter, "{character}")?,
            character if u32::from(character) <= 0xff => {
                write!(formatter, "\\x{:02x}", u32::from(character))?;
            }
            character if u32::from(character) <= 0xffff => {
                write!(formatter, "\\u{:04x}", u32::from(character))?;
            }
            character => write!(formatter, "\\U{:08x}", u32::from(character))?,
        }
    }
    formatter.write_str("\"")
}
