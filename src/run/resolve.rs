//! Locking: every question of a config is answered and pinned.
//!
//! Only what was asked anew is asked upstream; a block whose request has not changed is kept. Blocks are answered in
//! parallel and recorded in the order of the config, so timing cannot change the lock. Manifests of new pins are
//! brought into the store, which makes every size exact; layers are not, but for those that a list is read out of.
//!
//! ```text
//! rows of the config --expected--> blocks: a key and a want each     pure, also for `lock --check`
//! a block --answer--> NewBlock, or what is in the way                one module per kind, by the Means of the run
//! NewBlocks --lock--> Lock                                           in fixed order
//! ```
//!
//! [`Names`] is the capability to observe. Nothing else in the library can ask a mutable name, and only [`lock`] takes
//! one.

pub mod catalog;
pub mod chart;
pub mod file;
pub mod image;
pub mod means;
pub mod release;
pub mod signed;
pub mod within;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::atomic::AtomicBool;

use regex::Regex;

use super::built::Built;
use super::event::{Observer, joined_advice};
use super::realise::{Depot, Extent, Limits, Report, Upstream, realise};
use crate::canon::Value;
use crate::digest::Digest;
use crate::hint::Hint;
use crate::oci::PlatformName;
use crate::plan::graph::{Plan, PlanError, Root};
use crate::plan::key::{BlockKey, ReleaseName, Role};
use crate::plan::lock::{
    Block as LockBlock, Blocked, Lock, NewBlock, Origin as PinOrigin, Pin, Skip, Want,
};
use crate::reference::{ImageName, Reference, ReferenceError, Repository, Tag};
use crate::step::hole::{HoleError, look_up};
use crate::step::place::{Layout, PlaceError, Placement, Subject, place, refuse_collisions};
use crate::step::rule::{Block, BlockKind, Rule, Rules};
use crate::step::{Address, Content, Fetch, Kind, Origin};
use crate::store::Blob;
use means::{Exclusions, Means, Problem, origin_of};
use release::Services;
use within::Vetted;

/// Blocks that are answered at once; each may ask for many things at once.
const BLOCKS_AT_ONCE: usize = 4;

/// Who answers a mutable name: the capability to observe.
pub trait Names: Sync {
    /// What a name means now; `None` if it means nothing.
    ///
    /// # Errors
    /// If nobody could be asked.
    fn resolve(&self, name: &ImageName) -> io::Result<Option<Answer>>;

    /// What is at an address now, at most `limit` bytes; `None` if nothing is.
    ///
    /// # Errors
    /// If nobody could be asked, or there are more bytes.
    fn get(&self, address: &Address, limit: u64) -> io::Result<Option<Vec<u8>>>;

    /// What refers to a manifest now: signatures and the like, sorted. Nothing does, where nobody would know.
    ///
    /// # Errors
    /// If nobody could be asked.
    fn referrers(&self, _repository: &Repository, _digest: &Digest) -> io::Result<Vec<Digest>> {
        Ok(Vec::new())
    }

    /// The tags that a repository has now, sorted; `None` if there is no such repository.
    ///
    /// # Errors
    /// If nobody could be asked; always, where nobody here can tell.
    fn tags(&self, repository: &Repository) -> io::Result<Option<Vec<Tag>>> {
        Err(io::Error::other(format!(
            "nobody here can list the tags of {repository}"
        )))
    }
}

/// What a mutable name means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Where its bytes are.
    pub origin: PinOrigin,
    /// The media type that they were served as, if one was given.
    pub media_type: Option<String>,
    /// The manifest.
    pub bytes: Vec<u8>,
}

/// One row of the config that a rule serves.
#[derive(Clone, Debug)]
pub struct Asked {
    /// The rule.
    pub rule: String,
    /// The row, by the names that the config uses.
    pub row: Value,
    /// Where it stands, as `file:line:column`.
    pub at: String,
}

/// What the config and the flags ask for.
#[derive(Clone, Debug, Default)]
pub struct Request {
    /// The rows, in the order of the config.
    pub asked: Vec<Asked>,
    /// The patterns of `blockedImages`.
    pub blocked: Vec<String>,
    /// Images to leave out from now on, with the reason.
    pub skips: Vec<(String, String)>,
    /// Risks of updates to accept from now on, by name.
    pub risks: Vec<String>,
    /// Whether packages that others require are added.
    pub adds_required: bool,
    /// What the settings say of the kinds of content, as holes name it (`settings.signatures.policy`).
    pub settings: BTreeMap<String, Value>,
    /// What is demanded of the signatures of images.
    pub demands: Vec<signed::Demand>,
    /// Files that wants depend on: the name as the user wrote it, and the bytes.
    pub files: Vec<(String, Vec<u8>)>,
}

/// What a request comes to before anything is asked.
#[derive(Clone, Debug)]
pub struct Expected {
    /// The block that will answer it.
    pub key: BlockKey,
    /// The request as the block repeats it.
    pub want: Want,
    /// The image, where the block is one image.
    pub image: Option<ImageName>,
    /// Only these children of an index.
    pub platforms: Vec<PlatformName>,
    /// The rule.
    pub rule: String,
    /// Where it was asked for.
    pub at: String,
}

/// A block that answers a request, and what should be said about it.
#[derive(Clone, Debug)]
pub struct Found {
    /// The block.
    pub block: NewBlock,
    /// Remarks that do not stop anything.
    pub notes: Vec<String>,
}

