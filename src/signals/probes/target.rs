//! One probe: connect, or connect and ask.

use std::{sync::Arc, time::Duration};

use crate::{
    model::Backend,
    signals::{
        client::{Body, Client},
        credentials::Badge,
        resolve::Lookup,
    },
};

/// What a successful probe measured.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Timing {
    /// TCP and TLS.
    pub(super) connect: Duration,
    /// From the start of the connection to the header of the answer; `None` when only connecting.
    pub(super) first_byte: Option<Duration>,
}

/// What to probe, made ready once.
pub(super) struct Target {
    client: Client,
    path: Option<String>,
    badge: Option<Arc<Badge>>,
}

impl Target {
    /// May read the system's certificates: call it where blocking is allowed.
    /// `badge` is what the backend is shown, if it is.
    pub(super) fn new(backend: &Backend, badge: Option<Arc<Badge>>) -> Target {
        Target {
            client: Client::new(&backend.endpoint, backend.protocol, &backend.ca, backend.probe.timeout),
            path: backend.probe.path.clone(),
            badge,
        }
    }

    /// Probes once. The timeout covers everything, resolving included.
    ///
    /// # Errors
    /// What failed and how, in a few words for a status line.
    pub(super) async fn probe(&self, lookup: &mut Lookup) -> Result<Timing, String> {
        let Some(path) = &self.path else {
            return Ok(Timing { connect: self.client.reach(lookup).await?, first_byte: None });
        };
        let shown = self.badge.as_ref().and_then(|badge| badge.header());
        let reply = self.client.get_as(shown, path, Body::Unread, lookup).await?;
        if !reply.status.is_success() {
            return Err(format!("HTTP {} to GET {path}", reply.status.as_u16()));
        }
        Ok(Timing { connect: reply.connect, first_byte: Some(reply.first_byte) })
    }
}
