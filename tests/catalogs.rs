//! Operator catalogs from upstream to a mirror behind a gap: a made catalog whose packages change, selected, locked, built
//! anew, carried and served, and every way in which a catalog can be wrong.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::io::{Cursor, Read};

use imgbuild::demo::{Catalog, Form, Operator, Upstream, World};
use imgbuild::oci::{Descriptor, OCI_MANIFEST};
use imgbuild::openshift::fbc::{self, configs_path, read_layers};
use imgbuild::registry::server::Options;
use serde_json::{Value, json};

use crate::site::content::Content;
use crate::site::stock::Stock;
use crate::site::{Connected, Disconnected, UPSTREAM, wire};

/// Where the catalog is.
const INDEX: &str = "redhat/operator-index";

/// Its tag.
const TAG: &str = "v4.16";

/// The catalog that is built of two packages of [`operators`].
const BUILT: &str = "sha256:ae4422bd0a6ce30348b10cc911ff767c1cf398afc0d9c73e0e93f5347bfcecd2";

fn operators() -> Vec<Operator> {
    vec![
        Operator::new("alpha", &["stable: 1.0.0 1.1.0 1.2.0", "fast: 1.2.0 2.0.0"]),
        Operator::new("beta", &["stable: 0.9.0 1.0.0"]).requiring("gamma", ">=2.0.0"),
        Operator::new("gamma", &["stable: 1.0.0 2.0.0 2.1.0"]),
        Operator::new("delta", &["stable: 3.0.0"]),
    ]
}

fn catalog(form: Form) -> Catalog<'static> {
    Catalog {
        host: UPSTREAM,
        repository: INDEX,
        tag: TAG,
        form,
        architectures: &["amd64", "arm64"],
    }
}

fn world(operators: &[Operator]) -> World {
    let mut world = World::new(5);
    world.catalog(&catalog(Form::Oci), operators).unwrap();
    world
}

fn upstream(operators: &[Operator]) -> Upstream {
    Upstream::start(world(operators), Options::default()).unwrap()
}

/// A config of one catalog with these packages, each as it stands in YAML (`name: x`), and further fields of the row.
fn wants(site: &Connected, fields: &[&str], packages: &[&str]) {
    let mut text = format!("  operators:\n  - catalog: {UPSTREAM}/{INDEX}:{TAG}\n");
    for field in fields {
        writeln!(text, "    {field}").unwrap();
    }
    if !packages.is_empty() {
        text += "    packages:\n";
        for package in packages {
            writeln!(text, "    - {package}").unwrap();
        }
    }
    site.config(&text);
}

/// The blocks of packages in a lock, by name.
fn packages(lock: &str) -> BTreeMap<String, String> {
    lock.split("[[catalog.package]]\n")
        .skip(1)
        .map(|block| {
            let block = block.split("\n[[").next().unwrap();
            let name = block.split('"').nth(1).unwrap();
            (name.to_owned(), block.trim_end().to_owned())
        })
        .collect()
}

/// The bundles of a block.
fn bundles(block: &str) -> Vec<String> {
    block
        .lines()
        .filter(|line| line.contains("channels = [") && line.trim_start().starts_with("{ name"))
        .map(|line| line.split('"').nth(1).unwrap().to_owned())
        .collect()
}

/// The image config of a served instance, and the layers, the lowest first.
fn pulled(address: &str, repository: &str, name: &str) -> (Value, Value, Vec<Vec<u8>>) {
    let json = |bytes: &[u8]| -> Value { serde_json::from_slice(bytes).unwrap() };
    let mut manifest = json(&wire::manifest(address, repository, name).expect("it is served"));
    if let Some(children) = manifest["manifests"].as_array() {
        let digest = children[0]["digest"].as_str().unwrap().to_owned();
        manifest = json(&wire::manifest(address, repository, &digest).expect("a child"));
    }
    let blob = |descriptor: &Value| {
        let digest = descriptor["digest"].as_str().unwrap();
        let path = format!("/v2/{repository}/blobs/{digest}");
        let answer = wire::ask("GET", address, &path).unwrap();
        assert_eq!(answer.status, 200, "{digest} is served");
        answer.body
    };
    let config = json(&blob(&manifest["config"]));
    let layers = manifest["layers"]
        .as_array()
        .unwrap()
        .iter()
        .map(blob)
        .collect();
    (manifest, config, layers)
}

/// The bundles that a served catalog offers, by package and channel: what its layers and its label say.
fn offered(address: &str, repository: &str, name: &str) -> BTreeMap<String, BTreeSet<String>> {
    let (_, config, layers) = pulled(address, repository, name);
    let labels: BTreeMap<String, String> =
        serde_json::from_value(config["config"]["Labels"].clone()).unwrap();
    let layers = layers
        .into_iter()
        .rev()
        .map(|bytes| Ok(Box::new(Cursor::new(bytes)) as Box<dyn Read>));
    let read = read_layers(
        &configs_path(&labels).unwrap(),
        layers,
        Vec::new(),
        fbc::Limits::default(),
    )
    .unwrap();
    let names: Vec<String> = read.packages().map(str::to_owned).collect();
    let mut offered: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for package in names {
        let fragment = read.fragment(&package).unwrap().unwrap();
        let bundles: BTreeSet<String> = fragment
            .bundles()
            .unwrap()
            .into_iter()
            .map(|bundle| bundle.name)
            .collect();
        for channel in fragment.channels().unwrap() {
            let entries: BTreeSet<String> = channel
                .entries
                .into_iter()
                .map(|entry| entry.name)
                .collect();
            assert!(
                entries.is_subset(&bundles),
                "every entry of {package} {} is a bundle that is there",
                channel.name
            );
            offered.insert(format!("{package} {}", channel.name), entries);
        }
    }
    offered
}

