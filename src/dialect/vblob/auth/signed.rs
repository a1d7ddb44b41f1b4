//! Signed requests: `Authorization: AWS id:signature`, the older way of S3 (HMAC-SHA1 over method, digest, type, date,
//! `x-amz-` fields and resource).
//!
//! The resource is the path as it was sent. Clients of this dialect sign a container without its last slash, and keys
//! as they are without their escapes: these forms are tried, too.

use super::{Known, REALM, credentials};
use crate::codec::text::{percent_decode, unbase64};
use crate::codec::time::parse_http_date;
use crate::config::Secret;
use crate::dialect::vblob::answer::Refusal;
use crate::net::http::RequestHead;
use crate::net::http::target::query_pairs;
use hmac::{Hmac, Mac};
use sha1::Sha1;
use std::collections::BTreeMap;

/// How far a date may be off.
const SKEW_SECONDS_MAX: u64 = 15 * 60;

/// Parameters of a query that are part of the resource.
const SUB_RESOURCES: &[&str] = &[
    "acl",
    "location",
    "logging",
    "notification",
    "partNumber",
    "policy",
    "requestPayment",
    "response-cache-control",
    "response-content-disposition",
    "response-content-encoding",
    "response-content-language",
    "response-content-type",
    "response-expires",
    "torrent",
    "uploadId",
    "uploads",
    "versionId",
    "versioning",
    "versions",
    "website",
];

