//! The credentials of a request, as its `Authorization` header has them.

use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

/// Base64 as Basic credentials have it (RFC 7617), with or without padding.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Credentials that nobody has looked at. Nothing shows them: there is no `Debug`.
#[derive(PartialEq, Eq)]
pub enum Credentials<'a> {
    /// None at all.
    None,
    /// A token (RFC 6750).
    Bearer(&'a str),
    /// A name and a password (RFC 7617).
    Basic(NameAndPassword),
    /// Something that is neither, or several of them.
    Unreadable,
}

/// A name and a password. Nothing shows them: there is no `Debug`.
#[derive(PartialEq, Eq)]
pub struct NameAndPassword {
    /// The name.
    pub name: String,
    /// The password, or a robot's token.
    pub password: String,
}

impl<'a> Credentials<'a> {
    /// Reads the values of all `Authorization` headers.
    pub fn read(mut headers: impl Iterator<Item = &'a str>) -> Self {
        let (header, more) = (headers.next(), headers.next());
        let Some(header) = header else {
            return Self::None;
        };
        if more.is_some() {
            return Self::Unreadable;
        }
        let (scheme, value) = header.trim().split_once(' ').unwrap_or_default();
        let value = value.trim_start();
        if scheme.eq_ignore_ascii_case("bearer") {
            return Self::Bearer(value);
        }
        if scheme.eq_ignore_ascii_case("basic") {
            return basic(value).map_or(Self::Unreadable, Self::Basic);
        }
        Self::Unreadable
    }
}

fn basic(value: &str) -> Option<NameAndPassword> {
    let text = String::from_utf8(BASE64.decode(value).ok()?).ok()?;
    let (name, password) = text.split_once(':')?;
    Some(NameAndPassword { name: name.to_owned(), password: password.to_owned() })
}

#[cfg(test)]
mod tests {
    #[cfg(target_family = "wasm")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;

    #[test]
    fn headers_are_read_as_clients_write_them() {
        let basic = |name: &str, password: &str| {
            Credentials::Basic(NameAndPassword { name: name.into(), password: password.into() })
        };
        for (headers, expected) in [
            (&[][..], Credentials::None),
            (&["Bearer a.b.c"], Credentials::Bearer("a.b.c")),
            (&["bearer  a.b.c"], Credentials::Bearer("a.b.c")),
            (&["Basic YWRhOndvbmRlcjpsYW5k"], basic("ada", "wonder:land")),
            (&["basic YWRhOg=="], basic("ada", "")),
            (&["Basic YWRhOg"], basic("ada", "")),
            (&["Basic Og=="], basic("", "")),
            (&["Basic YWRh"], Credentials::Unreadable),
            (&["Basic ***"], Credentials::Unreadable),
            (&["Basic /zo="], Credentials::Unreadable),
            (&["Bearer"], Credentials::Unreadable),
            (&["Digest username=ada"], Credentials::Unreadable),
            (&[""], Credentials::Unreadable),
            (&["\u{fffd}"], Credentials::Unreadable),
            (&["Bearer a", "Bearer b"], Credentials::Unreadable),
        ] {
            assert!(Credentials::read(headers.iter().copied()) == expected, "{headers:?}");
        }
    }
}