fn set(rows: &[(&str, &[&str])]) -> BTreeMap<String, BTreeSet<String>> {
    rows.iter()
        .map(|(name, entries)| {
            let entries = entries.iter().map(|entry| (*entry).to_owned()).collect();
            ((*name).to_owned(), entries)
        })
        .collect()
}

#[test]
fn a_lock_names_what_is_selected_and_a_second_one_reads_nothing() {
    let upstream = upstream(&operators());
    let near = Connected::at(&upstream.host());
    wants(
        &near,
        &[],
        &["name: alpha", "{name: delta, minVersion: 3.0.0}"],
    );
    near.lock().says(&["7 pins: 7 new, 0 moved, 0 the same"]);
    let lock = near.lock_text();
    let found = packages(&lock);
    assert_eq!(
        found.keys().collect::<Vec<_>>(),
        ["alpha", "delta"],
        "the packages that are named"
    );
    assert_eq!(
        bundles(&found["alpha"]),
        ["alpha.v1.2.0"],
        "the head of the default channel"
    );
    assert!(
        found["delta"].contains("want = { min = \"3.0.0\" }"),
        "the wish stands beside what was found:\n{lock}"
    );
    let before = upstream.server().requests().len();
    near.lock().says(&["nothing changed (7 pins)"]);
    near.imgbuild("lock --check").done();
    near.imgbuild("lock --offline").done();
    near.imgbuild("lock --update")
        .done()
        .says(&["nothing changed"]);
    let layers = upstream.server().requests()[before..]
        .iter()
        .filter(|exchange| exchange.path.contains("/blobs/"))
        .count();
    assert_eq!(layers, 0, "the memo knows what the layers hold");
    // Another package comes from the snapshot that is pinned, though the tag has moved since.
    let mut later = operators();
    later[2].channels[0].1.push("2.2.0".to_owned());
    upstream
        .change(|world| world.catalog(&catalog(Form::Oci), &later).map(|_| ()))
        .unwrap();
    wants(
        &near,
        &[],
        &[
            "name: alpha",
            "{name: delta, minVersion: 3.0.0}",
            "name: gamma",
        ],
    );
    near.imgbuild("lock --check").ends(3).says(&["gamma"]);
    near.lock();
    let grown = near.lock_text();
    assert_eq!(
        bundles(&packages(&grown)["gamma"]),
        ["gamma.v2.1.0"],
        "a new package follows the pinned snapshot"
    );
    for (name, block) in &found {
        assert_eq!(packages(&grown).get(name), Some(block), "{name} stays");
    }
    // One package moves alone.
    near.imgbuild("lock --update package:gamma").done();
    let moved = near.lock_text();
    assert_eq!(bundles(&packages(&moved)["gamma"]), ["gamma.v2.2.0"]);
    assert!(
        packages(&moved)["gamma"].contains("\nfrom = \"sha256:"),
        "it says which snapshot it is from:\n{moved}"
    );
    let image = |lock: &str| {
        lock.lines()
            .find(|line| line.starts_with("image = "))
            .map(str::to_owned)
    };
    assert_eq!(
        image(&moved),
        image(&lock),
        "the catalog stays where it was"
    );
    for (name, block) in &found {
        assert_eq!(packages(&moved).get(name), Some(block), "{name} stays");
    }
    near.lock().says(&["nothing changed"]);
    near.imgbuild("lock --update package:gamma")
        .done()
        .says(&["nothing changed"]);
    // With the whole catalog its packages move, and come from it.
    near.imgbuild(&format!("lock --update catalog:{UPSTREAM}/{INDEX}:{TAG}"))
        .done();
    let whole = near.lock_text();
    assert_ne!(image(&whole), image(&lock), "the snapshot is the newest");
    assert!(!whole.contains("\nfrom = "), "nothing is from elsewhere");
    // What is no longer asked for goes; nothing else moves.
    wants(&near, &[], &["name: gamma"]);
    near.lock();
    assert_eq!(
        packages(&near.lock_text()),
        BTreeMap::from([("gamma".to_owned(), packages(&whole)["gamma"].clone())]),
        "one package is left"
    );
}

