//! One folder per dialect: its syntax and its quirks.

pub mod admin;
pub mod loom;
