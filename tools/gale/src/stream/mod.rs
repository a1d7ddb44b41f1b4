//! `gale stream`: records through streams of the daemon, each with its number, its time and its checksum.
//!
//! Invariant: a run passes only if every record that was written was acknowledged, and every reader got every record
//! of its stream once, in order and unchanged.

pub mod append;
pub mod tail;
pub mod wire;

use crate::{
    cli::{Load, split_url, stream::StreamArgs},
    net::Target,
};
use wire::Streams;

/// Where these streams are.
fn streams(load: &Load, args: &StreamArgs) -> Result<Streams, String> {
    let (host, path) = split_url(&args.url)?;
    if path != "/" {
        return Err(format!("{:?}: the paths of streams are known; write http://host:port", args.url));
    }
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    if args.name.is_empty() || !args.name.bytes().all(is_plain) {
        return Err(format!("--name {:?}: write letters, digits, -, ., _ or ~", args.name));
    }
    let fields = match &args.token {
        Some(token) if token.bytes().all(|byte| byte.is_ascii_graphic()) => {
            format!("Authorization: Bearer {token}\r\n")
        }
        Some(_) => return Err("--token: write a token without spaces".into()),
        None => String::new(),
    };
    Ok(Streams { target: Target::new(&host, &load.congestion)?, host, name: args.name.clone(), fields })
}

/// The indices below `count` that fall to one of several lanes.
pub fn of_lane(count: usize, lane: usize, lanes: usize) -> impl Iterator<Item = usize> {
    (lane..count).step_by(lanes)
}