#[test]
fn a_catalog_crosses_the_gap_and_serves_exactly_what_was_selected() {
    let Some(mirror) = Stock::start(None) else {
        return;
    };
    let upstream = upstream(&operators());
    let near = Connected::at(&upstream.host());
    near.write(
        "template.yaml",
        "apiVersion: operators.coreos.com/v1alpha1\nkind: CatalogSource\nmetadata:\n  name: x\nspec:\n  displayName: \"Ours: 1.10\"\n  updateStrategy:\n    registryPoll:\n      interval: 30m0s\n",
    );
    wants(
        &near,
        &["targetCatalogSourceTemplate: template.yaml"],
        &[
            "{name: alpha, channels: [{name: stable, minVersion: 1.1.0}, {name: fast}]}",
            "name: beta",
            "{name: gamma, minVersion: 2.0.0}",
        ],
    );
    near.lock();
    near.imgbuild("build").done();
    near.export("out", "");
    let far = Disconnected::with(mirror.address());
    far.receives(&near, "out");
    let run = far
        .imgbuild(&format!(
            "import out --to docker://{}/ocp",
            mirror.address()
        ))
        .done();
    let served = offered(mirror.address(), "ocp/redhat/operator-index", TAG);
    assert_eq!(
        served,
        set(&[
            ("alpha fast", &["alpha.v2.0.0"]),
            ("alpha stable", &["alpha.v1.1.0", "alpha.v1.2.0"]),
            ("beta stable", &["beta.v1.0.0"]),
            ("gamma stable", &["gamma.v2.0.0", "gamma.v2.1.0"]),
        ]),
        "the mirror serves what was selected\n{}",
        run.story()
    );
    let (manifest, config, _) = pulled(mirror.address(), "ocp/redhat/operator-index", TAG);
    assert_eq!(config["config"]["Cmd"], json!(["serve", "/configs"]));
    assert_eq!(
        manifest["layers"].as_array().unwrap().len(),
        4,
        "two layers of the pinned image, the whiteout, and the selection"
    );
    let source = far.read("cluster-resources/cs-operator-index-v4-16.yaml");
    assert_eq!(
        source,
        format!(
            "---\napiVersion: operators.coreos.com/v1alpha1\nkind: CatalogSource\nmetadata:\n  name: cs-operator-index-v4-16\n  namespace: openshift-marketplace\nspec:\n  displayName: \"Ours: 1.10\"\n  image: {}/ocp/redhat/operator-index:v4.16\n  sourceType: grpc\n  updateStrategy:\n    registryPoll:\n      interval: 30m0s\n",
            mirror.address()
        ),
        "the template with what is ours laid over it"
    );
    assert_eq!(
        far.read("cluster-resources/cc-operator-index-v4-16.yaml"),
        format!(
            "---\napiVersion: olm.operatorframework.io/v1\nkind: ClusterCatalog\nmetadata:\n  name: cc-operator-index-v4-16\nspec:\n  priority: 0\n  source:\n    image:\n      ref: {}/ocp/redhat/operator-index:v4.16\n    type: Image\n",
            mirror.address()
        )
    );
    let sets = far.read("cluster-resources/idms-oc-mirror.yaml");
    assert!(
        sets.contains("idms-operator-0") && !sets.contains("operator-index"),
        "bundles are redirected, catalogs are not:\n{sets}"
    );
    near.leads(mirror.address(), mirror.address());
    near.imgbuild(&format!("verify --registry {}/ocp", mirror.address()))
        .done();
    far.has_a_sound_store();
    if let Some(run) = far.other(&format!(
        "skopeo copy --all --src-tls-verify=false docker://{}/ocp/redhat/operator-index:{TAG} oci:copied:x",
        mirror.address()
    )) {
        run.done();
    }
    // One package moves; the next archive has its images and a new catalog, and serves both.
    let mut later = operators();
    later[2].channels[0].1.push("2.2.0".to_owned());
    upstream
        .change(|world| world.catalog(&catalog(Form::Oci), &later).map(|_| ()))
        .unwrap();
    near.imgbuild("lock --update package:gamma").done();
    near.imgbuild("build").done();
    near.export("second", "");
    far.receives(&near, "second");
    far.imgbuild(&format!(
        "import second --to docker://{}/ocp",
        mirror.address()
    ))
    .done();
    let served = offered(mirror.address(), "ocp/redhat/operator-index", TAG);
    assert_eq!(
        served["gamma stable"],
        ["gamma.v2.0.0", "gamma.v2.1.0", "gamma.v2.2.0"]
            .map(str::to_owned)
            .into(),
        "the update is served"
    );
    assert_eq!(
        served["alpha stable"],
        ["alpha.v1.1.0", "alpha.v1.2.0"].map(str::to_owned).into(),
        "the rest is as it was"
    );
}

