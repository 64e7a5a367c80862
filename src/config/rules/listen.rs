//! Where clients connect, and what they may use.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    ops::RangeInclusive,
    time::Duration,
};

use super::{
    super::{
        files,
        leaf::{ByteSize, Leaf, Text},
        schema::{self, ClientAuth, TlsVersion},
        settings::{Https, Listen},
    },
    Rules, owned,
};
use crate::model::{BackendId, ClientLimits, Endpoint, TlsSpec, Trust};

/// Bounds of `body_peek_max`, in bytes: below the lower one hardly a request would fit; the upper one times a few hundred
/// requests under way is all the memory of a large machine.
const BODY_PEEK: RangeInclusive<u64> = (1 << 10)..=(64 << 20);

/// Bounds of `head_max`, in bytes: browsers' cookies need the lower one, Pingora reads no more than the upper one.
const HEAD: RangeInclusive<u64> = (4 << 10)..=(1000 << 10);

const DAY: Duration = Duration::from_secs(24 * 3600);

impl Rules<'_, '_> {
    pub(super) fn listen(&mut self, listen: &schema::Listen) -> Listen {
        let https = listen.https.as_ref().map(|https| self.https(https));
        Listen {
            http: listen.http.as_ref().map(|addr| addr.0),
            https,
            body_peek_max: self.size("body_peek_max", &listen.body_peek_max, BODY_PEEK),
            model_header: listen.model_header.0.0.clone(),
            threads: listen.threads,
            expose_routing: listen.expose_routing,
            drain_timeout: listen.drain_timeout.0,
            count_tokens: listen.count_tokens,
            limits: self.client_limits(listen),
            trust: self.trust(listen),
        }
    }

    fn client_limits(&mut self, listen: &schema::Listen) -> ClientLimits {
        let bounds = [
            ("header_timeout", &listen.header_timeout, Duration::from_millis(100)..=Duration::from_secs(300)),
            ("silence_timeout", &listen.silence_timeout, Duration::from_secs(1)..=DAY),
            ("idle_timeout", &listen.idle_timeout, Duration::from_secs(1)..=DAY),
        ];
        for (key, found, range) in bounds {
            self.within(&["listen", key], found.0, range);
        }
        ClientLimits {
            header_timeout: listen.header_timeout.0,
            silence_timeout: listen.silence_timeout.0,
            idle_timeout: listen.idle_timeout.0,
            head_max: self.size("head_max", &listen.head_max, HEAD),
            headers_max: listen.headers_max,
            streams_max: listen.streams_max,
            connections_max: listen.max_connections,
            connections_per_ip_max: listen.max_connections_per_ip,
        }
    }

    fn size(&mut self, key: &str, written: &Text<ByteSize>, range: RangeInclusive<u64>) -> usize {
        let size = written.0.0;
        if !range.contains(&size) {
            let [min, max] = [*range.start(), *range.end()].map(|bytes| ByteSize(bytes).show());
            self.error(
                &["listen", key],
                format!("found {}, expected {min} to {max}", written.0.show()),
                None,
            );
        }
        usize::try_from(size).unwrap_or(usize::MAX)
    }

    fn trust(&mut self, listen: &schema::Listen) -> Trust {
        if listen.proxy_protocol && listen.trusted_proxies.is_empty() {
            let problem = "nobody is trusted, so no connection would begin with a PROXY header";
            let hint = "name the load balancers: trusted_proxies = [\"10.0.0.0/8\"]";
            self.error(&["listen", "proxy_protocol"], problem.into(), Some(hint.into()));
        }
        Trust {
            proxies: listen.trusted_proxies.iter().map(|network| network.0).collect(),
            proxy_protocol: listen.proxy_protocol,
        }
    }

    /// A backend that is a listener of this process gets its own requests back, each of them again and again.
    pub(super) fn loops(
        &mut self,
        backends: &[(BackendId, schema::Backend)],
        listen: &Listen,
        admin: Option<SocketAddr>,
    ) {
        // In place of an address that does not fit stands the default, which nobody chose.
        let tainted = |path: &[&str]| self.checked.tainted.contains(&owned(&path[..path.len() - 1]));
        let own: Vec<_> = own(listen, admin).filter(|(_, path, _)| !tainted(path)).collect();
        for (id, Text(url)) in backends.iter().map(|(id, backend)| (id, &backend.url)) {
            let Some((name, _, addr)) = own.iter().find(|(_, _, addr)| leads_to(url, *addr)) else {
                continue;
            };
            let message =
                format!("`{url}` leads to Tradewind's own `{name}` ({addr}), expected another server");
            let hint = "requests would come back to this process: write where the backend itself listens";
            self.error(&["backends", id.as_str(), "url"], message, Some(hint.into()));
        }
    }

