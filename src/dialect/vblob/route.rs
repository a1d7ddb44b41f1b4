//! Paths and methods to tasks: the route table.
//!
//! Invariant: container and key are parted at the first `/` behind the container, before anything is decoded.
//! Pure; runs on the connection's shard.

use crate::net::http::{Method, RequestHead};

/// What a path names. Names are as they were written, still escaped.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Resource {
    /// `/`
    Containers,
    /// `/:container[/]`
    Container(String),
    /// `/:container/:key`
    File(String, String),
    /// `/~bind[/]`
    Bind,
    /// `/~unbind[/]`
    Unbind,
}

/// What is to be done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Task {
    /// Tell all containers.
    ListContainers,
    /// Make this container.
    CreateContainer,
    /// Tell its files, or that it is there.
    ListFiles,
    /// Delete it.
    DeleteContainer,
    /// Store this file.
    Put,
    /// Have this file be what another one is.
    Copy,
    /// Read it, or its head.
    Read,
    /// Delete it.
    Delete,
    /// Tell the accounts.
    ShowAccounts,
    /// Add one.
    Bind,
    /// Take one away.
    Unbind,
}

/// The field that makes a PUT a copy.
pub const COPY_FROM: &str = "x-blb-copy-from";

impl Resource {
    /// What `path` names; accounts only where they can be changed.
    pub fn of(path: &str, has_accounts: bool) -> Self {
        let rest = path.strip_prefix('/').unwrap_or(path);
        match rest {
            "" | "*" => Resource::Containers,
            "~bind" | "~bind/" if has_accounts => Resource::Bind,
            "~unbind" | "~unbind/" if has_accounts => Resource::Unbind,
            rest => match rest.split_once('/') {
                None | Some((_, "")) => Resource::Container(rest.trim_end_matches('/').into()),
                Some((container, key)) => Resource::File(container.into(), key.into()),
            },
        }
    }

    /// What a request asks for here; nothing when its method is not allowed.
    pub fn task(&self, head: &RequestHead) -> Option<Task> {
        self.task_of(head.method(), head.header(COPY_FROM).is_some())
    }

    fn task_of(&self, method: Method, copies: bool) -> Option<Task> {
        match (self, method) {
            (Resource::Containers, Method::Get) => Some(Task::ListContainers),
            (Resource::Container(_), Method::Get | Method::Head) => Some(Task::ListFiles),
            (Resource::Container(_), Method::Put) => Some(Task::CreateContainer),
            (Resource::Container(_), Method::Delete) => Some(Task::DeleteContainer),
            (Resource::File(..), Method::Get | Method::Head) => Some(Task::Read),
            (Resource::File(..), Method::Put) if copies => Some(Task::Copy),
            (Resource::File(..), Method::Put) => Some(Task::Put),
            (Resource::File(..), Method::Delete) => Some(Task::Delete),
            (Resource::Bind, Method::Get | Method::Head) => Some(Task::ShowAccounts),
            (Resource::Bind, Method::Put) => Some(Task::Bind),
            (Resource::Unbind, Method::Put) => Some(Task::Unbind),
            _ => None,
        }
    }

    /// The methods that are allowed here, for `Allow`.
    pub fn allowed(&self) -> &'static str {
        match self {
            Resource::Containers => "GET",
            Resource::Container(_) | Resource::File(..) => "GET, HEAD, PUT, DELETE",
            Resource::Bind => "GET, HEAD, PUT",
            Resource::Unbind => "PUT",
        }
    }
}

impl Task {
    /// Whether only the main account may do this, whatever else is configured.
    pub fn is_about_accounts(self) -> bool {
        matches!(self, Task::ShowAccounts | Task::Bind | Task::Unbind)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn container(name: &str) -> Resource {
        Resource::Container(name.into())
    }

    fn file(container: &str, key: &str) -> Resource {
        Resource::File(container.into(), key.into())
    }

    #[test]
    fn paths_name_what_the_table_says() {
        for (path, named) in [
            ("/", Resource::Containers),
            ("*", Resource::Containers),
            ("/c", container("c")),
            ("/c/", container("c")),
            ("/c/k", file("c", "k")),
            ("/c/k/", file("c", "k/")),
            ("/c//", file("c", "/")),
            ("/c/a/../b", file("c", "a/../b")),
            ("/c/a%2Fb", file("c", "a%2Fb")),
            ("/c%2Fd", container("c%2Fd")),
            ("//", container("")),
            ("//k", file("", "k")),
            ("/~bind", Resource::Bind),
            ("/~bind/", Resource::Bind),
            ("/~unbind/", Resource::Unbind),
            ("/~bind/x", file("~bind", "x")),
            ("/~config", container("~config")),
        ] {
            assert_eq!(Resource::of(path, true), named, "{path}");
        }
        assert_eq!(Resource::of("/~bind", false), container("~bind"));
    }

    /// Catches a method that works and is not announced, and one that is announced and does not work.
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
            (Method::Trace, "TRACE"),
            (Method::Other, "BREW"),
        ];
        for resource in
            [Resource::Containers, container("c"), file("c", "k"), Resource::Bind, Resource::Unbind]
        {
            let allowed: Vec<&str> = resource.allowed().split(", ").collect();
            for (method, text) in methods {
                let task = resource.task_of(method, false);
                assert_eq!(task.is_some(), allowed.contains(&text), "{text} {resource:?}");
            }
        }
        assert_eq!(file("c", "k").task_of(Method::Put, true), Some(Task::Copy));
        assert_eq!(container("c").task_of(Method::Put, true), Some(Task::CreateContainer));
    }

    proptest! {
        /// Whatever bytes a key has, its escaped form is the key of one file.
        #[test]
        fn an_escaped_key_is_one_key(key in proptest::collection::vec(any::<u8>(), 1..40)) {
            let escaped = crate::codec::text::percent_encode(&key).to_string();
            prop_assert_eq!(Resource::of(&format!("/c/{escaped}"), true), file("c", &escaped));
        }
    }
}
