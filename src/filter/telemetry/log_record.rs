//! What the access log and traces get to know of a request: one record, as filter state.
//!
//! The record is a `google.protobuf.Struct` under the name `wasm.moorage`: one host call, whatever number of fields it has,
//! where each field of its own would be one. Envoy's formats name its fields by `%CEL(filter_state['wasm.moorage'].operation)%`
//! (Envoy, "Access logging" and "CEL"; the schema is declared by the foreign function `declare_property`).

use http::HeaderMap;
use http::header::CONTENT_TYPE;

use crate::oci::Reference;
use crate::registry::http::error::ErrorCode;
use crate::registry::http::reply::{DOCKER_CONTENT_DIGEST, DOCKER_UPLOAD_UUID};
use crate::registry::route::Endpoint;
use crate::registry::{Exchange, Operation};

/// The name of the record; Envoy puts `wasm.` in front.
pub const RECORD: &str = "moorage";

/// A record, in the encoding of Protocol Buffers.
#[derive(Debug, Default)]
pub struct Record(Vec<u8>);

impl Record {
    /// The record of a request and what it is answered with.
    pub fn of(exchange: &Exchange, headers: &HeaderMap, error: Option<ErrorCode>) -> Vec<u8> {
        let mut record = Self(Vec::with_capacity(768));
        record.text("operation", exchange.operation().as_str());
        record.text("method", exchange.method.as_str());
        record.text("path", &exchange.target);
        record.optional("user_agent", exchange.user_agent.as_deref());
        record.subject(exchange);
        record.answer(exchange, headers, error);
        record.optional("identity", exchange.identity().as_deref());
        record.optional("decision", exchange.decision().as_deref());
        record.optional("error", error.map(ErrorCode::as_str));
        record.optional("cache", exchange.cache().map(|cache| cache.as_str()));
        record.number("store_calls", exchange.store_calls().into());
        record.number("store_ms", exchange.store_time().as_micros() as f64 / 1000.0);
        record.0
    }

    /// What the request is about.
    fn subject(&mut self, exchange: &Exchange) {
        let Ok(endpoint) = &exchange.endpoint else {
            return;
        };
        self.optional("repository", endpoint.repository().map(|name| name.as_str()));
        match endpoint {
            Endpoint::Manifest { reference: Reference::Tag(tag), .. } => {
                self.text("reference", tag.as_str());
            }
            Endpoint::Manifest { reference: Reference::Digest(digest), .. }
            | Endpoint::Blob { digest, .. }
            | Endpoint::Referrers { subject: digest, .. } => {
                self.text("reference", digest.as_str());
            }
            Endpoint::Upload { id, .. } => self.text("upload", id.as_str()),
            _ => {}
        }
    }

    /// What it is answered with. An error says nothing of content, and has a type of its own.
    fn answer(&mut self, exchange: &Exchange, headers: &HeaderMap, error: Option<ErrorCode>) {
        let header = |name| headers.get(name).and_then(|value| value.to_str().ok());
        let of_content = |name| header(name).filter(|_| error.is_none());
        self.optional("digest", of_content(DOCKER_CONTENT_DIGEST));
        self.optional(
            "media_type",
            match exchange.operation() {
                Operation::ManifestGet => of_content(CONTENT_TYPE),
                _ => exchange.pushed_type.get().map(|pushed| pushed.as_str()),
            },
        );
        if exchange.operation() == Operation::UploadStart {
            self.optional("upload", header(DOCKER_UPLOAD_UUID));
        }
    }

    fn optional(&mut self, name: &'static str, value: Option<&str>) {
        if let Some(value) = value {
            self.text(name, value);
        }
    }

    fn text(&mut self, name: &'static str, value: &str) {
        // A `Value` whose field 3, `string_value`, this is.
        self.entry(name, length_of_field(value.len()), |bytes| {
            put_field(bytes, 3, value.as_bytes());
        });
    }

    fn number(&mut self, name: &'static str, value: f64) {
        // A `Value` whose field 2, `number_value`, this is: eight bytes.
        self.entry(name, 9, |bytes| {
            bytes.push(2 << 3 | 1);
            bytes.extend(value.to_le_bytes());
        });
    }

    /// An entry of `Struct.fields`: a name, and a `Value` of so many bytes.
    fn entry(&mut self, name: &str, size: usize, put_value: impl FnOnce(&mut Vec<u8>)) {
        let bytes = &mut self.0;
        bytes.push(1 << 3 | 2);
        put_number(bytes, length_of_field(name.len()) + length_of_field(size));
        put_field(bytes, 1, name.as_bytes());
        bytes.push(2 << 3 | 2);
        put_number(bytes, size);
        put_value(bytes);
    }
}

/// How many bytes a field takes whose value has so many; its number is below 16.
fn length_of_field(length: usize) -> usize {
    let bits = usize::BITS - (length | 1).leading_zeros();
    1 + bits.div_ceil(7) as usize + length
}

fn put_field(bytes: &mut Vec<u8>, number: u8, value: &[u8]) {
    bytes.push(number << 3 | 2);
    put_number(bytes, value.len());
    bytes.extend_from_slice(value);
}

/// A number in seven bits a byte, the lowest first (Protocol Buffers, "Base 128 Varints").
fn put_number(bytes: &mut Vec<u8>, mut number: usize) {
    while number >= 0x80 {
        bytes.push((number & 0x7f) as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
}
