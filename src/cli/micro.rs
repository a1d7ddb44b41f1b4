//! `millpond micro --proxy_address=H:P …`: the commands of the micro command line, spoken to a running daemon.
//!
//! Output is that of the original: names one a line, tables with tabs, JSON indented with tabs. Invariant: the exit code
//! is 0 only if the daemon answered with 2xx and what it answered could be read; else 1, with what it said.
//! Runs in: a process of its own, one request after the other.

use std::fmt::Write as _;
use std::process::ExitCode;

use serde_json::{Value, json};

use super::args::{MicroArgs, MicroCommand, OneService};
use super::client::console;
use super::client::place::Peer;
use super::client::socket::Socket;
use super::subscribe;

/// Where a daemon is unless it is told.
const PROXY_ADDRESS: &str = "127.0.0.1:8081";

/// Runs the command.
pub fn run(args: &MicroArgs) -> ExitCode {
    if let MicroCommand::Sidecar(behind) = &args.command {
        return super::sidecar::run(&args.before, behind);
    }
    if let Some(flag) = args.before.first() {
        console::say("micro", &format!("--{flag} is a flag of sidecar, and none of questions"));
        return ExitCode::from(super::MISUSED);
    }
    match command(args) {
        Ok(text) => {
            print!("{text}");
            ExitCode::SUCCESS
        }
        Err(sentence) => {
            console::say("micro", &sentence);
            ExitCode::FAILURE
        }
    }
}

fn command(args: &MicroArgs) -> Result<String, String> {
    let variable = std::env::var("MICRO_PROXY_ADDRESS").ok().filter(|address| !address.is_empty());
    let address = args.proxy_address.clone().or(variable).unwrap_or_else(|| PROXY_ADDRESS.to_owned());
    let daemon = Daemon::of(&address)?;
    match &args.command {
        MicroCommand::List { .. } => {
            let services = parse(&daemon.ask("GET", "/registry", b"")?)?;
            let mut names: Vec<&str> =
                list(&services).iter().filter_map(|service| service["name"].as_str()).collect();
            names.sort_unstable();
            Ok(names.iter().map(|name| format!("{name}\n")).collect())
        }
        MicroCommand::Get(OneService { name, .. }) => {
            let services = daemon.versions(name)?;
            Ok(show(name, list(&services)))
        }
        MicroCommand::Register(service) => {
            daemon.ask("POST", "/registry", service.json.as_bytes()).map(|_| "ok\n".into())
        }
        MicroCommand::Deregister(service) => {
            daemon.ask("DELETE", "/registry", service.json.as_bytes()).map(|_| "ok\n".into())
        }
        MicroCommand::Call { service, method, request } => {
            let question = json!({ "method": method, "request": request, "service": service });
            let answer = daemon.ask("POST", "/rpc", question.to_string().as_bytes())?;
            parse(&answer)?;
            Ok(indented(&answer))
        }
        MicroCommand::Health { service } => {
            let mut out = format!("service  {service}\n\n");
            let mut all_well = true;
            for version in list(&daemon.versions(service)?) {
                let _ = write!(
                    out,
                    "version {}\n\nnode\t\taddress:port\t\tstatus\n",
                    version["version"].as_str().unwrap_or("")
                );
                for (id, address) in nodes(version) {
                    let status = match daemon.debug(service, &address, "Debug.Health") {
                        Ok(answer) => answer["status"].as_str().unwrap_or("unknown").to_owned(),
                        Err(error) => error,
                    };
                    all_well &= status == "ok";
                    let _ = writeln!(out, "{id}\t\t{address}\t\t{status}");
                }
            }
            if all_well { Ok(out) } else { Err(format!("not every node is ok\n{out}")) }
        }
        MicroCommand::Stats { service } => {
            let mut out = format!("service\t{service}\n\n");
            for version in list(&daemon.versions(service)?) {
                let _ = write!(
                    out,
                    "version\t{}\n\nnode\taddress:port\tstarted\tuptime\tmemory\tthreads\tgc\n",
                    version["version"].as_str().unwrap_or("")
                );
                for (id, address) in nodes(version) {
                    let answer = daemon.debug(service, &address, "Debug.Stats")?;
                    let fields =
                        ["started", "uptime", "memory", "threads", "gc"].map(|key| plain(&answer[key]));
                    let _ = writeln!(out, "{id}\t{address}\t{}", fields.join("\t"));
                }
            }
            Ok(out)
        }
        MicroCommand::Stream { topic, queue, from, durable, count } => {
            let params =
                [("queue", queue.as_deref()), ("from", from.as_deref()), ("durable", durable.as_deref())];
            let wanted = subscribe::Wanted { topic, params, count: *count };
            let socket = Socket::connect(&daemon.peer).map_err(|trouble| trouble.to_string())?;
            subscribe::run(socket, &daemon.authority, &token(), &wanted).map(|()| String::new())
        }
        MicroCommand::Sidecar(_) => unreachable!("it is not a question"),
        MicroCommand::Publish { topic, message } => {
            let topic = crate::codec::text::percent_encode(topic.as_bytes()).to_string();
            daemon.ask("POST", &format!("/broker?topic={topic}"), message.as_bytes()).map(|_| "ok\n".into())
        }
    }
}

/// Where the daemon is, and who may ask it.
struct Daemon {
    peer: Peer,
    authority: String,
}

