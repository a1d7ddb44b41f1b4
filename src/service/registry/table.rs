//! What is registered: services, their versions, and the nodes of each.
//!
//! Every shard has this table whole. It changes by [`Change`]s alone, the same ones in the same order everywhere, and
//! each tells what watchers are to see. Invariant: an id belongs to one node; a version has nodes, a service has
//! versions. Pure; lives on every shard.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// Keys and values that somebody gave.
pub type Metadata = BTreeMap<String, String>;

/// One version of a service, and nodes of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Service {
    /// What it is called.
    pub name: String,
    /// Which version; empty for none.
    pub version: String,
    /// About all nodes of this version.
    pub metadata: Metadata,
    /// What can be called.
    pub endpoints: Vec<Endpoint>,
    /// Where it runs.
    pub nodes: Vec<Node>,
}

/// Where a service runs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Node {
    /// Unique among all nodes of all services.
    pub id: String,
    /// A host, or `host:port` with `port` 0.
    pub address: String,
    /// The port.
    pub port: i64,
    /// About this node.
    pub metadata: Metadata,
}

/// Something that can be called.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Endpoint {
    /// Such as `Example.Call`.
    pub name: String,
    /// What it takes.
    pub request: Option<Value>,
    /// What it gives.
    pub response: Option<Value>,
    /// About it.
    pub metadata: Metadata,
}

/// The shape of a value.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Value {
    /// What it is called.
    pub name: String,
    /// Of what type it is.
    pub kind: String,
    /// Of what it consists.
    pub values: Vec<Value>,
}

/// How the table changes.
#[derive(Clone, Debug)]
pub enum Change {
    /// These nodes are there, and this is how the version is described.
    Put(Arc<Service>),
    /// These ids are gone.
    Remove(Arc<[String]>),
}

/// What watchers see.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// What happened.
    pub action: Action,
    /// To what: a whole version, a version with the nodes that went, or a name alone.
    pub service: Service,
}

/// What happened to a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// A name, or a version, is new.
    Create,
    /// A version has other nodes or another description.
    Update,
    /// These nodes of it are gone.
    Delete,
}

#[derive(Clone, Debug, Default)]
struct Version {
    metadata: Metadata,
    endpoints: Vec<Endpoint>,
    nodes: BTreeMap<String, Node>,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Table {
    services: BTreeMap<String, BTreeMap<String, Version>>,
    /// The service and version of each id.
    homes: HashMap<String, (String, String)>,
}

impl Table {
    /// All names, in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.services.keys().map(String::as_str)
    }

    /// Every version of a service; none when it is unknown.
    pub fn versions(&self, name: &str) -> Vec<Service> {
        let versions = self.services.get(name).into_iter().flatten();
        versions.map(|(version, of)| of.shown(name, version)).collect()
    }

    /// How many nodes there are.
    pub fn nodes(&self) -> usize {
        self.homes.len()
    }

    /// Calls `look` for every node of every version of a service.
    pub fn each_node<'t>(&'t self, name: &str, look: impl FnMut(&'t Node)) {
        let versions = self.services.get(name).into_iter().flat_map(BTreeMap::values);
        versions.flat_map(|version| version.nodes.values()).for_each(look);
    }

    /// Whether an id is there.
    pub fn has(&self, id: &str) -> bool {
        self.homes.contains_key(id)
    }

    /// Whether a change would change anything; a lease that is renewed does not.
    pub fn would_change(&self, service: &Service) -> bool {
        let version = self.services.get(&service.name).and_then(|versions| versions.get(&service.version));
        version.is_none_or(|version| {
            version.metadata != service.metadata
                || version.endpoints != service.endpoints
                || service.nodes.iter().any(|node| version.nodes.get(&node.id) != Some(node))
        })
    }

    /// Makes a change and tells what happened, in order.
    pub fn apply(&mut self, change: &Change) -> Vec<Event> {
        let mut events = Vec::new();
        match change {
            Change::Put(service) => self.put(service, &mut events),
            Change::Remove(ids) => {
                for id in ids.iter() {
                    self.remove(id, &mut events);
                }
            }
        }
        events
    }

    fn put(&mut self, service: &Service, events: &mut Vec<Event>) {
        let home = (service.name.clone(), service.version.clone());
        for node in &service.nodes {
            // An id that moves to another service or version leaves the one it was in.
            if self.homes.get(&node.id).is_some_and(|before| *before != home) {
                self.remove(&node.id, events);
            }
        }
        if !self.services.contains_key(&service.name) {
            let name = Service { name: service.name.clone(), ..Service::default() };
            events.push(Event { action: Action::Create, service: name });
        }
        let changes = self.would_change(service);
        let versions = self.services.entry(service.name.clone()).or_default();
        let action = match versions.contains_key(&service.version) {
            true => Action::Update,
            false => Action::Create,
        };
        let version = versions.entry(service.version.clone()).or_default();
        version.metadata.clone_from(&service.metadata);
        version.endpoints.clone_from(&service.endpoints);
        for node in &service.nodes {
            version.nodes.insert(node.id.clone(), node.clone());
            self.homes.insert(node.id.clone(), home.clone());
        }
        if changes {
            events.push(Event { action, service: version.shown(&service.name, &service.version) });
        }
    }

