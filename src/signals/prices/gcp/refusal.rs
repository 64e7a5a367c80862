//! Why the Catalog did not answer, and what to do about it.

use std::{error, fmt};

use google_cloud_gax::error::{
    CredentialsError, Error,
    rpc::{Status, StatusDetails},
};

/// Most of another's text that goes into one of our sentences, in characters.
const QUOTE_MAX: usize = 200;

/// Who asks.
#[derive(Clone, Debug)]
pub(super) enum Identity {
    /// Whoever owns the key.
    ApiKey {
        /// Where the key was read.
        origin: String,
    },
    /// Whoever the environment says.
    DefaultCredentials,
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Identity::ApiKey { origin } => write!(f, "the API key of {origin}"),
            Identity::DefaultCredentials => f.write_str("application default credentials"),
        }
    }
}

/// What a failed call means: what happened, and what to do if anything can be done.
pub(super) fn sentence(error: &Error, identity: &Identity) -> String {
    if let Some(status) = error.status() {
        return refused(status, error.http_status_code(), identity);
    }
    if let Some(code) = error.http_status_code() {
        let body = error.http_payload().map(|body| String::from_utf8_lossy(body)).unwrap_or_default();
        return format!("HTTP {code} that is not from the API: '{}'", quote(&body));
    }
    let source = error::Error::source(error);
    if source.is_some_and(|source| source.is::<CredentialsError>()) {
        return no_credentials(identity, &root(error));
    }
    if error.is_deserialization() {
        return format!(
            "the answer is not the API's, or was cut off: {}; check the URL, and what stands between here and there",
            root(error)
        );
    }
    match error.is_timeout() {
        true => "no answer in time".to_owned(),
        false => format!("the connection failed: {}", root(error)),
    }
}

/// No credentials can be had, or they cannot be sent.
pub(super) fn no_credentials(identity: &Identity, why: &str) -> String {
    match identity {
        Identity::ApiKey { .. } => {
            format!("{identity} cannot be sent: {why}; it holds characters that no key has")
        }
        Identity::DefaultCredentials => format!(
            "no credentials can be had: {why}; give an API key (api_key of the source), or application default credentials: \
             GOOGLE_APPLICATION_CREDENTIALS, `gcloud auth application-default login`, or the service account of the machine"
        ),
    }
}

fn refused(status: &Status, http_status: Option<u16>, identity: &Identity) -> String {
    let info = status.details.iter().find_map(|detail| match detail {
        StatusDetails::ErrorInfo(info) => Some(info),
        _ => None,
    });
    let project = info
        .and_then(|info| info.metadata.get("consumer"))
        .and_then(|consumer| consumer.strip_prefix("projects/"));
    let in_project = project.map_or_else(|| "its project".to_owned(), |project| format!("project {project}"));
    let reason = info.map_or("", |info| info.reason.as_str());
    let advice = match (reason, http_status) {
        ("SERVICE_DISABLED", _) => format!(
            "the Cloud Billing API is not enabled in {in_project}: run `gcloud services enable cloudbilling.googleapis.com \
             --project {}` and wait some minutes",
            project.unwrap_or("PROJECT")
        ),
        ("API_KEY_INVALID" | "API_KEY_EXPIRED", _) => {
            format!(
                "{identity} is not valid: create one, or copy it again, under APIs & Services > Credentials"
            )
        }
        ("API_KEY_SERVICE_BLOCKED", _) => {
            format!(
                "{identity} is restricted to other APIs: add the Cloud Billing API to its API restrictions"
            )
        }
        (reason, _) if reason.starts_with("API_KEY_") && reason.ends_with("_BLOCKED") => {
            format!("{identity} is restricted to other callers: change its application restrictions")
        }
        ("ACCESS_TOKEN_SCOPE_INSUFFICIENT", _) => {
            format!(
                "{identity} lack the scope https://www.googleapis.com/auth/cloud-billing.readonly: grant it"
            )
        }
        ("CONSUMER_INVALID" | "USER_PROJECT_DENIED", _) => {
            format!("{identity} may not use {in_project} for quota: set another quota project")
        }
        ("BILLING_DISABLED", _) => {
            format!("billing is off in {in_project}: turn it on, or use another project")
        }
        (_, Some(401)) => format!("{identity} are not accepted, or have expired: renew them"),
        (_, Some(403)) => format!(
            "{identity} may not list the SKUs of services: any key or account of a project in which the \
             Cloud Billing API is enabled may"
        ),
        (_, Some(429)) => "the quota of the project is used up: it comes back by itself".to_owned(),
        _ => String::new(),
    };
    let code = http_status.map_or_else(|| status.code.to_string(), |code| format!("HTTP {code}"));
    let said = quote(&status.message);
    match advice.as_str() {
        "" => format!("{code}: '{said}'"),
        advice => format!("{code}: '{said}': {advice}"),
    }
}

/// What an error came from in the end: what lies between says the same in other words.
pub(super) fn root(error: &(dyn error::Error + 'static)) -> String {
    let mut root = error;
    while let Some(source) = root.source() {
        root = source;
    }
    quote(&root.to_string())
}

/// Somebody else's text, on one line and not too long.
fn quote(text: &str) -> String {
    let clean: String = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let clean = clean.trim_end_matches('.');
    match clean.char_indices().nth(QUOTE_MAX) {
        Some((end, _)) => format!("{}...", &clean[..end]),
        None => clean.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quote_is_short_and_on_one_line() {
        assert_eq!(quote(" <html>\r\n\t<body>\u{7}\n"), "<html> <body>\u{7}");
        assert_eq!(quote("Enable it."), "Enable it");
        let long = quote(&"ä".repeat(500));
        assert_eq!(long.chars().count(), QUOTE_MAX + 3);
    }
}
