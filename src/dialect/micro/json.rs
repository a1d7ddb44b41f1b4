//! Services and messages as JSON: the keys of the original in its order, none left out.
//!
//! Reading takes keys in any case and ignores those it does not know, as Go does; writing escapes as Go does. What is
//! wrong is told in Go's words. Pure; runs on the connection's shard.

use crate::codec::json::{check, push_string};
use crate::codec::text::base64;
use crate::service::registry::{Action, Endpoint, Event, Metadata, Node, Service, Value};
use serde_json::Map;
use serde_json::Value as Json;
use std::collections::BTreeMap;
use std::fmt::Write;

/// Reads any JSON value; an error is in Go's words.
pub fn parse(text: &[u8]) -> Result<Json, String> {
    check(text).map_err(|error| error.to_string())?;
    serde_json::from_slice(text).map_err(|error| error.to_string())
}

/// Reads a service. `null` is one without anything.
pub fn service(json: &Json) -> Result<Service, String> {
    let Some(map) = object(json, "registry.Service")? else { return Ok(Service::default()) };
    Ok(Service {
        name: text(map, "name", "Service")?,
        version: text(map, "version", "Service")?,
        metadata: metadata(map, "Service")?,
        endpoints: list(map, "endpoints", "Service", endpoint)?,
        nodes: list(map, "nodes", "Service", node)?,
    })
}

/// What a key holds, in whatever case it is written.
pub fn field<'j>(map: &'j Map<String, Json>, name: &str) -> Option<&'j Json> {
    map.get(name)
        .or_else(|| map.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value))
}

/// A text; nothing and `null` are the empty one.
pub fn text(map: &Map<String, Json>, name: &str, of: &str) -> Result<String, String> {
    match field(map, name) {
        None | Some(Json::Null) => Ok(String::new()),
        Some(Json::String(text)) => Ok(text.clone()),
        Some(other) => Err(mismatch(other, of, name, "string")),
    }
}

/// `null` is none.
pub fn object<'j>(json: &'j Json, kind: &str) -> Result<Option<&'j Map<String, Json>>, String> {
    match json {
        Json::Object(map) => Ok(Some(map)),
        Json::Null => Ok(None),
        other => Err(format!("json: cannot unmarshal {} into Go value of type {kind}", kind_of(other))),
    }
}

fn node(json: &Json) -> Result<Node, String> {
    let Some(map) = object(json, "registry.Node")? else { return Ok(Node::default()) };
    let port = match field(map, "port") {
        None | Some(Json::Null) => 0,
        Some(port) => port.as_i64().ok_or_else(|| mismatch(port, "Node", "port", "int"))?,
    };
    let (id, address) = (text(map, "id", "Node")?, text(map, "address", "Node")?);
    Ok(Node { id, address, port, metadata: metadata(map, "Node")? })
}

fn endpoint(json: &Json) -> Result<Endpoint, String> {
    let Some(map) = object(json, "registry.Endpoint")? else { return Ok(Endpoint::default()) };
    let value = |name: &str| field(map, name).filter(|json| !json.is_null()).map(value).transpose();
    Ok(Endpoint {
        name: text(map, "name", "Endpoint")?,
        request: value("request")?,
        response: value("response")?,
        metadata: metadata(map, "Endpoint")?,
    })
}

fn value(json: &Json) -> Result<Value, String> {
    let Some(map) = object(json, "registry.Value")? else { return Ok(Value::default()) };
    let (name, kind) = (text(map, "name", "Value")?, text(map, "type", "Value")?);
    Ok(Value { name, kind, values: list(map, "values", "Value", value)? })
}

fn list<T>(
    map: &Map<String, Json>,
    name: &str,
    of: &str,
    element: impl Fn(&Json) -> Result<T, String>,
) -> Result<Vec<T>, String> {
    match field(map, name) {
        None | Some(Json::Null) => Ok(Vec::new()),
        Some(Json::Array(elements)) => elements.iter().map(element).collect(),
        Some(other) => Err(mismatch(other, of, name, "[]*registry")),
    }
}

fn metadata(map: &Map<String, Json>, of: &str) -> Result<Metadata, String> {
    let pairs = match field(map, "metadata") {
        None | Some(Json::Null) => return Ok(Metadata::new()),
        Some(Json::Object(pairs)) => pairs,
        Some(other) => return Err(mismatch(other, of, "metadata", "map[string]string")),
    };
    let text = |(key, value): (&String, &Json)| match value {
        Json::String(text) => Ok((key.clone(), text.clone())),
        Json::Null => Ok((key.clone(), String::new())),
        other => Err(mismatch(other, of, "metadata", "string")),
    };
    pairs.iter().map(text).collect()
}

fn mismatch(json: &Json, of: &str, name: &str, wanted: &str) -> String {
    format!("json: cannot unmarshal {} into Go struct field {of}.{name} of type {wanted}", kind_of(json))
}

fn kind_of(json: &Json) -> &'static str {
    match json {
        Json::Null => "null",
        Json::Bool(_) => "bool",
        Json::Number(_) => "number",
        Json::String(_) => "string",
        Json::Array(_) => "array",
        Json::Object(_) => "object",
    }
}

/// A list of services.
pub fn push_services(out: &mut String, services: &[Service]) {
    push_list(out, services, push_service);
}

