//! `/healthz` and `/readyz`, for whoever decides where requests go. They are no part of the API, and need no credentials.

use bytes::Bytes;
use http::header::{CACHE_CONTROL, RETRY_AFTER};
use http::{HeaderValue, Response, StatusCode};
use serde_json::{Value, json};

use crate::registry::Request;
use crate::registry::http::reply;
use crate::store::Store;

/// `GET` and `HEAD` of `/healthz`: the module answers. No call to the store.
pub fn alive() -> Response<Bytes> {
    json_reply(StatusCode::OK, &json!({ "status": "ok" }))
}

/// `GET` and `HEAD` of `/readyz`: 200 if the store answers, otherwise 503 with what is wrong. One call to the store in five
/// seconds, at most.
pub async fn ready(request: &Request, store: &impl Store) -> Response<Bytes> {
    match store.health(request.environment.recent_time()).await {
        Ok(()) => json_reply(StatusCode::OK, &json!({ "status": "ok", "store": "ok" })),
        Err(error) => {
            let problem = json!({ "status": "unavailable", "store": error.to_string() });
            let mut response = json_reply(StatusCode::SERVICE_UNAVAILABLE, &problem);
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("5"));
            response
        }
    }
}

fn json_reply(status: StatusCode, value: &Value) -> Response<Bytes> {
    let mut response = reply::json(value, "application/json");
    *response.status_mut() = status;
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

#[cfg(test)]
mod tests {
    use http::Method;
    #[cfg(target_family = "wasm")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;
    use crate::registry::handle;
    use crate::registry::test_registry::TestRegistry;
    use crate::store::memory::{Effect, run};

    /// The status and the JSON, and how many calls the store got for it.
    fn ask(registry: &TestRegistry, path: &str) -> (u16, Value, usize) {
        let before = registry.store.calls().len();
        let request = registry.request(Method::GET, path, &[]);
        let reply = run(handle(&request, &registry.store, &registry.settings)).0.expect_reply();
        let json = serde_json::from_slice(reply.body()).expect("JSON");
        (reply.status().as_u16(), json, registry.store.calls().len() - before)
    }

    #[test]
    fn the_module_is_alive_whatever_the_store_does_and_ready_if_the_store_answers() {
        let registry = TestRegistry::default();
        assert_eq!(ask(&registry, "/healthz"), (200, json!({"status": "ok"}), 0));
        assert_eq!(ask(&registry, "/readyz"), (200, json!({"status": "ok", "store": "ok"}), 1));

        let registry = TestRegistry::default();
        registry.store.failing_call.set(Some((0, Effect::None)));
        assert_eq!(ask(&registry, "/healthz").0, 200);
        let (status, json, _) = ask(&registry, "/readyz");
        assert_eq!((status, &json["status"]), (503, &json!("unavailable")));
        assert_ne!(json["store"], "ok");
    }
}
