//! A notice as it arrives: in our own form, or as the webhook of AWS Node Termination Handler writes it.

use serde::{Deserialize, Deserializer, Serialize, de::Error};

use super::{Lost, NODES_LOST_MAX, Notice, NoticeKind, termination_handler};
use crate::model::{BackendId, Share, Timestamp};

/// Longest `id` and `instance` in bytes: they are remembered. The longest of AWS Node Termination Handler has about 110.
pub const NAME_LEN_MAX: usize = 256;

/// A notice of which the sender may have left out whose it is and when.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(try_from = "Written")]
pub struct NewNotice {
    /// Whose nodes; a sender that knows no names of backends says it in the address that it sends to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backend: Option<BackendId>,
    /// What happens to them.
    pub kind: NoticeKind,
    /// How many. More than none.
    #[serde(flatten)]
    pub lost: Lost,
    /// When they go, or went; `None` for now.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub at: Option<Timestamp>,
    /// What the sender calls the event.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// The machine.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub instance: Option<String>,
}

impl NewNotice {
    /// The notice, about `backend`, received at `now`.
    pub fn of(self, backend: BackendId, now: Timestamp) -> Notice {
        let NewNotice { backend: _, kind, lost, at, id, instance } = self;
        Notice { backend, kind, lost, at: at.unwrap_or(now), id, instance }
    }
}

/// All that a body may hold.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    #[serde(default)]
    text: Option<String>,
    #[serde(default)]
    backend: Option<BackendId>,
    #[serde(default)]
    kind: Option<String>,
    #[serde(default)]
    lost: Option<Share>,
    #[serde(default, deserialize_with = "nodes")]
    nodes: Option<u32>,
    #[serde(default, deserialize_with = "time")]
    at: Option<Timestamp>,
    #[serde(default)]
    id: Option<String>,
    #[serde(default)]
    instance: Option<String>,
}

/// A whole number in its range, with an error that says so.
fn nodes<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u32>, D::Error> {
    let Some(number) = Option::<f64>::deserialize(deserializer)? else { return Ok(None) };
    if number.fract() == 0.0 && (1.0..=f64::from(NODES_LOST_MAX)).contains(&number) {
        return Ok(Some(number as u32));
    }
    Err(D::Error::custom(format!("`nodes` is {number}; expected a whole number from 1 to {NODES_LOST_MAX}")))
}

fn time<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Timestamp>, D::Error> {
    let Some(text) = Option::<String>::deserialize(deserializer)? else { return Ok(None) };
    let wrong = || format!("`at`: `{text}` is not a time; expected RFC 3339 such as `2026-03-02T10:00:00Z`");
    text.parse().map(Some).map_err(|_| D::Error::custom(wrong()))
}

impl TryFrom<Written> for NewNotice {
    type Error = String;

    fn try_from(written: Written) -> Result<NewNotice, String> {
        let Written { text, backend, kind, lost, nodes, at, id, instance } = written;
        // A template may leave a field empty where its event has no such thing.
        let given = |text: Option<String>| text.filter(|text| !text.is_empty());
        if let Some(text) = text {
            let more = kind.is_some()
                || lost.is_some()
                || nodes.is_some()
                || at.is_some()
                || id.is_some()
                || instance.is_some();
            if more {
                return Err("`text` is a whole notice: beside it only `backend` may stand".into());
            }
            let read = termination_handler::read(&text)?;
            name("EventID", read.id.as_deref())?;
            name("Instance", read.instance.as_deref())?;
            return Ok(NewNotice { backend, ..read });
        }
        let (id, instance) = (given(id), given(instance));
        name("id", id.as_deref())?;
        name("instance", instance.as_deref())?;
        let kind = kind.ok_or_else(|| format!("`kind` is missing; expected one of {}", known_kinds()))?;
        Ok(NewNotice {
            backend,
            kind: match termination_handler::kind(&kind, id.as_deref()) {
                Some(kind) => kind,
                None => kind.parse()?,
            },
            lost: how_much(lost, nodes, instance.is_some())?,
            at,
            id,
            instance,
        })
    }
}

fn how_much(lost: Option<Share>, nodes: Option<u32>, one_machine: bool) -> Result<Lost, String> {
    match (lost, nodes) {
        (Some(part), None) if part.get() > 0.0 => Ok(Lost::Part(part)),
        (Some(_), None) => Err("`lost` is 0; expected a part above 0, up to 1".into()),
        (None, Some(nodes)) => Ok(Lost::Nodes(nodes)),
        (None, None) if one_machine => Ok(Lost::Nodes(1)),
        (None, None) => Err(
            "it does not say how much is lost; expected `lost` (a part, 0.4), `nodes` (a number) or `instance` \
             (one machine)"
                .into(),
        ),
        (Some(_), Some(_)) => Err("`lost` and `nodes` both say how much is lost; expected one of them".into()),
    }
}

