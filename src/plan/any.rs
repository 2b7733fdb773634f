//! Random locks, for tests.

use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::*;

use super::key::*;
use super::lock::*;
use crate::canon::Value;
use crate::digest::Digest;
use crate::oci::PlatformName;
use crate::store::Blob;

fn any_digest() -> impl Strategy<Value = Digest> {
    // Few different ones, so that blocks share images.
    prop_oneof![
        3 => (0..12u8).prop_map(|seed| Digest::of(&[seed])),
        1 => any::<[u8; 32]>().prop_map(Digest::from_bytes),
    ]
}

/// Names as they occur, and texts that are hard to write.
fn any_name() -> impl Strategy<Value = String> {
    prop_oneof![4 => "[a-z]{1,3}", 1 => "\\PC{1,6}", 1 => any::<char>().prop_map(String::from)]
}

fn any_version() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => "4\\.1[0-9]\\.[0-9]{1,2}",
        1 => "[0-9]{1,2}\\.0\\.[0-9](-(rc|ec)\\.[0-9]{1,2})?(\\+[a-z])?",
        1 => "[a-z0-9.+-]{1,5}",
    ]
}

fn any_size() -> impl Strategy<Value = u64> {
    prop_oneof![0..5000u64, Just(i64::MAX as u64)]
}

fn any_blob() -> impl Strategy<Value = Blob> {
    (any_digest(), any_size()).prop_map(|(digest, size)| Blob { digest, size })
}

fn any_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        any::<bool>().prop_map(Value::Bool),
        any::<i64>().prop_map(Value::Integer),
        any_name().prop_map(Value::Text),
        any_digest().prop_map(Value::Digest),
        "\\PC{0,8}".prop_map(Value::Text),
    ];
    leaf.prop_recursive(2, 8, 3, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..3).prop_map(Value::List),
            btree_map("\\PC{0,4}", inner, 0..3).prop_map(Value::Map),
        ]
    })
}

fn any_want() -> impl Strategy<Value = Want> {
    let name = prop_oneof![
        Just("min".to_owned()),
        Just("max".to_owned()),
        Just("platforms".to_owned()),
        "[a-z]{1,2}",
        "\\PC{0,3}",
    ];
    btree_map(name, any_value(), 0..4).prop_map(Want::new)
}

fn want_with(key: &'static str) -> impl Strategy<Value = Want> {
    (any_want(), option::of(any_name())).prop_map(move |(want, value)| {
        let mut entries = want.settings().clone();
        entries.remove(key);
        entries.extend(value.map(|value| (key.to_owned(), Value::Text(value))));
        Want::new(entries)
    })
}

fn any_origin() -> impl Strategy<Value = Origin> {
    prop_oneof![
        6 => "(quay\\.io|a-b\\.test:5000|localhost|\\[::1\\]:5000)/[a-c]{1,2}(/[a-c]{1,2}|-[a-c])?",
        1 => "oci://[a-z./@: ]{1,6}",
    ]
    .prop_map(|text| text.parse().unwrap())
}

fn any_signature() -> impl Strategy<Value = Signature> {
    (any_digest(), any_size(), any_name()).prop_map(|(digest, size, from)| Signature {
        digest,
        size,
        from,
    })
}

fn any_platform() -> impl Strategy<Value = PlatformName> {
    "(linux|windows)/(amd64|arm|s390x)(/v[78])?".prop_map(|text| text.parse().unwrap())
}

/// A pin as one may stand anywhere.
pub(crate) fn any_pin() -> impl Strategy<Value = Pin> {
    (
        any_origin(),
        any_digest(),
        any_size(),
        option::weighted(
            0.2,
            "[a-z0-9][a-z0-9._-]{0,5}".prop_map(|text| text.parse().unwrap()),
        ),
        vec(any_platform(), 0..3),
        vec(any_signature(), 0..2),
    )
        .prop_map(|(origin, digest, size, tag, platforms, signatures)| Pin {
            origin,
            digest,
            size,
            tag,
            platforms,
            signatures,
        })
}

