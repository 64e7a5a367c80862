//! The pages: the dashboard at `GET /`, the explanation of a past decision, and what their forms send.
//!
//! All HTML is made here, on the server; a page shows everything without its script, which only replaces the part that is
//! live. Read in this order: this file (what is asked), `page` (what stays), `live` (what changes), `route` and `picture` (a route), `form`
//! (a new override and what it would do), `decision` (one of the past).

mod decision;
mod form;
mod html;
mod live;
mod page;
mod picture;
mod route;
#[cfg(test)]
mod tests;

use std::io::Write as _;

use axum::{
    Router,
    extract::{Query, Request, State, rejection::QueryRejection},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use bytes::Bytes;
use flate2::{Compression, write::GzEncoder};
use serde::Deserialize;
use tokio::sync::Mutex;

use super::{
    body,
    calls::{App, Segment, blocking},
    guard::{Caller, Operator, peer_of},
    problem::{Code, Problem},
    session,
};
use crate::model::{RouteId, Timestamp};
use form::{Asked, NewForm};

/// The page's style and script: within it, so that it needs nothing else.
const STYLE: &str = include_str!("../dashboard.css");
const SCRIPT: &str = include_str!("../dashboard.js");

/// Random bytes of a nonce.
const NONCE_BYTES: usize = 16;

/// The live part as it was last made, for many pages that show the same: by whether its reader may operate.
#[derive(Debug, Default)]
pub(super) struct Rendered(Mutex<[Option<Made>; 2]>);

/// The live part, and the revision that it shows.
#[derive(Debug)]
struct Made {
    revision: u64,
    body: Piece,
}

/// HTML, and the same compressed: made once, and sent to many without a copy.
#[derive(Clone, Debug)]
struct Piece {
    plain: Bytes,
    gzip: Bytes,
}

/// All pages, and what their forms send.
pub(super) fn router() -> Router<App> {
    Router::new()
        .route("/", get(dashboard))
        .route("/fragment", get(fragment))
        .route("/decisions", get(past))
        .route("/overrides", post(add))
        .route("/overrides/{id}/end", post(end))
        .route("/session", post(sign_in))
        .route("/session/end", post(sign_out))
}

/// Asks for a token.
pub(super) fn sign_in_page(why_not: Option<&str>) -> Response {
    let status = StatusCode::UNAUTHORIZED;
    let mut answer = answer(status, |nonce| page::sign_in(nonce, why_not));
    answer
        .headers_mut()
        .insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"tradewind\""));
    answer
}

/// What the address of the dashboard says beside its path.
#[derive(Debug, Default, Deserialize)]
struct View {
    /// The only route to show.
    #[serde(default)]
    only: String,
    /// Whether the page shall not reload itself where there are no scripts.
    #[serde(default)]
    hold: String,
    #[serde(flatten)]
    form: NewForm,
}

async fn dashboard(
    State(app): State<App>,
    caller: Caller,
    query: Result<Query<View>, QueryRejection>,
) -> Result<Response, Problem> {
    let Query(view) = query.map_err(|error| bad_query(&error.body_text()))?;
    show(app, caller, view, None, StatusCode::OK).await
}

/// The whole page; `refused` is why what the form asked for was not done.
async fn show(
    app: App,
    caller: Caller,
    view: View,
    refused: Option<String>,
    status: StatusCode,
) -> Result<Response, Problem> {
    let operates = caller.may_operate();
    let author = caller.name.clone();
    let (form, only) = (view.form.clone(), view.only.clone());
    let (board, live, asked) = blocking(move || {
        let board = app.desk.board(&only);
        let asked = match refused {
            Some(why) => Asked::Refused(why),
            None if operates && form.wants_preview() => form::ask(&*app.desk, &form, &author),
            None => Asked::Nothing,
        };
        let live = live::render(&board, operates, &only);
        (board, live, asked)
    })
    .await?;
    let reloads = view.hold.is_empty() && matches!(asked, Asked::Nothing);
    let new = if operates { form::render(&board, &view.form, &asked) } else { String::new() };
    Ok(answer(status, |nonce| page::render(nonce, &caller, &board, &live, &new, reloads)))
}

async fn fragment(
    State(app): State<App>,
    caller: Caller,
    headers: HeaderMap,
    query: Result<Query<View>, QueryRejection>,
) -> Result<Response, Problem> {
    let Query(View { only, .. }) = query.map_err(|error| bad_query(&error.body_text()))?;
    let operates = caller.may_operate();
    let piece = match only.is_empty() {
        true => app.rendered.live(&app, operates).await?,
        false => {
            let desk = app.desk.clone();
            blocking(move || Piece::new(live::render(&desk.board(&only), operates, &only))).await?
        }
    };
    let kind = (header::CONTENT_TYPE, "text/html; charset=utf-8");
    let vary = (header::VARY, "accept-encoding");
    Ok(match takes_gzip(&headers) {
        true => ([kind, vary, (header::CONTENT_ENCODING, "gzip")], piece.gzip).into_response(),
        false => ([kind, vary], piece.plain).into_response(),
    })
}

/// Whether a client takes compressed answers. `gzip;q=0` says no.
fn takes_gzip(headers: &HeaderMap) -> bool {
    let offers = headers.get_all(header::ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok());
    offers.flat_map(|value| value.split(',')).any(|offer| {
        let (name, weight) = offer.split_once(';').unwrap_or((offer, ""));
        let weight = weight.trim().strip_prefix("q=").map_or(1.0, |q| q.trim().parse().unwrap_or(0.0));
        name.trim().eq_ignore_ascii_case("gzip") && weight > 0.0
    })
}

