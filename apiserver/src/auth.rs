//! The bearer token: made at first start, kept in a file only its owner can read, compared in constant time.

use std::hint::black_box;

/// The one token that opens the door.
#[derive(Clone)]
pub struct Token {
    secret: String,
}

impl std::fmt::Debug for Token {
    /// Never prints the secret.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token(…)")
    }
}

impl Token {
    /// A token from its text; surrounding white space does not belong to it. `None` for fewer than 16 characters, which would
    /// be guessable.
    pub fn new(text: &str) -> Option<Self> {
        let secret = text.trim();
        (secret.len() >= 16).then(|| Self {
            secret: secret.to_owned(),
        })
    }

    /// The token's text.
    pub fn secret(&self) -> &str {
        &self.secret
    }

    /// Whether an `Authorization` header carries this token.
    pub fn admits(&self, header: &str) -> bool {
        let Some((scheme, given)) = header.split_once(' ') else {
            return false;
        };
        scheme.eq_ignore_ascii_case("bearer")
            && same(given.trim().as_bytes(), self.secret.as_bytes())
    }
}

/// Compares every byte whatever the first ones say, so that time tells nothing but the length.
fn same(given: &[u8], secret: &[u8]) -> bool {
    let mut difference = u8::from(given.len() != secret.len());
    for (index, byte) in secret.iter().enumerate() {
        difference |= black_box(byte ^ given.get(index).copied().unwrap_or(!byte));
    }
    black_box(difference) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_very_token_opens() {
        let token = Token::new(" 0123456789abcdef\n").unwrap();
        assert!(token.admits("Bearer 0123456789abcdef"));
        assert!(token.admits("bearer  0123456789abcdef "));
        for wrong in [
            "",
            "Bearer",
            "Bearer ",
            "Bearer 0123456789abcdeF",
            "Bearer 0123456789abcdef0",
            "Basic 0123456789abcdef",
            "0123456789abcdef",
        ] {
            assert!(!token.admits(wrong), "{wrong}");
        }
        assert!(Token::new("short").is_none());
        assert!(!format!("{token:?}").contains("0123"));
    }
}