/// Refuses a request without a good signature of somebody known, or with a date that is far from now.
pub fn judge(known: &Known<'_>, head: &RequestHead, now_seconds: u64) -> Result<(), Refusal> {
    let refuse = |message| Err(Refusal::Unauthorized(vec![format!(r#"AWS realm="{REALM}""#)], message));
    let pair = credentials(head, "AWS").and_then(|text| std::str::from_utf8(text).ok()?.rsplit_once(':'));
    let Some((id, signature)) = pair else { return refuse("A signature is needed: AWS id:signature") };
    match date(head) {
        None => return refuse("A date is needed that can be read"),
        Some(date) if date.abs_diff(now_seconds) > SKEW_SECONDS_MAX => {
            return refuse("The date is more than 15 minutes off");
        }
        Some(_) => {}
    }
    let signature = unbase64(signature.as_bytes());
    let is_good = signature.zip(known.secret(id)).is_some_and(|(signature, secret)| {
        resources(head).iter().any(|resource| is_signed(head, resource, secret, &signature))
    });
    if is_good { Ok(()) } else { refuse("Signature does not match") }
}

fn date(head: &RequestHead) -> Option<u64> {
    let text = head.header("x-amz-date").or_else(|| head.header("date"))?;
    parse_http_date(text).or_else(|| {
        let universal = [text.strip_suffix(b" +0000")?, b" GMT"].concat();
        parse_http_date(&universal)
    })
}

fn is_signed(head: &RequestHead, resource: &[u8], secret: &Secret, signature: &[u8]) -> bool {
    let mut mac = Hmac::<Sha1>::new_from_slice(secret.expose().as_bytes()).expect("any length is a key");
    mac.update(&message(head, resource));
    mac.verify_slice(signature).is_ok()
}

fn message(head: &RequestHead, resource: &[u8]) -> Vec<u8> {
    let field = |name| head.header(name).unwrap_or_default();
    let amz = amz_fields(head);
    // The date stands among the fields then.
    let date = if amz.contains_key("x-amz-date") { &b""[..] } else { field("date") };
    let first = [head.method_text().as_bytes(), field("content-md5"), field("content-type"), date];
    let mut message = first.join(&b'\n');
    message.push(b'\n');
    for (name, value) in amz {
        message.extend_from_slice(name.as_bytes());
        message.push(b':');
        message.extend_from_slice(&value);
        message.push(b'\n');
    }
    message.extend_from_slice(resource);
    message
}

fn amz_fields(head: &RequestHead) -> BTreeMap<String, Vec<u8>> {
    let mut fields: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    for (name, value) in head.all() {
        let name = name.to_ascii_lowercase();
        if !name.starts_with("x-amz-") {
            continue;
        }
        fields
            .entry(name)
            .and_modify(|known| {
                known.push(b',');
                known.extend_from_slice(value);
            })
            .or_insert_with(|| value.to_vec());
    }
    fields
}

/// The forms in which a client may have signed what it asks for.
fn resources(head: &RequestHead) -> Vec<Vec<u8>> {
    let path = head.path().as_bytes();
    let query = sub_resources(head);
    let mut paths = vec![path.to_vec()];
    if let Ok(decoded) = percent_decode(path) {
        paths.push(decoded.into_owned());
    }
    let container = head.path().trim_matches('/');
    if !container.is_empty() && !container.contains('/') {
        paths.push(format!("/{container}").into());
        paths.push(format!("/{container}/").into());
    }
    paths.into_iter().map(|path| [path, query.clone()].concat()).collect()
}

fn sub_resources(head: &RequestHead) -> Vec<u8> {
    let mut found: Vec<Vec<u8>> = query_pairs(head.query().unwrap_or_default())
        .filter(|(name, _)| SUB_RESOURCES.iter().any(|known| known.as_bytes() == &**name))
        .map(|(name, value)| match value {
            Some(value) if !value.is_empty() => [&name[..], b"=", &value[..]].concat(),
            _ => name.into_owned(),
        })
        .collect();
    if found.is_empty() {
        return Vec::new();
    }
    found.sort();
    [&b"?"[..], &found.join(&b'&')].concat()
}

#[cfg(test)]
mod tests {
    use super::super::testing::{main_account, request};
    use super::*;

    const ID: &str = "AKIAIOSFODNN7EXAMPLE";
    const SECRET: &str = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY";

    fn judged(line: &str, fields: &[(&str, &str)], now: &str) -> Result<(), Refusal> {
        let main = main_account(ID, SECRET);
        let known = Known { main: Some(&main), bound: None };
        judge(&known, &request(line, fields), parse_http_date(now.as_bytes()).unwrap())
    }

    fn signed(message: &str) -> String {
        let mut mac = Hmac::<Sha1>::new_from_slice(SECRET.as_bytes()).unwrap();
        mac.update(message.as_bytes());
        format!("AWS {ID}:{}", crate::codec::text::base64(&mac.finalize().into_bytes()))
    }

    const DATE: &str = "Tue, 27 Mar 2007 19:36:42 GMT";

    #[test]
    fn a_signature_over_the_parts_of_a_request_passes() {
        let field = signed(&format!("GET\n\n\n{DATE}\n/c/photos/puppy.jpg"));
        let fields = [("Date", DATE), ("Authorization", &*field)];
        judged("GET /c/photos/puppy.jpg", &fields, DATE).unwrap();
        for line in ["HEAD /c/photos/puppy.jpg", "GET /c/photos/puppy", "GET /c/photos/puppy.jpg?acl"] {
            assert!(judged(line, &fields, DATE).is_err(), "{line}");
        }
        judged("GET /c/photos/puppy.jpg?marker=x", &fields, DATE).expect("a plain parameter is not signed");
    }

    #[test]
    fn digest_type_and_fields_are_signed() {
        let field = signed(&format!(
            "PUT\nbWQ1\nimage/jpeg\n{DATE}\nx-amz-acl:public-read\nx-amz-meta-a:1,2\n/c/k?uploadId=x&uploads"
        ));
        let mut fields = vec![
            ("Date", DATE),
            ("Content-MD5", "bWQ1"),
            ("Content-Type", "image/jpeg"),
            ("X-Amz-Meta-A", "1"),
            ("x-amz-meta-a", "2"),
            ("x-amz-acl", "public-read"),
            ("Authorization", &*field),
        ];
        judged("PUT /c/k?uploads&uploadId=x&prefix=y", &fields, DATE).unwrap();
        fields[1].1 = "bWQ2";
        assert!(judged("PUT /c/k?uploads&uploadId=x&prefix=y", &fields, DATE).is_err());
    }

    #[test]
    fn a_container_may_be_signed_with_its_slash_or_without() {
        for (line, resource) in [
            ("GET /c/", "/c"),
            ("GET /c", "/c/"),
            ("GET /c/", "/c/"),
            ("GET /", "/"),
            ("GET /c/a%20b", "/c/a b"),
        ] {
            let field = signed(&format!("GET\n\n\n{DATE}\n{resource}"));
            judged(line, &[("Date", DATE), ("Authorization", &*field)], DATE)
                .unwrap_or_else(|refusal| panic!("{line} as {resource}: {refusal:?}"));
        }
    }

    #[test]
    fn dates_are_needed_and_must_be_near() {
        let field = signed(&format!("GET\n\n\n{DATE}\n/c"));
        let judge = |now| judged("GET /c", &[("Date", DATE), ("Authorization", &*field)], now);
        assert!(judge("Tue, 27 Mar 2007 19:51:42 GMT").is_ok());
        assert!(judge("Tue, 27 Mar 2007 19:51:43 GMT").is_err());
        assert!(judge("Tue, 27 Mar 2007 19:21:41 GMT").is_err());
        assert!(judged("GET /c", &[("Authorization", &*signed("GET\n\n\n\n/c"))], DATE).is_err());
        let numeric = "Tue, 27 Mar 2007 19:36:42 +0000";
        let field = signed(&format!("GET\n\n\n\nx-amz-date:{numeric}\n/c"));
        let fields = [("X-Amz-Date", numeric), ("Date", "whatever"), ("Authorization", &*field)];
        judged("GET /c", &fields, DATE).unwrap();
    }

    #[test]
    fn what_is_no_signature_is_challenged() {
        let good = signed(&format!("GET\n\n\n{DATE}\n/c"));
        for field in [
            "",
            "AWS",
            "AWS x",
            &good.replace(ID, "other"),
            &good.replace("AWS", "AWS4-HMAC-SHA256"),
            &format!("{good}="),
            &format!("AWS {ID}:"),
        ] {
            let refusal = judged("GET /c", &[("Date", DATE), ("Authorization", field)], DATE).unwrap_err();
            let Refusal::Unauthorized(challenges, _) = refusal else { panic!("{refusal:?}") };
            assert_eq!(challenges, [r#"AWS realm="vblob restricted area""#]);
        }
    }
}
