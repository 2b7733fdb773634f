//! `[[release]]`: the payloads that an update channel leads to (or one payload by name), and what they are made of.
//!
//! 1. The update service is asked for the graph of each channel; [`choose`] picks releases. Only those are recorded, so
//!    whatever else changes upstream changes no lock.
//! 2. Of each payload the signatures are found and verified, before anything in it is believed.
//! 3. The payload's own list names the components; each becomes a pin. Version and architecture must be those asked for.
//!
//! Several channels of one product give a block of their own besides: the path from the smallest bound to the greatest
//! through the channels between them. Its `want` repeats the wishes of all the channels that it joins.
//!
//! A `want` of a release has
//!
//! | key | is |
//! |---|---|
//! | `type` | `okd`; absent for OpenShift Container Platform |
//! | `min`, `max`, `full`, `path` | the range; `path = "shortest"` takes only the releases on the shortest path |
//! | `platforms` | only these instances of payload and components |
//! | `disks` | architectures that boot disks for virtual machines are wanted for |
//! | `signatures` | `warn` or `skip`; absent: a valid signature is required |
//! | `keys` | the SHA-256 of the files of public keys that replace those the program knows |
//! | `across` | for a path across channels: channel, type, min, max, full, path of each |

use std::collections::{BTreeMap, BTreeSet};

use regex::Regex;
use serde::Deserialize;

use super::means::{Instance, Means, Problem, Stored};
use super::within::{self, Vetted};
use super::{Expected, Found};
use crate::canon::Value;
use crate::digest::Digest;
use crate::hint::Hint as _;
use crate::oci::{Descriptor, PlatformName};
use crate::openshift::graph::Graph;
use crate::openshift::graph::choose::{self, Note, Options, Product, Selection};
use crate::openshift::payload::{
    self as contents, BOOT_IMAGES, FILE_LIMIT, IMAGE_REFERENCES, Payload as Contents,
    RELEASE_METADATA,
};
use crate::openshift::release::{
    Architecture, GRAPH_URL, OKD_GRAPH_URL, graph_query, saved_graph_name,
};
use crate::openshift::signature::store::{
    COMMUNITY_STORES, RED_HAT_STORES, SIGNATURES_PER_DIGEST, address, path as signature_path,
};
use crate::openshift::signature::{Keyring, SIGNATURE_LIMIT, verify};
use crate::openshift::version::Version;
use crate::plan::key::{BlockKey, ReleaseName};
use crate::plan::lock::{
    Component, Lock, NewBlock, Origin as PinOrigin, Payload, Pin, Release, Risk, Signature, Want,
};
use crate::reference::{ImageName, Repository};
use crate::run::event::one_line;
use crate::step::place::{Layout, Subject, place};
use crate::step::rule::{Rule, Rules};
use crate::step::{Address, Kind};
use crate::store::{Blob, Source, read};

/// Payloads of one block that are dealt with at once; each asks for many components at once.
const PAYLOADS_AT_ONCE: usize = 4;

/// Largest image config that is read.
const CONFIG_LIMIT: u64 = 4 << 20;

/// What joins the names of channels in the name of the path across them.
const ACROSS: &str = "+";

/// Where release services are.
#[derive(Clone, Debug)]
pub struct Services {
    /// The update service of OpenShift Container Platform: a URL, a folder of saved answers, or a file with a graph.
    pub graph: String,
    /// The update service of OKD, likewise.
    pub okd_graph: String,
    /// The stores of signatures, in order: URLs or folders; those of each product, if there are none.
    pub signatures: Vec<String>,
    /// Which versions count when the head and the first release of a channel are looked for; all, if not given.
    pub counted: Option<Regex>,
    /// Addresses that are not asked, each with what can be done instead.
    pub withheld: BTreeMap<String, String>,
}

impl Default for Services {
    fn default() -> Self {
        Self {
            graph: GRAPH_URL.to_owned(),
            okd_graph: OKD_GRAPH_URL.to_owned(),
            signatures: Vec::new(),
            counted: None,
            withheld: BTreeMap::new(),
        }
    }
}

impl Services {
    /// Every store that a signature may be in, in order.
    #[must_use]
    pub fn signature_stores(&self) -> Vec<String> {
        if !self.signatures.is_empty() {
            return self.signatures.clone();
        }
        RED_HAT_STORES
            .iter()
            .chain(&COMMUNITY_STORES)
            .map(|store| (*store).to_owned())
            .collect()
    }

    fn stores_of(&self, product: Product) -> Vec<String> {
        if !self.signatures.is_empty() {
            return self.signatures.clone();
        }
        let known: &[&str] = match product {
            Product::Ocp => &RED_HAT_STORES,
            Product::Okd => &COMMUNITY_STORES,
        };
        known.iter().map(|store| (*store).to_owned()).collect()
    }
}

/// What a missing signature means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Policy {
    Require,
    Warn,
    Skip,
}

/// A `want`, understood.
struct Wish {
    product: Product,
    architecture: Architecture,
    platforms: Vec<PlatformName>,
    disks: Option<Vec<Architecture>>,
    policy: Policy,
    ring: Keyring,
    /// How errors name the keys.
    keys: String,
}

fn texts(value: Option<&Value>) -> Vec<String> {
    match value {
        Some(Value::List(items)) => items
            .iter()
            .filter_map(|item| match item {
                Value::Text(text) => Some(text.clone()),
                _ => None,
            })
            .collect(),
        Some(Value::Text(text)) => vec![text.clone()],
        _ => Vec::new(),
    }
}

