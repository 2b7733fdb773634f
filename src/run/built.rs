//! What is made here of what a lock pins: images that no upstream has, such as that of the update graph.
//!
//! ```text
//! lock, rules --recipes--> what is to be made: pure, equal on every machine
//! a recipe, the store --make--> an image in the store, remembered by the recipe's key
//! ```
//!
//! The lock does not name such images: they follow from it. An archive does (`built`), so that the far side need not
//! make them, and [`learn`] remembers what it said.

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::AtomicBool;

use super::event::{Event, Observer, one_line};
use super::pack::{self, Base, Config, Layer, Pack, PackError};
use super::realise::{FetchError, Limits, Upstream, fetch_one};
use super::resolve::means::{Exclusions, origin_of};
use super::resolve::release::Services;
use super::resolve::{self, Resolver, block_value, catalog, rule_of, want_value};
use crate::canon::{Key, Value};
use crate::chart::{self, artifact};
use crate::digest::Digest;
use crate::hint::Hint;
use crate::oci::OCI_MANIFEST;
use crate::openshift::fbc::CONFIGS_LABEL;
use crate::plan::graph::{Plan, PlanError, Root};
use crate::plan::key::BlockKey;
use crate::plan::lock::{Block, Catalog, Chart, ChartSource, Lock, Pin};
use crate::step::hole::HoleError;
use crate::step::rule::{Rule, Rules, StepRule};
use crate::step::{self, Content, Fetch, Kind, Origin};
use crate::store::disk::Store;
use crate::store::memo::{Memo, Output, recall};
use crate::store::{Blob, Sink, Source, read};

/// Largest rule file that is read.
const RULE_LIMIT: u64 = 1 << 20;

/// Why something cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The rule cannot be filled in.
    #[error("{key}: the step {step:?} of rule {rule:?} cannot be filled in")]
    Hole {
        /// The block.
        key: String,
        /// The rule.
        rule: String,
        /// The step.
        step: String,
        /// Why.
        source: HoleError,
    },
    /// The rule asks for what cannot be.
    #[error("{key}: the step {step:?} of rule {rule:?} {problem}")]
    Rule {
        /// The block.
        key: String,
        /// The rule.
        rule: String,
        /// The step.
        step: String,
        /// What is wrong.
        problem: String,
    },
    /// Something that it is made of does not arrive.
    #[error("{key}: {blob}, which its image is made of, does not arrive")]
    Input {
        /// The block.
        key: String,
        /// What is missing.
        blob: Digest,
        /// Why.
        source: Box<FetchError>,
    },
    /// It cannot be made.
    #[error("{key}: its image cannot be made")]
    Pack {
        /// The block.
        key: String,
        /// Why.
        source: Box<PackError>,
    },
    /// What was to be packed cannot be had.
    #[error("{key}: {problem}")]
    Content {
        /// The block.
        key: String,
        /// Why.
        problem: String,
    },
    /// What was made makes no sense.
    #[error("{key}: what was made cannot be used")]
    Plan {
        /// The block.
        key: String,
        /// Why.
        source: PlanError,
    },
    /// The store failed.
    #[error("the store cannot be used")]
    Store(#[from] io::Error),
    /// It was never made.
    #[error("{key}: its image was not built here, so what it is is not known")]
    Unknown {
        /// The block.
        key: String,
    },
    /// It was told to stop.
    #[error("stopped")]
    Stopped,
}

impl Hint for BuildError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Input { .. } => Some("run the command again; what arrived is kept".to_owned()),
            Self::Unknown { .. } => Some(
                "run `imgbuild build`, or import an archive of this lock, with the same store"
                    .to_owned(),
            ),
            _ => None,
        }
    }
}

/// How to make an image of what a lock pins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recipe {
    /// The block that it is made for.
    pub owner: BlockKey,
    /// The bytes that it is made of, by what they are to it.
    pub inputs: Vec<(String, Blob)>,
    /// Everything else that decides.
    pub with: Value,
}

