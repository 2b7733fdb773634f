//! An upstream of releases: payloads, components and signatures, a graph and a store of signatures served over HTTP.
//!
//! Components are tiny, and most of them are those of the release before, as between real patch releases.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;
use std::sync::{Arc, Mutex};

use imgbuild::digest::Digest;
use imgbuild::oci::{Descriptor, OCI_INDEX, OCI_MANIFEST};
use imgbuild::store::Blob;
use pgp::composed::{
    ArmorOptions, KeyType, MessageBuilder, SecretKeyParamsBuilder, SignedSecretKey,
};
use pgp::crypto::hash::HashAlgorithm;
use pgp::types::Password;
use serde_json::{Value, json};

use super::content::{Content, noise};
use super::registry::Registry;
use super::{Connected, Run, Site};

/// Components of each release.
pub(crate) const COMPONENTS: u64 = 40;

/// When every file of a layer was last changed, in seconds since 1970.
pub(crate) const MODIFIED: u64 = 1_700_000_000;

/// Where payloads are.
pub(crate) const PAYLOADS: &str = "openshift-release-dev/ocp-release";

/// Where components are.
pub(crate) const ART: &str = "openshift-release-dev/ocp-v4.0-art-dev";

/// Files by path and query, over HTTP.
#[derive(Clone, Default)]
pub(crate) struct Files {
    pub(crate) files: Arc<Mutex<BTreeMap<String, Vec<u8>>>>,
    pub(crate) asked: Arc<Mutex<Vec<String>>>,
}

impl Files {
    pub(crate) fn put(&self, path: &str, bytes: impl Into<Vec<u8>>) {
        self.files
            .lock()
            .unwrap()
            .insert(path.to_owned(), bytes.into());
    }

    pub(crate) fn remove(&self, path: &str) {
        self.files.lock().unwrap().remove(path);
    }

    /// Serves until the test ends; answers the address.
    pub(crate) fn serve(&self) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let files = self.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(mut stream) = stream else { return };
                let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
                let Some(Ok(first)) = lines.next() else {
                    continue;
                };
                while lines
                    .next()
                    .is_some_and(|line| line.is_ok_and(|line| !line.is_empty()))
                {}
                let path = first.split(' ').nth(1).unwrap_or_default().to_owned();
                let body = files.files.lock().unwrap().get(&path).cloned();
                files.asked.lock().unwrap().push(path);
                let head = match &body {
                    Some(body) => format!(
                        "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
                        body.len()
                    ),
                    None => {
                        "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
                            .to_owned()
                    }
                };
                let _ = stream.write_all(head.as_bytes());
                let _ = stream.write_all(&body.unwrap_or_default());
            }
        });
        address
    }
}

/// A release as it was made.
#[derive(Clone)]
pub(crate) struct Made {
    pub(crate) version: String,
    pub(crate) payload: Digest,
    pub(crate) components: BTreeMap<String, Digest>,
}

/// An upstream of releases.
pub(crate) struct World {
    pub(crate) content: Content,
    pub(crate) registry: Registry,
    pub(crate) files: Files,
    pub(crate) address: String,
    pub(crate) key: SignedSecretKey,
    pub(crate) other: SignedSecretKey,
    linked: Mutex<BTreeSet<String>>,
}

pub(crate) fn key(name: &str) -> SignedSecretKey {
    SecretKeyParamsBuilder::default()
        .key_type(KeyType::Ed25519Legacy)
        .can_certify(true)
        .can_sign(true)
        .primary_user_id(format!("{name} <{name}@example.test>"))
        .build()
        .unwrap()
        .generate(rand::thread_rng())
        .unwrap()
}

pub(crate) fn signature(key: &SignedSecretKey, digest: &Digest, name: &str) -> Vec<u8> {
    let body = json!({
        "critical": {
            "image": { "docker-manifest-digest": digest },
            "type": "atomic container signature",
            "identity": { "docker-reference": name },
        },
        "optional": { "creator": "a test" },
    });
    let mut builder = MessageBuilder::from_bytes("", body.to_string().into_bytes());
    builder.sign_binary();
    builder.sign(&key.primary_key, Password::empty(), HashAlgorithm::Sha256);
    builder.to_vec(rand::thread_rng()).unwrap()
}

/// What goes into a payload.
#[derive(Default)]
pub(crate) struct Recipe<'a> {
    pub(crate) architecture: &'a str,
    pub(crate) previous: &'a [&'a str],
    /// Files besides the two lists.
    pub(crate) files: Vec<(&'a str, Vec<u8>)>,
    /// Leave out the list of components.
    pub(crate) without_list: bool,
    /// Zstandard instead of gzip.
    pub(crate) zstd: bool,
}