fn text<'a>(settings: &'a BTreeMap<String, Value>, name: &str) -> Option<&'a str> {
    match settings.get(name) {
        Some(Value::Text(text)) => Some(text),
        _ => None,
    }
}

fn product(settings: &BTreeMap<String, Value>) -> Product {
    match text(settings, "type") {
        Some("okd") => Product::Okd,
        _ => Product::Ocp,
    }
}

/// What is wanted of a channel, by the settings of its block (or by an element of `across`).
fn channel_want(
    channel: &str,
    settings: &BTreeMap<String, Value>,
) -> Result<choose::Want, Problem> {
    let version = |name: &str| -> Result<Option<Version>, Problem> {
        text(settings, name)
            .map(|text| {
                Version::parse_tolerant(text)
                    .map_err(|error| Problem::of(&error).about(format!("channel {channel}")))
            })
            .transpose()
    };
    Ok(choose::Want {
        channel: channel.to_owned(),
        product: product(settings),
        min: version("min")?,
        max: version("max")?,
        full: matches!(settings.get("full"), Some(Value::Bool(true))),
        shortest_path: text(settings, "path") == Some("shortest"),
    })
}

/// A file by digest: its name and its bytes.
type FileOf<'a> = &'a dyn Fn(&Digest) -> Option<(String, Vec<u8>)>;

/// The keys of a `want`: from the files at hand, else those of the product.
fn ring(
    settings: &BTreeMap<String, Value>,
    file: FileOf<'_>,
) -> Result<(Keyring, String), Problem> {
    let digests = texts(settings.get("keys"));
    if digests.is_empty() {
        return Ok(match product(settings) {
            Product::Ocp => (Keyring::red_hat(), "Red Hat's release keys".to_owned()),
            Product::Okd => (Keyring::community(), "the keys of OKD".to_owned()),
        });
    }
    let mut ring = Keyring::default();
    let mut names = Vec::new();
    for text in digests {
        let found = match text.parse::<Digest>() {
            Ok(digest) => file(&digest),
            Err(_) => None,
        };
        let (name, bytes) = found.ok_or_else(|| {
            Problem::new(format!("the file of public keys {text} is not at hand"))
        })?;
        ring.extend(
            Keyring::parse(&name, &bytes)
                .map_err(|error| Problem::new(one_line(&error)).trust())?,
        );
        names.push(name);
    }
    Ok((ring, format!("the keys in {}", names.join(", "))))
}

fn policy(settings: &BTreeMap<String, Value>) -> Policy {
    match text(settings, "signatures") {
        Some("skip") => Policy::Skip,
        Some("warn") => Policy::Warn,
        _ => Policy::Require,
    }
}

impl Wish {
    fn of(arch: &str, want: &Want, means: &Means<'_>) -> Result<Self, Problem> {
        let settings = want.settings();
        let architecture = |name: &str| {
            name.parse::<Architecture>()
                .map_err(|error| Problem::new(error.to_string()))
        };
        let platforms = super::image::platforms(&texts(settings.get("platforms")))
            .map_err(|error| Problem::new(error.to_string()))?;
        let disks = match settings.get("disks") {
            None => None,
            Some(_) if !platforms.is_empty() => Some(
                platforms
                    .iter()
                    .map(|platform| architecture(&platform.architecture))
                    .collect::<Result<Vec<_>, _>>()?,
            ),
            some => Some(
                texts(some)
                    .iter()
                    .map(|name| architecture(name))
                    .collect::<Result<Vec<_>, _>>()?,
            ),
        };
        let (ring, keys) = ring(settings, &|digest| means.file(digest).cloned())?;
        Ok(Self {
            product: product(settings),
            architecture: architecture(arch)?,
            platforms,
            disks,
            policy: policy(settings),
            ring,
            keys,
        })
    }
}

/// The blocks for paths across channels that a config comes to besides those it asks for: one per architecture that has
/// several channels of OpenShift Container Platform.
#[must_use]
pub fn across(expected: &[Expected]) -> Vec<Expected> {
    let mut groups: BTreeMap<&str, Vec<&Expected>> = BTreeMap::new();
    for one in expected {
        if let BlockKey::Release {
            name: ReleaseName::Channel(_),
            arch,
        } = &one.key
            && product(one.want.settings()) == Product::Ocp
        {
            groups.entry(arch).or_default().push(one);
        }
    }
    groups
        .into_iter()
        .filter(|(_, group)| group.len() > 1)
        .map(|(arch, mut group)| {
            let first = group[0];
            let (rule, at) = (first.rule.clone(), first.at.clone());
            group.sort_by(|left, right| left.key.cmp(&right.key));
            let name = |one: &Expected| match &one.key {
                BlockKey::Release { name, .. } => name.as_str().to_owned(),
                _ => String::new(),
            };
            let names: Vec<String> = group.iter().map(|one| name(one)).collect();
            let own = ["type", "min", "max", "full", "path"];
            let parts = group
                .iter()
                .map(|one| {
                    let mut part: BTreeMap<String, Value> = one
                        .want
                        .settings()
                        .iter()
                        .filter(|(key, _)| own.contains(&key.as_str()))
                        .map(|(key, value)| (key.clone(), value.clone()))
                        .collect();
                    part.insert("channel".to_owned(), name(one).into());
                    Value::Map(part)
                })
                .collect();
            let mut want: BTreeMap<String, Value> = first
                .want
                .settings()
                .iter()
                .filter(|(key, _)| !own.contains(&key.as_str()))
                .map(|(key, value)| (key.clone(), value.clone()))
                .collect();
            want.insert("across".to_owned(), Value::List(parts));
            Expected {
                key: BlockKey::Release {
                    name: ReleaseName::Channel(names.join(ACROSS)),
                    arch: arch.to_owned(),
                },
                want: Want::new(want),
                image: None,
                platforms: Vec::new(),
                rule,
                at,
            }
        })
        .collect()
}