impl Recipe {
    /// The name of this work.
    #[must_use]
    pub fn key(&self) -> Key {
        let inputs: Vec<(&str, Blob)> = self
            .inputs
            .iter()
            .map(|(role, blob)| (role.as_str(), *blob))
            .collect();
        step::key(Kind::PackImage, &self.with, &inputs)
    }

    /// What an archive says it was made for: the block without its kind.
    #[must_use]
    pub fn reference(&self) -> String {
        reference_of(&self.owner)
    }
}

fn reference_of(key: &BlockKey) -> String {
    let text = key.to_string();
    text.split_once(' ')
        .map_or(text.as_str(), |(_, name)| name)
        .to_owned()
}

/// An image that was made here.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Built {
    /// The block that it was made for.
    pub owner: BlockKey,
    /// What an archive says it was made for.
    pub reference: String,
    /// Its manifest or index.
    pub blob: Blob,
}

impl Built {
    /// It as a root of a plan. Its layers come with what it was made of.
    #[must_use]
    pub fn root(&self) -> Root {
        Root {
            owner: self.owner.to_string(),
            fetch: Fetch {
                blob: self.blob,
                content: Content::Manifest {
                    media_type: None,
                    platforms: Vec::new(),
                },
                origins: Vec::new(),
            },
        }
    }
}

/// Everything that is to be made for a lock, in lock order.
///
/// # Errors
/// If a rule asks for what cannot be.
pub fn recipes(lock: &Lock, rules: &Rules) -> Result<Vec<Recipe>, BuildError> {
    let mut recipes = Vec::new();
    for block in lock.blocks() {
        match &block {
            Block::Image(_) => recipes.extend(of_image(&block, lock, rules)?),
            Block::Chart(chart) => recipes.extend(of_chart(&block, chart, rules)?),
            Block::Catalog(catalog) if !catalog::is_copied(&catalog.want) => {
                recipes.extend(of_catalog(&block, catalog, rules)?);
            }
            _ => {}
        }
    }
    Ok(recipes)
}

/// What a recipe packs. Everything but what [`pack::inputs`] names must be in the store.
fn content(
    recipe: &Recipe,
    lock: &Lock,
    rules: &Rules,
    means: &Means<'_>,
) -> Result<Pack, BuildError> {
    let block = lock
        .find(&recipe.owner)
        .ok_or_else(|| BuildError::Content {
            key: recipe.owner.to_string(),
            problem: "it is in no lock".to_owned(),
        })?;
    match block {
        Block::Catalog(catalog) => catalog_pack(recipe, catalog, rules, means),
        _ => Ok(image_pack(recipe, &block)),
    }
}

/// A catalog of the selected packages on top of the pinned one: one folder per package below the folder `under`, which
/// replaces what the pinned one has there.
fn of_catalog(
    block: &Block<'_>,
    catalog: &Catalog,
    rules: &Rules,
) -> Result<Option<Recipe>, BuildError> {
    let key = block.key();
    let context = Value::map([
        ("block", block_value(&key)),
        ("want", want_value(&catalog.want)),
    ]);
    let Some(Packing { mut with, .. }) = packing(block, rules, &context)? else {
        return Ok(None);
    };
    with.insert("platforms".to_owned(), platforms(&catalog.pin));
    with.insert("packages".to_owned(), catalog::recipe(catalog));
    Ok(Some(Recipe {
        owner: key,
        inputs: vec![("base".to_owned(), catalog.pin.blob())],
        with: Value::Map(with),
    }))
}

