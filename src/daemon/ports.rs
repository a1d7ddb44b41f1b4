//! Ports of single modules of ion, which come and go while the daemon runs.
//!
//! Whoever changes modules binds what is new, a socket per shard and address, and puts it here. Each shard looks once per
//! turn, one relaxed load when nothing changed: it accepts at what is new and stops where a port is gone. Connections
//! that it has there stay, and whoever is on one is refused by the secret.
//! Invariant: an address that stays wanted stays bound, also when another module gets it, so nobody who connects meanwhile
//! is refused. Lives on: the main thread and workers change it, every shard looks.

use super::listen::{self, Address, BindError, Bound};
use super::serving::Doors;
use crate::config::{Config, Listen};
use crate::dialect::admin::ModulePorts;
use crate::dialect::ion::{Ion, Port};
use crate::runtime::gate::Gate;
use crate::runtime::park::Unpark;
use crate::runtime::ring::socket::Socket;
use crate::runtime::shard;
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

/// The section that these listeners are of.
pub const SECTION: &str = "ion.module";

/// All of them.
pub struct Ports {
    shards: usize,
    /// Whether ion is served at all.
    enabled: bool,
    congestion: String,
    changes: AtomicU64,
    unparks: OnceLock<Vec<Arc<Unpark>>>,
    /// One change at a time: binding takes as long as it takes, and no shard waits for that.
    #[allow(clippy::disallowed_types, reason = "taken by the main thread and by workers")]
    changing: std::sync::Mutex<()>,
    #[allow(clippy::disallowed_types, reason = "held for a look; by each shard once after a change")]
    bound: std::sync::Mutex<Table>,
}

#[derive(Default)]
struct Table {
    by_place: BTreeMap<Place, Entry>,
    serials: u64,
}

/// What makes a listener the same as before: its address, and where the kernel chooses a port, whose it is and which of
/// its addresses.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    listen: Listen,
    chosen_for: Option<(Box<str>, usize)>,
}

struct Entry {
    event: Box<str>,
    is_configured: bool,
    serial: u64,
    addresses: Vec<Address>,
    unix_paths: Vec<PathBuf>,
    /// By shard; those that it has not taken yet.
    sockets: Vec<Vec<Socket>>,
}

/// Some module's wish.
struct Wish {
    place: Place,
    event: Box<str>,
    /// What names it to who made it.
    key: String,
}

impl Wish {
    fn all_of(event: &str, key: &str, listen: &[Listen]) -> Vec<Self> {
        let of = |(index, listen): (usize, &Listen)| {
            let is_chosen = matches!(listen, Listen::Tcp(address) if address.port() == 0);
            let chosen_for = is_chosen.then(|| (event.into(), index));
            let place = Place { listen: listen.clone(), chosen_for };
            Wish { place, event: event.into(), key: key.to_owned() }
        };
        listen.iter().enumerate().map(of).collect()
    }
}

impl Ports {
    /// None yet, for so many shards.
    pub fn new(config: &Config, shards: usize) -> Self {
        Ports {
            shards,
            enabled: config.ion.enabled,
            congestion: config.net.loopback_congestion.clone(),
            changes: AtomicU64::new(0),
            unparks: OnceLock::new(),
            changing: Default::default(),
            bound: Default::default(),
        }
    }

    /// Whom to wake after a change. Shards that start later look by themselves.
    pub fn wake_with(&self, unparks: &[Arc<Unpark>]) {
        let _ = self.unparks.set(unparks.to_vec());
    }

    /// Has the modules of the configuration where it says, and nowhere else. What cannot be bound is left out.
    pub fn configure(&self, config: &Config) -> Vec<BindError> {
        let modules = config.ion.module.iter().enumerate();
        let wishes = modules.flat_map(|(index, module)| {
            Wish::all_of(&module.event_id, &format!("ion.module[{index}].listen"), &module.listen)
        });
        self.change(wishes.collect(), |entry| entry.is_configured, true)
    }

    /// Every address that is bound, and the module's event.
    pub fn addresses(&self) -> Vec<(Box<str>, Address)> {
        let bound = self.bound.lock().expect("nothing panics under this lock");
        let of = |entry: &Entry| {
            entry.addresses.iter().map(|address| (entry.event.clone(), address.clone())).collect::<Vec<_>>()
        };
        bound.by_place.values().flat_map(of).collect()
    }

    /// Removes the socket files; for the end.
    pub fn remove_paths(&self) {
        let bound = self.bound.lock().expect("nothing panics under this lock");
        for path in bound.by_place.values().flat_map(|entry| &entry.unix_paths) {
            let _ = std::fs::remove_file(path);
        }
    }