/// Keeps the first of those that share a name.
fn unique<T, K: Ord>(items: Vec<T>, name: impl Fn(&T) -> K) -> Vec<T> {
    let mut seen = std::collections::BTreeSet::new();
    items
        .into_iter()
        .filter(|item| seen.insert(name(item)))
        .collect()
}

fn any_images() -> impl Strategy<Value = Vec<Pin>> {
    vec(any_pin(), 0..4).prop_map(|pins| unique(pins, |pin| (pin.image(), pin.tag.clone())))
}

fn any_payload() -> impl Strategy<Value = Payload> {
    let component = (any_name(), any_pin()).prop_map(|(name, pin)| Component { name, pin });
    (any_version(), any_pin(), vec(component, 0..4)).prop_map(|(version, pin, components)| {
        Payload {
            version,
            pin,
            components: unique(components, |component| component.name.clone()),
        }
    })
}

fn any_release() -> impl Strategy<Value = Release> {
    let name = prop_oneof![
        any_name().prop_map(ReleaseName::Channel),
        any_name().prop_map(ReleaseName::Reference),
    ];
    let risk = (any_name(), any_name()).prop_map(|(name, url)| Risk { name, url });
    (
        name,
        any_name(),
        any_want(),
        vec(risk, 0..2),
        vec(any_payload(), 0..3),
    )
        .prop_map(|(name, arch, want, risks, payloads)| Release {
            name,
            arch,
            want,
            risks: unique(risks, |risk| risk.name.clone()),
            payloads: unique(payloads, |payload| payload.version.clone()),
        })
}

/// A package as one may stand in any catalog.
pub(crate) fn any_package() -> impl Strategy<Value = Package> {
    let bundle = (
        prop_oneof![
            (any_name(), any_version()).prop_map(|(name, version)| format!("{name}.v{version}")),
            any_name(),
        ],
        vec(any_name(), 0..2),
        any_pin(),
    )
        .prop_map(|(name, channels, pin)| Bundle {
            name,
            channels,
            pin,
        });
    (
        any_name(),
        option::of(any_want()),
        any_digest(),
        option::of(any_digest()),
        vec(bundle, 0..3),
        any_images(),
    )
        .prop_map(|(name, want, fbc, from, bundles, images)| Package {
            name,
            want,
            fbc,
            from,
            bundles: unique(bundles, |bundle| bundle.name.clone()),
            images,
        })
}

fn any_catalog() -> impl Strategy<Value = Catalog> {
    (
        any_name(),
        want_with("target"),
        any_pin(),
        vec(any_package(), 0..4),
    )
        .prop_map(|(reference, want, pin, packages)| Catalog {
            reference,
            want,
            pin,
            packages: unique(packages, |package| package.name.clone()),
        })
}

/// An additional image.
pub(crate) fn any_image() -> impl Strategy<Value = Image> {
    (any_name(), want_with("target"), any_pin()).prop_map(|(reference, want, pin)| Image {
        reference,
        want,
        pin,
    })
}

fn any_chart() -> impl Strategy<Value = Chart> {
    let source = prop_oneof![
        any_pin().prop_map(ChartSource::Image),
        (option::of(any_name()), any_blob())
            .prop_map(|(url, file)| ChartSource::File { url, file }),
    ];
    let known = option::of((any_name(), any_name()));
    (
        any_name(),
        want_with("version"),
        known,
        source,
        any_images(),
    )
        .prop_map(|(reference, want, known, source, images)| {
            let (name, version) = known.unzip();
            Chart {
                reference,
                want,
                name,
                version,
                source,
                images,
            }
        })
}