fn catalog_pack(
    recipe: &Recipe,
    catalog: &Catalog,
    rules: &Rules,
    means: &Means<'_>,
) -> Result<Pack, BuildError> {
    let failed = |problem: String| BuildError::Content {
        key: recipe.owner.to_string(),
        problem,
    };
    let image = catalog
        .reference
        .parse()
        .map_err(|error: crate::reference::ReferenceError| failed(one_line(&error)))?;
    let resolver = Resolver {
        rules,
        names: None,
        upstream: means.upstream,
        store: means.store,
        limits: means.limits,
        observer: means.observer,
        stop: means.stop,
        services: Services::default(),
        within: None,
        evidence: &|_, _| (),
    };
    let (exclusions, files) = (Exclusions::default(), BTreeMap::new());
    let resolving = resolve::means::Means::new(&resolver, &exclusions, &files, &[]);
    let fragments = catalog::selected(catalog, &image, &catalog.pin.platforms, &resolving)
        .map_err(|problem| failed(problem.text))?;
    let Value::Map(with) = &recipe.with else {
        return Err(failed("its rule says nothing".to_owned()));
    };
    let under = match with.get("under") {
        Some(Value::Text(under)) => under.clone(),
        _ => return Err(failed("its rule names no folder".to_owned())),
    };
    let files = fragments
        .into_iter()
        .filter(|(_, blob)| blob.size > 0)
        .map(|(package, blob)| {
            let path = match package.as_str() {
                "" => format!("{under}/catalog.json"),
                package => format!("{under}/{package}/catalog.json"),
            };
            (path, blob)
        })
        .collect();
    let labels = BTreeMap::from([(CONFIGS_LABEL.to_owned(), format!("/{under}"))]);
    Ok(Pack {
        base: Some(Base {
            manifest: catalog.pin.blob(),
            platforms: catalog.pin.platforms.clone(),
        }),
        layers: vec![Layer::Without(vec![under]), Layer::Files(files)],
        config: Config::OfBase {
            command: command(with),
            labels,
        },
    })
}

fn command(with: &BTreeMap<String, Value>) -> Option<Vec<String>> {
    let Some(Value::List(words)) = with.get("command") else {
        return None;
    };
    let texts = words.iter().filter_map(|word| match word {
        Value::Text(text) => Some(text.clone()),
        _ => None,
    });
    Some(texts.collect())
}

/// An image on top of a pinned one, as the `pack-image` step of a rule says it:
///
/// | parameter | means |
/// |---|---|
/// | `unpack` | the rule whose pinned file (a tar, perhaps compressed with gzip) becomes a layer |
/// | `under` | the folder that it is unpacked in |
/// | `command` | what the image runs |
fn of_image(block: &Block<'_>, lock: &Lock, rules: &Rules) -> Result<Option<Recipe>, BuildError> {
    let key = block.key();
    let context = Value::map([
        ("block", block_value(&key)),
        (
            "want",
            block.want().map_or_else(|| Value::map([]), want_value),
        ),
    ]);
    let Some(Packing {
        rule,
        step,
        mut with,
    }) = packing(block, rules, &context)?
    else {
        return Ok(None);
    };
    let problem = |problem: String| BuildError::Rule {
        key: key.to_string(),
        rule: rule.name.clone(),
        step: step.name.clone(),
        problem,
    };
    let unpack = match with.get("unpack") {
        Some(Value::Text(name)) => name.clone(),
        _ => return Err(problem("names no rule whose file it unpacks".to_owned())),
    };
    let file = lock
        .files
        .iter()
        .find(|file| file.want.text("rule") == Some(&unpack))
        .ok_or_else(|| problem(format!("unpacks the file of {unpack:?}, which pins none")))?;
    let Some((_, pin)) = block.pins().into_iter().next() else {
        return Ok(None);
    };
    with.insert("platforms".to_owned(), platforms(pin));
    Ok(Some(Recipe {
        owner: key,
        inputs: vec![
            ("base".to_owned(), pin.blob()),
            ("file".to_owned(), file.file),
        ],
        with: Value::Map(with),
    }))
}

