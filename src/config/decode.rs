//! From a tree to an image set configuration, with every rule that needs nothing but the file.

use std::sync::Arc;

use super::diagnostic::{At, Document};
use super::imageset::{
    ARCHITECTURES, AdditionalImage, ApiVersion, Chart, Config, DeleteImageSet, GIB, Helm,
    HelmRepository, ImageSet, LocalChart, Mirror, Operator, OperatorChannel, Package, Pattern,
    Platform, PlatformType, ReleaseChannel, StorageConfig,
};
use super::node::{Kind, Node, shorten};
use super::reader::{Fields, Reader, Schema, chain};
use super::schema::{
    DELETE, DELETE_SET, IMAGE_SET, MIRROR, STORAGE, STORAGE_LOCAL, STORAGE_REGISTRY, Stanza,
};
use crate::hint::Hint;
use crate::oci::PlatformName;
use crate::reference::{ImageName, Reference, ReferenceError, is_path};

/// Reads the top level; `None` only with an error said.
pub(super) fn read(
    reader: &mut Reader<'_>,
    root: &Node,
    document: &Arc<Document>,
) -> Option<Config> {
    let Kind::Mapping(entries) = &root.kind else {
        let hint = matches!(root.kind, Kind::Null)
            .then(|| "`imgbuild init` writes a config to start from".to_owned());
        reader.error(
            root.position,
            format!(
                "a config is a mapping with apiVersion, kind and mirror, found {}",
                root.found()
            ),
            hint,
        );
        return None;
    };
    let find = |name: &str| {
        entries.iter().find(|entry| entry.key == name).or_else(|| {
            entries
                .iter()
                .find(|entry| entry.key.eq_ignore_ascii_case(name))
        })
    };
    let mut head = |name: &str, words: &[&str]| -> Option<At<usize>> {
        let expected = words.join(" or ");
        let Some(entry) = find(name) else {
            reader.error(
                root.position,
                format!("{name} is missing: expected {expected}"),
                Some(format!("write `{name}: {}`", words[0])),
            );
            return None;
        };
        if let Kind::Scalar { text, .. } = &entry.value.kind
            && let Some(index) = words.iter().position(|word| word == text)
        {
            return Some(At::new(index, entry.value.position));
        }
        let position = match entry.value.kind {
            Kind::Null => entry.key_position,
            _ => entry.value.position,
        };
        reader.error(
            position,
            format!("{name} is {expected}, found {}", entry.value.found()),
            Some(format!("write `{name}: {}`", words[0])),
        );
        None
    };
    let versions = [ApiVersion::V2Alpha1, ApiVersion::V1Alpha2];
    let names = versions.map(|version| version.to_string());
    let version =
        head("apiVersion", &[&names[0], &names[1]]).map(|index| index.map(|index| versions[index]));
    let kind = head(
        "kind",
        &["ImageSetConfiguration", "DeleteImageSetConfiguration"],
    );
    let (version, kind) = (version?.value, kind?);
    reader.version = Some(version);
    if kind.value == 0 {
        let fields = reader.fields(root, &IMAGE_SET)?;
        return image_set(reader, &fields, version, document).map(Config::ImageSet);
    }
    if version == ApiVersion::V1Alpha2 {
        reader.error(
            kind.position,
            "kind is ImageSetConfiguration in v1alpha2, found DeleteImageSetConfiguration",
            Some(format!("write `apiVersion: {}`", ApiVersion::V2Alpha1)),
        );
        reader.version = Some(ApiVersion::V2Alpha1);
    }
    let fields = reader.fields(root, &DELETE_SET)?;
    Some(Config::Delete(DeleteImageSet {
        delete: mirror(reader, &fields, &DELETE, true)?,
        notes: Vec::new(),
        document: Arc::clone(document),
    }))
}

