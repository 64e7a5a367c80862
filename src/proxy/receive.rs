//! What happens to a request before a backend is chosen: who asks, which route it is for, whether that one may.

use std::{sync::Arc, time::Duration};

use http::header;
use pingora_core::Result;
use pingora_http::RequestHeader;
use pingora_proxy::Session;

use super::{answers::Refusal, context::Context, pick::fingerprint, table::Table};
use crate::model::Affinity;

/// Why a request goes no further, and how long that holds.
pub(super) type Refused = (Refusal, Option<Duration>);

impl Context {
    /// Takes a request in.
    ///
    /// # Errors
    /// The outer one when the client breaks off; the inner one when it is refused.
    pub(super) async fn receive(
        &mut self,
        table: Arc<Table>,
        session: &mut Session,
    ) -> Result<std::result::Result<(), Refused>> {
        if let Some(guests) = &table.common.guests {
            self.guest = guests.of(&session.req_header().headers).cloned();
            if self.guest.is_none() {
                return Ok(Err((Refusal::Unauthorized, None)));
            }
        }
        let choosy = self.guest.as_ref().is_some_and(|guest| guest.is_choosy());
        // Once it was read there is none left.
        let has_body = choosy && !session.as_downstream_mut().is_body_empty();
        let Some(lane) = self.find_lane(&table, session, choosy).await? else {
            return Ok(Err((Refusal::NoRoute, None)));
        };
        let admitted = self.admitted(&table, lane, session, has_body);
        if admitted.is_ok() {
            self.key = self.affinity_key(table.lanes[lane].affinity.as_ref(), session);
            self.apply_alias(&table.lanes[lane]);
            self.position = table.lanes[lane].division.next_position();
        }
        self.found = Some((table, lane));
        Ok(admitted)
    }

    /// What stands for the requests that this one belongs to; `None` for none.
    fn affinity_key(&mut self, affinity: Option<&Affinity>, session: &Session) -> Option<u64> {
        let head = session.req_header();
        match affinity? {
            Affinity::Header(name) => head.headers.get(name).map(|value| fingerprint(value.as_bytes())),
            Affinity::Cookie(name) => cookie(head, name).map(fingerprint),
            Affinity::User => self.peeked.as_mut()?.user().map(|user| fingerprint(&user)),
            Affinity::Prompt(len) => self.peeked.as_mut()?.prompt(*len).map(|prompt| fingerprint(&prompt)),
        }
    }

    /// Whether who asks may. A backend may go by the header or by the body, so both must be allowed, whichever the route goes by.
    fn admitted(
        &self,
        table: &Table,
        lane: usize,
        session: &Session,
        has_body: bool,
    ) -> std::result::Result<(), Refused> {
        let Some(guest) = &self.guest else { return Ok(()) };
        let named = session.req_header().headers.get_all(&table.common.model_header);
        let in_body = self.peeked.as_ref().and_then(|peeked| peeked.model.as_ref());
        let hidden = (has_body && in_body.is_none())
            || self.peeked.as_ref().is_some_and(|peeked| peeked.is_ambiguous())
            || named.iter().any(|name| name.to_str().is_err());
        let named = named.iter().filter_map(|name| name.to_str().ok());
        let models = named.chain(in_body.map(|model| &*model.name));
        guest.admit(&table.lanes[lane].id, models, hidden)
    }
}

/// The value of a cookie. Over HTTP/2 cookies may come in several headers (RFC 9113, 8.2.3).
fn cookie<'a>(head: &'a RequestHeader, name: &str) -> Option<&'a [u8]> {
    let pairs = head
        .headers
        .get_all(header::COOKIE)
        .iter()
        .flat_map(|all| all.as_bytes().split(|byte| *byte == b';'));
    pairs.map(<[u8]>::trim_ascii).find_map(|pair| pair.strip_prefix(name.as_bytes())?.strip_prefix(b"="))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cookies_are_found_by_their_whole_name() {
        let mut head = RequestHeader::build("GET", b"/", None).unwrap();
        head.append_header("cookie", "xsid=1; sid=2;sid2=3").unwrap();
        head.append_header("cookie", "b=4").unwrap();
        assert_eq!(cookie(&head, "sid"), Some(&b"2"[..]));
        assert_eq!(cookie(&head, "b"), Some(&b"4"[..]));
        assert_eq!(cookie(&head, "si"), None);
    }
}
