//! Rules: TOML files that name and wire steps, so that a new kind of content needs no new code.
//!
//! A rule says, for one kind of content: which list of the config it reads, which steps it makes and from which
//! earlier outputs, which lock block records them, where images are placed at the destination, and which
//! resources follow.
//!
//! ```toml
//! name = "additional-image"          # the file is rules/additional-image.toml
//! reads = "mirror.additionalImages"  # one instance per row, or a list of lists; absent: a rule of documents alone
//! category = "generic"               # which mirror set lists its images
//!
//! [block]                            # what the lock records
//! kind = "image"                     # a compiled kind of block
//! each = "row.architectures"         # one block per value, which is called `each`; absent: one
//! ref = "${row.name}"                # or channel, and arch, for releases
//! want = { target = "${row.targetRepo}" }
//! pin = "manifest"                   # the step whose output is pinned
//! [block.packages]                   # for catalogs: the blocks inside of it, one per value of `each`
//! each = "row.packages"
//! name = "${each.name}"
//! want = { default = "${each.defaultChannel}" }
//!
//! [[step]]
//! name = "manifest"
//! kind = "fetch-manifest"            # a compiled kind
//! with = { }                         # its parameters
//! input = "answer"                   # an earlier step
//!
//! [adds]                             # instead of a block: a wish that joins those of another rule's blocks
//! rule = "release"
//! want = { disks = true }
//!
//! [[place]]                          # the first that fits decides
//! of = "image"                       # what the image is to its block; absent: whatever it is
//! by = ["digest", "tag"]             # which mirror sets list it, where that does not follow from how it was asked for
//! when = { "ref.transport" = "oci" } # equality on values
//! layout = "v2"                      # absent: every layout
//! repository = "${ref.path}"
//! tag = "${ref.tag}"
//!
//! [[document]]                       # a resource, as a tree with holes (see `step::hole`)
//! file = "idms-oc-mirror.yaml"       # may have holes
//! each = "digest-mirrors"            # one per row of a compiled table
//! when = { "layout.name" = "v2" }    # equality on values
//! over = "row.template"              # a tree that this one is laid over
//! tree = { kind = "ImageDigestMirrorSet" }
//! ```
//!
//! That is the whole language: no arithmetic, no other loops, no includes. What needs more becomes a compiled kind.
//! Rules are embedded in the binary; a file of the same name in `--rules DIR` replaces one. A rule's identity is the
//! SHA-256 of its file, which the lock names and the archive carries.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::hole::{HoleError, Template, Tree, look_up};
use super::{Class, Kind};
use crate::canon::Value;
use crate::digest::Digest;
use crate::hint::Hint;

/// The rules that come with the program: name and text.
pub const EMBEDDED: [(&str, &str); 9] = [
    (
        "additional-image",
        include_str!("../../rules/additional-image.toml"),
    ),
    (
        "cluster-resources",
        include_str!("../../rules/cluster-resources.toml"),
    ),
    ("graph-data", include_str!("../../rules/graph-data.toml")),
    ("graph-image", include_str!("../../rules/graph-image.toml")),
    ("helm-chart", include_str!("../../rules/helm-chart.toml")),
    (
        "kubevirt-disk",
        include_str!("../../rules/kubevirt-disk.toml"),
    ),
    (
        "operator-catalog",
        include_str!("../../rules/operator-catalog.toml"),
    ),
    ("release", include_str!("../../rules/release.toml")),
    ("samples", include_str!("../../rules/samples.toml")),
];

/// Largest rule file that is read.
const RULE_LIMIT: usize = 1 << 20;

/// Why a rule cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RuleError {
    /// The file could not be read.
    #[error("cannot read rule file {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is larger than a rule may be.
    #[error("rule {rule:?} has {size} bytes; at most {RULE_LIMIT} are read")]
    Size {
        /// The rule.
        rule: String,
        /// Its size.
        size: usize,
    },
    /// Not TOML, or not the fields of a rule.
    #[error("rule {rule:?}, line {line}, column {column}: {message}")]
    Toml {
        /// The rule.
        rule: String,
        /// Counted from 1.
        line: usize,
        /// Counted from 1.
        column: usize,
        /// What is wrong there.
        message: String,
    },
    /// A hole in it is malformed.
    #[error("rule {rule:?} has a malformed text")]
    Hole {
        /// The rule.
        rule: String,
        /// What is wrong.
        source: HoleError,
    },
    /// It contradicts itself.
    #[error("rule {rule:?}: {problem}")]
    Shape {
        /// The rule.
        rule: String,
        /// What is wrong.
        problem: String,
    },
}

