//! `GET /stream/:id?view=raw|docker|cri|json[&stream=stdout|stderr][&notail][&offset=N]`: the output of a process as others
//! want to read it, made from the frames that are kept.
//!
//! The answer has no length, whether or not the stream has ended: nobody knows it before. It begins where frames do: at
//! the first block that is there, or at an offset that is the beginning of one. Lives on: the reader's shard.

use super::answer;
use super::{Loom, param};
use crate::net::http::exchange::{Exchange, Framing, Gone};
use crate::net::http::target::Param;
use crate::net::http::{Method, RequestHead, Status};
use crate::service::outflow;
use crate::service::output::frame::{BLOCK, Source};
use crate::service::output::is_framed;
use crate::service::output::view::{Form, View};
use crate::service::stream::{Follower, Found, Look, State, StoreError, load};

/// Bytes of frames that are looked at in one go.
const PIECE: usize = 16 * 1024;

/// What a view is asked for.
pub struct Wish {
    form: Form,
    only: Option<Source>,
    notail: bool,
    offset: Option<u64>,
}

impl Wish {
    /// The view that a request asks for, if it does; or what would be accepted.
    pub fn of(head: &RequestHead) -> Result<Option<Self>, String> {
        let form = match Param::find(head.query(), "view") {
            Param::Absent => return Ok(None),
            Param::Value(name) => Form::named(&name[..]),
            Param::Bare => None,
        };
        let form = form.ok_or("view is raw, docker, cri or json")?;
        let only = match Param::find(head.query(), "stream") {
            Param::Absent => None,
            Param::Value(name) if *name == *b"stdout" => Some(Source::Stdout),
            Param::Value(name) if *name == *b"stderr" => Some(Source::Stderr),
            Param::Bare | Param::Value(_) => return Err("stream is stdout or stderr".into()),
        };
        let offset = param::number(head, "offset")?;
        if offset.is_some_and(|offset| offset % BLOCK != 0) {
            return Err(format!("the offset of a view is a multiple of {BLOCK}"));
        }
        let notail = Param::find(head.query(), "notail").is_present();
        Ok(Some(Wish { form, only, notail, offset }))
    }
}

/// Answers with a view of `found`.
pub async fn show(loom: &Loom, exchange: &mut Exchange, found: &Found, wish: &Wish) -> Result<(), Gone> {
    if !is_framed(found) {
        return answer::bad_request(exchange, "only output of kind 65 has views: this stream has no frames")
            .await;
    }
    // The state first: a stream that had ended then does not grow after.
    let (state, end) = (found.tail.state(), found.tail.published());
    let first = found.tail.first().min(end);
    let from = match wish.offset {
        Some(offset) if offset < first => {
            let gone = StoreError::Trimmed(first).to_string();
            return answer::error(exchange, Status::GONE, &gone).await;
        }
        Some(offset) if offset > end => {
            let beyond = format!("the stream has {end} bytes; nothing is there to begin with");
            return answer::error(exchange, Status::RANGE_NOT_SATISFIABLE, &beyond).await;
        }
        Some(offset) => offset,
        None => first.next_multiple_of(BLOCK).min(end),
    };
    let until = if state == State::Open && !wish.notail { u64::MAX } else { end };
    let head = exchange.begin(Status::OK, Framing::Live).header("Content-Type", wish.form.content_type());
    let head = answer::standing(head, found, state, first, end);
    head.header("Trailer", outflow::TRAILERS).finish();
    if exchange.head().method() == Method::Head {
        return exchange.finish(&[]).await;
    }
    let mut follower = loom.streams.read(found.tail.clone(), from, until);
    let view = View::new(wish.form, wish.only);
    match send(exchange, &mut follower, view).await? {
        Some(state) => outflow::finish_at_end(exchange, state, follower.position()).await,
        None => {
            exchange.abandon();
            Ok(())
        }
    }
}

/// How the stream stands once all was sent; `None` when the answer cannot be finished.
async fn send(
    exchange: &mut Exchange,
    follower: &mut Follower,
    mut view: View,
) -> Result<Option<State>, Gone> {
    let mut out = Vec::new();
    loop {
        let look = match follower.look() {
            Ok(Some(look)) => Ok(look),
            Ok(None) => {
                exchange.flush().await?;
                exchange.while_connected(follower.next()).await?
            }
            Err(error) => Err(error),
        };
        let loaded = match look {
            Ok(Look::Ready(range)) => load(range).await,
            Ok(Look::End(state)) => {
                view.finish(state != State::Open, &mut out);
                exchange.send(&out).await?;
                return Ok(Some(state));
            }
            Err(error) => Err(error),
        };
        let bytes = match loaded {
            Ok(bytes) => bytes,
            Err(error) => {
                tracing::error!(offset = follower.position(), %error, "stream not readable");
                return Ok(None);
            }
        };
        // By pieces: a byte of a stream may be a line of a hundred in its view.
        for piece in bytes.chunks(PIECE) {
            if view.take(piece, &mut out).is_err() {
                tracing::error!(offset = follower.position(), "what should be frames is none");
                return Ok(None);
            }
            exchange.send(&out).await?;
            out.clear();
        }
    }
}