fn image_set(
    reader: &mut Reader<'_>,
    fields: &Fields<'_>,
    api_version: ApiVersion,
    document: &Arc<Document>,
) -> Option<ImageSet> {
    let archive_size = reader
        .number(fields, "archiveSize", 0)
        .filter(|size| size.value > 0);
    if let Some(size) = &archive_size
        && size.value > i64::MAX.unsigned_abs() / GIB
    {
        reader.error(
            size.position,
            format!(
                "archiveSize is in GiB; {} is more than any disk holds",
                size.value
            ),
            None,
        );
    }
    let storage_config = storage_config(reader, fields);
    let mirror = mirror(reader, fields, &MIRROR, api_version == ApiVersion::V2Alpha1);
    Some(ImageSet {
        api_version,
        archive_size,
        storage_config,
        mirror: mirror?,
        notes: Vec::new(),
        document: Arc::clone(document),
    })
}

fn storage_config(reader: &mut Reader<'_>, fields: &Fields<'_>) -> Option<StorageConfig> {
    let fields_of = reader.fields(fields.get("storageConfig")?, &STORAGE)?;
    reader.note(
        fields.key_position("storageConfig")?,
        "storageConfig has no task here: what was mirrored is known from the store and its chain",
        None,
    );
    let mut storage = StorageConfig::default();
    if let Some(node) = fields_of.get("local")
        && let Some(local) = reader.fields(node, &STORAGE_LOCAL)
    {
        storage.local_path = reader.text(&local, "path");
    }
    if let Some(node) = fields_of.get("registry")
        && let Some(registry) = reader.fields(node, &STORAGE_REGISTRY)
    {
        storage.registry_image = reader.text(&registry, "imageURL");
        storage.registry_skip_tls = reader.optional_flag(&registry, "skipTLS");
    }
    Some(storage)
}

fn mirror(
    reader: &mut Reader<'_>,
    top: &Fields<'_>,
    stanza: &'static Stanza,
    mandatory: bool,
) -> Option<Mirror> {
    let Some(entry) = top.entry(stanza.name) else {
        if mandatory {
            reader.error(
                top.position,
                format!("the stanza `{}:` is missing", stanza.name),
                Some(format!("add `{}:`, with what to {0} under it", stanza.name)),
            );
            return None;
        }
        reader.note(
            top.position,
            format!("nothing is asked for: there is no `{}:`", stanza.name),
            None,
        );
        return Some(Mirror::default());
    };
    let mirror = match top.get(stanza.name) {
        None => Mirror::default(),
        Some(node) => {
            let fields = reader.fields(node, &stanza.root)?;
            Mirror {
                platform: platform(reader, &fields, stanza).unwrap_or_default(),
                operators: operators(reader, &fields, stanza),
                additional_images: reader.rows(
                    &fields,
                    "additionalImages",
                    &stanza.image,
                    |reader, row| image(reader, row, stanza),
                ),
                helm: helm(reader, &fields, stanza).unwrap_or_default(),
                blocked_images: reader
                    .rows(&fields, "blockedImages", &stanza.blocked, |reader, row| {
                        let text = reader.required(row, "name")?;
                        pattern(reader, &text).map(|pattern| At::new(pattern, text.position))
                    })
                    .into_iter()
                    .map(|row| row.value)
                    .collect(),
                samples: samples(reader, &fields, stanza),
            }
        }
    };
    if mirror == Mirror::default() {
        reader.note(
            entry.key_position,
            format!("nothing is asked for under `{}:`", stanza.name),
            None,
        );
    }
    Some(mirror)
}

fn samples(
    reader: &mut Reader<'_>,
    fields: &Fields<'_>,
    stanza: &'static Stanza,
) -> Vec<At<String>> {
    let samples = names(reader, fields, "samples", &stanza.sample);
    if !samples.is_empty()
        && let Some(position) = fields.key_position("samples")
    {
        reader.note(
            position,
            "samples has no task here: it names sample images but not where they are",
            Some(
                "list their images under additionalImages, or give [samples] in imgbuild.toml"
                    .to_owned(),
            ),
        );
    }
    samples
}

