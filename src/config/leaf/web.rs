//! What the file says of HTTP: URLs, hosts, paths and headers.

use super::Leaf;
use crate::model::{Endpoint, HostPattern, ModelPattern, PathPattern, Url, route::MODEL_LEN_MAX};

/// Whether this is an IP address or a host name of letters, digits, `-` and `_`.
fn is_host(host: &str) -> bool {
    let label_ok = |label: &str| {
        let char_ok = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        (1..=63).contains(&label.len()) && label.chars().all(char_ok)
    };
    let numeric = |label: &str| label.chars().all(|c| c.is_ascii_digit());
    // A name never ends in a number: `10.0.0.256` is a mistyped address.
    let is_name =
        host.len() <= 253 && host.split('.').all(label_ok) && !host.rsplit('.').take(1).all(numeric);
    is_name || host.parse::<std::net::IpAddr>().is_ok()
}

impl Leaf for Endpoint {
    const FORMAT: &'static str = "tradewind-url";
    const EXAMPLES: &'static [&'static str] = &["https://llama.example.com", "http://10.0.0.7:8000"];
    fn parse(text: &str) -> Result<Self, String> {
        if text.contains('@') {
            return Err("the URL holds a user name or password (not shown here): expected none".into());
        }
        // A query may hold a key.
        let shown = text.split(['?', '#']).next().unwrap_or_default();
        let wrong = |why: &str| format!("`{shown}` is not the URL of a backend: {why}");
        let uri: http::Uri =
            text.parse().map_err(|_| wrong("expected http://HOST, https://HOST, with :PORT if needed"))?;
        let tls = match uri.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            Some(_) => return Err(wrong("its scheme is neither http nor https")),
            None => return Err(wrong("it does not begin with http:// or https://")),
        };
        if !matches!(uri.path(), "" | "/") || text.contains(['?', '#']) {
            return Err(wrong("it has a path or query, but requests keep their own"));
        }
        let host = uri.host().unwrap_or_default();
        let has_port = uri.authority().is_some_and(|authority| authority.as_str().len() > host.len());
        let port = match uri.port_u16() {
            Some(port) if port > 0 => port,
            None if !has_port => [80, 443][usize::from(tls)],
            _ => return Err(wrong("its port is not between 1 and 65535")),
        };
        let host = host.trim_start_matches('[').trim_end_matches(']').to_ascii_lowercase();
        if !is_host(&host) {
            return Err(wrong("its host is neither a DNS name nor an IP address"));
        }
        Ok(Endpoint { tls, host, port })
    }
    fn show(&self) -> String {
        self.to_string()
    }
}

/// A name in a certificate.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::config) struct ServerName(pub(in crate::config) String);

impl Leaf for ServerName {
    const FORMAT: &'static str = "tradewind-server-name";
    const EXAMPLES: &'static [&'static str] = &["llama.internal.example.com"];
    fn parse(text: &str) -> Result<Self, String> {
        let name = text.to_ascii_lowercase();
        is_host(&name).then_some(ServerName(name)).ok_or_else(|| {
            format!("`{text}` is no name in a certificate: expected a DNS name or an IP address")
        })
    }
    fn show(&self) -> String {
        self.0.clone()
    }
}

/// Where a provider's service is asked: a URL of a host, with or without a path. Text in braces is filled in later.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::config) struct ServiceUrl(pub(in crate::config) String);

impl Leaf for ServiceUrl {
    const FORMAT: &'static str = "tradewind-service-url";
    const EXAMPLES: &'static [&'static str] = &["https://vpce-1.ec2.{region}.vpce.amazonaws.com"];
    fn parse(text: &str) -> Result<Self, String> {
        if text.contains('@') {
            return Err("the URL holds a user name or password (not shown here): expected none".into());
        }
        let filled = text.replace("{region}", "region");
        let is_url = filled.parse::<http::Uri>().is_ok_and(|uri| {
            matches!(uri.scheme_str(), Some("http" | "https"))
                && uri.host().is_some_and(|host| is_host(host.trim_start_matches('[').trim_end_matches(']')))
        });
        if !is_url || text.contains(['?', '#']) {
            let shown = text.split(['?', '#']).next().unwrap_or_default();
            return Err(format!(
                "`{shown}` is not the URL of a service: expected https://HOST or http://HOST"
            ));
        }
        Ok(ServiceUrl(text.trim_end_matches('/').into()))
    }
    fn show(&self) -> String {
        self.0.clone()
    }
}

