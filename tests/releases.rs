//! Releases from the update service to a mirror behind a gap: a made world of several minors whose payloads list forty
//! components each, a graph and signatures served over HTTP, and every way in which a release can be wrong.

use std::collections::{BTreeMap, BTreeSet};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use imgbuild::digest::Digest;
use imgbuild::oci::OCI_MANIFEST;
use serde_json::{Value, json};

use crate::site::content::{Content, noise};
use crate::site::registry::Registry;
use crate::site::release::{ART, COMPONENTS, Made, PAYLOADS, Recipe, World, channels, signature};
use crate::site::{Disconnected, Site, wire};

mod enclaves;
mod story;

/// Insists that releases are at a mirror, by tag and by digest, with everything below.
#[track_caller]
fn holds(mirror: &Registry, releases: &[&Made]) {
    let address = mirror.address();
    for release in releases {
        let tag = format!("{}-x86_64", release.version);
        assert_eq!(
            mirror.digest_of("ocp/openshift/release-images", &tag),
            Some(release.payload),
            "payload {tag}"
        );
        for (name, digest) in &release.components {
            let repository = "ocp/openshift/release";
            assert_eq!(
                mirror.digest_of(repository, &format!("{tag}-{name}")),
                Some(*digest),
                "component {name} of {tag} by tag"
            );
            let manifest = wire::manifest(&address, repository, &digest.to_string())
                .unwrap_or_else(|| panic!("component {name} of {tag} by digest"));
            let manifest: Value = serde_json::from_slice(&manifest).unwrap();
            for blob in manifest["layers"].as_array().unwrap() {
                assert_eq!(
                    wire::blob_size(&address, repository, blob["digest"].as_str().unwrap()),
                    blob["size"].as_u64(),
                    "a layer of {name}"
                );
            }
        }
    }
}

