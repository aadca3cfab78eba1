//! `GET` and `DELETE`: where an upload is, and giving it up.

use bytes::Bytes;
use http::{Response, StatusCode};

use super::{UploadOffset, progress_reply, session_state};
use crate::registry::Request;
use crate::registry::http::error::Error;
use crate::registry::http::reply::bare;
use crate::store::{Session, Uploads};

/// `GET`: where the session is, whatever the client believes. One call.
pub async fn status(
    request: &Request,
    store: &impl Uploads,
    session: &Session,
) -> Result<Response<Bytes>, Error> {
    let UploadOffset { algorithm, .. } = UploadOffset::of(request)?;
    let state = session_state(store, session).await?;
    let place = UploadOffset::at(state.offset, algorithm);
    Ok(progress_reply(StatusCode::NO_CONTENT, session, place))
}

/// `DELETE`: the session is over, and nothing of it stays. Three round trips.
pub async fn cancel(store: &impl Uploads, session: &Session) -> Result<Response<Bytes>, Error> {
    let state = session_state(store, session).await?;
    store.end_upload(session, &state).await?;
    Ok(bare(StatusCode::NO_CONTENT))
}