/// Names are remembered, and shown to people.
fn name(field: &str, name: Option<&str>) -> Result<(), String> {
    let Some(name) = name else { return Ok(()) };
    if name.len() > NAME_LEN_MAX {
        return Err(format!("`{field}` has {} bytes; at most {NAME_LEN_MAX} are allowed", name.len()));
    }
    if !name.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(format!("`{field}` may hold visible ASCII characters only"));
    }
    Ok(())
}

fn known_kinds() -> String {
    NoticeKind::ALL.map(|kind| kind.to_string()).join(", ")
}

/// What is said of a kind that there is not.
pub(super) fn unknown_kind(kind: &str) -> String {
    format!("there is no kind `{}`; there are: {}", kind.escape_default(), known_kinds())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Result<NewNotice, String> {
        serde_json::from_str(json).map_err(|error| error.to_string())
    }

    #[test]
    fn both_ways_to_say_how_much_are_understood() {
        let part = read(r#"{"backend": "eks", "kind": "spot-interruption", "lost": 0.4}"#).unwrap();
        assert_eq!((part.lost, part.at), (Lost::Part(Share::new(0.4).unwrap()), None));
        let nodes = read(r#"{"kind": "preemption", "nodes": 2, "at": "2026-03-02T10:00:00Z"}"#).unwrap();
        assert_eq!((nodes.backend, nodes.lost), (None, Lost::Nodes(2)));
        let machine = read(r#"{"kind": "preemption", "instance": "gke-1", "id": ""}"#).unwrap();
        assert_eq!((machine.lost, machine.id), (Lost::Nodes(1), None));
    }

    #[test]
    fn kinds_may_be_those_of_the_termination_handler() {
        let of = |kind: &str| read(&format!(r#"{{"kind": "{kind}", "nodes": 1}}"#)).map(|notice| notice.kind);
        for kind in NoticeKind::ALL {
            assert_eq!(of(&kind.to_string()), Ok(kind));
        }
        assert_eq!(of("SPOT_ITN"), Ok(NoticeKind::SpotInterruption));
        assert_eq!(of("ASG_LIFECYCLE"), Ok(NoticeKind::Other));
    }

    #[test]
    fn what_is_wrong_is_said() {
        let long = format!(r#"{{"kind": "other", "nodes": 1, "id": "{}"}}"#, "x".repeat(NAME_LEN_MAX + 1));
        for (body, why) in [
            ("{}", "`kind` is missing; expected one of spot-interruption, rebalance-recommendation"),
            (r#"{"kind": "spot"}"#, "there is no kind `spot`; there are: spot-interruption"),
            (r#"{"kind": "other"}"#, "does not say how much is lost"),
            (r#"{"kind": "other", "lost": 0.4, "nodes": 2}"#, "both say how much"),
            (r#"{"kind": "other", "lost": 1.5}"#, "`1.5` is not a share"),
            (r#"{"kind": "other", "lost": -0.1}"#, "`-0.1` is not a share"),
            (r#"{"kind": "other", "lost": 0}"#, "`lost` is 0; expected a part above 0"),
            (r#"{"kind": "other", "nodes": 0}"#, "`nodes` is 0; expected a whole number from 1 to 10000"),
            (r#"{"kind": "other", "nodes": -1}"#, "`nodes` is -1"),
            (r#"{"kind": "other", "nodes": 2.5}"#, "`nodes` is 2.5"),
            (r#"{"kind": "other", "nodes": 10001}"#, "`nodes` is 10001"),
            (r#"{"kind": "other", "nodes": 1, "at": "noon"}"#, "`noon` is not a time"),
            (r#"{"kind": "other", "nodes": 1, "id": "a b"}"#, "`id` may hold visible ASCII"),
            (&long, "`id` has 257 bytes; at most 256"),
            (r#"{"kind": "other", "nodes": 1, "zone": "a"}"#, "unknown field `zone`"),
            (r#"{"text": "hello"}"#, "AWS Node Termination Handler"),
            (r#"{"text": "hello", "kind": "other"}"#, "beside it only `backend`"),
            (r#"{"backend": "a b", "kind": "other", "nodes": 1}"#, "the name `a b`"),
        ] {
            let error = read(body).unwrap_err();
            assert!(error.contains(why), "{body}: {error}");
        }
    }
}
