//! The envelope of every answer: its ids, its XML, and what an error looks like.
//!
//! Invariant: the id in the head is the one in the body of an error. Lives on: the connection's shard.

use super::fault::{Code, Fault};
use super::payload::Trouble;
use crate::codec::xml::Xml;
use crate::net::http::exchange::{Exchange, Framing, Gone};
use crate::net::http::{ResponseHead, Status};
use crate::runtime::shard;

/// The namespace of all documents but errors.
pub const XMLNS: &str = "http://s3.amazonaws.com/doc/2006-03-01/";
/// Which host answered: one of one, so that all answers have the same.
const HOST_ID: &str = "millpond";

/// A request that is being answered.
pub struct Call<'e> {
    /// It and its answer.
    pub exchange: &'e mut Exchange,
    id: String,
}

impl<'e> Call<'e> {
    /// Takes up a request.
    pub fn new(exchange: &'e mut Exchange) -> Self {
        Call { exchange, id: format!("{:016X}", shard::current().entropy().next()) }
    }

    /// Begins the answer.
    pub fn begin(&mut self, status: Status, framing: Framing) -> ResponseHead<'_> {
        self.exchange
            .begin(status, framing)
            .header("x-amz-request-id", &self.id)
            .header("x-amz-id-2", HOST_ID)
    }

    /// An answer without a body, and with `fields`.
    pub async fn empty(&mut self, status: Status, fields: &[(&str, &str)]) -> Result<(), Trouble> {
        let mut head = self.begin(status, Framing::Empty);
        for (name, value) in fields {
            head = head.header(name, value);
        }
        head.finish();
        Ok(self.exchange.finish(&[]).await?)
    }

    /// A document.
    pub async fn xml(&mut self, document: Xml) -> Result<(), Trouble> {
        self.xml_with(document, &[]).await
    }

    /// A document, and fields beside it.
    pub async fn xml_with(&mut self, document: Xml, fields: &[(&str, &str)]) -> Result<(), Trouble> {
        Ok(self.document(Status::OK, document, fields, None).await?)
    }

    /// An error.
    pub async fn fault(&mut self, fault: &Fault) -> Result<(), Gone> {
        let status = fault.code.status();
        if status.code() >= 500 && fault.code != Code::NotImplemented {
            tracing::warn!(code = fault.code.text(), message = %fault.message, request = self.id, "not done");
        }
        let mut xml = Xml::new("Error");
        xml.element("Code", fault.code.text()).element("Message", fault.message.as_bytes());
        for (name, value) in &fault.elements {
            xml.element(name, value.as_bytes());
        }
        xml.element("Resource", self.exchange.head().path());
        xml.element("RequestId", &self.id).element("HostId", HOST_ID);
        let allow =
            (fault.code == Code::MethodNotAllowed).then_some(("Allow", "GET, HEAD, PUT, POST, DELETE"));
        let size = fault.elements.iter().find(|(name, _)| *name == "ActualObjectSize");
        let size = size.and_then(|(_, size)| size.parse().ok()).filter(|_| fault.code == Code::InvalidRange);
        self.document(status, xml, allow.as_slice(), size).await
    }

    async fn document(
        &mut self,
        status: Status,
        document: Xml,
        fields: &[(&str, &str)],
        unsatisfied: Option<u64>,
    ) -> Result<(), Gone> {
        let body = document.finish();
        let mut head =
            self.begin(status, Framing::Length(body.len() as u64)).header("Content-Type", "application/xml");
        for (name, value) in fields {
            head = head.header(name, value);
        }
        if let Some(size) = unsatisfied {
            head = head.content_range_unsatisfied(size);
        }
        head.finish();
        self.exchange.send(&body).await?;
        self.exchange.finish(&[]).await
    }
}

/// An entity tag as fields and documents show it.
pub fn quoted(etag: &str) -> String {
    format!("\"{etag}\"")
}
