//! A new override, and what it would do before it is given.

use std::fmt::Write as _;

use serde::Deserialize;

use super::html::{bad, text, usd};
use crate::{
    admin::{
        Desk,
        board::{Board, Preview, RoutePreview},
        views::{NewOverride, OVERRIDE_REASON_LEN_MAX},
    },
    model::{OverrideKind, Share, units::percent, words},
};

/// Times that are offered; any other may be written.
const TTLS: [&str; 6] = ["10m", "30m", "1h", "4h", "24h", "7d"];

/// The fields as a browser sends them.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct NewForm {
    kind: String,
    route: String,
    backend: String,
    share: String,
    ttl: String,
    reason: String,
    preview: String,
}

/// What became of the form.
pub(super) enum Asked {
    /// It was not sent.
    Nothing,
    /// What it would do.
    Preview(Preview),
    /// Why it was, or would be, refused.
    Refused(String),
}

impl NewForm {
    pub(super) fn wants_preview(&self) -> bool {
        !self.preview.is_empty()
    }

    /// The override that is meant. What the kind does not take is left out: the form says so beside the field.
    ///
    /// # Errors
    /// What is wrong with a field.
    pub(super) fn order(&self) -> Result<NewOverride, String> {
        let kind = OverrideKind::ALL.into_iter().find(|kind| kind.as_str() == self.kind);
        let kind =
            kind.ok_or_else(|| format!("`kind`: `{}` is none of drain, pin, cap, freeze", self.kind))?;
        let given = |value: &str| (!value.trim().is_empty()).then(|| value.trim().to_owned());
        let route = given(&self.route).map(|name| name.parse().map_err(|why| format!("`route`: {why}")));
        let backend = given(&self.backend).filter(|_| kind != OverrideKind::Freeze);
        let backend = backend.map(|name| name.parse().map_err(|why| format!("`backend`: {why}")));
        let takes_share = matches!(kind, OverrideKind::Pin | OverrideKind::Cap);
        let share = given(&self.share).filter(|_| takes_share).map(|number| {
            let part = number.trim_end_matches('%').trim().parse::<f64>().ok().map(|percent| percent / 100.0);
            part.and_then(Share::new)
                .ok_or_else(|| format!("`share`: `{number}` is not a percentage from 0 to 100"))
        });
        Ok(NewOverride {
            kind,
            route: route.transpose()?,
            backend: backend.transpose()?,
            share: share.transpose()?,
            ttl: self.ttl.trim().to_owned(),
            reason: self.reason.clone(),
        })
    }
}

/// Asks what it would do.
pub(super) fn ask(desk: &dyn Desk, form: &NewForm, author: &str) -> Asked {
    match form.order().and_then(|new| desk.preview(&new, author).map_err(|why| why.to_string())) {
        Ok(preview) => Asked::Preview(preview),
        Err(why) => Asked::Refused(why),
    }
}

/// The form, filled with what was sent, under what became of it.
pub(super) fn render(board: &Board, form: &NewForm, asked: &Asked) -> String {
    let mut out =
        "<section class=\"card\" aria-labelledby=\"new\">\n<h2 id=\"new\">New override</h2>\n".to_owned();
    match asked {
        Asked::Nothing => {}
        Asked::Refused(why) => {
            let _ = writeln!(out, "<p class=\"note\" role=\"alert\">Nothing was changed: {}.</p>", text(why));
        }
        Asked::Preview(preview) => effect(&mut out, preview),
    }
    let routes = board.status.routes.iter().map(|route| route.route.as_str());
    let mut backends: Vec<&str> =
        board.status.routes.iter().flat_map(|r| &r.backends).map(|b| b.backend.as_str()).collect();
    backends.sort_unstable();
    backends.dedup();
    let kinds = OverrideKind::ALL.iter().map(|kind| (kind.as_str(), meaning(*kind)));
    let ttl = if form.ttl.is_empty() { "30m" } else { &form.ttl };
    let _ = write!(
        out,
        "<form class=\"fields\" method=\"get\" action=\"/#new\">\n\
         <div><label for=\"kind\">What</label><select id=\"kind\" name=\"kind\">{}</select></div>\n\
         <div><label for=\"route\">Route</label><select id=\"route\" name=\"route\">{}</select></div>\n\
         <div><label for=\"backend\">Backend (not for freeze)</label><select id=\"backend\" name=\"backend\">{}</select></div>\n\
         <div><label for=\"share\">Share in % (pin and cap only)</label>\
         <input id=\"share\" name=\"share\" type=\"number\" min=\"0\" max=\"100\" step=\"any\" inputmode=\"decimal\" value=\"{}\"></div>\n\
         <div><label for=\"ttl\">For how long, at most 7 days</label><input id=\"ttl\" name=\"ttl\" list=\"ttls\" required value=\"{}\">\
         <datalist id=\"ttls\">{}</datalist></div>\n\
         <div class=\"wide\"><label for=\"reason\">Why: whoever reads it at night has nothing else</label>\
         <input id=\"reason\" name=\"reason\" required maxlength=\"{OVERRIDE_REASON_LEN_MAX}\" value=\"{}\"></div>\n\
         <div class=\"wide\"><button id=\"preview\" name=\"preview\" value=\"1\">Preview its effect</button> \
         <button id=\"give\" class=\"strong\" formmethod=\"post\" formaction=\"/overrides\">Give it</button></div>\n</form>\n</section>\n",
        options(kinds, &form.kind),
        options([("", "every route of the backend")].into_iter().chain(routes.map(|r| (r, r))), &form.route),
        options(backends.iter().map(|name| (*name, *name)), &form.backend),
        text(&form.share),
        text(ttl),
        TTLS.map(|ttl| format!("<option value=\"{ttl}\">")).concat(),
        text(&form.reason),
    );
    out
}