/// What a release block would ask, for people.
#[must_use]
pub fn question(key: &BlockKey) -> String {
    match key {
        BlockKey::Release {
            name: ReleaseName::Channel(channel),
            arch,
        } => format!("update channel {channel} for {arch}"),
        other => other.to_string(),
    }
}

/// Answers a release block.
///
/// # Errors
/// With everything that is in the way, if it cannot be answered.
pub fn answer(expected: &Expected, rule: &Rule, means: &Means<'_>) -> Result<Found, Vec<Problem>> {
    let one = |problem: Problem| vec![problem];
    let BlockKey::Release { name, arch } = &expected.key else {
        return Err(one(Problem::new("this is no release")));
    };
    let wish = Wish::of(arch, &expected.want, means).map_err(one)?;
    let mut notes = Vec::new();
    let mut risks = BTreeSet::new();
    let chosen: Vec<(Option<Version>, ImageName)> = match name {
        ReleaseName::Reference(reference) => vec![(
            None,
            reference
                .parse()
                .map_err(|error| one(Problem::of::<crate::reference::ReferenceError>(&error)))?,
        )],
        ReleaseName::Channel(channel) => {
            let (selection, found) = select(channel, &expected.want, &wish, means).map_err(one)?;
            notes.extend(selection.notes.iter().map(ToString::to_string));
            risks = found;
            selection
                .releases
                .into_iter()
                .map(|release| (Some(release.version), ImageName::Registry(release.payload)))
                .collect()
        }
    };
    let results = means
        .gather(chosen.len(), PAYLOADS_AT_ONCE, |index| {
            let (version, image) = &chosen[index];
            payload(expected, rule, &wish, version.as_ref(), image, means)
        })
        .map_err(one)?;
    let mut payloads = Vec::new();
    let mut problems = Vec::new();
    for result in results {
        match result {
            Ok((found, more)) => {
                payloads.extend(found);
                notes.extend(more);
            }
            Err(more) => problems.extend(more),
        }
    }
    for (index, payload) in payloads.iter().enumerate() {
        if payloads[..index]
            .iter()
            .any(|other: &Payload| other.version == payload.version)
        {
            problems.push(Problem::new(format!(
                "two payloads of {} call themselves {}",
                name.as_str(),
                payload.version
            )));
        }
    }
    if !problems.is_empty() {
        return Err(problems);
    }
    Ok(Found {
        block: NewBlock::Release(Release {
            name: name.clone(),
            arch: arch.clone(),
            want: expected.want.clone(),
            risks: risks.into_iter().collect(),
            payloads,
        }),
        notes,
    })
}

/// Derives the components of a block's payloads again, from what is pinned, for other exclusions than before.
///
/// # Errors
/// If a pinned payload is neither in the store nor upstream.
pub fn refresh(
    release: &Release,
    expected: &Expected,
    rule: &Rule,
    means: &Means<'_>,
) -> Result<Found, Vec<Problem>> {
    let one = |problem: Problem| vec![problem];
    let wish = Wish::of(&release.arch, &expected.want, means).map_err(one)?;
    let mut notes = Vec::new();
    let mut payloads = Vec::new();
    for payload in &release.payloads {
        let stored = known(&payload.pin.origin, &payload.pin.digest, means).map_err(one)?;
        let found = components(expected, rule, &wish, &payload.pin, stored, means)?;
        payloads.push(Payload {
            components: found.components,
            ..payload.clone()
        });
        notes.extend(found.notes);
    }
    Ok(Found {
        block: NewBlock::Release(Release {
            payloads,
            ..release.clone()
        }),
        notes,
    })
}

/// The risks that a block has on record.
#[must_use]
pub fn accepted(previous: &Lock) -> Vec<String> {
    let names: BTreeSet<&str> = previous
        .releases
        .iter()
        .flat_map(|release| release.risks.iter().map(|risk| risk.name.as_str()))
        .collect();
    names.into_iter().map(str::to_owned).collect()
}