impl Piece {
    fn new(html: String) -> Piece {
        let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
        // Writing to a Vec cannot fail.
        let _ = gzip.write_all(html.as_bytes());
        Piece { plain: html.into(), gzip: gzip.finish().unwrap_or_default().into() }
    }
}

impl Rendered {
    async fn live(&self, app: &App, operates: bool) -> Result<Piece, Problem> {
        // Held while it is made: others that ask for the same wait for it instead of making it too.
        let mut kept = self.0.lock().await;
        let revision = *app.desk.revisions().borrow();
        let place = &mut kept[usize::from(operates)];
        if let Some(made) = place.as_ref().filter(|made| made.revision == revision) {
            return Ok(made.body.clone());
        }
        let desk = app.desk.clone();
        let body = blocking(move || Piece::new(live::render(&desk.board(""), operates, ""))).await?;
        Ok(place.insert(Made { revision, body }).body.clone())
    }
}

#[derive(Deserialize)]
struct PastQuery {
    route: String,
    at: String,
}

async fn past(
    State(app): State<App>,
    _: Caller,
    query: Result<Query<PastQuery>, QueryRejection>,
) -> Result<Response, Problem> {
    let Query(PastQuery { route, at }) = query.map_err(|error| bad_query(&error.body_text()))?;
    let id: RouteId = route.parse().map_err(|error| bad_query(&format!("`route`: {error}")))?;
    let moment: Timestamp =
        at.parse().map_err(|_| bad_query(&format!("`at`: `{at}` is not a time in RFC 3339")))?;
    let found = blocking(move || app.desk.past(&id, moment))
        .await?
        .map_err(|error| Problem::new(StatusCode::SERVICE_UNAVAILABLE, "journal_unreadable", error))?;
    let found = found.ok_or_else(|| {
        Problem::new(
            StatusCode::NOT_FOUND,
            "unknown_decision",
            format!("The journal has no decision about `{route}` of {at}: it is too old, or never was."),
        )
    })?;
    Ok(answer(StatusCode::OK, |nonce| decision::render(nonce, &found)))
}

async fn add(
    State(app): State<App>,
    caller: Caller,
    operator: Operator,
    request: Request,
) -> Result<Response, Problem> {
    let form: NewForm = body::read_form(request).await?;
    let desk = app.desk.clone();
    let outcome = match form.order() {
        Ok(new) => blocking(move || desk.add_override(new, &operator.0, None)).await?.map_err(Problem::from),
        Err(why) => Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid_override", why)),
    };
    match outcome {
        Ok(_) => Ok(see("/#overrides")),
        Err(problem) => {
            let view = View { form, ..View::default() };
            show(app, caller, view, Some(problem.detail().to_owned()), problem.status()).await
        }
    }
}

/// One that has ended by itself meanwhile is not there any more, which is what was wanted.
async fn end(State(app): State<App>, operator: Operator, id: Segment) -> Result<Response, Problem> {
    blocking(move || app.desk.end_override(&id.0, &operator.0)).await??;
    Ok(see("/#overrides"))
}

#[derive(Deserialize)]
struct SignIn {
    token: String,
}

async fn sign_in(State(app): State<App>, request: Request) -> Result<Response, Problem> {
    let from = peer_of(&request);
    let SignIn { token } = body::read_form(request).await?;
    match app.guard.sign_in(&token, from) {
        Ok(cookie) => Ok(with_cookie(see("/"), Some(cookie))),
        Err(problem) if problem.is_unauthorized() => {
            let mut page = sign_in_page(Some(problem.detail()));
            page.extensions_mut().insert(Code(problem.code()));
            Ok(page)
        }
        Err(problem) => Err(problem),
    }
}

async fn sign_out(State(app): State<App>, headers: HeaderMap) -> Response {
    with_cookie(see("/"), app.guard.sign_out(&headers))
}

fn with_cookie(mut answer: Response, cookie: Option<HeaderValue>) -> Response {
    if let Some(cookie) = cookie {
        answer.headers_mut().insert(header::SET_COOKIE, cookie);
    }
    answer
}

/// Sends the browser on with a GET, so that reloading the page does nothing twice.
fn see(to: &'static str) -> Response {
    (StatusCode::SEE_OTHER, [(header::LOCATION, to)]).into_response()
}

fn bad_query(why: &str) -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, "bad_query", format!("{why}."))
}

/// A page whose own style and script run, by the nonce, and nothing else.
fn answer(status: StatusCode, page: impl FnOnce(&str) -> String) -> Response {
    let Some(nonce) = session::random(NONCE_BYTES) else {
        let why = "The page cannot be protected: the system gives no random numbers.";
        return Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", why).into_response();
    };
    let policy = format!(
        "default-src 'none'; style-src 'nonce-{nonce}'; script-src 'nonce-{nonce}'; connect-src 'self'; img-src data:; \
         form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    );
    let headers = [
        (header::CONTENT_TYPE, "text/html; charset=utf-8".to_owned()),
        (header::CONTENT_SECURITY_POLICY, policy),
    ];
    (status, headers, page(&nonce)).into_response()
}