impl World {
    pub(crate) fn new() -> Self {
        let content = Content::default();
        let files = Files::default();
        Self {
            registry: content.served(),
            address: files.serve(),
            content,
            files,
            key: key("release"),
            other: key("other"),
            linked: Mutex::default(),
        }
    }

    pub(crate) fn descriptor(media_type: &str, blob: Blob) -> Descriptor {
        Descriptor {
            media_type: media_type.to_owned(),
            digest: blob.digest,
            size: blob.size,
            platform: None,
            artifact_type: None,
            urls: Vec::new(),
            annotations: BTreeMap::new(),
        }
    }

    pub(crate) fn layer(&self, files: &[(&str, Vec<u8>)], zstd: bool) -> Value {
        let mut tar = tar::Builder::new(Vec::new());
        for (path, bytes) in files {
            let mut header = tar::Header::new_ustar();
            header.set_size(bytes.len() as u64);
            header.set_mode(0o644);
            header.set_mtime(MODIFIED);
            tar.append_data(&mut header, path, bytes.as_slice())
                .unwrap();
        }
        self.layer_of(&tar.into_inner().unwrap(), zstd)
    }

    /// A layer that is this tar.
    pub(crate) fn layer_of(&self, tar: &[u8], zstd: bool) -> Value {
        let (bytes, suffix) = if zstd {
            (zstd::encode_all(tar, 1).unwrap(), "zstd")
        } else {
            let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            gzip.write_all(tar).unwrap();
            (gzip.finish().unwrap(), "gzip")
        };
        let blob = self.content.memory.insert(&bytes);
        json!({ "mediaType": format!("application/vnd.oci.image.layer.v1.tar+{suffix}"), "digest": blob.digest, "size": blob.size })
    }