    fn remove(&mut self, id: &str, events: &mut Vec<Event>) {
        let Some((name, version)) = self.homes.remove(id) else { return };
        let versions = self.services.get_mut(&name).expect("an id's home is there");
        let of = versions.get_mut(&version).expect("an id's home is there");
        let node = of.nodes.remove(id).expect("an id is where it says");
        let gone = Service { nodes: vec![node], ..of.without_nodes(&name, &version) };
        events.push(Event { action: Action::Delete, service: gone });
        if !of.nodes.is_empty() {
            events.push(Event { action: Action::Update, service: of.shown(&name, &version) });
            return;
        }
        versions.remove(&version);
        if versions.is_empty() {
            self.services.remove(&name);
        }
    }
}

impl Version {
    fn without_nodes(&self, name: &str, version: &str) -> Service {
        Service {
            name: name.to_owned(),
            version: version.to_owned(),
            metadata: self.metadata.clone(),
            endpoints: self.endpoints.clone(),
            nodes: Vec::new(),
        }
    }

    fn shown(&self, name: &str, version: &str) -> Service {
        Service { nodes: self.nodes.values().cloned().collect(), ..self.without_nodes(name, version) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn service(name: &str, version: &str, ids: &[&str]) -> Service {
        let nodes = ids.iter().map(|id| Node { id: (*id).into(), ..Node::default() }).collect();
        Service { name: name.into(), version: version.into(), nodes, ..Service::default() }
    }

    fn put(table: &mut Table, name: &str, version: &str, ids: &[&str]) -> Vec<(Action, String, usize)> {
        told(table.apply(&Change::Put(Arc::new(service(name, version, ids)))))
    }

    fn remove(table: &mut Table, id: &str) -> Vec<(Action, String, usize)> {
        told(table.apply(&Change::Remove([id.to_owned()].into())))
    }

    fn told(events: Vec<Event>) -> Vec<(Action, String, usize)> {
        events
            .into_iter()
            .map(|event| (event.action, event.service.version, event.service.nodes.len()))
            .collect()
    }

    #[test]
    fn what_watchers_see() {
        let mut table = Table::default();
        let one = |action, version: &str, nodes| (action, version.to_owned(), nodes);
        assert_eq!(
            put(&mut table, "a", "1", &["x"]),
            [one(Action::Create, "", 0), one(Action::Create, "1", 1)]
        );
        assert_eq!(put(&mut table, "a", "1", &["x"]), [], "a renewed lease is nothing new");
        assert_eq!(put(&mut table, "a", "1", &["y"]), [one(Action::Update, "1", 2)]);
        assert_eq!(put(&mut table, "a", "2", &["z"]), [one(Action::Create, "2", 1)]);
        assert_eq!(remove(&mut table, "x"), [one(Action::Delete, "1", 1), one(Action::Update, "1", 1)]);
        assert_eq!(
            put(&mut table, "a", "2", &["y"]),
            [one(Action::Delete, "1", 1), one(Action::Update, "2", 2)]
        );
        assert_eq!(table.versions("a").len(), 1, "a version without nodes is gone");
        assert_eq!(remove(&mut table, "nobody"), []);
    }

    proptest! {
        /// Against a plain map of ids.
        #[test]
        fn the_table_is_the_latest_of_each_id(
            steps in proptest::collection::vec((0u8..3, 0u8..3, 0u8..3, 0u8..5), 0..40)
        ) {
            let mut table = Table::default();
            let mut model = BTreeMap::new();
            for (what, name, version, id) in steps {
                let (name, version, id) = (format!("s{name}"), format!("v{version}"), format!("n{id}"));
                if what == 0 {
                    remove(&mut table, &id);
                    model.remove(&id);
                } else {
                    put(&mut table, &name, &version, &[&id]);
                    model.insert(id, (name, version));
                }
                let names: Vec<_> = table.names().map(str::to_owned).collect();
                let mut found = BTreeMap::new();
                for name in &names {
                    let versions = table.versions(name);
                    prop_assert!(!versions.is_empty());
                    for service in versions {
                        prop_assert!(!service.nodes.is_empty());
                        for node in service.nodes {
                            found.insert(node.id, (name.clone(), service.version.clone()));
                        }
                    }
                }
                prop_assert_eq!(&found, &model);
                prop_assert_eq!(table.nodes(), model.len());
            }
        }
    }
}