/// What watchers are sent.
pub fn event(event: &Event) -> String {
    let action = match event.action {
        Action::Create => "create",
        Action::Update => "update",
        Action::Delete => "delete",
    };
    let mut out = format!("{{\"Action\":\"{action}\",\"Service\":");
    push_service(&mut out, &event.service);
    out.push('}');
    out
}

/// What subscribers are sent.
pub fn message(header: &BTreeMap<String, String>, body: &[u8]) -> String {
    let mut out = String::from("{\"Header\":");
    push_map(&mut out, header);
    let _ = write!(out, ",\"Body\":\"{}\"}}", base64(body));
    out
}

fn push_service(out: &mut String, service: &Service) {
    push_key(out, "{\"name\":", &service.name);
    push_key(out, ",\"version\":", &service.version);
    out.push_str(",\"metadata\":");
    push_map_or_null(out, &service.metadata);
    out.push_str(",\"endpoints\":");
    push_list_or_null(out, &service.endpoints, push_endpoint);
    out.push_str(",\"nodes\":");
    push_list_or_null(out, &service.nodes, push_node);
    out.push('}');
}

fn push_node(out: &mut String, node: &Node) {
    push_key(out, "{\"id\":", &node.id);
    push_key(out, ",\"address\":", &node.address);
    let _ = write!(out, ",\"port\":{},\"metadata\":", node.port);
    push_map(out, &node.metadata);
    out.push('}');
}

fn push_endpoint(out: &mut String, endpoint: &Endpoint) {
    push_key(out, "{\"name\":", &endpoint.name);
    for (key, value) in [(",\"request\":", &endpoint.request), (",\"response\":", &endpoint.response)] {
        out.push_str(key);
        match value {
            Some(value) => push_value(out, value),
            None => out.push_str("null"),
        }
    }
    out.push_str(",\"metadata\":");
    push_map_or_null(out, &endpoint.metadata);
    out.push('}');
}

fn push_value(out: &mut String, value: &Value) {
    push_key(out, "{\"name\":", &value.name);
    push_key(out, ",\"type\":", &value.kind);
    out.push_str(",\"values\":");
    push_list_or_null(out, &value.values, push_value);
    out.push('}');
}

fn push_key(out: &mut String, key: &str, value: &str) {
    out.push_str(key);
    push_string(out, value);
}

fn push_list_or_null<T>(out: &mut String, list: &[T], push: impl Fn(&mut String, &T)) {
    if list.is_empty() { out.push_str("null") } else { push_list(out, list, push) }
}

fn push_list<T>(out: &mut String, list: &[T], push: impl Fn(&mut String, &T)) {
    out.push('[');
    for (at, element) in list.iter().enumerate() {
        if at > 0 {
            out.push(',');
        }
        push(out, element);
    }
    out.push(']');
}

fn push_map_or_null(out: &mut String, map: &Metadata) {
    if map.is_empty() { out.push_str("null") } else { push_map(out, map) }
}

fn push_map(out: &mut String, map: &Metadata) {
    out.push('{');
    for (at, (key, value)) in map.iter().enumerate() {
        if at > 0 {
            out.push(',');
        }
        push_string(out, key);
        out.push(':');
        push_string(out, value);
    }
    out.push('}');
}

#[cfg(test)]
mod tests {
    use super::*;

    const WHOLE: &str = r#"{"name":"a\u003cb","version":"1","metadata":{"k":"v"},"endpoints":[{"name":"E.C","request":{"name":"r","type":"T","values":[{"name":"x","type":"int","values":null}]},"response":null,"metadata":null}],"nodes":[{"id":"n","address":"127.0.0.1","port":9,"metadata":{}}]}"#;

    #[test]
    fn a_service_comes_back_as_it_was() {
        let service = service(&parse(WHOLE.as_bytes()).unwrap()).unwrap();
        let mut out = String::new();
        push_service(&mut out, &service);
        assert_eq!(out, WHOLE);
    }

    #[test]
    fn a_name_alone_has_all_keys() {
        let named = Service { name: "foo".into(), ..Service::default() };
        let mut out = String::new();
        push_services(&mut out, &[named]);
        assert_eq!(out, r#"[{"name":"foo","version":"","metadata":null,"endpoints":null,"nodes":null}]"#);
    }

    #[test]
    fn keys_come_in_any_case_and_unknown_ones_are_ignored() {
        let text = br#"{"Name":"foo.bar","X":[],"Nodes":[{"Port":9091,"Address":"127.0.0.1","Id":"i","METADATA":{"Key":"V"}}]}"#;
        let service = service(&parse(text).unwrap()).unwrap();
        assert_eq!(service.name, "foo.bar");
        assert_eq!((service.nodes[0].port, service.nodes[0].id.as_str()), (9091, "i"));
        assert_eq!(service.nodes[0].metadata["Key"], "V", "the keys of a map keep their case");
    }

    #[test]
    fn what_is_wrong_is_told_in_gos_words() {
        let told = |text: &str| parse(text.as_bytes()).and_then(|json| service(&json)).expect_err(text);
        assert_eq!(told(""), "unexpected end of JSON input");
        assert_eq!(told("[]"), "json: cannot unmarshal array into Go value of type registry.Service");
        assert_eq!(
            told(r#"{"nodes":[{"port":"1"}]}"#),
            "json: cannot unmarshal string into Go struct field Node.port of type int"
        );
    }
}
