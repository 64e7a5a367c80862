//! How Tradewind shows backends who it is.

use super::Secret;

/// What a backend is shown.
#[derive(Clone, Debug, PartialEq)]
pub enum AuthSpec {
    /// `Authorization: Bearer` with this secret.
    Bearer(Secret),
    /// A signature of AWS, version 4, with the credentials that the standard chain finds.
    AwsSigV4(AwsSigV4),
    /// An access token of Google for these scopes, by application default credentials.
    GoogleAccessToken {
        /// What it may be used for.
        scopes: Vec<String>,
    },
    /// An ID token of Google, by application default credentials.
    GoogleIdToken {
        /// Whom it is for.
        audience: String,
    },
}

/// For whom a request is signed.
#[derive(Clone, Debug, PartialEq)]
pub struct AwsSigV4 {
    /// The service by its name in signatures: `sagemaker`.
    pub service: String,
    /// The region of the endpoint.
    pub region: String,
    /// A profile of the configuration of AWS; `None` for the default one.
    pub profile: Option<String>,
}