#[test]
fn the_catalog_that_is_built_is_the_same_on_every_machine() {
    let upstream = upstream(&operators());
    let mut built = BTreeSet::new();
    for (jobs, order) in [
        (1, ["name: alpha", "name: delta"]),
        (16, ["name: delta", "name: alpha"]),
    ] {
        let near = Connected::at(&upstream.host());
        wants(&near, &[], &order);
        near.imgbuild(&format!("lock --jobs {jobs}")).done();
        near.imgbuild(&format!("build --jobs {jobs}")).done();
        near.export("out", &format!("--jobs {jobs}"));
        let lock = near.lock_text();
        let part = near.parts("out").remove(0);
        let mut tar = tar::Archive::new(std::fs::File::open(near.path("out").join(part)).unwrap());
        let manifest: Value = tar
            .entries()
            .unwrap()
            .map(Result::unwrap)
            .find(|entry| entry.path().unwrap().ends_with("imgbuild/manifest.json"))
            .map(|entry| serde_json::from_reader(entry).unwrap())
            .unwrap();
        assert_eq!(
            manifest["built"][0]["for"],
            format!("{UPSTREAM}/{INDEX}:{TAG}"),
            "the archive names what was built"
        );
        let digest = manifest["built"][0]["digest"].as_str().unwrap().to_owned();
        assert_eq!(
            digest, BUILT,
            "what is built holds compressed bytes: other ones are a new revision of pack-image"
        );
        built.insert((lock, digest));
        // What was selected and what was read is gone: it is made again from the layers, and comes out the same.
        let index = near.read("store/index.json");
        std::fs::remove_dir_all(near.path("store/imgbuild/memo")).unwrap();
        near.imgbuild("build").done();
        assert_eq!(
            near.read("store/index.json"),
            index,
            "made twice, made equal"
        );
    }
    assert_eq!(built.len(), 1, "workers and order decide nothing");
}

#[test]
fn a_whole_catalog_is_copied_bit_for_bit() {
    let mut world = World::new(5);
    let image = world.catalog(&catalog(Form::Docker), &operators()).unwrap();
    let upstream = Upstream::start(world, Options::default()).unwrap();
    let near = Connected::at(&upstream.host());
    wants(
        &near,
        &["full: true", "targetCatalog: mine/catalog", "targetTag: v1"],
        &[],
    );
    near.lock();
    let lock = near.lock_text();
    assert!(
        lock.contains("want = { full = true, packages = \"all\", target = \"mine/catalog:v1\" }"),
        "the whole catalog is asked for:\n{lock}"
    );
    assert_eq!(
        bundles(&packages(&lock)["alpha"]),
        [
            "alpha.v1.0.0",
            "alpha.v1.1.0",
            "alpha.v1.2.0",
            "alpha.v2.0.0"
        ],
        "every bundle"
    );
    assert!(
        !packages(&lock)["alpha"].contains("want"),
        "nobody named it"
    );
    near.imgbuild("build").done();
    let content = Content::default();
    let mirror = content.served();
    near.leads(&mirror.address(), &mirror.address());
    near.imgbuild(&format!("push docker://{}", mirror.address()))
        .done();
    assert_eq!(
        mirror.digest_of("mine/catalog", "v1"),
        Some(image.digest),
        "the original, under the name that was asked for"
    );
    near.lock().says(&["nothing changed"]);
}

#[test]
fn every_package_of_a_catalog_is_taken_by_its_head() {
    let upstream = upstream(&operators());
    let near = Connected::at(&upstream.host());
    wants(&near, &[], &[]);
    near.lock();
    let lock = near.lock_text();
    let found: Vec<Vec<String>> = packages(&lock)
        .values()
        .map(|block| bundles(block))
        .collect();
    assert_eq!(
        found,
        [
            ["alpha.v1.2.0"],
            ["beta.v1.0.0"],
            ["delta.v3.0.0"],
            ["gamma.v2.1.0"]
        ],
        "scenario 1 of the documentation"
    );
    // The settings choose other rules; the wish says so.
    near.write(
        "imgbuild.toml",
        format!("[catalog.\"{UPSTREAM}/{INDEX}:{TAG}\"]\nselection = \"every-channel\"\n"),
    );
    near.imgbuild("lock --check").ends(3).says(&["selection"]);
    near.lock();
    let lock = near.lock_text();
    assert_eq!(
        bundles(&packages(&lock)["alpha"]),
        ["alpha.v1.2.0", "alpha.v2.0.0"],
        "the head of every channel"
    );
    assert!(lock.contains("selection = \"every-channel\""), "{lock}");
    near.imgbuild("lock --check").done();
    near.write(
        "imgbuild.toml",
        format!("[catalog.\"{UPSTREAM}/{INDEX}:{TAG}\"]\nselection = \"newest\"\n"),
    );
    near.imgbuild("lock").ends(1).says(&[
        "imgbuild.toml:2",
        "expected default-channel, every-channel or v1",
    ]);
}

#[test]
fn the_first_tools_walk_starts_where_the_last_lock_started() {
    let upstream = upstream(&operators());
    let near = Connected::at(&upstream.host());
    wants(&near, &[], &["name: delta"]);
    near.write(
        "imgbuild.toml",
        format!("[catalog.\"{UPSTREAM}/{INDEX}:{TAG}\"]\nselection = \"v1\"\n"),
    );
    near.lock();
    assert_eq!(
        bundles(&packages(&near.lock_text())["delta"]),
        ["delta.v3.0.0"]
    );
    let mut later = operators();
    later[3].channels[0].1 = ["2.0.0", "3.0.0", "3.1.0", "3.2.0"]
        .map(str::to_owned)
        .into();
    upstream
        .change(|world| world.catalog(&catalog(Form::Oci), &later).map(|_| ()))
        .unwrap();
    near.imgbuild("lock --update").done();
    assert_eq!(
        bundles(&packages(&near.lock_text())["delta"]),
        ["delta.v3.0.0", "delta.v3.1.0", "delta.v3.2.0"],
        "what was mirrored before, and the way up from there"
    );
    near.imgbuild("lock --update")
        .done()
        .says(&["nothing changed"]);
    near.imgbuild("build").done();
}

