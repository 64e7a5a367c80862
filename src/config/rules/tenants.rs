//! Tenants and their keys.

use std::{collections::HashMap, sync::Arc};

use super::{
    super::{
        leaf::{Leaf, Text},
        schema::{self, Authentication, Document, SecretRef},
    },
    Rules,
};
use crate::model::{Allowance, Digest, ModelPattern, RouteId, Tenant, TenantId};

/// Most tenants: each has series of its own in the metrics.
const TENANTS_MAX: usize = 1_000;

/// How a file says that it holds the hash of a key and not the key.
const HASHED: &str = "sha256:";

impl Rules<'_, '_> {
    /// Everyone who may send requests; `None` if all may.
    pub(super) fn tenants(&mut self, document: &Document) -> Option<Vec<Arc<Tenant>>> {
        let written = &document.tenants.0;
        if written.len() > TENANTS_MAX {
            let message = format!("found {}, expected at most {TENANTS_MAX}", written.len());
            self.error(&["tenants"], message, None);
        }
        let mut keys: HashMap<Digest, TenantId> = HashMap::new();
        let tenants: Vec<_> =
            written.iter().map(|(id, tenant)| self.tenant(id, tenant, document, &mut keys)).collect();
        match (document.listen.authentication, tenants.first()) {
            (Authentication::Required, None) => {
                // One that does not fit is there all the same.
                if !self.is_written(&["tenants"]) {
                    let hint = "add a table [tenants.NAME]; `tradewind key` makes a key";
                    let message = "there is no tenant, so every request would be refused";
                    self.error(&["listen", "authentication"], message.into(), Some(hint.into()));
                }
                Some(tenants)
            }
            (Authentication::Required, Some(_)) => Some(tenants),
            (Authentication::Off, None) => None,
            (Authentication::Off, Some(first)) => {
                let hint = "set `listen.authentication = \"required\"`";
                self.warn(
                    &["tenants", first.id.as_str()],
                    "no key is looked at, so this limits nobody",
                    Some(hint.into()),
                );
                None
            }
        }
    }

    fn tenant(
        &mut self,
        id: &TenantId,
        written: &schema::Tenant,
        document: &Document,
        taken: &mut HashMap<Digest, TenantId>,
    ) -> Arc<Tenant> {
        let path = ["tenants", id.as_str()];
        let mut keys = Vec::new();
        for (index, key) in written.keys.iter().enumerate() {
            let element = format!("[{index}]");
            let at = [&path[..], &["keys", &element]].concat();
            let Some(hash) = self.key(&at, key) else { continue };
            match taken.insert(hash, id.clone()) {
                Some(other) => {
                    let message = format!("it is a key of the tenant `{other}` too");
                    self.error(&at, message, Some("make one for each: `tradewind key`".into()));
                }
                None => keys.push(hash),
            }
        }
        if written.tokens_per_minute.is_some() && !document.listen.count_tokens {
            let message = "`listen.count_tokens` is off, so no token is counted".to_owned();
            self.error(&[&path[..], &["tokens_per_minute"]].concat(), message, None);
        }
        Arc::new(Tenant {
            id: id.clone(),
            keys,
            routes: self.tenant_routes(&path, &written.routes, document),
            models: self.tenant_models(&path, &written.models),
            allowance: Allowance {
                requests_per_minute: written.requests_per_minute,
                tokens_per_minute: written.tokens_per_minute,
                usd_per_day: written.usd_per_day,
                usd_per_month: written.usd_per_month,
            },
        })
    }

    fn key(&mut self, path: &[&str], written: &schema::Key) -> Option<Digest> {
        if let Some(Text(hash)) = &written.sha256 {
            return Some(*hash);
        }
        let source = SecretRef { env: written.env.clone(), file: written.file.clone() };
        self.watched.extend(written.file.as_ref().map(|file| self.dir.join(file)));
        let secret = self.secret(path, &source)?;
        match secret.expose().strip_prefix(HASHED) {
            None => Some(Digest::of(secret.expose().as_bytes())),
            Some(hex) => {
                let hash = Digest::parse(hex);
                hash.map_err(|problem| self.error(path, format!("{secret}: {problem}"), None)).ok()
            }
        }
    }

    fn tenant_routes(
        &mut self,
        tenant: &[&str],
        written: &[Text<RouteId>],
        document: &Document,
    ) -> Vec<RouteId> {
        let mut routes = Vec::new();
        for (index, Text(id)) in written.iter().enumerate() {
            let element = format!("[{index}]");
            let path = [tenant, &["routes", &element]].concat();
            if !self.is_written(&["routes", id.as_str()]) {
                let known = document.routes.0.iter().map(|(known, _)| known.as_str());
                let hint = self.meant(id.as_str(), known);
                self.error(&path, format!("there is no route `{id}`"), hint);
            } else if routes.contains(id) {
                self.error(&path, format!("the route `{id}` is there twice"), Some("take one out".into()));
            } else {
                routes.push(id.clone());
            }
        }
        routes
    }

    fn tenant_models(&mut self, tenant: &[&str], written: &[Text<ModelPattern>]) -> Vec<ModelPattern> {
        let mut models: Vec<ModelPattern> = Vec::new();
        for (index, Text(model)) in written.iter().enumerate() {
            if models.contains(model) {
                let element = format!("[{index}]");
                let message = format!("the model `{}` is there twice", model.show());
                let path = [tenant, &["models", &element]].concat();
                self.error(&path, message, Some("take one out".into()));
            } else {
                models.push(model.clone());
            }
        }
        models
    }
}
