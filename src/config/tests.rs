//! Where values come from, and what is said of those that are wrong.

use super::*;
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::io::Write;

/// A file with this text, under a name that the tests replace by `F` in what comes out.
fn file(text: &str) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file
}

fn load(text: &str) -> Config {
    let file = file(text);
    match Config::load(&Sources::new(Some(file.path().into()))) {
        Ok(loaded) => loaded.config,
        Err(diagnostics) => panic!("{diagnostics}"),
    }
}

fn mistakes(text: &str) -> Vec<String> {
    let file = file(text);
    let refused = Config::load(&Sources::new(Some(file.path().into()))).expect_err(text);
    let place = file.path().display().to_string();
    refused.iter().map(|mistake| mistake.to_string().replace(&place, "F")).collect()
}

fn env(vars: &[(&str, &str)]) -> Sources {
    Sources::default().with_env(vars.iter().map(|(name, text)| (OsString::from(name), OsString::from(text))))
}

fn default_is(found: Vec<Change>) {
    assert_eq!(found, []);
}

const EXAMPLE: &str = include_str!("../../config/millpond.example.toml");

#[test]
fn nothing_set_means_the_defaults() {
    let loaded = Config::load(&Sources::default()).unwrap();
    default_is(Config::default().changes(&loaded.config));
    assert_eq!(loaded.warnings, []);
    default_is(Config::default().changes(&load("")));
}

#[test]
fn defaults_are_the_documented_ones() {
    let config = Config::default();
    let addresses: Vec<(&str, bool, String)> = config
        .services()
        .iter()
        .map(|service| (service.name, service.enabled, service.listen[0].to_string()))
        .collect();
    let expected = [
        ("admin", "127.0.0.1:9400"),
        ("loom", "127.0.0.1:3060"),
        ("vblob", "127.0.0.1:9981"),
        ("s3", "127.0.0.1:9000"),
        ("ion", "127.0.0.1:8080"),
        ("serpentine", "127.0.0.1:8000"),
        ("micro", "127.0.0.1:8081"),
    ];
    assert_eq!(addresses, expected.map(|(name, address)| (name, true, address.to_owned())));
    assert_eq!(config.segment_size, ByteSize(268_435_456));
    assert_eq!(config.limits.idle_timeout, Period::secs(75));
    assert_eq!(config.serpentine.retention.max_age, Period::secs(86_400));
}

#[test]
fn the_example_has_every_key_and_only_defaults() {
    default_is(Config::default().changes(&load(EXAMPLE)));
    let document: toml_edit::Document<&str> = toml_edit::Document::parse(EXAMPLE).unwrap();
    for key in Config::keys() {
        let mut item = Some(document.as_item());
        for part in key.split('.') {
            item = item.and_then(|item| item.as_table_like()).and_then(|table| table.get(part));
        }
        assert!(item.is_some(), "the example lacks {key}");
    }
}

#[test]
fn the_examples_commented_tables_are_right_too() {
    let mut within = false;
    let text: String = EXAMPLE
        .lines()
        .map(|line| {
            within = line.starts_with("# [[") || (within && !line.is_empty());
            let line = if within { line.trim_start_matches("# ") } else { line };
            format!("{line}\n")
        })
        .collect();
    // The listener of the example names a backend that the example only has in a comment.
    let text = text.replace("backends = {}", "backends = { docker = \"/run/docker.sock\" }");
    let config = load(&text);
    assert_eq!((config.ion.module.len(), config.proxy.len()), (1, 1));
    assert_eq!(config.serpentine.listener.len(), 1);
    assert_eq!(config.ion.module[0].listen, [Listen::loopback(8090)]);
    assert!(config.ion.module[0].secret.as_ref().is_some_and(|secret| secret.matches(b"change me")));
    assert_eq!(config.proxy[0].to, Listen::Unix("/run/app.sock".into()));
}