/// Why a config cannot be locked.
#[derive(Debug, thiserror::Error)]
pub enum ResolveError {
    /// A rule that a row needs is not there.
    #[error("{at}: no rule is called {rule:?}")]
    Rule {
        /// The row.
        at: String,
        /// The rule.
        rule: String,
    },
    /// A rule does not fit its row.
    #[error("{at}: rule {rule:?} cannot read this row")]
    Hole {
        /// The row.
        at: String,
        /// The rule.
        rule: String,
        /// Why.
        source: HoleError,
    },
    /// A name is malformed.
    #[error("{at}: this is no image")]
    Name {
        /// The row.
        at: String,
        /// Why.
        source: ReferenceError,
    },
    /// A platform is malformed.
    #[error("{at}: this is no platform")]
    Platform {
        /// The row.
        at: String,
        /// Why.
        source: crate::oci::PlatformError,
    },
    /// The same image is asked for twice, differently.
    #[error("{second}: {key} is asked for differently at {first} ({differing})")]
    Twice {
        /// The block.
        key: String,
        /// One row.
        first: String,
        /// The other.
        second: String,
        /// The settings that differ.
        differing: String,
    },
    /// A pattern does not compile.
    #[error("blocked image {pattern:?} is no regular expression")]
    Pattern {
        /// The pattern.
        pattern: String,
        /// Why.
        source: regex::Error,
    },
    /// Without the network there is no answer.
    #[error("{} cannot be answered offline:\n{}", count(questions.len(), "request"), lines(questions))]
    Offline {
        /// What would be asked, and why.
        questions: Vec<String>,
    },
    /// Names mean nothing upstream, nobody answered, or the answer cannot be used.
    #[error("{} could not be answered:\n{}", count(problems.len(), "request"), placed(problems))]
    Unanswered {
        /// Where it was asked for, and what is in the way.
        problems: Vec<(String, Problem)>,
    },
    /// What was answered cannot be used.
    #[error("{at}: {key} cannot be pinned")]
    Plan {
        /// The row.
        at: String,
        /// The block.
        key: String,
        /// Why.
        source: Box<PlanError>,
    },
    /// Manifests did not arrive.
    #[error("{} did not arrive", count(report.failures.len(), "manifest"))]
    Incomplete {
        /// What did and did not.
        report: Box<Report>,
    },
    /// Images would collide, or have no place.
    #[error("the images cannot all be placed")]
    Place(#[source] PlaceError),
    /// The store failed.
    #[error("the store cannot be used")]
    Store(#[source] io::Error),
    /// It was told to stop.
    #[error("stopped; what was fetched is kept")]
    Stopped,
}

impl ResolveError {
    /// Whether something could not be trusted.
    #[must_use]
    pub fn is_trust(&self) -> bool {
        matches!(self, Self::Unanswered { problems } if problems.iter().any(|(_, problem)| problem.is_trust))
    }
}

impl Hint for ResolveError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Name { source, .. } => source.hint(),
            Self::Twice { .. } => {
                Some("list it once, or give one of them another targetRepo".to_owned())
            }
            Self::Offline { .. } => Some("run `imgbuild lock` without --offline".to_owned()),
            Self::Unanswered { problems } => Some(joined_advice(
                problems.iter().map(|(_, problem)| problem.hint.clone()),
                "mend the names, or leave an image out with `imgbuild lock --skip IMAGE --reason TEXT`",
            )),
            Self::Plan { source, .. } => source.hint(),
            Self::Place(source) => source.hint(),
            _ => None,
        }
    }
}

fn count(number: usize, noun: &str) -> String {
    if number == 1 {
        format!("1 {noun}")
    } else {
        format!("{number} {noun}s")
    }
}

fn lines(items: &[String]) -> String {
    items
        .iter()
        .map(|item| format!("  {item}"))
        .collect::<Vec<_>>()
        .join("\n")
}

fn placed(problems: &[(String, Problem)]) -> String {
    let texts: Vec<String> = problems
        .iter()
        .map(|(at, problem)| format!("{at}: {}", problem.text))
        .collect();
    lines(&texts)
}

/// What locking needs besides the request.
pub struct Resolver<'a> {
    /// The rules in force.
    pub rules: &'a Rules,
    /// Who answers names; `None` offline.
    pub names: Option<&'a dyn Names>,
    /// The lock that alone answers names, if one does; [`Resolver::names`] is then asked for update graphs at most.
    pub within: Option<&'a Vetted<'a>>,
    /// Where manifests are fetched.
    pub upstream: &'a dyn Upstream,
    /// Where they are kept.
    pub store: &'a (dyn Depot + Sync),
    /// How many at once.
    pub limits: Limits,
    /// Who watches.
    pub observer: Observer<'a>,
    /// Set to stop.
    pub stop: &'a AtomicBool,
    /// Where release services are.
    pub services: Services,
    /// Told of every answer to a mutable name: the question and the digest, for the evidence log.
    pub evidence: &'a (dyn Fn(&str, Option<Digest>) + Sync),
}

/// A lock, and what to say about it.
#[derive(Debug)]
pub struct Locked {
    /// The lock, in canonical order.
    pub lock: Lock,
    /// How many pins are the same as before, whether or not they were asked for again.
    pub same: usize,
    /// How many stand where another stood.
    pub moved: usize,
    /// How many are new.
    pub new: usize,
    /// Remarks that do not stop anything.
    pub notes: Vec<String>,
}

/// What a request comes to, before anything is asked: one entry per block, in the order of the config, then what
/// follows from several of them. Images that are blocked or skipped are left out; `notes` says which.
///
/// # Errors
/// If a row does not fit its rule, or asks for one thing in two ways.
pub fn expected(
    request: &Request,
    rules: &Rules,
    skips: &[Skip],
    notes: &mut Vec<String>,
) -> Result<Vec<Expected>, ResolveError> {
    expected_by(request, rules, &exclusions(request, skips)?, notes)
}

