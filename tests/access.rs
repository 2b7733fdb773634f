//! Who may, and whom to believe: passwords, tokens, certificates. Secrets are never shown.

use imgbuild::registry::server::{Htpasswd, Options, Tls, Tokens};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, KeyUsagePurpose};

use crate::site::content::Content;
use crate::site::{Connected, Disconnected, Site, UPSTREAM};

const SECRET: &str = "correct-horse-battery";

fn users() -> Htpasswd {
    // The least cost: it is the path that is tested, not the hash.
    format!("alice:{}\n", bcrypt::hash(SECRET, 4).unwrap())
        .parse()
        .unwrap()
}

/// A certificate authority of our own, and a certificate for loopback by it.
fn certificates() -> (String, Tls) {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let key = KeyPair::generate().unwrap();
    let authority = params.self_signed(&key).unwrap();
    let issuer = Issuer::new(params, key);
    let own = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(vec!["127.0.0.1".to_owned(), "localhost".to_owned()])
        .unwrap()
        .signed_by(&own, &issuer)
        .unwrap();
    let tls = Tls {
        certificate: certificate.pem().into_bytes(),
        key: own.serialize_pem().into_bytes(),
    };
    (authority.pem(), tls)
}

fn content() -> Content {
    let content = Content::default();
    content.image("team/app:1", &[(1, 1_000)]);
    content
}

#[test]
fn the_auth_file_opens_both_registries_and_a_wrong_password_is_not_shown() {
    for tokens in [None, Some(Tokens::default())] {
        let upstream = content().serve(Options {
            users: Some(users()),
            tokens: tokens.clone(),
            ..Options::default()
        });
        let near = Connected::to(&upstream);
        near.wants(["team/app:1"]);
        near.logs_in(&upstream.address(), "alice", "Tr0ub4dor");
        near.imgbuild("lock -vv --events events")
            .ends(1)
            .says(&["imageset.yaml:5", "denies access", "auth.json"])
            .hints(&["credentials are still valid"])
            .hides("Tr0ub4dor")
            .hides("QWxpY2U6");
        let events = near.read("events");
        assert!(
            !events.contains("Tr0ub4dor"),
            "no secret in the events: {events}"
        );
        near.logs_in(&upstream.address(), "alice", SECRET);
        near.imgbuild("lock -v").done().hides(SECRET);
        near.export("media", "-v").hides(SECRET);

        let mirror = Content::default().serve(Options {
            users: Some(users()),
            tokens,
            ..Options::default()
        });
        let far = Disconnected::with(&mirror.address());
        far.receives(&near, "media");
        let to = format!("import media --to docker://{}/mirror", mirror.address());
        far.imgbuild(&to)
            .ends(1)
            .says(&["denies access, no credentials are known"])
            .hints(&["podman login"]);
        far.logs_in(&mirror.address(), "alice", "Tr0ub4dor");
        far.imgbuild(&to)
            .ends(1)
            .says(&["denies access", "auth.json"])
            .hides("Tr0ub4dor");
        // Another file, by flag; the one of the environment stays wrong.
        let other = Site::new();
        other.logs_in(&mirror.address(), "alice", SECRET);
        far.imgbuild(&format!(
            "{to} --authfile {}",
            other.path("auth.json").display()
        ))
        .done()
        .says(&["adopted"])
        .hides(SECRET);
    }
}

#[test]
fn an_auth_file_that_is_missing_or_malformed_is_named() {
    let upstream = content().serve(Options {
        users: Some(users()),
        ..Options::default()
    });
    let near = Connected::to(&upstream);
    near.wants(["team/app:1"]);
    near.imgbuild("lock --authfile none.json")
        .ends(1)
        .says(&["none.json"]);
    near.write(
        "auth.json",
        format!(
            "{{\"auths\":{{\"{}\":{{\"auth\":\"{SECRET}\"}}}}",
            upstream.address()
        ),
    );
    near.imgbuild("lock")
        .ends(1)
        .says(&["auth.json"])
        .hides(SECRET);
    near.write(
        "auth.json",
        format!(
            "{{\"auths\":{{\"{}\":{{\"auth\":\"{SECRET}!!\"}}}}}}",
            upstream.address()
        ),
    );
    near.imgbuild("lock")
        .ends(1)
        .says(&["auth.json", &upstream.address()])
        .hides(SECRET);
}

#[test]
fn an_authority_of_our_own_is_believed_where_it_is_put() {
    let (authority, tls) = certificates();
    let upstream = content().serve(Options {
        tls: Some(tls.clone()),
        users: Some(users()),
        ..Options::default()
    });
    let address = upstream.address();
    let site = || {
        let near = Connected::at(&address);
        near.write("registries.conf", "");
        near.leads_over_tls(UPSTREAM, &address);
        near.wants(["team/app:1"]);
        near.logs_in(&address, "alice", SECRET);
        near
    };
    let near = site();
    near.imgbuild("lock")
        .ends(1)
        .says(&[
            &address,
            "its certificate is signed by an unknown authority",
        ])
        .hints(&["put the authority's certificate at", "ca.crt"]);
    near.write("ca.pem", &authority);
    near.imgbuild("lock --certs ca.pem").done();
    let near = site();
    near.write(format!("certs/{address}/ca.crt"), &authority);
    near.imgbuild("lock --certs certs").done();
    let near = site();
    near.write(
        format!(".config/containers/certs.d/{address}/ca.crt"),
        &authority,
    );
    near.lock();
    near.export("media", "");
    let near = site();
    near.imgbuild(&format!("lock --insecure {address}")).done();
    // The far side, over TLS as well; another authority does not do.
    let mirror = Content::default().serve(Options {
        tls: Some(tls),
        ..Options::default()
    });
    let far = Disconnected::new();
    let near = site();
    near.imgbuild(&format!("export -o media --insecure {address}"))
        .ends(3);
    near.imgbuild(&format!("lock --insecure {address}")).done();
    near.imgbuild(&format!("export -o media --insecure {address}"))
        .done();
    far.receives(&near, "media");
    let to = format!("import media --to docker://{}", mirror.address());
    far.imgbuild(&to)
        .ends(1)
        .says(&["signed by an unknown authority"])
        .hints(&["ca.crt"]);
    let (other, _) = certificates();
    far.write("ca.pem", other);
    far.imgbuild(&format!("{to} --certs ca.pem"))
        .ends(1)
        .says(&["signed by an unknown authority"]);
    far.write("ca.pem", authority);
    far.imgbuild(&format!("{to} --certs ca.pem")).done();
    far.write("ca.pem", "no certificate");
    far.imgbuild(&format!("{to} --certs ca.pem"))
        .ends(1)
        .says(&["ca.pem"]);
}

#[test]
fn a_registry_without_tls_is_not_taken_for_one_with_it() {
    let upstream = content().served();
    let near = Connected::at(&upstream.address());
    near.write("registries.conf", "");
    near.leads_over_tls(UPSTREAM, &upstream.address());
    near.wants(["team/app:1"]);
    near.imgbuild("lock")
        .ends(1)
        .says(&["it answers plain HTTP where TLS is expected"])
        .hints(&["insecure in registries.conf"]);
    near.imgbuild(&format!("lock --insecure {}", upstream.address()))
        .done();
}
