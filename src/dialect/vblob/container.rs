//! `GET /`, `PUT` and `DELETE /:container`.
//!
//! Lives on: the connection's shard.

use super::Vblob;
use super::answer::{self, Halt, NAMESPACE};
use crate::codec::time::Rfc3339;
use crate::codec::xml::Xml;
use crate::net::http::Status;
use crate::net::http::exchange::{Exchange, Framing};

/// All containers, in the order of their names.
pub async fn list(vblob: &Vblob, exchange: &mut Exchange) -> Result<(), Halt> {
    let mut xml = Xml::in_namespace("ContainerList", NAMESPACE);
    xml.open("Containers");
    for container in vblob.driver.container_list().await? {
        let created = Rfc3339::at_ms(container.created_ms);
        xml.open("Container")
            .element("Name", &*container.name)
            .element("CreationDate", created.as_str())
            .close();
    }
    xml.close();
    Ok(answer::xml(exchange, xml).await?)
}

/// Makes a container. One that is there already is as good.
pub async fn create(vblob: &Vblob, exchange: &mut Exchange, name: &str) -> Result<(), Halt> {
    if vblob.driver.container_create(name).await? {
        tracing::info!(container = name, "container created");
    }
    exchange.begin(Status::OK, Framing::Empty).header("Location", format!("/{name}")).finish();
    Ok(exchange.finish(&[]).await?)
}

/// Deletes an empty container.
pub async fn delete(vblob: &Vblob, exchange: &mut Exchange, name: &str) -> Result<(), Halt> {
    vblob.driver.container_delete(name).await?;
    tracing::info!(container = name, "container deleted");
    Ok(answer::empty(exchange, Status::NO_CONTENT).await?)
}