/// A list of `{name}`.
fn names(
    reader: &mut Reader<'_>,
    fields: &Fields<'_>,
    key: &str,
    schema: &'static Schema,
) -> Vec<At<String>> {
    reader
        .rows(fields, key, schema, |reader, row| {
            reader.required(row, "name")
        })
        .into_iter()
        .map(|row| row.value)
        .collect()
}

fn platform(
    reader: &mut Reader<'_>,
    fields: &Fields<'_>,
    stanza: &'static Stanza,
) -> Option<Platform> {
    let fields = reader.fields(fields.get("platform")?, &stanza.platform)?;
    let channels = reader.rows(&fields, "channels", &stanza.channel, |reader, row| {
        release_channel(reader, row, stanza)
    });
    reader.refuse_duplicates(
        "release channel",
        channels
            .iter()
            .map(|row| (row.name.value.clone(), row.name.as_str(), row.position)),
    );
    let mut architectures = Vec::new();
    let path = format!("{}.platform.architectures[]", stanza.name);
    for text in reader.texts(&fields, "architectures") {
        architectures.extend(reader.choice(&path, &text, ARCHITECTURES, ARCHITECTURE_ADVICE));
    }
    reader.refuse_duplicates(
        "architecture",
        architectures
            .iter()
            .map(|row| (row.value, row.value.as_str(), row.position)),
    );
    let platforms = platforms(reader, &fields, &stanza.release_platform);
    exclude(
        reader,
        &fields,
        stanza.platform.place,
        "platforms",
        &["architectures"],
    );
    let release = reader
        .text(&fields, "release")
        .and_then(|text| image_name(reader, &text, &format!("{}.platform.release", stanza.name)));
    let platform = Platform {
        graph: reader.flag(&fields, "graph"),
        channels,
        architectures,
        platforms,
        release,
        kube_virt_container: reader.flag(&fields, "kubeVirtContainer"),
    };
    if let (Some(release), Some(channels)) = (&platform.release, fields.key_position("channels"))
        && !platform.channels.is_empty()
    {
        reader.note(
            channels,
            format!(
                "the channels are ignored: release names {} alone",
                release.value
            ),
            None,
        );
    }
    if platform.release.is_none()
        && fields.get("channels").is_none()
        && fields.get("release").is_none()
    {
        for key in ["architectures", "platforms", "kubeVirtContainer"] {
            if let Some(position) = fields.key_position(key) {
                reader.note(
                    position,
                    format!("{key} has no effect without channels or a release"),
                    None,
                );
            }
        }
    }
    Some(platform)
}

const ARCHITECTURE_ADVICE: &[(&str, &str)] = &[
    ("x86_64", "amd64"),
    ("x86-64", "amd64"),
    ("x64", "amd64"),
    ("aarch64", "arm64"),
    ("power", "ppc64le"),
    ("z", "s390x"),
    ("all", "multi"),
];

fn release_channel(
    reader: &mut Reader<'_>,
    row: &Fields<'_>,
    stanza: &'static Stanza,
) -> Option<ReleaseChannel> {
    let name = reader.required(row, "name");
    let place = stanza.channel.place;
    if let Some(name) = &name
        && !name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_' | b'+'))
    {
        reader.error(
            name.position,
            format!(
                "{place}.name is a channel such as stable-4.16, found {:?}",
                shorten(name)
            ),
            None,
        );
    }
    let kind = match reader.text(row, "type") {
        Some(text) => reader.choice(
            &format!("{place}.type"),
            &text,
            &[("ocp", PlatformType::Ocp), ("okd", PlatformType::Okd)],
            &[("openshift", "ocp"), ("origin", "okd")],
        ),
        None => Some(At::new(PlatformType::default(), row.position)),
    };
    let min_version = version(reader, row, "minVersion", place, true);
    let max_version = version(reader, row, "maxVersion", place, true);
    Some(ReleaseChannel {
        shortest_path: reader.flag(row, "shortestPath"),
        full: reader.flag(row, "full"),
        name: name?,
        kind: kind.unwrap_or_default(),
        min_version,
        max_version,
    })
}

