//! Keys of loom's YAML.

use super::Translation;
use super::yaml::{self, Value};
use std::net::IpAddr;

const HOST: &str = "0.0.0.0";
const PORT: &str = "3060";

/// Translates the text of a file.
pub fn translate(text: &str) -> Result<Translation, String> {
    let mut out = Translation::of("loom");
    let (mut host, mut port) = (HOST.to_owned(), PORT.to_owned());
    for (key, value) in yaml::parse(text)? {
        match key.as_str() {
            "host" => host = one(&key, value)?,
            "port" => port = one(&key, value)?,
            "tokens" => tokens(&mut out, value)?,
            "dbHost" | "dbPort" | "dbName" | "storageMetaTable" | "storageLogsTable" => {
                out.leave(&key, "there is no database");
            }
            "storageDataDir" => {
                out.leave(&key, "logs there are not taken over; data_dir says where ours lie")
            }
            "storageTailTimeout" => out.leave(&key, "the end of a stream is known, not guessed from silence"),
            "storageCompress" => out.leave(&key, "streams are stored as they are sent"),
            _ => out.leave(&key, "no key of loom that is known here"),
        }
    }
    if host == HOST {
        out.note("all interfaces, as loom does; 127.0.0.1 keeps others on the network away");
    }
    let host: IpAddr = match host.as_str() {
        "localhost" => "127.0.0.1",
        host => host,
    }
    .parse()
    .map_err(|_| format!("host: {host:?} is no address; name the interface by its address"))?;
    let port: u16 = port.parse().map_err(|_| format!("port: {port:?} is no number below 65536"))?;
    out.set("listen", std::net::SocketAddr::new(host, port).to_string());
    Ok(out)
}

fn one(key: &str, value: Value) -> Result<String, String> {
    match value {
        Value::One(text) => Ok(text),
        Value::Null | Value::List(_) => Err(format!("{key}: not one value")),
    }
}

fn tokens(out: &mut Translation, value: Value) -> Result<(), String> {
    match value {
        Value::Null => out.note("loom's own file of defaults may hold tokens beside these"),
        Value::One(_) => return Err("tokens: not a list".into()),
        Value::List(tokens) => {
            out.note(
                "loom's own file of defaults may hold further tokens, token1 above all; here only these pass",
            );
            out.set("tokens", toml_edit::Value::Array(tokens.into_iter().collect()));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(text: &str) -> String {
        translate(text).unwrap_or_else(|error| panic!("{error}")).page("x")
    }

    #[test]
    fn every_key_is_translated_or_named() {
        let page = page(
            "host: 127.0.0.1 # here\nport: 4000\ntokens:\n  - 'a b'\n  - c\ndbHost: db\nstorageDataDir: /data\n\
             storageTailTimeout: 30s\nstorageCompress: true\nodd: 1\n",
        );
        for line in ["listen = \"127.0.0.1:4000\"", "tokens = [\"a b\", \"c\"]"] {
            assert!(page.lines().any(|known| known == line), "{line} in\n{page}");
        }
        for key in ["dbHost", "storageDataDir", "storageTailTimeout", "storageCompress", "odd"] {
            assert!(page.lines().any(|line| line.starts_with(&format!("#   {key}: "))), "{key} in\n{page}");
        }
    }

    #[test]
    fn defaults_of_loom_are_kept_in_mind() {
        assert!(page("").contains("listen = \"0.0.0.0:3060\""));
        assert!(page("host: localhost").contains("listen = \"127.0.0.1:3060\""));
        assert!(page("host: '::1'\nport: \"80\"").contains("listen = \"[::1]:80\""));
        assert!(!page("tokens: ~").contains("tokens ="));
    }

    #[test]
    fn what_cannot_be_is_refused_with_its_key() {
        for (text, key) in
            [("port: x", "port"), ("host: a.example", "host"), ("tokens: a", "tokens"), ("host: [a]", "host")]
        {
            let error = translate(text).map(|_| ()).unwrap_err();
            assert!(error.contains(key), "{text}: {error}");
        }
    }
}
