//! What a request says of those before us: believed of proxies that the operator trusts, replaced for everybody else.

use std::{io::Write as _, net::IpAddr};

use http::{HeaderMap, HeaderName, HeaderValue, header};
use pingora_core::Result;
use pingora_http::RequestHeader;

use crate::model::Trust;

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// Where a request came from.
#[derive(Debug)]
pub(super) struct Origin {
    /// The other end of the connection, or whom a PROXY header named.
    pub(super) peer: Option<IpAddr>,
    /// The host that was asked for.
    pub(super) host: Option<HeaderValue>,
    /// Whether the connection is over TLS.
    pub(super) tls: bool,
}

/// Says in a request for whom it is. `Forwarded` is dropped from everyone: load balancers pass on what clients write there.
///
/// # Errors
/// When there are more headers than there may be.
pub(super) fn introduce(request: &mut RequestHeader, origin: Origin, trust: &Trust) -> Result<()> {
    let trusted = origin.peer.is_some_and(|peer| trust.includes(peer));
    let kept = |name: &HeaderName| trusted && request.headers.contains_key(name);
    let (keep_host, keep_proto) = (kept(&X_FORWARDED_HOST), kept(&X_FORWARDED_PROTO));
    if !keep_host {
        match origin.host {
            Some(host) => request.insert_header(X_FORWARDED_HOST, host)?,
            None => drop(request.remove_header(&X_FORWARDED_HOST)),
        }
    }
    if !keep_proto {
        request.insert_header(X_FORWARDED_PROTO, if origin.tls { "https" } else { "http" })?;
    }
    match origin.peer {
        Some(peer) if trusted => request.insert_header(X_FORWARDED_FOR, chain(&request.headers, peer))?,
        Some(peer) => request.insert_header(X_FORWARDED_FOR, peer.to_string())?,
        None => drop(request.remove_header(&X_FORWARDED_FOR)),
    }
    request.remove_header(&header::FORWARDED);
    Ok(())
}

/// The addresses so far, and this one.
fn chain(headers: &HeaderMap, peer: IpAddr) -> Vec<u8> {
    let mut all = Vec::new();
    for value in headers.get_all(X_FORWARDED_FOR) {
        all.extend_from_slice(value.as_bytes());
        all.extend_from_slice(b", ");
    }
    // Memory takes everything.
    let _ = write!(all, "{peer}");
    all
}

/// The client: the last address in the chain that is none of a proxy that the operator trusts, because all before it may be
/// made up.
pub(super) fn client(headers: &HeaderMap, peer: IpAddr, trust: &Trust) -> IpAddr {
    let mut client = peer;
    let values: Vec<&HeaderValue> = headers.get_all(X_FORWARDED_FOR).iter().collect();
    for value in values.into_iter().rev() {
        for address in value.as_bytes().rsplit(|byte| *byte == b',') {
            if !trust.includes(client) {
                return client;
            }
            match std::str::from_utf8(address).ok().and_then(|text| text.trim().parse().ok()) {
                Some(before) => client = before,
                None => return client,
            }
        }
    }
    client
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trust(networks: &[&str]) -> Trust {
        Trust { proxies: networks.iter().map(|text| text.parse().unwrap()).collect(), proxy_protocol: false }
    }

    fn request(headers: &[(&'static str, &str)]) -> RequestHeader {
        let mut request = RequestHeader::build("GET", b"/", None).unwrap();
        for (name, value) in headers {
            request.append_header(*name, *value).unwrap();
        }
        request
    }

    fn introduced(headers: &[(&'static str, &str)], peer: &str, trust: &Trust) -> Vec<(String, String)> {
        let mut request = request(headers);
        let host = Some(HeaderValue::from_static("own.example.com"));
        let origin = Origin { peer: Some(peer.parse().unwrap()), host, tls: true };
        introduce(&mut request, origin, trust).unwrap();
        let text = |(name, value): (&HeaderName, &HeaderValue)| {
            (name.to_string(), value.to_str().unwrap().to_owned())
        };
        let mut all: Vec<_> = request.headers.iter().map(text).collect();
        all.sort();
        all
    }

    const CLAIMS: [(&str, &str); 5] = [
        ("forwarded", "for=192.0.2.1"),
        ("x-forwarded-for", "192.0.2.1"),
        ("x-forwarded-for", "192.0.2.2, 10.0.0.9"),
        ("x-forwarded-host", "front.example.com"),
        ("x-forwarded-proto", "http"),
    ];

    fn pairs(expected: [(&str, &str); 3]) -> Vec<(String, String)> {
        expected.map(|(name, value)| (name.to_owned(), value.to_owned())).into()
    }

    #[test]
    fn what_a_stranger_says_is_replaced() {
        let expected = pairs([
            ("x-forwarded-for", "198.51.100.4"),
            ("x-forwarded-host", "own.example.com"),
            ("x-forwarded-proto", "https"),
        ]);
        assert_eq!(introduced(&CLAIMS, "198.51.100.4", &trust(&["10.0.0.0/8"])), expected);
        assert_eq!(introduced(&CLAIMS, "198.51.100.4", &Trust::default()), expected);
        assert_eq!(introduced(&[], "198.51.100.4", &Trust::default()), expected);
    }

    #[test]
    fn what_a_trusted_proxy_says_is_kept_and_its_address_added() {
        let trust = trust(&["10.0.0.0/8"]);
        let expected = pairs([
            ("x-forwarded-for", "192.0.2.1, 192.0.2.2, 10.0.0.9, 10.0.0.1"),
            ("x-forwarded-host", "front.example.com"),
            ("x-forwarded-proto", "http"),
        ]);
        assert_eq!(introduced(&CLAIMS, "10.0.0.1", &trust), expected);
        let expected = pairs([
            ("x-forwarded-for", "10.0.0.1"),
            ("x-forwarded-host", "own.example.com"),
            ("x-forwarded-proto", "https"),
        ]);
        assert_eq!(introduced(&[], "10.0.0.1", &trust), expected);
    }

    #[test]
    fn the_client_is_the_last_one_that_is_not_trusted() {
        let trust = trust(&["10.0.0.0/8", "::1"]);
        let client = |headers: &[(&'static str, &str)], peer: &str| {
            client(&request(headers).headers, peer.parse().unwrap(), &trust).to_string()
        };
        assert_eq!(client(&CLAIMS, "198.51.100.4"), "198.51.100.4");
        assert_eq!(client(&CLAIMS, "10.0.0.1"), "192.0.2.2");
        assert_eq!(client(&[], "10.0.0.1"), "10.0.0.1");
        assert_eq!(client(&[("x-forwarded-for", "2001:db8::7 ,::1")], "::ffff:10.0.0.1"), "2001:db8::7");
        // Of what nobody can read, nothing before it counts either.
        assert_eq!(client(&[("x-forwarded-for", "192.0.2.1, unknown, 10.0.0.3")], "10.0.0.1"), "10.0.0.3");
        // If all are trusted, it is the first.
        assert_eq!(client(&[("x-forwarded-for", "10.0.0.5, 10.0.0.6")], "10.0.0.1"), "10.0.0.5");
    }
}
