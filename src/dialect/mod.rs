//! One folder per dialect: its syntax and its quirks. The listener decides the dialect, so no request is ever
//! guessed at.
//!
//! | dialect | speaks | over |
//! |---|---|---|
//! | [`forward`] | nothing of its own: it joins sockets | [`crate::service::proxy`] |
//! | [`ion`] | blobs, documents and events of modules | [`crate::service::chain`], [`crate::service::blob`] |
//! | [`loom`] | live log streams | [`crate::service::stream`] |
//! | [`micro`] | registry, calls and topics of services | [`crate::service::registry`], [`crate::service::broker`] |
//! | [`s3`] | buckets and objects | [`crate::service::blob`] |
//! | [`serpentine`] | a preamble, then another daemon's socket | [`crate::service::proxy`] |
//! | [`vblob`] | containers of files | [`crate::service::blob`] |

pub mod admin;
pub mod forward;
pub mod ion;
pub mod loom;
pub mod micro;
pub mod s3;
pub mod serpentine;
pub mod vblob;