#[test]
fn every_variable_sets_one_key() {
    let keys = Config::keys();
    let names: Vec<String> = keys.iter().filter_map(|key| sources::variable_of(key)).collect();
    let distinct: BTreeSet<&String> = names.iter().collect();
    assert_eq!(distinct.len(), names.len());
    assert!(names.contains(&"MILLPOND_LOOM_LISTEN".to_owned()));
    assert!(names.contains(&"MILLPOND_DATA_DIR".to_owned()));
}

/// One mistake per row: the text, and the one line that reports it.
const MISTAKES: &[(&str, &str)] = &[
    (
        "\nshards = \"2\"",
        "F:2: shards = \"2\": expected an integer, found a string; accepted: a whole number from 0 to 1024",
    ),
    ("shards = 1025", "F:1: shards = 1025: out of range; accepted: a whole number from 0 to 1024"),
    (
        "shards = 1.5",
        "F:1: shards = 1.5: expected an integer, found a float; accepted: a whole number from 0 to 1024",
    ),
    (
        "durability = \"synk\"",
        "F:1: durability = \"synk\": unknown word, did you mean \"sync\"?; accepted: \"sync\", \"cache\"",
    ),
    ("durability = \"hope\"", "F:1: durability = \"hope\": unknown word; accepted: \"sync\", \"cache\""),
    ("data_dir = \"\"", "F:1: data_dir = \"\": the path is empty; accepted: a path"),
    (
        "\n\nsync_interval = \"fast\"",
        "F:3: sync_interval = \"fast\": not a whole number with a unit; accepted: a whole number and a unit (ns, us, ms, s, m, h, d), such as \"30s\"",
    ),
    (
        "sync_interval = \"0s\"",
        "F:1: sync_interval = \"0s\": must be longer than zero; accepted: a whole number and a unit (ns, us, ms, s, m, h, d), such as \"30s\"",
    ),
    (
        "segment_size = \"256mib\"",
        "F:1: segment_size = \"256mib\": unknown unit; accepted: a whole number and a unit (B, KB, MB, GB, TB, KiB, MiB, GiB, TiB), such as \"64MiB\"",
    ),
    (
        "segment_size = \"8GiB\"",
        "F:1: segment_size = \"8GiB\": out of bounds; accepted: 16MiB to 4GiB, a multiple of 4096 bytes",
    ),
    (
        "segment_size = \"100MB\"",
        "F:1: segment_size = \"100000000B\": not a multiple of 4096 bytes; accepted: 16MiB to 4GiB, a multiple of 4096 bytes",
    ),
    (
        "[loom]\n\nlisten = \"127.0.0.1:99999\"",
        "F:3: loom.listen = \"127.0.0.1:99999\": port out of range; accepted: \"host:port\" with port 0 to 65535, or \"unix:/path\"",
    ),
    (
        "[loom]\nlisten = [\n  \"127.0.0.1:0\",\n  \"unix:run/x\",\n]",
        "F:4: loom.listen = \"unix:run/x\": the path of a unix socket must be absolute; accepted: \"host:port\" with port 0 to 65535, or \"unix:/path\"",
    ),
    (
        "[loom]\nlisten = []",
        "F:2: loom.listen = []: no address; accepted: \"host:port\" with port 0 to 65535, or \"unix:/path\", a list of them, or loom.enabled = false",
    ),
    (
        "[loom]\nenabled = \"yes\"",
        "F:2: loom.enabled = \"yes\": expected a boolean, found a string; accepted: true or false",
    ),
    (
        "[loom]\ntls = { client_ca_file = \"/ca.pem\" }",
        "F:2: loom.tls.client_ca_file = \"/ca.pem\": only a part of what TLS needs; accepted: both loom.tls.cert_file and loom.tls.key_file",
    ),
    (
        "[loom]\nretention = { max_age = \"999ms\" }",
        "F:2: loom.retention.max_age = \"999ms\": shorter than a second; accepted: \"0s\", which keeps streams, or \"1s\" and more",
    ),
    (
        "[loom]\nquota = \"1GiB\"\n[loom.retention]\nmax_age = \"1s\"\nmax_bytes = \"2GiB\"",
        "F:5: loom.retention.max_bytes = \"2GiB\": never reached, because of loom.quota = \"1GiB\" (F:2); accepted: at most loom.quota, or \"0B\", which is no limit",
    ),
    (
        "[loom]\nquota = \"1GiB\"\nmax_stream_bytes = \"2GiB\"",
        "F:3: loom.max_stream_bytes = \"2GiB\": more than any stream could have, because of loom.quota = \"1GiB\" (F:2); accepted: at most loom.quota, or \"0B\", which is no limit",
    ),
    (
        "[loom]\nmax_streams = -1",
        "F:2: loom.max_streams = -1: out of range; accepted: a whole number from 0 to 9223372036854775807",
    ),
    (
        "[loom]\nlisen = \"127.0.0.1:1\"",
        "F:2: loom.lisen: unknown key, did you mean loom.listen?; accepted: enabled, listen, tokens, interrupted, retention, tls, quota, max_streams, max_stream_bytes",
    ),
    (
        "[loom]\nshards = 2",
        "F:2: loom.shards: unknown key, did you mean shards above the first [table]?; accepted: enabled, listen, tokens, interrupted, retention, tls, quota, max_streams, max_stream_bytes",
    ),
    (
        "[net]\nmeta_limit = \"1MiB\"",
        "F:2: net.meta_limit: unknown key, did you mean ion.meta_limit?; accepted: loopback_congestion",
    ),
    ("[net]\nzzz = 1", "F:2: net.zzz: unknown key; accepted: loopback_congestion"),
    (
        "[[net]]\n",
        "F:1: net: expected a table, found an array of tables; accepted: a table with the keys loopback_congestion",
    ),
    (
        "[net]\nloopback_congestion = \"a b\"",
        "F:2: net.loopback_congestion = \"a b\": not a name; accepted: the name of a congestion control, such as \"cubic\", or \"\" for the host's",
    ),
    (
        "[doors]\nshare = [\"loom\", \"vblob\"]",
        "F:2: doors.share = \"vblob\": unknown word; accepted: \"loom\", \"serpentine\", \"ion\", \"micro\"",
    ),
    (
        "[limits]\nmax_connections = 0",
        "F:2: limits.max_connections = 0: nobody could connect; accepted: a whole number from 1",
    ),
    (
        "[limits]\nmax_header_bytes = \"2MiB\"",
        "F:2: limits.max_header_bytes = \"2MiB\": out of bounds; accepted: 1KiB to 1MiB",
    ),
    (
        "[vblob]\nlisten = \"0.0.0.0:3060\"",
        "F:2: vblob.listen = \"0.0.0.0:3060\": the address is also wanted by loom.listen = \"127.0.0.1:3060\" (default); accepted: an address of its own, or port 0 for any free port",
    ),
    (
        "[loom]\nlisten = \"127.0.0.1:9981\"",
        "F:2: loom.listen = \"127.0.0.1:9981\": the address is also wanted by vblob.listen = \"127.0.0.1:9981\" (default); accepted: an address of its own, or port 0 for any free port",
    ),
    (
        "[loom]\nlisten = \"127.0.0.1:1\"\n[[proxy]]\nlisten = \"127.0.0.1:1\"\nto = \"unix:/x\"",
        "F:4: proxy[0].listen = \"127.0.0.1:1\": the address is also wanted by loom.listen = \"127.0.0.1:1\" (F:2); accepted: an address of its own, or port 0 for any free port",
    ),
    (
        "[vblob]\nauth = \"basic\"",
        "F:2: vblob.auth = \"basic\": nobody could sign in; accepted: vblob.key_id with vblob.secret_id, or vblob.account_file; or \"disabled\"",
    ),
    (
        "[vblob]\naccount_api = true",
        "F:2: vblob.account_api = true: accounts have no file, or nobody may bind them; accepted: true with vblob.account_file, vblob.key_id and vblob.secret_id; or false",
    ),
    (
        "[s3]\nlisten = \"0.0.0.0:9000\"",
        "F:2: s3.listen = \"0.0.0.0:9000\": reachable from off loopback while s3.access_keys is empty (default); accepted: an address on loopback, \"unix:/path\", or s3.access_keys = [{ id = \"…\", secret = \"…\" }]",
    ),
    (
        "[vblob]\ntls = { key_file = \"/k\" }",
        "F:2: vblob.tls.key_file = \"/k\": only a part of what TLS needs; accepted: both vblob.tls.cert_file and vblob.tls.key_file",
    ),
    (
        "[micro]\ntls = { key_file = \"/k\" }",
        "F:2: micro.tls.key_file = \"/k\": only a part of what TLS needs; accepted: both micro.tls.cert_file and micro.tls.key_file",
    ),
    (
        "[s3]\naccess_keys = [\n { id = \"a\" },\n]",
        "F:3: s3.access_keys[0].secret: the key is missing; accepted: a string that is not empty",
    ),
    (
        "[s3]\naccess_keys = \"hush\"",
        "F:2: s3.access_keys: expected a list of tables, found a string; accepted: [[s3.access_keys]]",
    ),
    (
        "[loom]\ntokens = \"hush\"",
        "F:2: loom.tokens = (secret): expected a list, found a string; accepted: a list of: a string that is not empty",
    ),
    ("[loom]\ntokens = [\"\"]", "F:2: loom.tokens = (secret): empty; accepted: a string that is not empty"),
    (
        "[remote.s3]\nendpoint = \"ftp://x\"",
        "F:2: remote.s3.endpoint = \"ftp://x\": not a URL; accepted: \"https://host\" or \"http://host:port\"",
    ),
    (
        "[ion]\nblob_provider = \"s3\"\n[remote.s3]\nendpoint = \"http://h\"\naccess_key_id = \"a\"",
        "F:2: ion.blob_provider = \"s3\": remote.s3.secret_access_key is not set; accepted: \"segments\", or all keys of [remote.s3]",
    ),
    (
        "[serpentine]\nkinds = [\n  0,\n  # nobody knows this one\n  2,\n]",
        "F:5: serpentine.kinds = 2: no such kind; accepted: 0, 1, 65",
    ),
    ("[serpentine]\nkinds = [0, 2]", "F:2: serpentine.kinds = 2: no such kind; accepted: 0, 1, 65"),
    (
        "[serpentine]\ncontainerd_socket = \"x.sock\"",
        "F:2: serpentine.containerd_socket = \"x.sock\": not absolute; accepted: a path that begins with /",
    ),
    (
        "[serpentine]\nbackends = { docker = 3 }",
        "F:2: serpentine.backends = 3: expected a string, found an integer; accepted: a path",
    ),
    (
        "[serpentine]\nallow_uids = [-1]",
        "F:2: serpentine.allow_uids = -1: out of range; accepted: a whole number from 0 to 4294967295",
    ),
    (
        "[serpentine]\nbackends = { docker = \"/d\" }\n[[serpentine.listener]]\nlisten = \"127.0.0.1:0\"\nbackend = \"podman\"",
        "F:5: serpentine.listener[0].backend = \"podman\": no such backend; accepted: a name from serpentine.backends: \"docker\"",
    ),
    (
        "[[serpentine.listener]]\nlisten = \"127.0.0.1:3060\"",
        "F:2: serpentine.listener[0].listen = \"127.0.0.1:3060\": the address is also wanted by loom.listen = \"127.0.0.1:3060\" (default); accepted: an address of its own, or port 0 for any free port",
    ),
    (
        "[serpentine]\ntls = { cert_file = \"/c.pem\" }",
        "F:2: serpentine.tls.cert_file = \"/c.pem\": TLS is not available in this version; accepted: no serpentine.tls, and a proxy that speaks TLS in front of a loopback or unix listener",
    ),
    (
        "[[proxy]]\nlisten = \"127.0.0.1:0\"",
        "F:1: proxy[0].to: the key is missing; accepted: \"host:port\" with port 0 to 65535, or \"unix:/path\"",
    ),
    (
        "[[proxy]]\nlisten = \"127.0.0.1:0\"\nto = \"127.0.0.1:0\"",
        "F:3: proxy[0].to = \"127.0.0.1:0\": nothing listens on port 0; accepted: \"host:port\" with port 1 to 65535, or \"unix:/path\"",
    ),
    (
        "[micro]\nserver_name = \"x\"",
        "F:2: micro.server_name = \"x\": micro.server_address is not set; accepted: both or neither",
    ),
    (
        "[micro]\nenable_tls = true",
        "F:2: micro.enable_tls = true: certificate and key are not named; accepted: true with micro.tls_cert_file and micro.tls_key_file, or false",
    ),
    (
        "[micro]\ntls_cert_file = \"/a\"\ntls = { cert_file = \"/c\", key_file = \"/k\" }",
        "F:3: micro.tls.cert_file = \"/c\": micro.tls_cert_file and its siblings name certificates too; accepted: one of the two forms",
    ),
];

