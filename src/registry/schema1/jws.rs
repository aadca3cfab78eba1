//! Signatures within the JSON object that they sign, as `libtrust` puts them there.
//!
//! What is signed is the object as it was before: its bytes up to the last member, and the tail that
//! closed it. The first is still there, and each signature's protected header has the second.
//!
//! It is written here because no JWS library knows this form: they take the payload as it is, or as base64, and this
//! one is what is left of the object when its last member is taken out, to the byte.

use base64::Engine as _;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;
use thiserror::Error;

use super::json::{self, INDENT};
use super::key::SigningKey;
use super::libtrust::{self, P256Jwk};
use crate::registry::jose::{BASE64, PublicJwk, decode};

/// The member that has the signatures.
const SIGNATURES: &str = "signatures";

/// The time of signing in every signature. `libtrust` puts the current time here, and no one looks at
/// it; were it any other than one and the same, the same manifest would have another signature with
/// every request, and no entity tag could stand for it.
const TIME: &str = "1970-01-01T00:00:00Z";

/// The most signatures that a pushed manifest may have: verifying costs time, and one is usual.
const MAX_SIGNATURES: usize = 16;

/// Why no signature vouches for some content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("{0}")]
pub struct Unverified(&'static str);

#[derive(Serialize)]
struct Signature<'a> {
    header: Header<'a>,
    signature: String,
    protected: String,
}

#[derive(Serialize)]
struct Header<'a> {
    jwk: &'a P256Jwk,
    alg: &'static str,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Protected {
    format_length: usize,
    format_tail: String,
    #[serde(default)]
    time: String,
}

/// Signs a JSON object, written on one line or with [`INDENT`] or another indentation. The result is
/// the same for the same payload and key.
///
/// `None` if the payload is no object. It has a member at least, as every manifest has.
pub fn sign(payload: &str, key: &SigningKey) -> Option<String> {
    let body = payload.trim_ascii_end().strip_suffix('}')?.trim_ascii_end();
    let tail = payload.get(body.len()..).filter(|_| body.trim_ascii_start().starts_with('{'))?;
    let protected = Protected {
        format_length: body.len(),
        format_tail: BASE64.encode(tail),
        time: TIME.to_owned(),
    };
    let protected = BASE64.encode(serde_json::to_string(&protected).ok()?);
    let signature = Signature {
        header: Header { jwk: key.public(), alg: "ES256" },
        signature: BASE64
            .encode(key.sign(signed_bytes(&protected, payload.as_bytes()).as_bytes())?),
        protected,
    };
    let signatures = [signature];
    Some(match indentation(payload) {
        "" => format!("{body},\"{SIGNATURES}\":{}}}", json::compact(&signatures).ok()?),
        indent => {
            let lines = json::indented(&signatures).ok()?.replace(INDENT, indent);
            let lines = lines.replace('\n', &format!("\n{indent}"));
            format!("{body},\n{indent}\"{SIGNATURES}\": {lines}\n}}")
        }
    })
}

/// What the first member of an object with lines of their own for members is indented by.
fn indentation(payload: &str) -> &str {
    let line = payload.strip_prefix("{\n").unwrap_or_default();
    line.find('"').and_then(|quote| line.get(..quote)).unwrap_or_default()
}

/// Gives what all signatures within the content sign, once each has been verified with the key that it
/// names. Whose key that is, is for whoever pulls the image to judge.
///
/// # Errors
///
/// Why the content can't be vouched for.
pub fn verify(content: &[u8]) -> Result<Vec<u8>, Unverified> {
    let signatures = read_signatures(content)?;
    let mut payload = None;
    for signature in &signatures {
        let signed = signed_payload(content, &signature.protected)?;
        if payload.as_ref().is_some_and(|other| *other != signed) {
            return Err(Unverified("its signatures are not for the same content"));
        }
        signature.verify(&signed)?;
        payload = Some(signed);
    }
    payload.ok_or(Unverified("it has no signatures"))
}

#[derive(Deserialize)]
struct ReadSignature {
    header: ReadHeader,
    signature: String,
    protected: String,
}

#[derive(Deserialize)]
struct ReadHeader {
    jwk: Option<Value>,
    alg: String,
}

impl ReadSignature {
    fn verify(&self, payload: &[u8]) -> Result<(), Unverified> {
        let unknown = "a signature has no key of type P-256 or RSA, or one of another id";
        let jwk = self.header.jwk.as_ref().map(PublicJwk::from_json);
        let jwk = jwk.as_ref().and_then(libtrust::read);
        let key = jwk.ok_or(Unverified(unknown))?;
        let signed = signed_bytes(&self.protected, payload);
        let signature = decode(&self.signature).unwrap_or_default();
        if key.verifies(&self.header.alg, signed.as_bytes(), &signature) {
            Ok(())
        } else {
            Err(Unverified("a signature is not its key's, by ES256 or RS256, for this content"))
        }
    }
}

fn read_signatures(content: &[u8]) -> Result<Vec<ReadSignature>, Unverified> {
    #[derive(Deserialize)]
    struct Signed<'a> {
        #[serde(borrow)]
        signatures: Option<&'a RawValue>,
    }
    let malformed = Unverified("its signatures do not have the form of JWS");
    let signed: Signed = serde_json::from_slice(content).map_err(|_| malformed)?;
    let Some(signatures) = signed.signatures else {
        return Err(Unverified("it has no signatures"));
    };
    let unread: Vec<&RawValue> = serde_json::from_str(signatures.get()).map_err(|_| malformed)?;
    if unread.len() > MAX_SIGNATURES {
        return Err(Unverified("it has more than 16 signatures"));
    }
    let read = unread.iter().map(|signature| serde_json::from_str(signature.get()));
    read.collect::<Result<_, _>>().map_err(|_| malformed)
}

