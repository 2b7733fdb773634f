//! Images that must be signed: found, pinned, carried, put beside the image, and verified on the far side.

use std::collections::BTreeMap;
use std::fs;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _,
};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use pgp::composed::ArmorOptions;

use imgbuild::demo::{Compression, Form, Member, Upstream, World, WorldError};
use imgbuild::digest::Digest;
use imgbuild::oci::{Descriptor, Platform};
use imgbuild::registry::cosign::{ARTIFACT, PAYLOAD};
use imgbuild::registry::server::Options;

use crate::site::content::Content;
use crate::site::release as releases;
use crate::site::{Connected, Disconnected, UPSTREAM};

/// A key pair of either kind.
enum Pair {
    Ecdsa(EcdsaKeyPair),
    Edwards(Ed25519KeyPair),
}

impl Pair {
    fn ecdsa() -> Self {
        Self::Ecdsa(EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).unwrap())
    }

    fn edwards() -> Self {
        Self::Edwards(Ed25519KeyPair::generate().unwrap())
    }

    fn public(&self) -> String {
        // What stands before the key in SubjectPublicKeyInfo (RFC 5480, RFC 8410).
        let (prefix, key) = match self {
            Self::Ecdsa(pair) => (
                "3059301306072a8648ce3d020106082a8648ce3d030107034200",
                pair.public_key().as_ref(),
            ),
            Self::Edwards(pair) => ("302a300506032b6570032100", pair.public_key().as_ref()),
        };
        let mut der: Vec<u8> = (0..prefix.len())
            .step_by(2)
            .map(|at| u8::from_str_radix(&prefix[at..at + 2], 16).unwrap())
            .collect();
        der.extend(key);
        format!(
            "-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n",
            STANDARD.encode(der)
        )
    }

    fn sign(&self, message: &[u8]) -> String {
        STANDARD.encode(match self {
            Self::Ecdsa(pair) => pair
                .sign(&SystemRandom::new(), message)
                .unwrap()
                .as_ref()
                .to_owned(),
            Self::Edwards(pair) => pair.sign(message).as_ref().to_owned(),
        })
    }
}

/// A payload as cosign writes it.
fn payload(name: &str, digest: &Digest) -> String {
    format!(
        r#"{{"critical":{{"identity":{{"docker-reference":"{name}"}},"image":{{"docker-manifest-digest":"{digest}"}},"type":"cosign container image signature"}},"optional":null}}"#
    )
}

/// Puts a signature image into a world: under the tag of cosign, or as a referrer.
fn attach(
    world: &mut World,
    repository: &str,
    image: &Descriptor,
    payload: &str,
    signature: String,
    as_referrer: bool,
) -> Result<Digest, WorldError> {
    let annotations =
        BTreeMap::from([("dev.cosignproject.cosign/signature".to_owned(), signature)]);
    let subject = as_referrer.then_some(image);
    let found = world.annotated(ARTIFACT, PAYLOAD, payload.as_bytes(), &annotations, subject)?;
    if as_referrer {
        world.attach(repository, &found)?;
    } else {
        let tag = format!("sha256-{}.sig", image.digest.hex());
        world.tag(repository, &tag, &found)?;
    }
    Ok(found.digest)
}

fn world(repositories: &[&str]) -> World {
    let mut world = World::new(3);
    let platform = Platform {
        os: "linux".to_owned(),
        architecture: "amd64".to_owned(),
        variant: None,
        os_version: None,
    };
    for repository in repositories {
        let layer = world
            .layer(&[Member::file("app", *repository)], Compression::Gzip)
            .unwrap();
        let image = world
            .image(Form::Oci, &platform, &[layer], &BTreeMap::new())
            .unwrap();
        world.tag(repository, "1", &image).unwrap();
    }
    world
}

/// Signs `team/app:1` in a world.
fn signed(pair: &Pair, as_referrer: bool) -> (World, Digest, Digest) {
    let mut world = world(&["team/app", "other/app"]);
    let image = world.at("team/app", "1").unwrap().clone();
    let text = payload(&format!("{UPSTREAM}/team/app"), &image.digest);
    let signature = pair.sign(text.as_bytes());
    let found = attach(
        &mut world,
        "team/app",
        &image,
        &text,
        signature,
        as_referrer,
    )
    .unwrap();
    (world, image.digest, found)
}

fn require(site: &Connected, more: &str) {
    site.write(
        "imgbuild.toml",
        format!("[signatures.\"{UPSTREAM}/team\"]\nkeys = [\"cosign.pub\"]\n{more}"),
    );
}