impl Hint for RuleError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Shape { .. } | Self::Toml { .. } | Self::Hole { .. } => Some(
                "`imgbuild rules` prints the rules that come with the program; compare".to_owned(),
            ),
            Self::Read { .. } | Self::Size { .. } => None,
        }
    }
}

/// One rule, read and checked.
#[derive(Clone, Debug)]
pub struct Rule {
    /// Its name, which is also its file's.
    pub name: String,
    /// The lists of the config that it serves.
    pub reads: Vec<String>,
    /// Which mirror set lists its images.
    pub category: Option<String>,
    /// What the lock records.
    pub block: Option<Block>,
    /// What its rows add to the blocks of another rule.
    pub adds: Option<Adds>,
    /// Its steps; inputs come before what they feed.
    pub steps: Vec<StepRule>,
    /// Where images go; the first that fits decides.
    pub places: Vec<PlaceRule>,
    /// Which resources follow.
    pub documents: Vec<DocumentRule>,
    /// The text as it was read; its SHA-256 is the rule's identity.
    pub text: String,
}

/// What the lock records for one row.
#[derive(Clone, Debug)]
pub struct Block {
    /// The kind of block.
    pub kind: BlockKind,
    /// The values of the row that there is one block each for; one in all, if absent.
    pub each: Option<String>,
    /// The block's `ref`.
    pub reference: Option<Template>,
    /// The block's `channel`.
    pub channel: Option<Template>,
    /// The block's `arch`.
    pub arch: Option<Template>,
    /// The request, as the block repeats it.
    pub want: Tree,
    /// The step whose output is pinned.
    pub pin: String,
    /// The blocks that stand in it.
    pub packages: Option<Packages>,
}

/// The blocks that stand in a catalog's.
#[derive(Clone, Debug)]
pub struct Packages {
    /// The values of the row that there is one block each for.
    pub each: String,
    /// The package.
    pub name: Template,
    /// The request, as the block repeats it.
    pub want: Tree,
}

/// What the rows of a rule add to the blocks of another.
#[derive(Clone, Debug)]
pub struct Adds {
    /// The other rule.
    pub rule: String,
    /// The wish, which joins that of each of its blocks.
    pub want: Tree,
}

/// The kinds of block that rules fill.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BlockKind {
    /// `[[release]]`
    Release,
    /// `[[catalog]]`, with its packages.
    Catalog,
    /// `[[image]]`
    Image,
    /// `[[chart]]`
    Chart,
    /// `[[file]]`
    File,
}

/// A set of mirrors that an image is listed in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MirrorSet {
    /// For pulls by digest.
    Digest,
    /// For pulls by tag.
    Tag,
}

/// What an image can be to its block, as `of` says it.
const ROLES: [&str; 8] = [
    "payload",
    "component",
    "catalog",
    "bundle",
    "related",
    "image",
    "chart",
    "chart-image",
];

/// One step of a rule.
#[derive(Clone, Debug)]
pub struct StepRule {
    /// What later steps call it.
    pub name: String,
    /// The compiled kind.
    pub kind: Kind,
    /// Its parameters.
    pub with: Tree,
    /// The earlier step that it works on.
    pub input: Option<String>,
}

/// Where an image goes.
#[derive(Clone, Debug)]
pub struct PlaceRule {
    /// Only for what is this to its block.
    pub of: Option<String>,
    /// Which mirror sets list it; as it was asked for, if absent.
    pub by: Option<Vec<MirrorSet>>,
    /// Equality on values, all of which must hold.
    pub when: BTreeMap<String, String>,
    /// Only in this layout.
    pub layout: Option<String>,
    /// The repository under the destination.
    pub repository: Template,
    /// The tag.
    pub tag: Template,
}

