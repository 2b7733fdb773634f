//! Signatures of images: found when a pin is made, and verified wherever the lock goes.
//!
//! A rule with a step `find-signature` has them looked for. What is demanded comes from the settings and is repeated in
//! the `want` of a block, so it travels with the lock and needs nothing else to be judged again:
//!
//! ```toml
//! want = { signed = [{ keys = ["sha256:…"], kind = "cosign", policy = "require", scope = "quay.io/team" }] }
//! image = "quay.io/team/app@sha256:…"
//! signatures = [{ digest = "sha256:…", size = 558, from = "cosign" }]
//! ```
//!
//! | `from` | is | verified |
//! |---|---|---|
//! | `cosign` | the image behind the tag `sha256-<hex>.sig` | with the keys |
//! | `referrer` | an image that refers to the pinned one, where `referrers = true` | with the keys, if it holds signatures |
//! | a URL or a path | a GPG signature in a lookaside | with the keys |
//!
//! Of all scopes that a pin is in, the most precise one decides, alone. All demands of it must be fulfilled. Releases have
//! signatures of their own, see [`super::release`]; these demands are not held to them.
//!
//! Signatures lie beside their image at the destination too: `cosign` under the same tag, a `referrer` under
//! `sha256-<hex>.<digits>`. Those from a lookaside have no place in a registry; they are in the archives.

use std::collections::BTreeMap;

use super::means::{Means, Problem, origin_of};
use super::{Expected, Found};
use crate::canon::Value;
use crate::digest::Digest;
use crate::oci::{MANIFEST_LIMIT, Manifest};
use crate::openshift::signature::{Keyring, SIGNATURE_LIMIT, verify as verify_gpg};
use crate::plan::key::Role;
use crate::plan::lock::{
    Block, ChartSource, Lock, NewBlock, Origin as PinOrigin, Pin, Signature, Want,
};
use crate::reference::{ImageName, Reference, Repository, Tag};
use crate::registry::cosign::{self, Key, PAYLOAD_LIMIT};
use crate::registry::policy::{Identity, candidates, lookaside_path};
use crate::run::event::one_line;
use crate::step::rule::{BlockKind, Rules};
use crate::step::{Address, Kind};
use crate::store::{Blob, Source, read};

/// Where a want has its demands.
pub const SIGNED: &str = "signed";

/// `from` of what lies behind the tag of cosign.
pub const COSIGN: &str = "cosign";

/// `from` of what refers to the image.
pub const REFERRER: &str = "referrer";

/// Signatures of one image that a lookaside is asked for; more are nobody's habit.
const LOOKASIDE_SIGNATURES: u32 = 16;

/// Pins of one block that are dealt with at once.
const PINS_AT_ONCE: usize = 8;

/// What a missing signature means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Policy {
    /// The image is not locked.
    Require,
    /// It is said; what is found is carried along.
    Warn,
    /// Nothing is looked for.
    Accept,
    /// No signature helps.
    Reject,
}

impl Policy {
    const ALL: [(Self, &'static str); 4] = [
        (Self::Require, "require"),
        (Self::Warn, "warn"),
        (Self::Accept, "accept"),
        (Self::Reject, "reject"),
    ];

    /// As a want writes it.
    #[must_use]
    pub fn text(self) -> &'static str {
        Self::ALL
            .iter()
            .find(|(policy, _)| *policy == self)
            .map_or("", |(_, text)| text)
    }
}

/// What kind of signature is meant.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Form {
    /// By cosign, beside the image; among its referrers as well, if that is said.
    Cosign {
        /// Whether whatever refers to the image is carried along.
        referrers: bool,
    },
    /// By GPG, below a URL or a folder; nowhere, if the tools were not told where.
    Gpg {
        /// Where.
        lookaside: Option<String>,
    },
}

/// What is demanded of the images in a scope.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Demand {
    /// A name, a repository, a namespace, a registry, `*.` and a domain, or "" for everything.
    pub scope: String,
    /// What a missing signature means.
    pub policy: Policy,
    /// What kind of signature is meant.
    pub form: Form,
    /// The files of public keys that may have made it.
    pub keys: Vec<Digest>,
    /// Which name it must be of.
    pub identity: Identity,
}

