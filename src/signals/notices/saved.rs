//! What was observed as JSON, so that it survives a restart.

use serde::{Deserialize, Serialize};

use super::{
    NoticeBoard,
    board::{EVENTS_MAX, Event, Record},
    departures::Departures,
};
use crate::model::{BackendId, Timestamp};

/// Changes when the shape below does. A file of another shape is refused, and learning begins anew.
const VERSION: u32 = 1;

#[derive(Serialize, Deserialize)]
struct Saved {
    version: u32,
    seen_until: Option<Timestamp>,
    records: Vec<SavedRecord>,
    events: Vec<SavedEvent>,
    #[serde(default)]
    departures: Departures,
}

#[derive(Serialize, Deserialize)]
struct SavedRecord {
    backend: BackendId,
    interruptions: f64,
    node_hours: f64,
    last: Timestamp,
}

#[derive(Serialize, Deserialize)]
struct SavedEvent {
    at: Timestamp,
    backend: BackendId,
    id: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    instance: Option<String>,
}

impl NoticeBoard {
    /// What was observed of every backend, and the events that would be known again.
    ///
    /// # Errors
    /// None in practice: the value has only names, numbers and times.
    pub fn to_json(&self) -> serde_json::Result<String> {
        let record = |(backend, record): (&BackendId, &Record)| SavedRecord {
            backend: backend.clone(),
            interruptions: record.interruptions,
            node_hours: record.node_hours,
            last: record.last,
        };
        let event = |Event { at, backend, id, instance }: &Event| SavedEvent {
            at: *at,
            backend: backend.clone(),
            id: id.clone(),
            instance: instance.clone(),
        };
        serde_json::to_string(&Saved {
            version: VERSION,
            seen_until: self.seen_until,
            records: self.records.iter().map(record).collect(),
            events: self.events.iter().map(event).collect(),
            departures: self.departures.clone(),
        })
    }

    /// Takes back what [`to_json`](Self::to_json) gave, in place of what is known, and says how many backends it knows now. The
    /// time in between fades what was observed, and adds no node-hours. Call it at the start.
    ///
    /// # Errors
    /// The text is not what `to_json` writes; the board is unchanged then.
    pub fn restore_json(&mut self, text: &str, now: Timestamp) -> Result<usize, String> {
        let saved: Saved =
            serde_json::from_str(text).map_err(|error| format!("saved notices cannot be read: {error}"))?;
        if saved.version != VERSION {
            return Err(format!("saved notices have version {}, expected {VERSION}", saved.version));
        }
        // Here and below: where a clock was ahead when this was saved, time goes on from now.
        let seen_until = saved.seen_until.map(|at| at.min(now));
        let mut board = NoticeBoard { seen_until, departures: saved.departures, ..NoticeBoard::default() };
        for SavedRecord { backend, interruptions, node_hours, last } in saved.records {
            let sound = |value: f64| value.is_finite() && value >= 0.0;
            if !sound(interruptions) || !sound(node_hours) {
                return Err(format!(
                    "saved notices have {interruptions} interruptions in {node_hours} node-hours of {backend}; expected \
                     numbers from 0 on"
                ));
            }
            board.records.insert(backend, Record { interruptions, node_hours, last: last.min(now) });
        }
        let newest = saved.events.len().saturating_sub(EVENTS_MAX);
        board.events.extend(saved.events.into_iter().skip(newest).map(
            |SavedEvent { at, backend, id, instance }| Event { at: at.min(now), backend, id, instance },
        ));
        board.advance(now, []);
        *self = board;
        Ok(self.records.len())
    }
}