#[test]
fn what_bundles_require_is_named_or_added() {
    let upstream = upstream(&operators());
    let near = Connected::at(&upstream.host());
    wants(&near, &[], &["name: beta"]);
    near.imgbuild("lock")
        .ends(1)
        .says(&[
            "imageset.yaml:7",
            "package gamma >=2.0.0 is not selected, but required by beta.v1.0.0 (package beta)",
        ])
        .hints(&["add package gamma", "--add-required"]);
    assert!(
        !near.path("lockfiles/imageset.lock.toml").exists(),
        "nothing is half written"
    );
    near.imgbuild("lock --add-required").done().says(&[
        "package gamma is taken besides, since beta.v1.0.0 requires package gamma >=2.0.0",
    ]);
    let lock = near.lock_text();
    assert!(
        packages(&lock)["gamma"].contains(
            "want = { bundles = [\"gamma.v2.1.0\"], default = \"stable\", required = true }"
        ),
        "{lock}"
    );
    near.imgbuild("lock --check").done();
    near.lock().says(&["nothing changed"]);
    near.imgbuild("lock --update")
        .done()
        .says(&["nothing changed"]);
    near.imgbuild("build").done();
    // What nobody requires any more goes.
    wants(&near, &[], &["name: delta"]);
    near.lock();
    assert_eq!(
        packages(&near.lock_text()).keys().collect::<Vec<_>>(),
        ["delta"]
    );
    // A version that does not do is told, and is not added behind the user's back.
    wants(
        &near,
        &[],
        &["name: beta", "{name: gamma, maxVersion: 1.0.0}"],
    );
    near.imgbuild("lock --add-required")
        .ends(1)
        .says(&["selected are only 1.0.0"])
        .hints(&["select a version >=2.0.0 of package gamma"]);
    wants(&near, &["skipDependencies: true"], &["name: beta"]);
    near.lock();
}

#[test]
fn what_cannot_be_selected_is_said_where_it_was_asked() {
    let upstream = upstream(&operators());
    let near = Connected::at(&upstream.host());
    for (package, words, hint) in [
        (
            "name: alhpa",
            "imageset.yaml:7:7: package \"alhpa\" is not in the catalog",
            "did you mean alpha?",
        ),
        (
            "{name: alpha, channels: [{name: stabel}]}",
            "imageset.yaml:7:7: package \"alpha\" has no channel \"stabel\"",
            "did you mean stable?",
        ),
        (
            "{name: alpha, bundles: [{name: alpha.v1.2.1}]}",
            "has no bundle \"alpha.v1.2.1\"",
            "did you mean alpha.v1.2.0",
        ),
        (
            "{name: alpha, minVersion: 7.0.0}",
            "nothing is in the range",
            "the closest versions are",
        ),
        (
            "{name: alpha, channels: [{name: fast}]}",
            "default channel \"stable\" is not selected",
            "set defaultChannel: fast, or add channel \"stable\"",
        ),
        (
            "{name: alpha, bundles: [{name: alpha.v1.0.0}, {name: alpha.v1.2.0}]}",
            "more than one head",
            "add",
        ),
    ] {
        wants(&near, &[], &[package]);
        near.imgbuild("lock").ends(1).says(&[words]).hints(&[hint]);
        assert!(
            !near.path("lockfiles/imageset.lock.toml").exists(),
            "nothing is half written"
        );
    }
    near.config("  operators:\n  - catalog: registry.example.test/redhat/none:v1\n");
    near.imgbuild("lock")
        .ends(1)
        .says(&["imageset.yaml:5", "is not there"]);
}

#[test]
fn images_that_are_gone_are_told_together_and_can_be_left_out() {
    let mut list = operators();
    let gone = |name: &str| format!("{UPSTREAM}/redhat/{name}:v1");
    list[0].tagged = vec![gone("gone-a"), gone("gone-b")];
    list[3].tagged = vec![gone("gone-a")];
    let upstream = upstream(&list);
    let near = Connected::at(&upstream.host());
    wants(&near, &[], &["name: alpha", "name: delta"]);
    near.imgbuild("lock")
        .ends(1)
        .says(&[
            "2 requests could not be answered",
            "registry.example.test/redhat/gone-a:v1 is not there; needed by package alpha: bundle alpha.v1.2.0 calls it \"tagged\", and 1 more",
            "registry.example.test/redhat/gone-b:v1 is not there",
        ])
        .hints(&["--skip"]);
    near.run([
        "lock",
        "--skip",
        &gone("gone-a"),
        "--skip",
        &gone("gone-b"),
        "--reason",
        "withdrawn",
    ])
    .done()
    .says(&["gone-a:v1", "is skipped: withdrawn"]);
    let lock = near.lock_text();
    assert_eq!(lock.matches("[[skip]]").count(), 2, "{lock}");
    near.lock().says(&["nothing changed"]);
    // A pattern of the config does the same for whatever it matches; the rest is derived from what is pinned.
    near.write(
        "imageset.yaml",
        near.read("imageset.yaml") + "  blockedImages:\n  - name: proxy@\n",
    );
    near.lock().says(&["is blocked by \"proxy@\""]);
    let lock = near.lock_text();
    assert!(!lock.contains("redhat/proxy"), "{lock}");
    assert!(lock.contains("alpha-controller"), "{lock}");
    near.imgbuild("build").done();
}

