//! Each way to go wrong, as a client meets it.

use std::collections::BTreeSet;

use super::*;

/// A registry where every request of `only` goes wrong like this, once for each path.
fn unlucky(fault: Fault, only: &[Kind]) -> Options {
    Options {
        faults: Some(Faults {
            seed: 1,
            per_mille: 1000,
            kinds: vec![fault],
            only: only.iter().copied().collect::<BTreeSet<_>>(),
            most_per_path: Some(1),
            ..Faults::default()
        }),
        ..Options::default()
    }
}

/// Downloads a blob twice from a registry where `fault` strikes downloads.
fn twice(fault: Fault) -> (io::Result<Heard>, Heard) {
    let site = Site::new(unlucky(fault, &[Kind::Blob]));
    let digest = site.push("a", BYTES);
    let path = format!("/v2/a/blobs/{digest}");
    let first = send(site.server.address(), "GET", &path, &[], b"");
    (first, site.get(&path))
}

const BYTES: &[u8] = b"0123456789";

/// Whether a fault shows in what was heard.
type Check = fn(&io::Result<Heard>) -> bool;

#[test]
fn a_fault_strikes_and_a_retry_succeeds() {
    let pause = Duration::from_millis(10);
    let cases: Vec<(Fault, Check)> = vec![
        (Fault::TooManyRequests { retry_after: 1 }, |heard| {
            heard
                .as_ref()
                .is_ok_and(|heard| heard.status == 429 && heard.header("retry-after") == "1")
        }),
        (Fault::Status(502), |heard| {
            heard.as_ref().is_ok_and(|heard| heard.status == 502)
        }),
        (Fault::Truncated, |heard| {
            heard.as_ref().is_ok_and(|heard| {
                heard.status == 200
                    && heard.header("content-length") == "10"
                    && heard.body == b"01234"
            })
        }),
        (Fault::Reset, Result::is_err),
        (Fault::LostAnswer, Result::is_err),
        (Fault::WrongBytes, |heard| {
            heard.as_ref().is_ok_and(|heard| {
                let differing = heard.body.iter().zip(BYTES).filter(|(a, b)| a != b);
                heard.is_whole() && differing.count() == 1
            })
        }),
        (
            Fault::Stall {
                pause,
                close: false,
            },
            |heard| heard.as_ref().is_ok_and(|heard| heard.body == BYTES),
        ),
        (Fault::Stall { pause, close: true }, |heard| {
            heard.as_ref().is_ok_and(|heard| heard.body == b"01234")
        }),
    ];
    for (fault, is_met) in cases {
        let (first, second) = twice(fault.clone());
        assert!(is_met(&first), "{fault:?} must show, but was: {first:?}");
        assert_eq!(second.body, BYTES, "{fault:?}: a retry succeeds");
    }
}

#[test]
fn a_lost_answer_is_lost_after_the_work() {
    let site = Site::new(unlucky(Fault::LostAnswer, &[Kind::Uploads]));
    let digest = Digest::of(b"blob");
    let path = format!("/v2/a/blobs/uploads/?digest={digest}");
    let heard = send(site.server.address(), "POST", &path, &[], b"blob");
    assert!(heard.is_err(), "the answer is lost");
    assert_eq!(
        site.get(&format!("/v2/a/blobs/{digest}")).status,
        200,
        "the work is done"
    );
    assert_eq!(
        site.server.requests()[0].status,
        0,
        "the journal says that there was no answer"
    );
}

#[test]
fn a_reset_is_before_the_work() {
    let site = Site::new(unlucky(Fault::Reset, &[Kind::Uploads]));
    let digest = Digest::of(b"blob");
    let path = format!("/v2/a/blobs/uploads/?digest={digest}");
    let error = send(site.server.address(), "POST", &path, &[], b"blob").unwrap_err();
    assert_eq!(
        error.kind(),
        io::ErrorKind::ConnectionReset,
        "the connection is reset, not closed"
    );
    assert_eq!(
        site.head(&format!("/v2/a/blobs/{digest}")).status,
        404,
        "nothing was done"
    );
}