#[test]
fn each_mistake_is_reported_once_with_key_value_line_and_what_is_accepted() {
    for (text, expected) in MISTAKES {
        assert_eq!(mistakes(text), [*expected], "{text}");
    }
}

#[test]
fn a_record_that_cannot_be_read_shifts_no_blame_to_the_next() {
    let text = "[[proxy]]\nlisten = \"127.0.0.1:x\"\nto = \"unix:/x\"\n\
                [[proxy]]\nlisten = \"127.0.0.1:3060\"\nto = \"unix:/x\"\n";
    let found = mistakes(text);
    assert!(found.len() == 1 && found[0].starts_with("F:2: proxy[0].listen = \"127.0.0.1:x\""), "{found:?}");
    let found = mistakes(&text.replace(":x", ":7000"));
    assert!(found.len() == 1 && found[0].starts_with("F:5: proxy[1].listen = "), "{found:?}");
}

#[test]
fn mistakes_come_all_at_once_by_line() {
    let text: String =
        "shards = -1\ndata_dri = \"x\"\n[loom]\nlisten = 3\n[micro]\nhandler = \"rcp\"\n".into();
    let starts: Vec<String> = mistakes(&text)
        .iter()
        .map(|line| line.split([' ', '=']).take(2).collect::<Vec<_>>().join(" "))
        .collect();
    assert_eq!(starts, ["F:1: shards", "F:2: data_dri:", "F:4: loom.listen", "F:6: micro.handler"]);
}

