//! The chapter on releases: a small product that comes as OpenShift does, locked from a channel, verified, carried over,
//! and carried again when a new one is out.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::{Asked, Failure};
use super::{MIRROR, PREFIX, Registry, Story, UPSTREAM, prove, world_failure};
use crate::demo::{Product, Release, Signer, World, graph};
use crate::openshift::release::{Architecture, GRAPH_URL, saved_graph_name};
use crate::openshift::signature::store::{RED_HAT_STORES, path as signature_path};

/// The channel that the releases are in.
const CHANNEL: &str = "stable-1.4";

const PRODUCT: Product<'static> = Product {
    host: UPSTREAM,
    payloads: "suite/release",
    components: "suite/parts",
};

/// What the product is made of. The second release changes some.
const PARTS: [&str; 12] = [
    "api",
    "auth",
    "cache",
    "console",
    "dns",
    "events",
    "gateway",
    "installer",
    "metrics",
    "queue",
    "storage",
    "web",
];

/// Tells it.
pub(super) fn tell(
    story: &Story<'_>,
    world: &mut World,
    upstream: &Registry,
    mirror: &Registry,
) -> Result<(), Failure> {
    story.chapter("6. A product in releases: channel, payload, signature, updates");
    let signer = Signer::new("Suite Releases <releases@example.test>");
    let first = make(world, "1.4.0", &[], &BTreeMap::new())?;
    serve(
        story,
        world,
        upstream,
        &signer,
        std::slice::from_ref(&first),
    )?;
    configure(story, &signer)?;
    story.remark(
        "its update graph and its signatures are in services/, as the services would give them",
    );
    story.enter("connected");
    story.imgbuild("connected", &["list", "releases", "--channel", CHANNEL])?;
    let product = ["-c", "product.yaml"];
    let with =
        |command: &'static str, more: &[&'static str]| [&[command][..], &product, more].concat();
    story.imgbuild("connected", &with("lock", &[]))?;
    story.imgbuild(
        "connected",
        &with("export", &["-o", "../transfer/product-1"]),
    )?;

    story.remark("a new release is out: one component of twelve has changed");
    let changed = BTreeMap::from([("web", 2)]);
    let second = make(world, "1.4.1", &["1.4.0"], &changed)?;
    let both = [first, second];
    serve(story, world, upstream, &signer, &both)?;
    let lock = "lockfiles/product.lock.toml";
    story.command(&format!("cp {lock} before.product.toml"));
    let (from, to) = (
        story.path("connected").join(lock),
        story.path("connected/before.product.toml"),
    );
    std::fs::copy(&from, &to).map_err(|error| super::cannot("copy", &from, &error))?;
    story.imgbuild("connected", &with("lock", &["--update", "release"]))?;
    story.imgbuild("connected", &["diff", "before.product.toml", lock])?;
    story.imgbuild(
        "connected",
        &with("export", &["-o", "../transfer/product-2"]),
    )?;

    story.enter("disconnected");
    let to = format!("docker://{}/{PREFIX}", mirror.host());
    for archive in ["../transfer/product-1", "../transfer/product-2"] {
        story.imgbuild(
            "disconnected",
            &["import", archive, "--to", &to, "-o", "product-resources"],
        )?;
    }
    story.remark("the signature that the cluster verifies the payload with came along");
    story.enter("connected");
    let registry = format!("{MIRROR}/{PREFIX}");
    story.imgbuild(
        "connected",
        &[
            &["emit", "--registry", registry.as_str()][..],
            &product,
            &["-o", "product-resources"],
        ]
        .concat(),
    )?;
    let asked: Vec<Asked> = both[1]
        .digests()
        .enumerate()
        .map(|(index, digest)| {
            let (path, target) = if index == 0 {
                (PRODUCT.payloads, "openshift/release-images")
            } else {
                (PRODUCT.components, "openshift/release")
            };
            Asked {
                path,
                target,
                platforms: Vec::new(),
                digest,
            }
        })
        .collect();
    prove(story, &mirror.host(), &asked)
}

/// Makes a release; components that are not said to have changed are as they were at first.
fn make(
    world: &mut World,
    version: &str,
    previous: &[&str],
    changed: &BTreeMap<&str, u32>,
) -> Result<Release, Failure> {
    let parts = PARTS.map(|name| (name, changed.get(name).copied().unwrap_or(1)));
    PRODUCT
        .release(world, version, previous, &parts)
        .map_err(|error| world_failure(&error))
}

/// Publishes releases, their graph and their signatures.
fn serve(
    story: &Story<'_>,
    world: &World,
    upstream: &Registry,
    signer: &Signer,
    releases: &[Release],
) -> Result<(), Failure> {
    upstream.publish(world)?;
    let name = saved_graph_name(CHANNEL, Architecture::Amd64);
    story.write(&format!("services/graph/{name}"), graph(CHANNEL, releases))?;
    for release in releases {
        let path = signature_path(&release.payload.digest, 1);
        story.write(
            &format!("services/signatures/{path}"),
            PRODUCT.signature(release, signer),
        )?;
    }
    Ok(())
}

/// Writes what is asked for, and where the services are.
fn configure(story: &Story<'_>, signer: &Signer) -> Result<(), Failure> {
    story.write("connected/suite.asc", signer.public_key())?;
    story.write(
        "connected/product.yaml",
        format!("apiVersion: mirror.openshift.io/v2alpha1\nkind: ImageSetConfiguration\nmirror:\n  platform:\n    channels:\n      # Its newest release.\n      - name: {CHANNEL}\n"),
    )?;
    let mut settings = String::from(
        "# Content is kept here, not in the user's data directory.\nstore = \"store\"\n\n# The update service and the store of signatures, which are folders in this story.\n",
    );
    let stores = RED_HAT_STORES.map(|store| (store, "../services/signatures"));
    for (url, location) in [(GRAPH_URL, "../services/graph")].into_iter().chain(stores) {
        let _ = writeln!(settings, "[url.\"{url}\"]\nlocation = \"{location}\"\n");
    }
    settings += "# Whose signatures count, instead of Red Hat's.\n[signatures.release]\nkeys = [\"suite.asc\"]\n";
    story.write("connected/imgbuild.toml", settings)
}
