//! A sound audit in the forms that other tools read: CycloneDX 1.6, SPDX 2.3 and SLSA provenance v1.
//!
//! | form | says | identified by |
//! |---|---|---|
//! | CycloneDX 1.6 (ECMA-424), JSON | a component per image and file of the lock, and who needs which | package URLs (`pkg:oci`), SHA-256 |
//! | SPDX 2.3, JSON | a package per image and file of the lock, and what contains which | the same |
//! | SLSA provenance v1, an in-toto statement v1 | what lies at the destination, out of what it was made, by which rules | SHA-256 |
//!
//! An image is listed once per repository that it is pinned in, by the digest of its manifest or index: that implies
//! its blobs. Properties that these forms have no field for are named `imgbuild:…`.
//!
//! All of them follow from the lock and the report alone, so the same audit gives the same bytes on every machine.
//! CycloneDX and SLSA need no time and get none. SPDX demands one (`created`): it is [`CREATED`] unless the caller gives
//! another. Serial number and namespace are made of the report's SHA-256, not of chance.
//!
//! ## Why only sound reports
//! A bill of something that is not there as described would be believed by whoever does not read on.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use serde_json::{Map, Value, json};

use super::attest::AttestError;
use super::audit::Report;
use crate::digest::Digest;
use crate::plan::key::Role;
use crate::plan::lock::{Block, Lock, Origin, Pin};

/// The time that SPDX documents are said to be of, where none is given: the epoch, which is nobody's time of day.
pub const CREATED: &str = "1970-01-01T00:00:00Z";

/// What kind of build a provenance describes: a mirror, out of a lock.
pub const BUILD_TYPE: &str = "tag:imgbuild,2026:mirror/v1";

/// Who built it: this program, wherever it ran.
pub const BUILDER: &str = "tag:imgbuild,2026:builder/v1";

/// Documents of one report have one address below this.
const NAMESPACE: &str = "tag:imgbuild,2026:audit";

/// The lock, in the graphs of both bills.
const ROOT: &str = "lock";

/// What a part is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Nature {
    Image,
    File,
    Signature,
}

/// An image or a file of the lock.
#[derive(Clone, Debug)]
struct Part {
    nature: Nature,
    /// Repository, path or URL, without digest.
    name: String,
    /// The version of a release, the name of a bundle, the tag.
    version: Option<String>,
    digest: Digest,
    size: u64,
    platforms: String,
    owners: BTreeSet<String>,
    places: BTreeSet<String>,
    needs: BTreeSet<String>,
}

impl Part {
    /// The package URL of an image; none of what was read from a layout on disk.
    fn url(&self) -> Option<String> {
        if self.nature != Nature::Image || self.name.starts_with("oci://") {
            return None;
        }
        let last = self.name.rsplit('/').next().unwrap_or(&self.name);
        Some(format!(
            "pkg:oci/{}@sha256%3A{}?repository_url={}",
            escaped(&last.to_lowercase()),
            self.digest.hex(),
            escaped(&self.name)
        ))
    }

    fn version(&self) -> String {
        self.version
            .clone()
            .unwrap_or_else(|| self.digest.to_string())
    }
}

/// Percent-encodes what may not stand in a package URL as it is.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~/:".contains(&byte) {
            out.push(char::from(byte));
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

