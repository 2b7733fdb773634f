//! Where images go: registries of either layout, folders, stores; whole or in part.

use std::fs;

use imgbuild::digest::Digest;

use crate::site::content::Content;
use crate::site::registry::Registry;
use crate::site::stock::Stock;
use crate::site::{Connected, Disconnected, UPSTREAM};

/// A world with a tag, a name of many components, an image by digest alone and an index of three platforms.
fn world() -> (Content, Registry, Connected) {
    let content = Content::default();
    content.image("team/app:1", &[(1, 2_000), (2, 500)]);
    content.image("a/b/c/deep:1", &[(1, 2_000), (3, 500)]);
    let digest = content.image("team/pinned:1", &[(4, 500)]);
    content.index(
        "team/multi:1",
        &[
            ("linux/amd64", &[(5, 400)]),
            ("linux/arm64", &[(6, 400)]),
            ("linux/s390x", &[(7, 400)]),
        ],
    );
    let upstream = content.served();
    let site = Connected::to(&upstream);
    site.config(&format!(
        "  additionalImages:
    - name: {UPSTREAM}/team/app:1
    - name: {UPSTREAM}/a/b/c/deep:1
    - name: {UPSTREAM}/team/pinned@{digest}
    - name: {UPSTREAM}/team/pinned:1
      targetRepo: renamed/it
      targetTag: stable
    - name: {UPSTREAM}/team/multi:1
"
    ));
    site.lock();
    site.export("media", "");
    (content, upstream, site)
}

fn digest(content: &Content, name: &str) -> Digest {
    content
        .images()
        .iter()
        .find(|image| image.name() == name)
        .unwrap()
        .descriptor
        .digest
}

#[test]
fn a_layout_that_is_imported_is_read_by_skopeo() {
    let (content, _upstream, site) = world();
    let far = Disconnected::new();
    far.receives(&site, "media");
    far.imgbuild("import media --to oci:mirror")
        .done()
        .says(&["imageset seq 1: adopted"]);
    assert_eq!(
        far.read("mirror/oci-layout").trim(),
        "{\"imageLayoutVersion\":\"1.0.0\"}",
        "it is a layout"
    );
    let index: serde_json::Value = serde_json::from_str(&far.read("mirror/index.json")).unwrap();
    let names: Vec<&str> = index["manifests"]
        .as_array()
        .unwrap()
        .iter()
        .map(|image| {
            image["annotations"]["org.opencontainers.image.ref.name"]
                .as_str()
                .unwrap()
        })
        .filter(|name| !name.starts_with("imgbuild/head:"))
        .collect();
    assert_eq!(names.len(), 5, "one entry per image: {names:?}");
    for image in content.images() {
        let name = format!("{UPSTREAM}/{}", image.name());
        assert!(
            names.contains(&name.as_str()),
            "{name} must be among {names:?}"
        );
        let Some(run) = far.other(&format!(
            "skopeo --insecure-policy inspect --raw oci:mirror:{name}"
        )) else {
            return;
        };
        assert_eq!(
            Digest::of(run.done().stdout.as_bytes()),
            image.descriptor.digest,
            "skopeo sees {name}"
        );
        far.other(&format!(
            "skopeo --insecure-policy copy --all oci:mirror:{name} dir:copied"
        ))
        .unwrap()
        .done();
    }
    // Once more: nothing to do.
    let before = far.tree("mirror");
    far.imgbuild("import media --to oci:mirror")
        .done()
        .says(&["was adopted before; 0 blobs sent"]);
    assert_eq!(far.tree("mirror"), before, "nothing changed");
}

#[test]
fn an_import_without_a_destination_fills_the_store() {
    let (content, _upstream, site) = world();
    let far = Disconnected::new();
    far.receives(&site, "media");
    far.imgbuild("import media")
        .done()
        .says(&["imageset seq 1: adopted"]);
    far.has_a_sound_store();
    let held = far.names("store/blobs/sha256");
    for (image, below) in content.all() {
        for blob in below
            .manifests
            .iter()
            .map(|(blob, _)| blob)
            .chain(&below.blobs)
        {
            assert!(
                held.contains(&blob.digest.hex()),
                "{} must be whole in the store",
                image.name()
            );
        }
    }
    // What is in the store survives the collection of garbage, and goes to a registry without being read again.
    far.imgbuild("store gc").done();
    assert_eq!(
        far.names("store/blobs/sha256"),
        held,
        "what is adopted is kept"
    );
}

