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
}
