//! Paths and methods to tasks: the route table.
//!
//! Invariant: an id is one path segment, decoded once and after routing; `/` inside it must come escaped.
//! Pure; runs on the connection's shard.

use crate::net::http::Method;
use crate::net::http::target::segments;

/// What a path names. Ids are as they were written, still escaped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Resource<'a> {
    /// `/stream` and `/stream/`
    Collection,
    /// `/stream/:id`
    Stream(&'a str),
    /// `/stream/build/:buildId`
    Build(&'a str),
    /// `/streams`
    Listing,
    /// `/spy`
    Spy,
}

/// What is to be done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Task<'a> {
    /// Open a stream under a new id.
    Create,
    /// Open this stream, or go on with it.
    Produce(&'a str),
    /// Read this stream, or its state.
    Consume(&'a str),
    /// Delete this stream.
    Delete(&'a str),
    /// Delete all streams of this build.
    DeleteBuild(&'a str),
    /// List streams.
    List,
    /// See everything.
    Spy,
}

impl<'a> Resource<'a> {
    /// What `path` names, if anything.
    pub fn of(path: &'a str) -> Option<Self> {
        let mut segments = segments(path);
        let found = match (segments.next()?, segments.next(), segments.next()) {
            ("stream", None | Some(""), None) => Resource::Collection,
            ("stream", Some("build"), Some(build)) if !build.is_empty() => Resource::Build(build),
            ("stream", Some(id), None) => Resource::Stream(id),
            ("streams", None, None) => Resource::Listing,
            ("spy", None, None) => Resource::Spy,
            _ => return None,
        };
        segments.next().is_none().then_some(found)
    }

    /// What `method` asks for here; nothing when it is not allowed.
    pub fn task(self, method: Method) -> Option<Task<'a>> {
        match (self, method) {
            (Resource::Collection, Method::Post) => Some(Task::Create),
            // The stream without a name: nobody can have made it.
            (Resource::Collection, Method::Get | Method::Head) => Some(Task::Consume("")),
            (Resource::Stream(id), Method::Post) => Some(Task::Produce(id)),
            (Resource::Stream(id), Method::Get | Method::Head) => Some(Task::Consume(id)),
            (Resource::Stream(id), Method::Delete) => Some(Task::Delete(id)),
            (Resource::Build(build), Method::Delete) => Some(Task::DeleteBuild(build)),
            (Resource::Listing, Method::Get | Method::Head) => Some(Task::List),
            (Resource::Spy, Method::Get) => Some(Task::Spy),
            _ => None,
        }
    }

    /// The methods that are allowed here, for `Allow`.
    pub fn allowed(self) -> &'static str {
        match self {
            Resource::Collection => "GET, HEAD, POST",
            Resource::Stream(_) => "GET, HEAD, POST, DELETE",
            Resource::Build(_) => "DELETE",
            Resource::Listing => "GET, HEAD",
            Resource::Spy => "GET",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const METHODS: [(Method, &str); 10] = [
        (Method::Get, "GET"),
        (Method::Head, "HEAD"),
        (Method::Post, "POST"),
        (Method::Put, "PUT"),
        (Method::Delete, "DELETE"),
        (Method::Options, "OPTIONS"),
        (Method::Patch, "PATCH"),
        (Method::Trace, "TRACE"),
        (Method::Connect, "CONNECT"),
        (Method::Other, "BREW"),
    ];

    fn resources() -> [Resource<'static>; 5] {
        let (stream, build) = (Resource::Stream("x"), Resource::Build("x"));
        [Resource::Collection, stream, build, Resource::Listing, Resource::Spy]
    }

    #[test]
    fn paths_name_what_the_table_says() {
        let stream = |id| Some(Resource::Stream(id));
        for (path, named) in [
            ("/stream", Some(Resource::Collection)),
            ("/stream/", Some(Resource::Collection)),
            ("/stream/a", stream("a")),
            ("/stream/a%2Fb", stream("a%2Fb")),
            ("/stream/build", stream("build")),
            ("/stream/..", stream("..")),
            ("/stream/build/7", Some(Resource::Build("7"))),
            ("/stream/build/", None),
            ("/stream/build/7/", None),
            ("/stream/a/", None),
            ("/stream/a/b", None),
            ("/stream//a", None),
            ("/streams", Some(Resource::Listing)),
            ("/streams/", None),
            ("/spy", Some(Resource::Spy)),
            ("/spy/", None),
            ("/Spy", None),
            ("/", None),
            ("*", None),
        ] {
            assert_eq!(Resource::of(path), named, "{path}");
        }
    }

    /// Catches a method that works and is not announced, and one that is announced and does not work.
    #[test]
    fn what_is_allowed_is_what_is_done() {
        for resource in resources() {
            let allowed: Vec<&str> = resource.allowed().split(", ").collect();
            for (method, text) in METHODS {
                assert_eq!(resource.task(method).is_some(), allowed.contains(&text), "{text} {resource:?}");
            }
        }
    }

    proptest! {
        /// Whatever bytes an id has, its escaped form is one segment and comes back.
        #[test]
        fn an_escaped_id_is_one_segment(id in proptest::collection::vec(any::<u8>(), 1..40)) {
            let escaped = crate::codec::text::percent_encode(&id).to_string();
            let path = format!("/stream/{escaped}");
            prop_assert_eq!(Resource::of(&path), Some(Resource::Stream(&escaped)));
        }
    }
}
