//! Values that make a chart pull from a mirror.
//!
//! Where the values of a chart spell out a reference, in parts or whole, the overrides name the mirror instead. Then the
//! chart is rendered with them: what still names another place is told ([`Overrides::elsewhere`]), since a chart may
//! have references that no value reaches.

use std::collections::BTreeSet;
use std::io::Read;

use serde_json::{Map as JsonMap, Value as Json};

use super::images::{Form, find_images, groups};
use super::load::{Chart, LoadLimits};
use super::render::{ValuesLayer, render};
use super::survey::{SurveyError, Wish};

/// Where an image is at the mirror.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// `host[:port]`
    pub registry: String,
    /// The repository, with the prefix of the mirror.
    pub path: String,
}

/// Values for a mirror, and what they do not reach.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Overrides {
    /// The values; empty where there is nothing to override.
    pub values: JsonMap<String, Json>,
    /// Images, as the chart writes them, that are still pulled from elsewhere; sorted.
    pub elsewhere: Vec<String>,
}

/// Makes the overrides for the chart in `file`. `place` says where an image (as the chart writes it) is at the mirror.
///
/// # Errors
/// If the file is no chart, or the wish is wrong in itself.
pub fn overrides(
    file: impl Read,
    wish: &Wish,
    place: &dyn Fn(&str) -> Option<Place>,
) -> Result<Overrides, SurveyError> {
    let chart = Chart::from_archive(file, LoadLimits::default())?;
    let rendered = render(&chart, &wish.options())?;
    let mut values = JsonMap::new();
    let mut places: BTreeSet<String> = BTreeSet::new();
    for group in groups(&rendered) {
        let Some(to) = place(&group.reference).filter(|_| !group.is_in_list) else {
            continue;
        };
        let whole = format!("{}/{}", to.registry, to.path);
        match group.form {
            Form::Whole => {
                let suffix = suffix(&group.reference);
                set(&mut values, &group.path, &format!("{whole}{suffix}"));
            }
            Form::Parts {
                repository,
                registry: true,
            } => {
                set_in(&mut values, &group.path, "registry", &to.registry);
                set_in(&mut values, &group.path, repository, &to.path);
            }
            Form::Parts {
                repository,
                registry: false,
            } => set_in(&mut values, &group.path, repository, &whole),
        }
    }
    for image in &find_images(&rendered, &wish.image_paths)?.images {
        if let Some(to) = place(&image.reference) {
            places.insert(format!("{}/{}", to.registry, to.path));
        }
    }
    let mut options = wish.options();
    options.values.push(ValuesLayer {
        name: "the overrides".to_owned(),
        text: Json::Object(values.clone()).to_string().into_bytes(),
    });
    let found = find_images(&render(&chart, &options)?, &wish.image_paths)?;
    let elsewhere: BTreeSet<String> = found
        .needed()
        .filter(|image| {
            let bare = image
                .reference
                .strip_suffix(suffix(&image.reference))
                .unwrap_or(&image.reference);
            !places.contains(bare)
        })
        .map(|image| image.reference.clone())
        .collect();
    Ok(Overrides {
        values,
        elsewhere: elsewhere.into_iter().collect(),
    })
}

/// The tag and the digest of a reference, with their marks.
fn suffix(reference: &str) -> &str {
    let name = reference.rfind('/').map_or(0, |slash| slash + 1);
    reference[name..]
        .find([':', '@'])
        .map_or("", |mark| &reference[name + mark..])
}

fn set_in(values: &mut JsonMap<String, Json>, path: &[String], key: &str, text: &str) {
    let mut path = path.to_vec();
    path.push(key.to_owned());
    set(values, &path, text);
}

fn set(values: &mut JsonMap<String, Json>, path: &[String], text: &str) {
    let Some((last, parents)) = path.split_last() else {
        return;
    };
    let mut at = values;
    for name in parents {
        let entry = at
            .entry(name.clone())
            .or_insert_with(|| Json::Object(JsonMap::new()));
        let Json::Object(inner) = entry else {
            return;
        };
        at = inner;
    }
    at.insert(last.clone(), text.into());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chart::pack::archive;
    use std::collections::BTreeMap;

    #[test]
    fn every_reference_of_the_values_leads_to_the_mirror_and_the_rest_is_told() {
        let files = BTreeMap::from(
            [
                ("Chart.yaml", "name: small\nversion: 1.0.0\nappVersion: 7.0.0\n"),
                (
                    "values.yaml",
                    "split: {registry: quay.io, image: a/split, tag: v1}\nplainImage: {repository: quay.io/a/plain}\nwholeImage: quay.io/a/whole:2@sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824\nlist: [{image: {repository: quay.io/a/list, tag: 1}}]\nunused: {repository: quay.io/a/unused, tag: 1}\n",
                ),
                (
                    "templates/a.yaml",
                    "spec:\n  containers:\n  - image: {{ .Values.split.registry }}/{{ .Values.split.image }}:{{ .Values.split.tag }}\n  - image: {{ .Values.plainImage.repository }}:{{ .Chart.AppVersion }}\n  - image: {{ .Values.wholeImage }}\n  - image: {{ (index .Values.list 0).image.repository }}:1\n  - image: quay.io/a/fixed:9\n",
                ),
            ]
            .map(|(path, text)| (path.to_owned(), text.as_bytes().to_vec())),
        );
        let file = archive("small", &files).unwrap();
        let place = |reference: &str| {
            let path = reference.strip_prefix("quay.io/")?;
            let path = path.strip_suffix(suffix(path))?;
            (path != "a/unused").then(|| Place {
                registry: "mirror.test:5000".to_owned(),
                path: format!("ocp/{path}"),
            })
        };
        let made = overrides(file.as_slice(), &Wish::default(), &place).unwrap();
        assert_eq!(
            Json::Object(made.values),
            serde_json::json!({
                "split": { "registry": "mirror.test:5000", "image": "ocp/a/split" },
                "plainImage": { "repository": "mirror.test:5000/ocp/a/plain" },
                "wholeImage": "mirror.test:5000/ocp/a/whole:2@sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824",
            }),
            "each in the form the chart has, and nothing that is not mirrored"
        );
        assert_eq!(
            made.elsewhere,
            ["quay.io/a/fixed:9", "quay.io/a/list:1"],
            "what no value reaches"
        );
    }
}
