//! Paths and methods.
//!
//! Invariant: what is announced in `Allow` is what works. Pure; runs on the connection's shard.

use crate::net::http::Method;

/// What a path names. Case and slashes count.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Resource {
    /// `/parent/blob`
    ParentBlob,
    /// `/self/blob`
    OwnBlob,
    /// `/self/blobs`
    OwnBlobs,
    /// `/parent/meta`
    ParentMeta,
    /// `/self/meta`
    OwnMeta,
    /// `/meta`
    Meta,
    /// `/events`
    Events,
    /// `/self/commit`
    Commit,
}

impl Resource {
    /// What `path` names, if anything.
    pub fn of(path: &str) -> Option<Self> {
        Some(match path {
            "/parent/blob" => Resource::ParentBlob,
            "/self/blob" => Resource::OwnBlob,
            "/self/blobs" => Resource::OwnBlobs,
            "/parent/meta" => Resource::ParentMeta,
            "/self/meta" => Resource::OwnMeta,
            "/meta" => Resource::Meta,
            "/events" => Resource::Events,
            "/self/commit" => Resource::Commit,
            _ => return None,
        })
    }

    /// Whether `method` is answered here.
    pub fn allows(self, method: Method) -> bool {
        match method {
            Method::Get | Method::Head => self != Resource::Commit,
            Method::Put => matches!(self, Resource::OwnBlob | Resource::OwnMeta),
            Method::Delete => self == Resource::OwnBlob,
            Method::Post => matches!(self, Resource::Events | Resource::Commit),
            _ => false,
        }
    }

    /// The methods that are, for `Allow`.
    pub fn allowed(self) -> &'static str {
        match self {
            Resource::ParentBlob | Resource::OwnBlobs | Resource::ParentMeta | Resource::Meta => "GET, HEAD",
            Resource::OwnBlob => "GET, HEAD, PUT, DELETE",
            Resource::OwnMeta => "GET, HEAD, PUT",
            Resource::Events => "GET, HEAD, POST",
            Resource::Commit => "POST",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATHS: [&str; 8] = [
        "/parent/blob",
        "/self/blob",
        "/self/blobs",
        "/parent/meta",
        "/self/meta",
        "/meta",
        "/events",
        "/self/commit",
    ];

    #[test]
    fn what_is_allowed_is_what_is_done() {
        let methods = [
            (Method::Get, "GET"),
            (Method::Head, "HEAD"),
            (Method::Post, "POST"),
            (Method::Put, "PUT"),
            (Method::Delete, "DELETE"),
            (Method::Options, "OPTIONS"),
            (Method::Patch, "PATCH"),
            (Method::Other, "BREW"),
        ];
        for path in PATHS {
            let resource = Resource::of(path).unwrap();
            let allowed: Vec<&str> = resource.allowed().split(", ").collect();
            for (method, text) in methods {
                assert_eq!(resource.allows(method), allowed.contains(&text), "{text} {path}");
            }
        }
    }

    #[test]
    fn no_other_path_is_one() {
        for path in
            ["/", "/self", "/self/blob/", "//self/blob", "/Self/blob", "/self/blob%73", "/parent/blobs", "*"]
        {
            assert_eq!(Resource::of(path), None, "{path}");
        }
    }
}
