//! What installers and older or smaller clusters are told: ImageContentSourcePolicy, the lines of an install-config, an
//! Image Builder blueprint, and the samples operator's config.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use super::cluster::{Mirrored, yaml_stream};
use super::node::Entry;
use crate::canon::Value;
use crate::digest::Digest;
use crate::reference::Repository;

/// Most bytes of one ImageContentSourcePolicy; above this the API server's storage refuses an object.
const POLICY_LIMIT: usize = 250_000;

/// ImageContentSourcePolicy objects, for clusters before 4.13: one per category, or more where one would be too large.
///
/// Release images are listed by repository, others by namespace where the destination keeps their path. What is known
/// by tag alone cannot be listed.
///
/// # Errors
/// Never for values of [`Value`]; the type is serde's.
pub fn content_source_policies(
    images: &[Mirrored],
    by_repository: bool,
) -> Result<Vec<Value>, serde_saphyr::ser::Error> {
    let mut groups: BTreeMap<&str, BTreeMap<String, BTreeSet<String>>> = BTreeMap::new();
    for image in images {
        if !image.by_digest {
            continue;
        }
        let (source, mirror) = scope(
            &image.origin.repository,
            &image.destination,
            by_repository || image.category == "release",
        );
        groups
            .entry(&image.category)
            .or_default()
            .entry(source)
            .or_default()
            .insert(mirror);
    }
    let mut documents = Vec::new();
    for (group, entries) in groups {
        let mut chunk: Vec<Value> = Vec::new();
        let mut chunks: Vec<Vec<Value>> = Vec::new();
        let mut size = 0;
        for (source, mirrors) in entries {
            let mirrors = mirrors.into_iter().map(Value::Text).collect();
            let row = Value::map([("source", source.into()), ("mirrors", Value::List(mirrors))]);
            let length = yaml_stream(std::slice::from_ref(&row))?.len() + 64;
            if size + length > POLICY_LIMIT && !chunk.is_empty() {
                chunks.push(std::mem::take(&mut chunk));
                size = 0;
            }
            size += length;
            chunk.push(row);
        }
        chunks.push(chunk);
        for (number, rows) in chunks.into_iter().enumerate() {
            let mut metadata = vec![("name", Value::from(format!("{group}-{number}")))];
            if group == "operator" {
                metadata.push((
                    "labels",
                    Value::map([("operators.openshift.org/catalog", "true".into())]),
                ));
            }
            documents.push(Value::map([
                ("apiVersion", "operator.openshift.io/v1alpha1".into()),
                ("kind", "ImageContentSourcePolicy".into()),
                ("metadata", Value::map(metadata)),
                (
                    "spec",
                    Value::map([("repositoryDigestMirrors", Value::List(rows))]),
                ),
            ]));
        }
    }
    Ok(documents)
}

/// The two ends of one entry: namespaces where the path is kept and has one, else repositories.
fn scope(source: &Repository, destination: &Repository, by_repository: bool) -> (String, String) {
    let kept = destination.path() == source.path()
        || destination
            .path()
            .strip_suffix(source.path())
            .is_some_and(|before| before.ends_with('/'));
    let namespaces = || {
        let (ours, _) = source.path().rsplit_once('/')?;
        let (theirs, _) = destination.path().rsplit_once('/')?;
        Some((
            format!("{}/{ours}", source.registry()),
            format!("{}/{theirs}", destination.registry()),
        ))
    };
    let whole = || (source.to_string(), destination.to_string());
    if by_repository || !kept {
        return whole();
    }
    namespaces().unwrap_or_else(whole)
}

/// The name that an install-config has for mirrors by digest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sources {
    /// `imageDigestSources`
    Digest,
    /// `imageContentSources`: installers up to 4.13 know no other.
    Content,
}

/// The lines of an install-config that let the installer use a mirror, and the authorities to believe where some are
/// given.
///
/// # Errors
/// Never for values of [`Value`]; the type is serde's.
pub fn install_config(
    entries: &[Entry],
    sources: Sources,
    authorities: Option<&str>,
) -> Result<String, serde_saphyr::ser::Error> {
    let rows = entries
        .iter()
        .map(|entry| {
            let mirrors = entry.mirrors.iter().cloned().map(Value::Text).collect();
            Value::map([
                ("source", entry.source.clone().into()),
                ("mirrors", Value::List(mirrors)),
            ])
        })
        .collect();
    let name = match sources {
        Sources::Digest => "imageDigestSources",
        Sources::Content => "imageContentSources",
    };
    let mut lines = vec![(name, Value::List(rows))];
    if let Some(authorities) = authorities {
        lines.push(("additionalTrustBundle", authorities.into()));
    }
    let text = yaml_stream(&[Value::map(lines)])?;
    Ok(text.strip_prefix("---\n").unwrap_or(&text).to_owned())
}

/// The `[[containers]]` of an Image Builder blueprint: every image once, by digest, since a tag breaks a start without
/// network. `filters` are texts of which a name must contain one; none takes all.
#[must_use]
pub fn blueprint<'a>(
    images: impl IntoIterator<Item = (&'a Repository, Digest)>,
    filters: &[String],
) -> String {
    let sources: BTreeSet<String> = images
        .into_iter()
        .map(|(repository, digest)| format!("{repository}@{digest}"))
        .filter(|source| {
            filters.is_empty()
                || filters
                    .iter()
                    .any(|filter| source.contains(filter.as_str()))
        })
        .collect();
    let mut out = String::new();
    for source in sources {
        if !out.is_empty() {
            out.push('\n');
        }
        let _ = writeln!(
            out,
            "[[containers]]\nsource = {}",
            toml::Value::String(source)
        );
    }
    out
}

