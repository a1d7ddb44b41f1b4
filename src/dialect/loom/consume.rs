//! `GET` and `HEAD /stream/:id[?notail][&offset=N][&epoch=E]`: bytes out from where they lie.
//!
//! Lives on: the reader's shard.

use super::select::{Plan, Wish, plan};
use super::{Loom, answer, param, view};
use crate::config::Interrupted;
use crate::net::http::exchange::{Exchange, Framing, Gone};
use crate::net::http::range::parse_range;
use crate::net::http::target::Param;
use crate::net::http::{Method, RequestHead, Status};
use crate::service::outflow;
use crate::service::stream::{Follower, Found, Id, State, StoreError};

/// Reads the stream that is asked for.
pub async fn consume(
    loom: &Loom,
    exchange: &mut Exchange,
    request: Result<Request, Refused>,
) -> Result<(), Gone> {
    let request = match request {
        Ok(request) => request,
        Err(Refused::Nameless) => return answer::unknown_stream(exchange, "").await,
        Err(Refused::Because(sentence)) => return answer::bad_request(exchange, &sentence).await,
    };
    let id = &request.id;
    if !loom.settings().shown.keep(id) {
        return answer::unknown_stream(exchange, &id.text()).await;
    }
    let found = match loom.streams.find(id).await {
        Ok(Some(found)) => found,
        Ok(None) => return answer::unknown_stream(exchange, &id.text()).await,
        Err(error) => return answer::store_error(exchange, &error).await,
    };
    if let Some(wish) = &request.viewed {
        return view::show(loom, exchange, &found, wish).await;
    }
    let mut view = View::of(found);
    loop {
        match view.answer(loom, exchange, &request).await? {
            Answered::Yes => return Ok(()),
            // Its beginning went between two looks: what is there now is answered.
            Answered::Trimmed => view = View::of(view.found),
        }
    }
}

/// Whether a look at a stream led to an answer.
enum Answered {
    Yes,
    Trimmed,
}

/// What a head asks for.
pub struct Request {
    id: Id,
    wish: Wish,
    epoch: Option<u64>,
    viewed: Option<view::Wish>,
}

/// Why there is nothing to look for.
pub enum Refused {
    /// The stream without a name: nobody can have made it.
    Nameless,
    /// What is wrong, and what would be accepted.
    Because(String),
}

impl Request {
    /// Reads `head`, whose path has the id in `segment`.
    pub fn of(head: &RequestHead, segment: &str) -> Result<Self, Refused> {
        if segment.is_empty() {
            return Err(Refused::Nameless);
        }
        Self::read(head, segment).map_err(Refused::Because)
    }

    fn read(head: &RequestHead, segment: &str) -> Result<Self, String> {
        let id = param::id(segment)?;
        let (offset, epoch) = (param::number(head, "offset")?, param::number(head, "epoch")?);
        // Ranges are for GET alone; and with If-Range they are for who knows our validator, of which there is none.
        let range = match head.method() {
            Method::Get if head.header("if-range").is_none() => head.header("range").and_then(parse_range),
            _ => None,
        };
        if offset.is_some() && range.is_some() {
            return Err("offset and Range say where to begin; send one of them".into());
        }
        let notail = Param::find(head.query(), "notail").is_present();
        Ok(Request { id, wish: Wish { offset, range, notail }, epoch, viewed: view::Wish::of(head)? })
    }
}

/// The stream as this answer shows it.
struct View {
    found: Found,
    state: State,
    first: u64,
    end: u64,
}

impl View {
    fn of(found: Found) -> Self {
        // The state first: a stream that had ended then does not grow after.
        let state = found.tail.state();
        let end = found.tail.published();
        // A stream that a failed sync ended may be shorter than it was, but never than this.
        View { state, first: found.tail.first().min(end), end, found }
    }

