//! A filter that answers every request with the same reply: its plugin configuration's text, under
//! the headers that a manifest has.
//!
//! The benchmark compares Moorage with it, since nothing that a filter answers by itself can cost
//! less. It exists in the wasm build only; for other targets it is an empty library.

#[cfg(target_family = "wasm")]
mod filter {
    use std::rc::Rc;

    use proxy_wasm::traits::{Context, HttpContext, RootContext};
    use proxy_wasm::types::{Action, ContextType};

    /// As many as a manifest's reply has, and as long.
    const HEADERS: [(&str, &str); 4] = [
        ("content-type", "application/vnd.oci.image.manifest.v1+json"),
        (
            "docker-content-digest",
            "sha256:0000000000000000000000000000000000000000000000000000000000000000",
        ),
        ("etag", "\"sha256:0000000000000000000000000000000000000000000000000000000000000000\""),
        ("docker-distribution-api-version", "registry/2.0"),
    ];

    proxy_wasm::main! {{
        proxy_wasm::set_root_context(|_| Box::new(Plugin::default()));
    }}

    /// The plugin, with the body of every reply.
    #[derive(Default)]
    struct Plugin(Rc<[u8]>);

    impl Context for Plugin {}

    impl RootContext for Plugin {
        fn on_configure(&mut self, _: usize) -> bool {
            self.0 = self.get_plugin_configuration().unwrap_or_default().into();
            true
        }

        fn create_http_context(&self, _: u32) -> Option<Box<dyn HttpContext>> {
            Some(Box::new(Stream(Rc::clone(&self.0))))
        }

        fn get_type(&self) -> Option<ContextType> {
            Some(ContextType::HttpContext)
        }
    }

    struct Stream(Rc<[u8]>);

    impl Context for Stream {}

    impl HttpContext for Stream {
        fn on_http_request_headers(&mut self, _: usize, _: bool) -> Action {
            self.send_http_response(200, HEADERS.to_vec(), Some(&self.0));
            Action::Pause
        }
    }
}