    pub(crate) fn image(&self, repository: &str, architecture: &str, layers: &[Value]) -> Blob {
        let config = json!({ "architecture": architecture, "os": "linux", "rootfs": { "type": "layers", "diff_ids": [] } });
        let config = self.content.memory.insert(config.to_string().as_bytes());
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": { "mediaType": "application/vnd.oci.image.config.v1+json", "digest": config.digest, "size": config.size },
            "layers": layers,
        });
        let blob = self.content.memory.insert(manifest.to_string().as_bytes());
        self.link(repository, OCI_MANIFEST, blob);
        blob
    }

    pub(crate) fn index(&self, repository: &str, children: &[(&str, Blob)]) -> Blob {
        let children: Vec<Value> = children
            .iter()
            .map(|(architecture, blob)| json!({ "mediaType": OCI_MANIFEST, "digest": blob.digest, "size": blob.size, "platform": { "os": "linux", "architecture": architecture } }))
            .collect();
        let index = json!({ "schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": children });
        let blob = self.content.memory.insert(index.to_string().as_bytes());
        self.link(repository, OCI_INDEX, blob);
        blob
    }

    /// Publishes a manifest by its digest; stock registries need a tag as well, so it has one that nobody asks for.
    pub(crate) fn link(&self, repository: &str, media_type: &str, blob: Blob) {
        let name = format!("{repository}:d{}", &blob.digest.hex()[..12]);
        if self.linked.lock().unwrap().insert(name.clone()) {
            self.content.publish(&name, blob, media_type);
        }
    }

    /// The components of a release: two in three are those of the release before.
    pub(crate) fn components(&self, number: u64) -> BTreeMap<String, Digest> {
        self.parts(COMPONENTS, |component| (number + component) / 3)
    }

    /// So many components, each in the state that it is in: the same state is the same image.
    pub(crate) fn parts(&self, count: u64, state: impl Fn(u64) -> u64) -> BTreeMap<String, Digest> {
        (0..count)
            .map(|component| {
                let seed = 1000 + component * 100 + state(component);
                let layers = [
                    self.layer(&[("base", noise(component % 5, 4000))], false),
                    self.layer(&[("own", noise(seed, 2000))], false),
                ];
                let blob = self.image(ART, "amd64", &layers);
                (format!("part-{component:02}"), blob.digest)
            })
            .collect()
    }

    pub(crate) fn payload(
        &self,
        version: &str,
        components: &BTreeMap<String, Digest>,
        recipe: &Recipe<'_>,
    ) -> Blob {
        let tags: Vec<Value> = components
            .iter()
            .map(|(name, digest)| json!({ "name": name, "from": { "kind": "DockerImage", "name": format!("quay.io/{ART}@{digest}") } }))
            .collect();
        let references = json!({ "kind": "ImageStream", "apiVersion": "image.openshift.io/v1", "metadata": { "name": version }, "spec": { "tags": tags } });
        let metadata = json!({ "kind": "cincinnati-metadata-v0", "version": version, "previous": recipe.previous, "metadata": {} });
        let mut files = recipe.files.clone();
        if !recipe.without_list {
            files.push((
                "release-manifests/image-references",
                references.to_string().into_bytes(),
            ));
        }
        files.push((
            "release-manifests/release-metadata",
            metadata.to_string().into_bytes(),
        ));
        let architecture = if recipe.architecture.is_empty() {
            "amd64"
        } else {
            recipe.architecture
        };
        let layers = [
            self.layer(&[("base", noise(7, 3000))], false),
            self.layer(&files, recipe.zstd),
        ];
        self.image(PAYLOADS, architecture, &layers)
    }

    /// Makes a release and signs it.
    pub(crate) fn release(&self, number: u64, version: &str, previous: &[&str]) -> Made {
        self.release_of(version, self.components(number), previous, number % 2 == 1)
    }

    /// Makes a release of these components and signs it.
    pub(crate) fn release_of(
        &self,
        version: &str,
        components: BTreeMap<String, Digest>,
        previous: &[&str],
        zstd: bool,
    ) -> Made {
        let recipe = Recipe {
            previous,
            zstd,
            ..Recipe::default()
        };
        let payload = self.payload(version, &components, &recipe).digest;
        self.sign(&payload, version, 1, &self.key);
        Made {
            version: version.to_owned(),
            payload,
            components,
        }
    }

    pub(crate) fn signature_path(digest: &Digest, number: u32) -> String {
        format!("/signatures/sha256={}/signature-{number}", digest.hex())
    }

    pub(crate) fn sign(&self, digest: &Digest, version: &str, number: u32, key: &SignedSecretKey) {
        let name = format!("quay.io/{PAYLOADS}:{version}-x86_64");
        self.files.put(
            &Self::signature_path(digest, number),
            signature(key, digest, &name),
        );
    }

    /// Publishes the graph of a channel: releases, edges by version, conditional edges with one risk each.
    pub(crate) fn channel(
        &self,
        name: &str,
        architecture: &str,
        releases: &[&Made],
        edges: &[(&str, &str)],
        conditional: &[(&str, &str, &str)],
    ) {
        let place = |version: &str| {
            releases
                .iter()
                .position(|release| release.version == version)
                .unwrap()
        };
        let nodes: Vec<Value> = releases
            .iter()
            .map(|release| json!({ "version": release.version, "payload": format!("quay.io/{PAYLOADS}@{}", release.payload), "metadata": { "io.openshift.upgrades.graph.release.channels": format!("{name},other-1.0") } }))
            .collect();
        let edges: Vec<Value> = edges
            .iter()
            .map(|(from, to)| json!([place(from), place(to)]))
            .collect();
        let conditional: Vec<Value> = conditional
            .iter()
            .map(|(from, to, risk)| json!({ "edges": [{ "from": from, "to": to }], "risks": [{ "name": risk, "url": format!("https://example.test/{risk}"), "message": "m", "matchingRules": [{ "type": "Always" }] }] }))
            .collect();
        let graph = json!({ "version": 1, "nodes": nodes, "edges": edges, "conditionalEdges": conditional });
        self.files.put(
            &format!("/graph?arch={architecture}&channel={name}"),
            graph.to_string(),
        );
    }

    /// A site that reaches this upstream.
    pub(crate) fn site(&self) -> Connected {
        let site = Connected::to(&self.registry);
        site.leads("quay.io", &self.registry.address());
        site.write("release.asc", Self::public(&self.key));
        site
    }

    pub(crate) fn public(key: &SignedSecretKey) -> Vec<u8> {
        key.to_public_key()
            .to_armored_bytes(ArmorOptions::default())
            .unwrap()
    }

    /// Runs the program where this upstream is the update service and the store of signatures.
    pub(crate) fn run(&self, site: &Site, line: &str) -> Run {
        let mut command = site.command(line.split_whitespace());
        command
            .env(
                "UPDATE_URL_OVERRIDE",
                format!("http://{}/graph", self.address),
            )
            .env(
                "OCP_SIGNATURE_URL",
                format!("http://{}/signatures/", self.address),
            )
            .env("OCP_SIGNATURE_VERIFICATION_PK", "release.asc");
        let output = command.output().unwrap();
        Run::of(&command, &output)
    }
}

/// Rows of `platform.channels`, as `name min max` (`-` for none), with further fields behind.
pub(crate) fn channels(rows: &[&str]) -> String {
    let mut text = "  platform:\n    channels:\n".to_owned();
    for row in rows {
        let mut words = row.split_whitespace();
        let _ = writeln!(text, "    - name: {}", words.next().unwrap());
        for key in ["minVersion", "maxVersion"] {
            if let Some(version) = words.next().filter(|word| *word != "-") {
                let _ = writeln!(text, "      {key}: {version}");
            }
        }
        for flag in words {
            let _ = writeln!(text, "      {flag}: true");
        }
    }
    text
}