/// A version as text, its form checked.
fn version(
    reader: &mut Reader<'_>,
    row: &Fields<'_>,
    key: &str,
    place: &str,
    strict: bool,
) -> Option<At<String>> {
    let text = reader.text(row, key)?;
    if let Err(hint) = version_form(&text, strict) {
        let expected = if strict {
            "a version X.Y.Z"
        } else {
            "a version"
        };
        reader.error(
            text.position,
            format!("{place}.{key} is {expected}, found {:?}", shorten(&text)),
            hint,
        );
        return None;
    }
    Some(text)
}

/// Whether a text has the form of a semantic version: `X.Y.Z[-pre][+build]`.
///
/// The lenient form also takes a leading `v`, leading zeros in the numbers and, without `-` and `+`, fewer
/// than three numbers. The error is advice.
pub(super) fn version_form(text: &str, strict: bool) -> Result<(), Option<String>> {
    let bare = match text.strip_prefix(['v', 'V']) {
        Some(bare) if strict => {
            return Err(match version_form(bare, true) {
                Ok(()) => Some(format!("write {bare}")),
                Err(hint) => hint,
            });
        }
        Some(bare) => bare,
        None => text,
    };
    let (rest, build) = bare
        .split_once('+')
        .map_or((bare, None), |(rest, build)| (rest, Some(build)));
    let (core, pre) = rest
        .split_once('-')
        .map_or((rest, None), |(core, pre)| (core, Some(pre)));
    let numbers: Vec<&str> = core.split('.').collect();
    let is_number = |text: &str| {
        !text.is_empty()
            && text.len() <= 18
            && text.bytes().all(|byte| byte.is_ascii_digit())
            && (!strict || text == "0" || !text.starts_with('0'))
    };
    let is_suffix = |text: &str, zeros: bool| {
        text.split('.').all(|part| {
            !part.is_empty()
                && part
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
                && (zeros
                    || part.len() == 1
                    || !part.starts_with('0')
                    || !part.bytes().all(|byte| byte.is_ascii_digit()))
        })
    };
    if !numbers.iter().all(|number| is_number(number))
        || !pre.is_none_or(|pre| is_suffix(pre, false))
        || !build.is_none_or(|build| is_suffix(build, true))
    {
        return Err(None);
    }
    let short = numbers.len() < 3;
    if numbers.len() > 3 || (short && (strict || pre.is_some() || build.is_some())) {
        let full = |numbers: &[&str]| {
            let mut numbers = numbers.to_vec();
            numbers.resize(3, "0");
            numbers.join(".")
        };
        let rest = &bare[core.len()..];
        return Err(short.then(|| {
            format!(
                "write the full version, for example {}{rest}",
                full(&numbers)
            )
        }));
    }
    Ok(())
}