/// A whole lock, in no particular order, with comments above some blocks.
pub(crate) fn any_lock() -> impl Strategy<Value = Lock> {
    let file = (any_name(), any_want(), any_blob()).prop_map(|(reference, want, file)| File {
        reference,
        want,
        file,
    });
    let skip = (any_name(), "\\PC{0,6}").prop_map(|(image, reason)| Skip { image, reason });
    let blocked = any_name().prop_map(|name| Blocked { name });
    (
        btree_map("\\PC{0,5}", any_digest(), 0..3),
        vec(any_release(), 0..3),
        vec(any_catalog(), 0..3),
        vec(any_image(), 0..4),
        vec(any_chart(), 0..3),
        vec(file, 0..3),
        vec(blocked, 0..3),
        vec(skip, 0..3),
        vec(
            option::weighted(0.2, vec("[^\\x00-\\x08\\x0a-\\x1f\\x7f]{0,6}", 1..3)),
            12,
        ),
    )
        .prop_map(
            |(rules, releases, catalogs, images, charts, files, blocked, skips, comments)| {
                let mut lock = Lock {
                    rules,
                    releases: unique(releases, Release::key),
                    catalogs: unique(catalogs, Catalog::key),
                    images: unique(images, Image::key),
                    charts: unique(charts, Chart::key),
                    files: unique(files, File::key),
                    blocked: unique(blocked, Blocked::key),
                    skips: unique(skips, Skip::key),
                    ..Lock::default()
                };
                let keys: Vec<BlockKey> = lock.blocks().map(|block| block.key()).collect();
                lock.comments = keys
                    .into_iter()
                    .zip(comments)
                    .filter_map(|(key, lines)| Some((key, lines?)))
                    .collect();
                lock
            },
        )
}

/// Changes a lock here and there, as a branch would: `choices` decide block by block.
pub(crate) fn edited(lock: &Lock, choices: &[u8]) -> Lock {
    let mut lock = lock.clone();
    let mut choices = choices.iter().copied().cycle();
    let mut choose = move || choices.next().unwrap_or(0);
    let keys: Vec<BlockKey> = lock.blocks().map(|block| block.key()).collect();
    for key in keys {
        if choose().is_multiple_of(8) {
            lock.remove(&key);
        }
        if choose().is_multiple_of(16) {
            lock.comments
                .insert(key, vec![format!(" {}", choose() % 2)]);
        }
    }
    let digest = |choice: u8| Digest::of(&[choice % 3]);
    let pins = |pins: &mut Vec<Pin>, choice: u8| {
        if let Some(first) = pins.first_mut() {
            match choice % 6 {
                0 => drop(pins.pop()),
                1 => first.size = u64::from(choice % 3),
                2 => {
                    let mut new = first.clone();
                    new.digest = Digest::of(b"another");
                    if pins.iter().all(|pin| pin.image() != new.image()) {
                        pins.push(new);
                    }
                }
                _ => {}
            }
        }
    };
    for release in &mut lock.releases {
        for payload in &mut release.payloads {
            match choose() % 6 {
                0 => payload.pin.digest = digest(choose()),
                1 => drop(payload.components.pop()),
                2 => {
                    for component in &mut payload.components {
                        component.pin.size = u64::from(choose() % 3);
                    }
                }
                _ => {}
            }
        }
        if choose().is_multiple_of(8) {
            release.payloads.pop();
        }
    }
    for catalog in &mut lock.catalogs {
        if choose().is_multiple_of(6) {
            catalog.pin.digest = digest(choose());
        }
        for package in &mut catalog.packages {
            match choose() % 6 {
                0 => package.fbc = digest(choose()),
                1 => drop(package.bundles.pop()),
                2 => package.want = None,
                _ => {}
            }
            pins(&mut package.images, choose());
        }
    }
    for image in &mut lock.images {
        if choose().is_multiple_of(4) {
            image.pin.digest = digest(choose());
        }
    }
    for chart in &mut lock.charts {
        pins(&mut chart.images, choose());
    }
    for file in &mut lock.files {
        if choose().is_multiple_of(4) {
            file.file.digest = digest(choose());
        }
    }
    for rule in lock.rules.values_mut() {
        if choose().is_multiple_of(4) {
            *rule = digest(choose());
        }
    }
    lock.canonical()
}