/// What a probe asks for: a path with or without a query.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::config) struct ProbePath(pub(in crate::config) String);

impl Leaf for ProbePath {
    const FORMAT: &'static str = "tradewind-probe-path";
    const EXAMPLES: &'static [&'static str] = &["/health"];
    fn parse(text: &str) -> Result<Self, String> {
        let valid =
            text.starts_with('/') && text.parse::<http::uri::PathAndQuery>().is_ok() && !text.contains('#');
        valid
            .then(|| ProbePath(text.into()))
            .ok_or_else(|| format!("`{text}` is not a path to probe: expected one that begins with `/`"))
    }
    fn show(&self) -> String {
        self.0.clone()
    }
}

/// Reads a URL of a host with or without a path. `what` it should be, for the error.
fn url(text: &str, what: &str) -> Result<Url, String> {
    if text.contains('@') {
        return Err("the URL holds a user name or password (not shown here): expected none".into());
    }
    let shown = text.split(['?', '#']).next().unwrap_or_default();
    let wrong = || {
        format!(
            "`{shown}` is not {what}: expected http://HOST or https://HOST, with :PORT and /PATH if needed"
        )
    };
    let start = text.find("://").ok_or_else(wrong)? + 3;
    let host_end = text[start..].find(['/', '?', '#']).map_or(text.len(), |at| start + at);
    let endpoint = Endpoint::parse(&text[..host_end]).map_err(|_| wrong())?;
    let path = if host_end == text.len() { "/" } else { &text[host_end..] };
    ProbePath::parse(path).map(|ProbePath(path)| Url { endpoint, path }).map_err(|_| wrong())
}

/// Where metrics are read: a path on the backend, or a URL.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::config) enum LoadPlace {
    Path(String),
    Url(Url),
}

impl Leaf for LoadPlace {
    const FORMAT: &'static str = "tradewind-load-place";
    const EXAMPLES: &'static [&'static str] = &["/metrics", "http://10.0.0.7:9100/metrics"];
    fn parse(text: &str) -> Result<Self, String> {
        match ProbePath::parse(text) {
            Ok(ProbePath(path)) => Ok(LoadPlace::Path(path)),
            Err(_) if text.contains("://") => url(text, "the URL of metrics").map(LoadPlace::Url),
            Err(_) => Err(format!(
                "`{text}` is not a place of metrics: expected a path that begins with `/`, or a URL"
            )),
        }
    }
    fn show(&self) -> String {
        match self {
            LoadPlace::Path(path) => path.clone(),
            LoadPlace::Url(url) => url.to_string(),
        }
    }
}

/// A server with an HTTP API: a URL, whose path stands before that of the API.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::config) struct ServerUrl(pub(in crate::config) Url);

impl Leaf for ServerUrl {
    const FORMAT: &'static str = "tradewind-server-url";
    const EXAMPLES: &'static [&'static str] = &["http://prometheus:9090"];
    fn parse(text: &str) -> Result<Self, String> {
        let url = url(text, "the URL of a server")?;
        match text.contains('?') {
            true => Err(format!("`{}?...` has a query, but the expressions say what is asked", url.endpoint)),
            false => Ok(ServerUrl(url)),
        }
    }
    fn show(&self) -> String {
        self.0.to_string()
    }
}

impl Leaf for HostPattern {
    const FORMAT: &'static str = "tradewind-host-pattern";
    const EXAMPLES: &'static [&'static str] = &["api.example.com", "*.example.com", "*"];
    fn parse(text: &str) -> Result<Self, String> {
        let host = text.to_ascii_lowercase();
        let bare = host.strip_prefix("*.").unwrap_or(&host);
        match host.as_str() {
            "*" => Ok(HostPattern::Any),
            // An IPv6 address would be mistaken for a name with a port.
            _ if !is_host(bare) || bare.contains(':') => Err(format!(
                "`{text}` is not a host pattern: expected a DNS name without port, `*.` before a name, or `*`"
            )),
            _ if host.len() > bare.len() => Ok(HostPattern::Suffix(format!(".{bare}"))),
            _ => Ok(HostPattern::Exact(host)),
        }
    }
    fn show(&self) -> String {
        match self {
            HostPattern::Any => "*".into(),
            HostPattern::Suffix(suffix) => format!("*{suffix}"),
            HostPattern::Exact(host) => host.clone(),
        }
    }
}

