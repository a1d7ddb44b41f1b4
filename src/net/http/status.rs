//! Status codes and their reason phrases.
//!
//! Invariant: a `Status` is a three-digit number from 100 to 599.
//! Lives on: whichever shard answers.

use std::fmt;

/// A status code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Status(u16);

macro_rules! statuses {
    ($($code:literal $name:ident $phrase:literal;)*) => {
        #[allow(missing_docs, reason = "the phrase beside each name is its documentation")]
        impl Status {
            $(pub const $name: Status = Status($code);)*
        }

        impl Status {
            /// The reason phrase; empty for a code without a name here, which RFC 9112 permits.
            pub const fn phrase(self) -> &'static str {
                match self.0 {
                    $($code => $phrase,)*
                    _ => "",
                }
            }
        }
    };
}

statuses! {
    100 CONTINUE "Continue";
    101 SWITCHING_PROTOCOLS "Switching Protocols";
    200 OK "OK";
    201 CREATED "Created";
    202 ACCEPTED "Accepted";
    204 NO_CONTENT "No Content";
    206 PARTIAL_CONTENT "Partial Content";
    301 MOVED_PERMANENTLY "Moved Permanently";
    302 FOUND "Found";
    303 SEE_OTHER "See Other";
    304 NOT_MODIFIED "Not Modified";
    307 TEMPORARY_REDIRECT "Temporary Redirect";
    308 PERMANENT_REDIRECT "Permanent Redirect";
    400 BAD_REQUEST "Bad Request";
    401 UNAUTHORIZED "Unauthorized";
    403 FORBIDDEN "Forbidden";
    404 NOT_FOUND "Not Found";
    405 METHOD_NOT_ALLOWED "Method Not Allowed";
    406 NOT_ACCEPTABLE "Not Acceptable";
    408 REQUEST_TIMEOUT "Request Timeout";
    409 CONFLICT "Conflict";
    410 GONE "Gone";
    411 LENGTH_REQUIRED "Length Required";
    412 PRECONDITION_FAILED "Precondition Failed";
    413 CONTENT_TOO_LARGE "Content Too Large";
    414 URI_TOO_LONG "URI Too Long";
    415 UNSUPPORTED_MEDIA_TYPE "Unsupported Media Type";
    416 RANGE_NOT_SATISFIABLE "Range Not Satisfiable";
    417 EXPECTATION_FAILED "Expectation Failed";
    421 MISDIRECTED_REQUEST "Misdirected Request";
    422 UNPROCESSABLE_CONTENT "Unprocessable Content";
    425 TOO_EARLY "Too Early";
    426 UPGRADE_REQUIRED "Upgrade Required";
    428 PRECONDITION_REQUIRED "Precondition Required";
    429 TOO_MANY_REQUESTS "Too Many Requests";
    431 HEADERS_TOO_LARGE "Request Header Fields Too Large";
    500 INTERNAL_SERVER_ERROR "Internal Server Error";
    501 NOT_IMPLEMENTED "Not Implemented";
    502 BAD_GATEWAY "Bad Gateway";
    503 SERVICE_UNAVAILABLE "Service Unavailable";
    504 GATEWAY_TIMEOUT "Gateway Timeout";
    505 VERSION_NOT_SUPPORTED "HTTP Version Not Supported";
    507 INSUFFICIENT_STORAGE "Insufficient Storage";
}

impl Status {
    /// A code that somebody else chose, such as a proxied backend; `None` outside 100 to 599.
    pub const fn from_code(code: u16) -> Option<Status> {
        if code >= 100 && code <= 599 { Some(Status(code)) } else { None }
    }

    /// The number.
    pub const fn code(self) -> u16 {
        self.0
    }

    /// An interim answer (1xx): the final one is still to come.
    pub const fn is_informational(self) -> bool {
        self.0 < 200
    }

    /// Whether an answer with this status may have a body at all (RFC 9112 section 6.3).
    pub const fn has_body(self) -> bool {
        !self.is_informational() && self.0 != 204 && self.0 != 304
    }

    /// The three digits.
    pub const fn digits(self) -> [u8; 3] {
        [b'0' + (self.0 / 100) as u8, b'0' + (self.0 / 10 % 10) as u8, b'0' + (self.0 % 10) as u8]
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.0, self.phrase())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_are_the_number() {
        for code in 100..600 {
            let status = Status::from_code(code).unwrap();
            assert_eq!(String::from_utf8(status.digits().to_vec()).unwrap(), code.to_string());
        }
        assert_eq!(Status::from_code(99), None);
        assert_eq!(Status::from_code(600), None);
    }

    #[test]
    fn phrases_and_bodies() {
        assert_eq!(Status::RANGE_NOT_SATISFIABLE.to_string(), "416 Range Not Satisfiable");
        assert_eq!(Status::from_code(299).unwrap().phrase(), "");
        let bodiless = [100, 101, 204, 304].map(|code| Status::from_code(code).unwrap());
        assert!(bodiless.iter().all(|status| !status.has_body()));
        assert!(Status::OK.has_body() && Status::NOT_FOUND.has_body());
    }
}
