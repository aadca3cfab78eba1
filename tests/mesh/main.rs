//! What `deploy/istio/` and `deploy/envoy-gateway/` make of an Envoy: the configuration that Istio and Envoy Gateway
//! give it for these files, by their own code (`tests/mesh-config/`), in a real Envoy before a real store. And the
//! module as the OCI layouts of `./build.sh dist`, in a real registry.

#![cfg(not(target_family = "wasm"))]

mod artifacts;
mod drift;
mod envoy_gateway;
mod istio;
mod resources;