fn platforms(
    reader: &mut Reader<'_>,
    fields: &Fields<'_>,
    schema: &'static Schema,
) -> Vec<At<PlatformName>> {
    /// As Go names them.
    const SYSTEMS: &[(&str, &str)] = &[
        ("linux", "linux"),
        ("windows", "windows"),
        ("darwin", "darwin"),
        ("freebsd", "freebsd"),
        ("netbsd", "netbsd"),
        ("openbsd", "openbsd"),
        ("solaris", "solaris"),
        ("aix", "aix"),
        ("wasip1", "wasip1"),
    ];
    /// As Go names them.
    const PROCESSORS: &[(&str, &str)] = &[
        ("amd64", "amd64"),
        ("arm64", "arm64"),
        ("ppc64le", "ppc64le"),
        ("s390x", "s390x"),
        ("386", "386"),
        ("arm", "arm"),
        ("riscv64", "riscv64"),
        ("loong64", "loong64"),
        ("mips", "mips"),
        ("mipsle", "mipsle"),
        ("mips64", "mips64"),
        ("mips64le", "mips64le"),
        ("ppc64", "ppc64"),
        ("wasm", "wasm"),
    ];
    let rows = reader.rows(fields, "platforms", schema, |reader, row| {
        let place = schema.place;
        let os = reader.required(row, "os");
        let architecture = reader.required(row, "architecture");
        let os = reader.choice(
            &format!("{place}.os"),
            &os?,
            SYSTEMS,
            &[("macos", "darwin")],
        );
        let architecture = architecture?;
        if architecture.as_str() == "multi" {
            reader.error(
                architecture.position,
                format!("{place}.architecture is one architecture, found \"multi\""),
                Some("list each architecture wanted; without platforms all are taken".to_owned()),
            );
            return None;
        }
        let architecture = reader.choice(
            &format!("{place}.architecture"),
            &architecture,
            PROCESSORS,
            ARCHITECTURE_ADVICE,
        );
        Some(PlatformName {
            os: os?.value.to_owned(),
            architecture: architecture?.value.to_owned(),
            variant: None,
        })
    });
    let names: Vec<String> = rows
        .iter()
        .map(|row| format!("{}/{}", row.os, row.architecture))
        .collect();
    reader.refuse_duplicates(
        "platform",
        rows.iter()
            .zip(&names)
            .map(|(row, name)| (name, name.as_str(), row.position)),
    );
    rows
}

/// Reads an image's name as the schema of the file reads it.
fn image_name(reader: &mut Reader<'_>, text: &At<String>, path: &str) -> Option<At<ImageName>> {
    let lenient = reader.version == Some(ApiVersion::V1Alpha2) && !text.starts_with("oci:");
    let read = if lenient {
        Reference::parse_lenient(text).map(ImageName::Registry)
    } else {
        text.parse()
    };
    match read {
        Ok(name) => {
            let full = name.to_string();
            if lenient && full != text.strip_prefix("docker://").unwrap_or(text) {
                reader.note(
                    text.position,
                    format!("{path}: {:?} is taken as {full}", text.value),
                    None,
                );
            }
            Some(At::new(name, text.position))
        }
        Err(error) => {
            let hint = match &error {
                ReferenceError::Unqualified { .. } | ReferenceError::Untagged { .. } => {
                    Reference::parse_lenient(text)
                        .ok()
                        .map(|full| format!("write the name in full, for example {full}"))
                }
                _ => error.hint(),
            };
            reader.error(text.position, format!("{path}: {}", chain(&error)), hint);
            None
        }
    }
}

/// A path that replaces the one of the source.
fn target_path(
    reader: &mut Reader<'_>,
    row: &Fields<'_>,
    key: &str,
    place: &str,
) -> Option<At<String>> {
    let text = reader.text(row, key)?;
    if !is_path(&text) {
        let hint = if text.contains(['@', ':']) {
            Some(if key == "targetRepo" || key == "targetCatalog" {
                "a tag stands in targetTag; a registry is named by the destination".to_owned()
            } else {
                "a tag stands in targetTag".to_owned()
            })
        } else if text.bytes().any(|byte| byte.is_ascii_uppercase())
            && is_path(&text.to_lowercase())
        {
            Some(format!(
                "repository names are lowercase: {}",
                text.to_lowercase()
            ))
        } else {
            None
        };
        reader.error(
            text.position,
            format!(
                "{place}.{key} is a repository path without tag or digest (lowercase letters, digits and single separators between slashes), found {:?}",
                shorten(&text)
            ),
            hint,
        );
        return None;
    }
    Some(text)
}

fn target_tag(
    reader: &mut Reader<'_>,
    row: &Fields<'_>,
    place: &str,
) -> Option<At<crate::reference::Tag>> {
    let text = reader.text(row, "targetTag")?;
    if let Ok(tag) = text.parse() {
        return Some(At::new(tag, text.position));
    }
    reader.error(
        text.position,
        format!(
            "{place}.targetTag is a tag (at most 128 letters, digits, '_', '.', '-', not opening with '.' or '-'), found {:?}",
            shorten(&text)
        ),
        None,
    );
    None
}

