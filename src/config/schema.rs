//! The keys of the image set configurations, as data.
//!
//! Which mapping has which key, in which version, and what to tell a person who writes another one.

use super::reader::Schema;
use super::reader::Since::{self, Always, V1Alpha2, V2Alpha1};

pub(super) const IMAGE_SET: Schema = Schema {
    place: "",
    keys: &[
        ("apiVersion", Always),
        ("kind", Always),
        ("archiveSize", Always),
        ("storageConfig", Always),
        ("mirror", Always),
    ],
    advice: &[(
        "delete",
        "what to delete stands in a file of its own, of kind DeleteImageSetConfiguration",
    )],
};

pub(super) const DELETE_SET: Schema = Schema {
    place: "",
    keys: &[("apiVersion", Always), ("kind", Always), ("delete", Always)],
    advice: &[
        (
            "mirror",
            "what to mirror stands in a file of its own, of kind ImageSetConfiguration",
        ),
        (
            "archiveSize",
            "a DeleteImageSetConfiguration writes no archive: remove the line",
        ),
        (
            "storageConfig",
            "a DeleteImageSetConfiguration has no storageConfig: remove it",
        ),
    ],
};

pub(super) const STORAGE: Schema = Schema {
    place: "storageConfig",
    keys: &[("local", Always), ("registry", Always)],
    advice: &[],
};

pub(super) const STORAGE_LOCAL: Schema = Schema {
    place: "storageConfig.local",
    keys: &[("path", Always)],
    advice: &[],
};

pub(super) const STORAGE_REGISTRY: Schema = Schema {
    place: "storageConfig.registry",
    keys: &[("imageURL", Always), ("skipTLS", Always)],
    advice: &[],
};

/// The schemas of one stanza; `mirror:` and `delete:` differ in their paths and in `blockedImages`.
pub(super) struct Stanza {
    pub(super) name: &'static str,
    pub(super) root: Schema,
    pub(super) platform: Schema,
    pub(super) channel: Schema,
    pub(super) release_platform: Schema,
    pub(super) operator: Schema,
    pub(super) operator_platform: Schema,
    pub(super) package: Schema,
    pub(super) operator_channel: Schema,
    pub(super) bundle: Schema,
    pub(super) image: Schema,
    pub(super) image_platform: Schema,
    pub(super) helm: Schema,
    pub(super) repository: Schema,
    pub(super) chart: Schema,
    pub(super) chart_platform: Schema,
    pub(super) local: Schema,
    pub(super) local_platform: Schema,
    pub(super) blocked: Schema,
    pub(super) sample: Schema,
}