#[test]
fn releases_cross_the_gap_and_the_next_archive_carries_what_changed() {
    let world = World::new();
    let all = [
        world.release(0, "4.15.1", &[]),
        world.release(1, "4.15.2", &["4.15.1"]),
        world.release(2, "4.16.0", &["4.15.2"]),
        world.release(3, "4.16.1", &["4.16.0", "4.15.2"]),
        world.release(4, "4.16.2", &["4.16.1"]),
    ];
    let [old, a, b, c, d] = &all;
    world.sign(&b.payload, &b.version, 2, &world.key);
    world.channel(
        "stable-4.15",
        "amd64",
        &[old, a],
        &[("4.15.1", "4.15.2")],
        &[],
    );
    let edges = [
        ("4.15.1", "4.15.2"),
        ("4.15.2", "4.16.0"),
        ("4.15.2", "4.16.1"),
        ("4.16.0", "4.16.1"),
    ];
    world.channel("stable-4.16", "amd64", &[old, a, b, c], &edges, &[]);

    let near = world.site();
    near.config(&channels(&[
        "stable-4.15 4.15.2 4.15.2",
        "stable-4.16 4.16.0 4.16.1",
    ]));
    world.run(&near, "lock").done();
    let lock = near.lock_text();
    for text in [
        "channel = \"stable-4.15\"\narch = \"amd64\"",
        "channel = \"stable-4.15+stable-4.16\"",
        "across = [{ channel = \"stable-4.15\", min = \"4.15.2\", max = \"4.15.2\" }",
        "name = \"part-39\"",
        "from = \"signature-1\"",
        "from = \"signature-2\"",
        "[[file]]\nref = \"release.asc\"",
    ] {
        assert!(
            lock.contains(text),
            "the lock must have {text:?} in\n{lock}"
        );
    }
    assert_eq!(
        lock.matches("[[release.payload]]").count(),
        1 + 2 + 2,
        "each channel has its range, and the path between them its own"
    );

    world.run(&near, "export -o media/1").done();
    let mirror = Content::default().served();
    let far = Disconnected::with(&mirror.address());
    far.receives(&near, "media/1");
    far.write("release.asc", near.read("release.asc"));
    let to = format!("--to docker://{}/ocp -o resources", mirror.address());
    far.imgbuild(&format!("import media/1 {to}")).done();
    holds(&mirror, &[a, b, c]);
    assert_eq!(
        mirror.digest_of("ocp/openshift/release-images", "4.15.1-x86_64"),
        None,
        "nobody asked for 4.15.1"
    );
    let host = mirror.address();
    assert_eq!(
        far.read("resources/idms-oc-mirror.yaml"),
        format!(
            "---\napiVersion: config.openshift.io/v1\nkind: ImageDigestMirrorSet\nmetadata:\n  name: idms-release-0\nspec:\n  imageDigestMirrors:\n  - mirrors:\n    - {host}/ocp/openshift/release-images\n    source: quay.io/{PAYLOADS}\n  - mirrors:\n    - {host}/ocp/openshift/release\n    source: quay.io/{ART}\n"
        ),
        "the digest mirrors"
    );
    assert_eq!(
        far.read("resources/itms-oc-mirror.yaml"),
        format!(
            "---\napiVersion: config.openshift.io/v1\nkind: ImageTagMirrorSet\nmetadata:\n  name: itms-release-0\nspec:\n  imageTagMirrors:\n  - mirrors:\n    - {host}/ocp/openshift/release-images\n    source: quay.io/{PAYLOADS}\n"
        ),
        "the tag mirrors"
    );
    signature_map(&far, &world, &[(a, 1), (b, 1), (b, 2), (c, 1)]);

    // Nothing that was asked for has changed, so nothing changes: not by itself, and not by an unrelated release.
    world.run(&near, "lock").done().says(&["nothing changed"]);
    world
        .run(&near, "lock --update")
        .done()
        .says(&["nothing changed"]);
    world.channel(
        "stable-4.16",
        "amd64",
        &[d, c, b, a, old],
        &[edges.as_slice(), &[("4.16.1", "4.16.2")]].concat(),
        &[],
    );
    world
        .run(&near, "lock --update")
        .done()
        .says(&["nothing changed"]);
    world.run(&near, "lock --check").done();

    near.config(&channels(&[
        "stable-4.15 4.15.2 4.15.2",
        "stable-4.16 4.16.0 4.16.2",
    ]));
    world.run(&near, "lock --check").ends(3);
    world.run(&near, "lock").done().says(&["4.16.2"]);
    world.run(&near, "export -o media/2").done();
    let report = near.imgbuild("verify media/2 --format json").json();
    let carried = report["archives"][0]["blobs"].as_u64().unwrap();
    let new: BTreeSet<Digest> = d
        .components
        .values()
        .filter(|digest| !c.components.values().any(|old| old == *digest))
        .copied()
        .collect();
    let manifests: BTreeSet<Digest> = [a, b, c, d]
        .into_iter()
        .flat_map(|release| release.components.values().chain([&release.payload]))
        .copied()
        .collect();
    assert!(
        (1..20).contains(&new.len()),
        "{} of {COMPONENTS} components changed",
        new.len()
    );
    assert_eq!(
        carried,
        (manifests.len() + new.len() + 1 + 1) as u64,
        "every manifest, a layer for each component that changed, one for the payload, its signature"
    );
    far.receives(&near, "media/2");
    far.imgbuild(&format!("import media/2 {to}")).done();
    holds(&mirror, &[a, b, c, d]);
    signature_map(&far, &world, &[(a, 1), (b, 1), (b, 2), (c, 1), (d, 1)]);
    far.has_a_sound_store();
    near.has_a_sound_store();

    // Another site with an empty store builds the same lock, signatures included.
    let other = world.site();
    other.write("imageset.yaml", near.read("imageset.yaml"));
    other.write("lockfiles/imageset.lock.toml", near.lock_text());
    world.run(&other, "build").done();
}

/// Insists that both forms of the signature object hold exactly these signatures, each under its payload's digest.
#[track_caller]
fn signature_map(far: &Site, world: &World, wanted: &[(&Made, u32)]) {
    let text = far.read("resources/signature-configmap.yaml");
    assert!(
        text.starts_with("---\napiVersion: v1\nbinaryData:\n  sha256-"),
        "the object in\n{text}"
    );
    assert!(
        text.ends_with("kind: ConfigMap\nmetadata:\n  labels:\n    release.openshift.io/verification-signatures: \"\"\n  name: mirrored-release-signatures\n  namespace: openshift-config-managed\n"),
        "the object in\n{text}"
    );
    let yaml: Value = serde_yaml::from_str(&text).unwrap();
    let json: Value =
        serde_json::from_str(&far.read("resources/signature-configmap.json")).unwrap();
    assert_eq!(yaml, json, "both files hold one object");
    let mut found: Vec<(String, Vec<u8>)> = yaml["binaryData"]
        .as_object()
        .unwrap()
        .iter()
        .map(|(name, text)| {
            let digest = name.rsplit_once('-').unwrap().0.to_owned();
            (digest, STANDARD.decode(text.as_str().unwrap()).unwrap())
        })
        .collect();
    found.sort();
    let mut expected: Vec<(String, Vec<u8>)> = wanted
        .iter()
        .map(|(made, number)| {
            let path = World::signature_path(&made.payload, *number);
            (
                format!("sha256-{}", made.payload.hex()),
                world.files.files.lock().unwrap()[&path].clone(),
            )
        })
        .collect();
    expected.sort();
    assert_eq!(found, expected, "the signatures");
}

