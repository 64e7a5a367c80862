//! Where clients connect, and what they may use.

use std::{ops::RangeInclusive, time::Duration};

use super::{
    super::{
        files,
        leaf::{ByteSize, Leaf, Text},
        schema::{self, ClientAuth, TlsVersion},
        settings::{Https, Listen},
    },
    Rules,
};
use crate::model::{ClientLimits, TlsSpec, Trust};

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
