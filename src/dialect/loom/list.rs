//! `GET /streams[?prefix][&start_after][&limit][&state]`: a page of streams in the order of their ids.
//!
//! ```json
//! {"streams":[{"id":"a","state":"open","length":3,"durable":0,"epoch":1,"created":"…","metadata":{}}],"has_more":false}
//! ```
//!
//! An id that is not UTF-8 is percent-encoded, with `"id_encoding":"percent"` behind it. `metadata` is missing
//! where there is none, and `first`, the offset of the first byte that is there, where that is 0. The next page begins with `start_after` the last id; `has_more` says whether there is one,
//! as a page may end early where metadata is large. Lives on: the connection's shard.

use super::{Loom, answer};
use crate::codec::text::percent_encode;
use crate::codec::time::Rfc3339;
use crate::net::http::exchange::{Exchange, Gone};
use crate::net::http::target::Param;
use crate::net::http::{RequestHead, Status};
use crate::service::stream::{Found, Id, Page, Query, State, state_text};
use std::borrow::Cow;
use std::fmt::Write;

/// Most streams on a page, and how many there are unless asked otherwise.
const LIMIT_MAX: usize = 1000;

/// Lists.
pub async fn list(loom: &Loom, exchange: &mut Exchange) -> Result<(), Gone> {
    let query = match query(exchange.head()) {
        Ok(query) => query,
        Err(sentence) => return answer::bad_request(exchange, &sentence).await,
    };
    match loom.streams.list_of(query, loom.settings().shown).await {
        Ok(page) => exchange.reply(Status::OK, answer::JSON, json(&page).as_bytes()).await,
        Err(error) => answer::store_error(exchange, &error).await,
    }
}

fn query(head: &RequestHead) -> Result<Query, String> {
    let find = |key| Param::find(head.query(), key);
    let limit = match find("limit") {
        Param::Absent => LIMIT_MAX,
        text => text
            .value()
            .and_then(|text| std::str::from_utf8(&text).ok()?.parse().ok())
            .filter(|limit| (1..=LIMIT_MAX).contains(limit))
            .ok_or_else(|| format!("limit is not a number from 1 to {LIMIT_MAX}"))?,
    };
    let state = match find("state").value().as_deref() {
        None => None,
        Some(b"open") => Some(State::Open),
        Some(b"complete") => Some(State::Complete),
        Some(b"interrupted") => Some(State::Interrupted),
        Some(_) => return Err("state is none of open, complete and interrupted".into()),
    };
    Ok(Query {
        prefix: find("prefix").value().map_or_else(Default::default, |prefix| prefix.into_owned().into()),
        // Behind the empty id is everything, since no stream has it.
        after: find("start_after")
            .value()
            .filter(|after| !after.is_empty())
            .map(|after| after.into_owned().into()),
        state,
        limit,
    })
}

fn json(page: &Page) -> String {
    let mut out = String::from(r#"{"streams":["#);
    for (index, found) in page.streams.iter().enumerate() {
        if index > 0 {
            out.push(',');
        }
        write_stream(&mut out, found);
    }
    let _ = write!(out, r#"],"has_more":{}}}"#, page.has_more);
    out
}

fn write_stream(out: &mut String, found: &Found) {
    let (id, is_escaped) = shown(&found.id);
    let _ = write!(out, r#"{{"id":{}"#, answer::json_string(&id));
    if is_escaped {
        out.push_str(r#","id_encoding":"percent""#);
    }
    let tail = &found.tail;
    let (state, length) = (state_text(tail.state()), tail.published());
    let (durable, epoch) = (tail.durable().min(length), tail.epoch());
    let created = Rfc3339::at_ms(found.created_ms);
    let _ = write!(
        out,
        r#","state":"{state}","length":{length},"durable":{durable},"epoch":{epoch},"created":"{}""#,
        created.as_str()
    );
    if tail.first() > 0 {
        let _ = write!(out, r#","first":{}"#, tail.first().min(length));
    }
    if !found.metadata.is_empty() {
        // It is JSON already; what is no text in it cannot be shown in one.
        let _ = write!(out, r#","metadata":{}"#, String::from_utf8_lossy(&found.metadata));
    }
    out.push('}');
}

/// An id as JSON can hold it, and whether it had to be escaped for that.
pub fn shown(id: &Id) -> (Cow<'_, str>, bool) {
    match std::str::from_utf8(id.as_bytes()) {
        Ok(text) => (text.into(), false),
        Err(_) => (percent_encode(id.as_bytes()).to_string().into(), true),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_that_is_no_text_is_escaped() {
        assert_eq!(shown(&Id::new("日%41".as_bytes()).unwrap()), ("日%41".into(), false));
        assert_eq!(shown(&Id::new(b"a\xff/").unwrap()), ("a%FF%2F".into(), true));
    }

    #[test]
    fn an_empty_page_is_a_page() {
        let page = Page { streams: Vec::new(), has_more: false };
        assert_eq!(json(&page), r#"{"streams":[],"has_more":false}"#);
    }
}
