//! `tradewind override`: what an operator imposes for a while.

use std::fmt::Write as _;

use http::Method;
use serde::Deserialize;

use super::{
    Failure,
    admin_client::{AdminArgs, segment},
    status::overrides_table,
    table::{self, Ink},
};
use crate::{
    admin::{
        board::Preview,
        views::{NewOverride, OverrideStatus, RouteStatus, Status},
    },
    model::{BackendId, Fallback, Override, OverrideKind, RouteId, Share},
};

/// Set, list and end overrides: instructions that end by themselves
#[derive(Clone, Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,

    #[command(flatten)]
    admin: AdminArgs,
}

#[derive(Clone, Debug, clap::Subcommand)]
enum Command {
    /// Send no new request to a backend
    Drain {
        /// The backend
        backend: BackendId,
        #[command(flatten)]
        terms: Terms,
    },
    /// Give a backend exactly a share of the requests
    Pin {
        /// The backend
        backend: BackendId,
        /// The share, "30%" or 0.3; without it, all requests
        #[arg(long)]
        share: Option<Share>,
        #[command(flatten)]
        terms: Terms,
    },
    /// Give a backend at most a share of the requests
    Cap {
        /// The backend
        backend: BackendId,
        /// The share, "30%" or 0.3
        #[arg(long)]
        share: Share,
        #[command(flatten)]
        terms: Terms,
    },
    /// Move nothing for money; what must move, such as away from a dead backend, still does
    Freeze {
        /// Only what concerns this backend
        backend: Option<BackendId>,
        #[command(flatten)]
        terms: Terms,
    },
    /// The same with the kind as an argument, for scripts
    Add {
        /// What it does
        #[arg(value_parser = kind)]
        kind: OverrideKind,
        /// The backend; only `freeze` may go without
        backend: Option<BackendId>,
        /// The share of `pin` (default: all) and `cap` (required)
        #[arg(long)]
        share: Option<Share>,
        #[command(flatten)]
        terms: Terms,
    },
    /// List the overrides that hold now
    List,
    /// End an override
    End {
        /// Its id, as `list` shows it
        id: String,
    },
}

/// What every override has.
#[derive(Clone, Debug, clap::Args)]
struct Terms {
    /// Only for this route; without it, for all
    #[arg(long)]
    route: Option<RouteId>,
    /// How long it holds, "30m"
    #[arg(long, value_name = "DURATION")]
    ttl: String,
    /// Why, for the others and for later
    #[arg(long, value_name = "TEXT")]
    reason: String,
    /// Only say what would follow
    #[arg(long)]
    dry_run: bool,
}

fn kind(text: &str) -> Result<OverrideKind, String> {
    let found = OverrideKind::ALL.into_iter().find(|kind| kind.as_str() == text);
    found.ok_or_else(|| format!("expected one of {}", OverrideKind::ALL.map(OverrideKind::as_str).join(", ")))
}

impl Terms {
    fn with(self, kind: OverrideKind, backend: Option<BackendId>, share: Option<Share>) -> Order {
        let new = NewOverride { kind, route: self.route, backend, share, ttl: self.ttl, reason: self.reason };
        Order { new, dry_run: self.dry_run }
    }
}

/// An override to be stored, or only to be looked at.
struct Order {
    new: NewOverride,
    dry_run: bool,
}

/// Asks the admin API and prints what became of it.
///
/// # Errors
/// When the API cannot be reached or refuses.
pub(super) async fn run(args: Args) -> Result<(), Failure> {
    use OverrideKind::{Cap, Drain, Freeze, Pin};
    let admin = &args.admin;
    match args.command {
        Command::Drain { backend, terms } => add(admin, terms.with(Drain, Some(backend), None)).await,
        Command::Pin { backend, share, terms } => add(admin, terms.with(Pin, Some(backend), share)).await,
        Command::Cap { backend, share, terms } => {
            add(admin, terms.with(Cap, Some(backend), Some(share))).await
        }
        Command::Freeze { backend, terms } => add(admin, terms.with(Freeze, backend, None)).await,
        Command::Add { kind, backend, share, terms } => add(admin, terms.with(kind, backend, share)).await,
        Command::List => list(admin).await,
        Command::End { id } => end(admin, &id).await,
    }
}

async fn add(admin: &AdminArgs, Order { new, dry_run }: Order) -> Result<(), Failure> {
    if dry_run {
        let reply = admin.post::<Preview>("/v1/overrides?dry_run=true", &new).await?;
        table::print(&if admin.json { reply.json() } else { previewed(&reply.value) });
        return Ok(());
    }
    let reply = admin.post::<OverrideStatus>("/v1/overrides", &new).await?;
    table::print(&if admin.json { reply.json() } else { stored(&reply.value) });
    // It is stored whatever this says, or does not say.
    if let Ok(status) = admin.call::<Status>(Method::GET, "/v1/status").await {
        let concerned = |route: &&RouteStatus| new.route.as_ref().is_none_or(|only| *only == route.route);
        let refusing = |route: &&RouteStatus| route.fallback == Fallback::NothingEligible;
        for route in status.value.routes.iter().filter(concerned).filter(refusing) {
            eprintln!("warning: route {}: no backend may serve now, every request is refused", route.route);
        }
    }
    Ok(())
}