/// A resource.
#[derive(Clone, Debug)]
pub struct DocumentRule {
    /// The file that it is written to.
    pub file: Template,
    /// The compiled table that it is repeated for.
    pub each: Option<String>,
    /// Equality on values, all of which must hold.
    pub when: BTreeMap<String, String>,
    /// The value that it is laid over.
    pub over: Option<String>,
    /// The document.
    pub tree: Tree,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawRule {
    name: String,
    #[serde(default)]
    reads: OneOrMore,
    category: Option<String>,
    block: Option<RawBlock>,
    adds: Option<RawAdds>,
    #[serde(default)]
    step: Vec<RawStep>,
    #[serde(default)]
    place: Vec<RawPlace>,
    #[serde(default)]
    document: Vec<RawDocument>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMore {
    One(String),
    More(Vec<String>),
}

impl Default for OneOrMore {
    fn default() -> Self {
        Self::More(Vec::new())
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawAdds {
    rule: String,
    want: toml::Value,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawBlock {
    kind: BlockKind,
    each: Option<String>,
    #[serde(rename = "ref")]
    reference: Option<String>,
    channel: Option<String>,
    arch: Option<String>,
    #[serde(default = "empty_table")]
    want: toml::Value,
    pin: String,
    packages: Option<RawPackages>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawPackages {
    each: String,
    name: String,
    #[serde(default = "empty_table")]
    want: toml::Value,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawStep {
    name: String,
    kind: String,
    #[serde(default = "empty_table")]
    with: toml::Value,
    input: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawPlace {
    of: Option<String>,
    by: Option<Vec<MirrorSet>>,
    #[serde(default)]
    when: BTreeMap<String, String>,
    layout: Option<String>,
    repository: String,
    tag: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawDocument {
    file: String,
    each: Option<String>,
    #[serde(default)]
    when: BTreeMap<String, String>,
    over: Option<String>,
    tree: toml::Value,
}

fn empty_table() -> toml::Value {
    toml::Value::Table(toml::Table::new())
}

impl Rule {
    /// Reads the rule called `name`.
    ///
    /// # Errors
    /// If it is not a rule, or refers to steps, kinds or filters that do not exist.
    pub fn parse(name: &str, text: &str) -> Result<Self, RuleError> {
        if text.len() > RULE_LIMIT {
            return Err(RuleError::Size {
                rule: name.to_owned(),
                size: text.len(),
            });
        }
        let raw: RawRule = toml::from_str(text).map_err(|error| {
            let start = error.span().map_or(0, |span| span.start).min(text.len());
            let before = text.get(..start).unwrap_or_default();
            RuleError::Toml {
                rule: name.to_owned(),
                line: before.matches('\n').count() + 1,
                column: before
                    .rsplit('\n')
                    .next()
                    .unwrap_or_default()
                    .chars()
                    .count()
                    + 1,
                message: error.message().to_owned(),
            }
        })?;
        let hole = |source| RuleError::Hole {
            rule: name.to_owned(),
            source,
        };
        let shape = |problem: String| RuleError::Shape {
            rule: name.to_owned(),
            problem,
        };
        if raw.name != name {
            return Err(shape(format!(
                "its file is called {name:?}, but it calls itself {:?}",
                raw.name
            )));
        }
        let mut steps: Vec<StepRule> = Vec::new();
        for step in raw.step {
            let kind = Kind::named(&step.kind).ok_or_else(|| {
                let kinds: Vec<&str> = Kind::ALL.iter().map(|kind| kind.name()).collect();
                shape(format!(
                    "step {:?} is of the unknown kind {:?}; the kinds are {}",
                    step.name,
                    step.kind,
                    kinds.join(", ")
                ))
            })?;
            if steps.iter().any(|earlier| earlier.name == step.name) {
                return Err(shape(format!("two steps are called {:?}", step.name)));
            }
            if let Some(input) = &step.input {
                if !steps.iter().any(|earlier| earlier.name == *input) {
                    return Err(shape(format!(
                        "step {:?} takes {input:?}, which is no earlier step",
                        step.name
                    )));
                }
            } else if kind.class() != Class::Observe {
                return Err(shape(format!(
                    "step {:?} of kind {:?} has no input",
                    step.name, step.kind
                )));
            }
            steps.push(StepRule {
                name: step.name,
                kind,
                with: Tree::parse(&step.with).map_err(hole)?,
                input: step.input,
            });
        }
        let block = raw
            .block
            .map(|block| {
                let pinned = match block.kind {
                    BlockKind::File => Kind::FetchFile,
                    BlockKind::Release
                    | BlockKind::Catalog
                    | BlockKind::Image
                    | BlockKind::Chart => Kind::FetchManifest,
                };
                if !steps
                    .iter()
                    .any(|step| step.name == block.pin && step.kind == pinned)
                {
                    return Err(shape(format!(
                        "the block pins {:?}, which is no {} step",
                        block.pin,
                        pinned.name()
                    )));
                }
                if block.reference.is_none() && block.channel.is_none() {
                    return Err(shape("the block has no ref".to_owned()));
                }
                if block.kind == BlockKind::Release && block.arch.is_none() {
                    return Err(shape("a release has an arch".to_owned()));
                }
                let template = |text: Option<String>| {
                    text.map(|text| Template::parse(&text).map_err(hole))
                        .transpose()
                };
                if block.packages.is_some() != (block.kind == BlockKind::Catalog) {
                    return Err(shape(
                        "a catalog has packages, and nothing else has".to_owned(),
                    ));
                }
                let packages = block
                    .packages
                    .map(|packages| {
                        Ok::<_, RuleError>(Packages {
                            each: packages.each,
                            name: Template::parse(&packages.name).map_err(hole)?,
                            want: Tree::parse(&packages.want).map_err(hole)?,
                        })
                    })
                    .transpose()?;
                Ok(Block {
                    packages,
                    kind: block.kind,
                    each: block.each,
                    reference: template(block.reference)?,
                    channel: template(block.channel)?,
                    arch: template(block.arch)?,
                    want: Tree::parse(&block.want).map_err(hole)?,
                    pin: block.pin,
                })
            })
            .transpose()?;
        let adds = raw
            .adds
            .map(|adds| {
                Ok::<_, RuleError>(Adds {
                    rule: adds.rule,
                    want: Tree::parse(&adds.want).map_err(hole)?,
                })
            })
            .transpose()?;
        let reads = match raw.reads {
            OneOrMore::One(list) => vec![list],
            OneOrMore::More(lists) => lists,
        };
        if reads.is_empty() == (block.is_some() || adds.is_some()) {
            return Err(shape(
                "a rule that reads a list records a block or adds to one, and the other way round"
                    .to_owned(),
            ));
        }
        if block.is_some() && adds.is_some() {
            return Err(shape(
                "it records a block and adds to one; it can do one of them".to_owned(),
            ));
        }
        let places = raw
            .place
            .into_iter()
            .map(|place| {
                if let Some(of) = place.of.as_deref().filter(|of| !ROLES.contains(of)) {
                    return Err(shape(format!(
                        "a place is for {of:?}, which is none of {}",
                        ROLES.join(", ")
                    )));
                }
                Ok(PlaceRule {
                    of: place.of,
                    by: place.by,
                    when: place.when,
                    layout: place.layout,
                    repository: Template::parse(&place.repository).map_err(hole)?,
                    tag: Template::parse(&place.tag).map_err(hole)?,
                })
            })
            .collect::<Result<Vec<_>, RuleError>>()?;
        let is_file = |block: &Block| block.kind == BlockKind::File;
        if places.is_empty() && block.as_ref().is_some_and(|block| !is_file(block)) {
            return Err(shape(
                "it records images but has no [[place]] for them".to_owned(),
            ));
        }
        let documents = raw
            .document
            .into_iter()
            .map(|document| {
                let file = Template::parse(&document.file).map_err(hole)?;
                if !file.has_holes() && !is_plain_file(&document.file) {
                    return Err(shape(format!(
                        "document file {:?} is not a plain file name",
                        document.file
                    )));
                }
                Ok(DocumentRule {
                    file,
                    each: document.each,
                    when: document.when,
                    over: document.over,
                    tree: Tree::parse(&document.tree).map_err(hole)?,
                })
            })
            .collect::<Result<Vec<_>, RuleError>>()?;
        Ok(Self {
            name: raw.name,
            reads,
            category: raw.category,
            block,
            adds,
            steps,
            places,
            documents,
            text: text.to_owned(),
        })
    }

    /// The rule's identity.
    #[must_use]
    pub fn digest(&self) -> Digest {
        Digest::of(self.text.as_bytes())
    }

    /// The place for what is `role` to its block and has the values `context`, in `layout`: the first that fits.
    #[must_use]
    pub fn place(&self, layout: &str, role: &str, context: &Value) -> Option<&PlaceRule> {
        self.places.iter().find(|place| {
            place.layout.as_deref().is_none_or(|only| only == layout)
                && place.of.as_deref().is_none_or(|only| only == role)
                && holds(&place.when, context)
        })
    }

    /// Whether it has a step of that kind.
    #[must_use]
    pub fn has_step(&self, kind: Kind) -> bool {
        self.steps.iter().any(|step| step.kind == kind)
    }
}

/// Whether a document may be written to a file of that name.
#[must_use]
pub fn is_plain_file(name: &str) -> bool {
    !name.is_empty()
        && !name.starts_with('.')
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
}

/// Whether every one of the values at these paths is as wanted.
#[must_use]
pub fn holds(when: &BTreeMap<String, String>, context: &Value) -> bool {
    when.iter().all(
        |(path, wanted)| matches!(look_up(context, path), Some(Value::Text(text)) if text == wanted),
    )
}

/// The rules in force, by name.
#[derive(Clone, Debug, Default)]
pub struct Rules {
    rules: BTreeMap<String, Rule>,
}

impl Rules {
    /// The rules that come with the program.
    ///
    /// # Errors
    /// Never, as a test shows; the type is that of [`Rules::with`].
    pub fn embedded() -> Result<Self, RuleError> {
        Self::with(EMBEDDED.map(|(name, text)| (name.to_owned(), text.to_owned())))
    }

    /// Rules from their texts.
    ///
    /// # Errors
    /// If one of them is not a rule.
    pub fn with(texts: impl IntoIterator<Item = (String, String)>) -> Result<Self, RuleError> {
        let rules = texts
            .into_iter()
            .map(|(name, text)| Ok((name.clone(), Rule::parse(&name, &text)?)))
            .collect::<Result<_, RuleError>>()?;
        Ok(Self { rules })
    }

    /// The embedded rules, replaced or joined by the `*.toml` files of a folder.
    ///
    /// # Errors
    /// If the folder or a file cannot be read, or a file is not a rule.
    pub fn with_folder(folder: &Path) -> Result<Self, RuleError> {
        let read = |path: &Path, source| RuleError::Read {
            path: path.to_owned(),
            source,
        };
        let mut rules = Self::embedded()?;
        for entry in std::fs::read_dir(folder).map_err(|source| read(folder, source))? {
            let path = entry.map_err(|source| read(folder, source))?.path();
            if path.extension().is_none_or(|extension| extension != "toml") {
                continue;
            }
            let Some(name) = path
                .file_stem()
                .and_then(|stem| stem.to_str())
                .map(str::to_owned)
            else {
                continue;
            };
            let text = std::fs::read_to_string(&path).map_err(|source| read(&path, source))?;
            rules.rules.insert(name.clone(), Rule::parse(&name, &text)?);
        }
        Ok(rules)
    }

    /// Every rule, by name.
    pub fn iter(&self) -> impl Iterator<Item = &Rule> {
        self.rules.values()
    }

    /// The rule of that name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Rule> {
        self.rules.get(name)
    }

    /// The rules that serve a list of the config, by name.
    pub fn serving(&self, section: &str) -> impl Iterator<Item = &Rule> {
        self.rules
            .values()
            .filter(move |rule| rule.reads.iter().any(|list| list == section))
    }

    /// The rule that records blocks of that kind.
    #[must_use]
    pub fn recording(&self, kind: BlockKind) -> Option<&Rule> {
        self.rules
            .values()
            .find(|rule| rule.block.as_ref().is_some_and(|block| block.kind == kind))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_embedded_rules_are_rules() {
        let rules = Rules::embedded().unwrap();
        assert_eq!(rules.iter().count(), EMBEDDED.len(), "every file is read");
        assert_eq!(
            rules
                .serving("mirror.additionalImages")
                .next()
                .map(|rule| rule.name.as_str()),
            Some("additional-image"),
            "images have a rule"
        );
    }

    #[test]
    fn a_rule_that_contradicts_itself_is_refused() {
        let good = EMBEDDED[0].1;
        for (from, to, part) in [
            (
                "name = \"additional-image\"",
                "name = \"other\"",
                "calls itself \"other\"",
            ),
            (
                "kind = \"resolve-tag\"",
                "kind = \"guess\"",
                "unknown kind \"guess\"",
            ),
            (
                "input = \"answer\"",
                "input = \"question\"",
                "no earlier step",
            ),
            (
                "pin = \"manifest\"",
                "pin = \"answer\"",
                "no fetch-manifest step",
            ),
            ("reads =", "reeds =", "line 3, column 1"),
            (
                "|platform-names}\", target",
                "|loud}\", target",
                "malformed text",
            ),
            ("input = \"answer\"", "", "has no input"),
            (
                "reads = \"mirror.additionalImages\"",
                "",
                "the other way round",
            ),
        ] {
            assert!(good.contains(from), "the case must apply: {from}");
            let error = Rule::parse("additional-image", &good.replacen(from, to, 1)).unwrap_err();
            assert!(error.to_string().contains(part), "{error} must say {part}");
        }
    }
}