    async fn answer(
        &self,
        loom: &Loom,
        exchange: &mut Exchange,
        request: &Request,
    ) -> Result<Answered, Gone> {
        let tail = &self.found.tail;
        let planned = plan(&request.wish, self.first, self.end, self.state == State::Open);
        let (from, until) = match planned {
            Plan::Follow { from } => (from, u64::MAX),
            Plan::Rest { from, to } | Plan::Part { from, to, .. } => (from, to),
            // The history is another one before the place is out of it.
            Plan::Beyond => (request.wish.offset.unwrap_or(self.end), self.end),
            Plan::Before => (request.wish.offset.unwrap_or(0), self.end),
        };
        if let Some(epoch) = request.epoch
            && !tail.admits(epoch, from)
        {
            return self.other_history(exchange, epoch).await.map(|()| Answered::Yes);
        }
        match planned {
            Plan::Beyond => return self.beyond(exchange).await.map(|()| Answered::Yes),
            Plan::Before => return self.before(exchange).await.map(|()| Answered::Yes),
            Plan::Follow { .. } | Plan::Rest { .. } | Plan::Part { .. } => {}
        }
        let mut follower = loom.streams.read(tail.clone(), from, until);
        // Looked at before the head is written: what cannot be read at all is a 500, not a cut answer.
        let first = match exchange.head().method() {
            Method::Get if from < self.end => match follower.next().await {
                Ok(look) => Some(look.into()),
                Err(StoreError::Trimmed(_)) => return Ok(Answered::Trimmed),
                Err(error) => {
                    return answer::store_error(exchange, &error).await.map(|()| Answered::Yes);
                }
            },
            _ => None,
        };
        self.greet(exchange, planned);
        if exchange.head().method() == Method::Head {
            return exchange.finish(&[]).await.map(|()| Answered::Yes);
        }
        let ended = outflow::send(exchange, &mut follower, first).await?;
        conclude(loom, exchange, &follower, planned, ended).await.map(|()| Answered::Yes)
    }

    fn greet(&self, exchange: &mut Exchange, planned: Plan) {
        let (status, framing) = match planned {
            Plan::Follow { .. } => (Status::OK, Framing::Live),
            Plan::Rest { from, to } => (Status::OK, Framing::Length(to - from)),
            Plan::Part { from, to, .. } => (Status::PARTIAL_CONTENT, Framing::Length(to - from)),
            Plan::Beyond | Plan::Before => unreachable!("answered before"),
        };
        let head = exchange.begin(status, framing).header("Content-Type", "application/octet-stream");
        let mut head = answer::standing(head, &self.found, self.state, self.first, self.end);
        if let Plan::Follow { from: from @ 1.. } | Plan::Rest { from: from @ 1.., .. } = planned {
            head = head.header_u64("Stream-Offset", from);
        }
        match planned {
            Plan::Follow { .. } => {
                head = head.header("Trailer", outflow::TRAILERS);
            }
            Plan::Part { from, to, total } => head = head.content_range(from..to, total),
            Plan::Rest { .. } | Plan::Beyond | Plan::Before => {}
        }
        head.finish();
    }

    async fn beyond(&self, exchange: &mut Exchange) -> Result<(), Gone> {
        let body =
            format!(r#"{{"error":"the stream has {} bytes; nothing is there to begin with"}}"#, self.end);
        let head = exchange
            .begin(Status::RANGE_NOT_SATISFIABLE, Framing::Length(body.len() as u64))
            .header("Content-Type", answer::JSON)
            .content_range_unsatisfied(self.end);
        answer::standing(head, &self.found, self.state, self.first, self.end).finish();
        exchange.send(body.as_bytes()).await?;
        exchange.finish(&[]).await
    }

    async fn before(&self, exchange: &mut Exchange) -> Result<(), Gone> {
        let body = format!(r#"{{"error":"{}"}}"#, StoreError::Trimmed(self.first));
        let head = exchange
            .begin(Status::GONE, Framing::Length(body.len() as u64))
            .header("Content-Type", answer::JSON);
        answer::standing(head, &self.found, self.state, self.first, self.end).finish();
        exchange.send(body.as_bytes()).await?;
        exchange.finish(&[]).await
    }

    async fn other_history(&self, exchange: &mut Exchange, epoch: u64) -> Result<(), Gone> {
        let current = self.found.tail.epoch();
        let message = format!(
            "what epoch {epoch} had there is not what epoch {current} has; read again from where they part"
        );
        let status = Status::PRECONDITION_FAILED;
        answer::misplaced(exchange, status, self.end, current, self.state, &message).await
    }
}

async fn conclude(
    loom: &Loom,
    exchange: &mut Exchange,
    follower: &Follower,
    planned: Plan,
    ended: Result<State, StoreError>,
) -> Result<(), Gone> {
    let state = match ended {
        Ok(state) => state,
        Err(error) => {
            tracing::error!(offset = follower.position(), %error, "stream not readable");
            exchange.abandon();
            return Ok(());
        }
    };
    if let Plan::Rest { to, .. } | Plan::Part { to, .. } = planned {
        // Bytes that a failed sync took back cannot be sent, and their length was promised.
        if follower.position() < to {
            exchange.abandon();
            return Ok(());
        }
        return exchange.finish(&[]).await;
    }
    if state == State::Interrupted && loom.settings().interrupted == Interrupted::Abort {
        exchange.abandon();
        return Ok(());
    }
    outflow::finish_at_end(exchange, state, follower.position()).await
}