fn previewed(preview: &Preview) -> String {
    let mut out = String::from("nothing is stored; it would mean\n");
    for route in &preview.routes {
        let _ = writeln!(out, "  {}: {}", route.route, table::printable(&route.summary));
        if let (Some(now), Some(then)) = (route.now_usd_per_hour, route.then_usd_per_hour) {
            let _ = writeln!(out, "    {} an hour in place of {}", table::usd(then), table::usd(now));
        }
    }
    out
}

#[derive(Deserialize)]
struct Listed {
    overrides: Vec<OverrideStatus>,
}

async fn list(admin: &AdminArgs) -> Result<(), Failure> {
    let reply = admin.call::<Listed>(Method::GET, "/v1/overrides").await?;
    table::print(&match reply.value.overrides.as_slice() {
        _ if admin.json => reply.json(),
        [] => "no override holds now\n".into(),
        overrides => overrides_table(overrides, "", Ink::of_stdout()),
    });
    Ok(())
}

async fn end(admin: &AdminArgs, id: &str) -> Result<(), Failure> {
    let path = format!("/v1/overrides/{}", segment(id));
    let reply = admin.call::<Override>(Method::DELETE, &path).await?;
    table::print(&if admin.json { reply.json() } else { format!("ended: {}\n", describe(&reply.value)) });
    Ok(())
}

fn stored(new: &OverrideStatus) -> String {
    format!(
        "stored: {}, until {} (in {})\nend it earlier with: tradewind override end {}\n",
        describe(&new.item),
        table::moment(new.item.expires_at),
        table::span(new.remaining_seconds),
        table::printable(&new.item.id),
    )
}

/// `o-1, cap eks-use1 at 30% on all routes`
fn describe(item: &Override) -> String {
    let backend = item.backend.as_ref().map(|backend| format!(" {backend}")).unwrap_or_default();
    let share = match (item.kind, item.share) {
        (OverrideKind::Cap | OverrideKind::Pin, Some(share)) => format!(" at {share}"),
        _ => String::new(),
    };
    let route = item.route.as_ref().map_or("all routes".into(), |route| format!("route {route}"));
    format!("{}, {}{backend}{share} on {route}", table::printable(&item.id), item.kind)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    fn parse(line: &str) -> Result<Args, clap::Error> {
        Line::try_parse_from(["override"].into_iter().chain(line.split(' '))).map(|line| line.args)
    }

    #[test]
    fn short_forms_say_what_the_long_form_says() {
        let accepted = [
            "drain eks --ttl 30m --reason incident",
            "pin eks --ttl 30m --reason incident",
            "pin eks --share 30% --route chat --ttl 30m --reason incident",
            "cap eks --share 0.3 --ttl 30m --reason incident",
            "freeze --ttl 30m --reason incident",
            "freeze --route chat --ttl 30m --reason incident --json",
            "add cap eks --share 30% --ttl 30m --reason incident",
            "add freeze --ttl 30m --reason incident --admin http://127.0.0.1:1",
            "list --json",
            "end o-1 --timeout 500ms",
        ];
        for line in accepted {
            assert!(parse(line).is_ok(), "{line}: {}", parse(line).unwrap_err());
        }
        let refused = [
            "drain --ttl 30m --reason incident",
            "drain eks --reason incident",
            "drain eks --ttl 30m",
            "drain eks --share 10% --ttl 30m --reason incident",
            "cap eks --ttl 30m --reason incident",
            "cap eks --share 130% --ttl 30m --reason incident",
            "add drian eks --ttl 30m --reason incident",
            "end",
            "list --timeout 0s",
        ];
        for line in refused {
            assert!(parse(line).is_err(), "{line} was accepted");
        }
    }

    #[test]
    fn what_became_of_it_is_said_in_words() {
        let status = OverrideStatus {
            item: Override {
                id: "o-1".into(),
                kind: OverrideKind::Cap,
                route: None,
                backend: Some("eks-use1".parse().unwrap()),
                share: "30%".parse().ok(),
                reason: "quota".into(),
                author: "oncall".into(),
                created_at: "2026-03-02T10:00:00Z".parse().unwrap(),
                expires_at: "2026-03-02T10:30:00Z".parse().unwrap(),
            },
            remaining_seconds: 1799.9,
        };
        insta::assert_snapshot!(stored(&status), @r"
        stored: o-1, cap eks-use1 at 30% on all routes, until 2026-03-02 10:30:00Z (in 29 min 59 s)
        end it earlier with: tradewind override end o-1
        ");
    }
}