#[test]
fn text_that_is_not_toml_is_refused_with_its_line_and_without_quoting_it() {
    let found = mistakes("shards = 1\n[loom]\ntokens = [\"hush\" \"hush\"]\n");
    assert_eq!(found.len(), 1);
    assert!(found[0].starts_with("F:3: not valid TOML: ") && !found[0].contains("hush"), "{found:?}");
    assert!(mistakes("shards = 1\nshards = 2\n")[0].starts_with("F:2: not valid TOML: duplicate key"));
}

#[test]
fn a_file_that_is_missing_or_not_text_is_a_mistake() {
    let refused = Config::load(&Sources::new(Some("/nonexistent/millpond.toml".into()))).unwrap_err();
    assert!(refused.to_string().starts_with("/nonexistent/millpond.toml: cannot be read: "), "{refused}");
    let mut file = file("shards = 1\n");
    file.write_all(b"# \xff\n").unwrap();
    let refused = Config::load(&Sources::new(Some(file.path().into()))).unwrap_err().to_string();
    assert!(refused.ends_with(":2: not UTF-8 text; accepted: TOML"), "{refused}");
}

#[test]
fn a_long_fifo_dir_is_refused_at_the_first_byte_too_many() {
    let dir = |len: usize| format!("[serpentine]\nfifo_dir = \"/{}\"\n", "d".repeat(len - 1));
    assert!(load(&dir(94)).serpentine.fifo_dir.is_some());
    assert!(mistakes(&dir(95))[0].contains("too long for FIFOs in it"));
}