/// A chart's file as an image of a registry. The recipe has what the chart is called besides: it is placed by that.
fn of_chart(block: &Block<'_>, chart: &Chart, rules: &Rules) -> Result<Option<Recipe>, BuildError> {
    let (ChartSource::File { file, .. }, Some(_)) =
        (&chart.source, resolve::chart::artifact_name(chart))
    else {
        return Ok(None);
    };
    let key = block.key();
    let context = Value::map([(
        "block",
        resolve::chart::block_names(chart, block_value(&key)),
    )]);
    let Some(Packing { with, .. }) = packing(block, rules, &context)? else {
        return Ok(None);
    };
    Ok(Some(Recipe {
        owner: key,
        inputs: vec![("chart".to_owned(), *file)],
        with: Value::Map(with),
    }))
}

/// Makes the image of a chart whose file is in the store.
fn chart_image(recipe: &Recipe, file: Blob, store: &Store) -> Result<Vec<Output>, BuildError> {
    let problem = |problem: String| BuildError::Content {
        key: recipe.owner.to_string(),
        problem,
    };
    let bytes = store
        .open(&file, 0)?
        .ok_or_else(|| problem(format!("{} is not in the store", file.digest)))?;
    let chart = chart::Chart::from_archive(bytes, chart::LoadLimits::default())
        .map_err(|error| problem(one_line(&error)))?;
    let made = artifact::artifact(&chart, file.digest, file.size);
    let insert = |bytes: &[u8]| store.insert(bytes).map_err(io::Error::from);
    let output = |media_type: &str, blob: Blob| Output {
        media_type: media_type.to_owned(),
        blob,
    };
    let config = insert(&made.config)?;
    Ok(vec![
        output(OCI_MANIFEST, insert(&made.manifest)?),
        output(artifact::CONFIG, config),
        output(artifact::CONTENT, file),
    ])
}

/// The step of a block's rule that packs, with its parameters filled in.
struct Packing<'a> {
    rule: &'a Rule,
    step: &'a StepRule,
    with: BTreeMap<String, Value>,
}

/// How the rule of a block packs; `None` if it does not.
fn packing<'a>(
    block: &Block<'_>,
    rules: &'a Rules,
    context: &Value,
) -> Result<Option<Packing<'a>>, BuildError> {
    let Some(rule) = rule_of(block, rules) else {
        return Ok(None);
    };
    let Some(step) = rule.steps.iter().find(|step| step.kind == Kind::PackImage) else {
        return Ok(None);
    };
    let with = match step.with.fill(context) {
        Ok(Some(Value::Map(with))) => with,
        Ok(_) => BTreeMap::new(),
        Err(source) => {
            return Err(BuildError::Hole {
                key: block.key().to_string(),
                rule: rule.name.clone(),
                step: step.name.clone(),
                source,
            });
        }
    };
    Ok(Some(Packing { rule, step, with }))
}

/// The instances of a base that are taken, as a recipe has them.
fn platforms(pin: &Pin) -> Value {
    let names = pin.platforms.iter().map(ToString::to_string);
    Value::List(names.map(Value::Text).collect())
}

fn image_pack(recipe: &Recipe, block: &Block<'_>) -> Pack {
    let with = match &recipe.with {
        Value::Map(with) => with.clone(),
        _ => BTreeMap::new(),
    };
    let text = |value: &Value| match value {
        Value::Text(text) => Some(text.clone()),
        _ => None,
    };
    let command = command(&with);
    let blob = |role: &str| {
        let found = recipe.inputs.iter().find(|(name, _)| name == role);
        found.map(|(_, blob)| *blob)
    };
    let platforms = block
        .pins()
        .into_iter()
        .next()
        .map(|(_, pin)| pin.platforms.clone())
        .unwrap_or_default();
    Pack {
        base: blob("base").map(|manifest| Base {
            manifest,
            platforms,
        }),
        layers: blob("file")
            .map(|archive| Layer::Unpacked {
                archive,
                under: with.get("under").and_then(text).unwrap_or_default(),
            })
            .into_iter()
            .collect(),
        config: Config::OfBase {
            command,
            labels: BTreeMap::new(),
        },
    }
}

