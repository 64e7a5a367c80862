//! What AWS Node Termination Handler says: its kinds of events (`pkg/monitor/types.go`), and the text that its webhook sends
//! where no template is configured (`pkg/config/config.go`; older releases lack some of its parts).

use super::{Lost, NewNotice, NoticeKind, arrival::unknown_kind};
use crate::model::Timestamp;

/// How the text begins.
const BEGINNING: &str = "[NTH][Instance Interruption] ";

/// How Go writes a time, up to the name of the zone: the offset before it says the same.
const GO_TIME: &str = "%Y-%m-%d %H:%M:%S%.f %z";

/// The kind that goes by this name there; `None` if there is none.
///
/// Early releases called all that came through a queue `SQS_TERMINATE`; the id of the event tells which are interruptions.
pub(super) fn kind(name: &str, id: Option<&str>) -> Option<NoticeKind> {
    Some(match name {
        "SPOT_ITN" => NoticeKind::SpotInterruption,
        "REBALANCE_RECOMMENDATION" => NoticeKind::RebalanceRecommendation,
        "SCHEDULED_EVENT" => NoticeKind::ScheduledMaintenance,
        "SQS_TERMINATE" if id.is_some_and(|id| id.starts_with("spot-itn")) => NoticeKind::SpotInterruption,
        "ASG_LIFECYCLE" | "ASG_LAUNCH_LIFECYCLE" | "STATE_CHANGE" | "SQS_TERMINATE" => NoticeKind::Other,
        _ => return None,
    })
}

/// The notice in a text such as `[NTH][Instance Interruption] EventID: spot-itn-1f - Kind: SPOT_ITN - Instance: i-1 - ...`. It
/// is about one machine.
///
/// # Errors
/// A sentence that says what is wrong.
pub(super) fn read(text: &str) -> Result<NewNotice, String> {
    let Some(parts) = text.trim_start().strip_prefix(BEGINNING) else {
        return Err(format!(
            "`text` is not what AWS Node Termination Handler sends without a template of its own: expected \
             `{BEGINNING}EventID: ...`"
        ));
    };
    // The description holds any words, so what is looked for stands before it, or at the very end.
    let (head, tail) = parts.split_once(" - Description: ").unwrap_or((parts, parts));
    let part = |name: &str| {
        let value = head.split(" - ").find_map(|part| part.strip_prefix(name)?.strip_prefix(": "))?.trim();
        (!value.is_empty()).then(|| value.to_owned())
    };
    let id = part("EventID");
    let name = part("Kind").ok_or("`text` has no `Kind: ...` among its parts")?;
    Ok(NewNotice {
        backend: None,
        kind: kind(&name, id.as_deref()).ok_or_else(|| unknown_kind(&name))?,
        lost: Lost::Nodes(1),
        at: tail.rsplit_once("Start Time: ").and_then(|(_, time)| go_time(time.trim())),
        id,
        instance: part("Instance").or_else(|| part("Node")),
    })
}

/// `2026-03-02 10:02:00 +0000 UTC`. `None` for what is no such time, and for the zero of Go, in the year 1, by which events
/// without a time are told: neither changes what the notice says.
fn go_time(text: &str) -> Option<Timestamp> {
    let (time, _zone) = text.rsplit_once(' ')?;
    let at = Timestamp::strptime(GO_TIME, time).ok()?;
    (at.as_second() > 0).then_some(at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_without_a_template_is_understood() {
        let text = "[NTH][Instance Interruption] EventID: spot-itn-1f - Kind: SPOT_ITN - Instance: i-0b66 - Node: \
                    ip-10-0-0-1.ec2.internal - Description: Spot ITN received. Instance will be interrupted at \
                    2026-03-02T10:02:00Z   - Start Time: 2026-03-02 10:02:00 +0000 UTC";
        let expected = NewNotice {
            backend: None,
            kind: NoticeKind::SpotInterruption,
            lost: Lost::Nodes(1),
            at: Some("2026-03-02T10:02:00Z".parse().unwrap()),
            id: Some("spot-itn-1f".into()),
            instance: Some("i-0b66".into()),
        };
        assert_eq!(read(text), Ok(expected));
    }

    #[test]
    fn parts_may_be_missing() {
        let of = |parts: &str| read(&format!("{BEGINNING}{parts}"));
        let old =
            of("EventID: e1 - Kind: SCHEDULED_EVENT - Description: - Kind: SPOT_ITN - Start Time: soon");
        let old = old.unwrap();
        assert_eq!((old.kind, old.at, old.instance), (NoticeKind::ScheduledMaintenance, None, None));
        let node = of("EventID:  - Kind: STATE_CHANGE - Instance:  - Node: ip-1 - Description: x").unwrap();
        assert_eq!((node.kind, node.id, node.instance), (NoticeKind::Other, None, Some("ip-1".into())));
        let zero = of("Kind: SPOT_ITN - Start Time: 0001-01-01 00:00:00 +0000 UTC").unwrap();
        assert_eq!(zero.at, None);
        let precise = of("Kind: SPOT_ITN - Start Time: 2026-03-02 11:02:00.25 +0100 CET").unwrap();
        assert_eq!(precise.at, "2026-03-02T10:02:00.25Z".parse().ok());
    }

    #[test]
    fn what_came_through_a_queue_is_told_apart() {
        let of = |id: &str| read(&format!("{BEGINNING}EventID: {id} - Kind: SQS_TERMINATE")).unwrap().kind;
        assert_eq!(of("spot-itn-event-1"), NoticeKind::SpotInterruption);
        assert_eq!(of("asg-lifecycle-term-1"), NoticeKind::Other);
    }

    #[test]
    fn other_texts_are_refused() {
        assert!(
            read("Alert: disk full").unwrap_err().contains("`[NTH][Instance Interruption] EventID: ...`")
        );
        let without = format!("{BEGINNING}EventID: e1 - Description: Kind: SPOT_ITN");
        assert_eq!(read(&without).unwrap_err(), "`text` has no `Kind: ...` among its parts");
        let unknown = read(&format!("{BEGINNING}Kind: SOLAR_FLARE")).unwrap_err();
        assert!(unknown.starts_with("there is no kind `SOLAR_FLARE`; there are: "), "{unknown}");
    }
}