    /// Fulfils the wishes and lets go of what is `ours` and not wished for. What is new is bound first.
    fn change(
        &self,
        wishes: Vec<Wish>,
        is_ours: impl Fn(&Entry) -> bool,
        is_configured: bool,
    ) -> Vec<BindError> {
        if !self.enabled {
            return Vec::new();
        }
        let _changing = self.changing.lock().expect("binding does not panic");
        let mut errors = Vec::new();
        let mut wanted = HashSet::new();
        let mut fresh = Vec::new();
        for (index, wish) in wishes.iter().enumerate() {
            let known = {
                let bound = self.bound.lock().expect("nothing panics under this lock");
                bound.by_place.get(&wish.place).map(|entry| is_configured || is_ours(entry))
            };
            match known {
                Some(true) => drop(wanted.insert(index)),
                Some(false) => errors.push(BindError::taken(&wish.key, &wish.place.listen)),
                None => {
                    let listen = std::slice::from_ref(&wish.place.listen);
                    match listen::bind(SECTION, &wish.key, listen, self.shards, &self.congestion) {
                        Ok(bound) => {
                            wanted.insert(index);
                            fresh.push((index, bound));
                        }
                        Err(error) => errors.push(error),
                    }
                }
            }
        }
        // What a module asks for while all runs is had whole or not at all.
        let is_refused = !is_configured && !errors.is_empty();
        match is_refused {
            true => fresh.into_iter().for_each(|(_, bound)| remove_all(&bound.unix_paths)),
            false => self.put(&wishes, &wanted, fresh, is_ours, is_configured),
        }
        errors
    }

    fn put(
        &self,
        wishes: &[Wish],
        wanted: &HashSet<usize>,
        fresh: Vec<(usize, Bound)>,
        is_ours: impl Fn(&Entry) -> bool,
        is_configured: bool,
    ) {
        let mut table = self.bound.lock().expect("nothing panics under this lock");
        let Table { by_place, serials } = &mut *table;
        by_place.retain(|place, entry| {
            let stays = !is_ours(entry) || wanted.iter().any(|index| wishes[*index].place == *place);
            if !stays {
                tracing::info!(event = &*entry.event, listen = %place.listen, "a module's port is closed");
                remove_all(&entry.unix_paths);
            }
            stays
        });
        for (index, Bound { addresses, sockets, unix_paths, .. }) in fresh {
            let Wish { place, event, .. } = &wishes[index];
            *serials += 1;
            // Those of the start are told of with all other listeners.
            if self.unparks.get().is_some() {
                addresses
                    .iter()
                    .for_each(|addr| tracing::info!(dialect = SECTION, event = &**event, %addr, "listening"));
            }
            let entry = Entry {
                event: event.clone(),
                is_configured,
                serial: *serials,
                addresses,
                unix_paths,
                sockets,
            };
            by_place.insert(place.clone(), entry);
        }
        for index in wanted {
            let Wish { place, event, .. } = &wishes[*index];
            if let Some(entry) = by_place.get_mut(place) {
                entry.event = event.clone();
                entry.is_configured = is_configured;
            }
        }
        drop(table);
        self.changes.fetch_add(1, Ordering::Release);
        self.unparks.get().into_iter().flatten().for_each(|shard| shard.nudge());
    }
}

fn remove_all(paths: &[PathBuf]) {
    paths.iter().for_each(|path| drop(std::fs::remove_file(path)));
}

impl ModulePorts for Ports {
    fn open(&self, event: &str, listen: &[Listen]) -> Result<(), String> {
        let ours = |entry: &Entry| !entry.is_configured && *entry.event == *event;
        match self.change(Wish::all_of(event, "listen", listen), ours, false).first() {
            None => Ok(()),
            Some(error) => Err(error.to_string()),
        }
    }

    fn addresses_of(&self, event: &str) -> Vec<String> {
        let all = self.addresses();
        all.iter().filter(|(of, _)| **of == *event).map(|(_, address)| address.to_string()).collect()
    }
}

/// The ports that one shard accepts at.
pub struct Opened {
    ports: Arc<Ports>,
    seen: Cell<u64>,
    by_serial: RefCell<HashMap<u64, (Rc<Port>, Gate)>>,
}

impl Opened {
    /// None yet.
    pub fn new(ports: Arc<Ports>) -> Self {
        Opened { ports, seen: Cell::new(0), by_serial: RefCell::default() }
    }

    /// Goes along with what has changed since the last look.
    pub(super) fn follow(&self, doors: &Doors, ion: &Rc<Ion>) {
        let changes = self.ports.changes.load(Ordering::Relaxed);
        if self.seen.get() == changes {
            return;
        }
        // What is in the table now is at least as new as the count, which is seen first.
        self.seen.set(self.ports.changes.load(Ordering::Acquire));
        let mut opened = self.by_serial.borrow_mut();
        let mut there = HashSet::new();
        let here = shard::current().id().index();
        let mut table = self.ports.bound.lock().expect("nothing panics under this lock");
        for entry in table.by_place.values_mut() {
            there.insert(entry.serial);
            let (port, gate) = opened
                .entry(entry.serial)
                .or_insert_with(|| (Rc::new(Port::new(ion.clone(), Some(entry.event.clone()))), Gate::new()));
            port.belong_to(&entry.event);
            for socket in entry.sockets[here].drain(..) {
                doors.open_until(socket, port.clone(), gate.clone());
            }
        }
        drop(table);
        opened.retain(|serial, (_, gate)| {
            let stays = there.contains(serial);
            if !stays {
                gate.close();
            }
            stays
        });
    }
}
