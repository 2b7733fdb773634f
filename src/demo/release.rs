//! A small product that comes in releases: payloads that list their components, the graph of updates between them, and
//! what vouches for each.
//!
//! It has the shape of OpenShift's: the payload is an image with `release-manifests/image-references` and
//! `release-metadata` in it, components are images by digest in a repository of their own.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::WorldError;
use super::layer::{Compression, Content, Member};
use super::signer::Signer;
use super::world::{Form, World};
use crate::digest::Digest;
use crate::oci::{Descriptor, Platform};
use crate::openshift::payload::{IMAGE_REFERENCES, RELEASE_METADATA};

/// A product whose releases are made.
#[derive(Clone, Debug)]
pub struct Product<'a> {
    /// The host that its images are named by.
    pub host: &'a str,
    /// The repository of its payloads.
    pub payloads: &'a str,
    /// The repository of its components.
    pub components: &'a str,
}

/// A release that was made.
#[derive(Clone, Debug)]
pub struct Release {
    /// Its version.
    pub version: String,
    /// Its payload.
    pub payload: Descriptor,
    /// Its components, by name.
    pub components: BTreeMap<String, Descriptor>,
    /// What its payload is called.
    pub image: String,
}

fn platform() -> Platform {
    Platform {
        os: "linux".to_owned(),
        architecture: "amd64".to_owned(),
        variant: None,
        os_version: None,
    }
}

impl Product<'_> {
    /// Makes a release that may follow `previous`. Each component is given by its name and its state: the same state is
    /// the same image, whatever release it is in.
    ///
    /// # Errors
    /// If a name does not fit where it stands.
    pub fn release(
        &self,
        world: &mut World,
        version: &str,
        previous: &[&str],
        parts: &[(&str, u32)],
    ) -> Result<Release, WorldError> {
        let none = BTreeMap::new();
        let base = world.layer(
            &[Member::File {
                path: "lib/common".to_owned(),
                content: Content::made("product", 60_000),
            }],
            Compression::Gzip,
        )?;
        let mut components = BTreeMap::new();
        for (name, state) in parts {
            let own = world.layer(
                &[Member::File {
                    path: format!("bin/{name}"),
                    content: Content::made(&format!("{name} {state}"), 20_000),
                }],
                Compression::Gzip,
            )?;
            let image = world.image(Form::Oci, &platform(), &[base, own], &none)?;
            world.attach(self.components, &image)?;
            components.insert((*name).to_owned(), image);
        }
        let tags: Vec<Value> = components
            .iter()
            .map(|(name, image)| {
                let image = format!("{}/{}@{}", self.host, self.components, image.digest);
                json!({ "name": name, "from": { "kind": "DockerImage", "name": image } })
            })
            .collect();
        let references = json!({ "kind": "ImageStream", "apiVersion": "image.openshift.io/v1", "metadata": { "name": version }, "spec": { "tags": tags } });
        let metadata =
            json!({ "kind": "cincinnati-metadata-v0", "version": version, "previous": previous });
        let lists = world.layer(
            &[
                Member::file(IMAGE_REFERENCES, references.to_string().as_str()),
                Member::file(RELEASE_METADATA, metadata.to_string().as_str()),
            ],
            Compression::Gzip,
        )?;
        let payload = world.image(Form::Oci, &platform(), &[base, lists], &none)?;
        world.attach(self.payloads, &payload)?;
        Ok(Release {
            version: version.to_owned(),
            image: format!("{}/{}@{}", self.host, self.payloads, payload.digest),
            payload,
            components,
        })
    }

    /// The signature of a release, as [`Signer`] makes it.
    #[must_use]
    pub fn signature(&self, release: &Release, signer: &Signer) -> Vec<u8> {
        let name = format!("{}/{}:{}-x86_64", self.host, self.payloads, release.version);
        signer.sign(&release.payload.digest, &name)
    }
}

/// What an update service says of a channel: its releases, each of which the next may follow.
#[must_use]
pub fn graph(channel: &str, releases: &[Release]) -> String {
    let nodes: Vec<Value> = releases
        .iter()
        .map(|release| json!({ "version": release.version, "payload": release.image, "metadata": { "io.openshift.upgrades.graph.release.channels": channel } }))
        .collect();
    let edges: Vec<Value> = (1..releases.len()).map(|to| json!([to - 1, to])).collect();
    json!({ "version": 1, "nodes": nodes, "edges": edges, "conditionalEdges": [] }).to_string()
}

impl Release {
    /// The digests of its payload and its components.
    pub fn digests(&self) -> impl Iterator<Item = Digest> {
        std::iter::once(self.payload.digest)
            .chain(self.components.values().map(|image| image.digest))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::openshift::graph::Graph;

    #[test]
    fn a_release_lists_what_it_is_made_of() {
        let product = Product {
            host: "registry.example.test",
            payloads: "shop/release",
            components: "shop/parts",
        };
        let mut world = World::new(1);
        let one = product
            .release(&mut world, "1.4.0", &[], &[("api", 1), ("web", 1)])
            .unwrap();
        let two = product
            .release(&mut world, "1.4.1", &["1.4.0"], &[("api", 1), ("web", 2)])
            .unwrap();
        assert_eq!(
            one.components["api"].digest, two.components["api"].digest,
            "what does not change is the same image"
        );
        assert_ne!(one.components["web"].digest, two.components["web"].digest);
        let graph = Graph::parse(graph("stable-1.4", &[one, two]).as_bytes()).unwrap();
        assert_eq!(graph.releases().len(), 2, "the graph is one");
    }
}
