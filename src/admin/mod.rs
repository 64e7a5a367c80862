//! The admin API: what operators, scrapers and the command line ask, over HTTP.
//!
//! Read in this order: [`Desk`] (what the API may ask of the running program), `server` (connections and their limits),
//! `guard` and `session` (who may do what), `calls` and `changes` (the calls themselves, described by [`openapi`]), `problem` (how a refusal looks), `events` (what tells a
//! page that there is news), and `dashboard` (the pages).
//!
//! It shares nothing with the request path: when it is slow, full or under attack, traffic goes on.

mod attempts;
pub mod board;
mod body;
mod calls;
mod changes;
mod dashboard;
mod events;
mod guard;
pub mod openapi;
mod problem;
pub mod rehearsal;
mod server;
mod session;
mod tls;
pub mod views;

#[cfg(test)]
pub(crate) mod fake;
#[cfg(test)]
mod tests;

pub use server::serve;
pub use tls::Certificate;

use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio::sync::watch;

use crate::{
    admin::board::{Board, Past, Preview},
    admin::rehearsal::{Candidate, Rehearsal},
    admin::views::{
        Explanation, NewOverride, NoticeError, NoticeReceipt, OverrideError, OverrideStatus, ReloadError,
        Status,
    },
    config::Token,
    model::{BackendId, Override, RouteId, Timestamp},
    signals::{notices::NewNotice, prices::PriceReport},
    store::journal::JournalQuery,
};

/// What the API may ask of the running program. One implementation serves; tests bring a smaller one.
///
/// All but [`Desk::ready`] may wait for the disk or a lock: they are never called on a thread of the runtime.
pub trait Desk: Send + Sync + 'static {
    /// `Err` with the reason as long as no traffic should be sent here. Answers at once.
    fn ready(&self) -> Result<(), String>;

    /// Every route and backend as the last decisions left them.
    fn status(&self) -> Status;

    /// The last decision of a route; `None` if there is no such route.
    fn explain(&self, route: &str) -> Option<Explanation>;

    /// Entries of the journal, newest first. `Err` says why it cannot be read.
    fn journal(&self, query: &JournalQuery) -> Result<Vec<serde_json::Value>, String>;

    /// Every price in use.
    fn prices(&self) -> Vec<PriceReport>;

    /// Overrides that hold now.
    fn overrides(&self) -> Vec<OverrideStatus>;

    /// Stores an override; once this returns it survives a crash.
    ///
    /// # Errors
    /// When the override makes no sense or cannot be stored; then nothing has changed.
    ///
    /// With a `key`, one of the same author and key that still holds is given back in place of a second one.
    fn add_override(
        &self,
        new: NewOverride,
        author: &str,
        key: Option<&str>,
    ) -> Result<OverrideStatus, OverrideError>;

    /// What an override would do. Nothing is stored, nothing moves.
    ///
    /// # Errors
    /// When the override makes no sense.
    fn preview(&self, new: &NewOverride, author: &str) -> Result<Preview, OverrideError>;

    /// Ends an override; `None` if there is none of that id.
    ///
    /// # Errors
    /// When its end cannot be stored; then it still holds.
    fn end_override(&self, id: &str, author: &str) -> Result<Option<Override>, OverrideError>;

    /// Takes a notice about a backend. Once this returns it counts; it is on disk about a second later.
    ///
    /// # Errors
    /// When it makes no sense, or when too many arrive; then nothing has changed.
    fn notice(&self, backend: BackendId, new: NewNotice, author: &str) -> Result<NoticeReceipt, NoticeError>;

    /// The configuration in force, without secrets.
    fn config(&self) -> serde_json::Value;

    /// Reads the configuration again and returns its generation. With `expected`, only while that generation is in force.
    ///
    /// # Errors
    /// When it has faults or needs a restart; then the running configuration stays.
    fn reload(&self, author: &str, expected: Option<u64>) -> Result<u64, ReloadError>;

    /// What a reload would change; with a candidate, if that were in the files. Nothing is taken up.
    ///
    /// # Errors
    /// When the configuration has faults, or was not read from a file.
    fn rehearse_reload(&self, candidate: Option<Candidate>) -> Result<Rehearsal, ReloadError>;

    /// Everything that the dashboard shows; in full only this route, unless the name is empty.
    fn board(&self, only: &str) -> Board;

    /// The decision about a route that was journaled at a moment; `None` if there is none.
    ///
    /// # Errors
    /// When the journal cannot be read.
    fn past(&self, route: &RouteId, at: Timestamp) -> Result<Option<Past>, String>;

    /// A number that changes whenever the dashboard shows something else. Answers at once.
    fn revisions(&self) -> watch::Receiver<u64>;

    /// Writes down that something was refused. May leave out some of very many.
    fn note_refusal(&self, refusal: Refusal);

    /// All metrics as text.
    fn metrics(&self) -> String;
}

/// A call that was refused, for the audit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Who asked, where that is known.
    pub who: Option<String>,
    /// What was asked, `POST /v1/overrides`.
    pub what: String,
    /// Why it was refused, as a stable name.
    pub code: &'static str,
    /// What it was answered with.
    pub status: u16,
    /// Where it came from.
    pub from: String,
}

/// How the API is served.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Who may call it, from now on whatever is put there. Empty: whoever reaches it, as `local`; only allowed on loopback.
    pub tokens: Arc<ArcSwap<Vec<Token>>>,
    /// Names by which it is reached beside `localhost` and IP addresses; others are refused, if there are any or no tokens.
    pub hosts: Vec<String>,
    /// A Unix socket on which it is served: whoever can open it is `local`.
    pub socket: Option<Arc<std::os::unix::net::UnixListener>>,
    /// Its certificate; with one, HTTPS only, but for the socket.
    pub tls: Option<Arc<Certificate>>,
}
