//! One folder per dialect: its syntax and its quirks. The listener decides the dialect, so no request is ever
//! guessed at.
//!
//! | dialect | speaks | over |
//! |---|---|---|
//! | [`loom`] | live log streams | [`crate::service::stream`] |

pub mod admin;
pub mod loom;