#[test]
fn a_release_that_is_wrong_is_refused_when_it_is_locked() {
    let world = World::new();
    let good = world.release(0, "4.16.1", &[]);
    let next = world.release(1, "4.16.2", &["4.16.1"]);
    let made = |version: &str, payload: Digest| Made {
        version: version.to_owned(),
        payload,
        components: BTreeMap::new(),
    };
    let mut parts = good.components.clone();
    // What is wrong with each channel.
    let unsigned = made(
        "4.17.1",
        world.payload("4.17.1", &parts, &Recipe::default()).digest,
    );
    world.channel("unsigned-4.17", "amd64", &[&unsigned], &[], &[]);
    let broken = made(
        "4.17.2",
        world.payload("4.17.2", &parts, &Recipe::default()).digest,
    );
    let mut bytes = signature(&world.key, &broken.payload, "quay.io/a/b:1");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    world
        .files
        .put(&World::signature_path(&broken.payload, 1), bytes);
    world.channel("broken-4.17", "amd64", &[&broken], &[], &[]);
    let stranger = made(
        "4.17.3",
        world.payload("4.17.3", &parts, &Recipe::default()).digest,
    );
    world.sign(&stranger.payload, "4.17.3", 1, &world.other);
    world.channel("stranger-4.17", "amd64", &[&stranger], &[], &[]);
    let swapped = made(
        "4.17.4",
        world.payload("4.17.4", &parts, &Recipe::default()).digest,
    );
    world.files.put(
        &World::signature_path(&swapped.payload, 1),
        signature(&world.key, &good.payload, "quay.io/a/b:1"),
    );
    world.channel("swapped-4.17", "amd64", &[&swapped], &[], &[]);
    let signed = |version: &str, payload: Digest| {
        world.sign(&payload, version, 1, &world.key);
        made(version, payload)
    };
    let listless = Recipe {
        without_list: true,
        ..Recipe::default()
    };
    let listless = signed("4.17.5", world.payload("4.17.5", &parts, &listless).digest);
    world.channel("listless-4.17", "amd64", &[&listless], &[], &[]);
    let arm = Recipe {
        architecture: "arm64",
        ..Recipe::default()
    };
    let arm = signed("4.17.6", world.payload("4.17.6", &parts, &arm).digest);
    world.channel("arm-4.17", "amd64", &[&arm], &[], &[]);
    parts.insert("withdrawn".to_owned(), Digest::of(b"withdrawn"));
    let lacking = signed(
        "4.17.7",
        world.payload("4.17.7", &parts, &Recipe::default()).digest,
    );
    world.channel("lacking-4.17", "amd64", &[&lacking], &[], &[]);
    let gone = made("4.17.8", Digest::of(b"gone"));
    world.channel("gone-4.17", "amd64", &[&gone], &[], &[]);
    let renamed = made("4.17.9", good.payload);
    world.channel("renamed-4.17", "amd64", &[&renamed], &[], &[]);
    world.channel("stable-4.16", "amd64", &[&good, &next], &[], &[]);
    world.channel("unstable-4.16", "amd64", &[], &[], &[]);
    world
        .files
        .put("/graph?arch=amd64&channel=noise-4.16", "<html>");

    let site = world.site();
    for (row, code, texts, hints) in [
        (
            "unsigned-4.17",
            4,
            &["imageset.yaml:6:7", "4.17.1", "no signature of sha256:"][..],
            &["policy = \"warn\""][..],
        ),
        (
            "broken-4.17",
            4,
            &["4.17.2", "signature-1", "can be verified"],
            &[],
        ),
        (
            "stranger-4.17",
            4,
            &["4.17.3", "not a key of the ring"],
            &["public key"],
        ),
        (
            "swapped-4.17",
            4,
            &["4.17.4", "the signature is for sha256:"],
            &["another release"],
        ),
        (
            "listless-4.17",
            1,
            &["4.17.5", "no release-manifests/image-references"],
            &["no release payload"],
        ),
        (
            "arm-4.17",
            1,
            &["4.17.6", "is for arm64, not for amd64"],
            &["architectures: [arm64]"],
        ),
        (
            "lacking-4.17",
            1,
            &["4.17.7", "component withdrawn", "is not there"],
            &[],
        ),
        ("gone-4.17", 1, &["4.17.8", "is not there"], &[]),
        ("renamed-4.17", 1, &["calls itself 4.16.1, not 4.17.9"], &[]),
        (
            "stable-4.16 4.16.2 4.16.1",
            1,
            &["imageset.yaml:6:7", "4.16.2 is above maximum 4.16.1"],
            &[],
        ),
        (
            "stable-4.16 4.16.1 4.16.2 shortestPath",
            1,
            &["no update path from 4.16.1 to 4.16.2"],
            &["shortestPath"],
        ),
        (
            "stable-4.61",
            1,
            &["no update graph of channel stable-4.61"],
            &["similar channels: stable-4.16"],
        ),
        (
            "stabel-4.16",
            1,
            &["no update graph of channel stabel-4.16"],
            &["similar channels: stable-4.16"],
        ),
        (
            "unstable-4.16",
            1,
            &["no releases in channel unstable-4.16"],
            &["similar channels: stable-4.16"],
        ),
        ("noise-4.16", 1, &["not an update graph"], &[]),
    ] {
        site.config(&channels(&[row]));
        let run = world.run(&site, "lock").ends(code).says(texts);
        if !hints.is_empty() {
            run.hints(hints);
        }
        assert!(
            !site.path("lockfiles/imageset.lock.toml").exists(),
            "{row}: a lock that is refused is not written"
        );
    }

    // A component that is withdrawn upstream can be left out, by decision.
    site.config(&channels(&["lacking-4.17"]));
    let skip = format!(
        "lock --skip quay.io/{ART}@{} --reason withdrawn",
        Digest::of(b"withdrawn")
    );
    world
        .run(&site, &skip)
        .done()
        .says(&["component withdrawn of 4.17.7", "is skipped: withdrawn"]);
    assert!(
        site.lock_text().contains("[[skip]]") && !site.lock_text().contains("name = \"withdrawn\""),
        "the lock says so"
    );
    world.run(&site, "lock").done().says(&["nothing changed"]);
}