impl Demand {
    fn value(&self) -> Value {
        let mut entries = BTreeMap::from([
            ("scope".to_owned(), Value::from(self.scope.as_str())),
            ("policy".to_owned(), self.policy.text().into()),
        ]);
        let mut set = |name: &str, value: Value| {
            entries.insert(name.to_owned(), value);
        };
        if !matches!(self.policy, Policy::Accept | Policy::Reject) {
            match &self.form {
                Form::Cosign { referrers } => {
                    set("kind", COSIGN.into());
                    if *referrers {
                        set("referrers", Value::Bool(true));
                    }
                }
                Form::Gpg { lookaside } => {
                    set("kind", "gpg".into());
                    if let Some(lookaside) = lookaside {
                        set("lookaside", lookaside.as_str().into());
                    }
                }
            }
            if !self.keys.is_empty() {
                let keys = self.keys.iter().map(|key| Value::Digest(*key)).collect();
                set("keys", Value::List(keys));
            }
            if self.identity != Identity::Repository {
                set("identity", self.identity.text().as_str().into());
            }
        }
        Value::Map(entries)
    }

    fn read(value: &Value) -> Option<Self> {
        let Value::Map(entries) = value else {
            return None;
        };
        let text = |name: &str| match entries.get(name) {
            Some(Value::Text(text)) => Some(text.as_str()),
            _ => None,
        };
        let policy = text("policy")?;
        let policy = Policy::ALL.iter().find(|(_, text)| *text == policy)?.0;
        let keys = match entries.get("keys") {
            Some(Value::List(keys)) => keys
                .iter()
                .map(|key| match key {
                    Value::Text(text) => text.parse().ok(),
                    Value::Digest(digest) => Some(*digest),
                    _ => None,
                })
                .collect::<Option<_>>()?,
            _ => Vec::new(),
        };
        Some(Self {
            scope: text("scope")?.to_owned(),
            policy,
            form: match text("kind") {
                Some("gpg") => Form::Gpg {
                    lookaside: text("lookaside").map(str::to_owned),
                },
                Some(COSIGN) | None => Form::Cosign {
                    referrers: matches!(entries.get("referrers"), Some(Value::Bool(true))),
                },
                Some(_) => return None,
            },
            keys,
            identity: match text("identity") {
                Some(text) => Identity::parse(text)?,
                None => Identity::Repository,
            },
        })
    }
}

/// What a block repeats of the demands: those of the one scope that decides where the block is one image, all of them
/// where it finds its images later. `None` if there is nothing to repeat.
#[must_use]
pub fn wanted(demands: &[Demand], image: Option<&ImageName>) -> Option<Value> {
    let mut all: Vec<&Demand> = match image {
        Some(ImageName::Registry(name)) => {
            let tag = name.tag.as_ref().map(Tag::as_str);
            deciding(demands, &name.repository, tag)
        }
        // Layouts on disk have no scope.
        Some(ImageName::Layout(_)) => Vec::new(),
        None => demands.iter().collect(),
    };
    all.sort();
    all.dedup();
    // Where nothing is looked for anyway, a permission says nothing.
    if all.iter().all(|demand| demand.policy == Policy::Accept) {
        return None;
    }
    Some(Value::List(all.into_iter().map(Demand::value).collect()))
}

/// The demands of the most precise scope.
fn deciding<'d>(
    demands: &'d [Demand],
    repository: &Repository,
    tag: Option<&str>,
) -> Vec<&'d Demand> {
    candidates(repository, tag)
        .iter()
        .map(|scope| {
            demands
                .iter()
                .filter(|demand| demand.scope == *scope)
                .collect::<Vec<_>>()
        })
        .find(|found| !found.is_empty())
        .unwrap_or_default()
}

/// The demands in a want.
fn demands(want: &Want) -> Result<Vec<Demand>, Problem> {
    match want.get(SIGNED) {
        None => Ok(Vec::new()),
        Some(Value::List(items)) => items
            .iter()
            .map(|item| {
                Demand::read(item).ok_or_else(|| {
                    Problem::new("what is demanded of signatures is not understood here")
                        .hint("a newer imgbuild wrote it: upgrade")
                })
            })
            .collect(),
        Some(_) => Err(Problem::new("what is demanded of signatures is no list")),
    }
}

/// The files of public keys that a want names.
#[must_use]
pub fn keys_of(want: &Want) -> Vec<Digest> {
    demands(want)
        .unwrap_or_default()
        .into_iter()
        .flat_map(|demand| demand.keys)
        .collect()
}

/// A pin, and the tag that it was asked for by.
type Tagged<'a> = (&'a mut Pin, Option<String>);