#[test]
fn a_signature_is_pinned_with_its_image_and_goes_all_the_way() {
    for (pair, as_referrer) in [
        (Pair::ecdsa(), false),
        (Pair::edwards(), false),
        (Pair::ecdsa(), true),
    ] {
        let (world, image, signature) = signed(&pair, as_referrer);
        let upstream = Upstream::start(world, Options::default()).unwrap();
        let near = Connected::at(&upstream.host());
        near.wants(["team/app:1", "other/app:1"]);
        near.write("cosign.pub", pair.public());
        require(
            &near,
            if as_referrer {
                "referrers = true\n"
            } else {
                ""
            },
        );
        near.lock();
        let text = near.lock_text();
        let from = if as_referrer { "referrer" } else { "cosign" };
        assert!(
            text.contains(&format!(
                "signatures = [{{ digest = \"{signature}\", size ="
            )) && text.contains(&format!("from = \"{from}\" }}]")),
            "the signature is pinned:\n{text}"
        );
        let key = Digest::of(pair.public().as_bytes());
        assert!(
            text.contains(&format!("keys = [\"{key}\"]")) && text.contains("[[file]]"),
            "the key is named and travels:\n{text}"
        );
        assert_eq!(
            text.matches("signed = [").count(),
            1,
            "other scopes demand nothing:\n{text}"
        );
        near.imgbuild("lock").done().says(&["nothing changed"]);
        near.imgbuild("lock --check").done();
        near.imgbuild("build").done();
        near.imgbuild("audit").done().says(&["\nsound\n"]);
        near.export("out", "");

        let mirror = Content::default().served();
        let far = Disconnected::with(&mirror.address());
        far.receives(&near, "out");
        let address = mirror.address();
        far.imgbuild(&format!("import out --to docker://{address}/m"))
            .done();
        let tag = if as_referrer {
            format!("sha256-{}.{}", image.hex(), &signature.hex()[..12])
        } else {
            format!("sha256-{}.sig", image.hex())
        };
        far.write("near.lock.toml", near.lock_text());
        far.imgbuild(&format!(
            "verify --registry {address}/m --lock near.lock.toml"
        ))
        .done();
        assert_eq!(
            mirror.digest_of("m/team/app", &tag),
            Some(signature),
            "the signature lies beside its image, as {tag}"
        );
        // An audit wants every byte, and what went to a mirror is not stored.
        let store = Disconnected::new();
        store.receives(&near, "out");
        store.imgbuild("import out").done();
        store
            .imgbuild("audit --lock imageset#1")
            .done()
            .says(&["\nsound\n", &tag]);
        // What clusters are told is about images.
        far.imgbuild("emit --registry mirror.test/m --lock near.lock.toml -o resources")
            .done();
        assert!(!far.names("resources").is_empty(), "there are resources");
        for name in far.names("resources") {
            assert!(
                !far.read(format!("resources/{name}")).contains("sha256-"),
                "signatures are in no mirror set: {name}"
            );
        }
    }
}