fn expected_by(
    request: &Request,
    rules: &Rules,
    exclusions: &Exclusions,
    notes: &mut Vec<String>,
) -> Result<Vec<Expected>, ResolveError> {
    let additions = additions(request, rules, notes)?;
    let mut out: Vec<Expected> = Vec::new();
    let mut seen: BTreeMap<BlockKey, usize> = BTreeMap::new();
    let mut gone: Vec<BlockKey> = Vec::new();
    for asked in &request.asked {
        for expected in expect(asked, request, rules, &additions)? {
            // What stands in a block goes with it.
            if expected
                .key
                .parent()
                .is_some_and(|parent| gone.contains(&parent))
            {
                continue;
            }
            if let Some((name, why)) = left_out(&expected, rules, exclusions) {
                notes.push(format!("{}: {name} {why}", asked.at));
                gone.push(expected.key);
                continue;
            }
            match seen.get(&expected.key) {
                None => {
                    seen.insert(expected.key.clone(), out.len());
                    out.push(expected);
                }
                Some(&first) if out[first].want == expected.want => {
                    notes.push(format!(
                        "{}: {} is also asked for at {}",
                        expected.at, expected.key, out[first].at
                    ));
                }
                Some(&first) => {
                    return Err(ResolveError::Twice {
                        key: expected.key.to_string(),
                        first: out[first].at.clone(),
                        second: expected.at,
                        differing: out[first].want.differing(&expected.want).join(", "),
                    });
                }
            }
        }
    }
    let across = release::across(&out);
    out.extend(across);
    // Files that a want names travel as blocks of their own.
    let named: BTreeMap<Digest, &Expected> = out
        .iter()
        .rev()
        .flat_map(|expected| {
            let listed = ["keys", "values"].map(|name| match expected.want.get(name) {
                Some(Value::List(files)) => files.as_slice(),
                _ => &[],
            });
            listed
                .into_iter()
                .flatten()
                .chain(expected.want.get("template"))
                .filter_map(|file| match file {
                    Value::Text(text) => text.parse().ok(),
                    _ => None,
                })
                .chain(signed::keys_of(&expected.want))
                .map(move |digest| (digest, expected))
        })
        .collect();
    let mut files: Vec<Expected> = Vec::new();
    for (name, bytes) in &request.files {
        let digest = Digest::of(bytes);
        let Some(needed) = named.get(&digest) else {
            continue;
        };
        let key = BlockKey::File {
            reference: name.clone(),
        };
        if files.iter().all(|file| file.key != key) {
            files.push(Expected {
                key,
                want: Want::new([
                    ("rule", Value::from(needed.rule.as_str())),
                    ("sha256", Value::Digest(digest)),
                ]),
                image: None,
                platforms: Vec::new(),
                rule: needed.rule.clone(),
                at: needed.at.clone(),
            });
        }
    }
    out.extend(files);
    Ok(out)
}

fn exclusions(request: &Request, skips: &[Skip]) -> Result<Exclusions, ResolveError> {
    let patterns = request
        .blocked
        .iter()
        .map(|pattern| {
            Regex::new(pattern).map_err(|source| ResolveError::Pattern {
                pattern: pattern.clone(),
                source,
            })
        })
        .collect::<Result<Vec<_>, _>>()?;
    Ok(Exclusions::new(patterns, skips.to_vec()))
}

/// Why a block that is one image is left out, if it is: its name, and the reason.
fn left_out(
    expected: &Expected,
    rules: &Rules,
    exclusions: &Exclusions,
) -> Option<(String, String)> {
    let image = expected.image.as_ref()?;
    let name = image.to_string();
    let reference = match &expected.key {
        BlockKey::Image { reference, .. } => reference.as_str(),
        _ => name.as_str(),
    };
    let digest = match image {
        ImageName::Registry(name) => name.digest,
        ImageName::Layout(name) => name.digest,
    };
    let placed = rules.get(&expected.rule).and_then(|rule| {
        let blob = Blob {
            digest: digest.unwrap_or_else(|| Digest::from_bytes([0; 32])),
            size: 0,
        };
        let subject = Subject {
            role: match &expected.key {
                BlockKey::Catalog { .. } => "catalog",
                _ => "image",
            },
            ..Subject::alone(image, want_value(&expected.want), blob)
        };
        place(rule, &Layout::default(), &subject).ok()
    });
    let placed = placed.map(|placement| format!("{}:{}", placement.path, placement.tag));
    let why = exclusions.excludes(&[&name, reference], placed.as_deref())?;
    Some((name, why))
}

/// A want as the values that holes are filled from.
#[must_use]
pub fn want_value(want: &Want) -> Value {
    Value::Map(want.settings().clone())
}

/// The names of a block as the values that holes are filled from.
#[must_use]
pub fn block_value(key: &BlockKey) -> Value {
    let mut names = BTreeMap::new();
    let mut set = |name: &str, text: &str| {
        names.insert(name.to_owned(), Value::from(text));
    };
    match key {
        BlockKey::Release { name, arch } => {
            match name {
                ReleaseName::Channel(channel) => set("channel", channel),
                ReleaseName::Reference(reference) => set("ref", reference),
            }
            set("arch", arch);
        }
        BlockKey::Catalog { reference, .. }
        | BlockKey::Image { reference, .. }
        | BlockKey::Chart { reference, .. }
        | BlockKey::File { reference } => set("ref", reference),
        BlockKey::Package { catalog, name, .. } => {
            set("ref", catalog);
            set("package", name);
        }
        _ => {}
    }
    Value::Map(names)
}

/// What rows add to the blocks of other rules, by rule.
fn additions(
    request: &Request,
    rules: &Rules,
    notes: &mut Vec<String>,
) -> Result<BTreeMap<String, BTreeMap<String, Value>>, ResolveError> {
    let mut additions: BTreeMap<String, BTreeMap<String, Value>> = BTreeMap::new();
    for asked in &request.asked {
        let rule = rule_called(asked, rules)?;
        let Some(adds) = &rule.adds else { continue };
        let context = context(asked, request, None);
        let want = adds
            .want
            .fill(&context)
            .map_err(|source| ResolveError::Hole {
                at: asked.at.clone(),
                rule: rule.name.clone(),
                source,
            })?;
        if !request.asked.iter().any(|other| other.rule == adds.rule) {
            notes.push(format!(
                "{}: nothing is asked for that this could add to",
                asked.at
            ));
        }
        if let Some(Value::Map(want)) = want {
            additions.entry(adds.rule.clone()).or_default().extend(want);
        }
    }
    Ok(additions)
}

fn rule_called<'a>(asked: &Asked, rules: &'a Rules) -> Result<&'a Rule, ResolveError> {
    rules.get(&asked.rule).ok_or_else(|| ResolveError::Rule {
        at: asked.at.clone(),
        rule: asked.rule.clone(),
    })
}

fn context(asked: &Asked, request: &Request, each: Option<&Value>) -> Value {
    let mut context = BTreeMap::from([
        ("row".to_owned(), asked.row.clone()),
        ("settings".to_owned(), Value::Map(request.settings.clone())),
    ]);
    if let Some(each) = each {
        context.insert("each".to_owned(), each.clone());
    }
    Value::Map(context)
}