/// The pins of a new block whose signatures are looked for.
fn pins_of(block: &mut NewBlock) -> Vec<Tagged<'_>> {
    fn tagged(pin: &mut Pin) -> Tagged<'_> {
        let tag = pin.tag.as_ref().map(ToString::to_string);
        (pin, tag)
    }
    match block {
        NewBlock::Image(image) => vec![(&mut image.pin, tag_of(&image.reference))],
        NewBlock::Catalog(catalog) => {
            let tag = tag_of(&catalog.reference);
            std::iter::once((&mut catalog.pin, tag))
                .chain(catalog.packages.iter_mut().flat_map(|package| {
                    package
                        .bundles
                        .iter_mut()
                        .map(|bundle| &mut bundle.pin)
                        .chain(&mut package.images)
                        .map(tagged)
                }))
                .collect()
        }
        NewBlock::Package { package, .. } => package
            .bundles
            .iter_mut()
            .map(|bundle| &mut bundle.pin)
            .chain(&mut package.images)
            .map(tagged)
            .collect(),
        NewBlock::Chart(chart) => {
            let own = match &mut chart.source {
                ChartSource::Image(pin) => Some(tagged(pin)),
                ChartSource::File { .. } => None,
            };
            own.into_iter()
                .chain(chart.images.iter_mut().map(tagged))
                .collect()
        }
        NewBlock::Release(_) | NewBlock::File(_) | NewBlock::Blocked(_) | NewBlock::Skip(_) => {
            Vec::new()
        }
    }
}

fn tag_of(reference: &str) -> Option<String> {
    match reference.parse().ok()? {
        ImageName::Registry(name) => name.tag.map(|tag| tag.to_string()),
        ImageName::Layout(_) => None,
    }
}

/// Looks for the signatures of everything that a new block pins, and holds them to what its want demands. Those that
/// `before` has of the same images are kept.
///
/// # Errors
/// With every image whose signatures do not do.
pub fn complete(
    mut found: Found,
    expected: &Expected,
    before: Option<&Lock>,
    means: &Means<'_>,
) -> Result<Found, Vec<Problem>> {
    let demands = demands(&expected.want).map_err(|problem| vec![problem])?;
    if demands.is_empty() {
        return Ok(found);
    }
    let known: BTreeMap<Digest, Vec<Signature>> = before
        .filter(|lock| {
            let block = lock.find(&expected.key);
            block.and_then(|block| block.want().cloned()).as_ref() == Some(&expected.want)
        })
        .into_iter()
        .flat_map(Lock::owners)
        .filter(|(key, _)| *key == expected.key || key.parent().as_ref() == Some(&expected.key))
        .flat_map(|(_, pins)| pins)
        .filter(|(_, pin)| !pin.signatures.is_empty())
        .map(|(_, pin)| (pin.digest, pin.signatures.clone()))
        .collect();
    let mut pins = pins_of(&mut found.block);
    let results = means
        .gather(pins.len(), PINS_AT_ONCE, |index| {
            let (pin, tag) = &pins[index];
            look(pin, tag.as_deref(), &demands, known.get(&pin.digest), means)
        })
        .map_err(|problem| vec![problem])?;
    let mut problems = Vec::new();
    for ((pin, _), result) in pins.iter_mut().zip(results) {
        match result {
            Ok((signatures, notes)) => {
                pin.signatures = signatures;
                found.notes.extend(notes);
            }
            Err(problem) => problems.push(problem),
        }
    }
    if problems.is_empty() {
        Ok(found)
    } else {
        Err(problems)
    }
}

/// The rule that a demand stands for, as people wrote it.
fn rule(demand: &Demand) -> String {
    let scope = if demand.scope.is_empty() {
        "everything"
    } else {
        &demand.scope
    };
    format!("{} for {scope}", demand.policy.text())
}