#[test]
fn an_import_does_not_take_a_signature_on_trust() {
    let world = World::new();
    let release = world.release(0, "4.16.1", &[]);
    world.channel("stable-4.16", "amd64", &[&release], &[], &[]);
    let near = world.site();
    near.config(&channels(&["stable-4.16"]));
    world.run(&near, "lock").done();
    // Someone edits the lock: another blob takes the place of the signature.
    let text = near.lock_text();
    let forged = signature(&world.other, &release.payload, "quay.io/a/b:1");
    let (before, rest) = text.split_once("signatures = [{ digest = \"").unwrap();
    let (_, after) = rest.split_once(", from =").unwrap();
    let text = format!(
        "{before}signatures = [{{ digest = \"{}\", size = {}, from ={}",
        Digest::of(&forged),
        forged.len(),
        &after
    );
    near.write("lockfiles/imageset.lock.toml", text);
    world
        .files
        .put(&World::signature_path(&release.payload, 1), forged);
    world.run(&near, "export -o media").done();
    let mirror = Content::default().served();
    let far = Disconnected::with(&mirror.address());
    far.receives(&near, "media");
    far.imgbuild(&format!(
        "import media --to docker://{}/ocp",
        mirror.address()
    ))
    .ends(4)
    .says(&["release 4.16.1", "not a key of the ring"]);
    assert_eq!(
        mirror.digest_of("ocp/openshift/release-images", "4.16.1-x86_64"),
        None,
        "nothing becomes visible"
    );
}

#[test]
fn risks_are_crossed_only_by_decision_and_the_decision_is_kept() {
    let world = World::new();
    let (a, b, c) = (
        world.release(0, "4.16.1", &[]),
        world.release(1, "4.16.2", &[]),
        world.release(2, "4.16.3", &[]),
    );
    world.channel(
        "stable-4.16",
        "amd64",
        &[&a, &b, &c],
        &[("4.16.1", "4.16.2")],
        &[("4.16.2", "4.16.3", "DiskEater")],
    );
    let site = world.site();
    site.config(&channels(&["stable-4.16 4.16.1 4.16.3 shortestPath"]));
    world
        .run(&site, "lock")
        .ends(1)
        .says(&["only conditional updates", "DiskEater"])
        .hints(&["DiskEater"]);
    world
        .run(&site, "lock --accept-risk DiskEater")
        .done()
        .says(&["accepted the risk of 4.16.2 to 4.16.3 (DiskEater)"]);
    assert!(
        site.lock_text().contains(
            "risks = [\n  { name = \"DiskEater\", url = \"https://example.test/DiskEater\" },\n]"
        ),
        "the decision is on record in\n{}",
        site.lock_text()
    );
    world
        .run(&site, "lock --update")
        .done()
        .says(&["nothing changed"]);
    world
        .run(&site, "lock --accept-risk Nothing")
        .done()
        .says(&["no path that is locked anew needs the risk Nothing"]);
}