    fn https(&mut self, written: &schema::Https) -> Https {
        let path = ["listen", "https"];
        let (own, first) = self.key_pair(&path, &written.cert, &written.key);
        let (mut files, mut pairs) = (vec![own], Vec::from_iter(first));
        for (index, further) in written.certs.iter().enumerate() {
            let element = format!("[{index}]");
            let path = ["listen", "https", "certs", &element];
            let (own, pair) = self.key_pair(&path, &further.cert, &further.key);
            files.push(own);
            let Some(pair) = pair else { continue };
            if pair.names.is_empty() {
                let problem =
                    format!("the certificate in `{}` is for no DNS name: no client gets it", pair.file);
                self.warn(&[&path[..], &["cert"]].concat(), &problem, None);
            }
            pairs.push(pair);
        }
        let client_ca = written.client_ca.as_ref().map(|file| {
            let at = self.file(file);
            files::authorities(&at).unwrap_or_else(|problem| {
                self.file_error(&["listen", "https", "client_ca"], file, &problem);
                Vec::new()
            })
        });
        let auth = ["listen", "https", "client_auth"];
        if client_ca.is_none() && self.is_written(&auth) {
            let hint = "name the authority of the clients' certificates in `client_ca`";
            self.error(
                &auth,
                "without `client_ca` no client is asked for a certificate".into(),
                Some(hint.into()),
            );
        }
        let tls = TlsSpec {
            pairs,
            only_tls13: written.min_version == TlsVersion::V13,
            client_ca: client_ca.unwrap_or_default(),
            client_auth_required: written.client_auth == ClientAuth::Required,
        };
        Https { addr: written.addr.0, tls, files }
    }
}

/// The addresses that this process listens on: what each is called, the path of its key, and itself.
pub(super) fn own(
    listen: &Listen,
    admin: Option<SocketAddr>,
) -> impl Iterator<Item = (&'static str, &'static [&'static str], SocketAddr)> {
    let https = listen.https.as_ref().map(|https| https.addr);
    let all: [(_, &'static [&'static str], _); 3] = [
        ("listen.http", &["listen", "http"], listen.http),
        ("listen.https", &["listen", "https", "addr"], https),
        ("admin.listen", &["admin", "listen"], admin),
    ];
    all.into_iter().filter_map(|(name, path, addr)| Some((name, path, addr?)))
}

/// Whether a connection to `url` arrives at a listener on `own`, as far as that is known without asking DNS.
fn leads_to(url: &Endpoint, own: SocketAddr) -> bool {
    let listening = own.ip().to_canonical();
    // The port 0 is any free one, and no URL has it.
    own.port() == url.port
        && targets(&url.host).iter().any(|target| match listening {
            // Nothing else is known to be an address of this machine. `[::]` takes connections over IPv4 as well.
            IpAddr::V4(ip) if ip.is_unspecified() => target.is_ipv4() && target.is_loopback(),
            IpAddr::V6(ip) if ip.is_unspecified() => target.is_loopback(),
            ip => *target == ip,
        })
}

/// The addresses that a host is known to have. To connect to the unspecified address is to connect to loopback.
fn targets(host: &str) -> Vec<IpAddr> {
    let name = host.trim_end_matches('.');
    match host.parse::<IpAddr>().map(|ip| ip.to_canonical()) {
        Ok(IpAddr::V4(ip)) if ip.is_unspecified() => vec![Ipv4Addr::LOCALHOST.into()],
        Ok(IpAddr::V6(ip)) if ip.is_unspecified() => vec![Ipv6Addr::LOCALHOST.into()],
        Ok(ip) => vec![ip],
        Err(_) if name == "localhost" || name.ends_with(".localhost") => {
            vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()]
        }
        Err(_) => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_listeners_are_known_by_address_and_by_loopback() {
        let leads = |host: &str, own: &str| {
            let url = Endpoint { tls: false, host: host.into(), port: 80 };
            leads_to(&url, own.parse().expect("an address"))
        };
        for own in ["127.0.0.1:80", "0.0.0.0:80", "[::]:80"] {
            for host in ["127.0.0.1", "localhost", "a.localhost", "localhost.", "0.0.0.0", "::ffff:127.0.0.1"]
            {
                assert!(leads(host, own), "{host} {own}");
            }
            assert!(!leads("10.0.0.7", own) && !leads("localhost.example.com", own), "{own}");
        }
        assert!(leads("10.0.0.7", "10.0.0.7:80") && leads("2001:db8::1", "[2001:db8::1]:80"));
        assert!(leads("localhost", "[::1]:80") && leads("::1", "[::1]:80") && leads("::1", "[::]:80"));
        assert!(leads("127.0.0.2", "0.0.0.0:80") && !leads("127.0.0.2", "127.0.0.1:80"));
        assert!(!leads("::1", "0.0.0.0:80"), "it takes no connections over IPv6");
        assert!(!leads("localhost", "10.0.0.7:80") && !leads("::1", "127.0.0.1:80"));
        for port in [0, 81] {
            assert!(!leads("127.0.0.1", &format!("127.0.0.1:{port}")));
        }
    }
}
