//! Keys as JSON (RFC 7517), and the ids that `libtrust` gives them.

use base64::Engine as _;
use base64::alphabet::URL_SAFE;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use p256::ecdsa::{self, signature::Verifier as _};
use p256::pkcs8::EncodePublicKey;
use rsa::BoxedUint;
use rsa::pkcs1v15;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// Base64 as JWS has it (RFC 7515, section 2): URL-safe, written without padding, read with or without.
pub const BASE64: GeneralPurpose = GeneralPurpose::new(
    &URL_SAFE,
    GeneralPurposeConfig::new()
        .with_encode_padding(false)
        .with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// The letters of base32 (RFC 4648, section 6).
const BASE32: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";

/// How many bytes of its hash identify a key.
const ID_BYTES: usize = 30;

/// The length of a coordinate or a secret of P-256, in bytes.
pub const P256_BYTES: usize = 32;

/// A P-256 public key as JSON, in the order in which `libtrust` writes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct P256Jwk {
    crv: &'static str,
    /// The key's id.
    pub kid: String,
    kty: &'static str,
    /// The coordinates.
    pub x: String,
    /// The same.
    pub y: String,
}

impl P256Jwk {
    /// The JSON form of a key; `None` if it can't be written, as the point at infinity.
    pub fn of(key: &ecdsa::VerifyingKey) -> Option<Self> {
        let point = key.to_sec1_point(false);
        let (x, y) = (point.x()?, point.y()?);
        Some(Self {
            crv: "P-256",
            kid: key_id(&p256::PublicKey::from(key))?,
            kty: "EC",
            x: BASE64.encode(x),
            y: BASE64.encode(y),
        })
    }
}

/// A public key that a signature names.
#[derive(Debug)]
pub enum PublicKey {
    /// For ES256 (RFC 7518, section 3.4).
    P256(ecdsa::VerifyingKey),
    /// For RS256 (RFC 7518, section 3.3).
    Rsa(pkcs1v15::VerifyingKey<Sha256>),
}

/// The members of a JSON key that matter here.
#[derive(Debug, Deserialize)]
pub struct PublicJwk {
    kty: String,
    crv: Option<String>,
    kid: Option<String>,
    x: Option<String>,
    y: Option<String>,
    n: Option<String>,
    e: Option<String>,
}

impl PublicJwk {
    /// The key, if it is one of those that are known, and its id is its own.
    pub fn read(&self) -> Option<PublicKey> {
        let (key, id) = match (self.kty.as_str(), self.crv.as_deref()) {
            ("EC", Some("P-256")) => {
                let (x, y) = (decode(self.x.as_deref()?)?, decode(self.y.as_deref()?)?);
                let key = p256_key(&x, &y)?;
                let id = key_id(&p256::PublicKey::from(&key))?;
                (PublicKey::P256(key), id)
            }
            ("RSA", _) => {
                let (n, e) = (decode(self.n.as_deref()?)?, decode(self.e.as_deref()?)?);
                let [n, e] = [n.as_slice(), e.as_slice()].map(BoxedUint::from_be_slice_vartime);
                let key = rsa::PublicKey::new(n, e).ok()?;
                let id = key_id(&key)?;
                (PublicKey::Rsa(pkcs1v15::VerifyingKey::new(key)), id)
            }
            _ => return None,
        };
        self.kid.as_ref().is_none_or(|kid| *kid == id).then_some(key)
    }
}

impl PublicKey {
    /// Whether `signature` is this key's for `content`, by the algorithm that JWS calls `algorithm`.
    pub fn verifies(&self, algorithm: &str, content: &[u8], signature: &[u8]) -> bool {
        match (self, algorithm) {
            (Self::P256(key), "ES256") => ecdsa::Signature::from_slice(signature)
                .is_ok_and(|signature| key.verify(content, &signature).is_ok()),
            (Self::Rsa(key), "RS256") => pkcs1v15::Signature::try_from(signature)
                .is_ok_and(|signature| key.verify(content, &signature).is_ok()),
            _ => false,
        }
    }
}

/// Decodes one member of a key.
pub fn decode(text: &str) -> Option<Vec<u8>> {
    BASE64.decode(text).ok()
}

/// The P-256 key of these coordinates, if they are those of a point on the curve.
pub fn p256_key(x: &[u8], y: &[u8]) -> Option<ecdsa::VerifyingKey> {
    if x.len() != P256_BYTES || y.len() != P256_BYTES {
        return None;
    }
    // An uncompressed point (SEC 1, section 2.3.3).
    ecdsa::VerifyingKey::from_sec1_bytes(&[&[4], x, y].concat()).ok()
}

