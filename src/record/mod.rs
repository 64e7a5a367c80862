//! What the journal keeps of decisions and of money, in a form from which both can be made again. Pure: who writes and reads
//! the lines is elsewhere.
//!
//! [`inputs`] is what a decision was made from; [`account`] is what was spent, and what would have
//! been; [`reckoning`] is how that is told.

pub mod account;
pub mod inputs;
pub mod reckoning;

pub use account::{Account, BackendAccount, ShadowAccount, Stay};
pub use inputs::Inputs;

/// The version of the code that decides, `0.1.0+1a2b3c4d5e6f`: the program's, and the revision that it was built from if
/// whoever built it said so in the environment variable `TRADEWIND_REVISION`.
pub fn code_version() -> String {
    match option_env!("TRADEWIND_REVISION") {
        Some(revision) if !revision.is_empty() => format!("{}+{revision}", env!("CARGO_PKG_VERSION")),
        _ => env!("CARGO_PKG_VERSION").to_owned(),
    }
}
