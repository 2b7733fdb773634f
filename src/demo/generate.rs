//! How a world follows from a seed.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use rayon::prelude::*;

use super::layer::{Compression, Layer};
use super::world::{Form, World, members};
use crate::digest::Digest;
use crate::oci::Platform;

/// What a generated world is like. Shares are in percent, and exact: of 10 images, 25 percent are 3 (rounded up).
#[derive(Clone, Debug)]
pub struct Spec {
    /// How many images, each with a repository and a tag of its own.
    pub images: usize,
    /// How many layers an image has to itself, for each of its platforms.
    pub layers: RangeInclusive<usize>,
    /// How many stacks of base layers there are; each image stands on one of them. 0 is none.
    pub bases: usize,
    /// How many layers such a stack has, for each platform.
    pub base_layers: usize,
    /// How many bytes the files of a layer have together.
    pub layer_size: RangeInclusive<u64>,
    /// How many bytes the files of all layers have together; sizes are scaled to it.
    pub total: Option<u64>,
    /// The platforms of an index; an image that is none is for the first. Empty is `linux/amd64`.
    pub platforms: Vec<Platform>,
    /// How many of the images are an index.
    pub indexes: u8,
    /// How many of the images are Docker schema 2.
    pub docker: u8,
    /// How many of the layers that OCI images have to themselves are zstd.
    pub zstd: u8,
    /// How many of the layers that images have to themselves are a tar without compression, if not zstd.
    pub plain: u8,
    /// How many of the images have an artifact that refers to them.
    pub artifacts: u8,
}

impl Default for Spec {
    /// A few small images of each kind.
    fn default() -> Self {
        let platform = |architecture: &str| Platform {
            os: "linux".to_owned(),
            architecture: architecture.to_owned(),
            variant: None,
            os_version: None,
        };
        Self {
            images: 6,
            layers: 1..=3,
            bases: 2,
            base_layers: 2,
            layer_size: 1_000..=40_000,
            total: None,
            platforms: vec![platform("amd64"), platform("arm64")],
            indexes: 50,
            docker: 30,
            zstd: 20,
            plain: 10,
            artifacts: 20,
        }
    }
}

/// Numbers that follow from a name.
struct Dice(blake3::OutputReader);

impl Dice {
    fn new(seed: u64, name: &str) -> Self {
        let mut state = blake3::Hasher::new_derive_key("imgbuild demo choices");
        state.update(&seed.to_le_bytes()).update(name.as_bytes());
        Self(state.finalize_xof())
    }

    fn next(&mut self) -> u64 {
        let mut bytes = [0; 8];
        self.0.fill(&mut bytes);
        u64::from_le_bytes(bytes)
    }

    /// One of `range`, each about as likely.
    fn within(&mut self, range: &RangeInclusive<u64>) -> u64 {
        let span = u128::from(range.end().saturating_sub(*range.start())) + 1;
        let step = (u128::from(self.next()) * span) >> 64;
        range.start() + u64::try_from(step).expect("it is within the range")
    }
}

/// For each of `count` things whether it is among the `percent` that are chosen.
fn share(seed: u64, what: &str, count: usize, percent: u8) -> Vec<bool> {
    let wanted = (count * usize::from(percent.min(100))).div_ceil(100);
    let mut order: Vec<(u64, usize)> = (0..count)
        .map(|index| (Dice::new(seed, &format!("{what} {index}")).next(), index))
        .collect();
    order.sort_unstable();
    let mut chosen = vec![false; count];
    for (_, index) in &order[..wanted] {
        chosen[*index] = true;
    }
    chosen
}

/// A layer before its size is settled.
struct Draft {
    name: String,
    folder: String,
    size: u64,
    files: u64,
    compression: Compression,
}

/// An image before its layers are made; layers by their place in the list of drafts.
struct Outline {
    repository: String,
    tag: String,
    form: Form,
    is_index: bool,
    platforms: Vec<(Platform, Vec<usize>)>,
    has_artifact: bool,
}

const WORDS: [&str; 12] = [
    "gateway", "ledger", "parser", "queue", "render", "search", "session", "store", "syncer",
    "tracer", "vault", "worker",
];

pub(super) fn generate(seed: u64, spec: &Spec) -> World {
    let (mut drafts, outlines) = outline(seed, spec);
    if let Some(total) = spec.total {
        scale(&mut drafts, total);
    }
    let layers: Vec<Layer> = drafts
        .par_iter()
        .map(|draft| {
            let name = format!("{seed}/{}", draft.name);
            Layer::new(
                &members(&name, &draft.folder, draft.size, draft.files),
                draft.compression,
            )
            .expect("generated paths are short")
        })
        .collect();
    let mut world = World::new(seed);
    let digests: Vec<Digest> = layers
        .into_iter()
        .map(|layer| world.hold_layer(layer))
        .collect();
    for outline in outlines {
        add(&mut world, &outline, &digests);
    }
    world
}