/// Finds the signatures of one pin.
fn look(
    pin: &Pin,
    tag: Option<&str>,
    demands: &[Demand],
    known: Option<&Vec<Signature>>,
    means: &Means<'_>,
) -> Result<(Vec<Signature>, Vec<String>), Problem> {
    let PinOrigin::Registry(repository) = &pin.origin else {
        return Ok((Vec::new(), Vec::new()));
    };
    let image = pin.image();
    let mut found: Vec<Signature> = known.cloned().unwrap_or_default();
    let mut notes = Vec::new();
    for demand in deciding(demands, repository, tag) {
        let refused = |reason: &str| {
            Problem::new(format!("{image}: {reason} (signatures: {})", rule(demand))).trust()
        };
        match demand.policy {
            Policy::Accept => continue,
            Policy::Reject => return Err(refused("nothing of this scope may be mirrored")),
            Policy::Require | Policy::Warn => {}
        }
        let candidates = match known {
            Some(known) => known.clone(),
            None => match (means.within(), &demand.form) {
                // What was vetted with the image, and nothing that came later.
                (Some(vetted), _) => vetted_beside(vetted.signatures(&pin.digest), pin, means),
                (None, Form::Cosign { referrers }) => beside(repository, pin, *referrers, means),
                (None, Form::Gpg { lookaside }) => {
                    aside(repository, pin, lookaside.as_deref(), means)
                }
            }
            .map_err(|problem| {
                problem.about(format!("the signatures of {image} cannot be looked for"))
            })?,
        };
        if demand.policy == Policy::Warn && demand.keys.is_empty() && !candidates.is_empty() {
            // Whatever is there is to be carried, and there is nothing to verify it with.
            found.extend(candidates);
            continue;
        }
        let mut alone = pin.clone();
        alone.signatures.clone_from(&candidates);
        let store = means.resolver().store;
        let held = hold(&alone, tag, demand, store, &|digest| {
            means.file(digest).map(|(_, bytes)| bytes.clone())
        });
        match held {
            Ok(()) => found.extend(candidates),
            Err(reason) if demand.policy == Policy::Warn => {
                notes.push(format!("{image}: {reason}"));
                // A signature that proves nothing is not carried.
                found.extend(
                    candidates
                        .into_iter()
                        .filter(|signature| signature.from == REFERRER),
                );
            }
            Err(reason) => {
                return Err(refused(&reason).hint(
                    "have it signed, or change what [signatures] in imgbuild.toml demands of this scope",
                ));
            }
        }
    }
    found.sort_by(|left, right| (&left.from, left).cmp(&(&right.from, right)));
    found.dedup();
    Ok((found, notes))
}

/// What lies beside an image in its registry: signatures behind the tag of cosign, and what refers to it.
fn beside(
    repository: &Repository,
    pin: &Pin,
    referrers: bool,
    means: &Means<'_>,
) -> Result<Vec<Signature>, Problem> {
    let mut found = Vec::new();
    let name = ImageName::Registry(Reference {
        repository: repository.clone(),
        tag: Some(cosign::tag(&pin.digest)),
        digest: None,
    });
    if let Some(named) = means.resolve(&name)? {
        found.push((named.stored.blob, COSIGN));
    }
    if referrers {
        for descriptor in means.referrers(repository, &pin.digest)? {
            let stored = means
                .manifest(repository, &descriptor)?
                .ok_or_else(|| Problem::new(format!("{repository}@{descriptor} is not there")))?;
            found.push((stored.blob, REFERRER));
        }
    }
    let mut signatures = Vec::new();
    for (blob, from) in found {
        payloads(&blob, pin, means)?;
        signatures.push(Signature {
            digest: blob.digest,
            size: blob.size,
            from: from.to_owned(),
        });
    }
    Ok(signatures)
}

/// Brings along what is needed to verify a signature that lies beside its image; the rest comes with the build.
fn payloads(signature: &Blob, pin: &Pin, means: &Means<'_>) -> Result<(), Problem> {
    let bytes = read(means.resolver().store, signature, MANIFEST_LIMIT)
        .map_err(|error| Problem::new(one_line(&error)))?;
    if let Ok(Manifest::Image(image)) = Manifest::parse(&bytes, None) {
        for signed in cosign::signed(&image).unwrap_or_default() {
            if signed.payload.size <= PAYLOAD_LIMIT {
                means.blob(signed.payload, vec![origin_of(&pin.origin)])?;
            }
        }
    }
    Ok(())
}

/// The signatures that another lock pins with an image, which are in the store then.
fn vetted_beside(
    signatures: &[Signature],
    pin: &Pin,
    means: &Means<'_>,
) -> Result<Vec<Signature>, Problem> {
    for signature in signatures {
        if let (None, Some(repository)) = (address_of(signature), pin.repository()) {
            means
                .manifest(repository, &signature.digest)?
                .ok_or_else(|| {
                    Problem::new(format!("{repository}@{} is not there", signature.digest))
                })?;
            payloads(&blob_of(signature), pin, means)?;
        }
    }
    Ok(signatures.to_vec())
}