/// The releases that a channel (or the path across several) leads to, and the accepted risks on the way.
fn select(
    channel: &str,
    want: &Want,
    wish: &Wish,
    means: &Means<'_>,
) -> Result<(Selection, BTreeSet<Risk>), Problem> {
    let services = &means.resolver().services;
    let accepted = means.risks();
    let options = Options {
        accepted,
        counted: services.counted.as_ref(),
        known: &[],
    };
    let wants = match want.get("across") {
        Some(Value::List(parts)) => parts
            .iter()
            .filter_map(|part| match part {
                Value::Map(settings) => Some(settings),
                _ => None,
            })
            .map(|settings| channel_want(text(settings, "channel").unwrap_or_default(), settings))
            .collect::<Result<Vec<_>, _>>()?,
        _ => vec![channel_want(channel, want.settings())?],
    };
    let mut graphs = BTreeMap::new();
    for want in &wants {
        let graph = graph(&want.channel, wish, means).map_err(|mut problem| {
            if problem.hint.is_none() {
                problem.hint = there_is(&want.channel, wish, means);
            }
            problem
        })?;
        if graph.releases().is_empty() {
            let error = choose::ChooseError::NoReleases {
                channel: want.channel.clone(),
                near: Vec::new(),
            };
            let mut problem = Problem::of(&error);
            problem.hint = there_is(&want.channel, wish, means);
            return Err(problem);
        }
        graphs.insert(want.channel.clone(), graph);
    }
    let failed = |error: choose::ChooseError| Problem::of(&error);
    let selection = if want.get("across").is_some() {
        let between = choose::between(&wants, &graphs, options).map_err(failed)?;
        for channel in between {
            let graph = graph(&channel, wish, means)?;
            graphs.insert(channel, graph);
        }
        choose::across(&wants, &graphs, options).map_err(failed)?
    } else {
        choose::choose(&wants, &graphs, options).map_err(failed)?
    };
    let mut risks = BTreeSet::new();
    for note in &selection.notes {
        let Note::Crossed { channel, crossing } = note else {
            continue;
        };
        let known = graphs
            .get(channel)
            .into_iter()
            .flat_map(Graph::conditional_edges)
            .flat_map(|(_, risks)| risks.iter());
        for risk in known.filter(|risk| crossing.risks.contains(&risk.name)) {
            risks.insert(Risk {
                name: risk.name.clone(),
                url: risk.url.clone(),
            });
        }
    }
    // One name, one line: the first address stands for all.
    let mut seen = BTreeSet::new();
    risks.retain(|risk| seen.insert(risk.name.clone()));
    Ok((selection, risks))
}

/// Which channels there are that are called much like one that is not. A service lists none, so those are asked for
/// that a slip of the finger away lie.
fn there_is(channel: &str, wish: &Wish, means: &Means<'_>) -> Option<String> {
    let (prefix, minor) = channel.rsplit_once('-')?;
    let (major, minor) = minor.split_once('.')?;
    let number: u32 = minor.parse().ok()?;
    let swapped: String = minor.chars().rev().collect();
    let mut minors = vec![minor.to_owned(), swapped, (number + 1).to_string()];
    minors.extend(number.checked_sub(1).map(|before| before.to_string()));
    let prefixes = [prefix, "stable", "fast", "candidate", "eus"];
    let mut names: BTreeSet<String> = minors
        .iter()
        .map(|minor| format!("{prefix}-{major}.{minor}"))
        .collect();
    names.extend(
        prefixes
            .iter()
            .map(|prefix| format!("{prefix}-{major}.{minor}")),
    );
    names.remove(channel);
    let names: Vec<String> = names.into_iter().collect();
    let found = means
        .gather(names.len(), names.len(), |index| {
            graph(&names[index], wish, means).ok()
        })
        .ok()?;
    let graphs: BTreeMap<String, Graph> = names
        .into_iter()
        .zip(found)
        .filter_map(|(name, graph)| Some((name, graph?)))
        .collect();
    let near = choose::similar(channel, &graphs, &[]);
    choose::ChooseError::NoReleases {
        channel: channel.to_owned(),
        near,
    }
    .hint()
}

/// The graph of a channel, as the update service shows it to one architecture.
///
/// # Errors
/// If the service cannot be asked, or does not answer with a graph.
pub fn graph_of(
    channel: &str,
    product: Product,
    architecture: Architecture,
    means: &Means<'_>,
) -> Result<Graph, Problem> {
    let ask = |address: &Address| match means.within() {
        // Of an update service that is named on purpose, only what was vetted is seen.
        Some(_) => means.ask(address),
        None => means.get(address),
    };
    if let Some(vetted) = means.within()
        && (product == Product::Okd || means.resolver().names.is_none())
    {
        return vetted.graph(channel, product, architecture, means);
    }
    let services = &means.resolver().services;
    let base = match product {
        Product::Ocp => &services.graph,
        Product::Okd => &services.okd_graph,
    };
    let address = graph_address(base, channel, architecture);
    let bytes = ask(&address)?.ok_or_else(|| {
        Problem::new(format!(
            "there is no update graph of channel {channel} for {architecture} at {address}"
        ))
    })?;
    let graph = read_graph(&bytes, channel, architecture)
        .map_err(|problem| problem.about(format!("channel {channel}")))?;
    Ok(match means.within() {
        Some(vetted) => vetted.restrict(&graph),
        None => graph,
    })
}

fn graph(channel: &str, wish: &Wish, means: &Means<'_>) -> Result<Graph, Problem> {
    graph_of(channel, wish.product, wish.architecture, means)
}

/// Where the graph of a channel is asked for.
#[must_use]
pub fn graph_address(base: &str, channel: &str, architecture: Architecture) -> Address {
    Address {
        base: base.to_owned(),
        query: graph_query(channel, architecture)
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value))
            .collect(),
        accept: Some("application/json".to_owned()),
        file: Some(saved_graph_name(channel, architecture)),
    }
}