/// The config of the samples operator that takes the images of sample streams from a mirror (`HOST[:PORT][/PREFIX]`).
///
/// Mirror sets do not count for these imports, hence the name of the mirror.
#[must_use]
pub fn samples(mirror: &str) -> Value {
    Value::map([
        ("apiVersion", "samples.operator.openshift.io/v1".into()),
        ("kind", "Config".into()),
        ("metadata", Value::map([("name", "cluster".into())])),
        (
            "spec",
            Value::map([
                ("managementState", "Managed".into()),
                ("samplesRegistry", mirror.into()),
            ]),
        ),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEX: &str = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";

    fn image(category: &str, origin: &str, destination: &str) -> Mirrored {
        let origin: crate::reference::Reference = origin.parse().unwrap();
        Mirrored {
            category: category.to_owned(),
            destination: destination.parse().unwrap(),
            by_digest: origin.digest.is_some(),
            by_tag: origin.tag.is_some(),
            origin,
        }
    }

    #[test]
    fn policies_are_grouped_as_the_incumbents_group_them() {
        let digest = |name: &str| format!("{name}@sha256:{HEX}");
        let images = [
            image(
                "release",
                &digest("quay.io/o/ocp-v4.0-art-dev"),
                "m:5000/x/o/ocp-v4.0-art-dev",
            ),
            image(
                "operator",
                &digest("registry.redhat.io/ubi9/ubi"),
                "m:5000/x/ubi9/ubi",
            ),
            image(
                "operator",
                &digest("registry.redhat.io/ubi9/ubi-micro"),
                "m:5000/x/ubi9/ubi-micro",
            ),
            image("generic", &digest("quay.io/single"), "m:5000/x/single"),
            image("generic", &digest("quay.io/a/b"), "m:5000/x/c/d"),
            image("generic", "quay.io/a/tagged:1", "m:5000/x/a/tagged"),
        ];
        let text = yaml_stream(&content_source_policies(&images, false).unwrap()).unwrap();
        assert_eq!(
            text,
            "---\napiVersion: operator.openshift.io/v1alpha1\nkind: ImageContentSourcePolicy\nmetadata:\n  name: generic-0\nspec:\n  repositoryDigestMirrors:\n  - mirrors:\n    - m:5000/x/c/d\n    source: quay.io/a/b\n  - mirrors:\n    - m:5000/x/single\n    source: quay.io/single\n---\napiVersion: operator.openshift.io/v1alpha1\nkind: ImageContentSourcePolicy\nmetadata:\n  labels:\n    operators.openshift.org/catalog: \"true\"\n  name: operator-0\nspec:\n  repositoryDigestMirrors:\n  - mirrors:\n    - m:5000/x/ubi9\n    source: registry.redhat.io/ubi9\n---\napiVersion: operator.openshift.io/v1alpha1\nkind: ImageContentSourcePolicy\nmetadata:\n  name: release-0\nspec:\n  repositoryDigestMirrors:\n  - mirrors:\n    - m:5000/x/o/ocp-v4.0-art-dev\n    source: quay.io/o/ocp-v4.0-art-dev\n"
        );
    }

    #[test]
    fn a_policy_that_would_be_too_large_is_divided() {
        let images: Vec<Mirrored> = (0..4000)
            .map(|number| {
                let path = format!("namespace-{number}/image-{number}");
                image(
                    "generic",
                    &format!("quay.io/{path}@sha256:{HEX}"),
                    &format!("mirror.example.com:5000/prefix/{path}"),
                )
            })
            .collect();
        let documents = content_source_policies(&images, true).unwrap();
        assert!(
            documents.len() > 1,
            "4000 repositories are too many for one"
        );
        for document in &documents {
            let size = yaml_stream(std::slice::from_ref(document)).unwrap().len();
            assert!(size <= POLICY_LIMIT, "{size} bytes");
        }
    }

    #[test]
    fn a_blueprint_has_digests_only() {
        let (one, two): (Repository, Repository) = (
            "quay.io/a/one".parse().unwrap(),
            "quay.io/a/two".parse().unwrap(),
        );
        let digest = Digest::from_hex(HEX).unwrap();
        let images = [(&two, digest), (&one, digest), (&two, digest)];
        assert_eq!(
            blueprint(images, &[]),
            format!(
                "[[containers]]\nsource = \"quay.io/a/one@sha256:{HEX}\"\n\n[[containers]]\nsource = \"quay.io/a/two@sha256:{HEX}\"\n"
            ),
        );
        assert_eq!(
            blueprint(images, &["two".to_owned()])
                .matches("containers")
                .count(),
            1,
            "a filter leaves out what does not contain it"
        );
    }

    #[test]
    fn an_install_config_gets_its_lines() {
        let entry = Entry {
            source: "quay.io/a".to_owned(),
            mirrors: vec!["m:5000/a".to_owned()],
            never_source: false,
        };
        for (sources, name) in [
            (Sources::Digest, "imageDigestSources"),
            (Sources::Content, "imageContentSources"),
        ] {
            let entry = std::slice::from_ref(&entry);
            let text = install_config(entry, sources, Some("PEM\nPEM\n")).unwrap();
            let read: serde_yaml::Value = serde_yaml::from_str(&text).unwrap();
            assert_eq!(
                read[name][0]["mirrors"][0].as_str(),
                Some("m:5000/a"),
                "both names have the same rows"
            );
            assert_eq!(read["additionalTrustBundle"].as_str(), Some("PEM\nPEM\n"));
        }
    }
}
