//! Notices that nodes go away: what is taken, what is refused, what is kept of them.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use serde_json::json;

use super::{Control, Note, lock};
use crate::{
    admin::views::{NoticeError, NoticeReceipt},
    model::{Backend, BackendId, Timestamp},
    signals::notices::{Lost, NewNotice, Notice, NoticeBoard, NoticeKind, Outcome},
    store::EntryKind,
};

/// Blob in which what was learned from notices outlives a restart.
pub(super) const NOTICES_BLOB: &str = "notices.json";

/// Notices that are taken at once, as many as the board knows again: a whole cluster that goes has fewer nodes.
const BURST_MAX: f64 = 4096.0;

/// Notices that are taken in a second in the long run. Each is a line of some 500 bytes in the journal: at this rate one day
/// of them is a third of what it holds, and a sender gone wild does not push the decisions out within hours.
const PER_SECOND_MAX: f64 = 1.0;

/// What was learned is written down at most so often: the file may have two megabytes, and notices come in swarms.
const SAVE_SPACING: Duration = Duration::from_secs(1);

/// An interruption is announced two minutes before at most, by AWS and by Google Cloud. One that is an hour off was
/// delayed, or a clock is wrong; and after an hour it would not be known again if it was sent twice.
const INTERRUPTION_OFF_MAX: Duration = Duration::from_secs(3600);

/// Anything else does not count, so this only keeps out what is a mistake: AWS announces maintenance weeks before.
const OTHER_OFF_MAX: Duration = Duration::from_secs(60 * 24 * 3600);

/// What is remembered of the notices beside what the board learns.
pub(super) struct Intake {
    /// Notices that may be taken now.
    room: f64,
    room_at: Instant,
    /// Those taken since the start, without duplicates: by backend of the configuration and by kind, so there are few.
    counts: BTreeMap<(BackendId, NoticeKind), u64>,
    unsaved: bool,
    saved_at: Option<Instant>,
}

impl Intake {
    pub(super) fn new(now: Instant) -> Intake {
        Intake { room: BURST_MAX, room_at: now, counts: BTreeMap::new(), unsaved: false, saved_at: None }
    }

    /// Takes the room of one notice; `false` if there is none.
    fn admit(&mut self, now: Instant) -> bool {
        let passed = now.saturating_duration_since(self.room_at).as_secs_f64();
        self.room = (self.room + passed * PER_SECOND_MAX).min(BURST_MAX);
        self.room_at = now;
        let admitted = self.room >= 1.0;
        if admitted {
            self.room -= 1.0;
        }
        admitted
    }

    fn count(&mut self, backend: &BackendId, kind: NoticeKind) {
        *self.counts.entry((backend.clone(), kind)).or_default() += 1;
        self.unsaved = true;
    }

    /// Whether something new is to be written down now.
    fn save_due(&mut self, now: Instant) -> bool {
        let rested = self.saved_at.is_none_or(|at| now.saturating_duration_since(at) >= SAVE_SPACING);
        let due = self.unsaved && rested;
        if due {
            self.unsaved = false;
            self.saved_at = Some(now);
        }
        due
    }

    /// Notices by backend and kind.
    pub(super) fn counts(&self) -> Vec<(BackendId, NoticeKind, u64)> {
        self.counts.iter().map(|((backend, kind), count)| (backend.clone(), *kind, *count)).collect()
    }
}

/// What was learned before a restart. What cannot be read is told, and learning begins anew.
pub(super) fn restored(saved: Option<String>, now: Timestamp) -> NoticeBoard {
    let mut board = NoticeBoard::default();
    if let Some(Err(why)) = saved.map(|text| board.restore_json(&text, now)) {
        tracing::warn!("{NOTICES_BLOB}: {why}; learning begins anew");
    }
    board
}

impl Control {
    /// Takes a notice. The loop sees it in its next turn.
    pub(super) fn take_notice(
        &self,
        backend: &BackendId,
        new: NewNotice,
        author: &str,
    ) -> Result<NoticeReceipt, NoticeError> {
        let now = Timestamp::now();
        let active = self.active.load();
        let backends = &active.settings.backends;
        let Some(known) = backends.iter().find(|b| b.id == *backend) else {
            let names: Vec<&str> = backends.iter().map(|b| b.id.as_str()).collect();
            return Err(NoticeError::Invalid(format!(
                "there is no backend `{backend}`; there are: {}",
                names.join(", ")
            )));
        };
        let dated = new.at.is_some();
        let notice = new.of(backend.clone(), now);
        check(&notice, known, now).map_err(NoticeError::Invalid)?;
        if !lock(&self.intake).admit(Instant::now()) {
            return Err(NoticeError::TooMany(format!(
                "more than {BURST_MAX} notices arrived, faster than {PER_SECOND_MAX} a second: this one does not count; \
                 send one notice with `nodes` for all nodes that go at once"
            )));
        }
        let (outcome, rate) = {
            let mut board = lock(&self.signals.notices);
            let outcome = board.record(&notice, now);
            if matches!(outcome, Outcome::Counted { .. }) {
                board.note_departure(&notice, dated, known, now);
            }
            (outcome, board.rate_in_force(known))
        };
        if outcome != Outcome::Duplicate {
            lock(&self.intake).count(backend, notice.kind);
        }
        let receipt =
            NoticeReceipt { notice, outcome, interruptions: known.has_spot_nodes().then_some(rate) };
        if matches!(outcome, Outcome::Counted { .. }) {
            self.wake.notify_one();
        }
        tracing::info!(
            %backend, kind = %receipt.notice.kind, author, ?outcome, per_node_hour = rate.per_node_hour, "notice"
        );
        let body = json!({ "author": author, "receipt": receipt });
        self.note(now, EntryKind::Notice, None, body);
        Ok(receipt)
    }

