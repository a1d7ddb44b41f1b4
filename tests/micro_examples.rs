//! micro: the programs in `examples/micro` do what they say.

mod common;

use std::io::{BufRead, BufReader};
use std::process::{Child, ChildStdout, Command, Stdio};

use common::sidecar::{Sidecar, client};
use common::{eventually, get, request};
use rustix::process::{Pid, Signal, kill_process};

/// A program in Python, and the lines that it prints.
struct Program(Child, BufReader<ChildStdout>);

impl Program {
    #[track_caller]
    fn start(words: &[&str]) -> Self {
        let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/micro");
        let mut child = Command::new("python3")
            .args(words)
            .current_dir(dir)
            .stdout(Stdio::piped())
            .spawn()
            .expect("python3 is needed for this test");
        let out = BufReader::new(child.stdout.take().expect("piped"));
        Program(child, out)
    }

    #[track_caller]
    fn line(&mut self) -> String {
        let mut line = String::new();
        self.1.read_line(&mut line).expect("a line");
        line.trim_end().to_owned()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_service_in_python_registers_answers_and_takes_itself_out() {
    let sidecar = Sidecar::start(&["sidecar", "--address=127.0.0.1:0"]);
    let mut greeter = Program::start(&["greeter.py", "--micro", sidecar.micro()]);
    assert!(greeter.line().starts_with("serving on port "));
    let json = [("Content-Type", "application/json")];
    for _ in 0..3 {
        let answer = request(sidecar.micro(), "POST", "/greeter/say/hello", &json, br#"{"name": "John"}"#);
        assert_eq!(answer.expect(200).text(), r#"{"msg": "Hello John"}"#);
    }
    let (code, out, _) = client(sidecar.micro(), &["call", "go.micro.srv.greeter", "Say.Hello", "{}"]);
    assert_eq!((code, out.as_str()), (Some(0), "{\n\t\"msg\": \"Hello you\"\n}\n"));
    request(sidecar.micro(), "POST", "/greeter/say/nothing", &json, b"{}").expect(404);
    kill_process(Pid::from_raw(greeter.0.id() as i32).expect("a pid"), Signal::TERM)
        .expect("it takes signals");
    eventually("it ends", || greeter.0.try_wait().expect("waitable"));
    get(sidecar.micro(), "/registry?service=go.micro.srv.greeter").expect(404);
}

#[test]
fn a_subscriber_in_python_prints_what_is_published() {
    let sidecar = Sidecar::start(&["sidecar", "--address=127.0.0.1:0"]);
    let mut plain = Program::start(&["subscriber.py", "news", "--micro", sidecar.micro()]);
    let mut durable =
        Program::start(&["subscriber.py", "news", "--micro", sidecar.micro(), "--query=durable=me"]);
    assert_eq!((plain.line(), durable.line()), ("subscribed".to_owned(), "subscribed".to_owned()));
    for text in ["eins", "zwei"] {
        request(sidecar.micro(), "POST", "/broker?topic=news", &[], text.as_bytes()).expect(200);
        assert_eq!((plain.line(), durable.line()), (text.to_owned(), text.to_owned()));
    }
}