/// The parts of a lock by what they are called in a bill, and those that nothing else in it needs.
fn parts(lock: &Lock, report: &Report) -> BTreeMap<String, Part> {
    let mut parts: BTreeMap<String, Part> = BTreeMap::new();
    let mut places: BTreeMap<Digest, BTreeSet<String>> = BTreeMap::new();
    for placed in &report.images {
        places
            .entry(placed.digest)
            .or_default()
            .insert(placed.place.clone());
    }
    let mut catalogs: BTreeMap<String, String> = BTreeMap::new();
    for block in lock.blocks() {
        let owner = block.key().to_string();
        // The image that others of the block hang on: a payload, a catalog, a chart.
        let mut head: Option<String> = None;
        if let Some(file) = block.file() {
            let (name, version) = match block {
                Block::Chart(chart) => (chart.reference.clone(), chart.want.text("version")),
                Block::File(file) => (file.reference.clone(), None),
                _ => continue,
            };
            let id = format!("file:{}", file.digest);
            let part = parts.entry(id.clone()).or_insert_with(|| Part {
                nature: Nature::File,
                name,
                version: version.map(str::to_owned),
                digest: file.digest,
                size: file.size,
                platforms: String::new(),
                owners: BTreeSet::new(),
                places: BTreeSet::new(),
                needs: BTreeSet::new(),
            });
            part.owners.insert(owner.clone());
            if matches!(block, Block::Chart(_)) {
                head = Some(id);
            }
        }
        if let Block::Package(catalog, _) = block {
            head = catalogs.get(&catalog.key().to_string()).cloned();
        }
        for (role, pin) in block.pins() {
            let id = format!("image:{}", pin.image());
            let version = match role {
                Role::Payload { version } => Some(version.to_owned()),
                Role::Bundle { name } => Some(name.to_owned()),
                _ => pin.tag.as_ref().map(ToString::to_string),
            };
            let part = parts.entry(id.clone()).or_insert_with(|| Part {
                nature: Nature::Image,
                name: name_of(pin),
                version,
                digest: pin.digest,
                size: pin.size,
                platforms: platforms(pin),
                owners: BTreeSet::new(),
                places: places.get(&pin.digest).cloned().unwrap_or_default(),
                needs: BTreeSet::new(),
            });
            part.owners.insert(owner.clone());
            match role {
                Role::Payload { .. } | Role::Chart => head = Some(id.clone()),
                Role::Catalog => {
                    catalogs.insert(owner.clone(), id.clone());
                }
                _ => {
                    if let Some(head) = head.as_ref().filter(|head| **head != id)
                        && let Some(head) = parts.get_mut(head)
                    {
                        head.needs.insert(id.clone());
                    }
                }
            }
            for signature in &pin.signatures {
                let part = parts
                    .entry(format!("signature:{}", signature.digest))
                    .or_insert_with(|| Part {
                        nature: Nature::Signature,
                        name: format!("{} of {}", signature.from, pin.digest),
                        version: None,
                        digest: signature.digest,
                        size: signature.size,
                        platforms: String::new(),
                        owners: BTreeSet::new(),
                        places: BTreeSet::new(),
                        needs: BTreeSet::new(),
                    });
                part.owners.insert(owner.clone());
            }
        }
    }
    parts
}

fn name_of(pin: &Pin) -> String {
    match &pin.origin {
        Origin::Registry(repository) => repository.to_string(),
        Origin::Layout(path) => format!("oci://{path}"),
    }
}

fn platforms(pin: &Pin) -> String {
    let names: Vec<String> = pin.platforms.iter().map(ToString::to_string).collect();
    names.join(",")
}

/// What nobody else in the lock needs.
fn heads(parts: &BTreeMap<String, Part>) -> Vec<&String> {
    let needed: BTreeSet<&String> = parts.values().flat_map(|part| &part.needs).collect();
    parts.keys().filter(|id| !needed.contains(id)).collect()
}

const fn sound(report: &Report) -> Result<(), AttestError> {
    if report.is_sound() {
        Ok(())
    } else {
        Err(AttestError::Unsound)
    }
}

/// A UUID of version 8 (RFC 9562, 5.8) out of a digest.
fn uuid(digest: &Digest) -> String {
    let mut hex: Vec<u8> = digest.hex().into_bytes();
    hex[12] = b'8';
    hex[16] = match hex[16] {
        b'0' | b'4' | b'8' | b'c' => b'8',
        b'1' | b'5' | b'9' | b'd' => b'9',
        b'2' | b'6' | b'a' | b'e' => b'a',
        _ => b'b',
    };
    let text = String::from_utf8_lossy(&hex).into_owned();
    [
        &text[..8],
        &text[8..12],
        &text[12..16],
        &text[16..20],
        &text[20..32],
    ]
    .join("-")
}

fn property(name: &str, value: &str) -> Value {
    json!({ "name": format!("imgbuild:{name}"), "value": value })
}

