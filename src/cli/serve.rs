//! `millpond serve`: reads the configuration and hands it to the daemon.
//!
//! Invariant: nothing is bound, opened or written before the whole configuration is known to be good.
//! Runs on the main thread.

use std::process::ExitCode;

use super::args::ServeArgs;
use crate::config::{Config, Diagnostics, LogFormat, Sources, Warning};

/// Serves until a signal; 78 when the configuration is bad.
pub fn run(args: ServeArgs) -> ExitCode {
    match Config::load(&sources(&args)) {
        Ok(loaded) => {
            for warning in &loaded.warnings {
                warn(loaded.config.log, warning);
            }
            crate::daemon::serve(loaded.config, args.ready_fd)
        }
        Err(diagnostics) => {
            eprintln!("{diagnostics}");
            ExitCode::from(Diagnostics::EXIT_CODE)
        }
    }
}

/// File, environment and flags of this process.
fn sources(args: &ServeArgs) -> Sources {
    let one = |value: &Option<String>| value.iter().cloned().collect::<Vec<_>>();
    Sources::new(args.config.clone())
        .with_env(std::env::vars_os())
        .with_flag("--data-dir", "data_dir", &one(&args.data_dir))
        .with_flag("--shards", "shards", &one(&args.shards))
        .with_flag("--admin-listen", "admin.listen", &args.admin_listen)
        .with_flag("--loom-listen", "loom.listen", &args.loom_listen)
        .with_flag("--vblob-listen", "vblob.listen", &args.vblob_listen)
        .with_flag("--s3-listen", "s3.listen", &args.s3_listen)
        .with_flag("--ion-listen", "ion.listen", &args.ion_listen)
        .with_flag("--serpentine-listen", "serpentine.listen", &args.serpentine_listen)
        .with_flag("--micro-listen", "micro.listen", &args.micro_listen)
        .with_flag("--log", "log", &one(&args.log))
        .with_flag("--log-level", "log_level", &one(&args.log_level))
}

/// The log does not run yet; this keeps its form, so that a reader of JSON lines is not surprised.
pub(super) fn warn(format: LogFormat, warning: &Warning) {
    match format {
        LogFormat::Text => eprintln!("warning: {warning}"),
        LogFormat::Json => {
            eprintln!("{}", serde_json::json!({ "level": "WARN", "message": warning.to_string() }));
        }
    }
}