fn meaning(kind: OverrideKind) -> &'static str {
    match kind {
        OverrideKind::Drain => "drain: no new request goes there",
        OverrideKind::Pin => "pin: exactly this share, or all",
        OverrideKind::Cap => "cap: at most this share",
        OverrideKind::Freeze => "freeze: nothing moves for money",
    }
}

fn options<'a>(all: impl Iterator<Item = (&'a str, &'a str)>, chosen: &str) -> String {
    let mut out = String::new();
    for (value, name) in all {
        let selected = if value == chosen { " selected" } else { "" };
        let _ = write!(out, "<option value=\"{}\"{selected}>{}</option>", text(value), text(name));
    }
    out
}

fn effect(out: &mut String, preview: &Preview) {
    let _ = writeln!(
        out,
        "<div id=\"effect\" role=\"status\"><h3>What it would do for {}</h3>",
        words::span(preview.ttl_seconds)
    );
    if preview.routes.is_empty() {
        out.push_str("<p>Nothing: no route is concerned.</p>\n");
    }
    for route in &preview.routes {
        let _ =
            writeln!(out, "<p><strong>{}</strong>: {}.</p>\n<ul>", text(&route.route), text(&route.reason));
        for backend in &route.backends {
            let how = match (backend.next_share - backend.target_share).abs() < 1e-3 {
                true => "at once".to_owned(),
                false => {
                    format!("{} at once, the rest as fast as the ramp allows", percent(backend.next_share))
                }
            };
            let line = match (backend.share - backend.target_share).abs() < 1e-3 {
                true => format!("{} stays at {}", backend.backend, percent(backend.share)),
                false => format!(
                    "{} {} \u{2192} {}, {how}",
                    backend.backend,
                    percent(backend.share),
                    percent(backend.target_share)
                ),
            };
            let _ = writeln!(out, "<li>{}</li>", text(line));
        }
        out.push_str("</ul>\n");
        cost(out, route);
    }
    out.push_str("<p class=\"soft\">Decided on what is known now; nothing has been changed.</p></div>\n");
}

fn cost(out: &mut String, route: &RoutePreview) {
    let (now, then) = (route.now_usd_per_hour, route.then_usd_per_hour);
    let difference = match (now, then) {
        (Some(now), Some(then)) if then >= now => format!("{} an hour more", words::usd(then - now)),
        (Some(now), Some(then)) => format!("{} an hour less", words::usd(now - then)),
        _ => "the difference is not known: a price is missing".into(),
    };
    let _ = writeln!(
        out,
        "<p>At the present demand: {} an hour now, {} then ({}), beyond what is paid anyway.</p>",
        usd(now),
        usd(then),
        text(difference)
    );
    if route.fallback != crate::model::Fallback::None {
        let _ = writeln!(
            out,
            "<p class=\"note\">{}: {}</p>",
            bad("A constraint is given up"),
            text(&route.summary)
        );
    }
}
