//! Keys of vblob's `config.json`.

use super::Translation;
use serde_json::{Map, Value};

/// The file of accounts that vblob has when none is named.
const ACCOUNT_FILE: &str = "./account.json";

/// Translates the text of a file.
pub fn translate(text: &str) -> Result<Translation, String> {
    let Value::Object(keys) = serde_json::from_str(text).map_err(|error| error.to_string())? else {
        return Err("it is no JSON object".into());
    };
    let mut out = Translation::of("vblob");
    listen(&mut out, keys.get("port"))?;
    for (key, value) in &keys {
        match key.as_str() {
            "port" | "account_file" | "current_driver" => {}
            "keyID" => _ = out.set("key_id", text_of(key, value)?),
            "secretID" => _ = out.set("secret_id", text_of(key, value)?),
            "auth" => auth(&mut out, &text_of(key, value)?),
            "account_api" => accounts(&mut out, value, keys.get("account_file"))?,
            "debug" if *value == Value::Bool(true) => out.set_top("log_level", "debug"),
            "debug" => {}
            "drivers" => drivers(&mut out, value, keys.get("current_driver"))?,
            "logtype" | "logfile" => {
                out.leave(key, "the log goes to standard output, in the form that `log` names")
            }
            other => out.leave(other, "no key of vblob that is known here"),
        }
    }
    if let Some(file) = keys.get("account_file") {
        out.set("account_file", text_of("account_file", file)?);
    }
    Ok(out)
}

fn listen(out: &mut Translation, port: Option<&Value>) -> Result<(), String> {
    let port = match port {
        None => return Ok(()),
        Some(Value::String(text)) => text.trim().parse().ok(),
        Some(value) => value.as_u64().and_then(|port| u16::try_from(port).ok()),
    };
    let port: u16 = port.ok_or("port: not a number below 65536")?;
    out.note("vblob listens on all interfaces; 127.0.0.1 keeps others on the network away");
    out.set("listen", format!("0.0.0.0:{port}"));
    Ok(())
}

fn auth(out: &mut Translation, word: &str) {
    match word {
        "disabled" | "basic" | "s3" => _ = out.set("auth", word),
        "digest" => {
            out.note("as RFC 7616 has it, which clients know; those written for vblob's own arithmetic do not pass");
            out.set("auth", word);
        }
        _ => {
            out.note("the word that was there switches authentication off");
            out.set("auth", "disabled");
        }
    }
}

/// Vblob has a file of accounts even if none is named.
fn accounts(out: &mut Translation, api: &Value, file: Option<&Value>) -> Result<(), String> {
    let on = api.as_bool().ok_or("account_api: neither true nor false")?;
    out.set("account_api", on);
    if on && file.is_none() {
        out.set("account_file", ACCOUNT_FILE);
    }
    Ok(())
}

/// Each driver is an object with one key, its name. The current one, or the first, is what was served.
fn drivers(out: &mut Translation, drivers: &Value, current: Option<&Value>) -> Result<(), String> {
    let malformed = || "drivers: not a list of {\"name\":{\"type\":…,\"option\":{…}}}".to_owned();
    let mut named = Vec::new();
    for driver in drivers.as_array().ok_or_else(malformed)? {
        named.extend(driver.as_object().ok_or_else(malformed)?);
    }
    let current = match current {
        Some(name) => Some(text_of("current_driver", name)?),
        None => named.first().map(|(name, _)| (*name).clone()),
    };
    for (name, driver) in named {
        let key = format!("drivers.{name}");
        if Some(name) != current.as_ref() {
            out.leave(&key, "not the current driver");
            continue;
        }
        let option = match driver.get("option") {
            None => &Map::new(),
            Some(option) => option.as_object().ok_or_else(malformed)?,
        };
        match driver.get("type").and_then(Value::as_str) {
            Some("fs") => file_system(out, &key, option)?,
            Some("s3") => {
                out.leave(&key, "set blob.driver = \"s3\" and its place in [remote.s3] to keep blobs there")
            }
            _ => return Err(format!("{key}.type: neither fs nor s3")),
        }
    }
    Ok(())
}