#[test]
fn one_payload_by_name_and_a_graph_from_disk() {
    let world = World::new();
    let release = world.release(0, "4.16.1", &[]);
    let site = world.site();
    // By name: no update service is asked.
    site.config(&format!(
        "  platform:\n    release: quay.io/{PAYLOADS}@{}\n",
        release.payload
    ));
    world.run(&site, "lock").done();
    assert!(
        site.lock_text()
            .contains(&format!("ref = \"quay.io/{PAYLOADS}@{}\"", release.payload)),
        "the block is named by the reference"
    );
    assert!(
        !world
            .files
            .asked
            .lock()
            .unwrap()
            .iter()
            .any(|path| path.starts_with("/graph")),
        "no graph is needed"
    );
    // From disk: a folder of saved answers stands for the update service, one of files for the store of signatures.
    world.channel("stable-4.16", "amd64", &[&release], &[], &[]);
    let files = world.files.files.lock().unwrap().clone();
    site.write(
        "graphs/amd64-stable-4.16.json",
        &files["/graph?arch=amd64&channel=stable-4.16"],
    );
    let path = World::signature_path(&release.payload, 1);
    site.write(path.trim_start_matches('/'), &files[&path]);
    site.write(
        "imgbuild.toml",
        "[url.\"https://api.openshift.com/api/upgrades_info/v1/graph\"]\nlocation = \"graphs\"\n\n[url.\"https://mirror.openshift.com/pub/openshift-v4/signatures/openshift/release\"]\nlocation = \"signatures\"\n\n[url.\"https://storage.googleapis.com/openshift-release/official/signatures/openshift/release\"]\nlocation = \"signatures\"\n\n[signatures.release]\nkeys = [\"release.asc\"]\n",
    );
    site.config(&channels(&["stable-4.16"]));
    site.imgbuild("lock").done();
    site.imgbuild("build").done();
    assert!(
        site.lock_text().contains("from = \"signature-1\"")
            && site.lock_text().contains("version = \"4.16.1\""),
        "the release and its signature are pinned"
    );
    // Without a signature there is a release only where a decision says so; it is part of the request.
    std::fs::remove_dir_all(site.path("signatures")).unwrap();
    std::fs::remove_file(site.path("lockfiles/imageset.lock.toml")).unwrap();
    site.imgbuild("lock").ends(4).says(&["no signature of"]);
    let settings = site.read("imgbuild.toml");
    site.write("imgbuild.toml", settings + "policy = \"skip\"\n");
    site.imgbuild("lock").done();
    assert!(
        site.lock_text().contains("signatures = \"skip\""),
        "the want says that nothing was looked for"
    );
}

#[test]
fn a_payload_for_several_architectures_gives_the_instances_asked_for() {
    let world = World::new();
    let layers = |seed: u64| [world.layer(&[("x", noise(seed, 2000))], false)];
    let (amd, arm) = (
        world.image(ART, "amd64", &layers(1)),
        world.image(ART, "arm64", &layers(2)),
    );
    let component = world.index(ART, &[("amd64", amd), ("arm64", arm)]);
    let parts = BTreeMap::from([("cli".to_owned(), component.digest)]);
    let instance = |architecture: &'static str| {
        world.payload(
            "4.16.1",
            &parts,
            &Recipe {
                architecture,
                ..Recipe::default()
            },
        )
    };
    let payload = world.index(
        PAYLOADS,
        &[("amd64", instance("amd64")), ("arm64", instance("arm64"))],
    );
    world.sign(&payload.digest, "4.16.1", 1, &world.key);
    let release = Made {
        version: "4.16.1".to_owned(),
        payload: payload.digest,
        components: parts,
    };
    world.channel("stable-4.16", "multi", &[&release], &[], &[]);
    let site = world.site();
    let config = channels(&["stable-4.16"]);
    site.config(&format!("{config}    architectures: [multi]\n"));
    world.run(&site, "lock").done();
    assert!(
        !site.lock_text().contains("platforms ="),
        "all instances are taken"
    );
    site.config(&format!(
        "{config}    platforms:\n    - os: linux\n      architecture: amd64\n"
    ));
    world.run(&site, "lock").done();
    assert!(
        site.lock_text().contains("want = { keys = ")
            && site
                .lock_text()
                .matches("platforms = [\"linux/amd64\"]")
                .count()
                == 3,
        "want, payload and component say which in\n{}",
        site.lock_text()
    );
    world.run(&site, "export -o media").done();
    let mirror = Content::default().served();
    let far = Disconnected::with(&mirror.address());
    far.receives(&site, "media");
    far.imgbuild(&format!("import media --to docker://{}", mirror.address()))
        .done();
    assert_eq!(
        mirror.digest_of("openshift/release", "4.16.1-multi-cli"),
        Some(component.digest),
        "the index keeps its digest"
    );
    assert_eq!(
        mirror.digest_of("openshift/release", &arm.digest.to_string()),
        None,
        "what nobody asked for is not there"
    );
}