#[test]
fn a_signature_that_proves_nothing_stops_the_lock_and_names_why() {
    let pair = Pair::ecdsa();
    let stranger = Pair::ecdsa();
    let name = format!("{UPSTREAM}/team/app");
    type Signing<'a> = &'a dyn Fn(&Digest) -> (String, String);
    let cases: [(&str, Option<Signing<'_>>, &str); 5] = [
        ("missing", None, "it has no signature"),
        (
            "another key",
            Some(&|digest| {
                let text = payload(&name, digest);
                let signature = stranger.sign(text.as_bytes());
                (text, signature)
            }),
            "by none of the keys",
        ),
        (
            "tampered",
            Some(&|digest| {
                let text = payload(&name, digest);
                let signature = pair.sign(text.as_bytes());
                (text.replace("null", "{}"), signature)
            }),
            "by none of the keys",
        ),
        (
            "another image",
            Some(&|_| {
                let text = payload(&name, &Digest::of(b"another"));
                let signature = pair.sign(text.as_bytes());
                (text, signature)
            }),
            "it is of sha256:",
        ),
        (
            "another identity",
            Some(&|digest| {
                let text = payload(&format!("{UPSTREAM}/team/other"), digest);
                let signature = pair.sign(text.as_bytes());
                (text, signature)
            }),
            "which is another identity",
        ),
    ];
    for (what, signing, says) in cases {
        let mut world = world(&["team/app"]);
        let image = world.at("team/app", "1").unwrap().clone();
        if let Some(signing) = signing {
            let (text, signature) = signing(&image.digest);
            attach(&mut world, "team/app", &image, &text, signature, false).unwrap();
        }
        let upstream = Upstream::start(world, Options::default()).unwrap();
        let site = Connected::at(&upstream.host());
        site.wants(["team/app:1"]);
        site.write("cosign.pub", pair.public());
        require(&site, "");
        site.imgbuild("lock").ends(4).says(&[
            "imageset.yaml:5:",
            &format!("{name}@{}", image.digest),
            says,
            &format!("signatures: require for {UPSTREAM}/team"),
        ]);
        assert!(
            site.names("lockfiles").is_empty(),
            "nothing is written: {what}"
        );
        // Where it is a wish alone, it is said, and what proves nothing stays behind.
        require(&site, "policy = \"warn\"\n");
        site.lock().says(&["note: ", says]);
        assert!(
            !site.lock_text().contains("signatures = ["),
            "{what} is not carried:\n{}",
            site.lock_text()
        );
    }
}

#[test]
fn what_was_tampered_with_on_the_way_is_found_on_the_far_side() {
    let pair = Pair::edwards();
    let (world, _, signature) = signed(&pair, false);
    let upstream = Upstream::start(world, Options::default()).unwrap();
    let site = Connected::at(&upstream.host());
    site.wants(["team/app:1"]);
    site.write("cosign.pub", pair.public());
    require(&site, "");
    site.lock();
    site.imgbuild("build").done();
    let lock = site.lock_text();
    // A lock without the signature, and one that names another as its own.
    for (changed, says) in [
        (
            lock.split_inclusive('\n')
                .filter(|line| !line.starts_with("signatures = "))
                .collect::<String>(),
            "it has no signature",
        ),
        (
            lock.replace("from = \"cosign\"", "from = \"referrer\"")
                .replace(&signature.to_string(), &image_of(&lock)),
            "no signature of it counts",
        ),
    ] {
        assert_ne!(changed, lock, "it was changed");
        site.write("lockfiles/imageset.lock.toml", &changed);
        site.imgbuild("audit")
            .ends(4)
            .says(&["finding signature ", says]);
    }
    site.write("lockfiles/imageset.lock.toml", &lock);
    site.imgbuild("audit").done();
    let payload = fs::read_dir(site.path("store/blobs/sha256"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|path| fs::read(path).is_ok_and(|bytes| bytes.starts_with(b"{\"critical\"")))
        .expect("the payload is in the store");
    fs::remove_file(&payload).unwrap();
    site.imgbuild("audit").ends(4).says(&["finding signature "]);
}

/// The digest of the first image in a lock.
fn image_of(lock: &str) -> String {
    let at = lock.find("\nimage = ").unwrap();
    let start = at + lock[at..].find("sha256:").unwrap();
    lock[start..start + 71].to_owned()
}

#[test]
fn a_policy_of_the_container_tools_counts_where_the_settings_say_so() {
    let pair = Pair::ecdsa();
    let (world, _, signature) = signed(&pair, false);
    let upstream = Upstream::start(world, Options::default()).unwrap();
    let site = Connected::at(&upstream.host());
    site.wants(["team/app:1", "other/app:1"]);
    site.write("cosign.pub", pair.public());
    let key = site.path("cosign.pub").display().to_string();
    let policy = |default: &str, other: &str| {
        format!(
            r#"{{"default":[{{"type":"{default}"}}],"transports":{{"docker":{{
                "{UPSTREAM}/team":[{{"type":"sigstoreSigned","keyPath":"{key}","signedIdentity":{{"type":"matchRepository"}}}}]{other}}}}}}}"#
        )
    };
    let settings =
        "[policy]\ncontainers-policy = \"policy.json\"\nregistries-d = \"registries.d\"\n";
    site.write(
        "registries.d/a.yaml",
        "default-docker:\n  use-sigstore-attachments: true\n",
    );

    // Nothing counts before the settings say so.
    site.write("policy.json", policy("reject", ""));
    site.lock().hides("note: ");
    site.write("imgbuild.toml", settings);
    site.imgbuild("lock --check").ends(3);
    site.imgbuild("lock").ends(4).says(&[
        &format!("{UPSTREAM}/other/app@sha256:"),
        "nothing of this scope may be mirrored (signatures: reject for everything)",
    ]);
    site.write("policy.json", policy("insecureAcceptAnything", ""));
    site.lock().hides("registries.d does not say");
    assert!(
        site.lock_text().contains(&signature.to_string()),
        "the signature that the policy demands is pinned:\n{}",
        site.lock_text()
    );
    // The name with its tag is the more precise scope.
    site.write(
        "policy.json",
        policy(
            "insecureAcceptAnything",
            &format!(",\"{UPSTREAM}/team/app:1\":[{{\"type\":\"reject\"}}]"),
        ),
    );
    site.imgbuild("lock")
        .ends(4)
        .says(&[&format!("reject for {UPSTREAM}/team/app:1")]);
    // The settings replace a scope of it.
    site.write(
        "imgbuild.toml",
        format!("[signatures.\"{UPSTREAM}/team/app:1\"]\npolicy = \"skip\"\n{settings}"),
    );
    site.lock();
    // An identity that is not matched, as the container tools do not match a name without its tag.
    site.write("imgbuild.toml", settings);
    site.write(
        "policy.json",
        policy("insecureAcceptAnything", "").replace("matchRepository", "matchExact"),
    );
    site.imgbuild("lock").ends(4).says(&["another identity"]);
    for (text, says) in [
        (
            r#"{"default":[{"type":"sigstoreSigned","fulcio":{}}]}"#,
            "\"fulcio\"",
        ),
        ("[", "is no signature policy"),
    ] {
        site.write("policy.json", text);
        site.imgbuild("lock").ends(1).says(&["policy.json", says]);
    }
    fs::remove_file(site.path("policy.json")).unwrap();
    site.imgbuild("lock")
        .ends(1)
        .says(&["there is no policy.json at"]);
}