#[test]
fn related_images_by_tag_are_pinned_and_keep_their_tag() {
    let mut list = operators();
    list[3].tagged = vec![format!("{UPSTREAM}/other/agent:v7")];
    let mut world = world(&list);
    let agent = world
        .image(
            Form::Docker,
            &imgbuild::oci::Platform {
                os: "linux".to_owned(),
                architecture: "amd64".to_owned(),
                variant: None,
                os_version: None,
            },
            &[],
            &BTreeMap::new(),
        )
        .unwrap();
    world.tag("other/agent", "v7", &agent).unwrap();
    let upstream = Upstream::start(world, Options::default()).unwrap();
    let near = Connected::at(&upstream.host());
    wants(
        &near,
        &["platforms: [{os: linux, architecture: arm64}]"],
        &["name: delta"],
    );
    near.lock();
    let lock = near.lock_text();
    assert!(
        lock.contains(&format!(
            "{{ image = \"{UPSTREAM}/other/agent@{}\", tag = \"v7\"",
            agent.digest
        )) || lock.contains("tag = \"v7\""),
        "{lock}"
    );
    assert!(
        lock.contains("\"linux/arm64\""),
        "only some instances are taken:\n{lock}"
    );
    near.imgbuild("build").done();
    let content = Content::default();
    let mirror = content.served();
    near.leads(&mirror.address(), &mirror.address());
    near.imgbuild(&format!("push docker://{}", mirror.address()))
        .done();
    assert_eq!(
        mirror.digest_of("other/agent", "v7"),
        Some(agent.digest),
        "it lies under its tag"
    );
    assert_eq!(
        offered(&mirror.address(), "redhat/operator-index", TAG),
        set(&[("delta stable", &["delta.v3.0.0"])]),
        "an index of one instance is still an index"
    );
}

#[test]
fn a_catalog_on_disk_and_one_by_digest_are_catalogs_too() {
    let world = world(&operators());
    let digest = world.at(INDEX, TAG).unwrap().digest;
    let folder = crate::site::folder("layout");
    world.write_layout(folder.path()).unwrap();
    let upstream = Upstream::start(world, Options::default()).unwrap();
    let near = Connected::at(&upstream.host());
    let path = folder.path().display();
    near.config(&format!(
        "  operators:\n  - catalog: oci://{path}@{digest}\n    targetCatalog: mine/disk\n    packages:\n    - name: alpha\n  - catalog: {UPSTREAM}/{INDEX}@{digest}\n    packages:\n    - name: delta\n"
    ));
    near.lock();
    let lock = near.lock_text();
    assert_eq!(lock.matches("[[catalog]]").count(), 2, "{lock}");
    near.imgbuild("build").done();
    let content = Content::default();
    let mirror = content.served();
    let address = mirror.address();
    near.leads(&address, &address);
    near.imgbuild(&format!("push docker://{address}")).done();
    assert_eq!(
        offered(&address, "mine/disk", "latest")
            .keys()
            .collect::<Vec<_>>(),
        ["alpha stable"],
        "what is on disk lies where it was asked for"
    );
    // Known by digest alone, it is told to clusters by the digest that it has now.
    near.imgbuild(&format!("emit --registry {address} -o told"))
        .done();
    let names = near.names("told");
    let source = names
        .iter()
        .find(|name| name.starts_with("cs-operator-index-"))
        .expect("a CatalogSource");
    let text = near.read(format!("told/{source}"));
    let document: serde_yaml::Value = serde_yaml::from_str(&text).unwrap();
    let served = document["spec"]["image"].as_str().unwrap();
    let (_, served) = served.split_once('@').expect("by digest");
    assert_eq!(
        source,
        &format!("cs-operator-index-{}.yaml", &served[7..19]),
        "it is named by the start of its digest"
    );
    assert_eq!(
        offered(&address, INDEX, &format!("sha256-{}", &served[7..])),
        set(&[("delta stable", &["delta.v3.0.0"])]),
        "and lies under it as a tag"
    );
    near.lock().says(&["nothing changed"]);
}