#[test]
fn every_layout_has_releases_where_its_tool_puts_them() {
    let world = World::new();
    let release = world.release(0, "4.16.1", &[]);
    world.channel("stable-4.16", "amd64", &[&release], &[], &[]);
    world.content.image("ubi9/ubi:latest", &[(90, 500)]);
    let site = world.site();
    site.leads("registry.access.redhat.com", &world.registry.address());
    site.write("graph.tar.gz", story::graph_data());
    site.write("imgbuild.toml", "[graph]\ndata = \"graph.tar.gz\"\n");
    site.config(&format!("{}    graph: true\n", channels(&["stable-4.16"])));
    world.run(&site, "lock").done();
    assert!(
        site.lock_text()
            .contains("[[file]]\nref = \"graph.tar.gz\""),
        "the settings say where the data are"
    );
    let mirror = Content::default().served();
    let host = mirror.address();
    let hex = release.payload.hex();
    let tag = "4.16.1-x86_64";
    for (layout, payloads, components, has_own) in [
        ("v2", "openshift/release-images", "openshift/release", false),
        ("v1", "openshift/release-images", "openshift/release", true),
        ("oc", "openshift/release", "openshift/release", true),
        ("v2-4.17", PAYLOADS, ART, false),
    ] {
        let line = format!(
            "push docker://{host}/{layout} --layout {layout} --insecure {host} -o {layout}"
        );
        world.run(&site, &line).done();
        let of = |repository: &str, name: &str| {
            mirror.digest_of(&format!("{layout}/{repository}"), name)
        };
        assert_eq!(
            of(payloads, tag),
            Some(release.payload),
            "payload in {layout}"
        );
        for (name, digest) in &release.components {
            // Where paths are kept, the tag says nothing of the release.
            if components != ART {
                let found = of(components, &format!("{tag}-{name}"));
                assert_eq!(found, Some(*digest), "{name} by tag in {layout}");
            }
            let found = of(components, &digest.to_string());
            assert_eq!(found, Some(*digest), "{name} by digest in {layout}");
        }
        let graph = of("openshift/graph-image", "latest").unwrap();
        let service = site.read(format!("{layout}/updateService.yaml"));
        assert!(
            service.contains(&format!(
                "graphDataImage: {host}/{layout}/openshift/graph-image@{graph}\n"
            )) && service.contains(&format!("releases: {host}/{layout}/{payloads}\n")),
            "the update service in {layout}:\n{service}"
        );
        let own = site.path(format!("{layout}/signature-sha256-{}.json", &hex[..16]));
        assert_eq!(own.exists(), has_own, "an object per payload in {layout}");
        if has_own {
            let map: Value = serde_json::from_slice(&std::fs::read(own).unwrap()).unwrap();
            let path = World::signature_path(&release.payload, 1);
            let signature = STANDARD.encode(&world.files.files.lock().unwrap()[&path]);
            assert_eq!(
                map,
                json!({
                    "apiVersion": "v1",
                    "kind": "ConfigMap",
                    "metadata": {
                        "name": format!("sha256-{hex}"),
                        "namespace": "openshift-config-managed",
                        "labels": { "release.openshift.io/verification-signatures": "" },
                    },
                    "binaryData": { format!("sha256-{hex}-1"): signature },
                }),
                "it holds the signature"
            );
        }
        site.imgbuild(&format!(
            "verify --registry {host}/{layout} --insecure {host} --layout {layout}"
        ))
        .done();
    }
}

