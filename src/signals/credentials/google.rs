//! Tokens of Google, by application default credentials: a file, or the metadata server of the machine. The library renews
//! them four minutes before they expire, and gives none only when the last one has expired.

use std::time::Duration;

use google_cloud_auth::credentials::{
    AccessTokenCredentials, Builder,
    idtoken::{self, IDTokenCredentials},
};
use tokio::time;

use super::{RETRY, Teller, bearer, chain};

/// How often the library is asked: it answers from memory.
const LOOK: Duration = Duration::from_secs(5);

/// Longest wait for the first token, and for one after the last has expired.
const TIMEOUT: Duration = Duration::from_secs(15);

/// What is asked for.
pub(super) enum Wanted {
    /// An access token for these scopes.
    Access(Vec<String>),
    /// An ID token for this audience.
    Id(String),
}

enum Source {
    Access(AccessTokenCredentials),
    Id(IDTokenCredentials),
}

impl Wanted {
    fn source(&self) -> Result<Source, String> {
        let made = match self {
            Wanted::Access(scopes) => {
                let builder = Builder::default().with_scopes(scopes.iter().cloned());
                builder.build_access_token_credentials().map(Source::Access)
            }
            Wanted::Id(audience) => idtoken::Builder::new(audience).build().map(Source::Id),
        };
        made.map_err(|error| chain(&error))
    }
}

impl Source {
    async fn token(&self) -> Result<String, String> {
        let token = match self {
            Source::Access(credentials) => credentials.access_token().await.map(|token| token.token),
            Source::Id(credentials) => credentials.id_token().await,
        };
        token.map_err(|error| chain(&error))
    }
}

/// Keeps a backend's token for ever.
pub(super) async fn keep(wanted: Wanted, teller: Teller) {
    // The library brings no cryptography of its own. Where the process has chosen already, that holds.
    let _ = rustls::crypto::ring::default_provider().install_default();
    loop {
        let why = match wanted.source() {
            Ok(source) => follow(&source, &teller).await,
            Err(why) => why,
        };
        teller.lose(&format!("Google gave no token: {why}"));
        time::sleep(RETRY).await;
    }
}

/// Tells each token until there is none; says why.
async fn follow(source: &Source, teller: &Teller) -> String {
    loop {
        match time::timeout(TIMEOUT, source.token()).await {
            Ok(Ok(token)) => teller.tell(bearer(&token)),
            Ok(Err(why)) => return why,
            Err(_) => return format!("nothing answered within {TIMEOUT:?}"),
        }
        time::sleep(LOOK).await;
    }
}
