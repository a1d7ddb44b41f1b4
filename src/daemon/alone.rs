//! One shard of a daemon that serves micro and nothing else: no store is opened for it.
//!
//! Invariant: it starts although its data directory is somebody else's, does not exist or cannot be written.
//! Lives on: its shard.

use super::mesh::Mesh;
use super::serving::{self, Doors, Mailboxes, Parts};
use crate::dialect::admin::{Admin, Stage};
use crate::dialect::micro;
use crate::runtime::park::Unpark;
use crate::runtime::{shard, timer};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

/// Serves until the daemon ends.
pub async fn serve(parts: Parts, unparks: Vec<Arc<Unpark>>) {
    let shard = shard::current();
    let metrics = parts.metrics[shard.id().index()].clone();
    let vitals = parts.vitals[shard.id().index()].clone();
    let config = parts.control.config();
    let Mailboxes { registry, broker, .. } = parts.mailboxes;
    let mesh = Mesh::start(&config, registry, broker, unparks, &metrics);
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
    serving::watch(
        &parts.control,
        &doors,
        &metrics,
        || {},
        move |config| {
            micro.reload(micro::Settings::of(&config.micro));
            admin.reload(config);
        },
    );
    mesh.register(&config, parts.micro_at, &doors.gate);
    vitals.set_stage(Stage::Serving);
    let _ = parts.serves.send(());
    drop(parts.serves);

    doors.gate.closing().await;
    vitals.set_stage(Stage::Draining);
    let deadline = shard.now() + Duration::from(config.drain_timeout);
    if timer::until(deadline, doors.finished()).await.is_none() {
        tracing::info!(descriptors = doors.connections.taken(), "cutting what did not finish");
    }
    doors.cut.close();
    doors.gate.closed().await;
    side_doors.gate.close();
    side_doors.cut.close();
    side_doors.gate.closed().await;
}
