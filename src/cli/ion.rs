//! `millpond ion sidecar`: one module's sidecar, by the flags that its pod specification has.
//!
//! The flags of the stores that it kept things in are taken and change nothing: everything is in the embedded store.
//! Invariant: one of them is told once, and no value of any, which may be a key. Runs on the main thread.

use std::process::ExitCode;

use super::args::{IonArgs, IonCommand, SidecarArgs};
use crate::config::{Config, Diagnostics, IonModule, Secret, Sources};

/// Where it listens unless it is told.
const PORT: u16 = 8080;

/// Serves one module until a signal; 78 when a value cannot be used.
pub fn run(args: IonArgs) -> ExitCode {
    let IonCommand::Sidecar(args) = args.command;
    if !args.replaced().is_empty() {
        let replaced = args.replaced().join(", ");
        eprintln!("warning: {replaced}: replaced by the embedded store, which takes no such settings");
    }
    match Config::load(&sources(&args)) {
        Ok(loaded) => crate::daemon::serve(loaded.config, args.ready_fd),
        Err(diagnostics) => {
            eprintln!("{diagnostics}");
            ExitCode::from(Diagnostics::EXIT_CODE)
        }
    }
}

fn sources(args: &SidecarArgs) -> Sources {
    let off = || vec!["false".to_owned()];
    let local = |port: u16| vec![format!("127.0.0.1:{port}")];
    let one = |value: &Option<String>| value.iter().cloned().collect::<Vec<_>>();
    let sources = Sources::new(None)
        .with_flag("--filesystemblobprovider.basedir", "data_dir", &one(&args.basedir))
        .with_flag("--loglevel", "log_level", &one(&args.loglevel))
        .with_flag("--serverport", "ion.listen", &local(args.serverport.unwrap_or(PORT)))
        // Of several sidecars on one host each has its own, and none is in another one's way.
        .with_flag("--serverport", "admin.listen", &local(0))
        .with_module(IonModule {
            name: "sidecar".to_owned(),
            event_id: args.eventid.clone(),
            parent_event_id: args.parenteventid.clone(),
            correlation_id: args.correlationid.clone(),
            secret: Some(Secret::new(args.sharedsecret.as_str())),
            secret_env: None,
            secret_file: None,
            listen: Vec::new(),
            valid_event_types: args.valideventtypes.clone(),
        });
    ["loom", "vblob", "s3", "serpentine", "micro"].iter().fold(sources, |sources, dialect| {
        sources.with_flag("ion sidecar", &format!("{dialect}.enabled"), &off())
    })
}
