//! What stays while the page is open: its frame, and the page that asks for a token.

use super::{SCRIPT, STYLE, html::text};
use crate::admin::{board::Board, guard::Caller};

/// How often the page reloads itself where there are no scripts, in seconds.
const RELOAD_SECONDS: u32 = 30;

/// The frame of every page.
pub(super) fn frame(nonce: &str, title: &str, head: &str, body: &str) -> String {
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\n<title>{}</title>\n\
         <link rel=\"icon\" href=\"data:,\">\n<style nonce=\"{nonce}\">{STYLE}</style>\n{head}</head>\n<body>\n{body}</body>\n</html>\n",
        text(title)
    )
}

/// The dashboard. `live` and `new` are HTML.
pub(super) fn render(
    nonce: &str,
    caller: &Caller,
    board: &Board,
    live: &str,
    new: &str,
    reloads: bool,
) -> String {
    let head = if reloads {
        format!("<noscript><meta http-equiv=\"refresh\" content=\"{RELOAD_SECONDS}\"></noscript>\n")
    } else {
        String::new()
    };
    let without_scripts = if reloads {
        format!(
            "<noscript>without scripts it reloads every {RELOAD_SECONDS} s; <a href=\"/?hold=1#new\">hold it still</a> to write</noscript>"
        )
    } else {
        "<noscript>held still; <a href=\"/\">reload it again</a></noscript>".to_owned()
    };
    let sign_out = if caller.by_session {
        "<form class=\"inline\" method=\"post\" action=\"/session/end\"><button>Sign out</button></form>"
    } else {
        ""
    };
    let body = format!(
        "<header><h1>Tradewind</h1><span class=\"soft\">{} · as {} · <span id=\"link\" role=\"status\">{without_scripts}</span></span> \
         {sign_out}</header>\n<main>\n<div id=\"live\">{live}</div>\n{new}</main>\n\
         <footer class=\"soft\"><p><a href=\"/openapi.json\">API</a> · <a href=\"/metrics\">metrics</a> · the same in the terminal: \
         <code>tradewind status</code>, <code>tradewind explain ROUTE</code>, <code>tradewind override</code></p></footer>\n\
         <script nonce=\"{nonce}\">{SCRIPT}</script>\n",
        text(&board.status.version),
        text(&caller.name),
    );
    frame(nonce, "Tradewind", &head, &body)
}

/// Asks for a token.
pub(super) fn sign_in(nonce: &str, why_not: Option<&str>) -> String {
    let why_not = why_not.map(|why| format!("<p class=\"note\" role=\"alert\">{}</p>\n", text(why)));
    let body = format!(
        "<main>\n<h1>Tradewind</h1>\n{}<form class=\"fields\" method=\"post\" action=\"/session\">\n\
         <div><label for=\"token\">Token, one of those in <code>[admin] tokens</code></label>\
         <input id=\"token\" name=\"token\" type=\"password\" autocomplete=\"current-password\" required autofocus></div>\n\
         <div><button class=\"strong\">Sign in</button></div>\n</form>\n</main>\n",
        why_not.unwrap_or_default()
    );
    frame(nonce, "Tradewind: sign in", "", &body)
}