#[test]
fn modules_need_one_secret_and_names_of_their_own() {
    let module = |name: &str, rest: &str| {
        format!(
            "[[ion.module]]\nname = \"{name}\"\nevent_id = \"e-{name}\"\nparent_event_id = \"p\"\ncorrelation_id = \"c\"\n{rest}\n"
        )
    };
    let none = mistakes(&module("a", ""));
    assert_eq!(
        none,
        [
            "F:2: ion.module[0].secret: the secret is missing; accepted: exactly one of secret, secret_env and secret_file"
        ]
    );
    let two = mistakes(&module("a", "secret = \"s\"\nsecret_env = \"E\""));
    assert!(two[0].contains("more than one secret"), "{two:?}");
    let unset = mistakes(&module("a", "secret_env = \"MILLPOND_TEST_NO_SUCH\""));
    assert!(
        unset[0].starts_with("F:6: ion.module[0].secret_env") && unset[0].contains("not set"),
        "{unset:?}"
    );

    let twice = [module("a", "secret = \"hush\""), module("a", "secret = \"hush\"")].concat();
    let twice = mistakes(&twice);
    assert_eq!(twice.len(), 3);
    assert!(twice[0].contains("another module has this name (F:2)"), "{twice:?}");
    assert!(twice[1].contains("the same secret (F:2)") && !twice[1].contains("hush"), "{twice:?}");
    assert!(twice[2].contains("another module handles this event (F:3)"), "{twice:?}");
    // A port of its own tells a module apart as well as a secret does.
    load(
        &[module("a", "secret = \"hush\""), module("b", "secret = \"hush\"\nlisten = \"127.0.0.1:0\"")]
            .concat(),
    );
}

