//! The whole way between two stock registries: Debian's docker-registry on either side of the gap.

use std::collections::BTreeSet;
use std::path::Path;

use imgbuild::digest::Digest;

use crate::site::content::{Content, many};
use crate::site::stock::Stock;
use crate::site::{Connected, Disconnected, wire};

/// Real layouts: what other projects test with. Answers how many images came of it.
fn real(content: &Content) -> usize {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/data/images");
    let mut count = 0;
    for (layout, repository) in [
        (
            "regclient+regclient/testdata/testrepo",
            "regclient/testrepo",
        ),
        (
            "google+go-containerregistry/pkg/v1/layout/testdata/test_index",
            "ggcr/index",
        ),
        (
            "google+go-containerregistry/pkg/v1/layout/testdata/test_gc_index",
            "ggcr/gc-index",
        ),
        (
            "google+go-containerregistry/pkg/v1/layout/testdata/test_index_one_image",
            "ggcr/one-image",
        ),
        (
            "google+go-containerregistry/pkg/v1/layout/testdata/test_index_media_type",
            "ggcr/media-type",
        ),
    ] {
        count += content.layout(&data.join(layout), repository);
    }
    if count == 0 {
        eprintln!(
            "skipped: the real images, because {} is not there",
            data.display()
        );
    }
    count
}

#[test]
fn a_stock_registry_is_carried_into_another_digest_for_digest() {
    let content = Content::default();
    let real = real(&content);
    many(&content, 204, 2_500);
    let images = content.all();
    assert!(images.len() >= 200 + real, "{} images", images.len());
    let Some(upstream) = Stock::start(Some(&content)) else {
        return;
    };
    let mirror = Stock::start(None).expect("it is installed");
    let near = Connected::at(upstream.address());
    near.wants(content.names());
    near.lock();
    near.export("media", "--part-size 400kB");
    near.imgbuild("verify media").done();

    let far = Disconnected::with(mirror.address());
    far.receives(&near, "media");
    let to = format!("import media --to docker://{}/mirror", mirror.address());
    far.imgbuild(&to).done().says(&["imageset seq 1: adopted"]);

    let mut blobs = BTreeSet::new();
    for (image, below) in &images {
        let repository = format!("mirror/{}", image.repository);
        let served = wire::manifest(mirror.address(), &repository, &image.tag)
            .unwrap_or_else(|| panic!("{} must be served", image.name()));
        assert_eq!(
            Digest::of(&served),
            image.descriptor.digest,
            "{} must be what it was",
            image.name()
        );
        for (blob, _) in &below.manifests {
            let served = wire::manifest(mirror.address(), &repository, &blob.digest.to_string());
            assert_eq!(
                served.map(|bytes| Digest::of(&bytes)),
                Some(blob.digest),
                "every manifest below {} must be served",
                image.name()
            );
        }
        for blob in &below.blobs {
            if blobs.insert((repository.clone(), *blob)) {
                assert_eq!(
                    wire::blob_size(mirror.address(), &repository, &blob.digest.to_string()),
                    Some(blob.size),
                    "every blob below {} must be served",
                    image.name()
                );
            }
        }
    }
    for (image, below) in images.iter().step_by(images.len() / 6) {
        let name = format!("docker://{}/mirror/{}", mirror.address(), image.name());
        let Some(run) = far.other(&format!(
            "skopeo --insecure-policy inspect --raw --tls-verify=false {name}"
        )) else {
            break;
        };
        let run = run.done();
        assert_eq!(
            Digest::of(run.stdout.as_bytes()),
            image.descriptor.digest,
            "skopeo must see the same manifest"
        );
        let layers = below.blobs.len();
        far.other(&format!(
            "skopeo --insecure-policy copy --all --src-tls-verify=false {name} oci:copied:x"
        ))
        .unwrap()
        .done();
        assert!(
            far.names("copied/blobs/sha256").len() >= layers,
            "skopeo must copy every blob"
        );
        std::fs::remove_dir_all(far.path("copied")).unwrap();
    }

    // Again, on both sides: nothing changes.
    let (lock, media, links) = (near.lock_text(), near.tree("media"), mirror.links());
    near.imgbuild("lock").done().says(&["nothing changed"]);
    near.imgbuild("export -o second")
        .done()
        .says(&["nothing to carry: imageset seq 1 has this lock"]);
    assert!(near.names("second").is_empty(), "no archive is written");
    assert_eq!(
        (near.lock_text(), near.tree("media")),
        (lock, media),
        "nothing changed here"
    );
    far.imgbuild(&to)
        .done()
        .says(&["imageset seq 1: was adopted before", "0 blobs sent"]);
    assert_eq!(mirror.links(), links, "nothing changed there");
}