/// What making may use.
pub struct Means<'a> {
    /// Where everything is, and comes to be.
    pub store: &'a Store,
    /// Where what is missing may be had; without it, everything must be in the store.
    pub upstream: &'a dyn Upstream,
    /// How often a blob that came damaged is asked for again.
    pub limits: Limits,
    /// Who is told.
    pub observer: Observer<'a>,
    /// Set to stop.
    pub stop: &'a AtomicBool,
}

/// Makes what is to be made for a lock; what was made before, and is still there, is not made again. The manifests that
/// the lock pins must be in the store.
///
/// # Errors
/// If something cannot be made. What is made already stays.
pub fn make(lock: &Lock, rules: &Rules, means: &Means<'_>) -> Result<Vec<Built>, BuildError> {
    let mut made = Vec::new();
    for recipe in recipes(lock, rules)? {
        if means.stop.load(std::sync::atomic::Ordering::Relaxed) {
            return Err(BuildError::Stopped);
        }
        let key = recipe.key();
        let outputs = if let Some(outputs) = recall(means.store, means.store, &key)? {
            outputs
        } else {
            let outputs = make_one(&recipe, lock, rules, means)?;
            means.store.put(&key, &outputs)?;
            outputs
        };
        made.extend(outputs.first().map(|output| built(&recipe, output.blob)));
    }
    Ok(made)
}

fn built(recipe: &Recipe, blob: Blob) -> Built {
    Built {
        owner: recipe.owner.clone(),
        reference: recipe.reference(),
        blob,
    }
}

fn make_one(
    recipe: &Recipe,
    lock: &Lock,
    rules: &Rules,
    means: &Means<'_>,
) -> Result<Vec<Output>, BuildError> {
    let failed = |source: PackError| match source {
        PackError::Stopped => BuildError::Stopped,
        source => BuildError::Pack {
            key: recipe.owner.to_string(),
            source: Box::new(source),
        },
    };
    if let Some(Block::Chart(chart)) = lock.find(&recipe.owner)
        && let ChartSource::File { file, .. } = chart.source
    {
        bring(recipe, vec![file], &resolve::chart::origins(chart), means)?;
        return chart_image(recipe, file, means.store);
    }
    let pack = content(recipe, lock, rules, means)?;
    let origins: Vec<Origin> = lock
        .find(&recipe.owner)
        .into_iter()
        .flat_map(|block| block.pins())
        .map(|(_, pin)| origin_of(&pin.origin))
        .collect();
    let inputs = pack::inputs(&pack, means.store).map_err(failed)?;
    bring(recipe, inputs, &origins, means)?;
    pack::pack(&pack, means.store, means.stop).map_err(failed)
}

/// Brings what a recipe needs into the store.
fn bring(
    recipe: &Recipe,
    inputs: Vec<Blob>,
    origins: &[Origin],
    means: &Means<'_>,
) -> Result<(), BuildError> {
    for blob in inputs {
        if means.store.holds(&blob)? {
            continue;
        }
        (means.observer)(Event::Planned {
            blobs: 1,
            bytes: blob.size,
        });
        let fetch = Fetch {
            blob,
            content: Content::Opaque,
            origins: origins.to_vec(),
        };
        fetch_one(
            &fetch,
            means.upstream,
            means.store,
            means.limits.attempts,
            means.observer,
            means.stop,
        )
        .map_err(|source| BuildError::Input {
            key: recipe.owner.to_string(),
            blob: blob.digest,
            source: Box::new(source),
        })?;
        (means.observer)(Event::Done {
            digest: blob.digest,
            size: blob.size,
            present: false,
        });
    }
    Ok(())
}

/// What is known to have been made for a lock, whether or not all of it is still there; what is not known is left out.
///
/// # Errors
/// If a rule asks for what cannot be, or the memo cannot be read.
pub fn known(lock: &Lock, rules: &Rules, memo: &dyn Memo) -> Result<Vec<Built>, BuildError> {
    let mut found = Vec::new();
    for recipe in recipes(lock, rules)? {
        let outputs = memo.get(&recipe.key())?.unwrap_or_default();
        found.extend(outputs.first().map(|output| built(&recipe, output.blob)));
    }
    Ok(found)
}