/// Puts an image of one layer into a registry, as a catalog or with other labels.
fn raw_catalog(content: &Content, tag: &str, layer: &[u8], labels: &Value) {
    let layer = content.memory.insert(layer);
    let config = json!({ "architecture": "amd64", "os": "linux", "config": { "Labels": labels }, "rootfs": { "type": "layers", "diff_ids": [] } });
    let config = content.memory.insert(config.to_string().as_bytes());
    let manifest = json!({
        "schemaVersion": 2, "mediaType": OCI_MANIFEST,
        "config": { "mediaType": "application/vnd.oci.image.config.v1+json", "digest": config.digest, "size": config.size },
        "layers": [{ "mediaType": "application/vnd.oci.image.layer.v1.tar+gzip", "digest": layer.digest, "size": layer.size }],
    });
    let blob = content.memory.insert(manifest.to_string().as_bytes());
    let descriptor = Descriptor {
        media_type: OCI_MANIFEST.to_owned(),
        digest: blob.digest,
        size: blob.size,
        platform: None,
        artifact_type: None,
        urls: Vec::new(),
        annotations: BTreeMap::new(),
    };
    content
        .repositories
        .link_image(
            &*content.memory,
            INDEX,
            &descriptor,
            Some(&tag.parse().unwrap()),
        )
        .unwrap();
}

fn tar_of(name: &str, size: u64, bytes: &[u8], kind: tar::EntryType) -> Vec<u8> {
    let mut header = tar::Header::new_ustar();
    header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
    header.set_entry_type(kind);
    header.set_size(size);
    header.set_mode(0o644);
    header.set_cksum();
    let mut tar = header.as_bytes().to_vec();
    tar.extend(bytes);
    tar.resize(tar.len().next_multiple_of(512) + 1024, 0);
    tar
}

#[test]
fn a_catalog_that_is_wrong_is_refused_with_its_place() {
    let bundle = |name: &str, version: &str| json!({ "schema": "olm.bundle", "package": "p", "name": name, "image": format!("{UPSTREAM}/p/b@sha256:{}", "0".repeat(64)), "properties": [{ "type": "olm.package", "value": { "packageName": "p", "version": version } }] });
    let catalog = |entries: Value, bundles: &[Value]| {
        let mut documents = vec![
            json!({ "schema": "olm.package", "name": "p", "defaultChannel": "c" }),
            json!({ "schema": "olm.channel", "package": "p", "name": "c", "entries": entries }),
        ];
        documents.extend(bundles.iter().cloned());
        let text: String = documents.iter().map(ToString::to_string).collect();
        let regular = tar::EntryType::Regular;
        tar_of(
            "configs/p/catalog.json",
            text.len() as u64,
            text.as_bytes(),
            regular,
        )
    };
    let two = [bundle("p.v1", "1.0.0"), bundle("p.v2", "2.0.0")];
    let ours = json!({ "operators.operatorframework.io.index.configs.v1": "/configs" });
    let regular = tar::EntryType::Regular;
    let content = Content::default();
    let registry = content.served();
    for (tag, layer, labels, words) in [
        (
            "two-heads",
            catalog(json!([{ "name": "p.v1" }, { "name": "p.v2" }]), &two),
            &ours,
            vec![
                "package \"p\": the catalog is broken",
                "channel \"c\"",
                "more than one head",
                "p.v1, p.v2",
            ],
        ),
        (
            "cycle",
            catalog(
                json!([{ "name": "p.v1", "replaces": "p.v2" }, { "name": "p.v2", "replaces": "p.v1" }]),
                &two,
            ),
            &ours,
            vec!["package \"p\"", "channel \"c\"", "p.v1"],
        ),
        (
            "twice",
            catalog(
                json!([{ "name": "p.v1" }]),
                &[two[0].clone(), two[0].clone()],
            ),
            &ours,
            vec!["package \"p\"", "p.v1"],
        ),
        (
            "gone",
            catalog(json!([{ "name": "p.v1" }]), &two[..1]),
            &ours,
            vec!["p/b@sha256:0000", "is not there", "package p: bundle p.v1"],
        ),
        (
            "link",
            tar_of("configs/p", 0, b"", tar::EntryType::Symlink),
            &ours,
            vec!["layer 1 from the top, entry \"configs/p\": links are not followed"],
        ),
        (
            "outside",
            tar_of("configs/../../p", 0, b"", regular),
            &ours,
            vec!["the path leaves the image"],
        ),
        (
            "huge",
            tar_of("configs/p/catalog.json", 10_000_000_000, b"{}", regular),
            &ours,
            vec!["entry \"configs/p/catalog.json\": it is said to have 10000000000 bytes"],
        ),
        (
            "no-json",
            tar_of("configs/p/catalog.json", 8, b"{\"a\":1} ", regular),
            &ours,
            vec!["p/catalog.json:1", "has no schema"],
        ),
        (
            "sqlite",
            tar_of("database/index.db", 0, b"", regular),
            &json!({ "operators.operatorframework.io.index.database.v1": "/database/index.db" }),
            vec!["sqlite", "only file-based catalogs"],
        ),
        (
            "plain",
            tar_of("a", 0, b"", regular),
            &json!({}),
            vec!["is not a catalog"],
        ),
    ] {
        raw_catalog(&content, tag, &layer, labels);
        let near = Connected::to(&registry);
        near.config(&format!(
            "  operators:\n  - catalog: {UPSTREAM}/{INDEX}:{tag}\n    packages:\n    - name: p\n"
        ));
        near.imgbuild("lock")
            .ends(1)
            .says(&words)
            .says(&["imageset.yaml:"]);
        assert!(
            !near.path("lockfiles/imageset.lock.toml").exists(),
            "{tag}: nothing is half written"
        );
    }
}