/// The blocks that a row comes to.
fn expect(
    asked: &Asked,
    request: &Request,
    rules: &Rules,
    additions: &BTreeMap<String, BTreeMap<String, Value>>,
) -> Result<Vec<Expected>, ResolveError> {
    let rule = rule_called(asked, rules)?;
    let Some(block) = &rule.block else {
        return Ok(Vec::new());
    };
    let contexts = match &block.each {
        None => vec![context(asked, request, None)],
        Some(path) => match look_up(&context(asked, request, None), path) {
            Some(Value::List(values)) => values
                .iter()
                .map(|value| context(asked, request, Some(value)))
                .collect(),
            _ => Vec::new(),
        },
    };
    let mut out = Vec::new();
    for context in &contexts {
        let mut one = expect_one(asked, rule, block, context, additions.get(&rule.name))?;
        // What stands in a catalog is vouched for as its catalog says.
        if rule.has_step(Kind::FindSignature)
            && signed::applies(block.kind)
            && let Some(signed) = signed::wanted(&request.demands, one.image.as_ref())
        {
            one.want = one.want.with(signed::SIGNED, signed);
        }
        let inside = expect_packages(asked, request, rule, block, &one)?;
        out.push(one);
        out.extend(inside);
    }
    Ok(out)
}

/// The blocks that stand in a catalog's.
fn expect_packages(
    asked: &Asked,
    request: &Request,
    rule: &Rule,
    block: &Block,
    catalog: &Expected,
) -> Result<Vec<Expected>, ResolveError> {
    let hole = |source| ResolveError::Hole {
        at: asked.at.clone(),
        rule: rule.name.clone(),
        source,
    };
    let (Some(packages), BlockKey::Catalog { reference, target }) = (&block.packages, &catalog.key)
    else {
        return Ok(Vec::new());
    };
    let outer = context(asked, request, None);
    let Some(Value::List(rows)) = look_up(&outer, &packages.each) else {
        return Ok(Vec::new());
    };
    rows.iter()
        .map(|row| {
            let context = context(asked, request, Some(row));
            let want = match packages.want.fill(&context).map_err(hole)? {
                Some(Value::Map(entries)) => entries,
                _ => BTreeMap::new(),
            };
            let at = match look_up(row, "at") {
                Some(Value::Text(at)) => at.clone(),
                _ => asked.at.clone(),
            };
            Ok(Expected {
                key: BlockKey::Package {
                    catalog: reference.clone(),
                    target: target.clone(),
                    name: packages
                        .name
                        .fill_text(&context)
                        .map_err(hole)?
                        .unwrap_or_default(),
                },
                want: Want::new(want),
                image: None,
                platforms: catalog.platforms.clone(),
                rule: rule.name.clone(),
                at,
            })
        })
        .collect()
}

fn expect_one(
    asked: &Asked,
    rule: &Rule,
    block: &Block,
    context: &Value,
    additions: Option<&BTreeMap<String, Value>>,
) -> Result<Expected, ResolveError> {
    let hole = |source| ResolveError::Hole {
        at: asked.at.clone(),
        rule: rule.name.clone(),
        source,
    };
    let missing = || ResolveError::Rule {
        at: asked.at.clone(),
        rule: format!("{} with a block", rule.name),
    };
    let fill = |template: Option<&crate::step::hole::Template>| match template {
        Some(template) => template.fill_text(context).map_err(hole),
        None => Ok(None),
    };
    let mut want = match block.want.fill(context).map_err(hole)? {
        Some(Value::Map(entries)) => entries,
        _ => BTreeMap::new(),
    };
    want.extend(
        additions
            .into_iter()
            .flatten()
            .map(|(name, value)| (name.clone(), value.clone())),
    );
    let want = Want::new(want);
    let reference = fill(block.reference.as_ref())?;
    let mut image = None;
    let mut platforms = Vec::new();
    let key = match block.kind {
        BlockKind::Release => BlockKey::Release {
            name: match (reference, fill(block.channel.as_ref())?) {
                (Some(reference), _) => ReleaseName::Reference(reference),
                (None, channel) => ReleaseName::Channel(channel.unwrap_or_default()),
            },
            arch: fill(block.arch.as_ref())?.unwrap_or_default(),
        },
        BlockKind::Chart => {
            let names = match want.get("platforms") {
                Some(_) => texts(Some(&want_value(&want)), "platforms"),
                None => Vec::new(),
            };
            platforms = image::platforms(&names).map_err(|source| ResolveError::Platform {
                at: asked.at.clone(),
                source,
            })?;
            BlockKey::Chart {
                reference: reference.unwrap_or_default(),
                version: want.text("version").map(str::to_owned),
            }
        }
        BlockKind::File => BlockKey::File {
            reference: reference.unwrap_or_default(),
        },
        BlockKind::Image | BlockKind::Catalog => {
            let question = rule
                .steps
                .iter()
                .find(|step| step.kind == Kind::ResolveTag)
                .ok_or_else(missing)?;
            let name = texts(question.with.fill(context).map_err(hole)?.as_ref(), "image");
            let name = name.into_iter().next().unwrap_or_default();
            image = Some(name.parse().map_err(|source| ResolveError::Name {
                at: asked.at.clone(),
                source,
            })?);
            let pin = rule
                .steps
                .iter()
                .find(|step| step.name == block.pin)
                .ok_or_else(missing)?;
            let names = texts(pin.with.fill(context).map_err(hole)?.as_ref(), "platforms");
            platforms = image::platforms(&names).map_err(|source| ResolveError::Platform {
                at: asked.at.clone(),
                source,
            })?;
            let reference = reference.unwrap_or_default();
            let target = want.text("target").map(str::to_owned);
            match block.kind {
                BlockKind::Catalog => BlockKey::Catalog { reference, target },
                _ => BlockKey::Image { reference, target },
            }
        }
    };
    Ok(Expected {
        key,
        want,
        image,
        platforms,
        rule: rule.name.clone(),
        at: asked.at.clone(),
    })
}

