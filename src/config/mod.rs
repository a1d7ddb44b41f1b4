//! The typed configuration.
//!
//! A value comes from the first of flag, environment, file and default that names its key.

mod choice;
mod listen;
mod schema;
mod secret;
mod sections;
mod units;

pub use choice::{Driver, Durability, Handler, Interrupted, LogFormat, LogLevel, Output, Share, VblobAuth};
pub use listen::{Listen, ListenError, Wanted};
pub use secret::Secret;
pub use sections::{
    AccessKey, Admin, Blob, Config, Doors, Ion, IonModule, Kind, Limits, Loom, Micro, Net, Proxy, Remote,
    RemoteS3, Retention, S3, Serpentine, Service, Tls, Vblob,
};
pub use units::{ByteSize, Period, UnitError};