/// Decides everything but the bytes.
fn outline(seed: u64, spec: &Spec) -> (Vec<Draft>, Vec<Outline>) {
    let platforms = if spec.platforms.is_empty() {
        vec![Platform {
            os: "linux".to_owned(),
            architecture: "amd64".to_owned(),
            variant: None,
            os_version: None,
        }]
    } else {
        spec.platforms.clone()
    };
    let mut drafts: Vec<Draft> = Vec::new();
    let mut draft = |name: String, folder: String, compression: Compression| {
        let mut dice = Dice::new(seed, &format!("layer {name}"));
        drafts.push(Draft {
            size: dice.within(&spec.layer_size),
            files: dice.within(&(1..=4)),
            name,
            folder,
            compression,
        });
        drafts.len() - 1
    };
    let indexes = share(seed, "index", spec.images, spec.indexes);
    let docker = share(seed, "docker", spec.images, spec.docker);
    let artifacts = share(seed, "artifact", spec.images, spec.artifacts);
    let mut bases: BTreeMap<(usize, usize), Vec<usize>> = BTreeMap::new();
    let mut outlines = Vec::with_capacity(spec.images);
    // Layers that an image has to itself, to be given their compression when all are known.
    let mut own: Vec<(usize, bool)> = Vec::new();
    for number in 0..spec.images {
        let mut dice = Dice::new(seed, &format!("image {number}"));
        let word = WORDS[number % WORDS.len()];
        let repository = format!("team-{}/{word}-{number:03}", number % 5);
        let base = spec.bases.checked_sub(1).map(|last| {
            usize::try_from(dice.within(&(0..=last as u64))).expect("it is one of the bases")
        });
        let range = *spec.layers.start() as u64..=*spec.layers.end() as u64;
        let taken = if indexes[number] { platforms.len() } else { 1 };
        let mut of_platforms = Vec::with_capacity(taken);
        for (place, platform) in platforms.iter().take(taken).enumerate() {
            let mut layers = Vec::new();
            if let Some(base) = base {
                let stack = bases.entry((base, place)).or_insert_with(|| {
                    (0..spec.base_layers)
                        .map(|layer| {
                            draft(
                                format!("base {base} {platform} {layer}"),
                                format!("base-{base}-{layer}"),
                                Compression::Gzip,
                            )
                        })
                        .collect()
                });
                layers.extend(stack.iter().copied());
            }
            for layer in 0..dice.within(&range) {
                let index = draft(
                    format!("{repository} {platform} {layer}"),
                    format!("app-{layer}"),
                    Compression::Gzip,
                );
                own.push((index, docker[number]));
                layers.push(index);
            }
            of_platforms.push((platform.clone(), layers));
        }
        outlines.push(Outline {
            tag: format!("v1.{}", dice.within(&(0..=9))),
            repository,
            form: if docker[number] {
                Form::Docker
            } else {
                Form::Oci
            },
            is_index: indexes[number],
            platforms: of_platforms,
            has_artifact: artifacts[number],
        });
    }
    let may_be_zstd: Vec<usize> = own
        .iter()
        .filter(|(_, docker)| !docker)
        .map(|(index, _)| *index)
        .collect();
    let plain = share(seed, "plain", own.len(), spec.plain);
    for ((index, _), plain) in own.iter().zip(plain) {
        if plain {
            drafts[*index].compression = Compression::None;
        }
    }
    let zstd = share(seed, "zstd", may_be_zstd.len(), spec.zstd);
    for (index, zstd) in may_be_zstd.iter().zip(zstd) {
        if zstd {
            drafts[*index].compression = Compression::Zstd;
        }
    }
    (drafts, outlines)
}

/// Scales sizes so that they add up to `total`.
fn scale(drafts: &mut [Draft], total: u64) {
    let sum: u128 = drafts.iter().map(|draft| u128::from(draft.size)).sum();
    let count = drafts.len() as u128;
    let mut before = 0;
    let mut given = 0;
    for (index, draft) in drafts.iter_mut().enumerate() {
        before += u128::from(draft.size);
        // By the running sum, so that what is rounded away here comes back there.
        let upto = (u128::from(total) * before)
            .checked_div(sum)
            .unwrap_or(u128::from(total) * (index as u128 + 1) / count);
        draft.size = u64::try_from(upto - given).expect("it is part of the total");
        given = upto;
    }
}

fn add(world: &mut World, outline: &Outline, digests: &[Digest]) {
    let labels = BTreeMap::from([(
        "org.opencontainers.image.title".to_owned(),
        outline.repository.clone(),
    )]);
    let mut children = Vec::with_capacity(outline.platforms.len());
    for (platform, layers) in &outline.platforms {
        let layers: Vec<Digest> = layers.iter().map(|index| digests[*index]).collect();
        let image = world
            .image(outline.form, platform, &layers, &labels)
            .expect("the layers are there, and none is zstd in a Docker image");
        children.push(image);
    }
    let root = if outline.is_index {
        world
            .index(outline.form, &children)
            .expect("the children are there")
    } else {
        children.pop().expect("there is a first platform")
    };
    world
        .tag(&outline.repository, &outline.tag, &root)
        .expect("generated names are well formed");
    if outline.has_artifact {
        let payload = format!("{{\"about\":\"{}\"}}\n", root.digest);
        let artifact = world
            .artifact(
                "application/vnd.example.statement.v1",
                "application/vnd.example.statement.v1+json",
                payload.as_bytes(),
                Some(&root),
            )
            .expect("the subject is there");
        world
            .attach(&outline.repository, &artifact)
            .expect("generated names are well formed");
    }
}
