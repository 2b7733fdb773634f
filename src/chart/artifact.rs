//! A chart in a registry: the OCI image that `helm push` makes of a chart file.
//!
//! ```text
//! manifest (application/vnd.oci.image.manifest.v1+json)
//! ├── config  application/vnd.cncf.helm.config.v1+json                  Chart.yaml as JSON
//! └── layer   application/vnd.cncf.helm.chart.content.v1.tar+gzip       the file
//! ```
//!
//! Unlike Helm, no annotation says when it was made: the same file gives the same image every time. The image formats
//! are those of Helm's `HIP-6` and the OCI image specification.

use serde_json::{Map, Value as Json, json};

use super::load::{Chart, Dependency, Metadata};
use crate::digest::Digest;
use crate::oci::{Image, OCI_MANIFEST};

/// The media type of the config of a chart.
pub const CONFIG: &str = "application/vnd.cncf.helm.config.v1+json";

/// The media type of the layer that is the chart's file.
pub const CONTENT: &str = "application/vnd.cncf.helm.chart.content.v1.tar+gzip";

/// What older versions of Helm called it.
const OLD_CONTENT: &str = "application/tar+gzip";

/// The image of a chart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Artifact {
    /// Its config.
    pub config: Vec<u8>,
    /// Its manifest.
    pub manifest: Vec<u8>,
}

/// The image of a chart whose file has this digest and size.
#[must_use]
pub fn artifact(chart: &Chart, file: Digest, size: u64) -> Artifact {
    let metadata = chart.metadata();
    let config = config(metadata).to_string().into_bytes();
    let mut annotations = Map::new();
    for (key, value) in [
        ("description", &metadata.description),
        ("title", &metadata.name),
        ("url", &metadata.home),
        ("version", &metadata.version),
    ] {
        if !value.is_empty() {
            annotations.insert(
                format!("org.opencontainers.image.{key}"),
                value.as_str().into(),
            );
        }
    }
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": { "mediaType": CONFIG, "digest": Digest::of(&config), "size": config.len() },
        "layers": [{ "mediaType": CONTENT, "digest": file, "size": size }],
        "annotations": annotations,
    });
    Artifact {
        manifest: manifest.to_string().into_bytes(),
        config,
    }
}

/// The number of the layer of an image that is a chart's file; `None` if it is no chart.
#[must_use]
pub fn content_of(image: &Image) -> Option<usize> {
    let is_chart = image
        .config
        .as_ref()
        .is_some_and(|config| config.media_type == CONFIG);
    if !is_chart {
        return None;
    }
    image
        .layers
        .iter()
        .position(|layer| layer.media_type == CONTENT || layer.media_type == OLD_CONTENT)
}

/// The tag of a version: tags have no plus sign, so Helm writes an underscore.
#[must_use]
pub fn tag_of(version: &str) -> String {
    version.replace('+', "_")
}

/// The version that a tag stands for.
#[must_use]
pub fn version_of(tag: &str) -> String {
    tag.replace('_', "+")
}

/// Chart.yaml as JSON, in the names that Helm writes and without what is empty.
fn config(metadata: &Metadata) -> Json {
    let mut out = Map::new();
    let mut text = |key: &str, value: &str| {
        if !value.is_empty() {
            out.insert(key.to_owned(), value.into());
        }
    };
    text("name", &metadata.name);
    text("version", &metadata.version);
    text("apiVersion", &metadata.api_version);
    text("appVersion", &metadata.app_version);
    text("kubeVersion", &metadata.kube_version);
    text("description", &metadata.description);
    text("type", &metadata.kind);
    text("home", &metadata.home);
    text("icon", &metadata.icon);
    text("condition", &metadata.condition);
    text("tags", &metadata.tags);
    if metadata.deprecated {
        out.insert("deprecated".to_owned(), Json::Bool(true));
    }
    let mut list = |key: &str, items: Vec<Json>| {
        if !items.is_empty() {
            out.insert(key.to_owned(), Json::Array(items));
        }
    };
    let texts = |items: &[String]| items.iter().map(|item| item.as_str().into()).collect();
    list("sources", texts(&metadata.sources));
    list("keywords", texts(&metadata.keywords));
    list(
        "maintainers",
        metadata
            .maintainers
            .iter()
            .map(|one| {
                filled([
                    ("name", &one.name),
                    ("email", &one.email),
                    ("url", &one.url),
                ])
            })
            .collect(),
    );
    list(
        "dependencies",
        metadata.dependencies.iter().map(dependency).collect(),
    );
    if !metadata.annotations.is_empty() {
        out.insert("annotations".to_owned(), json!(metadata.annotations));
    }
    Json::Object(out)
}

fn filled<const N: usize>(fields: [(&str, &String); N]) -> Json {
    let fields = fields.into_iter().filter(|(_, value)| !value.is_empty());
    Json::Object(
        fields
            .map(|(key, value)| (key.to_owned(), value.as_str().into()))
            .collect(),
    )
}

fn dependency(dependency: &Dependency) -> Json {
    let mut out = filled([
        ("name", &dependency.name),
        ("version", &dependency.version),
        ("repository", &dependency.repository),
        ("condition", &dependency.condition),
        ("alias", &dependency.alias),
    ]);
    if let Json::Object(fields) = &mut out {
        if !dependency.tags.is_empty() {
            fields.insert("tags".to_owned(), json!(dependency.tags));
        }
        if !dependency.import_values.is_empty() {
            let pairs: Vec<Json> = dependency
                .import_values
                .iter()
                .map(|pair| json!({ "child": pair.child, "parent": pair.parent }))
                .collect();
            fields.insert("import-values".to_owned(), Json::Array(pairs));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chart::LoadLimits;
    use crate::oci::Manifest;
    use std::collections::BTreeMap;

    #[test]
    fn the_image_of_a_chart_is_one_that_helm_reads() {
        let files = BTreeMap::from([(
            "Chart.yaml".to_owned(),
            b"apiVersion: v2\nname: small\nversion: 1.2.3+x\nappVersion: '7'\ndescription: Small.\nmaintainers: [{name: a, email: a@example.test}]\ndependencies: [{name: sub, version: ^1, repository: 'https://charts.example.test', import-values: [data]}]\n".to_vec(),
        )]);
        let chart = Chart::from_files(files, LoadLimits::default()).unwrap();
        let file = Digest::of(b"file");
        let made = artifact(&chart, file, 4);
        assert_eq!(
            String::from_utf8(made.config.clone()).unwrap(),
            r#"{"apiVersion":"v2","appVersion":"7","dependencies":[{"import-values":[{"child":"exports.data","parent":"."}],"name":"sub","repository":"https://charts.example.test","version":"^1"}],"description":"Small.","maintainers":[{"email":"a@example.test","name":"a"}],"name":"small","version":"1.2.3+x"}"#,
            "the config is Chart.yaml"
        );
        let Manifest::Image(image) = Manifest::parse(&made.manifest, None).unwrap() else {
            panic!("an image");
        };
        let at = content_of(&image).expect("it is a chart");
        assert_eq!(image.layers[at].digest, file, "the layer is the file");
        assert_eq!(
            artifact(&chart, file, 4),
            made,
            "it is made alike each time"
        );
        assert_eq!(tag_of("1.2.3+x"), "1.2.3_x", "a tag has no plus sign");
        assert_eq!(version_of("1.2.3_x"), "1.2.3+x", "and back");
    }
}
