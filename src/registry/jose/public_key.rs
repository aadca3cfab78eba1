//! Public keys, and what they verify.

use base64::Engine as _;
use p256::ecdsa::{self, signature::Verifier as _};
use rsa::BoxedUint;
use rsa::pkcs1v15;
use serde_json::Value;
use sha2::Sha256;

use super::{BASE64, decode};

/// The length of a coordinate or a secret of P-256, in bytes.
pub const P256_BYTES: usize = 32;

/// The largest RSA key that is taken, in bytes: 8192 bits. To verify by a larger one would take a worker too long.
const RSA_MAX_BYTES: usize = 1024;

/// A public key that a signature is verified by.
#[derive(Debug, Clone, PartialEq)]
pub enum PublicKey {
    /// For ES256 (RFC 7518, section 3.4).
    P256(ecdsa::VerifyingKey),
    /// For RS256 (RFC 7518, section 3.3).
    Rsa(pkcs1v15::VerifyingKey<Sha256>),
    /// For EdDSA by Ed25519 (RFC 8037, section 3.1).
    Ed25519(Box<ed25519_dalek::VerifyingKey>),
}

/// The members of a JSON key (RFC 7517) that matter here.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PublicJwk {
    kty: String,
    crv: Option<String>,
    /// The key's id.
    pub kid: Option<String>,
    x: Option<String>,
    y: Option<String>,
    n: Option<String>,
    e: Option<String>,
}

impl PublicJwk {
    /// The members of a JSON object; those that are no texts count as absent.
    pub fn from_json(json: &Value) -> Self {
        let member = |name: &str| json.get(name).and_then(Value::as_str).map(str::to_owned);
        Self {
            kty: member("kty").unwrap_or_default(),
            crv: member("crv"),
            kid: member("kid"),
            x: member("x"),
            y: member("y"),
            n: member("n"),
            e: member("e"),
        }
    }

    /// The key, if it is one of those that are known.
    pub fn read(&self) -> Option<PublicKey> {
        let number = |member: &Option<String>| decode(member.as_deref()?);
        match (self.kty.as_str(), self.crv.as_deref()) {
            ("EC", Some("P-256")) => {
                p256_key(&number(&self.x)?, &number(&self.y)?).map(PublicKey::P256)
            }
            ("OKP", Some("Ed25519")) => {
                let point: [u8; 32] = number(&self.x)?.try_into().ok()?;
                let key = ed25519_dalek::VerifyingKey::from_bytes(&point).ok()?;
                (!key.is_weak()).then(|| PublicKey::Ed25519(Box::new(key)))
            }
            ("RSA", _) => {
                let (n, e) = (number(&self.n)?, number(&self.e)?);
                if n.len() > RSA_MAX_BYTES {
                    return None;
                }
                let [n, e] = [n.as_slice(), e.as_slice()].map(BoxedUint::from_be_slice_vartime);
                let key = rsa::PublicKey::new(n, e).ok()?;
                Some(PublicKey::Rsa(pkcs1v15::VerifyingKey::new(key)))
            }
            _ => None,
        }
    }
}

impl PublicKey {
    /// Whether `signature` is this key's for `content`, by the algorithm that JWS calls `algorithm`. A key has one
    /// algorithm alone: what a signature says of its own can't make another of it.
    pub fn verifies(&self, algorithm: &str, content: &[u8], signature: &[u8]) -> bool {
        match (self, algorithm) {
            (Self::P256(key), "ES256") => ecdsa::Signature::from_slice(signature)
                .is_ok_and(|signature| key.verify(content, &signature).is_ok()),
            (Self::Rsa(key), "RS256") => pkcs1v15::Signature::try_from(signature)
                .is_ok_and(|signature| key.verify(content, &signature).is_ok()),
            (Self::Ed25519(key), "EdDSA") => ed25519_dalek::Signature::from_slice(signature)
                .is_ok_and(|signature| key.verify_strict(content, &signature).is_ok()),
            _ => false,
        }
    }
}

/// The P-256 key of these coordinates, if they are those of a point on the curve.
pub fn p256_key(x: &[u8], y: &[u8]) -> Option<ecdsa::VerifyingKey> {
    if x.len() != P256_BYTES || y.len() != P256_BYTES {
        return None;
    }
    // An uncompressed point (SEC 1, section 2.3.3).
    ecdsa::VerifyingKey::from_sec1_bytes(&[&[4], x, y].concat()).ok()
}

/// The coordinates of a P-256 key in base64; `None` for the point at infinity, which has none.
pub fn p256_coordinates(key: &ecdsa::VerifyingKey) -> Option<(String, String)> {
    let point = key.to_sec1_point(false);
    Some((BASE64.encode(point.x()?), BASE64.encode(point.y()?)))
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

    /// RFC 8037, appendix A.2 and A.4: the same for Ed25519.
    const ED25519_X: &str = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo";
    const SIGNED_ED25519: &[u8] = b"eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc";
    const ED25519_SIGNATURE: &str =
        "hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg";

    fn jwk(json: serde_json::Value) -> PublicJwk {
        PublicJwk::from_json(&json)
    }

    fn rsa() -> serde_json::Value {
        serde_json::json!({ "kty": "RSA", "n": RSA_N, "e": "AQAB" })
    }

    fn ed25519() -> serde_json::Value {
        serde_json::json!({ "kty": "OKP", "crv": "Ed25519", "x": ED25519_X })
    }

    fn p256() -> serde_json::Value {
        serde_json::json!({ "kty": "EC", "crv": "P-256", "x": X, "y": Y })
    }

    #[test]
    fn the_signatures_of_rfc_7515_are_verified() {
        for (json, algorithm, signed, signature) in [
            (rsa(), "RS256", SIGNED, RSA_SIGNATURE),
            (p256(), "ES256", SIGNED_P256, P256_SIGNATURE),
            (ed25519(), "EdDSA", SIGNED_ED25519, ED25519_SIGNATURE),
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
            (p256(), "x", Y),
            (p256(), "x", "AA"),
            (p256(), "y", ""),
            (p256(), "crv", "P-384"),
            (ed25519(), "crv", "Ed448"),
            (ed25519(), "x", "AA"),
            // A point of small order, whose signatures anybody can make.
            (ed25519(), "x", "AQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"),
        ] {
            let mut json = base;
            json[member] = value.into();
            assert!(jwk(json).read().is_none(), "{member} {value:?}");
        }
    }
}
