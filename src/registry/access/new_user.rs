//! Making a user: what a password must be like so that it is worth something, and is taken.

use thiserror::Error;

use super::accounts::ROBOT_PREFIX;
use super::htpasswd::{COST_MAX, COST_MIN, PASSWORD_BYTES, PasswordHash, User, is_account_name};

/// Why there can be no such user. No text of it says anything about the password.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum NewUserError {
    /// The name is none.
    #[error("a name must have a character at least, and neither colons nor control characters")]
    Name,
    /// Whoever knows the name could log in.
    #[error("the password is empty")]
    Empty,
    /// bcrypt would not look at the rest, and a shorter one would do.
    #[error("the password has more than {PASSWORD_BYTES} bytes, and bcrypt looks at no more")]
    TooLong,
    /// A NUL ends a password for the programs that read such lines.
    #[error("the password has a NUL, which no program takes")]
    Nul,
    /// What begins like that is looked up among the tokens of robots alone.
    #[error(
        "the password begins with {ROBOT_PREFIX}, as the tokens of robots do, and so would never be taken"
    )]
    LikeToken,
    /// It would take no time to guess, or too long to check.
    #[error("the cost must be from {COST_MIN} to {COST_MAX}")]
    Cost,
}

impl User {
    /// A user with a password, which is hashed with these random bits.
    ///
    /// # Errors
    ///
    /// Why there can be no such user.
    pub fn new(
        name: &str,
        password: &str,
        cost: u32,
        salt: [u8; 16],
    ) -> Result<Self, NewUserError> {
        if !is_account_name(name) {
            return Err(NewUserError::Name);
        }
        if !(COST_MIN..=COST_MAX).contains(&cost) {
            return Err(NewUserError::Cost);
        }
        check_password(password)?;
        Ok(Self { name: name.to_owned(), hash: PasswordHash::of(password, cost, salt) })
    }
}

/// Finds a password by which nobody could log in, or too many.
fn check_password(password: &str) -> Result<(), NewUserError> {
    if password.is_empty() {
        return Err(NewUserError::Empty);
    }
    if password.len() > PASSWORD_BYTES {
        return Err(NewUserError::TooLong);
    }
    if password.contains('\0') {
        return Err(NewUserError::Nul);
    }
    if password.starts_with(ROBOT_PREFIX) {
        return Err(NewUserError::LikeToken);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #[cfg(target_family = "wasm")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;

    /// That of the known line below.
    const SALT: [u8; 16] =
        [60, 145, 215, 31, 51, 79, 241, 101, 114, 46, 40, 219, 205, 178, 153, 95];

    #[test]
    fn a_new_user_is_written_as_other_programs_do_and_read_again() {
        let user = |name: &str, password: &str| User::new(name, password, 5, SALT);
        // By libxcrypt.
        let ada = User::new("ada", "wonderland", 5, SALT).expect("a user");
        let line = "ada:$2y$05$NHFVFxLN6UTwJghZxZIXVu1Y2UfC8511cK9JLb2Did1ReDyxC6EFu";
        assert_eq!(ada.line(), line);
        let longest = "ü".repeat(36);
        for password in ["a", " with spaces ", "a:b", &longest] {
            let user = user("ada b", password).expect("a user");
            assert_eq!(user.line().parse(), Ok(user.clone()), "{password:?}");
            assert!(user.has_password(password, 5) && !user.has_password("b", 5), "{password:?}");
        }
        for (name, password, problem) in [
            ("", "a", NewUserError::Name),
            ("a:b", "a", NewUserError::Name),
            ("a\n", "a", NewUserError::Name),
            ("ada", "", NewUserError::Empty),
            ("ada", &format!("{longest}x"), NewUserError::TooLong),
            ("ada", "a\0", NewUserError::Nul),
            ("ada", "mrg_secret", NewUserError::LikeToken),
        ] {
            assert_eq!(user(name, password), Err(problem), "{name:?} {password:?}");
        }
        for cost in [0, 3, 13, 31, 99] {
            assert_eq!(User::new("ada", "a", cost, SALT), Err(NewUserError::Cost));
        }
    }
}