/// An id in the form of `libtrust`: most of the hash of the key in DER (RFC 5280, section 4.1.2.7).
fn key_id(key: &impl EncodePublicKey) -> Option<String> {
    let der = key.to_public_key_der().ok()?;
    Some(grouped_base32(Sha256::digest(der.as_bytes()).get(..ID_BYTES)?))
}

/// Base32 in groups of four letters. `bytes` are a multiple of five, so that there is no padding.
fn grouped_base32(bytes: &[u8]) -> String {
    let mut text = String::new();
    for five in bytes.chunks(5) {
        let number = five.iter().fold(0u64, |number, byte| number << 8 | u64::from(*byte));
        for letter in 0..8 {
            if letter % 4 == 0 && !text.is_empty() {
                text.push(':');
            }
            let index = usize::try_from(number >> (35 - 5 * letter) & 31).unwrap_or_default();
            text.extend(BASE32.get(index).map(|letter| char::from(*letter)));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    #[cfg(target_family = "wasm")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;

    /// RFC 7515, appendix A.2: an RSA key, what it signs and the signature.
    const RSA_N: &str = "ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yRT-SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ";
    const SIGNED: &[u8] = b"eyJhbGciOiJSUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ";
    const RSA_SIGNATURE: &str = "cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF5YKt_O8W2Fp5jujGbds9uJdbF9CUAr7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBMHlb1L07Qe7K0GarZRmB_eSN9383LcOLn6_dO--xi12jzDwusC-eOkHWEsqtFZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5AXLIhWkWywlVmtVrBp0igcN_IoypGlUPQGe77Rw";
    /// RFC 7515, appendix A.3: the same for P-256.
    const X: &str = "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU";
    const Y: &str = "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0";
    const SIGNED_P256: &[u8] = b"eyJhbGciOiJFUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ";
    const P256_SIGNATURE: &str =
        "DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q";

    fn jwk(json: serde_json::Value) -> PublicJwk {
        serde_json::from_value(json).expect("a key's JSON")
    }

    fn rsa() -> serde_json::Value {
        serde_json::json!({ "kty": "RSA", "n": RSA_N, "e": "AQAB" })
    }

    fn p256() -> serde_json::Value {
        serde_json::json!({ "kty": "EC", "crv": "P-256", "x": X, "y": Y })
    }

    #[test]
    fn the_signatures_of_rfc_7515_are_verified() {
        for (json, algorithm, signed, signature) in [
            (rsa(), "RS256", SIGNED, RSA_SIGNATURE),
            (p256(), "ES256", SIGNED_P256, P256_SIGNATURE),
        ] {
            let key = jwk(json).read().expect("a key");
            let signature = decode(signature).expect("base64");
            assert!(key.verifies(algorithm, signed, &signature), "{algorithm}");
            assert!(!key.verifies("none", signed, &signature));
            assert!(!key.verifies(algorithm, &signed[1..], &signature));
            assert!(!key.verifies(algorithm, signed, &signature[1..]));
            assert!(!key.verifies(algorithm, signed, b""));
            let mut other = signature.clone();
            other[40] ^= 1;
            assert!(!key.verifies(algorithm, signed, &other));
        }
        let key = jwk(p256()).read().expect("a key");
        assert!(!key.verifies("RS256", SIGNED_P256, &decode(P256_SIGNATURE).expect("base64")));
    }

    #[test]
    fn a_key_that_is_none_is_refused() {
        for (base, member, value) in [
            (rsa(), "n", ""),
            (rsa(), "n", "AQAB"),
            (rsa(), "e", ""),
            (rsa(), "e", "AQ"),
            (rsa(), "e", "?"),
            (rsa(), "kty", "oct"),
            (rsa(), "kid", "other"),
            (p256(), "x", Y),
            (p256(), "x", "AA"),
            (p256(), "y", ""),
            (p256(), "crv", "P-384"),
            (p256(), "kid", "AAAA:BBBB"),
        ] {
            let mut json = base;
            json[member] = value.into();
            assert!(jwk(json).read().is_none(), "{member} {value:?}");
        }
    }

    #[test]
    fn an_id_is_twelve_groups_of_base32() {
        let key = p256_key(&decode(X).expect("base64"), &decode(Y).expect("base64"));
        let jwk = P256Jwk::of(&key.expect("a key")).expect("a key");
        assert_eq!((jwk.x.as_str(), jwk.y.as_str()), (X, Y));
        let groups: Vec<_> = jwk.kid.split(':').collect();
        assert!(groups.len() == 12 && groups.iter().all(|group| group.len() == 4), "{}", jwk.kid);
        // From RFC 4648, section 10.
        assert_eq!(grouped_base32(b"foobafooba"), "MZXW:6YTB:MZXW:6YTB");
    }
}