#[test]
fn an_expired_token_is_renewed() {
    let site = Site::new(Options {
        tokens: Some(Tokens::default()),
        ..unlucky(Fault::ExpiredToken, &[Kind::Tags])
    });
    let token = || {
        let heard = site.get("/token?scope=repository:a:pull");
        bearer(heard.json()["token"].as_str().unwrap())
    };
    let (first, path) = (token(), "/v2/a/tags/list");
    let heard = site.ask("GET", path, &[("Authorization", &first)], b"");
    assert!(
        heard.status == 401 && heard.header("www-authenticate").contains("invalid_token"),
        "a good token is refused"
    );
    let heard = site.ask("GET", path, &[("Authorization", &first)], b"");
    assert_eq!(heard.status, 401, "and stays refused");
    let heard = site.ask("GET", path, &[("Authorization", &token())], b"");
    assert_eq!(heard.status, 404, "a new one is good");
}

#[test]
fn what_is_broken_stays_broken() {
    let lost = Digest::of(b"lost");
    let bent = Digest::of(BYTES);
    let manifest = image(BYTES);
    let site = Site::new(Options {
        faults: Some(Faults {
            broken: BTreeMap::from([
                (lost, Broken::Absent),
                (bent, Broken::WrongBytes),
                (Digest::of(&manifest), Broken::WrongBytes),
            ]),
            ..Faults::default()
        }),
        ..Options::default()
    });
    site.push("a", b"lost");
    site.image("a", "v1", BYTES);
    for _ in 0..2 {
        let path = format!("/v2/a/blobs/{lost}");
        assert_eq!(
            (site.get(&path).status, site.head(&path).status),
            (404, 404),
            "what is lost is lost"
        );
        let path = format!("/v2/a/blobs/{bent}");
        assert_eq!(
            site.get(&path).body,
            b"0123446789",
            "one byte is another, the same each time"
        );
        let part = site.ask("GET", &path, &[("Range", "bytes=4-6")], b"");
        assert_eq!(part.body, b"446", "in a part too");
        let part = site.ask("GET", &path, &[("Range", "bytes=6-")], b"");
        assert_eq!(part.body, b"6789", "but only in the part that has it");
        let found = site.get("/v2/a/manifests/v1");
        assert!(
            found.is_whole() && found.body != manifest,
            "a manifest can be broken as well, by tag too"
        );
    }
}

#[test]
fn downloads_are_redirected_where_asked() {
    let mirror = Site::plain();
    let site = Site::new(Options {
        redirect: Some(mirror.server.url()),
        ..Options::default()
    });
    let digest = mirror.push("a", BYTES);
    site.push("a", BYTES);
    let path = format!("/v2/a/blobs/{digest}");
    let heard = site.get(&path);
    assert_eq!(
        (heard.status, heard.header("location")),
        (307, format!("{}{path}", mirror.server.url()).as_str()),
        "a download is somewhere else"
    );
    assert_eq!(site.head(&path).status, 200, "a question is answered here");
    assert_eq!(mirror.get(&path).body, BYTES, "and there it is");
}

#[test]
fn a_patient_client_gets_through_a_bad_day() {
    let site = Site::new(Options {
        faults: Some(Faults {
            seed: 7,
            per_mille: 600,
            kinds: Fault::every()
                .into_iter()
                .filter(|fault| !matches!(fault, Fault::Stall { .. }))
                .collect(),
            most_per_path: Some(3),
            ..Faults::default()
        }),
        ..Options::default()
    });
    let mut struck = 0;
    let mut until = |method: &str, path: &str, body: &[u8], good: &dyn Fn(&Heard) -> bool| {
        for _ in 0..4 {
            let heard = send(site.server.address(), method, path, &[], body);
            if heard.is_ok_and(|heard| heard.is_whole() && good(&heard)) {
                return;
            }
            struck += 1;
        }
        panic!("{method} {path}: at most three faults were asked for");
    };
    for number in 0..40_u8 {
        let bytes = vec![number; 1000];
        let digest = Digest::of(&bytes);
        let repository = format!("a{number}");
        let push = format!("/v2/{repository}/blobs/uploads/?digest={digest}");
        until("POST", &push, &bytes, &|heard| heard.status == 201);
        let pull = format!("/v2/{repository}/blobs/{digest}");
        until("GET", &pull, b"", &|heard| heard.body == bytes);
    }
    assert!(struck > 20, "the day was bad: {struck} faults");
}