/// Reads an answer of the update service, or a file that holds the graph of several channels.
///
/// # Errors
/// If it is no graph.
pub fn read_graph(
    bytes: &[u8],
    channel: &str,
    architecture: Architecture,
) -> Result<Graph, Problem> {
    let graph = Graph::parse(bytes).map_err(|error| Problem::of(&error))?;
    let is_elsewhere = graph.releases().iter().any(|release| {
        let mut channels = release.channels().peekable();
        channels.peek().is_some() && !channels.any(|name| name == channel)
    });
    Ok(if is_elsewhere || graph.ambiguous().is_some() {
        graph.channel(channel, architecture.name())
    } else {
        graph
    })
}

/// A manifest that must be there.
fn known(origin: &PinOrigin, digest: &Digest, means: &Means<'_>) -> Result<Stored, Problem> {
    let PinOrigin::Registry(repository) = origin else {
        return Err(Problem::new(format!(
            "{origin}@{digest}: releases come from registries"
        )));
    };
    means
        .manifest(repository, digest)?
        .ok_or_else(|| Problem::new(format!("{repository}@{digest} is not there")))
}

/// One payload with everything in it; `None` and a note if it is left out.
fn payload(
    expected: &Expected,
    rule: &Rule,
    wish: &Wish,
    version: Option<&Version>,
    image: &ImageName,
    means: &Means<'_>,
) -> Result<(Option<Payload>, Vec<String>), Vec<Problem>> {
    let one = |problem: Problem| vec![problem];
    let label = version.map_or_else(
        || image.to_string(),
        |version| format!("release {} ({image})", version.clone().without_build()),
    );
    let name = image.to_string();
    let place = version.and_then(|version| {
        let version = version.clone().without_build().to_string();
        place_of(expected, rule, image, None, &version)
    });
    if let Some(why) = means.exclusions().excludes(&[&name], place.as_deref()) {
        return Ok((None, vec![format!("{label} {why}")]));
    }
    let about = |problem: Problem| vec![problem.about(&label)];
    let (origin, stored) = match image {
        ImageName::Registry(reference) if reference.digest.is_some() => {
            let origin = PinOrigin::Registry(reference.repository.clone());
            let digest = reference.digest.expect("it was there a line ago");
            let stored = known(&origin, &digest, means).map_err(about)?;
            (origin, stored)
        }
        name => {
            let named = means
                .resolve(name)
                .map_err(one)?
                .ok_or_else(|| one(Problem::new(format!("{name} is not there"))))?;
            (named.origin, named.stored)
        }
    };
    let mut pin = means.pin(origin, stored, &wish.platforms).map_err(about)?;
    let mut notes = Vec::new();
    if rule.has_step(Kind::FindSignature) && wish.policy != Policy::Skip {
        match signatures(&pin.digest, wish, means) {
            Ok(found) => pin.signatures = found,
            Err(problem) if wish.policy == Policy::Warn => {
                notes.push(format!("{label}: {}", problem.text));
            }
            Err(problem) => return Err(about(problem)),
        }
    }
    let found = components(expected, rule, wish, &pin, stored, means).map_err(|problems| {
        problems
            .into_iter()
            .map(|problem| problem.about(&label))
            .collect::<Vec<_>>()
    })?;
    if let Some(version) = version.filter(|version| !version.same_release(&found.version)) {
        return Err(about(Problem::new(format!(
            "the payload calls itself {}, not {version}",
            found.version
        ))));
    }
    notes.extend(found.notes);
    Ok((
        Some(Payload {
            version: found.version.without_build().to_string(),
            pin,
            components: found.components,
        }),
        notes,
    ))
}

/// The valid signatures of a payload, which are in the store then.
fn signatures(digest: &Digest, wish: &Wish, means: &Means<'_>) -> Result<Vec<Signature>, Problem> {
    if let Some(vetted) = means.within() {
        return signatures_within(vetted, digest, wish, means);
    }
    let stores = means.resolver().services.stores_of(wish.product);
    let mut found = Vec::new();
    let mut reasons = Vec::new();
    let mut silent = None;
    for number in 1..=SIGNATURES_PER_DIGEST {
        let mut bytes = None;
        for store in &stores {
            match means.get(&Address::plain(address(store, digest, number))) {
                Ok(Some(signature)) => {
                    bytes = Some(signature);
                    break;
                }
                Ok(None) => {}
                Err(problem) => silent = Some(problem),
            }
        }
        let Some(bytes) = bytes else { break };
        let name = format!("signature-{number}");
        match verify(&bytes, digest, &wish.ring, None) {
            Ok(_) => {
                let blob = means.keep(&bytes)?;
                found.push(Signature {
                    digest: blob.digest,
                    size: blob.size,
                    from: name,
                });
            }
            Err(error) => reasons.push(Problem::of(&error).about(name)),
        }
    }
    if !found.is_empty() {
        return Ok(found);
    }
    if reasons.is_empty() {
        // A store that does not answer is no proof that there is no signature.
        if let Some(problem) = silent {
            return Err(problem.about("the signatures cannot be looked for"));
        }
        return Err(Problem::new(format!(
            "no signature of {digest} is at {}",
            stores.join(" or ")
        ))
        .hint("a release without one can be had with `policy = \"warn\"` under [signatures.release] in imgbuild.toml")
        .trust());
    }
    let hint = reasons.iter().find_map(|reason| reason.hint.clone());
    let texts: Vec<String> = reasons.into_iter().map(|reason| reason.text).collect();
    let mut problem = Problem::new(format!(
        "no signature of {digest} can be verified with {}: {}",
        wish.keys,
        texts.join("; ")
    ))
    .trust();
    problem.hint = hint;
    Err(problem)
}