/// The content that a signature with this protected header is for.
fn signed_payload(content: &[u8], protected: &str) -> Result<Vec<u8>, Unverified> {
    let malformed = Unverified("a signature's protected header does not say what it is for");
    let protected = decode(protected).ok_or(malformed)?;
    let protected: Protected = serde_json::from_slice(&protected).map_err(|_| malformed)?;
    let body = content.get(..protected.format_length).ok_or(malformed)?;
    let tail = decode(&protected.format_tail).ok_or(malformed)?;
    Ok([body, &tail].concat())
}

/// What is signed for a payload (RFC 7515, section 5.1).
fn signed_bytes(protected: &str, payload: &[u8]) -> String {
    format!("{protected}.{}", BASE64.encode(payload))
}

#[cfg(test)]
mod tests {
    #[cfg(target_family = "wasm")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;
    use crate::registry::schema1::key;

    const PAYLOADS: [&str; 4] = [
        "{\n   \"a\": \"<ä>\",\n   \"b\": [\n      1\n   ]\n}",
        "{\n\t\"a\": 1\n}\n",
        "{\"a\":1}",
        "{ \"a\": 1 } \n",
    ];

    #[test]
    fn what_is_signed_is_verified_and_read_back() {
        for payload in PAYLOADS {
            let signed = sign(payload, &key()).expect("a signature");
            assert_eq!(sign(payload, &key()).as_ref(), Some(&signed), "it is deterministic");
            let json: serde_json::Value = serde_json::from_str(&signed).expect("JSON");
            assert_eq!(json["signatures"][0]["header"]["alg"], "ES256");
            assert_eq!(json["signatures"][0]["header"]["jwk"]["kid"], key().id());
            assert_eq!(verify(signed.as_bytes()).as_deref(), Ok(payload.as_bytes()));
        }
        for no_object in ["", "[]", "}", "{}x"] {
            assert_eq!(sign(no_object, &key()), None, "{no_object:?}");
        }
    }

    #[test]
    fn signatures_are_indented_as_the_object_is() {
        let signed = sign(PAYLOADS[0], &key()).expect("a signature");
        let (payload, signatures) = signed.split_once(",\n   \"signatures\"").expect("signatures");
        assert_eq!(format!("{payload}\n}}"), PAYLOADS[0]);
        let lines: Vec<_> = signatures.lines().map(|line| line.split('"').next()).collect();
        let start = [": [", "      {", "         ", "            ", "               "];
        assert_eq!(lines[..5], start.map(Some));
        assert!(signed.ends_with("\n      }\n   ]\n}"), "{signed}");
        let signed = sign(PAYLOADS[1], &key()).expect("a signature");
        assert!(
            signed.contains(",\n\t\"signatures\": [\n\t\t{\n\t\t\t\"header\": {\n"),
            "{signed}"
        );
    }

    /// Each row: what is replaced in a signed object by what.
    #[test]
    fn what_is_not_signed_is_not_verified() {
        let payload = PAYLOADS[0];
        let signed = sign(payload, &key()).expect("a signature");
        let json: serde_json::Value = serde_json::from_str(&signed).expect("JSON");
        let signature = json["signatures"][0].to_string();
        let protected = |header: &str| BASE64.encode(header);
        let own = json["signatures"][0]["protected"].as_str().expect("text");
        let kid = key().id().to_owned();
        for (from, to) in [
            ("<ä>", "<ö>".to_owned()),
            ("signatures", "signature".to_owned()),
            ("\"signatures\": [", "\"signatures\": [],\"x\": [".to_owned()),
            ("\"signatures\": [", "\"signatures\": 5,\"x\": [".to_owned()),
            ("\"signatures\": [", "\"signatures\": [{},".to_owned()),
            (
                "\"signatures\": [",
                format!("\"signatures\": [{}", format!("{signature},").repeat(16)),
            ),
            ("ES256", "RS256".to_owned()),
            ("ES256", "none".to_owned()),
            (&kid, "AAAA:BBBB".to_owned()),
            ("\"jwk\"", "\"key\"".to_owned()),
            (own, protected("{}")),
            (own, protected("?")),
            (own, "?".to_owned()),
            (own, protected(r#"{"formatLength":-1,"formatTail":"Cn0"}"#)),
            (own, protected(r#"{"formatLength":99999,"formatTail":"Cn0"}"#)),
            (own, protected(r#"{"formatLength":10,"formatTail":"?"}"#)),
            (own, protected(r#"{"formatLength":10,"formatTail":"Cn0"}"#)),
            ("{\n", "{\n\n".to_owned()),
        ] {
            assert!(signed.contains(from), "{from}");
            let changed = signed.replacen(from, &to, 1);
            assert!(verify(changed.as_bytes()).is_err(), "{from} {to}");
        }
        let twice =
            signed.replacen("\"signatures\": [", &format!("\"signatures\": [{signature},"), 1);
        assert_eq!(verify(twice.as_bytes()).as_deref(), Ok(payload.as_bytes()));
        for none in [&b""[..], b"[]", b"{", b"{}", b"\xff"] {
            assert!(verify(none).is_err());
        }
    }
}