#[test]
fn a_plan_says_what_each_operator_costs_and_why_says_who_asked() {
    let upstream = upstream(&operators());
    let near = Connected::at(&upstream.host());
    wants(&near, &[], &["name: alpha", "name: delta"]);
    near.lock();
    near.imgbuild("build").done();
    let run = near.imgbuild("plan").done();
    run.clone()
        .says(&["alone  adds to all", "package alpha in", "package delta in"]);
    let plan = near.imgbuild("plan --format json").done().json();
    let rows = plan["operators"].as_array().unwrap();
    assert_eq!(rows.len(), 2, "{plan}");
    for row in rows {
        let (bytes, adds) = (
            row["bytes"].as_u64().unwrap(),
            row["adds"].as_u64().unwrap(),
        );
        assert!(
            0 < adds && adds < bytes,
            "the proxy and the base are shared: {row}"
        );
    }
    let lock = near.lock_text();
    let digest = |part: &str| {
        let at = lock.find(part).unwrap() + part.len();
        lock[at..].split('"').next().unwrap().to_owned()
    };
    near.imgbuild(&format!(
        "why {} --deep",
        digest("redhat/alpha-controller@")
    ))
    .done()
    .says(&[
        "package alpha in",
        "bundle alpha.v1.2.0, related image \"controller\"",
        "asked for at imageset.yaml:7",
    ]);
    near.imgbuild(&format!("why {} --deep", digest("redhat/alpha-bundle@")))
        .done()
        .says(&["bundle alpha.v1.2.0"]);
    near.imgbuild(&format!("why {}", digest("redhat/proxy@")))
        .done()
        .says(&["package alpha in", "package delta in"]);
}

#[test]
fn a_look_at_a_catalog_shows_packages_channels_and_versions() {
    let upstream = upstream(&operators());
    let near = Connected::at(&upstream.host());
    let name = format!("{UPSTREAM}/{INDEX}:{TAG}");
    let run = near
        .imgbuild(&format!("list operators --catalog {name}"))
        .done();
    assert_eq!(
        run.stdout,
        "NAME   DISPLAY NAME  DEFAULT CHANNEL\nalpha  Made alpha    stable\nbeta   Made beta     stable\ndelta  Made delta    stable\ngamma  Made gamma    stable\n"
    );
    let run = near
        .imgbuild(&format!("list operators --catalog {name} --package alpha"))
        .done();
    assert_eq!(
        run.stdout,
        "NAME   DISPLAY NAME  DEFAULT CHANNEL\nalpha  Made alpha    stable\n\nPACKAGE  CHANNEL  HEAD\nalpha    fast     alpha.v2.0.0\nalpha    stable   alpha.v1.2.0\n"
    );
    let run = near
        .imgbuild(&format!(
            "list operators --catalog {name} --package alpha --channel stable"
        ))
        .done();
    assert_eq!(run.stdout, "VERSIONS\n1.0.0\n1.1.0\n1.2.0\n");
    near.imgbuild(&format!("list operators --catalog {name} --package alhpa"))
        .ends(1)
        .hints(&["did you mean alpha?"]);
    near.imgbuild(&format!(
        "list operators --catalog {name} --package alpha --channel slow"
    ))
    .ends(1)
    .hints(&["fast, stable"]);
    near.imgbuild("list operators").ends(2);
    // What was locked has a known size.
    wants(&near, &[], &["name: alpha"]);
    near.lock();
    near.imgbuild(&format!(
        "list operators --catalog {name} --package alpha --versions"
    ))
    .done()
    .says(&["SIZE OF HEAD", "1.0.0 1.1.0 1.2.0", "kB", "unknown"]);
}

#[test]
fn only_the_package_that_changed_is_selected_again() {
    let upstream = upstream(&operators());
    let near = Connected::at(&upstream.host());
    let three = ["name: alpha", "name: beta", "name: gamma"];
    wants(&near, &[], &three);
    near.lock();
    let records = |site: &Connected| site.tree("store/imgbuild/memo").len();
    let first = records(&near);
    let mut later = operators();
    later[2].channels[0].1.push("2.2.0".to_owned());
    upstream
        .change(|world| world.catalog(&catalog(Form::Oci), &later).map(|_| ()))
        .unwrap();
    near.imgbuild("lock --update").done();
    // The new catalog is taken apart like the first; of its packages two are what they were.
    assert_eq!(
        records(&near) - first,
        first - 2,
        "what a package says decides whether it is selected from again"
    );
    assert!(
        packages(&near.lock_text())["gamma"].contains("gamma.v2.2.0"),
        "the one that changed is"
    );
}
