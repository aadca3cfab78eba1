//! The distribution API: what a request means, and what is answered.
//!
//! Pure: no Envoy, no proxy-wasm, no S3, no clock. A handler in [`endpoints`] is an `async fn` that reads like the
//! API's own text; it takes the request and a [`Store`] and gives an [`Answer`]. What is HTTP's is in [`http`].

pub mod access;
mod answer;
pub mod body;
mod content_stream;
mod endpoints;
pub mod events;
mod exchange;
pub mod glob;
pub mod http;
mod jose;
mod legacy;
mod lookout;
mod operation;
mod policy;
mod request;
pub mod route;
#[cfg(feature = "schema1")]
mod schema1;
#[cfg(not(feature = "schema1"))]
#[path = "schema1_left_out.rs"]
mod schema1;
mod settings;
pub mod strict_json;
#[cfg(test)]
mod test_registry;

use std::rc::Rc;

use ::http::{Method, Response};
use bytes::Bytes;

pub use answer::Answer;
pub use body::{Hashing, NoBody, RequestBody};
pub use content_stream::{ContentStream, StreamAnswer};
pub use exchange::{CacheUse, Exchange};
pub use http::HeaderFields;
pub use http::error::proxy_error;
pub use http::multipart::{Allowance, Cutter, Piece};
pub use http::range::Ranges;
#[cfg(test)]
pub(crate) use jose::private_key_tests;
pub use jose::{KeyError, PrivateKey, PublicJwk, PublicKey};
pub use legacy::{AbsentAccept, Legacy, Platform, PlatformError};
pub use operation::Operation;
pub use policy::Class;
pub use request::{Body, BodyUse, Environment, Nonce, REPLY_MAX_BYTES, Request};
pub use schema1::SigningKey;
pub use settings::{DEFAULT_MANIFEST_MAX_BYTES, ImmutableTags, Limits, Mount, Settings};

use crate::store::{Session, Store, Uploads};
use access::{Permit, permit};
use endpoints::{base, blobs, catalog, health, manifests, referrers, tags, token, uploads};
use events::Reporter;
use http::error::{Error, ErrorCode};
use route::Endpoint;

/// Answers a request. Failures are answered too: in the API's JSON.
pub fn handle(
    request: &Request,
    store: &(impl Store + Uploads),
    settings: &Settings,
) -> impl Future<Output = Answer> {
    handle_streamed(request, &NoBody, store, settings)
}

/// Answers a request whose body is still on its way.
pub async fn handle_streamed(
    request: &Request,
    body: &impl RequestBody,
    store: &(impl Store + Uploads),
    settings: &Settings,
) -> Answer {
    let answer = dispatch(request, body, store, settings).await;
    answer.unwrap_or_else(|error| Answer::Reply(Rc::new(error.into_response())))
}

async fn dispatch(
    request: &Request,
    body: &impl RequestBody,
    store: &(impl Store + Uploads),
    settings: &Settings,
) -> Result<Answer, Error> {
    let allowed = allowed_methods(request.endpoint()?, settings);
    if !allowed.contains(&request.method.as_str()) {
        return Err(Error::method_not_allowed(allowed));
    }
    let permit = permit(request, settings).await?;
    let reporter = Reporter::new(request, &permit);
    match (permit.endpoint(), &request.method) {
        (Endpoint::Base, _) => Ok(Answer::reply(base::get())),
        (Endpoint::Health, _) => Ok(Answer::reply(health::alive())),
        (Endpoint::Blob { name, digest }, &Method::GET | &Method::HEAD) => {
            blobs::get(request, store, name, digest).await
        }
        (Endpoint::Manifest { name, reference }, &Method::GET | &Method::HEAD) => {
            manifests::get(request, reporter, store, settings, name, reference).await
        }
        // On the heap: a pull, which is what most requests are, need not make room for all of this.
        _ => {
            let change_or_list = change_or_list(request, body, store, settings, &permit);
            Box::pin(change_or_list).await.map(Answer::reply)
        }
    }
}

/// Answers what is no pull.
async fn change_or_list(
    request: &Request,
    body: &impl RequestBody,
    store: &(impl Store + Uploads),
    settings: &Settings,
    permit: &Permit<'_>,
) -> Result<Response<Bytes>, Error> {
    let reporter = Reporter::new(request, permit);
    match permit.endpoint() {
        Endpoint::Base => Ok(base::get()),
        Endpoint::Health => Ok(health::alive()),
        Endpoint::Ready => Ok(health::ready(request, store).await),
        Endpoint::Blob { name, digest } => blobs::delete(reporter, store, name, digest).await,
        Endpoint::Manifest { name, reference } => match request.method {
            Method::DELETE => manifests::delete(reporter, store, settings, name, reference).await,
            _ => manifests::put(request, permit, store, settings, name, reference).await,
        },
        Endpoint::Uploads { name } => {
            uploads::start(request, body, store, settings, permit, name).await
        }
        Endpoint::Upload { name, id } => {
            let session = Session { name: name.clone(), id: id.clone() };
            match request.method {
                Method::PATCH => uploads::append(request, body, store, &session).await,
                Method::PUT => uploads::finish(request, reporter, body, store, &session).await,
                Method::DELETE => uploads::cancel(store, &session).await,
                _ => uploads::status(request, store, &session).await,
            }
        }
        Endpoint::Tags { name } => tags::list(request, store, name).await,
        Endpoint::Catalog => catalog::list(request, permit, store).await,
        Endpoint::Referrers { name, subject } => {
            referrers::list(request, store, name, subject).await
        }
        Endpoint::Token => match &settings.access {
            Some(access) => token::issue(request, access).await,
            None => Err(no_token_endpoint()),
        },
    }
}

fn no_token_endpoint() -> Error {
    let message = "there are no tokens here: no access control is configured";
    Error::new(ErrorCode::NoSuchEndpoint, message)
}

/// The methods that an endpoint has.
fn allowed_methods(endpoint: &Endpoint, settings: &Settings) -> &'static [&'static str] {
    match endpoint {
        Endpoint::Manifest { .. } if settings.read_only => &["GET", "HEAD"],
        Endpoint::Manifest { .. } if settings.delete_enabled => &["GET", "HEAD", "PUT", "DELETE"],
        Endpoint::Manifest { .. } => &["GET", "HEAD", "PUT"],
        Endpoint::Blob { .. } if settings.delete_enabled && !settings.read_only => {
            &["GET", "HEAD", "DELETE"]
        }
        Endpoint::Base | Endpoint::Blob { .. } | Endpoint::Health | Endpoint::Ready => {
            &["GET", "HEAD"]
        }
        Endpoint::Uploads { .. } if settings.read_only => &[],
        Endpoint::Uploads { .. } => &["POST"],
        Endpoint::Upload { .. } if settings.read_only => &["GET", "HEAD"],
        Endpoint::Upload { .. } => &["GET", "HEAD", "PATCH", "PUT", "DELETE"],
        Endpoint::Token => &["GET", "POST"],
        Endpoint::Tags { .. } | Endpoint::Catalog | Endpoint::Referrers { .. } => &["GET", "HEAD"],
    }
}
