//! One shard of a daemon that serves micro and nothing else: no store is opened before a topic is to be kept.
//!
//! Invariant: it starts although its data directory is somebody else's, does not exist or cannot be written.
//! Lives on: its shard.

use super::late::Depot;
use super::mesh::Mesh;
use super::serving::{self, Doors, LAST_CHECKPOINT, Mailboxes, Parts};
use crate::dialect::admin::{Admin, Stage};
use crate::dialect::micro;
use crate::runtime::park::Unpark;
use crate::runtime::shard;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

/// Serves until the daemon ends.
pub async fn serve(parts: Parts, unparks: Vec<Arc<Unpark>>) {
    let shard = shard::current();
    let metrics = parts.metrics[shard.id().index()].clone();
    let vitals = parts.vitals[shard.id().index()].clone();
    let config = parts.control.config();
    let Mailboxes { streams, registry, broker, kept, pulse, .. } = parts.mailboxes;
    let mesh = Mesh::start(
        &config,
        registry,
        broker,
        (kept, parts.kept_shared),
        pulse,
        unparks.clone(),
        &parts.metrics,
    );
    let late = parts.late.expect("whoever has no store at the start may open one later");
    let depot = Depot::start(late, unparks, metrics.clone(), mesh.kept.clone(), streams);
    let admin = Rc::new(Admin::new(parts.metrics, parts.vitals));
    let doors = Doors::new(&config, &shard, metrics.clone(), parts.keyring.clone());
    let side_doors = Doors::for_admin(&config, metrics.clone(), parts.keyring);
    for (section, sockets) in parts.sockets {
        for socket in sockets {
            match section {
                "admin" => side_doors.open(socket, admin.clone()),
                "micro" => doors.open(socket, mesh.micro.clone()),
                other => unreachable!("{other} is bound, so micro is not alone"),
            }
        }
    }
    let micro = mesh.micro.clone();
    let (stored, seen) = (depot.clone(), vitals.clone());
    let beside = move || {
        if let Some((store, streams)) = stored.stored() {
            seen.set_store(serving::state_of(store));
            streams.count_messages();
        }
    };
    serving::watch(&parts.control, &doors, &metrics, beside, move |config| {
        micro.reload(micro::Settings::of(&config.micro));
        admin.reload(config);
    });
    mesh.register(&config, parts.micro_at, &doors.gate);
    vitals.set_stage(Stage::Serving);
    let _ = parts.serves.send(());
    drop(parts.serves);

    doors.gate.closing().await;
    vitals.set_stage(Stage::Draining);
    doors.drain(config.drain_timeout.into()).await;
    mesh.kept.close(config.drain_timeout.into()).await;
    if let Some((store, streams)) = depot.stored() {
        streams.drain().await;
        store.finish(Duration::from(config.drain_timeout) + LAST_CHECKPOINT).await;
        if let Err(error) = store.close().await {
            tracing::error!(%error, "the store did not close cleanly; recovery will settle it");
        }
    }
    side_doors.gate.close();
    side_doors.cut.close();
    side_doors.gate.closed().await;
}