/// The signatures of an image in a lookaside.
fn aside(
    repository: &Repository,
    pin: &Pin,
    lookaside: Option<&str>,
    means: &Means<'_>,
) -> Result<Vec<Signature>, Problem> {
    let mut found = Vec::new();
    let Some(base) = lookaside else {
        return Ok(found);
    };
    for number in 1..=LOOKASIDE_SIGNATURES {
        let path = lookaside_path(base, repository, &pin.digest, number);
        let Some(bytes) = means.get(&Address::plain(&*path))? else {
            break;
        };
        let blob = means.keep(&bytes)?;
        found.push(Signature {
            digest: blob.digest,
            size: blob.size,
            from: path,
        });
    }
    Ok(found)
}

/// A file of public keys, by digest.
type FileOf<'a> = &'a dyn Fn(&Digest) -> Option<Vec<u8>>;

/// Holds the pinned signatures of an image to one demand; why they do not do.
fn hold(
    pin: &Pin,
    tag: Option<&str>,
    demand: &Demand,
    source: &dyn Source,
    file: FileOf<'_>,
) -> Result<(), String> {
    let Some(repository) = pin.repository() else {
        return Ok(());
    };
    let files = || {
        demand
            .keys
            .iter()
            .map(|digest| {
                let bytes = file(digest)
                    .ok_or_else(|| format!("the file of public keys {digest} is not at hand"))?;
                Ok((digest.to_string(), bytes))
            })
            .collect::<Result<Vec<_>, String>>()
    };
    let accepted = |name: &str| {
        if demand.identity.accepts(name, repository, tag) {
            Ok(())
        } else {
            Err(format!("it is of {name}, which is another identity"))
        }
    };
    let mut reasons = Vec::new();
    match &demand.form {
        Form::Cosign { .. } => {
            let mut keys = Vec::new();
            for (name, bytes) in files()? {
                keys.extend(Key::parse(&name, &bytes).map_err(|error| one_line(&error))?);
            }
            let beside =
                |signature: &&Signature| signature.from == COSIGN || signature.from == REFERRER;
            for signature in pin.signatures.iter().filter(beside) {
                match by_cosign(pin, signature, &keys, source, &accepted) {
                    Ok(()) => return Ok(()),
                    // Not everything that refers to an image is a signature.
                    Err(None) => {}
                    Err(Some(reason)) => reasons.push(format!("{}: {reason}", signature.from)),
                }
            }
        }
        Form::Gpg { lookaside } => {
            let mut ring = Keyring::default();
            for (name, bytes) in files()? {
                ring.extend(Keyring::parse(&name, &bytes).map_err(|error| one_line(&error))?);
            }
            if lookaside.is_none() {
                reasons.push("registries.d names no lookaside for it".to_owned());
            }
            for signature in pin.signatures.iter().filter(|one| is_aside(one)) {
                let blob = blob_of(signature);
                let outcome = read(source, &blob, SIGNATURE_LIMIT as u64)
                    .map_err(|error| one_line(&error))
                    .and_then(|bytes| {
                        verify_gpg(&bytes, &pin.digest, &ring, None)
                            .map_err(|error| one_line(&error))
                    })
                    .and_then(|verified| accepted(&verified.identity.to_string()));
                match outcome {
                    Ok(()) => return Ok(()),
                    Err(reason) => reasons.push(format!("{}: {reason}", signature.from)),
                }
            }
        }
    }
    if reasons.is_empty() {
        Err("it has no signature".to_owned())
    } else {
        Err(format!("no signature of it counts: {}", reasons.join("; ")))
    }
}

const fn blob_of(signature: &Signature) -> Blob {
    Blob {
        digest: signature.digest,
        size: signature.size,
    }
}

/// Whether a signature is a file of a lookaside.
fn is_aside(signature: &Signature) -> bool {
    signature.from.contains('/')
}

/// The address of a pinned signature that is a file of a lookaside.
#[must_use]
pub fn address_of(signature: &Signature) -> Option<&str> {
    is_aside(signature).then_some(signature.from.as_str())
}

