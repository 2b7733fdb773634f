//! Locking: every question of a config is answered and pinned.
//!
//! Only what was asked anew is asked upstream; a pin whose request has not changed is kept. Questions are asked in
//! parallel and recorded in the order of the config, so timing cannot change the lock. Manifests of new pins are
//! brought into the store, which makes every size exact; layers are not.
//!
//! [`Names`] is the capability to observe. Nothing else in the library can ask a mutable name, and only [`lock`] takes
//! one.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::AtomicBool;

use regex::Regex;

use super::event::{Observer, advice, joined_advice, one_line};
use super::realise::{Depot, Extent, Limits, Report, Upstream, realise};
use crate::canon::Value;
use crate::digest::Digest;
use crate::hint::Hint;
use crate::oci::{Manifest, PlatformName};
use crate::plan::graph::{Plan, PlanError, Root};
use crate::plan::key::BlockKey;
use crate::plan::lock::{Image, Lock, NewBlock, Origin as PinOrigin, Pin, Skip, Want};
use crate::reference::{ImageName, ReferenceError};
use crate::step::hole::HoleError;
use crate::step::place::{Layout, PlaceError, Placement, place, refuse_collisions};
use crate::step::rule::{BlockKind, Rule, Rules};
use crate::step::{Content, Fetch, Kind, Observe, Origin};
use crate::store::Blob;

/// Who answers a mutable name: the capability to observe.
pub trait Names: Sync {
    /// What a name means now; `None` if it means nothing.
    ///
    /// # Errors
    /// If nobody could be asked.
    fn resolve(&self, question: &Observe) -> io::Result<Option<Answer>>;
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
}