impl Leaf for PathPattern {
    const FORMAT: &'static str = "tradewind-path-pattern";
    const EXAMPLES: &'static [&'static str] = &["/v1/*", "/v1/models", "/*"];
    fn parse(text: &str) -> Result<Self, String> {
        let wrong = |why: &str| Err(format!("`{text}` is not a path pattern: {why}"));
        if !text.starts_with('/') {
            return wrong("it does not begin with `/`");
        }
        if !text.chars().all(|c| c.is_ascii_graphic() && !matches!(c, '?' | '#')) {
            return wrong("it holds a character that no path has (percent-encode it)");
        }
        let prefix = text.strip_suffix("/*");
        if prefix.unwrap_or(text).contains('*') {
            return wrong("`*` may only be its last segment, for that path and all below it");
        }
        Ok(match prefix {
            Some(prefix) => PathPattern::Prefix(prefix.into()),
            None => PathPattern::Exact(text.into()),
        })
    }
    fn show(&self) -> String {
        match self {
            PathPattern::Prefix(prefix) => format!("{prefix}/*"),
            PathPattern::Exact(path) => path.clone(),
        }
    }
}

/// Why a text is not the name of a model, if it is none.
fn model_fault(text: &str) -> Option<String> {
    match text.len() {
        0 => Some("it is empty".into()),
        len if len > MODEL_LEN_MAX => Some(format!("it has {len} bytes, expected at most {MODEL_LEN_MAX}")),
        _ if text.chars().any(char::is_control) => Some("it holds a control character".into()),
        _ if text.trim() != text => Some("there is a space before or after it".into()),
        _ => None,
    }
}

impl Leaf for ModelPattern {
    const FORMAT: &'static str = "tradewind-model-pattern";
    const EXAMPLES: &'static [&'static str] = &["llama-3-8b", "llama-*", "*"];
    fn parse(text: &str) -> Result<Self, String> {
        let wrong = |why: &str| Err(format!("`{text}` is not a model pattern: {why}"));
        if let Some(why) = model_fault(text) {
            return wrong(&why);
        }
        let prefix = text.strip_suffix('*');
        if prefix.unwrap_or(text).contains('*') {
            return wrong("`*` may only be its last character, for every name that begins so");
        }
        Ok(match prefix {
            Some(prefix) => ModelPattern::Prefix(prefix.into()),
            None => ModelPattern::Exact(text.into()),
        })
    }
    fn show(&self) -> String {
        match self {
            ModelPattern::Prefix(prefix) => format!("{prefix}*"),
            ModelPattern::Exact(name) => name.clone(),
        }
    }
}

/// The name of a model.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::config) struct ModelName(pub(in crate::config) String);

impl Leaf for ModelName {
    const FORMAT: &'static str = "tradewind-model-name";
    const EXAMPLES: &'static [&'static str] = &["llama-3-8b"];
    fn parse(text: &str) -> Result<Self, String> {
        match model_fault(text) {
            Some(why) => Err(format!("`{text}` is not the name of a model: {why}")),
            None if text.contains('*') => {
                Err(format!("`{text}` is not the name of a model: an alias is one name, without `*`"))
            }
            None => Ok(ModelName(text.into())),
        }
    }
    fn show(&self) -> String {
        self.0.clone()
    }
}

/// The name of a header, in lower case.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::config) struct HeaderName(pub(in crate::config) String);

impl Leaf for HeaderName {
    const FORMAT: &'static str = "tradewind-header-name";
    const EXAMPLES: &'static [&'static str] = &["x-tier"];
    fn parse(text: &str) -> Result<Self, String> {
        text.parse::<http::HeaderName>()
            .map(|name| HeaderName(name.as_str().into()))
            .map_err(|_| format!("`{text}` is not the name of a header"))
    }
    fn show(&self) -> String {
        self.0.clone()
    }
}

/// The value of a header.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::config) struct HeaderValue(pub(in crate::config) String);