/// The texts under a name of a filled tree: one, or a list of them.
fn texts(with: Option<&Value>, name: &str) -> Vec<String> {
    let Some(Value::Map(with)) = with else {
        return Vec::new();
    };
    let list = match with.get(name) {
        Some(Value::List(items)) => items.as_slice(),
        Some(one) => std::slice::from_ref(one),
        None => &[],
    };
    list.iter()
        .filter_map(|item| match item {
            Value::Text(text) => Some(text.clone()),
            _ => None,
        })
        .collect()
}

/// Answers one block by the module of its kind.
fn answer(expected: &Expected, rules: &Rules, means: &Means<'_>) -> Result<Found, Vec<Problem>> {
    // What another lock has for the very same request is the answer; there is nothing that it could be made of anew.
    if let Some(block) = within::taken_over(expected, means) {
        return Ok(Found {
            block,
            notes: Vec::new(),
        });
    }
    let rule = || {
        rules.get(&expected.rule).ok_or_else(|| {
            vec![Problem::new(format!(
                "no rule is called {:?}",
                expected.rule
            ))]
        })
    };
    match &expected.key {
        BlockKey::Image { .. } => image::answer(expected, means),
        BlockKey::Release { .. } => release::answer(expected, rule()?, means),
        BlockKey::Chart { .. } => chart::answer(expected, rule()?, means),
        BlockKey::File { .. } => file::answer(expected, means),
        other => Err(vec![Problem::new(format!(
            "nothing here can answer {other}"
        ))]),
    }
}

/// Whether answering a block asks a mutable name; a file that is at hand can be had offline.
fn asks(expected: &Expected) -> bool {
    !matches!(expected.key, BlockKey::File { .. }) || expected.want.get("sha256").is_none()
}

/// What a block asks, for people.
fn question(expected: &Expected) -> String {
    match &expected.image {
        Some(image) => image.to_string(),
        None => match &expected.key {
            BlockKey::Package { .. } => catalog::question(expected),
            key => release::question(key),
        },
    }
}

/// Whether other exclusions than before may change what a block holds.
const fn is_composed(key: &BlockKey) -> bool {
    matches!(
        key,
        BlockKey::Release { .. } | BlockKey::Catalog { .. } | BlockKey::Chart { .. }
    )
}

/// Locks a request: keeps what `previous` has pinned already, unless `renew` says to ask again.
///
/// # Errors
/// If anything that was asked for cannot be pinned. Nothing is left out silently.
pub fn lock(
    request: &Request,
    previous: Option<&Lock>,
    renew: &dyn Fn(&BlockKey) -> bool,
    resolver: &Resolver<'_>,
) -> Result<Locked, ResolveError> {
    let mut notes = Vec::new();
    let skips = skips(request, previous);
    let exclusions = exclusions(request, &skips)?;
    let wanted = expected_by(request, resolver.rules, &exclusions, &mut notes)?;
    let excludes_anew = previous.is_some_and(|lock| {
        let patterns: BTreeSet<&str> = request.blocked.iter().map(String::as_str).collect();
        let before: BTreeSet<&str> = lock.blocked.iter().map(|one| one.name.as_str()).collect();
        let mut old = lock.skips.clone();
        let mut new = skips.clone();
        old.sort();
        new.sort();
        patterns != before || old != new
    });
    let mut lock = Lock::default();
    // What is known already.
    let mut open: Vec<usize> = Vec::new();
    let mut again: Vec<usize> = Vec::new();
    let mut catalogs: BTreeMap<usize, catalog::Question<'_>> = BTreeMap::new();
    for (index, expected) in wanted.iter().enumerate() {
        match &expected.key {
            // It is answered with its catalog.
            BlockKey::Package { .. } => continue,
            BlockKey::Catalog { reference, target } => {
                let target = target.as_deref();
                let mut known = previous.and_then(|lock| lock.catalog(reference, target));
                if let Some(vetted) = resolver.within {
                    // What the other lock does not have is taken from it anew.
                    known = known
                        .filter(|known| {
                            let inside = known.packages.iter();
                            vetted.admits(&LockBlock::Catalog(known))
                                && inside
                                    .map(|one| LockBlock::Package(known, one))
                                    .all(|block| vetted.admits(&block))
                        })
                        .or_else(|| vetted.catalog(reference, target));
                }
                let question = catalog::Question::new(
                    expected,
                    &wanted,
                    known,
                    renew,
                    excludes_anew,
                    request.adds_required,
                );
                if let (Some(known), true) = (known, question.is_answered()) {
                    put(&mut lock, LockBlock::Catalog(known));
                } else if question.asks() {
                    open.push(index);
                    catalogs.insert(index, question);
                } else {
                    again.push(index);
                    catalogs.insert(index, question);
                }
                continue;
            }
            _ => {}
        }
        let known = previous
            .and_then(|lock| lock.find(&expected.key))
            .filter(|block| block.want() == Some(&expected.want));
        match known {
            Some(block)
                if !renew(&expected.key)
                    && resolver.within.is_none_or(|vetted| vetted.admits(&block)) =>
            {
                if is_composed(&expected.key) && excludes_anew {
                    again.push(index);
                } else {
                    put(&mut lock, block);
                }
            }
            _ => open.push(index),
        }
    }
    refuse_offline(&wanted, &open, previous, resolver)?;
    let mut risks: BTreeSet<String> = request.risks.iter().cloned().collect();
    risks.extend(previous.map(release::accepted).unwrap_or_default());
    let risks: Vec<String> = risks.into_iter().collect();
    let files = by_digest(request);
    let means = Means::new(resolver, &exclusions, &files, &risks);
    let asked: Vec<(usize, bool)> = open
        .iter()
        .map(|index| (*index, false))
        .chain(again.iter().map(|index| (*index, true)))
        .collect();
    let results = super::gather(asked.len(), BLOCKS_AT_ONCE, resolver.stop, |slot| {
        let (index, is_known) = asked[slot];
        let expected = &wanted[index];
        let known = previous.and_then(|lock| lock.find(&expected.key));
        let rule = resolver.rules.get(&expected.rule);
        let found = if let (Some(question), Some(rule)) = (catalogs.get(&index), rule) {
            catalog::answer(question, rule, &means)
        } else {
            match (is_known, known, rule) {
                (true, Some(LockBlock::Release(release)), Some(rule)) => {
                    release::refresh(release, expected, rule, &means)
                }
                (true, Some(LockBlock::Chart(chart)), Some(rule)) => {
                    chart::refresh(chart, expected, rule, &means)
                }
                _ => answer(expected, resolver.rules, &means),
            }
        };
        found.and_then(|found| signed::complete(found, expected, previous, &means))
    });
    if resolver.stop.load(std::sync::atomic::Ordering::Relaxed) {
        return Err(ResolveError::Stopped);
    }
    let mut answered = Lock::default();
    let mut problems = Vec::new();
    for ((index, _), result) in asked.iter().zip(results.ok_or(ResolveError::Stopped)?) {
        let at = &wanted[*index].at;
        match result {
            Ok(found) => {
                notes.extend(found.notes.into_iter().map(|note| format!("{at}: {note}")));
                answered
                    .put(found.block.clone())
                    .expect("a block that is answered alone stands alone");
                lock.put(found.block)
                    .expect("a block that is answered alone stands alone");
            }
            Err(more) => {
                problems.extend(more.into_iter().map(|problem| {
                    let at = problem.at.as_ref().unwrap_or(at).clone();
                    (at, problem)
                }));
            }
        }
    }
    if !problems.is_empty() {
        return Err(ResolveError::Unanswered { problems });
    }
    complete(&answered, &wanted, resolver)?;
    for risk in &request.risks {
        let used = lock
            .releases
            .iter()
            .any(|release| release.risks.iter().any(|one| one.name == *risk));
        if !used {
            notes.push(format!(
                "no path that is locked anew needs the risk {risk}: it is not recorded"
            ));
        }
    }
    // Where nothing was derived anew, a kept block may lack an image by a skip that nobody looked at.
    let is_kept = !excludes_anew && wanted.iter().any(|expected| is_composed(&expected.key));
    for skip in skips {
        if exclusions.was_used(&skip) || previous.is_some() && is_kept {
            lock.skips.push(skip);
        } else {
            notes.push(format!(
                "nothing asks for {} any more: its skip is dropped",
                skip.image
            ));
        }
    }
    for name in &request.blocked {
        if !lock.blocked.iter().any(|blocked| blocked.name == *name) {
            lock.blocked.push(Blocked { name: name.clone() });
        }
    }
    if let Some(previous) = previous {
        lock.comments.clone_from(&previous.comments);
    }
    record_rules(request, resolver.rules, &mut lock);
    lock.sort();
    let placements =
        placements(&lock, &[], resolver.rules, &Layout::default()).map_err(ResolveError::Place)?;
    refuse_collisions(&placements, "", &Layout::default()).map_err(ResolveError::Place)?;
    let [same, moved, new] = compared(previous, &lock);
    Ok(Locked {
        lock,
        same,
        moved,
        new,
        notes,
    })
}

