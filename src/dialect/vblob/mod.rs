//! vBlob: containers of files over HTTP, with answers in XML.
//!
//! A file appears whole or not at all, and is replaced in one step; whoever reads it has the bytes it had when the
//! reading began. Default port 9981.
//!
//! | request | answer | in |
//! |---|---|---|
//! | `GET /` | 200 and all containers | [`container`] |
//! | `PUT /:container[/]` | 200, also when it is there already | [`container`] |
//! | `GET /:container[/][?marker][&prefix][&delimiter][&max-keys]` | 200 and a page of files | [`list`] |
//! | `HEAD /:container[/]` | 200, or 404 | [`list`] |
//! | `DELETE /:container[/]` | 204, 404, or 409 when there are files in it | [`container`] |
//! | `PUT /:container/:key` | 200 once it is stored, 400 for a wrong `Content-MD5`, 412 | [`put`] |
//! | the same with `x-blb-copy-from` | 200; no byte is copied | [`copy`] |
//! | `GET`, `HEAD /:container/:key` | 200, 206, 304, 404, 412, 416 | [`read`] |
//! | `DELETE /:container/:key` | 204, whether or not it was there; 412 | [`delete`] |
//! | `GET`, `PUT /~bind[/]`, `PUT /~unbind[/]` | 200: accounts, with `account_api = true` | [`bind`] |
//! | `OPTIONS` of any | 200 and `Allow` | [`answer`] |
//! | everything else | 405 and `Allow` | [`answer`] |
//!
//! What differs from the server that this dialect is of, and why:
//! * a listing shows what is there when it is asked for, `IsTruncated` tells the truth, and `NextMarker` says where the
//!   next page begins; `marker` includes what it names, as ever;
//! * a missing file is a 404 at once, a missing container is a 404 for every method, what is over the limits is a 507;
//! * ranges, conditions, dates and digest authentication are those of the RFCs; tags may still come without quotes, and
//!   the `ETag` field still goes out without them;
//! * PUT and DELETE hear `If-Match` and `If-None-Match`, judged together with the change;
//! * `REPLACE` replaces all metadata, and the source of a copy may be percent-encoded;
//! * connections stay open, and a PUT that says no length is refused with 411;
//! * names of containers have lower-case letters, digits, dots and dashes and nothing else.
//!
//! Methods are judged before accounts, accounts before names. Lives on: the connection's shard.

pub mod accounts;
mod answer;
mod auth;
mod bind;
mod container;
mod copy;
mod delete;
mod fields;
mod list;
mod name;
mod put;
mod read;
mod route;

use crate::config::{self, Secret, VblobAuth};
use crate::net::http::Method;
use crate::net::http::condition::Conditions;
use crate::net::http::exchange::{Exchange, Gone};
use crate::net::http::server::Handler;
use crate::observe::metrics::Dialect;
use crate::service::blob::{Blob, Driver, Name, When};
use accounts::Accounts;
use answer::{Halt, Refusal};
use name::Place;
use route::{Resource, Task};
use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

/// What the configuration says about this dialect.
#[derive(Clone, Debug)]
pub struct Settings {
    /// How requests are authenticated.
    pub auth: VblobAuth,
    /// Id and secret of the main account.
    pub main: Option<(Box<str>, Secret)>,
    /// Whether accounts can be bound and unbound.
    pub account_api: bool,
}

impl Settings {
    /// The part of the configuration that matters here.
    pub fn of(config: &config::Vblob) -> Self {
        let main = config.key_id.as_deref().zip(config.secret_id.clone());
        Settings {
            auth: config.auth,
            main: main.map(|(id, secret)| (id.into(), secret)),
            account_api: config.account_api && config.account_file.is_some(),
        }
    }
}

/// The dialect on one shard.
pub struct Vblob {
    driver: Driver,
    settings: RefCell<Rc<Settings>>,
    accounts: Arc<Accounts>,
}

impl Vblob {
    /// Speaks over `driver`. All shards have the same `accounts`.
    pub fn new(driver: Driver, settings: Settings, accounts: Arc<Accounts>) -> Self {
        Vblob { driver, settings: RefCell::new(Rc::new(settings)), accounts }
    }

    /// Takes other settings, from the next request on.
    pub fn reload(&self, settings: Settings) {
        self.settings.replace(Rc::new(settings));
    }

    fn settings(&self) -> Rc<Settings> {
        self.settings.borrow().clone()
    }

    async fn answer(&self, exchange: &mut Exchange) -> Result<(), Halt> {
        let settings = self.settings();
        let resource = Resource::of(exchange.head().path(), settings.account_api);
        let task = resource.task(exchange.head());
        // Only the body of a file means anything; what is broken in another one is refused, and what follows it is the
        // next request.
        if !matches!(task, Some(Task::Put | Task::Bind | Task::Unbind)) {
            exchange.skip_body().await?;
        }
        let Some(task) = task else {
            return match exchange.head().method() {
                Method::Options => Ok(answer::options(exchange, resource.allowed()).await?),
                _ => Err(Refusal::MethodNotAllowed(resource.allowed()).into()),
            };
        };
        auth::judge(&settings, &self.accounts, exchange.head(), task.is_about_accounts())?;
        match (task, Place::of(&resource)?) {
            (Task::ListContainers, _) => container::list(self, exchange).await,
            (Task::ShowAccounts, _) => bind::show(self, exchange).await,
            (Task::Bind, _) => bind::bind(self, exchange).await,
            (Task::Unbind, _) => bind::unbind(self, exchange).await,
            (Task::ListFiles, Place::Container(name)) => list::list(self, exchange, &name).await,
            (Task::CreateContainer, Place::Container(name)) => container::create(self, exchange, &name).await,
            (Task::DeleteContainer, Place::Container(name)) => container::delete(self, exchange, &name).await,
            (Task::Put, Place::File(name)) => put::put(self, exchange, name).await,
            (Task::Copy, Place::File(name)) => copy::copy(self, exchange, name).await,
            (Task::Read, Place::File(name)) => read::read(self, exchange, &name).await,
            (Task::Delete, Place::File(name)) => delete::delete(self, exchange, &name).await,
            (task, place) => unreachable!("{task:?} belongs to another place than {place:?}"),
        }
    }

    /// What `name` stands for.
    async fn find(&self, name: &Name) -> Result<Blob, Halt> {
        self.driver.file_head(name).await?.ok_or(Refusal::NoSuchFile.into())
    }
}

impl Handler for Vblob {
    const DIALECT: Dialect = Dialect::Vblob;

    async fn handle(&self, exchange: &mut Exchange) -> Result<(), Gone> {
        match self.answer(exchange).await {
            Ok(()) => Ok(()),
            Err(Halt::Gone) => Err(Gone),
            Err(Halt::Refused(refusal)) => answer::refuse(exchange, &refusal).await,
        }
    }
}

/// The conditions on a change, for whoever decides it.
fn when(conditions: Conditions) -> When {
    When { matches: conditions.matches, matches_none: conditions.matches_none }
}