#[test]
fn names_at_the_destination_follow_the_layout() {
    let (content, _upstream, site) = world();
    let pinned = digest(&content, "team/pinned:1");
    let cases = [
        (
            "",
            "mirror/a/b/c/deep",
            format!("sha256-{}", pinned.hex()),
            "mirror/team/app",
        ),
        (
            "--layout v2-4.17",
            "mirror/a/b/c/deep",
            pinned.hex(),
            "mirror/team/app",
        ),
        (
            "--max-nested-paths 2",
            "mirror/a-b-c-deep",
            format!("sha256-{}", pinned.hex()),
            "mirror/team-app",
        ),
        (
            "--max-nested-paths 3",
            "mirror/a/b-c-deep",
            format!("sha256-{}", pinned.hex()),
            "mirror/team/app",
        ),
    ];
    for (flags, deep, tag, app) in cases {
        let mirror = Content::default().served();
        let far = Disconnected::with(&mirror.address());
        far.receives(&site, "media");
        far.imgbuild(&format!(
            "import media --to docker://{}/mirror {flags}",
            mirror.address()
        ))
        .done();
        let pinned_at = app.replace("app", "pinned");
        let renamed = if flags.ends_with(" 2") {
            "mirror/renamed-it"
        } else {
            "mirror/renamed/it"
        };
        for (repository, tag, name) in [
            (app, "1", "team/app:1"),
            (deep, "1", "a/b/c/deep:1"),
            (&pinned_at, &tag, "team/pinned:1"),
            (renamed, "stable", "team/pinned:1"),
        ] {
            assert_eq!(
                mirror.digest_of(repository, tag),
                Some(digest(&content, name)),
                "{flags}: {name} must be at {repository}:{tag}, among {:?}",
                mirror.server.repositories().names(None)
            );
        }
        // The resources lead to the same places, and `emit` writes the same.
        let written = far.tree("cluster-resources");
        assert!(!written.is_empty(), "resources are written");
        site.imgbuild(&format!(
            "emit --registry {}/mirror {flags} -o emitted",
            mirror.address()
        ))
        .done();
        assert_eq!(
            site.tree("emitted"),
            written,
            "{flags}: both sides write the same resources"
        );
        fs::remove_dir_all(site.path("emitted")).unwrap();
    }
}

#[test]
fn resources_are_rewritten_only_where_they_change() {
    let (_content, _upstream, site) = world();
    site.imgbuild("emit --registry mirror.test:5000/a -o r")
        .done()
        .says(&["wrote r/idms-oc-mirror.yaml", "wrote r/itms-oc-mirror.yaml"]);
    let idms = site.read("r/idms-oc-mirror.yaml");
    assert!(
        idms.contains("mirror.test:5000/a/team") && idms.contains("registry.example.test/team"),
        "{idms}"
    );
    site.write("r/mine.yaml", "mine");
    site.imgbuild("emit --registry mirror.test:5000/a -o r")
        .done()
        .says(&["r is as it was"]);
    site.imgbuild("emit --registry mirror.test:5000/b -o r")
        .done()
        .says(&["wrote r/idms-oc-mirror.yaml"]);
    assert_eq!(
        site.read("r/mine.yaml"),
        "mine",
        "what somebody else wrote stays"
    );
    site.imgbuild("emit --registry docker:// -o r")
        .ends(2)
        .hints(&["HOST[:PORT][/PREFIX]"]);
}

#[test]
fn a_choice_of_platforms_keeps_the_index_and_leaves_the_others_out() {
    let (content, upstream, _site) = world();
    let site = Connected::to(&upstream);
    site.config(&format!(
        "  additionalImages:
    - name: {UPSTREAM}/team/multi:1
      platforms:
        - os: linux
          architecture: amd64
        - os: linux
          architecture: arm64
"
    ));
    site.lock();
    assert!(
        site.lock_text()
            .contains("platforms = [\"linux/amd64\", \"linux/arm64\"]"),
        "{}",
        site.lock_text()
    );
    site.export("media", "");
    let mirror = Content::default().served();
    let far = Disconnected::with(&mirror.address());
    far.receives(&site, "media");
    far.imgbuild(&format!("import media --to docker://{}", mirror.address()))
        .done();
    let (image, below) = content
        .all()
        .into_iter()
        .find(|(image, _)| image.repository == "team/multi")
        .unwrap();
    assert_eq!(
        mirror.digest_of("team/multi", "1"),
        Some(image.descriptor.digest),
        "the index is what it was"
    );
    let children: Vec<bool> = below.manifests[..3]
        .iter()
        .map(|(child, _)| {
            mirror
                .digest_of("team/multi", &child.digest.to_string())
                .is_some()
        })
        .collect();
    assert_eq!(children, [true, true, false], "two of three are carried");
    // A platform that is not there.
    site.config(&format!(
        "  additionalImages:\n    - name: {UPSTREAM}/team/multi:1\n      platforms:\n        - os: linux\n          architecture: riscv64\n"
    ));
    site.imgbuild("lock")
        .ends(1)
        .says(&["team/multi", "linux/riscv64", "linux/amd64"]);
    // A registry that insists on every child says so.
    let Some(stock) = Stock::start(None) else {
        return;
    };
    let far = Disconnected::with(stock.address());
    far.receives(&site, "media");
    far.imgbuild(&format!("import media --to docker://{}", stock.address()))
        .ends(1)
        .says(&[
            "team/multi",
            "the registry does not take an index of which only some images are mirrored",
        ]);
    assert!(
        crate::site::wire::manifest(stock.address(), "team/multi", "1").is_none(),
        "no tag is moved"
    );
}

#[test]
fn a_destination_that_cannot_be_reached_or_written_is_named() {
    let (_content, _upstream, site) = world();
    let far = Disconnected::with("127.0.0.1:9");
    far.receives(&site, "media");
    far.imgbuild("import media --to docker://127.0.0.1:9/mirror")
        .ends(1)
        .says(&["127.0.0.1:9", "refused"])
        .hints(&[
            "a registry runs at 127.0.0.1:9",
            "run the same import again",
        ]);
    let read_only = Content::default().serve(imgbuild::registry::server::Options {
        read_only: true,
        ..Default::default()
    });
    let far = Disconnected::with(&read_only.address());
    far.receives(&site, "media");
    far.imgbuild(&format!(
        "import media --to docker://{}",
        read_only.address()
    ))
    .ends(1)
    .says(&["no tag was moved"]);
    assert!(far.heads().is_empty(), "nothing is adopted");
}