/// How many pins of a lock an earlier one has in the same block, how many stand where it has another, and how many are
/// new.
fn compared(previous: Option<&Lock>, lock: &Lock) -> [usize; 3] {
    let mut counts = [0; 3];
    for (key, pins) in lock.owners() {
        let before = previous
            .and_then(|lock| lock.find(&key))
            .map(|block| block.pins())
            .unwrap_or_default();
        let now: BTreeSet<Digest> = pins.iter().map(|(_, pin)| pin.digest).collect();
        for (role, pin) in &pins {
            let at = if before.iter().any(|(_, old)| old.digest == pin.digest) {
                0
            } else if before.iter().any(|(was, old)| {
                was.kind() == role.kind()
                    && was.name() == role.name()
                    && old.origin == pin.origin
                    && !now.contains(&old.digest)
            }) {
                1
            } else {
                2
            };
            counts[at] += 1;
        }
    }
    counts
}

/// Derives the lists of a lock (components of payloads, images of charts) again from the bytes that it pins, and says
/// what differs, in lock order. No mutable name is asked; what is not in the store is fetched by its digest.
///
/// # Errors
/// If something that is pinned cannot be had or read.
pub fn recheck(
    request: &Request,
    lock: &Lock,
    resolver: &Resolver<'_>,
) -> Result<Vec<String>, ResolveError> {
    let exclusions = exclusions(request, &lock.skips)?;
    let files = by_digest(request);
    let means = Means::new(resolver, &exclusions, &files, &request.risks);
    let blocks: Vec<LockBlock<'_>> = lock
        .releases
        .iter()
        .map(LockBlock::Release)
        .chain(lock.charts.iter().map(LockBlock::Chart))
        .collect();
    let results = super::gather(blocks.len(), BLOCKS_AT_ONCE, resolver.stop, |index| {
        let block = &blocks[index];
        let key = block.key();
        let one = |problem: Problem| vec![problem];
        let rule = rule_of(block, resolver.rules)
            .ok_or_else(|| one(Problem::new(format!("no rule of the lock makes {key}"))))?;
        match block {
            LockBlock::Release(release) => {
                let expected = Expected {
                    key: key.clone(),
                    want: release.want.clone(),
                    image: None,
                    platforms: Vec::new(),
                    rule: rule.name.clone(),
                    at: String::new(),
                };
                let found = release::refresh(release, &expected, rule, &means)?;
                let mut again = Lock::default();
                again.put(found.block).expect("a release stands alone");
                again.sort();
                let is_equal = again.releases.first() == Some(*release);
                Ok(if is_equal {
                    Vec::new()
                } else {
                    vec![format!("{key} lists other components than its payloads")]
                })
            }
            LockBlock::Chart(chart) => chart::recheck(chart, rule, &means).map_err(one),
            _ => Ok(Vec::new()),
        }
    });
    let mut complaints = Vec::new();
    let mut problems = Vec::new();
    for (block, result) in blocks.iter().zip(results.ok_or(ResolveError::Stopped)?) {
        match result {
            Ok(more) => complaints.extend(more),
            Err(more) => problems.extend(
                more.into_iter()
                    .map(|problem| (block.key().to_string(), problem)),
            ),
        }
    }
    if problems.is_empty() {
        Ok(complaints)
    } else {
        Err(ResolveError::Unanswered { problems })
    }
}

/// The files of a request by digest.
fn by_digest(request: &Request) -> BTreeMap<Digest, (String, Vec<u8>)> {
    request
        .files
        .iter()
        .map(|(name, bytes)| (Digest::of(bytes), (name.clone(), bytes.clone())))
        .collect()
}

