//! The whole story of a cluster's releases: six of them over three minors, 190 components each, with the update graph,
//! between two stock registries; then one patch release more.
//!
//! ```text
//! graph, signatures, docker-registry -> lock, export -> import -> docker-registry -> skopeo, cluster resources
//! ```

use std::process::Command;

use super::*;
use crate::site::stock::Stock;
use crate::site::{Connected, wire};

/// Components of each release, as real ones have.
const PARTS: u64 = 190;

/// Components that a patch release changes.
const PATCHED: u64 = 12;

/// Where the vendor has the data of the update graph.
const DATA: &str = "https://api.openshift.com/api/upgrades_info/graph-data";

/// Six releases over three minors, and one more patch release of the last.
fn releases(world: &World) -> Vec<Made> {
    let mut made: Vec<Made> = Vec::new();
    for (number, version) in [
        "4.14.1", "4.14.2", "4.15.1", "4.15.2", "4.16.1", "4.16.2", "4.16.3",
    ]
    .into_iter()
    .enumerate()
    {
        let number = number as u64;
        // A minor changes every second component, a patch a few.
        let state = |component: u64| {
            let minors = (number / 2).min(2) * u64::from(component.is_multiple_of(2));
            let patches = (0..=number)
                .filter(|patch| {
                    (!patch.is_multiple_of(2) || *patch == 6) && component / PATCHED == *patch
                })
                .count() as u64;
            minors * 10 + patches
        };
        let parts = world.parts(PARTS, state);
        let previous: Vec<String> = made.iter().map(|release| release.version.clone()).collect();
        let previous: Vec<&str> = previous.iter().map(String::as_str).collect();
        made.push(world.release_of(version, parts, &previous, number.is_multiple_of(2)));
    }
    made
}

/// Publishes the graphs: each minor's channel has its own releases and those of the minor before.
fn publish(world: &World, all: &[Made], extra: &[&Made]) {
    for (channel, range) in [
        ("stable-4.14", 0..2),
        ("stable-4.15", 0..4),
        ("stable-4.16", 2..6),
    ] {
        let mut releases: Vec<&Made> = all[range].iter().collect();
        if channel == "stable-4.16" {
            releases.extend(extra);
        }
        let edges: Vec<(&str, &str)> = releases
            .windows(2)
            .map(|pair| (pair[0].version.as_str(), pair[1].version.as_str()))
            .collect();
        world.channel(channel, "amd64", &releases, &edges, &[]);
    }
}

/// The data of the update graph, packed as the vendor packs them.
pub(super) fn graph_data() -> Vec<u8> {
    let mut tar = tar::Builder::new(flate2::write::GzEncoder::new(
        Vec::new(),
        flate2::Compression::fast(),
    ));
    for (path, text) in [
        ("version", "1.1.0\n"),
        (
            "channels/stable-4.16.yaml",
            "name: stable-4.16\nversions:\n- 4.16.1\n- 4.16.2\n",
        ),
        (
            "blocked-edges/4.16.2.yaml",
            "to: 4.16.2\nfrom: 4[.]15[.].*\n",
        ),
    ] {
        let mut header = tar::Header::new_ustar();
        header.set_size(text.len() as u64);
        header.set_mode(0o644);
        header.set_uid(1000);
        header.set_mtime(1_700_000_000);
        tar.append_data(&mut header, path, text.as_bytes()).unwrap();
    }
    tar.into_inner().unwrap().finish().unwrap()
}

fn config(last: &str) -> String {
    let rows = [
        "stable-4.14 4.14.1 4.14.2",
        "stable-4.15 4.15.1 4.15.2",
        &format!("stable-4.16 4.16.1 {last}"),
    ];
    format!("{}    graph: true\n", channels(&rows))
}

