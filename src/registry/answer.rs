//! How a request is answered.

use std::rc::Rc;

use bytes::Bytes;
use http::Response;

use super::content_stream::ContentStream;
use super::http::reply::with_common_headers;

/// How a request is answered.
#[derive(Debug)]
pub enum Answer {
    /// With this response, which may be kept to be given again. For `HEAD` it has the body that `GET`
    /// would have, so that its length is known; whoever sends it leaves the body out.
    Reply(Rc<Response<Bytes>>),
    /// With an object of the store, which the proxy streams to the client.
    Stream(Box<ContentStream>),
}

impl Answer {
    /// With a response that was made for this request.
    pub fn reply(response: Response<Bytes>) -> Self {
        Self::Reply(Rc::new(with_common_headers(response)))
    }

    /// The reply, where a test wants one.
    #[cfg(test)]
    pub fn expect_reply(self) -> Response<Bytes> {
        match self {
            Self::Reply(response) => Rc::unwrap_or_clone(response),
            Self::Stream(stream) => panic!("a reply, not {stream:?}"),
        }
    }
}