#[test]
fn a_release_is_deleted_and_what_it_shares_stays() {
    let world = World::new();
    let (old, new) = (
        world.release(0, "4.16.1", &[]),
        world.release(1, "4.16.2", &["4.16.1"]),
    );
    world.channel(
        "stable-4.16",
        "amd64",
        &[&old, &new],
        &[("4.16.1", "4.16.2")],
        &[],
    );
    let site = world.site();
    site.config(&channels(&["stable-4.16 4.16.1 4.16.2"]));
    world.run(&site, "lock").done();
    let Some(mirror) = crate::site::stock::Stock::start(None) else {
        return;
    };
    let host = mirror.address();
    let to = format!("docker://{host}/ocp --insecure {host}");
    world.run(&site, &format!("push {to}")).done();
    site.write(
        "delete.yaml",
        "apiVersion: mirror.openshift.io/v2alpha1\nkind: DeleteImageSetConfiguration\ndelete:\n  platform:\n    channels:\n    - name: stable-4.16\n      minVersion: 4.16.1\n      maxVersion: 4.16.1\n",
    );
    world
        .run(
            &site,
            &format!(
                "delete --plan gone.yaml -c delete.yaml --lock lockfiles/imageset.lock.toml {to}"
            ),
        )
        .done();
    let plan = site.read("gone.yaml");
    let only_old: Vec<(&String, &Digest)> = old
        .components
        .iter()
        .filter(|(name, digest)| new.components[*name] != **digest)
        .collect();
    assert!(
        !only_old.is_empty() && only_old.len() < old.components.len(),
        "some components are shared, some are not"
    );
    world
        .run(&site, &format!("delete --execute gone.yaml {to}"))
        .done();
    let of = |repository: &str, name: &str| {
        wire::manifest(host, &format!("ocp/openshift/{repository}"), name)
            .map(|bytes| Digest::of(&bytes))
    };
    assert_eq!(
        of("release-images", "4.16.1-x86_64"),
        None,
        "its payload is gone"
    );
    assert_eq!(
        of("release-images", "4.16.2-x86_64"),
        Some(new.payload),
        "the other is not"
    );
    for (name, digest) in only_old {
        assert_eq!(
            of("release", &digest.to_string()),
            None,
            "{name} was its alone, in\n{plan}"
        );
    }
    for (name, digest) in &new.components {
        for found in [format!("4.16.2-x86_64-{name}"), digest.to_string()] {
            assert_eq!(of("release", &found), Some(*digest), "{name} as {found}");
        }
    }
}

#[test]
fn releases_of_the_community_come_from_their_own_places() {
    let world = World::new();
    let release = world.release(0, "4.16.0-okd-scos.1", &[]);
    // Its payloads are signed by a key of their own, and lie in a store of their own.
    let path = World::signature_path(&release.payload, 1);
    world.files.put(
        &path,
        signature(
            &world.other,
            &release.payload,
            "quay.io/okd/scos-release:4.16.0-okd-scos.1",
        ),
    );
    world.channel("4-scos-stable", "amd64", &[&release], &[], &[]);
    let site = world.site();
    site.write("community.asc", World::public(&world.other));
    let place = |name: &str| format!("http://{}/{name}", world.address);
    site.write(
        "imgbuild.toml",
        format!(
            "[url.\"https://origin-release.ci.openshift.org/graph\"]\nlocation = \"{}\"\n\n[url.\"https://storage.googleapis.com/openshift-ci-release/releases/signatures/openshift/release\"]\nlocation = \"{}\"\n\n[signatures.release]\nkeys = [\"community.asc\"]\n",
            place("graph"),
            place("signatures"),
        ),
    );
    site.config(&format!(
        "{}      type: okd\n",
        channels(&["4-scos-stable"])
    ));
    // The services of the other product are not asked: they are not even there.
    site.imgbuild("lock").done();
    let lock = site.lock_text();
    assert!(
        lock.contains("type = \"okd\"") && lock.contains("version = \"4.16.0-okd-scos.1\""),
        "the block says which product it is of, in\n{lock}"
    );
    site.imgbuild("build").done();
    site.imgbuild("emit --registry mirror.example.test/okd -o out")
        .done();
    assert!(
        site.read("out/signature-configmap.yaml")
            .contains(&format!("sha256-{}-1:", release.payload.hex())),
        "its signature is told to the cluster"
    );
}