/// The lock as a CycloneDX 1.6 bill of materials.
///
/// # Errors
/// If the report has findings.
pub fn cyclonedx(lock: &Lock, report: &Report) -> Result<Value, AttestError> {
    sound(report)?;
    let parts = parts(lock, report);
    let components: Vec<Value> = parts
        .iter()
        .map(|(id, part)| {
            let mut properties: Vec<Value> = part
                .owners
                .iter()
                .map(|owner| property("owner", owner))
                .collect();
            properties.extend(part.places.iter().map(|place| property("place", place)));
            if !part.platforms.is_empty() {
                properties.push(property("platforms", &part.platforms));
            }
            properties.push(property("size", &part.size.to_string()));
            let mut component = json!({
                "type": match part.nature {
                    Nature::Image => "container",
                    Nature::File | Nature::Signature => "file",
                },
                "bom-ref": id,
                "name": part.name,
                "version": part.version(),
                "hashes": [{ "alg": "SHA-256", "content": part.digest.hex() }],
                "properties": properties,
            });
            if let Some(url) = part.url() {
                component["purl"] = json!(url);
            }
            component
        })
        .collect();
    let mut dependencies = vec![json!({ "ref": ROOT, "dependsOn": heads(&parts) })];
    dependencies.extend(parts.iter().map(|(id, part)| {
        let mut row = Map::from_iter([("ref".to_owned(), json!(id))]);
        if !part.needs.is_empty() {
            row.insert("dependsOn".to_owned(), json!(part.needs));
        }
        Value::Object(row)
    }));
    let mut properties = vec![property("report", &report.digest().to_string())];
    properties.extend(
        report
            .rules
            .iter()
            .map(|(name, (digest, _))| property("rule", &format!("{name} {digest}"))),
    );
    properties.extend(
        report
            .skips
            .iter()
            .map(|skip| property("skip", &format!("{} {:?}", skip.image, skip.reason))),
    );
    Ok(json!({
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": format!("urn:uuid:{}", uuid(&report.digest())),
        "version": 1,
        "metadata": {
            "tools": { "components": [{ "type": "application", "name": "imgbuild" }] },
            "component": {
                "type": "data",
                "bom-ref": ROOT,
                "name": "lock",
                "version": report.lock,
                "hashes": [{ "alg": "SHA-256", "content": report.lock.hex() }],
            },
            "properties": properties,
        },
        "components": components,
        "dependencies": dependencies,
        // What was left out on purpose is missing from it, and says so.
        "compositions": [{
            "aggregate": if report.skips.is_empty() { "complete" } else { "incomplete" },
            "assemblies": [ROOT],
        }],
    }))
}

/// The lock as an SPDX 2.3 document; `created` is a time in UTC to the second ([`CREATED`] where nobody asks for one).
///
/// # Errors
/// If the report has findings.
pub fn spdx(lock: &Lock, report: &Report, created: &str) -> Result<Value, AttestError> {
    sound(report)?;
    let parts = parts(lock, report);
    // Ids take letters, digits, full stops and hyphens alone.
    let id_of = |id: &str| {
        let kind = id.split(':').next().unwrap_or(id);
        format!("SPDXRef-{kind}-{}", &Digest::of(id.as_bytes()).hex()[..40])
    };
    let checksum =
        |digest: &Digest| json!([{ "algorithm": "SHA256", "checksumValue": digest.hex() }]);
    let root = format!("SPDXRef-{ROOT}");
    let mut packages = vec![json!({
        "SPDXID": root,
        "name": "lock",
        "versionInfo": report.lock,
        "downloadLocation": "NOASSERTION",
        "filesAnalyzed": false,
        "checksums": checksum(&report.lock),
    })];
    packages.extend(parts.iter().map(|(id, part)| {
        let mut package = json!({
            "SPDXID": id_of(id),
            "name": part.name,
            "versionInfo": part.version(),
            "downloadLocation": "NOASSERTION",
            "filesAnalyzed": false,
            "checksums": checksum(&part.digest),
            "primaryPackagePurpose": match part.nature {
                Nature::Image => "CONTAINER",
                Nature::File | Nature::Signature => "FILE",
            },
            "comment": part.owners.iter().map(|owner| format!("needed by {owner}")).collect::<Vec<_>>().join("; "),
        });
        if let Some(url) = part.url() {
            package["externalRefs"] = json!([{
                "referenceCategory": "PACKAGE-MANAGER",
                "referenceType": "purl",
                "referenceLocator": url,
            }]);
        }
        package
    }));
    let relation = |from: &str, kind: &str, to: &str| json!({ "spdxElementId": from, "relationshipType": kind, "relatedSpdxElement": to });
    let mut relationships = vec![relation("SPDXRef-DOCUMENT", "DESCRIBES", &root)];
    relationships.extend(
        heads(&parts)
            .iter()
            .map(|id| relation(&root, "CONTAINS", &id_of(id))),
    );
    for (id, part) in &parts {
        relationships.extend(
            part.needs
                .iter()
                .map(|needed| relation(&id_of(id), "DEPENDS_ON", &id_of(needed))),
        );
    }
    let left_out: Vec<String> = report
        .skips
        .iter()
        .map(|skip| format!("left out: {} ({})", skip.image, skip.reason))
        .collect();
    let mut document = json!({
        "spdxVersion": "SPDX-2.3",
        "dataLicense": "CC0-1.0",
        "SPDXID": "SPDXRef-DOCUMENT",
        "name": format!("imgbuild lock {}", report.lock),
        "documentNamespace": format!("{NAMESPACE}/{}", report.digest().hex()),
        "creationInfo": { "created": created, "creators": ["Tool: imgbuild"] },
        "packages": packages,
        "relationships": relationships,
    });
    if !left_out.is_empty() {
        document["comment"] = json!(left_out.join("\n"));
    }
    Ok(document)
}

