//! One folder per dialect: its syntax and its quirks. The listener decides the dialect, so no request is ever
//! guessed at.
//!
//! | dialect | speaks | over |
//! |---|---|---|
//! | [`loom`] | live log streams | [`crate::service::stream`] |
//! | [`s3`] | buckets and objects | [`crate::service::blob`] |
//! | [`vblob`] | containers of files | [`crate::service::blob`] |

pub mod admin;
pub mod loom;
pub mod s3;
pub mod vblob;
