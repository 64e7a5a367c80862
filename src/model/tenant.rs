//! Who may send requests, and how much.

use std::fmt;

use sha2::{Digest, Sha256};

use super::{ModelPattern, RouteId, TenantId};

/// The SHA-256 of an API key. Keys have 256 random bits: nobody finds one by its hash, so no salt and no slow hash is needed.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyHash([u8; 32]);

impl KeyHash {
    /// The hash of a key.
    pub fn of(key: &[u8]) -> KeyHash {
        KeyHash(Sha256::digest(key).into())
    }

    /// Reads 64 hexadecimal digits.
    pub fn from_hex(text: &str) -> Option<KeyHash> {
        let digits = text.as_bytes();
        let mut hash = [0; 32];
        if digits.len() != 2 * hash.len() {
            return None;
        }
        for (byte, pair) in hash.iter_mut().zip(digits.chunks(2)) {
            let digit = |at: usize| char::from(pair[at]).to_digit(16);
            *byte = (digit(0)? << 4 | digit(1)?) as u8;
        }
        Some(KeyHash(hash))
    }

    /// The bytes, for a comparison in constant time.
    pub fn bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for KeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for KeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [first, second, ..] = self.0;
        write!(f, "KeyHash({first:02x}{second:02x}...)")
    }
}

/// Someone who may send requests.
#[derive(Clone, Debug, PartialEq)]
pub struct Tenant {
    /// Its name.
    pub id: TenantId,
    /// Hashes of its keys. No two tenants share one.
    pub keys: Vec<KeyHash>,
    /// Routes that it may use; empty for all.
    pub routes: Vec<RouteId>,
    /// Models that it may ask for; empty for all.
    pub models: Vec<ModelPattern>,
    /// How much.
    pub allowance: Allowance,
}

/// How much a tenant may ask for; `None` for as much as it likes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Allowance {
    /// Requests in a minute.
    pub requests_per_minute: Option<u64>,
    /// Tokens in a minute, prompts and answers together.
    pub tokens_per_minute: Option<u64>,
    /// USD in a UTC day.
    pub usd_per_day: Option<f64>,
    /// USD in a UTC month.
    pub usd_per_month: Option<f64>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_are_read_and_hardly_shown() {
        // FIPS 180-2, appendix B.1.
        let text = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        let hash = KeyHash::of(b"abc");
        assert_eq!((hash.to_string().as_str(), KeyHash::from_hex(text)), (text, Some(hash)));
        assert_eq!(KeyHash::from_hex(&text.to_uppercase()), Some(hash));
        for wrong in ["", "ab", &text[1..], &text.replace('b', "g"), &"ä".repeat(32)] {
            assert_eq!(KeyHash::from_hex(wrong), None, "{wrong}");
        }
        assert_eq!(format!("{hash:?}"), "KeyHash(ba78...)");
    }
}
