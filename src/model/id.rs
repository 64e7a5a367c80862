//! Names that the operator gives to things.

use std::{borrow::Borrow, fmt, str::FromStr, sync::Arc};

use serde::{Deserialize, Serialize};

/// Longest name accepted: names become metric labels, file keys and URL segments.
pub const NAME_LEN_MAX: usize = 63;

fn valid(name: &str) -> Result<(), String> {
    if name.is_empty() {
        return Err("a name must not be empty".into());
    }
    if name.len() > NAME_LEN_MAX {
        return Err(format!(
            "the name `{name}` has {} characters; at most {NAME_LEN_MAX} are allowed",
            name.len()
        ));
    }
    let mut chars = name.chars();
    let first_ok = chars.next().is_some_and(|c| c.is_ascii_alphanumeric());
    if !first_ok || !chars.all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.')) {
        return Err(format!(
            "the name `{name}` may hold letters, digits, `-`, `_` and `.`, and must start with a letter or digit"
        ));
    }
    Ok(())
}

macro_rules! name_type {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, utoipa::ToSchema)]
        #[schema(value_type = String, pattern = "^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$")]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(Arc<str>);

        impl $name {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = String;
            fn from_str(text: &str) -> Result<Self, String> {
                valid(text)?;
                Ok(Self(text.into()))
            }
        }

        impl TryFrom<String> for $name {
            type Error = String;
            fn try_from(text: String) -> Result<Self, String> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> String {
                name.0.as_ref().to_owned()
            }
        }

        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&*self.0, f)
            }
        }
    };
}

name_type! {
    /// Name of a backend: one deployment of the model in one cluster.
    BackendId
}
name_type! {
    /// Name of a route: requests that match the same condition and share backends and objective.
    RouteId
}
name_type! {
    /// Name of a policy.
    PolicyId
}
name_type! {
    /// Name of a tenant: someone who may send requests.
    TenantId
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked_at_the_border() {
        assert_eq!("eks-use1".parse::<BackendId>().unwrap().as_str(), "eks-use1");
        for bad in ["", "-a", "a b", "ä", "a/b", &"x".repeat(64)] {
            assert!(bad.parse::<BackendId>().is_err(), "{bad:?} was accepted");
        }
    }
}