fn image(
    reader: &mut Reader<'_>,
    row: &Fields<'_>,
    stanza: &'static Stanza,
) -> Option<AdditionalImage> {
    let place = stanza.image.place;
    let name = reader
        .required(row, "name")
        .and_then(|text| image_name(reader, &text, &format!("{place}.name")));
    let target_repo = target_path(reader, row, "targetRepo", place);
    let target_tag = target_tag(reader, row, place);
    let platforms = platforms(reader, row, &stanza.image_platform);
    Some(AdditionalImage {
        name: name?,
        target_repo,
        target_tag,
        platforms,
    })
}

fn operators(
    reader: &mut Reader<'_>,
    fields: &Fields<'_>,
    stanza: &'static Stanza,
) -> Vec<At<Operator>> {
    let operators = reader.rows(fields, "operators", &stanza.operator, |reader, row| {
        operator(reader, row, stanza)
    });
    let names: Vec<String> = operators
        .iter()
        .map(|operator| operator.unique_name())
        .collect();
    reader.refuse_duplicates(
        "catalog",
        operators
            .iter()
            .zip(&names)
            .map(|(row, name)| (name, name.as_str(), row.catalog.position)),
    );
    operators
}

fn operator(
    reader: &mut Reader<'_>,
    row: &Fields<'_>,
    stanza: &'static Stanza,
) -> Option<Operator> {
    let place = stanza.operator.place;
    let catalog = reader
        .required(row, "catalog")
        .and_then(|text| image_name(reader, &text, &format!("{place}.catalog")));
    let skip_dependencies = reader.flag(row, "skipDependencies");
    let original_ref = reader.text(row, "originalRef");
    if let Some(position) = row.key_position("originalRef") {
        reader.note(position, "originalRef has no effect", None);
    }
    let target_catalog = target_path(reader, row, "targetCatalog", place);
    let target_name = target_path(reader, row, "targetName", place);
    if let (Some(_), Some(position)) = (&target_catalog, row.key_position("targetName")) {
        reader.note(
            position,
            "targetName has no effect beside targetCatalog",
            None,
        );
    }
    let packages = reader.rows(row, "packages", &stanza.package, |reader, row| {
        package(reader, row, stanza)
    });
    reader.refuse_duplicates(
        "package",
        packages
            .iter()
            .map(|row| (row.name.value.clone(), row.name.as_str(), row.position)),
    );
    let operator = Operator {
        full: reader.flag(row, "full"),
        target_catalog,
        target_name,
        target_tag: target_tag(reader, row, place),
        target_catalog_source_template: reader.text(row, "targetCatalogSourceTemplate"),
        skip_dependencies,
        original_ref,
        platforms: platforms(reader, row, &stanza.operator_platform),
        packages,
        catalog: catalog?,
    };
    Some(operator)
}