impl Daemon {
    fn of(address: &str) -> Result<Self, String> {
        let wrong = || format!("--proxy_address {address:?} is not host:port");
        let (host, port) = address.rsplit_once(':').ok_or_else(wrong)?;
        let port = port.parse().map_err(|_| wrong())?;
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        Ok(Daemon { peer: Peer::Tcp { host, port }, authority: address.to_owned() })
    }

    /// The body of an answer with 2xx; of another one, what it says.
    fn ask(&self, method: &str, target: &str, body: &[u8]) -> Result<Vec<u8>, String> {
        let token = token();
        let head = format!(
            "{method} {target} HTTP/1.1\r\nHost: {}\r\nContent-Type: application/json\r\n{token}Content-Length: {}\r\n\
             Connection: close\r\n\r\n",
            self.authority,
            body.len()
        );
        let told = |trouble: super::client::socket::Trouble| trouble.to_string();
        let mut socket = Socket::connect(&self.peer).map_err(told)?;
        socket.send(&[head.as_bytes(), body].concat()).map_err(told)?;
        let answer = socket.answer().map_err(told)?;
        let body = socket.whole(&answer).map_err(told)?;
        match answer.is_success() {
            true => Ok(body),
            false => {
                Err(format!("{} {}: {}", answer.status, answer.reason, String::from_utf8_lossy(&body).trim()))
            }
        }
    }

    fn versions(&self, service: &str) -> Result<Value, String> {
        let name = crate::codec::text::percent_encode(service.as_bytes()).to_string();
        parse(&self.ask("GET", &format!("/registry?service={name}"), b"")?)
    }

    fn debug(&self, service: &str, address: &str, method: &str) -> Result<Value, String> {
        let question = json!({ "address": address, "method": method, "service": service });
        parse(&self.ask("POST", "/rpc", question.to_string().as_bytes())?)
    }
}

/// The field with the token, if there is one.
fn token() -> String {
    let token = std::env::var("MICRO_TOKEN").ok().filter(|token| !token.is_empty());
    token.map_or(String::new(), |token| format!("Authorization: Bearer {token}\r\n"))
}

fn parse(body: &[u8]) -> Result<Value, String> {
    serde_json::from_slice(body).map_err(|error| format!("the answer is not JSON: {error}"))
}

fn list(services: &Value) -> &[Value] {
    services.as_array().map_or(&[], Vec::as_slice)
}

fn show(name: &str, versions: &[Value]) -> String {
    let mut out = format!("service  {name}\n");
    for version in versions {
        let _ = write!(
            out,
            "\nversion {}\n\nID\tAddress\tPort\tMetadata\n",
            version["version"].as_str().unwrap_or("")
        );
        for node in list(&version["nodes"]) {
            let metadata: Vec<String> = node["metadata"]
                .as_object()
                .into_iter()
                .flatten()
                .map(|(key, value)| format!("{key}={}", plain(value)))
                .collect();
            let _ = writeln!(
                out,
                "{}\t{}\t{}\t{}",
                plain(&node["id"]),
                plain(&node["address"]),
                plain(&node["port"]),
                metadata.join(",")
            );
        }
    }
    out
}

/// Id and `host:port` of each node.
fn nodes(version: &Value) -> Vec<(String, String)> {
    let address = |node: &Value| match node["port"].as_i64() {
        None | Some(0) => plain(&node["address"]),
        Some(port) => format!("{}:{port}", plain(&node["address"])),
    };
    list(&version["nodes"]).iter().map(|node| (plain(&node["id"]), address(node))).collect()
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// JSON with its keys in their order and its numbers as they are, one element a line.
fn indented(json: &[u8]) -> String {
    let text = String::from_utf8_lossy(json);
    let (mut out, mut depth, mut in_string, mut escaped) = (String::new(), 0usize, false, false);
    let mut chars = text.chars().peekable();
    let line = |out: &mut String, depth: usize| {
        out.push('\n');
        out.extend(std::iter::repeat_n('\t', depth));
    };
    while let Some(char) = chars.next() {
        if in_string {
            out.push(char);
            in_string = escaped || char != '"';
            escaped = !escaped && char == '\\';
            continue;
        }
        match char {
            '"' => {
                in_string = true;
                out.push(char);
            }
            '{' | '[' => {
                while chars.next_if(|next| next.is_ascii_whitespace()).is_some() {}
                out.push(char);
                depth += 1;
                match chars.next_if(|next| matches!(next, '}' | ']')) {
                    Some(end) => {
                        depth -= 1;
                        out.push(end);
                    }
                    None => line(&mut out, depth),
                }
            }
            '}' | ']' => {
                depth = depth.saturating_sub(1);
                line(&mut out, depth);
                out.push(char);
            }
            ',' => {
                out.push(char);
                line(&mut out, depth);
            }
            ':' => out.push_str(": "),
            space if space.is_ascii_whitespace() => {}
            other => out.push(other),
        }
    }
    out.push('\n');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_indented_and_otherwise_as_it_came() {
        for (json, shown) in [
            ("1", "1\n"),
            (r#"{"b":1.0,"a":"x\"}, {\\"}"#, "{\n\t\"b\": 1.0,\n\t\"a\": \"x\\\"}, {\\\\\"\n}\n"),
            (r#"[ ] "#, "[]\n"),
            (r#"{"a" : [ 1 , {} ]}"#, "{\n\t\"a\": [\n\t\t1,\n\t\t{}\n\t]\n}\n"),
        ] {
            assert_eq!(indented(json.as_bytes()), shown, "{json}");
        }
    }
}