/// The same, where only another lock answers: those that it pins.
fn signatures_within(
    vetted: &Vetted<'_>,
    digest: &Digest,
    wish: &Wish,
    means: &Means<'_>,
) -> Result<Vec<Signature>, Problem> {
    let mut found = Vec::new();
    let mut reasons = Vec::new();
    for (signature, bytes) in within::signatures(vetted, digest, means)? {
        match verify(&bytes, digest, &wish.ring, None) {
            Ok(_) => found.push(signature),
            Err(error) => reasons.push(format!("{}: {}", signature.from, one_line(&error))),
        }
    }
    if found.is_empty() {
        let why = if reasons.is_empty() {
            format!("{vetted} pins no signature of {digest}")
        } else {
            format!(
                "no signature of {digest} can be verified with {}: {}",
                wish.keys,
                reasons.join("; ")
            )
        };
        return Err(Problem::new(why).trust());
    }
    Ok(found)
}

/// What a payload says of itself.
struct Told {
    version: Version,
    components: Vec<Component>,
    notes: Vec<String>,
}

#[derive(Deserialize)]
struct Config {
    #[serde(default)]
    architecture: String,
}

/// Reads a payload and pins its components.
fn components(
    expected: &Expected,
    rule: &Rule,
    wish: &Wish,
    pin: &Pin,
    stored: Stored,
    means: &Means<'_>,
) -> Result<Told, Vec<Problem>> {
    let one = |problem: Problem| vec![problem];
    // What is pinned may have fewer platforms than are wished for, never more.
    let platforms = if pin.platforms.is_empty() {
        &wish.platforms
    } else {
        &pin.platforms
    };
    let instance = means
        .instance(&pin.origin, stored, platforms)
        .map_err(one)?;
    let mut paths = vec![IMAGE_REFERENCES, RELEASE_METADATA];
    if wish.disks.is_some() {
        paths.push(BOOT_IMAGES);
    }
    let files = means
        .members(&pin.origin, &instance, &paths, FILE_LIMIT as u64)
        .map_err(one)?;
    let mut files = paths.iter().zip(files).map(|(path, bytes)| {
        bytes.ok_or_else(|| {
            one(Problem::new(format!("the image has no {path}"))
                .hint("it is no release payload; compare with `oc adm release info`"))
        })
    });
    let (Some(references), Some(metadata)) = (files.next(), files.next()) else {
        return Err(one(Problem::new("the image has no files")));
    };
    let contents =
        Contents::parse(&references?, &metadata?).map_err(|error| one(Problem::of(&error)))?;
    check_architecture(&contents, &instance, pin, wish, means).map_err(one)?;
    let mut listed = contents.references.components;
    if let (Some(wanted), Some(bytes)) = (&wish.disks, files.next()) {
        listed.extend(contents::disks(&bytes?, wanted).map_err(|error| one(Problem::of(&error)))?);
    }
    let version = contents.references.version;
    let mut notes = Vec::new();
    let tagged = version.clone().without_build().to_string();
    listed.retain(|component| {
        let name = component.image.to_string();
        let origin = ImageName::Registry(component.image.clone());
        let place = place_of(expected, rule, &origin, Some(&component.name), &tagged);
        match means.exclusions().excludes(&[&name], place.as_deref()) {
            None => true,
            Some(why) => {
                notes.push(format!(
                    "component {} of {version} ({name}) {why}",
                    component.name
                ));
                false
            }
        }
    });
    let wanted: Vec<(&Repository, Digest)> = listed
        .iter()
        .filter_map(|component| Some((&component.image.repository, component.image.digest?)))
        .collect();
    let stored = means.manifests(&wanted).map_err(one)?;
    let mut pins = Vec::new();
    let mut problems = Vec::new();
    for (component, stored) in listed.iter().zip(stored) {
        let pinned = stored.and_then(|stored| {
            let stored =
                stored.ok_or_else(|| Problem::new(format!("{} is not there", component.image)))?;
            let origin = PinOrigin::Registry(component.image.repository.clone());
            means.pin(origin, stored, &wish.platforms)
        });
        match pinned {
            Ok(pin) => pins.push(Component {
                name: component.name.clone(),
                pin,
            }),
            Err(problem) => {
                problems.push(problem.about(format!("component {}", component.name)));
            }
        }
    }
    if problems.is_empty() {
        Ok(Told {
            version,
            components: pins,
            notes,
        })
    } else {
        Err(problems)
    }
}

/// The place that an image of a release would have at a destination, for patterns that block by it.
fn place_of(
    expected: &Expected,
    rule: &Rule,
    origin: &ImageName,
    component: Option<&str>,
    version: &str,
) -> Option<String> {
    let ImageName::Registry(reference) = origin else {
        return None;
    };
    let subject = Subject {
        owner: expected.key.to_string(),
        origin,
        role: component.map_or("payload", |_| "component"),
        name: component,
        version: Some(version),
        block: super::block_value(&expected.key),
        want: super::want_value(&expected.want),
        source: Some(&reference.repository),
        blob: Blob {
            digest: reference.digest?,
            size: 0,
        },
        platforms: &[],
    };
    let placed = place(rule, &Layout::default(), &subject).ok()?;
    Some(format!("{}:{}", placed.path, placed.tag))
}

