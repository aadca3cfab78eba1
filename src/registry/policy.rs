//! Which classes of manifest may be pushed, and where.
//!
//! The rules and their order are those of `distribution`'s `policy.repository.classes`.

use std::str::FromStr;

use thiserror::Error;

use crate::oci::manifest::ParsedManifest;
use crate::oci::{MediaType, Name};
use crate::registry::access::ResourceActions;
use crate::registry::http::error::{Error, ErrorCode};

/// A class of manifest. An index has none, and is never denied for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// A container image.
    Image,
    /// A plugin of the Docker engine.
    Plugin,
}

impl Class {
    /// The class's name, as it stands in configurations and tokens.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Image => "image",
            Self::Plugin => "plugin",
        }
    }

    /// The class of an image manifest, by the type of its configuration.
    fn of_config(media_type: &str) -> Option<Self> {
        match media_type {
            "application/vnd.docker.container.image.v1+json"
            | "application/vnd.oci.image.config.v1+json" => Some(Self::Image),
            "application/vnd.docker.plugin.v1+json" => Some(Self::Plugin),
            _ => None,
        }
    }
}

/// A text that is no [`Class`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("must be image or plugin")]
pub struct ClassError;

impl FromStr for Class {
    type Err = ClassError;

    fn from_str(text: &str) -> Result<Self, ClassError> {
        [Self::Image, Self::Plugin]
            .into_iter()
            .find(|class| class.as_str() == text)
            .ok_or(ClassError)
    }
}

/// Checks a manifest that is about to be pushed into `name`.
///
/// `classes` are those that the registry allows; any if there are none. `resources` are what the
/// caller's token authorises; where it says nothing about the repository, that is not this check's
/// business.
///
/// # Errors
///
/// [`ErrorCode::Denied`], with a message of its own for each of the three reasons.
pub fn check(
    manifest: &ParsedManifest,
    name: &Name,
    resources: &[ResourceActions],
    classes: &[Class],
) -> Result<(), Error> {
    if classes.is_empty() {
        return Ok(());
    }
    let denied = |message| Err(Error::new(ErrorCode::Denied, message));
    let class = match manifest.media_type {
        // An index has no class; its manifests have.
        MediaType::OciIndex | MediaType::DockerManifestList => return Ok(()),
        MediaType::DockerSchema1 | MediaType::DockerSchema1Signed => Some(Class::Image),
        MediaType::OciManifest | MediaType::DockerManifest => {
            Class::of_config(manifest.config_type.as_deref().unwrap_or_default())
        }
    };
    let Some(class) = class else {
        let config_type = manifest.config_type.as_deref().unwrap_or("no type");
        return denied(format!("unknown manifest class for {config_type}"));
    };
    if !classes.contains(&class) {
        return denied(format!("registry does not allow {} manifest", class.as_str()));
    }
    let of_repository = |r: &&ResourceActions| r.kind == "repository" && r.name == name.as_str();
    let mut authorised = resources.iter().filter(of_repository).peekable();
    let class_of = |resource: &ResourceActions| match resource.class.as_str() {
        "" => Class::Image.as_str().to_owned(),
        class => class.to_owned(),
    };
    if authorised.peek().is_some() && !authorised.any(|r| class_of(r) == class.as_str()) {
        return denied(format!("repository not authorized for {} manifest", class.as_str()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #[cfg(target_family = "wasm")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;

    const IMAGE: Option<&str> = Some("application/vnd.oci.image.config.v1+json");
    const PLUGIN: Option<&str> = Some("application/vnd.docker.plugin.v1+json");

    fn message(
        config_type: Option<&str>,
        resources: &[(&str, &str, &str)],
        classes: &[Class],
    ) -> Option<String> {
        message_for(MediaType::OciManifest, config_type, resources, classes)
    }

    fn message_for(
        media_type: MediaType,
        config_type: Option<&str>,
        resources: &[(&str, &str, &str)],
        classes: &[Class],
    ) -> Option<String> {
        let manifest = ParsedManifest {
            media_type,
            dependencies: Vec::new(),
            descriptors: 0,
            config_type: config_type.map(str::to_owned),
            subject: None,
            artifact_type: None,
            annotations: Default::default(),
        };
        let resources: Vec<_> = resources
            .iter()
            .map(|(kind, name, class)| ResourceActions {
                kind: (*kind).to_owned(),
                name: (*name).to_owned(),
                class: (*class).to_owned(),
                actions: Vec::new(),
            })
            .collect();
        let name = "a/b".parse().expect("a valid name");
        let error = check(&manifest, &name, &resources, classes).err()?;
        assert_eq!(error.code(), ErrorCode::Denied);
        Some(String::from_utf8_lossy(error.into_response().body()).into_owned())
    }

    #[test]
    fn a_manifest_is_denied_for_three_reasons() {
        let both = &[Class::Image, Class::Plugin];
        let here = |class| ("repository", "a/b", class);
        let elsewhere = ("repository", "a", "plugin");
        for (config_type, resources, classes, expected) in [
            // No policy; an allowed class with no token.
            (Some("x"), vec![], &[][..], None),
            (IMAGE, vec![], &[Class::Image], None),
            // What the registry does not know or allow.
            (Some("x"), vec![], both, Some("unknown manifest class for x")),
            (None, vec![], both, Some("unknown manifest class for no type")),
            (PLUGIN, vec![], &[Class::Image], Some("registry does not allow plugin manifest")),
            // What the token authorises.
            (IMAGE, vec![here("")], both, None),
            (IMAGE, vec![here("image")], both, None),
            (PLUGIN, vec![here("image"), here("plugin")], both, None),
            (PLUGIN, vec![here("")], both, Some("repository not authorized for plugin manifest")),
            (
                IMAGE,
                vec![here("plugin")],
                both,
                Some("repository not authorized for image manifest"),
            ),
            (IMAGE, vec![elsewhere], both, None),
            (IMAGE, vec![("registry", "a/b", "plugin")], both, None),
        ] {
            let found = message(config_type, &resources, classes);
            match expected {
                None => assert_eq!(found, None, "{config_type:?} {resources:?}"),
                Some(text) => assert!(found.is_some_and(|found| found.contains(text)), "{text}"),
            }
        }
    }

    #[test]
    fn an_index_has_no_class_and_schema_1_is_an_image() {
        let plugin = &[Class::Plugin];
        for index in [MediaType::OciIndex, MediaType::DockerManifestList] {
            assert_eq!(message_for(index, None, &[], plugin), None);
        }
        for schema1 in [MediaType::DockerSchema1, MediaType::DockerSchema1Signed] {
            assert!(message_for(schema1, None, &[], plugin).is_some());
            assert_eq!(message_for(schema1, None, &[], &[Class::Image]), None);
        }
    }
}