#[test]
fn a_boot_disk_is_one_more_component() {
    let world = World::new();
    let disk = world.image(
        ART,
        "amd64",
        &[world.layer(&[("disk.img", noise(5, 5000))], false)],
    );
    let stream = json!({ "architectures": { "x86_64": { "images": { "kubevirt": { "digest-ref": format!("quay.io/{ART}@{}", disk.digest) } } } } });
    let boot = json!({ "kind": "ConfigMap", "apiVersion": "v1", "data": { "stream": stream.to_string() } });
    let parts = world.components(0);
    let recipe = Recipe {
        files: vec![(
            "release-manifests/0000_50_installer_coreos-bootimages.yaml",
            boot.to_string().into_bytes(),
        )],
        ..Recipe::default()
    };
    let payload = world.payload("4.16.1", &parts, &recipe).digest;
    world.sign(&payload, "4.16.1", 1, &world.key);
    let release = Made {
        version: "4.16.1".to_owned(),
        payload,
        components: parts,
    };
    world.channel("stable-4.16", "amd64", &[&release], &[], &[]);
    let site = world.site();
    site.config(&format!(
        "{}    kubeVirtContainer: true\n",
        channels(&["stable-4.16"])
    ));
    world.run(&site, "lock").done();
    let lock = site.lock_text();
    assert!(
        lock.contains(&format!(
            "name = \"kube-virt-container\", image = \"quay.io/{ART}@{}\"",
            disk.digest
        )) && lock.contains("disks = [\"amd64\"]")
            && lock.contains("\nkubevirt-disk = "),
        "the disk is pinned, the want and the rules say why, in\n{lock}"
    );
    // A blocked image leaves its block, and comes back with the pattern gone; nobody is asked for either.
    let base = site.read("imageset.yaml");
    site.write(
        "imageset.yaml",
        format!("{base}  blockedImages:\n  - name: kube-virt-container\n"),
    );
    world.files.remove("/graph?arch=amd64&channel=stable-4.16");
    world
        .run(&site, "lock")
        .done()
        .says(&["component kube-virt-container", "is blocked by"]);
    assert!(
        !site
            .lock_text()
            .contains("name = \"kube-virt-container\", image"),
        "the disk is gone"
    );
    site.write("imageset.yaml", base);
    world.run(&site, "lock").done();
    assert_eq!(site.lock_text(), lock, "and it is as it was");
}

#[test]
fn releases_and_channels_are_listed() {
    let world = World::new();
    let (a, b) = (
        world.release(0, "4.16.1", &[]),
        world.release(1, "4.16.2", &["4.16.1"]),
    );
    world.channel("stable-4.16", "amd64", &[&b, &a], &[], &[]);
    world.channel("fast-4.16", "arm64", &[&b], &[], &[]);
    let base = world.image(PAYLOADS, "amd64", &[]);
    let descriptor = World::descriptor(OCI_MANIFEST, base);
    for tag in ["4.16.1-x86_64", "4.9.0-x86_64", "4.10.0-multi", "latest"] {
        world
            .content
            .repositories
            .link_image(
                &*world.content.memory,
                PAYLOADS,
                &descriptor,
                Some(&tag.parse().unwrap()),
            )
            .unwrap();
    }
    let site = world.site();
    let said = |line: &str| world.run(&site, line).done().stdout;
    assert_eq!(
        said("list releases"),
        "Available OpenShift Container Platform release versions:\n  4.9\n  4.10\n  4.16\n",
        "the minors, in order of their numbers"
    );
    assert!(
        said("list releases --version 4.16")
            .ends_with("\n\nChannel: stable-4.16\nArchitecture: amd64\n4.16.1\n4.16.2\n"),
        "the stable channel is the default"
    );
    assert_eq!(
        said("list releases --channel fast-4.16 --filter-by-archs arm64"),
        "Channel: fast-4.16\nArchitecture: arm64\n4.16.2\n",
        "another channel has no heading"
    );
    for line in [
        "list channels --version 4.16",
        "list releases --channels --version 4.16",
    ] {
        assert_eq!(
            said(line),
            "Listing channels for version 4.16:\n\nother-1.0\nstable-4.16\n",
            "{line}"
        );
    }
    world
        .run(&site, "list releases --channel stable-4.61")
        .ends(1)
        .says(&["no releases in channel stable-4.61"]);
    world
        .run(
            &site,
            "list releases --version 4.16 --filter-by-archs sparc",
        )
        .ends(2)
        .says(&["sparc"]);
    assert!(!site.path("store").exists(), "a look leaves nothing behind");
}