    /// Writes down what was learned, if there is news or `anyway`.
    pub(super) fn save_notices(&self, anyway: bool) {
        let due = lock(&self.intake).save_due(Instant::now());
        if !due && !anyway {
            return;
        }
        let saved = lock(&self.signals.notices).to_json();
        match saved {
            Ok(text) => self.scribe.note(Note::Blob { name: NOTICES_BLOB, bytes: text.into_bytes() }),
            Err(error) => tracing::error!(%error, "what was learned from notices could not be written down"),
        }
    }
}

/// What a notice needs beyond its form.
fn check(notice: &Notice, backend: &Backend, now: Timestamp) -> Result<(), String> {
    let off_max = if notice.kind.is_interruption() { INTERRUPTION_OFF_MAX } else { OTHER_OFF_MAX };
    let off = notice.at.duration_since(now);
    if off.unsigned_abs() > off_max {
        return Err(format!(
            "`at` is {}, too far in the {} (it is {now:.0}); for `{}` at most {} hours are taken: is a clock wrong?",
            notice.at,
            if off.is_negative() { "past" } else { "future" },
            notice.kind,
            off_max.as_secs() / 3600
        ));
    }
    if let (Lost::Nodes(lost), Some(nodes_max)) = (notice.lost, nodes_max(backend))
        && f64::from(lost) > nodes_max
    {
        return Err(format!(
            "`nodes` is {lost}, but `{}` has at most {nodes_max} nodes by its `replicas.max` and `node.replicas_per_node`",
            backend.id
        ));
    }
    Ok(())
}

/// Most nodes that a backend can have by its configuration: what one wrong figure may at most do to the rate. At least one.
fn nodes_max(backend: &Backend) -> Option<f64> {
    let (node, replicas) = (backend.node.as_ref()?, backend.replicas.as_ref()?);
    Some((f64::from(replicas.max) / node.replicas_per_node).ceil().max(1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_swarm_is_taken_and_then_a_trickle() {
        let start = Instant::now();
        let mut intake = Intake::new(start);
        for _ in 0..4096 {
            assert!(intake.admit(start));
        }
        assert!(!intake.admit(start));
        assert!(!intake.admit(start + Duration::from_millis(500)));
        assert!(intake.admit(start + Duration::from_secs(1)));
        assert!(!intake.admit(start + Duration::from_secs(1)));
        // A day of silence makes room for one swarm, not for more.
        let later = start + Duration::from_secs(24 * 3600);
        let taken = (0..10_000).filter(|_| intake.admit(later)).count();
        assert_eq!(taken, 4096);
    }

    #[test]
    fn news_is_written_down_once_and_not_in_every_turn() {
        let start = Instant::now();
        let mut intake = Intake::new(start);
        assert!(!intake.save_due(start));
        let backend: BackendId = "eks".parse().unwrap();
        intake.count(&backend, NoticeKind::Preemption);
        assert!(intake.save_due(start));
        assert!(!intake.save_due(start + Duration::from_secs(9)), "nothing is new");
        intake.count(&backend, NoticeKind::Preemption);
        assert!(intake.save_due(start + Duration::from_secs(9)));
        intake.count(&backend, NoticeKind::Preemption);
        assert!(!intake.save_due(start + Duration::from_millis(9_500)), "too soon");
        assert!(intake.save_due(start + Duration::from_secs(10)));
        assert_eq!(intake.counts(), [(backend, NoticeKind::Preemption, 3)]);
    }

    #[test]
    fn what_cannot_be_read_begins_anew() {
        let now: Timestamp = "2026-03-02T10:00:00Z".parse().unwrap();
        let empty = NoticeBoard::default().to_json().unwrap();
        assert_eq!(restored(Some("{".into()), now).to_json().unwrap(), empty);
        assert_eq!(restored(None, now).to_json().unwrap(), empty);
    }
}
