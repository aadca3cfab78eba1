//! What went wrong with the store, for the person who runs it.

use moorage::store::{StoreAnswer, StoreError};

use crate::signed_http::SignedHttp;

/// Says what failed in one line, with the store's own explanation: clients of the registry don't see that, operators do.
pub fn told(error: &StoreError, http: &SignedHttp) -> String {
    let Some(answer) = error.answer() else {
        return error.to_string();
    };
    let told = told_answer(answer);
    let is_refused = matches!(answer.status.as_u16(), 401 | 403);
    if is_refused && !http.is_signing() {
        return format!(
            "{told}; the request was not signed, for want of keys or by --no-sign-request"
        );
    }
    told
}

fn told_answer(answer: &StoreAnswer) -> String {
    let code = answer.code.as_ref().map(|code| format!(" {code}")).unwrap_or_default();
    let message = answer.message.as_deref().unwrap_or_default();
    let message = message.split_whitespace().collect::<Vec<_>>().join(" ");
    let message = if message.is_empty() { message } else { format!(": {message}") };
    format!("the store answered {}{code}{message}", answer.status.as_u16())
}

#[cfg(test)]
mod tests {
    use http::StatusCode;
    use http::uri::Scheme;
    use moorage::store::Fault;

    use super::*;
    use crate::signed_http::client_builder;

    fn error(status: u16, body: &str) -> StoreError {
        let status = StatusCode::from_u16(status).expect("a status");
        match Fault::of(status, body.as_bytes()) {
            Fault::Other(error) => error,
            Fault::NoSuchKey => panic!("that is no fault"),
        }
    }

    #[test]
    fn an_answer_is_told_in_one_line() {
        let http = SignedHttp::new(Scheme::HTTP, client_builder(&[])).expect("a client");
        for (body, expected) in [
            (
                "<Error><Code>SlowDown</Code><Message>Less,\n  please</Message></Error>",
                "the store answered 503 SlowDown: Less, please",
            ),
            (
                "<Error><Code>SlowDown</Code><Message></Message></Error>",
                "the store answered 503 SlowDown",
            ),
            ("no healthy upstream", "the store answered 503"),
        ] {
            assert_eq!(told(&error(503, body), &http), expected);
        }
        let refused = told(&error(403, "<Error><Code>AccessDenied</Code></Error>"), &http);
        let start = "the store answered 403 AccessDenied; the request was not signed";
        assert!(refused.starts_with(start), "{refused}");
    }
}
