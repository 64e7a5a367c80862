//! Text that nobody may see.

use std::{fmt, sync::Arc};

use serde::{Serialize, Serializer};

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

/// The SHA-256 of something secret: enough to recognise it, and nothing to sign in with.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Digest([u8; 32]);

impl Digest {
    /// The digest of a text.
    pub fn of(secret: &[u8]) -> Digest {
        let mut bytes = [0; 32];
        bytes.copy_from_slice(ring::digest::digest(&ring::digest::SHA256, secret).as_ref());
        Digest(bytes)
    }

    /// From 64 hexadecimal digits; `None` if it is anything else.
    pub fn from_hex(text: &str) -> Option<Digest> {
        let digits = text.as_bytes();
        if digits.len() != 64 || !digits.iter().all(u8::is_ascii_hexdigit) {
            return None;
        }
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks(2)) {
            *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
        }
        Some(Digest(bytes))
    }

    /// As 64 hexadecimal digits.
    pub fn hex(&self) -> String {
        self.0.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// The bytes, for a comparison in constant time.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Digest(..)")
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
    fn digests_are_those_of_sha256sum() {
        let hex = "f52fbd32b2b3b86ff88ef6c490628285f482af15ddcb29541f94bcf526a3f6c7";
        assert_eq!(Digest::of(b"hunter2").hex(), hex);
        assert_eq!(Digest::from_hex(hex), Some(Digest::of(b"hunter2")));
        for bad in ["", "f5", &hex[1..], &hex.replace('f', "g")] {
            assert_eq!(Digest::from_hex(bad), None, "{bad}");
        }
    }
}