#[test]
fn a_signature_from_a_lookaside_is_pinned_where_a_policy_demands_it() {
    let upstream = Upstream::start(world(&["team/app"]), Options::default()).unwrap();
    let image = upstream.world().at("team/app", "1").unwrap().digest;
    let site = Connected::at(&upstream.host());
    site.wants(["team/app:1"]);
    let key = releases::key("vendor");
    let public = key
        .to_public_key()
        .to_armored_string(ArmorOptions::default())
        .unwrap();
    let data = STANDARD.encode(public);
    site.write(
        "policy.json",
        format!(r#"{{"default":[{{"type":"signedBy","keyType":"GPGKeys","keyData":"{data}"}}]}}"#),
    );
    site.write(
        "imgbuild.toml",
        "[policy]\ncontainers-policy = \"policy.json\"\nregistries-d = \"registries.d\"\n",
    );
    site.imgbuild("lock")
        .ends(4)
        .says(&["registries.d names no lookaside"]);
    site.write(
        "registries.d/a.yaml",
        format!(
            "docker:\n  {UPSTREAM}:\n    lookaside: file://{}\n",
            site.path("aside").display()
        ),
    );
    site.imgbuild("lock").ends(4).says(&["it has no signature"]);
    let place = format!("aside/team/app@sha256={}/signature-1", image.hex());
    let name = format!("{UPSTREAM}/team/app:1");
    let other = releases::key("other");
    for (bytes, says) in [
        (b"none".to_vec(), "no signature of it counts: file://"),
        (
            releases::signature(&other, &image, &name),
            "no signature of it counts: file://",
        ),
        (
            releases::signature(&key, &image, &format!("{UPSTREAM}/team/app:2")),
            "another identity",
        ),
    ] {
        site.write(&place, bytes);
        site.imgbuild("lock").ends(4).says(&[says]);
    }
    let good = releases::signature(&key, &image, &name);
    site.write(&place, &good);
    site.lock();
    assert!(
        site.lock_text().contains(&Digest::of(&good).to_string()),
        "the signature is pinned:\n{}",
        site.lock_text()
    );
    site.imgbuild("lock --check").done();
    site.export("out", "");
    // It is carried, and verified where nobody has heard of the policy.
    let far = Disconnected::new();
    far.receives(&site, "out");
    far.imgbuild("import out").done();
    far.imgbuild("audit --lock imageset#1")
        .done()
        .says(&["\nsound\n"]);
    fs::remove_file(far.path("store/blobs/sha256").join(Digest::of(&good).hex())).unwrap();
    far.imgbuild("audit --lock imageset#1")
        .ends(4)
        .says(&["finding signature "]);
}

#[test]
fn settings_of_signatures_that_cannot_be_meant_are_refused() {
    let site = Connected::at("127.0.0.1:1");
    site.wants(["team/app:1"]);
    for (settings, says) in [
        (
            "[signatures.\"a.test\"]\n",
            "there is no key to verify them with",
        ),
        (
            "[signatures.\"a.test\"]\nkeys = [\"absent.pub\"]\n",
            "absent.pub",
        ),
        (
            "[signatures.\"a.test\"]\nkeys = [\"imageset.yaml\"]\n",
            "has no public key",
        ),
        (
            "[policy]\ncontainers-policy = 3\n",
            "true, false or the path of a file",
        ),
        ("[policy]\nregistries-d = \"\"\n", "the path of a folder"),
    ] {
        site.write("imgbuild.toml", settings);
        site.imgbuild("lock").ends(1).says(&[says]);
    }
}