/// What a request comes to before anything is asked.
#[derive(Clone, Debug)]
pub struct Expected {
    /// The block that will answer it.
    pub key: BlockKey,
    /// The request as the block repeats it.
    pub want: Want,
    /// The image.
    pub image: ImageName,
    /// Only these children of an index.
    pub platforms: Vec<PlatformName>,
    /// The rule.
    pub rule: String,
    /// Where it was asked for.
    pub at: String,
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
    /// Names mean nothing upstream, or nobody answered.
    #[error("{} could not be answered:\n{}", count(problems.len(), "request"), lines(problems))]
    Unanswered {
        /// What was asked, and what came.
        problems: Vec<String>,
        /// What each of them advises, where it does.
        advice: Vec<Option<String>>,
    },
    /// What was answered cannot be used.
    #[error("{at}: {key} cannot be pinned")]
    Plan {
        /// The row.
        at: String,
        /// The block.
        key: String,
        /// Why.
        source: PlanError,
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

impl Hint for ResolveError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Name { source, .. } => source.hint(),
            Self::Twice { .. } => {
                Some("list it once, or give one of them another targetRepo".to_owned())
            }
            Self::Offline { .. } => Some("run `imgbuild lock` without --offline".to_owned()),
            Self::Unanswered { advice, .. } => Some(joined_advice(
                advice.iter().cloned(),
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

/// What locking needs besides the request.
pub struct Resolver<'a> {
    /// The rules in force.
    pub rules: &'a Rules,
    /// Who answers names; `None` offline.
    pub names: Option<&'a dyn Names>,
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
    /// Told of every answer to a mutable name: the question and the digest, for the evidence log.
    pub evidence: &'a (dyn Fn(&str, Option<Digest>) + Sync),
}

/// A lock, and what to say about it.
#[derive(Debug)]
pub struct Locked {
    /// The lock, in canonical order.
    pub lock: Lock,
    /// How many pins were kept.
    pub kept: usize,
    /// How many were made.
    pub made: usize,
    /// Remarks that do not stop anything.
    pub notes: Vec<String>,
}

/// What a request comes to, before anything is asked: one entry per block, in the order of the config. Images that
/// are blocked or skipped are left out; `notes` says which.
///
/// # Errors
/// If a row does not fit its rule, or asks for one thing in two ways.
pub fn expected(
    request: &Request,
    rules: &Rules,
    skips: &[Skip],
    notes: &mut Vec<String>,
) -> Result<Vec<Expected>, ResolveError> {
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
    let mut out: Vec<Expected> = Vec::new();
    let mut seen: BTreeMap<BlockKey, usize> = BTreeMap::new();
    for asked in &request.asked {
        let expected = expect(asked, rules)?;
        let name = expected.image.to_string();
        if let Some(skip) = skips.iter().find(|skip| skips_image(skip, &expected)) {
            notes.push(format!("{}: {name} is skipped: {}", asked.at, skip.reason));
            continue;
        }
        if let Some(pattern) = blocked_by(&patterns, &expected, rules) {
            notes.push(format!("{}: {name} is blocked by {pattern:?}", asked.at));
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
    Ok(out)
}

fn skips_image(skip: &Skip, expected: &Expected) -> bool {
    let name = expected.image.to_string();
    skip.image == name
        || matches!(&expected.key, BlockKey::Image { reference, .. } if *reference == skip.image)
}

/// The pattern that blocks an image, by its origin or by the place it would have.
fn blocked_by<'a>(patterns: &'a [Regex], expected: &Expected, rules: &Rules) -> Option<&'a str> {
    let origin = expected.image.to_string();
    let origin = origin
        .split_once("://")
        .map_or(origin.as_str(), |(_, rest)| rest)
        .to_owned();
    let digest = match &expected.image {
        ImageName::Registry(name) => name.digest,
        ImageName::Layout(name) => name.digest,
    };
    let destination = rules.get(&expected.rule).and_then(|rule| {
        let digest = digest.unwrap_or_else(|| Digest::from_bytes([0; 32]));
        place(
            rule,
            &Layout::default(),
            &expected.image,
            &want_value(&expected.want),
            None,
            digest,
        )
        .ok()
    });
    let destination = destination.map(|placement| format!("{}:{}", placement.path, placement.tag));
    patterns
        .iter()
        .find(|pattern| {
            pattern.is_match(&origin)
                || destination
                    .as_deref()
                    .is_some_and(|text| pattern.is_match(text))
        })
        .map(Regex::as_str)
}

/// A want as the values that holes are filled from.
#[must_use]
pub fn want_value(want: &Want) -> Value {
    Value::Map(want.settings().clone())
}

fn expect(asked: &Asked, rules: &Rules) -> Result<Expected, ResolveError> {
    let rule = rules.get(&asked.rule).ok_or_else(|| ResolveError::Rule {
        at: asked.at.clone(),
        rule: asked.rule.clone(),
    })?;
    let hole = |source| ResolveError::Hole {
        at: asked.at.clone(),
        rule: rule.name.clone(),
        source,
    };
    let missing = || ResolveError::Rule {
        at: asked.at.clone(),
        rule: format!("{} with a block", rule.name),
    };
    let block = rule.block.as_ref().ok_or_else(missing)?;
    let context = Value::map([("row", asked.row.clone())]);
    let reference = block
        .reference
        .fill_text(&context)
        .map_err(hole)?
        .unwrap_or_default();
    let want = match block.want.fill(&context).map_err(hole)? {
        Some(Value::Map(entries)) => Want::new(entries),
        _ => Want::default(),
    };
    let question = rule
        .steps
        .iter()
        .find(|step| step.kind == Kind::ResolveTag)
        .ok_or_else(missing)?;
    let image =
        parameter(&question.with.fill(&context).map_err(hole)?, "image").unwrap_or_default();
    let image: ImageName = image.parse().map_err(|source| ResolveError::Name {
        at: asked.at.clone(),
        source,
    })?;
    let pin = rule
        .steps
        .iter()
        .find(|step| step.name == block.pin)
        .ok_or_else(missing)?;
    let platforms = match pin.with.fill(&context).map_err(hole)? {
        Some(Value::Map(with)) => match with.get("platforms") {
            Some(Value::List(names)) => names
                .iter()
                .filter_map(|name| {
                    if let Value::Text(name) = name {
                        Some(name)
                    } else {
                        None
                    }
                })
                .map(|name| {
                    name.parse().map_err(|source| ResolveError::Platform {
                        at: asked.at.clone(),
                        source,
                    })
                })
                .collect::<Result<Vec<PlatformName>, _>>()?,
            _ => Vec::new(),
        },
        _ => Vec::new(),
    };
    let key = match block.kind {
        BlockKind::Image => BlockKey::Image {
            reference,
            target: want.text("target").map(str::to_owned),
        },
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

fn parameter(with: &Option<Value>, name: &str) -> Option<String> {
    match with {
        Some(Value::Map(with)) => match with.get(name) {
            Some(Value::Text(text)) => Some(text.clone()),
            _ => None,
        },
        _ => None,
    }
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
    let mut skips: Vec<Skip> = previous.map(|lock| lock.skips.clone()).unwrap_or_default();
    for (image, reason) in &request.skips {
        skips.retain(|skip| skip.image != *image);
        skips.push(Skip {
            image: image.clone(),
            reason: reason.clone(),
        });
    }
    let all = expected(request, resolver.rules, &[], &mut Vec::new())?;
    skips.retain(|skip| {
        let matches = all.iter().any(|expected| skips_image(skip, expected));
        if !matches {
            notes.push(format!(
                "nothing asks for {} any more: its skip is dropped",
                skip.image
            ));
        }
        matches
    });
    let wanted = expected(request, resolver.rules, &skips, &mut notes)?;
    // What is known already.
    let mut blocks: Vec<Option<Image>> = Vec::new();
    let mut open: Vec<usize> = Vec::new();
    for (index, expected) in wanted.iter().enumerate() {
        let known = previous.and_then(|lock| {
            lock.images
                .iter()
                .find(|image| image.key() == expected.key && image.want == expected.want)
        });
        match known {
            Some(image) if !renew(&expected.key) => blocks.push(Some(image.clone())),
            _ => {
                blocks.push(None);
                open.push(index);
            }
        }
    }
    let kept = wanted.len() - open.len();
    let made = open.len();
    let answers = answer(&wanted, &open, previous, resolver)?;
    let mut roots = Vec::new();
    for (index, answer) in &answers {
        let blob = Blob::of(&answer.bytes);
        let expected = &wanted[*index];
        if !resolver.store.holds(&blob).map_err(ResolveError::Store)? {
            let mut bytes = crate::store::Verified::new(Box::new(answer.bytes.as_slice()), blob);
            resolver
                .store
                .write(&blob, &mut bytes)
                .map_err(ResolveError::Store)?;
        }
        let mut root = Plan::of(vec![root(
            &expected.key,
            &answer.origin,
            blob,
            &expected.platforms,
            answer.media_type.clone(),
        )])
        .map_err(|source| plan_error(expected, source))?;
        // Reading it now ties what is wrong with it to the row that asked.
        root.read(&blob.digest, &answer.bytes)
            .map_err(|source| plan_error(expected, source))?;
        roots.extend(root.roots().iter().cloned());
    }
    let mut plan = Plan::of(roots).map_err(|source| ResolveError::Plan {
        at: String::new(),
        key: "the config".to_owned(),
        source,
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
    for (index, answer) in answers {
        let expected = &wanted[index];
        let blob = Blob::of(&answer.bytes);
        let mut pin = Pin::new(answer.origin, blob.digest, blob.size);
        if let Some(Manifest::Index(list)) = plan
            .get(&blob.digest)
            .and_then(|node| node.manifest.as_ref())
        {
            if list.taken(&expected.platforms).len() < list.manifests.len() {
                pin.platforms.clone_from(&expected.platforms);
            }
        }
        let BlockKey::Image { reference, .. } = &expected.key else {
            continue;
        };
        blocks[index] = Some(Image {
            reference: reference.clone(),
            want: expected.want.clone(),
            pin,
        });
    }
    let mut lock = Lock {
        skips,
        ..Lock::default()
    };
    if let Some(previous) = previous {
        lock.comments.clone_from(&previous.comments);
    }
    for name in &request.blocked {
        if !lock.blocked.iter().any(|blocked| blocked.name == *name) {
            lock.blocked
                .push(crate::plan::lock::Blocked { name: name.clone() });
        }
    }
    for image in blocks.into_iter().flatten() {
        lock.put(NewBlock::Image(image))
            .expect("an image needs no catalog");
    }
    let used: BTreeSet<&str> = wanted
        .iter()
        .map(|expected| expected.rule.as_str())
        .collect();
    for rule in resolver.rules.iter() {
        if used.contains(rule.name.as_str()) || !rule.documents.is_empty() {
            lock.rules.insert(rule.name.clone(), rule.digest());
        }
    }
    lock.sort();
    let placements =
        placements(&lock, resolver.rules, &Layout::default()).map_err(ResolveError::Place)?;
    refuse_collisions(&placements, "", &Layout::default()).map_err(ResolveError::Place)?;
    Ok(Locked {
        lock,
        kept,
        made,
        notes,
    })
}

fn plan_error(expected: &Expected, source: PlanError) -> ResolveError {
    ResolveError::Plan {
        at: expected.at.clone(),
        key: expected.key.to_string(),
        source,
    }
}

/// Asks what is open, in parallel; answers come in the order of the questions.
fn answer(
    wanted: &[Expected],
    open: &[usize],
    previous: Option<&Lock>,
    resolver: &Resolver<'_>,
) -> Result<Vec<(usize, Answer)>, ResolveError> {
    if open.is_empty() {
        return Ok(Vec::new());
    }
    let Some(names) = resolver.names else {
        let questions = open
            .iter()
            .map(|index| {
                let expected = &wanted[*index];
                let why = match previous
                    .and_then(|lock| lock.find(&expected.key))
                    .and_then(|block| block.want().cloned())
                {
                    Some(want) if want == expected.want => "an update was asked for".to_owned(),
                    Some(want) => format!("{} changed", want.differing(&expected.want).join(", ")),
                    None => "it is new".to_owned(),
                };
                format!("{}: {} ({why})", expected.at, expected.image)
            })
            .collect();
        return Err(ResolveError::Offline { questions });
    };
    let results: Vec<Mutex<Option<io::Result<Option<Answer>>>>> =
        open.iter().map(|_| Mutex::new(None)).collect();
    crate::run::each(open.len(), resolver.limits.workers, resolver.stop, |slot| {
        let image = &wanted[open[slot]].image;
        let result = names.resolve(&Observe::Tag(image.clone()));
        let digest = result
            .as_ref()
            .ok()
            .and_then(Option::as_ref)
            .map(|answer| Digest::of(&answer.bytes));
        (resolver.evidence)(&image.to_string(), digest);
        *results[slot].lock().unwrap_or_else(PoisonError::into_inner) = Some(result);
    });
    let mut answers = Vec::new();
    let mut problems = Vec::new();
    let mut hints = Vec::new();
    for (slot, result) in results.into_iter().enumerate() {
        let index = open[slot];
        let expected = &wanted[index];
        match result.into_inner().unwrap_or_else(PoisonError::into_inner) {
            Some(Ok(Some(answer))) => answers.push((index, answer)),
            Some(Ok(None)) => {
                problems.push(format!("{}: {} is not there", expected.at, expected.image));
                hints.push(None);
            }
            Some(Err(error)) => {
                problems.push(format!(
                    "{}: {}: {}",
                    expected.at,
                    expected.image,
                    one_line(&error)
                ));
                hints.push(advice(&error));
            }
            None => return Err(ResolveError::Stopped),
        }
    }
    if problems.is_empty() {
        Ok(answers)
    } else {
        Err(ResolveError::Unanswered {
            problems,
            advice: hints,
        })
    }
}

fn root(
    key: &BlockKey,
    origin: &PinOrigin,
    blob: Blob,
    platforms: &[PlatformName],
    media_type: Option<String>,
) -> Root {
    let origin = match origin {
        PinOrigin::Registry(repository) => Origin::Repository(repository.clone()),
        PinOrigin::Layout(path) => Origin::Layout(path.clone()),
    };
    Root {
        owner: key.to_string(),
        fetch: Fetch {
            blob,
            content: Content::Manifest {
                media_type,
                platforms: platforms.to_vec(),
            },
            origins: vec![origin],
        },
    }
}

/// Everything that a lock pins, as the roots of a plan, in lock order.
#[must_use]
pub fn roots(lock: &Lock) -> Vec<Root> {
    let mut roots = Vec::new();
    for (key, pins) in lock.owners() {
        for (_, pin) in pins {
            roots.push(root(&key, &pin.origin, pin.blob(), &pin.platforms, None));
        }
    }
    for (key, blob) in lock.file_pins() {
        let origins = match &key {
            BlockKey::File { reference } | BlockKey::Chart { reference, .. } => {
                vec![Origin::Url(reference.clone())]
            }
            _ => Vec::new(),
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
    roots
}

/// The rule that a block was made by.
fn rule_of<'a>(key: &BlockKey, rules: &'a Rules) -> Option<&'a Rule> {
    let kind = match key {
        BlockKey::Image { .. } => BlockKind::Image,
        _ => return None,
    };
    rules
        .iter()
        .find(|rule| rule.block.as_ref().is_some_and(|block| block.kind == kind))
}

/// Where every image of a lock goes.
///
/// # Errors
/// If one has no place.
pub fn placements(
    lock: &Lock,
    rules: &Rules,
    layout: &Layout,
) -> Result<Vec<Placement>, PlaceError> {
    let mut placements = Vec::new();
    for image in &lock.images {
        let none = || PlaceError::None {
            rule: "of no name".to_owned(),
            image: image.reference.clone(),
            layout: layout.name.clone(),
        };
        let rule = rule_of(&image.key(), rules).ok_or_else(none)?;
        let name: ImageName = image.reference.parse().map_err(|_| none())?;
        placements.push(place(
            rule,
            layout,
            &name,
            &want_value(&image.want),
            image.pin.repository(),
            image.pin.digest,
        )?);
    }
    Ok(placements)
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
                texts.push((name.clone(), text))
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