macro_rules! stanza {
    ($name:literal, $keys:expr, $advice:expr) => {
        Stanza {
            name: $name,
            root: Schema {
                place: $name,
                keys: $keys,
                advice: $advice,
            },
            platform: Schema {
                place: concat!($name, ".platform"),
                keys: &[
                    ("graph", Always),
                    ("channels", Always),
                    ("architectures", Always),
                    ("platforms", V2Alpha1),
                    ("release", V2Alpha1),
                    ("kubeVirtContainer", V2Alpha1),
                ],
                advice: &[],
            },
            channel: Schema {
                place: concat!($name, ".platform.channels[]"),
                keys: &[
                    ("name", Always),
                    ("type", Always),
                    ("minVersion", Always),
                    ("maxVersion", Always),
                    ("shortestPath", Always),
                    ("full", Always),
                ],
                advice: &[],
            },
            release_platform: Schema {
                place: concat!($name, ".platform.platforms[]"),
                keys: PLATFORM_KEYS,
                advice: PLATFORM_ADVICE,
            },
            operator: Schema {
                place: concat!($name, ".operators[]"),
                keys: &[
                    ("catalog", Always),
                    ("full", Always),
                    ("targetCatalog", Always),
                    ("targetName", V1Alpha2),
                    ("targetTag", Always),
                    ("targetCatalogSourceTemplate", V2Alpha1),
                    ("skipDependencies", Always),
                    ("originalRef", V1Alpha2),
                    ("platforms", V2Alpha1),
                    ("packages", Always),
                ],
                advice: &[
                    (
                        "targetName",
                        "write targetCatalog, which takes a whole path",
                    ),
                    (
                        "originalRef",
                        "remove it: it has had no effect since v1alpha2",
                    ),
                    ("name", "the catalog's image stands behind `catalog:`"),
                    (
                        "headsOnly",
                        "write `full: true` for every version; the newest is the default",
                    ),
                ],
            },
            operator_platform: Schema {
                place: concat!($name, ".operators[].platforms[]"),
                keys: PLATFORM_KEYS,
                advice: PLATFORM_ADVICE,
            },
            package: Schema {
                place: concat!($name, ".operators[].packages[]"),
                keys: &[
                    ("name", Always),
                    ("defaultChannel", Always),
                    ("minVersion", Always),
                    ("maxVersion", Always),
                    ("minBundle", V1Alpha2),
                    ("channels", Always),
                    ("bundles", V2Alpha1),
                ],
                advice: &[(
                    "minBundle",
                    "write minVersion, or list the bundles under `bundles:`",
                )],
            },
            operator_channel: Schema {
                place: concat!($name, ".operators[].packages[].channels[]"),
                keys: &[
                    ("name", Always),
                    ("minVersion", Always),
                    ("maxVersion", Always),
                    ("minBundle", V1Alpha2),
                ],
                advice: &[(
                    "minBundle",
                    "write minVersion, or list the bundles under `bundles:` of the package",
                )],
            },
            bundle: Schema {
                place: concat!($name, ".operators[].packages[].bundles[]"),
                keys: &[("name", Always)],
                advice: &[],
            },
            image: Schema {
                place: concat!($name, ".additionalImages[]"),
                keys: &[
                    ("name", Always),
                    ("targetRepo", V2Alpha1),
                    ("targetTag", V2Alpha1),
                    ("platforms", V2Alpha1),
                ],
                advice: &[(
                    "targetCatalog",
                    "an image has targetRepo; targetCatalog is for operators",
                )],
            },
            image_platform: Schema {
                place: concat!($name, ".additionalImages[].platforms[]"),
                keys: PLATFORM_KEYS,
                advice: PLATFORM_ADVICE,
            },
            helm: Schema {
                place: concat!($name, ".helm"),
                keys: &[("repositories", Always), ("local", Always)],
                advice: &[],
            },
            repository: Schema {
                place: concat!($name, ".helm.repositories[]"),
                keys: &[("name", Always), ("url", Always), ("charts", Always)],
                advice: &[],
            },
            chart: Schema {
                place: concat!($name, ".helm.repositories[].charts[]"),
                keys: CHART_KEYS,
                advice: CHART_ADVICE,
            },
            chart_platform: Schema {
                place: concat!($name, ".helm.repositories[].charts[].platforms[]"),
                keys: PLATFORM_KEYS,
                advice: PLATFORM_ADVICE,
            },
            local: Schema {
                place: concat!($name, ".helm.local[]"),
                keys: CHART_KEYS,
                advice: CHART_ADVICE,
            },
            local_platform: Schema {
                place: concat!($name, ".helm.local[].platforms[]"),
                keys: PLATFORM_KEYS,
                advice: PLATFORM_ADVICE,
            },
            blocked: Schema {
                place: concat!($name, ".blockedImages[]"),
                keys: &[("name", Always)],
                advice: &[],
            },
            sample: Schema {
                place: concat!($name, ".samples[]"),
                keys: &[("name", Always)],
                advice: &[],
            },
        }
    };
}

const PLATFORM_KEYS: &[(&str, Since)] = &[("os", Always), ("architecture", Always)];
const PLATFORM_ADVICE: &[(&str, &str)] = &[
    (
        "variant",
        "every variant of an architecture is taken: remove the line",
    ),
    ("arch", "did you mean \"architecture\"?"),
];
const CHART_KEYS: &[(&str, Since)] = &[
    ("name", Always),
    ("version", Always),
    ("path", Always),
    ("imagePaths", Always),
    ("platforms", V2Alpha1),
];
const CHART_ADVICE: &[(&str, &str)] = &[(
    "values",
    "values of a chart stand in imgbuild.toml, in its [chart.\"REF\"] table",
)];

pub(super) static MIRROR: Stanza = stanza!(
    "mirror",
    &[
        ("platform", Always),
        ("operators", Always),
        ("additionalImages", Always),
        ("helm", Always),
        ("blockedImages", Always),
        ("samples", Always),
    ],
    &[
        ("ocp", "write platform, with its channels"),
        ("images", "write additionalImages")
    ]
);

pub(super) static DELETE: Stanza = stanza!(
    "delete",
    &[
        ("platform", Always),
        ("operators", Always),
        ("additionalImages", Always),
        ("helm", Always),
        ("samples", Always),
    ],
    &[(
        "blockedImages",
        "what is not listed is not deleted: remove blockedImages"
    )]
);

/// Where a key may belong that stands in the wrong place.
pub(super) static SCHEMAS: &[&Schema] = &[
    &IMAGE_SET,
    &MIRROR.root,
    &MIRROR.platform,
    &MIRROR.channel,
    &MIRROR.operator,
    &MIRROR.package,
    &MIRROR.image,
    &MIRROR.helm,
    &MIRROR.repository,
    &MIRROR.chart,
];