/// What a payload is for, by its own word or that of its image.
///
/// # Errors
/// If its config does not arrive or cannot be read, or names no architecture that releases have.
pub fn architecture(
    contents: &Contents,
    instance: &Instance,
    origin: &PinOrigin,
    means: &Means<'_>,
) -> Result<Architecture, Problem> {
    let config = match &instance.image.config {
        None => String::new(),
        Some(config) => {
            let config: &Descriptor = config;
            let blob = Blob::from(config);
            means.blob(blob, vec![super::means::origin_of(origin)])?;
            let bytes = read(means.resolver().store, &blob, CONFIG_LIMIT)
                .map_err(|error| Problem::new(one_line(&error)))?;
            let config: Config = serde_json::from_slice(&bytes).map_err(|error| {
                Problem::new(format!("the config of the payload cannot be read: {error}"))
            })?;
            config.architecture
        }
    };
    contents
        .metadata
        .architecture(&config, instance.of)
        .map_err(|error| Problem::of(&error))
}

/// A payload must be for the architecture that was asked for.
fn check_architecture(
    contents: &Contents,
    instance: &Instance,
    pin: &Pin,
    wish: &Wish,
    means: &Means<'_>,
) -> Result<(), Problem> {
    let found = architecture(contents, instance, &pin.origin, means)?;
    if found == wish.architecture {
        return Ok(());
    }
    Err(Problem::new(format!(
        "the payload is for {found}, not for {}",
        wish.architecture
    ))
    .hint(format!("set `architectures: [{found}]` under platform")))
}

/// A release whose signatures do not hold, where they are looked at again.
#[derive(Debug, thiserror::Error)]
#[error("release {version} ({image}) is not vouched for: {reason}")]
pub struct Unsigned {
    /// The version.
    pub version: String,
    /// The payload.
    pub image: String,
    /// What is wrong.
    pub reason: String,
}

/// Verifies the pinned signatures of every release in a lock again, as its wants say; nothing is asked of anybody.
///
/// `file` gives the bytes of key files that a want names.
///
/// # Errors
/// With the first release that no pinned signature vouches for though its want requires one.
pub fn verify_pinned(
    lock: &Lock,
    rules: &Rules,
    source: &dyn Source,
    file: &dyn Fn(&Digest) -> Option<Vec<u8>>,
) -> Result<usize, Unsigned> {
    let (count, mut wrong) = unsigned(lock, rules, source, file);
    if wrong.is_empty() {
        Ok(count)
    } else {
        Err(wrong.swap_remove(0))
    }
}

/// The same for all of them: how many are vouched for, and which are not.
#[must_use]
pub fn unsigned(
    lock: &Lock,
    rules: &Rules,
    source: &dyn Source,
    file: &dyn Fn(&Digest) -> Option<Vec<u8>>,
) -> (usize, Vec<Unsigned>) {
    let looks = rules
        .recording(crate::step::rule::BlockKind::Release)
        .is_some_and(|rule| rule.has_step(Kind::FindSignature));
    let mut count = 0;
    let mut wrong = Vec::new();
    for release in lock.releases.iter().filter(|_| looks) {
        let settings = release.want.settings();
        let policy = policy(settings);
        if policy == Policy::Skip {
            continue;
        }
        for payload in &release.payloads {
            let unsigned = |reason: String| Unsigned {
                version: payload.version.clone(),
                image: payload.pin.image(),
                reason,
            };
            if payload.pin.signatures.is_empty() {
                if policy == Policy::Warn {
                    continue;
                }
                wrong.push(unsigned("no signature is pinned".to_owned()));
                continue;
            }
            let ring = ring(settings, &|digest| {
                file(digest).map(|bytes| (digest.to_string(), bytes))
            });
            let (ring, keys) = match ring {
                Ok(found) => found,
                Err(problem) => {
                    wrong.push(unsigned(problem.text));
                    continue;
                }
            };
            let mut reasons = Vec::new();
            let mut holds = false;
            for signature in &payload.pin.signatures {
                let blob = Blob {
                    digest: signature.digest,
                    size: signature.size,
                };
                let outcome = read(source, &blob, SIGNATURE_LIMIT as u64)
                    .map_err(|error| one_line(&error))
                    .and_then(|bytes| {
                        verify(&bytes, &payload.pin.digest, &ring, None)
                            .map_err(|error| one_line(&error))
                    });
                match outcome {
                    Ok(_) => {
                        holds = true;
                        break;
                    }
                    Err(reason) => reasons.push(format!("{}: {reason}", signature.from)),
                }
            }
            if holds {
                count += 1;
            } else {
                wrong.push(unsigned(format!("with {keys}, {}", reasons.join("; "))));
            }
        }
    }
    (count, wrong)
}

/// The number in the name of a signature (`signature-3`).
#[must_use]
pub fn signature_number(from: &str) -> Option<u32> {
    from.strip_prefix("signature-")?.parse().ok()
}

/// The path of a pinned signature in the stores that it may be in; `None` if it is none of a release.
#[must_use]
pub fn path_of_signature(pin: &Pin, signature: &Signature) -> Option<String> {
    path_of(&pin.digest, signature)
}