/// What is at the destination and what it was made of, as SLSA provenance v1 in an in-toto statement v1.
///
/// Its subjects are the lock, every place below a destination with the digest that is there, and the archives of the
/// chain.
///
/// # Errors
/// If the report has findings.
pub fn slsa(lock: &Lock, report: &Report) -> Result<Value, AttestError> {
    sound(report)?;
    let sha256 = |digest: &Digest| json!({ "sha256": digest.hex() });
    let mut subjects: BTreeMap<String, Value> = BTreeMap::new();
    for placed in &report.images {
        subjects.insert(placed.place.clone(), sha256(&placed.digest));
    }
    for (stream, sequence, id, _) in &report.archives {
        subjects.insert(format!("{stream}#{sequence}"), sha256(id));
    }
    let mut subject = vec![json!({ "name": ROOT, "digest": sha256(&report.lock) })];
    subject.extend(
        subjects
            .into_iter()
            .map(|(name, digest)| json!({ "name": name, "digest": digest })),
    );
    let mut dependencies: Vec<Value> = report
        .rules
        .iter()
        .map(|(name, (digest, _))| {
            json!({ "uri": format!("tag:imgbuild,2026:rule/{name}"), "digest": sha256(digest) })
        })
        .collect();
    for part in parts(lock, report).into_values() {
        let mut row = json!({ "name": part.name, "digest": sha256(&part.digest) });
        if let Some(url) = part.url() {
            row["uri"] = json!(url);
        }
        dependencies.push(row);
    }
    let mut parameters = json!({ "lock": { "digest": sha256(&report.lock) } });
    if let Some((config, _)) = &report.config {
        parameters["config"] = json!({ "digest": sha256(config) });
    }
    Ok(json!({
        "_type": "https://in-toto.io/Statement/v1",
        "subject": subject,
        "predicateType": "https://slsa.dev/provenance/v1",
        "predicate": {
            "buildDefinition": {
                "buildType": BUILD_TYPE,
                "externalParameters": parameters,
                "resolvedDependencies": dependencies,
            },
            "runDetails": {
                "builder": { "id": BUILDER },
                "byproducts": [{ "name": "audit report", "digest": sha256(&report.digest()) }],
            },
        },
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_made_of_a_digest_is_a_uuid_of_version_8() {
        for seed in ["a", "b", "c", "d", "e"] {
            let text = uuid(&Digest::of(seed.as_bytes()));
            let parts: Vec<usize> = text.split('-').map(str::len).collect();
            assert_eq!(parts, [8, 4, 4, 4, 12], "the form of {text}");
            assert_eq!(&text[14..15], "8", "the version of {text}");
            assert!("89ab".contains(&text[19..20]), "the variant of {text}");
        }
    }

    #[test]
    fn a_package_url_encodes_what_may_not_stand_in_it() {
        for (text, wanted) in [
            ("quay.io/a/b", "quay.io/a/b"),
            ("localhost:5000/a", "localhost:5000/a"),
            ("a b?c&d#e%", "a%20b%3Fc%26d%23e%25"),
            ("[::1]:5000/a", "%5B::1%5D:5000/a"),
        ] {
            assert_eq!(escaped(text), wanted, "{text}");
        }
    }
}