fn package(reader: &mut Reader<'_>, row: &Fields<'_>, stanza: &'static Stanza) -> Option<Package> {
    let place = stanza.package.place;
    let strict = reader.version == Some(ApiVersion::V1Alpha2);
    let channels = reader.rows(row, "channels", &stanza.operator_channel, |reader, row| {
        let place = stanza.operator_channel.place;
        let name = reader.required(row, "name");
        let min_version = version(reader, row, "minVersion", place, strict);
        let max_version = version(reader, row, "maxVersion", place, strict);
        let min_bundle = reader.text(row, "minBundle");
        exclude(reader, row, place, "minBundle", &["minVersion"]);
        Some(OperatorChannel {
            name: name?,
            min_version,
            max_version,
            min_bundle,
        })
    });
    reader.refuse_duplicates(
        "channel",
        channels
            .iter()
            .map(|row| (row.name.value.clone(), row.name.as_str(), row.position)),
    );
    exclude(reader, row, place, "minBundle", &["minVersion"]);
    exclude(
        reader,
        row,
        place,
        "bundles",
        &["channels", "minVersion", "maxVersion"],
    );
    let ranged = ["minVersion", "maxVersion"]
        .iter()
        .find_map(|key| row.get(key).and(row.key_position(key)));
    if let Some(ranged) = ranged {
        for channel in &channels {
            if let Some(bound) = channel
                .min_version
                .as_ref()
                .or(channel.max_version.as_ref())
            {
                reader.error(
                    bound.position,
                    format!(
                        "the channel {:?} and its package both give versions; only one of them may",
                        shorten(&channel.name)
                    ),
                    Some(format!(
                        "the package's are at line {}, column {}",
                        ranged.line, ranged.column
                    )),
                );
            }
        }
    }
    let default_channel = reader.text(row, "defaultChannel");
    if strict
        && let Some(default) = &default_channel
        && !channels.iter().any(|channel| channel.name == *default)
    {
        reader.error(
            default.position,
            format!(
                "{place}.defaultChannel is one of the channels listed for the package, found {:?}",
                shorten(default)
            ),
            Some("list it under `channels:`".to_owned()),
        );
    }
    let package = Package {
        name: reader.required(row, "name")?,
        default_channel,
        min_version: version(reader, row, "minVersion", place, strict),
        max_version: version(reader, row, "maxVersion", place, strict),
        min_bundle: reader.text(row, "minBundle"),
        channels,
        bundles: names(reader, row, "bundles", &stanza.bundle),
    };
    Some(package)
}

/// Refuses `key` beside any of `others`.
fn exclude(reader: &mut Reader<'_>, row: &Fields<'_>, place: &str, key: &str, others: &[&str]) {
    let Some(position) = row.get(key).and(row.key_position(key)) else {
        return;
    };
    for other in others {
        if let Some(first) = row.get(other).and(row.key_position(other)) {
            reader.error(
                position,
                format!("{place}: {key} and {other} exclude each other"),
                Some(format!(
                    "remove one of them; {other} is at line {}, column {}",
                    first.line, first.column
                )),
            );
        }
    }
}

fn helm(reader: &mut Reader<'_>, fields: &Fields<'_>, stanza: &'static Stanza) -> Option<Helm> {
    let fields = reader.fields(fields.get("helm")?, &stanza.helm)?;
    let repositories = reader.rows(
        &fields,
        "repositories",
        &stanza.repository,
        |reader, row| {
            let name = reader.required(row, "name");
            let address = reader.required(row, "url").and_then(|text| {
                url(
                    reader,
                    &text,
                    &format!("{}.url", stanza.repository.place),
                    &["https", "http", "oci"],
                )
            });
            let charts = reader.rows(row, "charts", &stanza.chart, |reader, row| {
                let name = reader.required(row, "name");
                let version = reader.text(row, "version");
                let path = reader.text(row, "path");
                if let (Some(_), Some(position)) = (&path, row.key_position("path")) {
                    reader.note(
                        position,
                        "path has no effect on a chart of a repository",
                        Some("a chart on disk stands under helm.local".to_owned()),
                    );
                }
                let image_paths = reader.texts(row, "imagePaths");
                let platforms = platforms(reader, row, &stanza.chart_platform);
                Some(Chart {
                    name: name?,
                    version,
                    path,
                    image_paths,
                    platforms,
                })
            });
            let charts = row.get("charts").map(|_| charts);
            Some(HelmRepository {
                name: name?,
                url: address?,
                charts,
            })
        },
    );
    let local = reader.rows(&fields, "local", &stanza.local, |reader, row| {
        let path = reader.required(row, "path");
        let name = reader.text(row, "name");
        let version = reader.text(row, "version");
        if let (Some(_), Some(position)) = (&version, row.key_position("version")) {
            reader.note(
                position,
                "version has no effect on a local chart, which says its own",
                None,
            );
        }
        let image_paths = reader.texts(row, "imagePaths");
        let platforms = platforms(reader, row, &stanza.local_platform);
        Some(LocalChart {
            name,
            path: path?,
            version,
            image_paths,
            platforms,
        })
    });
    Some(Helm {
        repositories,
        local,
    })
}

