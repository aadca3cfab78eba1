//! Users with passwords, as Apache's `htpasswd -B` writes them: `name:$2y$10$…`, a bcrypt hash. `distribution` has the
//! same files.
//!
//! Nothing here shows a hash: not an error, not `Debug`.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::alphabet::BCRYPT;
use base64::engine::general_purpose::NO_PAD;
use base64::engine::{GeneralPurpose, GeneralPurposeConfig};
use subtle::ConstantTimeEq as _;
use thiserror::Error;

/// Base64 as bcrypt has it. The last digit has bits that belong to nothing; programs differ in what they put there.
const BASE64: GeneralPurpose = GeneralPurpose::new(&BCRYPT, BCRYPT_FORM);
const BCRYPT_FORM: GeneralPurposeConfig = NO_PAD.with_decode_allow_trailing_bits(true);

/// The lowest cost that bcrypt knows.
pub const COST_MIN: u32 = 4;

/// The highest cost that is taken: each is twice as much work as the one before, and a worker of Envoy does nothing else
/// meanwhile. This one takes half a second.
pub const COST_MAX: u32 = 12;

/// How much of a password bcrypt looks at, in bytes, with the NUL that ends it.
pub const PASSWORD_BYTES: usize = 72;

/// How much of its output is kept, in bytes.
const HASH_BYTES: usize = 23;

/// A user with the hash of a password.
#[derive(Clone, PartialEq, Eq)]
pub struct User {
    /// The name.
    pub name: String,
    pub(super) hash: PasswordHash,
}

/// What bcrypt makes of a password.
#[derive(Clone, PartialEq, Eq)]
pub struct PasswordHash {
    cost: u32,
    salt: [u8; 16],
    hash: [u8; HASH_BYTES],
}

/// Why a line is refused. No text of it says anything about the hash.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum HtpasswdError {
    /// It has no colon, or nothing before it.
    #[error(
        "a user must be NAME:HASH, as `htpasswd -nB NAME` and `moorage user add NAME` write it"
    )]
    Form,
    /// The hash is another than bcrypt's.
    #[error(
        "the password of {0:?} must be hashed by bcrypt ($2y$…): make it by `htpasswd -nB` or `moorage user add`"
    )]
    Hash(String),
    /// It takes too long to check.
    #[error("the password of {0:?} is hashed at a cost that is not from {COST_MIN} to {COST_MAX}")]
    Cost(String),
}

/// Whether a user or robot can have this name. A colon would end it in Basic credentials (RFC 7617).
pub fn is_account_name(name: &str) -> bool {
    !name.is_empty() && !name.contains(|c: char| c == ':' || c.is_control())
}

impl FromStr for User {
    type Err = HtpasswdError;

    fn from_str(line: &str) -> Result<Self, HtpasswdError> {
        let (name, hash) = line.trim_end().split_once(':').ok_or(HtpasswdError::Form)?;
        if !is_account_name(name) {
            return Err(HtpasswdError::Form);
        }
        let hash = PasswordHash::parse(hash).ok_or_else(|| HtpasswdError::Hash(name.to_owned()))?;
        if !(COST_MIN..=COST_MAX).contains(&hash.cost) {
            return Err(HtpasswdError::Cost(name.to_owned()));
        }
        Ok(Self { name: name.to_owned(), hash })
    }
}

impl User {
    /// The user's line of htpasswd. It shows the hash.
    pub fn line(&self) -> String {
        let PasswordHash { cost, salt, hash } = &self.hash;
        format!("{}:$2y${cost:02}${}{}", self.name, BASE64.encode(salt), BASE64.encode(hash))
    }

    /// How much work it is to check the password: 2 to the power of this.
    pub fn cost(&self) -> u32 {
        self.hash.cost
    }

    /// Whether this is the password. It takes as long as for any other user and any other password, if `cost` is the
    /// highest of all users.
    pub fn has_password(&self, password: &str, cost: u32) -> bool {
        let is_right = self.hash.is_of(password);
        // Together with the first, as much work as one at that cost.
        for more in self.hash.cost..cost {
            PasswordHash { cost: more, ..self.hash.clone() }.is_of(password);
        }
        is_right
    }
}

impl PasswordHash {
    /// The hash of no password, at this cost: what is compared for users who do not exist.
    pub fn of_nobody(cost: u32) -> Self {
        Self { cost, salt: *b"nobody is called", hash: [0; HASH_BYTES] }
    }

    /// The hash of a password.
    pub fn of(password: &str, cost: u32, salt: [u8; 16]) -> Self {
        Self { cost, salt, hash: digest(cost, salt, password) }
    }

