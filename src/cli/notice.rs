//! `tradewind notice`: says that nodes of a backend go away.

use super::{
    Failure,
    admin_client::AdminArgs,
    table::{self, printable},
};
use crate::{
    admin::views::NoticeReceipt,
    model::{BackendId, RateBasis, Share, Timestamp},
    signals::notices::{Lost, NewNotice, NoticeKind, Outcome},
};

/// Say that nodes of a backend go away; interruptions count for how often its spot nodes are taken back
#[derive(Clone, Debug, clap::Args)]
pub(super) struct Args {
    /// The backend
    backend: BackendId,

    /// What happens: spot-interruption, preemption, rebalance-recommendation, scheduled-maintenance or other
    #[arg(long)]
    kind: NoticeKind,

    #[command(flatten)]
    lost: HowMuch,

    /// When they go, "2026-03-02T10:00:00Z"; without it, now
    #[arg(long, value_name = "TIME")]
    at: Option<Timestamp>,

    /// What the event is called; what is sent twice under one name counts once
    #[arg(long)]
    id: Option<String>,

    /// The machine, where there is only one
    #[arg(long)]
    instance: Option<String>,

    #[command(flatten)]
    admin: AdminArgs,
}

#[derive(Clone, Debug, clap::Args)]
#[group(required = true, multiple = false)]
struct HowMuch {
    /// Part of the backend's nodes, "40%" or 0.4
    #[arg(long)]
    lost: Option<Share>,

    /// Number of nodes
    #[arg(long)]
    nodes: Option<u32>,
}

/// Asks the admin API and prints what became of it.
///
/// # Errors
/// When the API cannot be reached or refuses.
pub(super) async fn run(args: Args) -> Result<(), Failure> {
    let lost = match args.lost {
        HowMuch { lost: Some(part), .. } => Lost::Part(part),
        // One of them is there: clap sees to it.
        HowMuch { nodes, .. } => Lost::Nodes(nodes.unwrap_or_default()),
    };
    let Args { backend, kind, at, id, instance, admin, .. } = args;
    let notice = NewNotice { backend: Some(backend), kind, lost, at, id, instance };
    let reply = admin.post::<NoticeReceipt>("/v1/notices", &notice).await?;
    table::print(&if admin.json { reply.json() } else { taken(&reply.value) });
    Ok(())
}

fn taken(receipt: &NoticeReceipt) -> String {
    let NoticeReceipt { notice, outcome, interruptions } = receipt;
    let outcome = match outcome {
        Outcome::Counted { nodes } => match rounded(*nodes) {
            1.0 => format!("counted: 1 spot node of {}", notice.backend),
            nodes => format!("counted: {nodes} spot nodes of {}", notice.backend),
        },
        Outcome::Noted => format!("noted: {} does not count as an interruption", notice.kind),
        Outcome::Duplicate => format!(
            "not counted again: the event {} arrived within the last hour",
            printable(notice.id.as_deref().unwrap_or_default())
        ),
    };
    let rate = match interruptions {
        None => format!("{} has no spot nodes by its configuration, so its cost stays", notice.backend),
        Some(rate) => {
            let basis = match rate.basis {
                RateBasis::Configured => "as configured; what is learned does not change it",
                RateBasis::Learned => "learned from notices",
                RateBasis::Assumed => "assumed, for no interruption has arrived",
            };
            format!(
                "{}: {:.4} interruptions in an hour of a spot node ({basis})",
                notice.backend, rate.per_node_hour
            )
        }
    };
    format!("{outcome}\n{rate}\n")
}

/// Nodes are a part of a model, and not always whole.
fn rounded(nodes: f64) -> f64 {
    (nodes * 10.0).round() / 10.0
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::model::InterruptionRate;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    fn parse(line: &str) -> Result<Args, clap::Error> {
        Line::try_parse_from(["notice"].into_iter().chain(line.split(' '))).map(|line| line.args)
    }

    #[test]
    fn exactly_one_way_says_how_much() {
        for line in [
            "eks --kind spot-interruption --lost 40%",
            "eks --kind preemption --nodes 2 --at 2026-03-02T10:00:00Z --id e1 --instance i-1 --json",
        ] {
            assert!(parse(line).is_ok(), "{line}: {}", parse(line).unwrap_err());
        }
        for line in [
            "eks --kind preemption",
            "eks --kind preemption --lost 40% --nodes 2",
            "eks --kind preemtion --nodes 2",
            "eks --nodes 2",
            "--kind preemption --nodes 2",
            "eks --kind preemption --lost 140%",
            "eks --kind preemption --nodes 2 --at noon",
        ] {
            assert!(parse(line).is_err(), "{line} was accepted");
        }
    }

    #[test]
    fn what_became_of_it_is_said_in_words() {
        let now: Timestamp = "2026-03-02T10:00:00Z".parse().unwrap();
        let new = NewNotice {
            backend: None,
            kind: NoticeKind::SpotInterruption,
            lost: Lost::Nodes(2),
            at: None,
            id: Some("e1".into()),
            instance: None,
        };
        let receipt = |outcome, rate: Option<(f64, RateBasis)>| NoticeReceipt {
            notice: new.clone().of("eks-use1".parse().unwrap(), now),
            outcome,
            interruptions: rate.map(|(per_node_hour, basis)| InterruptionRate { per_node_hour, basis }),
        };
        let learned = Some((0.487, RateBasis::Learned));
        let said = [
            receipt(Outcome::Counted { nodes: 2.04 }, learned),
            receipt(Outcome::Duplicate, learned),
            receipt(Outcome::Noted, Some((0.387, RateBasis::Assumed))),
            receipt(Outcome::Counted { nodes: 1.0 }, Some((0.01, RateBasis::Configured))),
            receipt(Outcome::Counted { nodes: 1.0 }, None),
        ];
        insta::assert_snapshot!(said.iter().map(taken).collect::<String>(), @r"
        counted: 2 spot nodes of eks-use1
        eks-use1: 0.4870 interruptions in an hour of a spot node (learned from notices)
        not counted again: the event e1 arrived within the last hour
        eks-use1: 0.4870 interruptions in an hour of a spot node (learned from notices)
        noted: spot-interruption does not count as an interruption
        eks-use1: 0.3870 interruptions in an hour of a spot node (assumed, for no interruption has arrived)
        counted: 1 spot node of eks-use1
        eks-use1: 0.0100 interruptions in an hour of a spot node (as configured; what is learned does not change it)
        counted: 1 spot node of eks-use1
        eks-use1 has no spot nodes by its configuration, so its cost stays
        ");
    }
}
