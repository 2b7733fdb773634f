//! Release payload files as they are in real releases and in the incumbents' own tests.

use std::path::{Path, PathBuf};

use imgbuild::openshift::payload::{ImageReferences, Payload, PayloadError, ReleaseMetadata};
use imgbuild::openshift::release::{Architecture, ReleaseTag};

fn own(name: &str) -> Vec<u8> {
    std::fs::read(
        Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("tests/data/release")
            .join(name),
    )
    .unwrap()
}

/// A file of the shared collection of real data; `None`, with a message, where it is not at hand.
fn shared(name: &str) -> Option<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let found = ["../shared/data", "../../shared/data"]
        .iter()
        .map(|base| root.join(base).join(name))
        .find(|path| path.exists());
    if found.is_none() {
        println!("skipped: {name} is not at hand");
    }
    found
}

#[test]
fn a_real_payload_is_read_whole() {
    let payload = Payload::parse(
        &own("4.12.0-image-references.json"),
        &own("4.12.0-release-metadata.json"),
    )
    .unwrap();
    assert_eq!(
        payload.metadata.version.to_string(),
        "4.12.0",
        "the version"
    );
    assert_eq!(
        payload
            .references
            .component("agent-installer-api-server")
            .unwrap()
            .image
            .to_string(),
        "quay.io/openshift-release-dev/ocp-v4.0-art-dev@sha256:f30638f60452062aba36a26ee6c036feead2f03b28f2c47f2b0a991e4182331e",
        "a component by digest"
    );
    assert_eq!(
        payload.metadata.previous.len(),
        21,
        "every release it may follow"
    );
    assert!(
        payload
            .metadata
            .previous
            .windows(2)
            .all(|pair| pair[0] < pair[1]),
        "ascending"
    );
    assert_eq!(
        payload.metadata.metadata["url"], "https://access.redhat.com/errata/RHSA-2022:7399",
        "its errata"
    );
    assert_eq!(
        payload.metadata.architecture("amd64", 1).unwrap(),
        Architecture::Amd64,
        "its architecture is that of the image"
    );
}

#[test]
fn whole_lists_of_components_are_read() {
    for (name, version, count) in [
        (
            "release/openshift+oc-mirror/tests/unit/testdata/temp-dir/tests/hold-release/ocp-release/4.14.1-x86_64/release-manifests/image-references",
            "4.12.0",
            183,
        ),
        (
            "release/openshift+hypershift/support/releaseinfo/fixtures/4.10-image-references.json",
            "4.10.0-0.nightly-2021-11-14-184249",
            146,
        ),
    ] {
        let Some(path) = shared(name) else { return };
        let bytes = std::fs::read(path).unwrap();
        let references = ImageReferences::parse(&bytes).unwrap();
        assert_eq!(references.version.to_string(), version, "{name}");
        assert_eq!(references.components.len(), count, "{name}");
        let document: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
        let tag = ReleaseTag::new(&references.version, Architecture::Amd64).unwrap();
        for listed in document["spec"]["tags"].as_array().unwrap() {
            let name = listed["name"].as_str().unwrap();
            let component = references.component(name).unwrap();
            assert_eq!(
                component.image.to_string(),
                listed["from"]["name"].as_str().unwrap(),
                "{name} is what the file says"
            );
            assert_eq!(
                tag.component(name).unwrap().as_str(),
                format!("{version}-x86_64-{name}"),
                "{name} has a tag"
            );
        }
        println!("{version}: {count} components");
    }
}

/// The cluster version operator's own test payloads: metadata without components.
#[test]
fn payloads_made_for_tests_are_understood_or_refused_by_name() {
    let Some(root) = shared("release/openshift+cluster-version-operator/pkg/cvo/testdata") else {
        return;
    };
    let mut read = 0;
    for entry in std::fs::read_dir(&root).unwrap() {
        let directory = entry.unwrap().path().join("release-manifests");
        let bytes = std::fs::read(directory.join("release-metadata")).unwrap();
        let metadata = ReleaseMetadata::parse(&bytes).unwrap();
        let stated = String::from_utf8_lossy(&bytes).contains("release.openshift.io/architecture");
        assert_eq!(
            metadata.architecture("amd64", 1).unwrap(),
            if stated {
                Architecture::Multi
            } else {
                Architecture::Amd64
            },
            "{directory:?}"
        );
        let references = std::fs::read(directory.join("image-references")).unwrap();
        assert!(
            matches!(
                ImageReferences::parse(&references),
                Err(PayloadError::NoComponents { .. } | PayloadError::Json { .. })
            ),
            "{directory:?}: neither a payload without components nor a list in YAML is taken"
        );
        read += 1;
    }
    println!("{read} test payloads of the cluster version operator");
    let Some(tagged) = shared(
        "release/openshift+oc-mirror/tests/integration/image-builders/release/artifacts/release-manifests/image-references",
    ) else {
        return;
    };
    assert!(
        matches!(
            ImageReferences::parse(&std::fs::read(tagged).unwrap()),
            Err(PayloadError::NotByDigest { .. })
        ),
        "a component by tag is refused"
    );
}