/// Whether one image of signatures vouches for a pin; `None` if it holds no signature at all.
fn by_cosign(
    pin: &Pin,
    signature: &Signature,
    keys: &[Key],
    source: &dyn Source,
    accepted: &dyn Fn(&str) -> Result<(), String>,
) -> Result<(), Option<String>> {
    let bytes = read(source, &blob_of(signature), MANIFEST_LIMIT)
        .map_err(|error| Some(one_line(&error)))?;
    let image = match Manifest::parse(&bytes, None) {
        Ok(Manifest::Image(image)) => image,
        _ if signature.from == REFERRER => return Err(None),
        _ => return Err(Some("it is no image".to_owned())),
    };
    let signed = match cosign::signed(&image) {
        Ok(signed) => signed,
        Err(cosign::CosignError::Empty) if signature.from == REFERRER => return Err(None),
        Err(error) => return Err(Some(one_line(&error))),
    };
    let mut reasons = Vec::new();
    for one in signed {
        let outcome = read(source, &one.payload, PAYLOAD_LIMIT)
            .map_err(|error| one_line(&error))
            .and_then(|payload| {
                cosign::verify(&payload, &one.signature, &pin.digest, keys)
                    .map_err(|error| one_line(&error))
            })
            .and_then(|name| accepted(&name));
        match outcome {
            Ok(()) => return Ok(()),
            Err(reason) => reasons.push(reason),
        }
    }
    Err(Some(reasons.join("; ")))
}

/// An image whose signatures are not what its block demands.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{image} is not vouched for: {reason} ({rule}; {owner})")]
pub struct Unvouched {
    /// The image.
    pub image: String,
    /// What is wrong.
    pub reason: String,
    /// What is demanded, and of which scope.
    pub rule: String,
    /// The block.
    pub owner: String,
}

/// Verifies every pinned signature of a lock again, as its wants say; nothing is asked of anybody. Answers what is wrong
/// and how many images are vouched for.
///
/// `file` gives the bytes of the key files that wants name.
#[must_use]
pub fn verify_pinned(
    lock: &Lock,
    rules: &Rules,
    source: &dyn Source,
    file: FileOf<'_>,
) -> (usize, Vec<Unvouched>) {
    let mut count = 0;
    let mut wrong = Vec::new();
    for block in lock.blocks() {
        let looks =
            super::rule_of(&block, rules).is_some_and(|rule| rule.has_step(Kind::FindSignature));
        let want = match block {
            // What stands in a catalog is vouched for as its catalog says.
            Block::Package(catalog, _) => Some(&catalog.want),
            _ => block.want(),
        };
        let (true, Some(want)) = (looks, want) else {
            continue;
        };
        let owner = block.key().to_string();
        let demands = match demands(want) {
            Ok(demands) => demands,
            Err(problem) => {
                wrong.push(Unvouched {
                    image: owner.clone(),
                    reason: problem.text,
                    rule: SIGNED.to_owned(),
                    owner,
                });
                continue;
            }
        };
        for (role, pin) in block.pins() {
            let Some(repository) = pin.repository() else {
                continue;
            };
            if matches!(role, Role::Payload { .. } | Role::Component { .. }) {
                continue;
            }
            let tag = match block {
                Block::Image(image) => tag_of(&image.reference),
                Block::Catalog(catalog) => tag_of(&catalog.reference),
                _ => pin.tag.as_ref().map(ToString::to_string),
            };
            let mut vouched = false;
            for demand in deciding(&demands, repository, tag.as_deref()) {
                let outcome = match demand.policy {
                    Policy::Accept | Policy::Warn => continue,
                    Policy::Reject => Err("nothing of this scope may be mirrored".to_owned()),
                    Policy::Require => hold(pin, tag.as_deref(), demand, source, file),
                };
                match outcome {
                    Ok(()) => vouched = true,
                    Err(reason) => wrong.push(Unvouched {
                        image: pin.image(),
                        reason,
                        rule: rule(demand),
                        owner: owner.clone(),
                    }),
                }
            }
            count += usize::from(vouched);
        }
    }
    (count, wrong)
}

/// Where the pinned signatures of an image go beside it: the tag, and what is put there.
#[must_use]
pub fn tags(pin: &Pin) -> Vec<(Tag, Blob)> {
    pin.signatures
        .iter()
        .filter_map(|signature| {
            let tag = match signature.from.as_str() {
                COSIGN => cosign::tag(&pin.digest),
                // A tag keeps it from being collected where nobody counts referrers.
                REFERRER => format!(
                    "sha256-{}.{}",
                    pin.digest.hex(),
                    &signature.digest.hex()[..12]
                )
                .parse()
                .ok()?,
                _ => return None,
            };
            Some((tag, blob_of(signature)))
        })
        .collect()
}

/// Whether blocks of that kind may have demands: releases have signatures of their own.
#[must_use]
pub fn applies(kind: BlockKind) -> bool {
    kind != BlockKind::Release
}