fn file_system(out: &mut Translation, driver: &str, options: &Map<String, Value>) -> Result<(), String> {
    for (option, value) in options {
        let key = format!("{driver}.option.{option}");
        match option.as_str() {
            "quota" => _ = out.set("quota", format!("{}B", number_of(&key, value)?)),
            "obj_limit" => _ = out.set("object_limit", number_of(&key, value)?),
            "root" => out.leave(&key, "files there are not taken over; data_dir says where ours lie"),
            "compactor" | "collector" => out.leave(&key, "listings need nothing beside the daemon"),
            other if other.ends_with("_exepath") || other.ends_with("_interval") || other == "tmp_path" => {
                out.leave(&key, "nothing runs beside the daemon");
            }
            _ => out.leave(&key, "no option of vblob that is known here"),
        }
    }
    Ok(())
}

fn text_of(key: &str, value: &Value) -> Result<String, String> {
    value.as_str().map(str::to_owned).ok_or_else(|| format!("{key}: not a string"))
}

fn number_of(key: &str, value: &Value) -> Result<i64, String> {
    let number = match value {
        Value::String(text) => text.trim().parse().ok(),
        value => value.as_i64(),
    };
    number.filter(|number: &i64| *number >= 0).ok_or_else(|| format!("{key}: not a number"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(json: &str) -> String {
        translate(json).unwrap_or_else(|error| panic!("{error}")).page("x")
    }

    #[test]
    fn every_key_is_translated_or_named() {
        let page = page(
            r#"{"port":"9981","keyID":"id","secretID":"a\"b","auth":"basic","account_api":true,"debug":true,
                "logtype":"winston","current_driver":"b","novelty":1,"drivers":[
                {"a":{"type":"s3","option":{"key":"hidden"}}},
                {"b":{"type":"fs","option":{"root":"/data","quota":100000000,"obj_limit":"10","gc_interval":5,"odd":0}}}]}"#,
        );
        for line in [
            "log_level = \"debug\"",
            "listen = \"0.0.0.0:9981\"",
            "key_id = \"id\"",
            "secret_id = 'a\"b'",
            "auth = \"basic\"",
            "account_api = true",
            "account_file = \"./account.json\"",
            "quota = \"100000000B\"",
            "object_limit = 10",
        ] {
            assert!(page.lines().any(|known| known == line), "{line} in\n{page}");
        }
        for key in ["logtype", "novelty", "drivers.a", "drivers.b.option.root", "gc_interval", "option.odd"] {
            assert!(
                page.lines().any(|line| line.starts_with("#   ") && line.contains(key)),
                "{key} in\n{page}"
            );
        }
        assert!(!page.contains("hidden") && !page.contains("current_driver"), "{page}");
    }

    #[test]
    fn defaults_of_vblob_are_kept_in_mind() {
        assert!(page(r#"{"auth":"nonsense"}"#).contains("auth = \"disabled\""));
        assert!(!page("{}").contains("listen"));
        let first = page(r#"{"drivers":[{"a":{"type":"fs","option":{"quota":5}}}]}"#);
        assert!(first.contains("quota = \"5B\""), "{first}");
        assert!(page(r#"{"account_file":"f","account_api":false}"#).contains("account_file = \"f\""));
    }

    #[test]
    fn what_is_none_of_it_is_refused_with_its_key() {
        for (json, key) in [
            ("[]", "object"),
            ("{", "line 1"),
            (r#"{"port":70000}"#, "port"),
            (r#"{"keyID":5}"#, "keyID"),
            (r#"{"account_api":"yes"}"#, "account_api"),
            (r#"{"drivers":{}}"#, "drivers"),
            (r#"{"drivers":[{"a":{"type":"tape"}}]}"#, "drivers.a.type"),
            (r#"{"drivers":[{"a":{"type":"fs","option":{"quota":"much"}}}]}"#, "drivers.a.option.quota"),
        ] {
            let error = translate(json).map(|_| ()).unwrap_err();
            assert!(error.contains(key), "{json}: {error}");
        }
    }
}
