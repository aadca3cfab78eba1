//! How events are written: as `distribution` writes them, or as CloudEvents.
//!
//! Source: `distribution`'s documentation, "Work with notifications"; CloudEvents 1.0.2, with its "JSON Event Format",
//! sections 3 and 4.

use std::str::FromStr;

use bytes::Bytes;
use serde::Serialize;
use thiserror::Error;

use super::{Event, EventAction, Target, TargetKind};

/// What all types of CloudEvents begin with.
const TYPE_PREFIX: &str = "io.moorage.registry";

/// How events are written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Format {
    /// As `distribution` does: one envelope with a list of events.
    #[default]
    Distribution,
    /// CloudEvents 1.0, a batch of them in JSON.
    CloudEvents,
}

/// A text that names no [`Format`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("must be distribution or cloudevents")]
pub struct FormatError;

impl FromStr for Format {
    type Err = FormatError;

    fn from_str(text: &str) -> Result<Self, FormatError> {
        match text {
            "distribution" => Ok(Self::Distribution),
            "cloudevents" => Ok(Self::CloudEvents),
            _ => Err(FormatError),
        }
    }
}

impl Format {
    /// The `Content-Type` of requests with such events.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Distribution => "application/vnd.docker.distribution.events.v1+json",
            Self::CloudEvents => "application/cloudevents-batch+json",
        }
    }

    /// Writes one event, as JSON; `source` is the name of this registry.
    pub fn event(self, event: &Event, source: &str) -> Bytes {
        let written = match self {
            Self::Distribution => serde_json::to_vec(&distribution(event, source)),
            Self::CloudEvents => serde_json::to_vec(&cloud_event(event, source)),
        };
        // Writing texts and numbers to memory does not fail. It takes up to twice the memory, which is not counted, so what
        // is left over is given back: events wait in queues.
        written.unwrap_or_default().into_boxed_slice().into()
    }

    /// The body of a request with these events, which are in this format.
    pub fn batch<'e>(self, events: impl Iterator<Item = &'e Bytes>) -> Vec<u8> {
        let (start, end): (&[u8], &[u8]) = match self {
            Self::Distribution => (b"{\"events\":[", b"]}"),
            Self::CloudEvents => (b"[", b"]"),
        };
        let mut body = start.to_vec();
        for (number, event) in events.enumerate() {
            if number > 0 {
                body.push(b',');
            }
            body.extend_from_slice(event);
        }
        body.extend_from_slice(end);
        body
    }
}

#[derive(Serialize)]
struct DistributionEvent<'a> {
    id: &'a str,
    timestamp: String,
    action: &'a str,
    target: TargetFields<'a>,
    request: RequestFields<'a>,
    actor: ActorFields<'a>,
    source: SourceFields<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct TargetFields<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    media_type: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    size: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    digest: Option<&'a str>,
    /// The same as `size`, under the name that it had before.
    #[serde(skip_serializing_if = "Option::is_none")]
    length: Option<u64>,
    repository: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    from_repository: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    url: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tag: Option<&'a str>,
    /// Not one of `distribution`'s, which has no event with it either.
    #[serde(skip_serializing_if = "Option::is_none")]
    previous_digest: Option<&'a str>,
}

#[derive(Serialize)]
struct RequestFields<'a> {
    id: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    addr: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    host: &'a str,
    method: &'a str,
    useragent: &'a str,
}

#[derive(Serialize)]
struct ActorFields<'a> {
    #[serde(skip_serializing_if = "str::is_empty")]
    name: &'a str,
}

#[derive(Serialize)]
struct SourceFields<'a> {
    #[serde(rename = "instanceID")]
    instance_id: &'a str,
}

#[derive(Serialize)]
struct CloudEvent<'a> {
    specversion: &'static str,
    id: &'a str,
    source: &'a str,
    #[serde(rename = "type")]
    kind: String,
    subject: String,
    time: String,
    datacontenttype: &'static str,
    data: CloudEventData<'a>,
}

#[derive(Serialize)]
struct CloudEventData<'a> {
    action: &'a str,
    target: TargetFields<'a>,
    request: RequestFields<'a>,
    actor: ActorFields<'a>,
}

fn distribution<'a>(event: &'a Event, source: &'a str) -> DistributionEvent<'a> {
    DistributionEvent {
        id: &event.id,
        timestamp: timestamp(event),
        action: event.action.as_str(),
        target: target_fields(&event.target),
        request: request_fields(event),
        actor: ActorFields { name: &event.actor },
        source: SourceFields { instance_id: source },
    }
}

fn cloud_event<'a>(event: &'a Event, source: &'a str) -> CloudEvent<'a> {
    CloudEvent {
        specversion: "1.0",
        id: &event.id,
        source,
        kind: cloud_event_type(event),
        subject: subject(&event.target),
        time: timestamp(event),
        datacontenttype: "application/json",
        data: CloudEventData {
            action: event.action.as_str(),
            target: target_fields(&event.target),
            request: request_fields(event),
            actor: ActorFields { name: &event.actor },
        },
    }
}

fn timestamp(event: &Event) -> String {
    humantime::format_rfc3339_millis(event.time).to_string()
}

fn target_fields(target: &Target) -> TargetFields<'_> {
    let is_blob = target.kind == TargetKind::Blob && target.url.is_some();
    let media_type = target.media_type.map(|media_type| media_type.as_str());
    TargetFields {
        // As `distribution` has it of blobs that are there.
        media_type: media_type.or(is_blob.then_some("application/octet-stream")),
        size: target.size,
        digest: target.digest.as_ref().map(|digest| digest.as_str()),
        length: target.size,
        repository: target.repository.as_str(),
        from_repository: target.from_repository.as_ref().map(|name| name.as_str()),
        url: target.url.as_deref(),
        tag: target.tag.as_ref().map(|tag| tag.as_str()),
        previous_digest: target.previous.as_ref().map(|digest| digest.as_str()),
    }
}

fn request_fields(event: &Event) -> RequestFields<'_> {
    let request = &event.request;
    RequestFields {
        id: &request.id,
        addr: &request.address,
        host: &request.host,
        method: &request.method,
        useragent: &request.user_agent,
    }
}

/// Such as `io.moorage.registry.manifest.push`.
fn cloud_event_type(event: &Event) -> String {
    let done = match event.action {
        EventAction::TagMoved => "moved",
        action => action.as_str(),
    };
    format!("{TYPE_PREFIX}.{}.{done}", event.target.kind)
}

/// What `docker pull` takes, without the registry: `<name>:<tag>`, or `<name>@<digest>` where there is no tag.
fn subject(target: &Target) -> String {
    let name = &target.repository;
    match (&target.tag, &target.digest) {
        (Some(tag), _) => format!("{name}:{tag}"),
        (None, Some(digest)) => format!("{name}@{digest}"),
        (None, None) => name.to_string(),
    }
}