/// The same, where all of it must be known.
///
/// # Errors
/// As [`known`], and with the first that is not known.
pub fn all_known(lock: &Lock, rules: &Rules, memo: &dyn Memo) -> Result<Vec<Built>, BuildError> {
    let found = known(lock, rules, memo)?;
    for recipe in recipes(lock, rules)? {
        if !found.iter().any(|built| built.owner == recipe.owner) {
            return Err(BuildError::Unknown {
                key: recipe.owner.to_string(),
            });
        }
    }
    Ok(found)
}

/// The same as [`known`] for a lock whose rules are in the store; nothing, where they are not.
///
/// # Errors
/// If the store fails, or a rule asks for what cannot be.
pub fn remembered(lock: &Lock, store: &Store) -> Result<Vec<Built>, BuildError> {
    let text = |digest: &Digest| -> Option<String> {
        let size = store.size_of(digest).ok()??;
        let blob = Blob {
            digest: *digest,
            size,
        };
        String::from_utf8(read(store, &blob, RULE_LIMIT).ok()?).ok()
    };
    let texts: Option<Vec<(String, String)>> = lock
        .rules
        .iter()
        .map(|(name, digest)| Some((name.clone(), text(digest)?)))
        .collect();
    match texts.map(Rules::with) {
        Some(Ok(rules)) => known(lock, &rules, store),
        Some(Err(_)) | None => Ok(Vec::new()),
    }
}

/// Holds what somebody else made against what a lock asks for: `said` is what each is for, and its manifest.
///
/// # Errors
/// With a sentence, if one is missing or is for nothing that the lock names.
pub fn expect(
    lock: &Lock,
    rules: &Rules,
    said: &[(String, Blob)],
) -> Result<Vec<Built>, BuildError> {
    let recipes = recipes(lock, rules)?;
    let mut out = Vec::new();
    for recipe in &recipes {
        let reference = recipe.reference();
        let Some((_, blob)) = said.iter().find(|(name, _)| *name == reference) else {
            return Err(BuildError::Content {
                key: recipe.owner.to_string(),
                problem: "its image was not built".to_owned(),
            });
        };
        out.push(built(recipe, *blob));
    }
    if let Some((reference, _)) = said
        .iter()
        .find(|(name, _)| !out.iter().any(|built| built.reference == *name))
    {
        return Err(BuildError::Content {
            key: reference.clone(),
            problem: "an image was built for it, which the lock does not ask for".to_owned(),
        });
    }
    Ok(out)
}

/// Remembers what somebody else made, with everything in it, as `plan` has read it.
///
/// # Errors
/// If the memo cannot be written.
pub fn learn(
    lock: &Lock,
    rules: &Rules,
    built: &[Built],
    plan: &Plan,
    store: &Store,
) -> Result<(), BuildError> {
    for recipe in recipes(lock, rules)? {
        let Some(one) = built.iter().find(|built| built.owner == recipe.owner) else {
            continue;
        };
        let failed = |source| BuildError::Plan {
            key: recipe.owner.to_string(),
            source,
        };
        let mut outputs = Vec::new();
        for (blob, manifest) in plan.manifests_of(&one.root()).map_err(failed)? {
            let output = Output {
                media_type: manifest.media_type().to_owned(),
                blob,
            };
            outputs.push(output);
            if let crate::oci::Manifest::Image(image) = manifest {
                outputs.extend(image.blobs().map(|descriptor| Output {
                    media_type: descriptor.media_type.clone(),
                    blob: Blob::from(descriptor),
                }));
            }
        }
        outputs.sort_by_key(|output| (output.blob != one.blob, output.blob));
        outputs.dedup();
        store.put(&recipe.key(), &outputs)?;
    }
    Ok(())
}
