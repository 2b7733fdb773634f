//! The same input gives the same bytes, and other tools agree about them.

use std::collections::BTreeMap;
use std::fs;

use imgbuild::digest::Digest;

use crate::site::content::{Content, many};
use crate::site::{Connected, Disconnected};

#[test]
fn lock_and_export_give_the_same_bytes_in_two_places_with_one_job_and_with_sixteen() {
    let content = Content::default();
    many(&content, 24, 9_000);
    let upstream = content.served();
    let sites: Vec<Connected> = [1, 16]
        .into_iter()
        .map(|jobs| {
            let site = Connected::to(&upstream);
            site.wants(content.names());
            site.imgbuild(&format!("lock --jobs {jobs}")).done();
            site.imgbuild(&format!("export -o media --part-size 150kB --jobs {jobs}"))
                .done()
                .says(&["imageset seq 1"]);
            site
        })
        .collect();
    for folder in ["lockfiles", "media"] {
        let (one, sixteen) = (sites[0].tree(folder), sites[1].tree(folder));
        assert!(
            one.len() >= 2,
            "{folder} must have files to compare: {one:?}"
        );
        assert_eq!(
            one, sixteen,
            "{folder} must not depend on place or number of jobs"
        );
    }
    let parts = sites[0].names("media");
    assert!(
        parts.len() > 4,
        "the archive must have several parts: {parts:?}"
    );
    // A third time in the same place, over what is there: nothing changes.
    let before = sites[0].tree("media");
    sites[0].export("media", "--seq 1");
    assert_eq!(
        before,
        sites[0].tree("media"),
        "an archive written again is the same"
    );
}

#[test]
fn gnu_tar_sha256sum_and_skopeo_agree_with_verify() {
    let content = Content::default();
    many(&content, 12, 20_000);
    let upstream = content.served();
    let site = Connected::to(&upstream);
    site.wants(content.names());
    site.lock();
    site.export("media", "--part-size 200kB");
    let report = site.imgbuild("verify media --format json").done().json();
    let mut said = BTreeMap::new();
    for part in report["archives"][0]["parts"].as_array().unwrap() {
        said.insert(
            part["name"].as_str().unwrap().to_owned(),
            part["sha256"].as_str().unwrap().to_owned(),
        );
    }
    let files: Vec<String> = site
        .names("media")
        .into_iter()
        .filter(|name| name.ends_with(".tar"))
        .collect();
    assert_eq!(
        files,
        said.keys().cloned().collect::<Vec<_>>(),
        "verify speaks of every part"
    );
    fs::create_dir(site.path("tree")).unwrap();
    for name in &files {
        let digest = Digest::of(&fs::read(site.path("media").join(name)).unwrap());
        assert!(
            digest.to_string().ends_with(&said[name]) || said[name] == digest.hex(),
            "verify must say the digest of {name}"
        );
        if let Some(run) = site.other(&format!("tar -C tree -xf media/{name}")) {
            let run = run.done();
            assert!(
                run.stderr.is_empty(),
                "tar must have nothing to remark\n{}",
                run.story()
            );
        }
    }
    let check = "sha256sum --strict -c imageset_seq000001.sha256";
    let mut command = site.tool("sh");
    command.args(["-c", &format!("cd media && {check}")]);
    let output = command.output().unwrap();
    assert!(
        output.status.success(),
        "sha256sum must agree: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    // Spans, if there are any, are put together by hand as the format says.
    let spans = site.tree("tree/imgbuild/spans");
    assert!(spans.is_empty(), "no blob is larger than a part here");
    let blobs = site.tree("tree/blobs/sha256");
    let wanted = content.all().iter().fold(0, |sum, (_, below)| {
        sum + below.manifests.len() + below.blobs.len()
    });
    assert!(
        !blobs.is_empty() && blobs.len() < wanted,
        "shared blobs are carried once"
    );
    for (name, digest) in &blobs {
        assert_eq!(*name, digest.hex(), "the path of a blob is its digest");
    }
    let image = &content.images()[0];
    let layout = format!("oci:tree:{}/{}", crate::site::UPSTREAM, image.name());
    if let Some(run) = site.other(&format!("skopeo --insecure-policy inspect --raw {layout}")) {
        let run = run.done();
        assert_eq!(
            Digest::of(run.stdout.as_bytes()),
            image.descriptor.digest,
            "the extracted tree is a layout that skopeo reads"
        );
        site.other(&format!(
            "skopeo --insecure-policy copy {layout} oci:copied:x"
        ))
        .unwrap()
        .done();
    }
    // And they agree about damage.
    let name = &files[1];
    let path = site.path("media").join(name);
    let mut bytes = fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&path, bytes).unwrap();
    assert!(
        !command.output().unwrap().status.success(),
        "sha256sum must see the damage"
    );
    site.imgbuild("verify media").ends(4).says(&[name]);
    site.imgbuild("verify --quick media").ends(4).says(&[name]);
}

#[test]
fn a_blob_larger_than_a_part_is_cut_and_joined_again() {
    let content = Content::default();
    content.image("big/blob:1", &[(1, 700_000), (2, 100)]);
    let upstream = content.served();
    let site = Connected::to(&upstream);
    site.wants(["big/blob:1"]);
    site.lock();
    site.export("media", "--part-size 200kB");
    for name in site.names("media") {
        let size = fs::metadata(site.path("media").join(&name)).unwrap().len();
        assert!(
            size <= 200_000,
            "{name} has {size} bytes, more than a part may"
        );
    }
    site.imgbuild("verify media").done();
    let far = Disconnected::new();
    far.receives(&site, "media");
    far.imgbuild("import media").done().says(&["adopted"]);
    far.has_a_sound_store();
    // By hand, as the format says.
    fs::create_dir(site.path("tree")).unwrap();
    for name in site.names("media") {
        if name.ends_with(".tar") {
            site.other(&format!("tar -C tree -xf media/{name}"))
                .unwrap()
                .done();
        }
    }
    let spans = site.names("tree/imgbuild/spans");
    assert!(spans.len() >= 4, "the blob must be in spans: {spans:?}");
    let joined: Vec<u8> = spans
        .iter()
        .flat_map(|name| fs::read(site.path("tree/imgbuild/spans").join(name)).unwrap())
        .collect();
    assert!(
        spans
            .iter()
            .all(|name| name.starts_with(&Digest::of(&joined).hex())),
        "spans joined in order are the blob that they are named by"
    );
}
