//! Text that nobody may see.

use std::{fmt, sync::Arc};

use serde::{Serialize, Serializer};
use sha2::{Digest as _, Sha256};

/// Text that is never shown: neither `Debug` nor `Display` nor `Serialize` reveal it, only where it was read from.
#[derive(Clone, PartialEq)]
pub struct Secret {
    value: Arc<str>,
    origin: Arc<str>,
}

impl Secret {
    /// `origin` says where the value was read: `env NAME` or `file PATH`.
    pub fn new(value: &str, origin: &str) -> Secret {
        Secret { value: value.into(), origin: origin.into() }
    }

    /// The value itself. Never log it.
    pub fn expose(&self) -> &str {
        &self.value
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.origin)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secret({})", self.origin)
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.origin)
    }
}

/// The SHA-256 of something secret: enough to recognise it, and nothing to sign in with. What is secret has 128 random bits or more:
/// nobody finds it by its digest, so no salt and no slow hash is needed.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest([u8; 32]);

impl Digest {
    /// The digest of some bytes.
    pub fn of(secret: &[u8]) -> Digest {
        Digest(Sha256::digest(secret).into())
    }

    /// From 64 hexadecimal digits; `None` if it is anything else.
    pub fn from_hex(text: &str) -> Option<Digest> {
        let digits = text.as_bytes();
        let mut bytes = [0; 32];
        if digits.len() != 2 * bytes.len() {
            return None;
        }
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks(2)) {
            let digit = |at: usize| char::from(pair[at]).to_digit(16);
            *byte = (digit(0)? << 4 | digit(1)?) as u8;
        }
        Some(Digest(bytes))
    }

    /// The bytes, for a comparison in constant time.
    pub fn bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

/// As 64 hexadecimal digits.
impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// What tells it from others and does not give it away.
impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [first, second, ..] = self.0;
        write!(f, "Digest({first:02x}{second:02x}...)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_shows_only_its_origin() {
        let secret = Secret::new("hunter2", "env ONCALL_TOKEN");
        let json = serde_json::to_string(&secret).expect("a string serialises");
        let shown = format!("{secret:?} {secret} {json}");
        assert!(!shown.contains("hunter2"), "{shown}");
        assert_eq!(shown.matches("env ONCALL_TOKEN").count(), 3);
        assert_eq!(secret.expose(), "hunter2");
    }

    #[test]
    fn digests_are_read_and_hardly_shown() {
        // FIPS 180-2, appendix B.1.
        let text = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        let digest = Digest::of(b"abc");
        assert_eq!((digest.to_string().as_str(), Digest::from_hex(text)), (text, Some(digest)));
        assert_eq!(Digest::from_hex(&text.to_uppercase()), Some(digest));
        for wrong in ["", "ab", &text[1..], &text.replace('b', "g"), &"\u{e4}".repeat(32)] {
            assert_eq!(Digest::from_hex(wrong), None, "{wrong}");
        }
        assert_eq!(format!("{digest:?}"), "Digest(ba78...)");
    }
}