impl Leaf for HeaderValue {
    const FORMAT: &'static str = "tradewind-header-value";
    const EXAMPLES: &'static [&'static str] = &["gold"];
    fn parse(text: &str) -> Result<Self, String> {
        // Servers strip spaces around a value: such a condition would never hold.
        let valid = text.trim() == text && text.chars().all(|c| c == ' ' || c.is_ascii_graphic());
        let wrong = || {
            format!(
                "`{text}` is not the value of a header: expected printable ASCII without spaces around it"
            )
        };
        valid.then(|| HeaderValue(text.into())).ok_or_else(wrong)
    }
    fn show(&self) -> String {
        self.0.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::tests::{refuses, round_trips},
        *,
    };

    #[test]
    fn urls() {
        let endpoint = |tls, host: &str, port| Ok(Endpoint { tls, host: host.into(), port });
        assert_eq!(Endpoint::parse("https://A.Example.com/"), endpoint(true, "a.example.com", 443));
        assert_eq!(Endpoint::parse("http://[::1]:8000"), endpoint(false, "::1", 8000));
        round_trips::<Endpoint>(&["http://10.0.0.7:8000", "https://x", "http://[2001:db8::1]"]);
        refuses::<Endpoint>(&["", "localhost:8000", "ftp://x", "http://x/v1", "http://x?a=1", "http://x#a"]);
        refuses::<Endpoint>(&[
            "http://x:0",
            "http://x:",
            "http://x:99999",
            "http://",
            "http://a..b",
            "http://1.2.3.256",
        ]);
        for leaky in ["http://bob:hunter2@x", "http://x/?key=hunter2", "http://bob:hunter2@"] {
            assert!(!Endpoint::parse(leaky).expect_err(leaky).contains("hunter2"), "{leaky}");
        }
    }

    #[test]
    fn places_of_metrics_and_servers() {
        let place = LoadPlace::parse("https://agg.example.com:9100/metrics?a=b");
        let endpoint = Endpoint { tls: true, host: "agg.example.com".into(), port: 9100 };
        assert_eq!(place, Ok(LoadPlace::Url(Url { endpoint, path: "/metrics?a=b".into() })));
        assert_eq!(LoadPlace::parse("/metrics"), Ok(LoadPlace::Path("/metrics".into())));
        round_trips::<LoadPlace>(&["/metrics?x=1", "http://[::1]:9100/m", "http://x"]);
        round_trips::<ServerUrl>(&["http://prometheus:9090", "https://mimir/prometheus"]);
        refuses::<LoadPlace>(&["", "metrics", "ftp://x/m", "http://", "http://x/a b", "http://bob:pw@x/m"]);
        refuses::<ServerUrl>(&["", "/prometheus", "prometheus:9090", "http://x?query=1", "http://x/#a"]);
    }

    #[test]
    fn patterns() {
        assert_eq!(HostPattern::parse("*.Example.com"), Ok(HostPattern::Suffix(".example.com".into())));
        assert_eq!(PathPattern::parse("/*"), Ok(PathPattern::Prefix(String::new())));
        round_trips::<HostPattern>(&["*", "*.a.b", "a", "10.0.0.1"]);
        round_trips::<PathPattern>(&["/*", "/", "/v1/*", "/v1", "/v1/"]);
        refuses::<HostPattern>(&["", "a.*", "*a", "*.", "a:80", "http://a", "::1", "a/b", "*.*.a"]);
        refuses::<PathPattern>(&["", "*", "v1/*", "/v1*", "/*/a", "/v1/**", "/a b", "/a?b", "/ä"]);
        refuses::<HeaderName>(&["", "x tier", "x:y", "ä"]);
        refuses::<HeaderValue>(&[" gold", "gö", "a\nb"]);
        assert_eq!(ModelPattern::parse("llama-*"), Ok(ModelPattern::Prefix("llama-".into())));
        round_trips::<ModelPattern>(&["llama-*", "*", "org/llama 3:8b", "ä"]);
        refuses::<ModelPattern>(&["", "*a", "a*b", "a**", " a", "a\n", &"a".repeat(257)]);
        refuses::<ModelName>(&["", "a*", "a ", "a\0"]);
        refuses::<ProbePath>(&["", "health", "http://x/health", "/a b", "/a#b"]);
    }
}