/// Insists that skopeo finds an image.
fn inspect(name: &str) -> Option<Value> {
    let output = Command::new("skopeo")
        .args(["inspect", "--raw", "--tls-verify=false"])
        .arg(format!("docker://{name}"))
        .output()
        .ok()?;
    assert!(
        output.status.success(),
        "skopeo inspect {name}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    serde_json::from_slice(&output.stdout).ok()
}

/// Insists that a registry has these releases whole, by tag and by digest; skopeo looks at some of it too.
fn complete(address: &str, releases: &[&Made]) {
    for release in releases {
        let tag = format!("{}-x86_64", release.version);
        let of = |repository: &str, name: &str| {
            wire::manifest(address, repository, name).map(|bytes| Digest::of(&bytes))
        };
        let payloads = "ocp/openshift/release-images";
        assert_eq!(of(payloads, &tag), Some(release.payload), "payload {tag}");
        for (name, digest) in &release.components {
            for found in [format!("{tag}-{name}"), digest.to_string()] {
                assert_eq!(
                    of("ocp/openshift/release", &found),
                    Some(*digest),
                    "component {name} of {tag} as {found}"
                );
            }
        }
        let (name, digest) = release.components.iter().next_back().unwrap();
        for image in [
            format!("{payloads}:{tag}"),
            format!("{payloads}@{}", release.payload),
            format!("ocp/openshift/release:{tag}-{name}"),
            format!("ocp/openshift/release@{digest}"),
        ] {
            let found = inspect(&format!("{address}/{image}"));
            assert!(
                found.is_none_or(|manifest| manifest["layers"].as_array().unwrap().len() == 2),
                "{image} has two layers"
            );
        }
    }
}

#[test]
fn six_releases_and_their_graph_are_carried_between_stock_registries() {
    let world = World::new();
    let all = releases(&world);
    let (six, new) = (&all[..6], &all[6]);
    publish(&world, six, &[]);
    world
        .content
        .image("ubi9/ubi:latest", &[(90, 5000), (91, 700)]);
    world.files.put("/graph-data", graph_data());
    let Some(upstream) = Stock::start(Some(&world.content)) else {
        return;
    };
    let near = Connected::at(upstream.address());
    near.leads("quay.io", upstream.address());
    near.leads("registry.access.redhat.com", upstream.address());
    near.write("release.asc", World::public(&world.key));
    near.write(
        "imgbuild.toml",
        format!(
            "[url.\"{DATA}\"]\nlocation = \"http://{}/graph-data\"\n",
            world.address
        ),
    );
    near.config(&config("4.16.2"));
    world.run(&near, "lock").done();
    let lock = near.lock_text();
    for text in [
        "channel = \"stable-4.14+stable-4.15+stable-4.16\"",
        &format!("[[file]]\nref = \"{DATA}\"\nwant = {{ rule = \"graph-data\" }}"),
        "want = { rule = \"graph-image\", target = \"openshift/graph-image:latest\" }",
        "name = \"part-189\"",
    ] {
        assert!(lock.contains(text), "the lock must have {text:?}");
    }
    world.run(&near, "export -o media/1").done();

    let mirror = Stock::start(None).expect("it is installed");
    let host = mirror.address();
    let far = Disconnected::with(host);
    far.receives(&near, "media/1");
    far.write("release.asc", near.read("release.asc"));
    let to = format!("--to docker://{host}/ocp -o resources");
    far.imgbuild(&format!("import media/1 {to}")).done();
    let six: Vec<&Made> = six.iter().collect();
    complete(host, &six);

    // What a cluster is told.
    let graph = wire::manifest(host, "ocp/openshift/graph-image", "latest").unwrap();
    let graph_digest = Digest::of(&graph);
    let manifest: Value = serde_json::from_slice(&graph).unwrap();
    assert_eq!(
        manifest["layers"].as_array().unwrap().len(),
        3,
        "the graph lies on top of the base"
    );
    for (file, text) in [
        (
            "updateService.yaml",
            format!(
                "---\napiVersion: updateservice.operator.openshift.io/v1\nkind: UpdateService\nmetadata:\n  name: update-service-oc-mirror\n  namespace: openshift-update-service\nspec:\n  graphDataImage: {host}/ocp/openshift/graph-image@{graph_digest}\n  releases: {host}/ocp/openshift/release-images\n  replicas: 2\n"
            ),
        ),
        (
            "idms-oc-mirror.yaml",
            format!(
                "---\napiVersion: config.openshift.io/v1\nkind: ImageDigestMirrorSet\nmetadata:\n  name: idms-release-0\nspec:\n  imageDigestMirrors:\n  - mirrors:\n    - {host}/ocp/openshift/release-images\n    source: quay.io/{PAYLOADS}\n  - mirrors:\n    - {host}/ocp/openshift/release\n    source: quay.io/{ART}\n"
            ),
        ),
        (
            "itms-oc-mirror.yaml",
            format!(
                "---\napiVersion: config.openshift.io/v1\nkind: ImageTagMirrorSet\nmetadata:\n  name: itms-release-0\nspec:\n  imageTagMirrors:\n  - mirrors:\n    - {host}/ocp/openshift/release-images\n    source: quay.io/{PAYLOADS}\n"
            ),
        ),
    ] {
        assert_eq!(far.read(format!("resources/{file}")), text, "{file}");
    }
    let signed: Vec<(&Made, u32)> = six.iter().map(|release| (*release, 1)).collect();
    signature_map(&far, &world, &signed);

    // The next day a patch release is out, and nobody asked for it.
    publish(&world, &all[..6], &[new]);
    world.run(&near, "lock").done().says(&["nothing changed"]);
    world
        .run(&near, "lock --update")
        .done()
        .says(&["nothing changed"]);
    assert_eq!(near.lock_text(), lock, "not a byte of the lock has changed");

    // Then somebody does.
    near.write("old.lock.toml", &lock);
    near.config(&config("4.16.3"));
    world.run(&near, "lock").done();
    near.imgbuild("diff old.lock.toml lockfiles/imageset.lock.toml")
        .ends(0)
        .says(&["190 components: 178 same as 4.16.2, 12 changed"]);
    world.run(&near, "export -o media/2").done();
    let report = near.imgbuild("verify media/2 --format json").json();
    let manifests: BTreeSet<Digest> = all
        .iter()
        .flat_map(|release| release.components.values().chain([&release.payload]))
        .copied()
        .collect();
    assert_eq!(
        report["archives"][0]["blobs"].as_u64(),
        Some(manifests.len() as u64 + 2 + PATCHED + 1 + 1),
        "every manifest, the base and the graph among them; a layer of each changed component, one of the payload, its signature"
    );
    far.receives(&near, "media/2");
    far.imgbuild(&format!("import media/2 {to}")).done();
    complete(host, &[new]);
    let signed: Vec<(&Made, u32)> = all.iter().map(|release| (release, 1)).collect();
    signature_map(&far, &world, &signed);
    far.imgbuild(&format!(
        "verify --registry {host}/ocp --insecure {host} --lock lock"
    ))
    .story();
}