/// Takes a block of an earlier lock over, with what stands in it.
fn put(lock: &mut Lock, block: LockBlock<'_>) {
    if let Some(new) = copied(block) {
        lock.put(new).expect("no package comes alone");
    }
}

/// A block as one to be put; `None` for those that come with what they stand in, or from the request.
#[must_use]
pub fn copied(block: LockBlock<'_>) -> Option<NewBlock> {
    Some(match block {
        LockBlock::Release(release) => NewBlock::Release(release.clone()),
        LockBlock::Catalog(catalog) => NewBlock::Catalog(catalog.clone()),
        LockBlock::Image(image) => NewBlock::Image(image.clone()),
        LockBlock::Chart(chart) => NewBlock::Chart(chart.clone()),
        LockBlock::File(file) => NewBlock::File(file.clone()),
        LockBlock::Payload(..)
        | LockBlock::Package(..)
        | LockBlock::Blocked(_)
        | LockBlock::Skip(_) => return None,
    })
}

/// The skips of an earlier lock and of the request.
fn skips(request: &Request, previous: Option<&Lock>) -> Vec<Skip> {
    let mut skips: Vec<Skip> = previous.map(|lock| lock.skips.clone()).unwrap_or_default();
    for (image, reason) in &request.skips {
        skips.retain(|skip| skip.image != *image);
        skips.push(Skip {
            image: image.clone(),
            reason: reason.clone(),
        });
    }
    skips
}

/// Without names, nothing that is open can be answered.
fn refuse_offline(
    wanted: &[Expected],
    open: &[usize],
    previous: Option<&Lock>,
    resolver: &Resolver<'_>,
) -> Result<(), ResolveError> {
    let questions: Vec<String> = open
        .iter()
        .map(|index| &wanted[*index])
        .filter(|expected| asks(expected))
        .map(|expected| {
            let why = match previous
                .and_then(|lock| lock.find(&expected.key))
                .and_then(|block| block.want().cloned())
            {
                Some(want) if want == expected.want => "an update was asked for".to_owned(),
                Some(want) => format!("{} changed", want.differing(&expected.want).join(", ")),
                None => "it is new".to_owned(),
            };
            format!("{}: {} ({why})", expected.at, question(expected))
        })
        .collect();
    if resolver.names.is_some() || resolver.within.is_some() || questions.is_empty() {
        Ok(())
    } else {
        Err(ResolveError::Offline { questions })
    }
}

/// Brings the manifests of new blocks into the store, down to the last child.
fn complete(
    answered: &Lock,
    wanted: &[Expected],
    resolver: &Resolver<'_>,
) -> Result<(), ResolveError> {
    let roots: Vec<Root> = roots(answered, &[])
        .into_iter()
        .filter(|root| matches!(root.fetch.content, Content::Manifest { .. }))
        .collect();
    let mut plan = Plan::of(roots).map_err(|source| ResolveError::Plan {
        at: wanted
            .first()
            .map(|expected| expected.at.clone())
            .unwrap_or_default(),
        key: "the config".to_owned(),
        source: Box::new(source),
    })?;
    let report = realise(
        &mut plan,
        Extent::Manifests,
        resolver.upstream,
        resolver.store,
        resolver.limits,
        resolver.observer,
        resolver.stop,
    )
    .map_err(ResolveError::Store)?;
    if report.stopped {
        return Err(ResolveError::Stopped);
    }
    if !report.failures.is_empty() {
        return Err(ResolveError::Incomplete {
            report: Box::new(report),
        });
    }
    Ok(())
}

/// Records the rules that made a block or make a document.
fn record_rules(request: &Request, rules: &Rules, lock: &mut Lock) {
    let used: BTreeSet<&str> = request
        .asked
        .iter()
        .map(|asked| asked.rule.as_str())
        .collect();
    for rule in rules.iter() {
        let always = rule.block.is_none() && rule.adds.is_none() && !rule.documents.is_empty();
        if used.contains(rule.name.as_str()) || always {
            lock.rules.insert(rule.name.clone(), rule.digest());
        }
    }
}

fn root(owner: String, origin: &PinOrigin, blob: Blob, platforms: &[PlatformName]) -> Root {
    Root {
        owner,
        fetch: Fetch {
            blob,
            content: Content::Manifest {
                media_type: None,
                platforms: platforms.to_vec(),
            },
            origins: vec![origin_of(origin)],
        },
    }
}

/// What is fetched for the signatures of a pin: those of a release or from a lookaside are files, others are images.
fn signature_roots(owner: &str, pin: &Pin) -> Vec<Root> {
    pin.signatures
        .iter()
        .map(|signature| {
            let blob = Blob {
                digest: signature.digest,
                size: signature.size,
            };
            let file = match (
                release::path_of_signature(pin, signature),
                signed::address_of(signature),
            ) {
                (Some(path), _) => Origin::Signature(path),
                (None, Some(address)) => Origin::Url(address.to_owned()),
                (None, None) => return root(owner.to_owned(), &pin.origin, blob, &[]),
            };
            Root {
                owner: owner.to_owned(),
                fetch: Fetch {
                    blob,
                    content: Content::Opaque,
                    origins: vec![file],
                },
            }
        })
        .collect()
}

/// Everything that a lock pins, and what was made of it, as the roots of a plan, in lock order.
#[must_use]
pub fn roots(lock: &Lock, built: &[Built]) -> Vec<Root> {
    let mut roots = Vec::new();
    for (key, pins) in lock.owners() {
        let owner = key.to_string();
        for (_, pin) in pins {
            roots.push(root(owner.clone(), &pin.origin, pin.blob(), &pin.platforms));
            roots.extend(signature_roots(&owner, pin));
        }
    }
    for (key, blob) in lock.file_pins() {
        let origins = match &key {
            BlockKey::File { reference } => vec![Origin::Url(reference.clone())],
            key => match lock.find(key) {
                Some(LockBlock::Chart(chart)) => chart::origins(chart),
                _ => Vec::new(),
            },
        };
        roots.push(Root {
            owner: key.to_string(),
            fetch: Fetch {
                blob,
                content: Content::Opaque,
                origins,
            },
        });
    }
    roots.extend(built.iter().map(Built::root));
    roots
}