/// A URL with one of the schemes and without credentials.
pub(super) fn url(
    reader: &mut Reader<'_>,
    text: &At<String>,
    path: &str,
    schemes: &[&str],
) -> Option<At<String>> {
    let expected = schemes
        .iter()
        .map(|scheme| format!("{scheme}://"))
        .collect::<Vec<_>>()
        .join(" or ");
    match url::Url::parse(text) {
        Ok(url) if !url.username().is_empty() || url.password().is_some() => {
            reader.error(
                text.position,
                format!("{path} holds a user name or a password"),
                Some(
                    "credentials stand in the auth file (--authfile), never in a config".to_owned(),
                ),
            );
            None
        }
        Ok(url) if schemes.contains(&url.scheme()) && url.has_host() => Some(text.clone()),
        Ok(_) | Err(_) => {
            reader.error(
                text.position,
                format!(
                    "{path} is a URL that starts with {expected}, found {:?}",
                    shorten(text)
                ),
                None,
            );
            None
        }
    }
}

/// Compiles a pattern of `blockedImages`, refusing what would mean something else than in RE2.
fn pattern(reader: &mut Reader<'_>, text: &At<String>) -> Option<Pattern> {
    /// A pattern is a line of text, not a program.
    const LARGEST_PROGRAM: usize = 1 << 20;
    if let Some(operator) = class_operator(text) {
        reader.error(
            text.position,
            format!(
                "blockedImages[].name: {operator:?} inside [...] has two meanings in regular expressions, found {:?}",
                shorten(text)
            ),
            Some("write each of these characters once, or with a backslash before it".to_owned()),
        );
        return None;
    }
    match regex::RegexBuilder::new(text)
        .size_limit(LARGEST_PROGRAM)
        .build()
    {
        Ok(regex) => Some(Pattern(regex)),
        Err(error) => {
            let (reason, hint) = if let regex::Error::CompiledTooBig(_) = &error {
                (
                    "the pattern is too large".to_owned(),
                    Some("use smaller repetition counts".to_owned()),
                )
            } else {
                let whole = error.to_string();
                let reason = whole.rsplit("error: ").next().unwrap_or(&whole).trim();
                (reason.to_owned(), pattern_hint(text))
            };
            reader.error(
                text.position,
                format!(
                    "blockedImages[].name is a regular expression, found {:?}: {reason}",
                    shorten(text)
                ),
                hint,
            );
            None
        }
    }
}

fn pattern_hint(text: &str) -> Option<String> {
    let hint = if ["(?=", "(?!", "(?<=", "(?<!"]
        .iter()
        .any(|look| text.contains(look))
    {
        "look-around does not exist in RE2 syntax: write two patterns, or block what is meant directly"
    } else if text.starts_with(['*', '+', '?']) {
        "this looks like a shell pattern: write `.*` for any text"
    } else if text.contains("\\Q") {
        "put a backslash before each special character instead of \\Q...\\E"
    } else if text.contains('{') {
        "put a backslash before a brace that stands for itself"
    } else if text.contains('[') {
        "put a backslash before a bracket that stands for itself"
    } else {
        return None;
    };
    Some(hint.to_owned())
}

/// A doubled operator inside a character class, which RE2 takes literally and others as set arithmetic.
fn class_operator(text: &str) -> Option<&'static str> {
    let mut inside = false;
    let mut characters = text.char_indices();
    while let Some((index, character)) = characters.next() {
        match character {
            '\\' => {
                characters.next();
            }
            '[' => inside = true,
            ']' => inside = false,
            '&' | '-' | '~' if inside => {
                let operator = ["&&", "--", "~~"]
                    .into_iter()
                    .find(|operator| text[index..].starts_with(operator));
                if operator.is_some() {
                    return operator;
                }
            }
            _ => {}
        }
    }
    None
}