#[test]
fn module_secrets_come_from_variables_and_files() {
    let secret = file("from the file\n");
    let text = format!(
        "[[ion.module]]\nname = \"a\"\nevent_id = \"e\"\nparent_event_id = \"p\"\ncorrelation_id = \"c\"\nsecret_env = \"A\"\n\
         [[ion.module]]\nname = \"b\"\nevent_id = \"f\"\nparent_event_id = \"p\"\ncorrelation_id = \"c\"\nsecret_file = {:?}\n",
        secret.path().display().to_string()
    );
    let file = file(&text);
    let vars = [(OsString::from("A"), OsString::from("from the variable"))];
    let config = Config::load(&Sources::new(Some(file.path().into())).with_env(vars)).unwrap().config;
    let matches = |index: usize, text: &[u8]| {
        config.ion.module[index].secret.as_ref().is_some_and(|secret| secret.matches(text))
    };
    assert!(matches(0, b"from the variable") && matches(1, b"from the file"));
}

#[test]
fn variables_set_scalars_lists_maps_and_pairs() {
    let sources = env(&[
        ("MILLPOND_SHARDS", "3"),
        ("MILLPOND_LOOM_ENABLED", "false"),
        ("MILLPOND_LOOM_TOKENS", "one, two"),
        ("MILLPOND_DOORS_SHARE", ""),
        ("MILLPOND_SERPENTINE_RETENTION_MAX_AGE", "1h"),
        ("MILLPOND_SERPENTINE_BACKENDS", "docker=/run/docker.sock"),
        ("MILLPOND_S3_ACCESS_KEYS", "id:se:cret,other:x"),
        ("MILLPOND_REMOTE_S3_REGION", "eu"),
    ]);
    let Loaded { config, warnings } = Config::load(&sources).unwrap();
    assert_eq!(warnings, []);
    assert_eq!((config.shards, config.loom.enabled), (3, false));
    assert!(config.loom.tokens.len() == 2 && config.loom.tokens[1].matches(b"two"));
    assert_eq!(config.doors.share, []);
    assert_eq!(config.serpentine.retention.max_age, Period::secs(3600));
    assert_eq!(config.serpentine.backends["docker"], std::path::Path::new("/run/docker.sock"));
    assert!(config.s3.access_keys[0].secret.matches(b"se:cret"));
    assert_eq!((config.remote.s3.region.as_str(), config.s3.region.as_str()), ("eu", "us-east-1"));
    assert_eq!(config.origin("shards"), Origin::Env("MILLPOND_SHARDS".into()));
}