    fn parse(text: &str) -> Option<Self> {
        let (version, rest) = text.strip_prefix('$')?.split_once('$')?;
        // One and the same for passwords that this takes; the versions tell of faults of old programs.
        if !matches!(version, "2a" | "2b" | "2y") {
            return None;
        }
        let (cost, rest) = rest.split_once('$')?;
        let (salt, hash) = rest.split_at_checked(22)?;
        Some(Self {
            cost: cost.parse().ok()?,
            salt: BASE64.decode(salt).ok()?.try_into().ok()?,
            hash: BASE64.decode(hash).ok()?.try_into().ok()?,
        })
    }

    /// Whether it is the hash of this password, in constant time.
    pub fn is_of(&self, password: &str) -> bool {
        let is_equal = digest(self.cost, self.salt, password).ct_eq(&self.hash);
        // A NUL would end the password for the programs that made the hash.
        bool::from(is_equal) && !password.contains('\0')
    }
}

/// What bcrypt makes of a password.
fn digest(cost: u32, salt: [u8; 16], password: &str) -> [u8; HASH_BYTES] {
    let mut bytes = password.as_bytes().to_vec();
    bytes.push(0);
    bytes.truncate(PASSWORD_BYTES);
    let [hash @ .., _] = bcrypt::bcrypt(cost, salt, &bytes);
    hash
}

impl fmt::Debug for User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("User").field(&self.name).finish()
    }
}

impl fmt::Debug for PasswordHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PasswordHash").field("cost", &self.cost).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    #[cfg(target_family = "wasm")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;

    fn user(line: &str) -> User {
        line.parse().expect("a user")
    }

    #[test]
    fn passwords_are_checked_as_other_programs_do() {
        // By libxcrypt, and from the tests of jBCrypt.
        let long = "x".repeat(72);
        for (line, password) in [
            ("ada:$2y$05$NHFVFxLN6UTwJghZxZIXVu1Y2UfC8511cK9JLb2Did1ReDyxC6EFu", "wonderland"),
            ("a:$2a$06$DCq7YPn5Rq63x1Lad4cll.TV4S6ytwfsfvkgY8jIucDrjc8deX1s.", ""),
            ("a:$2a$06$m0CrhHm10qJ3lXRY.5zDGO3rS2KdeeWLuGmsfGlMfOxih58VYVfxe", "a"),
        ] {
            let user = user(line);
            assert!(user.has_password(password, user.cost()), "{user:?}");
            assert!(user.has_password(password, user.cost() + 2), "{user:?}");
            for wrong in ["Wonderland", "a ", "a\0", "wonderland\0", &long] {
                assert!(!user.has_password(wrong, user.cost()), "{user:?} {wrong:?}");
            }
        }
    }

    #[test]
    fn what_bcrypt_does_not_look_at_does_not_count() {
        let [hash @ .., _] = bcrypt::bcrypt(4, [7; 16], "x".repeat(72).as_bytes());
        let hash = PasswordHash { cost: 4, salt: [7; 16], hash };
        for length in [72, 73, 1000] {
            assert!(hash.is_of(&"x".repeat(length)), "{length}");
        }
        assert!(!hash.is_of(&"x".repeat(71)));
        assert!(!PasswordHash::of_nobody(4).is_of(""));
    }

    #[test]
    fn a_line_that_is_no_user_is_refused_and_never_shown() {
        let hash = "NHFVFxLN6UTwJghZxZIXVu1Y2UfC8511cK9JLb2Did1ReDyxC6EFu";
        let bcrypt = format!("ada:$2y$05${hash}");
        for (line, problem) in [
            ("", "NAME:HASH"),
            ("ada", "NAME:HASH"),
            (&bcrypt[3..], "NAME:HASH"),
            (&bcrypt.replace("ada", "a\tda"), "NAME:HASH"),
            (&bcrypt.replace("2y", "1"), "bcrypt"),
            (&bcrypt.replace("$05$", "$5x$"), "bcrypt"),
            (&bcrypt.replace("$05$", "$03$"), "cost"),
            (&bcrypt.replace("$05$", "$13$"), "cost"),
            (&bcrypt[..bcrypt.len() - 1], "bcrypt"),
            (&format!("{bcrypt}x"), "bcrypt"),
            (&bcrypt.replace("Y2U", "Y-U"), "bcrypt"),
            ("ada:{SHA}VBPuJHI7uixaa6LQGWx4s+5GKNE=", "bcrypt"),
            ("ada:$apr1$bK2vJ8bS$IKhB9tUbQhBWd5qEc1G8M/", "bcrypt"),
        ] {
            let error = line.parse::<User>().expect_err("no user").to_string();
            assert!(error.contains(problem) && !error.contains("NHF"), "{line}: {error}");
        }
        let shown = format!("{:?} {:?}", user(&bcrypt), user(&bcrypt).hash);
        assert!(!shown.contains("NHF") && !shown.contains("salt"), "{shown}");
        assert_eq!(user(&format!("{bcrypt}\r\n")), user(&bcrypt), "as a line of a file");
    }
}