/// The rule that a block was made by.
#[must_use]
pub fn rule_of<'a>(block: &LockBlock<'_>, rules: &'a Rules) -> Option<&'a Rule> {
    // A rule that no line of the config names says so in what it wants.
    if let Some(name) = block.want().and_then(|want| want.text("rule")) {
        return rules.get(name);
    }
    rules.recording(match block.key() {
        BlockKey::Image { .. } => BlockKind::Image,
        BlockKey::Release { .. } => BlockKind::Release,
        BlockKey::Catalog { .. } | BlockKey::Package { .. } => BlockKind::Catalog,
        BlockKey::Chart { .. } => BlockKind::Chart,
        BlockKey::File { .. } => BlockKind::File,
        _ => return None,
    })
}

/// Where every image of a lock goes, in lock order; what would be put at one place twice is listed once. Where an image
/// was made of a block's own, that one is placed in its stead.
///
/// # Errors
/// If one has no place.
pub fn placements(
    lock: &Lock,
    built: &[Built],
    rules: &Rules,
    layout: &Layout,
) -> Result<Vec<Placement>, PlaceError> {
    let mut placements: Vec<Placement> = Vec::new();
    let mut seen = BTreeSet::new();
    for block in lock.blocks() {
        let key = block.key();
        let pins = block.pins();
        let made = built.iter().find(|built| built.owner == key);
        if pins.is_empty() && made.is_none() {
            continue;
        }
        // What is served is built from it.
        if let LockBlock::Catalog(catalog) = block
            && !catalog::is_copied(&catalog.want)
            && built.iter().all(|built| built.owner != key)
        {
            continue;
        }
        let none = || PlaceError::None {
            rule: "of no name".to_owned(),
            image: key.to_string(),
            layout: layout.name.clone(),
        };
        let rule = rule_of(&block, rules).ok_or_else(none)?;
        let (mut names, want) = (
            block_value(&key),
            block.want().map_or_else(|| Value::map([]), want_value),
        );
        let mut placed = Vec::new();
        if let LockBlock::Chart(chart) = &block {
            let origin = chart::artifact_name(chart);
            names = chart::block_names(chart, names);
            // A chart that is a file is an image only as it was made here.
            if let (Some(made), Some(origin)) = (made, &origin) {
                let subject = Subject {
                    owner: key.to_string(),
                    origin,
                    role: Role::Chart.kind(),
                    name: None,
                    version: None,
                    block: names.clone(),
                    want: want.clone(),
                    source: None,
                    blob: made.blob,
                    platforms: &[],
                };
                placed.push((place(rule, layout, &subject)?, None));
            }
        }
        for (role, pin) in pins {
            // Of several pins, the one that is its block is what was built upon.
            let made = made.filter(|_| matches!(role, Role::Image | Role::Catalog | Role::Chart));
            let origin = match &key {
                BlockKey::Image { reference, .. } | BlockKey::Catalog { reference, .. } => {
                    reference.parse().map_err(|_| none())?
                }
                _ => name_of(pin).ok_or_else(none)?,
            };
            let version = match role {
                Role::Payload { version } | Role::Component { version, .. } => Some(version),
                _ => None,
            };
            let subject = Subject {
                owner: key.to_string(),
                origin: &origin,
                role: role.kind(),
                name: role.name(),
                version,
                block: names.clone(),
                want: want.clone(),
                source: pin.repository(),
                blob: made.map_or_else(|| pin.blob(), |made| made.blob),
                platforms: match made {
                    Some(_) => &[],
                    None => &pin.platforms,
                },
            };
            // What was built here is another image than the one that was signed.
            let signed = made.is_none().then_some(pin);
            placed.push((place(rule, layout, &subject)?, signed));
        }
        for (placed, signed) in placed {
            let same = (
                placed.path.clone(),
                placed.tag.clone(),
                placed.digest,
                placed.platforms.clone(),
                placed.origin.clone(),
            );
            if !seen.insert(same) {
                continue;
            }
            if let Some(pin) = signed {
                for (tag, blob) in signed::tags(pin) {
                    let beside = beside(&placed, pin, tag, blob);
                    if !placements.contains(&beside) {
                        placements.push(beside);
                    }
                }
            }
            placements.push(placed);
        }
    }
    Ok(placements)
}

/// The place of a signature: beside its image, and in no mirror set, since nodes look for it where the image is.
fn beside(placed: &Placement, pin: &Pin, tag: crate::reference::Tag, blob: Blob) -> Placement {
    let origin = match (name_of(pin), &placed.origin) {
        (Some(ImageName::Registry(name)), _) => ImageName::Registry(Reference {
            tag: Some(tag.clone()),
            digest: None,
            ..name
        }),
        (_, origin) => origin.clone(),
    };
    Placement {
        category: None,
        by: Vec::new(),
        owner: placed.owner.clone(),
        role: "signature".to_owned(),
        origin,
        digest: blob.digest,
        size: blob.size,
        platforms: Vec::new(),
        path: placed.path.clone(),
        tag,
    }
}

/// The name that workloads know a pin by.
fn name_of(pin: &Pin) -> Option<ImageName> {
    let repository = pin.repository()?.clone();
    Some(ImageName::Registry(Reference {
        repository,
        tag: pin.tag.clone(),
        digest: Some(pin.digest),
    }))
}

/// The rule files that a lock names, from `available` texts.
///
/// # Errors
/// With the names of those whose text is not at hand.
pub fn rules_of(
    lock: &Lock,
    available: &dyn Fn(&Digest) -> io::Result<Option<String>>,
) -> Result<Vec<(String, String)>, Vec<String>> {
    let mut texts = Vec::new();
    let mut absent = Vec::new();
    for (name, digest) in &lock.rules {
        match available(digest) {
            Ok(Some(text)) if Digest::of(text.as_bytes()) == *digest => {
                texts.push((name.clone(), text));
            }
            _ => absent.push(format!("{name} ({digest})")),
        }
    }
    if absent.is_empty() {
        Ok(texts)
    } else {
        Err(absent)
    }
}