#[test]
fn unknown_variables_warn_and_name_the_nearest() {
    let loaded =
        Config::load(&env(&[("MILLPOND_LOOM_LISTN", "x"), ("MILLPONDS", "x"), ("OTHER", "x")])).unwrap();
    let expected = Warning::UnknownVariable {
        name: "MILLPOND_LOOM_LISTN".into(),
        nearest: "MILLPOND_LOOM_LISTEN".into(),
    };
    assert_eq!(loaded.warnings, [expected]);
}

#[test]
fn secrets_show_in_no_debug_output() {
    let sources = env(&[
        ("MILLPOND_LOOM_TOKENS", "hush"),
        ("MILLPOND_S3_ACCESS_KEYS", "id:hush"),
        ("MILLPOND_VBLOB_SECRET_ID", "hush"),
    ]);
    let loaded = Config::load(&sources).unwrap();
    let shown = format!("{loaded:?} {:?} {sources:?}", loaded.config.settings());
    assert!(shown.contains("(secret)") && !shown.contains("hush"), "{shown}");
}

#[test]
fn changes_name_keys_and_whether_a_reload_is_enough() {
    let new = load(
        "shards = 2\nlog_level = \"debug\"\n[loom]\ntokens = [\"t\"]\nlisten = \"127.0.0.1:1\"\ninterrupted = \"abort\"\nquota = \"1TiB\"\nmax_streams = 3\nmax_stream_bytes = \"1GiB\"\n\
         [serpentine]\nretention = { max_age = \"1h\" }\n[micro]\ntls = { cert_file = \"/c\", key_file = \"/k\" }\n",
    );
    let found = Config::default().changes(&new);
    let found: Vec<(&str, bool)> =
        found.iter().map(|change| (change.key.as_str(), change.reloadable)).collect();
    assert_eq!(
        found,
        [
            ("shards", false),
            ("log_level", true),
            ("loom.listen", false),
            ("loom.tokens", true),
            ("loom.interrupted", true),
            ("loom.quota", true),
            ("loom.max_streams", true),
            ("loom.max_stream_bytes", true),
            ("serpentine.retention.max_age", true),
            ("micro.tls.cert_file", false),
            ("micro.tls.key_file", false),
        ]
    );
    let renewed = load("[micro]\ntls = { cert_file = \"/c2\", key_file = \"/k\" }\n");
    let expected = Change { key: "micro.tls.cert_file".into(), reloadable: true };
    assert!(new.changes(&renewed).contains(&expected));
    default_is(new.changes(&new.clone()));
}

#[test]
fn a_reload_reads_the_file_again_and_keeps_what_flags_said() {
    let file = file("shards = 2\nlog_level = \"warn\"\n");
    let sources = Sources::new(Some(file.path().into())).with_flag("--shards", "shards", &["7".into()]);
    let old = Config::load(&sources).unwrap().config;
    std::fs::write(file.path(), "shards = 3\nlog_level = \"debug\"\n").unwrap();
    let new = old.reload().unwrap().config;
    assert_eq!((new.shards, new.log_level), (7, LogLevel::Debug));
    assert_eq!(new.origin("shards"), Origin::Flag("--shards".into()));

    std::fs::write(file.path(), "log_level = \"loud\"\n").unwrap();
    assert!(old.reload().unwrap_err().to_string().contains("log_level = \"loud\""));
}