/// The same for the image of a digest.
#[must_use]
pub fn path_of(digest: &Digest, signature: &Signature) -> Option<String> {
    Some(signature_path(digest, signature_number(&signature.from)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expected(channel: &str, arch: &str, want: &[(&str, Value)]) -> Expected {
        Expected {
            key: BlockKey::Release {
                name: ReleaseName::Channel(channel.to_owned()),
                arch: arch.to_owned(),
            },
            want: Want::new(want.iter().cloned()),
            image: None,
            platforms: Vec::new(),
            rule: "release".to_owned(),
            at: format!("c.yaml:{}", channel.len()),
        }
    }

    #[test]
    fn several_channels_of_one_architecture_make_a_path_whatever_their_order() {
        let okd = expected("4-stable", "amd64", &[("type", "okd".into())]);
        let rows = [
            expected(
                "stable-4.16",
                "amd64",
                &[("max", "4.16.3".into()), ("signatures", "warn".into())],
            ),
            expected(
                "stable-4.14",
                "amd64",
                &[("min", "4.14.5".into()), ("signatures", "warn".into())],
            ),
            expected("stable-4.16", "arm64", &[]),
            okd,
        ];
        let found = across(&rows);
        assert_eq!(
            found.len(),
            1,
            "arm64 has one channel, and OKD takes no part"
        );
        assert_eq!(
            found[0].key.to_string(),
            "release stable-4.14+stable-4.16 amd64",
            "the block is named by its ends"
        );
        let part = |channel: &str, bound: &str, version: &str| {
            Value::map([("channel", channel.into()), (bound, version.into())])
        };
        assert_eq!(
            found[0].want,
            Want::new([
                ("signatures", Value::from("warn")),
                (
                    "across",
                    Value::List(vec![
                        part("stable-4.14", "min", "4.14.5"),
                        part("stable-4.16", "max", "4.16.3"),
                    ])
                ),
            ]),
            "its want repeats those of the channels"
        );
        let reversed: Vec<Expected> = rows.iter().rev().cloned().collect();
        assert_eq!(
            (&across(&reversed)[0].key, &across(&reversed)[0].want),
            (&found[0].key, &found[0].want),
            "the order of the config does not matter"
        );
        assert_eq!(
            across(&rows[1..2]).len(),
            0,
            "one channel has no path to another"
        );
    }

    #[test]
    fn a_want_says_what_is_asked_of_a_channel() {
        let settings = BTreeMap::from([
            ("type".to_owned(), Value::from("okd")),
            ("min".to_owned(), "4.15.0-0.okd-2024-03-10-010116".into()),
            ("full".to_owned(), Value::Bool(true)),
            ("path".to_owned(), "shortest".into()),
        ]);
        let want = channel_want("4-stable", &settings).unwrap();
        assert_eq!(
            (want.product, want.full, want.shortest_path, want.max),
            (Product::Okd, true, true, None),
            "every setting counts"
        );
        let error = channel_want(
            "stable-4.16",
            &BTreeMap::from([("min".to_owned(), "four".into())]),
        )
        .unwrap_err();
        assert!(
            error.text.contains("stable-4.16"),
            "{} names it",
            error.text
        );
    }

    #[test]
    fn a_graph_of_several_channels_and_architectures_is_cut_to_one() {
        let node = |version: &str, channels: &str| {
            format!(
                r#"{{"version":"{version}","payload":"quay.io/a/b@sha256:{}","metadata":{{"io.openshift.upgrades.graph.release.channels":"{channels}"}}}}"#,
                "a".repeat(64)
            )
        };
        let versions = |nodes: &[String], channel: &str| -> Vec<String> {
            let text = format!(
                r#"{{"version":1,"nodes":[{}],"edges":[]}}"#,
                nodes.join(",")
            );
            let graph = read_graph(text.as_bytes(), channel, Architecture::Amd64).unwrap();
            graph
                .releases()
                .iter()
                .map(|release| release.version.to_string())
                .collect()
        };
        let all = [
            node("4.16.1+amd64", "fast-4.16,stable-4.16"),
            node("4.16.1+arm64", "fast-4.16,stable-4.16"),
            node("4.16.2+amd64", "fast-4.16"),
        ];
        assert_eq!(
            versions(&all, "stable-4.16"),
            ["4.16.1"],
            "one channel of one architecture"
        );
        assert_eq!(
            versions(&[node("4.16.1", "")], "stable-4.16"),
            ["4.16.1"],
            "an answer that names no channels is for the one asked about"
        );
        assert!(
            read_graph(b"[]", "stable-4.16", Architecture::Amd64).is_err(),
            "what is no graph is refused"
        );
    }

    #[test]
    fn a_store_that_is_named_replaces_those_that_are_known() {
        let mut services = Services::default();
        assert_eq!(services.stores_of(Product::Ocp), RED_HAT_STORES);
        assert_eq!(services.stores_of(Product::Okd), COMMUNITY_STORES);
        assert_eq!(
            services.signature_stores().len(),
            RED_HAT_STORES.len() + COMMUNITY_STORES.len(),
            "a build looks everywhere"
        );
        services.signatures = vec!["https://example.test/".to_owned()];
        assert_eq!(
            [
                services.stores_of(Product::Okd),
                services.signature_stores()
            ],
            [["https://example.test/"], ["https://example.test/"]],
            "the one that is named counts"
        );
    }

    #[test]
    fn only_numbered_signatures_are_those_of_a_release() {
        for (from, wanted) in [
            ("signature-1", Some(1)),
            ("signature-12", Some(12)),
            ("signature-", None),
            ("sha256-aa.sig", None),
        ] {
            assert_eq!(signature_number(from), wanted, "{from}");
        }
    }
}
